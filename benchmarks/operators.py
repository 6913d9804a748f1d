"""The operators measured: the memory each moves, and what its result must be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Any

import numpy as np

from benchmarks.cases import Array, Case
from benchmarks.machine import Rates
from benchmarks.timing import Peer

LR, EPS, BETA1, BETA2 = 0.01, 1e-8, 0.9, 0.999  # of every optimizer
_ROUNDING = float(np.finfo(np.float32).eps)  # twice the error of one operation

Part = tuple[Array, Array | float]  # of a result, in float64, and how far float32 may be from it


class Mismatch(Exception):
    """A peer computes something else than the operator's definition: its time means nothing."""


@dataclass(frozen=True)
class Operator:
    """Rows of D floats that a call moves: N lookups, B bags, U distinct rows; n: N rows of D bytes and a scale. Indices
    and sorting come on top.

    streamed: read or written in order.
    read: read at random.
    changed: the arrays of the case that are changed in place, U rows of each: these count twice.
    expected: what the call returns, then the changed rows of each array.
    """

    streamed: str
    read: str
    changed: tuple[str, ...]
    expected: Callable[[Case], list[Part]]

    def _moved(self, case: Case) -> tuple[int, int, int]:
        """Bytes streamed, read and updated."""
        row = {"n": case.width + 4}
        streamed, read = (
            sum(row.get(letter, case.row_bytes) * case.count(letter.upper()) for letter in letters)
            for letters in (self.streamed, self.read)
        )
        floats = sum(getattr(case, name)[:1].size for name in self.changed)  # of a row
        return streamed, read, 2 * 4 * floats * case.count("U")

    def bytes(self, case: Case) -> int:
        return sum(self._moved(case))

    def floor(self, case: Case, rates: Rates) -> float:
        """Seconds that this machine takes for the memory alone."""
        return sum(moved / rate for moved, rate in zip(self._moved(case), rates, strict=True))

    @contextmanager
    def unchanged(self, case: Case) -> Iterator[None]:
        """What the operator changes within is put back."""
        before = {name: getattr(case, name)[case.touched] for name in self.changed}
        try:
            yield
        finally:
            for name, rows in before.items():
                getattr(case, name)[case.touched] = rows

    def verify(self, case: Case, peers: dict[str, Peer]) -> None:
        """Call every peer once, each on the same arrays, and compare with the definition.

        Raises:
            Mismatch: a result is further from it than rounding explains.
        """
        expected = self.expected(case)
        for name, peer in peers.items():
            with self.unchanged(case):
                case.out.fill(np.nan)
                peer.setup()
                result = peer.call()
                returned = (result if isinstance(result, tuple) else [result])[: len(expected) - len(self.changed)]
                check(
                    f"{name}, {case.name}", expected, *returned, *(getattr(case, n)[case.touched] for n in self.changed)
                )


def check(name: str, expected: list[Part], *parts: Any) -> None:
    """Raises Mismatch, saying where, if a part of a result is further from its definition than rounding explains."""
    for part, (want, bound) in zip(parts, expected, strict=True):
        got = np.asarray(part)
        if got.shape != want.shape:
            raise Mismatch(f"{name}: the result has shape {got.shape}, not {want.shape}")
        wrong = ~(np.abs(got - want) <= bound)
        if wrong.any():
            at = tuple(map(int, np.argwhere(wrong)[0]))
            raise Mismatch(
                f"{name}: {wrong.sum():,} of {wrong.size:,} values are wrong, the first at {at}: "
                f"{got[at]} instead of {want[at]}"
            )


def _sums(rows: Array, starts: Array, rounding: float = _ROUNDING) -> tuple[Array, Array]:
    """Sums of runs of rows, and their error bounds: terms x rounding x sum of absolute values."""
    rows = rows.astype(np.float64)
    terms = np.diff(starts, append=len(rows))[:, None]
    sums = np.add.reduceat(rows, starts)
    return sums, (terms + 2) * rounding * np.add.reduceat(np.abs(rows, out=rows), starts)


@lru_cache(maxsize=1)
def _gradient(case: Case, bags: bool = False) -> tuple[Array, Array]:
    order = np.argsort(case.indices, kind="stable")
    return _sums(case.grads[(case.bag_of if bags else np.arange(case.lookups))[order]], _starts(case.indices[order]))


def _starts(ordered: Array) -> Array:
    return np.flatnonzero(np.diff(ordered, prepend=-1))


def _before(case: Case, name: str) -> Array:
    rows: Array = getattr(case, name)[case.touched].astype(np.float64)
    return rows


def _table(case: Case, step: tuple[Array, Array]) -> Part:
    """The table after a step, which some peers take lookup by lookup."""
    before = _before(case, "table")
    terms = np.diff(_starts(np.sort(case.indices)), append=case.lookups)[:, None]
    return before + step[0], step[1] + (terms + 2) * _ROUNDING * np.abs(before)


def _adaptive(lr: float, numerator: tuple[Array, Array], squares: tuple[Array, Array]) -> tuple[Array, Array]:
    """-lr * numerator / (sqrt(squares) + EPS), where an error in squares counts half: bounded by all of it."""
    divisor = np.sqrt(squares[0]) + EPS
    step = -lr * numerator[0] / divisor
    return step, lr * numerator[1] / divisor + np.abs(step) * (squares[1] / squares[0] + 4 * _ROUNDING)


def _gather(case: Case) -> list[Part]:
    return [(case.table[case.indices], 0.0)]


def _int8_rows(case: Case) -> tuple[Array, Array]:
    """What is looked up, and how large the numbers in it are to torch, whose bytes begin at 0: up to 256 scales."""
    values, scales = case.quantized
    factors = scales[case.indices, None].astype(np.float64)
    return values[case.indices] * factors, np.broadcast_to(256 * factors, (case.lookups, case.width))


def _gather_int8(case: Case) -> list[Part]:
    rows, _ = _int8_rows(case)
    return [(rows, _ROUNDING * np.abs(rows))]


def _bag_int8(case: Case) -> list[Part]:
    rows, sizes = _int8_rows(case)
    starts = case.offsets[:-1]
    return [(_sums(rows, starts)[0], _sums(sizes, starts)[1])]


def pooled(case: Case, weights: Array | None = None, mode: str = "sum", padding_idx: int | None = None) -> list[Part]:
    """embedding_bag; weights are for sums, padding_idx for sum, mean and sqrtn."""
    starts, rows = case.offsets[:-1], case.table[case.indices]
    if mode == "max":
        return [(np.maximum.reduceat(rows, starts), 0.0)]
    if weights is not None:
        rows = rows.astype(np.float64) * weights[:, None]
    kept = case.indices != (-1 if padding_idx is None else padding_idx)
    rows[~kept] = 0
    sums, bounds = _sums(rows, starts, float(np.finfo(case.table.dtype).eps))
    counts = np.maximum(np.add.reduceat(kept, starts, dtype=np.int64), 1)[:, None]
    divisor = {"sum": np.ones_like(counts), "mean": counts, "sqrtn": np.sqrt(counts)}[mode]
    return [(sums / divisor, bounds / divisor)]


def _coalesce(case: Case) -> list[Part]:
    return [(case.touched, 0.0), _gradient(case)]


def _add(scale: float) -> Callable[[Case], list[Part]]:
    def expected(case: Case) -> list[Part]:
        sums, bounds = _gradient(case)
        return [_table(case, (scale * sums, abs(scale) * bounds))]

    return expected


def _squared(g: Array, bound: Array) -> tuple[Array, Array]:
    return g * g, 2 * np.abs(g) * bound + bound**2 + _ROUNDING * g * g


def _adagrad(case: Case, bags: bool = False) -> list[Part]:
    g = _gradient(case, bags)
    square, bound = _squared(*g)
    after = _before(case, "squares") + square
    squares = after, bound + 2 * _ROUNDING * after
    return [_table(case, _adaptive(LR, g, squares)), squares]


def _rowwise_adagrad(case: Case, bags: bool = False) -> list[Part]:
    g = _gradient(case, bags)
    square, bound = (part.mean(axis=1) for part in _squared(*g))
    after = _before(case, "row_squares") + square
    squares = after, bound + case.width * _ROUNDING * after
    return [_table(case, _adaptive(LR, g, (squares[0][:, None], squares[1][:, None]))), squares]


def _adam(case: Case, bags: bool = False) -> list[Part]:
    """The first step."""

    def average(name: str, beta: float, new: Array, bound: Array) -> tuple[Array, Array]:
        before = _before(case, name)
        after = beta * before + (1 - beta) * new
        return after, (1 - beta) * bound + 4 * _ROUNDING * (np.abs(before) + (1 - beta) * np.abs(new))

    g = _gradient(case, bags)
    m, v = average("averages", BETA1, *g), average("squares", BETA2, *_squared(*g))
    return [_table(case, _adaptive(LR * adam_rate(1), m, v)), m, v]


def adam_rate(t: int) -> float:
    """What the bias correction of step t makes of a learning rate of 1."""
    return sqrt(1 - BETA2**t) / (1 - BETA1**t)


def _train(step: Callable[[Case, bool], list[Part]]) -> Callable[[Case], list[Part]]:
    return lambda case: [*pooled(case), *step(case, True)]


# The last two are a step of training: embedding_bag, then its gradient into the optimizer.
OPERATORS = {
    #                                streamed  read  changed
    "gather": Operator(              "N",      "N",  (),                                _gather),
    "embedding_bag": Operator(       "B",      "N",  (),                                pooled),
    "gather_int8": Operator(         "N",      "n",  (),                                _gather_int8),
    "embedding_bag_int8": Operator(  "B",      "n",  (),                                _bag_int8),
    "scatter_add": Operator(         "N",      "",   ("table",),                        _add(1.0)),
    "coalesce": Operator(            "NU",     "",   (),                                _coalesce),
    "sgd_step": Operator(            "N",      "",   ("table",),                        _add(-LR)),
    "adagrad_step": Operator(        "N",      "",   ("table", "squares"),              _adagrad),
    "adam_step": Operator(           "N",      "",   ("table", "averages", "squares"),  _adam),
    "bag_rowwise_adagrad": Operator( "BB",     "N",  ("table", "row_squares"),          _train(_rowwise_adagrad)),
    "bag_adagrad": Operator(         "BB",     "N",  ("table", "squares"),              _train(_adagrad)),
}  # fmt: skip
BAG_ADAM = Operator("BB", "N", ("table", "averages", "squares"), _train(_adam))  # beside torch alone: see frameworks.py
