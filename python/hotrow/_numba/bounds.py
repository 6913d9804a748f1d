"""What hotrow._check asks a backend."""

from __future__ import annotations

import numpy as np

from hotrow._numba.views import Array


def may_overlap(arrays: list[Array | None], written: int) -> bool:
    """Whether an array that is written (a bit of `written`) may share memory with any other."""
    return any(
        i != j and np.may_share_memory(a, b)
        for i, a in enumerate(arrays)
        if a is not None and written >> i & 1
        for j, b in enumerate(arrays)
        if b is not None
    )


def offsets_rise(offsets: Array, lookups: int) -> bool:
    """Whether offsets rise from 0 to `lookups`."""
    return bool(offsets[0] == 0 and offsets[-1] == lookups and (offsets[1:] >= offsets[:-1]).all())


def first_out_of_range(indices: Array, rows: int, threads: int) -> int:
    """The position of the first index outside [0, rows) in C order, or -1."""
    if indices.size == 0 or (indices.min() >= 0 and indices.max() < rows):
        return -1
    return int(np.flatnonzero((indices < 0) | (indices >= rows))[0])
