"""What the reference makes of a case, and how far from it a result may be.

A sum of n products, each rounded, is wrong by at most (n + 1) u sum |terms| / (1 - n u), u = eps / 2 (Higham 2002,
section 3.1). The sum of absolute terms is the reference run on absolute values; eps in place of u pays for the
denominator and for the reference's own float64. Skip-gram steps build on each other: their bound is carried along with
the reference, window by window.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from cases import Array, Case
from hotrow import reference
from hotrow._ops import OPS

Results = dict[str, Any]


def results(module: ModuleType, op: str, case: Case) -> Results:
    """Run an operator: the tables it updated, by name, and what it returned."""
    returned = getattr(module, op)(**case)
    found = {arg.name: case[arg.name] for arg in OPS[op] if arg.role == "inout"}
    if op == "coalesce":
        return found | returned._asdict()
    return found if returned is None else found | {"result": returned}


def _floats(case: Case, change: Callable[[Array], Array]) -> Case:
    """A case for the reference: without outputs, float arrays as changed copies."""
    kinds = {k: isinstance(v, np.ndarray) and v.dtype.kind == "f" for k, v in case.items()}
    return {k: change(v.astype(np.float64)) if kinds[k] else v for k, v in case.items() if k != "out"}


def _absolute(case: Case) -> Case:
    numbers = {k: abs(case[k]) for k in ("scale", "lr") if k in case}
    return _floats(case, lambda a: np.abs(np.nan_to_num(a))) | numbers


def _embedding_bag(case: Case, eps: float) -> Results:
    magnitude, mode = _absolute(case), case.get("mode", "sum")
    if mode == "max":  # a product and its rounding
        return {"result": eps * reference.embedding_bag(**magnitude)}
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


def _update(op: str, case: Case, eps: float) -> Results:
    """table[r] + factor * (n gradients): the factor's rounding, n products, n additions."""
    magnitude, count = _absolute(case), np.zeros((len(case["table"]), 1))
    reference.scatter_add(count, case["indices"], np.ones((len(case["grads"]), 1)))
    if op == "sgd_step":
        magnitude["lr"] *= -1
    bound = results(reference, op, magnitude)["table"]
    return {"table": np.where(count > 0, (count + 3) * eps * bound, 0)}


def _coalesce(case: Case, eps: float) -> Results:
    count = reference.coalesce(case["indices"], np.ones((len(case["grads"]), 1))).values
    return {"rows": 0, "values": count * eps * results(reference, "coalesce", _absolute(case))["values"]}


BOUNDS: dict[str, Callable[[Case, float], Results]] = {
    "gather": lambda case, eps: {"result": 0},
    "embedding_bag": _embedding_bag,
    "scatter_add": partial(_update, "scatter_add"),
    "coalesce": _coalesce,
    "sgd_step": partial(_update, "sgd_step"),
}


class _Window:
    """reference._window with a running error analysis: wrong[table] bounds every element's error so far.

    x = h . o is wrong by the errors of h and o and (D + 2) eps |h| . |o|. A coefficient c = lr sigmoid(+-x), whose
    slope is at most lr / 4, is wrong by lr / 4 of that and 8 roundings. A row changed by n products of coefficients and
    rows is wrong by their errors and (n + 4) eps of its absolute terms. The loss of a pair has slope 1 at most; up to
    60 pairs per lane are added in the dtype of the tables.
    """

    def __init__(self, case: Case, eps: float, step: Callable[..., float]) -> None:
        self.eps, self.step = eps, step
        self.wrong_in, self.wrong_out = np.zeros(case["in_table"].shape), np.zeros(case["out_table"].shape)
        self.wrong_loss, self.pairs = 0.0, 0

    def __call__(self, in_table: Array, out_table: Array, inputs: Any, outputs: Any, lr: float) -> float:
        a, b = reference.one_hot(inputs, len(in_table)), reference.one_hot(outputs, len(out_table))
        h, o, wrong_h, wrong_o = a @ in_table, b @ out_table, a @ self.wrong_in, b @ self.wrong_out
        eps, terms = self.eps, len(h) + len(o) + 4
        x = (h @ o.T) * np.where(np.arange(len(o)) == 0, -1, 1)
        h, o = abs(h), abs(o)
        wrong_x = wrong_h @ o.T + (h + wrong_h) @ wrong_o.T
        wrong_x += (h.shape[1] + 2) * eps * (h + wrong_h) @ (o + wrong_o).T
        c = lr / (1 + np.exp(-x))
        wrong_c = lr * wrong_x / 4 + 8 * eps * c
        for wrong, rows, which, change, wrong_change in (
            (self.wrong_in, in_table, a, c @ o, wrong_c @ (o + wrong_o) + c @ wrong_o),
            (self.wrong_out, out_table, b, c.T @ h, wrong_c.T @ (h + wrong_h) + c.T @ wrong_h),
        ):
            touched = which.any(axis=0)[:, None]
            wrong += which.T @ wrong_change + terms * eps * (touched * abs(rows) + which.T @ change)
        self.wrong_loss += float((wrong_x + 64 * eps * np.maximum(x, 0) + 4 * eps).sum())
        self.pairs += len(h)
        return self.step(in_table, out_table, inputs, outputs, lr)


def expected(op: str, case: Case, dtype: Any) -> tuple[Results, Results]:
    """The reference's results and how far those in `dtype` may be from them, by name."""
    exact, eps = _floats(case, np.nan_to_num), float(np.finfo(dtype).eps)
    if op in BOUNDS:
        want, bound = results(reference, op, exact), BOUNDS[op](case, eps)
    else:
        window = _Window(case, eps, reference._window)
        with mock.patch.object(reference, "_window", window):
            want = results(reference, op, exact)
        bound = {"in_table": window.wrong_in, "out_table": window.wrong_out}
        bound["result"] = window.wrong_loss / max(window.pairs, 1)
    # The one-hot product spreads a NaN to every row, a lookup must not: follow them on their own.
    for name in want:
        if name in case:
            want[name][np.isnan(case[name])] = np.nan
    if "table" in case and "result" in want and np.isnan(case["table"]).any():
        spoilt = exact | {"table": np.isnan(case["table"]).astype(float)}
        read = {k: v for k, v in spoilt.items() if k not in ("mode", "weights")}
        want["result"][getattr(reference, op)(**read) > 0] = np.nan
    for name in want:
        largest = max(1.0, np.abs(np.nan_to_num(want[name])).max(initial=0))
        assert np.max(bound[name], initial=0) <= 2**18 * eps * largest, f"the bound of {name} is too loose to tell"
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
