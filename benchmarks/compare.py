"""hotrow, its peers and the machine's own limit, side by side in one run."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

import hotrow
from benchmarks import chart, machine, pooling, word2vec
from benchmarks.cases import CASES, HUGE, SMALL, Case, real_bags
from benchmarks.operators import OPERATORS
from benchmarks.peers import HOTROW, LIBRARIES, peers
from benchmarks.timing import Time, take_turns
from hotrow._config import config

_ROOT = Path(__file__).parents[1]
_SMALL_OPS = [op for op in OPERATORS if op not in ("embedding_bag", "embedding_bag_int8", "coalesce")]
_BAG_OPS = ("embedding_bag", "bag_rowwise_adagrad")
_PACKAGES = ("numpy", "numba", "torch", "fbgemm_gpu_cpu", "gensim")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def header(threads: int, copy_rate: float, torch_first: bool) -> dict[str, Any]:
    """Print and return where and with what this runs."""
    c = config()
    native = c["native"] or {}
    result = {
        "cpu": c["cpu"],
        "isa": native.get("isa"),
        "threads": threads,
        "compiler": native.get("compiler"),
        "commit": _commit(),
        "versions": {"python": c["python"], "hotrow": c["hotrow"], **{p: _version(p) for p in _PACKAGES}},
        "blas": sorted({f"{i['internal_api']} {i.get('architecture', '')}" for i in threadpool_info()
                        if i["user_api"] == "blas"}),
        "openmp_of": "torch" if torch_first else "hotrow",
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "copy_rate": copy_rate,
    }  # fmt: skip
    print(f"{result['cpu']}, {result['isa']}, {threads} threads, copies memory at {copy_rate / 1e9:.1f} GB/s")
    print(f"{result['compiler']}, commit {result['commit']}, {', '.join(result['blas'])}", end=", ")
    print(f"OpenMP runtime of {result['openmp_of']}")
    print(", ".join(f"{name} {number or 'missing'}" for name, number in result["versions"].items()))
    if result["load"]:
        print(f"load {result['load'][0]:.1f}{', others are at work: figures are noisy' * (result['load'][0] > 1)}")
    return result


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """hotrow and torch on n threads."""
    if find_spec("torch"):
        import torch

        torch.set_num_threads(n)
    with hotrow.num_threads(n):
        yield


def best_peer(times: dict[str, Time]) -> str:
    return min((name for name in times if name not in HOTROW), key=lambda name: times[name].median)


def _measure(case: Case, operators: list[str], rounds: int) -> Iterator[tuple[str, dict[str, Time]]]:
    for op in operators:
        available = peers(case, op)
        OPERATORS[op].verify(case, available)
        with OPERATORS[op].unchanged(case):
            times = take_turns(available, rounds)
        yield op, times


def _line(name: str, cells: list[str], extra: tuple[str, ...] = ()) -> str:
    """Cells below the libraries' names and those of the extra columns."""
    columns = [*LIBRARIES, "best peer is", "x best peer", *extra]
    return f"{name:20}" + "".join(f"{cell:>{max(9, len(c) + 2)}}" for c, cell in zip(columns, cells, strict=True))


def _heading(unit: str, extra: tuple[str, ...] = ()) -> str:
    return _line(unit, [*LIBRARIES, "best peer is", "x best peer", *extra], extra)


def _cells(times: dict[str, Time], unit: float) -> list[str]:
    """The times, the best peer and how many times its time is hotrow's."""

    def cell(time: Time) -> str:
        median = time.median / unit
        return "~" * (time.high > 2 * time.low) + (f"{median:.3g}" if median < 1000 else f"{median:.0f}")

    best = best_peer(times)
    ratio = times[best].median / times["hotrow"].median
    return [*(cell(times[name]) if name in times else "-" for name in LIBRARIES), best, f"{ratio:.2f}"]


def compare_case(case: Case, operators: list[str], threads: int, rounds: int) -> dict[str, Any]:
    """Print and return the times of one case."""
    rates = machine.rates(case, threads, rounds)
    shown = ", ".join(f"{name} {rate / 1e9:.1f}" for name, rate in rates._asdict().items())
    print(f"\n{case.name} (machine, GB/s: {shown})")
    extra = ("GB/s", "of limit")
    print(_heading("ms", extra), flush=True)
    results: dict[str, Any] = {}
    for op, times in _measure(case, operators, rounds):
        ours, best, moved = times["hotrow"].median, best_peer(times), OPERATORS[op].bytes(case)
        limit = OPERATORS[op].floor(case, rates) / ours
        print(_line(op, [*_cells(times, 1e-3), f"{moved / ours / 1e9:.1f}", f"{limit:.0%}"], extra), flush=True)
        results[op] = {
            "seconds": {name: time._asdict() for name, time in times.items()},
            "best_peer": best, "x_best_peer": times[best].median / ours, "bytes": moved, "of_limit": limit,
        }  # fmt: skip
    result = {"case": case.name, "rates": rates._asdict(), "operators": results}
    if "embedding_bag" in operators:
        result["pooling"] = {name: time._asdict() for name, time in pooling.measure(case, rounds).items()}
    return result


def compare_small(operators: list[str], rounds: int) -> dict[str, Any]:
    """Print and return what a call with few lookups costs."""
    case = replace(SMALL)
    print(f"\nsmall calls: {case.name}, 1 thread")
    print(_heading("microseconds"), flush=True)
    results: dict[str, Any] = {}
    with num_threads(1):
        for op, times in _measure(case, operators, rounds):
            print(_line(op, _cells(times, 1e-6)), flush=True)
            results[op] = {name: time._asdict() for name, time in times.items()}
    return results


def _arguments() -> tuple[argparse.Namespace, list[Case]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", metavar="TEXT", help="cases whose names contain one of these")
    parser.add_argument("--ops", nargs="+", choices=OPERATORS, default=list(OPERATORS), metavar="OP")
    parser.add_argument("--threads", type=int, default=hotrow.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, without the 2 GB table")
    parser.add_argument("--rounds", type=int, help="default: 15, or 5 if --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw speed relative to the best peer")
    parser.add_argument(
        "--torch-first", action="store_true", help="load torch, and its OpenMP runtime, before hotrow's"
    )
    parser.add_argument("--no-skipgram", action="store_true", help="operators only")
    parser.add_argument("--words", type=int, default=4_000_000, help="of the corpus for skip-gram; 0 is all")
    a = parser.parse_args()
    known = [*CASES, real_bags()]
    cases = [case for case in known if any(text in case.name for text in a.cases or [""])]
    if not cases:
        parser.error(f"no case is named so; there are: {'; '.join(case.name for case in known)}")
    if a.quick and not a.cases:
        cases.remove(HUGE)
    return a, cases


def main() -> None:
    a, cases = _arguments()
    rounds = a.rounds or (5 if a.quick else 15)
    if not a.torch_first:
        hotrow.use_backend("native")  # both use the OpenMP runtime of whichever is loaded first
    with num_threads(a.threads):
        result: dict[str, Any] = {"machine": header(a.threads, machine.copy_rate(a.threads, rounds), a.torch_first)}
        result["cases"] = []
        for case in cases:
            operators = [op for op in a.ops if case in CASES or op in _BAG_OPS]
            if operators:
                result["cases"].append(compare_case(replace(case), operators, a.threads, rounds))
        pooling.show({case["case"]: case["pooling"] for case in result["cases"] if "pooling" in case})
        result["small"] = compare_small([op for op in a.ops if op in _SMALL_OPS], rounds)
        if not a.no_skipgram:
            with word2vec.reading(a.words) as source:
                word2vec.compile_numba(source)
                trainers = (*HOTROW, "gensim")
                seeds = 2 if a.quick else 3
                result["skipgram"] = word2vec.run("skip-gram D=100", source, 1, a.threads, seeds, trainers)
    if a.json:
        a.json.write_text(json.dumps(result, indent=1) + "\n")
    if a.chart:
        chart.draw(result, a.chart)


if __name__ == "__main__":
    main()
