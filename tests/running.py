"""Arithmetic that carries a bound of its rounding errors along, for the definitions in hotrow.reference to run on.

An operation adds the errors of its operands, to first order and beyond, and eps of its result. Numbers that are not
Running are charged eps of their own: scalars are rounded to the dtype of the table. With eps, twice the unit roundoff,
this pays for the float64 of the reference too and for factors taken together in another order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from cases import Array


class Running(NDArrayOperatorsMixin):
    """Numbers and how far each may be from what exact arithmetic gives. That of a comparison says: either way."""

    def __init__(self, value: Any, eps: float, error: Any = 0.0) -> None:
        self.value = np.asarray(value)
        self.eps = eps
        self.error: Array = np.broadcast_to(error, self.value.shape).astype(float)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, where: Any) -> Running:
        return Running(self.value[where], self.eps, self.error[where])

    def __setitem__(self, where: Any, other: Running) -> None:
        self.value[where], self.error[where] = other.value, other.error

    def sum(self, axis: int, keepdims: bool = False) -> Running:
        def total(a: Array) -> Array:
            return np.sum(a, axis=axis, keepdims=keepdims)

        error = total(self.error) + total(self.value != 0) * self.eps * total(abs(self.value) + self.error)
        return Running(total(self.value), self.eps, error)

    def mean(self, axis: int) -> Running:
        return self.sum(axis) / self.shape[axis]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **_: Any) -> Running:
        """Of augmented assignments, `out` is left alone: the result is bound to the name."""
        assert method == "__call__"
        x, dx, y, dy = _operands(inputs, self.eps)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = ufunc(*(getattr(v, "value", v) for v in inputs))
            match ufunc.__name__:
                case "add" | "subtract":
                    error = dx + dy
                case "multiply":
                    error = abs(x) * dy + dx * abs(y) + dx * dy
                case "divide":
                    numerator = dx + abs(value) * dy
                    error = np.where(numerator > 0, numerator / np.maximum(abs(y) - dy, 0), 0)
                case "power" if y == 2:
                    error = 2 * abs(x) * dx + dx**2
                case "sqrt":
                    error = np.maximum(np.sqrt(x + dx) - value, value - np.sqrt(np.maximum(x - dx, 0)))
                case "matmul":
                    products = (x != 0).astype(float) @ (y != 0)
                    error = abs(x) @ dy + dx @ (abs(y) + dy) + products * self.eps * (abs(x) @ abs(y))
                case "greater":
                    return Running(value, self.eps, abs(x - y) <= dx + dy)
                case name:
                    raise NotImplementedError(name)
        return Running(value, self.eps, error + self.eps * (abs(value) + error))

    def __array_function__(self, function: Any, _: Any, args: Any, options: Any) -> Any:
        match function.__name__:
            case "norm" if options:  # squares are summed along the row
                return np.sqrt((self**2).sum(**options))
            case "norm":  # of all: its error is the gradient's already, see bounds
                return np.linalg.norm(self.value)
            case "clip":
                _, low, high = args
                clipped = abs(self.value) + self.error >= high  # to what is rounded itself
                return Running(np.clip(self.value, low, high), self.eps, self.error + clipped * self.eps * high)
            case "where":
                decided = args[0]
                a, da, b, db = _operands(args[1:], self.eps)
                either = np.maximum(da, db) + abs(a - b)
                error = np.where(decided.error > 0, either, np.where(decided.value, da, db))
                return Running(np.where(decided.value, a, b), self.eps, error)
            case name:
                raise NotImplementedError(name)


def _operands(inputs: Any, eps: float) -> tuple[Any, Any, Any, Any]:
    """Values and errors of one or two operands."""
    both = [x if isinstance(x, Running) else Running(x, eps, eps * np.abs(x)) for x in inputs]
    x, y = both[0], both[-1]
    return x.value, x.error, y.value, y.error
