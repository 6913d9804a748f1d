"""docs/how-embeddings-learn.md and its script agree, and the script's claims that need no data hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from textwrap import indent

import pytest

DOCS = Path(__file__).parents[1] / "docs"
SCRIPT = DOCS / "how_embeddings_learn.py"
TEXT = DOCS / "how-embeddings-learn.md"

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the source distribution has no docs")


@pytest.mark.skipif(find_spec("keras") is None, reason="Keras is not installed")
@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_claims(backend: str) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout.splitlines()[-1].startswith("Flatten: the outputs of the two orders differ by")


def test_code_in_the_text_is_the_scripts() -> None:
    script = SCRIPT.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        assert block in script or indent(block, "    ") in script, block


def test_pictures_in_the_text_are_there() -> None:
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", TEXT.read_text(encoding="utf-8"))
    assert pictures
    assert [name for name in pictures if not (DOCS / name).is_file()] == []
