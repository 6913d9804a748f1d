"""What embedding_bag's other ways of pooling cost, beside its sum."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import hotrow
from benchmarks.cases import Case
from benchmarks.operators import check, pooled
from benchmarks.timing import Peer, Time, take_turns


def _variants(case: Case) -> dict[str, dict[str, Any]]:
    return {
        "sum": {},
        "mean": {"mode": "mean"},
        "sqrtn": {"mode": "sqrtn"},
        "max": {"mode": "max"},
        "weights": {"weights": case.weights},
        "padding_idx": {"padding_idx": int(np.bincount(case.indices).argmax())},
    }


def measure(case: Case, rounds: int) -> dict[str, Time]:
    """The times of all variants.

    Raises:
        Mismatch: one differs from its definition.
    """
    calls = {
        name: partial(hotrow.embedding_bag, case.table, case.indices, case.offsets, **options)
        for name, options in _variants(case).items()
    }
    for name, options in _variants(case).items():
        check(f"{name}, {case.name}", pooled(case, **options), calls[name]())
    return take_turns({name: Peer(call) for name, call in calls.items()}, rounds)


def show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print the medians of each case, relative to the sum's."""
    for i, (case, times) in enumerate(results.items()):
        if i == 0:
            print("\npooling, relative to sum" + " " * 10 + "sum, ms" + "".join(f"{name:>13}" for name in [*times][1:]))
        ours = times["sum"]["median"]
        ratios = "".join(f"{time['median'] / ours:13.2f}" for time in [*times.values()][1:])
        print(f"{case:34}{ours * 1e3:7.3g}{ratios}")
