"""Journal: the intents of a batch of jobs, each on disk before its create is sent, and who is at each of them.

A run that was killed never submits a job twice, and neither do two processes that share the file. What becomes of an
intent whose answer was lost is found out in `_settling`; damaged files are mended in `_mending`.
"""

import logging
import os
import secrets
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from functools import partial

import attrs

from gts_async._database import MOUNTS, Database
from gts_async._errors import FileError, InvalidArgument
from gts_async._files.place import local_path
from gts_async._intent import Intent, content_key, read_spec, spec_document
from gts_async.sxwl.values import JobInfo, JobSpec, JobStatus

JOURNAL_KIND = 0x67747361
"""sqlite's application_id of a journal: "gtsa"."""

JOURNAL_VERSION = 3
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS intents (key TEXT PRIMARY KEY, spec TEXT NOT NULL, mark TEXT, begun_at REAL NOT NULL,"
    " job_id TEXT UNIQUE, owner TEXT, lease_until REAL NOT NULL DEFAULT 0, status TEXT, status_at REAL,"
    " watcher TEXT, watch_until REAL NOT NULL DEFAULT 0) WITHOUT ROWID"
)
IF_DAMAGED = "see what is left with: gts-async journal check PATH, then: gts-async journal repair PATH"

LEASE = 10.0
"""Seconds for which an intent is its owner's alone; whoever was killed gives it up by that."""

RENEWAL = 3.0
"""Seconds between two renewals of the leases."""

WATCH_LEASE = 150.0
"""Seconds for which a job is looked at by one process only; more than twice the longest interval between two looks."""

log = logging.getLogger("gts_async")


@attrs.frozen
class Entry:
    """What a journal has of a spec: its `job_id`, or whose turn it is to get one.

    With `is_new` it was never sent, and we are to. With `held_for` (seconds) somebody else is at it. Else it is ours
    now, and an earlier run may have sent it.
    """

    intent: Intent
    job_id: str | None = None
    held_for: float = 0.0
    is_new: bool = False


_Row = tuple[str, str | None, float, str | None, str | None, float]
_SELECT = "SELECT spec, mark, begun_at, job_id, owner, lease_until FROM intents WHERE key = ?"


class Journal:
    """The intents of one batch of jobs, by the specs' content; equal specs are told apart by their order.

    `wall` gives the time of day (Unix seconds), by which all who share the file go. Every method raises FileError.
    """

    def __init__(
        self, path: str | os.PathLike[str], wall: Callable[[], float], *, mounts: str | os.PathLike[str] = MOUNTS
    ) -> None:
        place = local_path("journal", path)
        if_damaged = IF_DAMAGED.replace("PATH", str(place))
        self._database = Database(
            place, SCHEMA, JOURNAL_VERSION, kind=JOURNAL_KIND, is_checked=True, if_damaged=if_damaged, mounts=mounts
        )
        self._wall = wall
        self._owner = secrets.token_hex(8)
        self._seen: Counter[int] = Counter()
        self._held: dict[str, float] = {}
        self._unsent: set[str] = set()
        self._watched: dict[str, float] = {}

    def key(self, spec: JobSpec) -> str:
        """Give the key of the next occurrence of `spec` in this run; a mark and a callback URL do not count."""
        content = content_key(spec)
        number = int(content[:16], 16)
        self._seen[number] += 1
        return f"{content}-{self._seen[number]}"

    async def begin(self, key: str, spec: JobSpec, mark: str | None) -> Entry:
        """Write the intent down as ours, unless it is there; give what is there."""

        def work(connection: sqlite3.Connection) -> Entry:
            found = self._found(connection, key)
            if found is not None and (found.job_id is not None or found.held_for > 0):
                return found
            connection.execute("BEGIN IMMEDIATE")
            found = self._found(connection, key)
            now = self._wall()
            if found is None:
                connection.execute(
                    "INSERT INTO intents (key, spec, mark, begun_at, owner, lease_until) VALUES (?, ?, ?, ?, ?, ?)",
                    (key, spec_document(spec).decode(), mark, now, self._owner, now + LEASE),
                )
                self._unsent.add(key)
                found = Entry(Intent(key, spec, mark, now), is_new=True)
            elif found.job_id is None and found.held_for <= 0:
                connection.execute(
                    "UPDATE intents SET owner = ?, lease_until = ?, begun_at = ? WHERE key = ?",
                    (self._owner, now + LEASE, found.intent.begun_at, key),
                )
            else:
                return found
            self._held[key] = now + LEASE
            return found

        return await self._database.run(work)

    def _found(self, connection: sqlite3.Connection, key: str) -> Entry | None:
        row: _Row | None = connection.execute(_SELECT, (key,)).fetchone()
        if row is None:
            return None
        document, mark, begun_at, job_id, owner, lease_until = row
        try:
            intent = Intent(key, read_spec(document), mark, begun_at)
        except InvalidArgument:
            raise self._database.damaged() from None
        if job_id is not None or owner is None or owner == self._owner:
            return Entry(intent, job_id)
        now = self._wall()
        # Nobody's lease is twice as long: the clock was set back, and its owner, if alive, has not renewed it since.
        if now < lease_until <= now + 2 * LEASE:
            return Entry(intent, held_for=lease_until - now)
        # Its owner was alive when it last renewed the lease, and may have sent it until then, or a little longer.
        return Entry(attrs.evolve(intent, begun_at=max(begun_at, lease_until - LEASE + RENEWAL)))

    def sending(self, key: str) -> bool:
        """Note, in memory, that the intent goes out now; False if our lease is over: then `again` tells whose it is."""
        if self._wall() >= self._held.get(key, 0.0):
            return False
        self._unsent.discard(key)
        return True

    async def again(self, key: str) -> bool:
        """Write down that the intent is sent once more; False if it is somebody else's by now."""

        def work(connection: sqlite3.Connection) -> bool:
            now = self._wall()
            changed = connection.execute(
                "UPDATE intents SET begun_at = ?, lease_until = ? WHERE key = ? AND owner = ? AND job_id IS NULL",
                (now, now + LEASE, key, self._owner),
            )
            if changed.rowcount == 1:
                self._held[key] = now + LEASE
            return changed.rowcount == 1

        return await self._database.run(work)

    async def done(self, key: str, job_id: str) -> bool:
        """Write down the id that the cloud gave; False if that job is another intent's."""

        def work(connection: sqlite3.Connection) -> bool:
            try:
                connection.execute(
                    "UPDATE intents SET job_id = ?, owner = NULL, lease_until = 0 WHERE key = ?", (job_id, key)
                )
            except sqlite3.IntegrityError:
                return False
            return True

        is_ours = await self._database.run(work)
        self._held.pop(key, None)
        return is_ours

    async def undone(self, key: str) -> None:
        """Forget an intent that surely came to nothing, so that a later run tries it again."""
        await self._database.run(
            lambda c: c.execute(
                "DELETE FROM intents WHERE key = ? AND owner = ? AND job_id IS NULL", (key, self._owner)
            )
        )
        self._held.pop(key, None)
        self._unsent.discard(key)

    async def release(self, key: str) -> None:
        """Give an intent up whose outcome stays unknown: another run may settle it."""
        await self._database.run(lambda c: self._released(c, [key]))
        self._held.pop(key, None)

    def _released(self, connection: sqlite3.Connection, keys: list[str]) -> None:
        now = self._wall()
        connection.executemany(
            "UPDATE intents SET owner = NULL, lease_until = 0, begun_at = ? WHERE key = ? AND owner = ?",
            [(now, key, self._owner) for key in keys],
        )

    async def keep_leases(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Renew the leases of all intents that are ours, for ever."""
        while True:
            await sleep(RENEWAL)
            if not self._held:
                continue
            try:
                await self._database.run(partial(self._renewed, tuple(self._held)))
            except FileError as error:
                log.warning("the leases of %d intents were not renewed: %s", len(self._held), error)

    def _renewed(self, keys: tuple[str, ...], connection: sqlite3.Connection) -> None:
        until = self._wall() + LEASE
        statement = "UPDATE intents SET lease_until = ? WHERE key = ? AND owner = ? AND job_id IS NULL"
        for key in keys:
            if connection.execute(statement, (until, key, self._owner)).rowcount == 1 and key in self._held:
                self._held[key] = until

    # Watching the jobs

    async def claim_watch(self, job_id: str) -> bool:
        """Tell whether we are the one to look at the job now: for `WATCH_LEASE` seconds nobody else is."""
        return job_id in await self.claim_watches((job_id,))

    async def claim_watches(self, job_ids: Collection[str]) -> set[str]:
        """Give the jobs, of these, that we are the one to look at now; see `claim_watch`."""
        now = self._wall()
        ours = {job_id for job_id in job_ids if now < self._watched.get(job_id, 0.0) - WATCH_LEASE / 2}
        asked = [job_id for job_id in job_ids if job_id not in ours]

        def work(connection: sqlite3.Connection) -> set[str]:
            claimed = set()
            for job_id in asked:
                changed = connection.execute(
                    "UPDATE intents SET watcher = ?, watch_until = ? WHERE job_id = ?"
                    " AND (watcher IS NULL OR watcher = ? OR watch_until <= ? OR watch_until > ?)",
                    (self._owner, now + WATCH_LEASE, job_id, self._owner, now, now + 2 * WATCH_LEASE),
                )
                if changed.rowcount == 1:
                    claimed.add(job_id)
            return claimed

        if asked:
            claimed = await self._database.run(work)
            for job_id in asked:
                if job_id in claimed:
                    self._watched[job_id] = now + WATCH_LEASE
                else:
                    self._watched.pop(job_id, None)
            ours |= claimed
        return ours

    async def release_watch(self, job_id: str) -> None:
        """Let somebody else look at the job."""
        if self._watched.pop(job_id, None) is not None:
            await self._database.run(
                lambda c: c.execute(
                    "UPDATE intents SET watcher = NULL, watch_until = 0 WHERE job_id = ? AND watcher = ?",
                    (job_id, self._owner),
                )
            )

    async def note(self, job_id: str, look: JobInfo) -> None:
        """Write down what a look has shown, for those who do not look themselves; never the model's signed URL."""
        seen_at = look.observed_at.timestamp() if look.observed_at is not None else self._wall()
        await self._database.run(
            lambda c: c.execute(
                "UPDATE intents SET status = ?, status_at = ? WHERE job_id = ?", (look.status.value, seen_at, job_id)
            )
        )

    async def noted(self, job_id: str) -> JobInfo | None:
        """Give what was written down last of the job, without a URL; None if nothing was."""
        row: tuple[str | None, float] | None = await self._database.run(
            lambda c: c.execute("SELECT status, status_at FROM intents WHERE job_id = ?", (job_id,)).fetchone()
        )
        if row is None or row[0] is None:
            return None
        return JobInfo(JobStatus(row[0]), observed_at=datetime.fromtimestamp(row[1], UTC))

    async def aclose(self) -> None:
        """Give all leases up, forget what was never sent, and close the file.

        A file that takes no writing any more is only told of in the log: the leases run out by themselves.
        """
        unsent, rest = [(key, self._owner) for key in self._unsent], list(self._held.keys() - self._unsent)
        watched = [(self._owner, job_id) for job_id in self._watched]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM intents WHERE key = ? AND owner = ? AND job_id IS NULL", unsent)
            self._released(connection, rest)
            connection.executemany(
                "UPDATE intents SET watcher = NULL, watch_until = 0 WHERE watcher = ? AND job_id = ?", watched
            )

        try:
            if unsent or rest or watched:
                await self._database.run(work)
                self._unsent.clear()
                self._held.clear()
                self._watched.clear()
        except FileError as error:
            log.warning("the journal was closed without giving its leases up: %s", error)
        finally:
            await self._database.aclose()
