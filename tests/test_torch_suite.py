"""What torch ships of its own tests of Embedding and EmbeddingBag, on hotrow's."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from conftest import run_python

pytest.importorskip("torch")


@pytest.mark.skipif(find_spec("expecttest") is None, reason="torch.testing needs expecttest")
def test_torchs_own_tests() -> None:
    path = str(Path(__file__).parent / "torch_suite.py")
    done = run_python(f"import runpy; runpy.run_path({path!r}, run_name='__main__')", timeout=600)
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["failed"] == []
    least = {"module inputs": 16, "module errors": 3, "samples": 200, "gradcheck": 30, "errors": 2, "layers": 11}
    assert all(report["ran"][kind] >= count for kind, count in least.items()), report["ran"]
