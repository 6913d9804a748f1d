"""hotrow.torch beside torch.nn, torch.optim and FBGEMM, hotrow.keras beside Keras: medians, goals and limits.

Results are checked first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hotrow
from benchmarks import machine
from benchmarks.cases import CASES, SMALL, Case, Half
from benchmarks.compare import header, num_threads
from benchmarks.operators import BAG_ADAM, OPERATORS, Operator, pooled
from benchmarks.peers import Call, peers, torch_layer, torch_training
from benchmarks.timing import Peer, Time, take_turns

BAGS, TRAINING = CASES[0], CASES[2]
MICROSECONDS, MILLISECONDS = 1e-6, 1e-3
BACKENDS = {"tensorflow": 3.0, "torch": 10.0, "jax": 5.0}  # of Keras, and how many times its layer's speed is the goal


@dataclass(frozen=True)
class Goal:
    """Of hotrow's: so many times the peer's speed, or at most so many seconds."""

    speed: float | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"<= {self.seconds / MICROSECONDS:g} us"
        return "-" if self.speed is None else f"{self.speed:g}x"


Job = Callable[[Case], Call]


@dataclass(frozen=True)
class Step:
    """What is timed: a peer's way, and hotrow's ways with the goal of each."""

    name: str
    operator: Operator  # what the result must be, and the memory it moves
    peer: str
    theirs: Job | None  # None: FBGEMM's of that operator
    ours: dict[str, tuple[Job, Goal]]  # "" or what is added to the name


@dataclass(frozen=True)
class Group:
    """Steps on one case."""

    case: Case
    name: str
    steps: tuple[Step, ...]
    unit: float = MILLISECONDS

    @property
    def title(self) -> str:
        return f"{self.name}, {self.case.name}"


def _forward(package: str, freeze: bool = False, **options: Any) -> Job:
    def make(c: Case) -> Call:
        import torch

        layer = torch_layer(package, "EmbeddingBag", c, freeze, include_last_offset=True, **options)
        indices, offsets = torch.from_numpy(c.indices), torch.from_numpy(c.offsets)
        return lambda: layer(indices, offsets)

    return make


def _bags(name: str, goal: float | None = None, freeze: bool = False, **options: Any) -> Step:
    """A forward pass of EmbeddingBag."""

    def expected(case: Case) -> Any:
        return pooled(case, **options)

    theirs, ours = (_forward(package, freeze, **options) for package in ("torch", "hotrow.torch"))
    return Step(name, Operator("B", "N", (), expected), "torch", theirs, {"": (ours, Goal(goal))})


def _lookup(name: str, freeze: bool) -> Step:
    """A forward pass of Embedding."""

    def forward(package: str) -> Job:
        def make(c: Case) -> Call:
            import torch

            layer, indices = torch_layer(package, "Embedding", c, freeze), torch.from_numpy(c.indices)
            return lambda: layer(indices)

        return make

    ours = {"": (forward("hotrow.torch"), Goal(seconds=10 * MICROSECONDS))}
    return Step(name, OPERATORS["gather"], "torch", forward("torch"), ours)


def _training(name: str, operator: Operator, theirs: str, state: dict[str, Any], torch_state: dict[str, Any]) -> Step:
    """A step of training with a sparse gradient; hotrow's also without one, updating in backward."""
    ours = {
        added: (torch_training("hotrow.torch", name, state, **options), Goal(goal))
        for added, options, goal in (("", {}, 8.0), (", in backward", {"in_backward": True}, None))
    }
    return Step(name, operator, "torch", torch_training("torch", theirs, torch_state), ours)


def _rowwise() -> Step:
    state = {"row_sum": "row_squares"}
    ours = {
        added: (torch_training("hotrow.torch", "RowwiseAdagrad", state, **options), Goal(goal))
        for added, options, goal in (("", {}, None), (", in backward", {"in_backward": True}, 1.3))
    }
    return Step("RowwiseAdagrad", OPERATORS["bag_rowwise_adagrad"], "FBGEMM", None, ours)


_MOMENTS = {"exp_avg": "averages", "exp_avg_sq": "squares"}
_TRAINING = (
    _training("Adagrad", OPERATORS["bag_adagrad"], "Adagrad", {"sum": "squares"}, {"sum": "squares"}),
    _training("Adam", BAG_ADAM, "SparseAdam", _MOMENTS, {"step": 0} | _MOMENTS),
    _rowwise(),
)
_PADDING = 0  # the most frequent row


def _half(case: Case) -> Half:
    return Half(f"{case.name}, float16", case.rows, case.width, case.lookups, case.zipf)


GROUPS = (
    Group(
        BAGS,
        "EmbeddingBag forward",
        (
            _bags("sum", 0.9, mode="sum"),
            _bags("mean", mode="mean"),
            _bags("max", 4, mode="max"),
            _bags("max, no gradient", mode="max", freeze=True),
            _bags("sum, padding_idx", mode="sum", padding_idx=_PADDING),
            _bags("mean, padding_idx", 4, mode="mean", padding_idx=_PADDING),
        ),
    ),
    Group(
        _half(BAGS),
        "EmbeddingBag forward",
        (
            _bags("sum", 4, mode="sum"),
            _bags("max", 4, mode="max"),
            _bags("mean, padding_idx", 4, mode="mean", padding_idx=_PADDING),
        ),
    ),
    Group(TRAINING, "training step", _TRAINING),
    Group(replace(TRAINING, name=TRAINING.name.replace("Zipf", "uniform"), zipf=False), "training step", _TRAINING),
    Group(
        SMALL,
        "Embedding forward",
        (_lookup("with gradient", freeze=False), _lookup("no gradient", freeze=True)),
        MICROSECONDS,
    ),
)


def _line(cells: tuple[str, ...]) -> str:
    widths = (9, 10, 10, 8, 12, 8, 10)
    return f"{cells[0]:28}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells[1:], widths, strict=True))


def _shown(time: Time, unit: float) -> str:
    return "~" * (time.high > 2 * time.low) + f"{time.median / unit:.3g}"


def heading(title: str, unit: float = MILLISECONDS) -> None:
    print(f"\n{title}")
    name = "us" if unit == MICROSECONDS else "ms"
    print(_line((name, "beside", "takes", "hotrow", "ratio", "goal", "", "of limit")), flush=True)


def report(
    name: str, peer: str, goal: Goal, theirs: Time, ours: Time, floor: float | None = None, unit: float = MILLISECONDS
) -> dict[str, Any]:
    """Print and return a line; `floor`: seconds that the machine takes for the memory alone."""
    ratio, met = theirs.median / ours.median, None
    if goal.speed is not None:
        met = ratio >= goal.speed
    elif goal.seconds is not None:
        met = ours.median <= goal.seconds
    limit = None if floor is None else floor / ours.median
    verdict = {None: "", True: "met", False: "missed"}[met]
    cells = name, peer, _shown(theirs, unit), _shown(ours, unit), f"{ratio:.2f}", str(goal), verdict
    print(_line((*cells, "-" if limit is None else f"{limit:.0%}")), flush=True)
    seconds = {peer: theirs._asdict(), "hotrow": ours._asdict()}
    return {"peer": peer, "seconds": seconds, "ratio": ratio, "goal": str(goal), "met": met, "of_limit": limit}


def _measure(step: Step, case: Case, rounds: int) -> Iterator[tuple[str, Goal, Time, Time]]:
    """The name of each of hotrow's ways, its goal, the peer's time and its own."""
    if step.theirs is not None:
        found = {step.peer: Peer(step.theirs(case))}
    else:
        found = peers(case, "bag_rowwise_adagrad", [step.peer])
        if not found:
            print(f"{step.name}: {step.peer} is not installed")
            return
    found |= {f"hotrow{added}": Peer(job(case)) for added, (job, _) in step.ours.items()}
    step.operator.verify(case, {name: Peer(_detached(call), setup) for name, (call, setup) in found.items()})
    with step.operator.unchanged(case):
        times = take_turns(found, rounds)
    for added, (_, goal) in step.ours.items():
        yield step.name + added, goal, times[step.peer], times[f"hotrow{added}"]


def _detached(call: Call) -> Call:
    return lambda: call().detach()


def run(group: Group, threads: int, rounds: int) -> dict[str, Any]:
    """Print and return the times of a group.

    Raises:
        Mismatch: a result differs from its definition.
    """
    case, title = replace(group.case), group.title
    rates = None
    if group.unit != MICROSECONDS:  # where a call costs more than its work, memory is no limit
        rates = machine.rates(case, threads, rounds)
        shown = ", ".join(f"{name} {rate / 1e9:.1f}" for name, rate in rates._asdict().items())
        title += f" (machine, GB/s: {shown})"
    heading(title, group.unit)
    steps: dict[str, Any] = {}
    for step in group.steps:
        for name, goal, theirs, ours in _measure(step, case, rounds):
            floor = None if rates is None else step.operator.floor(case, rates)
            steps[name] = report(name, step.peer, goal, theirs, ours, floor, group.unit)
    return {"case": group.title, "rates": rates and rates._asdict(), "steps": steps}


def _keras(backend: str, threads: int) -> dict[str, Any]:
    """Print and return the times of Keras's layers, from a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.json")
        command = [sys.executable, "-m", "benchmarks.frameworks_keras", "--threads", str(threads), "--json", str(path)]
        subprocess.run(command, env=os.environ | {"KERAS_BACKEND": backend}, check=True)
        result: dict[str, Any] = json.loads(path.read_text())
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", metavar="TEXT", help="cases whose headings contain one of these")
    parser.add_argument("--threads", type=int, default=hotrow.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    a = parser.parse_args()
    backends = {f"Keras on {name}": name for name in BACKENDS}
    known = {group.title: group for group in GROUPS} | backends
    chosen = {title: what for title, what in known.items() if any(part in title for part in a.cases or [""])}
    if not chosen:
        parser.error(f"no case is named so; there are: {'; '.join(known)}")
    import torch  # noqa: F401  # first, as whoever uses hotrow.torch has it: both run on its OpenMP runtime

    with num_threads(a.threads):
        result: dict[str, Any] = {
            "machine": header(a.threads, machine.copy_rate(a.threads, a.rounds), torch_first=True)
        }
        result["cases"] = [run(group, a.threads, a.rounds) for group in chosen.values() if isinstance(group, Group)]
    for title, backend in backends.items():
        if title in chosen:
            if all(map(find_spec, ("keras", backend, "hotrow.keras"))):
                result["cases"].append(_keras(backend, a.threads))
            else:
                print(f"\n{title}: not installed")
    if a.json:
        a.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
