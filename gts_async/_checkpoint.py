"""Checkpoint: the results of a stream of predictions, on disk, so that a run that was killed goes on where it was.

What sqlite can meet is told in `_database`; when a stream asks here is in `_predicting`.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import sqlite3
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec

from gts_async._database import Database
from gts_async._errors import FileError, InvalidArgument, plain
from gts_async._files.place import local_path
from gts_async.gts.values import Extraction, Prediction, Result, Summary, TaskType

CHECKPOINT_KIND, CHECKPOINT_VERSION = 0x67747363, 3

SCHEMA = (
    "CREATE TABLE source (task_id TEXT NOT NULL, model TEXT NOT NULL);"
    "CREATE TABLE results (position INTEGER PRIMARY KEY, sample BLOB NOT NULL, kind TEXT NOT NULL,"
    " result BLOB NOT NULL, crc INTEGER NOT NULL)"
)

KINDS: dict[str, type[Any]] = {"prediction": Prediction, "extraction": Extraction, "summary": Summary}

MAX_UNSAVED = 4096
"""Results that may wait to be written: with more, the disk is what everybody waits for."""

Line = tuple[int, bytes, str, bytes, int]


class Checkpoint:
    """The results of one stream of samples, by position; another task, model or input than last time is refused.

    `fingerprint` names the model that answers now. Results are on disk a moment after they are kept: what comes while
    one commit is under way goes with the next. Failures are not kept: a later run asks for those samples again. One
    stream at a time uses the file, known by a lock that ends with its process. All methods raise FileError.
    """

    def __init__(
        self, path: str | os.PathLike[str], task_id: str, fingerprint: Callable[[], Awaitable[str]] | None = None
    ) -> None:
        self._database = Database(
            local_path("checkpoint", path),
            SCHEMA,
            CHECKPOINT_VERSION,
            kind=CHECKPOINT_KIND,
            is_checked=True,
            if_damaged="delete it to ask for everything again",
        )
        self._task_id = task_id
        self._fingerprint = fingerprint
        self._claim = _Claim(self._database.path)
        self._opening = anyio.Lock()
        self._is_open = False
        self._end = 0
        self._unsaved: list[Line] = []
        self._writing: asyncio.Task[None] | None = None
        self._failure: FileError | None = None

    async def known(self, start: int, keys: Sequence[bytes | None]) -> dict[int, Result]:
        """Give the results of earlier runs by their index in `keys`; `start` is the position of the first.

        A key is `sample_key`'s, None for a sample that has none. Raises InvalidArgument if the file holds results of
        another task or model, or another sample's at one of these positions.
        """
        await self._open()
        if start >= self._end:
            return {}
        found = await self._database.run(
            lambda connection: connection.execute(
                "SELECT position, sample, kind, result, crc FROM results WHERE position >= ? AND position < ?",
                (start, start + len(keys)),
            ).fetchall()
        )
        results: dict[int, Result] = {}
        for position, sample, kind, result, crc in found:
            if crc != _crc(position, sample, kind, result):
                raise self._database.damaged()
            if sample != keys[position - start]:
                raise self._refusal(f"has results of other samples: the input differs at sample {position}")
            results[position - start] = self._read(kind, result)
        return results

    def _read(self, kind: str, result: bytes) -> Result:
        try:
            read: Result = msgspec.json.decode(result, type=KINDS[kind])
        except (KeyError, msgspec.MsgspecError):
            raise self._database.damaged() from None
        return read

    def _refusal(self, what: str) -> InvalidArgument:
        return InvalidArgument(
            "checkpoint",
            f"{self._database.path} {what} (the first is 0)",
            "give what the first run was given, or another file",
        )

    async def keep(self, start: int, keys: Sequence[bytes | None], results: Mapping[int, Result]) -> None:
        """Keep results, by their index in `keys`; raises what went wrong with those that were kept before."""
        for index, result in results.items():
            sample = keys[index]
            if sample is not None:
                kind, text = type(result).__name__.lower(), msgspec.json.encode(result)
                crc = _crc(start + index, sample, kind, text)
                self._unsaved.append((start + index, sample, kind, text, crc))
        self._check_failure()
        if self._unsaved and self._writing is None:
            self._writing = asyncio.create_task(self._write())
        elif len(self._unsaved) > MAX_UNSAVED and self._writing is not None:
            await asyncio.wait({self._writing})

    async def _write(self) -> None:
        try:
            while self._unsaved:
                lines, self._unsaved = self._unsaved, []
                await self._database.run(partial(_insert, lines))
        except FileError as error:
            self._failure = error
        finally:
            self._writing = None

    def _check_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            self._unsaved.clear()
            raise failure

    async def _open(self) -> None:
        async with self._opening:
            if not self._is_open:
                # The database first: it tells best what is wrong with the path.
                await self._database.run(lambda connection: self._claim.take())
                model = await self._fingerprint() if self._fingerprint is not None else ""
                self._end = await self._database.run(lambda connection: self._begin(connection, model))
                self._is_open = True

    def _begin(self, connection: sqlite3.Connection, model: str) -> int:
        """Compare where the results come from with what is asked now; give the position after the last."""
        last = connection.execute("SELECT max(position) FROM results").fetchone()[0]
        if last is None:
            connection.execute("DELETE FROM source")
            connection.execute("INSERT INTO source VALUES (?, ?)", (self._task_id, model))
            return 0
        source = connection.execute("SELECT task_id, model FROM source").fetchone()
        if source is None or not all(isinstance(text, str) for text in source):
            raise self._database.damaged()
        if source[0] != self._task_id:
            raise self._refusal(f"has results of the task {source[0]!r}, not of {self._task_id!r}, up to sample {last}")
        if source[1] != model:
            was, now = plain(source[1], 200), plain(model, 200)
            raise self._refusal(f"has results of another model (it was {was}, and is {now}), up to sample {last}")
        return int(last) + 1

    async def aclose(self) -> None:
        """Write what is to be written and close the file; raises what went wrong with the writing."""
        try:
            while self._writing is not None:
                await asyncio.wait({self._writing})
            self._check_failure()
        finally:
            try:
                await self._database.aclose()
            finally:
                self._claim.give_back()


def _insert(lines: Sequence[Line], connection: sqlite3.Connection) -> None:
    connection.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)", lines)


def sample_key(task_type: TaskType, row: Mapping[str, object]) -> bytes:
    """Give what a sample is known by: a digest of what the engine is sent for it, as `gts.samples.prepare` made it."""
    return hashlib.blake2b(msgspec.json.encode([task_type, row], order="sorted"), digest_size=16).digest()


def _crc(position: int, sample: bytes, kind: str, result: bytes) -> int:
    try:
        return zlib.crc32(b"%d %s %s %s" % (position, sample, kind.encode(), result))
    except (AttributeError, TypeError):
        # What is in a damaged row may be of any type; no sum is less than 0.
        return -1


class _Claim:
    """The right to a file: the lock of one beside it, which the system takes back when the process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def _beside(self) -> Path:
        whole = self._path.resolve()
        return whole.with_name(f"{whole.name}-lock")

    def take(self) -> None:
        """Take the lock; raises FileError if somebody has it."""
        while self._descriptor is None:
            descriptor = os.open(self._beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                text = f"{self._path}: another stream is using it, in this or another process"
                raise FileError(text, path=str(self._path)) from None
            except BaseException:
                os.close(descriptor)
                raise
            if self._is_in_place(descriptor):
                self._descriptor = descriptor
            else:
                # Whoever had it has just removed it.
                os.close(descriptor)

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._beside.stat())
        except FileNotFoundError:
            return False

    def give_back(self) -> None:
        """Remove the lock file and let go of it, in this order: one who opened it meanwhile finds that it is gone."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):
                self._beside.unlink()
            os.close(descriptor)
