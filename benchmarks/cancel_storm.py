"""What is left of a client after its calls were cut short a hundred thousand times, at any moment and in any way?

Random cancellations of calls that contend for ten connections, in five styles, then plain calls: all must succeed, and
nothing may be held any more. httpx as it comes meets the same storm, bounded in number and time.
``python -m benchmarks.cancel_storm [--cancels 100000] [--slots 10] [--seed N]``
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
import httpx

from benchmarks.cancelling import STYLES, Moment
from benchmarks.holdings import Holdings, Inside, tasks
from benchmarks.promises import Promise, judge
from benchmarks.server import Echo, Remote, Seen, serving
from gts_async import AsyncSession, GtsAsyncError, Limits

PLAIN = 20
CALLERS_PER_SLOT = 2
"""So that about half of the calls are cut short while they wait for a slot, the others in the middle of an exchange."""

SLOWEST = 0.004
"""Seconds that the server takes for an answer at most, so that many a cancellation meets a call that waits for it."""

MOST_FOR_HTTPX = 2_000
LONGEST_FOR_HTTPX = 30.0
SETTLING = 5.0
"""Seconds in which everything that a storm left behind must be gone."""

AskFor = Callable[[str], Awaitable[str]]
"""Asks for a task's status; gives the id that the answer is about."""


@attrs.define
class Storm:
    """What became of the calls of one storm."""

    cut: int = 0
    answered: int = 0
    wrong: int = 0
    failed: collections.Counter[str] = attrs.field(factory=collections.Counter)
    plain: int = 0
    seconds: float = 0.0

    async def call(self, ask: AskFor, task_id: str) -> None:
        """Make a call and note what becomes of it; it raises nothing but its cancellation."""
        try:
            about = await ask(task_id)
        except asyncio.CancelledError:
            self.cut += 1
            raise
        except (GtsAsyncError, httpx.HTTPError) as error:
            self.failed[type(error).__name__] += 1
        else:
            self.answered += 1
            self.wrong += about != task_id


async def rage(storm: Storm, ask: AskFor, cancels: int, slots: int, seed: int, seconds: float) -> None:
    """Cut short as many calls as that, for at most so many seconds; then make the plain calls."""
    chance, numbers, styles = random.Random(seed), itertools.count(), itertools.cycle(STYLES.values())
    began = time.monotonic()

    async def caller() -> None:
        while storm.cut < cancels and time.monotonic() - began < seconds:
            call = partial(storm.call, ask, f"task-{next(numbers)}")
            await next(styles)(call, Moment.by_chance(chance))

    async with asyncio.TaskGroup() as group:
        for _ in range(slots * CALLERS_PER_SLOT):
            group.create_task(caller())
    storm.seconds = time.monotonic() - began
    before = storm.answered
    await asyncio.gather(*(storm.call(ask, f"plain-{number}") for number in range(PLAIN)))
    storm.plain = storm.answered - before


@attrs.frozen
class Aftermath:
    """What was left of a session."""

    storm: Storm
    held: Holdings
    open_at_server: int
    seen: Seen
    open_after_close: int
    tasks: int


async def ours(server: Remote[Echo], cancels: int, slots: int, seed: int) -> Aftermath:
    storm = Storm()
    async with AsyncSession(engine=server.url, limits=Limits(max_connections=slots)) as session:
        inside = Inside(session)

        async def ask(task_id: str) -> str:
            return (await session.task(task_id).status()).message

        await rage(storm, ask, cancels, slots, seed, float("inf"))
        held = await inside.at_rest(SETTLING)
        open_at_server = await _settled(server, slots)
    open_after_close = await _settled(server, 0)
    return Aftermath(storm, held, open_at_server, server.ask(Echo.seen), open_after_close, tasks())


async def theirs(server: Remote[Echo], cancels: int, slots: int, seed: int) -> Storm:
    storm = Storm()
    limits = httpx.Limits(max_connections=slots, max_keepalive_connections=slots)
    timeout = httpx.Timeout(5.0, pool=1.0)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=timeout, trust_env=False) as client:

        async def ask(task_id: str) -> str:
            answer = await client.post("/api/check_task_status", json={"task_id": task_id})
            return str(answer.json()["message"])

        await rage(storm, ask, min(cancels, MOST_FOR_HTTPX), slots, seed, LONGEST_FOR_HTTPX)
    return storm


async def _settled(server: Remote[Echo], most: int) -> int:
    """Give how many connections are open at the server once they are no more than `most`, or after a while."""
    until = time.monotonic() + SETTLING
    while (count := server.ask(Echo.seen).open) > most and time.monotonic() < until:
        await asyncio.sleep(0.02)
    return count


def main() -> int:
    """Run both storms, print the table and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cancels", type=int, default=100_000)
    parser.add_argument("--slots", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    cancels, slots, seed = options.cancels, options.slots, options.seed
    with serving(partial(Echo, SLOWEST)) as server:
        us = asyncio.run(ours(server, cancels, slots, seed))
    with serving(partial(Echo, SLOWEST)) as server:
        them = asyncio.run(theirs(server, cancels, slots, seed))
    print(f"styles: {', '.join(STYLES)}; failures of httpx {httpx.__version__}: {dict(them.failed) or 'none'}")
    held = us.held
    promises = [
        Promise("calls cut short", f"{us.storm.cut:,}", f"≥ {cancels:,}", us.storm.cut >= cancels, f"{them.cut:,}"),
        Promise.none("calls answered meanwhile", f"{us.storm.answered - us.storm.plain:,}", f"{them.answered:,}"),
        Promise.none("seconds", f"{us.storm.seconds:.0f}", f"{them.seconds:.0f}"),
        Promise.exactly("calls that failed", us.storm.failed.total(), 0, f"{them.failed.total():,}"),
        Promise.exactly("wrong answers", us.storm.wrong, 0, f"{them.wrong}"),
        Promise.exactly(f"of {PLAIN} plain calls afterwards, answered", us.storm.plain, PLAIN, f"{them.plain}"),
        Promise.exactly("slots in use", held.slots, 0),
        Promise.exactly("places missing at the gates", held.lost, 0),
        Promise.exactly("connections still being closed", held.closing, 0),
        Promise.at_most("connections open at the server", us.open_at_server, slots),
        Promise.exactly("connections open after closing", us.open_after_close, 0),
        Promise.exactly("tasks left", us.tasks, 0),
        Promise.none("connections made, one for each exchange that was cut", f"{us.seen.made:,}"),
        Promise.none("most of them open at once", f"{us.seen.most_open}"),
    ]
    return judge(f"{cancels:,} cancellations at {slots} slots (seed {seed})", promises, beside="httpx")


if __name__ == "__main__":
    raise SystemExit(main())
