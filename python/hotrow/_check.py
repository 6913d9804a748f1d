"""ALL argument checking, driven by the operator table. Every error is raised here, before anything is touched.

TypeError: dtype, rank, or not an array. ValueError: shape, layout, offsets, value. IndexError: bounds.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hotrow import _backend, _threads
from hotrow._ops import FLOATS, INDICES, MODES, OPS, Arg

Array = NDArray[Any]
Dims = dict[str, Any]

_ELEMENTS = (*FLOATS, np.dtype(np.float16))  # and bfloat16, which NumPy does not know: see _is_bfloat16
_DTYPES: dict[str, tuple[np.dtype[Any], ...]] = {
    "E": _ELEMENTS,
    "F": FLOATS,
    "O": _ELEMENTS,
    "I": INDICES,
    "int64": INDICES,  # offsets: int32 ones are widened, a copy of B + 1 numbers
    "int32": (np.dtype(np.int32),),
    "float32": (np.dtype(np.float32),),
    "uint32": (np.dtype(np.uint32),),
    "uint8": (np.dtype(np.uint8),),
}
_MAX = MODES.index("max")
_FLOAT32, _INT8 = np.dtype(np.float32), np.dtype(np.int8)
_ANY_ROW = 2**63  # more than an int64 can name


class _Spec:
    """An Arg with what the checks need of it worked out once."""

    __slots__ = (
        "allowed",
        "any_rank",
        "arg",
        "bags",
        "dims",
        "dtypes",
        "element",
        "halves",
        "kept",
        "kind",
        "name",
        "optional",
        "plain",
        "row_strided",
        "scales",
        "widen",
        "written",
    )

    def __init__(self, arg: Arg, op: str) -> None:
        self.arg = arg
        self.name = arg.name
        self.kind = "F" if arg.dtype == "O" else arg.dtype
        self.dtypes = _DTYPES[arg.dtype]
        self.widen = arg.dtype == "int64"
        self.optional = arg.optional
        self.any_rank = arg.shape[0] == "..."
        self.plain = all(len(letter) == 1 for letter in arg.shape)
        self.bags = arg.optional and arg.name == "offsets"
        self.dims = arg.shape
        self.written = arg.role != "in"
        self.row_strided = arg.dtype in "EFO" and len(arg.shape) == 2
        self.element = arg.dtype == "E"
        self.halves = arg.dtype in "EO"  # may have 16 bits
        self.scales = arg.name == "scales"
        self.kept = self.written or self.row_strided or self.scales  # never copied
        names = [d.name for d in self.dtypes] + ["bfloat16"] * self.halves
        if self.element and not self.written and any(other.name == "scales" for other in OPS[op]):
            self.dtypes += (_INT8,)
            names.append("int8")
        self.allowed = " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


_SPECS = {op: tuple(_Spec(arg, op) for arg in args) for op, args in OPS.items()}
_BOUNDED = {op: tuple((i, arg.name, arg.bound) for i, arg in enumerate(args) if arg.bound) for op, args in OPS.items()}
_OUTPUTS = {op for op, args in OPS.items() if args[-1].role == "out"}
_WRITTEN = {op: sum(1 << i for i, arg in enumerate(args) if arg.role != "in") for op, args in OPS.items()}


def arrays(
    op: str, values: tuple[Any, ...], bounds: bool = True, dtype: np.dtype[Any] | None = None
) -> tuple[Sequence[Any], Dims]:
    """Check the array arguments of an operator, in the order of its table entry; without `bounds`, not their values.

    Returns the arrays a backend may be called with and the length behind each letter. Arrays that are read along one
    axis are made contiguous and lists become arrays; tables, gradients and outputs are never copied. An output that is
    None is allocated, of `dtype` if that is given.
    """
    plain = _backend.plain.get(op)
    if plain is not None:
        found = plain.check(values, bounds, _threads.count)
        if found is not None:
            return _with_output(op, values, found, dtype) if op in _OUTPUTS else values, found
    kernels = _backend.kernels()
    dims: Dims = {}
    kinds: dict[str, np.dtype[Any]] = {}
    checked: list[Any] = []
    for spec, a in zip(_SPECS[op], values):  # noqa: B905 - strict=True costs a tenth of a small call
        if spec.scales and (a is None) == (kinds["E"] == _INT8):
            _wrong_scales(kinds["E"])
        if a is None:
            if spec.optional:
                checked.append(None)
                if spec.bags:
                    dims["B"] = dims["N"]
                continue
            if spec.arg.role == "out":
                checked.append(_allocate(spec, dims, kinds, dtype))
                continue
        if type(a) is not np.ndarray:
            a = _as_array(spec, a)
        found = a.dtype
        if found not in spec.dtypes and not (spec.halves and _is_bfloat16(found)):
            _wrong_dtype(spec, found)
        if spec.element:
            wide = found.itemsize > 2 and kinds.setdefault("F", found) is found
            if not wide or kinds.setdefault("E", found) is not found:
                _check_element(op, spec, found, kinds, checked)
        elif not (spec.halves and found == kinds["E"]):
            kind = kinds.setdefault(spec.kind, found)
            if kind is not found and kind != found and not spec.widen:
                _mixed(op, spec, found, kinds, checked)
        shape = a.shape
        if spec.plain and len(shape) == len(spec.dims):
            for letter, length in zip(spec.dims, shape):  # noqa: B905 - as above; the lengths are equal
                if dims.setdefault(letter, length) != length:
                    _wrong_length(spec, letter, shape, dims[letter])
        else:
            _check_shape(spec, shape, dims)
        if not a.flags.carray:
            a = _check_layout(spec, a)
        if spec.widen and found != np.int64:
            a = a.astype(np.int64)
        checked.append(a)
    if bounds:
        check_bounds(op, checked, dims)
    if kernels.may_overlap(checked, _WRITTEN[op]):
        _check_overlap(op, checked)
    return checked, dims


def _with_output(op: str, values: tuple[Any, ...], dims: Dims, dtype: np.dtype[Any] | None) -> list[Any]:
    checked = list(values)
    if checked[-1] is None:  # an output comes last, the table first
        kind = checked[0].dtype
        checked[-1] = _allocate(_SPECS[op][-1], dims, {"E": kind, "F": kind}, dtype)
    return checked


Lookups = tuple[Sequence[Any], tuple[int, int], bool]


def lookups(op: str, values: tuple[Any, ...], mode: str, padding_idx: int | None) -> Lookups:
    """Check the arrays of a gradient operator: indices, offsets, weights, argmax, grads and what it updates.

    Returns the arrays, the numbers of mode and padding row, and whether there is anything to do.
    """
    number = mode_number(mode) if mode != "sum" else 0
    checked, dims = arrays(op, values)
    starts = checked[1]
    if starts is not None:
        offsets(starts, dims["N"])
    elif number:
        raise ValueError(f"mode {mode!r} pools bags: it needs offsets")
    if number == _MAX or checked[3] is not None:
        argmax(number, checked[3])
    skipped = -1 if padding_idx is None else padding(padding_idx, dims.get("R"))
    return checked, (number, skipped), dims["N"] > 0 and dims["D"] > 0


def table(value: Any, name: str = "table") -> Array:
    """A table that will be updated by many calls: of the right dtype and rank; each call sees to the rest."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, not {type(value).__name__}: it is never copied")
    spec = _SPECS["scatter_add"][-1]
    if value.dtype not in spec.dtypes and not _is_bfloat16(value.dtype):
        _wrong_dtype(spec, value.dtype, name)
    if value.ndim != 2:
        raise TypeError(f"{name} must have 2 dimensions, not {value.ndim}")
    return value


def _is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """ml_dtypes' bfloat16, in the byte order of this machine."""
    return dtype.name == "bfloat16" and dtype.isnative


def real_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What arithmetic on a table of this dtype is done in: float32 for 16 and 8 bits."""
    return dtype if dtype.itemsize > 2 else _FLOAT32


def _check_element(
    op: str, spec: _Spec, dtype: np.dtype[Any], kinds: dict[str, np.dtype[Any]], given: list[Any]
) -> None:
    kind, real = kinds.setdefault("E", dtype), real_dtype(dtype)
    if kind == _INT8 and spec.written:
        if dtype != _FLOAT32:
            raise TypeError(f"{spec.name} must be float32 beside a table of int8, not {dtype.name}")
        return
    if kind is not dtype and kind != dtype:
        first = _first(op, "E", given)
        if spec.written and not first.written:
            raise TypeError(f"{first.name} must be {dtype.name} as {spec.name} is, not {kind.name}")
        raise TypeError(f"{spec.name} must be {kind.name} as {first.name} is, not {dtype.name}")
    found = kinds.setdefault("F", real)
    if found is not real and found != real:  # the table decides, wherever it stands
        reason = f"as {spec.name} is" if real is dtype else f"beside a {spec.name} of {dtype.name}"
        raise TypeError(f"{_first(op, 'F', given).name} must be {real.name} {reason}, not {found.name}")


def _wrong_dtype(spec: _Spec, dtype: np.dtype[Any], name: str | None = None) -> NoReturn:
    name = name or spec.name
    hint = ": gather and embedding_bag alone read int8 tables" if dtype == _INT8 and name.endswith("table") else ""
    raise TypeError(f"{name} must be {spec.allowed}, not {_dtype_name(dtype)}{hint}")


def _wrong_scales(table: np.dtype[Any]) -> NoReturn:
    if table == _INT8:
        raise TypeError("an int8 table needs scales, one for each row (hotrow.quantize makes both)")
    raise TypeError(f"scales belong to an int8 table, not to one of {table.name}")


def _mixed(op: str, spec: _Spec, dtype: np.dtype[Any], kinds: dict[str, np.dtype[Any]], given: list[Any]) -> NoReturn:
    first, kind = _first(op, "EF" if spec.kind == "F" else spec.kind, given), kinds[spec.kind]
    narrow = first.element and kinds["E"] != kind
    if spec.written and not first.written and not narrow:  # what is updated decides, wherever it stands
        raise TypeError(f"{first.name} must be {dtype.name} as {spec.name} is, not {kind.name}")
    reason = f"beside a {first.name} of {kinds['E'].name}" if narrow else f"as {first.name} is"
    raise TypeError(f"{spec.name} must be {kind.name} {reason}, not {dtype.name}")


def _first(op: str, kinds: str, given: list[Any]) -> _Spec:
    """The first argument that said what all of a kind must be."""
    specs = zip(_SPECS[op], given)  # noqa: B905 - those checked so far
    return next(spec for spec, a in specs if a is not None and spec.kind in kinds)


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return dtype.name if dtype.isnative else f"{dtype.str} (not the byte order of this machine)"


def _as_array(spec: _Spec, value: Any) -> Array:
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    copied = not spec.kept
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
    without_dtype = copied and a.size == 0 and a.dtype == np.float64  # an empty list
    return a.astype(spec.dtypes[-1]) if without_dtype else a


def _check_shape(spec: _Spec, shape: tuple[int, ...], dims: Dims) -> None:
    """Shapes that are not plain letters, one for each axis."""
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
    if shape[0] == 0:  # "B+1"
        raise ValueError(f"{spec.name} is empty: it must start with 0 and end with the number of lookups")
    if dims.setdefault(letters[0][0], shape[0] - 1) != shape[0] - 1:
        _wrong_length(spec, letters[0], shape, dims[letters[0][0]] + 1)


def _wrong_length(spec: _Spec, letter: str, shape: tuple[int, ...], expected: int) -> None:
    axis = next(k for k, other in enumerate(spec.dims) if other == letter and shape[k] != expected)
    noun = ("rows", "columns")[axis] if len(shape) == 2 else "entries"
    raise ValueError(f"{spec.name} has {shape[axis]} {noun} where the other arguments have {expected}")


def _check_layout(spec: _Spec, a: Array) -> Array:
    """What is not plainly contiguous, aligned and writable. Rows of matrices contiguous, written ones apart."""
    if spec.written and not a.flags.writeable:
        raise ValueError(f"{spec.name} is read-only and cannot be written")
    if not spec.kept:
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


def _allocate(spec: _Spec, dims: Dims, kinds: dict[str, np.dtype[Any]], wanted: np.dtype[Any] | None) -> Array:
    shape = (*dims["..."], dims["D"]) if spec.any_rank else tuple(dims[letter] for letter in spec.dims)
    dtype = kinds[spec.kind] if kinds[spec.kind].itemsize > 1 else _FLOAT32  # int8 becomes float32
    if wanted is not None and wanted != dtype:
        table = kinds["E"]
        if wanted != table or table.itemsize != 2:
            either = f"{dtype.name} or {table.name}" if table.itemsize == 2 else dtype.name
            raise TypeError(f"dtype must be {either} beside a table of {table.name}, not {_dtype_name(wanted)}")
        dtype = wanted
    made: Array = _backend.kernels().result(shape, dtype)
    return made


def _check_overlap(op: str, checked: list[Any]) -> None:
    """What is written must not overlap any argument that follows or any that is only read."""
    args = OPS[op]
    for i, written in enumerate(args):
        for j, other in enumerate(args):
            apart = written.role != "in" and (j > i or other.role == "in")
            if apart and checked[i] is not None and checked[j] is not None and np.shares_memory(checked[i], checked[j]):
                raise ValueError(f"{written.name} overlaps {other.name} in memory")


def check_bounds(op: str, checked: Sequence[Any], dims: Dims) -> None:
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


def offsets(offsets: Array, lookups: int, name: str = "indices", called: str = "offsets") -> None:
    """Offsets rise from 0 to the number of lookups."""
    if _backend.kernels().offsets_rise(offsets, lookups):
        return
    if offsets[0] != 0:
        raise ValueError(f"{called}[0] = {offsets[0]}: the first bag must start at 0")
    for b in np.flatnonzero(offsets[1:] < offsets[:-1])[:1]:
        after = f"{called}[{b + 1}] = {offsets[b + 1]}"
        raise ValueError(f"{called} must not descend: {called}[{b}] = {offsets[b]}, {after}")
    raise ValueError(
        f"{called}[-1] = {offsets[-1]} must be the length of {name}, {lookups}"
        + (" (starts alone: pass include_last_offset=False)" if name == "indices" else "")
    )


def argmax(mode: int, places: Array | None) -> None:
    """The gradient of "max", and of nothing else, needs to know which lookup it came from."""
    if places is None and mode == _MAX:
        raise ValueError("mode 'max' needs argmax, which embedding_bag(..., mode='max', argmax=...) fills in")
    if places is not None and mode != _MAX:
        raise ValueError(f"argmax belongs to mode 'max', not {MODES[mode]!r}")


def dtype(value: Any) -> np.dtype[Any]:
    """What np.dtype takes."""
    try:
        found: np.dtype[Any] = np.dtype(value)
    except TypeError:
        raise TypeError(f"dtype must be a NumPy dtype, not {value!r}") from None
    return found


def mode_number(value: str) -> int:
    """The number of a pooling mode."""
    if not isinstance(value, str) or value not in MODES:
        raise ValueError(f"mode must be one of {', '.join(map(repr, MODES))}, not {value!r}")
    return MODES.index(value)


def padding(value: int | None, rows: int | None) -> int:
    """A row number, or -1 for None."""
    if value is None:
        return -1
    number = integer("padding_idx", value, 0)
    if number >= (rows := _ANY_ROW if rows is None else rows):
        raise IndexError(f"padding_idx = {value} is out of range for a table of {rows} rows")
    return number


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number of at least `least` and at most `most`."""
    if type(value) is int and value >= least and (most is None or value <= most):
        return value
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


def boolean(name: str, value: Any) -> bool:
    """True or False, as such or as NumPy's."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}")
    return bool(value)


def real(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite number of at least `least` and at most `most`."""
    if type(value) is float and math.isfinite(value) and least <= value <= most:
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
    if not least <= number <= most:
        wanted = f"at least {least:g}" if most == math.inf else f"in [{least:g}, {most:g}]"
        raise ValueError(f"{name} = {number} must be {wanted}")
    return number


def positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    number = real(name, value)
    if number <= 0:
        raise ValueError(f"{name} = {number} must be above 0")
    return number


def fraction(name: str, value: Any) -> float:
    """A number in [0, 1)."""
    number = real(name, value, 0)
    if number >= 1:
        raise ValueError(f"{name} = {number} must be below 1")
    return number


def finite(name: str, a: Array) -> None:
    """No NaN, no infinity."""
    bad = ~np.isfinite(a)
    if bad.any():
        at = np.unravel_index(int(bad.argmax()), a.shape)
        raise ValueError(f"{name}[{', '.join(map(str, at))}] = {a[at]} is not finite")
