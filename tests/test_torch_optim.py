"""hotrow.torch.optim: rows step as by hotrow.optim and torch.optim, dense parameters as by torch.optim bit for bit, and
what torch builds around optimizers works.
"""

from __future__ import annotations

import copy
import gc
import inspect
import io
import pickle
import re
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cases import Array
from conftest import run_python
from hotrow import optim as arrays
from hotrow.optim import StepOptions

torch = pytest.importorskip("torch")
from hotrow.torch import Embedding, EmbeddingBag, optim  # noqa: E402
from hotrow.torch._in_backward import updates  # noqa: E402
from hotrow.torch._share import array  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")

ROWS, WIDTH, STEPS = 40, 13, 50
OPTIONS = {"clip_norm": 9.0, "clip_value": 2.0, "max_norm": 3.0, "check_finite": True, "weight_decay": 0.1}
ROW_STEPS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "SGD": (optim.SGD, {"lr": 0.1}),
    "momentum": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True} | OPTIONS),
    "Adagrad": (optim.Adagrad, {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.3} | OPTIONS),
    "RowwiseAdagrad": (optim.RowwiseAdagrad, {"lr": 0.1} | OPTIONS),
    "RMSprop": (optim.RMSprop, {"alpha": 0.9} | OPTIONS),
    "Adam": (optim.Adam, {}),
    "Adam-row": (optim.Adam, {"betas": (0.8, 0.95), "bias_correction": "row", "epsilon_hat": False} | OPTIONS),
    "AdamW": (optim.AdamW, {}),
}
each_rows = pytest.mark.parametrize("name", ROW_STEPS)


def _twin(make: type[Any], parameter: Any, options: dict[str, Any]) -> Any:
    """The optimizer of hotrow.optim that takes the same steps on the parameter's memory."""
    theirs = getattr(arrays, make.__name__)
    default = inspect.signature(theirs).parameters["options"].default.asdict()
    step_options = StepOptions(**default | {key: value for key, value in options.items() if key in default})
    rest = {key: value for key, value in options.items() if key not in default}
    return theirs(array(parameter), options=step_options, **rest)


def _zipf(rng: np.random.Generator, count: int = 60) -> Array:
    return (rng.zipf(1.3, count) - 1) % ROWS


def _table(dtype: Any = None, seed: int = 1) -> Any:
    return torch.nn.Parameter(torch.from_numpy(np.random.default_rng(seed).standard_normal((ROWS, WIDTH))).to(dtype))


def _sparse(indices: Array, grads: Array, dtype: Any = None) -> Any:
    values = torch.from_numpy(grads).to(dtype)
    return torch.sparse_coo_tensor(torch.from_numpy(indices)[None], values, (ROWS, WIDTH))


def _batch(rng: np.random.Generator, dtype: Any = None) -> tuple[Array, Array, Any]:
    """Indices, the gradient of each, and both as a sparse gradient."""
    indices = _zipf(rng)
    grads = rng.standard_normal((indices.size, WIDTH)).astype(np.float64 if dtype == torch.float64 else np.float32)
    gradient = _sparse(indices, grads, dtype)
    return indices, gradient._values().to(torch.promote_types(gradient.dtype, torch.float32)).numpy(), gradient


def _bits(value: Any) -> Any:
    """A parameter, a state_dict or a number, comparable."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.detach().contiguous().flatten().view(torch.uint8).tolist()
    if isinstance(value, dict):
        return {key: _bits(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_bits(v) for v in value]
    return value


def _assert_near(found: Any, want: Any, roundings: int = 2**12) -> None:
    """STEPS steps amplify roundings a little, each from sums in another order."""
    atol = roundings * torch.finfo(want.dtype).eps
    torch.testing.assert_close(found.detach(), want.detach(), rtol=0, atol=atol)


# --- sparse gradients -------------------------------------------------------------------------------------------------

AS_TORCH: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
    "SGD": (optim.SGD, torch.optim.SGD, {"lr": 0.1}),
    "SGD, maximize": (optim.SGD, torch.optim.SGD, {"lr": 0.1, "maximize": True}),
    "Adagrad": (optim.Adagrad, torch.optim.Adagrad, {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.3}),
    "Adagrad, defaults": (optim.Adagrad, torch.optim.Adagrad, {}),
    "SparseAdam": (optim.Adam, torch.optim.SparseAdam, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 0.01}),
    "SparseAdam, maximize": (optim.Adam, torch.optim.SparseAdam, {"maximize": True, "eps": 0.01}),
    "SparseAdam, defaults": (optim.Adam, torch.optim.SparseAdam, {}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", AS_TORCH)
def test_training_with_sparse_gradients_is_torchs(name: str, dtype: Any) -> None:
    """Through torch's own layer, by gradients that are not coalesced."""
    ours, theirs, options = AS_TORCH[name]
    tables = []
    for make in (ours, theirs):
        rng = np.random.default_rng(2)
        layer = torch.nn.Embedding(ROWS, WIDTH, sparse=True, _weight=_table(dtype).detach())
        layer.weight.requires_grad_()
        optimizer, goal = make(layer.parameters(), **options), torch.from_numpy(rng.standard_normal(WIDTH)).to(dtype)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = ((layer(torch.from_numpy(_zipf(rng))) - goal) ** 2).mean()
            loss.backward()
            assert not layer.weight.grad.is_coalesced()
            optimizer.step()
        tables.append(layer.weight)
    _assert_near(*tables)


DENSE_AS_TORCH: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
    "momentum": (optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    "nesterov": (optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    "Adagrad": (optim.Adagrad, torch.optim.Adagrad, {"lr": 0.1, "weight_decay": 0.1}),
    "RMSprop": (optim.RMSprop, torch.optim.RMSprop, {"weight_decay": 0.1, "eps": 0.01}),
    "Adam": (optim.Adam, torch.optim.Adam, {"weight_decay": 0.1, "eps": 0.01, "lr": 0.1}),
    "AdamW": (optim.AdamW, torch.optim.AdamW, {"lr": 0.1, "eps": 0.01}),
}


@pytest.mark.parametrize("name", DENSE_AS_TORCH)
def test_where_every_row_is_looked_up_lazy_is_dense(name: str) -> None:
    ours, theirs, options = DENSE_AS_TORCH[name]
    rng = np.random.default_rng(3)
    sparse, dense = _table(torch.float64), _table(torch.float64)
    rows = {"epsilon_hat": False} if name == "Adam" else {}
    optimizers = ours([sparse], **options, **rows), theirs([dense], **options)
    for _ in range(STEPS):
        indices = rng.permutation(np.r_[_zipf(rng), np.arange(ROWS)])
        sparse.grad = _sparse(indices, rng.standard_normal((indices.size, WIDTH)))
        dense.grad = sparse.grad.to_dense()
        for optimizer in optimizers:
            optimizer.step()
    _assert_near(sparse, dense)


@pytest.mark.parametrize("coalesced", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@each_rows
def test_steps_are_those_of_hotrow_optim(name: str, dtype: Any, coalesced: bool) -> None:
    """Bit for bit, tables and states, with every option."""
    make, options = ROW_STEPS[name]
    options = options | ({"stochastic_rounding": True, "seed": 5} if dtype.itemsize == 2 else {})
    parameter, other, rng = _table(dtype), _table(dtype), np.random.default_rng(4)
    optimizer, twin = make([parameter], **options), _twin(make, other, options)
    for _ in range(5):
        indices, grads, gradient = _batch(rng, dtype)
        if coalesced:
            gradient = gradient.coalesce()
            indices, grads = (
                gradient.indices()[0].numpy(),
                gradient.values().to(torch.promote_types(dtype, torch.float32)).numpy(),
            )
        parameter.grad = gradient
        optimizer.step()
        twin.step(indices, grads)
    assert _bits(parameter) == _bits(other)
    state = [_bits(value) for key, value in optimizer.state[parameter].items() if key != "step"]
    assert state == [_bits(torch.from_numpy(np.ascontiguousarray(a))) for a in twin.state.values()]


GRADIENTS: dict[str, Callable[[Any], Any]] = {
    "expanded": lambda _: torch.sparse_coo_tensor(
        torch.tensor([[2, 2, 5]]), torch.tensor(0.5).expand(3, WIDTH), (ROWS, WIDTH)
    ),
    "transposed": lambda _: torch.sparse_coo_tensor(
        torch.tensor([[2, 2, 5]]), torch.arange(3.0 * WIDTH).view(WIDTH, 3).T, (ROWS, WIDTH)
    ),
    "with a graph": lambda gradient: gradient.requires_grad_(),
    "empty": lambda _: torch.sparse_coo_tensor(torch.empty(1, 0), torch.empty(0, WIDTH), (ROWS, WIDTH)),
    "zeroed": lambda gradient: gradient.zero_(),
    "accumulated": lambda gradient: gradient + gradient,
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_of_any_kind(name: str) -> None:
    gradient = GRADIENTS[name](_batch(np.random.default_rng(5))[2])
    found, want = _table(torch.float32), _table(torch.float32)
    found.grad = gradient
    want.grad = gradient.detach().to_dense()
    optim.SGD([found], lr=0.1).step()
    torch.optim.SGD([want], lr=0.1).step()
    _assert_near(found, want, 8)


def test_states_of_torchs_sparse_momentum_are_made_dense() -> None:
    rng = np.random.default_rng(6)
    found, want = _table(torch.float64), _table(torch.float64)
    theirs = torch.optim.SGD([want], lr=0.1, momentum=0.9)
    for step in range(3):
        want.grad = _sparse(np.arange(ROWS), rng.standard_normal((ROWS, WIDTH)))
        found.grad = want.grad.clone()
        if step == 2:
            with torch.no_grad():
                found.copy_(want)
            ours = optim.SGD([found], lr=7)
            ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
            ours.step()
        theirs.step()
    _assert_near(found, want, 64)


# --- dense gradients, alone and beside tables -------------------------------------------------------------------------

TORCH: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = DENSE_AS_TORCH | {
    "SGD, dampening": (optim.SGD, torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5}),
    "SGD, foreach": (optim.SGD, torch.optim.SGD, {"momentum": 0.9, "foreach": True}),
    "SGD, fused": (optim.SGD, torch.optim.SGD, {"momentum": 0.9, "fused": True}),
    "Adagrad, decay": (optim.Adagrad, torch.optim.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    "RowwiseAdagrad": (optim.RowwiseAdagrad, torch.optim.Adagrad, {"lr": 0.1, "eps": 1e-8}),
    "RMSprop, centered": (optim.RMSprop, torch.optim.RMSprop, {"momentum": 0.9, "centered": True}),
    "Adam, amsgrad": (optim.Adam, torch.optim.Adam, {"amsgrad": True, "maximize": True}),
    "Adam, fused": (optim.Adam, torch.optim.Adam, {"fused": True}),
    "AdamW, tensor": (optim.AdamW, torch.optim.AdamW, {"lr": torch.tensor(0.1)}),
}
DENSE_ALONE = ("SGD, dampening", "RMSprop, centered", "Adam, amsgrad")  # refuse sparse gradients
each_torch = pytest.mark.parametrize("name", TORCH)


def _dense(dtype: Any = torch.float32) -> list[Any]:
    rng = np.random.default_rng(7)
    return [torch.nn.Parameter(torch.from_numpy(rng.standard_normal(s)).to(dtype)) for s in ((4, 3), (3,), ())]


def _set_gradients(parameters: list[Any], rng: np.random.Generator) -> None:
    for parameter in parameters:
        parameter.grad = torch.from_numpy(np.asarray(rng.standard_normal(parameter.shape))).to(parameter.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@each_torch
def test_dense_gradients_are_torchs_bit_for_bit(name: str, dtype: Any) -> None:
    """Parameters and states, which either class loads from the other."""
    ours, theirs, options = TORCH[name]
    runs = []
    for first, second in ((ours, theirs), (theirs, ours), (theirs, theirs)):
        parameters, rng = _dense(dtype), np.random.default_rng(8)
        optimizer = first(parameters, **options)
        for step in range(12):
            if step == 6:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = second(parameters, lr=9)
                optimizer.load_state_dict(state)
            _set_gradients(parameters, rng)
            optimizer.step()
        runs.append((_bits(parameters), _bits(optimizer.state_dict()["state"])))
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("one_group", [True, False])
@pytest.mark.parametrize("name", [name for name in TORCH if name not in DENSE_ALONE])
def test_tables_and_dense_parameters_side_by_side(name: str, one_group: bool) -> None:
    """Each as if it were alone."""
    ours, theirs, options = TORCH[name]
    (table, alone), dense, twins = (_table(torch.float32) for _ in range(2)), _dense(), _dense()
    groups = [dense[0], table, *dense[1:]] if one_group else [{"params": dense}, {"params": [table]}]
    both, rows, torchs = ours(groups, **options), ours([alone], **options), theirs(twins, **options)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        _set_gradients(dense, rng)
        for twin, parameter in zip(twins, dense, strict=True):
            twin.grad = parameter.grad.clone()
        table.grad = alone.grad = _batch(rng)[2]
        for optimizer in (both, rows, torchs):
            optimizer.step()
    assert _bits(dense) == _bits(twins)
    assert _bits(table) == _bits(alone)
    assert _bits(both.state[table]) == _bits(rows.state[alone])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@each_rows
def test_a_table_may_have_dense_gradients_now_and_then(name: str, dtype: Any) -> None:
    make, options = ROW_STEPS[name]
    table, rng = _table(dtype), np.random.default_rng(9)
    optimizer = make([table], **options)
    for step in range(4):
        table.grad = _batch(rng, dtype)[2] if step % 2 else _batch(rng, dtype)[2].to_dense()
        before = table.detach().clone()
        optimizer.step()
        assert not torch.equal(table, before)
    assert torch.isfinite(table).all()
    if "step" in optimizer.state[table]:
        assert optimizer.state[table]["step"] == 4


@each_rows
def test_a_model_may_change_its_dtype(name: str) -> None:
    make, options = ROW_STEPS[name]
    table, rng = _table(torch.float32), np.random.default_rng(16)
    optimizer = make([table], **options)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float32):
        table.grad, table.data = None, table.data.to(dtype)
        table.grad = _batch(rng, dtype)[2]
        before = table.detach().clone()
        optimizer.step()
        assert not torch.equal(table, before)
    assert torch.isfinite(table).all()


# --- what torch builds around optimizers ------------------------------------------------------------------------------

SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 0.9**t),
    "MultiplicativeLR": lambda o: torch.optim.lr_scheduler.MultiplicativeLR(o, lambda t: 0.9),
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 5]),
    "ConstantLR": lambda o: torch.optim.lr_scheduler.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: torch.optim.lr_scheduler.LinearLR(o, total_iters=4),
    "ExponentialLR": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 8, 2.0),
    "CosineAnnealingLR": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 8),
    "CosineAnnealingWarmRestarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "ReduceLROnPlateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=1),
    "CyclicLR": lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, 3, cycle_momentum=_cycles(o)),
    "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, 20, cycle_momentum=_cycles(o)),
    "SequentialLR": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o, [SCHEDULERS["ConstantLR"](o), SCHEDULERS["ExponentialLR"](o)], [3]
    ),
    "ChainedScheduler": lambda o: torch.optim.lr_scheduler.ChainedScheduler(
        [SCHEDULERS["LinearLR"](o), SCHEDULERS["ExponentialLR"](o)]
    ),
}


def _cycles(optimizer: Any) -> bool:
    return bool(optimizer.defaults.get("momentum") or "betas" in optimizer.defaults)


def test_all_schedulers_are_tried() -> None:
    assert set(torch.optim.lr_scheduler.__all__) == SCHEDULERS.keys() | {"LRScheduler"}


@pytest.mark.parametrize("as_tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("name", ["momentum", "Adagrad", "AdamW"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers(scheduler: str, name: str, as_tensor: bool) -> None:
    """The rates are torch's, rows step by the one in force, and dense parameters as torch has it."""
    ours, theirs, options = DENSE_AS_TORCH[name]
    lr = torch.tensor(0.1, dtype=torch.float64) if as_tensor else 0.1
    table, dense, twins = _table(torch.float64), _dense(torch.float64), _dense(torch.float64)
    alone = _table(torch.float64)
    rows = _twin(ours, alone, options)
    found, want = ours([table, *dense], **options | {"lr": lr}), theirs(twins, **options | {"lr": copy.deepcopy(lr)})
    schedules = SCHEDULERS[scheduler](found), SCHEDULERS[scheduler](want)
    rng = np.random.default_rng(10)
    for _ in range(10):
        indices, grads, table.grad = _batch(rng, torch.float64)
        _set_gradients(dense, rng)
        for twin, parameter in zip(twins, dense, strict=True):
            twin.grad = parameter.grad.clone()
        group = found.param_groups[0]
        rows.lr = float(group["lr"])
        if "momentum" in group:
            rows.momentum = float(group["momentum"])
        if "betas" in group:
            rows.betas = tuple(map(float, group["betas"]))
        rows.step(indices, grads)
        for optimizer, schedule in zip((found, want), schedules, strict=True):
            optimizer.step()
            schedule.step(*([1.0] if scheduler == "ReduceLROnPlateau" else []))
        assert float(group["lr"]) == float(want.param_groups[0]["lr"])
    assert _bits(dense) == _bits(twins)
    assert _bits(table) == _bits(alone)


def _mixed(name: str, dtype: Any = torch.float32, **more: Any) -> tuple[list[Any], Any]:
    make, options = ROW_STEPS[name]
    parameters = [_table(dtype), *_dense()]
    return parameters, make(parameters, **options | more)


def _train(parameters: list[Any], optimizer: Any, first: int, last: int) -> None:
    for seed in range(first, last):
        rng = np.random.default_rng(seed)
        _set_gradients(parameters[1:], rng)
        parameters[0].grad = _batch(rng, parameters[0].dtype)[2]
        optimizer.step()


@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@each_rows
def test_an_interruption_changes_nothing(name: str, dtype: Any, in_backward: bool) -> None:
    """Through a file that torch.load takes as weights alone."""
    parameters, optimizer = _mixed(name, dtype, in_backward=in_backward)
    _train(parameters, optimizer, 0, 3)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "parameters": parameters}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    others, resumed = _mixed(name, dtype, lr=7.0, in_backward=in_backward)
    with torch.no_grad():
        for other, value in zip(others, saved["parameters"], strict=True):
            other.copy_(value)
    resumed.load_state_dict(saved["optimizer"])
    assert _bits(resumed.state_dict()) == _bits(optimizer.state_dict())
    for each in ((parameters, optimizer), (others, resumed)):
        _train(*each, 3, 6)
    assert _bits(others) == _bits(parameters)
    assert _bits(resumed.state_dict()) == _bits(optimizer.state_dict())
    assert (others[0] in updates) is in_backward


@pytest.mark.parametrize("again", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"])
@each_rows
def test_copies_are_optimizers_of_their_own(name: str, again: Callable[[Any], Any]) -> None:
    parameters, optimizer = _mixed(name, in_backward=True)
    _train(parameters, optimizer, 0, 2)
    other = again(optimizer)
    others = other.param_groups[0]["params"]
    assert others[0] in updates
    _train(others, other, 2, 4)
    _train(parameters, optimizer, 2, 4)
    assert _bits(others) == _bits(parameters)
    indices, grads, _ = _batch(np.random.default_rng(5))
    updates[others[0]](indices, grads)
    assert _bits(others) != _bits(parameters)
    other.add_param_group({"params": [_table(torch.float32)]})
    assert repr(other).startswith(type(optimizer).__name__)


def test_adamw_decouples_without_a_word_in_the_group() -> None:
    """torch 2.4's AdamW is not an Adam and has no such option."""
    parameters = []
    for forget in (False, True):
        table = _table(torch.float32)
        optimizer = optim.AdamW([table], weight_decay=0.5)
        if forget:
            del optimizer.param_groups[0]["decoupled_weight_decay"]
        table.grad = _batch(np.random.default_rng(18))[2]
        optimizer.step()
        parameters.append(_bits(table))
    assert parameters[0] == parameters[1]


def test_states_of_other_classes_of_torch() -> None:
    """SparseAdam's goes on as Adam; torch's Adagrad knows what ours knows."""
    for ours, theirs in ((optim.Adam, torch.optim.SparseAdam), (optim.Adagrad, torch.optim.Adagrad)):
        found, want = _table(torch.float64), _table(torch.float64)
        optimizer, rng = theirs([want], lr=0.1), np.random.default_rng(11)
        _, _, want.grad = _batch(rng, torch.float64)
        optimizer.step()
        with torch.no_grad():
            found.copy_(want)
        resumed = ours([found])
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for _ in range(3):
            _, _, gradient = _batch(rng, torch.float64)
            found.grad, want.grad = gradient, gradient.clone()
            optimizer.step(), resumed.step()
        _assert_near(found, want)
        if ours is optim.Adagrad:
            back = theirs([want])
            back.load_state_dict(resumed.state_dict())
            assert back.param_groups[0]["lr"] == 0.1


def test_closures_hooks_and_groups() -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    torch.optim.SGD([torch.zeros(1)], lr=1)  # torch then wraps the step that ours calls
    table, dense = _table(torch.float32), _dense()[0]
    optimizer = optim.SGD([table], lr=0.1)
    optimizer.add_param_group({"params": dense, "lr": 0.5, "clip_norm": 1.0})
    assert [group["clip_norm"] for group in optimizer.param_groups] == [None, 1.0]
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    everywhere = register_optimizer_step_post_hook(lambda *_: calls.append("everywhere"))
    before = table.detach().clone(), dense.detach().clone()

    def closure() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.embedding(torch.tensor([3, 3]), table, sparse=True).sum() + dense.sum()
        loss.backward()
        return loss

    try:
        with torch.no_grad():
            loss = optimizer.step(closure)
    finally:
        everywhere.remove()
    assert calls == ["before", "after", "everywhere"]
    assert loss.item() == pytest.approx((2 * before[0][3].sum() + before[1].sum()).item(), abs=1e-5)
    torch.testing.assert_close(table[3], before[0][3] - 0.2)
    torch.testing.assert_close(dense, before[1] - 0.5)
    optimizer.zero_grad(set_to_none=False)
    assert table.grad.is_sparse
    assert dense.grad.count_nonzero() == 0
    optimizer.step()
    optimizer.zero_grad()
    assert table.grad is None


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("make", [optim.SGD, optim.Adagrad, optim.Adam, optim.AdamW])
def test_gradient_scaling(make: type[Any], fused: bool) -> None:
    """A fused step of torch's divides gradients by the scale itself, which rows know nothing of."""
    tables, others = zip(*[(_table(torch.float32), _table(torch.float32, 2)) for _ in range(2)], strict=True)
    optimizers = [make(both, lr=0.1, fused=fused) for both in zip(tables, others, strict=True)]
    scaler, rng = torch.amp.GradScaler("cpu", init_scale=1024.0), np.random.default_rng(17)
    scaler.scale(torch.ones(()))  # it makes its own tensors now
    for _ in range(3):
        gradient = _batch(rng)[2].float()
        tables[0].grad, others[0].grad = gradient * 1024, gradient.to_dense() * 1024
        tables[1].grad, others[1].grad = gradient, gradient.to_dense()
        scaler.step(optimizers[0])
        scaler.update()
        optimizers[1].step()
    assert _bits(tables[0]) == _bits(tables[1])
    torch.testing.assert_close(others[0], others[1])


def test_steps_of_threads_are_all_counted() -> None:
    """Those that begin before another one has ended, as of threads that share a table."""
    table = _table(torch.float32)
    optimizer = optim.Adam([table])
    indices, grads, _ = _batch(np.random.default_rng(18))
    steps = [optimizer._checked(optimizer.param_groups[0], table, indices, grads) for _ in range(3)]
    for step in steps:
        step()
    assert optimizer.state[table]["step"] == 3


def test_autograd_notices_that_a_table_changed() -> None:
    table = _table(torch.float32)
    optimizer = optim.SGD([table], lr=0.1)
    loss = (table**2).sum()
    table.grad = _batch(np.random.default_rng(12))[2]
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_compiled_steps() -> None:
    torch._dynamo.reset()
    found = []
    for wrap in (lambda step: step, lambda step: torch.compile(step, backend="eager")):
        parameters, optimizer = _mixed("Adam")
        step = wrap(optimizer.step)
        for seed in range(3):
            rng = np.random.default_rng(seed)
            _set_gradients(parameters[1:], rng)
            parameters[0].grad = _batch(rng)[2]
            step()
        found.append(_bits(parameters))
    assert found[0] == found[1]


def test_subclasses_of_users() -> None:
    class Mixin:
        pass

    class Mine(Mixin, optim.SGD):
        def __init__(self, params: Any) -> None:
            super().__init__(params, lr=0.5)

    table, dense = _table(torch.float32), _dense()[0]
    before = table.detach().clone(), dense.detach().clone()
    table.grad, dense.grad = _sparse(np.array([4]), np.ones((1, WIDTH), np.float32)), torch.ones_like(dense)
    Mine([table, dense]).step()
    torch.testing.assert_close(table[4], before[0][4] - 0.5)
    torch.testing.assert_close(dense, before[1] - 0.5)
    assert list(inspect.signature(Mine).parameters) == ["params"]


def test_signatures_are_torchs_and_more() -> None:
    for name in optim.__all__:
        ours, theirs = (
            inspect.signature(getattr(module, name.removeprefix(prefix))).parameters
            for module, prefix in ((optim, ""), (torch.optim, "Rowwise"))
        )
        added = {"in_backward", "clip_norm", "clip_value", "max_norm", "check_finite", "stochastic_rounding", "seed"}
        added |= {"bias_correction", "epsilon_hat"} if "Adam" in name else set()
        assert ours.keys() == theirs.keys() | added
        changed = [key for key in theirs if ours[key].default != theirs[key].default]
        assert changed == (["eps"] if name == "RowwiseAdagrad" else [])
        assert issubclass(getattr(optim, name), torch.optim.Optimizer)


# --- in backward ------------------------------------------------------------------------------------------------------

LOOKUPS: dict[str, dict[str, Any]] = {
    "lookups": {"padding_idx": 2},
    "bags": {"offsets": True},
    "weighted": {"offsets": True, "weights": True},
    "mean": {"offsets": True, "mode": "mean", "padding_idx": 0},
    "max": {"offsets": True, "mode": "max", "argmax": True},
}


def _lookups(kind: str, rng: np.random.Generator) -> tuple[Array, Array, dict[str, Any]]:
    indices, options = _zipf(rng), dict(LOOKUPS[kind])
    bags = indices.size
    if "offsets" in options:
        options["offsets"] = np.r_[0, np.sort(rng.integers(0, indices.size, 7)), indices.size]
        bags = 8
    if "weights" in options:
        options["weights"] = rng.standard_normal(indices.size).astype(np.float32)
    if "argmax" in options:
        lengths = np.diff(options["offsets"])[:, None]
        options["argmax"] = np.where(lengths, rng.integers(0, 2**20, (bags, WIDTH)) % np.maximum(lengths, 1), -1)
        options["argmax"] = options["argmax"].astype(np.int32)
    return indices, rng.standard_normal((bags, WIDTH)).astype(np.float32), options


@pytest.mark.parametrize("kind", LOOKUPS)
@each_rows
def test_updates_in_backward_are_steps_of_hotrow_optim(name: str, kind: str) -> None:
    """As a layer calls them; step() applies the gradients of the others."""
    make, options = ROW_STEPS[name]
    parameters, optimizer = _mixed(name, in_backward=True)
    table, alone = parameters[0], _table(torch.float32)
    twin, rng = _twin(make, alone, options), np.random.default_rng(13)
    for step in range(4):
        lr = 0.1 / (1 + step)
        optimizer.param_groups[0]["lr"] = twin.lr = lr
        for _ in range(1 + step % 2):  # a table used twice takes two steps
            indices, grads, bags = _lookups(kind, rng)
            updates[table](indices, grads, **bags)
            twin.step(indices, grads, **bags)
        assert _bits(table) == _bits(alone)
        assert table.grad is None
        before = _bits(parameters[1:])
        _set_gradients(parameters[1:], rng)
        optimizer.step()
        assert _bits(table) == _bits(alone)
        assert _bits(parameters[1:]) != before
    assert optimizer.state[table].get("step", twin.steps) == twin.steps == 6


def test_maximize_in_backward() -> None:
    found, want = _table(torch.float32), _table(torch.float32)
    indices, grads, _ = _batch(np.random.default_rng(14))
    optimizers = optim.Adam([found], maximize=True, in_backward=True), optim.Adam([want], in_backward=True)
    updates[found](indices, grads)
    updates[want](indices, -grads)
    assert _bits(found) == _bits(want)
    assert len(optimizers) == 2


def test_who_updates_in_backward() -> None:
    table, later = _table(torch.float32), _table(torch.float32)
    assert table not in updates
    first = optim.SGD([table], lr=0.1, in_backward=True)
    first.add_param_group({"params": later})
    assert table in updates
    assert later in updates
    second = optim.SGD([table], lr=0.2, in_backward=True)
    del first
    gc.collect()
    assert table in updates
    assert later not in updates
    before = table.detach().clone()
    updates[table](np.array([4]), np.ones((1, WIDTH), np.float32))
    torch.testing.assert_close(table[4], before[4] - 0.2)
    update = updates[table]
    third = optim.SGD([table], lr=0.1)
    assert table not in updates
    second.param_groups.clear()
    with pytest.raises(ValueError, match="has it in no group any more"):
        update(np.array([4]), np.ones((1, WIDTH), np.float32))
    del second, third
    optimizer = optim.SGD([table], lr=0.1, in_backward=True)
    assert table in updates
    registered = len(updates)
    alive = weakref.ref(optimizer), weakref.ref(table)
    del optimizer, table
    gc.collect()
    assert [each() for each in alive] == [None, None]
    assert len(updates) == registered - 1


@pytest.mark.parametrize("differentiate", [torch.autograd.grad, lambda loss, inputs: loss.backward(inputs=inputs)])
def test_gradients_of_something_else_update_no_table(differentiate: Callable[..., Any]) -> None:
    layer, factors = EmbeddingBag(ROWS, WIDTH, mode="sum"), torch.ones(1, 4, requires_grad=True)
    optimizer = optim.SGD(layer.parameters(), lr=0.1, in_backward=True)
    before = _bits(layer.weight)
    differentiate(layer(torch.tensor([[4, 1, 4, 0]]), per_sample_weights=factors).sum(), [factors])
    assert _bits(layer.weight) == before
    del optimizer


@pytest.mark.parametrize("layer", [Embedding(ROWS, WIDTH), EmbeddingBag(ROWS, WIDTH)], ids=str)
def test_a_gradient_of_the_table_that_is_asked_for_is_built(layer: Any) -> None:
    loss = layer(torch.tensor([[4, 1, 4, 0]])).sum()
    (want,) = torch.autograd.grad(loss, layer.weight, retain_graph=True)
    optimizer = optim.SGD(layer.parameters(), lr=0.1, in_backward=True)
    before = layer.weight.detach().clone()
    assert _bits(torch.autograd.grad(loss, layer.weight, retain_graph=True)[0]) == _bits(want)
    assert _bits(layer.weight) == _bits(before)
    loss.backward(inputs=[layer.weight])
    torch.testing.assert_close(layer.weight.detach(), before - 0.1 * want)
    assert layer.weight.grad is None
    del optimizer


@each_rows
def test_states_are_where_their_tables_are(name: str) -> None:
    """Whatever torch's default device is."""
    make, options = ROW_STEPS[name]
    table = _table(torch.float32)
    optimizer = make([table], **options)
    gradient = _batch(np.random.default_rng(15))[2].float()
    with torch.device("meta"):
        table.grad = gradient
        optimizer.step()
    assert {state.device.type for state in optimizer.state[table].values()} <= {"cpu"}


@pytest.mark.parametrize("make", [optim.Adagrad, optim.RowwiseAdagrad])
def test_shared_memory(make: type[Any]) -> None:
    """As torch's Adagrad: steps go on in the shared sums, to the same values."""
    tables, found = [], []
    for shared in (False, True):
        table, bias = _table(torch.float32), torch.ones(3, requires_grad=True)
        optimizer = make([table, bias], initial_accumulator_value=0.5)
        if shared:
            optimizer.share_memory()
            sums = [optimizer.state[table]["row_sum" if make is optim.RowwiseAdagrad else "sum"]]
            sums.append(optimizer.state[bias]["sum"])
            assert all(a.is_shared() and a.eq(0.5).all() for a in sums)
            addresses = [a.data_ptr() for a in sums]
        table.grad, bias.grad = _batch(np.random.default_rng(18))[2], torch.ones(3)
        for _ in range(2):
            optimizer.step()
        tables.append((_bits(table), bias.tolist()))
        found.append(_bits(optimizer.state_dict()))
    assert tables[0] == tables[1]
    assert found[0] == found[1]
    assert [a.data_ptr() for a in sums] == addresses
    assert not any(a.eq(0.5).all() for a in sums)


def test_a_failed_update_in_backward_changes_nothing() -> None:
    parameters, optimizer = _mixed("Adam", in_backward=True)
    updates[parameters[0]](np.array([4]), np.ones((1, WIDTH), np.float32))
    before = _bits(parameters), _bits(optimizer.state_dict())
    for error, indices, width in (
        (IndexError, [ROWS], WIDTH),
        (ValueError, [3], WIDTH + 1),
        (ValueError, [3, 4], WIDTH),
    ):
        with pytest.raises(error):
            updates[parameters[0]](np.array(indices), np.ones((1, width), np.float32))
        assert (_bits(parameters), _bits(optimizer.state_dict())) == before


# --- errors -----------------------------------------------------------------------------------------------------------

UNSEEN = "neither graphs nor autograd see the steps of hotrow"
BAD_OPTIONS: list[tuple[type[Any], dict[str, Any], type[Exception], str]] = [
    (optim.SGD, {"lr": -1}, ValueError, "Invalid learning rate: -1"),
    (optim.SGD, {"momentum": np.inf}, ValueError, "momentum = inf must be finite"),
    (optim.SGD, {"differentiable": True}, ValueError, "differentiable=True: " + UNSEEN),
    (optim.Adam, {"capturable": True}, ValueError, "capturable=True: " + UNSEEN),
    (optim.Adam, {"bias_correction": "no"}, ValueError, "bias_correction must be 'step' or 'row', not 'no'"),
    (optim.AdamW, {"epsilon_hat": 1}, TypeError, "epsilon_hat must be True or False, not int"),
    (optim.RMSprop, {"alpha": 1.5}, ValueError, "alpha = 1.5 must be in [0, 1]"),
    (optim.Adagrad, {"clip_norm": 0}, ValueError, "clip_norm = 0.0 must be above 0"),
    (optim.Adagrad, {"max_norm": "1"}, TypeError, "max_norm must be a number, not str"),
    (optim.RowwiseAdagrad, {"eps": -1}, ValueError, "Invalid epsilon value: -1"),
    (optim.RowwiseAdagrad, {"in_backward": 1}, TypeError, "in_backward must be True or False, not int"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "options", "error", "text"), BAD_OPTIONS)
def test_bad_options(make: type[Any], options: dict[str, Any], error: type[Exception], text: str) -> None:
    table = _table(torch.float32)
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        make([table], **options)
    good = make([table])
    if options.keys() != {"in_backward"}:
        with pytest.raises((ValueError, TypeError)):
            good.add_param_group({"params": [_table(torch.float32)]} | options)
        assert len(good.param_groups) == 1


def test_unknown_options_are_torchs_to_refuse() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'clip'"):
        optim.SGD([_table(torch.float32)], clip=1.0)


def _with(parameter: Any, gradient: Any) -> Any:
    parameter.grad = gradient
    return parameter


def _ones(*shape: int, **how: Any) -> Any:
    return torch.nn.Parameter(torch.ones(shape, **how))


def _one_row(*shape: int, row: int = 0, **how: Any) -> Any:
    values = torch.ones((1, *shape[1:]), **how)
    where = torch.full((1, 1), row, device=how.get("device"))
    return torch.sparse_coo_tensor(where, values, shape, check_invariants=False)


BAD_GRADIENTS: list[tuple[type[Any], dict[str, Any], Callable[[], Any], type[Exception], str]] = [
    (optim.SGD, {}, lambda: _with(_ones(3, 2, device="meta"), _one_row(3, 2, device="meta")), TypeError,
     "param_groups[0]['params'][1] is on device meta: hotrow takes sparse gradients on the CPU alone"),
    (optim.SGD, {}, lambda: _with(_ones(3, 2), torch.ones(3, 2).to_sparse()), TypeError,
     "a sparse gradient must have 1 sparse dimension, not 2"),
    (optim.Adam, {}, lambda: _with(_ones(3), _one_row(3)), TypeError,
     "the parameter must have 2 dimensions, not 1"),
    (optim.Adagrad, {}, lambda: _with(_ones(3, 2, 2), _one_row(3, 2, 2)), TypeError,
     "grads must have 2 dimensions, not 3"),
    (optim.SGD, {}, lambda: _with(_ones(3, 2, dtype=torch.complex64), _one_row(3, 2, dtype=torch.complex64)), TypeError,
     "the parameter must be float32, float64, float16 or bfloat16, not complex64"),
    (optim.RMSprop, {}, lambda: _with(torch.nn.Parameter(torch.ones(2, 3).T), _one_row(3, 2)), ValueError,
     "the rows of table must be contiguous and aligned: its strides are (4, 12) bytes"),
    (optim.AdamW, {}, lambda: _with(_ones(3, 2), _one_row(3, 2, row=3)), IndexError,
     "indices[0] = 3 is out of range for a table of 3 rows"),
    (optim.SGD, {"momentum": 0.9, "dampening": 0.1}, lambda: _with(_ones(3, 2), _one_row(3, 2)), ValueError,
     "dampening = 0.1 is for dense gradients alone"),
    (optim.RMSprop, {"centered": True}, lambda: _with(_ones(3, 2), _one_row(3, 2)), ValueError,
     "centered = True is for dense gradients alone"),
    (optim.Adam, {"amsgrad": True}, lambda: _with(_ones(3, 2), _one_row(3, 2)), ValueError,
     "amsgrad = True is for dense gradients alone"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "options", "bad", "error", "text"), BAD_GRADIENTS)
def test_a_step_that_fails_changes_no_parameter(
    make: type[Any], options: dict[str, Any], bad: Callable[[], Any], error: type[Exception], text: str
) -> None:
    """Not even of those that come before."""
    table, dense, wrong = _table(torch.float32), _dense()[0], bad()
    if not options:
        table.grad = _batch(np.random.default_rng(15))[2]
    dense.grad = torch.ones_like(dense)
    optimizer = make([table, wrong, dense], **options)
    before = _bits([table, dense])
    text += "\nin the step of param_groups[0]['params'][1]"
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        optimizer.step()
    assert _bits([table, dense]) == before


def test_parameters_are_named_if_they_have_names() -> None:
    optimizer = optim.SGD([("users.weight", _with(_ones(3, 2), _one_row(3, 2, row=7)))])
    with pytest.raises(IndexError, match=r"\nin the step of users\.weight$"):
        optimizer.step()


@pytest.mark.parametrize("lr", [-0.1, float("nan")])
def test_learning_rates_are_checked_at_each_step(lr: float) -> None:
    table = _table(torch.float32)
    optimizer = optim.Adagrad([table])
    table.grad, before = _batch(np.random.default_rng(16))[2], _bits(table)
    optimizer.param_groups[0]["lr"] = lr
    with pytest.raises(ValueError, match=f"^lr = {lr} must be "):
        optimizer.step()
    assert _bits(table) == before


def test_nan_is_found_where_it_is_looked_for() -> None:
    table = _table(torch.float32)
    optimizer = optim.Adagrad([table], check_finite=True)
    _, _, table.grad = _batch(np.random.default_rng(17))
    table.grad._values()[3, 4] = torch.nan
    before = _bits(table), _bits(optimizer.state_dict())
    with pytest.raises(ValueError, match=re.escape("grads[3, 4] = nan is not finite")):
        optimizer.step()
    assert (_bits(table), _bits(optimizer.state_dict())) == before


WITHOUT = """
import sys
import hotrow, hotrow.optim
assert "torch" not in sys.modules
sys.modules["torch"] = None
try:
    import hotrow.torch.optim
except ImportError as error:
    assert str(error).startswith("hotrow.torch needs torch (") and str(error).endswith('pip install "hotrow[torch]"')
else:
    raise AssertionError
"""


def test_without_torch() -> None:
    run_python(WITHOUT)
