"""The optimizer classes: what they keep, what they check, and what must hold whatever the numbers are. Their steps are
tested through the operator table, and beside torch in test_torch.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import hotrow
from cases import Array
from conftest import BACKENDS, run_python
from hotrow import optim
from hotrow.optim import Optimizer, StepOptions
from test_properties import Lookups, lookups, properties

OPTIONS = StepOptions(clip_norm=40.0, clip_value=9.0, weight_decay=0.1, decoupled_weight_decay=True, max_norm=30.0)
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "SGD": partial(optim.SGD, lr=0.1),
    "SGD-momentum": partial(optim.SGD, lr=0.1, momentum=0.9),
    "SGD-nesterov": partial(optim.SGD, lr=0.1, momentum=0.9, nesterov=True, options=OPTIONS),
    "Adagrad": partial(optim.Adagrad, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.5),
    "RowwiseAdagrad": partial(optim.RowwiseAdagrad, lr=0.1, options=StepOptions(weight_decay=0.1)),
    "RMSprop": partial(optim.RMSprop, lr=0.1, alpha=0.9, options=OPTIONS),
    "Adam": partial(optim.Adam, lr=0.1, betas=(0.8, 0.95)),
    "Adam-row": partial(optim.Adam, lr=0.1, bias_correction="row", epsilon_hat=False, options=OPTIONS),
    "AdamW": optim.AdamW,
}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def _snapshot(optimizer: Optimizer) -> Any:
    """All there is of an optimizer, as bits."""
    arrays = {name: a.tobytes() for name, a in optimizer.state.items()}
    rest = {name: value for name, value in vars(optimizer).items() if name not in ("_table", "_arrays", "_updated")}
    return optimizer.table.tobytes(), arrays, rest


def _trained(name: str, steps: int = 3) -> tuple[Optimizer, Callable[[Optimizer], None]]:
    """An optimizer after some steps, and a step that depends on nothing but it."""
    rng = np.random.default_rng(1)
    indices, grads = rng.integers(0, 9, 20), rng.standard_normal((20, 6), np.float32)
    optimizer = OPTIMIZERS[name](rng.standard_normal((12, 6), np.float32))
    for _ in range(steps):
        optimizer.step(indices, grads)
    return optimizer, lambda other: other.step(indices[::-1], grads)


# --- state ------------------------------------------------------------------------------------------------------------


@each_optimizer
def test_state_goes_through_plain_files(backend: ModuleType, name: str, tmp_path: Path) -> None:
    """JSON and npz; training goes on with the same bits."""
    optimizer, step = _trained(name)
    assert optimizer.steps == 3
    state = optimizer.state_dict()
    np.savez(tmp_path / "state.npz", **state.pop("state"))
    (tmp_path / "state.json").write_text(json.dumps(state))
    other = OPTIMIZERS[name](optimizer.table.copy(), lr=7.0)
    with np.load(tmp_path / "state.npz") as arrays:
        other.load_state_dict(json.loads((tmp_path / "state.json").read_text()) | {"state": dict(arrays)})
    assert _snapshot(other) == _snapshot(optimizer)
    for each in (optimizer, other):
        step(each)
    assert _snapshot(other) == _snapshot(optimizer)


@each_optimizer
def test_loaded_arrays_are_copies(name: str) -> None:
    optimizer, _ = _trained(name, steps=0)
    mine, given_state = dict(optimizer.state), optimizer.state_dict()
    given_state["state"] = {key: a + 1 for key, a in mine.items()}
    optimizer.load_state_dict(given_state)
    for key, a in optimizer.state.items():
        assert a is mine[key]
        assert not np.shares_memory(a, given_state["state"][key])
        np.testing.assert_array_equal(a, given_state["state"][key])


KEYS = ("steps", "lr", "betas", "eps", "bias_correction", "epsilon_hat", "options", "state")
ARRAYS = ("exp_avg", "exp_avg_sq", "row_steps")


def _with_array(key: str, value: Any) -> Callable[[Any], Any]:
    return lambda state: state | {"state": state["state"] | {key: value}}


def _names(*names: str) -> str:
    return ", ".join(map(repr, names))


HOLD = f"state of Adam must hold {_names(*KEYS)}, not "
ARRAYS_HOLD = f"state of Adam must hold {_names(*ARRAYS)}, not "
WRONG_STATES: list[tuple[Any, type[Exception], str]] = [
    (lambda s: None, ValueError, HOLD + "NoneType"),
    (lambda s: {}, ValueError, HOLD + "nothing"),
    (lambda s: {k: s[k] for k in KEYS[1:]}, ValueError, HOLD + _names(*KEYS[1:])),
    (lambda s: s | {"momentum": 0}, ValueError, HOLD + _names(*KEYS, "momentum")),
    (lambda s: s | {"lr": -1}, ValueError, "lr = -1.0 must be at least 0"),
    (lambda s: s | {"betas": (0.9, 1)}, ValueError, "betas[1] = 1.0 must be below 1"),
    (lambda s: s | {"steps": -1}, ValueError, f"steps = -1 must be in [0, {2**63 - 1}]"),
    (lambda s: s | {"steps": 10**400}, ValueError, f"steps = {10**400} must be in [0, {2**63 - 1}]"),
    (lambda s: s | {"steps": 1.0}, TypeError, "steps must be an integer, not float"),
    (lambda s: s | {"options": {"clip_norm": 0}}, ValueError, "clip_norm = 0.0 must be above 0"),
    (lambda s: s | {"state": {}}, ValueError, ARRAYS_HOLD + "no arrays"),
    (_with_array("more", np.ones(3)), ValueError, ARRAYS_HOLD + _names(*ARRAYS, "more")),
    (
        _with_array("exp_avg", np.ones((12, 5), "f4")),
        ValueError,
        "exp_avg must be float32 (12, 6), not float32 (12, 5)",
    ),
    (_with_array("row_steps", np.ones(12, np.int64)), ValueError, "row_steps must be int32 (12,), not int64 (12,)"),
    (_with_array("exp_avg_sq", None), ValueError, "exp_avg_sq must be float32 (12, 6), not object ()"),
]


@pytest.mark.parametrize(("spoil", "error", "text"), WRONG_STATES)
def test_a_wrong_state_is_refused_whole(
    backend: ModuleType, spoil: Callable[[Any], Any], error: type[Exception], text: str
) -> None:
    optimizer, _ = _trained("Adam-row")
    state = optimizer.state_dict()
    state["state"] = {key: a + 1 for key, a in state["state"].items()}
    before = _snapshot(optimizer)
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        optimizer.load_state_dict(spoil(state | {"steps": 9, "lr": 0.5}))
    assert _snapshot(optimizer) == before


@pytest.mark.parametrize("options", [None, [], {"momentum": 1}, {"weight_decay": "1"}], ids=str)
@pytest.mark.parametrize("key", ["options", "state", "betas"])
def test_entries_of_the_wrong_kind_are_refused(backend: ModuleType, key: str, options: Any) -> None:
    optimizer, _ = _trained("Adam-row")
    before, state = _snapshot(optimizer), optimizer.state_dict()
    with pytest.raises((TypeError, ValueError)):
        optimizer.load_state_dict(state | {key: options})
    assert _snapshot(optimizer) == before


@pytest.mark.parametrize(
    ("name", "hyperparameter"),
    [("SGD", {"momentum": 0.9}), ("Adam", {"bias_correction": "row"}),
     ("Adam-row", {"bias_correction": "step"})],
)  # fmt: skip
def test_hyperparameters_come_with_their_arrays(backend: ModuleType, name: str, hyperparameter: dict[str, Any]) -> None:
    """A state is refused if an optimizer with its hyperparameters would keep other arrays."""
    optimizer, _ = _trained(name)
    before = _snapshot(optimizer)
    with pytest.raises(ValueError, match=r"^state of \w+ must hold "):
        optimizer.load_state_dict(optimizer.state_dict() | hyperparameter)
    assert _snapshot(optimizer) == before


# --- checks -----------------------------------------------------------------------------------------------------------

TABLE = np.ones((3, 2), np.float32)
BAD: list[tuple[Callable[..., Any], dict[str, Any], type[Exception], str]] = [
    (optim.SGD, {"table": [[1.0]]}, TypeError, "table must be a NumPy array, not list: it is never copied"),
    (
        optim.SGD,
        {"table": np.ones((3, 2), np.int64)},
        TypeError,
        "table must be float32, float64, float16 or bfloat16, not int64",
    ),
    (optim.SGD, {"table": TABLE[0]}, TypeError, "table must have 2 dimensions, not 1"),
    (optim.SGD, {"options": {}}, TypeError, "options must be hotrow.optim.StepOptions, not dict"),
    (optim.SGD, {"lr": -1}, ValueError, "lr = -1.0 must be at least 0"),
    (optim.SGD, {"momentum": -1}, ValueError, "momentum = -1.0 must be at least 0"),
    (optim.SGD, {"nesterov": True}, ValueError, "nesterov needs a momentum"),
    (optim.SGD, {"momentum": 1, "nesterov": 1}, TypeError, "nesterov must be True or False, not int"),
    (optim.Adagrad, {"lr_decay": np.nan}, ValueError, "lr_decay = nan must be finite"),
    (
        optim.Adagrad,
        {"initial_accumulator_value": -1},
        ValueError,
        "initial_accumulator_value = -1.0 must be at least 0",
    ),
    (optim.RowwiseAdagrad, {"eps": -1}, ValueError, "eps = -1.0 must be at least 0"),
    (optim.RMSprop, {"alpha": 1.5}, ValueError, "alpha = 1.5 must be in [0, 1]"),
    (optim.Adam, {"betas": (0.9, 1)}, ValueError, "betas[1] = 1.0 must be below 1"),
    (optim.Adam, {"betas": (-1, 0)}, ValueError, "betas[0] = -1.0 must be at least 0"),
    (optim.AdamW, {"bias_correction": "no"}, ValueError, "bias_correction must be 'step' or 'row', not 'no'"),
    (optim.AdamW, {"epsilon_hat": None}, TypeError, "epsilon_hat must be True or False, not NoneType"),
    (StepOptions, {"weight_decay": -0.1}, ValueError, "weight_decay = -0.1 must be at least 0"),
    (StepOptions, {"clip_norm": 0}, ValueError, "clip_norm = 0.0 must be above 0"),
    (StepOptions, {"clip_value": -1}, ValueError, "clip_value = -1.0 must be above 0"),
    (StepOptions, {"clip_value": np.inf}, ValueError, "clip_value = inf must be finite"),
    (StepOptions, {"max_norm": "1"}, TypeError, "max_norm must be a number, not str"),
    (StepOptions, {"check_finite": 1}, TypeError, "check_finite must be True or False, not int"),
    (StepOptions, {"scale_grad_by_freq": 0}, TypeError, "scale_grad_by_freq must be True or False, not int"),
    (StepOptions, {"decoupled_weight_decay": "no"}, TypeError, "decoupled_weight_decay must be True or False, not str"),
]


@pytest.mark.parametrize(("make", "options", "error", "text"), BAD)
def test_bad_hyperparameters(
    make: Callable[..., Any], options: dict[str, Any], error: type[Exception], text: str
) -> None:
    good = {} if make is StepOptions else {"table": TABLE, "lr": 1}
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        make(**good | options)


def test_options_are_plain_and_frozen() -> None:
    assert StepOptions(**OPTIONS.asdict()) == OPTIONS
    assert json.loads(json.dumps(OPTIONS.asdict())) == OPTIONS.asdict()
    assert StepOptions(clip_norm=1, weight_decay=0) == StepOptions(clip_norm=1.0)
    with pytest.raises(FrozenInstanceError):
        setattr(OPTIONS, "max_norm", 1.0)  # noqa: B010


def test_hyperparameters_may_change_between_steps(backend: ModuleType) -> None:
    table, indices, grads = np.ones((3, 2), np.float32), [2, 0, 2], np.ones((3, 2), np.float32)
    sgd = optim.SGD(table, lr=0.5)
    sgd.step(indices, grads)
    assert table[:, 0].tolist() == [0.5, 1, 0]
    sgd.lr, sgd.options = 0.25, StepOptions(scale_grad_by_freq=True)
    sgd.step(indices, grads)
    assert table[:, 1].tolist() == [0.25, 1, -0.25]
    assert sgd.steps == 2


@each_optimizer
def test_a_failed_step_changes_nothing(backend: ModuleType, name: str) -> None:
    optimizer, _ = _trained(name)
    optimizer.options = StepOptions(**optimizer.options.asdict() | {"check_finite": True})
    grads, nan = np.ones((2, 6), np.float32), np.full((2, 6), np.nan, np.float32)
    before = _snapshot(optimizer)
    for error, indices, gradient, how in (
        (IndexError, [3, 12], grads, {}),
        (IndexError, [3, -1], grads, {}),
        (ValueError, [3], grads, {}),
        (ValueError, [3, 4], nan, {}),
        (ValueError, [3, 4], grads, {"offsets": [0, 3]}),
        (ValueError, [3, 4], grads, {"mode": "mean"}),
        (ValueError, [3, 4], grads, {"offsets": [0, 1, 2], "mode": "max"}),
        (IndexError, [3, 4], grads, {"padding_idx": 12}),
        (TypeError, [3, 4], grads.astype(float), {}),
        (TypeError, [3, 4], grads, {"weights": np.ones(2)}),
    ):
        with pytest.raises(error):
            optimizer.step(indices, gradient, **how)
        assert _snapshot(optimizer) == before


@each_optimizer
def test_a_step_without_lookups_is_a_step(backend: ModuleType, name: str) -> None:
    optimizer, _ = _trained(name)
    table, arrays, _ = _snapshot(optimizer)
    optimizer.step([], np.empty((0, 6), np.float32))
    optimizer.step([4, 4], np.ones((2, 6), np.float32), padding_idx=4)
    assert _snapshot(optimizer)[:2] == (table, arrays)
    assert optimizer.steps == 5


@pytest.mark.parametrize("epsilon_hat", [False, True])
def test_a_step_may_be_any_number(backend: ModuleType, epsilon_hat: bool) -> None:
    """Even one that no float is as large as: corrections of bias are 1 long before."""
    tables = [np.ones((2, 2)) for _ in range(2)]
    for table, step in zip(tables, (2**60, 10**400), strict=True):
        moments = np.ones((2, 2, 2))
        hotrow.adam_step(table, *moments, [0, 1], np.ones((2, 2)), lr=0.1, step=step, epsilon_hat=epsilon_hat)
    np.testing.assert_array_equal(*tables)


ROW_STEPS = """
import numpy as np, hotrow
for dtype, far in ((np.float32, 10**9), (np.float64, 2**31 - 1)):
    table, grads, row_steps = np.ones((3, 2), dtype), np.ones((3, 2), dtype), np.array([-far, -1, far], np.int32)
    hotrow.adam_step(table, 0 * table, 0 * table, [0, 1, 2], grads, lr=0.1, row_steps=row_steps)
    assert np.isfinite(table).all() and row_steps[2] > 0
"""


@pytest.mark.parametrize("backend_name", sorted({backend.name for backend in BACKENDS}))
def test_counts_of_steps_may_be_any_number(backend_name: str) -> None:
    """Their values are not checked, which would take a pass over the rows: what is read by them stays in its table."""
    run_python(ROW_STEPS, HOTROW_BACKEND=backend_name)


# --- whatever the numbers are: gradients are small integers, whose sums are exact ------------------------------------


def _steps(name: str, x: Lookups, *calls: dict[str, Any]) -> tuple[bytes, dict[str, bytes]]:
    optimizer = OPTIMIZERS[name](x.table.copy())
    for call in calls:
        optimizer.step(**call)
    return _snapshot(optimizer)[:2]


@given(x=lookups())
@each_optimizer
@properties
def test_order_of_lookups_does_not_matter(backend: ModuleType, name: str, x: Lookups) -> None:
    order = x.rng.permutation(x.indices.size)
    as_it_is, mixed = ({"indices": x.indices[o], "grads": x.grads[o]} for o in (slice(None), order))
    assert _steps(name, x, as_it_is, mixed) == _steps(name, x, mixed, as_it_is)


@given(x=lookups())
@each_optimizer
@properties
def test_bags_step_as_their_lookups_do(backend: ModuleType, name: str, x: Lookups) -> None:
    weights = x.rng.integers(-3, 4, x.indices.size).astype(x.table.dtype)
    bag = np.repeat(np.arange(x.offsets.size - 1), np.diff(x.offsets))
    grads = x.rng.integers(-50, 51, (x.offsets.size - 1, x.table.shape[1])).astype(x.table.dtype)
    pooled = {"indices": x.indices, "grads": grads, "offsets": x.offsets, "weights": weights, "padding_idx": 0}
    kept = x.indices != 0
    single = {"indices": x.indices[kept], "grads": (grads[bag] * weights[:, None])[kept]}
    assert _steps(name, x, pooled, pooled) == _steps(name, x, single, single)


def _row_bits(optimizer: Optimizer, rows: Array) -> list[bytes]:
    return [a[rows].tobytes() for a in (optimizer.table, *optimizer.state.values())]


@given(x=lookups(real=True))
@each_optimizer
@properties
def test_rows_nobody_names_keep_their_bits(backend: ModuleType, name: str, x: Lookups) -> None:
    """And their state: NaN, -0.0 and all."""
    optimizer = OPTIMIZERS[name](x.table.copy())
    others = np.setdiff1d(np.arange(len(x.table)), x.indices[x.indices != 0])
    for a in (optimizer.table, *optimizer.state.values()):
        if a.dtype != np.int32:
            a[others] = x.rng.choice([np.nan, -0.0, np.inf, np.finfo(a.dtype).smallest_subnormal], a[others].shape)
    before = _row_bits(optimizer, others)
    for _ in range(2):
        optimizer.step(x.indices, x.grads, padding_idx=0)
    assert _row_bits(optimizer, others) == before
