"""EmulatorTransport: answers a session's requests with pure servers, without a socket; faults can come in between."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import httpx

from gts_async.testing.faults import Fault
from gts_async.wire import Answer, Request


class Server(Protocol):
    """Anything that answers, like the emulator's Engine, Cloud and ObjectStore."""

    def answer(self, request: Request, now: float) -> Answer:
        """Give the answer at the time `now` (Unix seconds)."""
        ...


class EmulatorTransport(httpx.AsyncBaseTransport):
    """An httpx transport for ``AsyncSession(transport=…)``.

    `servers` are by origin ("http://engine.test"); `now` gives Unix seconds, for a fake clock
    ``lambda: clock.wall().timestamp()``. Each of `faults` meets the requests it is for, in order. `seen` keeps every
    request that reached a server.
    """

    is_private = True
    """The servers live in this process: no other process can take an engine's model slot (`_lease.py`)."""

    def __init__(
        self, servers: Mapping[str, Server], now: Callable[[], float], *, faults: Sequence[Fault] = ()
    ) -> None:
        self._servers = dict(servers)
        self._now = now
        self.faults = list(faults)
        self.seen: list[Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Let the server of the request's origin answer it, or raise what httpx would raise."""
        url = request.url
        server = self._servers.get(f"{url.scheme}://{url.netloc.decode()}")
        if server is None:
            raise httpx.ConnectError(f"no server at {url.scheme}://{url.netloc.decode()}", request=request)
        fault = next((f for f in self.faults if f.meets(request.method, url.path)), None)
        if fault is not None and not fault.is_after:
            return fault.outcome(request)
        body = await request.aread()
        # Request and answer are a while on their way: only so can a caller be cancelled before, between and after.
        await asyncio.sleep(0)
        headers = tuple((name.lower(), value) for name, value in request.headers.multi_items())
        query = tuple(url.params.multi_items())
        sent = Request(request.method, url.raw_path.split(b"?")[0].decode(), query, headers, body)
        self.seen.append(sent)
        answer = server.answer(sent, self._now())
        await asyncio.sleep(0)
        if fault is not None:
            return fault.outcome(request)
        if answer.status == 0:  # `emulator.cloud.DROPPED`
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
        return httpx.Response(answer.status, headers=list(answer.headers), content=answer.body)
