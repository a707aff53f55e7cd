"""What one handle's work has done: history, durations, what is left, what is told, and what is learned."""

import asyncio

import pytest

from gts_async import DeadlineExceeded, NotFound, NotSent, Schedule, ServerFailed, Unauthorized, WorkLost, WorkStalled
from gts_async._flow.course import PATIENCE
from gts_async._flow.experience import Experience
from tests.flow.conftest import LOOKS, Progress, Stage

QUEUED, RUNNING, PAUSED, SUCCEEDED, FAILED, UNKNOWN = Stage
REFUSED = NotSent("refused")


async def statuses(work, **options):
    return [change.status async for change in work.watch(**options)]


async def test_all_watches_of_a_handle_write_one_history(scene):
    service = scene.service()
    work = service.work("a", QUEUED, QUEUED, RUNNING, RUNNING, SUCCEEDED)
    watch = work.watch()
    await anext(watch)
    await anext(watch)
    found = await anext(work.watch())
    assert (found.previous, found.status, found.elapsed) == (None, RUNNING, 0.0)
    await watch.settled()
    assert [change.status for change in work.course.history] == [QUEUED, RUNNING, SUCCEEDED]
    assert [(c.previous, c.is_final) for c in work.course.history] == [
        (None, False),
        (QUEUED, False),
        (RUNNING, True),
    ]
    assert [change.elapsed for change in watch.history] == [change.elapsed for change in work.course.history]
    scene.check_rest()


async def test_durations_count_until_now_and_stand_still_at_the_end(scene):
    work = scene.service().work("a", *[QUEUED] * 3, *[RUNNING] * 4, SUCCEEDED)
    watch = work.watch()
    assert work.course.durations == {}
    await anext(watch)
    await scene.clock.sleep(2)
    assert work.course.durations == {QUEUED: 2.0}
    await watch.settled()
    ended = work.course.durations
    assert ended[SUCCEEDED] == 0.0
    assert ended[QUEUED] + ended[RUNNING] == scene.clock.now()
    await scene.clock.sleep(100)
    assert work.course.durations == ended


async def test_a_second_wait_for_what_is_settled_costs_no_look(scene):
    service = scene.service()
    work = service.work("a", RUNNING, SUCCEEDED)
    first = await work.watch().settled()
    looks = len(service.times)
    assert await work.watch().settled() == first
    (found,) = [change async for change in work.watch()]
    assert (found.previous, found.status, found.is_final, found.elapsed) == (None, SUCCEEDED, True, 0.0)
    assert len(service.times) == looks


async def test_what_is_settled_stays_so_whatever_a_server_says_later(scene):
    work = scene.service().work("a", SUCCEEDED)
    await work.watch().settled()
    for later in (LOOKS[RUNNING], LOOKS[FAILED], NotFound("gone", call="status"), Unauthorized("401")):
        work.course.see(later, work.course.number + 1, scene.clock.now())
    assert [change.status for change in work.course.history] == [SUCCEEDED]
    assert (await work.watch().settled()).status is SUCCEEDED


async def test_a_status_that_goes_back_is_reported_and_ends_nothing(scene, caplog):
    work = scene.service().work("a", RUNNING, QUEUED, RUNNING, SUCCEEDED)
    changes = [change async for change in work.watch()]
    assert [(change.status, change.is_backward) for change in changes] == [
        (RUNNING, False),
        (QUEUED, True),
        (RUNNING, False),
        (SUCCEEDED, False),
    ]
    assert "(backward)" in str(changes[1])
    assert "went back" in caplog.text


async def test_what_a_later_watch_finds_at_its_start_is_no_step_back(scene):
    work = scene.service().work("a", RUNNING, QUEUED)
    watch = work.watch()
    await anext(watch)
    assert (await anext(watch)).is_backward
    await scene.clock.sleep(1)
    found = await anext(work.watch())
    assert (found.status, found.is_backward) == (QUEUED, False)


async def test_trouble_and_its_end_are_told_once_each(scene):
    events = []
    service = scene.service(on_event=lambda event: events.append((event.kind, event.detail, event.elapsed)))
    fault = ServerFailed("500", status=500)
    await statuses(service.work("a", QUEUED, REFUSED, REFUSED, fault, REFUSED, QUEUED, fault, QUEUED, SUCCEEDED))
    assert [event for event in events if event[0] != "transition"] == [
        ("degraded", "NotSent", 1.0),
        ("recovered", "", 5.0),
    ]


async def test_bad_looks_in_a_calm_life_are_not_passed_over(scene):
    events = []
    service = scene.service(on_event=lambda event: events.append(event.kind))
    work = service.work("a", RUNNING, RUNNING, RUNNING, REFUSED, RUNNING, RUNNING, SUCCEEDED)
    assert await statuses(work) == [RUNNING, SUCCEEDED]
    assert events == ["transition", "degraded", "recovered", "transition"]


async def test_a_change_that_was_learned_elsewhere_is_told_though_looks_repeat_it(scene):
    service = scene.service()
    work = service.work("a", QUEUED, RUNNING, RUNNING, SUCCEEDED)
    watch = work.watch()
    await anext(watch)
    # As a stop does that was refused: the rules have seen a look that the course has not.
    work.course.progress.see(LOOKS[RUNNING], scene.clock.now())
    assert (await anext(watch)).status is RUNNING
    assert scene.clock.now() == 1.0


async def test_a_look_that_is_no_newer_than_what_is_known_changes_nothing(scene):
    work = scene.service().work("a", RUNNING)
    await anext(work.watch())
    course, now = work.course, scene.clock.now()
    for number in (course.number - 1, course.number):
        assert course.stays(LOOKS[RUNNING], number, now + 5) is None
        assert course.seen_at == now
    assert course.stays(LOOKS[RUNNING], course.number + 1, now + 5) == 1.0
    assert course.seen_at == now + 5


async def test_work_is_lost_after_nothing_but_bad_looks_and_a_new_wait_has_fresh_patience(scene):
    service = scene.service(schedule=Schedule(minimum=10, maximum=10, jitter=0))
    work = service.work("a", QUEUED, REFUSED)
    for _ in range(2):
        began = scene.clock.now()
        with pytest.raises(WorkLost, match="resume") as caught:
            await work.watch().settled()
        assert scene.clock.now() - began >= PATIENCE
        assert caught.value.handle is work
        assert caught.value.__cause__ is REFUSED
    service.script["a"] = [SUCCEEDED]
    assert (await work.watch().settled()).status is SUCCEEDED


async def test_every_error_of_a_wait_can_be_followed_by_another_wait(scene):
    service = scene.service()
    work = service.work("a", QUEUED)
    for options, error in [({"deadline": 5.0}, DeadlineExceeded), ({"stalled_after": 5.0}, WorkStalled)]:
        with pytest.raises(error, match="resume") as caught:
            await work.watch(**options).settled()
        assert caught.value.handle is work
        assert caught.value.last_look.status is QUEUED
        scene.check_rest()
    service.script["a"] = [Unauthorized("401")]
    with pytest.raises(Unauthorized):
        await work.watch().settled()
    service.script["a"] = [RUNNING, SUCCEEDED]
    assert await statuses(work) == [RUNNING, SUCCEEDED]


@pytest.mark.parametrize(("steps", "stalled"), [([QUEUED] * 6 + [RUNNING] * 30, 16.0), ([QUEUED] * 30, 10.0)])
async def test_work_stalls_so_long_after_its_last_change(scene, steps, stalled):
    work = scene.service().work("a", *steps)
    with pytest.raises(WorkStalled):
        await work.watch(stalled_after=10).settled()
    assert scene.clock.now() == pytest.approx(stalled)
    scene.check_rest()


async def test_stalling_is_seen_in_time_though_looks_are_rare(scene):
    service = scene.service(schedule=Schedule(minimum=3600, maximum=3600, jitter=0))
    with pytest.raises(WorkStalled):
        await service.work("a").watch(stalled_after=10).settled()
    assert scene.clock.now() == pytest.approx(10, abs=0.1)


async def test_a_stall_that_one_wait_asked_for_ends_no_other(scene):
    service = scene.service()
    work = service.work("a", *[QUEUED] * 20, SUCCEEDED)
    patient = asyncio.create_task(work.watch().settled())
    with pytest.raises(WorkStalled):
        await work.watch(stalled_after=5).settled()
    assert (await patient).status is SUCCEEDED
    scene.check_rest()


# Learning


async def lived(service, work_id, *steps, kind="k", since=0.0):
    work = service.work(work_id, *steps, kind=kind, since=service.hub.now() if since is not None else None)
    await work.watch().settled()
    return work


async def test_the_next_of_its_kind_knows_how_long_is_left(scene):
    service = scene.service(experience=Experience())
    await lived(service, "a", *[QUEUED] * 10, *[RUNNING] * 20, SUCCEEDED)
    work = service.work("b", QUEUED, kind="k", since=scene.clock.now())
    assert work.course.eta is None
    watch = work.watch()
    await anext(watch)
    assert work.course.eta == watch.eta == 30.0
    await scene.clock.sleep(12)
    assert work.course.eta == 18.0
    await scene.clock.sleep(100)
    assert work.course.eta == 0.0
    other = service.work("c", QUEUED, kind="another")
    await anext(other.watch())
    assert other.course.eta is None


@pytest.mark.parametrize(
    "steps",
    [
        [QUEUED, RUNNING, FAILED],
        [QUEUED, SUCCEEDED],
        [QUEUED, RUNNING, QUEUED, RUNNING, SUCCEEDED],
        [QUEUED, RUNNING, PAUSED, RUNNING, SUCCEEDED],
    ],
    ids=["a bad end", "a stage unseen", "a step back", "a stage twice"],
)
async def test_an_odd_life_teaches_nothing(scene, steps):
    service = scene.service(experience=Experience())
    work = service.work("a", *steps, kind="k", since=0.0)
    await statuses(work)
    assert all(service.setting.experience.stay("k", stage) is None for stage in Stage)


async def test_a_stage_of_which_nobody_saw_the_beginning_teaches_nothing_but_later_ones_do(scene):
    service = scene.service(experience=Experience())
    await lived(service, "a", *[QUEUED] * 10, *[RUNNING] * 20, SUCCEEDED, since=None)
    known = service.setting.experience
    assert known.stay("k", QUEUED) is None
    assert known.stay("k", RUNNING).mean == 20.0


async def test_what_was_learned_spares_looks_in_the_middle_and_is_quick_at_the_end(scene):
    schedule = Schedule(minimum=1, maximum=100, jitter=0)
    service = scene.service(schedule=schedule, experience=Experience())
    for number, kind in enumerate(["k", "k", "new"]):
        life = _Life(scene.clock, 600.0)
        service.glance = life
        service.lane.glance = life
        began = scene.clock.now()
        work = service.work(f"work-{number}", kind=kind, since=began)
        await work.watch().settled()
        if number == 0:
            first = life.times
        late = scene.clock.now() - began - 600.0
    assert late <= 0.05 * 600 + 1
    second = _Life(scene.clock, 600.0)
    service.lane.glance = second
    began = scene.clock.now()
    await service.work("again", kind="k", since=began).watch().settled()
    middle = [time - began for time in second.times if 10 < time - began < 300]
    before = [time for time in first if 10 < time < 300]
    assert len(middle) < len(before)
    assert scene.clock.now() - began - 600.0 <= 0.05 * 600 + 1


class _Life:
    def __init__(self, clock, lasts):
        self.clock, self.until, self.times = clock, clock.now() + lasts, []

    async def __call__(self, work_id):
        self.times.append(self.clock.now())
        return LOOKS[SUCCEEDED if self.clock.now() >= self.until else RUNNING]


async def test_a_status_that_is_not_known_is_told_once_and_ends_nothing(scene, caplog):
    work = scene.service().work("a", UNKNOWN, RUNNING, UNKNOWN, SUCCEEDED, progress=Progress())
    assert await statuses(work) == [UNKNOWN, RUNNING, UNKNOWN, SUCCEEDED]
    assert len([record for record in caplog.records if "not known here" in record.message]) == 1
