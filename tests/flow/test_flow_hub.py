"""One hub for all watches: rings, turns, fairness, numbering, and that nothing is left or waits for ever."""

import asyncio
import random

import anyio
import pytest

from gts_async import MisuseError, NotSent, Schedule, Unauthorized
from gts_async._flow import hub as hub_module
from gts_async._flow.hub import Hub
from gts_async._flow.lane import MAX_LOOKING
from gts_async._flow.many import AsFinished
from gts_async.testing import FakeClock
from tests.flow.conftest import Scene, Stage

QUEUED, RUNNING, SUCCEEDED = Stage.QUEUED, Stage.RUNNING, Stage.SUCCEEDED
RARE = Schedule(minimum=100, maximum=100, jitter=0)


def settling(*works, **options):
    return [asyncio.create_task(work.watch(**options).settled()) for work in works]


async def ended(tasks):
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


# Rings


@pytest.mark.parametrize("key", ["job-1", "https://here/callback", "https://here/callback#gts-mark"])
@pytest.mark.parametrize("joined", ["https://here/callback", "https://here/callback#gts-mark"])
async def test_a_ring_by_id_or_by_callback_url_with_or_without_its_fragment_brings_a_look_at_once(scene, key, joined):
    service = scene.service(schedule=RARE)
    waiting = settling(service.work("job-1", QUEUED, SUCCEEDED), service.work("job-2"))
    scene.hub.join(joined, "job-1")
    await scene.clock.sleep(7)
    scene.hub.ring(key)
    await waiting[0]
    assert service.looks_at("job-1") == [0.0, 7.0]
    assert service.looks_at("job-2") == [0.0]
    await ended(waiting)
    scene.check_rest()


async def test_a_ring_for_work_that_nobody_follows_is_remembered_until_somebody_does(scene):
    service = scene.service(schedule=RARE)
    work = service.work("job-1", QUEUED, RUNNING, SUCCEEDED)
    watch = work.watch()
    await anext(watch)
    await scene.clock.sleep(3)
    scene.hub.ring("job-1")
    assert (await anext(watch)).status is RUNNING
    assert service.looks_at("job-1") == [0.0, 3.0]
    assert scene.hub._rung == {}
    await watch.settled()
    assert service.looks_at("job-1") == [0.0, 3.0, 103.0]


async def test_a_ring_that_an_abandoned_wait_has_not_answered_is_remembered(scene):
    service = scene.service(schedule=RARE)
    service.takes = 5.0
    work = service.work("job-1", QUEUED, QUEUED, SUCCEEDED)
    watch = work.watch()
    await anext(watch)
    (waiting,) = settling(work)
    await scene.clock.sleep(1)
    scene.hub.ring("job-1")
    await ended([waiting])
    await anext(watch)
    assert service.looks_at("job-1") == [0.0, 5.0, 6.0]


async def test_rings_for_strangers_take_bounded_memory_and_the_newest_are_kept(scene):
    for number in range(hub_module.MAX_RUNG * 2):
        scene.hub.ring("job-1")
        scene.hub.ring(f"stranger-{number}")
    assert len(scene.hub._rung) == hub_module.MAX_RUNG
    assert "job-1" in scene.hub._rung


async def test_a_ring_rings_works_of_that_id_in_every_service(scene):
    services = [scene.service(schedule=RARE) for _ in range(2)]
    waiting = settling(*(service.work("same", QUEUED, SUCCEEDED) for service in services))
    await scene.clock.sleep(1)
    scene.hub.ring("same")
    await asyncio.gather(*waiting)
    assert [service.looks_at("same") for service in services] == [[0.0, 1.0]] * 2
    scene.check_rest()


async def test_what_was_rung_for_gets_a_look_of_its_own_though_there_is_a_listing(scene):
    service = scene.service(listed=True)
    service.takes = 1.0
    work = service.work("job-1")
    scene.hub.ring("job-1")
    (waiting,) = settling(work)
    await scene.clock.sleep(0.5)
    eye = service.lane.eyes["job-1"]
    assert eye.own_looks == 1
    # The one that is under way began before this one.
    scene.hub.ring("job-1")
    await scene.clock.sleep(1)
    assert len(service.times) == 2
    assert eye.own_looks == 1
    await ended([waiting])
    scene.check_rest()


async def test_where_thousands_begin_at_once_nearly_all_get_a_first_look_before_others_get_a_second(scene):
    service = scene.allow(50).service()
    waiting = settling(*service.works(1000))
    # 20 s at the least; taking turns all the way, 40.
    await scene.clock.sleep(24)
    looked_at = [work_id for work_id, _ in service.times]
    assert set(looked_at) == {f"work-{n}" for n in range(1000)}
    # Those that are merely scheduled are not forgotten meanwhile.
    assert len(looked_at) > 1100
    await ended(waiting)
    scene.check_rest()


# Closing


async def test_closing_ends_every_wait_and_refuses_new_ones(scene):
    service = scene.service()
    works = service.works(20)
    waiting = settling(*works)
    await scene.clock.sleep(1.5)
    scene.hub.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {MisuseError}
    assert len(set(map(id, results))) == 20
    with pytest.raises(MisuseError, match="closed"):
        await works[0].watch().settled()
    scene.check_rest()


async def test_closing_while_a_look_is_under_way_ends_the_wait_after_it(scene):
    service = scene.service()
    service.takes = 5.0
    waiting = settling(*service.works(3))
    await scene.clock.sleep(1)
    scene.hub.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {MisuseError}
    scene.check_rest()


async def test_what_is_settled_needs_no_open_session(scene):
    work = scene.service().work("job-1", SUCCEEDED)
    await work.watch().settled()
    scene.hub.close()
    assert (await work.watch().settled()).status is SUCCEEDED


def test_another_event_loop_is_refused_while_the_first_goes_on():
    async def first():
        scene = Scene()
        service = scene.service()
        work = service.work("job-1", QUEUED)
        (waiting,) = settling(work)
        await scene.turns()
        with pytest.raises(MisuseError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, work.watch().settled())
        service.script["job-1"] = [SUCCEEDED]
        assert (await waiting).status is SUCCEEDED
        scene.check_rest()

    asyncio.run(first())


# Fairness


async def test_two_services_get_every_other_look_however_many_works_the_one_has(scene):
    scene.allow(10.0)
    crowd, few = scene.service(), scene.service()
    waiting = settling(*crowd.works(200), *few.works(5), deadline=20)
    await asyncio.gather(*waiting, return_exceptions=True)
    # Each of the five is looked at every second, as it wants; the two hundred get the rest.
    assert len(few.times) == pytest.approx(100, abs=10)
    assert len(crowd.times) == pytest.approx(100, abs=10)
    assert {work_id for work_id, _ in few.times} == {f"work-{n}" for n in range(5)}
    scene.check_rest()


async def test_within_a_service_it_is_first_come_first_served_and_nobody_starves(scene):
    scene.allow(10.0)
    service = scene.service()
    waiting = settling(*service.works(50), deadline=60)
    await asyncio.gather(*waiting, return_exceptions=True)
    ids = [work_id for work_id, _ in service.times]
    assert list(dict.fromkeys(ids)) == [f"work-{n}" for n in range(50)]
    later = ids[len(ids) // 3 :]
    counts = [later.count(f"work-{n}") for n in range(50)]
    assert max(counts) - min(counts) <= 1
    scene.check_rest()


@pytest.mark.parametrize("listed", [False, True])
async def test_what_is_asked_for_does_not_wait_behind_all_that_is_scheduled(scene, listed):
    scene.allow(10.0)
    service = scene.service(listed=listed)
    waiting = settling(*service.works(100))
    await scene.clock.sleep(30)
    began = scene.clock.now()
    watch = service.work("news", RUNNING).watch()
    assert (await anext(watch)).status is RUNNING
    assert scene.clock.now() - began < 1.0
    # Nor the other way round: what is scheduled goes on while somebody asks again and again.
    seen = len(service.times) + len(service.page_times)
    for _ in range(100):
        scene.hub.ring("work-0")
        await scene.clock.sleep(0.1)
    others = [work_id for work_id, _ in service.times if work_id != "work-0"]
    assert len(others) + len(service.page_times) - seen > 20 or listed
    await ended(waiting)
    scene.check_rest()


async def test_the_pages_of_a_listing_are_not_held_up_by_an_eager_neighbour(scene):
    scene.allow(10.0)
    eager, listed = scene.service(), scene.service(listed=True, schedule=RARE)
    listed.page_size = 10
    waiting = settling(*eager.works(100))
    await scene.clock.sleep(5)
    works = listed.works(60, RUNNING)
    listed.pages = [work.id for work in works]
    await asyncio.gather(*(anext(work.watch()) for work in works))
    assert scene.clock.now() < 7.0
    assert [page for page, _ in listed.page_times] == [1, 2, 3, 4, 5, 6]
    await ended(waiting)
    scene.check_rest()


async def test_looks_that_hang_hold_up_neither_the_other_service_nor_more_than_their_number(scene):
    stuck, good = scene.service(), scene.service()
    works = stuck.works(MAX_LOOKING * 2)
    stuck.hanging = {work.id for work in works}
    waiting = settling(*works)
    await scene.clock.sleep(1)
    assert stuck.most == stuck.lane.looking == MAX_LOOKING
    await asyncio.gather(*settling(*good.works(200, QUEUED, RUNNING, SUCCEEDED)))
    assert good.most <= MAX_LOOKING
    await ended(waiting)
    scene.check_rest()


async def test_some_looks_that_hang_leave_the_other_places_to_the_rest(scene):
    service = scene.service(schedule=RARE)
    works = service.works(300, RUNNING)
    service.hanging = {work.id for work in works[: MAX_LOOKING - 4]}
    service.takes = 0.01
    waiting = [asyncio.create_task(anext(work.watch())) for work in works]
    await scene.clock.sleep(50)
    assert sum(task.done() for task in waiting) == 300 - (MAX_LOOKING - 4)
    await ended(waiting)
    scene.check_rest()


async def test_whoever_leaves_with_all_places_taken_lets_the_next_one_look(scene):
    service = scene.service()
    stuck = service.works(MAX_LOOKING)
    service.hanging = {work.id for work in stuck}
    async with AsFinished(stuck):
        await scene.turns(200)
        assert service.lane.looking == MAX_LOOKING
        (waiting,) = settling(service.work("next", SUCCEEDED))
        await scene.turns(200)
        assert not waiting.done()
    await scene.turns()
    assert waiting.done()
    scene.check_rest()


async def test_a_queue_of_nothing_but_abandoned_looks_does_not_hide_the_other_queue(scene):
    scene.allow(1.0)
    service = scene.service(schedule=Schedule(minimum=5, maximum=5, jitter=0))
    (scheduled,) = settling(service.work("scheduled", QUEUED, SUCCEEDED))
    await scene.clock.sleep(4.5)
    busy = settling(service.work("busy", SUCCEEDED))
    asked = settling(*(service.work(f"asked-{n}") for n in range(5)))
    await scene.clock.sleep(0.75)
    # Now one look is due, and those that were asked for are about to be given up.
    await ended(asked)
    await asyncio.wait_for(scheduled, 30)
    await asyncio.gather(*busy)
    scene.check_rest()


# Numbering


async def test_nobody_is_given_a_look_that_began_before_he_asked(scene):
    service = scene.service()
    service.takes = 1.0
    # The old look says that it has run; whoever asks later must not take that for news of his own work.
    first, later = service.work("same", RUNNING, QUEUED), service.work("same")
    (waiting,) = settling(first)
    await scene.clock.sleep(0.5)
    found = await anext(later.watch())
    assert (found.status, scene.clock.now()) == (QUEUED, 2.0)
    assert [change.status for change in later.course.history] == [QUEUED]
    await ended([waiting])
    scene.check_rest()


async def test_a_listing_read_before_somebody_asked_is_not_given_to_him_either(scene):
    service = scene.service(listed=True, schedule=RARE)
    service.page_takes = 3.0
    waiting = settling(*service.works(30))
    await scene.clock.sleep(1)
    assert service.lane.listing.is_being_read
    service.script["work-99"] = [RUNNING]
    late = service.work("work-99")
    asking = asyncio.create_task(anext(late.watch()))
    await scene.turns(200)
    assert service.looks_at("work-99")
    assert (await asking).status is RUNNING
    await ended(waiting)
    scene.check_rest()


async def test_a_look_left_over_by_a_block_is_no_first_look_for_the_next_one(scene):
    service = scene.service(schedule=RARE)
    known = service.work("same", RUNNING)
    await anext(known.watch())
    service.takes = 1.0
    began = scene.clock.now()

    async def later():
        await scene.clock.sleep(0.5)
        async with AsFinished([known], deadline=50):
            await scene.clock.sleep(20)

    async with AsFinished([service.work("same")], deadline=0.7):
        following = asyncio.create_task(later())
        await scene.clock.sleep(10)
    assert [time - began for time in service.looks_at("same")[1:]] == [0.0, 1.0]
    await following
    scene.check_rest()


async def test_a_page_that_is_older_than_a_look_takes_nothing_back(scene):
    service = scene.service(listed=True, schedule=RARE)
    service.page_takes = 3.0
    waiting = settling(*service.works(30))
    await scene.clock.sleep(1)
    late = service.work("late")
    service.pages = [f"work-{n}" for n in range(30)] + ["late"]
    watch = late.watch()
    service.script["late"] = [RUNNING]
    assert (await anext(watch)).status is RUNNING
    number = late.course.number
    (again,) = settling(late)
    await scene.clock.sleep(1)
    assert late.course.number > number
    number = late.course.number
    service.script["late"] = [QUEUED]
    await scene.clock.sleep(2)
    assert not service.lane.listing.is_being_read
    assert late.course.number == number
    assert late.course.status is RUNNING
    await ended([*waiting, again])
    scene.check_rest()


async def test_a_ring_is_not_answered_by_a_page_that_was_asked_for_before(scene):
    service = scene.service(listed=True, schedule=RARE)
    service.page_takes = 3.0
    works = service.works(30)
    waiting = settling(*works)
    await scene.clock.sleep(1)
    service.script["work-7"] = [SUCCEEDED]
    service.script = {"work-7": [SUCCEEDED]}
    scene.hub.ring("work-7")
    assert (await waiting[7]).status is SUCCEEDED
    assert scene.clock.now() < 3.5
    await ended(waiting)
    scene.check_rest()


# Leaving


@pytest.mark.parametrize("is_alone", [True, False])
@pytest.mark.parametrize("where", ["ready", "looking", "holding a turn", "scheduled"])
async def test_whoever_leaves_takes_nothing_along_and_leaves_nothing(scene, where, is_alone):
    scene.allow(1.0)
    service = scene.service()
    service.takes = 1.0 if where == "looking" else 0.0
    if where in ("ready", "scheduled"):
        blocker = settling(service.work("blocker", SUCCEEDED))
        await asyncio.gather(*blocker)
    work = service.work("same", QUEUED, QUEUED, SUCCEEDED)
    (leaver,) = settling(work)
    if where == "scheduled":
        await scene.clock.sleep(1.5)
    elif where == "looking":
        await scene.clock.sleep(0.5)
    else:
        # One turn of the loop: it asks, and is handed its turn, unless the budget is used up.
        await asyncio.sleep(0)
    eye = service.lane.eyes["same"]
    others = [] if is_alone else settling(service.work("same", QUEUED, SUCCEEDED))
    if where == "holding a turn":
        scene.hub.ring("same")
    await ended([leaver])
    if others:
        assert (await others[0]).status is SUCCEEDED
    await scene.turns()
    assert (eye.is_looking, eye.is_ready) == (False, False)
    scene.check_rest()


async def test_a_turn_that_was_handed_to_one_who_leaves_goes_to_the_other(scene):
    service = scene.service(schedule=RARE)
    leaving, staying = service.work("same", QUEUED, QUEUED, SUCCEEDED), service.work("same")
    watches = settling(leaving, staying)
    await scene.clock.sleep(1)
    scene.hub.ring("same")
    assert service.lane.eyes["same"].is_looking
    await ended(watches[:1])
    assert (await watches[1]).status is SUCCEEDED
    assert scene.clock.now() == 1.0
    scene.check_rest()


@pytest.mark.parametrize("is_block_first", [True, False])
async def test_a_block_and_a_watch_of_one_work_take_over_each_others_looks(scene, is_block_first, cancelled_after):
    for turns in range(0, 60, 3):
        service = scene.service()
        service.takes = 0.1
        service.script = {"same": [QUEUED, QUEUED, QUEUED, QUEUED, SUCCEEDED]}

        async def block(service=service):
            async with AsFinished([service.work("same"), service.work("other")]) as outcomes:
                async for _ in outcomes:
                    pass

        async def watch(service=service):
            await service.work("same").watch().settled()

        cut, stays = (block, watch) if is_block_first else (watch, block)
        cutting = asyncio.create_task(cancelled_after(turns, cut))
        await asyncio.sleep(0)
        service.script["other"] = [SUCCEEDED]
        await asyncio.gather(cutting, stays())
        scene.check_rest()


async def test_members_that_die_before_their_block_keep_no_turn_from_others(scene):
    service = scene.service()
    waits_on = asyncio.Event()

    async def block():
        with anyio.CancelScope() as outer:
            async with AsFinished([service.work("same")]):
                with anyio.CancelScope(shield=True):
                    asyncio.get_running_loop().call_soon(outer.cancel)
                    await waits_on.wait()

    blocked = asyncio.create_task(block())
    await scene.turns(20)
    (other,) = settling(service.work("same", QUEUED, QUEUED, SUCCEEDED))
    assert (await asyncio.wait_for(other, 30)).status is SUCCEEDED
    waits_on.set()
    await blocked
    scene.check_rest()


# Faults that are none of ours


class Odd(Exception):
    pass


@pytest.mark.parametrize("way", ["watch", "block"])
async def test_a_bug_in_a_look_ends_that_wait_and_hangs_nobody(scene, way):
    service = scene.service()
    if way == "watch":
        first, second = settling(
            service.work("same", QUEUED, QUEUED, Odd("a bug"), QUEUED, SUCCEEDED), service.work("same")
        )
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["Look", "Odd"]
    else:
        (other,) = settling(service.work("same", QUEUED, QUEUED, QUEUED, Odd("a bug"), QUEUED, QUEUED, SUCCEEDED))
        with pytest.raises(Odd):
            async with AsFinished([service.work("same"), *service.works(100)]) as outcomes:
                try:
                    await other
                except Odd:
                    # It was that one who looked.
                    raise
                async for _ in outcomes:
                    pass
        await asyncio.gather(other, return_exceptions=True)
    scene.check_rest()


async def test_a_bug_ends_a_block_at_once_and_is_not_repeated_for_a_slow_consumer(scene):
    service = scene.service()
    async with AsFinished([service.work("bad", Odd("a bug")), *service.works(10)]) as outcomes:
        await scene.clock.sleep(50)
        looks = len(service.times)
        assert service.lane.eyes == {}
        with pytest.raises(Odd):
            await anext(outcomes)
    assert looks <= 11
    scene.check_rest()


async def test_a_bug_in_judging_ends_one_wait_and_the_others_go_on(scene):
    service = scene.service()
    bad, good = service.work("same", QUEUED, QUEUED, SUCCEEDED), service.work("same")
    seen = bad.course.progress.see
    bad.course.progress.see = lambda sighting, now: seen(sighting, now) if now < 1 else 1 / 0
    results = await asyncio.gather(*settling(bad, good), return_exceptions=True)
    # Whoever looked met it; the next one to look meets it as well.
    assert ZeroDivisionError in map(type, results)
    scene.check_rest()


async def test_a_timeout_that_is_not_the_deadline_is_not_taken_for_it(scene):
    service = scene.service()
    for deadline in (None, 50.0):
        with pytest.raises(TimeoutError, match="mine") as caught:
            await service.work("same", QUEUED, TimeoutError("mine")).watch(deadline=deadline).settled()
        assert type(caught.value) is TimeoutError
    scene.check_rest()


# Whatever happens, in whatever order

WHAT = ["watch", "watch", "block", "cancel", "cancel", "ring", "pass", "deadline", "hang", "free"]


@pytest.mark.parametrize("seed", range(100))
async def test_no_script_of_coming_going_and_ringing_leaves_anything_or_anybody(scene, seed):
    chance = random.Random(seed)
    scene.allow(chance.choice([1e6, 20.0, 2.0]))
    services = [scene.service(listed=chance.random() < 0.5), scene.service()]
    for service in services:
        service.takes = service.page_takes = chance.choice([0.0, 0.3])
        service.page_size = 4
        for number in range(15):
            bad = chance.choice([[NotSent("refused")], [Unauthorized("401")], [], [], []])
            life = [QUEUED] * chance.randint(0, 3) + bad + [RUNNING] * chance.randint(0, 2) + [SUCCEEDED]
            service.script[f"work-{number}"] = life
    tasks, has_hung = [], False

    async def block(works, deadline):
        async with AsFinished(works, deadline=deadline) as outcomes:
            async for _ in outcomes:
                await scene.clock.sleep(chance.choice([0, 0, 0.2]))

    for _ in range(chance.randint(3, 40)):
        what, number = chance.choice(WHAT), chance.randrange(15)
        service = chance.choice(services)
        work = service.work(f"work-{number}")
        if what == "watch":
            tasks += settling(work)
        elif what == "block":
            works = [service.work(f"work-{n}") for n in range(15)] + [services[0].work("work-0")]
            tasks.append(asyncio.create_task(block(works, chance.choice([None, 0.5, 2.0]))))
        elif what == "deadline":
            tasks += settling(work, deadline=chance.choice([0.1, 1.0, 2.5]))
        elif what == "cancel" and tasks:
            chance.choice(tasks).cancel()
        elif what == "ring":
            scene.hub.ring(work.id)
        elif what == "hang":
            service.hanging.add(work.id)
            has_hung = True
        elif what == "free":
            service.hanging.clear()
        elif what == "pass":
            await scene.clock.sleep(chance.choice([0.0, 0.01, 0.3, 2.0]))
        await scene.turns(chance.randint(0, 4))
        for lane in (service.lane for service in services):
            assert 0 <= lane.looking <= MAX_LOOKING
            assert lane.looking == sum(eye.is_looking for eye in lane.eyes.values())
            assert all(eye.followers or eye.is_looking for eye in lane.eyes.values())
    if chance.random() < 0.2:
        scene.hub.close()
    if has_hung:
        # What hangs for ever ends by its caller only.
        for task in tasks:
            task.cancel()
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks, return_exceptions=True)
    await scene.turns()
    scene.check_rest()


@pytest.mark.parametrize("seed", range(3))
async def test_a_crowd_that_comes_and_goes_at_random_is_served_to_the_end(scene, seed):
    scene.allow(100.0)
    chance = random.Random(seed)
    services = [scene.service(listed=True), scene.service()]
    for service in services:
        service.takes = service.page_takes = 0.2
        service.page_size = 10
        service.script = {f"work-{n}": [QUEUED] * chance.randint(1, 5) + [SUCCEEDED] for n in range(40)}
    tasks = []
    for _ in range(400):
        service = chance.choice(services)
        tasks += settling(service.work(f"work-{chance.randrange(40)}"))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.1:
            await scene.clock.sleep(chance.random())
        if chance.random() < 0.2:
            scene.hub.ring(f"work-{chance.randrange(40)}")
    results = await asyncio.gather(*tasks, return_exceptions=True)
    kinds = {type(result).__name__ for result in results}
    assert kinds <= {"Look", "CancelledError"}
    scene.check_rest()


async def test_a_hub_at_rest_begins_anew():
    clock = FakeClock()
    hub = Hub(clock, 10.0)
    scene = Scene()
    scene.clock, scene.hub = clock, hub
    service = scene.service()
    for _ in range(3):
        await asyncio.gather(*settling(*(service.work(f"work-{n}", QUEUED, SUCCEEDED) for n in range(5))))
        await scene.turns()
        scene.check_rest()
