"""Tables that hotrow owns: rows on cache lines. Large ones are on huge pages, which NumPy asks the system for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LINE = 64  # bytes


def aligned(allocate: Callable[..., NDArray[Any]], rows: int, width: int, dtype: Any) -> NDArray[Any]:
    """[rows, width] from np.empty or np.zeros; rows start at multiples of 64 bytes, with padding if need be."""
    per_line = _LINE // np.dtype(dtype).itemsize
    padded = -(-width // per_line) * per_line
    memory = allocate(rows * padded + per_line, dtype)
    start = -memory.ctypes.data % _LINE // memory.itemsize
    return memory[start : start + rows * padded].reshape(rows, padded)[:, :width]
