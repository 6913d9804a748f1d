"""Sparse optimizers: a table, the state of its rows and the hyperparameters. hotrow.steps does the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotrow import _check, steps
from hotrow._memory import aligned
from hotrow.steps import DEFAULTS, Floats, StepOptions

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "RowwiseAdagrad", "StepOptions"]


def _at_least_0(name: str, value: Any) -> float:
    return _check.real(name, value, 0)


def _up_to_1(name: str, value: Any) -> float:
    return _check.real(name, value, 0, 1)


def _betas(name: str, value: Any) -> tuple[float, float]:
    beta1, beta2 = value
    return _check.fraction(f"{name}[0]", beta1), _check.fraction(f"{name}[1]", beta2)


def _correction(name: str, value: Any) -> str:
    if value not in ("step", "row"):
        raise ValueError(f"{name} must be 'step' or 'row', not {value!r}")
    return str(value)


def _options(name: str, value: Any) -> StepOptions:
    if not isinstance(value, StepOptions):
        raise TypeError(f"{name} must be hotrow.optim.StepOptions, not {type(value).__name__}")
    return value


class Optimizer:
    """What all optimizers share.

    Attributes:
        table (float[R, D]): updated in place by every step; never copied.
        lr (float): learning rate; may be set between steps, as every other hyperparameter, and is checked when it is.
        options (StepOptions): decay, clipping and the like.
        state (dict of arrays): what the optimizer keeps for each row; updated in place.
        steps (int): how many steps were taken.
    """

    _op: ClassVar[str]
    _state: ClassVar[tuple[str, ...]] = ()  # in the order that backends take it
    _hyperparameters: ClassVar[dict[str, Callable[[str, Any], Any]]]  # and what checks them, whenever they are set

    def __setattr__(self, name: str, value: Any) -> None:
        check = self._hyperparameters.get(name)
        super().__setattr__(name, value if check is None else check(name, value))

    def __init__(self, table: Floats, lr: float, options: StepOptions) -> None:
        self._table = _check.table(table)
        self.lr = lr
        self.options = options
        self.steps = 0
        self._arrays: dict[str, NDArray[Any] | None] = dict.fromkeys(self._state)
        self._updated = (*self._arrays.values(), self._table)

    @property
    def table(self) -> Floats:
        """The table, as it was passed."""
        return self._table

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        """The optimizer's own arrays by name."""
        return {name: array for name, array in self._arrays.items() if array is not None}

    def step(
        self,
        indices: ArrayLike,
        grads: Floats,
        *,
        offsets: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        mode: str = "sum",
        padding_idx: int | None = None,
        argmax: NDArray[np.int32] | None = None,
    ) -> None:
        """Update the rows that were looked up. A failed step changes nothing.

        Args:
            indices (int32 or int64[N]): row numbers in [0, R).
            grads (float[N, D], or [B, D] with offsets): the gradient of each lookup or bag, of the table's dtype;
                repeated rows add up.
            offsets, weights, mode, padding_idx, argmax: as they were given to hotrow.embedding_bag.

        Raises:
            TypeError, ValueError, IndexError: as hotrow.scatter_add.
        """
        arrays = (indices, offsets, weights, argmax, grads)
        steps.take(self._op, arrays + self._updated, mode, padding_idx, self.options, self.steps, self._scalars())
        self.__dict__["steps"] += 1  # not a hyperparameter, and __setattr__ takes a quarter of a microsecond

    def _scalars(self) -> tuple[Any, ...]:
        """The hyperparameters as backends take them."""
        raise NotImplementedError

    def _new_state(self, name: str) -> None:
        table = self._table
        self._keep(name, aligned(np.zeros, len(table), table.shape[1], _check.real_dtype(table.dtype)))

    def _new_row_state(self, name: str, dtype: Any) -> None:
        self._keep(name, np.zeros(len(self._table), dtype))

    def _keep(self, name: str, array: NDArray[Any]) -> None:
        self._arrays[name] = array
        self._updated = (*self._arrays.values(), self._table)

    def state_dict(self) -> dict[str, Any]:
        """What load_state_dict takes: steps, hyperparameters and the state's own arrays (not copies), by name."""
        hyperparameters = {name: getattr(self, name) for name in self._hyperparameters if name != "options"}
        return {"steps": self.steps} | hyperparameters | {"options": self.options.asdict(), "state": dict(self.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what state_dict returned; arrays are copied into the optimizer's own. An error changes nothing.

        Raises:
            TypeError, ValueError: missing or unknown entries, or arrays of another dtype or shape.
        """
        name = type(self).__name__
        expected = ("steps", *self._hyperparameters, "state")
        if not isinstance(state, dict) or state.keys() != set(expected):
            found = ", ".join(map(repr, state)) if isinstance(state, dict) else type(state).__name__
            raise ValueError(f"state of {name} must hold {', '.join(map(repr, expected))}, not {found or 'nothing'}")
        arrays, mine = state["state"], self.state
        if not isinstance(arrays, dict) or arrays.keys() != mine.keys():
            wanted = ", ".join(map(repr, mine)) or "no arrays"
            found = ", ".join(map(repr, arrays)) if isinstance(arrays, dict) else type(arrays).__name__
            raise ValueError(f"state of {name} must hold {wanted}, not {found or 'no arrays'}")
        for key, array in mine.items():
            other = np.asarray(arrays[key])
            if other.dtype != array.dtype or other.shape != array.shape:
                raise ValueError(f"{key} must be {array.dtype} {array.shape}, not {other.dtype} {other.shape}")
        if not isinstance(state["options"], dict):
            raise TypeError(f"options must be a dict, not {type(state['options']).__name__}")
        values = {key: state[key] for key in self._hyperparameters} | {"options": StepOptions(**state["options"])}
        checked = type(self)(self._table[:0], **values)  # the constructor's checks, on a table without rows
        if not checked.state.keys() <= mine.keys() or "row_steps" in mine.keys() - checked.state.keys():
            wanted, kept = (", ".join(map(repr, d)) or "no arrays" for d in (checked.state, mine))
            raise ValueError(f"state of {name} must hold {wanted} for these hyperparameters, not {kept}")
        count = _check.integer("steps", state["steps"], 0, 2**63 - 1)
        for key, array in mine.items():
            array[...] = arrays[key]
        for key in self._hyperparameters:
            setattr(self, key, getattr(checked, key))
        self.steps = count


class SGD(Optimizer):
    """Stochastic gradient descent on the rows that were looked up; see hotrow.steps.sgd_step.

    Args:
        table (float32, float64, float16 or bfloat16[R, D]): updated in place by every step; never copied.
        lr (float): learning rate, at least 0.
        momentum (float): at least 0; default 0, without state. Rows without a lookup keep their momentum.
        nesterov (bool): Nesterov's momentum; default False.
        options (StepOptions): decay, clipping and the like; default: none.

    Raises:
        TypeError, ValueError: a hyperparameter is of the wrong type or out of range.

    Source:
        torch.optim.SGD on a sparse gradient.
    """

    _op = "sgd_step"
    _state = ("momentum_buffer",)
    _hyperparameters: ClassVar = {
        "lr": _at_least_0,
        "momentum": _at_least_0,
        "nesterov": _check.boolean,
        "options": _options,
    }

    def __init__(
        self,
        table: Floats,
        lr: float,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        options: StepOptions = DEFAULTS,
    ) -> None:
        super().__init__(table, lr, options)
        self.momentum = momentum
        self.nesterov = nesterov
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum")
        if self.momentum:
            self._new_state("momentum_buffer")

    def _scalars(self) -> tuple[Any, ...]:
        if self.momentum and self._arrays["momentum_buffer"] is None:
            raise ValueError("an SGD that began without momentum has no buffer for it")
        return self.lr, self.momentum, self.nesterov


class Adagrad(Optimizer):
    """Adagrad on the rows that were looked up; see hotrow.steps.adagrad_step.

    Args:
        table (float32, float64, float16 or bfloat16[R, D]): updated in place by every step; never copied.
        lr (float): learning rate, at least 0; default 0.01.
        lr_decay (float): step t uses lr / (1 + (t - 1) * lr_decay); default 0.
        initial_accumulator_value (float): of the sum of squares, at least 0; default 0.
        eps (float): at least 0; default 1e-10.
        options (StepOptions): decay, clipping and the like; default: none.

    Raises:
        TypeError, ValueError: a hyperparameter is of the wrong type or out of range.

    Source:
        Duchi, Hazan and Singer, 2011; torch.optim.Adagrad on a sparse gradient.
    """

    _op = "adagrad_step"
    _state = ("state_sum",)
    _hyperparameters: ClassVar = {
        "lr": _at_least_0,
        "lr_decay": _at_least_0,
        "initial_accumulator_value": _at_least_0,
        "eps": _at_least_0,
        "options": _options,
    }

    def __init__(
        self,
        table: Floats,
        lr: float = 0.01,
        *,
        lr_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        options: StepOptions = DEFAULTS,
    ) -> None:
        super().__init__(table, lr, options)
        self.lr_decay = lr_decay
        self.initial_accumulator_value = initial_accumulator_value
        self.eps = eps
        self._new_state("state_sum")
        if self.initial_accumulator_value:
            self.state["state_sum"].fill(self.initial_accumulator_value)

    def _scalars(self) -> tuple[Any, ...]:
        return self.lr / (1 + self.steps * self.lr_decay), self.eps


class RowwiseAdagrad(Optimizer):
    """Adagrad with one number of state a row: the mean of its squared gradient; see hotrow.steps.rowwise_adagrad_step.

    Args:
        table (float32, float64, float16 or bfloat16[R, D]): updated in place by every step; never copied.
        lr (float): learning rate, at least 0; default 0.01.
        eps (float): at least 0; default 1e-8.
        options (StepOptions): decay, clipping and the like; default: none.

    Raises:
        TypeError, ValueError: a hyperparameter is of the wrong type or out of range.

    Source:
        Gupta et al., "Training Recommender Systems at Scale", 2020; FBGEMM's EXACT_ROWWISE_ADAGRAD, whose default eps
        this is.
    """

    _op = "rowwise_adagrad_step"
    _state = ("state_sum",)
    _hyperparameters: ClassVar = {"lr": _at_least_0, "eps": _at_least_0, "options": _options}

    def __init__(self, table: Floats, lr: float = 0.01, *, eps: float = 1e-8, options: StepOptions = DEFAULTS) -> None:
        super().__init__(table, lr, options)
        self.eps = eps
        self._new_row_state("state_sum", _check.real_dtype(table.dtype))

    def _scalars(self) -> tuple[Any, ...]:
        return self.lr, self.eps


class RMSprop(Optimizer):
    """RMSprop on the rows that were looked up; rows without a lookup keep their average; see hotrow.steps.rmsprop_step.

    Args:
        table (float32, float64, float16 or bfloat16[R, D]): updated in place by every step; never copied.
        lr (float): learning rate, at least 0; default 0.01.
        alpha (float in [0, 1]): how much of the average is kept; default 0.99.
        eps (float): at least 0; default 1e-8.
        options (StepOptions): decay, clipping and the like; default: none.

    Raises:
        TypeError, ValueError: a hyperparameter is of the wrong type or out of range.

    Source:
        Tieleman and Hinton, lecture 6.5, 2012; torch.optim.RMSprop.
    """

    _op = "rmsprop_step"
    _state = ("square_avg",)
    _hyperparameters: ClassVar = {"lr": _at_least_0, "alpha": _up_to_1, "eps": _at_least_0, "options": _options}

    def __init__(
        self,
        table: Floats,
        lr: float = 0.01,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        options: StepOptions = DEFAULTS,
    ) -> None:
        super().__init__(table, lr, options)
        self.alpha = alpha
        self.eps = eps
        self._new_state("square_avg")

    def _scalars(self) -> tuple[Any, ...]:
        return self.lr, self.alpha, self.eps


class Adam(Optimizer):
    """Lazy Adam: moments change in the rows that were looked up alone; see hotrow.steps.adam_step.

    Args:
        table (float32, float64, float16 or bfloat16[R, D]): updated in place by every step; never copied.
        lr (float): learning rate, at least 0; default 0.001.
        betas (two floats in [0, 1)): how much of the averages is kept; default (0.9, 0.999).
        eps (float): at least 0; default 1e-8.
        bias_correction ("step" | "row"): by the number of steps taken (default, as torch.optim.SparseAdam), or by how
            often the row was looked up, as if each row had an Adam of its own.
        epsilon_hat (bool): where eps stands: True as in torch.optim.SparseAdam (default), False as in torch.optim.Adam.
        options (StepOptions): decay, clipping and the like; default: none.

    Raises:
        TypeError, ValueError: a hyperparameter is of the wrong type or out of range.

    Source:
        Kingma and Ba, "Adam", 2015; torch.optim.SparseAdam.
    """

    _op = "adam_step"
    _state = ("exp_avg", "exp_avg_sq", "row_steps")
    _hyperparameters: ClassVar = {
        "lr": _at_least_0,
        "betas": _betas,
        "eps": _at_least_0,
        "bias_correction": _correction,
        "epsilon_hat": _check.boolean,
        "options": _options,
    }

    def __init__(
        self,
        table: Floats,
        lr: float = 0.001,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        bias_correction: str = "step",
        epsilon_hat: bool = True,
        options: StepOptions = DEFAULTS,
    ) -> None:
        super().__init__(table, lr, options)
        self.betas = betas
        self.eps = eps
        self.bias_correction = bias_correction
        self.epsilon_hat = epsilon_hat
        self._new_state("exp_avg")
        self._new_state("exp_avg_sq")
        if bias_correction == "row":
            self._new_row_state("row_steps", np.int32)

    def _scalars(self) -> tuple[Any, ...]:
        by_row = None if self._arrays["row_steps"] is None else self._table.dtype
        return steps.adam_scalars(self.lr, self.steps + 1, self.betas, self.eps, self.epsilon_hat, by_row)


class AdamW(Adam):
    """Lazy Adam with decoupled weight decay, on the rows that were looked up; see hotrow.steps.adam_step.

    Args:
        table, lr, betas, eps, bias_correction: as Adam.
        epsilon_hat (bool): default False, as in torch.optim.AdamW.
        options (StepOptions): default: a decoupled weight decay of 0.01.

    Raises:
        TypeError, ValueError: a hyperparameter is of the wrong type or out of range.

    Source:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019; torch.optim.AdamW.
    """

    def __init__(
        self,
        table: Floats,
        lr: float = 0.001,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        bias_correction: str = "step",
        epsilon_hat: bool = False,
        options: StepOptions = StepOptions(weight_decay=0.01, decoupled_weight_decay=True),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(
            table, lr, betas=betas, eps=eps, bias_correction=bias_correction, epsilon_hat=epsilon_hat, options=options
        )
