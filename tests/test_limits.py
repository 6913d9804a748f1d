"""Tables far larger than memory allows to copy: no operator allocates in the rows of a table, and rows and elements
past 2^31 are found. The tables are sparse files, mapped.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import hotrow
from cases import Array
from conftest import BACKENDS, run_python

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sparse files need asking for on Windows")

TWO_31 = 2**31

# 20 million rows of 16 floats: 1.3 GB. Warm up on a small table first, so that code and pools are there already.
FOOTPRINT = """
import resource, sys
import numpy as np, hotrow
path, rows, width = sys.argv[1], 20_000_000, 16
hotrow.use_backend(sys.argv[2])
hotrow.set_num_threads(2)
rng = np.random.default_rng(0)
def run(table, n):
    indices = np.sort(rng.integers(0, len(table), n))
    grads, offsets = np.ones((n, width), np.float32), np.arange(0, n + 1, 10)
    one, other = (np.memmap(f"{path}.{i}", np.float32, "w+", shape=table.shape) for i in range(2))
    of_rows = np.memmap(f"{path}.rows", np.float32, "w+", shape=len(table))
    for step in (
        lambda: hotrow.gather(table, indices),
        lambda: hotrow.embedding_bag(table, indices, offsets),
        lambda: hotrow.gather(table.view(np.int8), indices, scales=of_rows),
        lambda: hotrow.embedding_bag(table.view(np.int8), indices, offsets, scales=of_rows),
        lambda: hotrow.scatter_add(table, indices, grads),
        lambda: hotrow.coalesce(indices, grads),
        lambda: hotrow.sgd_step(table, indices, grads, lr=0.1, momentum=0.9, momentum_buffer=one),
        lambda: hotrow.adagrad_step(table, one, indices, grads, lr=0.1),
        lambda: hotrow.rowwise_adagrad_step(table, of_rows, indices, grads, lr=0.1),
        lambda: hotrow.rmsprop_step(table, one, indices, grads, lr=0.1),
        lambda: hotrow.adam_step(table, one, other, indices, grads, lr=0.1, row_steps=of_rows.view(np.int32)),
    ):
        step()
run(np.zeros((5000, width), np.float32), 1000)
table = np.memmap(path, np.float32, "r+", shape=(rows, width))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(table, 100)  # each maps 64 KB of the files it touches
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // (2**20 if sys.platform == "darwin" else 2**10))
"""


def sparse(path: Path, rows: int, width: int) -> Array:
    """A table of zeros that takes no room until it is written."""
    path.touch()
    os.truncate(path, rows * width * 4)
    return np.memmap(path, np.float32, "r+", shape=(rows, width))


@pytest.mark.parametrize("backend_name", sorted({backend.name for backend in BACKENDS}))
def test_memory_does_not_grow_with_the_table(tmp_path: Path, backend_name: str) -> None:
    sparse(tmp_path / "table", 20_000_000, 16)
    grown = int(run_python(FOOTPRINT, str(tmp_path / "table"), backend_name).stdout)
    assert grown < 64  # MB, of a table of 1280


@pytest.mark.parametrize("width", [1, 3])
def test_rows_past_two_to_the_31(backend: ModuleType, tmp_path: Path, width: int) -> None:
    table = sparse(tmp_path / "table", TWO_31 + 10, width)
    rows = np.array([TWO_31 + 3, 5, TWO_31 + 9, TWO_31 + 3, 0, TWO_31 - 1])
    grads = np.arange(1, 1 + rows.size * width, dtype=np.float32).reshape(rows.size, width)
    hotrow.scatter_add(table, rows, grads)
    sums = hotrow.coalesce(rows, grads)
    assert sums.rows.tolist() == [0, 5, TWO_31 - 1, TWO_31 + 3, TWO_31 + 9]
    np.testing.assert_array_equal(table[sums.rows], sums.values)
    np.testing.assert_array_equal(hotrow.gather(table, sums.rows), sums.values)
    np.testing.assert_array_equal(hotrow.embedding_bag(table, sums.rows, [0, 5])[0], sums.values.sum(axis=0))
    hotrow.sgd_step(table, rows, grads, lr=0.5)
    np.testing.assert_array_equal(table[sums.rows], sums.values / 2)
    hotrow.sgd_step(table, rows, grads, lr=0.5, offsets=np.arange(7), padding_idx=TWO_31 + 3)
    np.testing.assert_array_equal(table[sums.rows], sums.values / 2 * [[0], [0], [0], [1], [0]])
    for neighbour in (4, 6, 3, TWO_31 + 2, TWO_31 + 4):  # 3 and 5 are TWO_31 + 3 and + 5 in 32 bits
        assert not table[neighbour].any()
    with pytest.raises(IndexError, match=rf"indices\[0\] = {TWO_31 + 10} is out of range"):
        hotrow.gather(table, [TWO_31 + 10])


def test_int8_rows_past_two_to_the_31(backend: ModuleType, tmp_path: Path) -> None:
    table = sparse(tmp_path / "table", TWO_31 + 10, 1).view(np.int8)  # of 4 columns
    scales = sparse(tmp_path / "scales", TWO_31 + 10, 1)[:, 0]
    rows = np.array([TWO_31 + 3, 5, TWO_31 + 9, 0])
    table[rows], scales[rows] = np.arange(16).reshape(4, 4), (0.5, 2, 4, 8)
    want = np.arange(16).reshape(4, 4) * np.float32([[0.5], [2], [4], [8]])
    np.testing.assert_array_equal(hotrow.gather(table, rows, scales=scales), want)
    np.testing.assert_array_equal(hotrow.embedding_bag(table, rows, [0, 4], scales=scales)[0], want.sum(axis=0))


def test_elements_past_two_to_the_31(backend: ModuleType, tmp_path: Path) -> None:
    """Row numbers that fit 32 bits, addresses that do not."""
    table = sparse(tmp_path / "table", 2**27, 40)
    rows = np.array([2**27 - 1, 2**26, 1, 2**27 - 1], np.int32)
    grads = np.arange(160, dtype=np.float32).reshape(4, 40)
    hotrow.scatter_add(table, rows, grads)
    np.testing.assert_array_equal(table[2**27 - 1], grads[0] + grads[3])
    np.testing.assert_array_equal(hotrow.gather(table, rows[1:3]), grads[1:3])
    far, pairs = table[:: 2**13], rows[:2] // 2**13
    loss = hotrow.skipgram_step(far, table[2 :: 2**13], pairs, pairs, 0 * pairs[:, None], lr=0.0)
    assert loss == pytest.approx(2 * np.log(2))


def test_coalesce_keeps_high_indices(backend: ModuleType) -> None:
    indices = np.array([2**40, 7, 2**62, 2**40, 2**31, 2**40 + 2**32])
    rows, values = hotrow.coalesce(indices, np.ones((6, 2), np.float32))
    assert rows.tolist() == sorted(set(indices.tolist()))
    assert values[:, 0].tolist() == [1, 1, 2, 1, 1]


def test_memory_of_a_large_result_is_used_again_once_nothing_refers_to_it(backend: ModuleType) -> None:
    rows, width = 70_000, 128  # 34 MiB
    table = np.arange(rows, dtype=np.float32)[:, None] * np.ones(width, np.float32)
    indices = np.arange(rows)
    first = hotrow.gather(table, indices)
    assert first.flags.carray
    place, part = first.ctypes.data, first[10:20, :3]
    del first
    second = hotrow.gather(table, indices[::-1].copy())  # a view of the first is alive
    assert second.ctypes.data != place
    assert np.array_equal(part, table[10:20, :3])
    del part
    sums = hotrow.coalesce(indices, table).values
    assert np.array_equal(sums, table)
    assert np.array_equal(second, table[::-1])
    if hotrow._backend.name() == "native":
        assert sums.ctypes.data == place


LIMITED = """
import resource, sys
import numpy as np, hotrow
hotrow.set_num_threads(1)
table, indices = np.ones((10, 256), np.float32), np.zeros(190_000, np.int64)
hotrow.gather(table, indices[:150_000])  # 154 MB, which are kept
with open("/proc/self/statm") as statm:
    most = int(statm.read().split()[0]) * resource.getpagesize() + (90 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
assert hotrow.gather(table, indices).shape == (190_000, 256)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux does")
@pytest.mark.skipif("native" not in {backend.name for backend in BACKENDS}, reason="the native backend keeps memory")
def test_kept_memory_is_given_up_where_there_is_no_other() -> None:
    run_python(LIMITED)
