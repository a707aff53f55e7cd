"""How fast is a large data file uploaded, and what does that cost this process?

Side by side: `Task.upload`, httpx's own `files=`, aiohttp's FormData, requests and curl, each in a process of its own,
in interleaved rounds; medians. The server takes the bytes into memory that it has already. Then a smaller file from a
disk whose every read takes 20 ms, which shows who reads on the loop.
``python -m benchmarks.upload [--mb 200] [--rounds 5] [--slow-mb 8]``
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import aiohttp
import httpx
import requests

from benchmarks.file_server import TASK, FileServer
from benchmarks.promises import Promise, judge
from benchmarks.server import serving
from benchmarks.transfers import (
    MB,
    SLOW_READ,
    Cost,
    compared,
    gauged,
    gauged_program,
    gauged_without_loop,
    here,
    in_a_process,
    in_ms,
    median,
    rounds,
    show,
    show_cost,
    slow_down,
    unjudged,
)
from gts_async import AsyncSession

LEAST_RATIO = 1.7
MOST_GROWTH = 8.0
MOST_STALL = 10.0
"""What is promised: times the rate of httpx's `files=`; MB of memory; ms that the loop is late in 99 of 100 ticks."""

TIMES = 5
"""Uploads of a file that are measured as one: a single one is over in a tenth of a second."""

ENOUGH = 100
"""MB from which on that is promised."""

OURS, HTTPX, AIOHTTP, REQUESTS, CURL = "gts_async", "httpx files=", "aiohttp", "requests", "curl"

PATH = "/api/upfiles/"


async def ours(url: str, small: str, path: str) -> Cost:
    async with AsyncSession(engine=url) as session:
        task = session.task(TASK)
        await task.upload(small, check=False)
        return await gauged(os.path.getsize(path), lambda: task.upload(path, check=False), TIMES)


async def by_httpx(url: str, small: str, path: str) -> Cost:
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:

        async def upload(path: str) -> None:
            with open(path, "rb") as file:
                answer = await client.post(PATH, data={"task_id": TASK}, files={"files": file})
            answer.raise_for_status()

        await upload(small)
        return await gauged(os.path.getsize(path), lambda: upload(path), TIMES)


async def by_aiohttp(url: str, small: str, path: str) -> Cost:
    async with aiohttp.ClientSession(url) as client:

        async def upload(path: str) -> None:
            with open(path, "rb") as file:
                form = aiohttp.FormData({"task_id": TASK})
                form.add_field("files", file, filename=Path(path).name)
                async with client.post(PATH, data=form) as answer:
                    answer.raise_for_status()
                    await answer.read()

        await upload(small)
        return await gauged(os.path.getsize(path), lambda: upload(path), TIMES)


async def by_requests(url: str, small: str, path: str) -> Cost:
    with requests.Session() as client:

        def upload(path: str) -> None:
            with open(path, "rb") as file:
                client.post(url + PATH, data={"task_id": TASK}, files={"files": file}, timeout=60).raise_for_status()

        upload(small)
        return gauged_without_loop(os.path.getsize(path), lambda: upload(path), TIMES)


async def by_curl(url: str, small: str, path: str) -> Cost:
    form = ("-F", f"task_id={TASK}", "-F", f"files=@{path}")
    return gauged_program(os.path.getsize(path), ("curl", "-sS", "--fail", "-H", "Expect:", *form, url + PATH), TIMES)


WAYS = {OURS: ours, HTTPX: by_httpx, AIOHTTP: by_aiohttp, REQUESTS: by_requests, CURL: by_curl}


def promises(quick: Mapping[str, Sequence[Cost]], slow: Mapping[str, Sequence[Cost]], taken: bool) -> list[Promise]:
    """Judge what was measured; figures of small files are not."""
    figures = [
        *compared(
            quick,
            HTTPX,
            told=(CURL,),
            least_ratio=LEAST_RATIO,
            most_growth=MOST_GROWTH,
            most_stall=MOST_STALL,
        ),
        Promise.at_most("the same with a slow disk", in_ms(median(slow[OURS]).stall), MOST_STALL),
    ]
    if quick[OURS][0].size < ENOUGH * TIMES * MB:
        figures = unjudged(figures)
    return [Promise("the server has the file as it is on the disk", str(taken), "True", taken), *figures]


def main() -> int:
    """Measure, print the tables and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slow-mb", type=int, default=8)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(partial(FileServer, max(options.mb, options.slow_mb) * MB)) as server,
    ):
        small, large, slow = (Path(folder, name) for name in ("small.json", "large.json", "slow.json"))
        for path, size in ((small, MB // 10), (large, options.mb * MB), (slow, options.slow_mb * MB)):
            path.write_bytes(os.urandom(size))
        runs = rounds(options.rounds, here(WAYS), "benchmarks.upload", server.url, str(small), str(large))
        in_a_process("benchmarks.upload", OURS, server.url, str(small), str(large))
        taken = server.ask(FileServer.has_taken, str(large))
        slow_runs = rounds(
            options.rounds, (OURS, HTTPX, AIOHTTP), "benchmarks.upload", server.url, str(small), str(slow), "--slow"
        )
    show(f"{options.mb} MB up, {options.rounds} rounds, medians", runs)
    show(f"{options.slow_mb} MB from a disk whose reads take {SLOW_READ * 1e3:.0f} ms each", slow_runs)
    title = "uploads" if options.mb >= ENOUGH else f"uploads; figures are not judged below {ENOUGH} MB"
    return judge(title, promises(runs, slow_runs, taken))


def one(way: str, url: str, small: str, path: str, *options: str) -> None:
    """Do what a process of its own is for."""
    if options:
        slow_down(path)
    show_cost(asyncio.run(WAYS[way](url, small, path)))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in WAYS:
        one(*sys.argv[1:])
    else:
        raise SystemExit(main())
