"""DiskThread: one worker thread that does the disk work of one transfer, in order, off the event loop.

One thread per transfer and not a shared pool: its jobs need no locks, a slow disk holds up nobody else's name
look-ups, and when the transfer ends the thread does too.
"""

import asyncio
import os
import stat
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

import anyio

from gts_async._errors import FileError, FileMissing

P = ParamSpec("P")
T = TypeVar("T")

CLOSING_TIME = 5.0
"""Seconds that a caller waits for the last job; a disk that hangs for longer is left to its thread."""


class DiskThread:
    """A thread for jobs that block on a disk. `finish` must be called, and is called once."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gts-async-disk")

    def submit(self, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a job, to be waited for later or not at all."""
        return self._executor.submit(job, *args, **kwargs)

    async def run(self, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Give the job's result. When cancelled, a job that runs goes on to its end; one still queued is dropped."""
        return await asyncio.wrap_future(self.submit(job, *args, **kwargs))

    def leave(self, last_job: Callable[[], T]) -> Future[T]:
        """Queue the last job and let the thread end after it."""
        future = self._executor.submit(last_job)
        self._executor.shutdown(wait=False)
        return future

    async def finish(self, last_job: Callable[[], T]) -> None:
        """Run the last job, cancelled or not, and let the thread end; waits for it `CLOSING_TIME` at most.

        A second cancellation ends only the waiting. What the job raises is raised.
        """
        await settled(self.leave(last_job))


async def settled(future: Future[T]) -> None:
    """Wait until a job of a thread has ended, `CLOSING_TIME` at most; cancelling the waiting does not drop the job."""
    with anyio.move_on_after(CLOSING_TIME, shield=True):
        await asyncio.shield(asyncio.wrap_future(future))


@contextmanager
def translated(path: Path | str, what: str) -> Iterator[None]:
    """Turn an OSError of the block into our FileError (FileMissing if a file or folder is not there)."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        kind = FileMissing if isinstance(error, FileNotFoundError) else FileError
        raise kind(f"{what}: {path}: {error.strerror or error}", path=os.fspath(path)) from error


def may_write(folder: Path) -> bool:
    """Tell whether files can be made in the folder."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


@contextmanager
def opened(path: Path | str) -> Iterator[BinaryIO]:
    """Open a regular file for reading; FileMissing for anything else."""
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise FileMissing(f"{path}: is not a regular file", path=os.fspath(path))
        yield file


def _without_waiting(path: str, flags: int) -> int:
    # Opening a FIFO would wait, for ever perhaps, for somebody to write to it.
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)


def step(work: Generator[T, None, None]) -> T | None:
    """Give the next value of a generator, None at its end: StopIteration cannot pass through a future."""
    return next(work, None)
