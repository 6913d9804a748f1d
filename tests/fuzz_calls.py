"""Random calls of every operator, most of them bad: python tests/fuzz_calls.py --calls 1000000

A call takes arguments that are right and spoils up to three of them. It must raise a TypeError, ValueError or
IndexError and leave every array as it was, or, if what came out is still right, compute what the reference does.
Calls are numbered and depend on seed and number alone: --first N --calls 1 repeats one.
"""

from __future__ import annotations

import argparse
import faulthandler
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from decimal import Decimal
from fractions import Fraction
from functools import cache
from inspect import signature
from itertools import islice
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

import bounds
from bad_inputs import Copies, good, good_int8, misaligned
from cases import SAMPLES, Array, Case, read_only
from halves import HALVES, TABLE_OPS, halved, spacing
from hotrow import HuffmanTree, Sampling, num_threads, ops, use_backend
from hotrow._ops import FLOATS, INDICES, OPS
from hotrow.optim import StepOptions

WINDOWS = ("skipgram_step", "skipgram_epoch", "cbow_epoch", "skipgram_hs_epoch", "cbow_hs_epoch")
ERRORS = (TypeError, ValueError, IndexError)
HOLDERS: dict[str, Any] = {"sampling": Sampling, "tree": HuffmanTree}  # of arrays
DTYPES = (
    "f2", "f4", "f8", "g", "c8", "c16", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "O", "U4", "S4", "M8[s]",
    "m8[s]", ">f4", ">i8", [("a", "f4"), ("b", "i4")], "V4",
)  # fmt: skip
INTS = (-1, 0, 1, 6, 7, 13, 2**31 - 1, 2**31, -(2**31), 2**32, 2**62, 2**63 - 1, -(2**63))
REALS = (np.nan, np.inf, -np.inf, -0.0, 1e-320, 1e38, -1e300, 3.0)
NO_ARRAYS: tuple[Any, ...] = (
    None, 0, 1.5, True, "abc", b"abc", "", [], (), {}, {0}, [[]], [[1], [1, 2]], ["a"], [None], object(), range(3),
    [2**70], [-1.5], np.array(None), np.array(3), np.float32(2), 1j, iter([1]), ...,
)  # fmt: skip
SCALARS: tuple[Any, ...] = (
    *NO_ARRAYS, *INTS, *REALS, 2**64 - 1, 2**64, 10**400, False, 0.5, 0.9, 2, 3, 5, "sum", "mean", "sqrtn", "max",
    np.float64(0.5), np.int8(2), np.True_, np.dtype("e"), np.dtype("f"), np.array([1, 2]), Decimal("0.5"),
    Decimal("NaN"), Fraction(1, 3), StepOptions(), StepOptions(check_finite=True), lambda *_: None,
    StepOptions(clip_norm=0.5, max_norm=1.0),
)  # fmt: skip


# --- arguments that are right -----------------------------------------------------------------------------------------


@cache
def right(op: str) -> list[Case]:
    """Some of the cases that tests know, small ones, and such with tables of 16 and 8 bits; no NaN."""
    found = [good(op)] * 8 + ([good_int8(op)] * 4 if op in ("gather", "embedding_bag") else [])
    for float_t in FLOATS:
        for index_t in INDICES:
            for width in (1, 5, 19):
                cases = SAMPLES[op](np.random.default_rng(width), float_t.type, index_t.type, width)
                found += [case for case in islice(cases, 40) if all(a.size < 1000 for a in arrays(case).values())]
    found = [{k: np.nan_to_num(v) if isinstance(v, np.ndarray) else v for k, v in case.items()} for case in found]
    if op in TABLE_OPS:
        narrow = [case for case in found if case["table"].dtype == np.float32]
        found += [halved(case, op, HALVES[i % len(HALVES)]) for i, case in enumerate(narrow[::4])]
    return found


def arrays(case: Case) -> dict[str, Array]:
    """All arrays of a call, those within a Sampling or a HuffmanTree too."""
    inner = {
        f.name: getattr(holder, f.name)
        for name, kind in HOLDERS.items()
        if isinstance(holder := case.get(name), kind)
        for f in fields(kind)
    }
    return {name: a for name, a in (case | inner).items() if isinstance(a, np.ndarray)}


def put(case: Case, name: str, value: Any) -> None:
    for holder, kind in HOLDERS.items():
        if name in {f.name for f in fields(kind)} and isinstance(case.get(holder), kind):
            case[holder] = replace(case[holder], **{name: value})
            return
    case[name] = value


# --- and what is done to them -----------------------------------------------------------------------------------------


def _dtype(rng: Any, a: Array, _: Case) -> Any:
    return a.astype(np.dtype(DTYPES[rng.integers(len(DTYPES))]))


def _shape(rng: Any, a: Array, _: Case) -> Any:
    axis = int(rng.integers(a.ndim)) if a.ndim else None
    return [
        lambda: a[None],
        lambda: a[..., None],
        lambda: a.ravel(),
        lambda: np.delete(a, -1, axis),
        lambda: np.repeat(a, 2, axis),
        lambda: np.take(a, [], axis),
        lambda: np.take(a, 0, axis),
        lambda: np.append(a, a[..., :1], -1),
        lambda: a.T,
    ][rng.integers(9)]()


def _layout(rng: Any, a: Array, _: Case) -> Any:
    return [
        lambda: a[::-1],
        lambda: a[..., ::-1],
        lambda: np.repeat(a, 2, -1)[..., ::2],
        lambda: np.repeat(a, 2, 0)[::2],
        lambda: np.asfortranarray(a),
        lambda: misaligned(a),
        lambda: as_strided(a.copy(), a.shape, (a.itemsize,) * a.ndim),
        lambda: as_strided(a.copy(), a.shape, (0,) * a.ndim),
        lambda: np.broadcast_to(a[:1], a.shape),
        lambda: read_only(a),
    ][rng.integers(10)]()


def _values(rng: Any, a: Array, _: Case) -> Any:
    a = a.copy()
    value = np.array(REALS)[rng.integers(len(REALS))] if a.dtype.kind in "fV" else INTS[rng.integers(len(INTS))]
    where = rng.integers(a.size) if rng.random() < 0.8 else slice(None)
    a.reshape(-1)[where] = np.array(value).astype(a.dtype)
    return a


def _order(rng: Any, a: Array, _: Case) -> Any:
    return [lambda: a[::-1].copy(), lambda: rng.permutation(a), lambda: np.sort(a, 0), lambda: a * 0][rng.integers(4)]()


def _kind(rng: Any, a: Array, case: Case) -> Any:
    others = list(arrays(case).values())
    other = others[rng.integers(len(others))]
    choices = (a.tolist(), tuple(a.tolist()), Copies(a.copy()), np.ma.array(a), a.view(np.recarray), other)
    i = rng.integers(len(choices) + 4)
    return choices[i] if i < len(choices) else NO_ARRAYS[rng.integers(len(NO_ARRAYS))]


def _overlap(rng: Any, a: Array, case: Case) -> Any:
    """This array and another in the same memory, which may be apart all the same."""
    found = arrays(case)
    name = list(found)[rng.integers(len(found))]
    b, start = found[name], int(rng.integers(0, 2 * a.nbytes + 2)) // 8 * 8
    memory = np.zeros(max(a.nbytes, start + b.nbytes), np.uint8)
    memory[: a.nbytes] = np.frombuffer(a.tobytes(), np.uint8)
    put(case, name, memory[start:][: b.nbytes].view(b.dtype).reshape(b.shape))
    return memory[: a.nbytes].view(a.dtype).reshape(a.shape)


FAULTS = (_dtype, _shape, _layout, _layout, _values, _values, _order, _kind, _kind, _overlap)


def _copied(case: Case) -> Case:
    copies = {k: a.copy() for k, a in arrays(case).items()}
    held = {
        name: replace(case[name], **{f.name: copies[f.name] for f in fields(kind) if f.name in copies})
        for name, kind in HOLDERS.items()
        if isinstance(case.get(name), kind)
    }
    return case | {k: a for k, a in copies.items() if k in case} | held


@cache
def names(op: str) -> list[str]:
    return list(signature(getattr(ops, op)).parameters)


def call(op: str, rng: np.random.Generator) -> Case:
    """Arguments for an operator with up to three faults."""
    known = right(op)
    case = _copied(known[rng.integers(len(known))])
    for _ in range(int(rng.choice(4, p=(0.02, 0.48, 0.3, 0.2)))):
        found = arrays(case)
        if found and rng.random() < 0.8:
            name = list(found)[rng.integers(len(found))]
            try:
                with np.errstate(all="ignore"):
                    spoilt = FAULTS[rng.integers(len(FAULTS))](rng, found[name], case)
            except Exception:  # NumPy cannot do everything to an array that was spoilt before
                continue
            put(case, name, spoilt)
        elif rng.random() < 0.05:
            case.pop(names(op)[rng.integers(len(names(op)))], None)
        else:
            case[names(op)[rng.integers(len(names(op)))]] = SCALARS[rng.integers(len(SCALARS))]
    return case


# --- what must come of it ---------------------------------------------------------------------------------------------


def _bits(case: Case) -> dict[str, bytes]:
    """Of every array all memory that belongs to it, gaps between its rows too."""
    found = {}
    for name, a in arrays(case).items():
        while isinstance(a.base, np.ndarray):
            a = a.base
        found[name] = a.tobytes()
    return found


def _as_array(value: Any, like: str) -> Array:
    a = np.asarray(value)
    return a.astype(np.int64) if a.size == 0 and a.dtype.kind == "f" and like not in "EF" else a


def _tame(value: Any) -> bool:
    """Numbers among which errors stay small: neither huge nor so small that quotients are."""
    if isinstance(value, (int, float)):
        return abs(value) < 1e6
    if not isinstance(value, np.ndarray) or value.dtype.kind in "iub":
        return True
    with np.errstate(invalid="ignore"):
        size = abs(value.astype(np.float64))
        return bool(((size < 1e6) & ((size > 1e-12) | (size == 0))).all())


def _comparable(op: str, case: Case) -> Case | None:
    """What the reference and its bounds take of a call; None of one that they are not made for."""
    kinds = {arg.name: arg.dtype for arg in OPS[op]}
    taken = {}
    for name, value in case.items():
        if value is None and name in kinds:
            continue
        if isinstance(value, (Decimal, Fraction, np.generic)) or (isinstance(value, np.ndarray) and value.ndim == 0):
            value = value.item() if hasattr(value, "item") and name not in kinds else float(value)
        taken[name] = _as_array(value, kinds[name]) if name in kinds else value
        if name != "seed" and not _tame(taken[name]):
            return None
    if not taken.pop("include_last_offset", True):
        taken["offsets"] = np.append(taken["offsets"], taken["indices"].size)
    for name in ("progress", "draw", "dtype"):
        taken.pop(name, None)
    if op in WINDOWS:  # whose steps build on each other
        if max(taken.get("lr", 0), taken.get("lr_end") or 0) > 0.2:
            return None
        for name, kind in HOLDERS.items():
            if name in taken:
                parts = {f.name: getattr(taken[name], f.name) for f in fields(kind)}
                parts |= {part: np.asarray(parts[part]) for part in parts.keys() & kinds.keys()}
                taken[name] = kind(**parts)
        tree = taken.get("tree")
        paths = np.split(tree.points, tree.path_offsets[1:-1]) if tree is not None else []
        return None if any(np.unique(path).size < path.size for path in paths) else taken
    counts = taken.get("row_steps")
    if counts is not None and not ((counts >= 0) & (counts < 10**6)).all():
        return None
    options, table = taken.get("options"), taken.get("table")
    if taken.get("alpha") == 1.0 and table is not None and table.dtype.itemsize < 4:  # quotients by eps: float16 ends
        return None
    return None if options and options.stochastic_rounding else taken


def _check_result(op: str, before: Case, found: bounds.Results) -> bool:
    """Whether a result could be compared with the reference; AssertionError if it is wrong."""
    taken = _comparable(op, before)
    if taken is None:
        return False
    tables = [a.dtype for name, a in arrays(taken).items() if name.endswith("table")] or [
        np.asarray(taken["grads"]).dtype
    ]
    narrow = tables[0].itemsize <= 2
    if narrow:
        taken["table"] = taken["table"].astype(np.float64 if tables[0] == np.int8 else np.float32)
    with np.errstate(all="ignore"):
        try:
            want, bound = bounds.expected(op, taken, np.float32 if narrow else tables[0])
        except AssertionError as error:
            if "too loose" in str(error):
                return False
            raise
    if tables[0] in HALVES and "table" in want:  # rounded before max_norm and after it
        bound["table"] = bound["table"] + 2 * spacing(abs(want["table"]) + bound["table"], tables[0])
    if op == "embedding_bag" and found["result"].dtype in HALVES:
        bound["result"] = bound["result"] + spacing(abs(want["result"]) + bound["result"], found["result"].dtype) / 2
    if not all(np.isfinite(bound[name]).all() and np.all(abs(np.nan_to_num(want[name])) < 6e4) for name in want):
        return False  # a quotient by next to nothing
    bound = {name: bound[name] + 1e-37 for name in want}  # they know nothing of subnormal numbers
    if "argmax" in bound and before.get("weights") is not None:  # products that are rounded may tie
        bound["argmax"] = np.inf
    bounds.assert_within({name: found[name] for name in want}, want, bound)
    return True


def one(op: str, rng: np.random.Generator) -> str:
    """Make a call; how it ended. AssertionError if it should not have."""
    case = call(op, rng)
    before, copied = _bits(case), _copied(case)
    try:
        with num_threads(1 if op in WINDOWS else 3):
            returned = getattr(ops, op)(**case)
    except Exception as error:
        assert type(error) in ERRORS, f"{type(error).__name__}: {error}"
        assert str(error), "no text"
        assert _bits(case) == before, f"arrays changed before {error!r}"
        return type(error).__name__
    written = {arg.name for arg in OPS[op] if arg.role != "in"}
    now, outputs = arrays(case), [a for name, a in arrays(case).items() if name in written]
    for name in {arg.name for arg in OPS[op]} & now.keys() - written:  # offsets of int32 are copied: they may overlap
        same = now[name].tobytes() == arrays(copied)[name].tobytes()
        assert same or any(np.shares_memory(now[name], output) for output in outputs), f"{name} changed"
    found = {k: np.asarray(case[k]) for k in written if case.get(k) is not None and k != "out"}
    if op == "coalesce":
        found |= returned._asdict()
    elif returned is not None:
        found["result"] = returned
    share = 0.05 if op in WINDOWS else 0.3  # the reference takes longer than all the rest, most of all for windows
    compared = rng.random() < share and _check_result(op, copied, found)
    return "compared" if compared else "accepted"


def run(calls: int, seed: int = 0, first: int = 0, report: Callable[[str], object] | None = None) -> Counter[str]:
    """Make calls; how many ended how. The first wrong one is an AssertionError unless they are reported."""
    ended: Counter[str] = Counter()
    each = list(OPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(first, first + calls):
            op = each[i % len(each)]
            try:
                ended[one(op, np.random.default_rng([seed, i]))] += 1
            except Exception as error:
                text = f"call {i} of seed {seed}, {op}: {error}"
                if report is None:
                    raise AssertionError(text) from error
                ended["wrong"] += 1
                report(f"{text}\n{traceback.format_exc(limit=-3)}")
    return ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--backend", choices=("native", "numba"), default="native")
    options = parser.parse_args()
    faulthandler.enable()
    use_backend(options.backend)
    started, end, step, ended = time.monotonic(), options.first + options.calls, 10_000, Counter[str]()
    for first in range(options.first, end, step):
        upto = min(first + step, end)
        ended += run(upto - first, options.seed, first, print)
        print(f"{upto}: {dict(ended)}, {time.monotonic() - started:.0f} s", flush=True)
    raise SystemExit(ended["wrong"] > 0)


if __name__ == "__main__":
    main()
