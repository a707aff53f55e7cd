"""The fake clock: hours in milliseconds, in the right order, and never while somebody still works."""

import asyncio
import threading
from datetime import UTC, datetime

import anyio.to_thread
import pytest

from gts_async.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


async def turns(*, asked=5):
    for _ in range(asked):
        await asyncio.sleep(0)


async def test_sleepers_wake_in_the_order_of_their_times(clock):
    woken = []

    async def sleeper(seconds):
        await clock.sleep(seconds)
        woken.append((seconds, clock.now()))

    await asyncio.gather(*map(sleeper, (3600, 5, 60, 5)))
    assert woken == [(5, 5.0), (5, 5.0), (60, 60.0), (3600, 3600.0)]


async def test_the_day_goes_with_it():
    clock = FakeClock(start=datetime(2023, 12, 31, 23, tzinfo=UTC))
    await clock.sleep(3600)
    assert clock.wall() == datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("seconds", [0, -1])
async def test_no_time_at_all_is_one_turn_of_the_loop(clock, seconds):
    ran = []
    asyncio.get_running_loop().call_soon(ran.append, 1)
    await clock.sleep(seconds)
    assert (ran, clock.now()) == ([1], 0.0)


async def test_without_autojump_time_stands_still_until_it_is_advanced():
    clock = FakeClock(autojump=False)
    task = asyncio.create_task(clock.sleep(10))
    await turns(asked=200)
    clock.advance(9.5)
    await turns()
    assert (task.done(), clock.now()) == (False, 9.5)
    clock.advance(1)
    await task
    assert clock.now() == 10.5


async def test_a_bound_ends_the_block_in_its_own_time(clock):
    with pytest.raises(TimeoutError):
        async with clock.timeout(60):
            await asyncio.Event().wait()
    assert clock.now() == 60.0
    assert asyncio.current_task().cancelling() == 0


async def test_a_block_that_ends_first_stops_its_bound(clock):
    async with clock.timeout(60):
        await clock.sleep(59)
    await clock.sleep(10)
    assert clock.now() == 69.0


async def test_none_is_no_bound(clock):
    async with clock.timeout(None):
        await clock.sleep(1e6)
    assert clock.now() == 1e6


@pytest.mark.parametrize(("inner", "outer"), [(5, 10), (10, 5), (5, 5)])
async def test_of_two_bounds_the_one_that_is_over_first_speaks(clock, inner, outer):
    caught = []
    with pytest.raises(TimeoutError):
        async with clock.timeout(outer):
            try:
                async with clock.timeout(inner):
                    await asyncio.Event().wait()
            except TimeoutError:
                caught.append("inner")
                raise
    assert clock.now() == 5.0
    assert caught == (["inner"] if inner < outer else [])


async def test_a_block_that_ends_as_its_bound_is_over_is_no_error_of_the_loop(clock):
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context["message"]))
    clock = FakeClock(autojump=False)
    for wait in range(4):
        done = asyncio.Event()

        async def block(done=done):
            async with clock.timeout(5):
                await done.wait()

        task = asyncio.create_task(block())
        await turns()
        # The block's end and the bound's, so many turns apart.
        done.set()
        await turns(asked=wait)
        clock.advance(5)
        await asyncio.gather(task, return_exceptions=True)
        await turns()
    assert complaints == []


async def test_a_cancellation_as_the_bound_is_over_stays_a_cancellation():
    clock = FakeClock(autojump=False)

    async def block():
        async with clock.timeout(5):
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await turns()
    clock.advance(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_at_any_turn_of_the_loop_leaves_nothing_due(cancelled_after):
    clock = FakeClock()

    async def wait():
        async with clock.timeout(1000):
            await clock.sleep(10)

    for turns_ in range(20):
        await cancelled_after(turns_, wait)
        began = clock.now()
        await clock.sleep(1)
        assert clock.now() == began + 1


async def test_time_waits_for_whoever_is_ready(clock):
    lock = asyncio.Lock()

    async def in_turn():
        async with lock:
            await asyncio.sleep(0)

    async with clock.timeout(10):
        await asyncio.gather(*(in_turn() for _ in range(500)))
    assert clock.now() == 0.0


async def test_time_does_not_wait_for_whoever_spins(clock):
    task = asyncio.create_task(clock.sleep(10))
    while not task.done():
        await asyncio.sleep(0)
    assert clock.now() == 10.0


async def test_time_waits_for_threads(clock):
    may_end = threading.Event()
    asyncio.get_running_loop().call_later(0.02, may_end.set)
    async with clock.timeout(10):
        await anyio.to_thread.run_sync(may_end.wait)
    assert clock.now() == 0.0


async def test_it_leaves_the_loop_alone_when_nobody_waits(clock):
    async with clock.timeout(60):
        await clock.sleep(1)
    await turns()
    assert clock._turning is None
    assert clock._due == []


def test_it_goes_on_in_another_loop(clock):
    async def leave_something_due():
        task = asyncio.create_task(clock.sleep(5))
        await asyncio.sleep(0)
        return task

    asyncio.run(leave_something_due())
    began = clock.now()
    asyncio.run(asyncio.wait_for(clock.sleep(7), 5))
    assert clock.now() == began + 7
