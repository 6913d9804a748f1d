"""How numbers of 16 bits are rounded where they are stored: to nearest, or up and down by chance."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cases import Array
from halves import DIGITS, assert_same, each_half, every_number, hard_numbers, key_of, rounded, spacing
from hotrow import num_threads, ops, optim
from hotrow.optim import StepOptions
from test_optim import OPTIMIZERS

CHANCE = StepOptions(stochastic_rounding=True, seed=2**64 - 5)


def stored(x: Array, half: Any, options: StepOptions | None = None, draw: int = 0) -> Array:
    """x as scatter_add or a step stores it: -0.0 + x is x, whatever x is."""
    table = np.full(x.shape, -0.0, half)
    if options is None:
        ops.scatter_add(table, np.arange(len(x)), x)
    else:
        ops.sgd_step(table, np.arange(len(x)), -x, lr=1.0, options=options, draw=draw)
    return table


@each_half
def test_rounding_to_nearest_is_astype(backend: ModuleType, half: Any) -> None:
    x = hard_numbers(half)
    for options in (None, StepOptions(seed=7)):
        assert_same(stored(x, half, options, draw=3), rounded(x, half))


@each_half
def test_decoupled_decay_is_rounded_with_the_step(backend: ModuleType, half: Any) -> None:
    """1 - e/4 is a tie and would become 1 again; 1 - e/4 - e/4 is a number."""
    e = 2.0 ** -DIGITS[half.name][0]
    table, grads = np.ones((1, 37), half), np.full((1, 37), e / 2, np.float32)
    options = StepOptions(weight_decay=e / 2, decoupled_weight_decay=True)
    ops.sgd_step(table, [0], grads, lr=0.5, options=options)
    assert (table.astype(float) == 1 - e / 2).all()


@each_half
def test_rounding_by_chance_is_the_model(backend: ModuleType, half: Any) -> None:
    x = hard_numbers(half)
    for seed, draw in ((0, 0), (0, 1), (1, 0), (2**64 - 5, 2**40)):
        found = stored(x, half, replace(CHANCE, seed=seed), draw)
        assert_same(found, rounded(x, half, key_of(seed, draw)))
    numbers = every_number(half)
    assert_same(stored(numbers.astype(np.float32), half, CHANCE), numbers)  # they never move


@each_half
def test_rounding_by_chance_is_right_on_average(backend: ModuleType, half: Any) -> None:
    """Over draws at each place, and over places; neighbours along each axis are independent."""
    rng, n, shape = np.random.default_rng(3), 2000, (5, 19)
    part = rng.random(shape)
    x = ((1 + part * spacing(np.float64(1), half)) * np.where(part < 0.5, 1, -1)).astype(np.float32)
    part = (abs(x.astype(np.float64)) - 1) / spacing(np.float64(1), half)
    up = np.array([abs(stored(x, half, CHANCE, draw).astype(float)) > 1 for draw in range(n)])
    deviation = (up - part) / np.sqrt(part * (1 - part))
    assert (abs(deviation.sum(axis=0)) < 5 * n**0.5).all()
    assert abs(deviation.sum()) < 4 * deviation.size**0.5
    for axis in range(3):
        beside = np.delete(deviation, 0, axis) * np.delete(deviation, -1, axis)
        assert abs(beside.sum()) < 4 * beside.size**0.5


@each_half
def test_chances_depend_on_seed_draw_row_and_column_alone(backend: ModuleType, half: Any) -> None:
    """Not on other lookups, their order and number, on the table's size and layout or on threads."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((300, 75), np.float32)
    want, order = stored(x, half, CHANCE, 5), rng.permutation(np.r_[np.arange(300), rng.integers(0, 300, 900)])
    once = np.zeros(1200, np.float32)
    once[np.unique(order, return_index=True)[1]] = 1
    for threads in (1, 3):
        table = np.full((400, 75), -0.0, half)
        with num_threads(threads):
            ops.sgd_step(table, order.astype(np.int32), -x[order], lr=1.0, weights=once, options=CHANCE, draw=5)
        assert table[:300].tobytes() == want.tobytes()
    table = np.full((300, 80), -0.0, half)[:, 3:23]
    ops.sgd_step(table, [299, 7], -x[[299, 7], :20], lr=1.0, options=CHANCE, draw=5)
    assert table[[299, 7]].tobytes() == want[[299, 7], :20].tobytes()
    for options, draw in ((CHANCE, 6), (replace(CHANCE, seed=5), 5)):
        assert 0.2 < np.mean(stored(x, half, options, draw) != want) < 0.8


@each_half
def test_chances_of_rows_and_steps_are_apart(backend: ModuleType, half: Any) -> None:
    """Those of a row in a step are not those of another row in another step, else errors of neighbours add up."""
    x = np.full((40, 60), 1 + spacing(np.float64(1), half) / 2, np.float32)
    up = np.array([stored(x, half, CHANCE, draw).astype(float) > 1 for draw in range(8)])
    alike = [np.mean(up[i, :-s] == up[j, s:]) for i in range(8) for j in range(8) for s in range(1, 8)]
    assert max(alike) < 0.6
    assert min(alike) > 0.4


@each_half
def test_seeds_and_draws_are_whole_numbers(backend: ModuleType, half: Any) -> None:
    x = np.full((9, 9), 1.0001, np.float32)
    want = stored(x, half, replace(CHANCE, seed=5), 3)
    for whole in (np.int32, np.int64, np.uint64):
        assert_same(stored(x, half, replace(CHANCE, seed=whole(5)), whole(3)), want)
    for draw in (1.5, "1", None, True):
        with pytest.raises(TypeError, match=f"^draw must be an integer, not {type(draw).__name__}$"):
            stored(x, half, CHANCE, draw)


@each_half
def test_small_steps_are_not_lost(backend: ModuleType, half: Any) -> None:
    grads = np.full((1, 64), -1, np.float32)
    for options, mean in ((StepOptions(), 1.0), (CHANCE, 1.2)):
        sgd = optim.SGD(np.ones((1, 64), half), lr=1e-4, options=options)
        for _ in range(2000):
            sgd.step([0], grads)
        assert sgd.table.astype(float).mean() == pytest.approx(mean, abs=0.025 * options.stochastic_rounding)


# --- optimizers -------------------------------------------------------------------------------------------------------


@each_half
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_give_each_step_its_draw(backend: ModuleType, name: str, half: Any) -> None:
    """Their state is float32; after a load they go on with the same bits."""
    rng = np.random.default_rng(5)

    def new(table: Array) -> optim.Optimizer:
        optimizer = OPTIMIZERS[name](table)
        optimizer.options = replace(optimizer.options, stochastic_rounding=True, seed=9)
        return optimizer

    table = rng.standard_normal((12, 37)).astype(half)
    first, twin = optimizers = [new(table), new(table.astype(np.float32))]
    for draw in range(4):
        if draw == 2:
            optimizers.append(new(table.copy()))
            optimizers[2].load_state_dict(first.state_dict())
        twin.table[:] = table
        indices, grads = rng.integers(0, 12, 20), rng.standard_normal((20, 37), np.float32)
        for optimizer in optimizers:
            optimizer.step(indices, grads)
        assert_same(table, rounded(twin.table, half, key_of(9, draw)))
    assert optimizers[2].table.tobytes() == table.tobytes()
    for optimizer in optimizers[1:]:
        for name, state in first.state.items():
            assert state.dtype == (np.int32 if name == "row_steps" else np.float32)
            assert optimizer.state[name].tobytes() == state.tobytes()
