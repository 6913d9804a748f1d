"""Skip-gram and continuous bag of words, with negative sampling or hierarchical softmax.

Rows are known by where they start. Numbers that count elements are unsigned: an index that might be negative would be
counted from the end, at the cost of a test that keeps loops from becoming vectors.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from hotrow._numba.math import exp, fma
from hotrow._numba.views import (
    Array,
    jit,
    matrix,
    parallel,
    part,
    part_dot,
    pieces,
    prefetch,
    row,
    scalar,
    useful_threads,
    vector,
)
from hotrow._numba.windows import draw_words, kept_words

tokens_per_block = 1024  # as kTokensPerBlock in csrc/view.h
_GROUP = 8  # windows that share negatives, as kGroup there
_GROUPS_ALIKE, _INPUTS_ALIKE = 4, 8  # as kGroupsAlike and windows_at_once in csrc/kernels/groups.h

# --- a window ---------------------------------------------------------------------------------------------------------

_TOGETHER = 6  # rows that a loop takes at a time: a positive and the usual five negatives
_LANES = 8  # scores are made up to a multiple of them


@part
def _whole(n):
    """n, or the next multiple of _TOGETHER."""
    return -(-n // _TOGETHER) * _TOGETHER


@part
def _start(table, r):
    """Where row r starts."""
    return np.uint64(table[1] + r * table[2])


@part
def _zero(x, begin, end):
    for i in range(np.uint64(begin), np.uint64(end)):
        x[i] = 0


@part
def _copy(x, start, cols, y, at):
    for d in range(cols):
        y[at + d] = x[start + d]


@part
def _add_one(y, start, cols, c, x, at):
    """Row `start` of y gets c times that of x."""
    for d in range(cols):
        y[start + d] = fma(c, x[at + d], y[start + d])


@part
def _add(y, start, cols, c, j, step, x, rows, a):
    """Row `start` of y gets c[j + k * step] times row rows[a + k] of x, k < _TOGETHER."""
    c0, c1, c2 = c[j], c[j + step], c[j + 2 * step]
    c3, c4, c5 = c[j + 3 * step], c[j + 4 * step], c[j + 5 * step]
    x0, x1, x2, x3, x4, x5 = rows[a], rows[a + 1], rows[a + 2], rows[a + 3], rows[a + 4], rows[a + 5]
    for d in range(cols):
        total = fma(c0, x[x0 + d], y[start + d])
        total = fma(c1, x[x1 + d], total)
        total = fma(c2, x[x2 + d], total)
        total = fma(c3, x[x3 + d], total)
        total = fma(c4, x[x4 + d], total)
        y[start + d] = fma(c5, x[x5 + d], total)


@part_dot
def _dots(h, start, cols, o, rows, b, scores, j):
    """scores[j + k]: row `start` of h times row rows[b + k] of o, k < _TOGETHER."""
    o0, o1, o2, o3, o4, o5 = rows[b], rows[b + 1], rows[b + 2], rows[b + 3], rows[b + 4], rows[b + 5]
    s0 = s1 = s2 = s3 = s4 = s5 = h.dtype.type(0)
    for d in range(cols):
        x = h[start + d]
        s0 += x * o[o0 + d]
        s1 += x * o[o1 + d]
        s2 += x * o[o2 + d]
        s3 += x * o[o3 + d]
        s4 += x * o[o4 + d]
        s5 += x * o[o5 + d]
    scores[j], scores[j + 1], scores[j + 2] = s0, s1, s2
    scores[j + 3], scores[j + 4], scores[j + 5] = s3, s4, s5


@part
def _coefficients(scores, signs, n, lr, coefficients, exponentials):
    """lr times the gradients of the losses of n scores, in float64."""
    for j in range(n):
        x = -signs[j] * scores[j]
        e = exp(-abs(x))
        coefficients[j] = lr * signs[j] * ((1.0 if x > 0 else e) / (1 + e))
        exponentials[j] = e


@part_dot
def _losses(scores, signs, exponentials, begin, end):
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-abs(x))), x = -sign * score: the sum of the first terms and the
    product of the arguments of the logarithms.
    """
    linear, product = 0.0, 1.0
    for j in range(begin, end):
        x = -signs[j] * scores[j]
        linear += x if x > 0 else 0.0
        product *= 1 + exponentials[j]
    return linear, product


@jit
def _room(windows, m, n, cols, like):
    """What windows of up to m inputs and n outputs work on: a copy of the output rows and where each starts there; for
    each pair its score, sign (1 for a positive, else -1) and exponential; of so many windows, the coefficients of each.
    Outputs are made up to a multiple of _TOGETHER by rows of zeros.
    """
    n = _whole(n)
    starts = np.arange(n).astype(np.uint64) * np.uint64(cols)
    signs = np.full(m * n + _LANES, -1.0)
    signs[: m * n : n] = 1
    room = np.empty(n * cols, like.dtype), starts, np.empty(signs.size, like.dtype), signs, np.empty(signs.size)
    return room, np.empty((windows, _whole(m) * n + _LANES), like.dtype)


@part
def _copy_outputs(outputs, out_rows, n, width, cols, o, o_rows):
    for b in range(n):
        _copy(outputs, out_rows[b], cols, o, o_rows[b])
    _zero(o, n * cols, width * cols)


@part
def _score(inputs, rows, first, m, outputs, out_rows, n, width, cols, lr, coefficients, room):
    """The coefficients of all pairs of m inputs, from rows[first] on, and n outputs, made up to `width`; their loss."""
    o, o_rows, scores, signs, exponentials = room
    pairs, padded = m * width, -(-m * width // _LANES) * _LANES
    _copy_outputs(outputs, out_rows, n, width, cols, o, o_rows)
    for a in range(m):
        for b in range(0, width, _TOGETHER):
            _dots(inputs, rows[first + a], cols, o, o_rows, b, scores, a * width + b)
    _zero(scores, pairs, padded)
    _coefficients(scores, signs, padded, lr, coefficients, exponentials)
    loss = -(padded - m * n) * math.log(2.0)  # that of scores that are made up
    for begin in range(0, padded, 1000):  # factors are 2 at most
        linear, product = _losses(scores, signs, exponentials, np.uint64(begin), np.uint64(min(begin + 1000, padded)))
        loss += linear + math.log(product)
    _zero(coefficients, pairs, _whole(m) * width)
    return loss


@part
def _update(inputs, rows, first, m, change, outputs, out_rows, n, width, cols, coefficients, room):
    """The step of a window along its coefficients. Inputs are followed by any that make up a multiple of _TOGETHER
    unless m is 1; their changes are added to the same rows of `change`. A row may stand there twice.
    """
    o, o_rows = room[0], room[1]
    _copy_outputs(outputs, out_rows, n, width, cols, o, o_rows)
    for b in range(n):
        for a in range(0, m, _TOGETHER):
            j = a * width + b
            if a == m - 1:
                _add_one(outputs, out_rows[b], cols, coefficients[j], inputs, rows[first + a])
            else:
                _add(outputs, out_rows[b], cols, coefficients, j, width, inputs, rows, first + a)
    for a in range(m):
        for b in range(0, width, _TOGETHER):
            _add(change, rows[first + a], cols, coefficients, a * width + b, 1, o, o_rows, b)


# --- skipgram_step ----------------------------------------------------------------------------------------------------


@jit
def _skipgram_step(centers, contexts, negatives, lr, begin, end, in_table, out_table):
    """Pair after pair: one input row, one positive and the negatives that differ from it."""
    i, o, cols = in_table[0], out_table[0], np.uint64(in_table[3])
    inputs, outputs = np.empty(1, np.uint64), np.empty(1 + negatives[3], np.uint64)
    room, (coefficients,) = _room(1, 1, outputs.size, in_table[3], i)
    loss, width = 0.0, room[1].size
    for pair in range(begin, end):
        inputs[0], outputs[0], n = _start(in_table, centers[pair]), _start(out_table, contexts[pair]), 1
        for k in row(negatives, pair):
            if k != contexts[pair]:
                outputs[n] = _start(out_table, k)
                n += 1
        loss += _score(i, inputs, 0, 1, o, outputs, n, width, cols, lr, coefficients, room)
        _update(i, inputs, 0, 1, i, o, outputs, n, width, cols, coefficients, room)
    return loss


def skipgram_step(
    centers: Array, contexts: Array, negatives: Array, lr: float, in_table: Array, out_table: Array, threads: int
) -> tuple[float, int]:
    c, x, k = vector(centers), vector(contexts), matrix(negatives)
    i, o = matrix(in_table, True), matrix(out_table, True)
    n, width = negatives.shape[0], in_table.shape[1] * in_table.itemsize
    parts = useful_threads(2 * n * (2 + negatives.shape[1]) * width, threads)
    losses = parallel(_skipgram_step, [(c, x, k, scalar(lr, in_table), *piece, i, o) for piece in pieces(n, parts)])
    return float(sum(losses)), n


# --- skipgram_epoch, cbow_epoch, skipgram_hs_epoch, cbow_hs_epoch -----------------------------------------------------


@part
def _outputs(out_table, center, negatives, at, n, outputs):
    """The rows of a centre and of those of n negatives that differ from it; their number."""
    outputs[0], found = _start(out_table, center), 1
    for k in range(at, at + n):
        outputs[found] = _start(out_table, negatives[k])
        found += negatives[k] != center
    return found


@part
def _fetch(table, words, begin, end):
    """Bring near the rows of words[begin .. end - 1], or the first KB of each."""
    flat, cols = table[0], min(table[3], 1024 // table[0].itemsize)
    for k in range(begin, end):
        for d in range(0, cols, 64 // flat.itemsize):
            prefetch(flat, _start(table, words[k]) + np.uint64(d))


@part
def _contexts(in_table, word, t, begin, end, rows):
    """The rows of words begin .. end - 1 but t, the last again to make up a multiple of _TOGETHER; their number."""
    m = 0
    for c in range(begin, end):
        rows[m] = _start(in_table, word[c])
        m += c != t
    for a in range(m, _whole(m)):
        rows[a] = rows[m - 1]
    return m


@part
def _path(out_table, points, codes, begin, end, m, outputs, signs):
    """The rows of nodes begin .. end - 1 of a path, and their signs for each of m inputs; their number."""
    n = end - begin
    for b in range(n):
        outputs[b] = _start(out_table, points[begin + b])
        for a in range(m):
            signs[a * _whole(n) + b] = 1 - 2 * np.int64(codes[begin + b])
    return n


@part
def _pool(table, rows, m, factor, cols, pooled, at):
    """Row `at` of pooled: the sum of m rows, times a factor."""
    _zero(pooled, at, at + cols)
    for a in range(m):
        _add_one(pooled, at, cols, pooled.dtype.type(1), table, rows[a])
    for d in range(cols):
        pooled[at + d] *= factor


@part_dot
def _square(x, start, cols):
    total = x.dtype.type(0)
    for d in range(cols):
        total += x[start + d] * x[start + d]
    return total


@part
def _windows_at_once(inputs, rows, contexts, windows, together, lr, cols):
    """How many windows of a group are scored at once: no more than surely descend the loss of a negative. A step does
    not overshoot if lr times a quarter of the sum of squares of its inputs is at most 1; the first stand for all.
    """
    at_once, all_inputs, judged, reach = _GROUP, 0, 0, 0.0
    for s in range(windows):
        m = min(contexts[s], together)
        all_inputs += m
        for a in range(min(m, _INPUTS_ALIKE - judged)):
            reach += lr / 4 * _square(inputs, rows[s, a], cols)
            judged += 1
    while at_once > 1 and not at_once * reach * all_inputs <= judged * windows:
        at_once -= 1
    return at_once


@jit
def _epoch(job, begin, end, cbow, cbow_mean, shared, in_table, out_table):
    """Group after group of the centres of tokens begin .. end - 1: the contexts of each, all together or each in turn,
    on itself and the negatives that differ from it, or on its path where there are paths; it has `most` negatives, or
    nodes at most. _GROUP centres share negatives, and some of them are scored at once.
    """
    tokens, offsets, keep, accept, other, path_offsets, points, codes = job[:8]
    window, most, shrink, lr_begin, lr_end, seed = job[8:]
    hs, pairs = path_offsets.size > 0, not (shared or cbow)
    slope = (lr_end - lr_begin) / offsets[-1]
    size = tokens_per_block + 2 * window + 1
    word, place = np.empty(size, tokens.dtype), np.empty(size, np.int64)
    window_begin, window_end = np.empty(size, np.int64), np.empty(size, np.int64)
    together = 1 if cbow or pairs else 2 * window  # inputs
    members = 1 if hs or pairs else _GROUP
    negatives = np.empty(most * (0 if hs else 2 * window if pairs else tokens_per_block // _GROUP), tokens.dtype)
    in_flat, out_flat, cols, scalar_t = in_table[0], out_table[0], np.uint64(in_table[3]), in_table[0].dtype.type
    room, coefficients = _room(members, together, 1 + most, in_table[3], in_flat)
    center, contexts = np.empty(members, np.int64), np.empty(members, np.int64)
    rows, outputs = np.empty((members, 2 * window + _TOGETHER), np.uint64), np.empty((members, 1 + most), np.uint64)
    found = np.empty(members, np.int64)
    inputs, input_rows, change = in_flat, rows, in_flat
    if cbow:  # inputs are sums of rows, one for each window
        inputs, change = np.empty(members * in_table[3], in_flat.dtype), np.empty(members * in_table[3], in_flat.dtype)
        input_rows = (np.arange(members).astype(np.uint64) * cols).reshape(members, 1)
    loss, terms = 0.0, 0
    for block in range(begin, end, tokens_per_block):
        count, first, last = kept_words(
            tokens, offsets, keep, window, shrink, seed, block, min(block + tokens_per_block, end), word, place,
            window_begin, window_end,
        )  # fmt: skip
        groups, at_once = -(-(last - first) // members), 1
        for i in range(0 if hs or pairs else groups):
            draw_words(accept, other, seed, place[first + i] * most, most, negatives[i * most :])
        block_loss = 0.0
        for i in range(groups):
            if not (hs or pairs):
                _fetch(out_table, negatives, min(i + 1, groups - 1) * most, min(i + 2, groups) * most)
            windows, lr = 0, scalar_t(lr_begin + slope * place[first + i])
            for t in range(first + i, last, groups):
                ahead = min(t + 1, last - 1)
                _fetch(in_table, word, ahead + window, min(ahead + window + 1, count))
                if hs:
                    _fetch(out_table, points, path_offsets[word[ahead]], path_offsets[word[ahead] + 1])
                else:
                    _fetch(out_table, word, ahead, ahead + 1)
                m = _contexts(in_table, word, t, window_begin[t], window_end[t], rows[windows])
                if m > 0:
                    center[windows], contexts[windows] = t, m
                    if cbow:
                        factor = scalar_t(1) / scalar_t(m) if cbow_mean else scalar_t(1)
                        _pool(in_flat, rows[windows], m, factor, cols, inputs, input_rows[windows, 0])
                    windows += 1
            if members > 1 and i % _GROUPS_ALIKE == 0:
                at_once = _windows_at_once(inputs, input_rows, contexts, windows, together, lr, cols)
            for batch in range(0, windows, at_once):
                batch_end = min(batch + at_once, windows)
                for s in range(batch, batch_end):
                    t, m, width = center[s], contexts[s], room[1].size
                    if hs:
                        path = path_offsets[word[t]], path_offsets[word[t] + 1]
                        found[s] = _path(out_table, points, codes, *path, min(m, together), outputs[s], room[3])
                        width = _whole(found[s])
                    elif pairs:
                        draw_words(accept, other, seed, place[t] * 2 * window * most, m * most, negatives)
                        _fetch(out_table, negatives, 0, m * most)
                    for a in range(m if pairs else 1):
                        if not hs:
                            at = a if pairs else i
                            found[s] = _outputs(out_table, word[t], negatives, at * most, most, outputs[s])
                        block_loss += _score(
                            inputs, input_rows[s], a, min(m, together), out_flat, outputs[s], found[s], width, cols,
                            lr, coefficients[s], room,
                        )  # fmt: skip
                        if pairs:
                            _update(
                                inputs, input_rows[s], a, 1, change, out_flat, outputs[s], found[s], width, cols,
                                coefficients[s], room,
                            )  # fmt: skip
                    terms += 1 if cbow else m
                for s in range(batch_end if pairs else batch, batch_end):
                    m, width = contexts[s], _whole(found[s]) if hs else room[1].size
                    if cbow:
                        _zero(change, input_rows[s, 0], input_rows[s, 0] + cols)
                    _update(
                        inputs, input_rows[s], 0, min(m, together), change, out_flat, outputs[s], found[s], width, cols,
                        coefficients[s], room,
                    )  # fmt: skip
                    if cbow:
                        factor = scalar_t(1) if cbow_mean else scalar_t(1) / scalar_t(m)
                        for a in range(m):
                            _add_one(in_flat, rows[s, a], cols, factor, change, input_rows[s, 0])
        loss += np.rint(block_loss * 2.0**20) / 2.0**20  # as kLossUnits in csrc/ops/skipgram.h
    return loss, terms


_NO_NEGATIVES = [np.empty(0, np.uint32), np.empty(0, np.int32)]
_NO_PATHS = [np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.uint8)]


def _train(
    job: list[Any],
    in_table: Array,
    out_table: Array,
    threads: int,
    *,
    cbow: bool = False,
    cbow_mean: bool = True,
    shared_negatives: bool = True,
) -> tuple[float, int]:
    """The arguments in the order of hotrow._native's: arrays, options, seed, begin and end, tables and threads."""
    arrays = [*job[:5], *_NO_PATHS] if len(job) == 13 else [*job[:3], *_NO_NEGATIVES, *job[3:6]]
    *options, seed, begin, end = job[-8:]
    i, o = matrix(in_table, True), matrix(out_table, True)
    call = (*map(vector, arrays), *options, np.uint64(seed))
    blocks = -(-(end - begin) // tokens_per_block)
    cuts = [min(begin + tokens_per_block * b, end) for b, _ in pieces(blocks, min(threads, blocks))]
    kind = cbow, cbow_mean, shared_negatives
    parts = parallel(_epoch, [(call, *piece, *kind, i, o) for piece in pairwise([*cuts, end])])
    return float(sum(loss for loss, _ in parts)), sum(terms for _, terms in parts)


def skipgram_epoch(*arguments: Any) -> tuple[float, int]:
    *job, shared_negatives, in_table, out_table, threads = arguments
    return _train(job, in_table, out_table, threads, shared_negatives=shared_negatives)


def cbow_epoch(*arguments: Any) -> tuple[float, int]:
    *job, cbow_mean, in_table, out_table, threads = arguments
    return _train(job, in_table, out_table, threads, cbow=True, cbow_mean=cbow_mean)


def skipgram_hs_epoch(*arguments: Any) -> tuple[float, int]:
    *job, in_table, out_table, threads = arguments
    return _train(job, in_table, out_table, threads)


cbow_hs_epoch = cbow_epoch  # the arguments say which outputs there are
