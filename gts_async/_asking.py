"""Asking: how a batch of samples gets its outcomes: asked together, taken apart around bad ones, kept.

Who is asked, and with which samples, is in `_predicting`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from gts_async._checkpoint import Checkpoint, sample_key
from gts_async._errors import MAX_TEXT, InvalidData, ServerFailed, UnexpectedAnswer, plain
from gts_async._flow.clock import Clock
from gts_async._flow.fanout import Outcome
from gts_async._flow.halving import Blame, Halving
from gts_async._flow.pulling import Chunks
from gts_async._statistics import InferenceStats
from gts_async.gts import samples as rules
from gts_async.gts.values import Result, TaskType

Sample = Mapping[str, Any]
"""What the user gives."""

Row = dict[str, object]
"""What the engine is sent for it."""

Ask = Callable[[TaskType, Sequence[Row]], Awaitable[Sequence[Result]]]
"""Sends one request and gives one result per row."""

Prepare = Callable[[Sequence[Sample]], tuple[Mapping[int, tuple[TaskType, Row]], Mapping[int, Exception]]]
"""Gives what of a batch is to be asked and what cannot be, by place."""

PAUSE = 0.15
"""Seconds before a sample is asked once more that was refused with no reason given: an engine may stumble for a moment,
as the real one does when a process that reads for it has died (`DataLoader`)."""


@attrs.frozen
class Batch:
    """Samples that travel together, and the position of the first in the whole input."""

    start: int
    samples: list[Sample]


class Asking:
    """Asks for outcomes, and remembers for each task type what was learned about who is to blame."""

    def __init__(self, ask: Ask, stats: InferenceStats, clock: Clock) -> None:
        self._ask = ask
        self._stats = stats
        self._clock = clock
        self._halvings: dict[TaskType, Halving[Row, Result]] = {}

    async def outcomes(self, kind: TaskType, rows: Sequence[Row]) -> list[Outcome[Row, Result]]:
        """Give the outcome of each row; raises what is not about one of them."""
        if (halving := self._halvings.get(kind)) is None:
            halving = Halving(partial(self._ask, kind), _blamed, _named, self._count, self._pause)
            self._halvings[kind] = halving
        return await halving.outcomes(rows)

    def _count(self) -> None:
        self._stats.retries += 1

    async def _pause(self) -> None:
        await self._clock.sleep(PAUSE)


class Run:
    """What one stream does with each of its batches."""

    def __init__(self, prepare: Prepare, asking: Asking, kept: Checkpoint | None) -> None:
        self._prepare = prepare
        self._asking = asking
        self._kept = kept

    async def work(self, batch: Batch) -> list[Outcome[Sample, Result]]:
        """Give the outcomes of a batch: those that are kept already, those that cannot be asked, the answers."""
        rows, bad = self._prepare(batch.samples)
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
        for places in groups(rows):
            outcomes = await self._asking.outcomes(rows[places[0]][0], [rows[place][1] for place in places])
            for place, outcome in zip(places, outcomes, strict=True):
                found[place] = Outcome(batch.samples[place], outcome.value, outcome.error, outcome.tries)
        return found


def groups(rows: Mapping[int, tuple[TaskType, Row]]) -> Collection[list[int]]:
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


class Batches(AsyncIterator[Batch]):
    """Chunks of samples as batches that know their position."""

    def __init__(self, source: Chunks[Sample]) -> None:
        self._source = source
        self._start = 0
        self.aclose = source.aclose

    async def __anext__(self) -> Batch:
        samples = await anext(self._source)
        self._start += len(samples)
        return Batch(self._start - len(samples), samples)
