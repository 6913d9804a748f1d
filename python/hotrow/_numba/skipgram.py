"""Skip-gram and continuous bag of words, with negative sampling or hierarchical softmax."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from hotrow._numba.random import draw
from hotrow._numba.views import (
    Array,
    dot,
    jit,
    matrix,
    parallel,
    pieces,
    row,
    scalar,
    useful_threads,
    vector,
)

tokens_per_block = 1024  # as kTokensPerBlock in csrc/view.h

# --- skipgram_step ----------------------------------------------------------------------------------------------------


@jit
def _window(in_table, out_table, inputs, m, outputs, positive, n, lr, coefficients, change):
    """A gradient step on all pairs of m input rows and n output rows, those being positive where it says."""
    one = coefficients.dtype.type(1)
    loss = 0.0
    for a in range(m):
        h = row(in_table, inputs[a])
        for b in range(n):
            x = dot(h, row(out_table, outputs[b]))
            if positive[b]:
                x = -x
            e = math.exp(-abs(x))
            sigmoid = one / (one + e) if x > 0 else e / (one + e)
            loss += max(x, 0) + math.log1p(e)
            coefficients[a, b] = lr * sigmoid if positive[b] else -lr * sigmoid
    for a in range(m):
        step = change[a]
        step[:] = 0
        for b in range(n):
            o, c = row(out_table, outputs[b]), coefficients[a, b]
            for d in range(step.size):
                step[d] += c * o[d]
    for b in range(n):
        o = row(out_table, outputs[b])
        for a in range(m):
            h, c = row(in_table, inputs[a]), coefficients[a, b]
            for d in range(o.size):
                o[d] += c * h[d]
    for a in range(m):
        h, step = row(in_table, inputs[a]), change[a]
        for d in range(h.size):
            h[d] += step[d]
    return loss


@jit
def _skipgram_step(centers, contexts, negatives, lr, begin, end, in_table, out_table):
    """Pair after pair: one input row, one positive and the negatives that differ from it."""
    inputs, outputs = np.empty(1, centers.dtype), np.empty(1 + negatives[3], centers.dtype)
    positive = np.arange(outputs.size) == 0
    coefficients = np.empty((1, outputs.size), in_table[0].dtype)
    change = np.empty((1, in_table[3]), in_table[0].dtype)
    loss = 0.0
    for i in range(begin, end):
        inputs[0], outputs[0], n = centers[i], contexts[i], 1
        for k in row(negatives, i):
            if k != contexts[i]:
                outputs[n] = k
                n += 1
        loss += _window(in_table, out_table, inputs, 1, outputs, positive, n, lr, coefficients, change)
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

_KEEP, _WINDOW, _NEGATIVE = np.uint64(1), np.uint64(2), np.uint64(3)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


@jit
def _kept(tokens, keep, seed, p):
    return (draw(seed, _KEEP, p) & _LOW) <= keep[tokens[p]]


@jit
def _bag(in_table, out_table, contexts, m, outputs, positive, n, lr, cbow_mean, pooled, coefficients, change):
    """A step on m contexts, pooled to one row, and n output rows, those being positive where it says."""
    h = pooled[0]
    share = h.dtype.type(1) / h.dtype.type(m)
    h[:] = 0
    for a in range(m):
        x = row(in_table, contexts[a])
        for d in range(h.size):
            h[d] += x[d]
    if cbow_mean:
        for d in range(h.size):
            h[d] *= share
    loss = _window(pooled, out_table, (0,), 1, outputs, positive, n, lr, coefficients, change)
    step = change[0]
    if not cbow_mean:
        for d in range(step.size):
            step[d] *= share
    for a in range(m):
        x = row(in_table, contexts[a])
        for d in range(x.size):
            x[d] += step[d]
    return loss


@jit
def _epoch(job, begin, end, cbow, cbow_mean, shared, in_table, out_table):
    """Centre after centre of tokens begin .. end - 1: its contexts, all together or each in turn, on itself and the
    negatives that differ from it, or on its path where there are paths; it has `most` negatives, or nodes at most.
    """
    tokens, offsets, keep, accept, other, path_offsets, points, codes = job[:8]
    window, most, shrink, lr_begin, lr_end, seed = job[8:]
    hs = path_offsets.size > 0
    slope = (lr_end - lr_begin) / offsets[-1]
    word, place = np.empty(end - begin + 2 * window, tokens.dtype), np.empty(end - begin + 2 * window, np.int64)
    inputs, outputs = np.empty(2 * window, tokens.dtype), np.empty(1 + most, tokens.dtype)
    positive = np.arange(outputs.size) == 0
    coefficients = np.empty((inputs.size, outputs.size), in_table[0].dtype)
    change = np.empty((inputs.size, in_table[3]), in_table[0].dtype)
    pooled = np.empty(in_table[3], in_table[0].dtype), 0, in_table[3], in_table[3]
    loss, terms = 0.0, 0
    s = np.searchsorted(offsets, begin, side="right") - 1
    while s < offsets.size - 1 and offsets[s] < end:
        # The kept words of this sentence in the range, and up to `window` on either side of it.
        sentence_end = offsets[s + 1]
        p, left, count = max(begin, offsets[s]), 0, 0
        while p > offsets[s] and left < window:
            p -= 1
            left += _kept(tokens, keep, seed, p)
        centers_end = count
        while p < sentence_end and (p < end or count < centers_end + window):
            if _kept(tokens, keep, seed, p):
                word[count], place[count] = tokens[p], p
                count += 1
            p += 1
            if p <= end:
                centers_end = count
        for t in range(left, centers_end):
            reach = window
            if shrink:
                reach = 1 + np.int64(((draw(seed, _WINDOW, place[t]) >> _32) * np.uint64(window)) >> _32)
            m = 0
            for c in range(max(0, t - reach), min(count, t + reach + 1)):
                if c != t:
                    inputs[m] = word[c]
                    m += 1
            if m == 0:
                continue
            outputs[0], n = word[t], 1
            if hs:
                first = path_offsets[word[t]]
                n = path_offsets[word[t] + 1] - first
                for b in range(n):
                    outputs[b], positive[b] = points[first + b], codes[first + b] == 0
            lr = in_table[0].dtype.type(lr_begin + slope * place[t])
            steps, times = (1, 1) if shared else (m, 2 * window)
            for a in range(steps):
                if not hs:
                    n = 1
                for k in range(0 if hs else most):
                    x = draw(seed, _NEGATIVE, (place[t] * times + a) * most + k)
                    bucket = ((x >> _32) * np.uint64(keep.size)) >> _32
                    drawn = np.int64(bucket) if (x & _LOW) <= accept[bucket] else np.int64(other[bucket])
                    if drawn != word[t]:
                        outputs[n] = drawn
                        n += 1
                if cbow:
                    loss += _bag(
                        in_table, out_table, inputs, m, outputs, positive, n, lr, cbow_mean, pooled, coefficients,
                        change,
                    )  # fmt: skip
                    terms += 1
                else:
                    loss += _window(
                        in_table, out_table, inputs[a:], m // steps, outputs, positive, n, lr, coefficients, change
                    )
                    terms += m // steps
        s += 1
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
