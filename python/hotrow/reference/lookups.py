"""Lookups, their pooling and their gradients."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotrow.ops import SparseGrad

F64 = NDArray[np.float64]


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


def table_gradient(
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
    gradient, counts = table_gradient(len(table), indices, grads, offsets, weights, mode, padding_idx, argmax)
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
    gradient, counts = table_gradient(rows.size, which, grads, offsets, weights, mode, padding, argmax)
    return SparseGrad(rows[counts > 0], gradient[counts > 0])
