"""One page of a listing in place of a hundred looks: when, what of it is believed, and what becomes of the rest."""

import asyncio

import pytest

from gts_async import MisuseError, NotSent, Schedule, ServerFailed, WorkLost
from gts_async._flow.listing import FEW, PAUSE, UNLISTED_LOOKS
from gts_async._flow.many import AsFinished
from tests.flow.conftest import Stage

QUEUED, RUNNING, SUCCEEDED = Stage.QUEUED, Stage.RUNNING, Stage.SUCCEEDED


def settling(works, **options):
    return [asyncio.create_task(work.watch(**options).settled()) for work in works]


async def ended(tasks):
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def watched(scene, service, number, seconds, **options):
    """Watch so many works for so long; gives what the looks and pages of that time were."""
    tasks = settling(service.works(number))
    await scene.clock.sleep(seconds)
    looks, pages = list(service.times), list(service.page_times)
    await ended(tasks)
    scene.check_rest()
    return looks, pages


@pytest.mark.parametrize(("number", "is_worth_it"), [(1, False), (FEW - 1, False), (FEW, True), (100, True)])
async def test_a_listing_is_read_where_it_saves_many_looks_and_only_there(scene, number, is_worth_it):
    looks, pages = await watched(scene, scene.service(listed=True), number, 10.5)
    if is_worth_it:
        # Whoever asks for the first time, with nobody else waiting, need not wait for a listing.
        assert [time for _, time in looks] == [0.0] * (number - 1)
        assert len(pages) == 11
    else:
        assert pages == []
        assert len(looks) == number * 11


async def test_no_more_pages_are_read_than_looks_are_saved(scene):
    service = scene.service(listed=True)
    # Ten works in a hundred pages of strangers.
    service.pages = [f"stranger-{n}" for n in range(9_000)] + [f"work-{n}" for n in range(10)]
    looks, pages = await watched(scene, service, 10, 10.5)
    assert max(page for page, _ in pages) == FEW
    assert len(pages) <= len(looks)


async def test_reading_ends_with_the_page_that_shows_the_last_of_what_is_wanted(scene):
    service = scene.service(listed=True)
    service.pages = [f"work-{n}" for n in range(250)] + [f"stranger-{n}" for n in range(1000)]
    _, pages = await watched(scene, service, 250, 1.5)
    assert [page for page, time in pages if time >= 1] == [1, 2, 3]


async def test_what_is_not_in_the_listing_gets_looks_of_its_own_and_is_looked_for_there_later(scene):
    service = scene.service(listed=True)
    service.pages = [f"work-{n}" for n in range(50)]
    works = [*service.works(50), service.work("hidden")]
    tasks = settling(works)
    await scene.clock.sleep(10.5)
    assert len(service.looks_at("hidden")) == pytest.approx(11, abs=1)
    assert service.looks_at("work-7") == [0.0]
    service.pages += ["hidden"]
    await scene.clock.sleep(UNLISTED_LOOKS + 10)
    looks = len(service.looks_at("hidden"))
    assert looks == pytest.approx(UNLISTED_LOOKS, abs=3)
    await scene.clock.sleep(10)
    assert len(service.looks_at("hidden")) == looks
    await ended(tasks)
    scene.check_rest()


async def test_what_the_listing_does_not_tell_clearly_is_looked_at_by_itself(scene):
    service = scene.service(listed=True)
    works = service.works(50)
    tasks = settling(works)
    await scene.clock.sleep(3.5)
    service.script["work-7"] = [SUCCEEDED]
    service.unclear = {"work-7"}
    await asyncio.wait_for(tasks[7], 30)
    assert len(service.looks_at("work-7")) == 2
    assert len(service.times) == 50
    await ended(tasks)
    scene.check_rest()


async def test_a_server_that_is_not_there_is_asked_once_for_all(scene):
    service = scene.service(listed=True, schedule=Schedule(minimum=10, maximum=10, jitter=0))
    service.page_error = NotSent("refused")
    tasks = settling(service.works(50, NotSent("refused")))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {WorkLost}
    assert len(service.page_times) == pytest.approx(32, abs=2)
    # Each when it was asked for, and one that has fallen out of step with the rest.
    assert len(service.times) == pytest.approx(50 + 32, abs=3)
    scene.check_rest()


async def test_a_listing_that_fails_otherwise_is_left_alone_for_a_while(scene):
    service = scene.service(listed=True)
    service.page_error = ServerFailed("500", status=500)
    tasks = settling(service.works(50))
    await scene.clock.sleep(PAUSE - 1)
    assert len(service.page_times) == 1
    assert len(service.times) == pytest.approx(50 * PAUSE, rel=0.05)
    service.page_error = None
    await scene.clock.sleep(PAUSE)
    looks = len(service.times)
    await scene.clock.sleep(10)
    assert len(service.times) == looks
    await ended(tasks)
    scene.check_rest()


@pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError()])
async def test_a_bug_in_the_listing_ends_the_wait_of_who_reads_it_and_nobody_elses(scene, error):
    service = scene.service(listed=True)
    service.page_error = error
    tasks = settling(service.works(20, RUNNING, RUNNING, SUCCEEDED))
    await scene.clock.sleep(0.1)
    service.page_error = None
    await scene.clock.sleep(0.1)
    ends = sum(task.done() for task in tasks)
    assert 1 <= ends <= 20 - FEW + 1
    for n in range(20):
        service.script[f"work-{n}"] = [SUCCEEDED]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 20 - ends
    scene.check_rest()


async def test_cancelling_the_reader_at_any_turn_leaves_the_others_served(scene, cancelled_after):
    for turns in range(0, 60, 2):
        service = scene.service(listed=True)
        service.page_takes, service.page_size = 0.1, 5
        service.pages = [f"work-{n}" for n in range(20)]
        for n in range(20):
            service.script[f"work-{n}"] = [RUNNING]
        works = service.works(20)
        others = settling(works[1:])

        async def leader(work=works[0]):
            await work.watch().settled()

        await cancelled_after(turns, leader)
        for n in range(20):
            service.script[f"work-{n}"] = [SUCCEEDED]
        async with asyncio.timeout(30):
            await asyncio.gather(*others)
        scene.check_rest()


async def test_cancelling_whoever_reads_at_any_moment_leaves_the_others_served(scene):
    for ticks in range(0, 300, 5):
        service = scene.service(listed=True)
        service.page_takes, service.page_size = 0.1, 5
        service.pages = [f"work-{n}" for n in range(20)]
        works = service.works(20, RUNNING)
        tasks = dict(zip(service.pages, settling(works), strict=True))
        await scene.turns(ticks)
        if (leader := service.lane.listing._leader) is not None:
            tasks[leader.work_id].cancel()
        else:
            tasks["work-0"].cancel()
        for n in range(20):
            service.script[f"work-{n}"] = [SUCCEEDED]
        async with asyncio.timeout(30):
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert sum(task.cancelled() for task in tasks.values()) <= 1
        scene.check_rest()


async def test_a_block_that_is_left_while_it_reads_leaves_the_listing_to_others(scene):
    service = scene.service(listed=True)
    service.page_takes = 5.0
    service.script = {f"work-{n}": [RUNNING] for n in range(20)}
    async with AsFinished(service.works(20)):
        await scene.clock.sleep(1)
        assert service.lane.listing.is_being_read
        others = settling(service.works(20))
        await scene.turns(50)
    service.script = {f"work-{n}": [SUCCEEDED] for n in range(20)}
    await asyncio.gather(*others)
    scene.check_rest()


async def test_every_page_counts_as_a_look(scene):
    scene.allow(1.0)
    service = scene.service(listed=True)
    service.pages = [f"work-{n}" for n in range(500)]
    looks, pages = await watched(scene, service, 500, 5.5)
    assert [time for _, time in looks] == [0.0]
    assert pages == [(n, n) for n in range(1, 6)]


async def test_short_of_budget_nothing_piles_up_behind_the_listing(scene):
    scene.allow(1.0)
    service = scene.service(listed=True)
    service.pages = [f"work-{n}" for n in range(500)]
    tasks = settling(service.works(500))
    await scene.clock.sleep(200)
    # At most once each, and once more for those that were shown and are due again while it is read.
    assert len(service.lane.asked) + len(service.lane.scheduled) <= 1000
    await ended(tasks)
    scene.check_rest()


async def test_who_has_been_shown_and_is_looked_at_again_before_the_reading_is_over_is_counted_once(scene):
    service = scene.service(listed=True)
    service.page_takes, service.page_size = 1.0, 5
    service.pages = [f"work-{n}" for n in range(30)]
    service.script = {f"work-{n}": [RUNNING] for n in range(30)}
    async with AsFinished(service.works(30)):
        listing = service.lane.listing
        while listing._leader is None or listing._leader.work_id not in service.pages[:20]:
            await scene.clock.sleep(0.1)
        service.takes = 4.0
        leader = listing._leader
        while listing._leader is not None:
            await scene.clock.sleep(0.1)
        assert listing.is_being_read
        scene.hub.ring(leader.work_id)
        await scene.turns(20)
        assert leader.is_looking
        await scene.clock.sleep(7)
        lane = service.lane
        assert lane.looking == sum(eye.is_looking for eye in lane.eyes.values())
        assert max(service.looking.values()) <= 1
    scene.check_rest()


async def test_a_ring_for_what_waits_for_the_listing_is_answered_before_it(scene):
    service = scene.service(listed=True)
    service.pages = [f"work-{n}" for n in range(30)]
    service.page_size = 10
    tasks = settling(service.works(30))
    await scene.clock.sleep(2.5)
    service.page_takes = 5.0
    await scene.clock.sleep(2)
    eye = service.lane.eyes["work-25"]
    assert (eye.is_ready, eye.is_asked) == (True, False)
    looks = len(service.looks_at("work-25"))
    for _ in range(100):
        scene.hub.ring("work-25")
    await scene.turns()
    assert len(service.looks_at("work-25")) == looks + 1
    assert len(service.lane.asked) < FEW
    await ended(tasks)
    scene.check_rest()


async def test_closing_ends_those_who_wait_for_the_turn_of_a_page(scene):
    scene.allow(0.1)
    service = scene.service(listed=True)
    service.pages = [f"work-{n}" for n in range(500)]
    tasks = settling(service.works(500))
    await scene.clock.sleep(22)
    assert scene.hub._singles
    scene.hub.close()
    async with asyncio.timeout(30):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {MisuseError}
    with pytest.raises(MisuseError, match="closed"):
        await scene.hub.turn()
    scene.check_rest()


async def test_closing_ends_those_who_wait_for_a_page(scene):
    service = scene.service(listed=True)
    service.page_takes = 5.0
    tasks = settling(service.works(30))
    await scene.clock.sleep(1)
    scene.hub.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {MisuseError}
    scene.check_rest()
