"""The loops one would write: serial Numba."""

from __future__ import annotations

import numba
import numpy as np

from benchmarks.operators import BETA1, BETA2, EPS, LR

_LR, _EPS, _BETA1, _BETA2, _NEW1, _NEW2 = map(np.float32, (LR, EPS, BETA1, BETA2, 1 - BETA1, 1 - BETA2))


@numba.njit
def gather(table, indices, out):
    for i in range(indices.size):
        for d in range(table.shape[1]):
            out[i, d] = table[indices[i], d]
    return out


@numba.njit
def embedding_bag(table, indices, offsets):
    out = np.zeros((offsets.size - 1, table.shape[1]), table.dtype)
    for b in range(offsets.size - 1):
        for i in range(offsets[b], offsets[b + 1]):
            for d in range(table.shape[1]):
                out[b, d] += table[indices[i], d]
    return out


@numba.njit
def gather_int8(values, scales, indices, out):
    for i in range(indices.size):
        for d in range(values.shape[1]):
            out[i, d] = np.float32(values[indices[i], d]) * scales[indices[i]]
    return out


@numba.njit
def embedding_bag_int8(values, scales, indices, offsets):
    out = np.zeros((offsets.size - 1, values.shape[1]), scales.dtype)
    for b in range(offsets.size - 1):
        for i in range(offsets[b], offsets[b + 1]):
            for d in range(values.shape[1]):
                out[b, d] += np.float32(values[indices[i], d]) * scales[indices[i]]
    return out


@numba.njit
def scatter_add(table, indices, grads, scale):
    for i in range(indices.size):
        for d in range(table.shape[1]):
            table[indices[i], d] += scale * grads[i, d]


@numba.njit
def coalesce(indices, grads, bag_of=None):
    """With bag_of, lookup i has the gradient of its bag."""
    order = np.argsort(indices, kind="mergesort")
    rows, values = np.empty_like(indices), np.zeros((indices.size, grads.shape[1]), grads.dtype)
    u = -1
    for i in order:
        if u < 0 or rows[u] != indices[i]:
            u += 1
            rows[u] = indices[i]
        source = i if bag_of is None else bag_of[i]
        for d in range(grads.shape[1]):
            values[u, d] += grads[source, d]
    return rows[: u + 1], values[: u + 1]


@numba.njit
def adagrad(table, squares, rows, values):
    for u in range(rows.size):
        r = rows[u]
        for d in range(table.shape[1]):
            squares[r, d] += values[u, d] * values[u, d]
            table[r, d] -= _LR * values[u, d] / (np.sqrt(squares[r, d]) + _EPS)


@numba.njit
def rowwise_adagrad(table, row_squares, rows, values):
    for u in range(rows.size):
        r = rows[u]
        total = np.float32(0)
        for d in range(table.shape[1]):
            total += values[u, d] * values[u, d]
        row_squares[r] += total / np.float32(table.shape[1])
        rate = _LR / (np.sqrt(row_squares[r]) + _EPS)
        for d in range(table.shape[1]):
            table[r, d] -= rate * values[u, d]


@numba.njit
def adam(table, averages, squares, rows, values, rate):
    for u in range(rows.size):
        r = rows[u]
        for d in range(table.shape[1]):
            g = values[u, d]
            averages[r, d] = _BETA1 * averages[r, d] + _NEW1 * g
            squares[r, d] = _BETA2 * squares[r, d] + _NEW2 * g * g
            table[r, d] -= rate * averages[r, d] / (np.sqrt(squares[r, d]) + _EPS)
