"""An ASGI app that receives the cloud's callbacks and wakes the watch of the job that each is about.

The cloud signs nothing, retries nothing and leaves out the id of a failed job, so each job gets a URL of its own that
nobody can guess, and a callback is only a hint: the verdict comes from an authenticated look.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import attrs

from gts_async._errors import InvalidArgument, UnexpectedAnswer
from gts_async._net.config import BaseURL
from gts_async._session import AsyncSession
from gts_async.sxwl.callbacks import read_callback
from gts_async.sxwl.values import JobSpec

MAX_BODY = 64 * 1024
"""Bytes; a real callback has less than one thousand."""

BODY_TIME = 5.0
"""Seconds that a sender may take for its body."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@attrs.define
class Received:
    """How many callbacks came: counted as rung, unknown (no such URL) or malformed."""

    rung: int = 0
    unknown: int = 0
    malformed: int = 0


class Receiver:
    """The ASGI app; mount it anywhere. `base_url` is where the cloud reaches it from outside, mount path included."""

    def __init__(self, session: AsyncSession, base_url: str) -> None:
        self._session = session
        self._base_url = BaseURL.parse(base_url, "base_url").text
        self._tokens: set[bytes] = set()
        self.received = Received()

    def spec(self, spec: JobSpec) -> JobSpec:
        """Give the spec with a `callback_url` of its own: submit this one, and its job's watch is woken early.

        Raises InvalidArgument if the spec has a callback URL already, or if the URL gets longer than the cloud takes.
        """
        if spec.callback_url is not None:
            raise InvalidArgument("spec", "has a callback_url already", "leave it None for the receiver to fill in")
        token = secrets.token_urlsafe(24)
        changed = attrs.evolve(spec, callback_url=f"{self._base_url}/{token}")
        self._tokens.add(hashlib.sha256(token.encode()).digest())
        return changed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            return
        await _answer(send, await self._status(scope, receive))

    async def _status(self, scope: Scope, receive: Receive) -> int:
        """Handle the request and give the status of its answer."""
        token = self._known(scope["path"].rsplit("/", 1)[-1])
        if token is None:
            self.received.unknown += 1
            return 404
        if scope["method"] != "POST":
            return 405
        try:
            async with asyncio.timeout(BODY_TIME):
                body = await _body(receive)
        except TimeoutError:
            return 408
        if body is None:
            return 413
        try:
            read_callback(body)
        except UnexpectedAnswer:
            self.received.malformed += 1
            return 400
        self.received.rung += 1
        self._session.ring(f"{self._base_url}/{token}")
        return 200

    def _known(self, text: str) -> str | None:
        """Give the token that `text` is; looked up by its digest, so that the time tells nothing about it."""
        digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
        return text if digest in self._tokens else None

    def __repr__(self) -> str:
        return f"<Receiver {len(self._tokens)} jobs, {self.received.rung} callbacks>"


def receiver(session: AsyncSession, base_url: str) -> Receiver:
    """Give an ASGI app for the callbacks of jobs that `session` submits; see `Receiver`."""
    return Receiver(session, base_url)


async def _body(receive: Receive) -> bytes | None:
    """Read the body; None if it is larger than `MAX_BODY`."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += bytes(message.get("body", b""))
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body"):
            return body


async def _answer(send: Send, status: int) -> None:
    headers = [(b"content-length", b"0")]
    if status in (408, 413):
        # The rest of the body is not read: the connection cannot carry another request.
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
