"""What the machine itself can do, measured in the same run with the same threads and on the same lookups."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from benchmarks.cases import Array, Case
from benchmarks.timing import Peer, take_turns

_LARGE = 64 << 20  # floats: no cache holds 256 MiB
_LINE = 16  # words in a cache line
_MOVED = 256 << 20  # bytes (or multiply-adds) of a call at least: waking threads must not count
# Lines ahead; negative: to the second cache, which is best for rows from memory. In cache, prefetching costs a third.
_AHEAD = {"": 0, " prefetched": 256, " prefetched to L2": -256}


class Rates(NamedTuple):
    """Bytes per second; what is read and written counts twice.

    copy: copying an array in order, of as many rows as there are lookups.
    read: touching every cache line of the rows that are looked up, with or without prefetching.
    update: changing every cache line of the distinct ones, ascending, each thread having rows of its own.
    """

    copy: float
    read: float
    update: float


def _prefetch_to(cache: int) -> Any:
    """prefetch(words, position) into the first or the second cache."""

    def prefetch(_context: Any, words: Any, position: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            address = builder.bitcast(builder.gep(array.data, [arguments[1]]), cgutils.voidptr_t)
            i32 = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [address.type, i32, i32, i32])
            function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
            builder.call(function, [address, i32(0), i32(4 - cache), i32(1)])
            return context.get_dummy_value()

        return types.void(words, position), generate

    return intrinsic(prefetch)


_prefetch_first, _prefetch_second = _prefetch_to(1), _prefetch_to(2)


# One word for each cache line moves the memory with next to no arithmetic.
@numba.njit(nogil=True)
def _read(repeats, words, positions, ahead):
    total = np.uint32(0)
    for _ in range(repeats):
        for i in range(positions.size):
            if ahead > 0:
                _prefetch_first(words, positions[min(i + ahead, positions.size - 1)])
            elif ahead < 0:
                _prefetch_second(words, positions[min(i - ahead, positions.size - 1)])
            total ^= words[positions[i]]
    return total


@numba.njit(nogil=True)
def _update(repeats, words, positions, ahead, mask):
    for _ in range(repeats):
        for i in range(positions.size):
            if ahead > 0:
                _prefetch_first(words, positions[min(i + ahead, positions.size - 1)])
            elif ahead < 0:
                _prefetch_second(words, positions[min(i - ahead, positions.size - 1)])
            words[positions[i]] ^= mask


def _positions(indices: Array, width: int) -> Array:
    """A word in every cache line of the rows; the last one as well, because rows need not start at a line."""
    starts = indices * width
    return (starts[:, None] + np.append(np.arange(0, width - 1, _LINE), width - 1)).astype(np.uint64).ravel()


def _copy(repeats: int, target: Array, source: Array) -> None:
    for _ in range(repeats):
        np.copyto(target, source)


def _measure(jobs: dict[str, tuple[Callable[..., Any], list[Any], int]], threads: int, rounds: int) -> dict[str, float]:
    """Bytes per second of kernel(repeats, *piece), one thread for each piece, moving that many bytes in all."""
    repeats = {name: -(-_MOVED // moved) for name, (_, _, moved) in jobs.items()}

    def run(pool: ThreadPoolExecutor, name: str) -> None:
        kernel, pieces, _ = jobs[name]
        list(pool.map(lambda piece: kernel(repeats[name], *piece), pieces))

    with ThreadPoolExecutor(threads) as pool:
        times = take_turns({name: Peer(partial(run, pool, name)) for name in jobs}, rounds)
    return {name: repeats[name] * moved / times[name].median for name, (_, _, moved) in jobs.items()}


def _copies(target: Array, source: Array, threads: int) -> list[Any]:
    return list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))


# Twelve in a row for each load and store, of numbers that do not wait for each other.
@numba.njit(nogil=True, fastmath={"contract"})
def _multiply_add(repeats, values, a, b):
    for _ in range(repeats):
        for i in range(values.size):
            v = values[i]
            v = ((v * a + b) * a + b) * a + b
            v = ((v * a + b) * a + b) * a + b
            v = ((v * a + b) * a + b) * a + b
            v = ((v * a + b) * a + b) * a + b
            values[i] = v


def multiply_add_rate(threads: int, rounds: int) -> float:
    """Multiply-adds of float32 a second, on registers."""
    size = 2048
    pieces: list[Any] = [(np.ones(size, np.float32), np.float32(0.5), np.float32(0.25)) for _ in range(threads)]
    return _measure({"": (_multiply_add, pieces, 12 * threads * size)}, threads, rounds)[""]


def copy_rate(threads: int, rounds: int) -> float:
    """Bytes per second of copying arrays much larger than the caches."""
    source, target = np.ones(_LARGE, np.float32), np.zeros(_LARGE, np.float32)
    return _measure({"copy": (_copy, _copies(target, source, threads), 2 * source.nbytes)}, threads, rounds)["copy"]


def rates(case: Case, threads: int, rounds: int) -> Rates:
    """The rates that bound an operator on this case."""
    words, width = case.table.view(np.uint32).ravel(), case.row_bytes // 4
    some = [_positions(piece, width) for piece in np.array_split(case.indices, threads)]
    own = [_positions(piece, width) for piece in np.array_split(case.touched, threads)]
    size, changed = (n * case.row_bytes for n in (case.lookups, 2 * case.touched.size))
    mask = np.uint32(0)  # changes no bit
    jobs: dict[str, Any] = {"copy": (_copy, _copies(case.out, case.grads, threads), 2 * case.grads.nbytes)}
    for how, ahead in _AHEAD.items():
        jobs["read" + how] = (_read, [(words, positions, ahead) for positions in some], size)
        jobs["update" + how] = (_update, [(words, positions, ahead, mask) for positions in own], changed)
    measured = _measure(jobs, threads, rounds)
    return Rates(measured["copy"], *(max(measured[kind + how] for how in _AHEAD) for kind in ("read", "update")))
