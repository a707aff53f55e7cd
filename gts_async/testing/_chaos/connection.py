"""One connection of a chaos server: bytes and whole requests in, bytes out, and all the ways to end it.

The socket is the connection's own and does not block, so that a FIN, a RST or silence are what they say.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from typing import TYPE_CHECKING

import attrs

from gts_async.testing._chaos.presence import ClientGone, Departures, Present
from gts_async.testing._chaos.tls import Tunnel

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 65_536
"""Bytes read at once."""
LONGEST_HEAD = 1_000_000
"""Bytes; a request whose head is longer is the script's or the client's fault, and is reported."""


@attrs.frozen
class ChaosRequest:
    """A request as a chaos server read it: names of headers in lower case, a chunked body put together again."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int
    """The number of its connection, from 0."""
    version: str = "HTTP/1.1"

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        """Give the first header of that name, in whatever case, or None."""
        name = name.lower()
        return next((value for this, value in self.headers if this == name), None)


@attrs.define(eq=False)
class Surroundings:
    """What the connections of one chaos server share: what it saw, and how they are told of what happens."""

    requests: list[ChaosRequest]
    on_end: "Callable[[Connection], object]"
    received: int = 0
    loop: asyncio.AbstractEventLoop = attrs.field(init=False)
    departures: Departures = attrs.field(init=False)
    shares_loop: bool = attrs.field(init=False)
    """Whether the loop is that of whoever runs the server, so that its events can be awaited."""
    is_drained: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    """Set while somebody waits for all clients to go."""


class Connection:
    """A connection as scripts see it. Its methods are for the server's own loop; actions of `chaos` take it whole."""

    def __init__(self, number: int, accepted: socket.socket, around: Surroundings) -> None:
        self.number = number
        self.request: ChaosRequest | None = None
        """The request that was read last."""
        self.is_open = True
        self.is_half_closed = False
        """Whether our side has sent its FIN."""
        self.task: asyncio.Task[None] | None = None
        """What plays its scripts; it is cancelled when something else ends the connection."""
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = accepted
        self._loop = around.loop
        self._around = around
        self._tunnel: Tunnel | None = None
        self._ahead = bytearray()

    def __repr__(self) -> str:
        return f"<Connection {self.number} {'open' if self.is_open else 'closed'}>"

    @property
    def is_secure(self) -> bool:
        """Whether its TLS handshake has begun."""
        return self._tunnel is not None

    @property
    def shares_loop(self) -> bool:
        """Whether events of whoever runs the server can be awaited here."""
        return self._around.shares_loop

    async def shake_hands(self, context: ssl.SSLContext) -> None:
        """Do the server's part of the TLS handshake. Raises ClientGone, also if the client does not trust us."""
        tunnel = self._tunnel = Tunnel(context)
        try:
            while not tunnel.shake_hands():
                await self._write(tunnel.take())
                tunnel.put(await self._read(CHUNK))
        except ssl.SSLError as error:
            with contextlib.suppress(OSError):
                self._socket.send(tunnel.take())
            raise ClientGone(str(error)) from error
        await self._write(tunnel.take())

    # In

    async def receive(self, size: int) -> bytes:
        """Give at least one and at most `size` bytes, nothing once the client has sent its last.

        Raises ClientGone if it has reset the connection.
        """
        if self._ahead:
            data = bytes(self._ahead[:size])
            del self._ahead[:size]
            return data
        data = await (self._read(size) if self._tunnel is None else self._opened(self._tunnel, size))
        self._around.received += len(data)
        return data

    async def read_request(self) -> ChaosRequest:
        """Give the next request, whole; it is recorded, too. Raises ClientGone if the client sends no whole one."""
        first, *lines = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, version = (*first.split(" "), "", "", "")[:3]
        if not version.startswith("HTTP/"):
            raise ValueError(f"not the first line of a request: {first[:200]!r}")
        headers = tuple(_header(line) for line in lines)
        body = await self._body(dict(headers))
        self.request = ChaosRequest(method, target, headers, body, self.number, version)
        self._around.requests.append(self.request)
        return self.request

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", "").lower():
            return await self._exactly(int(headers.get("content-length", 0)))
        body = bytearray()
        while size := int((await self._until(b"\r\n")).partition(b";")[0], 16):
            body += (await self._exactly(size + 2))[:-2]
        while await self._until(b"\r\n"):
            pass
        return bytes(body)

    async def _until(self, end: bytes) -> bytes:
        looked = 0
        while (at := self._ahead.find(end, looked)) < 0:
            looked = max(0, len(self._ahead) - len(end) + 1)
            if looked > LONGEST_HEAD:
                raise ValueError(f"no end of a request's head within {LONGEST_HEAD} bytes")
            await self._read_ahead()
        data = bytes(self._ahead[:at])
        del self._ahead[: at + len(end)]
        return data

    async def _exactly(self, size: int) -> bytes:
        while len(self._ahead) < size:
            await self._read_ahead()
        data = bytes(self._ahead[:size])
        del self._ahead[:size]
        return data

    async def _read_ahead(self) -> None:
        data = await (self._read(CHUNK) if self._tunnel is None else self._opened(self._tunnel, CHUNK))
        if not data:
            raise ClientGone("the client has sent its last")
        self._around.received += len(data)
        self._ahead += data

    async def _opened(self, tunnel: Tunnel, size: int) -> bytes:
        try:
            while (data := tunnel.open(size)) is None:
                await self._write(tunnel.take())
                tunnel.put(await self._read(CHUNK))
        except ssl.SSLError as error:
            raise ClientGone(str(error)) from error
        return data

    async def _read(self, size: int) -> bytes:
        self._check_open()
        try:
            return await self._loop.sock_recv(self._socket, size)
        except OSError as error:
            raise ClientGone(str(error)) from error

    # Out

    async def send(self, data: bytes) -> None:
        """Send this, however slowly the client reads. Raises ClientGone."""
        if self.is_half_closed:
            raise RuntimeError("nothing can be sent any more: the script has ended this side of the connection")
        if (tunnel := self._tunnel) is None:
            await self._write(data)
            return
        left = memoryview(data)
        try:
            while left:
                left = left[tunnel.seal(left) :]
                await self._write(tunnel.take())
        except ssl.SSLError as error:
            raise ClientGone(str(error)) from error

    async def _write(self, data: bytes) -> None:
        self._check_open()
        if not data:
            return
        try:
            await self._loop.sock_sendall(self._socket, data)
        except OSError as error:
            raise ClientGone(str(error)) from error

    # Waiting

    def present(self) -> "Present":
        """Give ``async with connection.present():``: ClientGone is raised in it as soon as the client goes.

        Nothing is read meanwhile, so a client whose own bytes have not all fitted cannot be seen to go.
        """
        self._check_open()
        return Present(self._around.departures, self._socket.fileno())

    async def stall(self) -> None:
        """Wait until the client goes; raises ClientGone, always."""
        async with self.present():
            await self._around.is_drained.wait()
        # Whoever waits for clients to go cannot see what is not read any more, but their going.
        while await self.receive(CHUNK):
            pass
        raise ClientGone("the client has sent its last")

    # The end

    def half_close(self) -> None:
        """Send FIN (with TLS close_notify, too), and go on reading."""
        self._say_goodbye()
        self._shut_down()

    def close(self, *, is_announced: bool = True) -> None:
        """Send FIN and close; nothing happens if it is closed. With TLS, say so before unless not `is_announced`.

        What came and was not read is dropped, since closing would send RST otherwise. A client that goes on sending
        will be answered by RST all the same.
        """
        if not self.is_open:
            return
        if is_announced and not self.is_half_closed:
            self._say_goodbye()
        self._shut_down()
        with contextlib.suppress(OSError):
            for _ in range(1000):
                if not self._socket.recv(CHUNK):
                    break
        self._end()

    def reset(self) -> None:
        """Send RST; nothing happens if it is closed."""
        if self.is_open:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._end()

    def _say_goodbye(self) -> None:
        if self._tunnel:
            self._tunnel.end()
            with contextlib.suppress(OSError):
                self._socket.send(self._tunnel.take())

    def _shut_down(self) -> None:
        self.is_half_closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def _check_open(self) -> None:
        if not self.is_open:
            raise RuntimeError("nothing can be done any more: the script has ended the connection")

    def _end(self) -> None:
        self.is_open = False
        descriptor = self._socket.fileno()
        self._around.departures.unwatch(descriptor)
        self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        self._socket.close()
        self._around.on_end(self)
        if self.task and self.task is not asyncio.current_task(self._loop):
            self.task.cancel()


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value.strip()
