"""ALL argument checking, driven by the operator table. Every error is raised here, before anything is touched.

TypeError: dtype, rank, or not an array. ValueError: shape, layout, offsets, value. IndexError: bounds.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotrow import _backend, _threads
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
_ANY_ROW = 2**63  # more than an int64 can name


class _Spec:
    """An Arg with what the checks need of it worked out once."""

    __slots__ = ("any_rank", "arg", "dims", "dtypes", "kind", "name", "row_strided", "widen", "written")

    def __init__(self, arg: Arg) -> None:
        self.arg = arg
        self.name = arg.name
        self.kind = arg.dtype
        self.dtypes = _DTYPES[arg.dtype]
        self.widen = arg.dtype == "int64"
        self.any_rank = arg.shape[0] == "..."
        self.dims = arg.shape
        self.written = arg.role != "in"
        self.row_strided = arg.dtype == "F" and len(arg.shape) == 2


_SPECS = {op: tuple(_Spec(arg) for arg in args) for op, args in OPS.items()}
_BOUNDED = {op: tuple((i, arg.name, arg.bound) for i, arg in enumerate(args) if arg.bound) for op, args in OPS.items()}
# What is written must not overlap any argument that follows or any that is only read.
_APART = {
    op: tuple(
        (i, j)
        for i, written in enumerate(args)
        if written.role != "in"
        for j, other in enumerate(args)
        if j > i or other.role == "in"
    )
    for op, args in OPS.items()
}


def arrays(op: str, *values: Any, bounds: bool = True) -> tuple[list[Any], Dims]:
    """Check the array arguments of an operator, in the order of its table entry; without `bounds`, not their values.

    Returns the arrays a backend may be called with and the length behind each letter. Arrays that are read along one
    axis are made contiguous and lists become arrays; tables, gradients and outputs are never copied. An output that is
    None is allocated.
    """
    dims: Dims = {}
    kinds: dict[str, np.dtype[Any]] = {}
    checked: list[Any] = []
    for spec, a in zip(_SPECS[op], values):  # noqa: B905 - strict=True costs a tenth of a small call
        if a is None:
            if spec.arg.optional:
                checked.append(None)
                continue
            if spec.arg.role == "out":
                checked.append(_allocate(spec, dims, kinds))
                continue
        if type(a) is not np.ndarray:
            a = _as_array(spec, a)
        dtype = a.dtype
        if dtype not in spec.dtypes:
            names = " or ".join(d.name for d in spec.dtypes)
            raise TypeError(f"{spec.name} must be {names}, not {_dtype_name(dtype)}")
        kind = kinds.setdefault(spec.kind, dtype)
        if kind is not dtype and kind != dtype and not spec.widen:
            first = next(s for s in _SPECS[op] if s.kind == spec.kind)
            if spec.written and not first.written:  # the table decides, wherever it stands
                raise TypeError(f"{first.name} must be {dtype.name} as {spec.name} is, not {kind.name}")
            raise TypeError(f"{spec.name} must be {kind.name} as {first.name} is, not {dtype.name}")
        _check_shape(spec, a.shape, dims)
        if not a.flags.carray:
            a = _check_layout(spec, a)
        if spec.widen and dtype != np.int64:
            a = a.astype(np.int64)
        checked.append(a)
    if bounds:
        check_bounds(op, checked, dims)
    may_share_memory = _backend.kernels().may_share_memory
    for i, j in _APART[op]:
        if checked[j] is not None and may_share_memory(checked[i], checked[j]):
            _check_overlap(op, i, j, checked)
    return checked, dims


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return dtype.name if dtype.isnative else f"{dtype.str} (not the byte order of this machine)"


def _as_array(spec: _Spec, value: Any) -> Array:
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    copied = not (spec.row_strided or spec.written)
    if not copied and (isinstance(value, Sequence) or not hasattr(value, "__array__")):
        raise TypeError(f"{spec.name} must be an array, not {type(value).__name__}: it is never copied")
    try:
        a = np.asarray(value)
        # NumPy cannot tell whether __array__ copies: ask twice.
        if spec.written and a.size and a.ctypes.data != np.asarray(value).ctypes.data:
            raise TypeError(
                f"{spec.name} must be an array, not {type(value).__name__}, which gives copies of its memory"
            )
    except (RuntimeError, ValueError) as error:  # torch: a tensor that requires gradients; NumPy: a ragged list
        raise TypeError(f"{spec.name} cannot be read as an array: {error}") from error
    return a if a.size or not copied else a.astype(spec.dtypes[-1])  # an empty list has no dtype


def _check_shape(spec: _Spec, shape: tuple[int, ...], dims: Dims) -> None:
    letters = spec.dims
    if spec.any_rank:
        if len(letters) == 1:
            dims["..."] = shape
        elif shape != (expected := (*dims["..."], dims["D"])):
            raise ValueError(f"{spec.name} must have shape {expected}, not {shape}")
        return
    if len(shape) != len(letters):
        rank = len(letters)
        raise TypeError(f"{spec.name} must have {rank} dimension{'s' * (rank > 1)}, not {len(shape)}")
    for letter, length in zip(letters, shape):  # noqa: B905 - as above; the lengths are equal
        if letter in dims:
            if dims[letter] != length:
                _wrong_length(spec, letter, shape, dims[letter])
        elif len(letter) == 1:
            dims[letter] = length
        else:  # "B+1"
            if length == 0:
                raise ValueError(f"{spec.name} is empty: it must start with 0 and end with the number of lookups")
            dims[letter[0]] = length - 1


def _wrong_length(spec: _Spec, letter: str, shape: tuple[int, ...], expected: int) -> None:
    axis = next(k for k, other in enumerate(spec.dims) if other == letter and shape[k] != expected)
    noun = ("rows", "columns")[axis] if len(shape) == 2 else "entries"
    raise ValueError(f"{spec.name} has {shape[axis]} {noun} where the other arguments have {expected}")


def _check_layout(spec: _Spec, a: Array) -> Array:
    """What is not plainly contiguous, aligned and writable. Rows of matrices contiguous, written ones apart."""
    if spec.written and not a.flags.writeable:
        raise ValueError(f"{spec.name} is read-only and cannot be written")
    if not (spec.row_strided or spec.written):
        return a if a.flags.c_contiguous and a.flags.aligned else np.array(a, order="C")
    if a.ndim != 2:
        if not a.flags.c_contiguous or not a.flags.aligned:
            raise ValueError(f"{spec.name} of {a.ndim} dimensions must be C-contiguous and aligned")
        return a
    row_stride, stride = a.strides
    if (stride != a.itemsize and a.shape[1] > 1) or row_stride % a.itemsize or not a.flags.aligned:
        raise ValueError(f"the rows of {spec.name} must be contiguous and aligned: its strides are {a.strides} bytes")
    if spec.written and a.shape[0] > 1 and abs(row_stride) < a.shape[1] * a.itemsize:
        raise ValueError(f"the rows of {spec.name} overlap: its strides are {a.strides} bytes")
    return a


def _allocate(spec: _Spec, dims: Dims, kinds: dict[str, np.dtype[Any]]) -> Array:
    shape = (*dims["..."], dims["D"]) if spec.any_rank else tuple(dims[letter] for letter in spec.dims)
    return np.empty(shape, kinds[spec.kind])


def _check_overlap(op: str, i: int, j: int, checked: list[Any]) -> None:
    if np.shares_memory(checked[i], checked[j]):
        raise ValueError(f"{_SPECS[op][i].name} overlaps {_SPECS[op][j].name} in memory")


def check_bounds(op: str, checked: list[Any], dims: Dims) -> None:
    """IndexError unless every index lies in [0, rows of its table); negative ones do not wrap."""
    first_out_of_range = _backend.kernels().first_out_of_range
    for i, name, bound in _BOUNDED[op]:
        rows = _ANY_ROW if bound == "int64" else dims[bound]
        position = first_out_of_range(checked[i], rows, _threads.count)
        if position >= 0:
            _out_of_range(name, checked[i], position, rows)


def _out_of_range(name: str, indices: Array, position: int, rows: int) -> None:
    value = indices.reshape(-1)[position]
    at = ", ".join(str(i) for i in np.unravel_index(position, indices.shape))
    place = f"{name}[{at}]" if at else name
    if rows == _ANY_ROW:
        raise IndexError(f"{place} = {value} is negative")
    hint = " (negative indices do not wrap)" if value < 0 else ""
    raise IndexError(f"{place} = {value} is out of range for a table of {rows} rows{hint}")


def offsets(offsets: Array, lookups: int, name: str = "indices") -> None:
    """Offsets rise from 0 to the number of lookups."""
    if offsets[0] != 0:
        raise ValueError(f"offsets[0] = {offsets[0]}: the first bag must start at 0")
    b = _backend.kernels().first_descent(offsets)
    if b >= 0:
        raise ValueError(f"offsets must not descend: offsets[{b}] = {offsets[b]}, offsets[{b + 1}] = {offsets[b + 1]}")
    if offsets[-1] != lookups:
        raise ValueError(
            f"offsets[-1] = {offsets[-1]} must be the length of {name}, {lookups}"
            + (" (starts alone: pass include_last_offset=False)" if name == "indices" else "")
        )


def mode(value: str) -> int:
    """The number of a pooling mode."""
    if not isinstance(value, str) or value not in MODES:
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


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number of at least `least` and at most `most`."""
    try:
        if _is_boolean(value):
            raise TypeError
        number = operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}") from None
    if number < least or (most is not None and number > most):
        raise ValueError(
            f"{name} = {number} must be " + (f"at least {least}" if most is None else f"in [{least}, {most}]")
        )
    return number


def real(name: str, value: Any, least: float = -math.inf) -> float:
    """A finite number of at least `least`."""
    if type(value) is float and math.isfinite(value) and value >= least:
        return value
    try:
        if isinstance(value, (str, bytes)) or _is_boolean(value) or np.iscomplexobj(value) or np.ndim(value) > 0:
            raise TypeError
        number = float(value)
    except OverflowError:  # an int beyond the largest float
        number = math.inf
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} = {number} must be finite")
    if number < least:
        raise ValueError(f"{name} = {number} must be at least {least:g}")
    return number
