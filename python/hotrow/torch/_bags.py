"""What a call means: where its bags lie, which row is padding, which rows are scaled down first."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hotrow import _check
from hotrow.torch._share import INDICES, Array, TensorIndexError, TensorTypeError, TensorValueError, array, require


def row(padding_idx: int, weight: Tensor) -> int:
    """A padding_idx below 0 counts from the end."""
    rows = weight.shape[0]
    if not -rows <= padding_idx < rows:
        raise TensorIndexError(f"padding_idx = {padding_idx} is out of range for a table of {rows} rows")
    return padding_idx + rows if padding_idx < 0 else padding_idx


def same_dtype(shares: Tensor | None, weight: Tensor) -> None:
    """per_sample_weights are of the dtype of weight."""
    if shares is not None and shares.dtype is not weight.dtype:
        ours, theirs = (str(a.dtype).removeprefix("torch.") for a in (weight, shares))
        raise TensorTypeError(f"per_sample_weights must be {ours} as weight is, not {theirs}")


def renorm(weight: Tensor, input: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale the rows that are looked up down to max_norm, in place."""
    input = input.contiguous()
    _check.check_bounds("gather", (None, array(input)), {"R": weight.shape[0]})  # before a row is touched
    with torch.no_grad():
        torch.embedding_renorm_(weight.detach(), input, max_norm, norm_type)


def check_shapes(input: Tensor, offsets: Tensor | None, shares: Tensor | None) -> None:
    """Of bags: two dimensions without offsets, or one with."""
    if shares is not None and shares.shape != input.shape:
        raise TensorValueError(
            f"per_sample_weights must have the same shape as input, {tuple(input.shape)}, not {tuple(shares.shape)}"
        )
    if input.dim() == 2:
        if offsets is not None:
            raise TensorValueError("offsets must be None beside an input of 2 dimensions, each of whose rows is a bag")
    elif input.dim() != 1:
        raise TensorTypeError(f"input must have 1 or 2 dimensions, not {input.dim()}")
    elif offsets is None:
        raise TensorValueError("an input of 1 dimension needs offsets, which say where its bags start")
    elif offsets.dim() != 1:
        raise TensorTypeError(f"offsets must have 1 dimension, not {offsets.dim()}")


@lru_cache(maxsize=16)
def _equal(bags: int, length: int) -> Array:
    bounds = np.arange(bags + 1, dtype=np.int64) * length
    bounds.flags.writeable = False
    return bounds


def bags(
    input: Tensor, offsets: Tensor | None, shares: Tensor | None, last: bool
) -> tuple[Tensor, Array, Tensor | None]:
    """Indices one after the other, where each bag starts and the last one ends, and their factors."""
    check_shapes(input, offsets, shares)
    if offsets is None:
        flat = None if shares is None else shares.reshape(-1)
        return input.reshape(-1), _equal(*input.shape), flat
    if offsets.dtype not in INDICES:
        require("offsets", offsets, INDICES)
    starts: Array = offsets.numpy()
    n = input.shape[0]
    if not last:
        bounds = np.empty(starts.size + 1, np.int64)
        bounds[:-1] = starts
    elif not starts.size:
        raise TensorValueError("offsets is empty: with include_last_offset it must end with the number of lookups")
    elif starts[-1] == n:
        return input, np.ascontiguousarray(starts, np.int64), shares
    elif starts.size == 1:
        raise TensorValueError(f"offsets of 1 entry name no bag for the {n} lookups of input")
    else:
        bounds = starts.astype(np.int64)
    bounds[-1] = n
    return input, bounds, shares


def check_offsets(offsets: Tensor, lookups: int, last: bool) -> None:
    """Offsets rise from 0; each bag starts within the lookups."""
    starts = offsets.numpy()[: -1 if last else None]
    past = np.flatnonzero(starts > lookups)
    if past.size and (np.diff(starts[: past[0] + 1]) >= 0).all():
        raise TensorValueError(f"offsets[{past[0]}] = {starts[past[0]]} is past the {lookups} lookups of input")
