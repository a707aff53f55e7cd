"""ASGI applications around the pure emulators: what arrives becomes a `Request`, an `Answer` is sent back.

Nothing here listens on a socket (that is `serving`): the applications also work with `httpx.ASGITransport`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeAlias, TypeVar
from urllib.parse import parse_qsl

import anyio.to_thread

from gts_async._errors import NotSupported
from gts_async.emulator.cloud import DROPPED
from gts_async.emulator.store import Grant
from gts_async.local.blobs import CHUNK
from gts_async.wire import Answer, Request

P = ParamSpec("P")
T = TypeVar("T")
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

CLOSE_DELAY = 0.0005
"""Seconds between a 500 and the end of its connection; the event loop makes it the real engine's 1 ms or so."""


CUT = "gts_async.cut"
"""Where in a scope's ``state`` a server offers `cut(delay=0.0)`: close the connection without announcing it."""


class ConnectionCut(Exception):
    """The emulator wants the connection closed without an answer, and the server does not offer to."""


class _ClientGone(Exception):
    """The request did not arrive whole."""


class _TooLarge(Exception):
    """The body is longer than is taken."""


class Worker:
    """One thread, the only one that enters one emulator: emulators are not thread-safe, and may block."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Give what `function` returns; calls are made one after the other, in their order."""
        job = self._executor.submit(function, *args, **kwargs)
        return await asyncio.wrap_future(job)

    def close(self) -> None:
        """Drop what has not begun; what has begun goes on in its thread."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class EmulatorApp:
    """Answers with an emulator's `answer(request, now)`, entered by `worker` only.

    A body of more than `max_body` bytes is answered 413 with an empty body, and not kept. An error that `answer`
    raises is the server's to handle. Where the server offers to cut connections (`serving` does), DROPPED ends one
    without an answer, and with `closes_after_500` so does every 500 after its answer, without ``Connection: close``:
    GTS Engine's 500s are exceptions that leave the application, upon which uvicorn closes. A pooled client may
    therefore lose the request that it sends next.
    """

    def __init__(
        self,
        answer: Callable[[Request, float], Answer],
        worker: Worker,
        *,
        max_body: int,
        closes_after_500: bool = False,
    ) -> None:
        self._answer = answer
        self._worker = worker
        self._max_body = max_body
        self._closes_after_500 = closes_after_500

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one HTTP exchange.

        Raises NotSupported for any other kind of scope, ConnectionCut for DROPPED where the server cannot cut.
        """
        try:
            request = await _received(scope, receive, self._max_body)
        except _ClientGone:
            return
        except _TooLarge:
            answer = Answer(413)
        else:
            answer = await self._worker.run(self._answer, request, time.time())
        cut = scope.get("state", {}).get(CUT)
        if answer == DROPPED:
            if cut is None:
                raise ConnectionCut
            cut()
            await receive()  # until the server has noticed: it would answer by itself
            return
        await _send(answer, send)
        if answer.status == 500 and self._closes_after_500 and cut is not None:
            cut(CLOSE_DELAY)


class StoreApp:
    """Streams what a store's `grant(request, now)` allows, 1 MiB at a time, read in threads."""

    def __init__(self, grant: Callable[[Request, float], Grant | Answer], worker: Worker) -> None:
        self._grant = grant
        self._worker = worker

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one HTTP exchange. Raises NotSupported for any other kind of scope."""
        try:
            request = await _received(scope, receive, max_body=CHUNK)
        except _ClientGone:
            return
        except _TooLarge:
            return await _send(Answer(413), send)
        granted = await self._worker.run(self._grant, request, time.time())
        if isinstance(granted, Answer):
            return await _send(granted, send)
        async with _watched(receive) as is_gone:
            await _stream(granted, send, is_gone)


def routed(prefix: str, inside: App, otherwise: App) -> App:
    """Give an application that hands paths under `prefix` to `inside`, the rest to `otherwise`."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await (inside if scope.get("path", "").startswith(prefix) else otherwise)(scope, receive, send)

    return app


async def _received(scope: Message, receive: Receive, max_body: int) -> Request:
    if scope["type"] != "http":
        raise NotSupported(f"this application speaks HTTP only, not {scope['type']!r}")
    headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"])
    request = Request(
        method=scope["method"],
        path=scope["raw_path"].decode("latin-1"),
        query=tuple(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
        headers=headers,
    )
    length = request.header("content-length")
    if length is not None and length.isdecimal() and int(length) > max_body:
        raise _TooLarge
    body = await _body(receive, max_body)
    return Request(request.method, request.path, request.query, headers, body)


async def _body(receive: Receive, max_body: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGone
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > max_body:
            raise _TooLarge
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _send(answer: Answer, send: Send) -> None:
    headers = answer.headers
    if answer.header("content-length") is None and answer.status != 204:
        headers = (*headers, ("content-length", str(len(answer.body))))
    await send(_start(answer.status, headers))
    await send({"type": "http.response.body", "body": answer.body})


async def _stream(grant: Grant, send: Send, is_gone: Callable[[], bool]) -> None:
    await send(_start(grant.status, grant.headers))
    for start in range(grant.start, grant.stop, CHUNK):
        if is_gone():
            return
        chunk = await anyio.to_thread.run_sync(grant.blob.read, start, min(start + CHUNK, grant.stop))
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _start(status: int, headers: Iterable[tuple[str, str]]) -> Message:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return {"type": "http.response.start", "status": status, "headers": raw}


@contextlib.asynccontextmanager
async def _watched(receive: Receive) -> AsyncIterator[Callable[[], bool]]:
    """Watch for the client's leaving: a server passes over what is sent to nobody, so nobody else would stop us."""
    watch = asyncio.ensure_future(receive())
    try:
        yield watch.done
    finally:
        watch.cancel()
        await asyncio.wait([watch])
