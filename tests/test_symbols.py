"""What the linker sees: an object built for newer CPUs shares nothing with the rest but its function table, and the
baseline needs no newer CPU. HOTROW_BUILD_DIR names a CMake build to look at; without it the kernels are compiled here,
unoptimised: no function is inlined away and it takes seconds.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1]
KERNELS = SOURCE / "csrc/kernels/table.cpp"
BUILD = os.environ.get("HOTROW_BUILD_DIR")

pytestmark = [
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="one instruction set on this machine"),
    pytest.mark.skipif(not KERNELS.exists(), reason="the sources are not beside the tests"),
    pytest.mark.skipif(not (BUILD or shutil.which("c++")), reason="no C++ compiler"),
    pytest.mark.skipif(not (shutil.which("nm") and shutil.which("objdump")), reason="no binutils"),
]


def _isas() -> dict[str, list[str]]:
    """Every instruction set and its flags, as CMakeLists.txt builds them."""
    entries = re.findall(r'"(\w+)((?: -m[^" ]+)+)"', (SOURCE / "CMakeLists.txt").read_text())
    return {"baseline": []} | {isa: flags.split() for isa, flags in entries}


ISAS = _isas() if KERNELS.exists() else {}


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", params=ISAS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An instruction set and its object."""
    isa = request.param
    if BUILD:
        (found,) = Path(BUILD).glob(f"**/kernels_{isa}.dir/**/table.cpp.o")
        return isa, found
    target = tmp_path_factory.mktemp("symbols") / "table.o"
    flags = ["-std=c++17", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-Wno-psabi", "-fvisibility=hidden"]
    run("c++", *flags, "-O0", *ISAS[isa], f"-DHOTROW_ISA={isa}", f"-I{SOURCE / 'csrc'}", "-c", KERNELS, "-o", target)
    return isa, target


def test_isas_are_those_of_the_build() -> None:
    assert list(ISAS) == ["baseline", "avx2", "avx512"]


def test_an_object_defines_its_function_table_alone(built: tuple[str, Path]) -> None:
    isa, path = built
    lines = run("nm", "--demangle", "--defined-only", "--extern-only", path).splitlines()
    names = [line.split(maxsplit=2)[2] for line in lines]
    # Unoptimised code that may throw also holds a pointer to the personality routine: data, the same in every object.
    assert [name for name in names if name != "DW.ref.__gxx_personality_v0"] == [f"hotrow::{isa}::kernels"]


def test_registers_are_those_of_the_instruction_set(built: tuple[str, Path]) -> None:
    isa, path = built
    code = run("objdump", "--disassemble", "--no-show-raw-insn", path)
    vex = re.search(r"\t(v\w+) ", code) is not None  # instructions that began with AVX
    found = ("%ymm" in code, "%zmm" in code, vex)
    assert found == {"baseline": (False, False, False), "avx2": (True, False, True)}.get(isa, (True, True, True))
