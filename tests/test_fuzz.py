"""A moment of every fuzzer and of the soak; each runs for as long as one likes by itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fuzz_calls
import fuzz_files
from bad_inputs import good
from conftest import BACKENDS, Backend, run_python, using
from hotrow import ops

SOURCE = Path(__file__).parents[1]
FLAGS = ("-std=c++17", "-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
each_name = pytest.mark.parametrize("name", sorted({backend.name for backend in BACKENDS}))


@each_name
def test_random_calls(name: str) -> None:
    """Numba compiles for each new combination of dtypes and layouts: it gets fewer."""
    with using(Backend(name)):
        calls = 20_000 if name == "native" else 60
        ended = fuzz_calls.run(calls, seed=1)
    assert ended.total() == calls
    for what in ("TypeError", "ValueError", "IndexError", "compared"):
        assert ended[what] > calls / 100, ended


@each_name
@pytest.mark.parametrize("dtype", [None, np.float32, np.float16])
def test_bags_of_random_calls_are_compared(name: str, dtype: Any) -> None:
    """Whatever dtype they were asked for in: the definition knows none. Rounded to 16 bits, they are 2^-11 off."""
    case = good("embedding_bag") | {"out": None, "argmax": None, "weights": None, "mode": "sum", "dtype": dtype}
    if dtype is np.float16:
        case["table"] = case["table"].astype(dtype)
    with using(Backend(name)):
        found = ops.embedding_bag(**case)
    assert fuzz_calls._check_result("embedding_bag", case, {"result": found})
    with pytest.raises(AssertionError, match="result is off by"):
        fuzz_calls._check_result("embedding_bag", case, {"result": found * found.dtype.type(1.01)})


@pytest.mark.parametrize("kind", fuzz_files.KINDS)
def test_damaged_files(kind: str, tmp_path: Path) -> None:
    if kind == "safetensors":
        pytest.importorskip("safetensors")
    read = [accepted for accepted, _ in zip(fuzz_files.run(kind, 7, tmp_path), range(400), strict=False)]
    assert 0 <= sum(read) < 300  # of packed files none may be read


def test_texts(tmp_path: Path) -> None:
    """libFuzzer on the native encoder, where clang has it."""
    encoder, compiler = SOURCE / "csrc/text/encoder.cpp", shutil.which("clang++")
    if compiler is None or not encoder.exists():
        pytest.skip("no clang++, or no sources beside the tests")
    fuzzer = tmp_path / "fuzzer"
    command = [compiler, *FLAGS, f"-I{SOURCE / 'csrc'}", encoder, SOURCE / "tests/fuzz_encoder.cpp", "-o", fuzzer]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "libclang_rt.fuzzer" in built.stderr:
        pytest.skip("clang++ is here without libFuzzer")
    assert built.returncode == 0, built.stderr
    (tmp_path / "found").mkdir()
    seeds = SOURCE / "tests/seeds/text"
    command = [fuzzer, "-seed=1", "-runs=1000", "-max_total_time=25", "-max_len=200", tmp_path / "found", seeds]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]


@pytest.mark.skipif(sys.platform != "linux", reason="the soak needs Linux")
@pytest.mark.skipif("native" not in {backend.name for backend in BACKENDS}, reason="Numba's first calls compile")
def test_soak() -> None:
    """In a process of its own, whose memory it watches."""
    tests = str(Path(__file__).parent)
    run_python(f"import sys; sys.path.insert(0, {tests!r}); import soak; soak.run(20)", HOTROW_BACKEND="native")
