"""What a chaos server is told to do: the actions that its scripts are made of. The server itself is `ChaosServer`.

An action is whatever is called with a `Connection` and awaited, so a script may hold functions of its own. It ends
early when the client goes; that is no fault.
"""

import asyncio
import functools
import inspect
import json as json_module
import threading
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Concatenate, ParamSpec

import attrs

from gts_async.testing._chaos.connection import ChaosRequest, Connection
from gts_async.testing._chaos.presence import ClientGone
from gts_async.testing._chaos.tls import Certificate

__all__ = [
    "Action",
    "Certificate",
    "ChaosRequest",
    "ClientGone",
    "Connection",
    "answer",
    "before_handshake",
    "close",
    "drip",
    "endlessly",
    "half_close",
    "hold",
    "pause",
    "read",
    "receive",
    "reset",
    "send",
    "stall",
    "truncate_tls",
]

Action = Callable[[Connection], Awaitable[None]]
P = ParamSpec("P")

LOOKING_AGAIN = 0.002
"""Seconds between two looks at what cannot be waited for."""


@attrs.frozen(repr=False)
class Step:
    """One of the actions below, with its arguments."""

    name: str
    play: Callable[..., Awaitable[None]]
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = attrs.field(factory=dict)

    def __call__(self, connection: Connection) -> Awaitable[None]:
        return self.play(connection, *self.args, **self.options)

    def __repr__(self) -> str:
        shown = [*map(_shortly, self.args), *(f"{name}={_shortly(value)}" for name, value in self.options.items())]
        return f"chaos.{self.name}({', '.join(shown)})"


def _shortly(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _action(play: Callable[Concatenate[Connection, P], Awaitable[None]]) -> Callable[P, Step]:
    signature = inspect.signature(play)
    own = signature.replace(parameters=list(signature.parameters.values())[1:], return_annotation=Step)

    @functools.wraps(play)
    def make(*args: P.args, **options: P.kwargs) -> Step:
        own.bind(*args, **options)
        return Step(play.__name__, play, args, options)

    make.__signature__ = own  # type: ignore[attr-defined]
    return make


# In


@_action
async def read(connection: Connection) -> None:
    """Read one whole request; it is recorded."""
    await connection.read_request()


@_action
async def receive(connection: Connection, size: int) -> None:
    """Read that many bytes and no more, so that a client that sends more will fill its buffers."""
    while size > 0:
        data = await connection.receive(size)
        if not data:
            raise ClientGone("the client has sent its last")
        size -= len(data)


# Out


@_action
async def send(connection: Connection, data: bytes) -> None:
    """Send these bytes as they are."""
    await connection.send(data)


def answer(
    status: int = 200,
    *,
    json: object = ...,
    body: bytes = b"",
    headers: Mapping[str, str] | list[tuple[str, str]] | tuple[tuple[str, str], ...] = (),
) -> Step:
    """Send one whole, well-formed answer with its Content-Length.

    Either `json`, a document of any kind, or `body`. No body goes out with 1xx, 204 and 304, and in answer to HEAD.
    """
    if json is not ...:
        if body:
            raise ValueError("either json or body, not both")
        body = json_module.dumps(json, ensure_ascii=False).encode()
    pairs = [*headers] if isinstance(headers, list | tuple) else [*headers.items()]
    names = {name.lower() for name, _ in pairs}
    if json is not ... and "content-type" not in names:
        pairs.append(("Content-Type", "application/json"))
    if status >= 200 and status not in (204, 304):
        if names.isdisjoint({"content-length", "transfer-encoding"}):
            pairs.append(("Content-Length", str(len(body))))
    else:
        body = b""
    reason = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
    head = f"HTTP/1.1 {status} {reason}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in pairs)
    return Step("answer", _answered, (head.encode("latin-1") + b"\r\n", body))


async def _answered(connection: Connection, head: bytes, body: bytes) -> None:
    is_to_head = connection.request is not None and connection.request.method == "HEAD"
    await connection.send(head if is_to_head else head + body)


@_action
async def drip(connection: Connection, data: bytes, every: float = 0.01, size: int = 1) -> None:
    """Send `data` in pieces of `size` bytes, one every so many seconds."""
    for start in range(0, len(data), size):
        if start:
            await _pause(connection, every)
        await connection.send(data[start : start + size])


@_action
async def endlessly(connection: Connection, data: bytes, every: float = 0.0) -> None:
    """Send `data` again and again, every so many seconds, until the client goes."""
    while True:
        await connection.send(data)
        await _pause(connection, every)


# Waiting


@_action
async def pause(connection: Connection, seconds: float) -> None:
    """Do nothing for so many seconds, or until the client goes. Nothing is read meanwhile."""
    await _pause(connection, seconds)


async def _pause(connection: Connection, seconds: float) -> None:
    if seconds <= 0:
        await asyncio.sleep(0)
    else:
        async with connection.present():
            await asyncio.sleep(seconds)


@_action
async def hold(connection: Connection, event: asyncio.Event | threading.Event | Callable[[], object]) -> None:
    """Do nothing until this event is set, or this function gives something true, or the client goes."""
    async with connection.present():
        if isinstance(event, asyncio.Event) and connection.shares_loop:
            await event.wait()
            return
        is_over = event if callable(event) else event.is_set
        while not is_over():  # noqa: ASYNC110 - events of other threads cannot be awaited
            await asyncio.sleep(LOOKING_AGAIN)


@_action
async def stall(connection: Connection) -> None:
    """Do nothing more until the client goes, and do not read either.

    The bytes that a client could not get rid of hide that it goes; whoever waits by `ChaosServer.drained` sees it.
    """
    await connection.stall()


# The end


@_action
async def close(connection: Connection) -> None:
    """Send FIN and close; with TLS, close_notify before."""
    connection.close()


@_action
async def half_close(connection: Connection) -> None:
    """Send FIN, so that the client sees our end, and go on reading until it goes."""
    connection.half_close()


@_action
async def reset(connection: Connection) -> None:
    """Send RST: the client's next read or write fails with ConnectionResetError."""
    connection.reset()


@_action
async def truncate_tls(connection: Connection) -> None:
    """Send FIN and close, without TLS's close_notify."""
    connection.close(is_announced=False)


@attrs.frozen
class BeforeHandshake:
    """Actions on the bare socket, before TLS."""

    actions: tuple[Action, ...]

    async def __call__(self, connection: Connection) -> None:
        """Play them; raises ValueError once the handshake has begun."""
        if connection.is_secure:
            raise ValueError("chaos.before_handshake must be the first action of a connection's script")
        for action in self.actions:
            if connection.is_open:
                await action(connection)


def before_handshake(*actions: Action) -> BeforeHandshake:
    """Play these on the bare socket before the TLS handshake, which goes on after them if the connection lives.

    It must be the first action of a script for `ChaosServer.on_connection`. Without TLS these are actions like others.
    """
    return BeforeHandshake(actions)
