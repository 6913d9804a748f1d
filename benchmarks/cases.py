"""Named sizes that occur in practice, and their data: float32 tables, int64 indices, fixed seeds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BAG = 32  # lookups in a bag
EXPONENT = 1.05  # of Zipf's law, about that of English words


@dataclass(frozen=True)
class Case:
    """A table of rows x width and the lookups in it. Arrays are made at their first use and freed with the case.

    zipf: lookups follow Zipf's law, low rows being frequent as in a vocabulary; else all rows are equally likely.
    """

    name: str
    rows: int
    width: int
    lookups: int
    zipf: bool = True

    def _random(self, stream: int, rows: int) -> Array:
        values = np.random.default_rng([stream, rows]).random((rows, self.width), np.float32)
        values -= 0.5
        return values

    @cached_property
    def table(self) -> Array:
        return self._random(1, self.rows)

    @cached_property
    def grads(self) -> Array:
        return self._random(2, self.lookups)

    @cached_property
    def indices(self) -> Array:
        rng = np.random.default_rng([3, self.rows])
        if not self.zipf:
            return rng.integers(self.rows, size=self.lookups)
        mass = np.cumsum(np.arange(1, self.rows + 1) ** -EXPONENT)
        return np.searchsorted(mass, mass[-1] * rng.random(self.lookups)).clip(max=self.rows - 1)

    @cached_property
    def offsets(self) -> Array:
        return np.append(np.arange(0, self.lookups, BAG), self.lookups)

    @cached_property
    def out(self) -> Array:
        return np.empty((self.lookups, self.width), np.float32)

    @cached_property
    def touched(self) -> Array:
        """The rows that are looked up, ascending."""
        return np.unique(self.indices)

    def count(self, letter: str) -> int:
        """N lookups, B bags, U distinct rows."""
        return {"N": self.indices, "B": self.offsets[1:], "U": self.touched}[letter].size


CASES = (
    Case("50k x 100, 65,536 Zipf", 50_000, 100, 65_536),
    Case("50k x 300, 65,536 Zipf", 50_000, 300, 65_536),
    Case("1M x 64, 262,144 Zipf", 1_000_000, 64, 262_144),
    Case("4M x 128, 262,144 uniform", 4_000_000, 128, 262_144, zipf=False),
)
HUGE = CASES[-1]  # a table of 2 GB
SMALL = Case("50k x 100, 64 Zipf", 50_000, 100, 64)  # what a call costs beside its work
