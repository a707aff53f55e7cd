"""Waiters that are slow, many on one work, cut, dropped or shut out: what they still hear, and what is left of them.

On a fake clock, with the real figures.
"""

import asyncio
import weakref

import pytest

from gts_async import DeadlineExceeded, MisuseError, Schedule, Unauthorized, WorkFailed
from gts_async.testing import faults

STORIES = {
    "engine": ["INITIALIZED", "TRAINING", "SUCCEEDED"],
    "java": ["WORKING", "SUCCEEDED"],
    "go": ["WORKING", "SUCCEEDED"],
    "head": ["UNASSIGNED", "RUNNING", "SUCCEEDED"],
}
CLOUDS = pytest.mark.parametrize("kind", ["java", "go", "head"])


def names(changes):
    return [change.status.name for change in changes]


async def some_turns():
    """Let the others run, in no time."""
    for _ in range(20):
        await asyncio.sleep(0)


async def changes_of(work):
    return [change async for change in work.watch()]


async def outcomes_of(session, works):
    async with session.as_finished(works) as outcomes:
        return [outcome async for outcome in outcomes]


# Slow: G8


async def test_a_slow_consumer_gets_the_latest_state_and_nobody_looks_meanwhile(watched, kind):
    world, changes = watched(kind), []
    async with world.session() as session:
        (work,) = await world.begin(session)
        async for change in work.watch():
            changes.append(change)
            before = len(world.seen)
            await world.clock.sleep(300)
            assert len(world.seen) == before
    assert names(changes) == STORIES[kind]
    # What must have been passed, was not seen by anybody.
    assert [change.is_synthesized for change in changes] == [False, *[True] * (len(changes) - 2), False]


async def test_what_others_have_seen_meanwhile_is_told_to_a_slow_consumer_in_order(watched):
    world, slow = watched("head", lasts=1000), []
    async with world.session() as session:
        (job,) = await world.begin(session)
        quick = asyncio.create_task(changes_of(job))
        watch = job.watch()
        slow.append(await anext(watch))
        for word in ("going", "new") * 3:
            world.tell(job, word)
            await world.clock.sleep(30)
        world.tell(job, "going")
        await world.clock.sleep(30)
        before = len(world.seen)
        for _ in range(7):
            slow.append(await anext(watch))
        assert len(world.seen) == before
        assert names(slow) == ["UNASSIGNED", *["RUNNING", "PENDING"] * 3, "RUNNING"]
        world.told.clear()
        slow += [change async for change in watch]
        assert names(slow) == names(await quick)


# Dropped: G9


async def leave_by_break(watch):
    async for _ in watch:
        break


async def leave_by_raising(watch):
    with pytest.raises(OSError, match="ours"):
        async for _ in watch:
            raise OSError("ours")


async def leave_by_cancellation(watch):
    async def body():
        async for _ in watch:
            pass

    task = asyncio.create_task(body())
    await some_turns()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def leave_by_closing(watch):
    await anext(watch)
    await watch.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def leave_unbegun(watch):
    assert iter([watch])


@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_raising, leave_by_cancellation, leave_by_closing, leave_unbegun]
)
async def test_an_iterator_that_is_left_leaves_nothing(watched, kind, leave):
    world = watched(kind, outcome="stuck")
    async with world.session() as session:
        (work,) = await world.begin(session)
        before = asyncio.all_tasks()
        watch = work.watch()
        gone = weakref.ref(watch)
        await leave(watch)
        del watch
        # Without any help of the collector's.
        assert gone() is None
        asked = len(world.seen)
        await world.clock.sleep(1000)
        assert len(world.seen) == asked
        assert asyncio.all_tasks() == before


@pytest.mark.parametrize("count", [1, 50])
@pytest.mark.parametrize("how", ["left early", "raised in", "cancelled"])
async def test_a_block_of_many_that_is_left_leaves_nothing(watched, kind, how, count):
    world = watched(kind, outcome="stuck")
    async with world.session() as session:
        works = await world.begin(session, count)
        before = asyncio.all_tasks()

        async def body():
            async with session.as_finished(works) as outcomes:
                if how == "cancelled":
                    await anext(outcomes)
                await world.clock.sleep(30)
                if how == "raised in":
                    raise OSError("ours")

        task = asyncio.create_task(body())
        await world.clock.sleep(20)
        if how == "cancelled":
            task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        # The body's own error, as it is.
        assert type(result) is {"left early": type(None), "raised in": OSError}.get(how, asyncio.CancelledError)
        del task, result
        asked = len(world.seen)
        await world.clock.sleep(1000)
        assert len(world.seen) == asked
        assert asyncio.all_tasks() == before
        # Nor does it take the looks of whoever waits for them next.
        with pytest.raises(DeadlineExceeded):
            await works[0].wait(deadline=100)
        assert len(world.seen) >= asked + 2


# Shared: G10, G13


async def looks_of(world, waiters):
    async with world.session(chance=lambda: 0.5) as session:
        (work,) = await world.begin(session)
        world.seen.clear()
        other = session.resume(work.token())
        waits = [asyncio.create_task((work, other)[number % 2].wait()) for number in range(waiters)]
        if waiters > 1:
            waits += [
                asyncio.create_task(coroutine) for coroutine in (session.wait_any([work, other]), changes_of(work))
            ]
        await asyncio.gather(*waits)
        assert names(work.history) == STORIES[world.kind]
        return len(world.seen)


async def test_all_who_wait_for_one_work_share_its_looks(watched, kind):
    alone = await looks_of(watched(kind), 1)
    together = await looks_of(watched(kind), 20)
    assert alone > 10
    # With chance in the schedule (not here), it is the earliest of all their looks that counts.
    assert alone <= together <= alone + 1


async def test_whoever_is_cancelled_in_the_middle_of_its_look_does_not_hurt_the_other(watched, kind):
    world = watched(kind)
    async with world.session() as session:
        (work,) = await world.begin(session)
        waits = [asyncio.create_task(work.wait()) for _ in range(4)]
        await world.clock.sleep(10)
        world.held.hold()
        for left in (3, 2, 1):
            while not world.held.kept:
                await world.clock.sleep(0.5)
            assert world.held.kept == 1
            # Whoever makes the look waits in the transport; to cancel all but one cuts it, too.
            waits.pop(0).cancel()
            await some_turns()
            assert len(waits) == left
        world.held.let_go()
        assert (await waits[0]).status.name == "SUCCEEDED"
        assert world.held.kept == 0


async def test_cancelled_at_any_turn_of_the_loop_a_waiter_leaves_the_other_alone(watched, cancelled_after):
    world = watched("go", outcome="stuck")
    async with world.session(schedule=Schedule(maximum=5)) as session:
        (work,) = await world.begin(session)
        other = asyncio.create_task(work.wait())
        await some_turns()
        for turns in range(25):
            await cancelled_after(turns, work.wait)
            before = len(world.seen)
            await world.clock.sleep(10)
            # It goes on looking every 5 s.
            assert 1 <= len(world.seen) - before <= 4
            assert not other.done()
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other


@pytest.mark.parametrize("way", ["one after the other", "at once"])
@pytest.mark.parametrize("end", ["good", "failed"])
async def test_awaiting_twice_gives_the_same_end_without_another_look(watched, kind, end, way):
    world = watched(kind, outcome=end)
    async with world.session() as session:
        (work,) = await world.begin(session)
        if way == "at once":
            first, second = await asyncio.gather(work, work, return_exceptions=True)
        else:
            (first,) = await asyncio.gather(work, return_exceptions=True)
            asked, at = len(world.seen), world.clock.now()
            (second,) = await asyncio.gather(work, return_exceptions=True)
            assert (len(world.seen), world.clock.now()) == (asked, at)
        if end == "good":
            assert first == second
            assert first.status.name == "SUCCEEDED"
        else:
            assert type(first) is type(second) is WorkFailed
            assert (first.handle, first.last_look, str(first)) == (second.handle, second.last_look, str(second))


# Bodies that raise: G12


@pytest.mark.parametrize("way", ["as_finished", "session", "watch"])
async def test_what_a_body_raises_comes_out_as_it_is(watched, kind, way):
    world, ours = watched(kind, outcome="stuck"), OSError("ours")
    with pytest.raises(OSError, match="ours") as caught:
        async with world.session() as session:
            (work,) = await world.begin(session)
            waiting = asyncio.create_task(work.wait())
            if way == "session":
                await world.clock.sleep(10)
                raise ours
            if way == "watch":
                async for _ in work.watch():
                    raise ours
            async with session.as_finished([work]):
                await world.clock.sleep(10)
                raise ours
    assert caught.value is ours
    assert ours.__cause__ is ours.__context__ is None
    with pytest.raises(MisuseError, match="closed"):
        await waiting


@pytest.mark.parametrize("cleanup", ["G12 works", "G12 fails"])
async def test_a_body_that_raises_while_a_model_is_served_has_it_released_once(watched, caplog, cleanup):
    world, ours = watched("engine"), OSError("ours")
    async with world.session() as session:
        (run,) = await world.begin(session)
        await run
        with pytest.raises(OSError, match="ours") as caught:
            async with run.task.serve():
                if cleanup == "G12 fails":
                    world.transport.faults.append(faults.status(500, path="end_inference"))
                raise ours
        assert caught.value is ours
        ends = [request for _, request in world.seen if request.path.endswith("end_inference")]
        # If the engine says that there is nothing to release, the model is loaded once more, to be released.
        assert len(ends) == 1
        # Nobody could do anything about it, so the error is not touched; the log tells.
        assert any("nothing to release" in text for text in caplog.messages) is (cleanup == "G12 fails")


# Closed: G14


@pytest.mark.parametrize("is_looking", [False, True], ids=["between looks", "in the middle of looks"])
@pytest.mark.parametrize(
    ("kind", "way", "count"), [("engine", "awaited", 200), ("head", "as_finished", 100), ("go", "watched", 100)]
)
async def test_a_session_that_is_closed_ends_many_waits_at_once(watched, kind, way, count, is_looking):
    world = watched(kind, outcome="stuck")
    async with world.session() as session:
        works = await world.begin(session, count)
        wait = {"awaited": lambda work: work.wait(), "watched": changes_of}.get(way)
        coroutines = [outcomes_of(session, works)] if wait is None else map(wait, works)
        waits = [asyncio.create_task(coroutine) for coroutine in coroutines]
        await world.clock.sleep(30)
        if is_looking:
            world.held.hold()
            await world.clock.sleep(15)
            assert world.held.kept > 0
        began, at = asyncio.get_running_loop().time(), world.clock.now()
        await session.aclose()
        results = await asyncio.gather(*waits, return_exceptions=True)
        assert asyncio.get_running_loop().time() - began < 1
        assert world.clock.now() == at
        assert {type(result) for result in results} == {MisuseError}
        assert all("the session is closed" in str(result) for result in results)
        assert world.held.kept == 0
        asked = len(world.seen)
        with pytest.raises(MisuseError, match="the session is closed"):
            await works[0]
        await world.clock.sleep(1000)
        assert len(world.seen) == asked


# A token that is good no more


@CLOUDS
@pytest.mark.parametrize("way", ["awaited", "as_finished"])
async def test_a_token_that_ends_in_the_middle_is_asked_for_once_more_and_the_waits_go_on(watched, kind, way):
    world, asked = watched(kind), []

    async def ask():
        asked.append(world.clock.now())
        return world.token

    world.token = "first"
    async with world.session(token=ask) as session:
        jobs = await world.begin(session, 50)
        waits = [outcomes_of(session, jobs)] if way == "as_finished" else jobs
        waiting = asyncio.gather(*waits)
        await world.clock.sleep(40)
        world.token = "second"
        results = await waiting
        finals = [outcome.unwrap() for outcome in results[0]] if way == "as_finished" else results
        assert [final.status.name for final in finals] == ["SUCCEEDED"] * 50
        assert len(asked) == 2


@CLOUDS
@pytest.mark.parametrize("way", ["awaited", "as_finished"])
async def test_a_token_that_stays_bad_ends_the_waits_without_hammering(watched, kind, way):
    world, asked = watched(kind, outcome="stuck"), []

    async def ask():
        asked.append(world.clock.now())
        return "first"

    world.token = "first"
    async with world.session(token=ask) as session:
        jobs = await world.begin(session, 50)
        waits = [outcomes_of(session, jobs)] if way == "as_finished" else jobs
        waiting = asyncio.gather(*waits, return_exceptions=True)
        await world.clock.sleep(40)
        world.token, before = "second", len(world.seen)
        assert {type(result) for result in await waiting} == {Unauthorized}
        # A look each at most, once more with what was asked for; those of one block end together.
        at_most = 4 if way == "as_finished" else 2 * 50 + 2
        assert len(world.seen) - before <= at_most
        assert len(asked) - 1 <= at_most / 2
        assert world.clock.now() <= 50
