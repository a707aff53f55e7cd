"""Does a stream of a million predictions stay small, and what does each sample cost?

The samples come from a lazy generator and go through `stream`, in their order, to an engine in another process that
answers at once: there is no device to wait for, so this process is what is measured. Each outcome is checked when it
comes, and forgotten. Then fewer samples go through twice more, without and with a checkpoint, which shows what keeping
a result costs; and once more with that checkpoint, which has them all.
``python -m benchmarks.streaming [--samples 1000000] [--kept 100000] [--batch 64]``
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from benchmarks.batch import WARM, Gauge
from benchmarks.fanout import MOST_PROBES
from benchmarks.fifo_engine import ENGINE_TYPE, IMMEDIATE, TASK, TASK_TYPE, FifoEngine, Seen, predicted, sample
from benchmarks.promises import Promise, judge
from benchmarks.server import Remote, serving
from benchmarks.ways_to_predict import IN_FLIGHT, MAX_BATCH, cpu_seconds, told
from gts_async import AsyncSession

MOST_GROWTH = 20.0
MOST_BATCHES_AHEAD = 64
"""What is promised: MB of memory beyond the warm-up's peak; batches that are pulled ahead of what was given."""

ENOUGH = 200_000
"""Samples from which on the growth of memory means anything."""


@attrs.define
class Samples:
    """Samples made one by one."""

    count: int
    pulled: int = 0

    def __iter__(self) -> Iterator[dict[str, str]]:
        for number in range(self.count):
            self.pulled = number + 1
            yield sample(number)


@attrs.define
class Streamed:
    """What came of one stream.

    `given` outcomes came, `wrong` ones of them with anything but what the engine answers for the sample whose turn it
    was; at most `ahead` samples were pulled and not yet given.
    """

    samples: int
    given: int = 0
    wrong: int = 0
    ahead: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    gauge: Gauge = attrs.field(factory=Gauge)
    seen: Seen = attrs.field(factory=Seen)

    def check(self, outcome: Any) -> None:
        """Judge the next outcome."""
        expected = sample(self.given)
        self.wrong += outcome.item != expected or told(outcome.value) != predicted(expected["content"])
        self.given += 1

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / self.seconds

    @property
    def cost(self) -> float:
        """CPU seconds for each sample."""
        return self.cpu / self.samples


async def stream(server: Remote[FifoEngine], count: int, max_batch: int, checkpoint: Path | None = None) -> Streamed:
    """Stream so many samples and measure."""
    streamed, samples, is_warm = Streamed(count), Samples(count), asyncio.Event()
    async with AsyncSession(engine=server.url) as session:
        task = session.task(TASK, task_type=TASK_TYPE, engine_type=ENGINE_TYPE)
        async with task.serve(max_batch=max_batch) as inference:
            watching = asyncio.create_task(streamed.gauge.watch(is_warm))
            began, cpu = time.perf_counter(), cpu_seconds()
            streaming = inference.stream(samples, max_batch=max_batch, max_at_once=IN_FLIGHT, checkpoint=checkpoint)
            async with streaming as outcomes:
                async for outcome in outcomes:
                    streamed.ahead = max(streamed.ahead, samples.pulled - streamed.given)
                    streamed.check(outcome)
                    if streamed.given >= WARM * count:
                        is_warm.set()
            streamed.seconds, streamed.cpu = time.perf_counter() - began, cpu_seconds() - cpu
            watching.cancel()
    streamed.seen = server.ask(FifoEngine.seen)
    return streamed


def own_cost(count: int) -> float:
    """Give the CPU seconds for each sample that making and checking it takes, which is no stream's."""

    @attrs.frozen
    class Given:
        item: Any
        value: Any

    before, streamed = cpu_seconds(), Streamed(count)
    for each in Samples(count):
        streamed.check(Given(each, None))
    return (cpu_seconds() - before) / count


@attrs.frozen
class Kept:
    """Three streams of the same samples: without a checkpoint, with one, and with what that has; and its bytes."""

    without: Streamed
    first: Streamed
    again: Streamed
    size: int


def keep(server: Remote[FifoEngine], count: int, max_batch: int, folder: Path) -> Kept:
    """Measure what a checkpoint costs."""
    path = folder / "checkpoint"
    without, first, again = [
        asyncio.run(stream(server, count, max_batch, checkpoint)) for checkpoint in (None, path, path)
    ]
    return Kept(without, first, again, sum(file.stat().st_size for file in folder.iterdir()))


def promises(streamed: Streamed, own: float, kept: Kept | None, max_batch: int) -> list[Promise]:
    """Judge the long stream, and the kept ones if there are any."""
    return [
        Promise.none("samples a second", f"{streamed.rate:,.0f}"),
        Promise.none("CPU for each sample, µs", f"{streamed.cost * 1e6:.1f}"),
        Promise.none("of these, to make and check it, µs", f"{own * 1e6:.1f}"),
        growth(streamed),
        Promise.at_most("samples pulled ahead of the outcomes", streamed.ahead, MOST_BATCHES_AHEAD * max_batch),
        *judged(streamed, max_batch),
        *(of_checkpoint(kept, max_batch) if kept is not None else ()),
    ]


def judged(streamed: Streamed, max_batch: int) -> list[Promise]:
    """Judge that each sample was answered once, in its turn, and rightly."""
    return [
        Promise.exactly("outcomes", streamed.given, streamed.samples),
        Promise.exactly("wrong ones", streamed.wrong, 0),
        Promise.at_most("most samples in one request", streamed.seen.largest, max_batch),
        Promise.exactly("samples that the engine was asked", streamed.seen.samples, streamed.samples),
        Promise.at_most("rows that only tell who answers", streamed.seen.probes, MOST_PROBES * streamed.samples),
    ]


def growth(streamed: Streamed) -> Promise:
    """Judge the peak of memory, if there were samples enough to tell."""
    grown = (streamed.gauge.most - streamed.gauge.warm) / 1e6
    what = f"MB of memory beyond the peak of the first {WARM:.0%}"
    if streamed.samples < ENOUGH:
        return Promise.none(f"{what}: too few samples to judge", f"{grown:.1f}")
    return Promise.at_most(what, grown, MOST_GROWTH)


def of_checkpoint(kept: Kept, max_batch: int) -> list[Promise]:
    """Judge what a checkpoint kept; a run that finds all of it there asks nothing but what tells it the model."""
    count, without, first, again = kept.without.samples, kept.without, kept.first, kept.again
    return [
        Promise.none(f"{count:,} samples without a checkpoint: samples a second", f"{without.rate:,.0f}"),
        Promise.none("CPU for each sample, µs", f"{without.cost * 1e6:.1f}"),
        Promise.none("with one: samples a second", f"{first.rate:,.0f}"),
        Promise.none("CPU for each sample, µs", f"{first.cost * 1e6:.1f}"),
        Promise.none("CPU that the checkpoint adds, µs", f"{(first.cost - without.cost) * 1e6:.1f}"),
        Promise.none("time that it adds for each sample, µs", f"{(1 / first.rate - 1 / without.rate) * 1e6:.1f}"),
        Promise.none("bytes on disk for each sample", f"{kept.size / count:.0f}"),
        *judged(first, max_batch),
        Promise.none("once more, all being there: samples a second", f"{again.rate:,.0f}"),
        Promise.none("CPU for each sample, µs", f"{again.cost * 1e6:.1f}"),
        Promise.exactly("outcomes", again.given, count),
        Promise.exactly("wrong ones", again.wrong, 0),
        Promise.exactly("samples that the engine was asked", again.seen.samples, 0),
    ]


def main() -> int:
    """Stream, print what came of it and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--kept", type=int, default=100_000, help="samples that go through a checkpoint; 0 for none")
    parser.add_argument("--batch", type=int, default=MAX_BATCH)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(partial(FifoEngine, IMMEDIATE)) as server:
        streamed = asyncio.run(stream(server, options.samples, options.batch))
        own = own_cost(min(options.samples, ENOUGH))
        kept = keep(server, options.kept, options.batch, Path(folder)) if options.kept else None
    title = f"{options.samples:,} samples in their order, batches of {options.batch}"
    return judge(title, promises(streamed, own, kept, options.batch))


if __name__ == "__main__":
    raise SystemExit(main())
