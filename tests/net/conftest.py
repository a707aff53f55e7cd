"""A server on raw sockets, for what no mock can show: framing, resets, half-closed connections, drips."""

import asyncio
import socket
import struct

import pytest


class RawServer:
    """Answers each request with the next of `replies`, the last one for ever.

    A reply is bytes, or an async callable with the reader and the writer; one that returns True ends the connection.
    Counts connections and requests.
    """

    def __init__(self, *replies):
        self.replies = list(replies)
        self.connections = self.open = self.requests = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await self.drained()

    async def drained(self):
        """Wait until all connections have gone."""
        async with asyncio.timeout(5):
            while self.open:
                await asyncio.sleep(0.005)

    async def _serve(self, reader, writer):
        self.connections += 1
        self.open += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(length(head))
                self.requests += 1
                reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                if isinstance(reply, bytes):
                    writer.write(reply)
                    await writer.drain()
                elif await reply(reader, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


def length(head):
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    return int(lines.get(b"content-length", 0))


@pytest.fixture
def raw_server():
    """Give the class: ``async with raw_server(b"HTTP/1.1 200 OK…") as server``."""
    return RawServer


async def fin(reader, writer):
    return True


async def rst(reader, writer):
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return True


async def silence(reader, writer):
    await reader.read()
    return True


def sent(*pieces):
    """Send these and end the connection."""

    async def reply(reader, writer):
        for piece in pieces:
            writer.write(piece)
        await writer.drain()
        return True

    return reply


def drip(head, piece):
    """Send `head`, then `piece` every 10 ms for ever."""

    async def reply(reader, writer):
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    return reply


@pytest.fixture
def fault():
    """Give a raw server's faults by name."""
    ok = b"HTTP/1.1 200 OK\r\n"
    return {
        "closed": fin,
        "reset": rst,
        "silent": silence,
        "short body": sent(ok + b'content-length: 99\r\n\r\n{"x": 1'),
        "cut chunk": sent(ok + b'transfer-encoding: chunked\r\n\r\n5\r\n{"x"'),
        "cut without a length": sent(ok + b'\r\n{"x": '),
        "two lengths": sent(ok + b'content-length: 8\r\ncontent-length: 9\r\n\r\n{"x": 1} '),
        "endless header": drip(ok, b"x-a: " + b"b" * 50_000),
        "not http": sent(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        "dripping header": drip(ok, b"x-a: b\r\n"),
        "dripping body": drip(ok + b"content-length: 999999\r\n\r\n", b" "),
        "endless 1xx": drip(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        "huge body": drip(ok + b"content-length: 99999999999\r\n\r\n", b" " * 200_000),
    }
