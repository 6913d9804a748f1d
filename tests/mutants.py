"""Does the suite catch faults? Plants one at a time in a copy of the tree, compiles what it must, runs the tests that
should see it, and prints which one did; at the end sees that these pass without a fault. Exit status 1 if one gets by.
`python tests/mutants.py [part of names or paths]`.

Native faults are compiled for the baseline alone, unoptimised; CXX=clang++ takes half the time of g++. Needs what
builds and tests hotrow.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NATIVE = {"HOTROW_BACKEND": "native", "HOTROW_ISA": "baseline"}
NUMBA = {"HOTROW_BACKEND": "numba"}


@dataclass(frozen=True)
class Fault:
    """`right` stands in the file at `path` once and becomes `wrong`; pytest with `tests` should fail."""

    name: str
    path: str
    right: str
    wrong: str
    tests: str  # files, then -k with the rest

    @property
    def environment(self) -> dict[str, str]:
        return NUMBA if "_numba" in self.path else NATIVE

    @property
    def arguments(self) -> list[str]:
        files, _, chosen = self.tests.partition(" -k ")
        return [*(f"tests/{name}" for name in files.split()), "-k", chosen]


FAULTS = [
    # kernels: one object is compiled anew
    Fault(
        "a tail stores one element too many",
        "csrc/kernels/simd.h",
        "        if (i < t.count) p[i] = a[i];",
        "        if (i <= t.count) p[i] = a[i];",
        "test_ops.py -k nothing_around and gather",
    ),
    Fault(
        "a tail loads one element too few",
        "csrc/kernels/simd.h",
        "        if (i < t.count) a[i] = p[i];",
        "        if (i < t.count - 1) a[i] = p[i];",
        "test_ops.py -k matches_reference and gather and float32",
    ),
    Fault(
        "gather writes with the table's stride",
        "csrc/kernels/gather.h",
        "F* const target = out.row(i) + d;",
        "F* const target = out.data + i * table.stride + d;",
        "test_ops.py -k matches_reference and gather and float32",
    ),
    Fault(
        "the last of several equal rows is not summed",
        "csrc/kernels/scatter.h",
        "while (++i < run.end) {",
        "while (++i < run.end - 1) {",
        "test_ops.py -k matches_reference and coalesce and float32",
    ),
    Fault(
        "an index equal to the rows passes the check",
        "csrc/kernels/bounds.h",
        "U(rows - 1)",
        "U(rows)",
        "test_ops.py -k bad_input and gather",
    ),
    Fault(
        "an index equal to the rows passes in bags",
        "csrc/kernels/embedding_bag.h",
        "if (uint64_t(int64_t(*j)) >= rows) {",
        "if (uint64_t(int64_t(*j)) > rows) {",
        "test_ops.py -k bad_input and embedding_bag",
    ),
    Fault(
        "bags pool the padding row",
        "csrc/kernels/embedding_bag.h",
        "if (*j == padding) return;",
        "",
        "test_ops.py -k matches_reference and embedding_bag and float32",
    ),
    Fault(
        "the last of equal maxima is named",
        "csrc/kernels/embedding_bag.h",
        "values[i] == largest[d + i] && places[d + i] < 0",
        "values[i] == largest[d + i]",
        "test_gradients.py -k first_of_equals",
    ),
    Fault(
        "weight decay pushes away from zero",
        "csrc/kernels/optim.h",
        "x += load(w + d, tail) * adjust.weight_decay",
        "x -= load(w + d, tail) * adjust.weight_decay",
        "test_ops.py -k matches_reference and sgd_step and float32",
    ),
    Fault(
        "Adam corrects a row's bias by the step before",
        "csrc/kernels/optim.h",
        "rate *= rule.corrections.row(t - 1)[0];",
        "rate *= rule.corrections.row(t > 1 ? t - 2 : 0)[0];",
        "test_ops.py -k matches_reference and adam_step and float32",
    ),
    Fault(
        "ties round to odd half-precision numbers",
        "csrc/kernels/half.h",
        "((whole & 1) != 0)",
        "((whole & 1) == 0)",
        "test_rounding.py -k nearest_is_astype",
    ),
    Fault(
        "a group takes the negatives of another centre",
        "csrc/kernels/groups.h",
        "kept.position[begin + i] * job.negative + k",
        "kept.position[end - 1 - i] * job.negative + k",
        "test_ops.py -k matches_reference and skipgram_epoch and float32",
    ),
    Fault(
        "a group has the learning rate of its last centre",
        "csrc/kernels/groups.h",
        "kept.position[groups.begin + i]));",
        "kept.position[groups.end - 1 - i]));",
        "test_skipgram.py -k learning_rate",
    ),
    Fault(
        "a draw takes the other word where it should accept",
        "csrc/kernels/windows.h",
        "low(draw) > job.alias_accept[bucket]",
        "low(draw) <= job.alias_accept[bucket]",
        "test_ops.py -k matches_reference and cbow_epoch and float32",
    ),
    Fault(
        "a group with a centre among its negatives is updated at once",
        "csrc/kernels/groups.h",
        "clashes[i] |= words[i] == centers[i];",
        "clashes[i] |= 0;",
        "test_ops.py -k matches_reference and skipgram_epoch and float32",
    ),
    Fault(
        "too many windows are scored at once by a factor of two",
        "csrc/kernels/groups.h",
        "reach * F(windows) <= limit",
        "reach * F(windows) <= 2 * limit",
        "test_ops.py -k matches_reference and skipgram_epoch and float32",
    ),
    Fault(
        "a negative that is the centre counts in the loss",
        "csrc/kernels/groups.h",
        "pairs.at(a, b) = kNoScore;",
        "pairs.at(a, b) = F(0);",
        "test_ops.py -k matches_reference and cbow_epoch and float32",
    ),
    Fault(
        "a pair is trained on a negative that is its centre",
        "csrc/kernels/skipgram.h",
        "if (negatives[k] != center) outputs[n++]",
        "outputs[n++]",
        "test_ops.py -k matches_reference and skipgram_epoch and float32",
    ),
    Fault(
        "copies of shared rows are handed over whole",
        "csrc/kernels/copies.h",
        "load_block<N>(own + d, k, tail) - load_block<N>(old + d, k, tail)",
        "load_block<N>(own + d, k, tail)",
        "test_skipgram.py -k threads",
    ),
    # plans and text: the module is compiled anew
    Fault(
        "the last bag of a thread is left to nobody",
        "csrc/ops/embedding_bag.h",
        "count : bag_at(offsets, count, share.end)",
        "count : bag_at(offsets, count, share.end) - 1",
        "test_bits.py -k threads and embedding_bag",
    ),
    Fault(
        "the gradient of the padding row is added",
        "csrc/runtime/partition.h",
        "if (int64_t(row) != bags.padding_idx) body(row, bag, j);",
        "body(row, bag, j);",
        "test_ops.py -k matches_reference and scatter_add and float32",
    ),
    Fault(
        "the second pass of the sort takes the first digit again",
        "csrc/runtime/partition.h",
        "size_, pass * digit, digit, threads_, to);",
        "size_, 0, digit, threads_, to);",
        "test_limits.py -k high_indices",
    ),
    Fault(
        "of few lookups those of a row are added backwards",
        "csrc/runtime/partition.h",
        "<< kPlaceBits | int32_t(size_);",
        "<< kPlaceBits | int32_t(kFewLookups - 1 - size_);",
        "test_bits.py -k added_in_chunks",
    ),
    Fault(
        "chunks of a long run all stand for the first",
        "csrc/runtime/partition.h",
        "split_.push_back({entries_[first].row, I(split_.size())});",
        "split_.push_back({entries_[first].row, I(first_chunk)});",
        "test_bits.py -k added_in_chunks",
    ),
    Fault(
        "work that threads do not share evenly loses its rest",
        "csrc/runtime/parallel.h",
        "return {begin, begin + size + (t < rest)};",
        "return {begin, begin + size};",
        "test_bits.py -k threads and gather",
    ),
    Fault(
        "a carriage return is part of a word",
        "csrc/text/spaces.h",
        "(c >= 9 && c <= 13)",
        "(c >= 9 && c <= 12)",
        "test_text.py -k test_texts",
    ),
    Fault(
        "words of the merged tables count once",
        "csrc/text/encoder.cpp",
        "all.merge(word, table.first()[id], counts_[id])",
        "all.merge(word, table.first()[id], 1)",
        "test_text.py -k threads_and_blocks",
    ),
    # Python
    Fault(
        "Adam corrects the bias of one step less",
        "python/hotrow/steps.py",
        "t = step if step < _FOREVER",
        "t = max(1, step - 1) if step < _FOREVER",
        "test_ops.py -k matches_reference and adam_step and float32",
    ),
    Fault(
        "both children of a node have code 0",
        "python/hotrow/huffman.py",
        "second[children[:, 1]] = 1",
        "second[children[:, 1]] = 0",
        "test_huffman.py",
    ),
    Fault(
        "the alias table takes the mass from the wrong word",
        "python/hotrow/sampling.py",
        "left[greater] -= 1 - left[lesser]",
        "left[greater] -= left[lesser]",
        "test_properties.py -k alias_table",
    ),
    # Numba
    Fault(
        "Numba: gather leaves out the last lookup of a piece",
        "python/hotrow/_numba/gather.py",
        "    for i in range(begin, end):\n        source, target = row(table, indices[i]), row(out, i)\n",
        "    for i in range(begin, end - 1):\n        source, target = row(table, indices[i]), row(out, i)\n",
        "test_ops.py -k matches_reference and gather and float32",
    ),
    Fault(
        "Numba: bags pool the padding row",
        "python/hotrow/_numba/embedding_bag.py",
        "            if indices[j] == padding_idx:\n                continue\n            source = read_row",
        "            source = read_row",
        "test_ops.py -k matches_reference and embedding_bag and float32",
    ),
    Fault(
        "Numba: an index equal to the rows passes the check",
        "python/hotrow/_numba/bounds.py",
        "indices.max() < rows)",
        "indices.max() <= rows)",
        "test_ops.py -k bad_input and gather",
    ),
    Fault(
        "Numba: two passes of the sort leave out a bit of an odd number",
        "python/hotrow/_numba/scatter.py",
        "digit_bits = -(-bits // max(passes, 1))",
        "digit_bits = bits // max(passes, 1)",
        "test_bits.py -k need_no_sorting",
    ),
    Fault(
        "Numba: weight decay pushes away from zero",
        "python/hotrow/_numba/optim.py",
        "g[d] += w[d] * decay",
        "g[d] -= w[d] * decay",
        "test_ops.py -k matches_reference and sgd_step and float32",
    ),
    Fault(
        "Numba: a draw takes the other word where it should accept",
        "python/hotrow/_numba/windows.py",
        "words[k] = bucket + (np.int64(other[bucket]) - bucket) * rejected",
        "words[k] = bucket + (np.int64(other[bucket]) - bucket) * (1 - rejected)",
        "test_ops.py -k matches_reference and cbow_epoch and float32",
    ),
]


def stale(faults: list[Fault]) -> list[str]:
    """Names of faults that cannot be planted: what they change has changed, or stands there twice."""
    return [fault.name for fault in faults if (ROOT / fault.path).read_text().count(fault.right) != 1]


class Tree:
    """A copy of the sources and its build."""

    def __init__(self, directory: Path) -> None:
        self.root, self.build = directory / "tree", directory / "build"
        leave_out = shutil.ignore_patterns("__pycache__", "*.so")
        for name in ("csrc", "python", "tests"):
            shutil.copytree(ROOT / name, self.root / name, ignore=leave_out)
        for name in ("CMakeLists.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root)
        pybind11 = self.run(sys.executable, "-m", "pybind11", "--cmakedir").stdout.strip()
        options = [
            "-DCMAKE_BUILD_TYPE=Debug",
            "-DCMAKE_CXX_FLAGS_DEBUG=",
            "-DHOTROW_ISAS=baseline",
            f"-DPython_EXECUTABLE={sys.executable}",
        ]
        self.run("cmake", "-S", self.root, "-B", self.build, "-G", "Ninja", f"-Dpybind11_DIR={pybind11}", *options)
        self.compile()
        where = "import hotrow; print(hotrow.__file__)"
        found = self.run("env", f"PYTHONPATH={self.root / 'python'}", sys.executable, "-c", where).stdout
        if str(self.root) not in found:
            sys.exit(f"the tests would run on {found.strip()}, not on the copy in {self.root}")

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
        return done

    def compile(self) -> None:
        self.run("cmake", "--build", self.build)
        (module,) = self.build.glob("_native*")
        shutil.copy(module, self.root / "python/hotrow")

    @contextmanager
    def planted(self, fault: Fault) -> Iterator[None]:
        """Within a `with` block, the tree has the fault."""
        path = self.root / fault.path
        right = path.read_text()
        path.write_text(right.replace(fault.right, fault.wrong))
        self.compile()  # what the last fault changed too
        yield
        path.write_text(right)

    def first_failure(self, environment: dict[str, str], *arguments: str) -> str | None:
        """The test that fails first, or in which Python dies; None if all pass or none is chosen."""
        # Plain: long results take long to compare for a message.
        command = [sys.executable, "-m", "pytest", "-xv", "--assert=plain", "-p", "no:cacheprovider", *arguments]
        env = os.environ | environment | {"PYTHONPATH": str(self.root / "python")}
        with tempfile.TemporaryDirectory() as cache:  # Numba's own does not see changes in files that others use
            env["NUMBA_CACHE_DIR"] = cache
            done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False, env=env)
        if done.returncode in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            return None
        began = re.findall(r"^(tests/\S+?::.+?)(?: (?:PASSED|SKIPPED|FAILED|ERROR).*)?$", done.stdout, re.MULTILINE)
        if done.returncode > 1 or not began:
            sys.exit(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return began[-1].strip()


def main() -> int:
    wanted = " ".join(sys.argv[1:])
    faults = [fault for fault in FAULTS if wanted in f"{fault.name} {fault.path}"]
    if not faults:
        sys.exit(f"no fault has {wanted!r} in its name or path")
    if names := stale(faults):
        sys.exit(f"no longer fit the sources: {', '.join(names)}")
    caught: list[tuple[Fault, str]] = []
    with tempfile.TemporaryDirectory() as directory:
        tree = Tree(Path(directory))
        print(f"seconds  {'fault':<64}caught by", flush=True)
        for fault in faults:
            begin = time.perf_counter()
            with tree.planted(fault):
                failed = tree.first_failure(fault.environment, *fault.arguments)
            caught += [(fault, failed)] if failed else []
            print(f"{time.perf_counter() - begin:7.1f}  {fault.name:<64}{failed or 'NOTHING'}", flush=True)
        tree.compile()
        for environment in (NATIVE, NUMBA):
            tests = sorted({failed for fault, failed in caught if fault.environment == environment})
            if tests and (failed := tree.first_failure(environment, *tests)):
                sys.exit(f"without a fault, {failed} fails too")
    print(f"{len(caught)} of {len(faults)} caught")
    return len(caught) < len(faults)


if __name__ == "__main__":
    sys.exit(main())
