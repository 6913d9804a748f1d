"""Every operator on every case with both backends, under pytest-benchmark: python -m pytest benchmarks --benchmark-only

HOTROW_BENCH_HUGE=1 adds the case whose table has 2 GB.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import hotrow
from benchmarks.cases import CASES, HUGE, SMALL, Case
from benchmarks.operators import OPERATORS
from benchmarks.peers import HOTROW, peers

_CHOSEN = [case for case in (SMALL, *CASES) if case != HUGE or os.environ.get("HOTROW_BENCH_HUGE")]


@pytest.fixture(scope="module", params=_CHOSEN, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return replace(request.param)  # its arrays go when the next case comes


@pytest.fixture(params=HOTROW)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param
    hotrow.use_backend("native")


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.benchmark(max_time=0.2, min_rounds=5)
def test_operator(benchmark: Any, case: Case, operator: str, backend: str) -> None:
    peer = peers(case, operator, [backend])[backend]
    OPERATORS[operator].verify(case, {backend: peer})
    benchmark.group = f"{case.name}: {operator}"
    benchmark.extra_info.update(bytes=OPERATORS[operator].bytes(case), threads=hotrow.get_num_threads())
    peer.setup()
    with OPERATORS[operator].unchanged(case):
        benchmark(peer.call)
