"""What does one status call cost this process, against httpx used as it comes?

Client CPU (user + system) per request, in µs: medians over interleaved rounds, so that a change of the machine's speed
meets all of them. ``python -m benchmarks.requests_cpu [--rounds 5] [--requests 400]``
"""

import argparse
import asyncio
import resource
import statistics
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import httpx

from benchmarks.server import Echo, serving
from gts_async import AsyncSession, Limits

Run = Callable[[str, int, int], Coroutine[Any, Any, None]]
BODY = {"task_id": "tnews"}


async def _spread(ask: Callable[[], Awaitable[object]], requests: int, at_once: int) -> None:
    async def worker(share: int) -> None:
        for _ in range(share):
            await ask()

    await asyncio.gather(*(worker(requests // at_once) for _ in range(at_once)))


async def ours(url: str, requests: int, at_once: int) -> None:
    async with AsyncSession(engine=url, limits=Limits(max_connections=at_once)) as session:
        task = session.task("tnews")
        await _spread(task.status, requests, at_once)


async def httpx_default(url: str, requests: int, at_once: int) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        await _spread(lambda: client.post("/api/check_task_status", json=BODY), requests, at_once)


async def httpx_tuned(url: str, requests: int, at_once: int) -> None:
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with httpx.AsyncClient(base_url=url, limits=limits, trust_env=False) as client:
        await _spread(lambda: client.post("/api/check_task_status", json=BODY), requests, at_once)


CLIENTS: dict[str, Run] = {"gts_async": ours, "httpx, default": httpx_default, "httpx, limits = at once": httpx_tuned}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(run: Run, url: str, requests: int, at_once: int) -> float:
    """Give µs of CPU per request."""
    before = _cpu()
    asyncio.run(run(url, requests, at_once))
    return (_cpu() - before) / requests * 1e6


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=640)
    options = parser.parse_args()
    print(f"{'at once':>8}  " + "  ".join(f"{name:>24}" for name in CLIENTS))
    with serving(Echo) as server:
        for at_once in (1, 16, 64):
            costs: dict[str, list[float]] = {name: [] for name in CLIENTS}
            for _ in range(options.rounds):
                for name, run in CLIENTS.items():
                    costs[name].append(measure(run, server.url, options.requests, at_once))
            first = statistics.median(costs["gts_async"])
            cells = (f"{statistics.median(c):9.0f} µs {statistics.median(c) / first:6.2f} ×" for c in costs.values())
            print(f"{at_once:>8}  " + "  ".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
