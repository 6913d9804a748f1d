"""hotrow.keras beside keras.layers.Embedding on one backend, that of KERAS_BACKEND: a step of fit.

`python -m benchmarks.frameworks` runs this once for each backend that is installed: Keras has one for each process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from dataclasses import replace
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np

import hotrow
from benchmarks.cases import Array, Case
from benchmarks.compare import num_threads
from benchmarks.frameworks import BACKENDS, Goal, heading, report
from benchmarks.operators import Mismatch
from benchmarks.timing import Time

BATCH, LENGTH, STEPS = 256, 20, 20
CASE = Case("500k x 64, 256 x 20 Zipf", 500_000, 64, BATCH * LENGTH * STEPS)
TOLERANCE = 1e-5  # of rows that start below 0.05: a step of Adam and its rounding


class _Clock:
    """Times fit, but for its first step, before which data and graphs are made."""

    def __init__(self, layer: Any, optimizer: str) -> None:
        import keras

        self.layer = layer
        self.model = keras.Sequential(
            [keras.Input((LENGTH,), dtype="int32"), layer, keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(1)]
        )
        self.model.layers[-1].kernel.assign(np.full((CASE.width, 1), 1.0, np.float32))
        self.model.compile(optimizer, "mse")
        self.ends: list[float] = []
        self.each = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: self.ends.append(time.perf_counter())
        )

    def seconds(self, ids: Array, labels: Array) -> float:
        """Of a step."""
        self.ends.clear()
        self.model.fit(ids, labels, batch_size=BATCH, verbose=0, shuffle=False, callbacks=[self.each])
        getattr(self.layer, "table", None)  # hotrow's: with every step taken that is still under way
        return (time.perf_counter() - self.ends[0]) / (len(self.ends) - 1)


def _clocks(optimizer: str) -> dict[str, _Clock]:
    """Models with equal weights."""
    import keras

    from hotrow.keras import Embedding

    layers = {
        "keras": keras.layers.Embedding(CASE.rows, CASE.width),
        "hotrow": Embedding(CASE.rows, CASE.width, optimizer=optimizer),
    }
    clocks = {name: _Clock(layer, optimizer) for name, layer in layers.items()}
    layers["hotrow"].set_weights(layers["keras"].get_weights())
    return clocks


def _verify(clocks: dict[str, _Clock], ids: Array, labels: Array) -> None:
    """One step on ids that differ: Keras sums gradients of equal ids wrongly with some optimizers on TensorFlow, and
    its Adam moves rows that were not looked up in later steps.

    Raises:
        Mismatch: the tables differ.
    """
    for clock in clocks.values():
        clock.model.train_on_batch(ids, labels)
    theirs, ours = (clock.layer.get_weights()[0] for clock in clocks.values())
    far = np.abs(theirs - ours).max()
    if not far <= TOLERANCE:
        raise Mismatch(f"after a step tables differ by {far:.2g}")


def run(optimizer: str, goal: Goal, rounds: int) -> dict[str, Any]:
    """Print and return the times of both layers, taken in turn."""
    case, labels = replace(CASE), np.random.default_rng(0).random((BATCH * STEPS, 1), np.float32)
    ids = case.indices.reshape(-1, LENGTH).astype(np.int32)
    clocks = _clocks(optimizer)
    _verify(clocks, np.arange(BATCH * LENGTH, dtype=np.int32).reshape(BATCH, LENGTH), labels[:BATCH])
    samples: dict[str, list[float]] = {name: [] for name in clocks}
    order, draw = list(clocks), random.Random(0)
    for clock in clocks.values():  # makes graphs
        clock.seconds(ids[: 2 * BATCH], labels[: 2 * BATCH])
    for _ in range(rounds):
        draw.shuffle(order)
        for name in order:
            samples[name].append(clocks[name].seconds(ids, labels))
    times = {}
    for name, values in samples.items():
        low, median, high = quantiles(values, n=4, method="inclusive")
        times[name] = Time(median, low, high)
    return report(optimizer, "keras", goal, times["keras"], times["hotrow"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=hotrow.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help=f"of {STEPS} steps; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    a = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(a.threads))
    import keras

    backend = keras.backend.backend()
    name = f"Keras {keras.__version__} on {backend}, fit step"
    heading(f"{name}, {CASE.name}")
    with num_threads(a.threads) if backend == "torch" else hotrow.num_threads(a.threads):
        goal = Goal(BACKENDS.get(backend))
        steps = {optimizer: run(optimizer, goal, a.rounds) for optimizer in ("adam", "adagrad")}
    if a.json:
        a.json.write_text(json.dumps({"case": f"{name}, {CASE.name}", "rates": None, "steps": steps}) + "\n")


if __name__ == "__main__":
    main()
