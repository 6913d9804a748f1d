"""Skip-gram and continuous bag of words, with negative sampling and hierarchical softmax: window after window
or group after group of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotrow.huffman import HuffmanTree
from hotrow.reference.lookups import F64, one_hot
from hotrow.sampling import Sampling

U64 = np.uint64
Outputs = tuple[Any, Any]  # of a window: rows of the output table, which of them are positive


class Window(NamedTuple):
    """Inputs h = pool @ in_table and outputs, those being positive where it says; in_table gets spread^T times the step
    of h. Both matrices are [m, R].
    """

    pool: F64
    spread: F64
    outputs: Any
    positive: Any
    lr: float


class Center(NamedTuple):
    """A word that is kept, where it is, and its contexts as one_hot [m, R]; m may be 0."""

    word: int
    position: int
    contexts: F64
    lr: float


def skipgram_loss(h: F64, o: F64, positive: ArrayLike) -> float:
    """sum_ab softplus(-h[a] . o[b]) where positive[b], else softplus(h[a] . o[b]); softplus(x) = log(1 + exp(x))."""
    sign = np.where(positive, -1.0, 1.0)
    return float(np.logaddexp(0.0, sign * (h @ o.T)).sum())


def _gradient(h: F64, o: F64, positive: ArrayLike) -> F64:
    """The gradient of skipgram_loss with respect to h @ o.T."""
    sign = np.where(positive, -1.0, 1.0)
    return sign / (1.0 + np.exp(-sign * (h @ o.T)))


def skipgram_gradient(h: F64, o: F64, positive: ArrayLike) -> tuple[F64, F64]:
    """The gradients of skipgram_loss with respect to h and o."""
    g = _gradient(h, o, positive)
    return g @ o, g.T @ h


def _inputs(in_table: F64, window: Window) -> F64:
    return window.pool @ in_table


def _score(in_table: F64, out_table: F64, window: Window, h: F64 | None) -> tuple[F64, float]:
    """Of a window: the gradient of its loss with respect to all products h . o, and the loss; h as in_table has it
    unless it is given.
    """
    h = _inputs(in_table, window) if h is None else h
    o = one_hot(window.outputs, len(out_table)) @ out_table
    return _gradient(h, o, window.positive), skipgram_loss(h, o, window.positive)


def _update(in_table: F64, out_table: F64, window: Window, h: F64 | None, g: F64) -> None:
    """The step of a window along g, from the tables as they are, and h as above."""
    b = one_hot(window.outputs, len(out_table))
    grad_h, grad_o = g @ (b @ out_table), g.T @ (_inputs(in_table, window) if h is None else h)
    in_table -= window.lr * window.spread.T @ grad_h
    out_table -= window.lr * b.T @ grad_o


def _windows_at_once(windows: Sequence[Window], inputs: Sequence[F64]) -> int:
    """How many of a group's windows are scored at once: no more than surely descend the loss of a negative.

    Its curvature is at most a quarter of the sum of squares of its inputs, and a step does not overshoot if lr times
    that is at most 1. The first 8 inputs stand for all.
    """
    if not windows:
        return GROUP
    h = np.concatenate(inputs)
    reach = windows[0].lr / 4 * (h[:8] ** 2).sum() / len(h[:8]) * len(h) / len(inputs)
    return max((k for k in range(1, GROUP + 1) if k * reach <= 1), default=1)


def _group(
    in_table: F64, out_table: F64, windows: Sequence[Window], at_once: int = 1, pooled: Sequence[F64] | None = None
) -> float:
    """A gradient step on all pairs of an input and an output of each window: so many windows are scored at once, then
    updated one after another, with inputs as they are then unless they are given. Returns the sum of the losses.
    """
    loss, inputs = 0.0, [None] * len(windows) if pooled is None else pooled
    for begin in range(0, len(windows), at_once):
        batch = [(windows[s], inputs[s]) for s in range(begin, min(begin + at_once, len(windows)))]
        scored = [_score(in_table, out_table, window, h) for window, h in batch]
        for (window, h), (g, _) in zip(batch, scored, strict=True):
            _update(in_table, out_table, window, h, g)
        loss += sum(loss for _, loss in scored)
    return loss


def _labelled(word: int, negatives: ArrayLike) -> tuple[list[int], NDArray[np.bool_]]:
    """A word, the positive one, and the negatives that differ from it."""
    outputs = [word, *(k for k in np.asarray(negatives).tolist() if k != word)]
    return outputs, np.arange(len(outputs)) == 0


def skipgram_step(
    in_table: F64, out_table: F64, centers: ArrayLike, contexts: ArrayLike, negatives: ArrayLike, *, lr: float
) -> float:
    """Pair after pair: the gradient step of one input row, one positive and the negatives that differ from it."""
    losses = [
        _group(in_table, out_table, [Window(center, center, *_labelled(context, drawn), lr)])
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


TOKENS_PER_BLOCK = 1024  # whose windows form groups
GROUP = 8  # windows that share negatives
GROUPS_ALIKE = 4  # of a block, of which the first says how many windows are scored at once


def draws(seed: int, stream: int, indices: ArrayLike) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """SplitMix64 draws of a stream (1 keep, 2 window, 3 negative): their upper and their lower 32 bits."""
    key = mix(np.array([(seed + stream * 0x9E3779B97F4A7C15) % 2**64], U64))
    x = mix(key + (np.atleast_1d(np.asarray(indices, U64)) + U64(1)) * U64(0x9E3779B97F4A7C15))
    return x >> U64(32), x & U64(0xFFFFFFFF)


def _centers(
    tokens: ArrayLike,
    offsets: ArrayLike,
    sampling: Sampling,
    window: int,
    lr: float,
    lr_end: float | None,
    shrink_windows: bool,
    seed: int,
    begin: int,
) -> Iterator[Center]:
    """The kept words from `begin` on, with the contexts that draws of their windows give them."""
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
            if p >= begin:
                near = sentence[max(0, t - reach[p]) : t] + sentence[t + 1 : t + 1 + reach[p]]
                yield Center(words[p], p, one_hot(words[near], sampling.keep.size), lr + slope * p)


def _words_drawn(sampling: Sampling, seed: int, *shape: int) -> NDArray[np.int_]:
    """The words that draws of stream 3 stand for."""
    high, low = draws(seed, 3, np.arange(np.prod(shape)))
    bucket = (high * U64(sampling.keep.size) >> U64(32)).astype(int)
    taken = low <= sampling.alias_accept[bucket]
    return np.where(taken, bucket, sampling.alias_other[bucket]).reshape(shape)


Matrices = Callable[[F64], tuple[F64, F64]]  # pool and spread of a window's contexts
Block = list[list[Window]]  # groups of windows


def _negatives(
    centers: Iterable[Center], tokens: ArrayLike, sampling: Sampling, negative: int, seed: int, matrices: Matrices
) -> Iterator[Block]:
    """Block after block of tokens, whose centres are GROUP streams of successive ones; a group has one of each. The
    outputs are the centre and the negatives of the first of its group that differ from it, whose
    learning rate is that of all.
    """
    drawn = _words_drawn(sampling, seed, np.size(tokens), negative)
    for _, block in groupby(centers, lambda center: center.position // TOKENS_PER_BLOCK):
        stream = list(block)
        count = -(-len(stream) // GROUP)
        groups = [stream[i::count] for i in range(count)]
        negatives = [drawn[group[0].position] for group in groups]
        yield [
            [Window(*matrices(c.contexts), *_labelled(c.word, words), group[0].lr) for c in group if len(c.contexts)]
            for group, words in zip(groups, negatives, strict=True)
        ]


def _paths(centers: Iterable[Center], tree: HuffmanTree, matrices: Matrices) -> Iterator[Block]:
    """Centre after centre: the inner nodes on its path, those of code 0 being positive."""
    for center in centers:
        k = slice(*tree.path_offsets[center.word : center.word + 2])
        if len(center.contexts):
            yield [[Window(*matrices(center.contexts), tree.points[k], tree.codes[k] == 0, center.lr)]]


def _in_place(contexts: F64) -> tuple[F64, F64]:
    return contexts, contexts


def _epoch(in_table: F64, out_table: F64, blocks: Iterable[Block], pooled: bool = False) -> float:
    """Group after group: the gradient step of the inputs of each window on its outputs; the mean loss of an input."""
    loss, inputs = 0.0, 0
    for block in blocks:
        at_once = 1
        for i, windows in enumerate(block):
            h = [_inputs(in_table, window) for window in windows]
            if i % GROUPS_ALIKE == 0:
                at_once = _windows_at_once(windows, h)
            loss += _group(in_table, out_table, windows, at_once, h if pooled else None)
            inputs += sum(len(x) for x in h)
    return loss / inputs if inputs else 0.0


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
    """Group after group: the gradient step of the contexts of each centre on itself and the negatives that differ from
    it; unless they share negatives, that of one context after the other.
    """
    centers = _centers(tokens, offsets, sampling, window, lr, lr_end, shrink_windows, seed, begin)
    if shared_negatives:
        return _epoch(in_table, out_table, _negatives(centers, tokens, sampling, negative, seed, _in_place))
    drawn = _words_drawn(sampling, seed, np.size(tokens), 2 * window, negative)
    pairs = (
        [[Window(a[None], a[None], *_labelled(center.word, own), center.lr)]]
        for center in centers
        for a, own in zip(center.contexts, drawn[center.position], strict=False)
    )
    return _epoch(in_table, out_table, pairs)


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
    centers = _centers(tokens, offsets, sampling, window, lr, lr_end, shrink_windows, seed, begin)
    return _epoch(in_table, out_table, _paths(centers, tree, _in_place))


def cbow_matrices(contexts: F64, cbow_mean: bool) -> tuple[F64, F64]:
    """The matrices of Window for one-hot contexts: the mean that is pooled and their sum, or the other way round.

    That is what word2vec.c and gensim do. The gradient would take the same matrix both times.
    """
    counts = contexts.sum(axis=0, keepdims=True)
    mean = counts / len(contexts)
    return (mean, counts) if cbow_mean else (counts, mean)


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
    """Group after group: the step of the pooled contexts of a centre on it and the negatives that differ from it."""
    centers = _centers(tokens, offsets, sampling, window, lr, lr_end, shrink_windows, seed, begin)
    matrices = partial(cbow_matrices, cbow_mean=cbow_mean)
    return _epoch(in_table, out_table, _negatives(centers, tokens, sampling, negative, seed, matrices), pooled=True)


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
    centers = _centers(tokens, offsets, sampling, window, lr, lr_end, shrink_windows, seed, begin)
    matrices = partial(cbow_matrices, cbow_mean=cbow_mean)
    return _epoch(in_table, out_table, _paths(centers, tree, matrices), pooled=True)
