"""The definition of a bag in operations of torch, which can be differentiated any number of times and in any mode."""

from __future__ import annotations

import torch
from torch import Tensor


def bag_graph(
    weight: Tensor, indices: Tensor, offsets: Tensor | None, weights: Tensor | None, mode: str, padding_idx: int | None,
    argmax: Tensor | None,
) -> Tensor:  # fmt: skip
    """hotrow.embedding_bag(weight, ...); without offsets each lookup is its own bag, "max" takes its argmax."""
    rows = weight.index_select(0, indices)
    shares = torch.ones_like(indices, dtype=weight.dtype) if weights is None else weights
    if padding_idx is not None:
        shares = torch.where(indices == padding_idx, 0, shares)
    rows = rows * shares[:, None]
    if offsets is None:
        return rows
    if argmax is not None:
        if not len(rows):
            return rows.new_zeros(argmax.shape) + 0 * rows.sum()
        place = torch.where(argmax >= 0, offsets[:-1, None] + argmax, 0)
        return torch.where(argmax >= 0, rows.gather(0, place), 0)
    lengths = offsets.diff()
    bag_of = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    pooled = rows.new_zeros(len(lengths), rows.shape[1]).index_add(0, bag_of, rows)
    if mode == "sum":
        return pooled
    size = shares if mode == "mean" else shares.square()
    divisor = shares.new_zeros(len(lengths)).index_add(0, bag_of, size)
    empty = divisor == 0
    divisor = torch.where(empty, 1, divisor)  # before the root, whose slope at 0 is not finite
    if mode == "sqrtn":
        divisor = divisor.sqrt()
    return torch.where(empty[:, None], 0, pooled / divisor[:, None])
