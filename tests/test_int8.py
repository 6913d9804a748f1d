"""Tables of 8 bits: how they are made, what is looked up in them, that it is the same everywhere and that nothing else
is written. Bad arguments of the operators stand in bad_inputs.py.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import bounds
import hotrow
from bad_inputs import good, good_int8
from cases import LAYOUTS, SAMPLES, UNREAD, Array, Case, read_only, relaid, wider
from conftest import BACKENDS, several, using
from halves import HALVES
from hotrow import num_threads, ops, optim
from hotrow._ops import FLOATS, INDICES, OPS
from test_bits import PATTERNS, _calls, _large
from test_ops import GUARD, _guarded, each_index, widths

SCALED = [op for op, args in OPS.items() if any(arg.name == "scales" for arg in args)]
DTYPES = [*FLOATS, *HALVES]

each_scaled = pytest.mark.parametrize("op", SCALED)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)


# --- samples ----------------------------------------------------------------------------------------------------------


def _int8(a: Array) -> Array:
    return np.clip(np.nan_to_num(np.rint(a * 60)), -128, 127).astype(np.int8)


def scales_of(rows: int, rng: np.random.Generator, exact: bool = False) -> Array:
    """Of either sign, one of them 0, that of UNREAD NaN; `exact`: products with elements are not rounded."""
    scales = rng.integers(-1000, 1000, rows) / 2**12 if exact else rng.standard_normal(rows)
    scales[2:3] = 0
    scales[UNREAD : UNREAD + 1] = np.nan
    return scales.astype(np.float32)


def samples(op: str, index_t: Any, width: int) -> Iterator[Case]:
    """Those of cases.py with int8 tables. Maxima must be told apart exactly where argmax is asked for."""
    rng = np.random.default_rng(zlib.crc32(f"{op} {index_t} {width}".encode()))
    for case in SAMPLES[op](rng, np.float32, index_t.type, width):
        scales = scales_of(len(case["table"]), rng, "argmax" in case)
        yield case | {"table": relaid(case["table"], _int8), "scales": scales}


@lru_cache
def expected(op: str, index_t: Any, width: int) -> list[tuple[bounds.Results, bounds.Results]]:
    cases = samples(op, index_t, width)
    return [bounds.expected(op, case | {"table": case["table"].astype(np.float64)}, np.float32) for case in cases]


def bits(op: str, case: Case) -> dict[str, bytes]:
    return {name: np.asarray(a).tobytes() for name, a in bounds.results(ops, op, case).items()}


def _grid() -> Iterator[Any]:
    for backend in BACKENDS:
        for op in SCALED:
            for width in widths(op, backend.lanes(np.float32)):
                yield pytest.param(backend, op, width, id=f"{backend}-{op}-{width}")


# --- results ----------------------------------------------------------------------------------------------------------


@each_index
@pytest.mark.parametrize(("backend", "op", "width"), [*_grid()], indirect=["backend"])
def test_matches_reference(backend: ModuleType, op: str, width: int, index_t: Any) -> None:
    for case, (want, bound) in zip(samples(op, index_t, width), expected(op, index_t, width), strict=True):
        found = bounds.results(ops, op, case)
        bounds.assert_within(found, want, bound)
        assert found["result"].dtype == np.float32
        assert found["result"] is case.get("out", found["result"])


@pytest.mark.parametrize("width", [1, 21, 100])
def test_scales_are_factors_of_weights(backend: ModuleType, width: int) -> None:
    """Bit for bit: the product of weight and scale is rounded, then that with the element, then the sum."""
    for case in samples("embedding_bag", np.dtype(np.int64), width):
        if case.get("mode", "sum") in ("sum", "max"):
            scales, weights = case["scales"], case.get("weights", np.float32(1))
            plain = {name: case[name] for name in ("indices", "offsets", "padding_idx", "mode") if name in case}
            with np.errstate(invalid="ignore"):
                factors = weights * scales[case["indices"]]
            wide = case["table"].astype(np.float32)
            want = ops.embedding_bag(wide, **plain, weights=factors)
            assert ops.embedding_bag(**case).tobytes() == want.tobytes()


@pytest.mark.parametrize("width", [1, 3, 4, 5, 8, 15, 16, 17, 31, 64, 256])
def test_every_value_is_exact(backend: ModuleType, width: int) -> None:
    """-128 to 127 times powers of two, down to where float32 ends."""
    values = np.resize(np.arange(-128, 128).astype(np.int8), (-(-256 // width), width))
    rows = np.arange(len(values))
    for scale in (1.0, -0.25, 2.0**-149, 2.0**120):
        scales = np.full(len(values), scale, np.float32)
        want = values * np.float32(scale)
        np.testing.assert_array_equal(ops.gather(values, rows, scales=scales), want)
        for mode in ("sum", "max", "mean"):
            bags = ops.embedding_bag(values, rows, np.arange(rows.size + 1), scales=scales, mode=mode)
            np.testing.assert_array_equal(bags, want)


@pytest.mark.parametrize("width", [3, 16, 37, 130])
def test_gathers_past_the_caches(backend: ModuleType, width: int) -> None:
    """Outputs of 32 MiB and more, streamed natively: rows that share cache lines, rows apart, any start in a line."""
    N, rng = (33 << 20) // (4 * width), np.random.default_rng(width)
    table, scales = rng.integers(-128, 128, (1000, width), np.int8), rng.random(1000, np.float32)
    indices = rng.integers(0, 1000, N)
    want = (table * scales[:, None])[indices]
    around = np.full(N * width + 32, GUARD, np.float32)
    close = [around[start : start + N * width].reshape(N, width) for start in (0, 5)]
    for out in (*close, wider(np.zeros((N, width), np.float32))):
        around[:] = GUARD
        with num_threads(3):
            ops.gather(table, indices, scales=scales, out=out)
        np.testing.assert_array_equal(out, want)
        out[:] = GUARD
        assert (around == GUARD).all()


def test_scales_that_are_not_numbers(backend: ModuleType) -> None:
    """They spoil the rows that are theirs, and no bag that leaves these out."""
    table, scales = np.ones((5, 20), np.int8), np.float32([1, np.nan, np.inf, -np.inf, 2])
    table[2, 3] = 0
    with np.errstate(invalid="ignore"):
        want = table * scales[:, None]
    np.testing.assert_array_equal(ops.gather(table, np.arange(5), scales=scales), want)
    for mode in ("sum", "max"):
        bags = ops.embedding_bag(table, [0, 4, 1, 2, 1], [0, 2, 4, 5], scales=scales, mode=mode, padding_idx=1)
        np.testing.assert_array_equal(bags, [np.full(20, 3 if mode == "sum" else 2), want[2], np.zeros(20)])
        assert np.isnan(ops.embedding_bag(table, [0, 1], [0, 2], scales=scales, mode=mode)).all()


def test_shapes_without_elements(backend: ModuleType) -> None:
    none, scales = np.ones((5, 0), np.int8), np.ones(5, np.float32)
    assert ops.gather(none, [[0, 4]], scales=scales).shape == (1, 2, 0)
    assert ops.embedding_bag(none, [0, 4], [0, 2], scales=scales).shape == (1, 0)
    found = ops.gather(np.ones((0, 3), np.int8), [], scales=scales[:0])
    assert (found.shape, found.dtype) == ((0, 3), np.float32)


# --- the same bits, and nothing else written --------------------------------------------------------------------------


@several
@pytest.mark.parametrize("width", [1, 19, 100, 301])
@each_scaled
def test_same_bits_on_every_backend(op: str, width: int) -> None:
    found = []
    for backend in BACKENDS:
        with using(backend):
            found.append([bits(op, case) for case in samples(op, np.dtype(np.int64), width)])
    assert all(other == found[0] for other in found)


@pytest.mark.parametrize(("op", "mode"), [call for call in _calls() if call.values[0] in SCALED])
def test_same_bits_for_any_number_of_threads(backend: ModuleType, op: str, mode: str) -> None:
    rng, found = np.random.default_rng(6), []
    case = _large(op, PATTERNS["zipf"](rng), mode)
    case |= {"table": (case["table"] * 10).astype(np.int8), "scales": rng.random(len(case["table"]), np.float32)}
    for threads in (1, 2, 3, 8):
        with num_threads(threads):
            found.append(bits(op, case))
    assert all(other == found[0] for other in found)


@pytest.mark.parametrize("width", [1, 5, 16, 37, 130])
@each_scaled
def test_nothing_else_is_written(op: str, backend: ModuleType, width: int) -> None:
    """Around outputs, and to inputs."""
    for case in samples(op, np.dtype(np.int32), width):
        case.pop("out", None)
        want = bits(op, case)
        around, inside = {}, {}
        around["out"], inside["out"] = _guarded(np.zeros_like(getattr(ops, op)(**case)))
        if "argmax" in case:
            around["argmax"], inside["argmax"] = _guarded(case["argmax"])
        inputs = {name: a for name, a in case.items() if isinstance(a, np.ndarray) and name != "argmax"}
        before = {name: a.tobytes() for name, a in inputs.items()}
        assert bits(op, case | inside) == want
        assert {name: a.tobytes() for name, a in inputs.items()} == before
        for name, array in around.items():
            inside[name][...] = GUARD
            assert (array == GUARD).all(), name


@each_scaled
def test_memory_mapped_tables(op: str, backend: ModuleType, tmp_path: Path) -> None:
    case = next(samples(op, np.dtype(np.int64), 20))
    mapped = {}
    for name in ("table", "scales"):
        case[name].tofile(tmp_path / name)
        mapped[name] = np.memmap(tmp_path / name, case[name].dtype, "r", shape=case[name].shape)
    assert bits(op, case | mapped) == bits(op, case)


# --- refused ----------------------------------------------------------------------------------------------------------


@each_scaled
def test_good_int8_input_is_good(op: str, backend: ModuleType) -> None:
    getattr(ops, op)(**good_int8(op))


def _tables() -> Iterator[Any]:
    for op in OPS:
        for arg in OPS[op]:
            if arg.name.endswith("table") and op not in SCALED:
                yield op, arg.name


@pytest.mark.parametrize(("op", "name"), [*_tables()])
def test_operators_without_int8_tables(op: str, name: str) -> None:
    case = good(op)
    case[name] = case[name].astype(np.int8)
    text = rf"^{name} must be .*, not int8: gather and embedding_bag alone read int8 tables$"
    with pytest.raises(TypeError, match=text):
        getattr(ops, op)(**case)


def test_optimizers_without_int8_tables() -> None:
    table = np.zeros((3, 4), np.int8)
    for make in (lambda: optim.SGD(table, lr=0.1), lambda: optim.Adam(table), lambda: hotrow.quantize(table)):
        with pytest.raises(TypeError, match=r", not int8: gather and embedding_bag alone read int8 tables$"):
            make()


# --- quantize ---------------------------------------------------------------------------------------------------------


def _assert_close(table: Array, found: hotrow.QuantizedTable) -> None:
    """As defined: the largest element is 127 scales, and none is further off than half a scale."""
    exact, (values, scales) = table.astype(np.float64), found
    assert (values.dtype, values.shape) == (np.int8, table.shape)
    assert (scales.dtype, scales.shape) == (np.float32, table.shape[:1])
    assert values.min(initial=0) >= -127
    wide = scales.astype(np.float64)[:, None]
    assert (abs(exact - values * wide) <= wide / 2 * (1 + 1e-12)).all()
    largest = abs(exact).max(axis=1, initial=0)
    np.testing.assert_allclose(scales, largest / 127, rtol=2.0**-23, atol=2.0**-149)
    assert ((scales == 0) == (largest == 0)).all()
    assert np.isfinite(ops.gather(values, np.arange(len(values)), scales=scales)).all()


@pytest.mark.parametrize("width", [0, 1, 63, 64, 65, 100])
@each_dtype
def test_quantize(dtype: Any, width: int) -> None:
    rng = np.random.default_rng(width)
    table = (rng.standard_normal((300, width)) * 2.0 ** rng.integers(-10, 10, (300, 1))).astype(dtype)
    table[[4, 299]] = 0
    found = hotrow.quantize(table)
    _assert_close(table, found)
    assert not found.values[[4, 299]].any()
    assert found.values.flags.c_contiguous
    assert width == 0 or found.values.ctypes.data % 64 == 0
    for layout in (*LAYOUTS, read_only):
        again = hotrow.quantize(relaid(layout(np.zeros((300, width), np.float32)), lambda base: base.astype(dtype)))
        assert not again.values.any()
    for other in (table[::-2], table[:, ::-1], np.broadcast_to(table[1], table.shape)):
        _assert_close(other, hotrow.quantize(other))


def test_quantize_rounds_halves_to_even() -> None:
    table = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5], [-63.5, 0.25, 0.3, 0, 0, 0, 0]])
    values, scales = hotrow.quantize(table)
    assert scales.tolist() == [1, 0.5]
    assert values.tolist() == [[127, 0, 2, 2, 0, -2, -126], [-127, 0, 1, 0, 0, 0, 0]]


@each_dtype
def test_quantize_the_ends_of_a_dtype(dtype: Any) -> None:
    """The largest and the smallest numbers; of float64, those that float32 has."""
    ends = [np.finfo(np.float32)] if dtype == np.float64 else [_finfo(dtype)]
    numbers = [float(x) for info in ends for x in (info.max, info.smallest_normal, info.smallest_subnormal)]
    small = [numbers[2] * k for k in (2, 63, 64, 65, 127, 128, 190, 191, 1000)]
    table = np.array([[x, -x / 2, 0] for x in (*numbers, *small)]).astype(dtype)
    _assert_close(table, hotrow.quantize(table))


def _finfo(dtype: Any) -> Any:
    return np.finfo(dtype) if dtype.kind == "f" else pytest.importorskip("ml_dtypes").finfo(dtype)


@pytest.mark.parametrize("row", [0, 1310, 2999])
@each_dtype
def test_quantize_refuses_what_is_not_finite(dtype: Any, row: int) -> None:
    for value in (np.nan, np.inf, -np.inf):
        table = np.ones((3000, 100), dtype)  # several blocks
        table[row, 7] = value
        with pytest.raises(ValueError, match=rf"^table\[{row}, 7\] = {value} is not finite$"):
            hotrow.quantize(table)
    with pytest.raises(ValueError, match=r"^table\[0, 1\] = -1e\+39 is too large for float32$"):
        hotrow.quantize(np.array([[1, -1e39, 0]]))


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ([[1.0]], "table must be a NumPy array, not list: it is never copied"),
        (np.ones(3), "table must have 2 dimensions, not 1"),
        (np.ones((2, 2), np.int64), "table must be float32, float64, float16 or bfloat16, not int64"),
    ],
)
def test_quantize_refuses_other_tables(table: Any, text: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        hotrow.quantize(table)


def test_quantize_many_blocks_of_a_mapped_table(tmp_path: Path) -> None:
    table = np.random.default_rng(3).standard_normal((5000, 100), np.float32)
    table.tofile(tmp_path / "table")
    mapped = np.memmap(tmp_path / "table", np.float32, "r", shape=table.shape)
    _assert_close(table, hotrow.quantize(mapped))


def test_lookups_in_a_quantized_table(backend: ModuleType) -> None:
    """From end to end: what is looked up is what was quantized, to half a scale a lookup."""
    rng = np.random.default_rng(5)
    table, indices, offsets = rng.standard_normal((100, 33)), rng.integers(0, 100, 50), np.array([0, 20, 50])
    values, scales = hotrow.quantize(table)
    half = scales[indices, None] * 0.501
    assert (abs(hotrow.gather(values, indices, scales=scales) - table[indices]) <= half).all()
    bags = hotrow.embedding_bag(values, indices, offsets, scales=scales)
    bound = np.add.reduceat(half, offsets[:-1])
    assert (abs(bags - hotrow.embedding_bag(table, indices, offsets)) <= bound).all()


@pytest.mark.parametrize("index_t", INDICES, ids=str)
def test_indices_of_any_shape(backend: ModuleType, index_t: Any) -> None:
    table, scales = np.arange(-8, 7).reshape(5, 3).astype(np.int8), np.float32([1, 2, 3, 4, 5])
    indices = np.array([[0, 4], [2, 2]], index_t)
    want = (table * scales[:, None])[indices]
    np.testing.assert_array_equal(ops.gather(table, indices, scales=scales), want)
    np.testing.assert_array_equal(ops.gather(table, indices.T, scales=scales), want.transpose(1, 0, 2))
