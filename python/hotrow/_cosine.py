"""Cosines between vectors, a block of rows at a time: a block is read from memory once, and no table is copied."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hotrow import _check
from hotrow.ops import Floats

_BLOCK = 2048  # rows; 300 floats each are 2.4 MB, which the second pass over a block finds in the cache


def unit(v: Floats) -> Floats:
    """Rows of v[N, D] scaled to length 1, in the dtype of arithmetic on v; zeros stay zeros."""
    v = v.astype(_check.real_dtype(v.dtype), copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", v, v))
        scaled: Floats = v / np.where(norms > 0, norms, 1)[:, None]
    return scaled


def cosines(v: Floats, query: Floats) -> Floats:
    """The cosine of each row of v[N, D] with query[D]; 0 where it has none: zeros, NaN."""
    real = _check.real_dtype(v.dtype)
    query = unit(query[None])[0].astype(real, copy=False)
    found = np.empty(len(v), real)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for i in range(0, len(v), _BLOCK):
            block = v[i : i + _BLOCK].astype(real, copy=False)
            found[i : i + _BLOCK] = block @ query / np.sqrt(np.einsum("ij,ij->i", block, block))
    return np.nan_to_num(found, copy=False, posinf=0, neginf=0)


def largest(scores: Floats, n: int) -> NDArray[np.int64]:
    """Where the n largest scores are, best first; of equal ones the first."""
    n = min(n, scores.size)
    if n == 0:
        return np.empty(0, np.int64)
    least = np.partition(scores, scores.size - n)[scores.size - n]
    found = np.flatnonzero(scores >= least)
    return found[np.argsort(-scores[found], kind="stable")[:n]]
