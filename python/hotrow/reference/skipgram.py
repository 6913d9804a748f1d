"""Skip-gram and continuous bag of words, with negative sampling and hierarchical softmax: window after window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotrow.huffman import HuffmanTree
from hotrow.reference.lookups import F64, one_hot
from hotrow.sampling import Sampling

U64 = np.uint64
Outputs = tuple[Any, Any]  # of a window: rows of the output table, which of them are positive
Drawn = TypeVar("Drawn")  # what there is for a centre: outputs, or those of each context


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


def mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> U64(27))) * U64(0x94D049BB133111EB)
    return z ^ (z >> U64(31))


TOKENS_PER_BLOCK = 1024  # they share a pool of negatives


def draws(seed: int, stream: int, indices: ArrayLike) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """SplitMix64 draws of a stream (1 keep, 2 window, 3 negative, 4 pool): their upper and their lower 32 bits."""
    key = mix(np.array([(seed + stream * 0x9E3779B97F4A7C15) % 2**64], U64))
    x = mix(key + (np.atleast_1d(np.asarray(indices, U64)) + U64(1)) * U64(0x9E3779B97F4A7C15))
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
