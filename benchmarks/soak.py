"""Does a client under constant fault stay right, and does it stay small?

Hundreds of calls are in flight all the time, some are cut short in five styles, and the server does to many of them
what a network can do. Every answer must be about what was asked, and nothing may pile up: slots, tasks, files, memory.
``python -m benchmarks.soak --seconds 180 [--in-flight 200] [--faults 0.15] [--cancels 0.10] [--png PATH]``

Now and then the load is interrupted until all calls are over, once after the warm-up and then every round. At rest
everything can be counted exactly, and what memory is held does not depend on how much there happens to be under way:
drift is judged by these points. While it warms up the load is doubled, so that the peaks of the allocators are behind
it: else their steps (a megabyte each) would pass for drift, although what they have handed out does not grow. The curve
shows the time under load as well: every second, resident bytes as they are, and again once the cycle collector has run
and malloc has given back what is free.
"""

import argparse
import asyncio
import collections
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial

import attrs

from benchmarks import memory
from benchmarks.cancelling import STYLES, Moment
from benchmarks.faulty_server import FaultyServer, Played
from benchmarks.holdings import Holdings, Inside, open_files, tasks
from benchmarks.memory import Trend
from benchmarks.promises import Promise, judge
from benchmarks.server import Remote, serving
from benchmarks.soak_curve import Curve, draw
from gts_async import AsyncSession, GtsAsyncError, Limits, RetryPolicy, Timeouts

AskFor = Callable[[str], Awaitable[str]]
"""Asks for a look; gives the id that the answer is about."""

TIMEOUTS = Timeouts(connect=2.0, read=0.7, total=2.0)
RETRY = RetryPolicy(budget=1_000_000_000)
"""Tries enough for as long as it takes: with the usual budget most calls would soon give up at their first fault."""

MOST_BYTES = 1 << 18
"""Of one answer. Bodies without end are cut there, and should not be what the curve of memory shows."""

LATEST_CANCEL = 0.3
"""Seconds; some calls take longer, most do not."""

WARM_UP = 1 / 3
LONGEST_WARM_UP = 60.0
ROUND = 20.0
MOST_ROUNDS = 60
"""Seconds from one rest to the next, or more in runs so long that there would be too many."""

SETTLING = 10.0
"""Seconds in which everything must have come to rest."""

MOST_DRIFT = 5.0
"""MB an hour."""

SHORTEST = 100.0
"""Seconds between the first rest and the last from which on such a drift stands out from the allocator's own steps."""

MADE_ONCE = 3_000
PER_CALL = 0.01
"""Objects that may be alive at the last rest and were not at the first: caches and such, and one for 100 calls."""

MADE_ONCE_BYTES = 500_000
"""Bytes of the same in objects that Python leaves to malloc."""


@attrs.frozen
class Rest:
    """What is there when no call is under way; `tasks` are those beyond the callers."""

    seconds: float
    under_way: int
    held: Holdings
    tasks: int
    files: int
    blocks: int
    handed_out: int
    resident: int
    done: int


@attrs.define
class Load:
    """The callers and what became of their calls: counters only, for hours would fill a list."""

    ask: tuple[AskFor, AskFor]
    in_flight: int
    cancels: float
    chance: random.Random
    answered: int = 0
    wrong: int = 0
    cut: int = 0
    to_be_cut: int = 0
    strange: int = 0
    under_way: int = 0
    failed: collections.Counter[str] = attrs.field(factory=collections.Counter)
    _goes_on: asyncio.Event = attrs.field(factory=asyncio.Event)
    _numbers: "itertools.count[int]" = attrs.field(factory=itertools.count)
    _styles: "itertools.cycle[str]" = attrs.field(factory=lambda: itertools.cycle(STYLES))

    @property
    def done(self) -> int:
        """Calls that are over, however."""
        return self.answered + self.cut + self.failed.total()

    @property
    def share_to_cut(self) -> float:
        """The share of calls to cut short: some are over before it comes to that, and others make up for them."""
        is_known = self.cut > 100
        return min(1.0, self.cancels * self.to_be_cut / self.cut) if is_known else self.cancels

    async def caller(self) -> None:
        """Call again and again, while it goes on."""
        while True:
            await self._goes_on.wait()
            self.under_way += 1
            call = partial(self._call, next(self._numbers))
            if self.chance.random() < self.share_to_cut:
                self.to_be_cut += 1
                await STYLES[next(self._styles)](call, Moment.by_chance(self.chance, LATEST_CANCEL))
            else:
                await call()
            self.under_way -= 1

    async def _call(self, number: int) -> None:
        asked = f"id-{number}"
        try:
            about = await self.ask[number % 2](asked)
        except asyncio.CancelledError:
            self.cut += 1
            raise
        except GtsAsyncError as error:
            self.failed[type(error).__name__] += 1
        except Exception as error:
            self.failed[f"!{type(error).__name__}"] += 1
            self.strange += 1
        else:
            self.answered += 1
            self.wrong += about != asked

    async def run(self, seconds: float, curve: Curve) -> None:
        """Let the callers call for so long, measuring; ends when the last call is over."""
        until = time.monotonic() + seconds
        self._goes_on.set()
        while time.monotonic() < until:
            await asyncio.sleep(min(curve.interval, seconds / 5))
            resident = memory.resident()
            memory.collect()
            curve.add(resident, memory.resident(), open_files(), tasks(), self.done)
        curve.interrupt()
        self._goes_on.clear()
        until = time.monotonic() + SETTLING
        while self.under_way and time.monotonic() < until:
            await asyncio.sleep(0.02)


async def rest(load: Load, inside: Inside, curve: Curve) -> Rest:
    """Wait until all is quiet, let idle connections go, and tell what is there."""
    await inside.at_rest(SETTLING)
    inside.let_go()
    held = await inside.at_rest(SETTLING)
    memory.collect()
    return Rest(
        seconds=curve.now(),
        under_way=load.under_way,
        held=held,
        tasks=tasks() - load.in_flight,
        files=open_files(),
        blocks=memory.blocks(),
        handed_out=memory.handed_out(),
        resident=memory.resident(),
        done=load.done,
    )


@attrs.frozen
class Soaked:
    """What came of it; the first of `rests` is that after the warm-up."""

    load: Load
    curve: Curve
    rests: list[Rest]
    files_before: int
    files_after: int
    tasks_after: int
    played: Played

    @property
    def drift(self) -> Trend:
        """How the memory held at rest went on after the warm-up, in MB an hour."""
        return Trend.of([rest.seconds / 3600 for rest in self.rests], [rest.resident / 1e6 for rest in self.rests])


async def soak(server: Remote[FaultyServer], seconds: float, in_flight: int, cancels: float, seed: int) -> Soaked:
    curve = Curve(seconds)
    warm_up = min(seconds * WARM_UP, LONGEST_WARM_UP)
    rounds = max(1, min(MOST_ROUNDS, round((seconds - warm_up) / ROUND)))
    files_before = open_files()
    # More calls than connections, so that some always wait for their turn.
    limits = Limits(max_connections=max(1, in_flight // 2), max_answer_bytes=MOST_BYTES)
    session = AsyncSession(
        engine=server.url, cloud=server.url, token="t", limits=limits, timeouts=TIMEOUTS, retry=RETRY
    )
    async with session:
        inside = Inside(session)

        async def task_look(task_id: str) -> str:
            return (await session.task(task_id).status()).message

        async def job_look(job_id: str) -> str:
            return ((await session.job(job_id).status()).url or "").rpartition("/")[2]

        load = Load((task_look, job_look), in_flight, cancels, random.Random(seed))
        callers = [asyncio.create_task(load.caller()) for _ in range(in_flight)]
        # Twice the load while it warms up: malloc's peaks are behind it then, and its steps are not taken for drift.
        others = [asyncio.create_task(load.caller()) for _ in range(in_flight)]
        await load.run(warm_up, curve)
        for caller in others:
            caller.cancel()
        await asyncio.wait(others)
        rests = [await rest(load, inside, curve)]
        for _ in range(rounds):
            await load.run((seconds - warm_up) / rounds, curve)
            rests.append(await rest(load, inside, curve))
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
    # The server takes notice of the last connections' end, when the machine lets it.
    until = time.monotonic() + SETTLING
    while (played := server.ask(FaultyServer.played)).open and time.monotonic() < until:
        await asyncio.sleep(0.02)
    return Soaked(
        load=load,
        curve=curve,
        rests=rests,
        files_before=files_before,
        files_after=open_files(),
        tasks_after=tasks(),
        played=played,
    )


def promises(soaked: Soaked) -> list[Promise]:
    load, curve, rests, played = soaked.load, soaked.curve, soaked.rests, soaked.played
    failed = load.failed.total()
    faults = sum(count for fault, count in played.answers.items() if fault)
    requests = sum(played.answers.values())
    kinds = len(played.answers.keys() - {""})
    most_files = max(rests, key=lambda rest: abs(rest.files - soaked.files_before)).files
    most_tasks = max((rest.tasks for rest in rests), key=abs)
    return [
        Promise.none("calls answered", f"{load.answered:,}"),
        Promise.none("calls cut short", f"{load.cut:,} ({load.cut / load.done:.1%})"),
        Promise.none("calls that failed, the faults being what they are", f"{failed:,} ({failed / load.done:.1%})"),
        Promise.none("requests that the server saw", f"{requests:,}"),
        Promise.none("answers with a fault", f"{faults:,} ({faults / requests:.1%}), {kinds} kinds"),
        Promise.exactly("scripts of the server's that failed", played.broken, 0),
        Promise.exactly("wrong answers", load.wrong, 0),
        Promise.exactly("errors that are not the library's", load.strange, 0),
        Promise.exactly(f"at {len(rests)} rests: calls that do not end", sum(rest.under_way for rest in rests), 0),
        Promise.exactly("slots in use", sum(rest.held.slots for rest in rests), 0),
        Promise.exactly("places missing at the gates", sum(rest.held.lost for rest in rests), 0),
        Promise.exactly("connections still being closed", sum(rest.held.closing for rest in rests), 0),
        Promise.exactly("tasks beyond the callers", most_tasks, 0),
        Promise.exactly("files open (what differs most from the beginning)", most_files, soaked.files_before),
        Promise.none("most files open under load", f"{max(files for _, files in curve.points('files')):.0f}"),
        Promise.exactly("after closing: files open", soaked.files_after, soaked.files_before),
        Promise.exactly("tasks", soaked.tasks_after, 0),
        Promise.exactly("connections open at the server", played.open, 0),
        objects(rests[0], rests[-1]),
        larger_objects(rests[0], rests[-1]),
        drift(soaked),
    ]


def objects(warm: Rest, end: Rest) -> Promise:
    calls = end.done - warm.done
    what = f"more objects alive at the last rest than at the first, {calls:,} calls later"
    return Promise.at_most(what, end.blocks - warm.blocks, MADE_ONCE + PER_CALL * calls)


def larger_objects(warm: Rest, end: Rest) -> Promise:
    """Judge what is held in objects that Python leaves to malloc, where that can be counted."""
    what = "more bytes in larger objects (malloc's) at the last rest than at the first"
    if not end.handed_out:
        return Promise.none(what, "not known here: no mallinfo2")
    return Promise.at_most(what, end.handed_out - warm.handed_out, MADE_ONCE_BYTES)


def drift(soaked: Soaked) -> Promise:
    """Judge the drift, if the run was long enough to tell."""
    trend, watched = soaked.drift, soaked.rests[-1].seconds - soaked.rests[0].seconds
    what = f"drift of the memory held at rest, over {watched:.0f} s"
    measured = f"{trend.slope:+.1f} MB/h"
    if watched < SHORTEST:
        return Promise.none(f"{what}: too short to judge, the objects above stand for it", measured)
    return Promise(what, measured, f"≤ {MOST_DRIFT:g} MB/h", trend.slope <= MOST_DRIFT)


def main() -> int:
    """Soak, print what came of it, draw the curve and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--faults", type=float, default=0.15, help="share of the answers, 0 to 1")
    parser.add_argument("--cancels", type=float, default=0.10, help="share of the calls, 0 to 1")
    parser.add_argument("--png", help="where to draw the curve")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    with serving(partial(FaultyServer, options.faults, options.seed)) as server:
        soaked = asyncio.run(soak(server, options.seconds, options.in_flight, options.cancels, options.seed))
    title = (
        f"{options.seconds:g} s, {options.in_flight} calls in flight, {options.faults:.0%} faults, "
        f"{options.cancels:.0%} to be cut short (seed {options.seed})"
    )
    code = judge(title, promises(soaked))
    print(f"errors: {dict(soaked.load.failed.most_common())}")
    print(f"the server's answers: {dict(sorted(soaked.played.answers.items()))}")
    if options.png:
        points = [(rest.seconds, float(rest.resident)) for rest in soaked.rests]
        draw(options.png, title, soaked.curve, points, soaked.drift)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
