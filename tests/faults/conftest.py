"""A session over a chaos server, and what must hold after every fault, whatever it was."""

import asyncio
import contextlib
import gc
import logging
import socket
import traceback

import pytest

from gts_async import AsyncSession, GtsAsyncError, JobSpec, JobStatus, RetryPolicy, Timeouts
from gts_async.testing import ChaosServer, chaos

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
        options.setdefault("cloud", f"{server.url}/api")
        options.setdefault("token", TOKEN)
        self.session = AsyncSession(on_event=self.events.append, **options)

    async def look(self, **options):
        """Ask for a job's status: a call that may be repeated."""
        return await self._kept(self.session._cloud.exchange.send(self._status(), **options))

    async def create(self, **options):
        """Submit a job: a call that must not be repeated."""
        return await self._kept(self.session.submit(SPEC, **options))

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
            async with asyncio.timeout(1):
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


@pytest.fixture(scope="session", autouse=True)
def frozen():
    """Spare the collection after each test what pytest itself holds: looking through it takes most of the time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


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
