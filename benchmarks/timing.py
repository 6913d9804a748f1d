"""Medians of calls that take turns, so that whatever else the machine does hits all alike."""

from __future__ import annotations

import math
import random
import timeit
from collections.abc import Callable
from statistics import quantiles
from typing import Any, NamedTuple

SAMPLE = 1e-3  # seconds; calls are repeated until a sample lasts that long
SLOW = 0.02  # seconds; a call that lasts that long needs no call before it
PATIENCE, ENOUGH = 1.0, 3  # seconds of samples of one peer, after which so many rounds will do


def nothing() -> None:
    """The setup of a peer that needs none."""


class Peer(NamedTuple):
    """One way to do the work. `setup` is not timed."""

    call: Callable[[], Any]
    setup: Callable[[], object] = nothing


class Time(NamedTuple):
    """Seconds of a call: median and quartiles over the rounds."""

    median: float
    low: float
    high: float


def take_turns(peers: dict[str, Peer], rounds: int) -> dict[str, Time]:
    """Time every peer once a round, in an order drawn anew: the threads of one may still spin when the next begins.

    A slow one is left out of the later rounds.
    """
    calls: dict[str, int] = {}  # in a sample
    slow: set[str] = set()

    def seconds(name: str, number: int) -> float:
        call, setup = peers[name]
        setup()
        if name not in slow:
            call()
        return timeit.timeit(call, number=number) / number

    for name in peers:
        first = seconds(name, 1)
        if first > SLOW:
            slow.add(name)
        calls[name] = 1 if first > SAMPLE else math.ceil(SAMPLE / min(seconds(name, 1) for _ in range(3)))
    samples: dict[str, list[float]] = {name: [] for name in peers}
    order, draw = list(peers), random.Random(0)
    for done in range(rounds):
        draw.shuffle(order)
        for name in order:
            if done < ENOUGH or sum(samples[name]) * calls[name] < PATIENCE:
                samples[name].append(seconds(name, calls[name]))
    result = {}
    for name, values in samples.items():
        low, median, high = quantiles(values, n=4, method="inclusive")
        result[name] = Time(median, low, high)
    return result
