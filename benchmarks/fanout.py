"""How fast are thousands of single samples predicted by an engine whose device does one request after the other?

Each request costs the device 5 ms, and 0.2 ms for each of its samples. Side by side: httpx as it comes (one request a
sample, 64 in flight), the official client (in threads), `predict_one` awaited for all samples at once, and `stream`,
both with batches of 64 at most; and both of ours with several engines through a pool. Every engine has a process of its
own, and tells each sample from every other: an answer that is another sample's is seen. httpx and the official client
are as slow with a few samples as with many, so they get fewer; their latencies are those of as many samples only.

The rounds are interleaved; medians are shown, those of ratios are medians of each round's. The bound is what the device
needs in full batches without a pause. Then what batching costs by itself: CPU of a batcher whose requests are answered
at once, beside callers that ask nobody, and the time of a call without company, beside the bare request.
``python -m benchmarks.fanout [--samples 10000] [--rounds 5] [--httpx 1000] [--official 300] [--engines 3]``
"""

import argparse
import asyncio
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import attrs

from benchmarks.batching import Lone, Overhead, lone_calls, overhead
from benchmarks.fifo_engine import IMMEDIATE, Device, FifoEngine, Seen
from benchmarks.promises import Promise, judge
from benchmarks.server import Remote, serving
from benchmarks.ways_to_predict import MAX_BATCH, NAIVE, OFFICIAL, ONE, STREAM, WAYS, Run

LEAST_RATIO = 17.0
LEAST_SHARE = 0.95
LEAST_SCALING = 0.9
MOST_OVERHEAD = 10e-6
MOST_DELAY = 0.3e-3
MOST_TWICE = 0.01
MOST_PROBES = 0.02
"""What is promised: so many times httpx's rate, of the bound's, of as many times one engine's rate as there are
engines; seconds of CPU for each sample; seconds of a call; for each sample, so many that are asked again, and rows that
only tell which model answers: one in a full request, and one each at the beginning and the end."""

ENOUGH = 5_000
ENOUGH_CALLS = 200
"""Samples, and calls without company, from which on that is promised."""

DEVICE = Device()


@attrs.frozen
class Case:
    """One way of asking so many engines for so many samples."""

    way: str
    engines: int
    samples: int

    @property
    def name(self) -> str:
        """The column's head."""
        return self.way if self.engines == 1 else f"{self.way} of {self.engines}"

    @property
    def bound(self) -> float:
        """The seconds below which nobody can be, with batches as ours."""
        return DEVICE.least(self.samples, MAX_BATCH) / self.engines


@attrs.frozen
class Round:
    """What was measured in one round, and what all engines together have seen of it."""

    run: Run
    seen: Seen


Measured = Mapping[Case, Sequence[Round]]


def cases(samples: int, httpx: int, official: int, engines: int) -> list[Case]:
    """Give what is measured."""
    few = {NAIVE: min(httpx, samples), OFFICIAL: min(official, samples)}
    ours = [Case(way, count, samples) for count in dict.fromkeys((1, engines)) for way in (ONE, STREAM)]
    return [*(Case(way, 1, count) for way, count in few.items()), *ours]


def measured(servers: Sequence[Remote[FifoEngine]], cases: Iterable[Case], rounds: int) -> Measured:
    """Measure all cases, in interleaved rounds."""
    found: dict[Case, list[Round]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case, so_far in found.items():
            run = asyncio.run(WAYS[case.way]([server.url for server in servers[: case.engines]], case.samples))
            so_far.append(Round(run, sum((server.ask(FifoEngine.seen) for server in servers), Seen())))
    return found


class Medians:
    """The medians of what was measured of one case."""

    def __init__(self, measured: Measured, case: Case) -> None:
        self.case = case
        self._rounds = measured[case]
        peers = next(rounds for peer, rounds in measured.items() if peer.way == NAIVE)
        self.seconds = self._median(lambda r: r.run.seconds)
        self.rate = self._median(lambda r: r.run.rate)
        self.cpu = self._median(lambda r: r.run.cpu) / case.samples
        self.ratio = self.ratio_to(peers)
        self.share = self._median(lambda r: case.bound / r.run.seconds)
        self.first = self._median(lambda r: r.run.latency(0.0))
        self.typical = self._median(lambda r: r.run.latency(0.5))
        self.slowest = self._median(lambda r: r.run.latency(0.99))
        self.requests = self._median(lambda r: r.seen.requests)
        self.largest = max(round.seen.largest for round in self._rounds)
        self.most_at_once = max(round.seen.most_at_once for round in self._rounds)
        self.twice = max(round.seen.samples for round in self._rounds) / case.samples - 1.0
        # An engine is asked for them alone, too, when its session begins and ends.
        self.probes = max(round.seen.probes - 2 * case.engines for round in self._rounds) / case.samples
        self.wrong = sum(round.run.wrong for round in self._rounds)

    def _median(self, figure: Callable[[Round], float]) -> float:
        return statistics.median(map(figure, self._rounds))

    def ratio_to(self, others: Sequence[Round]) -> float:
        """Give how many times the rate of others this one's is, in the same round."""
        pairs = zip(self._rounds, others, strict=True)
        return statistics.median(mine.run.rate / other.run.rate for mine, other in pairs)

    def scaling(self, one: "Medians") -> float:
        """Give how many times the rate of `one` this one's is."""
        return self.ratio_to(one._rounds)


ROWS: tuple[tuple[str, Callable[[Medians], str]], ...] = (
    ("samples", lambda m: f"{m.case.samples:,}"),
    ("seconds", lambda m: f"{m.seconds:.2f}"),
    ("samples a second", lambda m: f"{m.rate:,.0f}"),
    ("times httpx", lambda m: f"{m.ratio:.2f}"),
    ("of the bound", lambda m: f"{m.share:.1%}"),
    ("CPU for each sample, µs", lambda m: f"{m.cpu * 1e6:,.0f}"),
    ("first answer after, ms", lambda m: f"{m.first * 1e3:,.0f}"),
    ("latency, median, ms", lambda m: f"{m.typical * 1e3:,.0f}"),
    ("latency, 99 % at most, ms", lambda m: f"{m.slowest * 1e3:,.0f}"),
    ("requests", lambda m: f"{m.requests:,.0f}"),
    ("most samples in one", lambda m: f"{m.largest:,}"),
    ("most at once at an engine", lambda m: f"{m.most_at_once:,}"),
    ("wrong answers", lambda m: f"{m.wrong:,}"),
)


def show(columns: Sequence[Medians]) -> None:
    """Print the table."""
    print(f"\n{'':<27}" + "".join(f"{column.case.name:>18}" for column in columns))
    for what, cell in ROWS:
        print(f"{what:<27}" + "".join(f"{cell(column):>18}" for column in columns))


def promises(measured: Measured, costs: Sequence[Overhead], lone: Lone) -> list[Promise]:
    """Judge what was measured; rates and costs of a few samples are not."""
    columns = [Medians(measured, case) for case in measured]
    ours = [column for column in columns if column.case.way in (ONE, STREAM)]
    samples = ours[0].case.samples
    return [
        Promise.exactly("wrong answers", sum(column.wrong for column in columns) + lone.wrong, 0),
        Promise.at_most("most samples in one request of ours", max(m.largest for m in ours), MAX_BATCH),
        Promise.at_most("of ours, samples that were asked again, for each", max(m.twice for m in ours), MOST_TWICE),
        Promise.at_most("rows that only tell who answers, for each", max(m.probes for m in ours), MOST_PROBES),
        *of_rates(ours, samples >= ENOUGH),
        *of_costs(costs, samples >= ENOUGH),
        *of_lone_calls(lone, len(lone.batched) >= ENOUGH_CALLS),
    ]


def of_rates(ours: Sequence[Medians], is_judged: bool) -> list[Promise]:
    """Judge how fast both of our ways are; several engines are judged by what a stream makes of them.

    With `predict_one` all callers first run up to their await, and no request leaves before the last has: that is this
    process's time, which more engines do not make shorter.
    """
    found: list[Promise] = []
    ones = {column.case.way: column for column in ours if column.case.engines == 1}
    for way, column in ones.items():
        found += [
            at_least(f"{way}: times the rate of httpx", column.ratio, LEAST_RATIO, is_judged),
            at_least(f"{way}: of the rate that is possible", column.share, LEAST_SHARE, is_judged),
        ]
    for column in ours:
        if column.case.engines > 1:
            what = f"{column.case.name} engines: times the rate of one"
            least, scaling = LEAST_SCALING * column.case.engines, column.scaling(ones[column.case.way])
            is_promised = column.case.way == STREAM
            found.append(
                at_least(what, scaling, least, is_judged) if is_promised else Promise.none(what, f"{scaling:.4g}")
            )
    return found


def of_costs(costs: Sequence[Overhead], is_judged: bool) -> list[Promise]:
    """Judge the batcher alone."""
    callers, batcher = (statistics.median(get(cost) for cost in costs) for get in (_callers, _batcher))
    return [
        Promise.none("CPU of a caller that asks nobody, µs", f"{callers * 1e6:.1f}"),
        below("CPU that the batcher adds for each sample, µs", batcher * 1e6, MOST_OVERHEAD * 1e6, is_judged),
    ]


def _callers(cost: Overhead) -> float:
    return cost.callers


def _batcher(cost: Overhead) -> float:
    return cost.batcher


def of_lone_calls(lone: Lone, is_judged: bool) -> list[Promise]:
    """Judge how much longer than the bare request a call without company takes."""
    batched, bare, httpx = (statistics.median(each) * 1e3 for each in (lone.batched, lone.bare, lone.httpx))
    return [
        Promise.none("a call without company, ms", f"{batched:.3f}"),
        Promise.none("the bare request, ms", f"{bare:.3f}"),
        Promise.none("the same by httpx, ms", f"{httpx:.3f}"),
        below("ms that a call without company takes longer", batched - bare, MOST_DELAY * 1e3, is_judged),
    ]


def at_least(what: str, figure: float, least: float, is_judged: bool) -> Promise:
    return Promise(what, f"{figure:.4g}", f"≥ {least:g}", figure >= least or not is_judged)


def below(what: str, figure: float, most: float, is_judged: bool) -> Promise:
    return Promise(what, f"{figure:.3g}", f"≤ {most:g}", figure <= most or not is_judged)


def main() -> int:
    """Measure, print the tables and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--httpx", type=int, default=1_000, help="samples that httpx gets")
    parser.add_argument("--official", type=int, default=300, help="samples that the official client gets")
    parser.add_argument("--engines", type=int, default=3, help="engines in the pool, each a process of its own")
    parser.add_argument("--calls", type=int, default=600, help="calls without company")
    options = parser.parse_args()
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(partial(FifoEngine, DEVICE))) for _ in range(options.engines)]
        found = measured(
            servers, cases(options.samples, options.httpx, options.official, options.engines), options.rounds
        )
        costs = [asyncio.run(overhead(options.samples)) for _ in range(options.rounds)]
        servers[0].ask(FifoEngine.behave, IMMEDIATE)
        lone = asyncio.run(lone_calls(servers[0].url, options.calls))
    show([Medians(found, case) for case in found])
    title = f"{options.samples:,} samples at once" + (
        "" if options.samples >= ENOUGH else f"; rates and CPU are not judged below {ENOUGH:,}"
    )
    return judge(title, promises(found, costs, lone))


if __name__ == "__main__":
    raise SystemExit(main())
