"""Every operator again, in Numba: same names, arguments and order as hotrow._native.

Kernels do a range on one thread with the GIL released, plans split the work over Python threads (Numba's own pools
allow neither concurrent callers nor forks). Matrices come as views: (elements, first row, row stride, columns).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Array = NDArray[Any]

tokens_per_block = 1024  # as kTokensPerBlock in csrc/view.h
_BYTES_PER_THREAD = 1 << 20  # a Python thread costs some 50 microseconds
_SUM, _MEAN, _SQRTN, _MAX = range(4)

_jit = numba.njit(nogil=True, cache=True)
_inline = numba.njit(nogil=True, cache=True, inline="always")
# Sums over a row may be reordered into lanes, nothing else.
_jit_dot = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})


# --- views, threads ---------------------------------------------------------------------------------------------------


def _matrix(a: Array, writable: bool = False) -> tuple[Array, int, int, int]:
    rows, cols = a.shape
    stride = a.strides[0] // a.itemsize if rows > 1 else cols
    first = -(rows - 1) * stride if stride < 0 else 0
    size = (abs(stride) * (rows - 1) + cols) if rows and cols else 0
    flat = as_strided(a[::-1] if stride < 0 else a, (size,), (a.itemsize,), writeable=writable)
    return flat, first, stride, cols


def _vector(a: Array) -> Array:
    a = a.view(np.ndarray)
    if a.flags.writeable:
        a = a[:]
        a.flags.writeable = False
    return a


def _scalar(x: float, like: Array) -> Any:
    with np.errstate(over="ignore"):  # infinite in float32, as natively
        return like.dtype.type(x)


def _pieces(n: int, parts: int) -> list[tuple[int, int]]:
    return list(pairwise([n * t // parts for t in range(parts + 1)]))


def _useful_threads(size: int, threads: int) -> int:
    return max(1, min(threads, size // _BYTES_PER_THREAD))


def _parallel(kernel: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
    """kernel(*call) for each call, one thread each."""
    if len(calls) == 1:
        return [kernel(*calls[0])]
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda call: kernel(*call), calls))


@_inline
def _row(view, r):
    flat, first, stride, cols = view
    start = first + r * stride
    return flat[start : start + cols]


# --- gather -----------------------------------------------------------------------------------------------------------


@_jit
def _gather(table, indices, begin, end, out):
    """out[i, :] = table[indices[i], :]"""
    for i in range(begin, end):
        source, target = _row(table, indices[i]), _row(out, i)
        for d in range(source.size):
            target[d] = source[d]


def gather(table: Array, indices: Array, out: Array, threads: int) -> None:
    t, i, o = _matrix(table), _vector(indices), _matrix(out, True)
    parts = _useful_threads(2 * out.nbytes, threads)
    _parallel(_gather, [(t, i, *piece, o) for piece in _pieces(i.size, parts)])


# --- embedding_bag ----------------------------------------------------------------------------------------------------


@_jit
def _embedding_bag(table, indices, offsets, weights, weighted, mode, padding_idx, begin, end, out):
    """out[b, :] = pool of weights[j] * table[indices[j], :] over j in offsets[b] .. offsets[b + 1] - 1"""
    for b in range(begin, end):
        target = _row(out, b)
        target[:] = 0
        divisor, count = 0.0, 0
        for j in range(offsets[b], offsets[b + 1]):
            if indices[j] == padding_idx:
                continue
            source = _row(table, indices[j])
            w = weights[j] if weighted else weights.dtype.type(1)
            divisor += np.float64(w) ** 2 if mode == _SQRTN else np.float64(w)
            if mode == _MAX:
                for d in range(target.size):
                    x = source[d] * w
                    if count == 0 or x > target[d] or x != x:
                        target[d] = x
            else:
                for d in range(target.size):
                    target[d] += source[d] * w
            count += 1
        if mode in (_MEAN, _SQRTN):
            if mode == _SQRTN:
                divisor = math.sqrt(divisor)
            factor = weights.dtype.type(1 / divisor) if divisor != 0 else weights.dtype.type(0)
            for d in range(target.size):
                target[d] = target[d] * factor if factor != 0 else factor


def embedding_bag(
    table: Array,
    indices: Array,
    offsets: Array,
    weights: Array | None,
    mode: int,
    padding_idx: int,
    out: Array,
    threads: int,
) -> bool:
    if first_out_of_range(indices, len(table), threads) >= 0:
        return False
    t, i, s, o = _matrix(table), _vector(indices), _vector(offsets), _matrix(out, True)
    w = _vector(np.empty(0, table.dtype) if weights is None else weights)
    parts = _useful_threads(i.size * table.shape[1] * table.itemsize, threads)
    cuts = np.searchsorted(offsets[:-1], [i.size * k // parts for k in range(parts)]).tolist()
    cuts = [0, *cuts[1:], len(out)]
    _parallel(
        _embedding_bag, [(t, i, s, w, weights is not None, mode, padding_idx, *piece, o) for piece in pairwise(cuts)]
    )
    return True


# --- scatter_add ------------------------------------------------------------------------------------------------------


@_jit
def _scatter_add(indices, grads, scale, owner, owners, table):
    """table[indices[i], :] += scale * grads[i, :] where the row is the owner's"""
    for i in range(indices.size):
        if indices[i] % owners == owner:
            source, target = _row(grads, i), _row(table, indices[i])
            for d in range(target.size):
                target[d] += source[d] * scale


def scatter_add(indices: Array, grads: Array, scale: float, table: Array, threads: int) -> None:
    i, g, t = _vector(indices), _matrix(grads), _matrix(table, True)
    parts = _useful_threads(3 * grads.nbytes, threads)
    _parallel(_scatter_add, [(i, g, _scalar(scale, table), part, parts, t) for part in range(parts)])


# --- coalesce ---------------------------------------------------------------------------------------------------------


def _sorted_runs(indices: Array) -> tuple[Array, Array, Array]:
    """Positions by row, those of one row ascending; where each run starts, and N; the row of each run."""
    order = np.argsort(indices, kind="stable")
    rows = indices[order]
    starts = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]]))
    return _vector(order), _vector(np.append(starts, rows.size)), rows[starts]


def _run_pieces(starts: Array, parts: int) -> list[tuple[int, int]]:
    """Whole runs to each part, so that all have about the same number of lookups."""
    lookups = int(starts[-1])
    cuts = np.searchsorted(starts[:-1], [lookups * k // parts for k in range(parts)]).tolist()
    return list(pairwise([0, *cuts[1:], starts.size - 1]))


@_jit
def _coalesce(order, starts, grads, begin, end, values):
    """values[u, :] = sum of grads[order[i], :] over i in starts[u] .. starts[u + 1] - 1"""
    for u in range(begin, end):
        target = _row(values, u)
        target[:] = _row(grads, order[starts[u]])
        for i in range(starts[u] + 1, starts[u + 1]):
            source = _row(grads, order[i])
            for d in range(target.size):
                target[d] += source[d]


def coalesce(indices: Array, grads: Array, threads: int) -> tuple[Array, Array]:
    order, starts, rows = _sorted_runs(indices)
    values = np.empty((rows.size, grads.shape[1]), grads.dtype)
    g, v = _matrix(grads), _matrix(values, True)
    parts = _useful_threads(2 * grads.nbytes, threads)
    _parallel(_coalesce, [(order, starts, g, *piece, v) for piece in _run_pieces(starts, parts)])
    return rows, values


# --- sgd_step ---------------------------------------------------------------------------------------------------------


@_jit
def _sgd_step(rows, order, starts, grads, lr, begin, end, table):
    """table[rows[u], :] -= lr * sum of grads[order[i], :] over i in starts[u] .. starts[u + 1] - 1"""
    total = np.empty(table[3], table[0].dtype)
    for u in range(begin, end):
        target = _row(table, rows[u])
        total[:] = _row(grads, order[starts[u]])
        for i in range(starts[u] + 1, starts[u + 1]):
            source = _row(grads, order[i])
            for d in range(target.size):
                total[d] += source[d]
        for d in range(target.size):
            target[d] -= total[d] * lr


def sgd_step(indices: Array, grads: Array, lr: float, table: Array, threads: int) -> None:
    order, starts, rows = _sorted_runs(indices)
    r, g, t = _vector(rows), _matrix(grads), _matrix(table, True)
    parts = _useful_threads(2 * grads.nbytes, threads)
    _parallel(_sgd_step, [(r, order, starts, g, _scalar(lr, table), *piece, t) for piece in _run_pieces(starts, parts)])


# --- skipgram_step ----------------------------------------------------------------------------------------------------


@_jit_dot
def _dot(x, y):
    total = x.dtype.type(0)
    for d in range(x.size):
        total += x[d] * y[d]
    return total


@_jit
def _window(in_table, out_table, inputs, m, outputs, n, lr, coefficients, change):
    """A gradient step on all pairs of m input rows and n output rows, the first output being the positive one."""
    one = coefficients.dtype.type(1)
    loss = 0.0
    for a in range(m):
        h = _row(in_table, inputs[a])
        for b in range(n):
            x = _dot(h, _row(out_table, outputs[b]))
            if b == 0:
                x = -x
            e = math.exp(-abs(x))
            sigmoid = one / (one + e) if x > 0 else e / (one + e)
            loss += max(x, 0) + math.log1p(e)
            coefficients[a, b] = lr * sigmoid if b == 0 else -lr * sigmoid
    for a in range(m):
        step = change[a]
        step[:] = 0
        for b in range(n):
            o, c = _row(out_table, outputs[b]), coefficients[a, b]
            for d in range(step.size):
                step[d] += c * o[d]
    for b in range(n):
        o = _row(out_table, outputs[b])
        for a in range(m):
            h, c = _row(in_table, inputs[a]), coefficients[a, b]
            for d in range(o.size):
                o[d] += c * h[d]
    for a in range(m):
        h, step = _row(in_table, inputs[a]), change[a]
        for d in range(h.size):
            h[d] += step[d]
    return loss


@_jit
def _skipgram_step(centers, contexts, negatives, lr, begin, end, in_table, out_table):
    """Pair after pair: one input row, one positive and the negatives that differ from it."""
    inputs, outputs = np.empty(1, centers.dtype), np.empty(1 + negatives[3], centers.dtype)
    coefficients = np.empty((1, outputs.size), in_table[0].dtype)
    change = np.empty((1, in_table[3]), in_table[0].dtype)
    loss = 0.0
    for i in range(begin, end):
        inputs[0], outputs[0], n = centers[i], contexts[i], 1
        for k in _row(negatives, i):
            if k != contexts[i]:
                outputs[n] = k
                n += 1
        loss += _window(in_table, out_table, inputs, 1, outputs, n, lr, coefficients, change)
    return loss


def skipgram_step(
    centers: Array, contexts: Array, negatives: Array, lr: float, in_table: Array, out_table: Array, threads: int
) -> tuple[float, int]:
    c, x, k = _vector(centers), _vector(contexts), _matrix(negatives)
    i, o = _matrix(in_table, True), _matrix(out_table, True)
    n, width = negatives.shape[0], in_table.shape[1] * in_table.itemsize
    parts = _useful_threads(2 * n * (2 + negatives.shape[1]) * width, threads)
    losses = _parallel(_skipgram_step, [(c, x, k, _scalar(lr, in_table), *piece, i, o) for piece in _pieces(n, parts)])
    return float(sum(losses)), n


# --- skipgram_epoch ---------------------------------------------------------------------------------------------------

_KEEP, _WINDOW, _NEGATIVE = np.uint64(1), np.uint64(2), np.uint64(3)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


@_inline
def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@_jit
def _draw(seed, stream, index):
    return _mix(_mix(seed + stream * _GOLDEN) + (np.uint64(index) + np.uint64(1)) * _GOLDEN)


@_jit
def _kept(tokens, keep, seed, p):
    return (_draw(seed, _KEEP, p) & _LOW) <= keep[tokens[p]]


@_jit
def _skipgram_epoch(job, begin, end, in_table, out_table):
    """Centre after centre of tokens begin .. end - 1: its contexts on itself and the negatives that differ from it."""
    tokens, offsets, keep, accept, other, window, negative, shrink, lr_begin, lr_end, seed = job
    slope = (lr_end - lr_begin) / offsets[-1]
    word, place = np.empty(end - begin + 2 * window, tokens.dtype), np.empty(end - begin + 2 * window, np.int64)
    inputs, outputs = np.empty(2 * window, tokens.dtype), np.empty(1 + negative, tokens.dtype)
    coefficients = np.empty((inputs.size, outputs.size), in_table[0].dtype)
    change = np.empty((inputs.size, in_table[3]), in_table[0].dtype)
    loss, pairs = 0.0, 0
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
                reach = 1 + np.int64(((_draw(seed, _WINDOW, place[t]) >> _32) * np.uint64(window)) >> _32)
            m = 0
            for c in range(max(0, t - reach), min(count, t + reach + 1)):
                if c != t:
                    inputs[m] = word[c]
                    m += 1
            if m == 0:
                continue
            outputs[0], n = word[t], 1
            for k in range(negative):
                x = _draw(seed, _NEGATIVE, place[t] * negative + k)
                bucket = ((x >> _32) * np.uint64(keep.size)) >> _32
                drawn = np.int64(bucket) if (x & _LOW) <= accept[bucket] else np.int64(other[bucket])
                if drawn != word[t]:
                    outputs[n] = drawn
                    n += 1
            lr = in_table[0].dtype.type(lr_begin + slope * place[t])
            loss += _window(in_table, out_table, inputs, m, outputs, n, lr, coefficients, change)
            pairs += m
        s += 1
    return loss, pairs


def skipgram_epoch(
    tokens: Array,
    offsets: Array,
    keep: Array,
    alias_accept: Array,
    alias_other: Array,
    window: int,
    negative: int,
    shrink_windows: bool,
    lr_begin: float,
    lr_end: float,
    seed: int,
    begin: int,
    end: int,
    in_table: Array,
    out_table: Array,
    threads: int,
) -> tuple[float, int]:
    job = (
        *map(_vector, (tokens, offsets, keep, alias_accept, alias_other)),
        window, negative, shrink_windows, lr_begin, lr_end, np.uint64(seed),
    )  # fmt: skip
    i, o = _matrix(in_table, True), _matrix(out_table, True)
    blocks = -(-(end - begin) // tokens_per_block)
    cuts = [min(begin + tokens_per_block * b, end) for b, _ in _pieces(blocks, min(threads, blocks))]
    parts = _parallel(_skipgram_epoch, [(job, *piece, i, o) for piece in pairwise([*cuts, end])])
    return float(sum(loss for loss, _ in parts)), sum(pairs for _, pairs in parts)


# --- helpers ----------------------------------------------------------------------------------------------------------

may_share_memory = np.may_share_memory


def first_descent(offsets: Array) -> int:
    """The first b with offsets[b] > offsets[b + 1], or -1."""
    falls = np.flatnonzero(offsets[1:] < offsets[:-1])
    return int(falls[0]) if falls.size else -1


def first_out_of_range(indices: Array, rows: int, threads: int) -> int:
    """The position of the first index outside [0, rows) in C order, or -1."""
    if indices.size == 0 or (indices.min() >= 0 and indices.max() < rows):
        return -1
    return int(np.flatnonzero((indices < 0) | (indices >= rows))[0])
