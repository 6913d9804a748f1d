"""The operators: check, allocate, call. Each is defined by the function of its name in hotrow.reference. Lookups and
their gradients are here; those of hotrow.steps and hotrow.skipgram are imported.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotrow import _backend, _check, _threads
from hotrow._memory import aligned
from hotrow._ops import INDICES
from hotrow.skipgram import cbow_epoch, cbow_hs_epoch, skipgram_epoch, skipgram_hs_epoch, skipgram_step
from hotrow.steps import adagrad_step, adam_step, rmsprop_step, rowwise_adagrad_step, sgd_step

__all__ = [
    "SparseGrad", "adagrad_step", "adam_step", "cbow_epoch", "cbow_hs_epoch", "coalesce", "embedding_bag",
    "empty_table", "gather", "rmsprop_step", "rowwise_adagrad_step", "scatter_add", "sgd_step", "skipgram_epoch",
    "skipgram_hs_epoch", "skipgram_step", "weights_grad",
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
