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

    dtype: "E" (a table's elements: where the operator takes scales, int8 too, and an output of E is then float32), "F"
        (what is computed with: E, or float32 where E has 16 or 8 bits), "O" (F, or E of 16 bits), "I" (the operator's
        index dtype) or the name of a fixed one.
    shape: a letter for each axis, equal letters being equal lengths; "..." is any number of axes, "B+1" is B + 1.
    role: "in", "inout" (updated in place) or "out" (overwritten, allocated when it is None).
    bound: the letter that the values must stay below, for indices.
    optional: None is passed on; without offsets each lookup is a bag of its own, B = N.
    """

    name: str
    dtype: str
    shape: tuple[str, ...]
    role: str = "in"
    bound: str | None = None
    optional: bool = False


def _table(role: str = "in") -> Arg:
    return Arg("table", "E", ("R", "D"), role)


def _indices(name: str = "indices", shape: tuple[str, ...] = ("N",), bound: str | None = "R") -> Arg:
    return Arg(name, "I", shape, bound=bound)


# Of an int8 table: with any other it must be None.
_SCALES = Arg("scales", "float32", ("R",), optional=True)


def _state(name: str, shape: tuple[str, ...] = ("R", "D"), dtype: str = "F", optional: bool = False) -> Arg:
    return Arg(name, dtype, shape, "inout", optional=optional)


def _lookups(bound: str = "R") -> tuple[Arg, ...]:
    """What every gradient operator starts with."""
    return (
        _indices(bound=bound),
        Arg("offsets", "int64", ("B+1",), optional=True),
        Arg("weights", "F", ("N",), optional=True),
        Arg("argmax", "int32", ("B", "D"), optional=True),
        Arg("grads", "F", ("B", "D")),
    )


_TABLE = _table(role="inout")
_WORDS = (_indices("tokens", ("T",)), Arg("offsets", "int64", ("S+1",)), Arg("keep", "uint32", ("R",)))
_EPOCH = (
    *_WORDS,
    Arg("alias_accept", "uint32", ("R",)),
    Arg("alias_other", "int32", ("R",), bound="R"),
    Arg("in_table", "F", ("R", "D"), "inout"),
    Arg("out_table", "F", ("R", "D"), "inout"),
)
_HS_EPOCH = (
    *_WORDS,
    Arg("path_offsets", "int64", ("R+1",)),
    Arg("points", "int32", ("P",), bound="Q"),
    Arg("codes", "uint8", ("P",)),
    Arg("in_table", "F", ("R", "D"), "inout"),
    Arg("out_table", "F", ("Q", "D"), "inout"),
)

OPS: dict[str, tuple[Arg, ...]] = {
    "gather": (_table(), _indices(shape=("...",)), _SCALES, Arg("out", "E", ("...", "D"), "out")),
    "embedding_bag": (
        _table(),
        _indices(),
        Arg("offsets", "int64", ("B+1",)),
        _SCALES,
        Arg("weights", "F", ("N",), optional=True),
        Arg("argmax", "int32", ("B", "D"), "inout", optional=True),
        Arg("out", "O", ("B", "D"), "out"),
    ),
    "weights_grad": (
        _table(),
        _indices(),
        Arg("offsets", "int64", ("B+1",)),
        Arg("weights", "F", ("N",), optional=True),
        Arg("argmax", "int32", ("B", "D"), optional=True),
        Arg("grads", "F", ("B", "D")),
        Arg("out", "F", ("N",), "out"),
    ),
    "scatter_add": (*_lookups(), _TABLE),
    "coalesce": _lookups(bound="int64"),
    "sgd_step": (*_lookups(), _state("momentum_buffer", optional=True), _TABLE),
    "adagrad_step": (*_lookups(), _state("state_sum"), _TABLE),
    "rowwise_adagrad_step": (*_lookups(), _state("state_sum", ("R",)), _TABLE),
    "rmsprop_step": (*_lookups(), _state("square_avg"), _TABLE),
    "adam_step": (
        *_lookups(),
        _state("exp_avg"),
        _state("exp_avg_sq"),
        _state("row_steps", ("R",), "int32", optional=True),
        _TABLE,
    ),
    "skipgram_step": (
        _indices("centers"),
        _indices("contexts", bound="Q"),
        _indices("negatives", ("N", "K"), bound="Q"),
        Arg("in_table", "F", ("R", "D"), "inout"),
        Arg("out_table", "F", ("Q", "D"), "inout"),
    ),
    "skipgram_epoch": _EPOCH,
    "cbow_epoch": _EPOCH,
    "skipgram_hs_epoch": _HS_EPOCH,
    "cbow_hs_epoch": _HS_EPOCH,
}
