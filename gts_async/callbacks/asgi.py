"""What the receiver needs of ASGI 3: a body within bounds of size and time, a bare answer, a server's start and end."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_DRAINED = 16 << 20
"""Bytes of a body that is too large which are taken in and dropped, so that its sender gets to read the answer."""


class Refusal(Exception):
    """The request is answered with this status, and nothing comes of it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


async def read_body(receive: Receive, *, most: int, within: float) -> bytes:
    """Read the body; raises Refusal 413 beyond `most` bytes, 408 after `within` seconds."""
    try:
        async with asyncio.timeout(within):
            return await _read(receive, most)
    except TimeoutError:
        raise Refusal(408) from None


async def _read(receive: Receive, most: int) -> bytes:
    body, size = bytearray(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            # What was cut is no whole callback; nobody will read the answer.
            raise Refusal(400)
        part = message.get("body", b"")
        size += len(part)
        if size <= most:
            body += part
        if not message.get("more_body"):
            break
        if size > MAX_DRAINED:
            raise Refusal(413)
    if size > most:
        raise Refusal(413)
    return bytes(body)


def is_json(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether what is announced is JSON in plain sight; a body without any announcement passes."""
    for name, value in headers:
        kind = value.partition(b";")[0].strip().lower()
        if name == b"content-type" and kind != b"application/json":
            return False
        if name == b"content-encoding" and kind not in (b"", b"identity"):
            return False
    return True


async def answer(scope: Scope, send: Send, status: int, *headers: tuple[bytes, bytes], closes: bool = False) -> None:
    """Answer with a status and no body; `closes` where the request's body was not read to its end."""
    more = [(b"connection", b"close")] if closes and str(scope.get("http_version", "1.1")).startswith("1") else []
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0"), *headers, *more]}
    )
    await send({"type": "http.response.body", "body": b""})


async def live(
    receive: Receive, send: Send, start: Callable[[], Awaitable[None]], end: Callable[[], Awaitable[None]]
) -> None:
    """Serve the lifespan protocol: `start` when the server does, `end` when it ends."""
    while True:
        message = await receive()
        await (start() if message["type"] == "lifespan.startup" else end())
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
