"""hotrow.keras on every backend of Keras that is installed, each in a process of its own: one has one backend."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from conftest import run_python

BACKENDS = ("numpy", "torch", "jax", "tensorflow")
needs_keras = pytest.mark.skipif(find_spec("keras") is None, reason="Keras is not installed")


@needs_keras
@pytest.mark.parametrize("backend", BACKENDS)
def test_cases(backend: str) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    cases = Path(__file__).with_name("keras_cases.py")
    # What Keras and its backends themselves warn of is theirs.
    quiet = ["-W", "default::DeprecationWarning", "-W", "default::FutureWarning"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *quiet, cases],
        capture_output=True, text=True, timeout=900, check=False,
        env=os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]


@needs_keras
def test_hotrow_alone_imports_no_keras() -> None:
    run_python("import hotrow, sys; assert not {'keras', 'tensorflow', 'jax', 'torch'} & sys.modules.keys()")


def test_without_keras_the_error_names_the_extra() -> None:
    code = """
import sys
sys.modules["keras"] = None
try:
    import hotrow.keras
except ImportError as error:
    print(error)
"""
    assert run_python(code).stdout.strip().endswith('pip install "hotrow[keras]"')
