"""Tables of 16-bit elements, float16 and bfloat16: their rows are widened to float32 and rounded where they are stored.
Rows of int8 are widened for reading.

Numba has no arithmetic on such elements: kernels see their bits, as uint16, and do the rest with integers and exact
arithmetic, as csrc/kernels/half.h does, to the same bits. The view of such a table has a fifth entry: whether it is
bfloat16. By this the functions that kernels call here are chosen when a kernel is compiled: on a float32 or float64
table they give the row itself and copy nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import types
from numba.extending import overload

from hotrow._numba.random import GOLDEN, mix
from hotrow._numba.views import Array, Matrix, inline, jit, matrix, row

# Numba makes 64 bits of 32 and a float of signed and unsigned: what is to stay in 32 bits is said at each step.
u32, i32, f32 = np.uint32, np.int32, np.float32
_LEAST, _MOST = u32(113), u32(143)  # of float16's least normal number, and one beyond its range
_SMALLEST = f32(2.0**-14)
_HALF, _STEPS, _TO_FRACTION = f32(0.5), f32(4096), f32(2.0**-24)
_INFINITY, _NAN = u32(0x7C00), u32(0x7E00)

Table = Matrix | tuple[Array, int, int, int, bool]


def bits(a: Array) -> Array:
    """The array, or the bits of its 16-bit elements."""
    return a.view(np.uint16) if a.itemsize == 2 else a


def table_view(a: Array, writable: bool = False) -> Table:
    view = matrix(bits(a), writable)
    return (*view, a.dtype.name == "bfloat16") if a.itemsize == 2 else view


# --- elements ---------------------------------------------------------------------------------------------------------


@inline
def _bits_of(x):
    return f32(x).view(u32)


@inline
def _of_bits(x):
    return u32(x).view(f32)


@inline
def _from_bfloat16(h):
    return _of_bits(u32(h) << 16)


@inline
def _from_float16(h):
    """Exponent and significand move to their places in a float32; a subnormal number then lacks its leading one."""
    exponent, magnitude = h & 0x7C00, u32(((h & 0x7FFF) << 13) + (112 << 23))
    subnormal = _bits_of(_of_bits(magnitude + (1 << 23)) - _SMALLEST)
    special = u32(magnitude + (112 << 23))
    found = subnormal if exponent == 0 else special if exponent == 0x7C00 else magnitude
    return _of_bits(found | u32((h & 0x8000) << 16))


@inline
def _draw(key, d):
    """32 bits for each column: Wellons' lowbias32, 2018."""
    z = u32(u32(d) * 0x9E3779B9 + key)
    z = u32(u32(z ^ (z >> 16)) * 0x7FEB352D)
    z = u32(u32(z ^ (z >> 15)) * 0x846CA68B)
    return u32(z ^ (z >> 16))


@inline
def _to_bfloat16(x, stochastic, key, d):
    """Upper half of the bits, and one more if the lower half says so."""
    whole = _bits_of(x)
    kept, rest = u32(whole >> 16), u32(whole & 0xFFFF)
    # rest > limit rounds up: half of the range, or less by one where that makes an odd number even; or a draw.
    limit = u32(_draw(key, d) >> 16) if stochastic else u32(0x8000 - (kept & 1))
    return u32(kept | 0x40) if x != x else u32(kept + u32(rest > limit))


@inline
def _to_float16(x, stochastic, key, d):
    """|x| counts steps of the float16 numbers around it; n of them are its bits if the exponent is added."""
    whole = _bits_of(x)
    magnitude, sign = u32(whole & 0x7FFFFFFF), u32(u32(whole >> 31) << 15)
    raw = u32(magnitude >> 23)
    exponent = _LEAST if raw < _LEAST else _MOST if raw > _MOST else raw
    steps = _of_bits(magnitude) * _of_bits((264 - exponent) << 23)  # exact: a power of two
    at_most = steps if steps < _STEPS else _STEPS
    count = i32(at_most)
    rest = at_most - f32(count)
    if stochastic:
        up = rest > f32(i32(_draw(key, d) >> 8)) * _TO_FRACTION
    else:
        up = (rest > _HALF) | ((rest == _HALF) & ((count & 1) != 0))
    found = u32(((exponent - 113) << 10) + count + up)
    finite = found if found < _INFINITY else _INFINITY
    return u32((_NAN if x != x else finite) | sign)


# --- rows -------------------------------------------------------------------------------------------------------------


@inline  # as calls, embedding_bag of 65,536 rows of 100 float16 took 3.9 ms, not 2.3
def _widen_row(table, r, wide):
    h = row(table, r)
    if table[4]:
        for d in range(h.size):
            wide[d] = _from_bfloat16(h[d])
    else:
        for d in range(h.size):
            wide[d] = _from_float16(h[d])
    return wide


@inline
def _widen_int8(table, r, wide):
    q = row(table, r)
    for d in range(q.size):
        wide[d] = f32(q[d])
    return wide


@jit
def _widen_element(table, r, d):
    h = row(table, r)[d]
    return _from_bfloat16(h) if table[4] else _from_float16(h)


@jit
def _round_row(table, r, wide, stochastic, key):
    h, row_key = row(table, r), u32(mix(key + np.uint64(r) * GOLDEN))
    if table[4]:
        for d in range(h.size):
            h[d] = _to_bfloat16(wide[d], stochastic, row_key, d)
    else:
        for d in range(h.size):
            h[d] = _to_float16(wide[d], stochastic, row_key, d)


@jit
def _widen_rows(table, rows, begin, end, wide):
    for u in range(begin, end):
        _widen_row(table, rows[u], row(wide, u - begin))


@jit
def _round_rows(table, rows, begin, end, wide, stochastic, key):
    for u in range(begin, end):
        _round_row(table, rows[u], row(wide, u - begin), stochastic, key)


# --- what kernels call ------------------------------------------------------------------------------------------------


def _chosen(half: Callable[..., Any], real: Callable[..., Any], int8: Callable[..., Any] | None = None) -> Any:
    """A function for kernels, of a table and more: `half` on a table of 16-bit elements, `int8`, `real` on others."""

    def choose(table: Any, *_: Any) -> Callable[..., Any] | None:
        if len(table) == 5:
            return half
        return int8 if table[0].dtype == types.int8 else real

    def function(*arguments: Any) -> None:
        raise NotImplementedError("for compiled kernels")

    overload(function, inline="always", strict=False)(choose)
    return function


# Row r to be read: itself, or widened into the array `wide`.
read_row = _chosen(
    lambda table, r, wide: _widen_row(table, r, wide),
    lambda table, r, wide: row(table, r),
    lambda table, r, wide: _widen_int8(table, r, wide),
)

# table[r, d]
read_element = _chosen(lambda table, r, d: _widen_element(table, r, d), lambda table, r, d: row(table, r)[d])

# Widens rows[begin] .. rows[end - 1] into the matrix `wide`, from its first row on, if they need it.
widen_rows = _chosen(
    lambda table, rows, begin, end, wide: _widen_rows(table, rows, begin, end, wide),
    lambda table, rows, begin, end, wide: None,
)

# Row r between widen_rows and round_rows: itself, or row k of `wide`.
row_to_update = _chosen(lambda table, r, wide, k: row(wide, k), lambda table, r, wide, k: row(table, r))

# Stores one such row, `wide`, to nearest.
round_row = _chosen(
    lambda table, r, wide: _round_row(table, r, wide, False, np.uint64(0)),
    lambda table, r, wide: None,
)

# Stores what widen_rows widened, rounded once: by draws of `key` if stochastic, else to nearest.
round_rows = _chosen(
    lambda table, rows, begin, end, wide, stochastic, key: _round_rows(table, rows, begin, end, wide, stochastic, key),
    lambda table, rows, begin, end, wide, stochastic, key: None,
)
