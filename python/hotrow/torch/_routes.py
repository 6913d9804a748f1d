"""Every way but the plain one: operators of torch.library, torch's own code, and errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import handle_torch_function, has_torch_function_variadic

import hotrow.torch
from hotrow import _check
from hotrow.torch import _operators  # noqa: F401  # registers them
from hotrow.torch._bags import check_offsets, check_shapes, row, same_dtype
from hotrow.torch._composite import bag_graph
from hotrow.torch._in_backward import updates
from hotrow.torch._share import FLOATS, INDICES, TensorTypeError, TensorValueError, array, require, reraise


class Lookup(NamedTuple):
    """What torch.nn.functional.embedding takes after input and weight, in its order."""

    padding_idx: int | None
    max_norm: float | None
    norm_type: float
    scale_grad_by_freq: bool
    sparse: bool


class Bags(NamedTuple):
    """The same of embedding_bag."""

    offsets: Tensor | None
    max_norm: float | None
    norm_type: float
    scale_grad_by_freq: bool
    mode: str
    sparse: bool
    per_sample_weights: Tensor | None
    include_last_offset: bool
    padding_idx: int | None


# Looked up once: these are asked in every call.
_dispatch_modes = torch._C._len_torch_dispatch_stack
_transforms = torch._C._are_functorch_transforms_active
_trace = torch._C._get_tracing_state


def elsewhere(*tensors: Tensor | None) -> bool:
    """Whether someone else wants to see this call: a mode, a transform of torch.func, a trace, a dual tensor."""
    return (
        has_torch_function_variadic(*tensors)
        or _dispatch_modes() > 0
        or _transforms()
        or _trace() is not None
        or forward_ad._current_level >= 0
    )


def _some_updated() -> bool:
    return len(updates) > 0


# While compiling: whether some table is updated during backward, as it was then. Graphs cannot do that.
some_updated: Callable[[], bool] = torch.compiler.assume_constant_result(_some_updated)  # type: ignore[no-untyped-call]


@cache
def _has_operators(kind: type) -> bool:
    """Whether a subclass of Tensor has operators of its own."""
    return kind.__torch_dispatch__ is not Tensor.__torch_dispatch__  # type: ignore[attr-defined]


def _transformed() -> bool:
    return _transforms() or forward_ad._current_level >= 0


def _left_to_torch(*tensors: Tensor | None, fallback: bool) -> bool:
    """Whether torch's own operators do it: other devices by choice, subclasses."""
    given = [a for a in tensors if a is not None]
    if fallback and any(a.device.type != "cpu" for a in given):
        return True
    modes = _dispatch_modes() > 0  # these see to their own subclasses
    return not modes and any(_has_operators(type(a)) for a in given)


def _handled(function: Any, tensors: Any, given: Lookup | Bags, fallback: bool) -> Tensor:
    named = given._asdict() | ({"fallback": True} if fallback else {})
    result: Tensor = handle_torch_function(function, tensors, *tensors[:2], **named)
    return result


# --- embedding --------------------------------------------------------------------------------------------------------


def embedding_elsewhere(input: Tensor, weight: Tensor, given: Lookup, fallback: bool) -> Tensor:
    """What `elsewhere` noticed, or tensors that are not plainly such."""
    if isinstance(input, Tensor) and input.is_nested:
        return _nested(input, weight, *given)
    if has_torch_function_variadic(input, weight):
        return _handled(hotrow.torch.embedding, (input, weight), given, fallback)
    for name, a in (("input", input), ("weight", weight)):
        if not isinstance(a, Tensor):
            raise TensorTypeError(f"{name} must be a torch.Tensor, not {type(a).__name__}")
    if _transformed() or _left_to_torch(input, weight, fallback=fallback):
        return F.embedding(input, weight, *given)
    return embedding_operator(input, weight, given)


def embedding_operator(input: Tensor, weight: Tensor, given: Lookup) -> Tensor:
    """As an operator of torch.library. Nothing here looks at values: it may be traced."""
    if input.is_nested:
        return _nested(input, weight, *given)
    if given.sparse and torch.is_grad_enabled() and weight.requires_grad:
        return F.embedding(input, weight, *given)
    padding_idx = None if given.padding_idx is None else row(given.padding_idx, weight)
    if given.max_norm is not None:
        torch.ops.hotrow.renorm_(weight.detach(), input, None, given.max_norm, given.norm_type)
    found: Tensor = torch.ops.hotrow.embedding(weight, input, padding_idx, given.scale_grad_by_freq)
    return found


def _nested(input: Any, weight: Tensor, *given: Any) -> Tensor:
    """Of a jagged tensor: on its values."""
    if input.layout is not torch.jagged or input.lengths() is not None:
        return F.embedding(input, weight, *given)
    rows = hotrow.torch.embedding(input.values(), weight, *given)
    return torch.nested.nested_tensor_from_jagged(rows, input.offsets(), jagged_dim=input._ragged_idx)


def embedding_refused(error: Exception, input: Tensor, weight: Tensor, given: Lookup, fallback: bool) -> Tensor:
    """What the plain way could not do: torch's own code can, or an error says why."""
    if input.is_nested:
        return _nested(input, weight, *given)
    if _left_to_torch(input, weight, fallback=fallback) or (
        input.dtype in INDICES and input.is_cpu and _torch_alone(weight, *FLOATS, *_NUMBERS)
    ):
        return F.embedding(input, weight, *given)
    _explain(error, input, weight)


# The dtypes of tables that torch looks up and hotrow does not.
_NUMBERS = (
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64, torch.complex128
)  # fmt: skip


def _torch_alone(weight: Tensor, *dtypes: torch.dtype) -> bool:
    """Whether hotrow has no kernel for such a table: no floating point, or its rows are not contiguous."""
    table = weight.is_cpu and weight.layout is torch.strided and weight.dim() == 2 and weight.dtype in dtypes
    return table and (weight.dtype not in FLOATS or (weight.shape[1] > 1 and weight.stride(1) != 1))


def _explain(error: Exception, input: Tensor, weight: Tensor) -> NoReturn:
    require("weight", weight, FLOATS)
    if weight.dim() != 2:
        raise TensorTypeError(f"weight must have 2 dimensions, not {weight.dim()}") from error
    require("input", input, INDICES)
    try:
        _check.check_bounds("gather", (None, array(input.contiguous())), {"R": len(weight)})
    except IndexError as out_of_range:
        reraise(out_of_range, indices="input")
    reraise(error, indices="input", weights="per_sample_weights")


# --- embedding_bag ----------------------------------------------------------------------------------------------------


def bag_elsewhere(input: Tensor, weight: Tensor, given: Bags, fallback: bool) -> Tensor:
    """As embedding_elsewhere."""
    tensors = input, weight, given.offsets, given.per_sample_weights
    if isinstance(input, Tensor) and input.is_nested:
        return _nested_bag(input, weight, given)
    if has_torch_function_variadic(*tensors):
        return _handled(hotrow.torch.embedding_bag, tensors, given, fallback)
    for name, a in zip(("input", "weight", "offsets", "per_sample_weights"), tensors, strict=True):
        if not isinstance(a, Tensor) and (a is not None or name in ("input", "weight")):
            raise TensorTypeError(f"{name} must be a torch.Tensor, not {type(a).__name__}")
    if _left_to_torch(*tensors, fallback=fallback):
        return F.embedding_bag(input, weight, *given)
    if not _transformed():
        return bag_operator(input, weight, given)
    if given.mode == "max" or given.max_norm is not None or given.scale_grad_by_freq or given.sparse:
        return F.embedding_bag(input, weight, *given)
    flat, bounds, shares = _traced_bags(input, given)
    padding_idx = None if given.padding_idx is None else row(given.padding_idx, weight)
    return bag_graph(weight, flat, bounds, shares, given.mode, padding_idx, None)


def bag_operator(input: Tensor, weight: Tensor, given: Bags) -> Tensor:
    """As embedding_operator."""
    if input.is_nested:
        return _nested_bag(input, weight, given)
    _check.mode_number(given.mode)
    if given.sparse and torch.is_grad_enabled() and weight.requires_grad:
        return F.embedding_bag(input, weight, *given)
    flat, bounds, shares = _traced_bags(input, given)
    same_dtype(shares, weight)
    padding_idx = None if given.padding_idx is None else row(given.padding_idx, weight)
    if given.max_norm is not None:
        torch.ops.hotrow.renorm_(weight.detach(), flat, bounds, given.max_norm, given.norm_type)
    found: Tensor = torch.ops.hotrow.embedding_bag(
        weight, flat, bounds, shares, given.mode, padding_idx, given.scale_grad_by_freq
    )[0]
    return found


def _traced_bags(input: Tensor, given: Bags) -> tuple[Tensor, Tensor, Tensor | None]:
    """`bags` in operations of torch."""
    offsets, shares = given.offsets, given.per_sample_weights
    check_shapes(input, offsets, shares)
    if offsets is None:
        bounds = torch.arange(input.shape[0] + 1, device=input.device) * input.shape[1]
        return input.reshape(-1), bounds, None if shares is None else shares.reshape(-1)
    end = torch.full((1,), input.shape[0], dtype=torch.int64, device=input.device)
    return input, torch.cat([offsets[:-1] if given.include_last_offset else offsets, end]), shares


def _nested_bag(input: Any, weight: Tensor, given: Bags) -> Tensor:
    shares = given.per_sample_weights
    if input.layout is not torch.jagged or input.dim() != 2 or input.lengths() is not None:
        raise TensorValueError("a nested input must be of layout jagged, with 2 dimensions and without holes")
    if shares is not None:
        if not shares.is_nested:
            raise TensorValueError("per_sample_weights must be nested as input is")
        shares = shares.values()
    function: Callable[..., Tensor] = hotrow.torch.embedding_bag
    bags = given._replace(offsets=input.offsets(), per_sample_weights=shares, include_last_offset=True)
    return function(input.values(), weight, *bags)


def bag_refused(error: Exception, input: Tensor, weight: Tensor, given: Bags, fallback: bool) -> Tensor:
    """As embedding_refused."""
    offsets, shares = given.offsets, given.per_sample_weights
    if input.is_nested:
        return _nested_bag(input, weight, given)
    if _left_to_torch(input, weight, offsets, shares, fallback=fallback) or (
        input.dtype in INDICES and input.is_cpu and _torch_alone(weight, *FLOATS)
    ):
        return F.embedding_bag(input, weight, *given)
    for name, a, dtypes in (("offsets", offsets, INDICES), ("per_sample_weights", shares, FLOATS)):
        if a is not None:
            require(name, a, dtypes)
    if offsets is not None and offsets.dim() == input.dim() == 1:
        check_offsets(offsets, len(input), given.include_last_offset)
    _explain(error, input, weight)
