"""torch.optim's optimizers, whose steps on sparse gradients are hotrow's: fused, on the memory of the tensors.

    from hotrow.torch.optim import Adagrad              # in place of: from torch.optim import Adagrad

Each class is a subclass of torch's of that name and takes its arguments. Dense gradients go to torch's own step, so
tables and other parameters may share an optimizer or a group. A sparse gradient (one sparse dimension, of a table
[R, D]; coalesced or not) is summed and applied in one pass by hotrow.steps: its cost goes by the lookups, not by R.
Options for those steps alone, for each group as any other hyperparameter:

    check_finite, clip_norm, clip_value, max_norm, stochastic_rounding, seed    as in hotrow.optim.StepOptions

weight_decay and maximize hold for both. States have torch's names and shapes, so state_dicts of torch's class load, and
of SparseAdam into Adam; beside tables of 16 bits they are float32.

in_backward=True: a hotrow layer hands what its backward pass finds to the optimizer, which updates the table then and
there: no gradient is built, and `grad` stays None. Then

- backward() changes the table, with the learning rate in force at that time; step() applies the gradients there are:
  those of dense parameters and of layers that are not hotrow's.
- backward(inputs=...) without the table leaves it alone, and so does torch.autograd.grad, which builds the gradient of
  a table that is among its inputs.
- Each use of a table is a step of its own: two layers that share one, two calls of a layer before backward(), two
  backward passes that would have accumulated. Adam counts each of them.
- What looks at gradients between backward() and step() finds none: clipping from outside, gradient scaling.
- Not for DistributedDataParallel, which has nothing to average: its forward pass raises, unless it ignores the table.
- The last optimizer made for a table has it, be it one without in_backward. When an optimizer is deleted, gradients
  of its tables are built again.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from hotrow import _check, steps
from hotrow.torch._row_optimizer import OPTIONS, Group, RowOptimizer, number, real_dtype
from hotrow.torch._share import Array

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "RMSprop", "RowwiseAdagrad"]


class SGD(RowOptimizer, torch.optim.SGD):
    """torch.optim.SGD; see hotrow.steps.sgd_step for sparse gradients: rows without a lookup keep their momentum.

    Args:
        params, lr, momentum, nesterov, weight_decay, maximize: as torch.optim.SGD; rows without a lookup do not decay.
        dampening, foreach, fused: as torch.optim.SGD, for dense gradients; a dampening refuses sparse ones.
        in_backward (bool): update tables during the backward pass, see above; default False.
        check_finite, clip_norm, clip_value, max_norm, stochastic_rounding, seed: for sparse gradients, as in
            hotrow.optim.StepOptions.

    Raises:
        TypeError, ValueError: a hyperparameter is of the wrong type or out of range.

    Source:
        torch.optim.SGD.
    """

    _op = "sgd_step"
    _for_dense = ("dampening",)

    def _count(self, group: Group, state: dict[str, Any]) -> torch.Tensor | None:
        return super()._count(group, state) if group["stochastic_rounding"] else None

    def _scalars(self, group: Group, taken: int, dtype: np.dtype[Any]) -> tuple[Any, ...]:
        return number(group, "lr"), number(group, "momentum"), bool(group["nesterov"])

    def _arrays(self, group: Group, parameter: torch.Tensor) -> list[Array | None]:
        return [self._rows(parameter, "momentum_buffer") if group["momentum"] else None]


class _AnyAdagrad(RowOptimizer):
    def _scalars(self, group: Group, taken: int, dtype: np.dtype[Any]) -> tuple[Any, ...]:
        return number(group, "lr") / (1 + taken * number(group, "lr_decay")), number(group, "eps")

    def _dense_state(self, group: Group, parameter: torch.Tensor) -> None:
        state = self.state[parameter]
        self._count(group, state)
        if "sum" not in state:
            state["sum"] = torch.full_like(parameter, group["initial_accumulator_value"], requires_grad=False)
        super()._dense_state(group, parameter)


class Adagrad(_AnyAdagrad, torch.optim.Adagrad):
    """torch.optim.Adagrad; see hotrow.steps.adagrad_step for sparse gradients.

    Args:
        params, lr, lr_decay, weight_decay, initial_accumulator_value, eps, maximize: as torch.optim.Adagrad; rows
            without a lookup do not decay.
        foreach, fused: as torch.optim.Adagrad, for dense gradients.
        in_backward, check_finite, clip_norm, clip_value, max_norm, stochastic_rounding, seed: as SGD.

    Raises:
        TypeError, ValueError: a hyperparameter is of the wrong type or out of range.

    Source:
        Duchi, Hazan and Singer, 2011; torch.optim.Adagrad.
    """

    _op = "adagrad_step"

    def _arrays(self, group: Group, parameter: torch.Tensor) -> list[Array | None]:
        if real_dtype(parameter) is not parameter.dtype and not self.state[parameter]["step"]:
            self.state[parameter].pop("sum", None)  # torch's constructor rounded the initial value to 16 bits
        return [self._rows(parameter, "sum", number(group, "initial_accumulator_value"))]


class RowwiseAdagrad(_AnyAdagrad, torch.optim.Adagrad):
    """Adagrad with one number of state for each row of a table; see hotrow.steps.rowwise_adagrad_step.

    Dense gradients go to torch.optim.Adagrad.

    Args:
        params, lr, lr_decay, weight_decay, initial_accumulator_value, maximize, foreach, fused: as Adagrad.
        eps (float): default 1e-8.
        in_backward, check_finite, clip_norm, clip_value, max_norm, stochastic_rounding, seed: as SGD.

    Raises:
        TypeError, ValueError: a hyperparameter is of the wrong type or out of range.

    Source:
        Gupta et al., "Training Recommender Systems at Scale", 2020; FBGEMM's EXACT_ROWWISE_ADAGRAD, whose default eps
        this is.
    """

    _op = "rowwise_adagrad_step"

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.01,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-8,
        **options: Any,
    ) -> None:
        # torch's constructor makes a state as large as each parameter: it gets an empty one, for checks and defaults.
        super().__init__([torch.empty(0)], lr, lr_decay, weight_decay, initial_accumulator_value, eps, **options)
        torch.optim.Optimizer.__init__(self, params, self.defaults)

    def share_memory(self) -> None:
        """Move the sums of rows, and those of dense gradients that there are, into shared memory.

        Matrices are taken for tables: the sum of a dense gradient of one is made by its first step.
        """
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                self._count(group, state)
                if parameter.dim() == 2 and parameter.is_cpu:
                    self._arrays(group, parameter)
                else:
                    self._dense_state(group, parameter)
                for name in state.keys() & {"sum", "row_sum"}:
                    state[name].share_memory_()

    def _arrays(self, group: Group, parameter: torch.Tensor) -> list[Array | None]:
        return [self._rows(parameter, "row_sum", number(group, "initial_accumulator_value"), dims=1)]


class RMSprop(RowOptimizer, torch.optim.RMSprop):
    """torch.optim.RMSprop; see hotrow.steps.rmsprop_step for sparse gradients: other rows keep their average.

    Args:
        params, lr, alpha, eps, weight_decay, maximize: as torch.optim.RMSprop, alpha at most 1; rows without a lookup
            do not decay.
        momentum, centered, foreach: as torch.optim.RMSprop, for dense gradients; the first two refuse sparse ones.
        in_backward, check_finite, clip_norm, clip_value, max_norm, stochastic_rounding, seed: as SGD.

    Raises:
        TypeError, ValueError: a hyperparameter is of the wrong type or out of range.

    Source:
        Tieleman and Hinton, lecture 6.5, 2012; torch.optim.RMSprop.
    """

    _op = "rmsprop_step"
    _for_dense = ("momentum", "centered")

    def _scalars(self, group: Group, taken: int, dtype: np.dtype[Any]) -> tuple[Any, ...]:
        return number(group, "lr"), number(group, "alpha", 1), number(group, "eps")

    def _arrays(self, group: Group, parameter: torch.Tensor) -> list[Array | None]:
        return [self._rows(parameter, "square_avg")]


class _AnyAdam(RowOptimizer):
    _op = "adam_step"
    _for_dense = ("amsgrad",)

    def _scalars(self, group: Group, taken: int, dtype: np.dtype[Any]) -> tuple[Any, ...]:
        beta1, beta2 = group["betas"]
        betas = _check.fraction("betas[0]", float(beta1)), _check.fraction("betas[1]", float(beta2))
        lr, eps = number(group, "lr"), number(group, "eps")
        epsilon_hat = _check.boolean("epsilon_hat", group["epsilon_hat"])
        return steps.adam_scalars(lr, taken + 1, betas, eps, epsilon_hat, dtype if _by_row(group) else None)

    def _arrays(self, group: Group, parameter: torch.Tensor) -> list[Array | None]:
        arrays: list[Array | None] = [self._rows(parameter, name) for name in ("exp_avg", "exp_avg_sq")]
        if not _by_row(group):
            return [*arrays, None]
        state = self.state[parameter]
        if "row_steps" not in state:
            state["row_steps"] = torch.zeros(len(parameter), dtype=torch.int32, device="cpu")
        return [*arrays, state["row_steps"].numpy()]


def _by_row(group: Group) -> bool:
    value = group["bias_correction"]
    if value not in ("step", "row"):
        raise ValueError(f"bias_correction must be 'step' or 'row', not {value!r}")
    return bool(value == "row")


class Adam(_AnyAdam, torch.optim.Adam):
    """torch.optim.Adam, and torch.optim.SparseAdam on sparse gradients; see hotrow.steps.adam_step.

    Args:
        params, lr, betas, eps, weight_decay, maximize: as torch.optim.Adam; rows without a lookup do not decay.
        amsgrad, foreach, fused: as torch.optim.Adam, for dense gradients; amsgrad refuses sparse ones.
        bias_correction ("step" | "row"): of rows, by the number of steps their table took (default, as SparseAdam), or
            by how often the row was looked up.
        epsilon_hat (bool): where eps stands in the step of rows: True as in SparseAdam (default), False as in Adam.
        in_backward, check_finite, clip_norm, clip_value, max_norm, stochastic_rounding, seed: as SGD.

    Raises:
        TypeError, ValueError: a hyperparameter is of the wrong type or out of range.

    Source:
        Kingma and Ba, "Adam", 2015; torch.optim.Adam and SparseAdam.
    """

    _row_options: ClassVar = OPTIONS | {"bias_correction": "step", "epsilon_hat": True}


class AdamW(_AnyAdam, torch.optim.AdamW):
    """torch.optim.AdamW, with lazy moments and decay on sparse gradients; see hotrow.steps.adam_step.

    Args:
        params, lr, betas, eps, weight_decay, maximize: as torch.optim.AdamW; rows without a lookup do not decay.
        amsgrad, foreach, fused, bias_correction: as Adam.
        epsilon_hat (bool): as Adam; default False, as in torch.optim.AdamW.
        in_backward, check_finite, clip_norm, clip_value, max_norm, stochastic_rounding, seed: as SGD.

    Raises:
        TypeError, ValueError: a hyperparameter is of the wrong type or out of range.

    Source:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019; torch.optim.AdamW.
    """

    _row_options: ClassVar = OPTIONS | {"bias_correction": "step", "epsilon_hat": False}
    _decoupled = True
