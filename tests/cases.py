"""Sample inputs of every operator, as keyword arguments of its public function; no backend is named here.

SAMPLES[op](rng, float dtype, index dtype, width) yields inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hotrow import Sampling
from hotrow._ops import MODES

Array = np.ndarray[Any, Any]
Case = dict[str, Any]

ROWS = 11
UNREAD = 6  # a row that no sample looks up, full of NaN
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


def _embedding_bag(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    table, indices = _table(rng, float_t, D), _indices(rng, index_t, 41)
    indices[20:25] = 3  # a bag of nothing but padding
    offsets = np.array([0, 0, 1, 4, 20, 25, 25, 41, 41])
    positive, signed = rng.random(41).astype(float_t) + float_t(0.5), rng.standard_normal(41).astype(float_t)
    signed[1:4] = 1, -3, 2  # sum to 0
    base = {"table": table, "indices": indices, "offsets": offsets}
    for mode in MODES:
        yield base | {"mode": mode}
        yield base | {"mode": mode, "weights": positive, "padding_idx": 3}
        yield base | {"mode": mode, "weights": signed}
        yield base | {"mode": mode, "indices": indices[:0], "offsets": np.zeros(4, np.int32), "weights": signed[:0]}
    for mode in ("max", "sum"):
        spoilt = table.copy()
        spoilt[indices[7], -1] = spoilt[indices[30], 0] = np.nan
        yield base | {"mode": mode, "table": spoilt}
        yield base | {"mode": mode, "table": spoilt, "weights": positive}
    yield base | {"indices": indices[:0], "offsets": np.zeros(1, np.int64)}
    yield base | {"indices": _indices(rng, index_t, 300), "offsets": np.array([0, 300], np.int32)}
    yield base | {"weights": np.repeat(positive, 2)[::2], "indices": np.repeat(indices, 2)[::2]}
    for layout in (*LAYOUTS, read_only):
        yield base | {"table": layout(table), "mode": "mean"}
    for layout in LAYOUTS:
        yield base | {"out": layout(np.ones((8, D), float_t)), "mode": "sqrtn"}


def _gradients(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    """Lookups, their gradients and the table these update."""
    table, indices = _table(rng, float_t, D), _indices(rng, index_t, 37)
    grads = rng.standard_normal((37, D)).astype(float_t)
    yield {"table": table.copy(), "indices": indices, "grads": grads}
    yield {"table": table.copy(), "indices": indices[:0], "grads": grads[:0]}
    yield {"table": table.copy(), "indices": np.full(37, ROWS - 1, index_t), "grads": grads}
    yield {"table": table.copy(), "indices": np.repeat(indices, 5), "grads": np.repeat(grads, 5, axis=0)}
    yield {"table": table.copy(), "indices": indices, "grads": np.broadcast_to(grads[0], grads.shape)}
    for layout in LAYOUTS:
        yield {"table": layout(table), "indices": indices, "grads": grads}
        yield {"table": table.copy(), "indices": indices, "grads": layout(grads)}


def _scatter_add(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    for i, case in enumerate(_gradients(rng, float_t, index_t, D)):
        yield case | ({} if i % 2 else {"scale": -0.3})


def _sgd_step(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    for i, case in enumerate(_gradients(rng, float_t, index_t, D)):
        yield case | {"lr": 0.1 if i else 0.0}


def _coalesce(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
    for case in _gradients(rng, float_t, index_t, D):
        yield {"indices": case["indices"], "grads": case["grads"]}
    # Rows whose high bits agree, so that many share a bucket of the sort; the highest index there is.
    indices = (np.iinfo(index_t).max - rng.integers(0, 60, 120) * 7 - 1).astype(index_t)
    indices[:70] = rng.integers(0, 2**16, 70)
    yield {"indices": indices, "grads": rng.standard_normal((120, D)).astype(float_t)}


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


def _skipgram_epoch(rng: np.random.Generator, float_t: Any, index_t: Any, D: int) -> Iterator[Case]:
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
    yield case(shrink_windows=False, window=4, lr=0.1, lr_end=0.0)
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


Samples = Callable[[np.random.Generator, Any, Any, int], Iterator[Case]]
SAMPLES: dict[str, Samples] = {
    "gather": _gather,
    "embedding_bag": _embedding_bag,
    "scatter_add": _scatter_add,
    "coalesce": _coalesce,
    "sgd_step": _sgd_step,
    "skipgram_step": _skipgram_step,
    "skipgram_epoch": _skipgram_epoch,
}
