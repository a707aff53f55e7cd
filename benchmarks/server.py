"""HTTP servers in a process of their own: one that is cheap enough not to be what is measured, and how to ask them."""

import asyncio
import collections
import contextlib
import json
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar

import attrs

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


class Serving(Protocol):
    """A server that runs on the running loop as long as its block."""

    @property
    def url(self) -> str:
        """Where it is."""
        ...


@attrs.frozen
class Remote(Generic[S]):
    """A server in another process."""

    url: str
    _pipe: Connection

    def ask(self, what: Callable[Concatenate[S, P], T], *args: P.args, **options: P.kwargs) -> T:
        """Give what the method `what` of the server gives there; blocks this process for a moment."""
        self._pipe.send((what, args, options))
        answer: T = self._pipe.recv()
        return answer


@contextlib.contextmanager
def serving(make: Callable[[], AbstractAsyncContextManager[S]]) -> Iterator[Remote[S]]:
    """Give the server that `make` makes; it runs in a process of its own as long as the block."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, make), daemon=True)
    process.start()
    # Only the server holds that end now: should it die, asking it raises instead of waiting for ever.
    there.close()
    try:
        yield Remote(here.recv(), here)
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Connection, make: Callable[[], AbstractAsyncContextManager[Serving]]) -> None:
    async def run() -> None:
        async with make() as server:
            asyncio.get_running_loop().add_reader(pipe.fileno(), _answer, pipe, server)
            pipe.send(server.url)
            await asyncio.Event().wait()

    asyncio.run(run())


def _answer(pipe: Connection, server: Any) -> None:
    what, args, options = pipe.recv()
    pipe.send(what(server, *args, **options))


@attrs.frozen
class Seen:
    """What a server has seen: `requests` in all, of how many `calls` (told by their ids), and its connections.

    `most_in_a_pause` are the requests of one pause that it had asked for, the first among them.
    """

    requests: int
    calls: int
    most_in_a_pause: int
    open: int
    most_open: int
    made: int


HEAD = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


class Listening:
    """A server of a protocol of one's own, on loopback as long as the block."""

    url = ""

    def connected(self) -> asyncio.BaseProtocol:
        """Give what is to talk with whoever has connected."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(self.connected, "127.0.0.1", 0)
        self.url = "http://127.0.0.1:{1}".format(*self._server.sockets[0].getsockname())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()


class Echo(Listening):
    """Tells of every task that it is in training, with the task's id as the message, so that no answer fits another.

    `slowest`: seconds that an answer takes at most; how long each takes is left to chance.
    """

    def __init__(self, slowest: float = 0.0) -> None:
        self.slowest = slowest
        self.refusal: bytes | None = None
        self.pause = 0.0
        self._forget()
        self.connections: set[asyncio.BaseTransport] = set()
        self.most_open = self.made = 0

    def connected(self) -> asyncio.BaseProtocol:
        """Give what tells of tasks."""
        return _Echoing(self)

    def seen(self) -> Seen:
        """Tell what it has seen: requests since it last changed its mind, connections since it began."""
        return Seen(
            requests=self.asked.total(),
            calls=len(self.asked),
            most_in_a_pause=self.most_in_a_pause,
            open=len(self.connections),
            most_open=self.most_open,
            made=self.made,
        )

    def refuse(self, status: int, pause: float) -> None:
        """From now on answer everything with this status; `pause`, if any, are the seconds of its Retry-After."""
        asking = f"retry-after: {pause:.0f}\r\n" if pause else ""
        self.refusal = f"HTTP/1.1 {status} Refused\r\n{asking}content-length: 0\r\n\r\n".encode()
        self.pause = pause
        self._forget()

    def recover(self) -> Seen:
        """From now on answer well; tells what was seen while it refused."""
        seen = self.seen()
        self.refusal = None
        self._forget()
        return seen

    def _forget(self) -> None:
        self.asked: collections.Counter[str] = collections.Counter()
        self.paused_at, self.in_pause, self.most_in_a_pause = float("-inf"), 0, 0

    def answer(self, task_id: str) -> bytes:
        """Note a request and give what to answer."""
        self.asked[task_id] += 1
        if self.refusal is None:
            return _status_of(task_id)
        now = time.monotonic()
        if now - self.paused_at >= self.pause:
            self.paused_at, self.in_pause = now, 0
        self.in_pause += 1
        self.most_in_a_pause = max(self.most_in_a_pause, self.in_pause)
        return self.refusal


class _Echoing(asyncio.Protocol):
    """One connection; requests must not be pipelined."""

    def __init__(self, server: Echo) -> None:
        self._server = server
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections.add(transport)
        self._server.made += 1
        self._server.most_open = max(self._server.most_open, len(self._server.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, found, body = self._seen.partition(b"\r\n\r\n")
        if not found:
            return
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
        if len(body) < int(length.split(b":")[1]):
            return
        self._seen = b""
        task_id = json.loads(body)["task_id"]
        answer = self._server.answer(task_id)
        if self._server.slowest:
            seconds = random.random() * self._server.slowest
            asyncio.get_running_loop().call_later(seconds, self._write, answer)
        else:
            self._write(answer)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


def _status_of(task_id: str) -> bytes:
    body = json.dumps({"ret_code": 1, "message": task_id}).encode()
    return HEAD % (b"200 OK", len(body)) + body
