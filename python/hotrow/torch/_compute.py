"""Lookups and gradients on tensors of the CPU, without autograd. Gradients of bags are never expanded to lookups."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hotrow import ops
from hotrow.torch._share import FLOATS, Array, array, numpy_dtype, real, tensor

_FEW = 1024  # lookups: up to as many torch's own is as fast, or faster by the 2 us that arrays and back cost


def rows(weight: Tensor, indices: Tensor) -> Tensor:
    """hotrow.gather."""
    if weight.is_cpu and indices.is_cpu and weight.dtype in FLOATS and indices.numel() <= _FEW:
        try:
            return torch.embedding(weight, indices)
        except (IndexError, RuntimeError):
            pass  # hotrow says what and where
    return tensor(ops.gather(array(weight), indices.numpy()))


def bag(
    weight: Tensor, indices: Array, offsets: Array, weights: Array | None, mode: str, padding_idx: int | None,
    places: bool,
) -> tuple[Tensor, Array | None]:  # fmt: skip
    """Pooled bags; with `places`, also argmax."""
    table = array(weight)
    argmax = np.empty((offsets.size - 1, table.shape[1]), np.int32) if places else None
    pooled = ops.embedding_bag(
        table, indices, offsets, weights=weights, mode=mode, padding_idx=padding_idx, argmax=argmax,
        dtype=table.dtype if table.itemsize == 2 else None,
    )  # fmt: skip
    return tensor(pooled), argmax


def per_row(indices: Array, grads: Array, by_frequency: bool, options: dict[str, Any]) -> tuple[Array, Array]:
    """The rows looked up, ascending, and the gradient of each."""
    rows, values = ops.coalesce(indices, grads, **options)
    if by_frequency and rows.size:
        padding_idx = options.get("padding_idx")
        counted = indices if padding_idx is None else indices[indices != padding_idx]
        values /= np.bincount(np.searchsorted(rows, counted), minlength=rows.size)[:, None].astype(values.dtype)
    return rows, values


def weight_grad(grad: Tensor, rows: int, indices: Array, by_frequency: bool, sparse: bool, **options: Any) -> Tensor:
    """The gradient of a table from that of its lookups or bags; options as hotrow.scatter_add."""
    grads, shape = array(real(grad)), (rows, grad.shape[1])
    if not sparse and not by_frequency:
        table = np.zeros(shape, numpy_dtype(grad.dtype))  # calloc: a large one is written where rows were looked up
        ops.scatter_add(table, indices, grads, **options)
        return tensor(table)
    found, sums = per_row(indices, grads, by_frequency, options)
    where, values = torch.from_numpy(found.astype(np.int64, copy=False)), tensor(sums).to(grad.dtype)
    if not sparse:
        return torch.zeros(shape, dtype=grad.dtype).index_copy_(0, where, values)
    return torch.sparse_coo_tensor(where[None], values, shape, is_coalesced=True, check_invariants=False)


def weights_grad(
    grad: Tensor, weight: Tensor, indices: Array, offsets: Array, weights: Array, mode: str, padding_idx: int | None,
    argmax: Array | None,
) -> Tensor:  # fmt: skip
    """The gradient of per_sample_weights."""
    found = ops.weights_grad(
        array(weight), indices, offsets, array(real(grad)), weights=weights, mode=mode, padding_idx=padding_idx,
        argmax=argmax,
    )  # fmt: skip
    return tensor(found).to(weight.dtype)
