"""Tables of 8 bits: int8 values and one float32 scale for each row, for gather and embedding_bag."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from hotrow import _check
from hotrow._memory import aligned

MOST = 127
_BLOCK = 1 << 17  # elements that are worked on at a time: 1 MB as float64


class QuantizedTable(NamedTuple):
    """A table as integers: values[r, :] * scales[r] is close to row r.

    Attributes:
        values (int8[R, D]): in [-127, 127]; contiguous, the first row on a cache line.
        scales (float32[R]): what the elements of each row are multiples of; 0 for a row of zeros.
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float32]


def quantize(table: NDArray[np.floating[Any]]) -> QuantizedTable:
    """Round the rows of a table to int8, symmetrically, each with a scale of its own.

        scales[r] = max_d |table[r, d]| / 127
        values[r, d] = round(table[r, d] / scales[r])   halves to even

    An element is off by at most scales[r] / 2 then. hotrow.gather and hotrow.embedding_bag read the result as it is:

        table = hotrow.quantize(weights)
        hotrow.gather(table.values, indices, scales=table.scales)

    Args:
        table (float32, float64, float16 or bfloat16[R, D]): may be a strided view, read-only or memory-mapped. It is
            read in blocks of rows: no copy of it is made.

    Returns:
        QuantizedTable: values (int8[R, D]) and scales (float32[R]).

    Raises:
        TypeError: not an array, or of a wrong dtype or number of dimensions.
        ValueError: NaN, infinity, or numbers that float32 does not have.

    Source:
        Guan et al., "Post-Training 4-bit Quantization on Embedding Tables", 2019: row-wise, as FBGEMM's; without an
        offset, so that zero stays zero and pooling needs one product a lookup.
    """
    table = _check.table(table)
    rows, width = table.shape
    values = aligned(np.empty, 1, rows * width, np.int8).reshape(rows, width)
    quantized = QuantizedTable(values, np.empty(rows, np.float32))
    step = max(1, _BLOCK // max(width, 1))
    for begin in range(0, rows, step):
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            block = table[begin : begin + step].astype(np.float64)
            largest = np.abs(block).max(axis=1, initial=0.0)
            scale, usable = _scale(largest), largest <= np.finfo(np.float32).max
        if not usable.all():
            _refuse(begin, block, int(usable.argmin()))
        divisor = np.where(scale > 0, scale, 1).astype(np.float64)[:, None]
        quantized.values[begin : begin + step] = np.rint(np.divide(block, divisor, out=block), out=block)
        quantized.scales[begin : begin + step] = scale
    return quantized


def _scale(largest: NDArray[np.float64]) -> NDArray[np.float32]:
    """largest / 127 in float32; but up where a subnormal one would leave values beyond 127, down where 127 times it
    would be infinite.
    """
    scale = (largest / MOST).astype(np.float32)
    up = largest > (MOST + 0.25) * scale.astype(np.float64)
    down = np.isinf(scale * np.float32(MOST))
    return np.where(up | down, np.nextafter(scale, np.where(up, np.float32(np.inf), np.float32(0))), scale)


def _refuse(begin: int, block: NDArray[np.float64], row: int) -> NoReturn:
    column = int(np.argmax(np.where(np.isfinite(block[row]), abs(block[row]), np.inf)))
    value = block[row, column]
    reason = "is too large for float32" if np.isfinite(value) else "is not finite"
    raise ValueError(f"table[{begin + row}, {column}] = {value} {reason}")
