"""Reads a data file block by block, and tells if it was not the same file to the end.

What the blocks mean is in ``gts/jsonlines.py`` and ``gts/datafiles.py``.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from gts_async._errors import FileError
from gts_async._files.disk import opened, translated

BLOCK = 1 << 16
"""Bytes read at a time, and worked through in a few ms."""

STEP = 1 << 20
"""Bytes worked through between two chances to cancel, each line counted as LINE more."""

LINE = 32
"""What a line costs by itself, in bytes of text that cost as much."""


def identity(path: Path) -> tuple[int, int]:
    """Give what makes a file the same one under another name, links followed."""
    seen = path.stat()
    return seen.st_dev, seen.st_ino


def version(path: Path, what: str) -> tuple[int, int, int]:
    """Give what changes with a file's content; raises FileMissing and FileError."""
    with translated(path, what):
        seen = path.stat()
    return seen.st_ino, seen.st_size, seen.st_mtime_ns


def changed(path: Path, what: str) -> FileError:
    """Give the error for a file that is not what it was."""
    return FileError(f"{what}: {path}: has changed while it was read; try again", path=os.fspath(path))


def blocks(path: Path, what: str) -> Iterator[bytes]:
    """Give the file's bytes; raises FileMissing and FileError, also for a file that changes meanwhile.

    `what` says in an error what could not be done.
    """
    with translated(path, what), opened(path) as file:
        before = os.fstat(file.fileno())
        left = before.st_size  # a file that grows faster than it is read would have no end
        while left and (block := file.read(min(BLOCK, left))):
            left -= len(block)
            yield block
            # The interpreter gives a thread's turn away only after 5 ms of its own accord, and each turn of the event
            # loop would wait for that; sleeping gives it away at once.
            time.sleep(0)
        after = os.fstat(file.fileno())
        if left or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise changed(path, what)
