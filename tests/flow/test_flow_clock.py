"""The machine's own clock, without waiting for it."""

import asyncio
from datetime import UTC, timedelta

import pytest

from gts_async._flow.clock import SystemClock


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
