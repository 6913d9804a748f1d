"""Bad inputs of every operator, most of them derived from the operator table.

ERRORS[op] lists them: what is wrong, how to make the arguments, which exception, its full text as a regular expression.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from cases import ROWS, Array, Case, read_only
from hotrow import HuffmanTree, Sampling
from hotrow._ops import OPS, Arg
from hotrow.optim import StepOptions


class Copies:
    """Gives copies of its memory: what is written to them is lost."""

    def __init__(self, a: Array) -> None:
        self.a = a

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return self.a.copy()


class Bad(NamedTuple):
    """One bad input: make() gives the arguments."""

    id: str
    make: Callable[[], Case]
    error: type[Exception]
    text: str


_SPOTS = {1: (2,), 2: (1, 2)}  # where a bad index is put, by rank
_WRONG_F = {"float16": np.float16, "int64": np.int64, "complex64": np.complex64}
_WRONG_I = {"uint64": np.uint64, "float64": np.float64, "bool": np.bool_, "int16": np.int16}


def good(op: str) -> Case:
    """Arguments without fault, float32 and int64: 7 lookups of 5 columns in 3 bags, every optional array given but
    scales.
    """
    lengths, rng = {"R": ROWS, "D": 5, "N": 7, "B": 3}, np.random.default_rng(0)
    indices, offsets = np.arange(7), np.array([0, 3, 5, 7])
    table = rng.random((ROWS, 5), np.float32)
    match op:
        case "gather":
            return {"table": table, "indices": indices, "out": table[:7].copy()}
        case "skipgram_step":
            pairs = {"centers": indices, "contexts": indices[::-1].copy(), "negatives": np.arange(21).reshape(7, 3) % 9}
            return {"in_table": table, "out_table": table[:9] + 1, "lr": 0.1} | pairs
        case "skipgram_epoch" | "cbow_epoch":
            tokens = {"tokens": indices, "offsets": offsets, "sampling": Sampling.from_counts(np.arange(1, ROWS + 1))}
            return {"in_table": table, "out_table": table + 1} | tokens
        case "skipgram_hs_epoch" | "cbow_hs_epoch":
            tree = HuffmanTree.from_counts(np.arange(1, ROWS + 1))
            return good("skipgram_epoch") | {"out_table": table[:-1] + 1, "tree": tree}
    case: Case = {"mode": "max"} | ({"lr": 0.1} if op.endswith("_step") else {})
    for arg in OPS[op]:
        if arg.name in ("indices", "offsets"):
            case[arg.name] = offsets if arg.name == "offsets" else indices
        elif arg.name != "scales":
            shape = [lengths[letter] for letter in arg.shape]
            case[arg.name] = rng.random(shape, np.float32) if arg.dtype in "EFO" else np.ones(shape, arg.dtype)
    return case


def good_int8(op: str) -> Case:
    """The same with an int8 table and its scales."""
    case = good(op)
    return case | {"table": (100 * case["table"]).astype(np.int8), "scales": np.linspace(0.1, 1, ROWS, dtype="f4")}


def elements(op: str) -> str:
    """What the tables of an operator may be, as its errors have it."""
    scaled = any(arg.name == "scales" for arg in OPS[op])
    return "float32, float64, float16" + (", bfloat16 or int8" if scaled else " or bfloat16")


_HOLDERS: dict[str, Any] = {"sampling": Sampling, "tree": HuffmanTree}  # of arrays


def _get(case: Case, name: str) -> Array:
    for holder, kind in _HOLDERS.items():
        if hasattr(kind, name):
            return getattr(case[holder], name)
    return case[name]


def _with(case: Case, name: str, value: Any) -> Case:
    for holder, kind in _HOLDERS.items():
        if hasattr(kind, name):
            return case | {holder: replace(case[holder], **{name: value})}
    return case | {name: value}


def misaligned(a: Array) -> Array:
    memory = np.frombuffer(bytearray(b"?" + a.tobytes()), np.uint8)
    return memory[1:].view(a.dtype).reshape(a.shape)


def _put(a: Array, spot: tuple[int, ...], value: int) -> Array:
    a = a.copy()
    a[spot] = value
    return a


def _spoilt(op: str, name: str, spoil: Callable[[Array], Any]) -> Callable[[], Case]:
    return lambda: _with(good(op), name, spoil(_get(good(op), name)))


def _of_dtype(op: str, arg: Arg, first: dict[str, str]) -> Iterator[Bad]:
    element = arg.dtype in ("E", "O")
    names = {
        "E": elements(op) if arg.role == "in" else "float32, float64, float16 or bfloat16",
        "O": "float32, float64, float16 or bfloat16",
        "F": "float32 or float64",
        "I": "int32 or int64",
        "int64": "int32 or int64",
    }.get(arg.dtype, arg.dtype)
    wrong = _WRONG_F if arg.dtype in "EFO" else _WRONG_I
    for name, dtype in wrong.items():
        if element and name == "float16":
            continue
        text = f"{arg.name} must be {names}, not {name}"
        yield Bad(f"{arg.name}-{name}", _spoilt(op, arg.name, lambda a, d=dtype: a.astype(d)), TypeError, text)
    if arg.name == "indices":
        empty = _spoilt(op, arg.name, lambda a: Copies(a[:0].astype(complex)))
        yield Bad("indices-empty-complex", empty, TypeError, f"indices must be {names}, not complex128")
    native = _get(good(op), arg.name).dtype
    swapped = native.newbyteorder()
    text = re.escape(f"{arg.name} must be {names}, not {swapped.str} (not the byte order of this machine)")
    if native.itemsize > 1:
        yield Bad(f"{arg.name}-byte-order", _spoilt(op, arg.name, lambda a: a.astype(swapped)), TypeError, text)
    kind = "F" if element else arg.dtype
    if kind in ("F", "I") and first.setdefault(kind, arg.name) != arg.name:
        other = np.float64 if kind == "F" else np.int32
        text = f"{arg.name} must be {native.name} as {first[kind]} is, not {other.__name__}"
        roles = {other.name: other.role for other in OPS[op]}
        if arg.role != "in" and roles[first[kind]] == "in":  # what is updated decides, wherever it stands
            text = f"{first[kind]} must be {other.__name__} as {arg.name} is, not {native.name}"
        yield Bad(f"{arg.name}-mixed", _spoilt(op, arg.name, lambda a: a.astype(other)), TypeError, text)


def _of_shape(op: str, arg: Arg, letters: set[str]) -> Iterator[Bad]:
    shape = _get(good(op), arg.name).shape
    if arg.shape == ("...", "D"):
        text = re.escape(f"{arg.name} must have shape {shape}, not {(shape[0] - 1, *shape[1:])}")
        yield Bad(f"{arg.name}-shape", _spoilt(op, arg.name, lambda a: a[:-1]), ValueError, text)
    elif "..." not in arg.shape:
        rank = f"{len(shape)} dimension{'s' * (len(shape) > 1)}"
        text = f"{arg.name} must have {rank}, not {len(shape) + 1}"
        yield Bad(f"{arg.name}-rank", _spoilt(op, arg.name, lambda a: a[None]), TypeError, text)
        for axis, letter in enumerate(arg.shape):
            if letter in letters:
                what = "columns" if axis else "rows" if len(shape) == 2 else "entries"
                text = f"{arg.name} has {shape[axis] - 1} {what} where the other arguments have {shape[axis]}"
                short = np.delete(_get(good(op), arg.name), -1, axis)
                yield Bad(f"{arg.name}-short-{what}", _spoilt(op, arg.name, lambda _, s=short: s), ValueError, text)
    letters.update(letter[0] for letter in arg.shape)  # "B+1" tells B


def _of_layout(op: str, arg: Arg) -> Iterator[Bad]:
    def layout(name: str, spoil: Callable[[Array], Any], text: str, error: type[Exception] = ValueError) -> Bad:
        strides = getattr(spoil(_get(good(op), arg.name)), "strides", None)
        return Bad(f"{arg.name}-{name}", _spoilt(op, arg.name, spoil), error, re.escape(text.format(arg.name, strides)))

    written, matrix = arg.role != "in", len(arg.shape) == 2
    if written or (matrix and arg.dtype in "EFO"):
        text = "the rows of {} must be contiguous and aligned: its strides are {} bytes"
        if not matrix:
            text = "{} of 1 dimensions must be C-contiguous and aligned"
        yield layout("list", np.ndarray.tolist, "{} must be an array, not list: it is never copied", TypeError)
        yield layout("apart", lambda a: np.repeat(a, 2, axis=-1)[..., ::2], text)
        yield layout("misaligned", misaligned, text)
        if matrix:
            yield layout("fortran", np.asfortranarray, text)
    if written:
        text = "{} must be an array, not Copies, which gives copies of its memory"
        yield layout("copies", Copies, text, TypeError)
        yield layout("read-only", read_only, "{} is read-only and cannot be written")
        if matrix:
            text = "the rows of {} overlap: its strides are {} bytes"
            yield layout("overlap", lambda a: as_strided(a, a.shape, (4, 4)), text)


def _of_bounds(op: str, arg: Arg) -> Iterator[Bad]:
    a = _get(good(op), arg.name)
    spot = _SPOTS[a.ndim]
    at = f"{arg.name}[{', '.join(map(str, spot))}]"

    def bad(value: int, text: str) -> Bad:
        spoil = _spoilt(op, arg.name, lambda a: _put(a, spot, value))
        return Bad(f"{arg.name}-{value}", spoil, IndexError, re.escape(text))

    if arg.bound == "int64":
        yield bad(-1, f"{at} = -1 is negative")
        return
    rows = len(_get(good(op), next(other.name for other in OPS[op] if other.shape == (arg.bound, "D"))))
    for value in (rows, 2**31 - 1):
        yield bad(value, f"{at} = {value} is out of range for a table of {rows} rows")
    for value in (-1, -(2**31)):
        text = f"{at} = {value} is out of range for a table of {rows} rows (negative indices do not wrap)"
        yield bad(value, text)


def _of_offsets(op: str, lookups: str) -> Iterator[Bad]:
    hint = " (starts alone: pass include_last_offset=False)" if lookups == "indices" else ""
    for name, offsets, text in (
        ("late", [1, 3, 5, 7], "offsets[0] = 1: the first bag must start at 0"),
        ("negative", [-1, 3, 5, 7], "offsets[0] = -1: the first bag must start at 0"),
        ("descend", [0, 5, 3, 7], "offsets must not descend: offsets[1] = 5, offsets[2] = 3"),
        ("long", [0, 3, 5, 8], f"offsets[-1] = 8 must be the length of {lookups}, 7{hint}"),
        ("short", [0, 3, 5, 6], f"offsets[-1] = 6 must be the length of {lookups}, 7{hint}"),
        ("empty", [], "offsets is empty: it must start with 0 and end with the number of lookups"),
    ):
        value = np.array(offsets, np.int64)
        yield Bad(f"offsets-{name}", lambda v=value: good(op) | {"offsets": v}, ValueError, re.escape(text))


def _of_option(op: str, name: str, value: Any, error: type[Exception], text: str) -> Bad:
    return Bad(f"{name}-{value}", lambda: good(op) | {name: value}, error, re.escape(text))


def _of_number(op: str, name: str, least: str = "at least 0") -> Iterator[Bad]:
    for value in (np.nan, np.inf, -np.inf):
        yield _of_option(op, name, value, ValueError, f"{name} = {value} must be finite")
    for value in ("1", True, 1j, np.True_, np.complex64(1), np.ones(2)):
        yield _of_option(op, name, value, TypeError, f"{name} must be a number, not {type(value).__name__}")
    if least:
        yield _of_option(op, name, -0.1, ValueError, f"{name} = -0.1 must be {least}")


def _of_integer(op: str, name: str, bounds: str, *values: int) -> Iterator[Bad]:
    for value in values:
        yield _of_option(op, name, value, ValueError, f"{name} = {value} must be {bounds}")
    for value in (1.0, True, "1", np.array(1.9), np.array([1, 2]), np.True_):
        yield _of_option(op, name, value, TypeError, f"{name} must be an integer, not {type(value).__name__}")


def _of_overlap(op: str) -> Iterator[Bad]:
    """What is written and any other argument in the same memory."""

    def make(pair: tuple[str, str]) -> Case:
        case, memory = good(op), np.zeros(4096, np.uint8)
        for start, name in zip((0, 8), pair, strict=True):
            a = _get(case, name)
            case = _with(case, name, memory[start:][: a.nbytes].view(a.dtype).reshape(a.shape))
        return case

    args = [arg for arg in OPS[op] if arg.name != "scales"]
    for i, one in enumerate(args):
        for j, other in enumerate(args):
            if one.role != "in" and (j > i or other.role == "in"):
                pair = one.name, other.name
                text = f"{one.name} overlaps {other.name} in memory"
                yield Bad("-overlaps-".join(pair), lambda p=pair: make(p), ValueError, text)


def _of_int8(op: str) -> Iterator[Bad]:
    """An int8 table, its scales and what goes with them."""

    def bad(id: str, wrong: Case, text: str, error: type[Exception] = TypeError) -> Bad:
        return Bad(f"int8-{id}", lambda: good_int8(op) | wrong, error, re.escape(text))

    whole = good_int8(op)
    table, scales, out = whole["table"], whole["scales"], whole["out"]
    yield bad("alone", {"scales": None}, "an int8 table needs scales, one for each row (hotrow.quantize makes both)")
    for dtype in (np.float32, np.float64, np.float16):
        text = f"scales belong to an int8 table, not to one of {dtype.__name__}"
        yield bad(f"no-{dtype.__name__}", {"table": table.astype(dtype)}, text)
    for dtype in (np.float64, np.float16, np.int32):
        text = f"scales must be float32, not {dtype.__name__}"
        yield bad(f"scales-{dtype.__name__}", {"scales": scales.astype(dtype)}, text)
    for dtype in (np.float64, np.float16):
        text = f"out must be float32 beside a table of int8, not {dtype.__name__}"
        yield bad(f"out-{dtype.__name__}", {"out": out.astype(dtype)}, text)
    names = "float32, float64, float16 or bfloat16"
    yield bad("out-int8", {"out": out.astype(np.int8)}, f"out must be {names}, not int8")
    swapped = scales.dtype.newbyteorder()
    text = f"scales must be float32, not {swapped.str} (not the byte order of this machine)"
    yield bad("scales-byte-order", {"scales": scales.astype(swapped)}, text)
    yield bad("scales-list", {"scales": scales.tolist()}, "scales must be an array, not list: it is never copied")
    yield bad("scales-rank", {"scales": scales[None]}, "scales must have 1 dimension, not 2")
    text = f"scales has {ROWS - 1} entries where the other arguments have {ROWS}"
    yield bad("scales-short", {"scales": scales[1:]}, text, ValueError)
    for id, wrong in (("apart", np.repeat(scales, 2)[::2]), ("misaligned", misaligned(scales))):
        text = "scales of 1 dimensions must be C-contiguous and aligned"
        yield bad(f"scales-{id}", {"scales": wrong}, text, ValueError)
    for id, strided in (("apart", np.repeat(table, 2, axis=1)[:, ::2]), ("fortran", np.asfortranarray(table))):
        text = f"the rows of table must be contiguous and aligned: its strides are {strided.strides} bytes"
        yield bad(id, {"table": strided}, text, ValueError)
    for dtype in (np.uint8, np.bool_, np.int16):
        text = f"table must be {elements(op)}, not {np.dtype(dtype).name}"
        yield bad(np.dtype(dtype).name, {"table": table.astype(dtype)}, text)
    memory = np.zeros(4096, np.uint8)
    within = memory[8:][: out.nbytes].view(np.float32).reshape(out.shape)
    for name, a in (("table", table), ("scales", scales)):
        shared = memory[: a.nbytes].view(a.dtype).reshape(a.shape)
        text = f"out overlaps {name} in memory"
        yield bad(f"out-overlaps-{name}", {name: shared, "out": within}, text, ValueError)
    for given in ({}, {"out": None} | ({"argmax": None} if "argmax" in whole else {})):
        text = f"indices[2] = {ROWS} is out of range for a table of {ROWS} rows"
        wrong = given | {"indices": _put(whole["indices"], (2,), ROWS)}
        yield bad(f"indices-{len(given)}", wrong, text, IndexError)
    if "weights" in whole:
        text = "weights must be float32 beside a table of int8, not float64"
        yield bad("weights", {"weights": whole["weights"].astype(np.float64)}, text)


def _from_table(op: str) -> Iterator[Bad]:
    first: dict[str, str] = {}
    letters: set[str] = set()
    for arg in OPS[op]:
        if arg.name == "scales":
            yield from _of_int8(op)
            continue
        yield from _of_dtype(op, arg, first)
        yield from _of_shape(op, arg, letters)
        yield from _of_layout(op, arg)
        if arg.bound:
            yield from _of_bounds(op, arg)
    yield from _of_overlap(op)


def _of_pooling(op: str) -> Iterator[Bad]:
    """How bags are pooled, and how their gradient is spread."""
    modes = ("sum", "mean", "sqrtn", "max")
    for wrong in ("median", None, 0):
        text = f"mode must be one of {', '.join(map(repr, modes))}, not {wrong!r}"
        yield _of_option(op, "mode", wrong, ValueError, text)
    for mode in modes[:3]:
        yield _of_option(op, "mode", mode, ValueError, f"argmax belongs to mode 'max', not {mode!r}")
    yield from _of_integer(op, "padding_idx", "at least 0", -1)
    if op != "coalesce":  # of a table of any size
        text = f"padding_idx = {ROWS} is out of range for a table of {ROWS} rows"
        yield _of_option(op, "padding_idx", ROWS, IndexError, text)
    yield from _of_offsets(op, "indices")
    if op == "embedding_bag":
        return
    text = "mode 'max' needs argmax, which embedding_bag(..., mode='max', argmax=...) fills in"
    yield _of_option(op, "argmax", None, ValueError, text)
    if op != "weights_grad":
        yield from _of_gradients(op)


def _of_gradients(op: str) -> Iterator[Bad]:
    """Without bags, without weights."""
    alone = {"offsets": None, "argmax": None, "grads": np.ones((7, 5), np.float32)}
    for mode in ("mean", "sqrtn", "max"):
        case = alone | {"mode": mode}
        text = f"mode {mode!r} pools bags: it needs offsets"
        yield Bad(f"{mode}-without-offsets", lambda c=case: good(op) | c, ValueError, text)
    short = alone | {"mode": "sum", "grads": np.ones((6, 5), np.float32)}
    text = "grads has 6 rows where the other arguments have 7"
    yield Bad("grads-short-without-offsets", lambda: good(op) | short, ValueError, text)
    written = [arg.name for arg in OPS[op] if arg.role != "in" and arg.dtype in "EFO"]
    if written:
        mixed = {"weights": None, "grads": np.ones((3, 5))}
        text = f"grads must be float32 as {written[0]} is, not float64"
        yield Bad("grads-mixed-without-weights", lambda: good(op) | mixed, TypeError, text)


def _of_step(op: str) -> Iterator[Bad]:
    yield from _of_number(op, "lr")
    for wrong in (None, {"weight_decay": 0.1}):
        text = f"options must be hotrow.optim.StepOptions, not {type(wrong).__name__}"
        yield Bad(f"options-{type(wrong).__name__}", lambda o=wrong: good(op) | {"options": o}, TypeError, text)
    for name, spot, at in (("grads", (1, 2), "1, 2"), ("weights", (3,), "3")):
        for value in (np.nan, np.inf, -np.inf):

            def make(name: str = name, spot: tuple[int, ...] = spot, value: float = value) -> Case:
                case = good(op) | {"options": StepOptions(check_finite=True)}
                return case | {name: _put(case[name], spot, value)}

            yield Bad(f"{name}-{value}", make, ValueError, re.escape(f"{name}[{at}] = {value} is not finite"))


def _other(op: str) -> Iterator[Bad]:
    match op:
        case "gather":
            yield Bad(
                "indices-of-two-axes",
                lambda: {"table": good(op)["table"], "indices": np.array([[0, 1], [ROWS, 2]])},
                IndexError,
                re.escape(f"indices[1, 0] = {ROWS} is out of range for a table of {ROWS} rows"),
            )
            yield Bad(
                "out-strided",
                lambda: good(op) | {"indices": np.zeros((2, 2), int), "out": np.ones((2, 4, 5), np.float32)[:, ::2]},
                ValueError,
                "out of 3 dimensions must be C-contiguous and aligned",
            )
            yield Bad(
                "no-rows",
                lambda: {"table": np.ones((0, 5), np.float32), "indices": np.array([0])},
                IndexError,
                re.escape("indices[0] = 0 is out of range for a table of 0 rows"),
            )
        case "embedding_bag":
            yield Bad(
                "no-columns",
                lambda: {"table": np.ones((5, 0)), "indices": np.array([0, 9]), "offsets": np.array([0, 2])},
                IndexError,
                re.escape("indices[1] = 9 is out of range for a table of 5 rows"),
            )
            for value in (-1, ROWS, 2**62, -(2**63)):  # into a new array, for which bounds are checked on the way
                wrap = " (negative indices do not wrap)" if value < 0 else ""
                text = f"indices[3] = {value} is out of range for a table of {ROWS} rows{wrap}"
                new = {"indices": _put(np.arange(7), (3,), value), "out": None, "argmax": None}
                yield Bad(f"indices-{value}-new", lambda c=new: good(op) | c, IndexError, re.escape(text))
            yield Bad(
                "offsets-starts-of-two-axes",
                lambda: good(op) | {"offsets": np.array([[0, 3], [5, 6]]), "include_last_offset": False, "out": None},
                TypeError,
                "offsets must have 1 dimension, not 2",
            )
        case "scatter_add":
            yield from _of_number(op, "scale", least="")
        case "sgd_step":
            yield from _of_number(op, "momentum")
            yield _of_option(op, "nesterov", 1, TypeError, "nesterov must be True or False, not int")
            text = "momentum needs a momentum_buffer of the table's shape"
            for name, wrong in (("momentum", 0.9), ("nesterov", True)):
                case = {name: wrong, "momentum_buffer": None}
                yield Bad(f"{name}-without-buffer", lambda c=case: good(op) | c, ValueError, text)
        case "adagrad_step" | "rowwise_adagrad_step":
            yield from _of_number(op, "eps")
        case "rmsprop_step":
            yield from _of_number(op, "eps")
            yield from _of_number(op, "alpha", "in [0, 1]")
            yield _of_option(op, "alpha", 1.5, ValueError, "alpha = 1.5 must be in [0, 1]")
        case "adam_step":
            yield from _of_number(op, "eps")
            for beta in ("beta1", "beta2"):
                yield from _of_number(op, beta)
                yield _of_option(op, beta, 1, ValueError, f"{beta} = 1.0 must be below 1")
            yield from _of_integer(op, "step", "at least 1", 0, -1)
            yield _of_option(op, "epsilon_hat", 1, TypeError, "epsilon_hat must be True or False, not int")
        case "skipgram_step":
            yield from _of_number(op, "lr")
        case "skipgram_epoch" | "cbow_epoch" | "skipgram_hs_epoch" | "cbow_hs_epoch":
            yield from _of_offsets(op, "tokens")
            yield from _of_number(op, "lr")
            yield from _of_number(op, "lr_end")
            yield from _of_integer(op, "window", "in [1, 1000]", 0, -1, 1001)
            if "hs" in op:
                yield from _of_paths(op)
            else:
                yield from _of_integer(op, "negative", "in [0, 1000]", -1, 1001)
            yield from _of_integer(op, "seed", "in [0, 18446744073709551615]", -1, 2**64)
            yield from _of_integer(op, "begin", "in [0, 7]", -1, 8)
            stopped = "begin = 6 must be a multiple of 1024, or 7, the number of tokens"
            yield _of_option(op, "begin", 6, ValueError, stopped)
            yield _of_option(op, "sampling", None, TypeError, "sampling must be a hotrow.Sampling, not NoneType")
            yield _of_option(op, "progress", 3, TypeError, "progress must be callable, not int")
            for name in {"skipgram_epoch": ["shared_negatives"], "skipgram_hs_epoch": []}.get(op, ["cbow_mean"]):
                yield _of_option(op, name, 1, TypeError, f"{name} must be True or False, not int")


def _of_paths(op: str) -> Iterator[Bad]:
    size = HuffmanTree.from_counts(np.arange(1, ROWS + 1)).points.size
    text = "tree must be a hotrow.HuffmanTree, not Sampling"
    yield _of_option(op, "tree", good(op)["sampling"], TypeError, text)
    for what, spot, value, wrong in (
        ("start", (0,), 1, "path_offsets[0] = 1: the first bag must start at 0"),
        ("descent", (3,), size, f"path_offsets must not descend: path_offsets[3] = {size}, path_offsets[4] = "),
        ("end", (-1,), size - 1, f"path_offsets[-1] = {size - 1} must be the length of points, {size}"),
    ):
        make = _spoilt(op, "path_offsets", lambda a, s=spot, v=value: _put(a, s, v))
        yield Bad(f"path_offsets-{what}", make, ValueError, re.escape(wrong) + ".*")
    yield Bad(
        "codes-2",
        _spoilt(op, "codes", lambda a: _put(a, (4,), 2)),
        ValueError,
        re.escape("codes[4] = 2 must be 0 or 1"),
    )
    text = f"path_offsets has {ROWS} entries where the other arguments have {ROWS + 1}"
    yield Bad("path_offsets-short", _spoilt(op, "path_offsets", lambda a: a[:-1]), ValueError, text)


def _errors(op: str) -> Iterator[Bad]:
    names = {arg.name for arg in OPS[op]}
    yield from _from_table(op)
    if "argmax" in names:
        yield from _of_pooling(op)
        if "lr" in good(op):
            yield from _of_step(op)
    yield from _other(op)


ERRORS: dict[str, list[Bad]] = {op: list(_errors(op)) for op in OPS}
