"""Ways to have many single samples predicted: httpx as it comes, the official client, `predict_one` and `stream`.

Each is handed all samples at once, and gives what it was answered for each of them, with what that took. The model is
loaded before and released after what is measured.
"""

import asyncio
import contextlib
import gc
import resource
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from itertools import zip_longest
from typing import Any
from urllib.parse import urlsplit

import attrs
import httpx
from gts_engine_client import GTSEngineClient  # type: ignore[import-untyped]

from benchmarks.fifo_engine import ENGINE_TYPE, TASK, TASK_TYPE, predicted, sample
from gts_async import AsyncSession, InferencePool, InferenceSession, Prediction
from gts_async.gts.values import Result

MAX_BATCH = 64
IN_FLIGHT = 4
"""How large our batches are at most, and how many of them a stream has in flight at an engine."""

NAIVE_IN_FLIGHT = 64
THREADS = 16
"""Requests of one sample that httpx has in flight; threads that use the official client."""

Predicted = tuple[str, tuple[float, ...]]


@attrs.define
class Run:
    """What one way took for all samples: seconds, of CPU too, and for each the seconds until its answer.

    They count from when all samples were handed over, at `began`, or from when a stream pulled the sample. `wrong` are
    samples that were answered with anything but what the engine answers for them, or not at all.
    """

    samples: int
    seconds: float = 0.0
    cpu: float = 0.0
    wrong: int = 0
    latencies: list[float] = attrs.field(factory=list, repr=False)
    began: float = 0.0

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / self.seconds

    def latency(self, share: float) -> float:
        """Give the seconds that this share of the samples took at most."""
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))]

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Measure what is done in the block.

        What is on the heap by then, most of it of the other ways, is kept from the garbage collector: 55,000 objects of
        theirs that it looks at in the midst of it cost a twentieth of all.
        """
        gc.collect()
        gc.freeze()
        cpu, self.began = cpu_seconds(), time.perf_counter()
        try:
            yield
        finally:
            self.seconds, self.cpu = time.perf_counter() - self.began, cpu_seconds() - cpu
            gc.unfreeze()

    def judge(self, answers: Sequence[Predicted | None]) -> None:
        """Count what differs from what the engine answers."""
        expected = (predicted(sample(number)["content"]) for number in range(self.samples))
        self.wrong = sum(answer != right for answer, right in zip_longest(answers, expected))


def cpu_seconds() -> float:
    """Give the CPU time of this process, that of the kernel on its behalf included."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


Way = Callable[[Sequence[str], int], Coroutine[Any, Any, Run]]
"""Has so many samples, from 0 on, predicted by the engines at these URLs."""


async def naive(urls: Sequence[str], samples: int) -> Run:
    """Post each sample by itself, with httpx as it comes."""
    run, places = Run(samples), asyncio.Semaphore(NAIVE_IN_FLIGHT)
    handed = list(map(sample, range(samples)))

    async with httpx.AsyncClient(base_url=urls[0]) as client, _loaded(client):

        async def ask(asked: Mapping[str, str]) -> Predicted:
            async with places:
                answer = await client.post("/api/predict", json={"task_id": TASK, "sentences": [asked]})
            run.latencies.append(time.perf_counter() - run.began)
            return read(answer.json())

        with run.measured():
            answers = await asyncio.gather(*map(ask, handed))
    run.judge(answers)
    return run


@contextlib.asynccontextmanager
async def _loaded(client: httpx.AsyncClient) -> AsyncIterator[None]:
    for path in ("start", "end"):
        answer = await client.post(f"/api/{path}_inference", json={"task_id": TASK})
        assert answer.json()["ret_code"] == 200, answer.text
        if path == "start":
            yield


async def official(urls: Sequence[str], samples: int) -> Run:
    """Ask by the official client, which is synchronous, in threads."""
    run, at = Run(samples), urlsplit(urls[0])
    handed = list(map(sample, range(samples)))
    client = GTSEngineClient(at.hostname, at.port)
    await asyncio.to_thread(client.start_inference, TASK)

    def ask(asked: Mapping[str, str]) -> Predicted:
        answer = read(client.inference(TASK, [asked]))
        run.latencies.append(time.perf_counter() - run.began)
        return answer

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS) as threads, run.measured():
        answers = await asyncio.gather(*(loop.run_in_executor(threads, ask, asked) for asked in handed))
    await asyncio.to_thread(client.end_inference, TASK)
    run.judge(answers)
    return run


def read(document: dict[str, Any]) -> Predicted:
    """Give what an answer to a single sample holds."""
    [label], [probabilities] = document["result"]["predictions"], document["result"]["probabilities"]
    return label, tuple(probabilities)


async def coalesced(urls: Sequence[str], samples: int) -> Run:
    """Await `predict_one` for all of them at once; by several engines through a pool."""
    run, handed = Run(samples), list(map(sample, range(samples)))
    async with _serving(urls) as inference:

        async def ask(asked: Mapping[str, str]) -> Result:
            result = await inference.predict_one(asked)
            run.latencies.append(time.perf_counter() - run.began)
            return result

        with run.measured():
            results = await asyncio.gather(*map(ask, handed))
    run.judge([told(result) for result in results])
    return run


async def streamed(urls: Sequence[str], samples: int) -> Run:
    """Stream them, in their order; a sample's time begins when it is pulled."""
    run, pulled = Run(samples), [0.0] * samples
    results: list[Result | None] = []

    def made() -> Iterator[dict[str, str]]:
        for number in range(samples):
            pulled[number] = time.perf_counter()
            yield sample(number)

    async with _serving(urls) as inference:
        with run.measured():
            stream = inference.stream(made(), max_batch=MAX_BATCH, max_at_once=IN_FLIGHT * len(urls))
            async with stream as outcomes:
                async for outcome in outcomes:
                    run.latencies.append(time.perf_counter() - pulled[len(results)])
                    results.append(outcome.value)
    run.judge([told(result) for result in results])
    return run


def told(result: Result | None) -> Predicted | None:
    """Give what a result of ours holds, None for anything but a prediction."""
    return (result.label, result.probabilities) if isinstance(result, Prediction) else None


@contextlib.asynccontextmanager
async def _serving(urls: Sequence[str]) -> AsyncIterator[InferenceSession | InferencePool]:
    async with contextlib.AsyncExitStack() as stack:
        sessions = []
        for url in urls:
            session = await stack.enter_async_context(AsyncSession(engine=url))
            task = session.task(TASK, task_type=TASK_TYPE, engine_type=ENGINE_TYPE)
            sessions.append(task.serve(max_batch=MAX_BATCH))
        serving: AbstractAsyncContextManager[InferenceSession | InferencePool]
        serving = sessions[0] if len(urls) == 1 else InferencePool(sessions)
        yield await stack.enter_async_context(serving)


NAIVE, OFFICIAL, ONE, STREAM = "httpx", "official client", "predict_one", "stream"
WAYS: dict[str, Way] = {NAIVE: naive, OFFICIAL: official, ONE: coalesced, STREAM: streamed}
