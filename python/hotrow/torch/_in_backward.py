"""Tables that an optimizer updates during the backward pass, which then builds no gradient for them."""

from __future__ import annotations

import sys
import weakref
from collections.abc import MutableMapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.weak import WeakTensorKeyDictionary


class Update(Protocol):
    """Takes what hotrow.optim.Optimizer.step does."""

    def __call__(
        self,
        indices: NDArray[Any],
        grads: NDArray[Any],
        *,
        offsets: NDArray[Any] | None = None,
        weights: NDArray[Any] | None = None,
        mode: str = "sum",
        padding_idx: int | None = None,
        argmax: NDArray[np.int32] | None = None,
    ) -> None: ...


# A table's tensor -> what the backward of a hotrow layer calls in place of building its gradient.
_updates: Any = WeakTensorKeyDictionary()
updates: MutableMapping[torch.Tensor, Update] = _updates


def refuse_averaging(weight: torch.Tensor) -> None:
    """RuntimeError in the forward pass of DistributedDataParallel, which averages gradients: none is built."""
    if not _updates.data or weight not in updates:  # its len() takes a tenth of a microsecond
        return
    parallel = torch.nn.parallel.DistributedDataParallel._active_ddp_module
    if parallel is not None and any(weight is parameter for parameter in parallel._module_parameters):
        raise RuntimeError(
            "a table that is updated in backward has no gradient that DistributedDataParallel could average: use "
            "in_backward=False, or have DistributedDataParallel ignore the table"
        )


class Owner(Protocol):
    """An optimizer that updates in backward."""

    def update_rows(
        self, parameter: torch.Tensor, indices: NDArray[Any], grads: NDArray[Any], **lookups: Any
    ) -> None: ...


class _Registered:
    """The Update of one table. It holds neither table nor optimizer, or `updates` would keep them for ever."""

    def __init__(self, owner: Owner, parameter: torch.Tensor) -> None:
        self._parameter = weakref.ref(parameter)
        self._owner = weakref.ref(owner, self._forget)

    def _forget(self, _: Any) -> None:
        parameter = self._parameter()
        if parameter is not None and updates.get(parameter) is self:
            del updates[parameter]

    def __call__(self, indices: NDArray[Any], grads: NDArray[Any], **lookups: Any) -> None:
        owner, parameter = self._owner(), self._parameter()
        assert owner is not None  # else _forget was called
        assert parameter is not None  # the key that led here
        owner.update_rows(parameter, indices, grads, **lookups)


def register(owner: Owner, parameter: torch.Tensor) -> None:
    """Let backward update the parameter through `owner`, as long as that lives or until another one registers."""
    if parameter not in updates and "torch._dynamo" in sys.modules:
        torch.compiler.reset()  # graphs that build its gradient
    updates[parameter] = _Registered(owner, parameter)
