"""What batching costs by itself: CPU for each of many samples, and time for a call that has no company."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Sequence

import attrs
import httpx

from benchmarks.fifo_engine import ENGINE_TYPE, TASK, TASK_TYPE, predicted, sample
from benchmarks.ways_to_predict import IN_FLIGHT, MAX_BATCH, Predicted, cpu_seconds, read, told
from gts_async import AsyncSession
from gts_async._flow.batching import Batcher
from gts_async.gts import calls
from gts_async.gts.values import TaskType


@attrs.frozen
class Overhead:
    """CPU seconds of `callers` that ask nobody, and of as many that ask through a batcher, for each of them."""

    callers: float
    batched: float

    @property
    def batcher(self) -> float:
        """What the batcher adds to its callers."""
        return self.batched - self.callers


async def overhead(samples: int) -> Overhead:
    """Measure a batcher whose `send` answers at once; a task that waits for one turn of the loop is a caller's own."""

    async def send(items: Sequence[int]) -> Sequence[int]:
        return items

    batcher = Batcher[int, int](send, max_batch=MAX_BATCH, max_at_once=IN_FLIGHT)
    alone = await _cpu_of(lambda number: asyncio.sleep(0, number), samples)
    batched = await _cpu_of(batcher.submit, samples)
    await batcher.aclose()
    return Overhead(alone, batched)


async def _cpu_of(ask: Callable[[int], Awaitable[int]], samples: int) -> float:
    async def call(number: int) -> int:
        return await ask(number)

    gc.collect()
    before = cpu_seconds()
    answers = await asyncio.gather(*(call(number) for number in range(samples)))
    spent = cpu_seconds() - before
    assert answers == list(range(samples))
    return spent / samples


@attrs.define
class Lone:
    """Seconds of each call that was made while nothing else was: `predict_one`, the bare request, and httpx's.

    The bare request is ours as well, over the same connection, with nothing that batches or checks. `wrong` calls were
    not answered with what the engine answers.
    """

    batched: list[float] = attrs.field(factory=list)
    bare: list[float] = attrs.field(factory=list)
    httpx: list[float] = attrs.field(factory=list)
    wrong: int = 0


async def lone_calls(url: str, rounds: int) -> Lone:
    """Make calls one after the other, interleaved; every other one of a kind comes right after one of the same."""
    lone = Lone()
    async with AsyncSession(engine=url) as session, httpx.AsyncClient(base_url=url) as client:
        task = session.task(TASK, task_type=TASK_TYPE, engine_type=ENGINE_TYPE)
        async with task.serve(max_batch=MAX_BATCH) as inference:

            async def batched(number: int) -> Predicted | None:
                return told(await inference.predict_one(sample(number)))

            async def bare(number: int) -> Predicted | None:
                call = calls.predict(TASK, TaskType.CLASSIFICATION, [sample(number)])
                return told((await session._engine.exchange.send(call))[0])

            async def by_httpx(number: int) -> Predicted | None:
                document = {"task_id": TASK, "sentences": [sample(number)]}
                return read((await client.post("/api/predict", json=document)).json())

            ways = ((bare, lone.bare), (batched, lone.batched), (by_httpx, lone.httpx))
            for number in range(rounds):
                for ask, seconds in ways if number % 2 else reversed(ways):
                    began = time.perf_counter()
                    answer = await ask(number)
                    seconds.append(time.perf_counter() - began)
                    lone.wrong += answer != predicted(sample(number)["content"])
    return lone
