"""The gradients of bags, with respect to the table and to the weights: adjoint to the lookup, equal to differences of
the definition and to the gradient of each lookup written out. NaN stays where it comes from.
"""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hotrow
from cases import Array, Case
from hotrow import reference
from hotrow._ops import MODES
from hotrow.optim import StepOptions
from test_properties import Lookups, lookups, properties

each_mode = pytest.mark.parametrize("mode", MODES)


def _bags(x: Lookups, mode: str, padding: bool) -> tuple[Array, Case, Array]:
    """embedding_bag of positive small weights, how it was called, and a gradient for it."""
    weights = x.rng.integers(1, 4, x.indices.size).astype(x.table.dtype)
    argmax = np.empty((x.offsets.size - 1, x.table.shape[1]), np.int32) if mode == "max" else None
    call: Case = {"indices": x.indices, "offsets": x.offsets, "weights": weights, "mode": mode, "argmax": argmax}
    call["padding_idx"] = 0 if padding else None
    bags = hotrow.embedding_bag(x.table, **call)
    return bags, call, x.rng.integers(-50, 51, bags.shape).astype(x.table.dtype)


@given(x=lookups(), padding=st.booleans())
@each_mode
@properties
def test_the_gradient_of_bags_is_adjoint(backend: ModuleType, mode: str, x: Lookups, padding: bool) -> None:
    """<bag(T), G> == <T, scatter(G)> == <w, weights_grad(G)> where the bag is linear in its weights too"""
    bags, call, grads = _bags(x, mode, padding)
    gradient = np.zeros_like(x.table)
    hotrow.scatter_add(gradient, grads=grads, **call)
    forward = np.vdot(bags.astype(float), grads.astype(float))
    of_weights = hotrow.weights_grad(x.table, grads=grads, **call).astype(float)
    bound = 0.0
    if mode in ("mean", "sqrtn"):  # elsewhere all is small integers, so exact
        size = abs(call["weights"]).sum() * 50.0 * 50.0 * x.table.shape[1]
        bound = (x.indices.size + x.table.shape[1] + 9) * float(np.finfo(x.table.dtype).eps) * size
    assert abs(forward - np.vdot(x.table.astype(float), gradient.astype(float))) <= bound
    scale_free = 0.0 if mode in ("mean", "sqrtn") else forward  # a mean does not change when all weights grow
    assert abs(np.vdot(call["weights"].astype(float), of_weights) - scale_free) <= 3 * bound


def _factors(x: Lookups, call: Case) -> Array:
    """What every lookup's gradient is multiplied by, as docs/numerics.md rounds it; 0 for padding."""
    kept = x.indices != (-1 if call["padding_idx"] is None else call["padding_idx"])
    factors = np.where(kept, call["weights"], 0)
    if call["mode"] in ("mean", "sqrtn"):
        power = 1 if call["mode"] == "mean" else 2
        sums = np.array([(factors[begin:end].astype(float) ** power).sum() for begin, end in pairwise(x.offsets)])
        divisors = sums if power == 1 else np.sqrt(sums)
        per_bag = np.divide(1, divisors, out=np.zeros_like(sums), where=sums > 0).astype(factors.dtype)
        factors = factors * np.repeat(per_bag, np.diff(x.offsets))
    return factors


@given(x=lookups(real=True), padding=st.booleans())
@each_mode
@properties
def test_the_gradient_of_bags_is_that_of_their_lookups(
    backend: ModuleType, mode: str, x: Lookups, padding: bool
) -> None:
    """Bit for bit: written out, every lookup has a bag, a gradient and a factor of its own."""
    _, call, grads = _bags(x, mode, padding)
    bag = np.repeat(np.arange(x.offsets.size - 1), np.diff(x.offsets))
    written_out = grads[bag] * _factors(x, call)[:, None]
    if mode == "max":
        place = np.arange(x.indices.size) - x.offsets[bag]
        written_out[call["argmax"][bag] != place[:, None]] = 0
    kept = x.indices != (0 if padding else -1)
    want = hotrow.coalesce(x.indices[kept], written_out[kept])
    found = hotrow.coalesce(grads=grads, **call)
    assert found.rows.tobytes() == want.rows.tobytes()
    assert found.values.tobytes() == want.values.tobytes()


@pytest.mark.parametrize("padding_idx", [None, 3])
@each_mode
def test_weights_grad_is_the_slope_of_the_definition(backend: ModuleType, mode: str, padding_idx: int | None) -> None:
    rng = np.random.default_rng(7)
    table, weights, step = rng.standard_normal((9, 5)), rng.random(30) + 0.5, 1e-6
    call: Case = {"indices": rng.integers(0, 9, 30), "offsets": np.array([0, 0, 1, 12, 30]), "mode": mode}
    call["padding_idx"] = padding_idx
    grads = rng.standard_normal((4, 5))

    def loss(w: Array) -> float:
        return float((grads * reference.embedding_bag(table, weights=w, **call)).sum())

    want = [(loss(weights + h) - loss(weights - h)) / (2 * step) for h in step * np.eye(30)]
    argmax = np.empty((4, 5), np.int32) if mode == "max" else None
    hotrow.embedding_bag(table, weights=weights, argmax=argmax, **call)
    found = hotrow.weights_grad(table, grads=grads, weights=weights, argmax=argmax, **call)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_argmax_names_the_first_of_equals_and_the_last_nan(backend: ModuleType, dtype: Any) -> None:
    table = np.array([[1, 1, -np.inf], [1, np.nan, -np.inf], [0, 2, -np.inf], [1, np.nan, 0]], dtype)
    argmax = np.empty((3, 3), np.int32)
    found = hotrow.embedding_bag(
        table, [2, 0, 1, 3, 2, 2, 0, 1], [0, 5, 5, 8], mode="max", padding_idx=2, argmax=argmax
    )
    assert argmax.tolist() == [[1, 3, 3], [-1, -1, -1], [1, 2, 1]]
    np.testing.assert_array_equal(found, [[1, np.nan, 0], [0, 0, 0], [1, np.nan, -np.inf]])


@pytest.mark.parametrize("options", [{}, {"clip_value": 0.5}, {"weight_decay": 0.1, "max_norm": 1.0}], ids=str)
@pytest.mark.parametrize("width", [1, 40])
def test_a_nan_gradient_spoils_its_row_alone(backend: ModuleType, width: int, options: Case) -> None:
    rng = np.random.default_rng(8)
    indices, grads = np.array([4, 1, 4, 2]), rng.standard_normal((4, width), np.float32)
    table, clean = np.ones((6, width), np.float32), np.ones((6, width), np.float32)
    hotrow.sgd_step(clean, indices, grads, lr=1, options=StepOptions(**options))
    grads[2, width // 2] = np.nan
    hotrow.sgd_step(table, indices, grads, lr=1, options=StepOptions(**options))
    assert np.isnan(table[4, width // 2])
    others = [0, 1, 2, 3, 5]
    assert table[others].tobytes() == clean[others].tobytes()
