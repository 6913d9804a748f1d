"""The operators measured: the memory each moves, and what its result must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.cases import Array, Case
from benchmarks.machine import Rates

LR = 0.01
_ROUNDING = float(np.finfo(np.float32).eps)  # twice the error of one operation


class Mismatch(Exception):
    """A peer computes something else than the operator's definition: its time means nothing."""


@dataclass(frozen=True)
class Operator:
    """Rows of D floats that a call moves: N lookups, B bags, U distinct rows. Indices and sorting come on top.

    streamed: read or written in order.
    read: read at random.
    updated: read and written at random; these count twice.
    expected: the parts of the result in float64, and how far float32 may be from each.
    """

    streamed: str
    read: str
    updated: str
    expected: Callable[[Case], list[tuple[Array, Array | float]]]

    def _bytes(self, letters: str, case: Case) -> int:
        return sum(map(case.count, letters)) * case.width * 4

    def bytes(self, case: Case) -> int:
        return self._bytes(self.streamed + self.read + 2 * self.updated, case)

    def floor(self, case: Case, rates: Rates) -> float:
        """Seconds that this machine takes for the memory alone."""
        return (
            self._bytes(self.streamed, case) / rates.copy
            + self._bytes(self.read, case) / rates.read
            + self._bytes(2 * self.updated, case) / rates.update
        )

    def verify(self, case: Case, peers: dict[str, Any]) -> None:
        """Call every peer once, each on the same table, and compare with the definition.

        Raises:
            Mismatch: a result is further from it than rounding explains.
        """
        expected = self.expected(case)
        before = case.table[case.touched]
        for name, peer in peers.items():
            case.out.fill(np.nan)
            peer.setup()
            result = peer.call()
            parts = [case.table[case.touched]] if self.updated else result if isinstance(result, tuple) else [result]
            case.table[case.touched] = before
            for part, (want, bound) in zip(parts, expected, strict=True):
                got = np.asarray(part)
                if got.shape != want.shape:
                    raise Mismatch(f"{name}, {case.name}: the result has shape {got.shape}, not {want.shape}")
                wrong = ~(np.abs(got - want) <= bound)
                if wrong.any():
                    at = tuple(map(int, np.argwhere(wrong)[0]))
                    raise Mismatch(
                        f"{name}, {case.name}: {wrong.sum():,} of {wrong.size:,} values are wrong, the first at {at}: "
                        f"{got[at]} instead of {want[at]}"
                    )


def _sums(rows: Array, starts: Array) -> tuple[Array, Array]:
    """Sums of runs of rows, and their error bounds: terms x rounding x sum of absolute values."""
    rows = rows.astype(np.float64)
    terms = np.diff(starts, append=len(rows))[:, None]
    sums = np.add.reduceat(rows, starts)
    return sums, (terms + 2) * _ROUNDING * np.add.reduceat(np.abs(rows, out=rows), starts)


def _gradient(case: Case) -> tuple[Array, Array]:
    order = np.argsort(case.indices, kind="stable")
    return _sums(case.grads[order], np.searchsorted(case.indices[order], case.touched))


def _gather(case: Case) -> list[tuple[Array, Array | float]]:
    return [(case.table[case.indices], 0.0)]


def _embedding_bag(case: Case) -> list[tuple[Array, Array | float]]:
    return [_sums(case.table[case.indices], case.offsets[:-1])]


def _coalesce(case: Case) -> list[tuple[Array, Array | float]]:
    return [(case.touched, 0), _gradient(case)]


def _update(scale: float) -> Callable[[Case], list[tuple[Array, Array | float]]]:
    def expected(case: Case) -> list[tuple[Array, Array | float]]:
        sums, bounds = _gradient(case)
        before = case.table[case.touched].astype(np.float64)
        terms = np.bincount(case.indices)[case.touched][:, None]
        return [(before + scale * sums, abs(scale) * bounds + (terms + 2) * _ROUNDING * np.abs(before))]

    return expected


OPERATORS = {
    #                          streamed  read  updated
    "gather": Operator(        "N",      "N",  "",     _gather),
    "embedding_bag": Operator( "B",      "N",  "",     _embedding_bag),
    "scatter_add": Operator(   "N",      "",   "N",    _update(1.0)),
    "coalesce": Operator(      "NU",     "",   "",     _coalesce),
    "sgd_step": Operator(      "N",      "",   "U",    _update(-LR)),
}  # fmt: skip
