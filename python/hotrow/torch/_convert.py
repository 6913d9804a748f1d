"""Layers of a model that is there already: torch's become hotrow's in place, and back."""

from __future__ import annotations

import warnings
from typing import TypeVar

from torch import nn
from torch.nn.utils import parametrize

from hotrow import _check
from hotrow.torch._layers import Embedding, EmbeddingBag

Model = TypeVar("Model", bound=nn.Module)

_OURS: dict[type[nn.Module], type[nn.Module]] = {nn.Embedding: Embedding, nn.EmbeddingBag: EmbeddingBag}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


def _kind(module: nn.Module) -> type[nn.Module]:
    """Its class; of a parametrized module, which has one of its own, that it was."""
    kind = type(module)
    if parametrize.is_parametrized(module) and len(kind.__bases__) == 1:
        (base,) = kind.__bases__
        return base
    return kind


def _become(module: nn.Module, kind: type[nn.Module]) -> None:
    if _kind(module) is type(module):
        module.__class__ = kind
    else:
        type(module).__bases__ = (kind,)


def convert(model: Model, *, fallback: bool = False) -> Model:
    """Let hotrow do the lookups of each torch.nn.Embedding and EmbeddingBag in a model, itself included.

    The modules change their class and nothing else: parameters, hooks, parametrizations, tied weights and whoever holds
    a module or its weight stay what they are. A warning names modules of subclasses, which stay too.

    Args:
        model (torch.nn.Module): changed in place.
        fallback (bool): tensors on other devices are left to torch; default: an error.

    Returns:
        torch.nn.Module: the model.

    Raises:
        TypeError: model is no module.
    """
    _require_module(model)
    fallback, left = _check.boolean("fallback", fallback), []
    for name, module in model.named_modules():
        if (kind := _kind(module)) in _OURS:
            _become(module, _OURS[kind])
            module.fallback = fallback
        elif isinstance(module, tuple(_OURS)) and not isinstance(module, tuple(_THEIRS)):
            left.append(f"{name or 'the model'} ({kind.__qualname__})")
    if left:
        warnings.warn(f"left as they are, being of subclasses: {', '.join(left)}", UserWarning, stacklevel=2)
    return model


def revert(model: Model) -> Model:
    """Give each hotrow.torch.Embedding and EmbeddingBag in a model torch's class, converted or not.

    Args:
        model (torch.nn.Module): changed in place; what torch's class cannot do is an error of torch when it is called.

    Returns:
        torch.nn.Module: the model.

    Raises:
        TypeError: model is no module.
        ValueError: torch has no mode "sqrtn"; nothing has then changed.
    """
    _require_module(model)
    ours = [(name, module) for name, module in model.named_modules() if _kind(module) in _THEIRS]
    for name, module in ours:
        if getattr(module, "mode", None) == "sqrtn":
            raise ValueError(f"{name or 'the model'} has mode 'sqrtn', which torch.nn.EmbeddingBag has not")
    for _, module in ours:
        _become(module, _THEIRS[_kind(module)])
        module.__dict__.pop("fallback", None)
    return model


def _require_module(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
