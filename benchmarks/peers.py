"""hotrow and its peers: every operator as a call without arguments, on the same arrays.

gather writes into an array it is given; embedding_bag and coalesce return new ones, as torch's do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numba
import numpy as np

import hotrow
from benchmarks.cases import Array, Case
from benchmarks.operators import LR, OPERATORS
from benchmarks.timing import Peer, nothing

HOTROW = ("hotrow", "hotrow Numba")

Calls = dict[str, Callable[[], Any]]


def _hotrow(case: Case) -> Calls:
    return {
        "gather": partial(hotrow.gather, case.table, case.indices, out=case.out),
        "embedding_bag": partial(hotrow.embedding_bag, case.table, case.indices, case.offsets),
        "scatter_add": partial(hotrow.scatter_add, case.table, case.indices, case.grads),
        "coalesce": partial(hotrow.coalesce, case.indices, case.grads),
        "sgd_step": partial(hotrow.optim.SGD(case.table, lr=LR).step, case.indices, case.grads),
    }


# --- NumPy ------------------------------------------------------------------------------------------------------------


def _numpy_bag(table: Array, indices: Array, offsets: Array) -> Array:
    return np.add.reduceat(np.take(table, indices, 0), offsets[:-1])


def _numpy_coalesce(indices: Array, grads: Array) -> tuple[Array, Array]:
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return ordered[starts], np.add.reduceat(np.take(grads, order, 0), starts)


def _numpy_sgd(table: Array, indices: Array, grads: Array) -> None:
    rows, values = _numpy_coalesce(indices, grads)
    table[rows] -= np.float32(LR) * values


def _numpy(case: Case) -> Calls:
    return {
        "gather": partial(np.take, case.table, case.indices, 0, case.out, "clip"),  # "raise" would buffer `out`
        "embedding_bag": partial(_numpy_bag, case.table, case.indices, case.offsets),
        "scatter_add": partial(np.add.at, case.table, case.indices, case.grads),
        "coalesce": partial(_numpy_coalesce, case.indices, case.grads),
        "sgd_step": partial(_numpy_sgd, case.table, case.indices, case.grads),
    }


# --- the loop one would write: serial Numba ---------------------------------------------------------------------------


@numba.njit
def _loop_gather(table, indices, out):
    for i in range(indices.size):
        for d in range(table.shape[1]):
            out[i, d] = table[indices[i], d]
    return out


@numba.njit
def _loop_bag(table, indices, offsets):
    out = np.zeros((offsets.size - 1, table.shape[1]), table.dtype)
    for b in range(offsets.size - 1):
        for i in range(offsets[b], offsets[b + 1]):
            for d in range(table.shape[1]):
                out[b, d] += table[indices[i], d]
    return out


@numba.njit
def _loop_scatter(table, indices, grads, scale):
    for i in range(indices.size):
        for d in range(table.shape[1]):
            table[indices[i], d] += scale * grads[i, d]


@numba.njit
def _loop_coalesce(indices, grads):
    order = np.argsort(indices, kind="mergesort")
    rows, values = np.empty_like(indices), np.zeros_like(grads)
    u = -1
    for i in order:
        if u < 0 or rows[u] != indices[i]:
            u += 1
            rows[u] = indices[i]
        for d in range(grads.shape[1]):
            values[u, d] += grads[i, d]
    return rows[: u + 1], values[: u + 1]


def _loop(case: Case) -> Calls:
    return {
        "gather": partial(_loop_gather, case.table, case.indices, case.out),
        "embedding_bag": partial(_loop_bag, case.table, case.indices, case.offsets),
        "scatter_add": partial(_loop_scatter, case.table, case.indices, case.grads, np.float32(1)),
        "coalesce": partial(_loop_coalesce, case.indices, case.grads),
        "sgd_step": partial(_loop_scatter, case.table, case.indices, case.grads, np.float32(-LR)),
    }


# --- torch ------------------------------------------------------------------------------------------------------------


def _torch(case: Case) -> Calls:
    import torch

    table, indices, offsets, grads, out = map(
        torch.from_numpy, (case.table, case.indices, case.offsets, case.grads, case.out)
    )
    bag = partial(torch.nn.functional.embedding_bag, mode="sum", include_last_offset=True)

    def sparse() -> torch.Tensor:  # as the backward pass of nn.Embedding(sparse=True) makes it
        return torch.sparse_coo_tensor(indices[None], grads, table.shape, check_invariants=False)

    def coalesce() -> tuple[torch.Tensor, torch.Tensor]:
        result = sparse().coalesce()
        return result.indices()[0], result.values()

    parameter = torch.nn.Parameter(table)
    parameter.grad = sparse()
    return {
        "gather": partial(torch.index_select, table, 0, indices, out=out),
        "embedding_bag": partial(bag, indices, table, offsets),
        "scatter_add": partial(table.index_add_, 0, indices, grads),
        "coalesce": coalesce,
        "sgd_step": torch.optim.SGD([parameter], lr=LR).step,
    }


LIBRARIES: dict[str, tuple[str, Callable[[Case], Calls], Callable[[], object]]] = {
    "hotrow": ("hotrow", _hotrow, partial(hotrow.use_backend, "native")),
    "hotrow Numba": ("numba", _hotrow, partial(hotrow.use_backend, "numba")),
    "NumPy": ("numpy", _numpy, nothing),
    "Numba loop": ("numba", _loop, nothing),
    "torch": ("torch", _torch, nothing),
}


def peers(case: Case, names: Iterable[str] = LIBRARIES) -> dict[str, dict[str, Peer]]:
    """For each operator, the name of each library that is installed and its call."""
    result: dict[str, dict[str, Peer]] = {op: {} for op in OPERATORS}
    for name in names:
        module, calls, setup = LIBRARIES[name]
        if find_spec(module):
            for op, call in calls(case).items():
                result[op][name] = Peer(call, setup)
    return result
