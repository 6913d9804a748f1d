"""The same bits: for any number of threads, on every backend, and where docs/numerics.md says in which order to add."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import bounds
from cases import Array, Case
from conftest import BACKENDS, several, using
from hotrow import num_threads, ops
from hotrow._ops import FLOATS, OPS
from hotrow.optim import StepOptions
from test_ops import WINDOWS, samples

DETERMINISTIC = [op for op in OPS if op not in WINDOWS]
STEPS = [op for op in DETERMINISTIC if op.endswith("_step")]
EVERY_OPTION = StepOptions(
    scale_grad_by_freq=True, clip_norm=5.0, clip_value=0.1, weight_decay=0.1, decoupled_weight_decay=True, max_norm=8.0
)

MANY, WIDE = 20_000, 64  # 10 MB of gradients read and written: work for 8 threads on every backend
PATTERNS: dict[str, Callable[[np.random.Generator], Array]] = {
    "zipf": lambda rng: np.minimum(rng.zipf(1.3, MANY) - 1, MANY - 1),
    "one row": lambda rng: np.full(MANY, MANY - 1),
    "distinct": lambda rng: rng.permutation(MANY),
    "sorted": lambda rng: np.sort(rng.integers(0, MANY, MANY)),
    "reversed": lambda rng: np.sort(rng.integers(0, MANY, MANY))[::-1].copy(),
}


def _large(op: str, indices: Array, mode: str) -> Case:
    """Every array argument, of MANY rows; with bags to pool if there is a mode.

    Outputs start as NaN: fresh memory may hold the result of the call before.
    """
    rng = np.random.default_rng(2)
    offsets = np.sort(np.r_[0, 0, rng.integers(0, MANY, MANY - 3), MANY])
    case: Case = {"indices": indices} | ({"offsets": offsets, "mode": mode} if mode else {})
    lengths = {"D": WIDE, "B": offsets.size - 1 if mode else MANY}
    for arg in OPS[op]:
        shape = [lengths.get(letter, MANY) for letter in arg.shape]
        if arg.role == "out":
            case["out"] = np.full(shape, np.nan, np.float32)
        elif arg.name == "argmax" and mode == "max":
            case["argmax"] = rng.integers(0, 2, shape, np.int32)
        elif arg.name not in ("indices", "offsets", "argmax", "scales"):
            dtype = np.float32 if arg.dtype in "EFO" else arg.dtype
            case[arg.name] = (9 * rng.random(shape)).astype(dtype)
    if op == "sgd_step":
        case["momentum"] = 0.9
    return case | ({"lr": 0.3, "options": EVERY_OPTION} if op.endswith("_step") else {})


def _bits(op: str, case: Case) -> dict[str, bytes]:
    return {name: np.asarray(a).tobytes() for name, a in bounds.results(ops, op, case).items()}


def _calls() -> Iterator[Any]:
    for op in DETERMINISTIC:
        modes = {"gather": ("",), "embedding_bag": ("mean", "max"), "weights_grad": ("mean", "max")}
        for mode in modes.get(op, ("", "mean", "max")):
            yield pytest.param(op, mode, id=f"{op}-{mode}" if mode else op)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("op", "mode"), [*_calls()])
def test_same_bits_for_any_number_of_threads(op: str, mode: str, backend: ModuleType, pattern: str) -> None:
    indices = PATTERNS[pattern](np.random.default_rng(3))
    with num_threads(1):
        want = _bits(op, _large(op, indices, mode))
    for threads in (2, 3, 8):
        with num_threads(threads):
            assert _bits(op, _large(op, indices, mode)) == want


@several
@pytest.mark.parametrize("width", [1, 19, 100, 301])
@pytest.mark.parametrize("float_t", FLOATS, ids=str)
@pytest.mark.parametrize("op", [op for op in DETERMINISTIC if op != "weights_grad"])  # dot products add lane by lane
def test_same_bits_on_every_backend(op: str, float_t: Any, width: int) -> None:
    """Their kernels multiply and add in a fixed order and do not fuse."""
    found = []
    for backend in BACKENDS:
        with using(backend):
            found.append([_bits(op, case) for case in samples(op, float_t, np.dtype(np.int64), width)])
    assert all(bits == found[0] for bits in found)


@pytest.mark.parametrize("width", [1, 33])
@pytest.mark.parametrize("float_t", FLOATS, ids=str)
@pytest.mark.parametrize("count", [2, 30, 1023, 1024, 1025, 2048, 2049, 5000])
def test_sums_are_added_in_chunks(backend: ModuleType, count: int, float_t: Any, width: int) -> None:
    rng, others = np.random.default_rng(count), min(count, 90)
    grads, indices = rng.standard_normal((count + others, width)).astype(float_t), np.full(count + others, 7)
    indices[rng.permutation(indices.size)[:others]] = rng.integers(0, 7, others)
    terms = grads[indices == 7]
    chunks = [np.add.accumulate(terms[i : i + 1024])[-1] for i in range(0, count, 1024)]
    want = np.add.accumulate(chunks)[-1]
    for threads in (1, 3):
        with num_threads(threads):
            assert ops.coalesce(indices, grads).values[-1].tobytes() == want.tobytes()


@pytest.mark.parametrize(
    ("op", "options"),
    [("scatter_add", StepOptions())] + [(op, o) for op in STEPS for o in (StepOptions(), EVERY_OPTION)],
)
def test_steps_begin_with_the_sums_of_coalesce(op: str, backend: ModuleType, options: StepOptions) -> None:
    """Hot rows and all: a step on a gradient summed before gives the same bits."""
    rng = np.random.default_rng(5)
    n, width = 5000, 21
    lookups: Case = {
        "indices": np.where(rng.random(n) < 0.5, 3, rng.integers(0, 11, n)),
        "weights": rng.random(n, np.float32),
        "offsets": np.sort(np.r_[0, rng.integers(0, n, 999), n]),
        "grads": rng.standard_normal((1000, width), np.float32),
        "mode": "sqrtn",
        "padding_idx": 5,
    }
    summed = ops.coalesce(**lookups)
    counted = StepOptions(**options.asdict() | {"scale_grad_by_freq": False})
    shared = {"lr": 0.1, "options": counted} if op in STEPS else {}
    found = []
    for case in (lookups, {"indices": summed.rows, "grads": summed.values}):
        state = np.random.default_rng(6)
        arrays = {
            arg.name: (state.random([11, width][: len(arg.shape)]) * 3).astype("f4" if arg.dtype in "EF" else arg.dtype)
            for arg in OPS[op]
            if arg.role == "inout"
        }
        found.append(_bits(op, arrays | shared | case))
    assert found[0] == found[1]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("last", ["in order", "first of all", "before the last"])
@pytest.mark.parametrize("op", [op for op in DETERMINISTIC if op not in ("gather", "embedding_bag", "weights_grad")])
def test_lookups_in_order_need_no_sorting(op: str, backend: ModuleType, last: str, weighted: bool) -> None:
    """The same bits as of lookups that are sorted first, those of a row in the same order; also if the last is not."""
    case = _large(op, np.random.default_rng(8).integers(0, MANY // 2, MANY) * 2, "")
    order = np.argsort(case["indices"], kind="stable")
    if last != "in order":  # one lookup of a row of its own, an odd one, comes last
        case["indices"][order[-1]] = 1 if last == "first of all" else case["indices"][order[-2]] - 1
    case["weights"] = case["weights"] if weighted else None
    names = ("indices", "grads", "weights")
    ordered = case | {name: case[name][order] for name in names if case[name] is not None}
    for threads in (1, 3):
        found = []
        for given in (case, ordered):
            with num_threads(threads):
                found.append(_bits(op, {k: a.copy() if isinstance(a, np.ndarray) else a for k, a in given.items()}))
        assert found[0] == found[1]
