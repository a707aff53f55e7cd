"""A client that is nothing but a socket, for looking at a chaos server's bytes, FINs and RSTs."""

import asyncio
import contextlib
import socket

import pytest

from gts_async.testing import ChaosServer

QUICK = 5.0
"""Seconds within which anything on loopback has happened."""


class Dialled:
    """A raw client's connection; every wait is bounded."""

    def __init__(self):
        self.socket = socket.socket()
        self.socket.setblocking(False)

    async def connect(self, port, within=QUICK):
        async with asyncio.timeout(within):
            await asyncio.get_running_loop().sock_connect(self.socket, ("127.0.0.1", port))

    async def send(self, data, within=QUICK):
        async with asyncio.timeout(within):
            await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def get(self, target="/", body=b""):
        """Send a request."""
        await self.send(b"POST %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (target.encode(), len(body), body))

    async def receive(self, size=65_536, within=QUICK):
        async with asyncio.timeout(within):
            return await asyncio.get_running_loop().sock_recv(self.socket, size)

    async def exactly(self, size):
        data = b""
        while len(data) < size:
            part = await self.receive(size - len(data))
            assert part, f"FIN after {data!r}"
            data += part
        return data

    async def to_the_end(self):
        """Read until FIN."""
        data = b""
        while part := await self.receive():
            data += part
        return data

    def close(self):
        self.socket.close()


@pytest.fixture
def dial():
    """Give ``await dial(server)``: a raw connection to it, closed at the end of the test."""
    with contextlib.ExitStack() as stack:

        async def dialled(server, within=QUICK):
            client = Dialled()
            stack.callback(client.close)
            await client.connect(server.port, within)
            return client

        yield dialled


@pytest.fixture(params=["on the test's loop", "in a thread"])
async def server(request):
    """Give a chaos server in each of its two ways of living."""
    if request.param == "in a thread":
        with ChaosServer() as server:
            yield server
    else:
        async with ChaosServer() as server:
            yield server
