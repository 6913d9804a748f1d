"""The operators: check, allocate, call. Each is defined by the function of its name in hotrow.reference."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotrow import _backend, _check, _threads
from hotrow._memory import aligned
from hotrow._ops import INDICES
from hotrow.huffman import HuffmanTree
from hotrow.sampling import Sampling
from hotrow.steps import adagrad_step, adam_step, rmsprop_step, rowwise_adagrad_step, sgd_step

__all__ = [
    "SparseGrad", "adagrad_step", "adam_step", "cbow_epoch", "coalesce", "embedding_bag", "empty_table", "gather",
    "rmsprop_step", "rowwise_adagrad_step", "scatter_add", "sgd_step", "skipgram_epoch", "skipgram_step",
    "weights_grad",
]  # fmt: skip

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.signedinteger[Any]]


class SparseGrad(NamedTuple):
    """The gradient of a table in the rows that were looked up.

    Attributes:
        rows (int[U]): ascending row numbers without repeats.
        values (float[U, D]): the gradient of each.
    """

    rows: Ints
    values: Floats


def empty_table(rows: int, width: int, dtype: Any = np.float32) -> Floats:
    """A table whose rows start at multiples of 64 bytes: updates in place are faster so.

    Args:
        rows, width (int): the shape.
        dtype: float32 (default), float64, float16 or bfloat16 (of ml_dtypes).

    Returns:
        dtype[rows, width]: not initialised; a view with padding between rows where width asks for it.
    """
    rows, width = _check.integer("rows", rows, 0), _check.integer("width", width, 0)
    dtype = np.dtype(np.float32 if dtype is None else dtype)
    _check.table(np.empty((0, 0), dtype))
    return aligned(np.empty, rows, width, dtype)


def gather(
    table: Floats | NDArray[np.int8],
    indices: ArrayLike,
    *,
    scales: NDArray[np.float32] | None = None,
    out: Floats | None = None,
) -> Floats:
    """Look rows up: a one-hot matrix times the table.

        out[i, :] = table[indices[i], :]                       or, of an int8 table,
        out[i, :] = table[indices[i], :] scales[indices[i]]

    Args:
        table (float32, float64, float16, bfloat16 or int8[R, D]): may be a row-strided view, read-only or
            memory-mapped.
        indices (int32 or int64[...]): row numbers in [0, R), of any shape.
        scales (float32[R]): of an int8 table, and of no other: what the elements of each row are multiples of, see
            hotrow.quantize; contiguous.
        out (float[..., D]): where to write, of the table's dtype, or float32 for int8; default: a new array.

    Returns:
        float[..., D]: out.

    Raises:
        TypeError: a wrong dtype or number of dimensions.
        ValueError: a wrong shape or layout; out overlaps an input.
        IndexError: an index outside [0, R).
    """
    (table, rows, scales, target), _ = _check.arrays("gather", (table, indices, scales, out))
    if rows.ndim == 1:
        _backend.kernels().gather(table, rows, scales, target, _threads.count)
    else:
        flat = target.reshape(rows.size, table.shape[1])
        _backend.kernels().gather(table, rows.reshape(-1), scales, flat, _threads.count)
    return target if out is None else out


def embedding_bag(
    table: Floats | NDArray[np.int8],
    indices: ArrayLike,
    offsets: ArrayLike,
    *,
    scales: NDArray[np.float32] | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: NDArray[np.int32] | None = None,
    include_last_offset: bool = True,
    dtype: Any = None,
    out: Floats | None = None,
) -> Floats:
    """Look up bags of rows and pool each: a multi-hot matrix times the table.

        sum:   out[b, :] = sum_j weights[j] table[indices[j], :]   over j in offsets[b] .. offsets[b + 1] - 1
        mean:  sum / sum_j weights[j]
        sqrtn: sum / sqrt(sum_j weights[j]^2)
        max:   out[b, d] = max_j weights[j] table[indices[j], d]; NaN if any is

    where table[r, :] of an int8 table stands for table[r, :] scales[r]. A bag without lookups, or whose divisor is
    zero, is a row of zeros.

    Args:
        table (float32, float64, float16, bfloat16 or int8[R, D]): may be a row-strided view, read-only or
            memory-mapped. One of 16 or 8 bits is computed in float32, of which weights and result then are.
        indices (int32 or int64[N]): row numbers in [0, R), bag after bag.
        offsets (int32 or int64[B + 1]): where each bag starts in indices, and N.
        scales (float32[R]): of an int8 table, and of no other, as gather.
        weights (float[N]): one factor per lookup, of the table's dtype; default: ones.
        mode ("sum" | "mean" | "sqrtn" | "max"): how to pool.
        padding_idx (int): lookups of this row are left out (and not counted by mean and sqrtn); default: none.
        argmax (int32[B, D]): with mode "max", written: the place in its bag, from 0, of the lookup that gave each
            maximum, -1 in an empty bag. The gradient operators ask for it. Default: not wanted.
        include_last_offset (bool): False if offsets are the B starts alone, as torch's are by default.
        dtype: of a new out. Beside a table of 16 bits its own is possible too: each result is then rounded once, to
            nearest. Default: what is computed in.
        out (float[B, D]): where to write, of a dtype that a new one could have; default: a new array.

    Returns:
        float[B, D]: out.

    Raises:
        TypeError, ValueError, IndexError: as gather; ValueError also for offsets that do not rise from 0 to N.

    Source:
        torch.nn.EmbeddingBag; weighted mean and sqrtn as TensorFlow's embedding_lookup_sparse.
    """
    number = _check.mode_number(mode) if mode != "sum" else 0
    if argmax is not None:
        _check.argmax(number, argmax)
    if dtype is not None:
        if out is not None:
            raise ValueError("dtype is that of a new array: it must be None beside out")
        dtype = _check.dtype(dtype)
    if not include_last_offset:
        starts = np.asarray(offsets)
        if starts.ndim == 1 and (starts.dtype in INDICES or not starts.size):
            offsets = np.append(starts.astype(np.int64), np.size(indices))
    # A new array is thrown away if an index turns out to be bad; one of the caller's must not be touched before.
    checked, dims = _check.arrays(
        "embedding_bag",
        (table, indices, offsets, scales, weights, argmax, out),
        bounds=out is not None or argmax is not None,
        dtype=dtype,
    )
    target = checked[-1]
    _check.offsets(checked[2], dims["N"])
    padding = -1 if padding_idx is None else _check.padding(padding_idx, dims["R"])
    in_range = _backend.kernels().embedding_bag(*checked, number, padding, _threads.count)
    if not in_range or dims["D"] == 0:  # no column, nothing read: nothing seen
        _check.check_bounds("embedding_bag", checked, dims)
    return target if out is None else out


def weights_grad(
    table: Floats,
    indices: ArrayLike,
    offsets: ArrayLike,
    grads: Floats,
    *,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: NDArray[np.int32] | None = None,
    out: Floats | None = None,
) -> Floats:
    """The gradient of embedding_bag with respect to its weights.

        sum:   out[j] = grads[b, :] . table[indices[j], :]   for j in bag b
        mean:  out[j] = grads[b, :] . (table[indices[j], :] - bag[b, :]) / sum_j weights[j]
        sqrtn: out[j] = grads[b, :] . (table[indices[j], :] - weights[j] bag[b, :] / norm) / norm
               with norm^2 = sum_j weights[j]^2
        max:   out[j] = sum of grads[b, d] table[indices[j], d] over the d with argmax[b, d] = j - offsets[b]

    where bag = embedding_bag(...). Lookups of padding_idx, and bags whose divisor is zero, have gradient 0.

    Args:
        table, indices, offsets, weights, mode, padding_idx: as they were given to embedding_bag.
        grads (float[B, D]): the gradient of each bag, of the table's dtype; may be a row-strided view.
        argmax (int32[B, D]): for mode "max", as embedding_bag filled it in.
        out (float[N]): where to write; default: a new array.

    Returns:
        float[N]: out.

    Raises:
        TypeError, ValueError, IndexError: as embedding_bag.

    Source:
        torch.nn.EmbeddingBag's per_sample_weights, which torch differentiates for "sum" alone.
    """
    number = _check.mode_number(mode)
    checked, dims = _check.arrays("weights_grad", (table, indices, offsets, weights, argmax, grads, out))
    _check.offsets(checked[2], dims["N"])
    _check.argmax(number, checked[4])
    padding = _check.padding(padding_idx, dims["R"])
    _backend.kernels().weights_grad(*checked, number, padding, _threads.count)
    return checked[6] if out is None else out


def scatter_add(
    table: Floats,
    indices: ArrayLike,
    grads: Floats,
    *,
    scale: float = 1.0,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: NDArray[np.int32] | None = None,
) -> None:
    """Add gradient rows to the rows that were looked up, in place: a one-hot matrix, transposed, times grads.

        table[indices[i], :] += scale * grads[i, :]   repeated indices add up

    With offsets, grads has a row for each bag and every lookup of a bag gets its share of it, as embedding_bag's
    weights and mode ask; the rows are not repeated in memory. A row's gradients are summed in the order of the
    lookups, in chunks of 1,024: the same bits for any number of threads.

    Args:
        table (float32, float64, float16 or bfloat16[R, D]): updated in place; may be a row-strided view or
            memory-mapped. One of 16 bits is computed in float32, of which grads and weights then are, and rounded.
        indices (int32 or int64[N]): row numbers in [0, R).
        grads (float[N, D], or [B, D] with offsets): of the table's dtype; may be a row-strided view.
        scale (float): factor, rounded to the table's dtype; default 1.
        offsets (int32 or int64[B + 1]): where each bag starts in indices, and N; default: every lookup is its own bag.
        weights (float[N]): one factor per lookup, of the table's dtype; default: ones.
        mode ("sum" | "mean" | "sqrtn" | "max"): how embedding_bag pooled; all but "sum" need offsets.
        padding_idx (int): lookups of this row have no gradient; default: none.
        argmax (int32[B, D]): for mode "max", as embedding_bag filled it in.

    Raises:
        TypeError, ValueError, IndexError: as embedding_bag. The table is then unchanged.
    """
    scale = _check.real("scale", scale)
    arrays, pooling, work = _check.lookups(
        "scatter_add", (indices, offsets, weights, argmax, grads, table), mode, padding_idx
    )
    if work:
        _backend.kernels().scatter_add(*arrays, *pooling, scale, _threads.count)


def coalesce(
    indices: ArrayLike,
    grads: Floats,
    *,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: NDArray[np.int32] | None = None,
) -> SparseGrad:
    """Sum the gradient rows of equal indices.

        values[u, :] = sum of grads[i, :] over indices[i] == rows[u]

    A row's gradients are summed in the order of the lookups, in chunks of 1,024: the same bits for any number of
    threads.

    Args:
        indices (int32 or int64[N]): row numbers, not negative.
        grads, offsets, weights, mode, padding_idx, argmax: as scatter_add.

    Returns:
        SparseGrad: rows (int[U], of the dtype of indices, ascending) and values (float[U, D]).

    Raises:
        TypeError, ValueError, IndexError: as scatter_add.

    Source:
        torch.Tensor.coalesce.
    """
    arrays, pooling, _ = _check.lookups("coalesce", (indices, offsets, weights, argmax, grads), mode, padding_idx)
    return SparseGrad(*_backend.kernels().coalesce(*arrays, *pooling, _threads.count))


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
    of its pairs, see skipgram_step. They are neighbours, from a drawn place on, in a pool of 48 words for each of them
    (4,096 at most) that every 1,024 tokens draw anew: their rows stay in a core's cache. With shared_negatives=False
    each context has negatives of its own, as in word2vec.c and gensim: a window is then a sequence of steps, one for
    each context in the order of their positions, which takes longer. Draws depend on seed and position in `tokens`
    alone: with one thread and a seed the result repeats bit for bit. Several threads have copies of the rows of their
    pool for 1,024 tokens. Ctrl-C stops between blocks of words and leaves both tables usable.

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
        lr_end (float): learning rate past the last, falling linearly; default: lr.
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

    For each word left as a centre, with contexts and negatives drawn as in skipgram_epoch, but from a pool of 128 words
    for each negative:

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
