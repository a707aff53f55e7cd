"""Journal and Checkpoint: what must survive a crash, on disk before it is relied on (sqlite, in worker threads).

A Journal holds the intents of a batch of jobs: each is written down before its create is sent, so that a run that was
killed never submits a job twice. A Checkpoint holds the results of a stream of predictions.
"""

import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import attrs
import msgspec

from gts_async._errors import FileError, InvalidArgument, OutcomeUnknown
from gts_async.gts.values import Extraction, Prediction, Result, Summary
from gts_async.sxwl.values import JobSpec

T = TypeVar("T")

JOURNAL_VERSION = 1
CHECKPOINT_VERSION = 2
"""Kept as sqlite's user_version, so that neither kind of file is taken for the other."""


class Database:
    """One sqlite file, opened at the first use; one thread at a time touches it.

    WAL with ``synchronous=FULL``: what `write` has returned for is on disk. Raises FileError that names the file.
    """

    def __init__(self, path: str | os.PathLike[str], schema: str, version: int) -> None:
        self.path = Path(path)
        self._schema = schema
        self._version = version
        self._connection: sqlite3.Connection | None = None
        self._turn = anyio.Lock()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Give what `work` returns, run in a worker thread within one transaction."""
        async with self._turn:
            return await anyio.to_thread.run_sync(self._run, work)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._open()
            with self._connection:
                return work(self._connection)
        except sqlite3.Error as error:
            raise FileError(f"{self.path}: {error}", path=str(self.path)) from error

    def _open(self) -> sqlite3.Connection:
        if not self.path.parent.is_dir():
            raise FileError(f"{self.path}: its folder does not exist", path=str(self.path))
        # Created by us so that nobody else can read it: specs may hold what is nobody else's business.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self.path, timeout=10, check_same_thread=False)
        try:
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, self._version):
                raise FileError(f"{self.path}: is another kind of file (version {found})", path=str(self.path))
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(f"BEGIN; {self._schema}; PRAGMA user_version={self._version}; COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    async def aclose(self) -> None:
        """Close the file; it is opened again at the next use."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(connection.close)


@attrs.frozen
class Intent:
    """A create that was written down before it was sent: what is needed to find out what became of it."""

    key: str
    spec: JobSpec


class Journal:
    """The intents of one batch of jobs, by the specs' content; equal specs are told apart by their order."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._database = Database(
            path,
            "CREATE TABLE IF NOT EXISTS intents (key TEXT PRIMARY KEY, spec TEXT NOT NULL, job_id TEXT)",
            JOURNAL_VERSION,
        )
        self._seen: Counter[str] = Counter()

    def key(self, spec: JobSpec) -> str:
        """Give the key of the next occurrence of `spec` in this run."""
        content = hashlib.blake2b(spec_document(spec), digest_size=16).hexdigest()
        self._seen[content] += 1
        return f"{content}-{self._seen[content]}"

    async def begin(self, key: str, spec: JobSpec) -> str | None:
        """Write the intent down; gives the job's id if an earlier run has it, else None: now submit.

        Raises OutcomeUnknown if an earlier run wrote it down and never learned what became of it.
        """

        def work(connection: sqlite3.Connection) -> tuple[str | None] | None:
            connection.execute("BEGIN IMMEDIATE")
            row: tuple[str | None] | None = connection.execute(
                "SELECT job_id FROM intents WHERE key = ?", (key,)
            ).fetchone()
            if row is None:
                connection.execute("INSERT INTO intents (key, spec) VALUES (?, ?)", (key, spec_document(spec).decode()))
            return row

        row = await self._database.run(work)
        if row is not None and row[0] is None:
            unknown = OutcomeUnknown(
                f"{self._database.path}: an earlier run may have submitted this job and never learned its id; it is "
                "not submitted again",
                call="create_job",
            )
            unknown.intent = Intent(key, spec)
            raise unknown
        return row[0] if row is not None else None

    async def done(self, key: str, job_id: str) -> None:
        """Write down the id that the cloud gave."""
        await self._database.run(lambda c: c.execute("UPDATE intents SET job_id = ? WHERE key = ?", (job_id, key)))

    async def undone(self, key: str) -> None:
        """Forget an intent that surely came to nothing, so that a later run tries it again."""
        await self._database.run(lambda c: c.execute("DELETE FROM intents WHERE key = ?", (key,)))

    async def aclose(self) -> None:
        """Close the file."""
        await self._database.aclose()


def spec_document(spec: JobSpec) -> bytes:
    """Give the spec as JSON whose bytes are the same for equal specs."""
    document = attrs.asdict(spec, recurse=False)
    return msgspec.json.encode({**document, "env": dict(spec.env)}, order="deterministic")


KINDS: dict[str, type[Any]] = {"prediction": Prediction, "extraction": Extraction, "summary": Summary}


class Checkpoint:
    """The results of one stream of samples, by position; another input than last time is refused."""

    def __init__(self, path: str | os.PathLike[str], task_id: str) -> None:
        self._database = Database(
            path,
            "CREATE TABLE IF NOT EXISTS results (position INTEGER PRIMARY KEY, task_id TEXT NOT NULL,"
            " sample BLOB NOT NULL, kind TEXT NOT NULL, result TEXT NOT NULL)",
            CHECKPOINT_VERSION,
        )
        self._task_id = task_id

    async def known(self, start: int, rows: Sequence[Any]) -> dict[int, Result]:
        """Give the results that earlier runs got for `rows`, by their index in it; `start` is the first's position.

        Raises InvalidArgument if a position holds another sample, or another task's result.
        """
        found = await self._database.run(
            lambda c: c.execute(
                "SELECT position, task_id, sample, kind, result FROM results WHERE position >= ? AND position < ?",
                (start, start + len(rows)),
            ).fetchall()
        )
        results: dict[int, Result] = {}
        for position, task_id, sample, kind, result in found:
            if task_id != self._task_id or sample != _sample_key(rows[position - start]):
                raise InvalidArgument(
                    "checkpoint",
                    f"{self._database.path} holds results of another task or other samples (from sample {position})",
                    "give the input of the first run, or another file",
                )
            results[position - start] = msgspec.json.decode(result, type=KINDS[kind])
        return results

    async def keep(self, start: int, rows: Sequence[Any], results: dict[int, Result]) -> None:
        """Write down results, by their index in `rows`."""
        lines = [
            (start + i, self._task_id, _sample_key(rows[i]), type(r).__name__.lower(), msgspec.json.encode(r).decode())
            for i, r in results.items()
        ]
        await self._database.run(
            lambda c: c.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)", lines)
        )

    async def aclose(self) -> None:
        """Close the file."""
        await self._database.aclose()


def _sample_key(sample: object) -> bytes:
    return hashlib.blake2b(repr(sample).encode("utf-8", "surrogatepass"), digest_size=16).digest()
