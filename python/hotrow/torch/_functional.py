"""torch.nn.functional.embedding and embedding_bag on hotrow's kernels: the plain way of eager tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from hotrow import _check
from hotrow.torch import _compute, _routes
from hotrow.torch._autograd import embedding_bag_node, embedding_node
from hotrow.torch._bags import bags, renorm, row, same_dtype
from hotrow.torch._share import array, real

_PLAIN = (Tensor, Parameter)
_ERRORS = (TypeError, ValueError, IndexError, RuntimeError)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
    *,
    fallback: bool = False,
) -> Tensor:
    """torch.nn.functional.embedding: look rows of `weight` up; see hotrow.gather and torch.nn.Embedding.

    Args:
        input (int32 or int64[...]): row numbers in [0, R); negative ones do not wrap. A nested tensor of layout jagged
            gives one.
        weight (float32, float64, float16 or bfloat16[R, D]): the table.
        padding_idx (int in [-R, R)): lookups of this row have no gradient; default: none.
        max_norm (float): scale rows that are looked up down to this norm first, in place; default: no.
        norm_type (float): the p of that norm; default 2.
        scale_grad_by_freq (bool): divide the gradient of a row by the number of its lookups; default False.
        sparse (bool): the gradient is a sparse, coalesced tensor; default False.
        fallback (bool): tensors on other devices are left to torch; default: an error.

    Returns:
        float[..., D]: of weight's dtype.

    Raises:
        TypeError: a wrong dtype, rank, layout or device.
        IndexError: an index or padding_idx out of range.

    Source:
        torch.nn.functional.embedding.
    """
    given = padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse  # named where the way is not the plain one
    if torch.compiler.is_compiling():
        if fallback and not weight.is_cpu:
            return F.embedding(input, weight, *given)
        if _routes.some_updated():
            return _uncompiled_embedding(input, weight, *given)
        return _routes.embedding_operator(input, weight, _routes.Lookup(*given))
    if type(input) is not Tensor or type(weight) not in _PLAIN or _routes.elsewhere(input, weight):
        return _routes.embedding_elsewhere(input, weight, _routes.Lookup(*given), fallback)
    try:
        if padding_idx is not None and not 0 <= padding_idx < weight.shape[0]:
            padding_idx = row(padding_idx, weight)
        if max_norm is not None:
            renorm(weight, input, max_norm, norm_type)
        if weight.requires_grad and torch.is_grad_enabled():
            return embedding_node(weight, input, (padding_idx, scale_grad_by_freq, sparse))
        return _compute.rows(weight, input)
    except _ERRORS as error:
        return _routes.embedding_refused(error, input, weight, _routes.Lookup(*given), fallback)


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
    *,
    fallback: bool = False,
) -> Tensor:
    """torch.nn.functional.embedding_bag: look bags of rows up and pool each; see hotrow.embedding_bag.

    Args:
        input (int32 or int64[N], [B, L] or jagged): row numbers in [0, R); of B bags of L lookups, or bag after bag.
        weight (float32, float64, float16 or bfloat16[R, D]): the table.
        offsets (int32 or int64[B] or [B + 1]): where each bag starts in an input of one dimension; rises from 0.
        max_norm, norm_type, scale_grad_by_freq, sparse, fallback: as embedding.
        mode ("sum" | "mean" | "max" | "sqrtn"): how to pool; default "mean".
        per_sample_weights (float, shape of input): one factor per lookup, of weight's dtype; default: ones. mean and
            sqrtn divide by their sum and 2-norm.
        include_last_offset (bool): offsets end with N. As in torch, any number there is taken for N. Default False.
        padding_idx (int in [-R, R)): lookups of this row are left out; default: none.

    Returns:
        float[B, D]: of weight's dtype; zeros for an empty bag.

    Raises:
        TypeError, IndexError: as embedding.
        ValueError: a wrong shape; offsets that do not rise from 0 to at most N; an unknown mode.

    Source:
        torch.nn.functional.embedding_bag; weighted mean and sqrtn as TensorFlow's embedding_lookup_sparse.
    """
    given = (
        offsets, max_norm, norm_type, scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset,
        padding_idx,
    )  # fmt: skip
    if torch.compiler.is_compiling():
        if fallback and not weight.is_cpu:
            return F.embedding_bag(input, weight, *given)
        if _routes.some_updated():
            return _uncompiled_embedding_bag(input, weight, *given)
        return _routes.bag_operator(input, weight, _routes.Bags(*given))
    shares = per_sample_weights
    if (
        type(input) is not Tensor
        or type(weight) not in _PLAIN
        or (offsets is not None and type(offsets) is not Tensor)
        or (shares is not None and type(shares) not in _PLAIN)
        or _routes.elsewhere(input, weight, offsets, shares)
    ):
        return _routes.bag_elsewhere(input, weight, _routes.Bags(*given), fallback)
    try:
        if padding_idx is not None and not 0 <= padding_idx < weight.shape[0]:
            padding_idx = row(padding_idx, weight)
        flat, bounds, shares = bags(input, offsets, shares, include_last_offset)
        same_dtype(shares, weight)
        if max_norm is not None:
            _check.mode_number(mode)
            _check.offsets(bounds, len(flat))
            renorm(weight, flat, max_norm, norm_type)
        if torch.is_grad_enabled() and (weight.requires_grad or (shares is not None and shares.requires_grad)):
            options = mode, padding_idx, scale_grad_by_freq, sparse
            return embedding_bag_node(weight, flat, offsets, bounds, shares, options)
        factors = None if shares is None else array(real(shares))
        return _compute.bag(weight, flat.numpy(), bounds, factors, mode, padding_idx, False)[0]
    except _ERRORS as error:
        return _routes.bag_refused(error, input, weight, _routes.Bags(*given), fallback)


# Tables that are updated during backward stay out of compiled graphs, where a tensor is not known by itself.
_uncompiled_embedding: Callable[..., Tensor] = torch.compiler.disable(embedding)  # type: ignore[no-untyped-call]
_uncompiled_embedding_bag: Callable[..., Tensor] = torch.compiler.disable(embedding_bag)  # type: ignore[no-untyped-call]
