"""The emulated services put together with their real local backends and served on loopback: an engine, a cloud.

Each lives under one directory of yours and ends with its block; what it left on the disk stays.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread

from gts_async._errors import MisuseError
from gts_async.emulator.cloud import Cloud, CloudQuirks, Generation
from gts_async.emulator.engine import Engine
from gts_async.emulator.engine_quirks import EngineQuirks
from gts_async.emulator.store import ObjectStore
from gts_async.local.asgi import EmulatorApp, StoreApp, Worker, routed
from gts_async.local.deliveries import Deliveries
from gts_async.local.files import FolderFiles
from gts_async.local.jobs import LocalRunner
from gts_async.local.serving import listening, serve, url_of
from gts_async.local.trainer import LocalTrainer

MAX_ENGINE_BODY = 2 << 30
"""Bytes of one request to the engine. The real one has no limit, but reads uploads whole into memory, as we do."""

MAX_CLOUD_BODY = 16 << 20
"""Bytes of one request that the emulated cloud gets to see; what is beyond 1 MiB it refuses by itself."""

TICK = 0.1
"""Seconds between two looks for callbacks that are due."""

REAL_ENGINE = EngineQuirks()
QUICK_CLOUD = CloudQuirks(agent_period=0.2)
"""The real cloud, except that its cluster's agent comes by every 0.2 s, not every 10 s."""


class _Embedded:
    """What the two have in common: they run for the length of one ``async with`` block, and there have a URL."""

    def __init__(self, directory: Path | str, port: int) -> None:
        self._directory = Path(directory)
        self._port = port
        self._open: AsyncExitStack | None = None
        self._url: str | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'not running' if self._url is None else self._url}>"

    @property
    def url(self) -> str:
        """What a session takes as this service's URL. Raises MisuseError outside the block."""
        if self._url is None:
            raise MisuseError(f"{type(self).__name__} has a URL only inside its block: async with … as server")
        return self._url

    async def __aenter__(self) -> Self:
        if self._open is not None:
            raise MisuseError(f"this {type(self).__name__} is in use already")
        async with AsyncExitStack() as stack:
            self._url = await self._start(stack)
            self._open = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._open, self._url = self._open, None, None
        if stack is not None:
            await stack.__aexit__(kind, error, trace)

    async def _start(self, stack: AsyncExitStack) -> str:
        raise NotImplementedError


class EmbeddedEngine(_Embedded):
    """A GTS Engine of one's own: ``async with EmbeddedEngine("data") as engine`` serves it at ``engine.url``.

    It is the emulated engine with real trainings (scikit-learn, one process each) on files under `directory`. Port 0
    chooses a free one. Tasks are forgotten at the end of the block, trainings that still run are killed.

    Raises InvalidArgument for a port that is taken, MissingExtra without the extra ``local``, both on entering.
    """

    def __init__(self, directory: Path | str, port: int = 0, *, quirks: EngineQuirks = REAL_ENGINE) -> None:
        super().__init__(directory, port)
        self._quirks = quirks

    async def _start(self, stack: AsyncExitStack) -> str:
        listener = stack.enter_context(listening(port=self._port))
        worker = Worker("engine")
        stack.callback(worker.close)
        trainer = await worker.run(LocalTrainer, self._directory)
        stack.push_async_callback(_shielded, lambda: worker.run(trainer.close))
        engine = Engine(await worker.run(FolderFiles, self._directory), trainer, quirks=self._quirks)
        app = EmulatorApp(
            engine.answer, worker, max_body=MAX_ENGINE_BODY, closes_after_500=engine.quirks.closes_after_500
        )
        served = await stack.enter_async_context(serve(app, listener=listener))
        return served.url


class EmbeddedCloud(_Embedded):
    """An SXWL cloud of one's own: ``async with EmbeddedCloud("data") as cloud`` serves it at ``cloud.url``.

    It is the emulated cloud with jobs as processes of this machine (see `LocalRunner`, also for `max_at_once` and
    `minute`) under `directory`, its object store at ``/store/`` of the same port, and callbacks that are really sent.
    `token` is what it asks for; a random one if None. Port 0 chooses a free one. Jobs that still run at the end of the
    block are killed.

    Raises InvalidArgument for a port that is taken, MissingExtra without the extra ``local``, both on entering.
    """

    def __init__(
        self,
        directory: Path | str,
        port: int = 0,
        *,
        token: str | None = None,
        generation: Generation = Generation.GO,
        quirks: CloudQuirks = QUICK_CLOUD,
        max_at_once: int | None = None,
        minute: float = 60.0,
    ) -> None:
        super().__init__(directory, port)
        self.token = secrets.token_hex(16) if token is None else token
        self.deliveries = Deliveries()
        """The callbacks so far: how many were `sent`, how many `failed`."""
        self._generation = generation
        self._quirks = quirks
        self._max_at_once = max_at_once
        self._minute = minute

    async def _start(self, stack: AsyncExitStack) -> str:
        listener = stack.enter_context(listening(port=self._port))
        root = url_of(listener)
        worker = Worker("cloud")
        stack.callback(worker.close)
        runner = await worker.run(LocalRunner, self._directory, max_at_once=self._max_at_once, minute=self._minute)
        stack.push_async_callback(_shielded, lambda: anyio.to_thread.run_sync(runner.close))
        store = ObjectStore(secrets.token_bytes(32), f"{root}/store")
        cloud = Cloud(
            runner,
            store,
            token=self.token,
            generation=self._generation,
            quirks=self._quirks,
            secret=secrets.token_bytes(32),
        )
        app = routed(
            "/store/", StoreApp(store.grant, worker), EmulatorApp(cloud.answer, worker, max_body=MAX_CLOUD_BODY)
        )
        await stack.enter_async_context(serve(app, listener=listener))
        ticking = asyncio.create_task(self._tick(cloud, worker), name="cloud callbacks")
        stack.push_async_callback(_shielded, lambda: _ended(ticking))
        return f"{root}/api"

    async def _tick(self, cloud: Cloud, worker: Worker) -> None:
        while True:
            for delivery in await worker.run(cloud.callbacks, time.time()):
                self.deliveries.begin(delivery.url, delivery.headers, delivery.body)
            await asyncio.sleep(TICK)


async def _shielded(end: Callable[[], Awaitable[None]]) -> None:
    with anyio.CancelScope(shield=True):
        await end()


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel the task; an error that had already ended it is raised."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
