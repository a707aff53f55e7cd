"""How fast is a large model fetched to the disk, what does that cost this process, and what does a cut cost?

Side by side: `Job.download`, httpx writing each chunk by anyio (the obvious code), the same until all is on the disk,
as we do, aiohttp writing on the loop, and curl, each in a process of its own, in interleaved rounds; medians. The
target is a new file each time. It is in memory, if that has a folder: else the disk would be measured, and most of them
do not wait for it. Then the same object is fetched once more from a store that cuts the connection again and again.
``python -m benchmarks.download [--mb 1000] [--rounds 5] [--cuts 20] [--folder /dev/shm]``
"""

import argparse
import asyncio
import filecmp
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import httpx

from benchmarks.file_server import JOB, FileServer, Sent
from benchmarks.promises import Promise, judge
from benchmarks.server import serving
from benchmarks.transfers import (
    MB,
    Cost,
    compared,
    gauged,
    gauged_program,
    here,
    in_a_process,
    rounds,
    show,
    show_cost,
    unjudged,
)
from gts_async import AsyncSession

LEAST_RATIO = 2.5
MOST_GROWTH = 16.0
MOST_STALL = 10.0
MOST_TWICE = 2 << 20
"""What is promised: times the rate of httpx and anyio; MB of memory; ms that the loop is late in 99 of 100 ticks; bytes
that a cut costs, which is what is written at once."""

ENOUGH = 200
"""MB from which on that is promised, but for what a cut costs."""

OURS, HTTPX, AIOHTTP, CURL = "gts_async", "httpx + anyio", "aiohttp", "curl"
SYNCED = f"{HTTPX}, synced"
MEMORY = "/dev/shm"  # noqa: S108 - a folder of its own is made in there
PACKED = "data.zip"

CHUNK = 1 << 20
"""Bytes that aiohttp writes at once."""


async def ours(url: str, folder: str, size: int) -> Cost:
    async with AsyncSession(cloud=f"{url}/api", token="any") as session:
        job = session.job(JOB)
        await job.status()
        return await gauged(size, lambda: job.download(folder, extract=False))


async def by_httpx(url: str, folder: str, size: int, *, is_synced: bool = False) -> Cost:
    async def fetch() -> None:
        async with client.stream("GET", "/model") as answer, await anyio.open_file(Path(folder, PACKED), "wb") as file:
            async for piece in answer.aiter_bytes():
                await file.write(piece)
            if is_synced:
                await file.flush()
                await anyio.to_thread.run_sync(os.fsync, file.wrapped.fileno())

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        return await _after_a_status(client, size, fetch)


async def _after_a_status(client: httpx.AsyncClient, size: int, fetch: Callable[[], Awaitable[object]]) -> Cost:
    (await client.post("/api/userJob/job_status", data={"job_id": JOB})).raise_for_status()
    return await gauged(size, fetch)


async def by_aiohttp(url: str, folder: str, size: int) -> Cost:
    async def fetch() -> None:
        async with client.get("/model") as answer:
            with open(Path(folder, PACKED), "wb") as file:
                async for piece in answer.content.iter_chunked(CHUNK):
                    file.write(piece)

    async with aiohttp.ClientSession(url) as client:
        async with client.post("/api/userJob/job_status", data={"job_id": JOB}) as answer:
            await answer.read()
        return await gauged(size, fetch)


async def by_curl(url: str, folder: str, size: int) -> Cost:
    return gauged_program(size, ("curl", "-sS", "--fail", "-o", str(Path(folder, PACKED)), f"{url}/model"))


Way = Callable[[str, str, int], Coroutine[Any, Any, Cost]]
WAYS: dict[str, Way] = {
    OURS: ours,
    HTTPX: by_httpx,
    SYNCED: partial(by_httpx, is_synced=True),
    AIOHTTP: by_aiohttp,
    CURL: by_curl,
}


def promises(runs: Mapping[str, Sequence[Cost]], cuts: int, cut: Sent, is_same: bool) -> list[Promise]:
    """Judge what was measured; figures of small files are not."""
    figures = compared(
        runs,
        HTTPX,
        told=(SYNCED, CURL),
        least_ratio=LEAST_RATIO,
        most_growth=MOST_GROWTH,
        most_stall=MOST_STALL,
    )
    if runs[OURS][0].size < ENOUGH * MB:
        figures = unjudged(figures)
    return [
        *figures,
        Promise("after all cuts the file is the object", str(is_same), "True", is_same),
        Promise.exactly("cuts", len(cut.twice), cuts),
        Promise.at_most("bytes that one cut had sent twice", max(cut.twice, default=0), MOST_TWICE),
    ]


def main() -> int:
    """Measure, print the tables and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument(
        "--folder", default=MEMORY if os.access(MEMORY, os.W_OK) else None, help="where it is fetched to"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        model, target = Path(folder, "model"), Path(folder, "target")
        target.mkdir()
        with model.open("wb") as file:
            for _ in range(options.mb):
                file.write(os.urandom(MB))
        with serving(partial(FileServer, path=str(model))) as server:
            to = (server.url, str(target), str(model.stat().st_size))
            runs = rounds(options.rounds, here(WAYS), "benchmarks.download", *to)
            server.ask(FileServer.cut, options.cuts)
            with_cuts = in_a_process("benchmarks.download", OURS, *to, "keep")
            cut = server.ask(FileServer.sent)
        is_same = filecmp.cmp(model, target / PACKED, shallow=False)
    show(f"{options.mb} MB down, {options.rounds} rounds, medians", {**runs, f"{OURS}, cuts": [with_cuts]})
    title = "downloads" if options.mb >= ENOUGH else f"downloads; figures are not judged below {ENOUGH} MB"
    return judge(title, promises(runs, options.cuts, cut, is_same))


def one(way: str, url: str, folder: str, size: str, *options: str) -> None:
    """Do what a process of its own is for."""
    cost = asyncio.run(WAYS[way](url, folder, int(size)))
    target = Path(folder, PACKED)
    assert target.stat().st_size == int(size)
    if not options:
        target.unlink()
    show_cost(cost)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in WAYS:
        one(*sys.argv[1:])
    else:
        raise SystemExit(main())
