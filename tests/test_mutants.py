"""The faults of mutants.py can still be planted."""

from __future__ import annotations

import pytest

from mutants import FAULTS, ROOT, stale


@pytest.mark.skipif(not (ROOT / "csrc").exists(), reason="the sources are not beside the tests")
def test_faults_fit_the_sources() -> None:
    assert not stale(FAULTS)
