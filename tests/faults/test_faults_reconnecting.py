"""Servers that really stop listening and come back, on loopback: what watches make of it, and that nothing is left.

Time runs a hundred times as fast, for the session and the services alike, unless a test is about time itself.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest

from gts_async import AsyncSession, DeadlineExceeded, MisuseError, Timeouts, WorkLost
from gts_async.testing import chaos
from gts_async.wire import Request
from tests.steady_loop import LoopClock

LONG = Timeouts(connect=6000, read=6000, total=6000)
STORIES = {
    "engine": ["INITIALIZED", "TRAINING", "SUCCEEDED"],
    "java": ["WORKING", "SUCCEEDED"],
    "go": ["WORKING", "SUCCEEDED"],
    "head": ["UNASSIGNED", "RUNNING", "SUCCEEDED"],
}


class Swift(LoopClock):
    """A clock that is `rate` times as fast, and so is its time of day."""

    def __init__(self, rate=100):
        super().__init__(rate)
        self._start = time.time() - self.now()

    def wall(self):
        return datetime.fromtimestamp(self._start + self.now(), UTC)


def served(world):
    """Give the script by which a chaos server answers as that world does."""

    async def play(connection):
        asked = connection.request
        path, _, query = asked.target.partition("?")
        request = Request(asked.method, path, tuple(parse_qsl(query)), asked.headers, asked.body)
        answer = world.answer(request, world.clock.wall().timestamp())
        await chaos.answer(answer.status, body=answer.body, headers=answer.headers)(connection)

    return play


async def is_restarted(server, clock, seconds):
    """Stop listening, cut all connections, and listen again after so many seconds."""
    server.refuse()
    server.hang_up(reset=True)
    await clock.sleep(seconds)
    server.accept()


async def changes_of(work):
    return [change async for change in work.watch()]


def names(changes):
    return [change.status.name for change in changes]


def opened(floor, server, world, **options):
    """Give the floor over that server, which answers as that world does."""
    this = floor(
        server,
        engine=server.url,
        clock=world.clock,
        dialect="2024-04" if world.kind == "head" else "2023-12",
        **{"timeouts": LONG, **options},
    )
    # What it asks afterwards is asked in the older dialect.
    this.can_be_used_after = world.kind != "head"
    server.otherwise(served(world))
    return this


# Restarts: G1, G2


@pytest.mark.parametrize("when", ["G1 between looks", "G1 in the middle of a look"])
async def test_a_server_that_stops_and_starts_again_is_watched_on(floor, server, watched, kind, when):
    world = watched(kind, clock=Swift(), lasts=60)
    async with opened(floor, server, world) as this:
        (work,) = await world.begin(this.session)
        watching = asyncio.create_task(changes_of(work))
        await world.clock.sleep(20)
        if when == "G1 in the middle of a look":
            before = len(server.requests)
            server.otherwise(chaos.hold(asyncio.Event()))
            await server.until(lambda: len(server.requests) > before)
        await is_restarted(server, world.clock, 20)
        server.otherwise(served(world))
        changes = await watching
        assert names(changes) == STORIES[kind]
        kinds = [event.kind for event in this.events if event.subject == work.id and event.kind != "transition"]
        assert kinds == ["degraded", "recovered"]


@pytest.mark.parametrize(
    ("kind", "way", "count", "speed"), [("engine", "awaited", 200, 10), ("java", "as_finished", 100, 50)]
)
async def test_a_server_that_stops_in_the_middle_of_many_watches_loses_none(
    floor, server, watched, kind, way, count, speed
):
    world = watched(kind, clock=Swift(speed), lasts=25)
    async with opened(floor, server, world) as this:
        works = await world.begin(this.session, count)
        waiting = asyncio.ensure_future(asyncio.gather(*works) if way == "awaited" else this.session.wait_all(works))
        await world.clock.sleep(8)
        before = len(this.events)
        await is_restarted(server, world.clock, 20)
        # Within the limit of looks, also while nobody listens.
        asked = Counter(event.kind for event in this.events[before:])["gave up"]
        assert 0 < asked <= 20 * 50 + 100
        finals = await waiting
        assert Counter(final.status.name for final in finals) == {"SUCCEEDED": count}
        trouble = Counter(
            (event.kind, event.subject) for event in this.events if event.kind in ("degraded", "recovered")
        )
        assert set(trouble.values()) == {1}


async def test_a_server_that_comes_back_without_a_work_has_lost_it(floor, server, watched, kind):
    world = watched(kind, clock=Swift(), lasts=60)
    async with opened(floor, server, world) as this:
        kept, lost = await world.begin(this.session, 2)
        waiting = asyncio.gather(kept.wait(), lost.wait(), return_exceptions=True)
        await world.clock.sleep(20)
        world.lose([lost])
        await is_restarted(server, world.clock, 5)
        final, error = await waiting
        assert final.status.name == "SUCCEEDED"
        assert type(error) is WorkLost
        assert (error.handle, names(error.history)) == (lost, STORIES[kind][:-1])


# In the middle of a look: G6, G9, G14


async def end_of(session, work, way, deadline):
    if way == "wait":
        await work.wait(deadline=deadline)
    else:
        (outcome,) = await session.wait_all([work], deadline=deadline)
        raise outcome


@pytest.mark.parametrize("way", ["wait", "wait_all"])
async def test_a_deadline_cuts_the_look_in_flight(floor, server, watched, kind, way):
    world = watched(kind, clock=LoopClock(), outcome="stuck")
    async with opened(floor, server, world) as this:
        (work,) = await world.begin(this.session)
        server.otherwise(chaos.hold(asyncio.Event()))
        began = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceeded) as caught:
            await end_of(this.session, work, way, 0.2)
        assert 0.2 <= asyncio.get_running_loop().time() - began < 1
        assert caught.value.handle == work


async def test_a_watch_that_is_cut_in_the_middle_of_its_look_leaves_nothing(floor, server, watched, kind):
    world = watched(kind, clock=LoopClock(), outcome="stuck")
    async with opened(floor, server, world) as this:
        (work,) = await world.begin(this.session)
        before = len(server.requests)
        server.otherwise(chaos.hold(asyncio.Event()))
        waiting = asyncio.create_task(changes_of(work))
        await server.until(lambda: len(server.requests) > before)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert this.slots.in_use == 0


async def test_a_session_that_is_closed_cuts_the_looks_of_many_waits(server, watched, kind):
    world = watched(kind, clock=LoopClock(), outcome="stuck")
    server.otherwise(served(world))
    dialect = "2024-04" if kind == "head" else "2023-12"
    async with AsyncSession(engine=server.url, cloud=f"{server.url}/api", token="t", dialect=dialect) as session:
        works = await world.begin(session, 200 if kind == "engine" else 100)
        before = len(server.requests)
        server.otherwise(chaos.hold(asyncio.Event()))
        waits = [asyncio.create_task(work.wait()) for work in works]
        await server.until(lambda: len(server.requests) > before)
        began = asyncio.get_running_loop().time()
        await session.aclose()
        results = await asyncio.gather(*waits, return_exceptions=True)
        assert asyncio.get_running_loop().time() - began < 1
        assert {type(result) for result in results} == {MisuseError}
    await server.drained()


# Another process: a wait that ends (G6) goes on there

RESUMED = """
import asyncio, json, sys
from gts_async import AsyncSession, Schedule

async def main(url, dialect, token):
    quick = Schedule(minimum=0.02, maximum=0.05)
    async with AsyncSession(engine=url, cloud=url + "/api", token="t", dialect=dialect, schedule=quick) as session:
        work = session.resume(token)
        final = await work.wait(deadline=100)
        story = [change.status.name for change in work.history]
        print(json.dumps([work.id, story, getattr(final, "test_acc", None), work.token()]))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_token_is_taken_up_in_another_process(server, watched, kind):
    world = watched(kind, clock=LoopClock(), outcome="stuck")
    server.otherwise(served(world))
    dialect = "2024-04" if kind == "head" else "2023-12"
    async with AsyncSession(engine=server.url, cloud=f"{server.url}/api", token="t", dialect=dialect) as session:
        (work,) = await world.begin(session)
        if kind == "engine":
            # It has been trained before: what it still shows of that is not this run's end.
            world.tell(work, "done", test_acc=0.6)
            work = await work.task.train(
                train_data="train.json", val_data="dev.json", test_data="test.json", label_data="labels.json"
            )
        token = work.token()
    seen = len(world.looks())
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RESUMED, server.url, dialect, token, stdout=asyncio.subprocess.PIPE
    )
    await server.until(lambda: len(world.looks()) >= seen + 2, within=60)
    world.tell(work, "going")
    await server.until(lambda: len(world.looks()) >= seen + 6, within=60)
    world.tell(work, "done", **{"engine": {"test_acc": 0.7}, "head": {}}.get(kind, {"url": "http://store.test/m"}))
    told, _ = await child.communicate()
    assert child.returncode == 0
    work_id, story, accuracy, again = json.loads(told)
    assert work_id == work.id
    assert story == STORIES[kind]
    assert accuracy == (0.7 if kind == "engine" else None)
    assert json.loads(again)["kind"] == json.loads(token)["kind"]
