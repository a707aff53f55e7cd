"""Predicting: how samples become results: checked, batched, sent, streamed.

What becomes of a batch is in `_asking`. Who is asked is for the two that inherit it: one engine (``_inference.py``) or
several (``_pool.py``).
"""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Iterable, Sequence
from functools import cached_property, partial

import attrs

from gts_async._asking import Asking, Batches, Row as Row, Run, Sample as Sample, groups
from gts_async._checkpoint import Checkpoint
from gts_async._errors import GtsAsyncError, InvalidArgument, InvalidData, Problem, TimedOut
from gts_async._flow.batching import Batcher
from gts_async._flow.clock import Clock
from gts_async._flow.fanout import FanOut, Outcome
from gts_async._flow.pulling import chunks, gathered
from gts_async._flow.stream import Stream
from gts_async._net.config import check_seconds
from gts_async._progress import OnProgress, tally, told
from gts_async._statistics import InferenceStats
from gts_async.gts import samples as rules
from gts_async.gts.identity import PROBED_FROM
from gts_async.gts.rows import invalid_data
from gts_async.gts.values import Result, TaskType

MAX_BATCH = 64
"""Rows in one request, unless told otherwise."""

CHECKED_AT_ONCE = 1000
"""Samples that are checked before the loop gets another turn: some milliseconds."""

MAX_REORDERED = 4096
"""Samples that an ordered stream may have outcomes of while an earlier one is still being worked on."""


class Predicting(ABC):
    """Asks about samples, one, some or a stream of them."""

    id: str
    max_batch: int
    _own: InferenceStats
    """What it has counted itself, without those that it asks."""

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
    async def _ask(
        self, kind: TaskType, rows: Sequence[Row], timeout: float | None = None, *, is_kept: bool = False
    ) -> Sequence[Result]:
        """Send one request and give one result per row; what `is_kept` must surely be this model's."""

    @abstractmethod
    async def _fingerprint(self) -> str:
        """Give what stands for the model that answers: another text when the task was trained again."""

    async def predict(
        self, samples: Iterable[Sample], *, timeout: float | None = None, progress: OnProgress | None = None
    ) -> list[Result]:
        """Give one result per sample, in their order; many samples go in several requests.

        Raises InvalidData listing every sample that could not be asked, before anything is sent; `timeout` (seconds)
        bounds each request. `progress` is told how many samples are answered, 20 times a second at most. Other tasks
        get their turns meanwhile: a sample must not change until it is answered, the list that holds it may.
        """
        self._opened()
        told(progress)
        asked = await gathered(samples)
        count = tally(progress, self.id, "samples", asked, self._clock.now)
        if not asked:
            if count is not None:
                count.end()
            return []
        kind = self._kind(asked[0])
        rows, size = await _checked(kind, asked), samples_in(self.max_batch)
        parts = [
            places[start : start + size]
            for places in groups({place: (kind, row) for place, row in enumerate(rows)})
            for start in range(0, len(places), size)
        ]

        async def work(places: list[int]) -> list[Outcome[int, Result]]:
            results = await self._ask(kind, [rows[place] for place in places], timeout)
            return [Outcome(place, result) for place, result in zip(places, results, strict=True)]

        found: dict[int, Result] = {}
        if count is not None:
            count.begin()
        async with FanOut(work, parts, max_at_once=self.max_at_once, is_ordered=False) as outcomes:
            async for outcome in outcomes:
                found[outcome.item] = outcome.unwrap()
                if count is not None:
                    count.add()
        if count is not None:
            count.end()
        return [found[place] for place in range(len(rows))]

    async def predict_one(self, sample: Sample, *, timeout: float | None = None) -> Result:
        """Give the result of one sample; calls made at about the same time travel in one request.

        `timeout` (seconds) bounds this call from now on, its wait for company included; then TimedOut is raised, and
        the others are not harmed. Raises InvalidData.
        """
        batcher = self._opened()
        # Checked with the batch, while the engine works on the one before: of thousands of callers, every one has to
        # get this far before the first request leaves.
        if timeout is None:
            return await batcher.submit(sample)
        try:
            async with self._clock.timeout(check_seconds("timeout", timeout)):
                return await batcher.submit(sample)
        except TimeoutError as error:
            if isinstance(error, GtsAsyncError):
                raise
        raise TimedOut(f"predict: no answer within {timeout:g} s", call="predict")

    def stream(
        self,
        samples: Iterable[Sample] | AsyncIterable[Sample],
        *,
        max_batch: int | None = None,
        max_at_once: int | None = None,
        ordered: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: OnProgress | None = None,
    ) -> Stream[Sample, Result]:
        """Give ``async with … as outcomes: async for outcome in outcomes`` over any number of samples.

        Samples are pulled as they are needed, one batch ahead, and travel in batches of `max_batch`, which counts one
        of our own in the larger ones, and fewer when they come slowly. What may block (files, generators) is read by a
        thread of its own, so it must not belong to the loop's thread. An error of it comes after the outcomes of the
        samples before it. An iterator that you give is not closed; when the block is left, samples that it has given
        may have no outcome yet.

        A sample that cannot be asked, or that the engine refuses, fails alone: its outcome holds the error. A server
        that fails whatever it is asked, or that is gone, ends the stream with that error.

        With `checkpoint` (a file's path) results are kept there, and a run that was killed goes on where it was, its
        old outcomes first, with ``tries=0``; samples that failed are asked again. Another task, model or input than
        last time ends the stream with InvalidArgument; an input that goes on beyond the old one is fine. A file that is
        damaged, full or in use by another stream is a FileError.

        `progress` is told how many outcomes were handed out, of how many if the input has a length, 20 times a second
        at most. What it raises comes after the outcomes of what is in flight; nothing more is begun.
        """
        self._opened()
        count = tally(progress, self.id, "samples", samples, self._clock.now)
        size = self.max_batch if max_batch is None else check_batch(max_batch)
        kept = Checkpoint(checkpoint, self.id, self._fingerprint) if checkpoint is not None else None
        asking = Asking(partial(self._ask, is_kept=kept is not None), self._own, self._clock)
        batches = Batches(chunks(samples, samples_in(size)))

        async def closing() -> None:
            try:
                await batches.aclose()
            finally:
                if kept is not None:
                    await kept.aclose()

        return Stream(
            FanOut(
                Run(self._prepared, asking, kept).work,
                batches,
                max_at_once=self.max_at_once if max_at_once is None else max_at_once,
                max_reordered=MAX_REORDERED // size,
                is_ordered=ordered,
                clock=self._clock,
                closing=closing,
                tally=count,
            )
        )

    async def _each(self, samples: Sequence[Sample]) -> list[Result | Exception]:
        """Ask about samples of any callers; what goes wrong with those of one task type is not the others'."""
        rows, bad = self._prepared(samples)
        found: dict[int, Result | Exception] = dict(bad)
        for places in groups(rows):
            kind = rows[places[0]][0]
            try:
                outcomes = await self._asking.outcomes(kind, [rows[place][1] for place in places])
            except Exception as error:
                found.update(dict.fromkeys(places, error))
            else:
                found.update(
                    (place, outcome.error or outcome.unwrap()) for place, outcome in zip(places, outcomes, strict=True)
                )
        return [found[place] for place in range(len(samples))]

    def _prepared(self, samples: Sequence[Sample]) -> tuple[dict[int, tuple[TaskType, Row]], dict[int, Exception]]:
        """Give what is to be asked and what cannot be, by place."""
        rows: dict[int, tuple[TaskType, Row]] = {}
        bad: dict[int, Exception] = {}
        for place, sample in enumerate(samples):
            try:
                kind = self._kind(sample)
                rows[place] = kind, rules.prepare(kind, sample)
            except Exception as error:
                # Also what a mapping of the user's raises: it is not the others' fault.
                bad[place] = error
        return rows, bad

    @cached_property
    def _asking(self) -> Asking:
        return Asking(self._ask, self._own, self._clock)


def check_batch(max_batch: object) -> int:
    """Give a batch size back if it can work; raises InvalidArgument."""
    if isinstance(max_batch, bool) or not isinstance(max_batch, int) or not 1 <= max_batch <= 10_000:
        raise InvalidArgument("max_batch", f"{max_batch!r} is out of range", "use 1 to 10000")
    return max_batch


def samples_in(max_batch: int) -> int:
    """Give how many samples fill a request of `max_batch` rows: the larger ones hold one of our own, too."""
    return max_batch - 1 if max_batch >= PROBED_FROM else max_batch


async def _checked(kind: TaskType, samples: Sequence[Sample]) -> list[Row]:
    """Give the rows of all samples while the loop goes on; raises InvalidData whose `.problems` name every bad one."""
    rows: list[Row] = []
    problems: list[Problem] = []
    for start in range(0, len(samples), CHECKED_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        try:
            rows += rules.prepare_all(kind, samples[start : start + CHECKED_AT_ONCE])
        except InvalidData as error:
            problems += [attrs.evolve(problem, line=start + problem.line) for problem in error.problems]
    if problems:
        raise invalid_data("predict", problems)
    return rows
