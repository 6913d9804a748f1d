"""hotrow beside torch: the same optimizers on the same gradients, the same gradients of bags."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hotrow
from cases import Array
from hotrow import optim
from hotrow.optim import StepOptions

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")

ROWS, WIDTH, STEPS = 30, 13, 50
EPS = 0.01  # large enough to show where it stands
BETAS = (0.8, 0.95)
DECAY = StepOptions(weight_decay=0.1)

Make = Callable[[Any], Any]
SPARSE: dict[str, tuple[Make, Make]] = {
    "SGD": (lambda t: optim.SGD(t, lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "Adagrad": (
        lambda t: optim.Adagrad(t, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.3, eps=EPS),
        lambda p: torch.optim.Adagrad(p, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.3, eps=EPS),
    ),
    "SparseAdam": (
        lambda t: optim.Adam(t, lr=0.1, betas=BETAS, eps=EPS),
        lambda p: torch.optim.SparseAdam(p, lr=0.1, betas=BETAS, eps=EPS),
    ),
    "defaults of SparseAdam": (optim.Adam, torch.optim.SparseAdam),
    "defaults of Adagrad": (optim.Adagrad, torch.optim.Adagrad),
}
DENSE: dict[str, tuple[Make, Make]] = {
    "momentum": (
        lambda t: optim.SGD(t, lr=0.1, momentum=0.9, options=DECAY),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    ),
    "nesterov": (
        lambda t: optim.SGD(t, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    ),
    "Adagrad": (
        lambda t: optim.Adagrad(t, lr=0.1, eps=EPS, options=DECAY),
        lambda p: torch.optim.Adagrad(p, lr=0.1, eps=EPS, weight_decay=0.1),
    ),
    "RMSprop": (
        lambda t: optim.RMSprop(t, lr=0.01, alpha=0.9, eps=EPS, options=DECAY),
        lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, eps=EPS, weight_decay=0.1),
    ),
    "Adam": (
        lambda t: optim.Adam(t, lr=0.1, betas=BETAS, eps=EPS, epsilon_hat=False, options=DECAY),
        lambda p: torch.optim.Adam(p, lr=0.1, betas=BETAS, eps=EPS, weight_decay=0.1),
    ),
    "defaults of AdamW": (optim.AdamW, torch.optim.AdamW),
    "defaults of RMSprop": (optim.RMSprop, torch.optim.RMSprop),
}


def _tolerance(dtype: Any) -> float:
    """Of STEPS steps that amplify roundings a little, each from sums in another order."""
    return float(2**12 * np.finfo(dtype).eps)


def _numbers(rng: np.random.Generator, dtype: Any, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(dtype)


def _batch(rng: np.random.Generator, dtype: Any, every_row: bool) -> tuple[Array, Array]:
    some = rng.integers(0, ROWS, 40)
    indices = rng.permutation(np.r_[some, np.arange(ROWS)]) if every_row else some
    return indices, _numbers(rng, dtype, indices.size, WIDTH)


def _sparse(indices: Array, grads: Array) -> Any:
    where = torch.from_numpy(indices)[None]
    return torch.sparse_coo_tensor(where, torch.from_numpy(grads), (ROWS, WIDTH))


def _both(make: tuple[Make, Make], dtype: Any, sparse: bool) -> tuple[Array, Array]:
    """The tables of hotrow and torch after the same steps."""
    rng = np.random.default_rng(1)
    table = _numbers(rng, dtype, ROWS, WIDTH)
    parameter = torch.nn.Parameter(torch.from_numpy(table.copy()))
    ours, theirs = make[0](table), make[1]([parameter])
    for _ in range(STEPS):
        indices, grads = _batch(rng, dtype, every_row=not sparse)
        ours.step(indices, grads)
        gradient = _sparse(indices, grads)
        parameter.grad = gradient if sparse else gradient.to_dense()
        theirs.step()
    return table, parameter.detach().numpy()


each_float = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@each_float
@pytest.mark.parametrize("name", SPARSE)
def test_sparse_optimizers(backend: ModuleType, name: str, dtype: Any) -> None:
    found, want = _both(SPARSE[name], dtype, sparse=True)
    np.testing.assert_allclose(found, want, rtol=0, atol=_tolerance(dtype))


@each_float
@pytest.mark.parametrize("name", DENSE)
def test_dense_optimizers_where_every_row_is_looked_up(backend: ModuleType, name: str, dtype: Any) -> None:
    found, want = _both(DENSE[name], dtype, sparse=False)
    np.testing.assert_allclose(found, want, rtol=0, atol=_tolerance(dtype))


def test_bias_correction_by_row_is_an_adam_for_each_row(backend: ModuleType) -> None:
    rng = np.random.default_rng(2)
    table = _numbers(rng, np.float64, ROWS, WIDTH)
    rows = [torch.nn.Parameter(torch.from_numpy(row.copy())) for row in table]
    options = {"lr": 0.1, "betas": BETAS, "eps": EPS}
    theirs = [torch.optim.Adam([row], **options) for row in rows]
    ours = optim.Adam(table, bias_correction="row", epsilon_hat=False, **options)
    for _ in range(20):
        indices, grads = _batch(rng, np.float64, every_row=False)
        ours.step(indices, grads)
        gradient = _sparse(indices, grads).to_dense()
        for r in np.unique(indices):
            rows[r].grad = gradient[r]
            theirs[r].step()
    want = np.stack([row.detach().numpy() for row in rows])
    np.testing.assert_allclose(table, want, rtol=0, atol=_tolerance(np.float64))


@pytest.mark.parametrize("limit", [0.5, 1e6])
@pytest.mark.parametrize("by", ["clip_norm", "clip_value"])
def test_clipping(backend: ModuleType, by: str, limit: float) -> None:
    rng = np.random.default_rng(3)
    table, (indices, grads) = _numbers(rng, np.float64, ROWS, WIDTH), _batch(rng, np.float64, False)
    parameter = torch.nn.Parameter(torch.from_numpy(table.copy()))
    parameter.grad = _sparse(indices, grads).to_dense()
    clip = torch.nn.utils.clip_grad_norm_ if by == "clip_norm" else torch.nn.utils.clip_grad_value_
    clip([parameter], limit)
    torch.optim.SGD([parameter], lr=0.1).step()
    optim.SGD(table, lr=0.1, options=StepOptions(**{by: limit})).step(indices, grads)
    np.testing.assert_allclose(table, parameter.detach().numpy(), rtol=0, atol=1e-7)  # torch adds 1e-6 to the norm


def test_max_norm_renormalizes_rows(backend: ModuleType) -> None:
    rng = np.random.default_rng(4)
    table, (indices, grads) = _numbers(rng, np.float64, ROWS, WIDTH), _batch(rng, np.float64, False)
    limited = table.copy()
    optim.SGD(table, lr=0.1).step(indices, grads)
    optim.SGD(limited, lr=0.1, options=StepOptions(max_norm=3.0)).step(indices, grads)
    want = torch.embedding_renorm_(torch.from_numpy(table), torch.from_numpy(indices), 3.0, 2.0).numpy()
    np.testing.assert_allclose(limited, want, rtol=1e-14)


def test_scale_grad_by_freq(backend: ModuleType) -> None:
    rng = np.random.default_rng(5)
    table, (indices, grads) = _numbers(rng, np.float64, ROWS, WIDTH), _batch(rng, np.float64, False)
    weight = torch.from_numpy(table.copy()).requires_grad_()
    rows = torch.nn.functional.embedding(torch.from_numpy(indices), weight, padding_idx=4, scale_grad_by_freq=True)
    rows.backward(torch.from_numpy(grads))
    want = table - weight.grad.numpy()
    options = StepOptions(scale_grad_by_freq=True)
    hotrow.sgd_step(table, indices, grads, lr=1, padding_idx=4, options=options)
    np.testing.assert_allclose(table, want, rtol=0, atol=1e-14)


@pytest.mark.parametrize("padding_idx", [None, 3])
@pytest.mark.parametrize("mode", ["sum", "weighted sum", "mean", "max"])
def test_gradients_of_bags(backend: ModuleType, mode: str, padding_idx: int | None) -> None:
    """The table's, that of the weights, and which row gave each maximum."""
    rng = np.random.default_rng(6)
    table, indices = _numbers(rng, np.float64, ROWS, WIDTH), rng.integers(0, 8, 60)
    offsets, indices[20:25] = np.sort(np.r_[0, 0, 20, 25, rng.integers(0, 60, 9), 60, 60]), 3
    weights = _numbers(rng, np.float64, 60) if mode == "weighted sum" else None
    grads, pool = _numbers(rng, np.float64, offsets.size - 1, WIDTH), mode.removeprefix("weighted ")
    weight, shares = (torch.from_numpy(a.copy()).requires_grad_() if a is not None else None for a in (table, weights))
    bags = torch.nn.functional.embedding_bag(
        torch.from_numpy(indices), weight, torch.from_numpy(offsets), mode=pool, per_sample_weights=shares,
        padding_idx=padding_idx, include_last_offset=True,
    )  # fmt: skip
    bags.backward(torch.from_numpy(grads))
    argmax = np.empty(grads.shape, np.int32) if mode == "max" else None
    options: Any = {"weights": weights, "mode": pool, "padding_idx": padding_idx, "argmax": argmax}
    found = hotrow.embedding_bag(table, indices, offsets, **options)
    np.testing.assert_allclose(found, bags.detach().numpy(), rtol=0, atol=1e-13)
    gradient = np.zeros_like(table)
    hotrow.scatter_add(gradient, indices, grads, offsets=offsets, **options)
    np.testing.assert_allclose(gradient, weight.grad.numpy(), rtol=0, atol=1e-13)
    if shares is not None:
        of_weights = hotrow.weights_grad(table, indices, offsets, grads, **options)
        np.testing.assert_allclose(of_weights, shares.grad.numpy(), rtol=0, atol=1e-13)
    if argmax is not None:
        _, _, _, rows = torch.ops.aten._embedding_bag(
            *map(torch.from_numpy, (table, indices, offsets)), False, 2, False, None, True, padding_idx or -1
        )
        taken = argmax >= 0
        named = indices[np.where(taken, offsets[:-1, None] + argmax, 0)]
        np.testing.assert_array_equal(named[taken], rows.numpy()[taken])
