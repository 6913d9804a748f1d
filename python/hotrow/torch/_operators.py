"""The same lookups and gradients as operators of torch.library: what torch.compile, torch.export and modes see.

Each has a kernel for the CPU, one that tells shapes (fake tensors, the meta device) and, where it can be
differentiated, a formula whose backward is again one of these operators.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hotrow import _check
from hotrow.torch import _compute
from hotrow.torch._bags import renorm
from hotrow.torch._share import INDICES, Array, array, real, require, reraise

_SCHEMAS = {
    "renorm_": "(Tensor(a!) weight, Tensor indices, Tensor? offsets, float max_norm, float norm_type) -> ()",
    "embedding": "(Tensor weight, Tensor indices, SymInt? padding_idx, bool by_frequency) -> Tensor",
    "embedding_backward": "(Tensor grad, Tensor indices, SymInt rows, SymInt? padding_idx, bool by_frequency) "
    "-> Tensor",
    "embedding_bag": "(Tensor weight, Tensor indices, Tensor offsets, Tensor? weights, str mode, SymInt? padding_idx, "
    "bool by_frequency) -> (Tensor, Tensor)",
    "embedding_bag_backward": "(Tensor grad, Tensor indices, Tensor offsets, Tensor? weights, Tensor argmax, "
    "SymInt rows, str mode, SymInt? padding_idx, bool by_frequency) -> Tensor",
    "embedding_bag_weights_backward": "(Tensor grad, Tensor weight, Tensor indices, Tensor offsets, Tensor weights, "
    "Tensor argmax, str mode, SymInt? padding_idx) -> Tensor",
}
for _name, _schema in _SCHEMAS.items():
    torch.library.define(f"hotrow::{_name}", _schema, tags=torch.Tag.pt2_compliant_tag)


def _factors(weights: Tensor | None) -> Array | None:
    return None if weights is None else array(real(weights))


def _places(argmax: Tensor, mode: str) -> Array | None:
    return argmax.numpy() if mode == "max" else None


# --- max_norm ---------------------------------------------------------------------------------------------------------


@torch.library.impl("hotrow::renorm_", "cpu")
def _renorm(weight: Tensor, indices: Tensor, offsets: Tensor | None, max_norm: float, norm_type: float) -> None:
    """Offsets are looked at alone: an error, here or in the lookup that follows, finds the table as it was."""
    require("input", indices, INDICES)
    try:
        if offsets is not None:
            _check.offsets(offsets.numpy(), indices.numel())
        renorm(weight, indices, max_norm, norm_type)
    except (ValueError, IndexError) as error:
        reraise(error, indices="input")


@torch.library.register_fake("hotrow::renorm_")  # type: ignore[untyped-decorator]
def _renorm_fake(weight: Tensor, indices: Tensor, offsets: Tensor | None, max_norm: float, norm_type: float) -> None:
    pass


# --- embedding --------------------------------------------------------------------------------------------------------


@torch.library.impl("hotrow::embedding", "cpu")
def _embedding(weight: Tensor, indices: Tensor, padding_idx: int | None, by_frequency: bool) -> Tensor:
    try:
        return _compute.rows(weight, indices)
    except (TypeError, ValueError, IndexError) as error:
        reraise(error, indices="input")


@torch.library.register_fake("hotrow::embedding")  # type: ignore[untyped-decorator]
def _embedding_fake(weight: Tensor, indices: Tensor, padding_idx: int | None, by_frequency: bool) -> Tensor:
    return weight.new_empty((*indices.shape, weight.shape[1]))


@torch.library.impl("hotrow::embedding_backward", "cpu")
def _embedding_backward(
    grad: Tensor, indices: Tensor, rows: int, padding_idx: int | None, by_frequency: bool
) -> Tensor:
    flat = indices.numpy().reshape(-1)
    grad = grad.reshape(flat.size, grad.shape[-1])
    return _compute.weight_grad(grad, rows, flat, by_frequency, False, padding_idx=padding_idx)


@torch.library.register_fake("hotrow::embedding_backward")  # type: ignore[untyped-decorator]
def _embedding_backward_fake(
    grad: Tensor, indices: Tensor, rows: int, padding_idx: int | None, by_frequency: bool
) -> Tensor:
    return grad.new_empty((rows, grad.shape[-1]))


def _embedding_saved(ctx: Any, inputs: Any, output: Any) -> None:
    weight, indices, *ctx.options = inputs
    ctx.save_for_backward(indices)
    ctx.rows = weight.shape[0]


def _embedding_formula(ctx: Any, grad: Tensor) -> Any:
    (indices,) = ctx.saved_tensors
    return torch.ops.hotrow.embedding_backward(grad, indices, ctx.rows, *ctx.options), None, None, None


torch.library.register_autograd("hotrow::embedding", _embedding_formula, setup_context=_embedding_saved)


# --- embedding_bag ----------------------------------------------------------------------------------------------------


@torch.library.impl("hotrow::embedding_bag", "cpu")
def _embedding_bag(
    weight: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor | None, mode: str, padding_idx: int | None,
    by_frequency: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    try:
        out, argmax = _compute.bag(
            weight, indices.numpy(), offsets.numpy(), _factors(weights), mode, padding_idx, mode == "max"
        )
    except (TypeError, ValueError, IndexError) as error:
        reraise(error, indices="input", weights="per_sample_weights")
    return out, torch.empty((0, 0), dtype=torch.int32) if argmax is None else torch.from_numpy(argmax)


@torch.library.register_fake("hotrow::embedding_bag")  # type: ignore[untyped-decorator]
def _embedding_bag_fake(
    weight: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor | None, mode: str, padding_idx: int | None,
    by_frequency: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    out = weight.new_empty((offsets.shape[0] - 1, weight.shape[1]))
    return out, weight.new_empty(out.shape if mode == "max" else (0, 0), dtype=torch.int32)


@torch.library.impl("hotrow::embedding_bag_backward", "cpu")
def _embedding_bag_backward(
    grad: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor | None, argmax: Tensor, rows: int, mode: str,
    padding_idx: int | None, by_frequency: bool,
) -> Tensor:  # fmt: skip
    return _compute.weight_grad(
        grad, rows, indices.numpy(), by_frequency, False, offsets=offsets.numpy(), weights=_factors(weights),
        mode=mode, padding_idx=padding_idx, argmax=_places(argmax, mode),
    )  # fmt: skip


@torch.library.register_fake("hotrow::embedding_bag_backward")  # type: ignore[untyped-decorator]
def _embedding_bag_backward_fake(
    grad: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor | None, argmax: Tensor, rows: int, mode: str,
    padding_idx: int | None, by_frequency: bool,
) -> Tensor:  # fmt: skip
    return grad.new_empty((rows, grad.shape[1]))


@torch.library.impl("hotrow::embedding_bag_weights_backward", "cpu")
def _weights_backward(
    grad: Tensor, weight: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor, argmax: Tensor, mode: str,
    padding_idx: int | None,
) -> Tensor:  # fmt: skip
    factors, places = array(real(weights)), _places(argmax, mode)
    return _compute.weights_grad(grad, weight, indices.numpy(), offsets.numpy(), factors, mode, padding_idx, places)


@torch.library.register_fake("hotrow::embedding_bag_weights_backward")  # type: ignore[untyped-decorator]
def _weights_backward_fake(
    grad: Tensor, weight: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor, argmax: Tensor, mode: str,
    padding_idx: int | None,
) -> Tensor:  # fmt: skip
    return torch.empty_like(weights)


def _bag_saved(ctx: Any, inputs: Any, output: Any) -> None:
    weight, indices, offsets, weights, ctx.mode, ctx.padding_idx, ctx.by_frequency = inputs
    of_weights = weights is not None and weights.requires_grad
    ctx.save_for_backward(weight if of_weights else None, indices, offsets, weights, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.rows = weight.shape[0]


def _bag_formula(ctx: Any, grad: Tensor, _: Any) -> Any:
    weight, indices, offsets, weights, argmax = ctx.saved_tensors
    of_weight = of_weights = None
    if ctx.needs_input_grad[0]:
        of_weight = torch.ops.hotrow.embedding_bag_backward(
            grad, indices, offsets, weights, argmax, ctx.rows, ctx.mode, ctx.padding_idx, ctx.by_frequency
        )
    if ctx.needs_input_grad[3]:
        of_weights = torch.ops.hotrow.embedding_bag_weights_backward(
            grad, weight, indices, offsets, weights, argmax, ctx.mode, ctx.padding_idx
        )
    return of_weight, None, None, of_weights, None, None, None


torch.library.register_autograd("hotrow::embedding_bag", _bag_formula, setup_context=_bag_saved)
