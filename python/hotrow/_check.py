"""ALL argument checking, driven by the operator table. Every error is raised here, before anything is touched.

TypeError: dtype, rank, or not an array. ValueError: shape, layout, offsets, value. IndexError: bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotrow import _backend
from hotrow._ops import FLOATS, INDICES, MODES, OPS, Arg

Array = NDArray[Any]
Dims = dict[str, Any]

_DTYPES: dict[str, tuple[np.dtype[Any], ...]] = {
    "F": FLOATS,
    "I": INDICES,
    "int64": INDICES,  # offsets: int32 ones are widened, a copy of B + 1 numbers
    "int32": (np.dtype(np.int32),),
    "uint32": (np.dtype(np.uint32),),
}
_INT64_MAX = 2**63 - 1


class _Spec:
    """An Arg with what the checks need of it worked out once."""

    __slots__ = (
        "any_rank",
        "arg",
        "bound",
        "dims",
        "dtypes",
        "kind",
        "name",
        "rank",
        "row_strided",
        "widen",
        "written",
    )

    def __init__(self, arg: Arg) -> None:
        self.arg = arg
        self.name = arg.name
        self.kind = arg.dtype
        self.dtypes = _DTYPES[arg.dtype]
        self.widen = arg.dtype == "int64"
        self.rank = len(arg.shape)
        self.any_rank = arg.shape[0] == "..."
        self.dims = arg.shape
        self.written = arg.role != "in"
        self.row_strided = arg.dtype == "F" and self.rank == 2
        self.bound = arg.bound


_SPECS = {op: tuple(_Spec(arg) for arg in args) for op, args in OPS.items()}
# Everything a written array must not overlap: the other arguments.
_WRITTEN = {op: tuple(i for i, spec in enumerate(specs) if spec.written) for op, specs in _SPECS.items()}


def arrays(op: str, *values: Any) -> tuple[list[Any], Dims]:
    """Check the array arguments of an operator, in the order of its table entry.

    Returns the arrays a backend may be called with and the length behind each letter. Arrays that are read along one
    axis are made contiguous and lists become arrays; tables, gradients and outputs are never copied. An output that is
    None is allocated.
    """
    dims: Dims = {}
    kinds: dict[str, np.dtype[Any]] = {}
    checked: list[Any] = []
    specs = _SPECS[op]
    for spec, value in zip(specs, values, strict=True):
        if value is None:
            if spec.arg.optional:
                checked.append(None)
                continue
            if spec.arg.role == "out":
                checked.append(_allocate(spec, dims, kinds))
                continue
        a = value if type(value) is np.ndarray else _as_array(spec, value)
        dtype = a.dtype
        if dtype not in spec.dtypes:
            names = " or ".join(d.name for d in spec.dtypes)
            raise TypeError(f"{spec.name} must be {names}, not {_dtype_name(dtype)}")
        if kinds.setdefault(spec.kind, dtype) != dtype and not spec.widen:
            first = next(s.name for s in specs if s.kind == spec.kind)
            raise TypeError(f"{spec.name} must be {kinds[spec.kind].name} as {first} is, not {dtype.name}")
        _check_shape(spec, a, dims)
        if spec.row_strided or spec.any_rank:
            a = _check_layout(spec, a)
        elif not a.flags.c_contiguous or not a.flags.aligned:
            a = np.ascontiguousarray(a) if a.flags.aligned else a.copy()
        if spec.written and not a.flags.writeable:
            raise ValueError(f"{spec.name} is read-only and cannot be written")
        if spec.widen and dtype != np.int64:
            a = a.astype(np.int64)
        checked.append(a)
    for spec, a in zip(specs, checked, strict=True):
        if spec.bound is not None and a.size:
            check_bounds(spec.name, a, _INT64_MAX if spec.bound == "int64" else dims[spec.bound])
    for i in _WRITTEN[op]:
        for j, other in enumerate(checked):
            if i != j and other is not None and np.may_share_memory(checked[i], other):
                _check_overlap(specs[i].name, checked[i], specs[j].name, other)
    return checked, dims


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return dtype.name if dtype.isnative else f"{dtype.str} (not the byte order of this machine)"


def _as_array(spec: _Spec, value: Any) -> Array:
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    if not (spec.row_strided or spec.written):
        return np.asarray(value)
    if isinstance(value, Sequence) or not (hasattr(value, "__array__") or hasattr(value, "__array_interface__")):
        raise TypeError(f"{spec.name} must be an array, not {type(value).__name__}: it is never copied")
    return np.asarray(value)


def _check_shape(spec: _Spec, a: Array, dims: Dims) -> None:
    shape = a.shape
    if spec.any_rank:
        if spec.dims == ("...",):
            dims["..."] = shape
        elif shape != (expected := (*dims["..."], dims["D"])):
            raise ValueError(f"{spec.name} must have shape {expected}, not {shape}")
        return
    if len(shape) != spec.rank:
        raise TypeError(f"{spec.name} must have {spec.rank} dimension{'s' * (spec.rank > 1)}, not {len(shape)}")
    for axis, letter in enumerate(spec.dims):
        length = shape[axis]
        if letter.endswith("+1"):
            if length == 0:
                raise ValueError(f"{spec.name} is empty: it must start with 0 and end with the number of lookups")
            letter, length = letter[0], length - 1
        if dims.setdefault(letter, length) != length:
            expected = dims[letter] + (spec.dims[axis] != letter)
            raise ValueError(
                f"{spec.name} has {shape[axis]} {'rows' if axis == 0 and spec.rank == 2 else 'columns' if axis else 'entries'}"
                f" where {expected} are expected ({spec.dims[axis]} of the arguments before it)"
            )


def _check_layout(spec: _Spec, a: Array) -> Array:
    """Rows contiguous, any row stride; written rows apart from each other. Any rank: a C-contiguous output."""
    if spec.any_rank:
        if spec.written and a.ndim != 2 and not a.flags.c_contiguous:
            raise ValueError(f"{spec.name} of {a.ndim} dimensions must be C-contiguous")
        if not spec.written:
            return a if a.flags.c_contiguous and a.flags.aligned else np.array(a, order="C")
        if a.ndim != 2:
            return a
    row_stride, stride = a.strides
    item = a.itemsize
    if (stride != item and a.shape[1] > 1) or row_stride % item or not a.flags.aligned:
        raise ValueError(f"the rows of {spec.name} must be contiguous and aligned: its strides are {a.strides} bytes")
    if spec.written and a.shape[0] > 1 and abs(row_stride) < a.shape[1] * item:
        raise ValueError(f"the rows of {spec.name} overlap: its strides are {a.strides} bytes")
    return a


def _allocate(spec: _Spec, dims: Dims, kinds: dict[str, np.dtype[Any]]) -> Array:
    shape = (*dims["..."], dims["D"]) if spec.any_rank else tuple(dims[letter] for letter in spec.dims)
    return np.empty(shape, kinds[spec.kind])


def _check_overlap(written: str, a: Array, name: str, b: Array) -> None:
    if np.shares_memory(a, b):
        raise ValueError(f"{written} overlaps {name} in memory")


def check_bounds(name: str, indices: Array, rows: int) -> None:
    """IndexError unless every index lies in [0, rows); negative ones do not wrap."""
    flat = indices.reshape(-1)
    position = _backend.kernels().first_out_of_range(flat, rows, _backend.threads())
    if position < 0:
        return
    value = int(flat[position])
    at = ", ".join(str(int(i)) for i in np.unravel_index(position, indices.shape))
    if rows == _INT64_MAX:
        raise IndexError(f"{name}[{at}] = {value} is negative")
    hint = " (negative indices do not wrap)" if value < 0 else ""
    raise IndexError(f"{name}[{at}] = {value} is out of range for a table of {rows} rows{hint}")


def offsets(offsets: Array, lookups: int, name: str = "indices") -> None:
    """Offsets rise from 0 to the number of lookups."""
    if offsets[0] != 0:
        raise ValueError(f"offsets[0] = {offsets[0]}: the first bag must start at 0")
    falls = np.flatnonzero(offsets[1:] < offsets[:-1])
    if falls.size:
        b = int(falls[0])
        raise ValueError(f"offsets must not descend: offsets[{b}] = {offsets[b]}, offsets[{b + 1}] = {offsets[b + 1]}")
    if offsets[-1] != lookups:
        raise ValueError(
            f"offsets[-1] = {offsets[-1]} must be the length of {name}, {lookups}"
            + (" (starts alone: pass include_last_offset=False)" if name == "indices" else "")
        )


def mode(value: str) -> int:
    """The number of a pooling mode."""
    if value not in MODES:
        raise ValueError(f"mode must be one of {', '.join(map(repr, MODES))}, not {value!r}")
    return MODES.index(value)


def padding_idx(value: int | None, rows: int) -> int:
    """A row number, or -1 for None."""
    if value is None:
        return -1
    number = integer("padding_idx", value, 0)
    if number >= rows:
        raise IndexError(f"padding_idx = {value} is out of range for a table of {rows} rows")
    return number


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number of at least `least` and at most `most`."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    number = int(value)
    if number < least or (most is not None and number > most):
        raise ValueError(
            f"{name} = {number} must be " + (f"at least {least}" if most is None else f"in [{least}, {most}]")
        )
    return number


def real(name: str, value: Any, least: float = -math.inf) -> float:
    """A finite number of at least `least`."""
    if isinstance(value, (str, bytes, bool)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} = {number} must be finite")
    if number < least:
        raise ValueError(f"{name} = {number} must be at least {least:g}")
    return number
