"""A session over a chaos server, and what must hold after every fault, whatever it was."""

import asyncio
import contextlib
import gc
import json
import logging
import random
import socket
import traceback
from urllib.parse import parse_qs

import attrs
import httpx
import pytest

from gts_async import AsyncSession, GtsAsyncError, Intent, JobSpec, JobStatus, RetryPolicy, Timeouts
from gts_async.emulator.backends import JobStage, Stage
from gts_async.emulator.cloud import Cloud, Generation
from gts_async.emulator.engine import Engine
from gts_async.emulator.scripted import MemoryFiles, Script, ScriptedTrainer
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.testing import ChaosServer, EmulatorTransport, FakeClock, chaos
from gts_async.wire import Answer
from tests.steady_loop import LoopClock

TOKEN = "TOPSECRET" * 4
SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="python train.py")
STATUS = {"status": "working"}
CREATED = {"job_id": "j-1"}


async def well(connection):
    """Answer as a cloud that is well."""
    document = CREATED if connection.request.path == "/api/userJob" else STATUS
    await chaos.answer(json=document)(connection)


class Floor:
    """A session over a server; `look` may be repeated, `create` must not be. Keeps every error that it met.

    Leaving it checks that no slot, turn, task or connection is lost, that the session can still be used, and that no
    text shows the token.
    """

    def __init__(self, server, caplog, **options):
        self.server = server
        self.errors = []
        self.events = []
        self.can_be_used_after = True
        self._caplog = caplog
        options.setdefault("retry", RetryPolicy(initial=0.001, maximum=0.01))
        options.setdefault("timeouts", Timeouts(total=5))
        options.setdefault("clock", LoopClock())
        options.setdefault("cloud", f"{server.url}/api")
        options.setdefault("token", TOKEN)
        self.session = AsyncSession(on_event=self.events.append, **options)

    async def look(self, **options):
        """Ask for a job's status: a call that may be repeated."""
        return await self._kept(self.session._cloud.exchange.send(self._status(), **options))

    async def create(self, **options):
        """Send a create, without looking for its job if the answer is lost: a call that must not be repeated."""
        return await self._kept(self.session._submission.send(Intent("", SPEC), **options))

    async def send(self, call, **options):
        """Do either, by its name."""
        return await getattr(self, call)(**options)

    async def _kept(self, work):
        try:
            return await work
        except BaseException as error:
            self.errors.append(error)
            raise

    def _status(self):
        from gts_async.sxwl import calls

        return calls.job_status(self.session._cloud.dialect, "j-1")

    async def fails(self, error, work, **attributes):
        """Await `work`; it must raise exactly this class, with these attributes, and give it back."""
        with pytest.raises(GtsAsyncError) as caught:
            await work
        assert type(caught.value) is error, repr(caught.value)
        for name, value in attributes.items():
            assert getattr(caught.value, name) == value
        return caught.value

    @property
    def slots(self):
        """The session's own transport."""
        return self.session._client._transport

    async def __aenter__(self):
        # The server may live on this very loop; its own tasks do not count.
        self._before = asyncio.all_tasks()
        await self.session.__aenter__()
        return self

    async def __aexit__(self, kind, *_):
        try:
            if kind is None:
                await self.check()
        finally:
            await self.session.aclose()
        if kind is None:
            await self.check_nothing_is_left()

    async def check(self):
        """Check that nothing is taken, and that the session still works."""
        exchange = self.session._cloud.exchange
        assert self.slots.in_use == 0
        assert exchange._in_flight._value == exchange.limits.max_in_flight
        if self.can_be_used_after:
            self.server.forget()
            self.server.otherwise(well)
            assert (await self.look()).status is JobStatus.WORKING
        for text in self.texts():
            assert "TOPSECRET" not in text

    def texts(self):
        """Everything that the user may have seen or logged."""
        yield from map(repr, (self.session, self.session._cloud, self.session._cloud.exchange, self.slots))
        yield from map(repr, self.events)
        for error in self.errors:
            yield shown(error)
        for record in self._caplog.records:
            yield record.getMessage()
            yield repr(record.args)

    async def check_nothing_is_left(self):
        await self.server.drained()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30):
                while self._left():
                    await asyncio.sleep(0.005)
        assert self._left() == set()
        # Whatever was not closed would warn when it is collected, and warnings are errors here.
        gc.collect()

    def _left(self):
        own = {task for task in asyncio.all_tasks() if task not in self._before}
        return {task for task in own if not getattr(task.get_coro(), "__qualname__", "").startswith("ChaosServer")}


def shown(error):
    """Everything that any printer would show of an error: text, attributes, traceback with all locals."""
    # The frames of the test itself hold the token: they are not what is looked at.
    frames = error.__traceback__
    while frames is not None and "/gts_async/" not in frames.tb_frame.f_code.co_filename:
        frames = frames.tb_next
    whole = traceback.TracebackException(type(error), error, frames, capture_locals=True)
    lines = "".join(whole.format())
    return lines + repr(error) + str(error) + repr(getattr(error, "__dict__", ""))


@pytest.fixture
def floor(caplog):
    """Give ``async with floor(server, **options) as this``: a session over that server, checked when it is left."""
    caplog.set_level(logging.DEBUG)

    def give(server, **options):
        server.otherwise(well)
        return Floor(server, caplog, **options)

    return give


@pytest.fixture
async def server():
    """Give a chaos server on the test's own loop."""
    async with ChaosServer() as server:
        yield server


@pytest.fixture(name="shown")
def give_shown():
    """Give ``shown(error)``: everything that any printer would show of it, locals of its frames included."""
    return shown


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """Stand in an empty folder that is home, too, without any settings; give it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.fixture
def resolve(monkeypatch):
    """Give ``resolve(*names)``: lets these names, and no others, lead to 127.0.0.1; gives the list of what is asked."""

    def give(*names):
        asked = []

        async def getaddrinfo(host, port, **_):
            asked.append(host.decode() if isinstance(host, bytes) else host)
            if asked[-1] not in names:
                raise socket.gaierror(socket.EAI_NONAME, "no such name")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        return asked

    return give


# Works that are watched

FILES = {"train_data": "train.json", "val_data": "dev.json", "test_data": "test.json", "label_data": "labels.json"}
ROW = json.dumps({"id": 1, "content": "text", "label": "a"}).encode()
CONTENTS = {"labels.json": b'{"labels": ["a"]}', "train.json": ROW, "dev.json": ROW, "test.json": ROW}
GENERATIONS = {"java": Generation.JAVA, "go": Generation.GO, "head": Generation.HEAD}
LOOKS = ("/api/check_task_status", "/api/userJob/job_status", "/api/job/gpu/status")
CREATES = ("/api/create_task/", "/api/upfiles/", "/api/train", "/api/userJob", "/api/job/training")
WORDS = {
    "engine": {"new": 0, "going": 1, "done": 2, "failed": 3},
    "java": {"going": "working", "done": "success", "failed": "fail"},
    "go": {"going": "working", "done": "success", "failed": "fail"},
    "head": {"new": "pending", "going": "running", "done": "succeeded", "failed": "failed"},
}
STOPS = ("/api/stop_train", "/api/userJob/job_del", "/api/job/gpu/stop")


class Held(httpx.AsyncBaseTransport):
    """Keeps each request to a path with one of the `endings`, until it is let go or closed; `kept` of them now."""

    def __init__(self, inner):
        self.inner = inner
        self.endings = ()
        self.kept = 0
        self._is_closed = False
        self._free = asyncio.Event()

    async def handle_async_request(self, request):
        if request.url.path.endswith(self.endings):
            self.kept += 1
            try:
                await self._free.wait()
            finally:
                self.kept -= 1
        if self._is_closed:
            raise httpx.ReadError("closed", request=request)
        return await self.inner.handle_async_request(request)

    def hold(self, *endings):
        """Keep what comes from now on."""
        self.endings = endings or ("",)

    def let_go(self):
        """Keep nothing any more."""
        self.endings = ()
        self._free.set()

    async def aclose(self):
        self._is_closed = True
        self.let_go()


class Watched:
    """A service of one `kind` with works that last `lasts` seconds, and all requests with their times.

    `held` keeps requests if it is told to. `told` gives, for the id of a work, the answer that its looks get instead of
    the service's own. `token` is the only good one, if there is one.
    """

    def __init__(self, kind, folder, *, clock=None, lasts=100.0, outcome="good"):
        self.kind = kind
        self.clock = clock or FakeClock()
        self.paths = [folder / name for name in CONTENTS]
        self.lasts = lasts
        self.outcome = outcome
        self.told = {}
        self.token = None
        self.seen = []
        self._made = []
        self.service = self._fresh()

    def _fresh(self):
        if self.kind == "engine":
            ends = {"good": Stage.SUCCEEDED, "failed": Stage.FAILED}
            training = self.lasts if self.outcome in ends else 1e9
            script = Script(startup=5.0, training=training, outcome=ends.get(self.outcome, Stage.SUCCEEDED))
            files = MemoryFiles()
            return Engine(files, ScriptedTrainer(files, default=script))
        ends = {"good": JobStage.UPLOADED, "failed": JobStage.FAILED, "stuck": JobStage.RUNNING}
        self.runner = ScriptedRunner(queued=5.0, running=self.lasts, packing=5.0, outcome=ends[self.outcome])
        store = ObjectStore(b"not a secret", "https://store.test")
        return Cloud(self.runner, store, token=None, generation=GENERATIONS[self.kind])

    def answer(self, request, now):
        """Answer as the service does now."""
        self.seen.append((self.clock.now(), request))
        if request.method == "POST" and request.path in CREATES:
            self._made.append((request, now))
        if self.token is not None and request.header("authorization") != f"Bearer {self.token}":
            return Answer(401, (("content-type", "text/plain"),), b"invalid token", None)
        told = self.told.get(work_of(request)) if request.path in LOOKS else None
        return self.service.answer(request, now) if told is None else told

    def lose(self, works):
        """Come back without these works, as from a backup that is older than they are: they are the newest."""
        self.service = self._fresh()
        if self.kind == "engine":
            lost = {work.id for work in works}
            kept = [(request, at) for request, at in self._made if work_of(request) not in lost]
        else:
            kept = self._made[: len(self._made) - len(works)]
        for request, at in kept:
            assert self.service.answer(request, at).status == 200

    def tell(self, work, word, **more):
        """Answer every look at the work with that word, whatever the service knows; see `WORDS`."""
        said = WORDS[self.kind][word]
        document = {"ret_code": said, "message": ""} if self.kind == "engine" else {"status": said}
        headers = (("content-type", "application/json"),)
        self.told[work.id] = Answer(200, headers, json.dumps({**document, **more}).encode(), None)

    async def is_down(self, seconds, fault):
        """Have all requests meet `fault` (of `gts_async.testing.faults`) for so long; gives how many did."""
        most = 10**9
        outage = fault(times=most)
        self.transport.faults.append(outage)
        await self.clock.sleep(seconds)
        self.transport.faults.remove(outage)
        return most - outage.times

    def session(self, **options):
        """Give a session that talks to it."""
        transport = EmulatorTransport(
            {"https://works.test": self}, lambda: self.clock.wall().timestamp(), faults=options.pop("faults", ())
        )
        self.transport = transport
        self.held = Held(transport)
        return AsyncSession(
            transport=self.held,
            engine="https://works.test",
            cloud="https://works.test/api",
            token=options.pop("token", TOKEN),
            dialect="2024-04" if self.kind == "head" else "2023-12",
            clock=self.clock,
            chance=options.pop("chance", random.Random(7).random),
            **options,
        )

    async def begin(self, session, count=1):
        """Begin so many works and give their handles."""
        if self.kind != "engine":
            return [await session.submit(SPEC) for _ in range(count)]
        for path in self.paths:
            path.write_bytes(CONTENTS[path.name])
        task = await session.create_task("task-0", task_type="classification", engine_type="qiankunding")
        await task.upload(*self.paths, check=False)
        runs = [await task.train(**FILES)]
        # All others are made in the same way, without the way there.
        made = [request for _, request in self.seen if request.path in CREATES]
        for number in range(1, count):
            for request in made:
                body = request.body.replace(b"task-0", f"task-{number}".encode())
                self.answer(attrs.evolve(request, body=body), self.clock.wall().timestamp())
            runs.append(session.resume(runs[0].token().replace("task-0", f"task-{number}")))
        return runs

    def looks(self, work=None, since=0.0):
        """Give when each look of its own (at this work) came."""
        return [
            at
            for at, request in self.seen
            if at >= since and request.path in LOOKS and (work is None or work_of(request) == work.id)
        ]

    def listings(self, since=0.0):
        """Give when each page of a listing was asked for."""
        return [at for at, request in self.seen if at >= since and request.path in CREATES and request.method == "GET"]

    def stops(self):
        """Give when each stop came."""
        return [at for at, request in self.seen if request.path in STOPS]


def work_of(request):
    """Give the id of the work that a request is about, None if there is none."""
    if job_id := dict(request.query).get("job_id"):
        return job_id
    if request.body.startswith(b"job_id="):
        return parse_qs(request.body.decode())["job_id"][0]
    document = json.loads(request.body) if request.body.startswith(b"{") else {}
    return document.get("task_id") or document.get("task_name") or document.get("job_id")


@pytest.fixture(params=["engine", *GENERATIONS])
def kind(request):
    """Give each kind of service whose works can be watched."""
    return request.param


@pytest.fixture
def watched(tmp_path):
    """Give ``watched(kind, …)``: a service of that kind with works to watch, on a fake clock of its own by default."""

    def give(kind, **options):
        return Watched(kind, tmp_path, **options)

    return give
