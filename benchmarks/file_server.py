"""A server of files that costs next to nothing: it takes uploads into memory it has already, and sends from a file."""

import asyncio
import json
import os

import attrs

from benchmarks.server import Listening

TASK, JOB = "tnews", "ai-0000"

_DONE = b'{"ret_code":200,"message":"success"}'
_HEAD_MOST = 1 << 16


@attrs.frozen
class Sent:
    """What a server has sent of its file: `requests`, and for each that was cut how many bytes it had sent too many.

    These are bytes that the server sent and that it was asked for again.
    """

    requests: int
    twice: tuple[int, ...]


class FileServer(Listening):
    """Takes uploads of up to `most` bytes, one at a time, and hands out the file at `path` under ``/model``.

    A job's status, asked for as the cloud's, tells that URL. The first `cuts` answers end early, at equal distances.
    """

    def __init__(self, most: int = 0, path: str = "") -> None:
        self.path = path
        self.room = bytearray(most + _HEAD_MOST)
        self.taken = memoryview(self.room)[:0]
        self.cut_at: list[int] = []
        self.requests = 0
        self.twice: list[int] = []

    def connected(self) -> asyncio.BaseProtocol:
        """Give what takes and sends."""
        return _Connection(self)

    def has_taken(self, path: str) -> bool:
        """Tell whether the last upload had the file at `path` in it."""
        with open(path, "rb") as file:
            return self.room.find(file.read()) >= 0

    def cut(self, cuts: int) -> None:
        """From now on count anew, and cut so many answers."""
        size = os.path.getsize(self.path)
        self.cut_at = [size * (number + 1) // (cuts + 1) for number in range(cuts)]
        self.requests, self.twice, self._broken_at = 0, [], None

    def sent(self) -> Sent:
        """Tell what was sent since `cut`."""
        return Sent(self.requests, tuple(self.twice))

    _broken_at: int | None = None

    def next_end(self, start: int) -> tuple[int, bool]:
        """Give where an answer from `start` on ends, and whether that is a cut."""
        self.requests += 1
        if self._broken_at is not None:
            self.twice.append(self._broken_at - start)
        self._broken_at = next((at for at in self.cut_at if at > start), None)
        if self._broken_at is None:
            return os.path.getsize(self.path), False
        self.cut_at.remove(self._broken_at)
        return self._broken_at, True


class _Connection(asyncio.BufferedProtocol):
    """One connection: what comes goes right into the server's room; requests must not be pipelined."""

    def __init__(self, server: FileServer) -> None:
        self._server = server
        self._at = 0
        self._end: int | None = None
        self._sending: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._server.room)[self._at :]

    def buffer_updated(self, nbytes: int) -> None:
        self._at += nbytes
        if self._end is None:
            head_end = self._server.room.find(b"\r\n\r\n", 0, min(self._at, _HEAD_MOST))
            if head_end < 0:
                return
            self._head = bytes(self._server.room[:head_end])
            lines = self._head.lower().split(b"\r\n")
            length = next((line.split(b":")[1] for line in lines if line.startswith(b"content-length:")), b"0")
            self._end = head_end + 4 + int(length)
        if self._at >= self._end:
            body = bytes(self._server.room[len(self._head) + 4 : min(self._end, _HEAD_MOST)])
            self._at, self._end = 0, None
            self._answer(self._head.split(b" ", 2)[1].decode(), body)

    def _answer(self, path: str, body: bytes) -> None:
        if path == "/model":
            self._sending = asyncio.create_task(self._send())
        elif path == "/api/userJob/job_status":
            self._write(json.dumps({"job_id": JOB, "status": "success", "url": f"{self._server.url}/model"}).encode())
        else:
            self._write(_DONE)

    def _write(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % len(body) + body)

    async def _send(self) -> None:
        lines = self._head.lower().split(b"\r\n")
        asked = next((line for line in lines if line.startswith(b"range:")), b"")
        start = int(asked.split(b"=")[1].rstrip(b"-")) if asked else 0
        size = os.path.getsize(self._server.path)
        end, is_cut = self._server.next_end(start)
        head = b'HTTP/1.1 %b\r\netag: "1"\r\naccept-ranges: bytes\r\ncontent-length: %d\r\n' % (
            b"206 Partial Content" if start else b"200 OK",
            size - start,
        )
        span = b"content-range: bytes %d-%d/%d\r\n" % (start, size - 1, size) if start else b""
        self._transport.write(head + span + b"\r\n")
        with open(self._server.path, "rb") as file:
            await asyncio.get_running_loop().sendfile(self._transport, file, start, end - start)
        if is_cut:
            self._transport.close()
