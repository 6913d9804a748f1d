"""Keras on torch: an autograd function whose backward pass is the step."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from hotrow.keras._table import Table
from hotrow.ops import Ints


def look_up(table: Table, anchor: Any, indices: Any, trained: bool) -> Any:
    """Rows of the table; with `trained`, a function of the anchor too, whose gradient is zero."""
    if indices.is_meta:  # Keras works out shapes
        dtype = getattr(torch, table.array.dtype.name)
        return torch.empty((*indices.shape, table.array.shape[1]), dtype=dtype, device="meta")
    if trained:
        return _apply(anchor.value, indices, table)
    return _rows(table, indices, False)


at_once = nullcontext  # operations have values everywhere


def wait() -> None:
    """Nothing runs behind."""


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Any, indices: Any, table: Table) -> Any:
        ctx.save_for_backward(anchor, indices)
        ctx.table = table
        return _rows(table, indices, True)

    @staticmethod
    def backward(ctx: Any, grads: Any) -> Any:
        anchor, indices = ctx.saved_tensors
        real = getattr(torch, ctx.table.real.name)
        ctx.table.add_gradients(_array(indices), grads.to("cpu", real).numpy())
        return torch.zeros_like(anchor), None, None


_apply: Any = _LookUp.apply


def _array(indices: Any) -> Ints:
    array: Ints = indices.cpu().numpy()
    return array


def _rows(table: Table, indices: Any, trained: bool) -> Any:
    rows = table.look_up(_array(indices), trained)
    if rows.dtype.name == "bfloat16":  # which torch does not take from NumPy
        return torch.from_numpy(rows.view(np.int16)).view(torch.bfloat16).to(indices.device)
    return torch.from_numpy(rows).to(indices.device)
