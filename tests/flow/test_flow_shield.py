"""Clean-ups run to their end, bounded, whatever happens to whoever waits for them."""

import asyncio

import anyio
import pytest

from gts_async._flow.shield import finished


class CleanUp:
    """Takes `turns` turns of the loop, then gives "done"."""

    def __init__(self, turns=10):
        self.turns = turns
        self.begun = self.ended = 0

    async def __call__(self):
        self.begun += 1
        for _ in range(self.turns):
            await asyncio.sleep(0)
        self.ended += 1
        return "done"


async def test_the_result_is_given():
    assert await finished(CleanUp()(), within=5) == "done"


async def test_an_error_is_raised():
    async def fail():
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        await finished(fail(), within=5)


async def test_what_takes_too_long_is_cancelled_and_raises_timeout_error():
    cancelled = []

    async def endless():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    with pytest.raises(TimeoutError):
        await finished(endless(), within=0.001)
    assert cancelled == [1]


async def test_cancelling_at_any_turn_of_the_loop_waits_for_the_end(cancelled_after):
    before = asyncio.all_tasks()
    for turns in range(20):
        work = CleanUp()

        async def wait(work=work):
            await finished(work(), within=5)

        await cancelled_after(turns, wait)
        assert work.begun == work.ended
        assert asyncio.all_tasks() == before


async def test_cancelling_twice_or_more_is_one_cancellation_in_the_end():
    work = CleanUp(30)
    task = asyncio.create_task(finished(work(), within=5))
    await asyncio.sleep(0)
    for _ in range(20):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (work.begun, work.ended) == (1, 1)


async def test_a_failed_clean_up_of_a_cancelled_caller_is_not_reported_as_forgotten():
    forgotten = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: forgotten.append(context["message"]))

    async def fail():
        await asyncio.sleep(0)
        raise OSError

    task = asyncio.create_task(finished(fail(), within=5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    assert forgotten == []


async def test_an_outer_timeout_counts_its_own_cancellation_only():
    work = CleanUp()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await finished(work(), within=5)
    assert asyncio.current_task().cancelling() == 0
    assert work.ended == 1


async def test_a_cancelled_scope_ends_at_the_next_checkpoint_after_the_clean_up():
    work = CleanUp()
    with anyio.CancelScope() as scope:
        scope.cancel()
        assert await finished(work(), within=5) == "done"
        await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert work.ended == 1
