"""The definition of every operator: dense one-hot products in float64. Slow, plain, and what all backends are tested
against. Same names and arguments as hotrow, less `out`, `progress` and `include_last_offset`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotrow.ops import SparseGrad
from hotrow.sampling import Sampling

F64 = NDArray[np.float64]
U64 = np.uint64


def one_hot(indices: ArrayLike, rows: int) -> F64:
    """One row per index, 1 in the column of that index and 0 elsewhere."""
    hot: F64 = (np.asarray(indices)[..., None] == np.arange(rows)).astype(np.float64)
    return hot


def gather(table: F64, indices: ArrayLike) -> F64:
    """one_hot(indices) @ table"""
    rows: F64 = one_hot(indices, len(table)) @ table
    return rows


def embedding_bag(
    table: F64,
    indices: ArrayLike,
    offsets: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
) -> F64:
    """multi_hot @ table, where multi_hot[b, r] sums the weights of bag b's lookups of row r; divided as mode says.

    max: the largest of weights[j] * one_hot(indices[j]) @ table over the bag.
    """
    i, starts = np.asarray(indices), np.asarray(offsets)
    w = np.ones(i.shape) if weights is None else np.asarray(weights, np.float64)
    j = np.arange(i.size)
    member = (j >= starts[:-1, None]) & (j < starts[1:, None]) & (i != (-1 if padding_idx is None else padding_idx))
    if mode == "max":
        pooled = np.zeros((len(member), table.shape[1]))
        for b, mine in enumerate(member):
            if mine.any():
                pooled[b] = (w[mine, None] * (one_hot(i[mine], len(table)) @ table)).max(axis=0)
        return pooled
    bag: F64 = (member * w) @ one_hot(i, len(table)) @ table
    if mode == "sum":
        return bag
    divisor = (member * w).sum(axis=1) if mode == "mean" else np.sqrt((member * w**2).sum(axis=1))
    factor = np.divide(1.0, divisor, out=np.zeros_like(divisor), where=divisor != 0)
    return np.where(factor[:, None] != 0, bag * factor[:, None], 0.0)


def scatter_add(table: F64, indices: ArrayLike, grads: F64, *, scale: float = 1.0) -> None:
    """table += scale * one_hot(indices).T @ grads"""
    table += scale * one_hot(indices, len(table)).T @ grads


def coalesce(indices: ArrayLike, grads: F64) -> SparseGrad:
    """The rows of one_hot(indices).T @ grads that have a lookup."""
    rows = np.unique(np.asarray(indices))
    which = np.searchsorted(rows, np.asarray(indices))
    return SparseGrad(rows, one_hot(which, rows.size).T @ grads)


def sgd_step(table: F64, indices: ArrayLike, grads: F64, *, lr: float) -> None:
    """table -= lr * one_hot(indices).T @ grads"""
    table -= lr * one_hot(indices, len(table)).T @ grads


def skipgram_loss(h: F64, o: F64, positive: ArrayLike) -> float:
    """sum_ab softplus(-h[a] . o[b]) where positive[b], else softplus(h[a] . o[b]); softplus(x) = log(1 + exp(x))."""
    sign = np.where(positive, -1.0, 1.0)
    return float(np.logaddexp(0.0, sign * (h @ o.T)).sum())


def skipgram_gradient(h: F64, o: F64, positive: ArrayLike) -> tuple[F64, F64]:
    """The gradients of skipgram_loss with respect to h and o."""
    sign = np.where(positive, -1.0, 1.0)
    g = sign / (1.0 + np.exp(-sign * (h @ o.T)))
    return g @ o, g.T @ h


def _window(in_table: F64, out_table: F64, inputs: ArrayLike, outputs: ArrayLike, lr: float) -> float:
    """A gradient step on all pairs of input rows and output rows, the first output being the positive one."""
    a, b = one_hot(inputs, len(in_table)), one_hot(outputs, len(out_table))
    h, o = a @ in_table, b @ out_table
    positive = np.arange(len(o)) == 0
    grad_h, grad_o = skipgram_gradient(h, o, positive)
    in_table -= lr * a.T @ grad_h
    out_table -= lr * b.T @ grad_o
    return skipgram_loss(h, o, positive)


def skipgram_step(
    in_table: F64, out_table: F64, centers: ArrayLike, contexts: ArrayLike, negatives: ArrayLike, *, lr: float
) -> float:
    """Pair after pair: the gradient step of one input row, one positive and the negatives that differ from it."""
    losses = [
        _window(in_table, out_table, [center], [context, *(k for k in drawn if k != context)], lr)
        for center, context, drawn in zip(
            np.asarray(centers).tolist(),
            np.asarray(contexts).tolist(),
            np.asarray(negatives).tolist(),
            strict=True,
        )
    ]
    return float(np.mean(losses)) if losses else 0.0


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> U64(27))) * U64(0x94D049BB133111EB)
    return z ^ (z >> U64(31))


def draws(seed: int, stream: int, indices: ArrayLike) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """SplitMix64 draws of a stream (1 keep, 2 window, 3 negative): their upper and their lower 32 bits."""
    key = _mix(np.array([(seed + stream * 0x9E3779B97F4A7C15) % 2**64], U64))
    x = _mix(key + (np.atleast_1d(np.asarray(indices, U64)) + U64(1)) * U64(0x9E3779B97F4A7C15))
    return x >> U64(32), x & U64(0xFFFFFFFF)


def skipgram_epoch(
    in_table: F64,
    out_table: F64,
    tokens: ArrayLike,
    offsets: ArrayLike,
    sampling: Sampling,
    *,
    window: int = 5,
    negative: int = 5,
    lr: float = 0.025,
    lr_end: float | None = None,
    shrink_windows: bool = True,
    seed: int = 1,
) -> float:
    """Centre after centre: the gradient step of its contexts on itself and the negatives that differ from it."""
    words, starts = np.asarray(tokens), np.asarray(offsets).tolist()
    places, vocabulary = np.arange(words.size), sampling.keep.size
    kept = draws(seed, 1, places)[1] <= sampling.keep[words]
    reach = 1 + (draws(seed, 2, places)[0] * U64(window) >> U64(32)).astype(int)
    if not shrink_windows:
        reach[:] = window
    high, low = draws(seed, 3, np.arange(words.size * negative))
    bucket = (high * U64(vocabulary) >> U64(32)).astype(int)
    taken = low <= sampling.alias_accept[bucket]
    drawn = np.where(taken, bucket, sampling.alias_other[bucket]).reshape(words.size, negative)
    slope = ((lr if lr_end is None else lr_end) - lr) / max(words.size, 1)
    loss, pairs = 0.0, 0
    for begin, end in pairwise(starts):
        sentence: list[Any] = [p for p in range(begin, end) if kept[p]]
        for t, p in enumerate(sentence):
            near = sentence[max(0, t - reach[p]) : t] + sentence[t + 1 : t + 1 + reach[p]]
            if near:
                outputs = [words[p], *(k for k in drawn[p] if k != words[p])]
                loss += _window(in_table, out_table, words[near], outputs, lr + slope * p)
                pairs += len(near)
    return loss / pairs if pairs else 0.0
