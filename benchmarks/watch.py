"""What does it cost to watch tens of thousands of jobs: CPU for each look, memory for each job, lag of the event loop?

Beside the hub, which knows when each look is due, a task for each job, as one would write it down first, and one that
bounds each of its steps; and the whole way of `session.as_finished`, which keeps what becomes of each job as well. The
look itself does nothing in all of them, and is due after the same intervals: from 0.5 s on they grow by half to 15 s.
Each case has a process of its own; the rounds are interleaved, and medians are shown. The measuring itself (a heartbeat
of 100 Hz) is measured with nothing to watch, and its CPU time taken off. What is compared in the end is scheduling: the
look itself (a coroutine that counts), measured with nobody minding whose look is due, is taken off on both sides.
``python -m benchmarks.watch [--counts 1000,10000,50000] [--rounds 3] [--seconds 4]``
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

import msgspec

from benchmarks.promises import Promise, judge
from benchmarks.watching import Case, Figures

NOTHING, ALONE = "nothing", "looks alone"
OURS, WHOLE, PEER, BOUNDED = "gts_async hub", "as_finished", "task", "bounded task"
ALL = (NOTHING, ALONE, OURS, WHOLE, PEER, BOUNDED)

LEAST_CPU = 8.0
LEAST_MEMORY = 5.0
MOST_LAG = 0.025
"""What is promised: so many times less than a task for each job takes; seconds of lag, but for 1 % of the time."""

TINY = 1e-9
ENOUGH = 50_000
"""Jobs from which on that is promised."""

LEAST_LOOKS = 0.9
"""Of the looks that the task per job makes where it keeps up: less would be no saving, but looking away."""


def figures(case: Case) -> Figures:
    """Measure a case in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.watching", msgspec.json.encode(case).decode()]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=Figures)


Measured = Mapping[tuple[str, int], Sequence[Figures]]


def measured(counts: Sequence[int], rounds: int, ramp: float, settling: float, seconds: float) -> Measured:
    """Measure all cases, in interleaved rounds."""
    cases = [Case(way=NOTHING, count=0, ramp=0.0, settling=settling, seconds=seconds)]
    for count in counts:
        cases += [Case(way=way, count=count, ramp=ramp, settling=settling, seconds=seconds) for way in ALL[1:]]
    found: dict[tuple[str, int], list[Figures]] = {}
    for _ in range(rounds):
        for case in cases:
            found.setdefault((case.way, case.count), []).append(figures(case))
    return found


class Medians:
    """The medians of what was measured of one way of watching so many jobs."""

    def __init__(self, measured: Measured, way: str, count: int, seconds: float) -> None:
        def median(figure: Callable[[Figures], float], way: str = way) -> float:
            return statistics.median(figure(each) for each in measured[way, 0 if way == NOTHING else count])

        heart = median(lambda f: f.cpu, NOTHING)
        self.looks = median(lambda f: f.looks) / seconds
        self.per_look = median(lambda f: (f.cpu - heart) / max(1, f.looks))
        alone = median(lambda f: (f.cpu - heart) / max(1, f.looks), ALONE) if way != NOTHING else 0.0
        self.scheduling = self.per_look - alone
        self.load = median(lambda f: f.cpu - heart) / seconds
        self.bytes_each = median(lambda f: f.bytes_each)
        self.unseen = median(lambda f: f.unseen)
        self.lag_median = median(lambda f: f.lag_median)
        self.lag_p99 = median(lambda f: f.lag_p99)
        self.lag_most = median(lambda f: f.lag_most)


LOOKING: tuple[tuple[str, Callable[[Medians], str]], ...] = (
    ("looks a second", lambda m: f"{m.looks:,.0f}"),
    ("CPU for each look, µs", lambda m: f"{m.per_look * 1e6:.2f}"),
    ("but for the look itself, µs", lambda m: f"{m.scheduling * 1e6:.2f}"),
    ("of one core", lambda m: f"{m.load:.1%}"),
    ("memory for each job, bytes", lambda m: f"{m.bytes_each:,.0f}"),
    ("jobs not looked at even once", lambda m: f"{m.unseen:,.0f}"),
)
LAGGING: tuple[tuple[str, Callable[[Medians], str]], ...] = (
    ("lag of the loop, median, ms", lambda m: f"{m.lag_median * 1e3:.1f}"),
    ("99 % of the time at most, ms", lambda m: f"{m.lag_p99 * 1e3:.1f}"),
    ("the most, ms", lambda m: f"{m.lag_most * 1e3:.1f}"),
)


def show(count: int, by_way: Mapping[str, Medians]) -> None:
    """Print the table for one number of jobs."""
    print(f"\n{f'{count:,} jobs':<30}" + "".join(f"{way:>15}" for way in by_way))
    for what, cell in LOOKING:
        print(f"{what:<30}" + "".join(f"{'' if way == NOTHING else cell(m):>15}" for way, m in by_way.items()))
    for what, cell in LAGGING:
        print(f"{what:<30}" + "".join(f"{cell(m):>15}" for m in by_way.values()))


def promises(count: int, ours: Medians, peer: Medians, bounded: Medians) -> list[Promise]:
    is_judged = count >= ENOUGH

    def times(what: str, figure: Callable[[Medians], float], least: float) -> Promise:
        # What a few jobs cost may be less than can be measured.
        cost = max(figure(ours), TINY)
        saved, beside = figure(peer) / cost, f"{figure(bounded) / cost:.1f} ×"
        return Promise(what, f"{saved:.1f} ×", f"≥ {least:g} ×", saved >= least or not is_judged, beside)

    lag, share = ours.lag_p99, ours.looks / max(peer.looks, TINY)
    return [
        times("less CPU to schedule each look", lambda m: m.scheduling, LEAST_CPU),
        times("less memory for each job", lambda m: m.bytes_each, LEAST_MEMORY),
        Promise(
            "lag of the loop, 99 % of the time at most",
            f"{lag * 1e3:.1f} ms",
            f"< {MOST_LAG * 1e3:g} ms",
            lag < MOST_LAG or not is_judged,
        ),
        Promise(
            "looks, of as many as the tasks make",
            f"{share:.2f}",
            f"≥ {LEAST_LOOKS:g}",
            share >= LEAST_LOOKS or not is_judged,
        ),
        Promise.exactly("jobs not looked at even once", int(ours.unseen), 0),
    ]


def main() -> int:
    """Measure, print the tables and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--counts", type=lambda text: [int(part) for part in text.split(",")], default="1000,10000,50000"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ramp", type=float, default=5.0, help="seconds within which the watches begin")
    parser.add_argument("--settling", type=float, default=3.0, help="seconds from when the last has begun")
    parser.add_argument("--seconds", type=float, default=4.0, help="in which CPU time is measured then")
    options = parser.parse_args()
    found = measured(options.counts, options.rounds, options.ramp, options.settling, options.seconds)
    for count in options.counts:
        by_way = {way: Medians(found, way, count, options.seconds) for way in ALL}
        show(count, by_way)
    title = f"{count:,} jobs on one loop" + ("" if count >= ENOUGH else f"; not judged below {ENOUGH:,}")
    ours, peer, bounded = by_way[OURS], by_way[PEER], by_way[BOUNDED]
    return judge(title, promises(count, ours, peer, bounded), ours="than a task", beside="than bounded")


if __name__ == "__main__":
    raise SystemExit(main())
