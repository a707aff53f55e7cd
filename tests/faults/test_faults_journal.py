"""Journals, processes, machines: killed at every step, full, damaged, shared, interrupted; and jobs that misbehave.

The processes here run against a cloud on loopback, on clocks that are fifty times as fast.
"""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import attrs
import pytest

from gts_async import AsyncSession, FileError, JobSpec, JobStatus, SystemClock, WorkFailed
from gts_async.__main__ import main
from gts_async._intent import read_spec
from gts_async._journal import JOURNAL_VERSION, LEASE, Journal
from gts_async.emulator.cloud import Cloud, CloudQuirks, Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.local.stack import EmbeddedCloud
from gts_async.sxwl.calls import create_job
from gts_async.sxwl.dialects import dialect
from gts_async.testing import EmulatorTransport, FakeClock
from gts_async.wire import Request

HOME = Path(__file__).parents[2]
SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="run")
FAST = 50.0


class Fast(SystemClock):
    """The time of day and of waits, fifty times as fast."""

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


def numbered(count, start=0):
    return [attrs.evolve(SPEC, run_command=f"run {number}") for number in range(start, start + count)]


async def collected(fan_out):
    async with fan_out as outcomes:
        return [outcome async for outcome in outcomes]


def written(path):
    """Give the job of each intent of a journal, by its command."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
        rows = journal.execute("SELECT spec, job_id FROM intents").fetchall()
    return {json.loads(spec)["run_command"]: job_id for spec, job_id in rows}


class Served:
    """A cloud on loopback, in a thread of this process; `delay` is how long the answer to a create is on its way."""

    def __init__(self):
        self.cloud = Cloud(
            ScriptedRunner(), ObjectStore(b"k", "https://store.test"), token="t", generation=Generation.GO
        )
        self.delay = 0.0
        self.creates = []
        self.lock = threading.Lock()
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                is_create = self.command == "POST" and self.path == "/api/userJob"
                answer = served.ask(self.command, self.path, dict(self.headers.items()), body)
                if is_create:
                    served.creates.append(json.loads(body).get("runCommand"))
                    time.sleep(served.delay)
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

    def ask(self, method, target, headers=None, body=b""):
        parts = urlsplit(target)
        named = tuple((name.lower(), value) for name, value in (headers or {"authorization": "Bearer t"}).items())
        with self.lock:
            return self.cloud.answer(
                Request(method, parts.path, tuple(parse_qsl(parts.query)), named, body), time.time()
            )

    def jobs(self):
        rows = json.loads(self.ask("GET", "/api/userJob?current=1&size=10000").body)["content"]
        found = {}
        for row in rows:
            found.setdefault(row.get("runCommand"), []).append(row["jobName"])
        return found

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def served():
    served = Served()
    yield served
    served.close()


@pytest.fixture
def start(tmp_path):
    """Start Python with a text and arguments; it is killed with the test if it still runs."""
    started = []

    def start(text, *arguments, given=None):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GTS_ASYNC_", "XDG_"))}
        process = subprocess.Popen(
            [sys.executable, "-c", text, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**kept, "HOME": str(tmp_path), "PYTHONPATH": str(HOME), **(given or {})},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


# L1 and F5: killed at every step

DYING = """
import asyncio, os, signal, sys, time
from datetime import UTC, datetime
import attrs, httpx
from gts_async import AsyncSession, JobSpec, SystemClock

url, journal, place, FAST = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])


class Fast(SystemClock):
    def now(self):
        return time.monotonic() * FAST

    def wall(self):
        return datetime.fromtimestamp(time.time() * FAST, UTC)

    async def sleep(self, seconds):
        await asyncio.sleep(seconds / FAST)

    def timeout(self, seconds):
        return super().timeout(None if seconds is None else seconds / FAST)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(httpx.AsyncHTTPTransport):
    creates = 0

    async def handle_async_request(self, request):
        is_third = False
        if request.method == "POST":
            self.creates += 1
            is_third = self.creates == 3
        if is_third and place == "written, not sent":
            die()
        response = await super().handle_async_request(request)
        if is_third and place == "carried out, not heard":
            die()
        if is_third and place == "heard, not noted":
            await response.aread()
            die()
        return response


def specs():
    spec = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image")
    for number in range(8):
        if number == 3 and place == "between two":
            die()
        yield attrs.evolve(spec, run_command=f"run {number}")


async def main():
    session = AsyncSession(cloud=url, token="t", clock=Fast(), transport=Deadly())
    async with session.submit_many(specs(), max_at_once=1, journal=journal) as outcomes:
        async for outcome in outcomes:
            if outcome.item.run_command == "run 2" and place == "noted, not told":
                die()


asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "has_id"),
    [
        ("L1 between two", True),
        ("L1 written, not sent", False),
        ("L1 carried out, not heard", False),
        ("L1 heard, not noted", False),
        ("L1 noted, not told", True),
    ],
)
async def test_a_batch_that_is_killed_at_any_step_goes_on_there(served, start, tmp_path, place, has_id):
    journal = tmp_path / "batch.db"
    process = start(DYING, served.url, journal, place.removeprefix("L1 "), FAST)
    assert await asyncio.to_thread(process.wait, 30) == -signal.SIGKILL
    left = written(journal)
    assert (left["run 2"] is not None) is has_id
    async with AsyncSession(cloud=served.url, token="t", clock=Fast()) as session:
        outcomes = await collected(session.submit_many(numbered(8), journal=journal))
    assert {outcome.item.run_command: [outcome.unwrap().id] for outcome in outcomes} == served.jobs()
    assert len(served.creates) == 8


# L2: a full disk, at every size

FILLING = """
import asyncio, json, resource, sys
from pathlib import Path
import attrs
from gts_async import AsyncSession, FileError, JobSpec
from gts_async.emulator.cloud import Cloud, Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.testing import EmulatorTransport, FakeClock
from gts_async.wire import Answer

SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image")
specs = [attrs.evolve(SPEC, run_command=f"run {number}") for number in range(12)]
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]


class Counting:
    def __init__(self, cloud):
        self.cloud, self.creates, self.refuses = cloud, [], True

    def answer(self, request, now):
        if request.method == "POST":
            command = json.loads(request.body)["runCommand"]
            self.creates.append(command)
            if command == "run 5" and self.refuses:
                return Answer(400, (), "余额不足".encode())
        return self.cloud.answer(request, now)


async def collected(session, journal):
    async with session.submit_many(specs, max_at_once=2, journal=journal) as outcomes:
        return [outcome async for outcome in outcomes]


async def filled(folder, limit):
    clock = FakeClock()
    store = ObjectStore(b"k", "https://store.test")
    counting = Counting(Cloud(ScriptedRunner(), store, token="t", generation=Generation.GO))
    transport = EmulatorTransport({"https://cloud.test": counting}, lambda: clock.wall().timestamp())

    def session():
        return AsyncSession(cloud="https://cloud.test/api", token="t", clock=clock, transport=transport)

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        first = await collected(session(), folder / f"{limit}.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    sent, counting.refuses = list(counting.creates), False
    second = await collected(session(), folder / f"{limit}.db")
    jobs = {}
    for listing in await session().list_jobs(size=1000):
        jobs.setdefault(listing.id, 0)
    return {
        "limit": limit,
        "sent": sent,
        "told": [o.item.run_command for o in first if not isinstance(o.error, FileError)],
        "errors": sorted({type(o.error).__name__ for o in first if o.error}),
        "then": {o.item.run_command: o.value and o.value.id for o in second},
        "jobs": sorted(jobs),
        "creates": len(counting.creates),
    }


async def main():
    for limit in range(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])):
        print(json.dumps(await filled(Path(sys.argv[1]), limit)), flush=True)


asyncio.run(main())
"""


@pytest.mark.slow
def test_l2_wherever_the_disk_is_full_nothing_is_sent_that_is_not_written_down(start, tmp_path):
    process = start(FILLING, tmp_path, 1000, 190_000, 9450)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    seen = [json.loads(line) for line in out.splitlines()]
    for one in seen:
        # Whatever was sent was told of, as a job or as a refusal of the cloud's; all else is a FileError.
        assert sorted(one["sent"]) == sorted(one["told"]), one
        assert set(one["errors"]) <= {"FileError", "QuotaExceeded"}, one
        # With room again, the next run has every job, and nothing was made twice.
        assert len(one["then"]) == 12
        assert sorted(one["then"].values()) == one["jobs"], one
    # The sizes between reach from no room at all to room for all.
    assert seen[0]["sent"] == []
    assert 0 < len([one for one in seen if 0 < len(one["sent"]) < 12]) < len(seen)
    assert len(seen[-1]["sent"]) == 12


# L3: damaged, or of another version


def another(clock, cloud):
    transport = EmulatorTransport({"https://cloud.test": cloud}, lambda: clock.wall().timestamp())
    return AsyncSession(cloud="https://cloud.test/api", token="t", clock=clock, transport=transport), transport


@pytest.fixture
def cloud():
    return Cloud(ScriptedRunner(), ObjectStore(b"k", "https://store.test"), token="t", generation=Generation.GO)


async def test_l3_a_batch_refuses_its_damaged_journal_and_goes_on_with_the_mended_one(cloud, tmp_path, capsys):
    path, clock = tmp_path / "batch.db", FakeClock()
    session, _ = another(clock, cloud)
    specs = numbered(60)
    await collected(session.submit_many(specs, journal=path))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4096)
    session, transport = another(clock, cloud)
    outcomes = await collected(session.submit_many(specs, journal=path))
    assert {type(outcome.error) for outcome in outcomes} == {FileError}
    assert f"gts-async journal check {path}" in str(outcomes[0].error)
    assert transport.seen == []
    assert await asyncio.to_thread(main, ["journal", "check", str(path)]) == 1
    assert await asyncio.to_thread(main, ["journal", "repair", str(path)]) == 0
    assert "compare" in capsys.readouterr().err
    kept = {command: job_id for command, job_id in written(path).items() if job_id is not None}
    assert 0 < len(kept) < 60
    outcomes = await collected(session.submit_many(specs, journal=path))
    told = {outcome.item.run_command: outcome.unwrap().id for outcome in outcomes}
    assert kept.items() <= told.items()
    sent = [request for request in transport.seen if request.method == "POST"]
    assert len(sent) == 60 - len(kept)


@pytest.mark.parametrize("version", [JOURNAL_VERSION + 1, JOURNAL_VERSION - 1, 0])
async def test_l3_a_journal_of_another_version_is_left_alone_and_nothing_is_sent(cloud, tmp_path, version, capsys):
    path, clock = tmp_path / "batch.db", FakeClock()
    session, transport = another(clock, cloud)
    await collected(session.submit_many(numbered(2), journal=path))
    with closing(sqlite3.connect(path)) as journal:
        journal.execute(f"PRAGMA user_version={version}")
    before = path.read_bytes()
    transport.seen.clear()
    outcomes = await collected(session.submit_many(numbered(3), journal=path))
    assert {type(outcome.error) for outcome in outcomes} == {FileError}
    assert "left alone" in str(outcomes[0].error)
    assert transport.seen == []
    for command in ("check", "repair"):
        assert await asyncio.to_thread(main, ["journal", command, str(path)]) != 0
    assert path.read_bytes() == before


# L4 and F6: shared


async def test_l4_batches_of_one_session_and_of_others_share_a_journal_of_equal_specs(cloud, tmp_path):
    clock = FakeClock()
    (first, _), (second, _) = another(clock, cloud), another(clock, cloud)
    specs = [SPEC] * 60
    runs = await asyncio.gather(
        *(
            collected(session.submit_many(specs, journal=tmp_path / "batch.db", max_at_once=7))
            for session in (first, first, second)
        )
    )
    ids = {listing.id for listing in await first.list_jobs(size=1000)}
    assert len(ids) == 60
    for run in runs:
        assert sorted(outcome.unwrap().id for outcome in run) == sorted(ids)


async def test_l4_those_who_make_a_journal_at_the_same_moment_all_find_it_a_good_one(tmp_path):
    for number in range(12):
        books = [Journal(tmp_path / f"{number}.db", time.time) for _ in range(5)]
        entries = await asyncio.gather(*(book.begin(book.key(SPEC), SPEC, None) for book in books))
        assert [entry.is_new for entry in entries].count(True) == 1
        for book in books:
            await book.aclose()


class Suspended(FakeClock):
    """A clock that stands still with the whole process for a minute, once, right before a create is sent.

    `meanwhile` is called at the end of that minute: it does what another process has done by then.
    """

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.meanwhile = None

    def wall(self):
        # The journal asks on the loop when an intent, which is on disk, goes out.
        if self.meanwhile is not None and threading.current_thread() is threading.main_thread() and self.path.exists():
            with closing(sqlite3.connect(self.path)) as journal, contextlib.suppress(sqlite3.OperationalError), journal:
                for key, spec in journal.execute("SELECT key, spec FROM intents WHERE job_id IS NULL").fetchall():
                    meanwhile, self.meanwhile = self.meanwhile, None
                    self._now += 60.0
                    meanwhile(journal, key, read_spec(spec))
        return super().wall()


@pytest.mark.parametrize("ends", ["killed", "well"])
async def test_l4_who_stood_still_for_longer_than_his_lease_does_not_send_what_another_has_taken(cloud, tmp_path, ends):
    path = tmp_path / "batch.db"
    clock = Suspended(path)
    session, transport = another(clock, cloud)
    taken = []

    def meanwhile(journal, key, spec):
        now = clock.wall().timestamp()
        headers = (("authorization", "Bearer t"), ("content-type", "application/json"))
        body = create_job(dialect("2023-12"), spec).request.body
        answer = cloud.answer(Request("POST", "/api/userJob", (), headers, body), now)
        taken.append(json.loads(answer.body)["job_id"])
        if ends == "killed":
            statement = "UPDATE intents SET owner = 'another', lease_until = ? WHERE key = ?"
            journal.execute(statement, (now + LEASE, key))
        else:
            statement = "UPDATE intents SET owner = NULL, lease_until = 0, job_id = ? WHERE key = ?"
            journal.execute(statement, (taken[0], key))

    clock.meanwhile = meanwhile
    (outcome,) = await collected(session.submit_many([SPEC], journal=path))
    assert taken == [outcome.unwrap().id]
    assert [request for request in transport.seen if request.method == "POST"] == []


async def test_l4_who_stood_still_and_lost_nothing_by_it_sends_on(cloud, tmp_path):
    path = tmp_path / "batch.db"
    clock = Suspended(path)
    session, transport = another(clock, cloud)
    clock.meanwhile = lambda journal, key, spec: None
    (outcome,) = await collected(session.submit_many([SPEC], journal=path))
    assert clock.meanwhile is None
    assert [outcome.unwrap().id] == [listing.id for listing in await session.list_jobs()]
    assert len([request for request in transport.seen if request.method == "POST"]) == 1


# L6, L7: interrupted on the command line

COMMAND = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from gts_async.__main__ import main; sys.exit(main())"
)
SUBMIT = ("job", "submit", "--gpu-type", "NVIDIA-GeForce-RTX-3090", "--image-path", "line-fit:1")


@pytest.mark.slow
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGTERM], [signal.SIGINT], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM, signal.SIGINT]],
    ids=["L6 SIGTERM", "L6 SIGINT", "L7 a second Ctrl-C", "L7 Ctrl-C after SIGTERM"],
)
def test_a_submission_that_is_interrupted_on_its_way_is_finished_and_told(served, start, signals):
    served.delay = 0.3
    process = start(COMMAND, *SUBMIT, given={"GTS_ASYNC_CLOUD": served.url, "GTS_ASYNC_TOKEN": "t"})
    while not served.creates and process.poll() is None:
        time.sleep(0.005)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.02)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    ((job_id,),) = served.jobs().values()
    assert f"{job_id} goes on" in told
    assert len(served.creates) == 1


# L8: jobs that misbehave, in the embedded cloud

QUICK = CloudQuirks(agent_period=0.05)


def zombies():
    """Give the children of this process that have ended and were not reaped."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = place.read_text().rpartition(")")[2].split()[:2]
            if state == "Z" and int(parent) == os.getpid():
                found.append(place.parent.name)
    return found


@pytest.fixture
async def embedded(tmp_path):
    """Give an embedded cloud with real processes, and a session on it that looks often."""
    async with (
        EmbeddedCloud(tmp_path / "jobs", quirks=QUICK) as cloud,
        AsyncSession(cloud=cloud.url, token=cloud.token, clock=Fast()) as session,
    ):
        yield cloud, session


def script(folder, text):
    path = folder / "work.py"
    path.write_text(text)
    return f"{sys.executable} {path}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "import os, signal; os.killpg(0, signal.SIGKILL)",
    ],
    ids=["L8 killed", "L8 crashed", "L8 its whole group killed"],
)
async def test_a_job_whose_process_is_killed_fails_and_is_reaped(embedded, tmp_path, text):
    _, session = embedded
    job = await session.submit(attrs.evolve(SPEC, run_command=script(tmp_path, text)))
    with pytest.raises(WorkFailed) as caught:
        await job.wait()
    assert caught.value.last_look.status is JobStatus.FAILED
    assert zombies() == []


@pytest.mark.slow
async def test_l8_a_jobs_zombies_and_orphans_end_with_it(embedded, tmp_path):
    _, session = embedded
    text = (
        "import os, time\n"
        "from pathlib import Path\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        os._exit(3)\n"
        "orphan = os.fork()\n"
        "if orphan == 0:\n"
        "    time.sleep(60)\n"
        f"Path({str(tmp_path / 'orphan')!r}).write_text(str(orphan))\n"
        "os._exit(7)\n"
    )
    job = await session.submit(attrs.evolve(SPEC, run_command=script(tmp_path, text)))
    with pytest.raises(WorkFailed):
        await job.wait()
    orphan = Path("/proc") / (tmp_path / "orphan").read_text()
    async with asyncio.timeout(60):
        while orphan.exists() and "State:\tZ" not in (orphan / "status").read_text():
            await asyncio.sleep(0.01)
    assert zombies() == []


@pytest.mark.slow
async def test_l8_a_job_that_prints_a_hundred_megabytes_keeps_the_end_of_it(embedded, tmp_path):
    _, session = embedded
    text = "import sys\nfor n in range(100): sys.stdout.write(f'{n:07d}\\n' * (1 << 17))\nprint('the end')\n"
    job = await session.submit(attrs.evolve(SPEC, run_command=script(tmp_path, text)))
    assert (await job.wait()).status is JobStatus.SUCCEEDED
    logs = list((tmp_path / "jobs").glob(f"**/{job.id}/output.log*"))
    assert sum(log.stat().st_size for log in logs) <= 1 << 20
    assert any(log.read_bytes().endswith(b"the end\n") for log in logs)
