"""The operator table in Python: the array arguments of every operator, in the order all backends take them.

Checks, backends, tests and benchmarks read it. Its twin is csrc/ops.def; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
INDICES = (np.dtype(np.int32), np.dtype(np.int64))
MODES = ("sum", "mean", "sqrtn", "max")  # as enum Mode in csrc/view.h


@dataclass(frozen=True, slots=True)
class Arg:
    """One array argument.

    dtype: "F" (the operator's float dtype), "I" (its index dtype) or the name of a fixed one.
    shape: a letter for each axis, equal letters being equal lengths; "..." is any number of axes, "B+1" is B + 1.
    role: "in", "inout" (updated in place) or "out" (overwritten, allocated when it is None).
    bound: the letter that the values must stay below, for indices.
    """

    name: str
    dtype: str
    shape: tuple[str, ...]
    role: str = "in"
    bound: str | None = None
    optional: bool = False


def _table(name: str = "table", role: str = "in") -> Arg:
    return Arg(name, "F", ("R", "D"), role)


def _indices(name: str = "indices", shape: tuple[str, ...] = ("N",), bound: str | None = "R") -> Arg:
    return Arg(name, "I", shape, bound=bound)


_GRADS = Arg("grads", "F", ("N", "D"))

OPS: dict[str, tuple[Arg, ...]] = {
    "gather": (_table(), _indices(shape=("...",)), Arg("out", "F", ("...", "D"), "out")),
    "embedding_bag": (
        _table(),
        _indices(),
        Arg("offsets", "int64", ("B+1",)),
        Arg("weights", "F", ("N",), optional=True),
        Arg("out", "F", ("B", "D"), "out"),
    ),
    "scatter_add": (_indices(), _GRADS, _table(role="inout")),
    "coalesce": (_indices(bound="int64"), _GRADS),
    "sgd_step": (_indices(), _GRADS, _table(role="inout")),
    "skipgram_step": (
        _indices("centers"),
        _indices("contexts", bound="Q"),
        _indices("negatives", ("N", "K"), bound="Q"),
        _table("in_table", "inout"),
        Arg("out_table", "F", ("Q", "D"), "inout"),
    ),
    "skipgram_epoch": (
        _indices("tokens", ("T",)),
        Arg("offsets", "int64", ("S+1",)),
        Arg("keep", "uint32", ("R",)),
        Arg("alias_accept", "uint32", ("R",)),
        Arg("alias_other", "int32", ("R",), bound="R"),
        _table("in_table", "inout"),
        _table("out_table", "inout"),
    ),
}
