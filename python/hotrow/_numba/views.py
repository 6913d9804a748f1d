"""What all kernels share: how they are compiled, views of arrays, threads.

Matrices come as views: (elements, first row, row stride, columns).

Numba caches a kernel by the file it stands in: after a change to a helper, touch the files of kernels that call it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from hotrow._ops import MODES

Array = NDArray[Any]
Matrix = tuple[Array, int, int, int]
Pieces = list[tuple[int, int]]

SUM, MEAN, SQRTN, MAX = range(len(MODES))
_BYTES_PER_THREAD = 1 << 20  # a Python thread costs some 50 microseconds

# Division by zero gives infinity or NaN, as in C++: Python's error would keep loops from being vectorised.
jit = numba.njit(nogil=True, cache=True, error_model="numpy")
inline = numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")
# Parts of a hot function: LLVM then sees that they raise nothing, and no references to their arguments are counted.
part = numba.njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
part_dot = numba.njit(
    nogil=True, cache=True, error_model="numpy", forceinline=True, fastmath={"reassoc", "nsz", "contract"}
)
# Sums over a row may be reordered into lanes, nothing else.
jit_dot = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})


@inline
def row(view, r):
    flat, first, stride, cols = view[:4]
    start = first + r * stride
    return flat[start : start + cols]


def _prefetch_element(typing_context, flat, position):
    """Bring flat[position] into the cache."""

    def generate(context, builder, signature, arguments):
        byte, integer = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, integer, integer, integer])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), byte)
        builder.call(function, [pointer, integer(0), integer(3), integer(1)])  # read, keep in all caches, data
        return context.get_dummy_value()

    return types.void(flat, types.intp), generate


prefetch: Any = intrinsic(_prefetch_element)


@inline
def prefetch_row(view, r):
    """Bring the row into the cache, or the first KB of it, after which the processor has seen the pattern."""
    flat, first, stride, cols = view[:4]
    start = first + r * stride
    for d in range(0, min(cols, 1024 // flat.itemsize), 64 // flat.itemsize):
        prefetch(flat, start + d)


@jit_dot
def dot(x, y):
    total = x.dtype.type(0)
    for d in range(x.size):
        total += x[d] * y[d]
    return total


def matrix(a: Array, writable: bool = False) -> Matrix:
    rows, cols = a.shape
    stride = a.strides[0] // a.itemsize if rows > 1 else cols
    first = -(rows - 1) * stride if stride < 0 else 0
    size = (abs(stride) * (rows - 1) + cols) if rows and cols else 0
    flat = as_strided(a[::-1] if stride < 0 else a, (size,), (a.itemsize,), writeable=writable)
    return flat, first, stride, cols


def vector(a: Array | None, dtype: Any = None) -> Array:
    """The array, read-only, so that each kernel is compiled once for each dtype; an empty one for None."""
    a = np.empty(0, dtype) if a is None else a.view(np.ndarray)
    if a.flags.writeable:
        a = a[:]
        a.flags.writeable = False
    return a


def scalar(x: float, like: Array) -> Any:
    with np.errstate(over="ignore"):  # infinite in float32, as natively
        return like.dtype.type(x)


def pieces(n: int, parts: int) -> Pieces:
    return list(pairwise([n * t // parts for t in range(parts + 1)]))


def pieces_of_work(work: Array, parts: int) -> Pieces:
    """Cut items into parts of about the same work: work[i] is that of all items before i, and ends with that of all."""
    total = int(work[-1])
    cuts = np.searchsorted(work[:-1], [total * k // parts for k in range(1, parts)]).tolist()
    return list(pairwise([0, *cuts, work.size - 1]))


def useful_threads(size: int, threads: int) -> int:
    return max(1, min(threads, size // _BYTES_PER_THREAD))


def parallel(kernel: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
    """kernel(*call) for each call, one thread each."""
    if len(calls) == 1:
        return [kernel(*calls[0])]
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda call: kernel(*call), calls))
