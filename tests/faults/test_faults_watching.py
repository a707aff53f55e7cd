"""Works that stay as they are for ever, and thousands at once: when a wait ends then, and how often is looked.

On a fake clock, with the real figures.
"""

import asyncio
from collections import Counter

import pytest

from gts_async import DeadlineExceeded, Timeouts, WorkStalled

WAYS = ["wait", "watch", "as_finished", "wait_all", "wait_any"]
SEEN = {
    "engine": ["INITIALIZED", "TRAINING"],
    "java": ["WORKING"],
    "go": ["WORKING"],
    "head": ["UNASSIGNED", "RUNNING"],
}
STOPS = ("stop_train", "job_del", "stop")


def names(changes):
    return [change.status.name for change in changes]


async def watched_to_its_end(work, **options):
    watch = work.watch(**options)
    async for change in watch:
        last = change
    return watch.judged(last.look)


async def first_of(session, works, **options):
    async with session.as_finished(works, **options) as outcomes:
        return await anext(outcomes)


async def end_of(session, work, way, **options):
    """Wait in that way; gives the look or the error that it ends with."""
    try:
        if way == "wait":
            return await work.wait(**options)
        if way == "watch":
            return await watched_to_its_end(work, **options)
        if way == "wait_all":
            return (await session.wait_all([work], **options))[0]
        outcome = await (session.wait_any if way == "wait_any" else lambda *a, **o: first_of(session, *a, **o))(
            [work], **options
        )
        return outcome.error or outcome.value
    except Exception as error:
        return error


async def cancelled(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# For ever: G6


@pytest.mark.parametrize("way", WAYS)
async def test_a_deadline_ends_the_wait_and_never_the_work(watched, kind, way):
    world = watched(kind, outcome="stuck")
    async with world.session() as session:
        (work,) = await world.begin(session)
        for ends_at in (50, 100):
            error = await end_of(session, work, way, deadline=50)
            assert type(error) is DeadlineExceeded
            assert isinstance(error, TimeoutError)
            assert world.clock.now() == pytest.approx(ends_at)
            assert (error.handle, error.last_look.status.name) == (work, SEEN[kind][-1])
            assert names(error.history) == SEEN[kind] if ends_at == 50 else names(error.history) == SEEN[kind][-1:]
            assert "within 50 s" in str(error)
            assert "session.resume()" in str(error)
        assert world.stops() == []


@pytest.mark.parametrize("way", WAYS)
async def test_a_deadline_bounds_the_look_in_flight_too(watched, kind, way):
    world = watched(kind, outcome="stuck")
    async with world.session(timeouts=Timeouts(read=None, total=None)) as session:
        (work,) = await world.begin(session)
        waiting = asyncio.create_task(end_of(session, work, way, deadline=50))
        await world.clock.sleep(30)
        world.held.hold()
        await world.clock.sleep(19)
        assert world.held.kept == 1
        error = await waiting
        assert type(error) is DeadlineExceeded
        assert world.clock.now() == pytest.approx(50)
        assert world.held.kept == 0


@pytest.mark.parametrize("way", ["wait", "watch"])
async def test_work_without_a_change_for_too_long_is_stalled_and_can_be_waited_for_again(watched, kind, way):
    world = watched(kind, outcome="stuck")
    async with world.session() as session:
        (work,) = await world.begin(session)
        error = await end_of(session, work, way, stalled_after=120)
        assert type(error) is WorkStalled
        assert names(error.history) == SEEN[kind]
        changed_at = error.history[-1].elapsed
        assert world.clock.now() == pytest.approx(changed_at + 120, abs=0.1)
        assert "session.resume()" in str(error)
        assert type(await end_of(session, work, way, deadline=50)) is DeadlineExceeded
        assert world.stops() == []


@pytest.mark.parametrize("by", ["deadline", "stalled_after"])
async def test_with_on_exit_stop_the_work_is_stopped_once(watched, kind, by):
    world = watched(kind, outcome="stuck")
    async with world.session() as session:
        (work,) = await world.begin(session)
        with pytest.raises(DeadlineExceeded if by == "deadline" else WorkStalled) as caught:
            await work.wait(**{by: 50}, on_exit="stop")
        assert len(world.stops()) == 1
        assert not hasattr(caught.value, "__notes__")
        assert (await session.wait_all([work]))[0].status.name == "STOPPED"


async def test_the_stop_on_the_way_out_is_cut_by_no_second_cancellation(watched, kind):
    world = watched(kind, outcome="stuck")
    async with world.session(timeouts=Timeouts(read=None, total=None)) as session:
        (work,) = await world.begin(session)
        waiting = asyncio.create_task(work.wait(on_exit="stop"))
        await world.clock.sleep(30)
        world.held.hold(*STOPS)
        for _ in range(3):
            waiting.cancel()
            await world.clock.sleep(1)
        assert (world.held.kept, waiting.done(), world.stops()) == (1, False, [])
        world.held.let_go()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert len(world.stops()) == 1


async def test_a_stop_that_gets_no_answer_holds_up_nobody_and_is_noted_on_the_error(watched, kind):
    world = watched(kind, outcome="stuck")
    async with world.session(timeouts=Timeouts(total=5)) as session:
        (work,) = await world.begin(session)
        world.held.hold(*STOPS)
        with pytest.raises(DeadlineExceeded) as caught:
            await work.wait(deadline=50, on_exit="stop")
        assert 50 <= world.clock.now() <= 60
        (note,) = caught.value.__notes__
        assert note.startswith("and it was not stopped: ")
        assert world.held.kept == 0


# Thousands: G7


def most_within(seconds, times):
    """Give how many there are at most within so many seconds."""
    most = first = 0
    for last, time in enumerate(times):
        while time - times[first] >= seconds - 1e-9:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize(("way", "count"), [("G7 a task for each", 1000), ("G7 wait_all", 1000)])
async def test_thousands_are_looked_at_in_turn_and_never_more_often_than_the_limit(watched, way, count):
    world = watched("engine")
    async with world.session() as session:
        tasks = [session.task(f"task-{number}") for number in range(count)]
        for task in tasks:
            world.tell(task, "going")
        waits = [session.wait_all(tasks)] if way == "G7 wait_all" else [task.wait() for task in tasks]
        waiting = [asyncio.create_task(wait) for wait in waits]
        # Each is looked at within two rounds of 50 a second: what has been looked at before takes turns with it.
        await world.clock.sleep(count / 25)
        assert len(Counter(request.body for _, request in world.seen)) == count
        before = len(world.seen)
        await world.clock.sleep(1.1 * count / 50)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        each = Counter(request.body for _, request in world.seen[before:])
        assert len(each) == count
        assert set(each.values()) == {1, 2}
        looks = world.looks()
        assert len(looks) == pytest.approx(3.1 * count, rel=0.01)
        assert most_within(1, looks) <= 50
        assert most_within(0.1, looks) <= 6


@pytest.mark.parametrize("kind", ["java", "go", "head"])
async def test_hundreds_of_jobs_are_looked_at_by_listings(watched, kind):
    world = watched(kind, lasts=1000)
    async with world.session() as session:
        jobs = await world.begin(session, 300)
        world.seen.clear()
        waiting = asyncio.create_task(session.wait_all(jobs))
        await world.clock.sleep(100)
        # Looks alone would be one every 5 s for each.
        assert len(world.looks()) + len(world.listings()) < 300 * 20 / 20
        assert all(names(job.history) == SEEN[kind] for job in jobs)
        await cancelled(waiting)
