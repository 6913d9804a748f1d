"""Chooses native or Numba kernels. Both offer the operators of hotrow._ops under the same names."""

from __future__ import annotations

import ctypes
import importlib
import os
import warnings
from dataclasses import astuple
from functools import cache
from types import ModuleType
from typing import Any

from hotrow._ops import OPS

NAMES = ("native", "numba")

_kernels: ModuleType | None = None
_name: str | None = None
_native: ModuleType | None = None
plain: dict[str, Any] = {}  # native kernels' own checks of each operator, csrc/bindings/plain.h; none with Numba

# A worker of libgomp spins some milliseconds for more work by default, in which it takes a core from whoever runs next:
# torch's own pool, say. hotrow's waits about as long as it takes to be woken, then sleeps.
_SPIN_COUNT = "1000"


def _in_subinterpreter() -> bool:
    get, main = ctypes.pythonapi.PyInterpreterState_Get, ctypes.pythonapi.PyInterpreterState_Main
    get.restype = main.restype = ctypes.c_void_p
    return bool(get() != main())


def _load_native() -> ModuleType:
    """Import the extension. libgomp reads its spin count once, while it is loaded: set it for that moment only."""
    if _in_subinterpreter():  # before Python 3.12 the import would wait for ever
        raise ImportError("hotrow does not run in a subinterpreter, nor does NumPy: use threads or processes")
    ours = not any(os.environ.get(name) for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"))
    if ours:
        os.environ["GOMP_SPINCOUNT"] = _SPIN_COUNT
    try:
        native = importlib.import_module("hotrow._native")
    finally:
        if ours:
            os.environ.pop("GOMP_SPINCOUNT", None)  # another thread may have been here
    isa = os.environ.get("HOTROW_ISA")
    if isa:
        native.use_isa(isa)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=native.release_threads)
    return native


def native() -> ModuleType:
    """The native kernels, loaded at the first call; ModuleNotFoundError where they were not built."""
    global _native
    if _native is None:
        _native = _load_native()
    return _native


@cache
def _plain() -> dict[str, Any]:
    return {op: native().Plain(op, [astuple(arg)[1:] for arg in OPS[op]]) for op in OPS}


def _load(name: str) -> ModuleType:
    if name == "native":
        return native()
    try:
        return importlib.import_module("hotrow._numba")
    except ImportError as error:
        raise ImportError('hotrow\'s Numba kernels need Numba: pip install "hotrow[numba]"') from error


def use_backend(name: str) -> None:
    """Choose the kernels: "native" (C++) or "numba". Default: HOTROW_BACKEND, else native where it was built.

    Raises:
        ValueError: no such backend.
        ImportError: the backend is not installed.
    """
    global _kernels, _name, plain
    if name not in NAMES:
        raise ValueError(f"backend must be one of {', '.join(map(repr, NAMES))}, not {name!r}")
    _kernels, _name = _load(name), name
    plain = _plain() if name == "native" else {}


def _choose() -> ModuleType:
    wanted = os.environ.get("HOTROW_BACKEND")
    if wanted:
        use_backend(wanted)
    else:
        try:
            use_backend("native")
        except ModuleNotFoundError:
            try:
                use_backend("numba")
            except ImportError:
                raise ImportError(
                    "hotrow has no native kernels (no working C++ compiler when it was installed) and Numba is not "
                    'installed: pip install "hotrow[numba]", or install a C++ compiler and then hotrow again'
                ) from None
            warnings.warn(
                "hotrow has no native kernels in this installation: it runs on Numba, which is slower",
                RuntimeWarning,
                stacklevel=5,  # the caller of the operator
            )
    assert _kernels is not None
    return _kernels


def kernels() -> ModuleType:
    """The kernels in use."""
    return _kernels or _choose()


def name() -> str:
    """Which kernels are in use: "native" or "numba"."""
    kernels()
    assert _name is not None
    return _name
