"""Callbacks on disk before they are answered, each one once; many that come together share one commit.

Neither a URL nor a key is in the file, and of what a callback calls the model's URL only whether there was one.
"""

import asyncio
import base64
import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import attrs

from gts_async._database import Database
from gts_async._errors import FileError, plain
from gts_async.sxwl.callbacks import Callback
from gts_async.sxwl.values import JobStatus

T = TypeVar("T")

KIND, VERSION = 0x67746362, 1
"""sqlite's application_id and user_version of this kind of file."""

IF_DAMAGED = "move it away and start again: the URLs stay good as long as the key beside it is there"

BATCH = 500
"""Callbacks of one commit."""

MAX_WAITING = 10_000
"""Callbacks that wait for a commit, whether or not anybody still waits for their answer."""

CLOSING = 1.0
"""Seconds that writing may take when the store is closed."""

MAX_PER_URL = 32
"""Different callbacks that are kept for one URL: the cloud sends one, or two when a failed job goes on after all."""

SHOWN = 20
"""Characters of a URL's last part that may be shown: all of them belong to its id, none to its code."""

REMEMBERED = 20_000
"""Callbacks that are remembered where there is no file."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS callbacks (
    number INTEGER PRIMARY KEY AUTOINCREMENT, url_id BLOB NOT NULL, claim BLOB NOT NULL, job_id TEXT,
    status TEXT NOT NULL, word TEXT NOT NULL, has_model INTEGER NOT NULL, received_at REAL NOT NULL,
    origin BLOB NOT NULL, tries INTEGER NOT NULL DEFAULT 0, due_at REAL, UNIQUE (url_id, claim));
CREATE INDEX IF NOT EXISTS due ON callbacks (due_at) WHERE due_at IS NOT NULL
"""
_COLUMNS = "number, url_id, job_id, status, word, has_model, received_at, origin, tries"


@attrs.frozen(kw_only=True)
class StoredCallback:
    """A callback as it is kept: what it claims, of which nothing is certain before the cloud has been asked.

    `callback_url` is the URL that it came to (a secret), as it was given out; `url_id` is how its last part begins,
    which tells URLs apart and is good for nothing else. `job_id` is None for a failed job: the
    servers leave it out. `received_at` is aware, UTC. `tries` counts how often the handler was given it, this included.
    """

    callback_url: str = attrs.field(repr=False)
    url_id: str
    job_id: str | None
    status: JobStatus
    word: str
    has_model: bool
    received_at: datetime
    tries: int = 0


@attrs.frozen(kw_only=True)
class Arrival:
    """A callback as it came to the process `origin`, to be stored; `received_at` in Unix seconds."""

    url_id: bytes
    callback: Callback
    received_at: float
    origin: bytes

    @property
    def claim(self) -> bytes:
        """What makes it another callback than those before to the same URL."""
        said = (self.callback.job_id, self.callback.word, self.callback.url)
        return hashlib.blake2b(repr(said).encode("utf-8", "surrogatepass"), digest_size=16).digest()

    @property
    def row(self) -> "Row":
        """What is written down of it; number 0."""
        said = self.callback
        return Row(
            number=0,
            url_id=self.url_id,
            job_id=said.job_id,
            status=said.status.value,
            word=plain(said.word, 200),
            has_model=said.url is not None,
            received_at=self.received_at,
            origin=self.origin,
        )


@attrs.frozen
class Row:
    """A callback as it was written down."""

    number: int
    url_id: bytes
    job_id: str | None
    status: str
    word: str
    has_model: bool
    received_at: float
    origin: bytes
    tries: int = 0

    def stored(self, callback_url: str) -> StoredCallback:
        """Give it as users see it."""
        return StoredCallback(
            callback_url=callback_url,
            url_id=base64.urlsafe_b64encode(self.url_id).decode()[:SHOWN],
            job_id=self.job_id,
            status=JobStatus(self.status),
            word=self.word,
            has_model=bool(self.has_model),
            received_at=datetime.fromtimestamp(self.received_at, UTC),
            tries=self.tries,
        )


class Transactions(Protocol):
    """What the store keeps its rows in: runs a function of the connection as one transaction, or raises FileError."""

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Give what `work` returns."""
        ...

    async def aclose(self) -> None:
        """Close it; it is opened again at the next use."""
        ...


class Memory:
    """The same without a file, for the newest callbacks of this process; it takes no thread."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        self._connection.executescript(SCHEMA)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Give what `work` returns."""
        with self._connection:
            result = work(self._connection)
            oldest = "(SELECT max(number) FROM callbacks) - ?"
            self._connection.execute(f"DELETE FROM callbacks WHERE number <= {oldest}", (self._remembered,))  # noqa: S608
        return result

    async def aclose(self) -> None:
        """Do nothing: what it remembers ends with it."""


def on_disk(path: Path) -> Transactions:
    """Give what keeps rows in that file, which is opened, or made, at the first use."""
    return Database(path, SCHEMA, VERSION, kind=KIND, if_damaged=IF_DAMAGED)


class CallbackStore:
    """The callbacks of all processes that share one file. Raises FileError, as where the disk is full."""

    def __init__(self, database: Transactions) -> None:
        self._database = database
        self.is_shared = not isinstance(database, Memory)
        self._waiting: list[tuple[Arrival, asyncio.Future[bool]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def add(self, arrival: Arrival) -> bool:
        """Write a callback down; False if it is there already, or its URL has had too many.

        It is written although the caller is cancelled.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise FileError("too many callbacks wait to be stored")
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((arrival, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="callbacks")
        return await written

    async def _write(self) -> None:
        while batch := self._waiting[:BATCH]:
            del self._waiting[:BATCH]
            try:
                results = await self._database.run(partial(_insert, [arrival for arrival, _ in batch]))
            except FileError as error:
                # Those behind it, too: where a lock is waited for in vain, each batch would wait as long.
                behind, self._waiting = self._waiting, []
                for _, written in (*batch, *behind):
                    if not written.done():
                        written.set_exception(FileError(str(error), path=error.path))
                continue
            for (_, written), is_new in zip(batch, results, strict=True):
                if not written.done():
                    written.set_result(is_new)

    async def take(self, most: int, now: float, until: float) -> list[Row]:
        """Take up to `most` callbacks that are due to be handled; nobody else is given them before `until`."""
        return await self._database.run(partial(_take, most, now, until))

    async def settle(self, number: int, due_at: float | None) -> None:
        """Write down that a callback is to be handled again at `due_at`; None: never."""
        await self._database.run(
            lambda c: c.execute("UPDATE callbacks SET due_at = ? WHERE number = ?", (due_at, number))
        )

    async def next_due(self) -> float | None:
        """Give when the next callback is to be handled, in Unix seconds."""
        found: float | None = await self._database.run(
            lambda c: c.execute("SELECT min(due_at) FROM callbacks WHERE due_at IS NOT NULL").fetchone()[0]
        )
        return found

    async def last(self) -> int:
        """Give the number of the newest callback, 0 if there is none."""
        found: int = await self._database.run(
            lambda c: c.execute("SELECT coalesce(max(number), 0) FROM callbacks").fetchone()[0]
        )
        return found

    async def since(self, number: int) -> list[Row]:
        """Give the callbacks after that number, in the order in which they came, at most `BATCH`."""
        rows = await self._database.run(
            lambda c: c.execute(
                f"SELECT {_COLUMNS} FROM callbacks WHERE number > ? ORDER BY number LIMIT ?",  # noqa: S608
                (number, BATCH),
            ).fetchall()
        )
        return [Row(*row) for row in rows]

    async def aclose(self) -> None:
        """Write what waits, for `CLOSING` seconds at most, and close the file."""
        writing = self._writing
        # One that is done may be of another loop, which is closed.
        if writing is not None and not writing.done() and (await asyncio.wait([writing], timeout=CLOSING))[1]:
            writing.cancel()
            await asyncio.wait([writing])
        await self._database.aclose()


def _insert(arrivals: Sequence[Arrival], connection: sqlite3.Connection) -> list[bool]:
    count = "(SELECT count(*) FROM callbacks WHERE url_id = ?1)"
    insert = (
        "INSERT OR IGNORE INTO callbacks (url_id, claim, job_id, status, word, has_model, received_at, origin, due_at)"
        f" SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?7 WHERE {count} < {MAX_PER_URL}"
    )
    found = []
    for arrival in arrivals:
        url_id, *details, _ = attrs.astuple(arrival.row)[1:]
        found.append(connection.execute(insert, (url_id, arrival.claim, *details)).rowcount == 1)
    return found


def _take(most: int, now: float, until: float, connection: sqlite3.Connection) -> list[Row]:
    connection.execute("BEGIN IMMEDIATE")
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM callbacks WHERE due_at <= ? ORDER BY due_at, number LIMIT ?",  # noqa: S608
        (now, most),
    ).fetchall()
    connection.executemany(
        "UPDATE callbacks SET due_at = ?, tries = tries + 1 WHERE number = ?", [(until, row[0]) for row in rows]
    )
    return [attrs.evolve(row, tries=row.tries + 1) for row in (Row(*row) for row in rows)]
