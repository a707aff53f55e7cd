"""One run of a program that streams samples with a checkpoint; `answers` starts it, kills it, and starts it again.

``python -m benchmarks.checkpointed ORDER``, where ORDER is an `Order` as JSON; outcomes are written as they come.
"""

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import msgspec

from benchmarks.answering import Failure
from benchmarks.trained import MAIN, PIPELINES, Answer, Bad, Samples, number_of, told
from gts_async import AsyncSession, InferencePool


@attrs.frozen(kw_only=True)
class Order:
    """What a run is to stream (so many samples, those of `bad` are), to whom, and where it keeps what."""

    urls: list[str]
    samples: int
    bad: Mapping[int, str]
    max_batch: int
    checkpoint: str
    outcomes: str

    def encoded(self) -> str:
        """Give it as JSON."""
        return msgspec.json.encode(self).decode()


@attrs.frozen
class Told:
    """The outcome of the sample of that number."""

    number: int
    answer: Answer | None
    failure: Failure | None


async def stream(order: Order) -> None:
    """Stream the samples and write each outcome down, a line each."""
    samples = Samples(MAIN, order.samples, {number: Bad[name] for number, name in order.bad.items()})
    engine_type, task_type = PIPELINES[MAIN]
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(AsyncSession(engine=url)) for url in order.urls]
        tasks = [session.task(MAIN, task_type=task_type, engine_type=engine_type) for session in sessions]
        serving = [task.serve(max_batch=order.max_batch) for task in tasks]
        inference = await stack.enter_async_context(serving[0] if len(serving) == 1 else InferencePool(serving))
        outcomes = await stack.enter_async_context(inference.stream(samples, checkpoint=order.checkpoint))
        with Path(order.outcomes).open("wb") as lines:
            async for outcome in outcomes:
                said = Told(number_of(outcome.item), told(outcome.value), Failure.of(outcome.error))
                lines.write(msgspec.json.encode(said) + b"\n")


def told_in(outcomes: str) -> Iterator[Told]:
    """Give the outcomes that a run has written, without the last line if it was cut."""
    path = Path(outcomes)
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        if line.endswith(b"\n"):
            yield msgspec.json.decode(line, type=Told)


if __name__ == "__main__":
    asyncio.run(stream(msgspec.json.decode(sys.argv[1], type=Order)))
