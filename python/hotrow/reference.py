"""The definition of every operator: dense one-hot products in float64. Slow, plain, and what all backends are tested
against. Same names and arguments as hotrow, less `out`, `progress`,
`include_last_offset` and `draw`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotrow.huffman import HuffmanTree
from hotrow.ops import SparseGrad
from hotrow.sampling import Sampling
from hotrow.steps import DEFAULTS, StepOptions

F64 = NDArray[np.float64]
U64 = np.uint64
Outputs = tuple[Any, Any]  # of a window: rows of the output table, which of them are positive
Drawn = TypeVar("Drawn")  # what there is for a centre: outputs, or those of each context


def one_hot(indices: ArrayLike, rows: int) -> F64:
    """One row per index, 1 in the column of that index and 0 elsewhere."""
    hot: F64 = (np.asarray(indices)[..., None] == np.arange(rows)).astype(np.float64)
    return hot


def _in_full(table: F64, scales: ArrayLike | None) -> F64:
    """What an int8 table stands for; any other is itself."""
    return table if scales is None else table * np.asarray(scales, np.float64)[:, None]


def gather(table: F64, indices: ArrayLike, *, scales: ArrayLike | None = None) -> F64:
    """one_hot(indices) @ table, or of an int8 table one_hot(indices) @ diag(scales) @ table"""
    rows: F64 = one_hot(indices, len(table)) @ _in_full(table, scales)
    return rows


def _bags(
    indices: ArrayLike,
    offsets: ArrayLike | None,
    weights: ArrayLike | None,
    mode: str,
    padding_idx: int | None,
) -> tuple[F64, F64, F64]:
    """member[b, j]: whether lookup j counts in bag b; its weights [N]; the factor of each bag [B] for mode."""
    i = np.asarray(indices).reshape(-1)
    starts = np.arange(i.size + 1) if offsets is None else np.asarray(offsets)
    w = np.ones(i.shape) if weights is None else np.asarray(weights, np.float64)
    j = np.arange(i.size)
    member = (j >= starts[:-1, None]) & (j < starts[1:, None]) & (i != (-1 if padding_idx is None else padding_idx))
    if mode in ("sum", "max"):
        return member.astype(np.float64), w, np.ones(len(member))
    divisor = (member * w).sum(axis=1) if mode == "mean" else np.sqrt((member * w**2).sum(axis=1))
    return member.astype(np.float64), w, np.divide(1.0, divisor, out=np.zeros_like(divisor), where=divisor != 0)


def _argmax(member: F64, offsets: ArrayLike, argmax: ArrayLike) -> F64:
    """taken[b, j, d]: whether column d of bag b came from lookup j."""
    places = np.arange(member.shape[1]) - np.asarray(offsets)[:-1, None]
    taken: F64 = member[:, :, None] * (places[:, :, None] == np.asarray(argmax)[:, None, :])
    return taken


def embedding_bag(
    table: F64,
    indices: ArrayLike,
    offsets: ArrayLike,
    *,
    scales: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: NDArray[np.int32] | None = None,
) -> F64:
    """multi_hot @ table, where multi_hot[b, r] sums the weights of bag b's lookups of row r; times a factor for mode.

    max: the largest of weights[j] * one_hot(indices[j]) @ table over the bag, and which lookup of the bag it was.
    An int8 table is diag(scales) @ table.
    """
    table = _in_full(table, scales)
    member, w, factor = _bags(indices, offsets, weights, mode, padding_idx)
    if mode == "max":
        pooled, rows = np.zeros((len(member), table.shape[1])), w[:, None] * table[np.asarray(indices)]
        if argmax is not None:
            argmax[:] = -1
        for b, mine in enumerate(member):
            lookups = np.flatnonzero(mine)
            if lookups.size:
                best = rows[lookups].argmax(axis=0)  # the first of equals, as NaN
                nan = np.isnan(rows[lookups])
                best = np.where(nan.any(axis=0), lookups.size - 1 - nan[::-1].argmax(axis=0), best)  # the last NaN
                pooled[b] = np.take_along_axis(rows[lookups], best[None], 0)[0]
                if argmax is not None:
                    argmax[b] = lookups[best] - np.asarray(offsets)[b]
        return pooled
    bag: F64 = (member * w) @ one_hot(indices, len(table)) @ table
    return np.where(factor[:, None] != 0, bag * factor[:, None], 0.0)


def weights_grad(
    table: F64,
    indices: ArrayLike,
    offsets: ArrayLike,
    grads: F64,
    *,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: ArrayLike | None = None,
) -> F64:
    """The gradient of sum(grads * embedding_bag(...)) with respect to weights."""
    member, w, factor = _bags(indices, offsets, weights, mode, padding_idx)
    rows = one_hot(indices, len(table)) @ table
    if mode == "max":
        assert argmax is not None
        found: F64 = np.einsum("bjd,bd,jd->j", _argmax(member, offsets, argmax), grads, rows)
        return found
    dots = member * (grads @ rows.T)  # [B, N]
    pooled = (dots * w).sum(axis=1, keepdims=True) * factor[:, None]  # grads . embedding_bag(...)
    if mode == "mean":
        dots -= member * pooled
    if mode == "sqrtn":
        dots -= member * pooled * w * factor[:, None]
    gradient: F64 = (dots * factor[:, None]).sum(axis=0)
    return gradient


def _gradient(
    rows: int,
    indices: ArrayLike,
    grads: F64,
    offsets: ArrayLike | None,
    weights: ArrayLike | None,
    mode: str,
    padding_idx: int | None,
    argmax: ArrayLike | None,
) -> tuple[F64, NDArray[np.int64]]:
    """The gradient of a table of so many rows, multi_hot.T @ grads, and how many lookups each row has."""
    member, w, factor = _bags(indices, offsets, weights, mode, padding_idx)
    hot = one_hot(np.asarray(indices).reshape(-1), rows)
    counts = (member @ hot).sum(axis=0).astype(np.int64)
    if mode == "max":
        assert offsets is not None
        assert argmax is not None
        taken = _argmax(member, offsets, argmax)
        return hot.T @ (w[:, None] * np.einsum("bjd,bd->jd", taken, grads)), counts
    multi_hot = (member * w * factor[:, None]) @ hot
    return multi_hot.T @ grads, counts


def scatter_add(
    table: F64,
    indices: ArrayLike,
    grads: F64,
    *,
    scale: float = 1.0,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: ArrayLike | None = None,
) -> None:
    """table += scale * multi_hot.T @ grads; multi_hot is one_hot(indices) without offsets"""
    gradient, counts = _gradient(len(table), indices, grads, offsets, weights, mode, padding_idx, argmax)
    table[counts > 0] += scale * gradient[counts > 0]


def coalesce(
    indices: ArrayLike,
    grads: F64,
    *,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: ArrayLike | None = None,
) -> SparseGrad:
    """The rows of multi_hot.T @ grads that have a lookup."""
    rows, which = np.unique(np.asarray(indices), return_inverse=True)
    padding = None if padding_idx is None or padding_idx not in rows else int(np.searchsorted(rows, padding_idx))
    gradient, counts = _gradient(rows.size, which, grads, offsets, weights, mode, padding, argmax)
    return SparseGrad(rows[counts > 0], gradient[counts > 0])


def _begin_step(table: F64, lookups: tuple[Any, ...], options: StepOptions, lr: float) -> tuple[NDArray[np.int64], F64]:
    """The rows that were looked up and their gradients, clipped and with L2 decay; decoupled decay is applied."""
    gradient, counts = _gradient(len(table), *lookups)
    rows = np.flatnonzero(counts)
    g = gradient[rows]
    if options.scale_grad_by_freq:
        g = g / counts[rows, None]
    if options.clip_norm is not None and (norm := float(np.linalg.norm(g))) > options.clip_norm:
        g = g * (options.clip_norm / norm)
    if options.clip_value is not None:
        g = np.clip(g, -options.clip_value, options.clip_value)
    if options.decoupled_weight_decay:
        table[rows] *= 1 - lr * options.weight_decay
    elif options.weight_decay:
        g = g + options.weight_decay * table[rows]
    return rows, g


def _end_step(table: F64, rows: NDArray[np.int64], options: StepOptions) -> None:
    if options.max_norm is not None:
        norms = np.linalg.norm(table[rows], axis=1, keepdims=True)
        table[rows] *= np.where(norms > options.max_norm, options.max_norm / (norms + 1e-7), 1.0)


def sgd_step(
    table: F64,
    indices: ArrayLike,
    grads: F64,
    *,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    momentum_buffer: F64 | None = None,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: ArrayLike | None = None,
    options: StepOptions = DEFAULTS,
) -> None:
    """table -= lr * g; with momentum, buffer = momentum * buffer + g and g is the buffer (or g + momentum * buffer)"""
    rows, g = _begin_step(table, (indices, grads, offsets, weights, mode, padding_idx, argmax), options, lr)
    if momentum_buffer is not None:
        momentum_buffer[rows] = momentum * momentum_buffer[rows] + g
        g = g + momentum * momentum_buffer[rows] if nesterov else momentum_buffer[rows]
    table[rows] -= lr * g
    _end_step(table, rows, options)


def adagrad_step(
    table: F64,
    state_sum: F64,
    indices: ArrayLike,
    grads: F64,
    *,
    lr: float,
    eps: float = 1e-10,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: ArrayLike | None = None,
    options: StepOptions = DEFAULTS,
) -> None:
    """state_sum += g^2; table -= lr * g / (sqrt(state_sum) + eps)"""
    rows, g = _begin_step(table, (indices, grads, offsets, weights, mode, padding_idx, argmax), options, lr)
    state_sum[rows] += g**2
    table[rows] -= lr * g / (np.sqrt(state_sum[rows]) + eps)
    _end_step(table, rows, options)


def rowwise_adagrad_step(
    table: F64,
    state_sum: F64,
    indices: ArrayLike,
    grads: F64,
    *,
    lr: float,
    eps: float = 1e-10,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: ArrayLike | None = None,
    options: StepOptions = DEFAULTS,
) -> None:
    """state_sum[r] += mean over d of g[r, d]^2; table[r] -= lr * g[r] / (sqrt(state_sum[r]) + eps)"""
    rows, g = _begin_step(table, (indices, grads, offsets, weights, mode, padding_idx, argmax), options, lr)
    if table.shape[1]:
        state_sum[rows] += (g**2).mean(axis=1)
    table[rows] -= lr * g / (np.sqrt(state_sum[rows, None]) + eps)
    _end_step(table, rows, options)


def rmsprop_step(
    table: F64,
    square_avg: F64,
    indices: ArrayLike,
    grads: F64,
    *,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: ArrayLike | None = None,
    options: StepOptions = DEFAULTS,
) -> None:
    """square_avg = alpha * square_avg + (1 - alpha) * g^2; table -= lr * g / (sqrt(square_avg) + eps)"""
    rows, g = _begin_step(table, (indices, grads, offsets, weights, mode, padding_idx, argmax), options, lr)
    square_avg[rows] = alpha * square_avg[rows] + (1 - alpha) * g**2
    table[rows] -= lr * g / (np.sqrt(square_avg[rows]) + eps)
    _end_step(table, rows, options)


def adam_step(
    table: F64,
    exp_avg: F64,
    exp_avg_sq: F64,
    indices: ArrayLike,
    grads: F64,
    *,
    lr: float,
    step: int = 1,
    row_steps: NDArray[np.int32] | None = None,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    epsilon_hat: bool = True,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: ArrayLike | None = None,
    options: StepOptions = DEFAULTS,
) -> None:
    """m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g^2, both of the rows looked up alone;
    table -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps), where t is `step`, or counts the row's steps.

    epsilon_hat: table -= lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps) instead.
    """
    rows, g = _begin_step(table, (indices, grads, offsets, weights, mode, padding_idx, argmax), options, lr)
    exp_avg[rows] = beta1 * exp_avg[rows] + (1 - beta1) * g
    exp_avg_sq[rows] = beta2 * exp_avg_sq[rows] + (1 - beta2) * g**2
    t: Any = np.float64(step)
    if row_steps is not None:
        row_steps[rows] += row_steps[rows] < 2**31 - 1
        t = row_steps[rows, None].astype(np.float64)
    root = np.sqrt(1 - beta2**t)
    table[rows] -= (
        lr * root / (1 - beta1**t) * exp_avg[rows] / (np.sqrt(exp_avg_sq[rows]) + (eps if epsilon_hat else eps * root))
    )
    _end_step(table, rows, options)


def skipgram_loss(h: F64, o: F64, positive: ArrayLike) -> float:
    """sum_ab softplus(-h[a] . o[b]) where positive[b], else softplus(h[a] . o[b]); softplus(x) = log(1 + exp(x))."""
    sign = np.where(positive, -1.0, 1.0)
    return float(np.logaddexp(0.0, sign * (h @ o.T)).sum())


def skipgram_gradient(h: F64, o: F64, positive: ArrayLike) -> tuple[F64, F64]:
    """The gradients of skipgram_loss with respect to h and o."""
    sign = np.where(positive, -1.0, 1.0)
    g = sign / (1.0 + np.exp(-sign * (h @ o.T)))
    return g @ o, g.T @ h


def _window(
    in_table: F64, out_table: F64, pool: F64, spread: F64, outputs: ArrayLike, positive: ArrayLike, lr: float
) -> float:
    """A gradient step on all pairs of rows of h = pool @ in_table and output rows, those being positive where it says;
    in_table gets spread^T times the step of h. Both are [m, R].
    """
    b = one_hot(outputs, len(out_table))
    h, o = pool @ in_table, b @ out_table
    grad_h, grad_o = skipgram_gradient(h, o, positive)
    in_table -= lr * spread.T @ grad_h
    out_table -= lr * b.T @ grad_o
    return skipgram_loss(h, o, positive)


def _labelled(word: int, negatives: ArrayLike) -> tuple[list[int], NDArray[np.bool_]]:
    """A word, the positive one, and the negatives that differ from it."""
    outputs = [word, *(k for k in np.asarray(negatives).tolist() if k != word)]
    return outputs, np.arange(len(outputs)) == 0


def skipgram_step(
    in_table: F64, out_table: F64, centers: ArrayLike, contexts: ArrayLike, negatives: ArrayLike, *, lr: float
) -> float:
    """Pair after pair: the gradient step of one input row, one positive and the negatives that differ from it."""
    losses = [
        _window(in_table, out_table, center, center, *_labelled(context, drawn), lr)
        for center, context, drawn in zip(
            one_hot(centers, len(in_table))[:, None],
            np.asarray(contexts).tolist(),
            np.asarray(negatives),
            strict=True,
        )
    ]
    return float(np.mean(losses)) if losses else 0.0


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> U64(27))) * U64(0x94D049BB133111EB)
    return z ^ (z >> U64(31))


TOKENS_PER_BLOCK = 1024  # they share a pool of negatives


def draws(seed: int, stream: int, indices: ArrayLike) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """SplitMix64 draws of a stream (1 keep, 2 window, 3 negative, 4 pool): their upper and their lower 32 bits."""
    key = _mix(np.array([(seed + stream * 0x9E3779B97F4A7C15) % 2**64], U64))
    x = _mix(key + (np.atleast_1d(np.asarray(indices, U64)) + U64(1)) * U64(0x9E3779B97F4A7C15))
    return x >> U64(32), x & U64(0xFFFFFFFF)


def _windows(
    tokens: ArrayLike,
    offsets: ArrayLike,
    sampling: Sampling,
    outputs: Callable[[int], Drawn],
    window: int,
    lr: float,
    lr_end: float | None,
    shrink_windows: bool,
    seed: int,
    begin: int,
) -> Iterator[tuple[F64, Drawn, float]]:
    """Centre after centre, at p: its contexts as one_hot, outputs(p), the learning rate."""
    words, starts = np.asarray(tokens), np.asarray(offsets).tolist()
    places = np.arange(words.size)
    kept = draws(seed, 1, places)[1] <= sampling.keep[words]
    reach = 1 + (draws(seed, 2, places)[0] * U64(window) >> U64(32)).astype(int)
    if not shrink_windows:
        reach[:] = window
    slope = ((lr if lr_end is None else lr_end) - lr) / max(words.size, 1)
    for start, end in pairwise(starts):
        sentence: list[Any] = [p for p in range(start, end) if kept[p]]
        for t, p in enumerate(sentence):
            if p < begin:
                continue
            near = sentence[max(0, t - reach[p]) : t] + sentence[t + 1 : t + 1 + reach[p]]
            if near:
                yield one_hot(words[near], sampling.keep.size), outputs(p), lr + slope * p


def _words_drawn(sampling: Sampling, seed: int, stream: int, *shape: int) -> NDArray[np.int_]:
    high, low = draws(seed, stream, np.arange(np.prod(shape)))
    bucket = (high * U64(sampling.keep.size) >> U64(32)).astype(int)
    taken = low <= sampling.alias_accept[bucket]
    return np.where(taken, bucket, sampling.alias_other[bucket]).reshape(shape)


def _each_negatives(
    tokens: ArrayLike, sampling: Sampling, negative: int, seed: int, contexts: int
) -> Callable[[int], list[Outputs]]:
    """Of the centre at p, for each of so many contexts: itself and the negatives that differ from it."""
    words = np.asarray(tokens)
    drawn = _words_drawn(sampling, seed, 3, words.size, contexts, negative)
    return lambda p: [_labelled(words[p], each) for each in drawn[p]]


def _negatives(tokens: ArrayLike, sampling: Sampling, negative: int, seed: int, pool: int) -> Callable[[int], Outputs]:
    """Of the centre at p: itself and the negatives that differ from it: neighbours in the pool of its block."""
    words, size = np.asarray(tokens), max(negative, min(pool * negative, 4096))
    pools = _words_drawn(sampling, seed, 4, words.size // TOKENS_PER_BLOCK + 1, size)
    first = (draws(seed, 3, np.arange(words.size))[0] * U64(size) >> U64(32)).astype(int)

    def near(p: int) -> Outputs:
        return _labelled(words[p], pools[p // TOKENS_PER_BLOCK, (first[p] + np.arange(negative)) % size])

    return near


def _paths(tokens: ArrayLike, tree: HuffmanTree) -> Callable[[int], Outputs]:
    """Of the centre at p: the inner nodes on its path, those of code 0 being positive."""
    starts, words = tree.path_offsets, np.asarray(tokens)

    def path(p: int) -> Outputs:
        k = slice(starts[words[p]], starts[words[p] + 1])
        return tree.points[k], tree.codes[k] == 0

    return path


def _skipgram(in_table: F64, out_table: F64, windows: Iterator[tuple[F64, Outputs, float]]) -> float:
    """Centre after centre: the gradient step of its contexts on its outputs."""
    loss, pairs = 0.0, 0
    for a, outputs, rate in windows:
        loss += _window(in_table, out_table, a, a, *outputs, rate)
        pairs += len(a)
    return loss / pairs if pairs else 0.0


def skipgram_epoch(
    in_table: F64,
    out_table: F64,
    tokens: ArrayLike,
    offsets: ArrayLike,
    sampling: Sampling,
    *,
    window: int = 5,
    negative: int = 5,
    shared_negatives: bool = True,
    lr: float = 0.025,
    lr_end: float | None = None,
    shrink_windows: bool = True,
    seed: int = 1,
    begin: int = 0,
) -> float:
    """Centre after centre: the gradient step of its contexts on itself and the negatives that differ from it; unless
    they share negatives, that of one context after the other.
    """
    rest = window, lr, lr_end, shrink_windows, seed, begin
    if shared_negatives:
        outputs = _negatives(tokens, sampling, negative, seed, pool=48)
        return _skipgram(in_table, out_table, _windows(tokens, offsets, sampling, outputs, *rest))
    each = _each_negatives(tokens, sampling, negative, seed, 2 * window)
    windows = _windows(tokens, offsets, sampling, each, *rest)
    pairs = ((a[None], drawn, rate) for near, own, rate in windows for a, drawn in zip(near, own, strict=False))
    return _skipgram(in_table, out_table, pairs)


def skipgram_hs_epoch(
    in_table: F64,
    out_table: F64,
    tokens: ArrayLike,
    offsets: ArrayLike,
    sampling: Sampling,
    tree: HuffmanTree,
    *,
    window: int = 5,
    lr: float = 0.025,
    lr_end: float | None = None,
    shrink_windows: bool = True,
    seed: int = 1,
    begin: int = 0,
) -> float:
    """Centre after centre: the gradient step of its contexts on the nodes of its path."""
    outputs = _paths(tokens, tree)
    windows = _windows(tokens, offsets, sampling, outputs, window, lr, lr_end, shrink_windows, seed, begin)
    return _skipgram(in_table, out_table, windows)


def cbow_matrices(contexts: F64, cbow_mean: bool) -> tuple[F64, F64]:
    """The matrices of _window for one-hot contexts: the mean that is pooled and their sum, or the other way round.

    That is what word2vec.c and gensim do. The gradient would take the same matrix both times.
    """
    counts = contexts.sum(axis=0, keepdims=True)
    mean = counts / len(contexts)
    return (mean, counts) if cbow_mean else (counts, mean)


def _cbow(in_table: F64, out_table: F64, windows: Iterator[tuple[F64, Outputs, float]], cbow_mean: bool) -> float:
    """Centre after centre: the step of its pooled contexts on its outputs."""
    losses = [
        _window(in_table, out_table, *cbow_matrices(a, cbow_mean), *outputs, rate) for a, outputs, rate in windows
    ]
    return float(np.mean(losses)) if losses else 0.0


def cbow_epoch(
    in_table: F64,
    out_table: F64,
    tokens: ArrayLike,
    offsets: ArrayLike,
    sampling: Sampling,
    *,
    window: int = 5,
    negative: int = 5,
    cbow_mean: bool = True,
    lr: float = 0.025,
    lr_end: float | None = None,
    shrink_windows: bool = True,
    seed: int = 1,
    begin: int = 0,
) -> float:
    """Centre after centre: the step of its pooled contexts on itself and the negatives that differ from it."""
    outputs = _negatives(tokens, sampling, negative, seed, pool=128)
    windows = _windows(tokens, offsets, sampling, outputs, window, lr, lr_end, shrink_windows, seed, begin)
    return _cbow(in_table, out_table, windows, cbow_mean)


def cbow_hs_epoch(
    in_table: F64,
    out_table: F64,
    tokens: ArrayLike,
    offsets: ArrayLike,
    sampling: Sampling,
    tree: HuffmanTree,
    *,
    window: int = 5,
    cbow_mean: bool = True,
    lr: float = 0.025,
    lr_end: float | None = None,
    shrink_windows: bool = True,
    seed: int = 1,
    begin: int = 0,
) -> float:
    """Centre after centre: the step of its pooled contexts on the nodes of its path."""
    outputs = _paths(tokens, tree)
    windows = _windows(tokens, offsets, sampling, outputs, window, lr, lr_end, shrink_windows, seed, begin)
    return _cbow(in_table, out_table, windows, cbow_mean)
