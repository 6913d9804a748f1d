"""Tables of 16 bits for the tests: a model of their rounding, the samples of cases.py with narrowed tables, and what
operators make of those: within a bound of the reference, and bit for bit from themselves on float32 tables.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any
from unittest import mock

import numpy as np
import pytest

import bounds
from cases import SAMPLES, Array, Case, relaid
from hotrow import ops, reference
from hotrow._ops import INDICES, OPS
from hotrow.optim import StepOptions
from hotrow.reference.skipgram import mix
from hotrow.steps import DEFAULTS
from running import Running

HALVES = [np.dtype(np.float16)]
if find_spec("ml_dtypes"):
    import ml_dtypes

    HALVES.append(np.dtype(ml_dtypes.bfloat16))
DIGITS = {"float16": (10, -14), "bfloat16": (7, -126)}  # bits of the fraction, the least exponent
TABLE_OPS = [op for op, args in OPS.items() if any(arg.dtype == "E" for arg in args)]
UPDATES = [op for op in TABLE_OPS if OPS[op][-1].name == "table"]
STEPS = [op for op in UPDATES if op.endswith("_step")]
GOLDEN = 0x9E3779B97F4A7C15

each_half = pytest.mark.parametrize("half", HALVES, ids=lambda half: half.name)


# --- the model --------------------------------------------------------------------------------------------------------


def spacing(x: Array, half: Any) -> Array:
    """The distance of numbers of 16 bits where x is."""
    digits, least = DIGITS[half.name]
    return np.ldexp(1.0, np.maximum(np.frexp(np.maximum(abs(x), 1e-300))[1] - 1, least) - digits)


def key_of(seed: int, draw: int) -> int:
    return int(mix(np.array([(seed + draw * GOLDEN) % 2**64], np.uint64))[0])


def draws(key: int, shape: tuple[int, int], half: Any) -> Array:
    """Numbers in [0, 1) of a key, rows and columns."""
    rows = np.arange(shape[0], dtype=np.uint64) * np.uint64(GOLDEN) + np.array([key], np.uint64)
    z = np.arange(shape[1], dtype=np.uint32) * np.uint32(0x9E3779B9) + mix(rows).astype(np.uint32)[:, None]
    z = (z ^ z >> 16) * np.uint32(0x7FEB352D)
    z = (z ^ z >> 15) * np.uint32(0x846CA68B)
    bits = 24 if half.name == "float16" else 16
    return ((z ^ z >> 16) >> (32 - bits)) / 2.0**bits


@np.errstate(all="ignore")
def rounded(x: Array, half: Any, key: int | None = None) -> Array:
    """float32 to nearest, or away from 0 where the part of a step that would be cut off exceeds a draw."""
    if key is None:
        return x.astype(half)
    exact = abs(np.where(np.isfinite(x), x, 0).astype(np.float64))
    step = spacing(exact, half)
    whole = np.floor(exact / step)
    up = exact / step - whole > draws(key, x.shape, half)
    return np.where(np.isfinite(x), np.copysign((whole + up) * step, x), x).astype(np.float32).astype(half)


@np.errstate(invalid="ignore")  # bfloat16 warns of its NaN
def assert_same(found: Array, want: Array) -> None:
    """The same bits, but for those of NaN."""
    assert found.dtype == want.dtype
    nan = np.isnan(want)
    np.testing.assert_array_equal(np.isnan(found), nan)
    np.testing.assert_array_equal(found.view(np.uint16)[~nan], want.view(np.uint16)[~nan])


def every_number(half: Any) -> Array:
    return np.arange(2**16, dtype=np.uint16).view(half).reshape(-1, 64)


@np.errstate(all="ignore")
def hard_numbers(half: Any) -> Array:
    """Every number of 16 bits, the middle between it and the next and what lies beside that; any bits."""
    numbers = every_number(half).astype(np.float64).ravel()
    numbers = numbers[np.isfinite(numbers)]
    middle = (numbers + np.copysign(spacing(numbers, half) / 2, numbers)).astype(np.float32)
    beside = [np.nextafter(middle, np.float32(to)) for to in (-np.inf, np.inf)]
    any_bits = np.random.default_rng(2).integers(0, 2**32, 100_000, np.uint32).view(np.float32)
    special = np.float32([0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 3.4e38, -3.4e38, 1e-45, -1e-45])
    x = np.r_[numbers.astype(np.float32), middle, *beside, any_bits, special]
    return np.resize(x, (x.size // 100 + 1, 100))


# --- samples ----------------------------------------------------------------------------------------------------------


def halved(case: Case, op: str, half: Any) -> Case:
    names = {arg.name for arg in OPS[op] if arg.dtype == "E"} & {k for k, v in case.items() if v is not None}
    return case | {name: relaid(case[name], lambda base: base.astype(half)) for name in names}


def rounds(op: str, case: Case, half: Any) -> bool:
    """Whether it returns bags in the dtype of the table."""
    return op == "embedding_bag" and half in (case.get("dtype"), getattr(case.get("out"), "dtype", None))


def widened(case: Case) -> Case:
    """Without outputs, and arrays as copies: the table in float32."""
    copies = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in case.items() if k not in ("out", "dtype")}
    return copies | {"table": case["table"].astype(np.float32)}


def samples(op: str, half: Any, width: int) -> Iterator[Case]:
    """Every second step rounds by chance; bags come in float32 and in the dtype of their table."""
    rng, index_t = np.random.default_rng(zlib.crc32(f"{op} {half} {width}".encode())), INDICES[width % 2]
    for i, case in enumerate(SAMPLES[op](rng, np.float32, index_t.type, width)):
        if op in STEPS:
            chance = {"stochastic_rounding": i % 2 == 1, "seed": 2**64 - 1 - i}
            case |= {"options": replace(case["options"], **chance), "draw": 3 * i}
            case |= {"eps": 0.1} if case.get("alpha") == 1.0 else {}  # else quotients by 1e-8: float16 ends at 65504
        yield halved(case, op, half)
        if op == "embedding_bag":
            out = {"out": relaid(case["out"], lambda a: a.astype(half))} if "out" in case else {"dtype": half}
            yield halved(case, op, half) | out


# --- results ----------------------------------------------------------------------------------------------------------


@lru_cache
def expected(op: str, half: Any, width: int) -> list[tuple[bounds.Results, bounds.Results]]:
    """The reference on the widened table; where it is stored it is rounded, before max_norm and after it."""
    end_step, found = reference.steps._end_step, []

    def end(unit: float, table: Running, rows: Array, options: StepOptions) -> None:
        if options.max_norm is not None:
            w = table[rows]
            table[rows] = Running(w.value, w.eps, w.error + unit * spacing(abs(w.value) + w.error, half))
        end_step(table, rows, options)

    for case in samples(op, half, width):
        unit = 1.0 if case.get("options", DEFAULTS).stochastic_rounding else 0.5
        with mock.patch.object(reference.steps, "_end_step", partial(end, unit)):
            want, bound = bounds.expected(op, {k: v for k, v in widened(case).items() if k != "draw"}, np.float32)
        if rounds(op, case, half):
            bound["result"] = bound["result"] + 0.5 * spacing(
                np.nan_to_num(abs(want["result"])) + bound["result"], half
            )
        if op in UPDATES:
            bound["table"] = bound["table"] + unit * spacing(np.nan_to_num(abs(want["table"])) + bound["table"], half)
        found.append((want, bound))
    return found


def in_float32(op: str, case: Case, half: Any) -> bounds.Results:
    """The operator on the widened table; what it would store is rounded, before max_norm and after it."""
    wide, options = widened(case), case.get("options", DEFAULTS)
    if op not in STEPS:
        found = bounds.results(ops, op, wide)
        stored = ["table"] * (op in UPDATES) + ["result"] * rounds(op, case, half)
        return found | {name: rounded(found[name], half) for name in stored}
    found = bounds.results(ops, op, wide | {"options": replace(options, max_norm=None)})
    key = key_of(options.seed, case["draw"]) if options.stochastic_rounding else None
    table = rounded(found["table"], half, key)
    if options.max_norm is not None and wide["indices"].size:  # a step of 0, that does nothing else
        idle = np.zeros((wide["indices"].size, table.shape[1]), np.float32)
        long = table.astype(np.float32)
        ops.sgd_step(
            long, wide["indices"], idle, lr=0.0, padding_idx=wide.get("padding_idx"),
            options=StepOptions(max_norm=options.max_norm),
        )  # fmt: skip
        table = rounded(long, half, None if key is None else (key + 1) % 2**64)
    return found | {"table": table}
