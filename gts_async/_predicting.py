"""Predicting: how samples become results: checked, batched, sent, halved around bad ones, streamed, kept.

Who is asked is for the two that inherit it: one engine (``_inference.py``) or several (``_pool.py``).
"""

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import attrs

from gts_async._checkpoint import Checkpoint
from gts_async._errors import InvalidArgument, InvalidData, ServerFailed
from gts_async._flow.batching import Batcher
from gts_async._flow.clock import Clock
from gts_async._flow.fanout import FanOut, Outcome, pulled
from gts_async.gts import samples as rules
from gts_async.gts.values import Result, TaskType

Sample = Mapping[str, Any]
"""What the user gives."""

Row = dict[str, object]
"""What the engine is sent for it."""

MAX_BATCH = 64
"""Samples in one request, unless told otherwise."""


@attrs.frozen
class Batch:
    """Samples that travel together, and the position of the first in the whole input."""

    start: int
    rows: list[Sample]


class Predicting(ABC):
    """Asks about samples, one, some or a stream of them."""

    id: str
    max_batch: int

    @property
    @abstractmethod
    def max_at_once(self) -> int:
        """Requests that may be in flight."""

    @property
    @abstractmethod
    def _clock(self) -> Clock: ...

    @abstractmethod
    def _kind(self, sample: Sample) -> TaskType:
        """Give the task type that decides what a sample must hold."""

    @abstractmethod
    def _opened(self) -> Batcher[Sample, Result]:
        """Give what `predict_one` is batched by; raises MisuseError outside of the block."""

    @abstractmethod
    async def _ask(self, kind: TaskType, rows: Sequence[Row], timeout: float | None = None) -> Sequence[Result]:
        """Send one request and give one result per row."""

    async def predict(self, samples: Iterable[Sample], *, timeout: float | None = None) -> list[Result]:
        """Give one result per sample, in their order; many samples go in several requests.

        Raises InvalidData listing every sample that could not be asked, before anything is sent; `timeout` (seconds)
        bounds each request.
        """
        self._opened()
        asked = list(samples)
        if not asked:
            return []
        kind = self._kind(asked[0])
        rows = rules.prepare_all(kind, asked)
        parts = [rows[start : start + self.max_batch] for start in range(0, len(rows), self.max_batch)]

        async def work(part: list[Row]) -> list[Outcome[Row, Result]]:
            return [Outcome(row, value) for row, value in zip(part, await self._ask(kind, part, timeout), strict=True)]

        async with FanOut(work, parts, max_at_once=self.max_at_once, is_ordered=True) as outcomes:
            return [outcome.unwrap() async for outcome in outcomes]

    async def predict_one(self, sample: Sample) -> Result:
        """Give the result of one sample; calls made at about the same time travel in one request."""
        rules.prepare(self._kind(sample), sample)
        return await self._opened().submit(sample)

    def stream(
        self,
        samples: Iterable[Sample] | AsyncIterable[Sample],
        *,
        max_batch: int | None = None,
        max_at_once: int | None = None,
        ordered: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> FanOut[Batch, Sample, Result]:
        """Give ``async with … as outcomes: async for outcome in outcomes`` over any number of samples.

        Samples are pulled as they are needed and travel in batches of `max_batch`. A sample that cannot be asked, or
        that the engine refuses, fails alone: its outcome holds the error. A server that is gone ends the stream with
        that error. With `checkpoint` (a file's path) results are kept there, and a run that was killed goes on where
        it was; another input than last time is refused.
        """
        self._opened()
        size = self.max_batch if max_batch is None else check_batch(max_batch)
        kept = Checkpoint(checkpoint, self.id) if checkpoint is not None else None

        async def work(batch: Batch) -> list[Outcome[Sample, Result]]:
            known = await kept.known(batch.start, batch.rows) if kept is not None else {}
            missing = [i for i in range(len(batch.rows)) if i not in known]
            asked = await self._outcomes([batch.rows[i] for i in missing]) if missing else []
            outcomes: dict[int, Outcome[Sample, Result]] = dict(zip(missing, asked, strict=True))
            outcomes.update((i, Outcome(batch.rows[i], value, tries=0)) for i, value in known.items())
            if kept is not None:
                await kept.keep(
                    batch.start, batch.rows, {i: outcomes[i].unwrap() for i in missing if outcomes[i].is_ok}
                )
            return [outcomes[i] for i in range(len(batch.rows))]

        return FanOut(
            work,
            _Batches(samples, size),
            max_at_once=self.max_at_once if max_at_once is None else max_at_once,
            is_ordered=ordered,
            clock=self._clock,
            closing=kept.aclose if kept is not None else None,
        )

    async def _outcomes(self, batch: Sequence[Sample]) -> list[Outcome[Sample, Result]]:
        """Ask for a batch; samples that cannot be asked, or that the engine refuses, fail alone."""
        rows: list[Row] = []
        bad: dict[int, Exception] = {}
        for number, sample in enumerate(batch):
            try:
                rows.append(rules.prepare(self._kind(sample), sample))
            except (InvalidData, InvalidArgument) as error:
                bad[number] = error
        answers = iter(await self._halved(rows, 1) if rows else [])
        return [
            Outcome(sample, error=bad[number], tries=0) if number in bad else attrs.evolve(next(answers), item=sample)
            for number, sample in enumerate(batch)
        ]

    async def _halved(self, rows: list[Row], tries: int) -> list[Outcome[Sample, Result]]:
        """Ask for rows; if they are refused, halve them until the bad ones stand alone."""
        try:
            values = await self._ask(self._kind(rows[0]), rows)
        except (InvalidData, ServerFailed) as error:
            # Any other 5xx is somebody's in between: the engine is gone, and no sample is to blame.
            if isinstance(error, ServerFailed) and error.status != 500:
                raise
            if len(rows) == 1:
                return [Outcome(rows[0], error=error, tries=tries)]
            half = len(rows) // 2
            return [*await self._halved(rows[:half], tries + 1), *await self._halved(rows[half:], tries + 1)]
        return [Outcome(row, value, tries=tries) for row, value in zip(rows, values, strict=True)]

    async def _each(self, batch: Sequence[Sample]) -> list[Result | Exception]:
        return [outcome.error or outcome.unwrap() for outcome in await self._outcomes(batch)]


def check_batch(max_batch: object) -> int:
    """Give a batch size back if it can work; raises InvalidArgument."""
    if isinstance(max_batch, bool) or not isinstance(max_batch, int) or not 1 <= max_batch <= 10_000:
        raise InvalidArgument("max_batch", f"{max_batch!r} is out of range", "use 1 to 10000")
    return max_batch


class _Batches(AsyncIterator[Batch]):
    """Pulls samples and gives them in batches, the last one as short as it comes."""

    def __init__(self, samples: Iterable[Sample] | AsyncIterable[Sample], size: int) -> None:
        self._samples = pulled(samples)
        self._size = size
        self._start = 0

    async def __anext__(self) -> Batch:
        rows: list[Sample] = []
        while len(rows) < self._size:
            try:
                rows.append(await anext(self._samples))
            except StopAsyncIteration:
                break
        if not rows:
            raise StopAsyncIteration
        self._start += len(rows)
        return Batch(self._start - len(rows), rows)
