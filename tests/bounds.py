"""What the reference makes of a case, and how far from it a result may be.

A sum of n products, each rounded, is wrong by at most (n + 1) u sum |terms| / (1 - n u), u = eps / 2 (Higham 2002,
section 3.1). The sum of absolute terms is the reference run on absolute values; eps in place of u pays for the
denominator and for the reference's own float64. What comes after the sums is not linear, and skip-gram steps build on
each other: their bounds are carried along with the reference, operation by operation and window by window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from cases import Array, Case
from hotrow import reference
from hotrow._ops import OPS
from hotrow.steps import DEFAULTS, StepOptions
from running import Running

Results = dict[str, Any]


def results(module: ModuleType, op: str, case: Case) -> Results:
    """Run an operator: the tables it updated, by name, and what it returned."""
    returned = getattr(module, op)(**case)
    found = {arg.name: case[arg.name] for arg in OPS[op] if arg.role == "inout" and case.get(arg.name) is not None}
    if op == "coalesce":
        return found | returned._asdict()
    return found if returned is None else found | {"result": returned}


def _floats(case: Case, change: Callable[[Array], Array]) -> Case:
    """A case for the reference: without outputs, arrays as copies, those of floats changed."""
    arrays = {k: v.copy() for k, v in case.items() if isinstance(v, np.ndarray) and k != "out"}
    floats = {k: change(v.astype(np.float64)) for k, v in arrays.items() if v.dtype.kind == "f"}
    return {k: v for k, v in case.items() if k != "out"} | arrays | floats


def _absolute(case: Case) -> Case:
    return _floats(case, lambda a: np.abs(np.nan_to_num(a)))


def _embedding_bag(case: Case, eps: float) -> Results:
    magnitude, mode = _absolute(case), case.get("mode", "sum")
    if mode == "max":  # a product and its rounding
        return {"result": eps * reference.embedding_bag(**magnitude), "argmax": 0}
    w = case.get("weights")
    rest = {k: v for k, v in magnitude.items() if k in ("indices", "offsets", "padding_idx")}
    total = reference.embedding_bag(**magnitude | {"mode": "sum"})
    ones = partial(reference.embedding_bag, np.ones((len(case["table"]), 1)), **rest)
    count = ones()
    if mode == "sum":
        return {"result": (count + 1) * eps * total}
    divisor = ones(weights=w) if mode == "mean" else np.sqrt(ones(weights=None if w is None else w.astype(float) ** 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Weights that cancel make their sum, and so the mean, that much less certain.
        cancelled = ones(weights=magnitude.get("weights")) / abs(divisor) if mode == "mean" else 1.0
        bound = (count + 4) * eps * (1 + cancelled) * total / abs(divisor)
    return {"result": np.where(divisor == 0, 0, bound)}


def _uncertain(member: Array, w: Array, mode: str) -> Array:
    """How far a bag's factor may be off, relatively: its divisor is a sum in float64, which may cancel."""
    if mode in ("sum", "max"):
        return np.zeros(len(member))
    total = abs(member @ w)
    cancelled = np.divide(member @ abs(w), total, out=np.ones_like(total), where=total != 0) if mode == "mean" else 1.0
    return member.sum(axis=1) * 2.0**-53 * cancelled


class _Gradient:
    """reference's table_gradient with the error of its sums: n terms of a row in chunks of 1024, three factors at most.

    Of clip_norm: all is scaled by one over the norm, which is as wrong as the norm of the errors and its own n sums.
    """

    def __init__(self, eps: float, options: StepOptions) -> None:
        self.eps, self.exact, self.options = eps, reference.lookups.table_gradient, options

    def __call__(
        self, rows: int, indices: Array, grads: Array, offsets: Any, weights: Any, mode: str, padding: Any, argmax: Any
    ) -> tuple[Running, Array]:
        value, counts = self.exact(rows, indices, grads, offsets, weights, mode, padding, argmax)
        member, w, factor = reference.lookups._bags(indices, offsets, weights, mode, padding)
        roundings = np.minimum(counts, 1024) + counts // 1024 + 3
        share = abs(w) * (roundings[indices] * self.eps * (member.T @ abs(factor)))
        share += abs(w) * (member.T @ (abs(factor) * _uncertain(member, w, mode)))
        pool = mode if mode == "max" else "sum"
        error, _ = self.exact(rows, indices, abs(grads), offsets, share, pool, padding, argmax)
        if self.options.clip_norm is not None:
            often = np.maximum(counts, 1)[:, None] if self.options.scale_grad_by_freq else 1
            norm = max(float(np.linalg.norm(value / often)), 1e-300)
            error += abs(value) * (np.linalg.norm(error / often) / norm + (sum(value.shape) + 3) * self.eps)
        return Running(value, self.eps, error), counts


def _run(op: str, exact: Case, eps: float) -> tuple[Results, Results]:
    """The reference on numbers that carry their errors along."""
    names = [a.name for a in OPS[op] if a.role == "inout" and a.dtype in "EF" and a.name in exact]
    if op == "weights_grad":
        names = ["grads"]
    running = exact | {name: Running(exact[name], eps) for name in names}
    bags, gradient = reference.lookups._bags, _Gradient(eps, exact.get("options", DEFAULTS))

    def uncertain_bags(*lookups: Any) -> tuple[Array, Array, Any]:
        member, w, factor = bags(*lookups)
        return member, w, Running(factor, eps, abs(factor) * (eps + _uncertain(member, w, lookups[3])))

    patch = {"_bags": uncertain_bags} if op == "weights_grad" else {"table_gradient": gradient}
    with mock.patch.multiple(reference.lookups, **patch):
        found = results(reference, op, running)
    want = {name: x.value if isinstance(x, Running) else x for name, x in found.items()}
    return want, {name: x.error if isinstance(x, Running) else 0 for name, x in found.items()}


class _Inputs(Array):
    """Inputs of a window, how far they are wrong, and of how many rows each is the sum."""

    wrong: Array
    rows: Array


class _Windows:
    """reference.skipgram's _inputs, _score and _update with a running error analysis: wrong_in and wrong_out bound
    every element's error so far.

    h = pool @ in_table, of n rows each, is wrong by their errors and, unless n is 1, n + 2 roundings. x = h . o is
    wrong by the errors of h and o and (D + 2) eps |h| . |o|. A coefficient c = lr sigmoid(+-x), whose slope is at most
    lr / 4, is wrong by lr / 4 of that and 8 roundings. A row changed by n products of coefficients and rows is wrong by
    their errors and (n + 6) eps of its absolute terms. The loss of a pair has slope 1 at most; up to 60 pairs per lane
    are added in the dtype of the tables.
    """

    def __init__(self, case: Case, eps: float) -> None:
        self.eps, self.original = eps, (reference.skipgram._score, reference.skipgram._update)
        self.wrong_in, self.wrong_out = np.zeros(case["in_table"].shape), np.zeros(case["out_table"].shape)
        self.wrong_loss, self.terms = 0.0, 0
        self.coefficients: deque[tuple[Array, Array]] = deque()  # of windows scored, and how far they are wrong

    def inputs(self, in_table: Array, window: Any) -> _Inputs:
        h = (window.pool @ in_table).view(_Inputs)
        h.rows = np.rint(window.pool.sum(axis=1, keepdims=True) * window.spread.sum(axis=1, keepdims=True))
        rounded = np.where(h.rows > 1, h.rows + 2, 0) * self.eps * window.pool @ (abs(in_table) + self.wrong_in)
        h.wrong = window.pool @ self.wrong_in + rounded
        return h

    def score(self, in_table: Array, out_table: Array, window: Any, given: _Inputs | None) -> Any:
        inputs = self.inputs(in_table, window) if given is None else given
        b, eps = reference.one_hot(window.outputs, len(out_table)), self.eps
        h, o, wrong_h, wrong_o = np.asarray(inputs), b @ out_table, inputs.wrong, b @ self.wrong_out
        x = (h @ o.T) * np.where(window.positive, -1, 1)
        h, o = abs(h), abs(o)
        wrong_x = wrong_h @ o.T + (h + wrong_h) @ wrong_o.T
        wrong_x += (h.shape[1] + 2) * eps * (h + wrong_h) @ (o + wrong_o).T
        c = window.lr / (1 + np.exp(-x))
        self.coefficients.append((c, window.lr * wrong_x / 4 + 8 * eps * c))
        self.wrong_loss += float((wrong_x + 64 * eps * np.maximum(x, 0) + 4 * eps).sum())
        self.terms += len(h)
        return self.original[0](in_table, out_table, window, given)

    def update(self, in_table: Array, out_table: Array, window: Any, given: _Inputs | None, g: Array) -> None:
        inputs = self.inputs(in_table, window) if given is None else given
        b, (c, wrong_c) = reference.one_hot(window.outputs, len(out_table)), self.coefficients.popleft()
        h, o, wrong_h, wrong_o = abs(np.asarray(inputs)), abs(b @ out_table), inputs.wrong, b @ self.wrong_out
        terms = inputs.rows.sum() + len(o) + 6
        for wrong, rows, which, change, wrong_change in (
            (self.wrong_in, in_table, window.spread, c @ o, wrong_c @ (o + wrong_o) + c @ wrong_o),
            (self.wrong_out, out_table, b, c.T @ h, wrong_c.T @ (h + wrong_h) + c.T @ wrong_h),
        ):
            touched = which.any(axis=0)[:, None]
            wrong += which.T @ wrong_change + terms * self.eps * (touched * abs(rows) + which.T @ change)
        self.original[1](in_table, out_table, window, given, g)


def _windows(op: str, exact: Case, eps: float) -> tuple[Results, Results]:
    windows = _Windows(exact, eps)
    with mock.patch.multiple(reference.skipgram, _inputs=windows.inputs, _score=windows.score, _update=windows.update):
        want = results(reference, op, exact)
    loss = windows.wrong_loss / max(windows.terms, 1)
    return want, {"in_table": windows.wrong_in, "out_table": windows.wrong_out, "result": loss}


def _analysed(op: str, case: Case, eps: float) -> tuple[Results, Results]:
    exact = _floats(case, np.nan_to_num)
    match op:
        case "gather":
            scaled = eps * reference.gather(**_absolute(case)) if "scales" in case else 0
            return results(reference, op, exact), {"result": scaled}
        case "embedding_bag":
            return results(reference, op, exact), _embedding_bag(case, eps)
        case "weights_grad" if case.get("mode") == "max":  # a dot product over the columns that came from a lookup
            terms = reference.weights_grad(**_absolute(case))
            return results(reference, op, exact), {"result": (case["table"].shape[1] + 1) * eps * terms}
        case "skipgram_step" | "skipgram_epoch" | "cbow_epoch" | "skipgram_hs_epoch" | "cbow_hs_epoch":
            return _windows(op, exact, eps)
    return _run(op, exact, eps)


def expected(op: str, case: Case, dtype: Any) -> tuple[Results, Results]:
    """The reference's results and how far those in `dtype` may be from them, by name."""
    eps = float(np.finfo(dtype).eps)
    want, bound = _analysed(op, case, eps)
    # The one-hot product spreads a NaN to every row, a lookup must not: follow them on their own.
    for name in want:
        if name in case and case[name].dtype.kind == "f":
            want[name][np.isnan(case[name])] = np.nan
    if "table" in case and "result" in want and np.isnan(case["table"]).any():
        spoilt = _absolute(case) | {"table": np.isnan(case["table"]).astype(float)}
        read = {k: v for k, v in spoilt.items() if k not in ("mode", "weights")}
        want["result"][getattr(reference, op)(**read) > 0] = np.nan
    for name in want:
        largest = max(1.0, np.abs(np.nan_to_num(want[name])).max(initial=0))
        loose = np.asarray(bound[name]) > 2**18 * eps * largest  # single ones: quotients of numbers around 0
        assert loose.sum() <= 0.01 * loose.size, f"the bound of {name} is too loose to tell"
    if op.endswith("_epoch"):  # the loss of each block is rounded to 2^-20
        bound["result"] += -(-case["tokens"].size // reference.skipgram.TOKENS_PER_BLOCK) * 2.0**-21
    return want, bound


def assert_within(found: Results, want: Results, bound: Results) -> None:
    """Every result is where the bound allows, NaN where the reference is NaN, and nothing is missing."""
    assert found.keys() == want.keys()
    for name in want:
        f, w = np.asarray(found[name], np.float64), np.asarray(want[name], np.float64)
        assert f.shape == w.shape, name
        np.testing.assert_array_equal(np.isnan(f), np.isnan(w), f"NaN in {name}")
        over = np.nan_to_num(abs(f - w)) - bound[name]
        assert over.max(initial=0) <= 0, f"{name} is off by {abs(f - w).ravel()[np.argmax(over)]} at {np.argmax(over)}"
