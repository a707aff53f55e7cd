"""Any ASGI application served by uvicorn, on loopback unless told otherwise, in the running event loop.

What the applications do is in `asgi`; which ones belong together in `stack`.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import attrs

from gts_async._errors import InvalidArgument, MissingExtra
from gts_async.local.asgi import App

if TYPE_CHECKING:
    from uvicorn import Server

LOOPBACK = "127.0.0.1"
GRACE = 1.0
"""Seconds that exchanges under way are given when the server closes; then their connections are cut."""

REAP_WITHIN = 0.5
"""Seconds that cut exchanges are given to unwind."""


@attrs.frozen
class Served:
    """A server that accepts connections: `url` is its root, without a slash at the end."""

    url: str


def listening(host: str = LOOPBACK, port: int = 0) -> socket.socket:
    """Give a listening socket; port 0 chooses a free one. Raises InvalidArgument naming `host` or `port`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio would not switch Nagle's algorithm off: every answer would then take 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, socket.gaierror):
            raise InvalidArgument("host", f"{host!r} is no address of this machine", f"use {LOOPBACK!r}") from error
        problem = f"{port} on {host} cannot be listened on ({error})"
        raise InvalidArgument("port", problem, "choose another one, or 0 for any free one") from error
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """Give the root URL of what will be served on `listener`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.asynccontextmanager
async def serve(
    app: App, *, host: str = LOOPBACK, port: int = 0, listener: socket.socket | None = None, name: str | None = None
) -> AsyncIterator[Served]:
    """Give a running server of `app` for the length of the block.

    Port 0 chooses a free one; a `listener` from `listening` replaces host and port and is closed at the end. `name` is
    what the ``server`` header says. Idle connections are closed after 5 s, uvicorn's default, which the real engine
    keeps. No signal handlers are installed. Leaving the block takes less than 2 s, whatever clients do.

    Raises InvalidArgument for a port that is taken, MissingExtra if uvicorn is not installed.
    """
    try:
        server = await anyio.to_thread.run_sync(_server, app, name)
    except ImportError as error:
        raise MissingExtra("local", "serving on this machine") from error
    listener = listening(host, port) if listener is None else listener
    with listener:
        await server.startup(sockets=[listener])
        ticking = asyncio.create_task(server.main_loop(), name="uvicorn")
        try:
            yield Served(url_of(listener))
        finally:
            with anyio.CancelScope(shield=True):
                await _end(server, ticking)


def _server(app: App, name: str | None) -> "Server":
    from uvicorn import Config, Server

    from gts_async.local.connection import Connection

    headers = [] if name is None else [("server", name)]
    config = Config(
        app, http=Connection, ws="none", lifespan="off", interface="asgi3", proxy_headers=False, log_config=None,
        server_header=False, headers=headers,
    )  # fmt: skip
    config.load()
    server = Server(config)
    # `Server.serve` would do this, but also take over the process's signals.
    server.lifespan = config.lifespan_class(config)
    return server


async def _end(server: "Server", ticking: asyncio.Task[None]) -> None:
    ticking.cancel()
    connections, tasks = server.server_state.connections, server.server_state.tasks
    try:
        for listener in server.servers:
            listener.close()
        for connection in list(connections):
            connection.shutdown()
        await _emptied(server, GRACE)
    finally:
        for task in list(tasks):
            task.cancel()
        for connection in list(connections):
            connection.transport.abort()
    await _emptied(server, REAP_WITHIN)


async def _emptied(server: "Server", within: float) -> None:
    state, until = server.server_state, time.monotonic() + within
    while (state.connections or state.tasks) and time.monotonic() < until:  # noqa: ASYNC110 - uvicorn has no event
        await asyncio.sleep(0.005)
