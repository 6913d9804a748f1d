"""Everything around the operators: environment, threads, fallbacks, configuration and aligned tables."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import hotrow
from conftest import BACKENDS, run_python
from hotrow import _backend, _threads, cli

HAS_NATIVE = find_spec("hotrow._native") is not None
needs_native = pytest.mark.skipif(not HAS_NATIVE, reason="the native kernels were not built")
LOOK_UP = "import numpy as np, hotrow; hotrow.gather(np.ones((2, 2), np.float32), [0]); "
WITHOUT = "import sys; sys.modules.update(dict.fromkeys(sys.argv[1:])); "  # None: importing them fails


def test_public_names_exist() -> None:
    assert sorted(hotrow.__all__) == hotrow.__all__
    assert all(hasattr(hotrow, name) for name in hotrow.__all__)


# --- environment ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HOTROW_BACKEND", "fast", "ValueError: backend must be one of 'native', 'numba', not 'fast'"),
        ("HOTROW_NUM_THREADS", "0", "ValueError: HOTROW_NUM_THREADS must be an integer in [1, 4096], not '0'"),
        ("HOTROW_NUM_THREADS", "4097", "ValueError: HOTROW_NUM_THREADS must be an integer in [1, 4096], not '4097'"),
        ("HOTROW_NUM_THREADS", "two", "ValueError: HOTROW_NUM_THREADS must be an integer in [1, 4096], not 'two'"),
        pytest.param(
            "HOTROW_ISA",
            "z80",
            "ValueError: instruction set 'z80' is not available here: choose one of baseline",
            marks=needs_native,
        ),
    ],
)
def test_a_bad_variable_is_an_error(variable: str, value: str, message: str) -> None:
    done = run_python(LOOK_UP, ok=False, **{"HOTROW_BACKEND": "", variable: value})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(message)


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
def test_variables_choose_the_kernels(backend: object) -> None:
    name, _, isa = str(backend).partition("-")
    script = LOOK_UP + "from hotrow import _backend as b; print(b.name(), b.name() == 'native' and b.kernels().isa())"
    assert run_python(script, HOTROW_BACKEND=name, HOTROW_ISA=isa).stdout.split() == [name, isa or "False"]


def test_tests_without_kernels_are_refused() -> None:
    """Not all skipped: Numba's kernels are of no instruction set."""
    tests = str(Path(__file__).parent)
    done = run_python("import conftest", ok=False, HOTROW_BACKEND="numba", HOTROW_ISA="baseline", PYTHONPATH=tests)
    assert done.stderr.splitlines()[-1].endswith("UsageError: HOTROW_BACKEND and HOTROW_ISA leave no kernels to test")


@pytest.mark.parametrize(
    ("hotrow_value", "omp_value", "want"),
    [
        ("3", "5", (3, "HOTROW_NUM_THREADS")),
        ("", "5", (5, "OMP_NUM_THREADS")),
        ("", "4,2", (4, "OMP_NUM_THREADS")),
        ("", "many", (7, "CPUs this process may use")),
        ("", "", (7, "CPUs this process may use")),
    ],
)
def test_where_threads_come_from(
    monkeypatch: pytest.MonkeyPatch, hotrow_value: str, omp_value: str, want: tuple[int, str]
) -> None:
    monkeypatch.setenv("HOTROW_NUM_THREADS", hotrow_value)
    monkeypatch.setenv("OMP_NUM_THREADS", omp_value)
    monkeypatch.setattr(_threads, "_available_cpus", lambda: (7, "CPUs this process may use"))
    assert _threads._default() == want


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "1000 100000\n"}, 1),
        ({"cpu.max": "nonsense\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "0\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n"}, None),
        ({}, None),
    ],
)
def test_cgroup_quota(tmp_path: Path, files: dict[str, str], cpus: int | None) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert _threads._cgroup_cpus(tmp_path) == cpus


def test_a_quota_limits_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "_cgroup_cpus", lambda: None)
    affinity, source = _threads._available_cpus()
    assert source == "CPUs this process may use"
    monkeypatch.setattr(_threads, "_cgroup_cpus", lambda: affinity - 1)
    assert _threads._available_cpus() == (affinity - 1, "cgroup CPU quota")
    monkeypatch.setattr(_threads, "_cgroup_cpus", lambda: affinity + 1)
    assert _threads._available_cpus() == (affinity, source)


def test_number_of_threads() -> None:
    before = hotrow.get_num_threads(), _threads.source
    with hotrow.num_threads(5):
        assert hotrow.get_num_threads() == 5
        hotrow.set_num_threads(6)
        assert (hotrow.get_num_threads(), _threads.source) == (6, "set_num_threads")
    assert (hotrow.get_num_threads(), _threads.source) == before
    with pytest.raises(ZeroDivisionError), hotrow.num_threads(5):
        1 / 0  # noqa: B018
    assert (hotrow.get_num_threads(), _threads.source) == before
    for n in (0, -1, 4097):
        with pytest.raises(ValueError, match=rf"^n = {n} must be in \[1, 4096\]$"):
            hotrow.set_num_threads(n)
    for wrong in (2.0, True, "2"):
        with pytest.raises(TypeError, match=rf"^n must be an integer, not {type(wrong).__name__}$"):
            hotrow.set_num_threads(wrong)  # type: ignore[arg-type]
    assert hotrow.get_num_threads() == before[0]


# --- backends ---------------------------------------------------------------------------------------------------------


SUBINTERPRETER = """
import importlib, sys
interpreters = importlib.import_module("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
isolated = sys.argv[1] == "isolated"
options = {"isolated": isolated} if sys.version_info < (3, 13) else {"config": sys.argv[1]}
interpreters.run_string(interpreters.create(**options), '''
import warnings
warnings.simplefilter("ignore")  # NumPy's
try:
    import hotrow, numpy
    hotrow.gather(numpy.ones((2, 2), numpy.float32), [0])
except ImportError as error:
    print(error, flush=True)
''')
"""


@needs_native
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="written for the private modules of 3.11 to 3.13")
@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_a_subinterpreter_is_refused(kind: str) -> None:
    """By hotrow or, where Python 3.12 and later ask, by NumPy or one of the modules it needs."""
    said = run_python(SUBINTERPRETER, kind, HOTROW_BACKEND="").stdout
    assert "not run in a subinterpreter" in said or "not support loading in subinterpreters" in said


def test_unknown_backend_changes_nothing() -> None:
    before = _backend.name()
    with pytest.raises(ValueError, match=r"^backend must be one of 'native', 'numba', not 'cuda'$"):
        hotrow.use_backend("cuda")
    assert _backend.name() == before


def test_without_native_kernels_numba_serves_and_says_so_once() -> None:
    pytest.importorskip("numba")
    script = f"""
import sys, warnings
sys.modules["hotrow._native"] = None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    {LOOK_UP * 2}
assert [str(w.message) for w in caught if w.category is RuntimeWarning] == [
    "hotrow has no native kernels in this installation: it runs on Numba, which is slower"
]
hotrow.show_config()
"""
    done = run_python(script, HOTROW_BACKEND="")
    assert re.search(r"^backend +numba$", done.stdout, re.MULTILINE)
    assert re.search(r"^native kernels +not built$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("wanted", ["", "numba"])
def test_without_any_kernels_the_error_names_the_cure(wanted: str) -> None:
    done = run_python(WITHOUT + LOOK_UP, "hotrow._native", "numba", ok=False, HOTROW_BACKEND=wanted)
    assert done.returncode == 1
    assert 'pip install "hotrow[numba]"' in done.stderr.splitlines()[-1]
    shown = run_python(
        WITHOUT + "import hotrow; hotrow.show_config()", "hotrow._native", "numba", HOTROW_BACKEND=wanted
    )
    assert re.search(r'^backend +none: pip install "hotrow\[numba\]"$', shown.stdout, re.MULTILINE)


# --- configuration ----------------------------------------------------------------------------------------------------


def test_config_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["hotrow"] == hotrow.__version__
    assert found["backend"] == _backend.name()
    assert (found["threads"], found["threads_from"]) == (hotrow.get_num_threads(), _threads.source)
    assert (found["native"] is not None) == HAS_NATIVE
    if HAS_NATIVE:
        native = found["native"]
        assert native["isa"] in native["isas_supported"]
        assert set(native["isas_supported"]) <= set(native["isas_built"])
        if sys.platform == "linux" and native["openmp"]:
            assert native["openmp_runtimes"]


def test_config_as_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    hotrow.show_config()
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if "instruction" not in line)
    assert shown["hotrow"] == hotrow.__version__
    assert shown["backend"] == _backend.name()
    assert shown["threads"] == f"{hotrow.get_num_threads()} ({_threads.source})"
    assert "OMP_WAIT_POLICY=passive" in shown.values()


def test_module_runs() -> None:
    done = run_python("import runpy, sys; sys.argv[1:] = ['info']; runpy.run_module('hotrow', run_name='__main__')")
    assert done.stdout.startswith("hotrow ")


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [0, 1, 15, 16, 17, 100])
def test_rows_of_an_empty_table_are_aligned(width: int, dtype: type) -> None:
    table = hotrow.empty_table(7, width, dtype)
    assert table.shape == (7, width)
    assert table.dtype == dtype
    assert all(row.ctypes.data % 64 == 0 for row in table if width)
    table[:] = 1  # all of it is ours to write
    assert hotrow.empty_table(0, width, dtype).shape == (0, width)


def test_bad_empty_tables() -> None:
    with pytest.raises(TypeError, match=r"^table must be float32, float64, float16 or bfloat16, not int16$"):
        hotrow.empty_table(1, 1, np.int16)
    with pytest.raises(ValueError, match=r"^rows = -1 must be at least 0$"):
        hotrow.empty_table(-1, 1)
    with pytest.raises(TypeError, match=r"^width must be an integer, not float$"):
        hotrow.empty_table(1, 1.0)  # type: ignore[arg-type]
