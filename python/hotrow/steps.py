"""Optimizer steps on the rows that were looked up: check, call. hotrow.optim keeps their state.

Each takes the lookups and their gradients as hotrow.scatter_add does, sums the gradients of each row and updates the
row and its state once, in one pass. A step costs time and scratch memory in the lookups, never in the rows of the
table; a failed one changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotrow import _backend, _check, _threads

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class StepOptions:
    """What every optimizer step can do to the gradients and the rows, in this order.

    Args:
        check_finite (bool): raise ValueError, before anything is touched, if a gradient or weight is NaN or infinite.
        scale_grad_by_freq (bool): divide a row's gradient by the number of its lookups, as torch.nn.Embedding's.
        clip_norm (float > 0): scale all gradients down if the norm of all of them together exceeds this.
        clip_value (float > 0): clip each element of a row's gradient to [-clip_value, clip_value]; NaN stays.
        weight_decay (float >= 0): L2 penalty: gradient += weight_decay * row.
        decoupled_weight_decay (bool): `row *= 1 - lr * weight_decay` instead, as in AdamW.
        max_norm (float > 0): scale rows down to this 2-norm after the update if theirs is larger.
        stochastic_rounding (bool): in tables of 16 bits, round up or down by chance, so that small steps are not lost
            but right on average; default: to nearest.
        seed (int in [0, 2^64)): of the chances; they depend on it, on `draw` of the step, on row and column alone.

    Source:
        Stochastic rounding: Gupta et al., "Deep Learning with Limited Numerical Precision", 2015.
    """

    check_finite: bool = False
    scale_grad_by_freq: bool = False
    clip_norm: float | None = None
    clip_value: float | None = None
    weight_decay: float = 0.0
    decoupled_weight_decay: bool = False
    max_norm: float | None = None
    stochastic_rounding: bool = False
    seed: int = 0
    arguments: tuple[Any, ...] = field(init=False, repr=False, compare=False)  # as backends take them
    plain: bool = field(init=False, repr=False, compare=False)  # nothing to look at or to draw before a step

    def __post_init__(self) -> None:
        for name in ("check_finite", "scale_grad_by_freq", "decoupled_weight_decay", "stochastic_rounding"):
            _check.boolean(name, getattr(self, name))
        limits = [
            math.inf if value is None else _check.positive(name, value)
            for name, value in (
                ("clip_norm", self.clip_norm),
                ("clip_value", self.clip_value),
                ("max_norm", self.max_norm),
            )
        ]
        decay = _check.real("weight_decay", self.weight_decay, 0)
        object.__setattr__(self, "seed", _check.integer("seed", self.seed, 0, 2**64 - 1))
        arguments = (
            bool(self.scale_grad_by_freq),
            *limits[:2],
            decay,
            bool(self.decoupled_weight_decay),
            limits[2],
            bool(self.stochastic_rounding),
        )
        object.__setattr__(self, "arguments", arguments)
        object.__setattr__(self, "plain", not self.check_finite and not self.stochastic_rounding)

    def asdict(self) -> dict[str, Any]:
        """The options by name: `StepOptions(**asdict())` is equal."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}


DEFAULTS = StepOptions()


_GOLDEN = 0x9E3779B97F4A7C15
_64 = 0xFFFFFFFFFFFFFFFF


def _mix(z: int) -> int:
    """As in csrc/runtime/random.h: rows add their numbers to it, which must not look like the next step's."""
    z &= _64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _64
    return z ^ (z >> 31)


def run(op: str, lookups: _check.Lookups, options: StepOptions, draw: int, scalars: tuple[Any, ...]) -> None:
    """Take a step on what _check.lookups returned."""
    if not isinstance(options, StepOptions):
        raise TypeError(f"options must be hotrow.optim.StepOptions, not {type(options).__name__}")
    draw = _check.integer("draw", draw, 0)
    arrays, pooling, work = lookups
    if options.check_finite:
        for name, array in (("grads", arrays[4]), ("weights", arrays[2])):
            if array is not None:
                _check.finite(name, array)
    if work:
        key = _mix(options.seed + draw * _GOLDEN) if options.stochastic_rounding else 0
        kernel = getattr(_backend.kernels(), op)
        kernel(*arrays, *pooling, *options.arguments, key, *scalars, _threads.count)


def take(
    op: str,
    values: tuple[Any, ...],
    mode: str,
    padding_idx: int | None,
    options: StepOptions,
    draw: int,
    scalars: tuple[Any, ...],
) -> None:
    """Check the arrays of an optimizer step and take it; `values` as in _check.lookups."""
    plain = _backend.plain.get(op)
    usual = mode == "sum" and padding_idx is None and isinstance(options, StepOptions) and options.plain
    usual = usual and type(draw) is int and draw >= 0
    if plain and usual and plain.step(values, options.arguments, scalars, _threads.count):
        return
    run(op, _check.lookups(op, values, mode, padding_idx), options, draw, scalars)


def sgd_step(
    table: Floats,
    indices: ArrayLike,
    grads: Floats,
    *,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    momentum_buffer: Floats | None = None,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: NDArray[np.int32] | None = None,
    options: StepOptions = DEFAULTS,
    draw: int = 0,
) -> None:
    """One step of stochastic gradient descent on the rows that were looked up, in place.

        g = the row's gradient as hotrow.coalesce sums it, then as `options` say
        table -= lr * g
        with a momentum_buffer: buffer = momentum * buffer + g, and then
        table -= lr * buffer, or lr * (g + momentum * buffer) if nesterov

    Args:
        table (float32, float64, float16 or bfloat16[R, D]): updated in place; beside 16 bits all is float32.
        indices, grads, offsets, weights, mode, padding_idx, argmax: as hotrow.scatter_add.
        lr (float): learning rate, at least 0.
        momentum (float): at least 0; needs a momentum_buffer; default 0.
        nesterov (bool): Nesterov's momentum; default False.
        momentum_buffer (float[R, D]): updated in place, in the rows looked up; zeros before the first step.
        options (StepOptions): decay, clipping and the like; default: none.
        draw (int): for stochastic rounding: give each step its own, the number of the step, say.

    Raises:
        TypeError, ValueError, IndexError: as hotrow.scatter_add. Nothing is then changed.

    Source:
        torch.optim.SGD on a sparse gradient; momentum is lazy: rows without a lookup keep theirs.
    """
    lr, momentum = _check.real("lr", lr, 0), _check.real("momentum", momentum, 0)
    nesterov = _check.boolean("nesterov", nesterov)
    if momentum_buffer is None and (momentum or nesterov):
        raise ValueError("momentum needs a momentum_buffer of the table's shape")
    arrays = (indices, offsets, weights, argmax, grads, momentum_buffer, table)
    take("sgd_step", arrays, mode, padding_idx, options, draw, (lr, momentum, nesterov))


def adagrad_step(
    table: Floats,
    state_sum: Floats,
    indices: ArrayLike,
    grads: Floats,
    *,
    lr: float,
    eps: float = 1e-10,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: NDArray[np.int32] | None = None,
    options: StepOptions = DEFAULTS,
    draw: int = 0,
) -> None:
    """One step of Adagrad on the rows that were looked up, in place.

        state_sum += g^2   with g as in sgd_step
        table -= lr * g / (sqrt(state_sum) + eps)

    Args:
        table (float32, float64, float16 or bfloat16[R, D]): updated in place; beside 16 bits all is float32.
        state_sum (float[R, D]): updated in place; zeros (or an initial value) before the first step.
        indices, grads, offsets, weights, mode, padding_idx, argmax: as hotrow.scatter_add.
        lr (float): learning rate, at least 0.
        eps (float): at least 0; default 1e-10.
        options (StepOptions): decay, clipping and the like; default: none.
        draw (int): for stochastic rounding: give each step its own, the number of the step, say.

    Raises:
        TypeError, ValueError, IndexError: as hotrow.scatter_add. Nothing is then changed.

    Source:
        Duchi, Hazan and Singer, "Adaptive Subgradient Methods", 2011; torch.optim.Adagrad on a sparse gradient.
    """
    lr, eps = _check.real("lr", lr, 0), _check.real("eps", eps, 0)
    arrays = (indices, offsets, weights, argmax, grads, state_sum, table)
    take("adagrad_step", arrays, mode, padding_idx, options, draw, (lr, eps))


def rowwise_adagrad_step(
    table: Floats,
    state_sum: Floats,
    indices: ArrayLike,
    grads: Floats,
    *,
    lr: float,
    eps: float = 1e-10,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: NDArray[np.int32] | None = None,
    options: StepOptions = DEFAULTS,
    draw: int = 0,
) -> None:
    """One step of row-wise Adagrad, one number of state a row, on the rows that were looked up, in place.

        state_sum[r] += mean over d of g[r, d]^2   with g as in sgd_step
        table[r] -= lr * g[r] / (sqrt(state_sum[r]) + eps)

    Args:
        table (float32, float64, float16 or bfloat16[R, D]): updated in place; beside 16 bits all is float32.
        state_sum (float[R]): contiguous; updated in place; zeros before the first step.
        indices, grads, offsets, weights, mode, padding_idx, argmax: as hotrow.scatter_add.
        lr (float): learning rate, at least 0.
        eps (float): at least 0; default 1e-10.
        options (StepOptions): decay, clipping and the like; default: none.
        draw (int): for stochastic rounding: give each step its own, the number of the step, say.

    Raises:
        TypeError, ValueError, IndexError: as hotrow.scatter_add. Nothing is then changed.

    Source:
        Gupta et al., "Training Recommender Systems at Scale", 2020; FBGEMM's EXACT_ROWWISE_ADAGRAD.
    """
    lr, eps = _check.real("lr", lr, 0), _check.real("eps", eps, 0)
    arrays = (indices, offsets, weights, argmax, grads, state_sum, table)
    take("rowwise_adagrad_step", arrays, mode, padding_idx, options, draw, (lr, eps))


def rmsprop_step(
    table: Floats,
    square_avg: Floats,
    indices: ArrayLike,
    grads: Floats,
    *,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: NDArray[np.int32] | None = None,
    options: StepOptions = DEFAULTS,
    draw: int = 0,
) -> None:
    """One step of RMSprop on the rows that were looked up, in place; rows without a lookup keep their average.

        square_avg = alpha * square_avg + (1 - alpha) * g^2   with g as in sgd_step
        table -= lr * g / (sqrt(square_avg) + eps)

    Args:
        table (float32, float64, float16 or bfloat16[R, D]): updated in place; beside 16 bits all is float32.
        square_avg (float[R, D]): updated in place; zeros before the first step.
        indices, grads, offsets, weights, mode, padding_idx, argmax: as hotrow.scatter_add.
        lr (float): learning rate, at least 0.
        alpha (float in [0, 1]): how much of the average is kept; default 0.99.
        eps (float): at least 0; default 1e-8.
        options (StepOptions): decay, clipping and the like; default: none.
        draw (int): for stochastic rounding: give each step its own, the number of the step, say.

    Raises:
        TypeError, ValueError, IndexError: as hotrow.scatter_add. Nothing is then changed.

    Source:
        Tieleman and Hinton, lecture 6.5, 2012; torch.optim.RMSprop.
    """
    lr, eps, alpha = _check.real("lr", lr, 0), _check.real("eps", eps, 0), _check.real("alpha", alpha, 0, 1)
    arrays = (indices, offsets, weights, argmax, grads, square_avg, table)
    take("rmsprop_step", arrays, mode, padding_idx, options, draw, (lr, alpha, eps))


@lru_cache(maxsize=16)
def _corrections(beta1: float, beta2: float, epsilon_hat: bool, dtype: Any) -> Floats:
    """[T, 2] factors of lr and of eps at steps 1 .. T, from where on they do not change in this dtype; T <= 2^22."""
    last = 1.0
    for beta in (beta1, beta2):
        if beta > 0:
            last = max(last, math.log(float(np.finfo(dtype).eps) / 4) / math.log(beta))
    t = np.arange(1, min(math.ceil(last), 1 << 22) + 1, dtype=np.float64)
    root = np.sqrt(1 - beta2**t)
    factors: Floats = np.stack([root / (1 - beta1**t), np.ones_like(root) if epsilon_hat else root], axis=1).astype(
        dtype
    )
    factors.flags.writeable = False
    return factors


_FOREVER = 2**64  # steps: powers of betas are 0 by then, or 1


def adam_scalars(
    lr: float, step: int, betas: tuple[float, float], eps: float, epsilon_hat: bool, by_row: Any
) -> tuple[Any, ...]:
    """What backends take after the options; by_row: the table's dtype if rows count their own steps, else None.

    Decay goes by lr, whatever the bias correction makes of it.
    """
    beta1, beta2 = betas
    if by_row is not None:
        return lr, beta1, beta2, lr, eps, _corrections(beta1, beta2, epsilon_hat, _check.real_dtype(by_row))
    t = step if step < _FOREVER else _FOREVER  # an int may be too large for a float
    root = math.sqrt(1 - beta2**t)
    return lr, beta1, beta2, lr * root / (1 - beta1**t), eps if epsilon_hat else eps * root, None


def adam_step(
    table: Floats,
    exp_avg: Floats,
    exp_avg_sq: Floats,
    indices: ArrayLike,
    grads: Floats,
    *,
    lr: float,
    step: int = 1,
    row_steps: NDArray[np.int32] | None = None,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    epsilon_hat: bool = True,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: NDArray[np.int32] | None = None,
    options: StepOptions = DEFAULTS,
    draw: int = 0,
) -> None:
    """One step of lazy Adam on the rows that were looked up, in place; the moments of other rows stay as they are.

        exp_avg = beta1 * exp_avg + (1 - beta1) * g            with g as in sgd_step
        exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g^2
        table -= lr * sqrt(1 - beta2^t) / (1 - beta1^t) * exp_avg / (sqrt(exp_avg_sq) + eps)      with epsilon_hat
        table -= lr / (1 - beta1^t) * exp_avg / (sqrt(exp_avg_sq / (1 - beta2^t)) + eps)          without

    Args:
        table (float32, float64, float16 or bfloat16[R, D]): updated in place; beside 16 bits all is float32.
        exp_avg, exp_avg_sq (float[R, D]): updated in place; zeros before the first step.
        indices, grads, offsets, weights, mode, padding_idx, argmax: as hotrow.scatter_add.
        lr (float): learning rate, at least 0.
        step (int): t, from 1; default 1.
        row_steps (int32[R]): t of each row, counted up in place where a row is looked up; then `step` is not used.
        beta1, beta2 (float in [0, 1)): how much of the averages is kept; default 0.9 and 0.999.
        eps (float): at least 0; default 1e-8.
        epsilon_hat (bool): where eps stands: True (default) as in torch.optim.SparseAdam, False as in torch.optim.Adam.
        options (StepOptions): decay, clipping and the like; default: none.
        draw (int): for stochastic rounding: give each step its own, the number of the step, say.

    Raises:
        TypeError, ValueError, IndexError: as hotrow.scatter_add. Nothing is then changed.

    Source:
        Kingma and Ba, "Adam", 2015 (epsilon hat: the end of its section 2); torch.optim.SparseAdam; decoupled decay:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.
    """
    lr, eps = _check.real("lr", lr, 0), _check.real("eps", eps, 0)
    step = _check.integer("step", step, 1)
    betas = _check.fraction("beta1", beta1), _check.fraction("beta2", beta2)
    epsilon_hat = _check.boolean("epsilon_hat", epsilon_hat)
    arrays = (indices, offsets, weights, argmax, grads, exp_avg, exp_avg_sq, row_steps, table)
    if row_steps is None:
        scalars = adam_scalars(lr, step, betas, eps, epsilon_hat, None)
        take("adam_step", arrays, mode, padding_idx, options, draw, scalars)
    else:
        lookups = _check.lookups("adam_step", arrays, mode, padding_idx)
        run("adam_step", lookups, options, draw, adam_scalars(lr, step, betas, eps, epsilon_hat, lookups[0][-1].dtype))
