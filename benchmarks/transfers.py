"""Transfers: what it costs to move one file, by whatever client, each in a process of its own.

The process moves a small file first, for all that is made once. Then its garbage is collected, the kernel forgets the
highest memory, and a ticker begins to notice whenever the loop has no time for it.
"""

import asyncio
import builtins
import gc
import io
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from benchmarks import memory
from benchmarks.promises import Promise

TICK = 0.001
"""Seconds between two ticks of the ticker."""

SLOW_READ = 0.020
"""Seconds that each read from a slow disk takes."""

MB = 1_000_000


@attrs.frozen
class Cost:
    """What one transfer took: seconds, of CPU too; how much memory, in bytes, was resident at its peak beyond before.

    `stall` seconds is how late the loop was at most in 99 of 100 ticks, `longest` at most; None where there is no loop.
    `growth` is None where the client is a program of its own.
    """

    size: int
    seconds: float
    cpu: float
    growth: int | None = None
    stall: float | None = None
    longest: float | None = None

    @property
    def rate(self) -> float:
        """MB a second."""
        return self.size / self.seconds / MB

    @property
    def cpu_of_100(self) -> float:
        """Seconds of CPU for 100 MB."""
        return self.cpu / self.size * 100 * MB


def in_a_process(module: str, *arguments: str) -> Cost:
    """Give what a transfer cost that the module's `main` does when it is given these arguments."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, check=True)
    return Cost(**json.loads(done.stdout))


def show_cost(cost: Cost) -> None:
    """Print what `in_a_process` reads."""
    print(json.dumps(attrs.asdict(cost)))


@attrs.define
class Ticker:
    """Notices how late the loop is."""

    late: list[float] = attrs.field(factory=list)

    async def run(self) -> None:
        """Tick for ever."""
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            self.late.append(time.perf_counter() - due)

    def share(self, share: float) -> float:
        """Give the seconds that this share of the ticks came late at most."""
        return max(0.0, sorted(self.late)[min(len(self.late) - 1, int(share * len(self.late)))])


async def gauged(size: int, transfer: Callable[[], Awaitable[object]], times: int = 1) -> Cost:
    """Measure a transfer of so many bytes on this loop; several, one after the other, if a single one is too short."""
    ticker, before = Ticker(), _Before.now()
    ticking = asyncio.create_task(ticker.run())
    await asyncio.sleep(10 * TICK)
    ticker.late.clear()
    before = before.begin()
    for _ in range(times):
        await transfer()
    cost = before.until_now(size * times)
    await asyncio.sleep(2 * TICK)
    ticking.cancel()
    return attrs.evolve(cost, stall=ticker.share(0.99), longest=ticker.share(1.0))


def gauged_without_loop(size: int, transfer: Callable[[], object], times: int = 1) -> Cost:
    """Measure a transfer of so many bytes that blocks."""
    before = _Before.now().begin()
    for _ in range(times):
        transfer()
    return before.until_now(size * times)


def gauged_program(size: int, command: Sequence[str], times: int = 1) -> Cost:
    """Measure a program that transfers so many bytes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for _ in range(times):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(size * times, seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


@attrs.frozen
class _Before:
    resident: int
    cpu: float
    at: float

    @classmethod
    def now(cls) -> "_Before":
        gc.collect()
        memory.forget_peak()
        return cls(memory.resident(), _cpu(), time.perf_counter())

    def begin(self) -> "_Before":
        """Count time from now on: what came before was not cheap."""
        return attrs.evolve(self, cpu=_cpu(), at=time.perf_counter())

    def until_now(self, size: int) -> Cost:
        seconds, cpu = time.perf_counter() - self.at, _cpu() - self.cpu
        return Cost(size, seconds, cpu, max(0, memory.peak() - self.resident))


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def slow_down(path: str) -> None:
    """Let each read from the file at `path` take `SLOW_READ` from now on in this process, whoever opens it."""
    usual: Any = builtins.open

    class Slow(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            time.sleep(SLOW_READ)
            return super().read(size)

    def opening(file: Any, mode: str = "r", *args: Any, opener: Any = None, **options: Any) -> Any:
        if file == path and mode == "rb":
            return Slow(io.FileIO(file, "rb", opener=opener))
        return usual(file, mode, *args, opener=opener, **options)

    builtins.open = opening


def here(ways: Iterable[str]) -> list[str]:
    """Give those of the ways that this machine knows: curl is a program, which may not be installed."""
    return [way for way in ways if way != "curl" or shutil.which(way)]


def rounds(count: int, ways: Iterable[str], module: str, *arguments: str) -> dict[str, list[Cost]]:
    """Measure every way as often, in turns; `in_a_process` says how."""
    found: dict[str, list[Cost]] = {way: [] for way in ways}
    for _ in range(count):
        for way, so_far in found.items():
            so_far.append(in_a_process(module, way, *arguments))
    return found


def median(costs: Sequence[Cost]) -> Cost:
    """Give the median of each figure."""
    figures: dict[str, Any] = {}
    for field in attrs.fields(Cost):
        known = [value for cost in costs if (value := getattr(cost, field.name)) is not None]
        figures[field.name] = statistics.median(known) if known else None
    return Cost(**figures)


def ratio_of(ours: Sequence[Cost], others: Sequence[Cost]) -> float:
    """Give how many times the rate of others ours is: the median of each round's."""
    return statistics.median(one.rate / other.rate for one, other in zip(ours, others, strict=True))


def in_ms(seconds: float | None) -> float:
    """Give milliseconds."""
    assert seconds is not None
    return seconds * 1e3


def compared(
    runs: Mapping[str, Sequence[Cost]],
    peer: str,
    *,
    told: Sequence[str],
    least_ratio: float,
    most_growth: float,
    most_stall: float,
) -> list[Promise]:
    """Judge the first of the ways: its rate beside the `peer`'s, its MB of memory, and the ms that its loop is late.

    Of those that are only `told` nothing is promised.
    """
    ours = next(iter(runs.values()))
    mine, ratio = median(ours), ratio_of(ours, runs[peer])
    assert mine.growth is not None
    return [
        Promise(f"times the rate of {peer}", f"{ratio:.2f}", f"≥ {least_ratio}", ratio >= least_ratio),
        *(Promise.none(f"times the rate of {way}", f"{ratio_of(ours, runs[way]):.2f}") for way in told if way in runs),
        Promise.at_most("MB of memory", mine.growth / MB, most_growth),
        Promise.at_most("ms that the loop is late, 99 %", in_ms(mine.stall), most_stall),
    ]


def unjudged(promises: Iterable[Promise]) -> list[Promise]:
    """Give the figures of files that are too small for them to mean anything."""
    return [attrs.evolve(promise, is_kept=True) for promise in promises]


HEAD = ("", "MB/s", "CPU ms for 100 MB", "RSS + MB", "loop late, 99 %, ms", "at most, ms")


def show(title: str, runs: Mapping[str, Sequence[Cost]]) -> None:
    """Print a table of medians."""
    rows = [HEAD, *(_cells(name, median(costs)) for name, costs in runs.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    print(f"\n{title}")
    for name, *cells in rows:
        print("  ".join([name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:], strict=True))]))


def _cells(name: str, cost: Cost) -> tuple[str, ...]:
    growth = "-" if cost.growth is None else f"{cost.growth / MB:.1f}"
    late = ("-" if seconds is None else f"{seconds * 1e3:.1f}" for seconds in (cost.stall, cost.longest))
    return (name, f"{cost.rate:,.0f}", f"{cost.cpu_of_100 * 1e3:,.0f}", growth, *late)
