"""How many threads operators may use, and where that number came from."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX = 4096


def _cgroup_cpus(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """CPUs that the control group's quota amounts to, rounded up; None without a quota."""
    try:
        quota, period = (root / "cpu.max").read_text().split()  # version 2
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()  # version 1
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return max(1, math.ceil(int(quota) / int(period)))


def _available_cpus() -> tuple[int, str]:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cpus()
    if quota is not None and quota < affinity:
        return quota, "cgroup CPU quota"
    return affinity, "CPUs this process may use"


def _default() -> tuple[int, str]:
    for name in ("HOTROW_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "").split(",")[0].strip()
        if not value:
            continue
        if value.isdigit() and 1 <= int(value) <= MAX:
            return int(value), name
        if name == "HOTROW_NUM_THREADS":
            raise ValueError(f"HOTROW_NUM_THREADS must be an integer in [1, {MAX}], not {value!r}")
    return _available_cpus()


count, source = _default()


def set_num_threads(n: int) -> None:
    """Let operators use up to n threads, from now on and in the whole process.

    Args:
        n (int in [1, 4096]): threads; small work uses fewer.

    Raises:
        TypeError, ValueError: n is not an integer, or not in range.
    """
    global count, source
    from hotrow import _check

    count, source = _check.integer("n", n, 1, MAX), "set_num_threads"


def get_num_threads() -> int:
    """How many threads operators may use: HOTROW_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs of this process."""
    return count


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Within a `with` block, let operators use up to n threads (in the whole process)."""
    global count, source
    before = count, source
    set_num_threads(n)
    try:
        yield
    finally:
        count, source = before
