import asyncio
import gc
import time

import pytest

from gts_async import MisuseError
from gts_async._flow.batching import Batcher


class Sender:
    """Answers a batch with its items' negatives; keeps the batches, and may hold them back."""

    def __init__(self):
        self.batches = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, items):
        self.batches.append(list(items))
        await self.may_answer.wait()
        return [ValueError(f"bad {item}") if item < 0 else -item for item in items]


async def test_calls_made_at_once_travel_together_up_to_the_limit():
    send = Sender()
    batcher = Batcher(send, max_batch=4)
    assert await asyncio.gather(*[batcher.submit(n) for n in range(10)]) == [-n for n in range(10)]
    assert [len(batch) for batch in send.batches] == [4, 4, 2]


async def test_a_lone_call_goes_at_once():
    send = Sender()
    batcher = Batcher(send, max_batch=4, window=1000)
    async with asyncio.timeout(30):
        assert [await batcher.submit(n) for n in range(3)] == [0, -1, -2]
    assert send.batches == [[0], [1], [2]]


async def test_calls_wait_for_company_while_others_are_in_flight():
    send = Sender()
    send.may_answer.clear()
    batcher = Batcher(send, max_batch=10, max_at_once=2, window=0.01)
    first = asyncio.create_task(batcher.submit(1))
    while not send.batches:
        await asyncio.sleep(0)
    others = []
    for n in (2, 3, 4):
        others.append(asyncio.create_task(batcher.submit(n)))
        await asyncio.sleep(0)
    while len(send.batches) < 2:
        await asyncio.sleep(0.001)
    assert send.batches == [[1], [2, 3, 4]]
    send.may_answer.set()
    assert await asyncio.gather(first, *others) == [-1, -2, -3, -4]


async def test_no_more_batches_in_flight_than_allowed():
    send = Sender()
    send.may_answer.clear()
    batcher = Batcher(send, max_batch=1, max_at_once=2)
    tasks = [asyncio.create_task(batcher.submit(n)) for n in range(5)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(send.batches) == 2
    send.may_answer.set()
    assert await asyncio.gather(*tasks) == [0, -1, -2, -3, -4]


async def test_a_bad_item_fails_alone():
    results = await asyncio.gather(
        *[Batcher.submit(batcher, n) for batcher in [Batcher(Sender(), max_batch=10)] for n in (1, -5, 2)],
        return_exceptions=True,
    )
    assert results[0] == -1
    assert isinstance(results[1], ValueError)
    assert results[2] == -2


async def test_a_failed_batch_fails_each_of_its_callers():
    async def send(items):
        raise ConnectionError("gone")

    batcher = Batcher(send, max_batch=10)
    results = await asyncio.gather(*[batcher.submit(n) for n in range(3)], return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionError] * 3


async def test_a_cancelled_caller_leaves_its_batch_without_harm():
    send = Sender()
    send.may_answer.clear()
    batcher = Batcher(send, max_batch=10)
    tasks = [asyncio.create_task(batcher.submit(n)) for n in range(3)]
    while not send.batches:
        await asyncio.sleep(0)
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    send.may_answer.set()
    assert (await tasks[0], await tasks[2]) == (0, -2)


async def test_a_caller_that_left_before_the_batch_went_is_not_sent():
    send = Sender()
    batcher = Batcher(send, max_batch=10)
    tasks = [asyncio.create_task(batcher.submit(n)) for n in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[1:] == [-1, -2]
    assert sum(len(batch) for batch in send.batches) <= 3


async def test_closing_tells_whoever_waits():
    send = Sender()
    send.may_answer.clear()
    batcher = Batcher(send, max_batch=1, max_at_once=1)
    tasks = [asyncio.create_task(batcher.submit(n)) for n in range(3)]
    while not send.batches:
        await asyncio.sleep(0)
    await batcher.aclose()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [MisuseError] * 3
    with pytest.raises(MisuseError):
        await batcher.submit(4)
    await batcher.aclose()


@pytest.mark.parametrize("turns", range(6))
async def test_closing_at_any_turn_of_the_loop_leaves_nobody_waiting(turns):
    batcher = Batcher(Sender(), max_batch=1, max_at_once=1)
    tasks = [asyncio.create_task(batcher.submit(n)) for n in range(3)]
    for _ in range(turns):
        await asyncio.sleep(0)
    await batcher.aclose()
    async with asyncio.timeout(30):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result == -n or isinstance(result, MisuseError) for n, result in enumerate(results))


@pytest.mark.parametrize("values", [[], [0], [0, 0, 0]])
async def test_the_wrong_number_of_values_fails_every_caller(values):
    async def send(items):
        return values

    batcher = Batcher(send, max_batch=10)
    async with asyncio.timeout(30):
        results = await asyncio.gather(batcher.submit(1), batcher.submit(2), return_exceptions=True)
    assert [type(result) for result in results] == [MisuseError] * 2


async def test_an_error_for_a_caller_that_is_being_cancelled_is_not_reported_as_forgotten():
    send, forgotten = Sender(), []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: forgotten.append(context["message"]))
    for turns in range(8):
        batcher = Batcher(send, max_batch=10)
        task = asyncio.create_task(batcher.submit(-1))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
        await batcher.aclose()
        gc.collect()
    assert forgotten == []


async def test_cancelling_at_any_turn_of_the_loop_harms_nobody_else(cancelled_after):
    send = Sender()
    batcher = Batcher(send, max_batch=2, window=0)
    for turns in range(12):
        other = asyncio.create_task(batcher.submit(7))
        await cancelled_after(turns, lambda: batcher.submit(1))
        async with asyncio.timeout(30):
            assert await other == -7
    assert not batcher._items


async def test_a_batch_that_all_have_left_is_cancelled_and_makes_room():
    send = Sender()
    send.may_answer.clear()
    batcher = Batcher(send, max_batch=2)
    tasks = [asyncio.create_task(batcher.submit(n)) for n in range(4)]
    while not send.batches:
        await asyncio.sleep(0)
    tasks[0].cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert send.batches == [[0, 1]]
    tasks[1].cancel()
    while len(send.batches) < 2:
        await asyncio.sleep(0)
    assert send.batches[1] == [2, 3]
    send.may_answer.set()
    assert await asyncio.gather(*tasks[2:]) == [-2, -3]


async def test_a_full_batch_does_not_wait_for_more_company():
    send = Sender()
    send.may_answer.clear()
    batcher = Batcher(send, max_batch=3, max_at_once=2, window=1000)
    tasks = [asyncio.create_task(batcher.submit(0))]
    while not send.batches:
        await asyncio.sleep(0)
    tasks += [asyncio.create_task(batcher.submit(n)) for n in (1, 2)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert send.batches == [[0]]
    tasks.append(asyncio.create_task(batcher.submit(3)))
    for _ in range(3):
        await asyncio.sleep(0)
    assert send.batches == [[0], [1, 2, 3]]
    send.may_answer.set()
    assert await asyncio.gather(*tasks) == [0, -1, -2, -3]


async def test_callers_that_give_up_do_not_pile_up_behind_a_server_that_does_not_answer():
    send = Sender()
    send.may_answer.clear()
    batcher = Batcher(send, max_batch=1)
    held = asyncio.create_task(batcher.submit(0))
    last = asyncio.create_task(batcher.submit(1))
    for n in range(1000):
        task = asyncio.create_task(batcher.submit(n + 2))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(batcher._items) < 200
    send.may_answer.set()
    assert [await held, await last] == [0, -1]
    assert send.batches == [[0], [1]]


async def test_what_a_batch_costs_does_not_depend_on_how_many_wait():
    async def send(items):
        return items

    batcher, count = Batcher(send, max_batch=1), 30_000
    began = time.process_time()
    assert await asyncio.gather(*[batcher.submit(n) for n in range(count)]) == list(range(count))
    # Half a second of work, whatever else the machine does; on all who wait for every batch, more than half a minute.
    assert time.process_time() - began < 15
