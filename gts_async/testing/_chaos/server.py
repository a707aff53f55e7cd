"""A server on raw loopback sockets that does to HTTP clients what its scripts say. The actions are in `chaos`."""

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Self, TypeVar

from gts_async._errors import MisuseError
from gts_async.testing._chaos.connection import CHUNK, ChaosRequest, Connection, Surroundings
from gts_async.testing._chaos.door import LOOPBACK, Door
from gts_async.testing._chaos.presence import ClientGone, Departures
from gts_async.testing._chaos.tls import Identity
from gts_async.testing.chaos import Action, BeforeHandshake, Certificate, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

T = TypeVar("T")
Script = tuple[Action, ...]

LOOKING_AGAIN = 0.002
"""Seconds between two looks at a condition that is waited for."""
DEFAULT: Script = (answer(json={}),)


class ChaosServer:
    """Plays scripts to HTTP clients on 127.0.0.1, at a free port, and records what it saw.

    ``async with`` lets it live on the running loop, ``with`` on a loop in a thread of its own. Scripts are played once
    each, first in, first out. What goes wrong in one is raised when the block is left. `tls`: True for a good
    certificate, or another `chaos.Certificate`.

    Raises MissingExtra, on entering, for TLS without the extra ``testing``.
    """

    _loop: asyncio.AbstractEventLoop
    _door: Door

    def __init__(self, *, tls: bool | Certificate = False) -> None:
        self._certificate = Certificate.GOOD if tls is True else tls or None
        self._identity: Identity | None = None
        self._for_connections: deque[Script] = deque()
        self._for_requests: deque[Script] = deque()
        self._otherwise = DEFAULT
        self._open: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._faults: list[BaseException] = []
        self._thread: threading.Thread | None = None
        self._was_started = self._is_running = False
        self.requests: list[ChaosRequest] = []
        """All requests that were read whole, in order."""
        self._around = Surroundings(self.requests, self._open.discard)
        self.connections = 0
        """How many connections were accepted in all."""
        self.most_open = 0
        """How many connections were open at once, at most."""

    def __repr__(self) -> str:
        if not self._is_running:
            return "<ChaosServer not running>"
        saw = f"{self.connections} connections, {self.open} open, {len(self.requests)} requests"
        return f"<ChaosServer {self.url} {saw}>"

    # Where it is

    @property
    def port(self) -> int:
        """The port of 127.0.0.1 at which it listens."""
        self._check_running()
        return self._door.port

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"{'https' if self._certificate else 'http'}://{LOOPBACK}:{self.port}"

    @property
    def ca_file(self) -> str:
        """The path of a PEM file with the authority to trust, removed on exit; raises MisuseError without TLS."""
        self._check_running()
        if self._identity is None:
            raise MisuseError("this chaos server has no TLS, hence no ca_file")
        return self._identity.ca_file

    # What it does

    def on_connection(self, *actions: Action) -> None:
        """Play this to the next connection accepted, before anything is read; with TLS, after the handshake.

        If it does not end the connection, requests are served on it.
        """
        self._for_connections.append(actions)

    def on_request(self, *actions: Action) -> None:
        """Play this to the next request, whatever its connection, once it has been read whole."""
        self._for_requests.append(actions)

    def otherwise(self, *actions: Action) -> None:
        """Play this to every request for which no script waits; ``chaos.answer(json={})`` at first."""
        self._otherwise = actions

    def forget(self) -> None:
        """Drop the scripts that wait, and what `otherwise` was told."""
        self._for_connections.clear()
        self._for_requests.clear()
        self._otherwise = DEFAULT

    # What it saw

    @property
    def received(self) -> int:
        """How many bytes were read in all; with TLS, counted without its wrapping."""
        return self._around.received

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    async def until(self, condition: "Callable[[], object]", within: float = 5.0) -> None:
        """Wait until this gives something true; raises TimeoutError after `within` seconds."""
        end = time.monotonic() + within
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"not so within {within} s: {self!r}")
            await asyncio.sleep(LOOKING_AGAIN)

    async def drained(self, within: float = 5.0) -> None:
        """Wait until no connection is open; raises TimeoutError after `within` seconds.

        What clients still send to a `chaos.stall` is read and dropped meanwhile, so that their end is not hidden by it.
        """
        self._on_loop(self._around.is_drained.set)
        try:
            await self.until(lambda: not self._open, within)
        finally:
            self._on_loop(self._around.is_drained.clear)

    # What befalls everybody

    def refuse(self) -> None:
        """Stop listening: connections are refused. Those that are open stay."""
        self._on_loop(lambda: self._door.shut())

    def accept(self) -> None:
        """Listen again, at the same port."""
        self._on_loop(lambda: self._door.open())

    @contextlib.contextmanager
    def fill_backlog(self) -> "Iterator[None]":
        """Let connections hang in the TCP handshake for the length of the block: their SYN is dropped."""
        self._on_loop(lambda: self._door.block())
        try:
            yield
        finally:
            self._on_loop(lambda: self._door.unblock())

    def hang_up(self, *, reset: bool = False) -> None:
        """Close all connections now, or reset them. What is being played to them ends."""
        self._on_loop(lambda: self._hang_up(reset))

    def _hang_up(self, reset: bool) -> None:
        for connection in tuple(self._open):
            if reset:
                connection.reset()
            else:
                connection.close()

    # How it lives

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: "TracebackType | None"
    ) -> None:
        await self._stop()
        self._report(error)

    def __enter__(self) -> Self:
        started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._live_apart, args=(started,), name="ChaosServer", daemon=True)
        self._thread.start()
        started.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: "TracebackType | None"
    ) -> None:
        self._on_loop(self._may_stop.set)
        if self._thread:
            self._thread.join()
        self._report(error)

    def _live_apart(self, started: "concurrent.futures.Future[None]") -> None:
        asyncio.run(self._live(started))

    async def _live(self, started: "concurrent.futures.Future[None]") -> None:
        self._may_stop = asyncio.Event()
        try:
            await self._start()
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(None)
        await self._may_stop.wait()
        await self._stop()

    async def _start(self) -> None:
        if self._was_started:
            raise MisuseError("a chaos server is entered once; make another one")
        self._was_started = True
        if self._certificate:
            self._identity = await asyncio.to_thread(Identity.of, self._certificate)
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._around.loop = self._loop
        self._around.departures = Departures()
        self._around.shares_loop = self._thread is None
        self._door = Door(self._begin, self._faults.append)
        self._door.open()
        self._is_running = True

    async def _stop(self) -> None:
        self._door.close()
        self._hang_up(reset=False)
        try:
            while self._tasks:
                for task in self._tasks:
                    task.cancel()
                await asyncio.wait(self._tasks)
        finally:
            self._is_running = False
            self._around.departures.close()
            if self._identity:
                await asyncio.to_thread(self._identity.forget)

    def _report(self, error: BaseException | None) -> None:
        faults, self._faults = self._faults, []
        if error:
            for fault in faults:
                error.add_note(f"A script of the chaos server failed, too: {fault!r}")
        elif len(faults) == 1:
            raise faults[0]
        elif faults:
            raise BaseExceptionGroup("scripts of a chaos server failed", faults)

    def _check_running(self) -> None:
        if not self._is_running:
            raise MisuseError("this chaos server does not run: enter it by `with` or `async with`")

    def _on_loop(self, action: "Callable[[], T]") -> T:
        self._check_running()
        if threading.get_ident() == self._thread_id:
            return action()

        async def act() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result()

    # How it serves

    def _begin(self, accepted: socket.socket) -> None:
        connection = Connection(self.connections, accepted, self._around)
        self.connections += 1
        self._open.add(connection)
        self.most_open = max(self.most_open, len(self._open))
        script = self._for_connections.popleft() if self._for_connections else ()
        connection.task = task = self._loop.create_task(self._serve(connection, script))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: Connection, script: Script) -> None:
        try:
            await self._converse(connection, script)
        except ClientGone:
            pass
        except BaseException as fault:
            task = asyncio.current_task()
            if (task and task.cancelling()) or isinstance(fault, KeyboardInterrupt | SystemExit):
                raise
            # Also what is no Exception, as of pytest.fail; but nobody shall take a script's cancellation for theirs.
            self._faults.append(fault if not isinstance(fault, asyncio.CancelledError) else _cancelled(fault))
            connection.reset()
        finally:
            connection.close()

    async def _converse(self, connection: Connection, script: Script) -> None:
        if self._identity:
            if script and isinstance(script[0], BeforeHandshake):
                await _play(script[:1], connection)
                script = script[1:]
            if connection.is_open:
                await connection.shake_hands(self._identity.context)
        await _play(script, connection)
        while connection.is_open and not connection.is_half_closed:
            await connection.read_request()
            await _play(self._for_requests.popleft() if self._for_requests else self._otherwise, connection)
        while connection.is_open and await connection.receive(CHUNK):
            pass


def _cancelled(cause: asyncio.CancelledError) -> RuntimeError:
    fault = RuntimeError("a script was cancelled from within: by what it waited for")
    fault.__cause__ = cause
    return fault


async def _play(script: Script, connection: Connection) -> None:
    for action in script:
        if not connection.is_open:
            raise RuntimeError(f"{action!r} comes after the end of its connection")
        await action(connection)
