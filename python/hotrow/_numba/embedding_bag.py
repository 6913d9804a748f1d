"""Lookup of bags of rows, pooled, and its gradient with respect to the weights."""

from __future__ import annotations

import math

import numpy as np

from hotrow._numba.bounds import first_out_of_range
from hotrow._numba.half import read_element, read_row, round_row, row_to_update, table_view
from hotrow._numba.views import (
    MAX,
    MEAN,
    SQRTN,
    Array,
    dot,
    jit,
    matrix,
    parallel,
    pieces_of_work,
    row,
    useful_threads,
    vector,
)


@jit
def bag_factors(indices, offsets, weights, weighted, mode, padding_idx, begin, end):
    """What the sum over each bag is multiplied by: 1 / its divisor with mean and sqrtn, 0 if that is 0; otherwise 1."""
    factors = np.ones(end - begin, weights.dtype)
    if mode not in (MEAN, SQRTN):
        return factors
    for b in range(begin, end):
        divisor = 0.0
        for j in range(offsets[b], offsets[b + 1]):
            if indices[j] != padding_idx:
                w = np.float64(weights[j]) if weighted else 1.0
                divisor += w * w if mode == SQRTN else w
        if mode == SQRTN:
            divisor = math.sqrt(divisor)
        factors[b - begin] = 1 / divisor if divisor != 0 else 0.0
    return factors


# --- embedding_bag ----------------------------------------------------------------------------------------------------


@jit
def _keep_larger(source, w, first, target):
    """target[d] = max(target[d], source[d] * w); the earlier of equal ones, the later of NaN."""
    for d in range(target.size):
        x = source[d] * w
        target[d] = x if first | (x > target[d]) | (x != x) else target[d]


@jit
def _keep_larger_at(source, w, first, j, target, place):
    """The same; place[d] = j where source[d] * w is taken."""
    for d in range(target.size):
        x = source[d] * w
        taken = first | (x > target[d]) | (x != x)
        target[d] = x if taken else target[d]
        place[d] = j if taken else place[d]


@jit
def _embedding_bag(
    table, indices, offsets, scales, weights, weighted, argmax, placed, mode, padding_idx, begin, end, out
):
    """out[b, :] = pool of weights[j] * table[indices[j], :] over j in offsets[b] .. offsets[b + 1] - 1

    With scales, weights[j] * scales[indices[j]] are the weights.
    """
    one, zero = weights.dtype.type(1), weights.dtype.type(0)
    factors = bag_factors(indices, offsets, weights, weighted, mode, padding_idx, begin, end)
    cols = out[3]
    wide, sums = np.empty(cols, weights.dtype), np.empty(cols, weights.dtype)
    for b in range(begin, end):
        target = row_to_update(out, b, (sums, 0, cols, cols), 0)
        target[:] = 0
        if placed:
            row(argmax, b)[:] = -1
        first = True
        for j in range(offsets[b], offsets[b + 1]):
            if indices[j] == padding_idx:
                continue
            source = read_row(table, indices[j], wide)
            w = weights[j] if weighted else one
            if scales.size:
                w *= scales[indices[j]]
            if mode != MAX:
                for d in range(target.size):
                    target[d] += source[d] * w
            elif placed:
                _keep_larger_at(source, w, first, np.int32(j - offsets[b]), target, row(argmax, b))
            else:
                _keep_larger(source, w, first, target)
            first = False
        factor = factors[b - begin]
        if factor != one:
            for d in range(target.size):
                target[d] = target[d] * factor if factor != 0 else zero
        round_row(out, b, target)


def embedding_bag(
    table: Array,
    indices: Array,
    offsets: Array,
    scales: Array | None,
    weights: Array | None,
    argmax: Array | None,
    out: Array,
    mode: int,
    padding_idx: int,
    threads: int,
) -> bool:
    if first_out_of_range(indices, len(table), threads) >= 0:
        return False
    real = np.float32 if out.itemsize == 2 else out.dtype
    t, i, s, w, o = table_view(table), vector(indices), vector(offsets), vector(weights, real), table_view(out, True)
    r, a = vector(scales, real), matrix(np.empty((0, 0), np.int32) if argmax is None else argmax, True)
    parts = useful_threads(i.size * table.shape[1] * table.itemsize, threads)
    parallel(
        _embedding_bag,
        [
            (t, i, s, r, w, weights is not None, a, argmax is not None, mode, padding_idx, *piece, o)
            for piece in pieces_of_work(offsets, parts)
        ],
    )
    return True


# --- weights_grad -----------------------------------------------------------------------------------------------------


@jit
def _weights_grad(table, indices, offsets, weights, weighted, argmax, grads, mode, padding_idx, begin, end, out):
    """sum:   out[j] = x_j           with x_j = grads[b, :] . table[indices[j], :] for j in bag b, 0 where padding
    mean:  out[j] = (x_j - p) * f    with f = bag_factors[b], p = f * sum of weights[j] x_j
    sqrtn: out[j] = (x_j - p * weights[j] * f) * f
    max:   out[j] = sum of grads[b, d] * table[indices[j], d], ascending d, where argmax[b, d] = j - offsets[b]
    """
    one, zero = weights.dtype.type(1), weights.dtype.type(0)
    factors = bag_factors(indices, offsets, weights, weighted, mode, padding_idx, begin, end)
    wide = np.empty(grads[3], weights.dtype)
    for b in range(begin, end):
        first, last = offsets[b], offsets[b + 1]
        grad = row(grads, b)
        if mode == MAX:
            out[first:last] = 0
            place = row(argmax, b)
            for d in range(grad.size):
                j = first + place[d]
                if first <= j < last and indices[j] != padding_idx:
                    out[j] += grad[d] * read_element(table, indices[j], d)
            continue
        pooled = zero
        for j in range(first, last):
            out[j] = dot(grad, read_row(table, indices[j], wide)) if indices[j] != padding_idx else zero
            pooled += out[j] * (weights[j] if weighted else one)
        if mode not in (MEAN, SQRTN):
            continue
        factor = factors[b - begin]
        pooled *= factor
        for j in range(first, last):
            if indices[j] == padding_idx or factor == 0:
                out[j] = 0
            elif mode == MEAN:
                out[j] = (out[j] - pooled) * factor
            else:
                out[j] = (out[j] - pooled * (weights[j] if weighted else one) * factor) * factor


def weights_grad(
    table: Array,
    indices: Array,
    offsets: Array,
    weights: Array | None,
    argmax: Array | None,
    grads: Array,
    out: Array,
    mode: int,
    padding_idx: int,
    threads: int,
) -> None:
    t, i, s, w, g = table_view(table), vector(indices), vector(offsets), vector(weights, grads.dtype), matrix(grads)
    a = matrix(np.empty((0, 0), np.int32) if argmax is None else argmax)
    parts = useful_threads(i.size * table.shape[1] * table.itemsize, threads)
    parallel(
        _weights_grad,
        [
            (t, i, s, w, weights is not None, a, g, mode, padding_idx, *piece, out)
            for piece in pieces_of_work(offsets, parts)
        ],
    )
