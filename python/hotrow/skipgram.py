"""Skip-gram and continuous bag of words: a step, and epochs over encoded sentences, with which Word2Vec trains."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hotrow import _backend, _check, _threads
from hotrow.huffman import HuffmanTree
from hotrow.sampling import Sampling
from hotrow.steps import Floats


def skipgram_step(
    in_table: Floats,
    out_table: Floats,
    centers: ArrayLike,
    contexts: ArrayLike,
    negatives: ArrayLike,
    *,
    lr: float,
) -> float:
    """One pass of skip-gram with negative sampling over given pairs, both tables updated in place after each pair.

        h = in_table[centers[i]], o = out_table[contexts[i]], n[k] = out_table[negatives[i, k]]
        loss[i] = -log sigmoid(h . o) - sum_k log sigmoid(-h . n[k])
        h, o, n[k] -= lr * their gradients of loss[i]

    A negative equal to its pair's context is left out; repeated ones add up. With one thread pairs are worked on in
    order; more threads update without locks (Hogwild) and the result depends on their timing.

    Args:
        in_table (float32 or float64[R, D]): vectors of centres.
        out_table (float[Q, D]): vectors of contexts, of the same dtype.
        centers (int32 or int64[N]): rows of in_table.
        contexts (int[N]): rows of out_table, of the dtype of centers.
        negatives (int[N, K]): rows of out_table, of the dtype of centers.
        lr (float): learning rate, at least 0.

    Returns:
        float: mean loss of a pair, before its update; 0 without pairs.

    Raises:
        TypeError, ValueError, IndexError: as gather. Both tables are then unchanged.

    Source:
        Mikolov et al., "Distributed Representations of Words and Phrases and their Compositionality", 2013;
        Niu et al., "Hogwild!", 2011.
    """
    lr = _check.real("lr", lr, 0)
    (centers, contexts, negatives, in_table, out_table), dims = _check.arrays(
        "skipgram_step", (centers, contexts, negatives, in_table, out_table)
    )
    if dims["N"] == 0:
        return 0.0
    loss, pairs = _backend.kernels().skipgram_step(
        centers, contexts, negatives, lr, in_table, out_table, _threads.count
    )
    return float(loss / pairs)


def skipgram_epoch(
    in_table: Floats,
    out_table: Floats,
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
    progress: Callable[[int, float, int], object] | None = None,
) -> float:
    """One pass of skip-gram with negative sampling over encoded sentences, both tables updated in place.

    Words are dropped by `sampling` first. Each word left is a centre; its contexts are the words within a window of its
    sentence, drawn uniformly from 1 to `window`. The negatives of a centre are shared by its contexts
    (in_table[context] against out_table[centre] and out_table[negatives]); each window is one step on the summed loss
    of its pairs, see skipgram_step. They are also shared by up to 8 centres that are far apart: of the words left of
    1,024 tokens, the first of each eighth, the second of each, and so on. Such a group is scored as a whole, then its
    windows take their steps one after another; where lr is so high that their steps might overshoot together, a few
    windows at a time, down to one (see docs/decisions/05-skipgram.md). With shared_negatives=False each context has
    negatives of its own, as in word2vec.c and gensim: a window is then a sequence of steps, one for each context in the
    order of their positions, which takes longer. Draws depend on seed and position in `tokens` alone: with one thread
    and a seed the result repeats bit for bit. Ctrl-C stops between blocks of words and leaves both tables usable.

    Args:
        in_table, out_table (float32 or float64[R, D]): R is the size of the vocabulary.
        tokens (int32 or int64[T]): word numbers in [0, R), sentence after sentence.
        offsets (int32 or int64[S + 1]): where each sentence starts in tokens, and T. Sentences may be of any length.
        sampling (Sampling): how often words are kept and drawn, over R words.
        window (int in [1, 1000]): most words to either side; default 5.
        negative (int in [0, 1000]): negatives drawn for a centre, or for each of its contexts; one equal to the centre
            is left out; default 5.
        shared_negatives (bool): the contexts of a centre share its negatives, the default, or each has its own.
        lr (float): learning rate at the first token; default 0.025.
        lr_end (float): learning rate past the last, falling linearly, a group having that of its first centre;
            default: lr.
        shrink_windows (bool): draw windows from 1 to `window`, as word2vec does; False: always `window`.
        seed (int in [0, 2^64)): of all draws; default 1. Give each epoch its own.
        begin (int in [0, T]): tokens that are done already, a multiple of 1024 or T: an epoch that was stopped goes on
            as if it had not been; default 0.
        progress (callable): called with the tokens done since the last call (a multiple of 1024 but at the end), the
            mean loss of a pair among them, and the number of pairs; it must leave tokens, offsets and sampling alone.

    Returns:
        float: mean loss of a pair of centre and context, its negatives included, in float64, from `begin` on; 0 without
        pairs.

    Raises:
        TypeError, ValueError, IndexError: as gather; offsets as embedding_bag. Both tables are then unchanged.

    Source:
        word2vec.c (Mikolov et al. 2013); Ji et al., "Parallelizing Word2Vec in Shared and Distributed Memory", 2016.
    """
    shared_negatives = _check.boolean("shared_negatives", shared_negatives)
    return _epoch(
        "skipgram_epoch", in_table, out_table, tokens, offsets, sampling, negative, window, lr, lr_end, shrink_windows,
        seed, begin, progress, shared_negatives,
    )  # fmt: skip


def cbow_epoch(
    in_table: Floats,
    out_table: Floats,
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
    progress: Callable[[int, float, int], object] | None = None,
) -> float:
    """One pass of CBOW (continuous bag of words) with negative sampling over encoded sentences, both tables in place.

    For each word left as a centre, with contexts and negatives drawn, and centres grouped, as in skipgram_epoch:

        h = mean or sum of in_table[contexts], o = out_table[centre], n[k] = out_table[negatives[k]]
        loss = -log sigmoid(h . o) - sum_k log sigmoid(-h . n[k])
        o, n[k] -= lr * their gradients
        in_table[context] -= lr * the gradient of h, over the number of contexts if h is their sum

    A context takes its step once for each time it stands there: that of word2vec.c and gensim, the gradient times the
    number of contexts if h is their mean, divided by it if h is their sum. A negative equal to the centre is left out;
    repeated ones add up. What skipgram_epoch says of threads, draws and Ctrl-C holds here too.

    Args:
        in_table, out_table, tokens, offsets, sampling, window, negative, shrink_windows: as skipgram_epoch.
        lr, lr_end, seed, begin, progress: as skipgram_epoch; gensim starts with lr = 0.025 here too, word2vec.c with
            0.05.
        cbow_mean (bool): h is the mean of the contexts (default), else their sum.

    Returns:
        float: mean loss of a centre, its negatives included, in float64; 0 without centres.

    Raises:
        TypeError, ValueError, IndexError: as skipgram_epoch. Both tables are then unchanged.

    Source:
        Mikolov et al., "Efficient Estimation of Word Representations in Vector Space", 2013; word2vec.c;
        fast_sentence_cbow_neg of gensim 4.
    """
    cbow_mean = _check.boolean("cbow_mean", cbow_mean)
    return _epoch(
        "cbow_epoch", in_table, out_table, tokens, offsets, sampling, negative, window, lr, lr_end, shrink_windows,
        seed, begin, progress, cbow_mean,
    )  # fmt: skip


def skipgram_hs_epoch(
    in_table: Floats,
    out_table: Floats,
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
    progress: Callable[[int, float, int], object] | None = None,
) -> float:
    """One pass of skip-gram with hierarchical softmax over encoded sentences, both tables updated in place.

    For each word left as a centre, with contexts as in skipgram_epoch, and the inner nodes k on its path in the tree:

        h = in_table[context], o[k] = out_table[points[k]], y[k] = 1 - 2 codes[k]
        loss = -log P(centre | context) = -sum_k log sigmoid(y[k] h . o[k])
        h, o[k] -= lr * their gradients, each window being one step on the summed loss of its pairs

    What skipgram_epoch says of threads, draws and Ctrl-C holds here too.

    Args:
        in_table (float32 or float64[R, D]): R is the size of the vocabulary.
        out_table (float[Q, D]): vectors of the inner nodes, of the same dtype; a tree has R - 1.
        tokens, offsets, window, lr, lr_end, shrink_windows, seed, begin, progress: as skipgram_epoch.
        sampling (Sampling): how often words are kept, over R words.
        tree (HuffmanTree): over R words.

    Returns:
        float: mean loss of a pair of centre and context, in float64, from `begin` on; 0 without pairs.

    Raises:
        TypeError, ValueError, IndexError: as skipgram_epoch. Both tables are then unchanged.

    Source:
        Morin and Bengio, "Hierarchical Probabilistic Neural Network Language Model", 2005; word2vec.c (Mikolov et al.
        2013); fast_sentence_sg_hs of gensim 4, which leaves out terms whose dot product is beyond 6.
    """
    return _epoch(
        "skipgram_hs_epoch", in_table, out_table, tokens, offsets, sampling, tree, window, lr, lr_end, shrink_windows,
        seed, begin, progress,
    )  # fmt: skip


def cbow_hs_epoch(
    in_table: Floats,
    out_table: Floats,
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
    progress: Callable[[int, float, int], object] | None = None,
) -> float:
    """One pass of CBOW with hierarchical softmax over encoded sentences, both tables updated in place.

    h = mean or sum of in_table[contexts], and o[k] and y[k] of the centre's path as in skipgram_hs_epoch:

        loss = -sum_k log sigmoid(y[k] h . o[k])

    The steps are those of cbow_epoch.

    Args:
        in_table, out_table, tokens, offsets, sampling, tree: as skipgram_hs_epoch.
        window, lr, lr_end, shrink_windows, seed, begin, progress: as skipgram_hs_epoch.
        cbow_mean (bool): h is the mean of the contexts (default), else their sum.

    Returns:
        float: mean loss of a centre, in float64; 0 without centres.

    Raises:
        TypeError, ValueError, IndexError: as skipgram_epoch. Both tables are then unchanged.

    Source:
        word2vec.c (Mikolov et al. 2013); fast_sentence_cbow_hs of gensim 4.
    """
    cbow_mean = _check.boolean("cbow_mean", cbow_mean)
    return _epoch(
        "cbow_hs_epoch", in_table, out_table, tokens, offsets, sampling, tree, window, lr, lr_end, shrink_windows, seed,
        begin, progress, cbow_mean,
    )  # fmt: skip


def _epoch(
    op: str,
    in_table: Floats,
    out_table: Floats,
    tokens: ArrayLike,
    offsets: ArrayLike,
    sampling: Sampling,
    outputs: int | HuffmanTree,
    window: int,
    lr: float,
    lr_end: float | None,
    shrink_windows: bool,
    seed: int,
    begin: int,
    progress: Callable[[int, float, int], object] | None,
    *more: bool,
) -> float:
    """Checks the arguments of an epoch, `more` aside, and runs it. Outputs: so many negatives, or paths of a tree."""
    window = _check.integer("window", window, 1, 1000)
    lr = _check.real("lr", lr, 0)
    lr_end = lr if lr_end is None else _check.real("lr_end", lr_end, 0)
    seed = _check.integer("seed", seed, 0, 2**64 - 1)
    if not isinstance(sampling, Sampling):
        raise TypeError(f"sampling must be a hotrow.Sampling, not {type(sampling).__name__}")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable, not {type(progress).__name__}")
    given: tuple[Any, ...] = sampling.alias_accept, sampling.alias_other
    if op in ("skipgram_hs_epoch", "cbow_hs_epoch"):
        if not isinstance(outputs, HuffmanTree):
            raise TypeError(f"tree must be a hotrow.HuffmanTree, not {type(outputs).__name__}")
        given = outputs.path_offsets, outputs.points, outputs.codes
    else:
        most = _check.integer("negative", outputs, 0, 1000)
    arrays, dims = _check.arrays(op, (tokens, offsets, sampling.keep, *given, in_table, out_table))
    _check.offsets(arrays[1], dims["T"], "tokens")
    if isinstance(outputs, HuffmanTree):
        _check.offsets(arrays[3], dims["P"], "points", "path_offsets")
        for k in np.flatnonzero(arrays[5] > 1)[:1]:
            raise ValueError(f"codes[{k}] = {arrays[5][k]} must be 0 or 1")
        most = int(np.diff(arrays[3]).max(initial=0))

    # In calls of about a tenth of a second, between which Python sees Ctrl-C. Where they are cut changes no result, not
    # the loss either: backends add up numbers whose sums are exact.
    kernels, threads, total = _backend.kernels(), _threads.count, dims["T"]
    run, block = getattr(kernels, op), kernels.tokens_per_block
    begin = _check.integer("begin", begin, 0, total)
    if begin % block and begin != total:
        raise ValueError(f"begin = {begin} must be a multiple of {block}, or {total}, the number of tokens")
    step, loss_sum, terms = block * threads, 0.0, 0
    while begin < total:
        end = min(begin + step, total)
        started = time.perf_counter()
        part, count = run(
            *arrays[:-2], window, most, bool(shrink_windows), lr, lr_end, seed,
            begin, end, *more, *arrays[-2:], threads,
        )  # fmt: skip
        elapsed = time.perf_counter() - started
        loss_sum, terms = loss_sum + part, terms + count
        if progress is not None:
            progress(end - begin, part / count if count else 0.0, count)
        begin = end
        step = block * max(threads, min(2 * step // block, int(step / block * 0.1 / max(elapsed, 1e-6))))
    return loss_sum / terms if terms else 0.0
