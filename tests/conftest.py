"""What all tests share: the backends found here, one at a time, and how to run Python beside this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hotrow import _backend, use_backend


@dataclass(frozen=True)
class Backend:
    """Kernels to test: "native" with an instruction set, or "numba"."""

    name: str
    isa: str = ""

    def __str__(self) -> str:
        return f"{self.name}-{self.isa}" if self.isa else self.name

    def lanes(self, dtype: Any) -> int:
        """Elements in a register; Numba's kernels name none, its compiler picks."""
        register = {"avx512": 64, "avx2": 32}.get(self.isa, 16)
        return register // np.dtype(dtype).itemsize


def _found() -> list[Backend]:
    """All that are here; HOTROW_BACKEND leaves one of them, HOTROW_ISA native kernels of one instruction set."""
    name, isa = os.environ.get("HOTROW_BACKEND"), os.environ.get("HOTROW_ISA")
    found = []
    if name != "numba" and find_spec("hotrow._native") is not None:
        found += [Backend("native", each) for each in _backend.native().supported_isas() if isa in (None, "", each)]
    if name != "native" and not isa and find_spec("numba") is not None:
        found.append(Backend("numba"))
    return found


BACKENDS = _found()
if not BACKENDS:
    raise pytest.UsageError("HOTROW_BACKEND and HOTROW_ISA leave no kernels to test")
several = pytest.mark.skipif(len(BACKENDS) < 2, reason="one backend, and none to compare it with")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; processes started here inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
if not any(backend.isa for backend in BACKENDS):
    use_backend("numba")  # chosen, not fallen back to: no warning


@contextmanager
def using(wanted: Backend) -> Iterator[ModuleType]:
    """Within a `with` block, let hotrow run on these kernels."""
    before = _backend.name()
    native = _backend.native() if find_spec("hotrow._native") is not None else None
    isa = native.isa() if native else ""
    use_backend(wanted.name)
    if native and wanted.isa:
        native.use_isa(wanted.isa)
    try:
        yield _backend.kernels()
    finally:
        if native:
            native.use_isa(isa)
        use_backend(before)


@pytest.fixture(params=BACKENDS, ids=str)
def backend(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The kernels of one backend, in use for one test."""
    with using(request.param) as kernels:
        yield kernels


def run_python(
    code: str, *arguments: str, timeout: float = 120, ok: bool = True, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own; `env` adds to the environment. Its output tells what went wrong if it fails."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=os.environ | env,
    )
    assert not ok or done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
