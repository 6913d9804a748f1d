"""hotrow and its peers: every operator as a call without arguments, on the same arrays.

gather writes into an array it is given; embedding_bag and coalesce return new ones, as torch's do. All optimizers work
on the state that the case holds, in place of arrays of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from typing import Any

import numpy as np

import hotrow
from benchmarks import loops
from benchmarks.cases import Array, Case
from benchmarks.operators import BETA1, BETA2, EPS, LR, adam_rate
from benchmarks.timing import Peer, nothing

HOTROW = ("hotrow", "hotrow Numba")

Call = Callable[[], Any]
Calls = dict[str, Callable[[Case], Call]]  # how each operator's call is made


# --- hotrow -----------------------------------------------------------------------------------------------------------


def _with_state(optimizer: hotrow.optim.Optimizer, *state: Array) -> hotrow.optim.Optimizer:
    for name, array in zip(optimizer.state, state, strict=True):
        optimizer._keep(name, array)  # instead of its own
    return optimizer


def _hotrow_adagrad(c: Case) -> hotrow.optim.Optimizer:
    return _with_state(hotrow.optim.Adagrad(c.table, LR, eps=EPS), c.squares)


def _hotrow_adam(c: Case) -> hotrow.optim.Optimizer:
    return _with_state(hotrow.optim.Adam(c.table, LR, betas=(BETA1, BETA2), eps=EPS), c.averages, c.squares)


def _hotrow_bag(c: Case, optimizer: hotrow.optim.Optimizer) -> Call:
    indices, offsets, grads = c.indices, c.offsets, c.bag_grads

    def train() -> Array:
        out = hotrow.embedding_bag(c.table, indices, offsets)
        optimizer.step(indices, grads, offsets=offsets)
        return out

    return train


_HOTROW: Calls = {
    "gather": lambda c: partial(hotrow.gather, c.table, c.indices, out=c.out),
    "embedding_bag": lambda c: partial(hotrow.embedding_bag, c.table, c.indices, c.offsets),
    "gather_int8": lambda c: partial(
        hotrow.gather, c.quantized.values, c.indices, scales=c.quantized.scales, out=c.out
    ),
    "embedding_bag_int8": lambda c: partial(
        hotrow.embedding_bag, c.quantized.values, c.indices, c.offsets, scales=c.quantized.scales
    ),
    "scatter_add": lambda c: partial(hotrow.scatter_add, c.table, c.indices, c.grads),
    "coalesce": lambda c: partial(hotrow.coalesce, c.indices, c.grads),
    "sgd_step": lambda c: partial(hotrow.optim.SGD(c.table, LR).step, c.indices, c.grads),
    "adagrad_step": lambda c: partial(_hotrow_adagrad(c).step, c.indices, c.grads),
    "adam_step": lambda c: partial(_hotrow_adam(c).step, c.indices, c.grads),
    "bag_rowwise_adagrad": lambda c: _hotrow_bag(
        c, _with_state(hotrow.optim.RowwiseAdagrad(c.table, LR, eps=EPS), c.row_squares)
    ),
    "bag_adagrad": lambda c: _hotrow_bag(c, _hotrow_adagrad(c)),
}


# --- NumPy ------------------------------------------------------------------------------------------------------------


def _numpy_bag(table: Array, indices: Array, offsets: Array) -> Array:
    return np.add.reduceat(np.take(table, indices, 0), offsets[:-1])


def _numpy_gather_int8(values: Array, scales: Array, indices: Array, out: Array | None = None) -> Array:
    return np.multiply(np.take(values, indices, 0), np.take(scales, indices)[:, None], out=out)


def _numpy_bag_int8(values: Array, scales: Array, indices: Array, offsets: Array) -> Array:
    return np.add.reduceat(_numpy_gather_int8(values, scales, indices), offsets[:-1])


def _numpy_coalesce(indices: Array, grads: Array, source: Array | None = None) -> tuple[Array, Array]:
    """With source, lookup i has the gradient grads[source[i]]."""
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return ordered[starts], np.add.reduceat(np.take(grads, order if source is None else source[order], 0), starts)


def _numpy_sgd(c: Case, rows: Array, g: Array) -> None:
    c.table[rows] -= LR * g


def _numpy_adagrad(c: Case, rows: Array, g: Array) -> None:
    c.squares[rows] = squares = c.squares[rows] + g * g
    c.table[rows] -= LR * g / (np.sqrt(squares) + EPS)


def _numpy_rowwise_adagrad(c: Case, rows: Array, g: Array) -> None:
    c.row_squares[rows] = squares = c.row_squares[rows] + np.square(g).mean(axis=1)
    c.table[rows] -= (LR / (np.sqrt(squares) + EPS))[:, None] * g


def _numpy_adam(steps: count[int], c: Case, rows: Array, g: Array) -> None:
    c.averages[rows] = m = BETA1 * c.averages[rows] + (1 - BETA1) * g
    c.squares[rows] = v = BETA2 * c.squares[rows] + (1 - BETA2) * g * g
    c.table[rows] -= LR * adam_rate(next(steps)) * m / (np.sqrt(v) + EPS)


Update = Callable[[Case, Array, Array], None]  # of the rows with these gradients


def _step(coalesce: Callable[..., tuple[Array, Array]], update: Update) -> Callable[[Case], Call]:
    return lambda c: lambda: update(c, *coalesce(c.indices, c.grads))


def _bag(
    bag: Callable[..., Array], coalesce: Callable[..., tuple[Array, Array]], update: Update
) -> Callable[[Case], Call]:
    def make(c: Case) -> Call:
        def train() -> Array:
            out = bag(c.table, c.indices, c.offsets)
            update(c, *coalesce(c.indices, c.bag_grads, c.bag_of))
            return out

        return train

    return make


_NUMPY: Calls = {
    "gather": lambda c: partial(np.take, c.table, c.indices, 0, c.out, "clip"),  # "raise" would buffer `out`
    "embedding_bag": lambda c: partial(_numpy_bag, c.table, c.indices, c.offsets),
    "gather_int8": lambda c: partial(_numpy_gather_int8, *c.quantized, c.indices, c.out),
    "embedding_bag_int8": lambda c: partial(_numpy_bag_int8, *c.quantized, c.indices, c.offsets),
    "scatter_add": lambda c: partial(np.add.at, c.table, c.indices, c.grads),
    "coalesce": lambda c: partial(_numpy_coalesce, c.indices, c.grads),
    "sgd_step": _step(_numpy_coalesce, _numpy_sgd),
    "adagrad_step": _step(_numpy_coalesce, _numpy_adagrad),
    "adam_step": lambda c: _step(_numpy_coalesce, partial(_numpy_adam, count(1)))(c),
    "bag_rowwise_adagrad": _bag(_numpy_bag, _numpy_coalesce, _numpy_rowwise_adagrad),
    "bag_adagrad": _bag(_numpy_bag, _numpy_coalesce, _numpy_adagrad),
}


# --- the loop one would write: serial Numba ---------------------------------------------------------------------------


def _loop_adagrad(c: Case, rows: Array, g: Array) -> None:
    loops.adagrad(c.table, c.squares, rows, g)


def _loop_rowwise_adagrad(c: Case, rows: Array, g: Array) -> None:
    loops.rowwise_adagrad(c.table, c.row_squares, rows, g)


def _loop_adam(steps: count[int], c: Case, rows: Array, g: Array) -> None:
    loops.adam(c.table, c.averages, c.squares, rows, g, np.float32(LR * adam_rate(next(steps))))


_LOOP: Calls = {
    "gather": lambda c: partial(loops.gather, c.table, c.indices, c.out),
    "embedding_bag": lambda c: partial(loops.embedding_bag, c.table, c.indices, c.offsets),
    "gather_int8": lambda c: partial(loops.gather_int8, *c.quantized, c.indices, c.out),
    "embedding_bag_int8": lambda c: partial(loops.embedding_bag_int8, *c.quantized, c.indices, c.offsets),
    "scatter_add": lambda c: partial(loops.scatter_add, c.table, c.indices, c.grads, np.float32(1)),
    "coalesce": lambda c: partial(loops.coalesce, c.indices, c.grads),
    "sgd_step": lambda c: partial(loops.scatter_add, c.table, c.indices, c.grads, np.float32(-LR)),
    "adagrad_step": _step(loops.coalesce, _loop_adagrad),
    "adam_step": lambda c: _step(loops.coalesce, partial(_loop_adam, count(1)))(c),
    "bag_rowwise_adagrad": _bag(loops.embedding_bag, loops.coalesce, _loop_rowwise_adagrad),
    "bag_adagrad": _bag(loops.embedding_bag, loops.coalesce, _loop_adagrad),
}


# --- torch ------------------------------------------------------------------------------------------------------------


def _tensors(*arrays: Array) -> list[Any]:
    import torch

    return [torch.from_numpy(array) for array in arrays]


def _torch_gather(c: Case) -> Call:
    import torch

    table, indices, out = _tensors(c.table, c.indices, c.out)
    return partial(torch.index_select, table, 0, indices, out=out)


def _torch_bag(c: Case) -> Call:
    import torch

    table, indices, offsets = _tensors(c.table, c.indices, c.offsets)
    bag = torch.nn.functional.embedding_bag
    return partial(bag, indices, table, offsets, mode="sum", include_last_offset=True)


def _torch_bag_int8(c: Case) -> Call:
    """Of the same numbers: torch's rows are bytes from 0 to 255, then a float32 scale and a float32 offset."""
    import torch

    values, scales = c.quantized
    packed = np.empty((c.rows, c.width + 8), np.uint8)
    packed[:, : c.width] = values.view(np.uint8) ^ 128  # values + 128
    packed[:, c.width :] = np.stack([scales, -128 * scales], axis=1).view(np.uint8)
    table, indices, offsets = _tensors(packed, c.indices, c.offsets)
    bag = torch.ops.quantized.embedding_bag_byte_rowwise_offsets
    return partial(bag, table, indices, offsets, include_last_offset=True)


def _torch_scatter(c: Case) -> Call:
    table, indices, grads = _tensors(c.table, c.indices, c.grads)
    return partial(table.index_add_, 0, indices, grads)


def _torch_gradient(c: Case) -> Any:
    """As the backward pass of nn.Embedding(sparse=True) makes it."""
    import torch

    indices, grads = _tensors(c.indices, c.grads)
    return torch.sparse_coo_tensor(indices[None], grads, c.table.shape, check_invariants=False)


def _torch_coalesce(c: Case) -> Call:
    def coalesce() -> tuple[Any, Any]:
        result = _torch_gradient(c).coalesce()
        return result.indices()[0], result.values()

    return coalesce


def _torch_optimizer(c: Case, name: str, state: dict[str, Any], **options: Any) -> tuple[Any, Any]:
    """The table as a parameter, and its optimizer."""
    import torch

    torch.sparse.check_sparse_tensor_invariants.disable()  # the default; saying so silences a warning
    parameter = torch.nn.Parameter(torch.from_numpy(c.table))
    optimizer = getattr(torch.optim, name)([parameter], lr=LR, **options)
    optimizer.state[parameter].update(state)
    return parameter, optimizer


def _torch_adagrad(c: Case) -> tuple[Any, Any]:
    return _torch_optimizer(c, "Adagrad", {"sum": _tensors(c.squares)[0]}, eps=EPS)


def _torch_adam(c: Case) -> tuple[Any, Any]:
    m, v = _tensors(c.averages, c.squares)
    state = {"step": 0, "exp_avg": m, "exp_avg_sq": v}
    return _torch_optimizer(c, "SparseAdam", state, betas=(BETA1, BETA2), eps=EPS)


def _torch_step(c: Case, parameter: Any, optimizer: Any) -> Call:
    parameter.grad = _torch_gradient(c)
    return optimizer.step  # type: ignore[no-any-return]


def torch_training(package: str, optimizer: str, state: dict[str, Any], **options: Any) -> Callable[[Case], Call]:
    """A step of training as torch's users write it: package.nn.EmbeddingBag, or package's own, and package.optim.

    `state`: what the optimizer begins with; a string names an array of the case, to be changed in place.
    """

    def make(c: Case) -> Call:
        import torch

        torch.sparse.check_sparse_tensor_invariants.disable()  # the default; saying so silences a warning
        layer = torch_layer(package, "EmbeddingBag", c, mode="sum", sparse=True, include_last_offset=True)
        optim = import_module(f"{package}.optim")
        trainer = getattr(optim, optimizer)([layer.weight], lr=LR, eps=EPS, **options)
        trainer.state[layer.weight].update(
            {name: _tensors(getattr(c, value))[0] if isinstance(value, str) else value for name, value in state.items()}
        )
        indices, offsets, grads = _tensors(c.indices, c.offsets, c.bag_grads)

        def train() -> Any:
            trainer.zero_grad()
            out = layer(indices, offsets)
            out.backward(grads)
            trainer.step()
            return out.detach()

        return train

    return make


def torch_layer(package: str, name: str, c: Case, freeze: bool = False, **options: Any) -> Any:
    """An Embedding or EmbeddingBag on the case's table."""
    layers = import_module({"torch": "torch.nn"}.get(package, package))
    return getattr(layers, name).from_pretrained(_tensors(c.table)[0], freeze=freeze, **options)


_TORCH: Calls = {
    "gather": _torch_gather,
    "embedding_bag": _torch_bag,
    "embedding_bag_int8": _torch_bag_int8,
    "scatter_add": _torch_scatter,
    "coalesce": _torch_coalesce,
    "sgd_step": lambda c: _torch_step(c, *_torch_optimizer(c, "SGD", {})),
    "adagrad_step": lambda c: _torch_step(c, *_torch_adagrad(c)),
    "adam_step": lambda c: _torch_step(c, *_torch_adam(c)),
    "bag_adagrad": torch_training("torch", "Adagrad", {"sum": "squares"}),
}


# --- FBGEMM: its table-batched embeddings on the CPU ------------------------------------------------------------------


def _fbgemm_bag(c: Case, optimizer: str, state: Array) -> Call:
    from fbgemm_gpu import split_table_batched_embeddings_ops_training as tbe
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode, EmbeddingLocation, PoolingMode

    tables = tbe.SplitTableBatchedEmbeddingBagsCodegen(
        [(c.rows, c.width, EmbeddingLocation.HOST, tbe.ComputeDevice.CPU)],
        optimizer=EmbOptimType[optimizer],
        learning_rate=LR,
        eps=EPS,
        pooling_mode=PoolingMode.SUM,
        bounds_check_mode=BoundsCheckMode.NONE,  # the fastest; hotrow always checks
        device="cpu",
    )
    tables.weights_host.data, tables.momentum1_host.data = (t.view(-1) for t in _tensors(c.table, state))
    indices, offsets, grads = _tensors(c.indices, c.offsets, c.bag_grads)

    def train() -> Any:
        out = tables(indices, offsets)
        out.backward(grads)
        return out.detach()

    return train


_FBGEMM: Calls = {
    "bag_rowwise_adagrad": lambda c: _fbgemm_bag(c, "EXACT_ROWWISE_ADAGRAD", c.row_squares),
    "bag_adagrad": lambda c: _fbgemm_bag(c, "EXACT_ADAGRAD", c.squares),
}

LIBRARIES: dict[str, tuple[str, Calls, Callable[[], object]]] = {
    "hotrow": ("hotrow", _HOTROW, partial(hotrow.use_backend, "native")),
    "hotrow Numba": ("numba", _HOTROW, partial(hotrow.use_backend, "numba")),
    "NumPy": ("numpy", _NUMPY, nothing),
    "Numba loop": ("numba", _LOOP, nothing),
    "torch": ("torch", _TORCH, nothing),
    "FBGEMM": ("fbgemm_gpu", _FBGEMM, nothing),
}


def peers(case: Case, operator: str, names: Iterable[str] = LIBRARIES) -> dict[str, Peer]:
    """The call of each library that is installed and has the operator."""
    chosen = {name: LIBRARIES[name] for name in names}
    return {
        name: Peer(calls[operator](case), setup)
        for name, (module, calls, setup) in chosen.items()
        if operator in calls and find_spec(module)
    }
