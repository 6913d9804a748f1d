"""The checks, one command each: `nox -s asan`, and `nox -l` lists them. Where this machine lacks what a session needs,
it fails. Words after -- go to pytest: `nox -s asan -- tests/test_text.py`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint"]
nox.options.default_venv_backend = "venv"

BUILD = ("cmake", "ninja", "pybind11>=3", "scikit-build-core>=1.1", "numpy")
NATIVE = {"HOTROW_BACKEND": "native"}  # what Numba compiles is the same in every build
NO_COMPILER = {"CXX": "/nonexistent", "CC": "/nonexistent"}
SOURCES = [str(path) for path in (*Path("csrc").glob("*/*.cpp"), *Path("tests/native").glob("*.cpp"))]

# Tests that cannot pass under ASan.
NOT_UNDER_ASAN = (
    # hotrow keeps no memory for the next call in this build, and ASan itself holds back what is freed.
    "test_limits.py::test_memory_of_a_large_result_is_used_again_once_nothing_refers_to_it",
    "test_limits.py::test_kept_memory_is_given_up_where_there_is_no_other",
    # Its program brings Clang's ASan, which does not start beside the one that is loaded first.
    "test_fuzz.py::test_texts",
    # GCC 12's ASan does not unlock its allocator in a child: forked while a thread ends, the child hangs.
    "test_fuzz.py::test_soak",
)


def need(session: nox.Session, *programs: str) -> None:
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        session.error(f"not on this machine: {', '.join(missing)}")


def output(session: nox.Session, *command: str) -> str:
    return str(session.run(*command, silent=True, external=True)).strip()


def configure(session: nox.Session, preset: str, *options: str) -> None:
    session.install(*BUILD)
    python = [f"-DPython_EXECUTABLE={output(session, 'python', '-c', 'import sys; print(sys.executable)')}"]
    pybind11 = [f"-Dpybind11_DIR={output(session, 'python', '-m', 'pybind11', '--cmakedir')}"]
    session.run("cmake", "--preset", preset, *python, *pybind11, *options)


def build_and_run(session: nox.Session, preset: str) -> None:
    """Compile a preset and run the tests in C++."""
    configure(session, preset)
    session.run("cmake", "--build", "--preset", preset)
    session.run("ctest", "--test-dir", f"build/{preset}", "--output-on-failure", "--no-tests=error")


def install(session: nox.Session, preset: str, *packages: str) -> None:
    """Install hotrow, its kernels compiled as a preset says."""
    session.install(*BUILD)
    kind = "Release" if preset == "release" else "Debug"
    cmake = [f"-Ccmake.args=--preset={preset}", f"-Ccmake.build-type={kind}", f"-Cbuild-dir=build/{preset}-install"]
    flags = ["--no-build-isolation", "-Cinstall.strip=false", "-Ccmake.define.HOTROW_NATIVE_TESTS=OFF", *cmake]
    session.install(*flags, ".[test]", *packages, env={"HOTROW_REQUIRE_NATIVE": "1"})


def test(session: nox.Session, *arguments: str, **env: str) -> None:
    session.run("python", "-m", "pytest", "-q", *arguments, *session.posargs, env=env)


@nox.session
def tests(session: nox.Session) -> None:
    """The suite without frameworks, release build."""
    install(session, "release")
    test(session)


@nox.session
def debug(session: nox.Session) -> None:
    """The suite on native kernels, unoptimised."""
    install(session, "debug")
    test(session, **NATIVE)


@nox.session
def asan(session: nox.Session) -> None:
    """The suite on native kernels under AddressSanitizer and UndefinedBehaviorSanitizer."""
    need(session, "g++")
    install(session, "asan")
    preload = [output(session, "g++", f"-print-file-name={name}") for name in ("libasan.so", "libstdc++.so")]
    options = {
        "LD_PRELOAD": " ".join(preload),  # Python itself is not instrumented
        "PYTHONMALLOC": "malloc",  # every object a block of its own
        # Python leaves what it has to the system when it ends; a test reads a mapped file that was cut.
        "ASAN_OPTIONS": "detect_leaks=0:handle_sigbus=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
    left_out = [f"--deselect=tests/{name}" for name in NOT_UNDER_ASAN]
    test(session, *left_out, **NATIVE, **options)


@nox.session
def tsan(session: nox.Session) -> None:
    """The plans on several threads under ThreadSanitizer."""
    need(session, "clang++")
    build_and_run(session, "tsan")


@nox.session
@nox.parametrize("target", ["aarch64", "s390x"])
def qemu(session: nox.Session, target: str) -> None:
    """The kernels on another machine, emulated: s390x has the other byte order."""
    need(session, f"{target}-linux-gnu-g++", f"qemu-{target}")
    build_and_run(session, target)


@nox.session
@nox.parametrize("compiler", ["g++", "clang++"])
def werror(session: nox.Session, compiler: str) -> None:
    """Warnings are errors."""
    need(session, compiler)
    configure(session, "werror", "-B", f"build/werror-{compiler}", f"-DCMAKE_CXX_COMPILER={compiler}")
    session.run("cmake", "--build", f"build/werror-{compiler}")


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, mypy, clang-tidy and cppcheck."""
    need(session, "clang-tidy", "clang++", "cppcheck")
    session.install("ruff>=0.12", "mypy>=1.16", "numpy", "tqdm")
    session.install("torch>=2.4", "ml_dtypes>=0.4")  # their types are derived from, and mypy is strict
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    configure(session, "debug", "-B", "build/lint", "-DCMAKE_CXX_COMPILER=clang++")
    session.run("clang-tidy", "--quiet", "-p", "build/lint", *SOURCES, external=True)
    session.run(".ci/cppcheck", *SOURCES, external=True)


@nox.session
def numba(session: nox.Session) -> None:
    """Without a compiler: Numba alone."""
    session.install(".[test]", env=NO_COMPILER)
    session.run("python", "-c", "import importlib.util as u; assert u.find_spec('hotrow._native') is None")
    test(session, HOTROW_BACKEND="numba")


@nox.session
def oldest(session: nox.Session) -> None:
    """The oldest NumPy that hotrow supports."""
    install(session, "release", "numpy==2.0.*")
    test(session)


@nox.session
@nox.parametrize("isa", ["baseline", "avx2", "avx512"])
def isa(session: nox.Session, isa: str) -> None:
    """The suite on native kernels of one instruction set."""
    install(session, "release")
    test(session, HOTROW_ISA=isa, **NATIVE)


@nox.session
def mutants(session: nox.Session) -> None:
    """Plants faults one at a time and shows which test catches each. Words after -- are of their names."""
    session.install(*BUILD, ".[test]", env=NO_COMPILER)  # it compiles a copy of its own
    session.run("python", "tests/mutants.py", *session.posargs)
