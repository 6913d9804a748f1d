"""Sample inputs of every operator, as keyword arguments of its public function; no backend is named here.

SAMPLES[op](rng, float dtype, index dtype, width) yields inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hotrow import HuffmanTree, Sampling, reference
from hotrow._ops import MODES, OPS, Arg
from hotrow.optim import StepOptions

Array = np.ndarray[Any, Any]
Case = dict[str, Any]
Samples = Callable[[np.random.Generator, Any, Any, int], Iterator[Case]]

ROWS = 11
UNREAD = 6  # a row that no sample looks up, full of NaN
HOT_WIDTHS = (1, 33)  # where some rows have thousands of lookups
LONG = 2600  # words of a sentence that spans several blocks of tokens


# --- layouts: the same values in memory of another shape, NaN around them ---------------------------------------------


def wider(a: Array) -> Array:
    """Columns of a wider array."""
    view = np.full((len(a), a.shape[1] + 5), np.nan, a.dtype)[:, 2 : 2 + a.shape[1]]
    view[:] = a
    return view


def every_second(a: Array) -> Array:
    """Every second row of a longer array."""
    view = np.full((2 * len(a), a.shape[1]), np.nan, a.dtype)[::2]
    view[:] = a
    return view


def backwards(a: Array) -> Array:
    """Rows in falling addresses."""
    return a[::-1].copy()[::-1]


def read_only(a: Array) -> Array:
    a = a.copy()
    a.flags.writeable = False
    return a


LAYOUTS = (wider, every_second, backwards)


def relaid(a: Array, change: Callable[[Array], Array]) -> Array:
    """What `change` makes of the elements, in the same layout; of those between the rows too."""
    base = a if a.base is None else a.base
    start = a.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    changed = change(base)

    def place(byte: int) -> int:
        return byte // base.itemsize * changed.itemsize

    view = np.ndarray(a.shape, changed.dtype, changed.view(np.uint8), place(start), [place(s) for s in a.strides])
    view.flags.writeable = a.flags.writeable
    return view


# --- samples ----------------------------------------------------------------------------------------------------------


def _table(rng: np.random.Generator, float_t: Any, D: int, rows: int = ROWS) -> Array:
    table = rng.standard_normal((rows, D)).astype(float_t)
    table[UNREAD] = np.nan
    return table


def _indices(rng: np.random.Generator, index_t: Any, N: int, rows: int = ROWS) -> Array:
    """Repeated rows, the first and the last among them, UNREAD not."""
    indices = rng.integers(0, rows, N)
    indices[:4] = (0, rows - 1, 0, rows - 1)[:N]
    return np.where(indices == UNREAD, 1, indices).astype(index_t)


def _gather(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    table, indices = _table(rng, float_t, D), _indices(rng, index_t, 37)
    yield {"table": table, "indices": indices}
    yield {"table": table, "indices": _indices(rng, index_t, 300)}
    yield {"table": table, "indices": indices[:0]}
    yield {"table": table[:0], "indices": indices[:0]}
    yield {"table": table[:1], "indices": np.zeros(5, index_t)}
    yield {"table": table, "indices": np.array(ROWS - 1, index_t)}
    yield {"table": table, "indices": indices[:24].reshape(2, 3, 4)}
    yield {"table": table, "indices": indices[:36].reshape(4, 9).T}
    yield {"table": table, "indices": indices[::-3]}
    yield {"table": np.broadcast_to(table[0], table.shape), "indices": indices}
    for layout in (*LAYOUTS, read_only):
        yield {"table": layout(table), "indices": indices}
    for layout in LAYOUTS:
        yield {"table": table, "indices": indices, "out": layout(np.ones((37, D), float_t))}


class _Bags:
    """41 lookups in 8 bags: two are empty, one looks up row 3 alone; weights whose sums are 0 or far from it."""

    def __init__(self, rng: np.random.Generator, float_t: Any, index_t: Any) -> None:
        self.indices = _indices(rng, index_t, 41)
        self.indices[20:25] = 3
        self.offsets = np.array([0, 0, 1, 4, 20, 25, 25, 41, 41])
        self.positive = (rng.random(41) + 0.5).astype(float_t)
        self.signed = self.positive * np.where(np.arange(41) % 5 == 1, -1, 1).astype(float_t)
        self.signed[1:4] = 1, -3, 2  # sum to 0
        self.exact = float_t(2) ** rng.integers(-2, 3, 41).astype(float_t)  # products are not rounded

    def modes(self) -> Iterator[Case]:
        """Every way to pool them."""
        for mode in MODES:
            base: Case = {"indices": self.indices, "offsets": self.offsets, "mode": mode}
            yield base
            yield base | {"weights": self.positive, "padding_idx": 3}
            yield base | {"weights": self.signed, "offsets": self.offsets.astype(np.int32)}
            yield base | {"indices": self.indices[:0], "offsets": np.zeros(4, np.int32), "weights": self.signed[:0]}
        yield base | {"mode": "mean", "indices": np.full_like(self.indices, 3), "padding_idx": 3}
        yield {"indices": self.indices[:0], "offsets": np.zeros(1, np.int64)}


def _embedding_bag(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    table, bags = _table(rng, float_t, D), _Bags(rng, float_t, index_t)
    base: Case = {"table": table, "indices": bags.indices, "offsets": bags.offsets}
    for case in bags.modes():
        yield {"table": table} | case
    for mode in ("max", "sum"):
        spoilt = table.copy()
        spoilt[bags.indices[7], -1] = spoilt[bags.indices[30], 0] = np.nan
        yield base | {"mode": mode, "table": spoilt}
        yield base | {"mode": mode, "table": spoilt, "weights": bags.positive}
    for options in ({}, {"padding_idx": 3}, {"weights": bags.exact}, {"weights": -bags.exact, "padding_idx": 0}):
        yield base | {"mode": "max", "argmax": np.full((8, D), -7, np.int32)} | options
    yield base | {"mode": "max", "argmax": np.full((16, D), -7, np.int32)[::-2]}
    yield base | {"indices": _indices(rng, index_t, 300), "offsets": np.array([0, 300], np.int32)}
    yield base | {"weights": np.repeat(bags.positive, 2)[::2], "indices": np.repeat(bags.indices, 2)[::2]}
    for layout in (*LAYOUTS, read_only):
        yield base | {"table": layout(table), "mode": "mean"}
    for layout in LAYOUTS:
        yield base | {"out": layout(np.ones((8, D), float_t)), "mode": "sqrtn"}


def _argmax(table: Array, bags: Case) -> Case:
    """What the gradient of "max" needs beside the bags."""
    if bags.get("mode") != "max":
        return {}
    argmax = np.empty((bags["offsets"].size - 1, table.shape[1]), np.int32)
    reference.embedding_bag(np.nan_to_num(table.astype(np.float64)), **bags, argmax=argmax)
    return {"argmax": argmax}


def _weights_grad(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    for i, bags in enumerate(_Bags(rng, float_t, index_t).modes()):
        table, grads = _table(rng, float_t, D), rng.standard_normal((bags["offsets"].size - 1, D)).astype(float_t)
        yield {"table": table, "grads": grads} | bags | _argmax(table, bags)
        layouts = {"table": LAYOUTS[i % 3](table), "grads": LAYOUTS[i // 3 % 3](grads)}
        yield layouts | {"out": np.ones(bags["indices"].size, float_t)} | bags | _argmax(table, bags)


def _strided(case: Case, shift: int) -> Case:
    """Every matrix of floats in a layout of its own."""
    names = [name for name, a in case.items() if isinstance(a, np.ndarray) and a.ndim == 2 and a.dtype.kind == "f"]
    return case | {name: LAYOUTS[(i + shift) % 3](case[name]) for i, name in enumerate(names)}


def _hot(rng: np.random.Generator, float_t: Any, index_t: Any) -> Iterator[Case]:
    """Rows of more than one and more than two chunks of the sum, over whose ends bags reach."""
    indices = np.r_[np.full(2070, 4), np.full(1024, 0), _indices(rng, index_t, 50)].astype(index_t)
    indices[::7] = 4
    bags: Case = {"indices": indices, "offsets": np.sort(np.r_[0, rng.integers(0, indices.size, 5), indices.size])}
    yield bags | {"weights": rng.random(indices.size).astype(float_t)}
    yield bags | {"mode": "mean"}
    yield {"indices": np.full(1025, 2, index_t)}


def _lookups(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    """Lookups without bags, then every way to pool them, then many of one row."""
    indices, bags = _indices(rng, index_t, 37), _Bags(rng, float_t, index_t)
    yield {"indices": indices}
    yield {"indices": indices[:0]}
    yield {"indices": np.full(37, ROWS - 1, index_t)}
    yield {"indices": np.repeat(indices, 5)}
    yield {"indices": indices, "weights": bags.signed[:37]}
    yield {"indices": np.repeat(indices, 2)[::2], "weights": np.repeat(bags.signed[:37], 2)[::2], "padding_idx": 0}
    yield {"indices": np.full(3, 5, index_t), "padding_idx": 5}
    yield from bags.modes()
    base = next(bags.modes()) | {"mode": "max"}
    yield base | {"weights": bags.signed, "argmax": rng.integers(-1, 6, (8, D), np.int32)}  # of other bags, it seems
    yield base | {"argmax": np.asfortranarray(rng.integers(0, 3, (8, D), np.int32))}
    if D in HOT_WIDTHS:
        yield from _hot(rng, float_t, index_t)


def _gradients(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    """Lookups, their gradients and the table these update."""

    def case(lookups: Case) -> Case:
        size = lookups["offsets"].size - 1 if "offsets" in lookups else lookups["indices"].size
        table, grads = _table(rng, float_t, D), rng.standard_normal((size, D)).astype(float_t)
        if size > 1000 or lookups["indices"].size > 1000:
            grads = abs(grads)  # sums far from 0, which their bounds are not
        return {"table": table, "grads": grads} | ({} if "argmax" in lookups else _argmax(table, lookups)) | lookups

    for lookups in _lookups(rng, float_t, index_t, D):
        yield case(lookups)
    spread = case({"indices": _indices(rng, index_t, 37)})
    yield spread | {"grads": np.broadcast_to(spread["grads"][0], spread["grads"].shape)}
    for shift in range(3):
        yield _strided(case({"indices": _indices(rng, index_t, 37)}), shift)


def _scatter_add(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    for i, case in enumerate(_gradients(rng, float_t, index_t, D)):
        yield case | ({} if i % 2 else {"scale": -0.3})


def _coalesce(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    for case in _gradients(rng, float_t, index_t, D):
        yield {name: value for name, value in case.items() if name != "table"}
    # Rows whose high bits agree, so that many share a bucket of the sort; the highest index there is.
    indices = (np.iinfo(index_t).max - rng.integers(0, 60, 120) * 7 - 1).astype(index_t)
    indices[:70] = rng.integers(0, 2**16, 70)
    yield {"indices": indices, "grads": rng.standard_normal((120, D)).astype(float_t)}


def _options(D: int) -> list[StepOptions]:
    """None, each alone, all together. Half of the rows are longer than max_norm."""
    every: Case = {
        "scale_grad_by_freq": True,
        "clip_norm": 0.5 * D**0.5,
        "clip_value": 0.3,
        "weight_decay": 0.2,
        "max_norm": D**0.5,
    }
    alone = [StepOptions(**{name: value}) for name, value in every.items()]
    decoupled = StepOptions(weight_decay=0.2, decoupled_weight_decay=True)
    idle = StepOptions(check_finite=True, clip_norm=1e3, clip_value=1e3, max_norm=1e3)
    return [StepOptions(), *alone, decoupled, idle, StepOptions(**every, check_finite=True)]


def _state(rng: np.random.Generator, arg: Arg, like: Array, fresh: bool) -> Array:
    """The state of a table's rows: zeros, or what steps before may have left."""
    shape = like.shape[: len(arg.shape)]
    if arg.dtype == "int32":
        return np.zeros(shape, np.int32) if fresh else rng.integers(0, 999, shape, np.int32)
    state = np.zeros(shape) if fresh else rng.standard_normal(shape)
    if arg.name not in ("momentum_buffer", "exp_avg"):
        state = state**2
    state[UNREAD] = np.nan
    return state.astype(like.dtype)


def _step(op: str, *variants: Case) -> Samples:
    """Gradients, with options and hyperparameters in turn; state that is optional where a variant names it."""

    def sample(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
        options = _options(D)
        for i, lookups in enumerate(_gradients(rng, float_t, index_t, D)):
            variant = variants[(i + i // len(options)) % len(variants)]
            case = {"lr": 0.1, "options": options[i % len(options)]} | lookups | variant
            fresh = i % 4 == 1  # the first step divides by sizes of gradients: these must not cancel
            case |= {name: abs(case[name]) for name in ("grads", "weights") if fresh and name in case}
            for arg in OPS[op]:
                if arg.role == "inout" and arg.name != "table" and (not arg.optional or arg.name in variant):
                    case[arg.name] = _state(rng, arg, lookups["table"], fresh)
            yield _strided(case, i) if i % 5 == 4 else case

    return sample


def _skipgram_step(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    def case(N: int, K: int, size: float = 1.0) -> Case:
        in_table, out_table = _table(rng, float_t, D), _table(rng, float_t, D, ROWS - 3)
        outputs = _indices(rng, index_t, N * (1 + K), ROWS - 3).reshape(N, 1 + K)
        return {
            "in_table": in_table * float_t(size / D**0.5),
            "out_table": out_table * float_t(size / D**0.5),
            "centers": _indices(rng, index_t, N),
            "contexts": outputs[:, 0].copy(),
            "negatives": outputs[:, 1:].copy(),
            "lr": 0.05,
        }

    for K in (0, 1, 5, 6, 7, 13):
        yield case(6, K)
    yield case(0, 5)
    yield case(3, 5) | {"lr": 0.0}
    yield case(1, 2, size=20.0)  # dot products far beyond where the exponential vanishes
    collisions = case(6, 7)
    collisions["negatives"][:, ::2] = collisions["contexts"][:, None]  # left out
    collisions["negatives"][:, 1::2] = collisions["negatives"][:, 1:2]  # repeated
    yield collisions
    for layout in LAYOUTS:
        c = case(6, 5)
        yield c | {name: layout(c[name]) for name in ("in_table", "out_table")}
    c = case(6, 4)
    yield c | {"negatives": np.asfortranarray(c["negatives"]), "centers": np.repeat(c["centers"], 2)[::2]}


def corpus(rng: np.random.Generator, index_t: Any, lengths: tuple[int, ...], words: int) -> tuple[Array, Array]:
    """Zipf-like tokens below `words` in sentences of these lengths."""
    tokens = (words * rng.random(sum(lengths)) ** 2).astype(index_t)
    return tokens, np.cumsum((0, *lengths))


def _epoch(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    def case(lengths: tuple[int, ...] = (0, 1, 7, 0, 2, 19, 0), rows: int = ROWS, **options: Any) -> Case:
        tokens, offsets = corpus(rng, index_t, lengths, rows)
        tokens[tokens == UNREAD] = 0
        counts = np.arange(rows, 0, -1.0)
        counts[UNREAD] = 0  # never drawn
        sampling = Sampling.from_counts(counts, sample=0.05)
        in_table, out_table = (_table(rng, float_t, D, rows) / float_t(D**0.5) for _ in range(2))
        base = {"in_table": in_table, "out_table": out_table, "tokens": tokens}
        return base | {"offsets": offsets, "sampling": sampling, "seed": 7} | options

    for window, negative in ((1, 0), (3, 1), (9, 5), (2, 6), (2, 7), (1, 13)):
        yield case(window=window, negative=negative)
    yield case(lengths=(1, 16), shrink_windows=False, window=4, negative=2, lr=0.1, lr_end=0.0)
    yield case(lengths=(0,))
    yield case(lengths=())
    yield case(seed=2**64 - 1, lr_end=0.001) | {"offsets": np.array([0, 0, 1, 8, 8, 10, 29], np.int32)}
    for layout in LAYOUTS:
        c = case()
        yield c | {name: layout(c[name]) for name in ("in_table", "out_table")}
    if D == 1:  # the reference is slow: once for each pair of dtypes
        many: Case = {"lengths": (500, LONG, 0, 1, 3), "rows": 250, "window": 9, "lr": 0.0002}
        yield case(**many, shrink_windows=False)  # every centre beside a block's end needs words beyond it
        yield case(**many, lr_end=0.0, negative=2)


def _skipgram_epoch(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    yield from _epoch(rng, float_t, index_t, D)
    for case in _epoch(rng, float_t, index_t, D):  # more steps after one another, whose errors add up
        yield case | {"shared_negatives": False, "lr": case.get("lr", 0.025) / 4}


def _cbow_epoch(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    for i, case in enumerate(_epoch(rng, float_t, index_t, D)):
        yield case | ({"cbow_mean": i % 3 > 0} if i % 2 else {})


def _hs_epoch(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    """The same with the tree of random counts, paths of up to ROWS - 1 nodes, and a table of as many rows as nodes."""
    counts = [np.arange(ROWS, 0, -1), np.ones(ROWS), 2.0 ** np.arange(ROWS), rng.random(ROWS)]
    for i, case in enumerate(_epoch(rng, float_t, index_t, D)):
        rows = len(case["in_table"])
        case |= {"tree": HuffmanTree.from_counts(counts[i % 4] if rows == ROWS else np.arange(rows))}
        case.pop("negative", None)
        case |= {name: case[name] / 4 for name in ("lr", "lr_end") if name in case}  # the root is in every window
        case["out_table"] = np.nan_to_num(case["out_table"][: -1 if i % 3 == 2 else None])  # every node is read
        yield case
    alone = Sampling.from_counts([5.0], sample=0)
    words = {"tokens": np.zeros(4, index_t), "offsets": np.array([0, 4]), "sampling": alone}
    tables = {name: np.ones((1, D), float_t) for name in ("in_table", "out_table")}
    yield tables | words | {"tree": HuffmanTree.from_counts([5.0])}  # a path without nodes: nothing to learn


def _cbow_hs_epoch(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    for i, case in enumerate(_hs_epoch(rng, float_t, index_t, D)):
        yield case | ({"cbow_mean": i % 3 > 0} if i % 2 else {})


_BETAS = {"beta1": 0.8, "beta2": 0.95}
_EPS = {"eps": 0.2}  # large enough to show where it stands
SAMPLES: dict[str, Samples] = {
    "gather": _gather,
    "embedding_bag": _embedding_bag,
    "weights_grad": _weights_grad,
    "scatter_add": _scatter_add,
    "coalesce": _coalesce,
    "sgd_step": _step(
        "sgd_step",
        {},
        {"momentum": 0.9, "momentum_buffer": None},
        {"momentum": 0.7, "momentum_buffer": None, "nesterov": True},
        {"momentum_buffer": None},
        {"lr": 0.0},
    ),
    "adagrad_step": _step("adagrad_step", {}, _EPS),
    "rowwise_adagrad_step": _step("rowwise_adagrad_step", {}, _EPS),
    "rmsprop_step": _step("rmsprop_step", {}, {"alpha": 0.7} | _EPS, {"alpha": 1.0}, {"alpha": 0.0} | _EPS),
    "adam_step": _step(
        "adam_step",
        {},
        {"step": 7} | _BETAS | _EPS,
        {"step": 3, "epsilon_hat": False} | _BETAS | _EPS,
        {"row_steps": None} | _BETAS,
        {"row_steps": None, "epsilon_hat": False} | _BETAS | _EPS,
    ),
    "skipgram_step": _skipgram_step,
    "skipgram_epoch": _skipgram_epoch,
    "cbow_epoch": _cbow_epoch,
    "skipgram_hs_epoch": _hs_epoch,
    "cbow_hs_epoch": _cbow_hs_epoch,
}
