"""Optimizer steps: the gradient of each row is summed, then row and state are read and written once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from hotrow._numba.half import round_rows, row_to_update, table_view, widen_rows
from hotrow._numba.scatter import blocks_of_rows, by_row, sum_rows
from hotrow._numba.views import jit, matrix, parallel, prefetch_row, row, scalar, vector
from hotrow._ops import OPS

# by_freq, clip_norm, clip_value, weight_decay, decoupled, max_norm, stochastic, key: see hotrow.steps.StepOptions
_OPTIONS = 8


class Options(NamedTuple):
    """What is done to gradients and rows; numbers are of the dtype that is computed with."""

    clip: Any  # a factor, 1 unless the norm of all gradients together is above clip_norm
    clip_value: Any
    decays: bool  # gradient += row * decay
    decay: Any
    keep: Any  # row *= keep
    max_norm: Any
    stochastic: bool
    key: Any  # of the draws that round the update; the next one for max_norm


# --- options ----------------------------------------------------------------------------------------------------------


@jit
def _squares(x, lanes):
    """sum of x[d]^2: lane d % L first, ascending d, then the lanes folded in halves"""
    lanes[:] = 0
    whole, mask = x.size // 8 * 8, lanes.size - 1
    for begin in range(0, whole, 8):
        lane = begin & mask
        for k in range(8):  # a constant: it is unrolled
            lanes[lane + k] += x[begin + k] * x[begin + k]
    for d in range(whole, x.size):
        lanes[d & mask] += x[d] * x[d]
    half = lanes.size // 2
    while half:
        for k in range(half):
            lanes[k] += lanes[k + half]
        half //= 2
    return lanes[0]


@jit
def _lanes(lookups):
    """What _squares needs: 64 bytes of lanes."""
    flat = lookups.partials[0]
    return np.empty(64 // flat.itemsize, flat.dtype)


@jit
def _squares_of_rows(lookups, begin, end, squares):
    """squares[u] = sum over d of the gradient of rows[u] squared"""
    (step, block, _), lanes = blocks_of_rows(lookups), _lanes(lookups)
    for first in range(begin, end, step):
        last = min(first + step, end)
        sum_rows(lookups, first, last, first, block)
        for u in range(first, last):
            squares[u] = _squares(row(block, u - first), lanes)


@jit
def _norm(squares):
    total = 0.0
    for u in range(squares.size):
        total += squares[u]
    return math.sqrt(total)


@jit
def _begin(lookups, options, begin, end, table, block, wide):
    """Gradients of rows begin .. end - 1: summed, clipped and with L2 decay; a decoupled decay of the rows."""
    rows = lookups.rows
    for u in range(begin, end):
        prefetch_row(table, rows[u])
    sum_rows(lookups, begin, end, begin, block)
    widen_rows(table, rows, begin, end, wide)
    clip, c, decays, decay, keep = options[:5]
    if clip == 1 and c == math.inf and not decays and keep == 1:
        return
    for u in range(begin, end):
        g, w = row(block, u - begin), row_to_update(table, rows[u], wide, u - begin)
        if clip != 1:
            for d in range(g.size):
                g[d] *= clip
        if c < math.inf:
            for d in range(g.size):
                x = c if g[d] > c else g[d]
                g[d] = -c if x < -c else x
        if decays:
            for d in range(g.size):
                g[d] += w[d] * decay
        if keep != 1:
            for d in range(g.size):
                w[d] *= keep


@jit
def _end(lookups, options, begin, end, table, wide, lanes):
    """Rows begin .. end - 1 are stored, and scaled down to max_norm if their norm is larger."""
    rows, max_norm, stochastic, key = lookups.rows, options.max_norm, options.stochastic, options.key
    round_rows(table, rows, begin, end, wide, stochastic, key)
    if max_norm == math.inf:
        return
    widen_rows(table, rows, begin, end, wide)
    for u in range(begin, end):
        w = row_to_update(table, rows[u], wide, u - begin)
        norm = math.sqrt(_squares(w, lanes))
        if norm > max_norm:
            factor = max_norm / (norm + lanes.dtype.type(1e-7))
            for d in range(w.size):
                w[d] *= factor
    round_rows(table, rows, begin, end, wide, stochastic, key + np.uint64(1))  # does nothing to the other rows


class _Step:
    """The arguments of an optimizer step, the lookups sorted by row."""

    def __init__(self, op: str, arguments: tuple[Any, ...]) -> None:
        arrays, rest = arguments[: len(OPS[op])], arguments[len(OPS[op]) :]
        (mode, padding_idx), options = rest[:2], rest[2 : 2 + _OPTIONS]
        by_freq, clip_norm, clip_value, weight_decay, decoupled, max_norm, stochastic, key = options
        *hyperparameters, threads = rest[2 + _OPTIONS :]
        self.grads, self.states, self.table, self.hyperparameters = arrays[4], arrays[5:-1], arrays[-1], hyperparameters
        self._lookups, self._ranges = by_row(*(*arrays[:5], mode, padding_idx, by_freq, threads))
        keep = 1 - hyperparameters[0] * weight_decay if decoupled else 1.0  # lr comes first everywhere
        self._options = Options(
            self.scalar(self._clip(clip_norm)), self.scalar(clip_value),
            weight_decay != 0 and not decoupled, self.scalar(weight_decay), self.scalar(keep), self.scalar(max_norm),
            stochastic, np.uint64(key),
        )  # fmt: skip

    def _clip(self, clip_norm: float) -> float:
        if clip_norm == math.inf:
            return 1.0
        squares = np.empty(self._lookups.rows.size)
        parallel(_squares_of_rows, [(self._lookups, *piece, squares) for piece in self._ranges])
        norm = float(_norm(squares))
        return min(1.0, clip_norm / norm) if norm > clip_norm else 1.0

    def scalar(self, x: float) -> Any:
        return scalar(x, self.grads)

    def run(self, kernel: Callable[..., Any], scalars: tuple[Any, ...], *states: Any) -> None:
        t = table_view(self.table, True)
        parallel(kernel, [(self._lookups, self._options, scalars, *piece, *states, t) for piece in self._ranges])


# --- sgd_step ---------------------------------------------------------------------------------------------------------


@jit
def _sgd_step(lookups, options, scalars, begin, end, momentum_buffer, table):
    """w -= lr * g; with momentum b = b * momentum + g; w -= lr * (g + b * momentum if nesterov else b)"""
    lr, momentum, nesterov, buffered = scalars
    rows, (step, block, wide), lanes = lookups.rows, blocks_of_rows(lookups), _lanes(lookups)
    for first in range(begin, end, step):
        last = min(first + step, end)
        _begin(lookups, options, first, last, table, block, wide)
        for u in range(first, last):
            g, w = row(block, u - first), row_to_update(table, rows[u], wide, u - first)
            if buffered:
                b = row(momentum_buffer, rows[u])
                for d in range(g.size):
                    b[d] = b[d] * momentum + g[d]
                    g[d] = g[d] + b[d] * momentum if nesterov else b[d]
            for d in range(g.size):
                w[d] -= g[d] * lr
        _end(lookups, options, first, last, table, wide, lanes)


def sgd_step(*arguments: Any) -> None:
    step = _Step("sgd_step", arguments)
    (buffer,), (lr, momentum, nesterov) = step.states, step.hyperparameters
    b = matrix(np.empty((0, 0), step.grads.dtype) if buffer is None else buffer, True)
    step.run(_sgd_step, (step.scalar(lr), step.scalar(momentum), bool(nesterov), buffer is not None), b)


# --- adagrad_step -----------------------------------------------------------------------------------------------------


@jit
def _adagrad_step(lookups, options, scalars, begin, end, state_sum, table):
    """s += g^2; w -= g * lr / (sqrt(s) + eps)"""
    lr, eps = scalars
    rows, (step, block, wide), lanes = lookups.rows, blocks_of_rows(lookups), _lanes(lookups)
    for first in range(begin, end, step):
        last = min(first + step, end)
        _begin(lookups, options, first, last, table, block, wide)
        for u in range(first, last):
            g, w, s = row(block, u - first), row_to_update(table, rows[u], wide, u - first), row(state_sum, rows[u])
            for d in range(g.size):
                s[d] += g[d] * g[d]
                w[d] -= (g[d] * lr) / (math.sqrt(s[d]) + eps)
        _end(lookups, options, first, last, table, wide, lanes)


def adagrad_step(*arguments: Any) -> None:
    step = _Step("adagrad_step", arguments)
    step.run(_adagrad_step, tuple(map(step.scalar, step.hyperparameters)), matrix(step.states[0], True))


# --- rowwise_adagrad_step ---------------------------------------------------------------------------------------------


@jit
def _rowwise_adagrad_step(lookups, options, scalars, begin, end, state_sum, table):
    """s[r] += sum over d of g^2 / D; w -= g * (lr / (sqrt(s[r]) + eps))"""
    lr, eps, width = scalars
    rows, (step, block, wide), lanes = lookups.rows, blocks_of_rows(lookups), _lanes(lookups)
    for first in range(begin, end, step):
        last = min(first + step, end)
        _begin(lookups, options, first, last, table, block, wide)
        for u in range(first, last):
            r = rows[u]
            g, w = row(block, u - first), row_to_update(table, r, wide, u - first)
            state_sum[r] += _squares(g, lanes) / width
            rate = lr / (math.sqrt(state_sum[r]) + eps)
            for d in range(g.size):
                w[d] -= g[d] * rate
        _end(lookups, options, first, last, table, wide, lanes)


def rowwise_adagrad_step(*arguments: Any) -> None:
    step = _Step("rowwise_adagrad_step", arguments)
    scalars = (*step.hyperparameters, step.table.shape[1])
    step.run(_rowwise_adagrad_step, tuple(map(step.scalar, scalars)), step.states[0])


# --- rmsprop_step -----------------------------------------------------------------------------------------------------


@jit
def _rmsprop_step(lookups, options, scalars, begin, end, square_avg, table):
    """v = v * alpha + g^2 * (1 - alpha); w -= g * lr / (sqrt(v) + eps)"""
    lr, alpha, rest, eps = scalars
    rows, (step, block, wide), lanes = lookups.rows, blocks_of_rows(lookups), _lanes(lookups)
    for first in range(begin, end, step):
        last = min(first + step, end)
        _begin(lookups, options, first, last, table, block, wide)
        for u in range(first, last):
            g, w, v = row(block, u - first), row_to_update(table, rows[u], wide, u - first), row(square_avg, rows[u])
            for d in range(g.size):
                v[d] = v[d] * alpha + (g[d] * g[d]) * rest
                w[d] -= (g[d] * lr) / (math.sqrt(v[d]) + eps)
        _end(lookups, options, first, last, table, wide, lanes)


def rmsprop_step(*arguments: Any) -> None:
    step = _Step("rmsprop_step", arguments)
    lr, alpha, eps = step.hyperparameters
    step.run(_rmsprop_step, tuple(map(step.scalar, (lr, alpha, 1 - alpha, eps))), matrix(step.states[0], True))


# --- adam_step --------------------------------------------------------------------------------------------------------


@jit
def _adam_step(lookups, options, scalars, begin, end, exp_avg, exp_avg_sq, row_steps, table):
    """m = m * beta1 + g * (1 - beta1); v = v * beta2 + g^2 * (1 - beta2); w -= m * rate / (sqrt(v) + eps)

    With corrections, rate and eps are times those of the row's own count of steps, or of the last it has.
    """
    beta1, rest1, beta2, rest2, rate, eps, corrections = scalars
    row_rate, row_eps = rate, eps
    rows, (step, block, wide), lanes = lookups.rows, blocks_of_rows(lookups), _lanes(lookups)
    for first in range(begin, end, step):
        last = min(first + step, end)
        _begin(lookups, options, first, last, table, block, wide)
        for u in range(first, last):
            r = rows[u]
            g, w = row(block, u - first), row_to_update(table, r, wide, u - first)
            m, v = row(exp_avg, r), row(exp_avg_sq, r)
            if len(corrections):
                if row_steps[r] < 2147483647:
                    row_steps[r] += 1
                t = max(1, min(row_steps[r], len(corrections)))
                row_rate, row_eps = rate * corrections[t - 1, 0], eps * corrections[t - 1, 1]
            for d in range(g.size):
                m[d] = m[d] * beta1 + g[d] * rest1
                v[d] = v[d] * beta2 + (g[d] * g[d]) * rest2
                w[d] -= (m[d] * row_rate) / (math.sqrt(v[d]) + row_eps)
        _end(lookups, options, first, last, table, wide, lanes)


def adam_step(*arguments: Any) -> None:
    step = _Step("adam_step", arguments)
    _, beta1, beta2, rate, eps, corrections = step.hyperparameters
    scalars = tuple(map(step.scalar, (beta1, 1 - beta1, beta2, 1 - beta2, rate, eps)))
    exp_avg, exp_avg_sq, row_steps = step.states
    if corrections is None:
        row_steps, corrections = np.empty(0, np.int32), np.empty((0, 2), step.grads.dtype)
    moments = matrix(exp_avg, True), matrix(exp_avg_sq, True)
    step.run(_adam_step, (*scalars, vector(corrections)), *moments, row_steps)
