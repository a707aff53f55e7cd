"""What does a server that is down see of a thousand callers, and how soon are they well again when it is?

For a while it answers everything with 503, in a second run with 429 and a Retry-After. The callers call again and
again, as users do, with a pause after each call. Beside it a client without a budget: a loop that tries as often and
waits as long, over the same slots, because httpx's own pool comes to a halt under so many.
``python -m benchmarks.retry_storm [--callers 1000] [--outage 30] [--pause 1]``
"""

import argparse
import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import attrs
import httpx

from benchmarks.promises import Promise, judge
from benchmarks.server import Echo, Remote, Seen, serving
from gts_async import AsyncSession, GtsAsyncError, Limits, RetryPolicy
from gts_async._net.client import slot_client
from gts_async._net.retry import RetryBudget
from gts_async._net.roots import Roots

AskFor = Callable[[str], Awaitable[object]]
"""Asks for a task's status."""

Client = Callable[[str, int], AbstractAsyncContextManager[AskFor]]
"""Opens a client of the server at this URL for so many calls at once."""

POLICY = RetryPolicy()
MOST_PER_CALL = 1.2
LONGEST_RECOVERY = 10.0
GIVING_UP = 30.0
"""Seconds after which callers that are still not well will never be, for this command."""


@attrs.frozen
class Outage:
    """How a server refuses, and for how many seconds."""

    status: int
    retry_after: float
    cost: int
    seconds: float


@attrs.define
class Callers:
    """Many callers of one client, who wait `pause` seconds between two calls, give or take a half; and how they are."""

    ask: AskFor
    pause: float
    begun: int = 0
    ended: int = 0
    well: set[int] = attrs.field(factory=set)

    async def one(self, number: int) -> None:
        """Call again and again."""
        await asyncio.sleep(self.pause * random.random())
        while True:
            self.begun += 1
            try:
                await self.ask(f"task-{number}-{self.begun}")
            except (GtsAsyncError, httpx.HTTPError):
                self.well.discard(number)
            else:
                self.well.add(number)
            self.ended += 1
            await asyncio.sleep(self.pause * (0.5 + random.random()))

    async def are_well(self, count: int, within: float) -> float:
        """Give the seconds until each has been answered; for ever if it takes longer than `within`."""
        self.well.clear()
        began = time.monotonic()
        while len(self.well) < count:
            if time.monotonic() - began > within:
                return float("inf")
            await asyncio.sleep(0.05)
        return time.monotonic() - began


@attrs.frozen
class Told:
    """What came of one outage: calls offered while it lasted, what the server saw, seconds until all were well."""

    offered: int
    seen: Seen
    recovery: float

    @property
    def per_call(self) -> float:
        """Requests for each call that reached the server."""
        return self.seen.requests / max(1, self.seen.calls)


@contextlib.asynccontextmanager
async def ours(url: str, at_once: int) -> AsyncIterator[AskFor]:
    async with AsyncSession(engine=url, retry=POLICY, limits=Limits(max_in_flight=at_once)) as session:
        yield lambda task_id: session.task(task_id).status()


@contextlib.asynccontextmanager
async def naive(url: str, at_once: int) -> AsyncIterator[AskFor]:
    async with slot_client(Limits(), Roots()) as client:

        async def ask(task_id: str) -> None:
            for attempt in range(1, POLICY.max_attempts + 1):
                answer = await client.post(f"{url}/api/check_task_status", json={"task_id": task_id}, timeout=60.0)
                if answer.is_success:
                    return
                asked = float(answer.headers.get("retry-after", 0.0))
                await asyncio.sleep(POLICY.delay(attempt, random.random(), asked) or 0.0)
            answer.raise_for_status()

        yield ask


async def suffer(server: Remote[Echo], client: Client, count: int, pause: float, outage: Outage) -> Told:
    """Let so many callers go through an outage."""
    async with client(server.url, count) as ask, asyncio.TaskGroup() as group:
        callers = Callers(ask, pause)
        tasks = [group.create_task(callers.one(number)) for number in range(count)]
        await callers.are_well(count, GIVING_UP)
        server.ask(Echo.refuse, outage.status, outage.retry_after)
        before = callers.ended
        await asyncio.sleep(outage.seconds)
        seen = server.ask(Echo.recover)
        offered = callers.begun - before
        recovery = await callers.are_well(count, GIVING_UP)
        for task in tasks:
            task.cancel()
    return Told(offered, seen, recovery)


def promises(outage: Outage, us: Told, them: Told, count: int) -> list[Promise]:
    # In a storm so small that the bucket alone is more than a fifth of it, the bucket is the promise.
    most = max(MOST_PER_CALL * us.seen.calls, us.seen.calls + POLICY.budget // outage.cost)
    facts = [
        Promise.none("calls offered while it refused", f"{us.offered:,}", f"{them.offered:,}"),
        Promise.none("calls that reached it", f"{us.seen.calls:,}", f"{them.seen.calls:,}"),
        Promise.at_most("requests that it saw", us.seen.requests, most, beside=f"{them.seen.requests:,}"),
        Promise.none("requests for each call that reached it", f"{us.per_call:.3f}", f"{them.per_call:.3f}"),
    ]
    if outage.retry_after:
        # For each connection one that is on its way when the pause begins, and one after an answer of just before.
        most = 2 * Limits().max_connections
        beside = f"{them.seen.most_in_a_pause:,}"
        facts.append(Promise.at_most("most of them in one pause", us.seen.most_in_a_pause, most, beside))
    longest = LONGEST_RECOVERY + outage.retry_after
    name = f"seconds until all {count:,} were well again"
    return [*facts, Promise.at_most(name, us.recovery, longest, f"{them.recovery:.3g}")]


def main() -> int:
    """Run the outages, print a table for each and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=1000)
    parser.add_argument("--outage", type=float, default=30.0, help="seconds")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between a caller's calls, on the average")
    options = parser.parse_args()
    outages = (
        Outage(503, 0.0, RetryBudget.FAILURE, options.outage),
        Outage(429, 2.0, RetryBudget.THROTTLED, options.outage),
    )
    code = 0
    with serving(Echo) as server:
        for outage in outages:
            us, them = (
                asyncio.run(suffer(server, client, options.callers, options.pause, outage)) for client in (ours, naive)
            )
            asking = f" with Retry-After: {outage.retry_after:.0f}" if outage.retry_after else ""
            title = f"{options.callers:,} callers, {outage.seconds:g} s of {outage.status}{asking}"
            code |= judge(title, promises(outage, us, them, options.callers), beside="a loop")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
