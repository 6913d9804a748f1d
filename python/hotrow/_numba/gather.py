"""Lookup of rows."""

from __future__ import annotations

import numpy as np

from hotrow._numba.half import bits
from hotrow._numba.views import Array, jit, matrix, parallel, pieces, row, useful_threads, vector


@jit
def _gather(table, indices, begin, end, out):
    """out[i, :] = table[indices[i], :]"""
    for i in range(begin, end):
        source, target = row(table, indices[i]), row(out, i)
        for d in range(source.size):
            target[d] = source[d]


@jit
def _gather_scaled(table, indices, scales, begin, end, out):
    """out[i, :] = table[indices[i], :] * scales[indices[i]]"""
    for i in range(begin, end):
        source, target, scale = row(table, indices[i]), row(out, i), scales[indices[i]]
        for d in range(source.size):
            target[d] = np.float32(source[d]) * scale


def gather(table: Array, indices: Array, scales: Array | None, out: Array, threads: int) -> None:
    t, i, o = matrix(bits(table)), vector(indices), matrix(bits(out), True)
    parts = useful_threads(2 * out.nbytes, threads)
    if scales is None:
        parallel(_gather, [(t, i, *piece, o) for piece in pieces(i.size, parts)])
    else:
        parallel(_gather_scaled, [(t, i, vector(scales), *piece, o) for piece in pieces(i.size, parts)])
