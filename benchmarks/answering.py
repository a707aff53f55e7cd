"""Runs of the benchmark of answers: what they ask, how they are judged, and what they are told by.

What is asked, and what is right, is in `trained`; who answers, in `touchy_engine`.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs

from benchmarks.touchy_engine import Asked, Process, TouchyEngine
from benchmarks.trained import ERRORS, MAIN, PIPELINES, Answer, Bad, Samples, number_of, told
from gts_async import AsyncSession, GtsAsyncError, InferencePool, InferenceSession

MAX_BATCH = 64

Inference = InferenceSession | InferencePool


@attrs.frozen
class Failure:
    """The error of one sample: its class, its HTTP status if it has one, and all that it says."""

    name: str
    status: int | None
    text: str

    @classmethod
    def of(cls, error: Exception | None) -> "Failure | None":
        """Give the same of an error, None if there is none."""
        if error is None:
            return None
        text = "; ".join([str(error), *getattr(error, "__notes__", ())])
        return cls(type(error).__name__, getattr(error, "status", None), text)

    def is_of(self, bad: Bad, number: int) -> bool:
        """Tell whether it is what such a sample must end with, and not another one's error."""
        if self.name != ERRORS[bad].__name__ or (bad is Bad.CRASH and self.status != 500):
            return False
        return bad not in (Bad.NAMED, Bad.UNNAMED) or f"{number:06}" in self.text


FAULTS = ("wrong", "blamed", "spared", "misjudged", "displaced")


@attrs.define
class Verdict:
    """What came of samples: how many are right, and the numbers of those with whom something is not.

    `wrong` have another answer than the model gives, `blamed` an error though nothing is wrong with them, `spared` an
    answer though something is, `misjudged` another error than their own, `twice` more than one outcome, `missing` none;
    `displaced` came in another order than they were given in, where that was promised. `pulled` is how many
    samples were given to be asked, where that is not all of them once. `before` counts the outcomes of other streams.
    With `is_500_likely` any bad sample may end with a 500: the engine says that now and then, whatever it is asked.
    """

    samples: Samples
    right_answers: Sequence[Answer | None]
    is_ordered: bool = False
    is_500_likely: bool = False
    right: int = 0
    failed: int = 0
    wrong: list[int] = attrs.field(factory=list)
    blamed: list[int] = attrs.field(factory=list)
    spared: list[int] = attrs.field(factory=list)
    misjudged: list[int] = attrs.field(factory=list)
    displaced: list[int] = attrs.field(factory=list)
    words: list[str] = attrs.field(factory=list)
    pulled: int = 0
    given: int = 0
    before: int = 0
    repeated: list[int] = attrs.field(factory=list)
    _times: dict[int, int] = attrs.field(factory=dict)

    def note(self, item: object, answer: Answer | None, failure: Failure | None) -> None:
        """Judge one outcome."""
        number = number_of(item)
        self._times[number] = self._times.get(number, 0) + 1
        if self.is_ordered and number != self.given % self.samples.count:
            self.displaced.append(number)
        self.given += 1
        bad = self.samples.bad.get(number)
        if bad is None and failure is not None:
            self.blamed.append(number)
            self.words.append(f"{number}: {failure}")
        elif bad is None and answer == self.right_answers[number]:
            self.right += 1
        elif bad is None:
            self.wrong.append(number)
            self.words.append(f"{number}: {answer}, not {self.right_answers[number]}")
        elif failure is None:
            self.spared.append(number)
        elif failure.is_of(bad, number) or (self.is_500_likely and failure.status == 500):
            self.failed += 1
        else:
            self.misjudged.append(number)
            self.words.append(f"{number}, {bad}: {failure}")

    def add(self, other: "Verdict") -> None:
        """Take over what another stream of the same samples came to; that it gave the same again is no fault."""
        self.repeated += other.twice
        self.right += other.right
        self.failed += other.failed
        self.before += other.given
        for what in FAULTS:
            getattr(self, what).extend(getattr(other, what))
        self.words += other.words

    @property
    def missing(self) -> list[int]:
        """The numbers of samples without an outcome."""
        return [number for number in range(self.samples.count) if number not in self._times]

    @property
    def twice(self) -> list[int]:
        """The numbers of samples with more outcomes than they were asked for."""
        passes, rest = divmod(self.pulled or self.samples.count, self.samples.count)
        return self.repeated + [n for n, times in self._times.items() if times > passes + (n < rest)]

    @property
    def faults(self) -> int:
        """How many samples something is not right with, apart from those that have no outcome."""
        return sum(len(getattr(self, what)) for what in FAULTS) + len(self.twice)


@attrs.define
class Run:
    """What came of one run: a verdict, what the engines saw, the error that ended it if one did, and how many kills.

    It `is_to_end` if an error may end it; it `is_short` of an engine if one that was well again was asked no more.
    """

    name: str
    verdict: Verdict
    seconds: float = 0.0
    asked: Asked = attrs.field(factory=Asked)
    ended: str = ""
    is_to_end: bool = False
    is_short: bool = False
    kills: int = 0
    note: str = ""

    @property
    def missing(self) -> int:
        """How many samples have no outcome, if the stream is not one that may end with an error."""
        return 0 if self.ended and self.is_to_end else len(self.verdict.missing)

    def __str__(self) -> str:
        v = self.verdict
        parts = [f"{self.seconds:.1f} s", f"{v.right:,} right", f"{v.failed:,} failed as they should"]
        parts += [f"{v.faults} faults"] * (v.faults > 0) + [f"{self.missing} missing"] * (self.missing > 0)
        parts += [f"{self.kills} kills"] * (self.kills > 0)
        parts += [f"{self.asked.requests:,} requests, {self.asked.failures} of them answered 500"]
        parts += [self.note] * (self.note != "") + [f"ended by {self.ended[:200]}"] * (self.ended != "")
        return "; ".join(parts)


@attrs.frozen(kw_only=True)
class Bench:
    """What all runs need, and what came of them: engines, samples and what is right for them."""

    folder: Path
    engines: Sequence[Process]
    samples: Samples
    right: Sequence[Answer | None]
    share: float
    seed: int
    engine_kills: int
    program_kills: int
    runs: list[Run] = attrs.field(factory=list)
    prices: dict[Bad, float] = attrs.field(factory=dict)

    @property
    def few(self) -> int:
        """The number of samples in runs where there are only some: a fifth of all."""
        return max(2 * MAX_BATCH, self.samples.count // 5)

    def poisoned(self, count: int | None = None, kinds: Sequence[Bad] = tuple(Bad)) -> Samples:
        """Give the samples, or the first of them, with bad ones among them."""
        return Samples.poisoned(MAIN, count or self.samples.count, self.share, kinds, self.seed)

    @asynccontextmanager
    async def open(self, engines: int = 1, task: str = MAIN) -> AsyncIterator[Inference]:
        """Open a session at one engine, or a pool of several."""
        engine_type, task_type = PIPELINES[task]
        async with AsyncExitStack() as stack:
            sessions = []
            for engine in self.engines[:engines]:
                session = await stack.enter_async_context(AsyncSession(engine=engine.url))
                handle = session.task(task, task_type=task_type, engine_type=engine_type)
                sessions.append(handle.serve(max_batch=MAX_BATCH))
            inference: Inference = sessions[0] if engines == 1 else InferencePool(sessions)
            yield await stack.enter_async_context(inference)

    @contextmanager
    def run(
        self,
        name: str,
        samples: Samples | None = None,
        right: Sequence[Answer | None] | None = None,
        *,
        is_ordered: bool = False,
    ) -> Iterator[Run]:
        """Give a run to be filled in; an error that ends it is noted."""
        self._seen()
        run = Run(name, Verdict(samples or self.samples, right or self.right, is_ordered=is_ordered))
        began = time.perf_counter()
        try:
            yield run
        except GtsAsyncError as error:
            run.ended = str(Failure.of(error))
        run.seconds = time.perf_counter() - began
        run.asked += self._seen()
        self.runs.append(run)
        print(f"{name}: {run}", flush=True)
        for words in run.verdict.words[:3]:
            print(f"  {words[:500]}", flush=True)

    def _seen(self) -> Asked:
        return sum((engine.ask(TouchyEngine.seen) for engine in self.engines), Asked())


async def each(inference: Inference, verdict: Verdict) -> None:
    """Await `predict_one` for all at once."""

    async def ask(sample: Any) -> None:
        try:
            answer = told(await inference.predict_one(sample))
        except GtsAsyncError as error:
            verdict.note(sample, None, Failure.of(error))
        else:
            verdict.note(sample, answer, None)

    await asyncio.gather(*map(ask, verdict.samples))


async def stream(inference: Inference, verdict: Verdict, is_enough: Callable[[], bool] = lambda: True) -> None:
    """Stream all samples, and again from the first on until it is enough."""

    def given() -> Iterator[Any]:
        for number in itertools.count():
            if number >= verdict.samples.count and number % MAX_BATCH == 0 and is_enough():
                return
            verdict.pulled = number + 1
            yield verdict.samples.sample(number)

    samples = verdict.samples if is_enough() else given()
    async with inference.stream(samples, ordered=verdict.is_ordered) as outcomes:
        async for outcome in outcomes:
            verdict.note(outcome.item, told(outcome.value), Failure.of(outcome.error))
