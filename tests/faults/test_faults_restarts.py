"""Servers that are restarted while works are watched, forget them or go back on their word: what each wait tells then.

On a fake clock, with the real figures; on loopback, sockets and all, in `test_faults_reconnecting`.
"""

import asyncio
import logging
import re
from collections import Counter
from functools import partial

import pytest

from gts_async import NotFound, Schedule, WorkFailed, WorkLost
from gts_async.testing import faults

OUTAGES = {
    "G1 refused": faults.refused,
    "G1 cut": partial(faults.cut, is_after=False),
    "G1 silent": partial(faults.silent, is_after=False),
    "G1 502": partial(faults.status, 502),
    "G1 503": partial(faults.status, 503),
}
STORIES = {
    "engine": ["INITIALIZED", "TRAINING", "SUCCEEDED"],
    "java": ["WORKING", "SUCCEEDED"],
    "go": ["WORKING", "SUCCEEDED"],
    "head": ["UNASSIGNED", "RUNNING", "SUCCEEDED"],
}
LONGEST = {"engine": 15, "java": 60, "go": 60, "head": 60}
GRACE = {"engine": 2, "java": 30, "go": 30, "head": 30}


def names(changes):
    return [change.status.name for change in changes]


async def changes_of(work):
    return [change async for change in work.watch()]


async def outcomes_of(session, works, way):
    """Wait for all, by `as_finished` or with a task for each; gives the results or errors by the works' ids."""
    if way == "awaited":
        results = await asyncio.gather(*(work.wait() for work in works), return_exceptions=True)
        return dict(zip([work.id for work in works], results, strict=True))
    async with session.as_finished(works) as outcomes:
        return {outcome.item.id: outcome.error or outcome.value async for outcome in outcomes}


# A restart: G1


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
async def test_twenty_seconds_without_a_server_are_told_once_and_end_no_watch(watched, kind, outage):
    world, events = watched(kind), []
    async with world.session(on_event=events.append) as session:
        (work,) = await world.begin(session)
        watching = asyncio.create_task(changes_of(work))
        await world.clock.sleep(40)
        assert await world.is_down(20, outage) > 0
        changes = await watching
        assert names(changes) == STORIES[kind]
        assert changes[-1].is_final
        trouble = [event for event in events if event.subject == work.id and event.kind != "transition"]
        assert [event.kind for event in trouble] == ["degraded", "recovered"]
        assert trouble[0].detail
        assert 40 <= trouble[0].elapsed < 60 <= trouble[1].elapsed <= 66


@pytest.mark.parametrize(
    ("kind", "outage", "way", "count"),
    [
        ("engine", "G1 refused", "awaited", 200),
        ("engine", "G1 502", "as_finished", 100),
        ("java", "G1 refused", "as_finished", 200),
        ("go", "G1 502", "awaited", 100),
        ("head", "G1 refused", "awaited", 100),
    ],
)
async def test_a_restart_in_the_middle_of_many_watches_loses_none(watched, kind, outage, way, count):
    world, events = watched(kind, lasts=45), []
    async with world.session(on_event=events.append) as session:
        works = await world.begin(session, count)
        waiting = asyncio.create_task(outcomes_of(session, works, way))
        await world.clock.sleep(20)
        asked = await world.is_down(20, OUTAGES[outage])
        finals = await waiting
        assert [finals[work.id].status.name for work in works] == ["SUCCEEDED"] * count
        trouble = Counter((event.kind, event.subject) for event in events if event.kind in ("degraded", "recovered"))
        assert len(trouble) == 2 * count
        assert set(trouble.values()) == {1}
        # Of a cloud that is not there, one listing that is not sent tells all who would look then.
        assert asked <= 20 * (25 if kind != "engine" and outage == "G1 refused" else 50) + 1


@pytest.mark.parametrize("kind", ["engine", "go"])
async def test_fifty_restarts_end_no_watch(watched, kind):
    world = watched(kind, lasts=3200)
    async with world.session(schedule=Schedule(maximum=15)) as session:
        works = await world.begin(session, 8)
        waiting = asyncio.create_task(session.wait_all(works))
        for _ in range(50):
            await world.clock.sleep(40)
            assert await world.is_down(20, faults.refused) > 0
        assert Counter(final.status.name for final in await waiting) == {"SUCCEEDED": 8}
        assert all(names(work.history) == STORIES[kind] for work in works)


async def test_a_server_that_stays_away_ends_a_watch_after_five_minutes_and_it_can_be_taken_up_again(watched, kind):
    world = watched(kind, lasts=1000)
    async with world.session() as session:
        (work,) = await world.begin(session)
        watching = asyncio.create_task(work.wait())
        await world.clock.sleep(40)
        await world.is_down(400, faults.refused)
        with pytest.raises(WorkLost, match=r"no usable look for 300 s.*session\.resume") as caught:
            await watching
        assert names(caught.value.history) == STORIES[kind][:-1]
        assert caught.value.handle is work
        assert (await work.wait()).status.name == "SUCCEEDED"


# A restart that has forgotten works: G2


async def test_works_that_a_restart_has_lost_are_told_as_such_and_the_others_go_on(watched, kind):
    world = watched(kind)
    async with world.session() as session:
        works = await world.begin(session, 20)
        lost = works[12:]
        waiting = asyncio.create_task(session.wait_all(works))
        awaited = [asyncio.create_task(work.wait()) for work in lost]
        await world.clock.sleep(40)
        world.lose(lost)
        lost_at = world.clock.now()
        for work, wait in zip(lost, awaited, strict=True):
            with pytest.raises(WorkLost) as caught:
                await wait
            assert caught.value.handle is work
        # As long as the grace lasts, and until the next look.
        assert GRACE[kind] <= world.clock.now() - lost_at <= GRACE[kind] + 10
        results = await waiting
        assert [result.status.name for result in results[:12]] == ["SUCCEEDED"] * 12
        for work, error in zip(lost, results[12:], strict=True):
            assert type(error) is WorkLost
            assert error.handle == work
            assert error.last_look.status.name == STORIES[kind][-2]
            assert names(error.history) == STORIES[kind][:-1]
            assert isinstance(error.__cause__, NotFound)
            assert work.id in str(error)
            assert "token()" in str(error)


@pytest.mark.parametrize("word", ["G2 back in time", "G2 too late"])
async def test_a_work_that_comes_back_within_its_grace_was_not_lost(watched, kind, word):
    world = watched(kind)
    async with world.session() as session:
        _, work = await world.begin(session, 2)
        waiting = asyncio.create_task(work.wait())
        await world.clock.sleep(40)
        before = world.service
        world.lose([work])
        await world.clock.sleep(0.75 * GRACE[kind] if word == "G2 back in time" else 2 * GRACE[kind] + 10)
        world.service = before
        if word == "G2 back in time":
            assert (await waiting).status.name == "SUCCEEDED"
        else:
            with pytest.raises(WorkLost):
                await waiting
            # It is not forgotten: whoever asks again finds it.
            assert (await work.wait()).status.name == "SUCCEEDED"


# A server that goes back on its word: G3


async def test_a_job_that_is_queued_anew_is_told_as_going_backward_and_watched_on(watched, caplog):
    world, events = watched("head", lasts=300), []
    async with world.session(on_event=events.append) as session:
        (job,) = await world.begin(session)
        watching = asyncio.create_task(changes_of(job))
        await world.clock.sleep(40)
        with caplog.at_level(logging.WARNING, "gts_async"):
            world.tell(job, "new")
            await world.clock.sleep(40)
        world.told.clear()
        changes = await watching
        assert names(changes) == ["UNASSIGNED", "RUNNING", "PENDING", "RUNNING", "SUCCEEDED"]
        assert [change.is_backward for change in changes] == [False, False, True, False, False]
        assert str(changes[2]).endswith("running → pending (backward)")
        assert [record for record in caplog.messages if "went back" in record] == [f"{job.id}: went back: {changes[2]}"]
        assert [event.detail for event in events if event.kind == "transition"] == names(changes)


async def test_a_task_that_is_made_anew_is_told_as_going_backward_to_who_watches_the_task(watched):
    world = watched("engine", lasts=300)
    async with world.session() as session:
        (run,) = await world.begin(session)
        watching = asyncio.create_task(changes_of(session.task(run.id)))
        own = asyncio.create_task(run.wait())
        await world.clock.sleep(40)
        world.tell(run, "new")
        # G3: for whoever began the training, it is gone.
        with pytest.raises(WorkLost, match="created anew"):
            await own
        world.told.clear()
        changes = await watching
        assert names(changes) == ["INITIALIZED", "TRAINING", "INITIALIZED", "TRAINING", "SUCCEEDED"]
        assert [change.is_backward for change in changes] == [False, False, True, False, False]


@pytest.mark.parametrize("end", ["G3 good", "G3 failed"])
async def test_an_end_stays_whatever_the_server_says_of_it_later(watched, kind, end):
    world = watched(kind, outcome=end.removeprefix("G3 "))
    async with world.session() as session:
        (work,) = await world.begin(session)
        (first,) = await session.wait_all([work])
        history, ended = work.history, world.clock.now()
        for word in ("going", "failed" if end == "G3 good" else "done"):
            world.tell(work, word)
            assert await session.wait_all([work]) == [first]
            assert names(await changes_of(work)) == names(history[-1:])
            outcome = await session.wait_any([work])
            assert (outcome.error or outcome.value).__class__ is (WorkFailed if end == "G3 failed" else type(first))
        assert (work.history, world.clock.now()) == (history, ended)


# A failure without a word: G5


@pytest.mark.parametrize("way", ["G5 awaited", "G5 as_finished"])
async def test_a_failure_without_a_message_has_its_look_its_history_and_where_to_read_on(watched, kind, way):
    world = watched(kind, outcome="failed")
    async with world.session() as session:
        (work,) = await world.begin(session)
        if way == "G5 as_finished":
            world.tell(work, "failed")
        error = (await outcomes_of(session, [work], way.removeprefix("G5 ")))[work.id]
        assert type(error) is WorkFailed
        assert error.handle is work
        assert error.last_look.status.name == "FAILED"
        assert names(error.history)[-1] == "FAILED"
        assert error.history == work.history
        assert re.search("train.log has the reason" if kind == "engine" else "the cloud never says why", str(error))
