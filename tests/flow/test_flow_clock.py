"""The machine's own clock, without waiting for it."""

import asyncio
import threading
import time
from datetime import UTC, timedelta

import pytest

from gts_async._flow.clock import BLOCKED, SystemClock


def test_it_never_goes_backwards_and_its_day_is_aware():
    clock = SystemClock()
    assert clock.now() <= clock.now()
    assert clock.wall().tzinfo is UTC
    assert clock.wall().utcoffset() == timedelta(0)


async def test_sleeping_lets_others_run():
    ran = []
    asyncio.get_running_loop().call_soon(ran.append, 1)
    await SystemClock().sleep(0)
    assert ran == [1]


async def test_a_bound_that_is_over_ends_the_block():
    with pytest.raises(TimeoutError):
        async with SystemClock().timeout(0):
            await asyncio.Event().wait()


async def test_none_is_no_bound():
    async with SystemClock().timeout(None) as bound:
        await asyncio.sleep(0)
    assert bound.when() is None


@pytest.mark.ordinary_loop
async def test_a_blocked_loop_may_take_what_has_arrived_meanwhile():
    loop, has_arrived = asyncio.get_running_loop(), threading.Event()
    answer = loop.create_future()

    def arrive():
        loop.call_soon_threadsafe(answer.set_result, 1)
        has_arrived.set()

    async with SystemClock().timeout(0.05):
        await asyncio.sleep(0)
        threading.Thread(target=arrive).start()
        assert has_arrived.wait(30)
        time.sleep(BLOCKED + 0.1)  # noqa: ASYNC251 - the loop is blocked on purpose
        assert await answer == 1


@pytest.mark.ordinary_loop
async def test_a_blocked_loop_does_not_end_a_bound_for_good():
    with pytest.raises(TimeoutError):
        async with SystemClock().timeout(0.01):
            time.sleep(BLOCKED + 0.05)  # noqa: ASYNC251 - the loop is blocked on purpose
            await asyncio.Event().wait()


@pytest.mark.parametrize("seconds", [0, 5])
async def test_a_block_that_ends_in_time_leaves_no_alarm(seconds):
    bound = SystemClock().timeout(seconds)
    async with bound:
        pass
    assert bound._alarm.cancelled()
