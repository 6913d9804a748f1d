"""What kernels compute with: fused multiply-adds, exp."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from hotrow._numba.views import part


def _multiply_and_add(typing_context, a, b, c):
    """a * b + c, rounded once where the processor can. Left to the compiler, vectors and scalars of a loop might fuse
    different products of a sum, and memory addresses say which of the two run.
    """

    def generate(context, builder, signature, arguments):
        kind = arguments[0].type
        function = builder.module.declare_intrinsic("llvm.fmuladd", [kind], ir.FunctionType(kind, [kind] * 3))
        return builder.call(function, arguments)

    return a(a, a, a), generate


fma: Any = intrinsic(_multiply_and_add)

_LEAST, _LOG2_E, _LN2_HIGH, _LN2_LOW = -708.0, 1 / math.log(2), 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ROUND = 1.5 * 2.0**52  # added to a number and taken off again, leaves an integer, which ends the bits of the sum


@part
def exp(x):
    """exp(x) of x <= 0 to 2 u, at least exp(-708), in loops that become vectors: exp(r) 2^n where x = n ln 2 + r."""
    x = _LEAST if x < _LEAST else x
    rounded = fma(x, _LOG2_E, _ROUND)
    n = rounded - _ROUND
    r = fma(n, -_LN2_LOW, fma(n, -_LN2_HIGH, x))
    p = 1 / 6227020800  # Taylor's series, up to r^13
    p = fma(p, r, 1 / 479001600)
    p = fma(p, r, 1 / 39916800)
    p = fma(p, r, 1 / 3628800)
    p = fma(p, r, 1 / 362880)
    p = fma(p, r, 1 / 40320)
    p = fma(p, r, 1 / 5040)
    p = fma(p, r, 1 / 720)
    p = fma(p, r, 1 / 120)
    p = fma(p, r, 1 / 24)
    p = fma(p, r, 1 / 6)
    p = fma(p, r, 0.5)
    p = fma(p, r, 1.0)
    p = fma(p, r, 1.0)
    two_to_n = (np.float64(rounded).view(np.int64) + 1023) << 52
    return p * np.int64(two_to_n).view(np.float64)
