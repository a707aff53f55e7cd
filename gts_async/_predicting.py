"""Predicting: how samples become results: checked, batched, sent, taken apart around bad ones, streamed, kept.

Who is asked is for the two that inherit it: one engine (``_inference.py``) or several (``_pool.py``).
"""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import attrs

from gts_async._checkpoint import Checkpoint, sample_key
from gts_async._errors import (
    MAX_TEXT,
    GtsAsyncError,
    InvalidArgument,
    InvalidData,
    Problem,
    ServerFailed,
    TimedOut,
    UnexpectedAnswer,
    plain,
)
from gts_async._flow.batching import Batcher
from gts_async._flow.clock import Clock
from gts_async._flow.fanout import FanOut, Outcome
from gts_async._flow.halving import Blame, Halving
from gts_async._flow.pulling import Chunks, chunks, gathered
from gts_async._flow.stream import Stream
from gts_async._net.config import check_seconds
from gts_async._statistics import InferenceStats
from gts_async.gts import samples as rules
from gts_async.gts.identity import PROBED_FROM
from gts_async.gts.rows import invalid_data
from gts_async.gts.values import Result, TaskType

Sample = Mapping[str, Any]
"""What the user gives."""

Row = dict[str, object]
"""What the engine is sent for it."""

MAX_BATCH = 64
"""Rows in one request, unless told otherwise."""

CHECKED_AT_ONCE = 1000
"""Samples that are checked before the loop gets another turn: some milliseconds."""

PAUSE = 0.15
"""Seconds before a sample is asked once more that was refused with no reason given: an engine may stumble for a moment,
as the real one does when a process that reads for it has died (`DataLoader`)."""

MAX_REORDERED = 4096
"""Samples that an ordered stream may have outcomes of while an earlier one is still being worked on."""


@attrs.frozen
class Batch:
    """Samples that travel together, and the position of the first in the whole input."""

    start: int
    samples: list[Sample]


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

    async def predict(self, samples: Iterable[Sample], *, timeout: float | None = None) -> list[Result]:
        """Give one result per sample, in their order; many samples go in several requests.

        Raises InvalidData listing every sample that could not be asked, before anything is sent; `timeout` (seconds)
        bounds each request. Other tasks get their turns meanwhile: a sample must not change until it is answered, the
        list that holds it may.
        """
        self._opened()
        asked = await gathered(samples)
        if not asked:
            return []
        kind = self._kind(asked[0])
        rows, size = await _checked(kind, asked), samples_in(self.max_batch)
        parts = [
            places[start : start + size]
            for places in _groups({place: (kind, row) for place, row in enumerate(rows)})
            for start in range(0, len(places), size)
        ]

        async def work(places: list[int]) -> list[Outcome[int, Result]]:
            results = await self._ask(kind, [rows[place] for place in places], timeout)
            return [Outcome(place, result) for place, result in zip(places, results, strict=True)]

        async with FanOut(work, parts, max_at_once=self.max_at_once, is_ordered=False) as outcomes:
            found = {outcome.item: outcome.unwrap() async for outcome in outcomes}
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
        """
        self._opened()
        size = self.max_batch if max_batch is None else check_batch(max_batch)
        kept = Checkpoint(checkpoint, self.id, self._fingerprint) if checkpoint is not None else None
        batches = _Batches(chunks(samples, samples_in(size)))

        async def closing() -> None:
            try:
                await batches.aclose()
            finally:
                if kept is not None:
                    await kept.aclose()

        return Stream(
            FanOut(
                _Run(self, kept).work,
                batches,
                max_at_once=self.max_at_once if max_at_once is None else max_at_once,
                max_reordered=MAX_REORDERED // size,
                is_ordered=ordered,
                clock=self._clock,
                closing=closing,
            )
        )

    async def _each(self, samples: Sequence[Sample]) -> list[Result | Exception]:
        """Ask about samples of any callers; what goes wrong with those of one task type is not the others'."""
        rows, bad = self._prepared(samples)
        found: dict[int, Result | Exception] = dict(bad)
        for places in _groups(rows):
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
    def _asking(self) -> "_Asking":
        return _Asking(self)


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


class _Asking:
    """Asks for outcomes, and remembers for each task type what was learned about who is to blame."""

    def __init__(self, predicting: Predicting, *, is_kept: bool = False) -> None:
        self._predicting = predicting
        self._is_kept = is_kept
        self._halvings: dict[TaskType, Halving[Row, Result]] = {}

    async def outcomes(self, kind: TaskType, rows: Sequence[Row]) -> list[Outcome[Row, Result]]:
        """Give the outcome of each row; raises what is not about one of them."""
        if (halving := self._halvings.get(kind)) is None:
            halving = Halving(
                partial(self._predicting._ask, kind, is_kept=self._is_kept), _blamed, _named, self._count, self._pause
            )
            self._halvings[kind] = halving
        return await halving.outcomes(rows)

    def _count(self) -> None:
        self._predicting._own.retries += 1

    async def _pause(self) -> None:
        await self._predicting._clock.sleep(PAUSE)


class _Run:
    """What one stream does with each of its batches."""

    def __init__(self, predicting: Predicting, kept: Checkpoint | None) -> None:
        self._predicting = predicting
        self._kept = kept
        self._asking = _Asking(predicting, is_kept=kept is not None)

    async def work(self, batch: Batch) -> list[Outcome[Sample, Result]]:
        """Give the outcomes of a batch: those that are kept already, those that cannot be asked, the answers."""
        rows, bad = self._predicting._prepared(batch.samples)
        outcomes: dict[int, Outcome[Sample, Result]] = {
            place: Outcome(batch.samples[place], error=error, tries=0) for place, error in bad.items()
        }
        if self._kept is None:
            outcomes.update(await self._asked(batch, rows))
        else:
            keys = [sample_key(*rows[place]) if place in rows else None for place in range(len(batch.samples))]
            known = await self._kept.known(batch.start, keys)
            outcomes.update((place, Outcome(batch.samples[place], value, tries=0)) for place, value in known.items())
            asked = await self._asked(batch, {place: row for place, row in rows.items() if place not in known})
            outcomes.update(asked)
            values = {place: outcome.unwrap() for place, outcome in asked.items() if outcome.is_ok}
            await self._kept.keep(batch.start, keys, values)
        return [outcomes[place] for place in range(len(batch.samples))]

    async def _asked(
        self, batch: Batch, rows: Mapping[int, tuple[TaskType, Row]]
    ) -> dict[int, Outcome[Sample, Result]]:
        found: dict[int, Outcome[Sample, Result]] = {}
        for places in _groups(rows):
            outcomes = await self._asking.outcomes(rows[places[0]][0], [rows[place][1] for place in places])
            for place, outcome in zip(places, outcomes, strict=True):
                found[place] = Outcome(batch.samples[place], outcome.value, outcome.error, outcome.tries)
        return found


def _groups(rows: Mapping[int, tuple[TaskType, Row]]) -> Collection[list[int]]:
    """Give the places of rows that may travel together: those of one task type, and blank ones apart."""
    found: dict[tuple[TaskType, bool], list[int]] = {}
    for place, (kind, row) in rows.items():
        found.setdefault((kind, rules.is_blank(kind, row)), []).append(place)
    return found.values()


def _blamed(error: Exception) -> Blame:
    """Tell whom the engine's refusal of a request is about.

    It answers 500 to samples that its pipelines stumble over, but also when its model or memory is gone: who has asked
    it something else since knows better. Any other 5xx is somebody's in between. An answer that it cannot give may be
    about one sample.
    """
    if isinstance(error, InvalidData):
        return Blame.ITEM
    if isinstance(error, ServerFailed) and error.is_about_request:
        return Blame.ITEMS
    if isinstance(error, UnexpectedAnswer) or (isinstance(error, ServerFailed) and error.status == 500):
        return Blame.DOUBTFUL
    return Blame.SERVER


def _named(error: Exception, rows: Sequence[Row]) -> list[int]:
    """Give the rows that the engine's refusal shows: the first bad one, as Python prints it (`check_rows`)."""
    said = error.message if isinstance(error, InvalidData) else ""
    if not said.startswith("样本【"):
        return []
    # What `plain` changes leaves a mark; without one the rows need not go through it, which takes a while.
    shown = plain if "<redacted>" in said or "\\x" in said else str
    found = [place for place, row in enumerate(rows) if said.startswith(shown(f"样本【{row}】格式错误")[:MAX_TEXT])]
    # What is shown of two long ones may be the same.
    return found if all(rows[place] == rows[found[0]] for place in found) else []


class _Batches(AsyncIterator[Batch]):
    """Chunks of samples as batches that know their position."""

    def __init__(self, source: Chunks[Sample]) -> None:
        self._source = source
        self._start = 0
        self.aclose = source.aclose

    async def __anext__(self) -> Batch:
        samples = await anext(self._source)
        self._start += len(samples)
        return Batch(self._start - len(samples), samples)
