"""Tables of 16 bits: what is computed with them, that it is the same everywhere, what is written and what is refused.
Their rounding is tested in test_rounding.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import bounds
from bad_inputs import elements, good, good_int8
from cases import Case
from conftest import BACKENDS, several, using
from halves import (
    HALVES,
    STEPS,
    TABLE_OPS,
    UPDATES,
    assert_same,
    each_half,
    every_number,
    expected,
    halved,
    in_float32,
    rounds,
    samples,
)  # fmt: skip
from hotrow import num_threads, ops, optim
from hotrow._ops import OPS
from test_bits import EVERY_OPTION, PATTERNS, _calls, _large
from test_ops import GUARD, WINDOWS, _guarded

each_table_op = pytest.mark.parametrize("op", TABLE_OPS)


def grid(*names: str) -> Any:
    """On every backend: each operator, 16-bit dtype and width."""
    lanes = {backend: backend.lanes(np.float32) for backend in BACKENDS}
    cells = [(b, op, h, w) for b in BACKENDS for op in names for h in HALVES for w in (1, lanes[b] + 1, 33, 100)]
    cells = [pytest.param(*cell, id="-".join(str(x) for x in cell)) for cell in cells]
    return pytest.mark.parametrize(("backend", "op", "half", "width"), cells, indirect=["backend"])


# --- results ----------------------------------------------------------------------------------------------------------


@grid(*TABLE_OPS)
def test_matches_reference(backend: ModuleType, op: str, half: Any, width: int) -> None:
    for case, (want, bound) in zip(samples(op, half, width), expected(op, half, width), strict=True):
        found = bounds.results(ops, op, case)
        bounds.assert_within(found, want, bound)
        if "result" in found:
            assert found["result"].dtype == (half if op == "gather" or rounds(op, case, half) else np.float32)
            assert found["result"] is case.get("out", found["result"])


@grid("embedding_bag", *UPDATES)
def test_is_the_float32_operator_rounded_once(backend: ModuleType, op: str, half: Any, width: int) -> None:
    """Bit for bit, states too: a decoupled decay is not rounded on its own, chances are as the model draws them."""
    for case in samples(op, half, width):
        want = in_float32(op, case, half)
        found = bounds.results(ops, op, case)
        assert found.keys() == want.keys()
        for name in found:
            same = assert_same if found[name].dtype == half else np.testing.assert_array_equal
            same(found[name], want[name])


@each_half
def test_every_number_is_read(backend: ModuleType, half: Any) -> None:
    """gather copies its bits; pooling begins with its value in float32."""
    table, order = every_number(half), np.random.default_rng(1).permutation(1024)
    assert ops.gather(table, order).tobytes() == table[order].tobytes()
    with np.errstate(all="ignore"):
        for mode in ("sum", "max"):
            for dtype in (np.float32, half):
                found = ops.embedding_bag(table, order, np.arange(1025), mode=mode, dtype=dtype)
                np.testing.assert_array_equal(found.astype(np.float32), table[order].astype(np.float32))


@each_half
def test_bags_are_rounded_part_by_part(backend: ModuleType, half: Any) -> None:
    """More bags than a thread sums before it rounds them; of one lookup each, which is a number of 16 bits."""
    rng = np.random.default_rng(4)
    table, indices = rng.standard_normal((50, 64)).astype(half), rng.integers(0, 50, 5000)
    argmax = np.full((5000, 64), -7, np.int32)
    for threads in (1, 2):
        with num_threads(threads):
            found = ops.embedding_bag(table, indices, np.arange(5001), mode="max", argmax=argmax, dtype=half)
        assert_same(found, table[indices])
        assert not argmax.any()


# --- the same bits, and nothing else written --------------------------------------------------------------------------


def bits(op: str, case: Case) -> dict[str, bytes]:
    return {name: np.asarray(a).tobytes() for name, a in bounds.results(ops, op, case).items()}


@several
@grid(*(op for op in TABLE_OPS if op != "weights_grad"))  # dot products add lane by lane
def test_same_bits_on_every_backend(backend: ModuleType, op: str, half: Any, width: int) -> None:
    found = [bits(op, case) for case in samples(op, half, width)]
    with using(BACKENDS[0]):
        assert found == [bits(op, case) for case in samples(op, half, width)]


@each_half
@pytest.mark.parametrize(("op", "mode"), [call for call in _calls() if call.values[0] in TABLE_OPS])
def test_same_bits_for_any_number_of_threads(backend: ModuleType, op: str, mode: str, half: Any) -> None:
    indices, found = PATTERNS["zipf"](np.random.default_rng(6)), []
    options = {"options": replace(EVERY_OPTION, stochastic_rounding=True), "draw": 2} if op in STEPS else {}
    options |= {"dtype": half, "out": None} if op == "embedding_bag" else {}
    for threads in (1, 2, 3, 8):
        with num_threads(threads):
            found.append(bits(op, halved(_large(op, indices, mode), op, half) | options))
    assert all(other == found[0] for other in found)


@pytest.mark.parametrize("width", [1, 5, 16, 37])
@each_half
@pytest.mark.parametrize("op", UPDATES)
def test_nothing_else_is_written(op: str, backend: ModuleType, half: Any, width: int) -> None:
    """Around rows, and in rows that no lookup names, full of a NaN that rounding would change."""
    for case, plain in zip(samples(op, half, width), samples(op, half, width), strict=True):
        unread, number = np.setdiff1d(np.arange(len(case["table"])), case["indices"]), case["table"].view(np.uint16)
        number[unread] = 0x7F81
        around, inside = _guarded(number)
        getattr(ops, op)(**plain)
        getattr(ops, op)(**case | {"table": inside.view(half)})
        want = plain["table"].view(np.uint16).copy()
        want[unread] = 0x7F81
        np.testing.assert_array_equal(inside, want)
        inside[...] = GUARD
        assert (around == GUARD).all()


@each_half
def test_nothing_around_rows_that_are_read_is_written(backend: ModuleType, half: Any) -> None:
    for width in (1, 5, 16, 37):
        table, rows = every_number(half)[:, :width], np.arange(9)
        for read in (ops.gather, lambda table, rows, out: ops.embedding_bag(table, rows, np.arange(10), out=out)):
            around, inside = _guarded(np.zeros((9, width), np.uint16))
            read(table, rows, out=inside.view(half))
            np.testing.assert_array_equal(inside, table[:9].view(np.uint16))
            inside[...] = GUARD
            assert (around == GUARD).all()


@each_half
@each_table_op
def test_memory_mapped_tables(op: str, backend: ModuleType, half: Any, tmp_path: Path) -> None:
    """Read through a read-only map, updated in the file through a writable one."""
    case, plain = (next(samples(op, half, 20)) for _ in range(2))
    (tmp_path / "table").write_bytes(case["table"].tobytes())
    mode = "r+" if op in UPDATES else "r"
    numbers = np.memmap(
        tmp_path / "table", np.float16 if half == np.float16 else np.uint16, mode, 0, plain["table"].shape
    )
    assert bits(op, case | {"table": numbers.view(half)}) == bits(op, plain)
    numbers.flush()
    assert (tmp_path / "table").read_bytes() == plain["table"].tobytes()


# --- bad inputs -------------------------------------------------------------------------------------------------------


def _mixtures(op: str, half: Any) -> Iterator[tuple[Case, str]]:
    """Arguments of dtypes that do not go together with a table of 16 bits, and what the error says."""
    arrays = {arg.name: good(op)[arg.name] for arg in OPS[op] if arg.dtype == "F" and arg.name in good(op)}
    doubles = {name: a.astype(np.float64) for name, a in good(op).items() if name in (*arrays, "out")}
    beside = f"must be float32 beside a table of {half.name}, not float64"
    for name, a in arrays.items():
        yield {name: a.astype(half)}, f"{name} must be float32 or float64, not {half.name}"
        if name == "grads":
            yield (
                {name: doubles[name]},
                f"grads {'must be float32 as weights is, not float64' if op in UPDATES else beside}",
            )
            yield doubles | {"weights": None}, f"grads {beside}"
            yield doubles, f"weights {beside}"
        elif name not in ("weights", "out"):  # what is updated decides
            yield {name: doubles[name]}, f"weights must be float64 as {name} is, not float32"
            yield {name: doubles[name], "weights": None}, f"grads must be float64 as {name} is, not float32"
    if op == "gather":
        yield {"out": good(op)["out"]}, f"table must be float32 as out is, not {half.name}"
    if op in ("embedding_bag", "weights_grad"):
        yield {"weights": doubles["weights"]}, f"weights {beside}"
        yield {"out": doubles["out"]}, f"out {beside}"
    if op == "embedding_bag":
        either = f"dtype must be float32 or {half.name} beside a table of {half.name}, not "
        yield {"out": None, "dtype": "d"}, either + "float64"
        for other in HALVES:
            if other != half:
                yield {"out": None, "dtype": other}, either + other.name
                out = good(op)["out"].astype(other)
                yield {"out": out}, f"out must be float32 beside a table of {half.name}, not {other.name}"


def _refused(op: str, case: Case, text: str) -> None:
    before = {name: a.tobytes() for name, a in case.items() if isinstance(a, np.ndarray)}
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        getattr(ops, op)(**case)
    assert {name: a.tobytes() for name, a in case.items() if isinstance(a, np.ndarray)} == before


@each_half
@each_table_op
def test_dtypes_that_do_not_go_together(op: str, half: Any) -> None:
    for wrong, text in _mixtures(op, half):
        _refused(op, good(op) | {"table": good(op)["table"].astype(half)} | wrong, text)


def test_dtypes_that_bags_cannot_have(backend: ModuleType) -> None:
    case, int8 = good("embedding_bag"), good_int8("embedding_bag")
    halves, none = case["out"].astype(np.float16), {"out": None}
    for wrong, text in (
        (case | {"out": halves}, "table must be float16 as out is, not float32"),
        (case | none | {"dtype": np.float16}, "dtype must be float32 beside a table of float32, not float16"),
        (case | none | {"dtype": "nonsense"}, "dtype must be a NumPy dtype, not 'nonsense'"),
        (int8 | none | {"dtype": np.int8}, "dtype must be float32 beside a table of int8, not int8"),
        (int8 | {"out": halves}, "out must be float32 beside a table of int8, not float16"),
    ):
        _refused("embedding_bag", wrong, text)
    with pytest.raises(ValueError, match=r"^dtype is that of a new array: it must be None beside out$"):
        ops.embedding_bag(**case, dtype=np.float32)


@each_half
@pytest.mark.parametrize("op", ["coalesce", *WINDOWS])
def test_operators_without_16_bit_tables(op: str, half: Any) -> None:
    for name in {"grads", "in_table", "out_table"} & good(op).keys():
        text = f"{name} must be float32 or float64, not {half.name}"
        _refused(op, good(op) | {name: good(op)[name].astype(half)}, text)


@each_table_op
def test_other_dtypes_of_tables(op: str) -> None:
    wrong: list[Any] = [half.newbyteorder() for half in HALVES]
    if len(HALVES) > 1:
        ml_dtypes = pytest.importorskip("ml_dtypes")
        wrong += [np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e5m2)]
    for dtype in wrong:
        name = dtype.name if dtype.isnative else f"{dtype.str} (not the byte order of this machine)"
        table, text = np.zeros((11, 5), dtype), "table must be {}, not " + name
        _refused(op, good(op) | {"table": table}, text.format(elements(op)))
        text = text.format("float32, float64, float16 or bfloat16")
        with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
            optim.SGD(table, lr=0.1)
