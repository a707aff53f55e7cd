"""Slots: one connection's worth of capacity each, handed out per origin and thrown away after an unclean exchange.

httpx's own pool loses connections for good when a request is cancelled at the wrong moment, and scans all of them on
every request. So each slot here is a stock httpx transport that may hold a single connection, and this module keeps
the free ones. A slot goes back only if its answer was read to the end, with nothing after it, and closed; after
anything else, and after any 5xx (the engine's server closes the socket then without saying so), it is closed in the
background.
"""

import asyncio
import contextlib
import ssl
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

import attrs
import httpx

from gts_async._errors import MisuseError
from gts_async._net.innards import HEAD_READ, read_at_once
from gts_async._net.leftovers import has_leftovers

DRAINING_TIME = 0.5
"""Seconds that exchanges may still take when the transport is closed; a create's answer is worth that much."""

CLOSING_TIME = 4.0
"""Seconds that closing connections may take before they are abandoned."""

BODY_READ = "gts_async.body_read"
"""The request extension that tells how many bytes of the body to read at once: large files are read in large pieces."""

MakeTransport = Callable[[ssl.SSLContext], httpx.AsyncBaseTransport]
OriginKey = tuple[str, str, int | None]


class Closable(Protocol):
    """What httpcore's streams are to us."""

    async def aclose(self) -> None:
        """Close the socket."""
        ...


@attrs.define(eq=False)
class Slot:
    """A transport that holds at most one connection, and the socket under it, once there is one."""

    transport: httpx.AsyncBaseTransport
    origin: "_Origin"
    socket: Closable | None = None
    connecting: asyncio.Timeout | None = None
    may_send: bool = True

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send; raises MisuseError if `refuse` is called before the first byte."""
        bound = asyncio.timeout(None)
        try:
            async with bound:
                return await self.transport.handle_async_request(self._watching(request, bound))
        except TimeoutError:
            if not bound.expired():
                raise
        except ValueError as error:
            if self.connecting is None:
                raise
            # anyio's, of no address at all, or the codec's, of a name that can be none.
            raise httpx.ConnectError("the name leads to no address", request=request) from error
        raise _closed()

    def refuse(self) -> None:
        """Let a request that is not yet being sent never be sent."""
        if self.may_send and self.connecting is not None:
            # Closing a transport does not end this: the request would go over the connection that comes of it.
            self.connecting.reschedule(asyncio.get_running_loop().time())
        self.may_send = False

    def _watching(self, request: httpx.Request, bound: asyncio.Timeout) -> httpx.Request:
        """Give the request with a trace that notices the socket; it tells whoever traced before."""
        told = request.extensions.get("trace")

        async def trace(event: str, info: Mapping[str, Any]) -> None:
            if event == "connection.connect_tcp.started":
                self.connecting = bound
            elif event == "connection.connect_tcp.complete":
                self.socket = info["return_value"]
            elif event == "http11.send_request_headers.started":
                self.connecting = None
                if not self.may_send:
                    raise _closed()
            elif event == "http11.receive_response_headers.started":
                read_at_once(self.transport, HEAD_READ)
            elif event == "http11.receive_response_headers.complete":
                read_at_once(self.transport, request.extensions.get(BODY_READ))
            if told is not None:
                await told(event, info)

        request.extensions = {**request.extensions, "trace": trace}
        return request

    async def aclose(self) -> None:
        """Close the transport, and the socket: httpcore forgets it if a TLS handshake is cancelled."""
        try:
            await self.transport.aclose()
        finally:
            if self.socket is not None:
                await self.socket.aclose()


class _Origin:
    """The slots of one scheme, host and port: a gate as wide as the limit, and a stack of free ones.

    The stack keeps hot connections hot and lets the cold ones at its bottom expire.
    """

    def __init__(self, max_connections: int) -> None:
        self.gate = asyncio.Semaphore(max_connections)
        self.idle: list[tuple[float, Slot]] = []


class SlotTransport(httpx.AsyncBaseTransport):
    """An httpx transport over slots: no more than `max_connections` per origin, first come first served.

    `keepalive_expiry` (seconds) must lie below the server's own: GTS Engine closes idle connections after 5.0 s.
    `ssl_context` is awaited once per new https slot and is expected to be cached.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        ssl_context: Callable[[], Awaitable[ssl.SSLContext]],
        keepalive_expiry: float = 3.0,
        make_transport: MakeTransport | None = None,
    ) -> None:
        self._max_connections = max_connections
        self._ssl_context = ssl_context
        self._keepalive_expiry = keepalive_expiry
        self._make_transport = make_transport or self._stock_transport
        self._origins: dict[OriginKey, _Origin] = {}
        self._in_use: set[Slot] = set()
        self._are_all_back = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False
        # Plain http needs no certificates, and a context without any can verify nothing: safe, and 30 ms cheaper.
        self._no_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def _stock_transport(self, context: ssl.SSLContext) -> httpx.AsyncBaseTransport:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=self._keepalive_expiry)
        return httpx.AsyncHTTPTransport(verify=context, limits=limits, trust_env=False)

    @property
    def in_use(self) -> int:
        """Slots whose exchange is going on."""
        return len(self._in_use)

    @property
    def idle(self) -> int:
        """Free slots that hold a connection."""
        return sum(len(origin.idle) for origin in self._origins.values())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send on a free slot, waiting for one at most the request's pool timeout (then httpx.PoolTimeout).

        Raises MisuseError once the transport is closed.
        """
        url = request.url
        key = (url.scheme, url.host, url.port)
        origin = self._origins.get(key)
        if origin is None:
            origin = self._origins[key] = _Origin(self._max_connections)
        await self._pass_gate(origin, request)
        try:
            slot = await self._take(origin, request)
        except BaseException:
            origin.gate.release()
            raise
        self._in_use.add(slot)
        self._loop = asyncio.get_running_loop()
        try:
            response = await slot.send(request)
        except BaseException:
            self._throw_away(slot)
            raise
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_SlotStream(self, slot, response),
            extensions=response.extensions,
        )

    async def _pass_gate(self, origin: _Origin, request: httpx.Request) -> None:
        if self._is_closed:
            raise _closed()
        if not origin.gate.locked():
            await origin.gate.acquire()
            return
        patience = request.extensions.get("timeout", {}).get("pool")
        try:
            async with asyncio.timeout(patience):
                await origin.gate.acquire()
        except TimeoutError as error:
            raise httpx.PoolTimeout("no free connection in time", request=request) from error

    async def _take(self, origin: _Origin, request: httpx.Request) -> Slot:
        if origin.idle:
            return origin.idle.pop()[1]
        try:
            context = await self._ssl_context() if request.url.scheme == "https" else self._no_tls
        except OSError as error:
            raise httpx.ConnectError(f"no certificate authorities: {error}", request=request) from error
        if self._is_closed:
            raise _closed()
        return Slot(self._make_transport(context), origin)

    def _give_back(self, slot: Slot) -> None:
        if self._is_closed:
            self._throw_away(slot)
            return
        slot.origin.idle.append((time.monotonic(), slot))
        self._leave(slot)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._keepalive_expiry, self._drop_expired)

    def _throw_away(self, slot: Slot) -> None:
        self._leave(slot)
        self._close_later(slot)

    def _abandoned(self, slot: Slot) -> None:
        """Throw away the slot of an answer that nobody closed and nobody holds any more; any thread may call this."""
        warnings.warn("an answer was neither read to its end nor closed", ResourceWarning, stacklevel=3)
        # The loop is closed, or nobody's any more: there is no place to give back.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._throw_away, slot)

    def _leave(self, slot: Slot) -> None:
        self._in_use.discard(slot)
        slot.origin.gate.release()
        if not self._in_use:
            self._are_all_back.set()

    def _close_later(self, slot: Slot) -> None:
        task = asyncio.get_running_loop().create_task(_close(slot))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _drop_expired(self) -> None:
        self._sweep = None
        horizon = time.monotonic() - self._keepalive_expiry
        for origin in self._origins.values():
            kept = next((i for i, (since, _) in enumerate(origin.idle) if since > horizon), len(origin.idle))
            for _, slot in origin.idle[:kept]:
                self._close_later(slot)
            del origin.idle[:kept]
        if any(origin.idle for origin in self._origins.values()):
            self._sweep = asyncio.get_running_loop().call_later(self._keepalive_expiry, self._drop_expired)

    async def aclose(self) -> None:
        """Close every slot, those in use after `DRAINING_TIME` at most; bounded by that and `CLOSING_TIME`.

        What is not being sent yet is not sent any more.
        """
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for origin in self._origins.values():
            for _, slot in origin.idle:
                self._close_later(slot)
            origin.idle.clear()
            # Wakes the first who waits; each finds the transport closed and wakes the next.
            origin.gate.release()
        loop = asyncio.get_running_loop()
        for slot in self._in_use:
            slot.refuse()
        await self._drain()
        # What another loop began, which is over perhaps, will not go on.
        if closing := [task for task in self._closing if task.get_loop() is loop]:
            await asyncio.wait(closing, timeout=CLOSING_TIME)

    async def _drain(self) -> None:
        """Let exchanges end by themselves for a moment, then cut them."""
        if self._in_use:
            self._are_all_back.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAINING_TIME):
                    await self._are_all_back.wait()
        for slot in self._in_use:
            self._close_later(slot)


class _SlotStream(httpx.AsyncByteStream):
    """The answer's bytes; closing it decides whether the slot may be used again."""

    def __init__(self, owner: SlotTransport, slot: Slot, response: httpx.Response) -> None:
        self._owner = owner
        self._slot = slot
        self._response = response
        self._is_whole = False
        self._is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        stream = self._response.stream
        assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - an async transport answers with one
        async for chunk in stream:
            yield chunk
        self._is_whole = True

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        is_spent = not self._is_whole or not 200 <= self._response.status_code < 500
        if is_spent or has_leftovers(self._slot.transport, self._response):
            # Decided without waiting: a cancelled caller gets no further than here.
            self._owner._throw_away(self._slot)
            return
        try:
            await self._response.aclose()
        except BaseException:
            self._owner._throw_away(self._slot)
            raise
        self._owner._give_back(self._slot)

    def __del__(self) -> None:
        if not self._is_closed:
            self._owner._abandoned(self._slot)


def _closed() -> MisuseError:
    return MisuseError("the session is closed; open another")


async def _close(slot: Slot) -> None:
    try:
        async with asyncio.timeout(CLOSING_TIME):
            await slot.aclose()
    except (TimeoutError, OSError, httpx.HTTPError, RuntimeError):
        # Nobody waits for this connection any more; what it dies of concerns nobody.
        return
