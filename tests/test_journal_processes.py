"""Journals of real processes that are killed, stopped or run side by side, against a cloud on loopback.

The processes' clocks run twenty times as fast, so that leases and waits for listings pass in tenths of a second.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from gts_async.emulator.cloud import Cloud
from gts_async.emulator.cloud_quirks import Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.wire import Request

HOME = Path(__file__).parents[1]

pytestmark = pytest.mark.slow

BATCH = """
import asyncio, json, sys
from datetime import UTC, datetime
import attrs
import time
from gts_async import AsyncSession, JobSpec, SystemClock

url, journal, count, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
FAST = 20.0


class Fast(SystemClock):
    def now(self):
        return time.monotonic() * FAST

    def wall(self):
        return datetime.fromtimestamp(time.time() * FAST, UTC)

    async def sleep(self, seconds):
        await asyncio.sleep(seconds / FAST)

    def timeout(self, seconds):
        return super().timeout(None if seconds is None else seconds / FAST)

    def call_later(self, seconds, action):
        return super().call_later(seconds / FAST, action)


async def specs():
    spec = JobSpec(gpu_type="g", image_path="registry.test/image")
    for number in range(count):
        await asyncio.sleep(pause)
        yield attrs.evolve(spec, run_command=f"run {number}")


async def main():
    async with AsyncSession(cloud=url, token="t", clock=Fast()) as session:
        async with session.submit_many(specs(), max_at_once=8, journal=journal) as outcomes:
            async for outcome in outcomes:
                error = type(outcome.error).__name__ if outcome.error else None
                told = {"command": outcome.item.run_command, "id": outcome.value and outcome.value.id, "error": error}
                print(json.dumps(told), flush=True)


asyncio.run(main())
"""


class World:
    """The cloud, served from this process; `delay` is how long a create is on its way back."""

    def __init__(self):
        self.cloud = Cloud(
            ScriptedRunner(), ObjectStore(b"key", "https://store.test"), token="t", generation=Generation.GO
        )
        self.delay = 0.0
        self.creates = []
        self.lock = threading.Lock()
        world = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                parts = urlsplit(self.path)
                headers = tuple((name.lower(), value) for name, value in self.headers.items())
                request = Request(self.command, parts.path, tuple(parse_qsl(parts.query)), headers, body)
                with world.lock:
                    answer = world.cloud.answer(request, time.time())
                    if self.command == "POST":
                        world.creates.append(json.loads(body)["runCommand"])
                if self.command == "POST":
                    time.sleep(world.delay)
                with contextlib.suppress(OSError):
                    self.send_response(answer.status)
                    for name, value in answer.headers:
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(answer.body)

            do_GET = do_POST

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # a client that was killed resets its connections

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/api"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def jobs(self):
        """Give each job that the cloud has: its id, by its command."""
        request = Request("GET", "/api/userJob", (("current", "1"), ("size", "1000")), (("authorization", "Bearer t"),))
        rows = json.loads(self.cloud.answer(request, time.time()).body)["content"]
        found = {}
        for row in rows:
            found.setdefault(row["runCommand"], []).append(row["jobName"])
        return found


@pytest.fixture
def world():
    world = World()
    yield world
    world.close()


@pytest.fixture
def batch(world, tmp_path):
    """Start a batch in a process of its own; all are killed with the test."""
    started = []

    def batch(count=40, *, pause=0.0, journal=tmp_path / "batch.db"):
        arguments = [world.url, str(journal), str(count), str(pause)]
        process = subprocess.Popen(
            [sys.executable, "-c", BATCH, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HOME)},
        )
        started.append(process)
        return process

    yield batch
    for process in started:
        with process:
            process.kill()


def reached(world, count, process):
    """Wait until that many creates have come, or the process has ended by itself."""
    while len(world.creates) < count and process.poll() is None:
        time.sleep(0.001)


def outcomes(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def checked(world, told, count):
    """Every intent is one job, and every outcome tells of it."""
    jobs = world.jobs()
    assert {command: len(ids) for command, ids in jobs.items()} == {f"run {number}": 1 for number in range(count)}
    assert {outcome["command"]: [outcome["id"]] for outcome in told} == jobs


@pytest.mark.parametrize("seed", range(2))
def test_a_batch_that_is_killed_again_and_again_loses_and_doubles_nothing(world, batch, seed):
    chance = random.Random(seed)
    world.delay = 0.02
    for _ in range(3):
        process = batch(pause=0.002)
        reached(world, len(world.creates) + chance.randrange(1, 12), process)
        time.sleep(chance.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        process.wait()
    checked(world, outcomes(batch()), 40)


def test_two_processes_on_one_journal_submit_each_job_once(world, batch):
    world.delay = 0.02
    first, second = batch(pause=0.001), batch(pause=0.001)
    told = outcomes(first), outcomes(second)
    for outcome in told:
        checked(world, outcome, 40)
    assert len(world.creates) == 40


def test_one_of_two_processes_is_killed_and_the_other_goes_on_with_all(world, batch):
    world.delay = 0.05
    doomed = batch()
    reached(world, 5, doomed)
    other = batch()
    time.sleep(0.1)
    doomed.kill()
    checked(world, outcomes(other), 40)


# A program ends at once with the first SIGTERM.
@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_an_interrupted_batch_leaves_a_journal_that_the_next_run_continues(world, batch, number, times):
    world.delay = 0.02
    process = batch(pause=0.002)
    reached(world, 5, process)
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.002)
    process.communicate(timeout=60)
    assert process.returncode != 0
    checked(world, outcomes(batch()), 40)
    assert len(world.creates) == 40
