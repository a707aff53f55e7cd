"""Waiting for many works at once: order, failures, deadlines, leaving, and how little it takes."""

import asyncio
import gc

import pytest

from gts_async import (
    DeadlineExceeded,
    Denied,
    InvalidArgument,
    MisuseError,
    NotFound,
    Schedule,
    Unauthorized,
    WorkFailed,
    WorkLost,
)
from gts_async._flow.lane import MAX_LOOKING
from gts_async._flow.looking import BREATH
from gts_async._flow.many import AsFinished, wait_all, wait_any
from tests.flow.conftest import LOOKS, Stage

QUEUED, RUNNING, SUCCEEDED, FAILED = Stage.QUEUED, Stage.RUNNING, Stage.SUCCEEDED, Stage.FAILED


async def outcomes_of(block):
    async with block as outcomes:
        return [outcome async for outcome in outcomes]


def lives(service, *lengths):
    return [service.work(f"work-{n}", *[RUNNING] * length, SUCCEEDED) for n, length in enumerate(lengths)]


async def test_outcomes_come_as_each_is_settled(scene):
    works = lives(scene.service(), 5, 1, 3)
    block = AsFinished(works)
    times = []
    async with block as outcomes:
        async for outcome in outcomes:
            times.append((outcome.item.id, scene.clock.now(), outcome.unwrap().status))
    assert times == [("work-1", 1.0, SUCCEEDED), ("work-2", 3.0, SUCCEEDED), ("work-0", 5.0, SUCCEEDED)]
    scene.check_rest()


async def test_all_are_given_in_the_order_they_were_asked_for_and_failures_are_values(scene):
    service = scene.service(schedule=Schedule(minimum=10, maximum=10, jitter=0))
    lost, failed = service.work("lost", QUEUED, ConnectionError()), service.work("failed", RUNNING, FAILED)
    service.script["lost"] = [QUEUED, NotFound("gone", call="status")]

    class Gone:
        final = calm = None

        def see(self, sighting, now):
            raise WorkLost("gone")

    lost = service.work("lost", progress=Gone())
    works = [*lives(service, 5, 1), failed, lost]
    finals = await wait_all(works, deadline=None)
    assert [getattr(final, "status", type(final)) for final in finals] == [SUCCEEDED, SUCCEEDED, FAILED, WorkLost]
    assert finals[3].handle is lost
    scene.check_rest()


async def test_the_error_of_what_failed_tells_all_about_it(scene):
    service = scene.service()
    (outcome,) = await outcomes_of(AsFinished([service.work("a", RUNNING, FAILED)]))
    assert isinstance(outcome.error, WorkFailed)
    assert outcome.error.last_look.status is FAILED
    assert [change.status for change in outcome.error.history] == [RUNNING, FAILED]


async def test_the_first_of_any_is_given_and_the_others_are_left_alone(scene):
    service = scene.service()
    works = lives(service, 50, 2, 30)
    outcome = await wait_any(works, deadline=None)
    assert (outcome.item, scene.clock.now()) == (works[1], 2.0)
    scene.check_rest()
    outcome = await wait_any(works[:1], deadline=3.0)
    assert isinstance(outcome.error, DeadlineExceeded)
    with pytest.raises(InvalidArgument):
        await wait_any([], deadline=None)


async def test_nothing_to_wait_for_is_nothing_to_wait_for(scene):
    assert await outcomes_of(AsFinished([], deadline=5)) == []
    assert await wait_all([], deadline=None) == []


@pytest.mark.parametrize("takes", [0.0, 100.0], ids=["between looks", "during a look"])
async def test_the_deadline_is_for_all_together_and_bounds_the_look_in_flight(scene, takes):
    service = scene.service()
    works = lives(service, 2, 50, 50)
    service.takes = takes
    results = await wait_all(works, deadline=7.5)
    assert scene.clock.now() == 7.5
    late = works if takes else works[1:]
    for work in late:
        error = results[works.index(work)]
        assert isinstance(error, DeadlineExceeded)
        assert (error.handle, error.last_look) == (work, None if takes else LOOKS[RUNNING])
    scene.check_rest()


class Slow:
    """A handle that takes its time, so that others get a turn before the next one is followed."""

    def __init__(self, work, clock):
        self.work = work
        self.clock = clock

    def watch(self):
        until = asyncio.get_running_loop().time() + 2 * BREATH
        while asyncio.get_running_loop().time() < until:
            pass
        self.clock.advance(1.0)
        return self.work.watch()


async def test_a_deadline_that_is_over_before_all_are_followed_holds_for_the_rest_too(scene):
    works = [Slow(work, scene.clock) for work in scene.service().works(10)]
    async with asyncio.timeout(30):
        results = await wait_all(works, deadline=2.5)
    assert {type(result) for result in results} == {DeadlineExceeded}
    scene.check_rest()


async def test_what_ends_a_block_before_all_are_followed_leaves_the_rest_alone(scene):
    service = scene.service()
    works = [service.work("bad", Unauthorized("401")), *service.works(10)]
    async with AsFinished([Slow(work, scene.clock) for work in works]) as outcomes:
        assert service.lane.eyes == {}
        await scene.clock.sleep(50)
        assert len(service.times) <= 2
        with pytest.raises(Unauthorized):
            await anext(outcomes)
    scene.check_rest()


async def test_the_same_handle_twice_is_two_outcomes_of_one_look(scene):
    service = scene.service()
    (work,) = lives(service, 3)
    finals = await wait_all([work, work], deadline=None)
    assert finals == [LOOKS[SUCCEEDED]] * 2
    assert len(service.times) == 4
    assert [outcome.item for outcome in await outcomes_of(AsFinished([work, work]))] == [work, work]
    assert len(service.times) == 4
    scene.check_rest()


@pytest.mark.parametrize("error", [Unauthorized("401"), Denied("403"), MisuseError("closed")])
async def test_what_concerns_all_is_raised_after_what_is_settled_already(scene, error):
    service = scene.service()
    works = [*lives(service, 1), service.work("bad", RUNNING, RUNNING, RUNNING, error), service.work("other")]
    given = []
    with pytest.raises(type(error)):
        async with AsFinished(works) as outcomes:
            await scene.clock.sleep(10)
            assert service.lane.eyes == {}
            async for outcome in outcomes:
                given.append(outcome.item.id)
    assert given == ["work-0"]
    scene.check_rest()


async def test_closing_ends_it_at_once(scene):
    service = scene.service()
    service.takes = 1000.0
    waiting = asyncio.create_task(wait_all(service.works(100), deadline=None))
    await scene.clock.sleep(3)
    scene.hub.close()
    with pytest.raises(MisuseError, match="closed"):
        await waiting
    assert scene.clock.now() < 4
    with pytest.raises(MisuseError, match="closed"):
        await wait_all(service.works(100), deadline=None)
    scene.check_rest()


async def test_leaving_early_leaves_the_work_alone_and_nothing_behind(scene):
    service = scene.service()
    works = lives(service, 1, 50, 50)
    async with AsFinished(works) as outcomes:
        async for _ in outcomes:
            break
    scene.check_rest()
    looks = len(service.times)
    await scene.clock.sleep(10)
    assert len(service.times) == looks


async def test_what_is_raised_inside_comes_out_as_it_is(scene):
    with pytest.raises(KeyError, match="mine"):
        async with AsFinished(scene.service().works(5)) as outcomes:
            raise KeyError("mine")
    scene.check_rest()
    with pytest.raises(MisuseError, match="inside"):
        await anext(outcomes)
    with pytest.raises(MisuseError, match="once"):
        await outcomes.__aenter__()


async def test_what_cannot_be_waited_for_is_refused_before_anything_begins(scene):
    with pytest.raises(InvalidArgument, match="handles"):
        AsFinished([*scene.service().works(1), "work-2"])
    for wrong in (0, -1, float("nan")):
        with pytest.raises(InvalidArgument):
            AsFinished([], deadline=wrong)


@pytest.mark.parametrize("listed", [False, True])
async def test_cancelling_at_any_turn_of_the_loop_leaves_nothing(scene, cancelled_after, listed):
    for turns in range(0, 90, 3):
        service = scene.service(listed=listed)
        service.takes = 0.1
        works = lives(service, *[2] * 15)
        await cancelled_after(turns, lambda works=works: wait_all(works, deadline=100))
        await scene.turns(3)
        scene.check_rest()
        assert [final.status for final in await wait_all(works, deadline=None)] == [SUCCEEDED] * 15
        scene.check_rest()


async def test_a_slow_consumer_loses_nothing_and_holds_up_nobody(scene):
    service = scene.service()
    works = lives(service, *range(20))
    given = []
    async with AsFinished(works) as outcomes:
        async for outcome in outcomes:
            given.append(outcome.item.id)
            await scene.clock.sleep(10)
    assert given == [f"work-{n}" for n in range(20)]
    assert max(time for _, time in service.times) == 19.0


async def test_two_consumers_share_the_outcomes_and_both_come_to_the_end(scene):
    works = lives(scene.service(), *range(10))

    async def consume(outcomes):
        return [outcome.item.id async for outcome in outcomes]

    async with AsFinished(works) as outcomes, asyncio.timeout(30):
        first, second = await asyncio.gather(consume(outcomes), consume(outcomes))
    assert sorted(first + second) == [f"work-{n}" for n in range(10)]
    scene.check_rest()


async def test_looks_that_hang_in_one_service_do_not_hold_up_the_other_in_the_same_block(scene):
    stuck, good = scene.service(), scene.service()
    hanging = stuck.works(MAX_LOOKING * 2)
    stuck.hanging = {work.id for work in hanging}
    good.takes = 0.2
    works = [good.work(f"good-{n}", RUNNING, SUCCEEDED) for n in range(100)]
    given = []
    async with AsFinished([*hanging, *works], deadline=20) as outcomes:
        async for outcome in outcomes:
            if outcome.error is None:
                given.append(scene.clock.now())
    assert len(given) == 100
    assert max(given) < 5
    scene.check_rest()


async def test_works_of_two_sessions_can_be_waited_for_together(scene):
    first = scene.service()
    scene.allow(10.0)
    second = scene.service()
    works = [*lives(first, 2, 3), *lives(second, 2, 3)]
    assert [final.status for final in await wait_all(works, deadline=None)] == [SUCCEEDED] * 4
    scene.check_rest()
    assert first.hub._alarm is None


async def test_ten_thousand_works_take_a_few_tasks(scene):
    service = scene.service(schedule=Schedule(minimum=5, maximum=5))
    works = [service.work(f"work-{n}", RUNNING, RUNNING, RUNNING, SUCCEEDED) for n in range(10_000)]
    most, before = 0, len(asyncio.all_tasks())
    async with AsFinished(works) as outcomes:
        given = 0
        async for _ in outcomes:
            given += 1
            if given % 500 == 1:
                most = max(most, len(asyncio.all_tasks()) - before)
    assert given == 10_000
    assert most <= 3
    assert len(service.times) == 40_000
    scene.check_rest()
    gc.collect()
