"""Work that must not outlive its owner: ended when that is closed, and otherwise left as it is."""

import asyncio

import pytest

from gts_async import MisuseError
from gts_async._flow.inflight import InFlight


async def test_closing_ends_what_other_tasks_do_and_waits_for_it():
    in_flight, ended = InFlight(), []

    async def work(number):
        with in_flight.one():
            try:
                await asyncio.sleep(1000)
            finally:
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.sleep(0)
                ended.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(3)]
    await asyncio.sleep(0)
    await in_flight.aclose()
    assert sorted(ended) == [0, 1, 2]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in found] == [MisuseError] * 3
    await in_flight.aclose()


async def test_what_ends_by_itself_gives_its_value_or_its_error():
    in_flight = InFlight()
    with in_flight.one():
        await asyncio.sleep(0)
    with pytest.raises(KeyError), in_flight.one():
        raise KeyError
    await in_flight.aclose()


@pytest.mark.parametrize("turns", range(4))
async def test_whoever_is_cancelled_is_cancelled_and_holds_nobody_up(cancelled_after, turns):
    in_flight, is_over = InFlight(), False

    async def work():
        nonlocal is_over
        with in_flight.one():
            await asyncio.sleep(1000)
        is_over = True

    await cancelled_after(turns, work)
    assert not is_over
    await in_flight.aclose()
