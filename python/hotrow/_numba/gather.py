"""Lookup of rows."""

from __future__ import annotations

from hotrow._numba.half import bits
from hotrow._numba.views import Array, jit, matrix, parallel, pieces, row, useful_threads, vector


@jit
def _gather(table, indices, begin, end, out):
    """out[i, :] = table[indices[i], :]"""
    for i in range(begin, end):
        source, target = row(table, indices[i]), row(out, i)
        for d in range(source.size):
            target[d] = source[d]


def gather(table: Array, indices: Array, out: Array, threads: int) -> None:
    t, i, o = matrix(bits(table)), vector(indices), matrix(bits(out), True)
    parts = useful_threads(2 * out.nbytes, threads)
    parallel(_gather, [(t, i, *piece, o) for piece in pieces(i.size, parts)])
