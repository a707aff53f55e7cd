"""What watches share: turns are spaced and never lost, bells wake whoever waits, and nothing piles up."""

import asyncio
import gc

import pytest

from gts_async._flow.hub import Bell, Hub, LookBudget
from gts_async.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


async def turns(*, asked=8):
    for _ in range(asked):
        await asyncio.sleep(0)


async def test_looks_are_evenly_spaced_first_come_first_served(clock):
    budget, looked = LookBudget(2.0), []

    async def look(number):
        await budget.turn(clock)
        looked.append((number, clock.now()))

    await asyncio.gather(*map(look, range(4)))
    assert looked == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 1.5)]


async def test_a_quiet_second_is_not_saved_up(clock):
    budget = LookBudget(2.0)
    await budget.turn(clock)
    await clock.sleep(100)
    for expected in (100.0, 100.5, 101.0):
        await budget.turn(clock)
        assert clock.now() == expected


async def test_whoever_is_cancelled_while_waiting_gives_the_turn_to_the_next(clock):
    budget = LookBudget(1.0)
    tasks = [asyncio.create_task(budget.turn(clock)) for _ in range(1000)]
    await turns()
    for task in tasks[1:]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await budget.turn(clock)
    assert clock.now() == 1.0


async def test_a_bell_wakes_everybody_who_waits(clock):
    bell = Bell()
    waiting = [asyncio.create_task(bell.waits(10, clock, lambda: bell.rings > 0)) for _ in range(3)]
    await turns()
    bell.ring()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert clock.now() == 0.0


async def test_a_bell_that_stays_silent_ends_the_waiting_in_time(clock):
    assert await Bell().waits(10, clock, lambda: False) is False
    assert clock.now() == 10.0


async def test_a_ring_that_nobody_has_heard_yet_is_not_lost(clock):
    bell = Bell()
    bell.ring()
    assert await bell.waits(10, clock, lambda: bell.rings > 0) is True
    assert await bell.waits(10, clock, lambda: bell.rings > 1) is False


async def test_being_woken_for_nothing_is_waiting_on(clock):
    bell = Bell()
    waiting = asyncio.create_task(bell.waits(10, clock, lambda: bell.rings > 0))
    for _ in range(3):
        await clock.sleep(1)
        bell.wake()
    assert await waiting is False
    assert clock.now() == 10.0


async def test_an_outer_bound_is_not_taken_for_silence(clock):
    with pytest.raises(TimeoutError):
        async with clock.timeout(5):
            await Bell().waits(5, clock, lambda: False)
    assert clock.now() == 5.0


async def test_whoever_is_cancelled_is_forgotten_by_the_bell(clock):
    bell = Bell()
    task = asyncio.create_task(bell.waits(10, clock, lambda: False))
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bell._waiting == set()
    bell.ring()


def test_one_piece_of_work_has_one_bell_while_somebody_holds_it():
    hub = Hub(1.0)
    eye, bell = hub.eye("Cloud", "a"), hub.bell("a")
    assert hub.bell("a") is bell is eye.bell
    assert hub.eye("Cloud", "a") is eye
    assert hub.bell("b") is not bell


def test_bells_that_nobody_holds_are_gone():
    hub = Hub(1.0)
    for number in range(1000):
        hub.bell(f"job-{number}").ring()
        hub.eye("Cloud", f"job-{number}")
    gc.collect()
    assert len(hub._bells) == len(hub._eyes) == 0


@pytest.mark.parametrize("is_watched_first", [True, False])
def test_another_name_rings_the_same_bell(is_watched_first):
    hub = Hub(1.0)
    if is_watched_first:
        hub.bell("http://here/callback").ring()
    hub.join("http://here/callback", "job-1")
    hub.join("http://here/callback", "job-2")
    bell, other = hub.bell("job-1"), hub.bell("job-2")
    rings = bell.rings
    hub.bell("http://here/callback").ring()
    hub.bell("job-1").ring()
    assert (bell.rings - rings, other) == (2, bell)


async def test_closing_rings_all(clock):
    hub = Hub(1.0)
    bells = [hub.bell(f"job-{number}") for number in range(3)]
    waiting = [asyncio.create_task(bell.waits(10, clock, lambda bell=bell: bell.rings > 0)) for bell in bells]
    await turns()
    hub.ring_all()
    assert await asyncio.gather(*waiting) == [True] * 3
