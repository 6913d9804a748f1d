"""The layers' own nodes in torch's graph. Each keeps what its backward reads: indices, never the rows.

Function.apply spends a microsecond on the transforms of torch.func, which never come here (see _functional): the nodes
are made by the method it overrides.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary

from hotrow.torch import _compute
from hotrow.torch._composite import bag_graph
from hotrow.torch._in_backward import refuse_averaging, updates
from hotrow.torch._share import Array, array, real


class _Embedding(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Tensor, options: tuple[int | None, bool, bool]) -> Tensor:
        """`options`: padding_idx, by_frequency, sparse."""
        refuse_averaging(weight)
        ctx.save_for_backward(indices)
        ctx.weight, ctx.options = weight, options
        return _compute.rows(weight, indices)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        weight, (padding_idx, by_frequency, sparse) = ctx.weight, ctx.options
        if _in_torch(grad, weight, sparse):
            (indices,) = ctx.saved_tensors
            with torch.enable_grad():
                found = bag_graph(weight, indices.reshape(-1), None, None, "sum", padding_idx, None)
            return _twice(found, (weight,), grad.reshape(-1, grad.shape[-1]), by_frequency, indices), None, None
        return _embedding_backward(ctx, grad), None, None


class _EmbeddingBag(Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, indices: Tensor, offsets: Tensor | None, bounds: Array, weights: Tensor | None,
        options: tuple[str, int | None, bool, bool],
    ) -> Tensor:  # fmt: skip
        """`bounds` are offsets, and the number of lookups, as hotrow takes them, on their memory or in a copy.

        `options`: mode, padding_idx, by_frequency, sparse.
        """
        refuse_averaging(weight)
        mode, padding_idx, _, _ = options
        factors = None if weights is None else array(real(weights))
        out, ctx.argmax = _compute.bag(weight, indices.numpy(), bounds, factors, mode, padding_idx, mode == "max")
        # torch then notices whatever is changed in place between forward and backward.
        of_weights = weights is not None and weights.requires_grad
        ctx.save_for_backward(indices, offsets, weights, weight if of_weights else None)
        ctx.weight, ctx.bounds, ctx.factors, ctx.options = weight, bounds, factors, options
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        mode, padding_idx, by_frequency, sparse = ctx.options
        weight = ctx.weight
        if not _in_torch(grad, weight, sparse):
            of_weight, of_weights = _bag_backward(ctx, grad)
            return of_weight, None, None, None, of_weights, None
        indices, _, weights, _ = ctx.saved_tensors
        bounds = torch.tensor(ctx.bounds)  # a copy: those of bags of equal length are read-only
        argmax = None if ctx.argmax is None else torch.from_numpy(ctx.argmax)
        with torch.enable_grad():
            found = bag_graph(weight, indices, bounds, weights, mode, padding_idx, argmax)
        of_weight = of_weights = None
        if ctx.needs_input_grad[0]:
            of_weight = _twice(found, (weight,), grad, by_frequency, indices)
        if ctx.needs_input_grad[4]:
            of_weights = _twice(found, (weights,), grad)
        return of_weight, None, None, None, of_weights, None


def _in_torch(grad: Tensor, weight: Tensor, sparse: bool) -> bool:
    """Whether a gradient is asked for in operations of torch: create_graph=True, is_grads_batched=True."""
    asked = torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(grad)
    return asked and not sparse and weight not in updates


def _twice(
    found: Tensor, wanted: tuple[Tensor], grad: Tensor, by_frequency: bool = False, indices: Tensor | None = None
) -> Tensor:
    """The gradient in operations of torch, for create_graph=True."""
    (gradient,) = torch.autograd.grad(found, wanted, grad, create_graph=torch.is_grad_enabled(), retain_graph=True)
    if by_frequency and indices is not None:
        count = torch.bincount(indices.reshape(-1), minlength=len(gradient)).clamp_(min=1)
        gradient = gradient / count[:, None].to(gradient.dtype)
    return gradient


@once_differentiable
def _embedding_backward(ctx: Any, grad: Tensor) -> Tensor | None:
    (saved,) = ctx.saved_tensors
    padding_idx, by_frequency, sparse = ctx.options
    indices = saved.numpy().reshape(-1)
    grad = grad.reshape(indices.size, grad.shape[-1])
    return _weight_backward(ctx, grad, indices, by_frequency, sparse, padding_idx=padding_idx)


@once_differentiable
def _bag_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    mode, padding_idx, by_frequency, sparse = ctx.options
    saved = ctx.saved_tensors
    indices, argmax, bounds, factors = saved[0].numpy(), ctx.argmax, ctx.bounds, ctx.factors
    of_weight = of_weights = None
    if ctx.needs_input_grad[4]:  # before a table is updated
        of_weights = _compute.weights_grad(grad, saved[3], indices, bounds, factors, mode, padding_idx, argmax)
    if ctx.needs_input_grad[0]:
        of_weight = _weight_backward(
            ctx, grad, indices, by_frequency, sparse, offsets=bounds, weights=factors, mode=mode,
            padding_idx=padding_idx, argmax=argmax,
        )  # fmt: skip
    return of_weight, of_weights


# weight -> storage and address of the values of its last sparse gradient. torch makes the tensor that becomes
# weight.grad anew, of the same indices and values, and forgets that they are coalesced: optimizers would sort again.
_given: Any = WeakTensorKeyDictionary()
_hooking = Lock()


def _keep_coalesced(weight: Tensor, gradient: Tensor) -> None:
    """Once `gradient`, and nothing beside it, has become weight.grad, say that it is coalesced."""
    if not weight.is_leaf or not weight.requires_grad:
        return
    with _hooking:
        hooks = weight._post_accumulate_grad_hooks
        if not hooks or _say_coalesced not in hooks.values():  # and stays: another thread may be calling it
            weight.register_post_accumulate_grad_hook(_say_coalesced)  # type: ignore[no-untyped-call]
    values = gradient._values()
    storage = StorageWeakRef(values.untyped_storage())  # type: ignore[no-untyped-call]
    _given[weight] = storage, values.data_ptr()


def _say_coalesced(weight: Tensor) -> None:
    storage, address = _given.pop(weight, (None, 0))
    grad = weight.grad
    if storage is None or grad is None or not grad.is_sparse:
        return
    if not storage.expired() and grad._values().data_ptr() == address:
        grad._coalesced_(True)


def _weight_backward(
    ctx: Any, grad: Tensor, indices: Array, by_frequency: bool, sparse: bool, **options: Any
) -> Tensor | None:
    """The gradient of a table, or None if it is updated at once instead."""
    weight = ctx.weight
    update = updates.get(weight) if len(updates) else None
    if update is not None:
        try:
            if not torch._C._will_engine_execute_node(ctx.next_functions[0][0]):
                return None  # gradients of something else are asked for
        except RuntimeError:  # torch.autograd.grad asks for this one
            update = None
    if update is None:
        gradient = _compute.weight_grad(grad, len(weight), indices, by_frequency, sparse, **options)
        if sparse:
            _keep_coalesced(weight, gradient)
        return gradient
    grads = array(real(grad))
    if by_frequency:
        update(*_compute.per_row(indices, grads, by_frequency, options))
    else:
        update(indices, grads, **options)
    return None


embedding_node: Callable[..., Tensor] = super(Function, _Embedding).apply
embedding_bag_node: Callable[..., Tensor] = super(Function, _EmbeddingBag).apply
