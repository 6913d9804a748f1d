"""Named sizes that occur in practice, and their data: float32 tables, int64 indices, fixed seeds."""

from __future__ import annotations

import lzma
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hotrow

Array = NDArray[Any]

DATA = Path(os.environ.get("HOTROW_DATA") or Path(__file__).parents[2] / "shared/data")
BAG = 32  # lookups in a bag
EXPONENT = 1.05  # of Zipf's law, about that of English words


@dataclass(frozen=True)
class Case:
    """A table of rows x width, the lookups in it and the state of its optimizers.

    Arrays are made at their first use, shared by all who work on the case, and freed with it.

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

    @property
    def row_bytes(self) -> int:
        return self.width * self.table.itemsize

    @cached_property
    def quantized(self) -> hotrow.QuantizedTable:
        """The table as int8, and its scales."""
        return hotrow.quantize(self.table)

    @cached_property
    def grads(self) -> Array:
        return self._random(2, self.lookups)

    @cached_property
    def averages(self) -> Array:
        """State of an optimizer: averages of gradients."""
        return self._random(4, self.rows)

    @cached_property
    def squares(self) -> Array:
        """State of an optimizer: sums or averages of squared gradients, none near 0."""
        values = self._random(5, self.rows)
        values += 1
        return values

    @cached_property
    def row_squares(self) -> Array:
        """State of an optimizer: one sum for each row."""
        return np.random.default_rng([6, self.rows]).random(self.rows, np.float32) + np.float32(0.5)

    @cached_property
    def weights(self) -> Array:
        return np.random.default_rng([7, self.rows]).random(self.lookups, np.float32) + np.float32(0.5)

    @cached_property
    def bags(self) -> tuple[Array, Array]:
        """The lookups, and where each bag of them starts and the last one ends."""
        rng = np.random.default_rng([3, self.rows])
        offsets = np.append(np.arange(0, self.lookups, BAG), self.lookups)
        if not self.zipf:
            return rng.integers(self.rows, size=self.lookups), offsets
        mass = np.cumsum(np.arange(1, self.rows + 1) ** -EXPONENT)
        return np.searchsorted(mass, mass[-1] * rng.random(self.lookups)).clip(max=self.rows - 1), offsets

    @property
    def indices(self) -> Array:
        return self.bags[0]

    @property
    def offsets(self) -> Array:
        return self.bags[1]

    @property
    def bag_grads(self) -> Array:
        return self.grads[: self.offsets.size - 1]

    @property
    def bag_of(self) -> Array:
        """The bag of each lookup."""
        return np.repeat(np.arange(self.offsets.size - 1), np.diff(self.offsets))

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


@dataclass(frozen=True)
class Half(Case):
    """A table of float16."""

    @cached_property
    def table(self) -> Array:
        return self._random(1, self.rows).astype(np.float16)


@dataclass(frozen=True)
class Gowalla(Case):
    """Real bags: the places that each user of Gowalla visited."""

    @cached_property
    def bags(self) -> tuple[Array, Array]:
        with lzma.open(GOWALLA, "rt") as lines:
            bags = [np.array(line.split(), np.int64) for line in lines]
        return np.concatenate(bags), np.cumsum([0, *map(len, bags)])


CASES = (
    Case("50k x 100, 65,536 Zipf", 50_000, 100, 65_536),
    Case("50k x 300, 65,536 Zipf", 50_000, 300, 65_536),
    Case("1M x 64, 262,144 Zipf", 1_000_000, 64, 262_144),
    Case("4M x 128, 262,144 uniform", 4_000_000, 128, 262_144, zipf=False),
)
HUGE = CASES[-1]  # a table of 2 GB
SMALL = Case("50k x 100, 64 Zipf", 50_000, 100, 64)  # what a call costs beside its work


GOWALLA = DATA / "gowalla.txt.xz"


def real_bags() -> Case:
    """The case of real bags, or of random ones like them."""
    if GOWALLA.is_file():
        return Gowalla("gowalla, 41k x 64, 810,128", 40_981, 64, 810_128)
    print(f"{GOWALLA} is missing (HOTROW_DATA names its folder): using random bags instead")
    return Case("for gowalla, 41k x 64, 810,128 Zipf", 40_981, 64, 810_128)
