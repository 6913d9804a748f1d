"""What this installation is and what it found on this machine."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hotrow import _backend, _threads
from hotrow._version import __version__


def _openmp_runtimes() -> list[str]:
    """OpenMP libraries mapped into this process; Linux only."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return []
    return sorted({p for p in re.findall(r"(/\S+)", maps) if re.search(r"lib(gomp|omp|iomp5)[-.]", p)})


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def config() -> dict[str, Any]:
    """Everything `hotrow info` prints, as plain data."""
    try:
        backend: str | None = _backend.name()
    except ImportError:
        backend = None
    result: dict[str, Any] = {
        "hotrow": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cpu": _cpu(),
        "backend": backend,
        "numba": find_spec("numba") is not None,
        "native": None,
        "threads": _threads.get_num_threads(),
        "threads_from": _threads.source,
        "environment": {k: v for k, v in os.environ.items() if re.match(r"(HOTROW|OMP|GOMP|KMP)_", k)},
    }
    if find_spec("hotrow._native") is not None:
        native = _backend.native()
        result["native"] = {
            "compiler": native.compiler,
            "isas_built": native.built_isas(),
            "isas_supported": native.supported_isas(),
            "isa": native.isa(),
            "openmp": native.openmp,
            "openmp_runtimes": _openmp_runtimes(),
        }
    return result


def show_config(as_json: bool = False) -> None:
    """Print version, compiler, instruction sets, OpenMP runtime and threads, and where the number of threads came from.

    Args:
        as_json (bool): as one JSON object; default: as text.
    """
    c = config()
    if as_json:
        print(json.dumps(c, indent=2))
        return
    native = c["native"]
    lines = [
        ("hotrow", c["hotrow"]),
        ("Python", f"{c['python']}, NumPy {c['numpy']}"),
        ("platform", c["platform"]),
        ("CPU", c["cpu"]),
        ("backend", c["backend"] or 'none: pip install "hotrow[numba]"'),
    ]
    if native:
        lines += [
            ("compiler", native["compiler"]),
            ("instruction sets", f"{native['isa']} in use; {', '.join(native['isas_supported'])} supported; "
                                 f"{', '.join(native['isas_built'])} built"),
            ("OpenMP", f"{native['openmp'] or 'none'}; loaded: {', '.join(native['openmp_runtimes']) or 'unknown'}"),
        ]  # fmt: skip
    else:
        lines.append(("native kernels", "not built"))
    lines += [
        ("Numba", "installed" if c["numba"] else "not installed"),
        ("threads", f"{c['threads']} ({c['threads_from']})"),
        *(("environment", f"{k}={v}") for k, v in c["environment"].items()),
    ]
    sys.stdout.write("".join(f"{name:<17} {value}\n" for name, value in lines))  # whole, for a reader who leaves early
