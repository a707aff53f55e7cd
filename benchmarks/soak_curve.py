"""The curve of a soak: what was measured over time, and how it is drawn. What is measured, and why, is in `soak`."""

import math
import statistics
import time
from array import array
from collections.abc import Sequence
from typing import Any

from benchmarks.memory import Trend

MOST_POINTS = 3600
MB = 1e6
COLUMNS = ("seconds", "resident", "held", "files", "tasks", "done")


class Curve:
    """What was measured, every `interval` seconds, in columns whose memory is all there from the start."""

    def __init__(self, seconds: float) -> None:
        self.interval = max(1.0, 2 * seconds / MOST_POINTS)
        self._began = time.monotonic()
        self._count = 0
        self._columns = {name: array("d", bytes(8 * MOST_POINTS)) for name in COLUMNS}

    def now(self) -> float:
        """Give the seconds since it was begun."""
        return time.monotonic() - self._began

    def add(self, *values: float) -> None:
        """Add a point: a value for each column but the seconds."""
        for name, value in zip(COLUMNS, (self.now(), *values), strict=True):
            self._columns[name][self._count] = value
        self._count += 1

    def interrupt(self) -> None:
        """Say that nothing is measured for a while: the lines are not to go on over it."""
        self.add(*[math.nan] * (len(COLUMNS) - 1))

    def points(self, name: str) -> list[tuple[float, float]]:
        """Give (seconds, value) for all that was measured."""
        pairs = zip(self._column("seconds"), self._column(name), strict=True)
        return [(seconds, value) for seconds, value in pairs if not math.isnan(value)]

    def line(self, name: str, scale: float = 1.0) -> tuple["array[float]", list[float]]:
        """Give what to draw: all seconds, and the values or NaN where nothing was measured."""
        return self._column("seconds"), [value / scale for value in self._column(name)]

    def rate(self) -> tuple["array[float]", list[float]]:
        """Give what to draw of the calls done a second, from each point to the next."""
        seconds, done = self._column("seconds"), self._column("done")
        steps = range(1, self._count)
        return seconds, [math.nan, *((done[i] - done[i - 1]) / (seconds[i] - seconds[i - 1]) for i in steps)]

    def _column(self, name: str) -> "array[float]":
        return self._columns[name][: self._count]


def draw(path: str, title: str, curve: Curve, rests: Sequence[tuple[float, float]], trend: Trend) -> None:
    """Write the curve as a PNG.

    `rests` are (seconds, bytes held at rest), the first of them after the warm-up; `trend` is theirs, in MB an hour.
    """
    # Only here: the command itself runs without the extra, and its memory is not to hold a plotting library.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels: Any = figure.subplots(4, 1, sharex=True, height_ratios=(2, 1, 1, 1))
    _draw_memory(panels[0], curve, rests, trend)
    panels[1].plot(*curve.line("files"), color="tab:green")
    panels[2].plot(*curve.line("tasks"), color="tab:purple")
    panels[3].plot(*curve.rate(), color="tab:red")
    for panel in panels[1:]:
        panel.set_ylim(0, panel.get_ylim()[1] * 1.1)
    for panel, name in zip(panels, ("memory, MB", "open files", "tasks", "calls done / s"), strict=True):
        panel.set_ylabel(name)
        panel.axvspan(0, rests[0][0], color="0.93", lw=0)
        panel.grid(True, color="0.88")
        panel.set_axisbelow(True)
        panel.margins(x=0)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("seconds; where the lines are interrupted, all was counted at rest")
    figure.savefig(path, format="png")


def _draw_memory(panel: Any, curve: Curve, rests: Sequence[tuple[float, float]], trend: Trend) -> None:
    panel.plot(*curve.line("resident", MB), color="tab:orange", lw=1, label="resident under load")
    panel.plot(*curve.line("held", MB), color="tab:blue", lw=1, label="held under load (collected, trimmed)")
    seconds, held = [at for at, _ in rests], [value / MB for _, value in rests]
    panel.plot(seconds, held, color="black", ls="", marker="o", ms=4, label="held at rest")
    half = trend.slope * (seconds[-1] - seconds[0]) / 3600 / 2
    middle = statistics.median(held)
    label = f"Theil-Sen: {trend.slope:+.1f} MB/h"
    panel.plot((seconds[0], seconds[-1]), (middle - half, middle + half), color="black", lw=1, ls="--", label=label)
    values = [value / MB for name in ("resident", "held") for _, value in curve.points(name)] + held
    # Room for the legend above, and for the word below.
    panel.set_ylim(min(values) - 1, max(values) + 0.3 * (max(values) - min(values) + 1))
    panel.legend(loc="upper left", ncols=4, fontsize=9, frameon=False)
    panel.text(seconds[0] / 2, min(values) - 1, "warm-up", ha="center", va="bottom", color="0.45", fontsize=9)
