"""Samples to predict, read line by line from a file or stdin. What a sample must hold is in ``gts/samples.py``."""

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from gts_async._errors import FileMissing, InvalidArgument
from gts_async.cli.options import STDIN

STDIN_DESCRIPTOR = 0
CHUNK = 1 << 16
MAX_LINE = 8 << 20
"""Bytes of one row."""


class RowFile:
    """An async iterator over the rows of a JSON lines file; ``-`` is stdin.

    `numbers` are the lines that they were on, to be taken from the left as the rows are done with. A line that is no
    JSON object comes as the text that it is, to be refused alone. Empty lines are passed over. Raises FileMissing and
    InvalidArgument at once.
    """

    def __init__(self, source: str) -> None:
        self.numbers: deque[int] = deque()
        self._lines = _lines(_opened(source))
        self._line = 0

    def __aiter__(self) -> "RowFile":
        return self

    async def __anext__(self) -> Any:
        while True:
            line = (await anext(self._lines)).strip()
            self._line += 1
            if line:
                self.numbers.append(self._line)
                return _row(line)


def _opened(source: str) -> int:
    if source == STDIN:
        return STDIN_DESCRIPTOR
    try:
        return os.open(Path(source), os.O_RDONLY)
    except FileNotFoundError as error:
        raise FileMissing(f"{source}: there is no such file", path=source) from error
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> InvalidArgument:
    return InvalidArgument("file", f"cannot be read ({error.strerror})", "name a JSON lines file, or - for stdin")


def _row(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.MsgspecError:
        return line.decode("utf-8", "replace")


async def _lines(descriptor: int) -> AsyncIterator[bytes]:
    rest = b""
    while chunk := await _chunk(descriptor):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > MAX_LINE:
            raise InvalidArgument("file", f"has a line of more than {MAX_LINE} bytes", "put each sample on its own")
    yield rest
    if descriptor != STDIN_DESCRIPTOR:
        os.close(descriptor)


async def _chunk(descriptor: int) -> bytes:
    """Read what there is, in a thread of its own: a pooled one, or a buffered file, would hold up a Ctrl-C's exit."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[bytes] = loop.create_future()

    def tell(chunk: bytes | OSError) -> None:
        if arrived.done():
            return
        if isinstance(chunk, OSError):
            arrived.set_exception(_unreadable(chunk))
        else:
            arrived.set_result(chunk)

    def read() -> None:
        try:
            chunk: bytes | OSError = os.read(descriptor, CHUNK)
        except OSError as error:
            chunk = error
        # The loop may be closed by the time that somebody presses Enter.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, chunk)

    threading.Thread(target=read, name="rows", daemon=True).start()
    return await arrived
