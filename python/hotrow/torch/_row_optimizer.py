"""The base of hotrow.torch.optim's classes: which gradient goes where, states, and updates during backward."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from inspect import Parameter, Signature, signature
from operator import itemgetter
from typing import Any, ClassVar

import numpy as np
import torch

from hotrow import _check, steps
from hotrow.steps import StepOptions
from hotrow.torch._in_backward import register, updates
from hotrow.torch._share import Array, array, real

Group = dict[str, Any]

OPTIONS = {
    "check_finite": False,
    "clip_norm": None,
    "clip_value": None,
    "max_norm": None,
    "stochastic_rounding": False,
    "seed": 0,
}
_step_options = lru_cache(maxsize=1024, typed=True)(
    lambda decay, decoupled, *values: StepOptions(
        weight_decay=decay, decoupled_weight_decay=decoupled, **dict(zip(OPTIONS, values, strict=True))
    )
)
_values = itemgetter(*OPTIONS)


def _options(group: Group, decoupled: bool) -> StepOptions:
    return _step_options(float(group["weight_decay"]), decoupled, *_values(group))


class RowOptimizer(torch.optim.Optimizer):
    """What all have in common: a mixin before the class of torch.optim that takes the dense gradients."""

    __signature__: ClassVar[Signature | None]  # what help() shows
    _torch: ClassVar[type[torch.optim.Optimizer]]
    _op: ClassVar[str]
    _row_options: ClassVar[dict[str, Any]] = OPTIONS  # with their defaults; torch's class has the other arguments
    _for_dense: ClassVar[tuple[str, ...]] = ()  # options of torch's class that rows do not have
    _decoupled: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__signature__ = None
        theirs: Any
        for theirs in cls.__bases__:
            if issubclass(theirs, torch.optim.Optimizer) and not issubclass(theirs, RowOptimizer):
                cls._torch = theirs
                arguments = signature(theirs).parameters
                mine = {name: p for name, p in signature(cls.__init__).parameters.items() if name in arguments}
                options = {"in_backward": False} | cls._row_options
                added = [Parameter(name, Parameter.KEYWORD_ONLY, default=value) for name, value in options.items()]
                cls.__signature__ = Signature([*(arguments | mine).values(), *added])

    def __init__(self, params: Any, *args: Any, in_backward: bool = False, **options: Any) -> None:
        self._in_backward = _check.boolean("in_backward", in_backward)
        self._row_defaults = {name: options.pop(name, default) for name, default in self._row_options.items()}
        super().__init__(params, *args, **options)
        # torch's fused steps divide by the scale of a GradScaler, which rows do not: let it do so before the step.
        self._step_supports_amp_scaling = False

    def add_param_group(self, param_group: Group) -> None:
        """As torch.optim.Optimizer's; options of hotrow's steps are those of the optimizer if they are not given.

        Raises:
            TypeError, ValueError: as torch's, or for an option of hotrow's.
        """
        for name, default in self._row_defaults.items():
            self.defaults.setdefault(name, default)
        if isinstance(param_group, dict):
            group = self.defaults | param_group
            for name in ("capturable", "differentiable"):
                if group.get(name):
                    raise ValueError(f"{name}=True: neither graphs nor autograd see the steps of hotrow")
            _options(group, group.get("decoupled_weight_decay", self._decoupled))
            self._scalars(group, 0, np.dtype(np.float32))
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            updates.pop(parameter, None)  # an older optimizer's
            if self._in_backward:
                register(self, parameter)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_in_backward": self._in_backward, "_row_defaults": self._row_defaults}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # which may come from torch's class
            for name, default in self.defaults.items():
                group.setdefault(name, default)
        if self._in_backward:
            for group in self.param_groups:
                for parameter in group["params"]:
                    register(self, parameter)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch.optim.Optimizer's, but arrays keep their dtype until a step knows which it needs.

        torch casts all to that of the parameter, the float32 states of 16-bit tables and counts of rows too.
        """
        loaded: dict[str, Any] = {}

        def keep_dtypes(_: torch.optim.Optimizer) -> None:
            numbers = (number for group in loaded["param_groups"] for number in group["params"])
            parameters = (parameter for group in self.param_groups for parameter in group["params"])
            for number, parameter in zip(numbers, parameters, strict=True):
                for name, value in loaded["state"].get(number, {}).items():
                    if name != "step" and isinstance(value, torch.Tensor):
                        self.state[parameter][name] = value.to(parameter.device)

        # After the hooks that change what is loaded, before those that look at what was.
        hooks = (
            self.register_load_state_dict_pre_hook(lambda _, state: loaded.update(state)),
            self.register_load_state_dict_post_hook(keep_dtypes, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Apply the gradients there are; the loss that `closure` returns, if there is one.

        All sparse gradients are checked before any parameter changes (what check_finite looks for: before its table).

        Raises:
            TypeError, ValueError, IndexError: as hotrow.scatter_add; a parameter with a sparse gradient is on another
                device than the CPU or not [R, D] with contiguous rows, or an option has no meaning for it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._step()
        return loss

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _step(self) -> None:
        rows, dense = [], False
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                if gradient.is_sparse:
                    rows.append(self._sparse_update(group, parameter, gradient))
                else:
                    dense = True
        if dense:
            self._dense_step(mixed=bool(rows))
        for update in rows:
            update()

    def _dense_step(self, mixed: bool) -> None:
        for group in self.param_groups:
            for parameter in filter(_is_dense, group["params"]):
                self._dense_state(group, parameter)
        step: Any = self._torch.step
        if getattr(step, "hooked", False):  # the hooks run around our own step
            step = step.__wrapped__
        groups = self.param_groups
        if mixed:
            self.param_groups = [group | {"params": list(filter(_is_dense, group["params"]))} for group in groups]
        try:
            step(self)
        finally:
            self.param_groups = groups

    def _dense_state(self, group: Group, parameter: torch.Tensor) -> None:
        """As torch's step wants it: in the dtype of the parameter."""
        state = self.state[parameter]
        for name, value in state.items():
            of_torch = name != "step" and not name.startswith("row_") and isinstance(value, torch.Tensor)
            if of_torch and value.dtype is not parameter.dtype:
                state[name] = value.to(parameter.dtype)

    def _sparse_update(self, group: Group, parameter: torch.Tensor, gradient: torch.Tensor) -> Callable[[], None]:
        try:
            if not parameter.is_cpu:
                where = f"{self._name(parameter)} is on device {parameter.device}"
                raise TypeError(f"{where}: hotrow takes sparse gradients on the CPU alone")
            if gradient.sparse_dim() != 1:
                raise TypeError(f"a sparse gradient must have 1 sparse dimension, not {gradient.sparse_dim()}")
            indices, values = gradient._indices().numpy()[0], array(real(gradient._values()))
            return self._checked(group, parameter, indices, values)
        except Exception as error:
            error.add_note(f"in the step of {self._name(parameter)}")
            raise

    def update_rows(self, parameter: torch.Tensor, indices: Array, grads: Array, **lookups: Any) -> None:
        """Update the rows of a table that were looked up, as a backward pass does with in_backward=True.

        Args:
            parameter (float[R, D]): one of the optimizer's.
            indices, grads, offsets, weights, mode, padding_idx, argmax: as in hotrow.optim.Optimizer.step.

        Raises:
            TypeError, ValueError, IndexError: as step. Nothing is then changed.
        """
        for group in self.param_groups:
            if any(parameter is other for other in group["params"]):
                return self._checked(group, parameter, indices, grads, **lookups)()
        raise ValueError("the optimizer that was to update a table in backward has it in no group any more")

    def _checked(
        self,
        group: Group,
        parameter: torch.Tensor,
        indices: Array,
        grads: Array,
        *,
        offsets: Array | None = None,
        weights: Array | None = None,
        mode: str = "sum",
        padding_idx: int | None = None,
        argmax: Array | None = None,
    ) -> Callable[[], None]:
        """Check everything; what is returned does the step."""
        for name in self._for_dense:
            if group[name]:
                raise ValueError(f"{name} = {group[name]} is for dense gradients alone")
        table = array(parameter)
        state = self.state[parameter]
        if not state:
            _check.table(table, "the parameter")
        count = self._count(group, state)
        taken = 0 if count is None else int(count)
        scalars = self._scalars(group, taken, table.dtype)
        options = _options(group, group.get("decoupled_weight_decay", self._decoupled))
        if group["maximize"]:
            grads = -grads
        arrays = (indices, offsets, weights, argmax, grads, *self._arrays(group, parameter), table)
        lookups = _check.lookups(self._op, arrays, mode, padding_idx)

        def update() -> None:
            steps.run(self._op, lookups, options, taken, scalars)
            if count is not None:
                count.add_(1)  # of threads that share a table each counts
            torch.autograd.graph.increment_version(parameter)

        return update

    def _count(self, group: Group, state: dict[str, Any]) -> torch.Tensor | None:
        """How many steps the parameter took, where it matters."""
        if "step" not in state:
            state["step"] = torch.tensor(0.0, dtype=torch.float32, device="cpu")
        count: torch.Tensor = state["step"]
        return count

    def _scalars(self, group: Group, taken: int, dtype: np.dtype[Any]) -> tuple[Any, ...]:
        """The hyperparameters, checked, as backends take them after `taken` steps."""
        raise NotImplementedError

    def _arrays(self, group: Group, parameter: torch.Tensor) -> list[Array | None]:
        """The state of the rows, as backends take it."""
        raise NotImplementedError

    def _rows(self, parameter: torch.Tensor, name: str, start: float = 0.0, dims: int = 2) -> Array:
        """A state [R, D] or [R], made when it is first needed; what is there in another dtype, or sparse, is converted:
        torch made it for dense gradients, or the model has changed its dtype."""
        state = self.state[parameter]
        dtype = real_dtype(parameter)
        tensor: torch.Tensor | None = state.get(name)
        if tensor is None:
            tensor = state[name] = torch.full(parameter.shape[:dims], start, dtype=dtype, device="cpu")
        elif tensor.dtype is not dtype or tensor.is_sparse:
            tensor = state[name] = tensor.to_dense().to(dtype)
        return tensor.numpy()

    def _name(self, parameter: torch.Tensor) -> str:
        for i, group in enumerate(self.param_groups):
            for j, other in enumerate(group["params"]):
                if other is parameter:
                    names = group.get("param_names")
                    return str(names[j]) if names else f"param_groups[{i}]['params'][{j}]"
        return "a parameter in no group"


def _is_dense(parameter: torch.Tensor) -> bool:
    return parameter.grad is not None and not parameter.grad.is_sparse


def real_dtype(parameter: torch.Tensor) -> torch.dtype:
    """Of the states of its rows."""
    return torch.float64 if parameter.dtype is torch.float64 else torch.float32


def number(group: Group, name: str, most: float = math.inf) -> float:
    return _check.real(name, float(group[name]), 0, most)
