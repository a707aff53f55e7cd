"""Watches over scripted looks and a fake clock: when they look, what they give, and how they end."""

import asyncio
import gc
import weakref
from enum import Enum

import attrs
import pytest

from gts_async import (
    DeadlineExceeded,
    Denied,
    InvalidArgument,
    MisuseError,
    NotSent,
    Schedule,
    ServerFailed,
    TimedOut,
    Unauthorized,
    WorkLost,
    WorkStalled,
)
from gts_async._flow.course import PATIENCE, Course, Setting
from gts_async._flow.hub import Hub
from gts_async._flow.lane import Lane
from gts_async._flow.watch import Watch
from gts_async.testing import FakeClock


class Stage(Enum):
    QUEUED = 0
    RUNNING = 1
    DONE = 2


@attrs.frozen
class Look:
    status: Stage
    observed_at: object = attrs.field(default=None, eq=False)


QUEUED, RUNNING, DONE = map(Look, Stage)


class Handle:
    id = "work-1"

    def __repr__(self):
        return "work-1"


class Progress:
    """Believes every look; DONE settles; to be done, one must have run."""

    def __init__(self, *, hurry=None):
        self.final = None
        self.hurry = hurry
        self.calm = None

    def see(self, sighting, now):
        if isinstance(sighting, Exception):
            return ()
        if sighting.status is Stage.DONE:
            self.final = sighting
        return (sighting,)

    def between(self, previous, look):
        return (RUNNING,) if (previous, look.status) == (Stage.QUEUED, Stage.DONE) else ()

    def is_backward(self, previous, status):
        return status.value < previous.value

    def wants_look_within(self, now):
        return self.hurry


class Looking:
    """Plays looks, and errors to raise, one per look; the last one for ever. Keeps the times of the looks."""

    def __init__(self, clock, *steps, takes=0.0):
        self.clock, self.steps, self.takes = clock, list(steps), takes
        self.times = []
        self.in_flight = 0

    async def __call__(self, work_id):
        self.times.append(self.clock.now())
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        self.in_flight += 1
        try:
            await self.clock.sleep(self.takes)
        finally:
            self.in_flight -= 1
        if isinstance(step, Exception):
            raise step
        return step


SECOND = Schedule(fraction=0, minimum=1.0, maximum=1.0, jitter=0)


def lane(look, *, per_second=1e6, hub=None):
    """Give what the watches of one scripted service share."""
    return Lane(hub or Hub(look.clock, per_second), look)


def watch(look, *, lane=None, schedule=SECOND, progress=None, course=None, on_event=None, per_second=1e6, **options):
    lane = lane or Lane(Hub(look.clock, per_second), look)
    if course is None:
        setting = Setting(clock=look.clock, schedule=schedule, on_event=on_event, chance=lambda: 0.5)
        course = Course(setting, "work-1", progress or Progress())
    return Watch(Handle(), course, lane, lambda final: None, **options)


@pytest.fixture
def clock():
    return FakeClock()


async def told(watch):
    return [(t.previous, t.status, t.elapsed, t.is_synthesized, t.is_final) async for t in watch]


async def test_one_transition_per_change_the_last_one_final(clock):
    look = Looking(clock, QUEUED, QUEUED, RUNNING, RUNNING, RUNNING, DONE)
    assert await told(watch(look)) == [
        (None, Stage.QUEUED, 0.0, False, False),
        (Stage.QUEUED, Stage.RUNNING, 2.0, False, False),
        (Stage.RUNNING, Stage.DONE, 5.0, False, True),
    ]
    assert look.times == [0, 1, 2, 3, 4, 5]


async def test_a_stage_passed_unseen_is_synthesized(clock):
    assert await told(watch(Looking(clock, QUEUED, DONE))) == [
        (None, Stage.QUEUED, 0.0, False, False),
        (Stage.QUEUED, Stage.RUNNING, 1.0, True, False),
        (Stage.RUNNING, Stage.DONE, 1.0, False, True),
    ]


async def test_a_look_that_is_wanted_sooner_comes_sooner(clock):
    look = Looking(clock, QUEUED, QUEUED, DONE)
    await told(watch(look, progress=Progress(hurry=0.25)))
    assert look.times == [0, 0.25, 0.5]


async def test_work_that_is_settled_already_is_one_final_transition_without_a_look(clock):
    look, progress = Looking(clock, DONE), Progress()
    progress.final = DONE
    assert await told(watch(look, progress=progress)) == [(None, Stage.DONE, 0.0, False, True)]
    assert look.times == []


async def test_settled_gives_the_final_look_however_often_it_is_asked(clock):
    watching = watch(Looking(clock, QUEUED, DONE))
    assert await watching.settled() == DONE
    assert await watching.settled() == DONE
    with pytest.raises(StopAsyncIteration):
        await anext(watching)


async def test_the_interval_grows_with_the_time_in_the_status_and_begins_anew_at_a_change(clock):
    look = Looking(clock, QUEUED, QUEUED, QUEUED, QUEUED, RUNNING, RUNNING, DONE)
    await watch(look, schedule=Schedule(fraction=1.0, minimum=1.0, maximum=60.0, jitter=0)).settled()
    assert look.times == [0, 1, 2, 4, 8, 9, 10]


async def test_a_ring_brings_the_next_look_forward(clock):
    look = Looking(clock, QUEUED, DONE)
    shared = lane(look)
    waiting = asyncio.create_task(watch(look, lane=shared, schedule=Schedule(minimum=100, maximum=100)).settled())
    while not look.times:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    shared.hub.ring("work-1")
    assert await waiting == DONE
    assert clock.now() < 1


async def test_a_ring_during_a_look_brings_another_look_at_once(clock):
    look = Looking(clock, QUEUED, DONE, takes=0.5)
    shared = lane(look)
    waiting = asyncio.create_task(watch(look, lane=shared, schedule=Schedule(minimum=100, maximum=100)).settled())
    while not look.in_flight:
        await asyncio.sleep(0)
    shared.hub.ring("work-1")
    await waiting
    assert look.times == [0.0, 0.5]


@pytest.mark.parametrize(
    ("takes", "per_second", "deadline"),
    [(0.0, 1e6, 10.5), (30.0, 1e6, 10.5), (0.0, 0.05, 10.5), (0.0, 1e6, 10.0), (2.5, 1e6, 0.001)],
    ids=["pausing", "looking", "waiting for the budget", "as a look is due", "at once"],
)
async def test_the_deadline_ends_it_wherever_it_is(clock, takes, per_second, deadline):
    look = Looking(clock, QUEUED, takes=takes)
    watching = watch(look, per_second=per_second, deadline=deadline)
    with pytest.raises(DeadlineExceeded) as caught:
        await watching.settled()
    error = caught.value
    assert clock.now() == deadline
    assert isinstance(error, TimeoutError)
    assert (error.handle, error.last_look, error.history) == (watching.handle, watching.last_look, watching.history)
    assert look.in_flight == 0
    with pytest.raises(StopAsyncIteration):
        await anext(watching)


async def test_the_deadline_counts_from_the_first_step(clock):
    watching = watch(Looking(clock, QUEUED), deadline=10)
    await clock.sleep(100)
    with pytest.raises(DeadlineExceeded):
        await watching.settled()
    assert clock.now() == 110.0


@pytest.mark.parametrize("bad", [TimedOut("late"), NotSent("refused"), ServerFailed("502", status=502)])
async def test_a_bad_look_is_only_a_bad_look_even_if_it_timed_out(clock, bad):
    look = Looking(clock, QUEUED, bad, bad, DONE)
    assert await watch(look, deadline=10).settled() == DONE
    assert look.times == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "error", [Unauthorized("401"), Denied("403"), MisuseError("closed"), InvalidArgument("cloud", "is not set")]
)
async def test_what_another_look_cannot_mend_ends_it_at_once(clock, error):
    with pytest.raises(type(error)):
        await watch(Looking(clock, QUEUED, error)).settled()
    assert clock.now() == 1.0


async def test_work_that_cannot_be_seen_any_more_is_lost_to_us(clock):
    look = Looking(clock, QUEUED, NotSent("refused"))
    with pytest.raises(WorkLost, match="refused") as caught:
        await watch(look).settled()
    assert clock.now() == PATIENCE + 2
    assert caught.value.last_look == QUEUED


@pytest.mark.parametrize("interval", [PATIENCE * 2, PATIENCE * 0.9])
async def test_one_bad_look_after_a_long_interval_does_not_end_it(clock, interval):
    look = Looking(clock, QUEUED, NotSent("refused"), DONE)
    assert await watch(look, schedule=Schedule(minimum=interval, maximum=interval)).settled() == DONE


async def test_the_patience_begins_anew_with_every_good_look(clock):
    bad = [NotSent("refused")] * int(PATIENCE - 10)
    look = Looking(clock, QUEUED, *bad, QUEUED, *bad, DONE)
    assert await watch(look).settled() == DONE


async def test_work_that_never_changes_has_stalled_if_one_asked(clock):
    with pytest.raises(WorkStalled) as caught:
        await watch(Looking(clock, QUEUED), stalled_after=30).settled()
    assert clock.now() == 30.0
    assert caught.value.history[0].status is Stage.QUEUED


async def test_work_that_never_changes_is_said_so_in_the_log_each_time_twice_as_late(clock, caplog):
    with pytest.raises(DeadlineExceeded):
        await watch(Looking(clock, QUEUED), schedule=Schedule(minimum=60, maximum=60, jitter=0), deadline=4e4).settled()
    assert [record.args[1] for record in caplog.records] == [3600.0, 7200.0, 14400.0, 28800.0]


async def test_two_tasks_must_not_step_one_watch(clock):
    watching = watch(Looking(clock, QUEUED, takes=5))
    first = asyncio.create_task(anext(watching))
    await asyncio.sleep(0)
    with pytest.raises(MisuseError, match="watch"):
        await anext(watching)
    assert (await first).status is Stage.QUEUED


async def test_closing_ends_it(clock):
    watching = watch(Looking(clock, QUEUED, RUNNING, DONE))
    await anext(watching)
    await watching.aclose()
    assert await told(watching) == []


async def test_many_watches_keep_the_sessions_budget(clock):
    look = Looking(clock, QUEUED, takes=0.0)
    hub = Hub(clock, 10.0)
    lanes = [lane(look, hub=hub) for _ in range(50)]
    waiting = [asyncio.create_task(watch(look, lane=one, deadline=20).settled()) for one in lanes]
    await asyncio.gather(*waiting, return_exceptions=True)
    gaps = [after - before for before, after in zip(look.times, look.times[1:], strict=False)]
    assert min(gaps) == pytest.approx(0.1)
    assert len(look.times) == 200


async def test_a_slow_consumer_gets_what_is_true_now(clock):
    look = Looking(clock, QUEUED, RUNNING, DONE)
    watching = watch(look)
    await anext(watching)
    await clock.sleep(1000)
    assert look.times == [0]
    assert (await anext(watching)).status is Stage.RUNNING


async def test_cancelling_at_any_turn_of_the_loop_leaves_nothing_and_the_watch_goes_on(clock, cancelled_after):
    before = asyncio.all_tasks()
    for turns in range(41):
        look = Looking(clock, QUEUED, QUEUED, QUEUED, DONE, takes=0.1)
        watching = watch(look, deadline=1000)
        await cancelled_after(turns, watching.settled)
        assert look.in_flight == 0
        assert asyncio.all_tasks() == before
        assert await watching.settled() == DONE


async def test_a_watch_that_is_dropped_leaves_nothing(clock):
    before = asyncio.all_tasks()
    watching = watch(Looking(clock, QUEUED, RUNNING, DONE))
    async for _ in watching:
        break
    dropped = weakref.ref(watching)
    del watching
    gc.collect()
    assert dropped() is None
    assert asyncio.all_tasks() == before


async def test_the_hook_is_told_every_transition_and_its_errors_lose_none(clock, caplog):
    events = []

    def hook(event):
        events.append((event.kind, event.subject, event.elapsed, event.detail))
        raise KeyError("the hook's own fault")

    assert await watch(Looking(clock, QUEUED, DONE), on_event=hook).settled() == DONE
    assert [event[3] for event in events] == ["QUEUED", "RUNNING", "DONE"]
    assert len([record for record in caplog.records if record.exc_info]) == 3


# Many watches of one thing


async def test_one_thing_is_looked_at_once_however_many_watch_it(clock):
    look = Looking(clock, QUEUED, QUEUED, QUEUED, RUNNING, RUNNING, DONE, takes=0.1)
    shared = lane(look)
    watches = [watch(look, lane=shared) for _ in range(50)]
    tellings = await asyncio.gather(*map(told, watches))
    # The first look had begun before the others asked.
    assert len(look.times) == 6
    assert all([status for _, status, *_ in telling] == list(Stage) for telling in tellings)


async def test_the_most_eager_watch_looks_for_all(clock):
    look = Looking(clock, *[QUEUED] * 11, DONE)
    shared = lane(look)
    rare = watch(look, lane=shared, schedule=Schedule(minimum=1000, maximum=1000))
    first = asyncio.create_task(rare.settled())
    while not look.times:
        await asyncio.sleep(0)
    assert (await watch(look, lane=shared).settled()).status is Stage.DONE
    assert (await first).status is Stage.DONE
    assert clock.now() == 10.0


async def test_cancelling_the_one_that_looks_leaves_the_look_to_another(clock, cancelled_after):
    before = asyncio.all_tasks()
    for turns in range(41):
        look = Looking(clock, QUEUED, QUEUED, DONE, takes=0.1)
        shared = lane(look)
        other = []

        async def two(shared=shared, look=look, other=other):
            other.append(asyncio.create_task(watch(look, lane=shared, deadline=100).settled()))
            await watch(look, lane=shared, deadline=100).settled()

        await cancelled_after(turns, two)
        for task in other:
            assert (await task).status is Stage.DONE
        assert look.in_flight == 0
        assert asyncio.all_tasks() == before


async def test_a_bad_look_is_shared_and_so_is_an_end_of_which_everybody_gets_an_error_of_his_own(clock):
    look = Looking(clock, QUEUED, QUEUED, NotSent("refused"), Unauthorized("401"))
    shared = lane(look)
    waiting = [asyncio.create_task(watch(look, lane=shared).settled()) for _ in range(3)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [Unauthorized] * 3
    # The first look had begun before the others asked.
    assert look.times == [0, 0, 1, 2]
    assert len(set(map(id, results))) == 3


async def test_a_ring_is_one_look_for_all(clock):
    look = Looking(clock, QUEUED, QUEUED, DONE, takes=0.25)
    shared = lane(look)
    slow = Schedule(minimum=100, maximum=100)
    waiting = [asyncio.create_task(watch(look, lane=shared, schedule=slow).settled()) for _ in range(9)]
    await clock.sleep(1)
    shared.hub.ring("work-1")
    await asyncio.gather(*waiting)
    assert look.times == [0.0, 0.25, 1.0]


async def test_a_look_that_had_begun_before_is_not_taken_for_a_new_watch(clock):
    look = Looking(clock, QUEUED, DONE, takes=1)
    shared = lane(look)
    first = asyncio.create_task(anext(watch(look, lane=shared)))
    await clock.sleep(0.5)
    assert (await watch(look, lane=shared).settled()).status is Stage.DONE
    assert (await first).status is Stage.QUEUED
    assert look.times == [0.0, 1.0]


async def test_things_of_different_kinds_are_looked_at_apart_though_their_ids_are_equal(clock):
    hub = Hub(clock, 1e6)
    look, other = Looking(clock, QUEUED, DONE), Looking(clock, QUEUED, QUEUED, RUNNING, DONE)
    task, job = lane(look, hub=hub), lane(other, hub=hub)
    await asyncio.gather(watch(look, lane=task).settled(), watch(other, lane=job).settled())
    assert (len(look.times), len(other.times)) == (2, 4)


async def test_closing_cuts_the_look_in_flight_and_ends_the_wait(clock):
    look = Looking(clock, QUEUED, takes=1000)
    shared = lane(look)
    waiting = asyncio.create_task(watch(look, lane=shared).settled())
    while not look.in_flight:
        await asyncio.sleep(0)
    shared.hub.close()
    with pytest.raises(MisuseError):
        await waiting
    assert look.in_flight == 0
    assert clock.now() == 0.0


async def test_a_refused_token_ends_all_waits_of_the_service_with_one_look(clock):
    look = Looking(clock, QUEUED, Unauthorized("401"))
    shared = lane(look)
    courses = [
        Course(Setting(clock=clock, schedule=SECOND, chance=lambda: 0.5), f"work-{n}", Progress()) for n in range(30)
    ]
    waits = [asyncio.create_task(watch(look, lane=shared, course=course).settled()) for course in courses]
    results = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(result) for result in results] == [Unauthorized] * 30
    # All of the first looks may be under way when it is refused; nobody looks again.
    assert len(look.times) <= 31
    assert clock.now() < 1


async def test_a_ring_whose_look_was_cut_is_heeded_by_the_next_look(clock):
    look = Looking(clock, QUEUED, QUEUED, DONE, takes=0.5)
    shared = lane(look)
    slow = Schedule(minimum=100, maximum=100)
    watching = watch(look, lane=shared, schedule=slow)
    await anext(watching)
    cut = asyncio.create_task(anext(watching))
    await asyncio.sleep(0)
    shared.hub.ring("work-1")
    while not look.in_flight:
        await asyncio.sleep(0)
    cut.cancel()
    await asyncio.wait([cut])
    began = clock.now()
    assert (await watching.settled()).status is Stage.DONE
    assert clock.now() - began < 2
