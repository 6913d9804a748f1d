"""The gradient of a lookup. Lookups are sorted by row first: each row is then summed, and written, once.

A row's terms are summed in ascending order of the lookups, in chunks of CHUNK, then the chunks in order: threads may
share a row that most lookups are of, and the bits do not depend on how many there are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hotrow._numba.embedding_bag import bag_factors
from hotrow._numba.half import round_rows, row_to_update, table_view, widen_rows
from hotrow._numba.views import (
    MAX,
    MEAN,
    SQRTN,
    Array,
    Matrix,
    Pieces,
    jit,
    matrix,
    parallel,
    pieces,
    pieces_of_work,
    prefetch_row,
    row,
    scalar,
    useful_threads,
    vector,
)

CHUNK = 1024  # part of the definition of the sums
_BLOCK = 32  # rows that a kernel sums at a time; 128 were no faster, 8 slower
# Terms between prefetch and use. coalesce of 65,536 Zipf lookups of 50,000 x 100, ms: 1: 3.9, 3: 2.7, 6: 2.2, 16: 1.7
_AHEAD = 16
_DIGIT_BITS = 11  # of the radix sort: its counts fit in L1, two passes sort the rows of a table of 4M


class Lookups(NamedTuple):
    """What kernels need to sum the gradient of a row: the terms of rows[u] are begins[u] .. ends[u] - 1."""

    rows: Array  # int64[U], ascending
    begins: Array  # int64[U]
    ends: Array  # int64[U]
    chunks: Array  # int64[U + 1]: the partial sums of rows[u] are chunks[u] .. chunks[u + 1] - 1, none for a short run
    bags: Array  # int64[n]: the row of grads of each term
    factors: Array  # F[n], or empty: all are 1
    places: Array  # int32[n], or empty: all columns count, not just those where argmax says so
    argmax: Matrix  # int32[B, D]
    grads: Matrix  # F[B, D]
    partials: Matrix  # F[chunks[U], D]


# --- sorting ----------------------------------------------------------------------------------------------------------


@jit
def _bits(largest):
    bits = 0
    while largest >> bits:
        bits += 1
    return bits


@jit
def _sort(indices, padding_idx):
    """Rows and positions of all lookups but those of padding_idx, ascending: a radix sort from the lowest digit."""
    n, largest, ascending = 0, 0, True
    for j in range(indices.size):
        if indices[j] != padding_idx:
            ascending &= indices[j] >= largest
            largest = max(largest, indices[j])
            n += 1
    rows, order = np.empty(n, np.int64), np.empty(n, np.int64)
    if ascending:  # as those of a coalesced gradient
        n = 0
        for j in range(indices.size):
            if indices[j] != padding_idx:
                rows[n], order[n] = indices[j], j
                n += 1
        return rows, order
    bits, low = _bits(largest), _bits(indices.size)
    if bits + low > 63:  # hashes: row and position do not fit into one number
        order = np.argsort(indices, kind="mergesort")
        n = 0
        for k in range(order.size):
            if indices[order[k]] != padding_idx:
                rows[n], order[n] = indices[order[k]], order[k]
                n += 1
        return rows, order[:n]
    passes = -(-bits // _DIGIT_BITS)
    digit_bits = -(-bits // max(passes, 1))
    mask = (1 << digit_bits) - 1
    begins = np.zeros((passes, mask + 1), np.int64)
    keys, others = rows, order
    n = 0
    for j in range(indices.size):
        if indices[j] != padding_idx:
            keys[n] = np.int64(indices[j]) << low | j
            for digit in range(passes):
                begins[digit, (indices[j] >> digit * digit_bits) & mask] += 1
            n += 1
    for digit in range(passes):
        begin, shift = begins[digit], low + digit * digit_bits
        total = 0
        for value in range(begin.size):
            count = begin[value]
            begin[value] = total
            total += count
        for k in range(n):
            value = (keys[k] >> shift) & mask
            others[begin[value]] = keys[k]
            begin[value] += 1
        keys, others = others, keys
    for k in range(n):
        key = keys[k]
        rows[k], order[k] = key >> low, key & ((1 << low) - 1)
    return rows, order


@jit
def _runs(sorted_rows):
    """Lookups.rows, where the terms of each start, Lookups.chunks, and the work up to each in terms and rows."""
    n = 0
    for k in range(sorted_rows.size):
        n += k == 0 or sorted_rows[k] != sorted_rows[k - 1]
    rows, starts = np.empty(n, np.int64), np.empty(n + 1, np.int64)
    chunks, work = np.empty(n + 1, np.int64), np.empty(n + 1, np.int64)
    n = 0
    for k in range(sorted_rows.size):
        if k == 0 or sorted_rows[k] != sorted_rows[k - 1]:
            rows[n], starts[n] = sorted_rows[k], k
            n += 1
    starts[n] = sorted_rows.size
    chunks[0] = work[0] = 0
    for u in range(n):
        terms = starts[u + 1] - starts[u]
        partials = -(-terms // CHUNK) if terms > CHUNK else 0
        chunks[u + 1] = chunks[u] + partials
        work[u + 1] = work[u] + (partials if partials else terms) + 1
    return rows, starts, chunks, work


@jit
def _terms(indices, offsets, weights, weighted, starts, order, mode, padding_idx, by_freq):
    """Lookups.bags, .factors and .places"""
    pooled = mode in (MEAN, SQRTN)
    one = weights.dtype.type(1)
    bags, per_bag = order, np.empty(0, weights.dtype)
    if offsets.size:
        per_bag = bag_factors(indices, offsets, weights, weighted, mode, padding_idx, 0, offsets.size - 1)
        bag_of = np.empty(indices.size, np.int64)
        for b in range(offsets.size - 1):
            for j in range(offsets[b], offsets[b + 1]):
                bag_of[j] = b
        bags = np.empty(order.size, np.int64)
        for k in range(order.size):
            bags[k] = bag_of[order[k]]
    places = np.empty(order.size if mode == MAX else 0, np.int32)
    for k in range(places.size):
        places[k] = order[k] - offsets[bags[k]]
    factors = np.empty(order.size if weighted or pooled or by_freq or mode == MAX else 0, weights.dtype)
    if factors.size:
        for u in range(starts.size - 1):
            frequency = one / weights.dtype.type(starts[u + 1] - starts[u]) if by_freq else one
            for k in range(starts[u], starts[u + 1]):
                factor = weights[order[k]] if weighted else one
                if pooled:
                    factor *= per_bag[bags[k]]
                factors[k] = factor * frequency
    return bags, factors, places


# --- sums -------------------------------------------------------------------------------------------------------------


@jit
def sum_rows(lookups, begin, end, first, values):
    """values[u - first, :] = sum over k of grads[bags[k], :] * factors[k], ascending, or of its chunks; see Lookups"""
    # Whatever is counted by reference is taken out of the tuple once, not in each turn: that doubled the time.
    _, begins, ends, chunks, bags, factors, places, argmax, grads, partials = lookups
    zero = values[0].dtype.type(0)
    for u in range(begin, end):
        total = row(values, u - first)
        for d in range(total.size):
            total[d] = -0.0  # to which the first term can be added without a trace
        if chunks[u] != chunks[u + 1]:
            for c in range(chunks[u], chunks[u + 1]):
                partial = row(partials, c)
                for d in range(total.size):
                    total[d] += partial[d]
        elif places.size:
            for k in range(begins[u], ends[u]):
                prefetch_row(grads, bags[min(k + _AHEAD, bags.size - 1)])
                grad, taken = row(grads, bags[k]), row(argmax, bags[k])
                for d in range(total.size):
                    total[d] += grad[d] * factors[k] if taken[d] == places[k] else zero
        elif factors.size:
            for k in range(begins[u], ends[u]):
                prefetch_row(grads, bags[min(k + _AHEAD, bags.size - 1)])
                grad = row(grads, bags[k])
                for d in range(total.size):
                    total[d] += grad[d] * factors[k]
        else:
            for k in range(begins[u], ends[u]):
                prefetch_row(grads, bags[min(k + _AHEAD, bags.size - 1)])
                grad = row(grads, bags[k])
                for d in range(total.size):
                    total[d] += grad[d]


@jit
def blocks_of_rows(lookups):
    """How many rows to do at a time, a matrix to sum their gradients in and one for widen_rows.

    They stay in L1, and calls are few.
    """
    flat, _, _, cols = lookups.partials
    step = max(1, min(_BLOCK, 4096 // cols))
    sums, wide = np.empty(step * cols, flat.dtype), np.empty(step * cols, flat.dtype)
    return step, (sums, 0, cols, cols), (wide, 0, cols, cols)


def _sum_chunks(lookups: Lookups, starts: Array, parts: int) -> None:
    """Fill in lookups.partials: each chunk is summed as a row of its own."""
    chunks = lookups.chunks
    u = np.repeat(np.arange(starts.size - 1), np.diff(chunks))
    begins = starts[u] + (np.arange(u.size) - chunks[u]) * CHUNK
    ends = np.minimum(begins + CHUNK, starts[u + 1])
    each = lookups._replace(begins=begins, ends=ends, chunks=np.zeros(u.size + 1, np.int64))
    parallel(sum_rows, [(each, *piece, 0, lookups.partials) for piece in pieces(u.size, parts)])


def by_row(
    indices: Array,
    offsets: Array | None,
    weights: Array | None,
    argmax: Array | None,
    grads: Array,
    mode: int,
    padding_idx: int,
    by_freq: bool,
    threads: int,
) -> tuple[Lookups, Pieces]:
    """The lookups sorted, their long runs summed; and a range of rows for each thread."""
    sorted_rows, order = _sort(vector(indices), padding_idx)
    rows, starts, chunks, work = _runs(sorted_rows)
    bags, factors, places = _terms(
        vector(indices), vector(offsets, np.int64), vector(weights, grads.dtype), weights is not None,
        starts, order, mode, padding_idx, by_freq,
    )  # fmt: skip
    width = grads.shape[1]
    taken = matrix(np.empty((0, 0), np.int32) if argmax is None else argmax)
    partials = matrix(np.empty((chunks[-1], width), grads.dtype), True)
    lookups = Lookups(
        rows, starts[:-1], starts[1:], chunks, bags, factors, places, taken, matrix(grads), partials
    )  # fmt: skip
    parts = useful_threads(2 * order.size * width * grads.itemsize, threads)
    if chunks[-1]:
        _sum_chunks(lookups, starts, parts)
    return lookups, pieces_of_work(work, parts)


# --- scatter_add ------------------------------------------------------------------------------------------------------


@jit
def _scatter_add(lookups, scale, begin, end, table):
    """table[rows[u], :] += sum of the terms of rows[u] * scale"""
    rows, (step, sums, wide) = lookups.rows, blocks_of_rows(lookups)
    for first in range(begin, end, step):
        last = min(first + step, end)
        for u in range(first, last):
            prefetch_row(table, rows[u])
        sum_rows(lookups, first, last, first, sums)
        widen_rows(table, rows, first, last, wide)
        for u in range(first, last):
            total, target = row(sums, u - first), row_to_update(table, rows[u], wide, u - first)
            for d in range(total.size):
                target[d] += total[d] * scale
        round_rows(table, rows, first, last, wide, False, np.uint64(0))


def scatter_add(
    indices: Array,
    offsets: Array | None,
    weights: Array | None,
    argmax: Array | None,
    grads: Array,
    table: Array,
    mode: int,
    padding_idx: int,
    scale: float,
    threads: int,
) -> None:
    lookups, ranges = by_row(indices, offsets, weights, argmax, grads, mode, padding_idx, False, threads)
    t = table_view(table, True)
    parallel(_scatter_add, [(lookups, scalar(scale, grads), *piece, t) for piece in ranges])


# --- coalesce ---------------------------------------------------------------------------------------------------------


def coalesce(
    indices: Array,
    offsets: Array | None,
    weights: Array | None,
    argmax: Array | None,
    grads: Array,
    mode: int,
    padding_idx: int,
    threads: int,
) -> tuple[Array, Array]:
    lookups, ranges = by_row(indices, offsets, weights, argmax, grads, mode, padding_idx, False, threads)
    values: Any = np.empty((lookups.rows.size, grads.shape[1]), grads.dtype)
    v = matrix(values, True)
    parallel(sum_rows, [(lookups, *piece, 0, v) for piece in ranges])
    return lookups.rows.astype(indices.dtype), values
