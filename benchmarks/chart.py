"""A picture of what compare.py measured: python -m benchmarks.chart RESULTS.json CHART.png"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers import HOTROW

_BARS = dict(zip(HOTROW, ("#c8501e", "#ecb48c"), strict=True))
_MARKS = {
    "torch": ("D", "#7a5195"),
    "FBGEMM": ("P", "#c2a000"),
    "NumPy": ("o", "#3b6fb6"),
    "Numba loop": ("s", "#4a9a5b"),
    "gensim": ("^", "#444444"),
}

Seconds = dict[str, float]


def _groups(results: dict[str, Any]) -> dict[str, dict[str, Seconds]]:
    """For each panel, the median times of each group of bars."""
    panels = {
        case["case"]: {
            op: {name: time["median"] for name, time in result["seconds"].items()}
            for op, result in case["operators"].items()
        }
        for case in results["cases"]
    }
    if "skipgram" in results:
        panels["skip-gram"] = {"training": results["skipgram"]["medians"]}
    return panels


def _speeds(seconds: Seconds) -> Seconds:
    """In multiples of the fastest peer's."""
    best = min(value for name, value in seconds.items() if name not in HOTROW)
    return {name: best / value for name, value in seconds.items()}


def _draw_group(axes: Any, x: float, speeds: Seconds) -> None:
    for name, shift in zip(_BARS, (-0.3, -0.02), strict=True):
        speed = speeds[name]
        axes.bar(x + shift, speed - 1, 0.26, bottom=1, color=_BARS[name], label=name, zorder=2)
        offset, align = ((0, 2), "bottom") if speed >= 1 else ((0, -3), "top")
        where = {"xytext": offset, "textcoords": "offset points", "ha": "center", "va": align}
        axes.annotate(f"{speed:.2g}" if speed < 9.95 else f"{speed:.0f}", (x + shift, speed), fontsize=9, **where)
    for name, (mark, color) in _MARKS.items():
        if name in speeds:
            axes.plot(x + 0.27, speeds[name], mark, color=color, label=name, markersize=6.5, zorder=3)


def _grid(panels: dict[str, Any]) -> list[list[str]]:
    """Panels side by side, a column wide for each group of bars."""
    columns = {title: len(groups) + (len(groups) < 3) for title, groups in panels.items()}  # titles need room, too
    width = max(columns.values())
    rows: list[list[str]] = [[]]
    for title, n in columns.items():
        if len(rows[-1]) + n > width:
            rows.append([])
        rows[-1] += [title] * n
    return [row + ["."] * (width - len(row)) for row in rows]


def draw(results: dict[str, Any], path: Path) -> None:
    """Write the chart: a panel for each case, and one for skip-gram."""
    from matplotlib import use

    use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter

    panels = {title: {op: _speeds(s) for op, s in groups.items()} for title, groups in _groups(results).items()}
    speeds = [speed for groups in panels.values() for group in groups.values() for speed in group.values()]
    grid = _grid(panels)
    figure = plt.figure(figsize=(max(6, 1.25 * len(grid[0]) + 1), 1 + 3 * len(grid)), layout="constrained")
    axes = figure.subplot_mosaic(grid, sharey=True)
    handles: dict[str, Any] = {}
    for title, groups in panels.items():
        ax = axes[title]
        for x, group in enumerate(groups.values()):
            _draw_group(ax, x, group)
        ax.set_title(title, fontsize=12)
        ax.set_xticks(range(len(groups)), [op.replace("_", "\n") for op in groups], fontsize=10)
        ax.set_xlim(-0.6, len(groups) - 0.4)
        ax.axhline(1, color="black", linewidth=1, zorder=2.5)
        ax.grid(axis="y", color="#dddddd", linewidth=0.7, zorder=0)
        ax.spines[["top", "right"]].set_visible(False)
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    ax.set_yscale("log")
    ax.set_ylim(min(speeds) / 1.6, max(speeds) * 1.8)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}x"))
    m = results["machine"]
    figure.suptitle(f"Speed, fastest peer = 1x: {m['cpu']}, {m['isa']}, {m['threads']} threads", fontsize=13)
    names = [name for name in (*_BARS, *_MARKS) if name in handles]
    room = grid[-1].count(".") > 1
    where = {"loc": "lower right", "ncols": 2} if room else {"loc": "outside lower center", "ncols": 4}
    figure.legend([handles[name] for name in names], names, frameon=False, fontsize=11, **where)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
