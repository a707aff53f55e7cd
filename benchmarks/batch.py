"""A batch as it is submitted: its specs, made one by one, and its outcomes, kept where memory does not show them.

Whether these are right is for `comparison`.
"""

import asyncio
import collections
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import attrs

from benchmarks import memory
from benchmarks.comparison import UNKNOWN, Told
from gts_async import AsyncSession, JobSpec

GPU = "NVIDIA-GeForce-RTX-3090"
CALLBACK = "https://here.example/callbacks"
EVERY = 0.1
"""Seconds between two looks at the memory."""

WARM = 0.1
"""The share of outcomes after which memory must not grow any more, but for what is open."""


@attrs.define
class Specs:
    """The specs of a batch, made one by one; every tenth has the content of the one before.

    Every third one asks for callbacks, where there are any.
    """

    jobs: int
    has_callbacks: bool
    pulled: int = 0

    def __iter__(self) -> Iterator[JobSpec]:
        for number in range(self.jobs):
            self.pulled = number + 1
            content = content_of(number)
            callback = CALLBACK if self.has_callbacks and has_callback(content) else None
            yield JobSpec(gpu_type=GPU, image_path="image", run_command=f"train {content}", callback_url=callback)

    def counts(self) -> "collections.Counter[int]":
        """Count the specs by content."""
        return collections.Counter(map(content_of, range(self.jobs)))


def content_of(number: int) -> int:
    """Give the content of the spec of that number."""
    return number - 1 if number % 10 == 9 else number


def has_callback(content: int) -> bool:
    """Tell whether the spec of that content asks for callbacks."""
    return content % 3 == 0


@attrs.define
class Gauge:
    """The highest memory, before and after the warm-up."""

    warm: int = 0
    most: int = 0

    async def watch(self, is_warm: "asyncio.Event") -> None:
        """Look again and again."""
        while True:
            self.most = max(self.most, memory.resident())
            if not is_warm.is_set():
                self.warm = self.most
            await asyncio.sleep(EVERY)


@attrs.define
class Submitted:
    """What came of a batch. The outcomes are in a file: a list of them would be what memory shows."""

    told: IO[str]
    gauge: Gauge = attrs.field(factory=Gauge)
    outcomes: int = 0
    pulled_first: int = 0
    most_ahead: int = 0
    seconds: float = 0.0
    most_of_them: float = 0.0
    cpu: float = 0.0
    open: list[tuple[Told, Any]] = attrs.field(factory=list)

    def read(self) -> Iterator[Told]:
        """Give the outcomes again."""
        self.told.seek(0)
        for line in self.told:
            yield Told(*json.loads(line))


async def submit_all(session: AsyncSession, specs: Specs, at_once: int, journal: Path | None) -> Submitted:
    batch = Submitted(tempfile.TemporaryFile("w+"))  # noqa: SIM115 - read by the caller
    is_warm = asyncio.Event()
    watching = asyncio.create_task(batch.gauge.watch(is_warm))
    began, cpu = time.monotonic(), time.process_time()
    async with session.submit_many(specs, max_at_once=at_once, journal=journal) as outcomes:
        async for outcome in outcomes:
            batch.outcomes += 1
            batch.pulled_first = batch.pulled_first or specs.pulled
            batch.most_ahead = max(batch.most_ahead, specs.pulled - batch.outcomes)
            if batch.outcomes >= WARM * specs.jobs:
                is_warm.set()
            if batch.outcomes <= 0.9 * specs.jobs:
                batch.most_of_them = time.monotonic() - began
            told = told_of(outcome.item, outcome.value, outcome.error)
            batch.told.write(json.dumps(attrs.astuple(told)) + "\n")
            if told.error in UNKNOWN:
                batch.open.append((told, outcome.error))
    batch.seconds, batch.cpu = time.monotonic() - began, time.process_time() - cpu
    watching.cancel()
    return batch


def told_of(spec: JobSpec, job: Any, error: Exception | None) -> Told:
    """Put an outcome down."""
    content = int((spec.run_command or "").rpartition(" ")[2])
    if error is None:
        return Told(content, job.id)
    intent = getattr(error, "intent", None)
    return Told(content, "", type(error).__name__, getattr(intent, "mark", None) or "")
