"""The multipart body of an upload: files are streamed from disk, with an exact length known before the first byte.

Which fields an endpoint wants is in ``gts/calls.py``; whether the files would train is checked in `preflight`.
"""

import asyncio
import os
import secrets
import stat
from collections.abc import Generator
from concurrent.futures import Future
from typing import Self
from weakref import WeakSet

import anyio.to_thread
import attrs

from gts_async._errors import FileError, FileMissing, InvalidArgument
from gts_async._files.disk import DiskThread, opened, settled, step, translated
from gts_async._progress import OnProgress, Progress
from gts_async.wire import FilePart, Multipart

PIECE = 1 << 20
"""Bytes read at a time; with less, handing over to the thread costs more than the reading itself."""


async def open_multipart(multipart: Multipart, *, progress: OnProgress | None = None) -> "MultipartStream":
    """Give the body of a form, ready to be sent as often as needed.

    The files are looked at in a worker thread and opened only when they are sent. `progress` is told after each piece
    what has left this machine. Raises FileMissing (not there, or not a regular file), FileError (not readable), and
    InvalidArgument for two files of one name: the engine would silently keep the last (`gts_engine_service.py:
    upload_files`).
    """
    _check_names(multipart)
    files = await anyio.to_thread.run_sync(_look, tuple(part for _, part in multipart.files))
    return MultipartStream(multipart, files, progress)


@attrs.frozen
class _Seen:
    """A file as it was when its size was put into the length; another one must not be sent under that length."""

    part: FilePart
    size: int
    changed_at: int
    inode: tuple[int, int]


@attrs.frozen
class _Piece:
    what: str
    data: bytes


class MultipartStream:
    """A form as a stream (RFC 7578): `content_type`, the exact `length` in bytes, and `chunks` as often as needed.

    A file that has changed since it was looked at ends the stream with a FileError before the body is complete.
    """

    def __init__(self, multipart: Multipart, files: tuple[_Seen, ...], progress: OnProgress | None) -> None:
        boundary = f"gts-async-{secrets.token_hex(16)}"
        self._heads = tuple(
            (_file_head(boundary, field, seen.part.name), seen)
            for (field, _), seen in zip(multipart.files, files, strict=True)
        )
        self._fields = b"".join(_field(boundary, name, value) for name, value in multipart.fields)
        self._tail = f"--{boundary}--\r\n".encode()
        self._progress = progress
        # Weak, so that a body dropped half-way closes its file at once and not when a cycle is collected.
        self._open: WeakSet[Chunks] = WeakSet()
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.length = len(self._fields) + len(self._tail) + sum(len(h) + s.size + 2 for h, s in self._heads)

    def chunks(self) -> "Chunks":
        """Give the body's bytes from their beginning."""
        chunks = Chunks(self._pieces(), self.length, self._progress)
        self._open.add(chunks)
        return chunks

    def __aiter__(self) -> "Chunks":
        return self.chunks()

    async def aclose(self) -> None:
        """Close the files that are still open, and wait until they are."""
        while self._open:
            await self._open.pop().aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _pieces(self) -> Generator[_Piece, None, None]:
        """Make the body, in the thread; `framing` waits to be sent along with the next bytes of a file."""
        framing = self._fields
        what = ""
        for head, seen in self._heads:
            framing, what = framing + head, seen.part.name
            for data in _read(seen):
                yield _Piece(what, framing + data if framing else data)
                framing = b""
            framing += b"\r\n"
        yield _Piece(what, framing + self._tail)


class Chunks:
    """The bytes of a body, one piece being read ahead while the one before is sent.

    Ends its thread and closes its file at the end, at the first error or cancellation, and when closed or dropped.
    """

    def __init__(self, pieces: Generator[_Piece, None, None], length: int, progress: OnProgress | None) -> None:
        self._pieces = pieces
        self._length = length
        self._progress = progress
        self._thread = DiskThread()
        self._ahead: Future[_Piece | None] | None = None
        self._sent = 0
        self._last: _Piece | None = None
        self._closing: Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._closing is not None:
            raise StopAsyncIteration
        try:
            # To be asked for more means that the piece before has been sent.
            self._report()
            piece = await self._next()
        except BaseException:
            self._leave()
            raise
        if piece is None:
            self._leave()
            raise StopAsyncIteration
        self._last = piece
        return piece.data

    async def _next(self) -> _Piece | None:
        ahead = self._ahead or self._read_ahead()
        if ahead.done():
            # A body that is read faster than it is sent must not keep the loop to itself.
            await asyncio.sleep(0)
            piece = ahead.result()
        else:
            piece = await asyncio.wrap_future(ahead)
        if piece is not None:
            self._read_ahead()
        return piece

    def _read_ahead(self) -> Future[_Piece | None]:
        self._ahead = self._thread.submit(step, self._pieces)
        return self._ahead

    def _report(self) -> None:
        if self._last is None:
            return
        self._sent += len(self._last.data)
        what, self._last = self._last.what, None
        if self._progress is not None:
            self._progress(Progress(what, self._sent, self._length))

    def _leave(self) -> Future[None]:
        if self._closing is None:
            self._closing = self._thread.leave(self._pieces.close)
        return self._closing

    async def aclose(self) -> None:
        """Close the file and end the thread, wherever the stream was."""
        await settled(self._leave())


def _check_names(multipart: Multipart) -> None:
    names: set[str] = set()
    for field, part in multipart.files:
        if part.name in names:
            raise InvalidArgument(
                field, f"the name {part.name!r} is given twice", "the engine would keep only the last"
            )
        names.add(part.name)
    for text in (*names, *(name for name, _ in (*multipart.fields, *multipart.files))):
        if not text or not text.isprintable() or '"' in text or "\\" in text:
            raise InvalidArgument("multipart", f"{text!r} cannot be a name in a form", "use letters, digits and _.-")


def _look(parts: tuple[FilePart, ...]) -> tuple[_Seen, ...]:
    return tuple(_seen(part) for part in parts)


def _seen(part: FilePart) -> _Seen:
    if "\0" in part.path:
        raise FileMissing(f"cannot send: {part.path!r} is no path", path=part.path)
    with translated(part.path, "cannot send"):
        status = os.stat(part.path)
    if not stat.S_ISREG(status.st_mode):
        raise FileMissing(f"cannot send: {part.path}: is not a regular file", path=part.path)
    return _Seen(part, status.st_size, status.st_mtime_ns, (status.st_dev, status.st_ino))


def _read(seen: _Seen) -> Generator[bytes, None, None]:
    """Give the file's bytes; raises FileError if it is not, or does not stay, the one whose size was announced."""
    path = seen.part.path
    with translated(path, "cannot send"), opened(path) as file:
        _check_unchanged(seen, file.fileno())
        left = seen.size
        while left:
            data = file.read(min(PIECE, left))
            if not data:
                raise FileError(f"cannot send: {path}: became shorter while it was sent", path=path)
            left -= len(data)
            yield data
        _check_unchanged(seen, file.fileno())


def _check_unchanged(seen: _Seen, descriptor: int) -> None:
    now = os.fstat(descriptor)
    if (now.st_size, now.st_mtime_ns, (now.st_dev, now.st_ino)) != (seen.size, seen.changed_at, seen.inode):
        path = seen.part.path
        raise FileError(f"cannot send: {path}: was changed after it was looked at; send it again", path=path)


def _field(boundary: str, name: str, value: str) -> bytes:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def _file_head(boundary: str, field: str, name: str) -> bytes:
    # The engine stores under the plain `filename`, raw: `filename*` is refused, percent escapes are not undone.
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
