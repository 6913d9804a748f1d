"""A repaired wheel: HOTROW_WHEEL names it, for the Python that runs this; see docs/decisions/17-wheels.md.

HOTROW_BUILD_DIR names the CMake build it was made of, whose symbols say what the wheel's stripped code is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import run_python

WHEEL = Path(os.environ.get("HOTROW_WHEEL", ""))
BUILD = os.environ.get("HOTROW_BUILD_DIR")
TAG = re.compile(r"hotrow-[^-]+-(cp3\d+)-(cp3\d+t?)-(.+)\.whl")
LINUX = re.compile(r"(manylinux|musllinux)_\d+_\d+_(x86_64|aarch64)")

pytestmark = [
    pytest.mark.skipif(not WHEEL.name, reason="HOTROW_WHEEL names no wheel"),
    pytest.mark.skipif(sys.platform != "linux", reason="written for wheels of Linux"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel is installed, and nothing else."""
    target = tmp_path_factory.mktemp("site")
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-index", f"--target={target}", str(WHEEL.resolve())]
    subprocess.run([sys.executable, *install], check=True)
    return target


@pytest.fixture(scope="module")
def module(site: Path) -> Path:
    """The binary."""
    (found,) = (site / "hotrow").glob("_native.*.so")
    return found


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_tag() -> None:
    match = TAG.fullmatch(WHEEL.name)
    assert match, WHEEL.name
    python, abi, platforms = match.groups()
    thread = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    assert (python, abi) == (f"cp3{sys.version_info.minor}", f"cp3{sys.version_info.minor}{thread}")
    assert all(LINUX.fullmatch(tag) or tag.startswith("manylinux2014") for tag in platforms.split("."))


def test_size() -> None:
    """Without libstdc++, which a wheel for musl has to bring."""
    with zipfile.ZipFile(WHEEL) as wheel:
        others = sum(i.compress_size for i in wheel.infolist() if re.search(r"\.libs/lib(stdc\+\+|gcc_s)", i.filename))
    assert WHEEL.stat().st_size - others < 2_000_000  # docs/decisions/17-wheels.md has what it is made of


def test_what_it_holds(site: Path) -> None:
    files = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    strangers = {f for f in files if not f.startswith(("hotrow/", "hotrow.libs/", "hotrow-")) and f != "bin/hotrow"}
    assert not strangers
    assert {"hotrow/py.typed", "bin/hotrow"} <= files
    assert any(re.fullmatch(r"hotrow-[^/]+\.dist-info/licenses/LICENSE", f) for f in files)
    libraries = {re.sub(r"-.*", "", path.name) for path in (site / "hotrow.libs").iterdir()}
    assert libraries - {"libstdc++", "libgcc_s"} == {"libgomp"}


@pytest.mark.skipif(not shutil.which("nm"), reason="no binutils")
def test_it_exports_its_entry_alone(module: Path) -> None:
    lines = output("nm", "--dynamic", "--defined-only", "--extern-only", module).splitlines()
    assert [line.split()[2] for line in lines] == ["PyInit__native"]


def functions(path: Path) -> Iterator[tuple[str, str]]:
    """(function, instruction) for all of a disassembly."""
    command = ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = ""
        for line in process.stdout:
            if line.endswith(">:\n"):
                name = line.partition("<")[2][:-3]
            elif "\t" in line:
                yield name, line.split("\t", 1)[1]
    assert process.returncode == 0


def code(path: Path, scratch: Path) -> bytes:
    """Its machine code."""
    output("objcopy", "--output-target=binary", "--only-section=.text", path, scratch)
    return scratch.read_bytes()


@pytest.mark.skipif("x86_64" not in WHEEL.name, reason="one instruction set in this wheel")
@pytest.mark.skipif(not BUILD, reason="HOTROW_BUILD_DIR names no build")
@pytest.mark.skipif(not (shutil.which("objdump") and shutil.which("objcopy")), reason="no binutils")
def test_only_kernels_for_avx_hold_avx(module: Path, tmp_path: Path) -> None:
    """Every instruction of AVX and later begins with v."""
    (built,) = Path(BUILD or "").glob("**/_native.*.so")
    assert code(built, tmp_path / "built") == code(module, tmp_path / "module")
    found = set()
    for name, instruction in functions(built):
        if instruction.startswith("v") or re.search("%[yz]mm", instruction):
            kernels = re.match(r"(?:\w+ )*hotrow::(avx2|avx512)::", name)
            found.add(kernels[1] if kernels else name)
    assert found == {"avx2", "avx512"}


# Both libraries' work on several threads, in either order, then a fork. hotrow's third worker tells pools apart.
BESIDE_TORCH = """
import os, sys
import numpy as np
first = sys.argv[1]

def threads():
    return len(os.listdir("/proc/self/task"))

def torch_work():
    import torch
    torch.set_num_threads(2)
    assert float((torch.ones(1000, 1000) + 1).sum()) == 2_000_000

def hotrow_work():
    import hotrow
    hotrow.set_num_threads(3)
    table, indices = np.ones((5000, 64), np.float32), np.arange(40_000) % 5000
    assert hotrow.gather(table, indices).sum() == 40_000 * 64

if first == "torch":
    torch_work()
before = threads()
hotrow_work()
print(threads() - before)
if first == "hotrow":
    torch_work()
hotrow_work()

from threadpoolctl import threadpool_info
print(*(info["filepath"].split("/")[-2] for info in threadpool_info() if info["prefix"] == "libgomp"))

child = os.fork()
if child == 0:
    hotrow_work()  # torch's own workers do not survive a fork, with or without hotrow
    os._exit(0)
torch_work()
hotrow_work()
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize(("first", "started"), [("hotrow", 2), ("torch", 1)])
def test_openmp_beside_torch(site: Path, first: str, started: int) -> None:
    """Two runtimes are loaded. Where torch came first its symbols are everybody's: hotrow shares its pool, of two."""
    pytest.importorskip("torch")
    pytest.importorskip("threadpoolctl")
    done = run_python(BESIDE_TORCH, first, PYTHONPATH=str(site), HOTROW_BACKEND="native")
    workers, runtimes = done.stdout.splitlines()
    assert int(workers) == started
    assert sorted(runtimes.split()) == ["hotrow.libs", "lib"]
