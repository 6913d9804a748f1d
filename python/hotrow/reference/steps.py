"""Optimizer steps, each on the summed gradients of the rows that were looked up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotrow.reference import lookups
from hotrow.reference.lookups import F64
from hotrow.steps import DEFAULTS, StepOptions


def _begin_step(
    table: F64, looked_up: tuple[Any, ...], options: StepOptions, lr: float
) -> tuple[NDArray[np.int64], F64]:
    """The rows that were looked up and their gradients, clipped and with L2 decay; decoupled decay is applied."""
    gradient, counts = lookups.table_gradient(len(table), *looked_up)
    rows = np.flatnonzero(counts)
    g = gradient[rows]
    if options.scale_grad_by_freq:
        g = g / counts[rows, None]
    if options.clip_norm is not None and (norm := float(np.linalg.norm(g))) > options.clip_norm:
        g = g * (options.clip_norm / norm)
    if options.clip_value is not None:
        g = np.clip(g, -options.clip_value, options.clip_value)
    if options.decoupled_weight_decay:
        table[rows] *= 1 - lr * options.weight_decay
    elif options.weight_decay:
        g = g + options.weight_decay * table[rows]
    return rows, g


def _end_step(table: F64, rows: NDArray[np.int64], options: StepOptions) -> None:
    if options.max_norm is not None:
        norms = np.linalg.norm(table[rows], axis=1, keepdims=True)
        table[rows] *= np.where(norms > options.max_norm, options.max_norm / (norms + 1e-7), 1.0)


def sgd_step(
    table: F64,
    indices: ArrayLike,
    grads: F64,
    *,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    momentum_buffer: F64 | None = None,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: ArrayLike | None = None,
    options: StepOptions = DEFAULTS,
) -> None:
    """table -= lr * g; with momentum, buffer = momentum * buffer + g and g is the buffer (or g + momentum * buffer)"""
    rows, g = _begin_step(table, (indices, grads, offsets, weights, mode, padding_idx, argmax), options, lr)
    if momentum_buffer is not None:
        momentum_buffer[rows] = momentum * momentum_buffer[rows] + g
        g = g + momentum * momentum_buffer[rows] if nesterov else momentum_buffer[rows]
    table[rows] -= lr * g
    _end_step(table, rows, options)


def adagrad_step(
    table: F64,
    state_sum: F64,
    indices: ArrayLike,
    grads: F64,
    *,
    lr: float,
    eps: float = 1e-10,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: ArrayLike | None = None,
    options: StepOptions = DEFAULTS,
) -> None:
    """state_sum += g^2; table -= lr * g / (sqrt(state_sum) + eps)"""
    rows, g = _begin_step(table, (indices, grads, offsets, weights, mode, padding_idx, argmax), options, lr)
    state_sum[rows] += g**2
    table[rows] -= lr * g / (np.sqrt(state_sum[rows]) + eps)
    _end_step(table, rows, options)


def rowwise_adagrad_step(
    table: F64,
    state_sum: F64,
    indices: ArrayLike,
    grads: F64,
    *,
    lr: float,
    eps: float = 1e-10,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: ArrayLike | None = None,
    options: StepOptions = DEFAULTS,
) -> None:
    """state_sum[r] += mean over d of g[r, d]^2; table[r] -= lr * g[r] / (sqrt(state_sum[r]) + eps)"""
    rows, g = _begin_step(table, (indices, grads, offsets, weights, mode, padding_idx, argmax), options, lr)
    if table.shape[1]:
        state_sum[rows] += (g**2).mean(axis=1)
    table[rows] -= lr * g / (np.sqrt(state_sum[rows, None]) + eps)
    _end_step(table, rows, options)


def rmsprop_step(
    table: F64,
    square_avg: F64,
    indices: ArrayLike,
    grads: F64,
    *,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    offsets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    mode: str = "sum",
    padding_idx: int | None = None,
    argmax: ArrayLike | None = None,
    options: StepOptions = DEFAULTS,
) -> None:
    """square_avg = alpha * square_avg + (1 - alpha) * g^2; table -= lr * g / (sqrt(square_avg) + eps)"""
    rows, g = _begin_step(table, (indices, grads, offsets, weights, mode, padding_idx, argmax), options, lr)
    square_avg[rows] = alpha * square_avg[rows] + (1 - alpha) * g**2
    table[rows] -= lr * g / (np.sqrt(square_avg[rows]) + eps)
    _end_step(table, rows, options)


def adam_step(
    table: F64,
    exp_avg: F64,
    exp_avg_sq: F64,
    indices: ArrayLike,
    grads: F64,
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
    argmax: ArrayLike | None = None,
    options: StepOptions = DEFAULTS,
) -> None:
    """m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g^2, both of the rows looked up alone;
    table -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps), where t is `step`, or counts the row's steps.

    epsilon_hat: table -= lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps) instead.
    """
    rows, g = _begin_step(table, (indices, grads, offsets, weights, mode, padding_idx, argmax), options, lr)
    exp_avg[rows] = beta1 * exp_avg[rows] + (1 - beta1) * g
    exp_avg_sq[rows] = beta2 * exp_avg_sq[rows] + (1 - beta2) * g**2
    t: Any = np.float64(step)
    if row_steps is not None:
        row_steps[rows] += row_steps[rows] < 2**31 - 1
        t = row_steps[rows, None].astype(np.float64)
    root = np.sqrt(1 - beta2**t)
    table[rows] -= (
        lr * root / (1 - beta1**t) * exp_avg[rows] / (np.sqrt(exp_avg_sq[rows]) + (eps if epsilon_hat else eps * root))
    )
    _end_step(table, rows, options)
