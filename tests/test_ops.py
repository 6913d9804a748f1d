"""Every operator x backend x instruction set x dtype x width, from the tables alone: that each layer has it, that it
computes what hotrow.reference defines within the bound of its roundings, that it writes nothing else, and that bad
inputs raise the promised error and change nothing.
"""

from __future__ import annotations

import inspect
import re
import zlib
from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import bounds
from bad_inputs import ERRORS, Bad, good
from cases import SAMPLES, Array, Case, wider
from conftest import BACKENDS
from hotrow import num_threads, ops, reference
from hotrow._ops import FLOATS, INDICES, OPS, Arg

# With more threads they depend on their timing.
WINDOWS = ("skipgram_step", "skipgram_epoch", "cbow_epoch", "skipgram_hs_epoch", "cbow_hs_epoch")
GUARD = 777.0


def samples(op: str, float_t: Any, index_t: Any, width: int) -> Iterator[Case]:
    seed = zlib.crc32(f"{op} {float_t} {index_t} {width}".encode())
    return SAMPLES[op](np.random.default_rng(seed), float_t.type, index_t.type, width)


def widths(op: str, lanes: int) -> list[int]:
    """1, and around multiples of the lane count: every one to past a block of 8 registers, then a few up to 301."""
    multiples: list[float] = [*range(1, 10), 15, 16, 17, 24, 300 // lanes]
    if op in WINDOWS:  # slow: tails in long and short registers, more than 128 columns, and several blocks of registers
        multiples = [1, 1.5, 2, 3, 128 // lanes, 300 // lanes]
    elif op not in ("gather", "embedding_bag", "coalesce"):  # slow, and the sums of all gradients are the same code
        multiples = [1, 4, 8]
    around = {int(m * lanes) + e for m in multiples for e in (-1, 0, 1)}
    return sorted(d for d in around | {1, 100, 301} if 1 <= d <= 301)


def _grid() -> Iterator[Any]:
    for op, float_t, width in product(OPS, FLOATS, range(1, 302)):
        for backend in BACKENDS:
            if width in widths(op, backend.lanes(float_t)):
                yield pytest.param(op, float_t, width, backend, id=f"{op}-{float_t}-{width}-{backend}")


@lru_cache(maxsize=4)  # one backend after the other asks for them, of two dtypes of indices
def expected(op: str, float_t: Any, index_t: Any, width: int) -> list[tuple[bounds.Results, bounds.Results]]:
    return [bounds.expected(op, case, float_t) for case in samples(op, float_t, index_t, width)]


each_op = pytest.mark.parametrize("op", OPS)
each_float = pytest.mark.parametrize("float_t", FLOATS, ids=str)
each_index = pytest.mark.parametrize("index_t", INDICES, ids=str)


# --- every layer has every operator -----------------------------------------------------------------------------------


@each_op
def test_every_layer_has_every_operator(op: str, backend: ModuleType) -> None:
    for layer in (backend, ops, reference):
        assert inspect.isroutine(getattr(layer, op))
    for table in (SAMPLES, ERRORS):
        assert list(table) == list(OPS)


def test_native_table_is_the_python_table(backend: ModuleType) -> None:
    names = getattr(backend, "OPS", tuple(OPS))
    assert names == tuple(OPS)
    source = Path(__file__).parents[1] / "csrc/ops.def"
    if source.exists():  # not beside an installed package
        assert re.findall(r"^HOTROW_OP\((\w+),", source.read_text(), re.MULTILINE) == list(OPS)


@each_op
def test_reference_takes_the_arguments_of_the_operator(op: str) -> None:
    public, definition = (inspect.signature(getattr(module, op)).parameters for module in (ops, reference))
    of_memory = "out", "dtype", "progress", "include_last_offset", "draw"
    assert [p for p in public if p not in of_memory] == list(definition)
    arrays = [a.name for a in OPS[op] if a.name in public]
    assert sorted(arrays) == sorted(p for p in public if p in {a.name for a in OPS[op]})
    assert {p.default for p in definition.values()} <= {p.default for p in public.values()}


# --- results ----------------------------------------------------------------------------------------------------------


@each_index
@pytest.mark.parametrize(("op", "float_t", "width", "backend"), [*_grid()], indirect=["backend"])
def test_matches_reference(backend: ModuleType, op: str, float_t: Any, index_t: Any, width: int) -> None:
    cases = samples(op, float_t, index_t, width)
    for case, (want, bound) in zip(cases, expected(op, float_t, index_t, width), strict=True):
        with num_threads(1):  # of skip-gram, which more threads make depend on their timing; the rest is tiny
            found = bounds.results(ops, op, case)
        bounds.assert_within(found, want, bound)
        assert all(np.asarray(x).dtype == float_t for name, x in found.items() if name == "values")
        if "out" in case:
            assert found["result"] is case["out"]


@each_index
@each_float
def test_gather_copies_bits(backend: ModuleType, float_t: Any, index_t: Any) -> None:
    bits = np.random.default_rng(1).integers(0, 256, (40, 33 * float_t.itemsize), np.uint8)
    table = bits.view(float_t)  # NaN payloads, infinities, subnormal numbers, -0.0
    table[0, :4] = -0.0, np.inf, -np.inf, np.finfo(float_t).smallest_subnormal
    indices = np.array([0, 39, 7, 0], index_t)
    assert ops.gather(table, indices).tobytes() == table[indices].tobytes()


@pytest.mark.parametrize("width", [3, 16, 37, 130])
def test_gathers_past_the_caches(backend: ModuleType, width: int) -> None:
    """Outputs of 32 MiB and more, streamed natively: rows that share cache lines, rows apart, any start in a line."""
    N, rng = (33 << 20) // (4 * width), np.random.default_rng(width)
    table = rng.random((1000, width), np.float32)
    indices = rng.integers(0, 1000, N)
    around = np.full(N * width + 32, GUARD, np.float32)
    close = [around[start : start + N * width].reshape(N, width) for start in (0, 5)]
    for out in (*close, wider(np.zeros((N, width), np.float32))):
        around[:] = GUARD
        with num_threads(3):
            ops.gather(table, indices, out=out)
        np.testing.assert_array_equal(out, table[indices])
        out[:] = GUARD
        assert (around == GUARD).all()


@each_index
def test_bags_by_their_starts(backend: ModuleType, index_t: Any) -> None:
    table, indices = np.eye(4, dtype=np.float32), np.array([0, 1, 1, 3], index_t)
    bags = ops.embedding_bag(table, indices, np.array([0, 0, 3], index_t), include_last_offset=False)
    np.testing.assert_array_equal(bags, [[0, 0, 0, 0], [1, 2, 0, 0], [0, 0, 0, 1]])


def test_coalesce_takes_every_index_that_is_not_negative(backend: ModuleType) -> None:
    highest = np.iinfo(np.int64).max
    rows, values = ops.coalesce(np.array([highest, 0, highest]), np.ones((3, 2), np.float32))
    assert rows.tolist() == [0, highest]
    assert values.tolist() == [[1, 1], [2, 2]]


def test_one_row_may_have_any_stride(backend: ModuleType) -> None:
    table = np.ones(1, [("row", np.float32, 5), ("odd", np.uint8)])["row"]
    np.testing.assert_array_equal(ops.gather(table, [0, 0]), np.ones((2, 5)))


def test_tables_without_columns_and_lists_without_entries(backend: ModuleType) -> None:
    assert ops.gather(np.ones((5, 0)), np.array([[0, 4]])).shape == (1, 2, 0)
    assert ops.embedding_bag(np.ones((5, 0)), [0, 4], [0, 2]).shape == (1, 0)
    assert ops.gather(np.ones((5, 3)), []).shape == (0, 3)
    assert ops.embedding_bag(np.ones((5, 3)), [], [], include_last_offset=False).shape == (0, 3)
    assert ops.weights_grad(np.ones((5, 0)), [0, 4], [0, 2], np.ones((1, 0))).tolist() == [0, 0]
    assert ops.weights_grad(np.ones((5, 3)), [], [0], np.ones((0, 3))).shape == (0,)
    rows, values = ops.coalesce([4, 2, 4], np.ones((1, 0)), offsets=[0, 3], mode="mean", padding_idx=2)
    assert (rows.tolist(), values.shape) == ([4], (1, 0))
    ops.adam_step(*np.ones((3, 5, 0)), [0, 4], np.ones((2, 0)), lr=0.1)


def test_an_output_comes_back_as_it_went_in(backend: ModuleType, tmp_path: Path) -> None:
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=(2, 3))
    assert ops.gather(np.ones((5, 3), np.float32), [0, 4], out=out) is out
    assert ops.embedding_bag(np.ones((5, 3), np.float32), [0, 4], [0, 1, 2], out=out) is out
    assert (out == 1).all()


def test_lists_of_indices_and_interleaved_tables(backend: ModuleType) -> None:
    both = np.ones((6, 8), np.float32)
    loss = ops.skipgram_step(both[:, :4], both[:, 4:], [0, 5], [1, 2], [[3], [4]], lr=0.5)
    assert loss == pytest.approx(float(np.logaddexp(0, -4) + np.logaddexp(0, 4)))
    changed = (both != 1).any(axis=1).tolist()
    assert changed == [True] * 6


# --- what is written, and what is not ---------------------------------------------------------------------------------


def _guarded(a: Array) -> tuple[Array, Array]:
    """A copy of `a` inside a larger array of GUARD, starting at an odd element: (the larger one, the copy)."""
    if a.ndim == 2:
        around = np.full((len(a) + 2, a.shape[1] + 4), GUARD, a.dtype)
        inside = around[1:-1, 1:-3]
    else:
        around = np.full(a.size + 9, GUARD, a.dtype)
        inside = around[5 : 5 + a.size].reshape(a.shape)
    inside[...] = a
    return around, inside


@pytest.mark.parametrize("width", [1, 5, 16, 37, 130])
@each_float
@pytest.mark.parametrize("op", [op for op in OPS if any(a.role != "in" for a in OPS[op])])
def test_nothing_around_outputs_is_written(op: str, backend: ModuleType, float_t: Any, width: int) -> None:
    index_t = np.dtype(np.int64)
    for case, plain in zip(samples(op, float_t, index_t, width), samples(op, float_t, index_t, width), strict=True):
        around, inside = {}, {}
        if OPS[op][-1].role == "out":
            plain.pop("out", None)
            around["out"], inside["out"] = _guarded(np.zeros_like(getattr(ops, op)(**plain)))
        for arg in OPS[op]:
            if arg.role == "inout" and case.get(arg.name) is not None:
                around[arg.name], inside[arg.name] = _guarded(case[arg.name])
        with num_threads(1):
            want = bounds.results(ops, op, plain)
            found = bounds.results(ops, op, case | inside)
        for name in want:
            assert np.asarray(found[name]).tobytes() == np.asarray(want[name]).tobytes()
        for name, array in around.items():
            inside[name][...] = GUARD
            assert (array == GUARD).all(), name


def _arrays(case: Case) -> dict[str, Array]:
    holders = (case[name] for name in ("sampling", "tree") if case.get(name) is not None)
    inner = {field.name: getattr(holder, field.name) for holder in holders for field in fields(holder)}
    return {name: a for name, a in (case | inner).items() if isinstance(a, np.ndarray)}


@each_index
@each_float
@each_op
def test_inputs_are_not_modified(op: str, backend: ModuleType, float_t: Any, index_t: Any) -> None:
    written = {a.name for a in OPS[op] if a.role != "in"}
    for case in samples(op, float_t, index_t, 21):
        before = {name: a.tobytes() for name, a in _arrays(case).items() if name not in written}
        getattr(ops, op)(**case)
        assert all(_arrays(case)[name].tobytes() == bits for name, bits in before.items())


@pytest.mark.parametrize("op", [op for op in OPS if op != "coalesce"])
def test_memory_mapped_tables(op: str, backend: ModuleType, tmp_path: Path) -> None:
    """Read through a read-only map, updated in the file through a writable one."""
    case, plain = (next(samples(op, np.dtype(np.float32), np.dtype(np.int32), 20)) for _ in range(2))
    written = [a.name for a in OPS[op] if a.role == "inout"]
    for name in ("table", "in_table", "out_table"):
        if name in case:
            case[name].tofile(tmp_path / name)
            shape = case[name].shape
            case[name] = np.memmap(tmp_path / name, np.float32, "r+" if name in written else "r", shape=shape)
    with num_threads(1):
        want, found = (bounds.results(ops, op, c) for c in (plain, case))
    for name in want:
        assert np.asarray(found[name]).tobytes() == np.asarray(want[name]).tobytes()
    for name in {"table", "in_table", "out_table"} & set(written):
        case[name].flush()
        assert (tmp_path / name).read_bytes() == want[name].tobytes()


# --- bad inputs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "bad"), [pytest.param(op, bad, id=f"{op}-{bad.id}") for op in OPS for bad in ERRORS[op]]
)
def test_bad_input_raises_and_changes_nothing(op: str, bad: Bad, backend: ModuleType) -> None:
    case = bad.make()
    before = {name: a.tobytes() for name, a in _arrays(case).items()}
    with pytest.raises(bad.error) as caught:
        getattr(ops, op)(**case)
    assert type(caught.value) is bad.error
    assert re.fullmatch(bad.text, str(caught.value)), str(caught.value)
    assert {name: a.tobytes() for name, a in _arrays(case).items()} == before


@pytest.mark.parametrize("op", ERRORS)
def test_good_input_is_good(op: str, backend: ModuleType) -> None:
    getattr(ops, op)(**good(op))


def test_arguments_have_the_letters_the_checks_know() -> None:
    """A shape is a letter for each axis; a bound is a letter that is the rows of a table of the same operator."""
    for args in OPS.values():
        for arg in args:
            assert isinstance(arg, Arg)
            assert all(re.fullmatch(r"[A-Z](\+1)?|\.\.\.", letter) for letter in arg.shape)
            if arg.bound not in (None, "int64"):
                assert any(other.shape == (arg.bound, "D") for other in args)
