"""Database: one sqlite file that outlives a crash; every fault of it is told here, once, as a FileError that names it.

What is kept in such files is in `_journal` and `_checkpoint`.
"""

import os
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from gts_async._errors import FileError
from gts_async._flow.shield import finished

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds for which another process may keep the file locked."""

MOUNTS = "/proc/self/mounts"

REMOTE = re.compile(
    r"nfs\d?|cifs|smb(fs|\d)?|afs|ncpfs|coda|ceph|lustre|gpfs|beegfs|davfs2?|fuse\.(sshfs|gluster\w*|\w*s3\w*|rclone|ceph\w*)"
)
"""File systems of other machines: WAL needs memory that all who have the file open share (sqlite.org/wal.html)."""


class Database:
    """One sqlite file, opened at the first use; one thread at a time touches it.

    WAL with ``synchronous=FULL``: what `run` has returned for is on disk. `kind` and `version` are kept as sqlite's
    application_id and user_version, so that no file is taken for another. With `is_checked` the whole file is read
    when it is opened: a row that cannot be read must not count as one that is not there. `if_damaged` is what to do
    about a damaged one, for the error's text. `mounts` is the system's table of file systems, where it has one.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: str,
        version: int,
        *,
        kind: int = 0,
        is_checked: bool = False,
        if_damaged: str = "delete it to begin anew",
        mounts: str | os.PathLike[str] = MOUNTS,
    ) -> None:
        self.path = Path(path)
        self._schema = schema
        self._version = version
        self._kind = kind
        self._is_checked = is_checked
        self._if_damaged = if_damaged
        self._mounts = Path(mounts)
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._turn = anyio.Lock()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Give what `work` returns, run in a worker thread within one transaction, to its end even if cancelled.

        Raises FileError: the file is damaged, full, locked, read-only, of another kind, gone, or on another machine.
        """
        return await finished(self._in_turn(work))

    async def _in_turn(self, work: Callable[[sqlite3.Connection], T]) -> T:
        async with self._turn:
            return await anyio.to_thread.run_sync(self._run, work)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._open()
                self._file = _identity(self.path)
            elif _identity(self.path) != self._file:
                # What is written now would be on disk under no name.
                raise self._fault("was moved, replaced or deleted while it was in use")
            with self._connection:
                return work(self._connection)
        except sqlite3.Error as error:
            if not _is_unreadable(error):
                raise self.explained(error) from error
        except UnicodeError:
            pass
        except OSError as error:
            if isinstance(error, FileError):
                raise
            raise self._fault(f"cannot be used ({error.strerror})") from error
        # Raised out here: sqlite's own text repeats the row, and must not be seen as the context.
        raise self.damaged()

    def damaged(self) -> FileError:
        """Give the FileError of a file whose rows do not hold what was written."""
        return self._fault(f"is damaged; {self._if_damaged}")

    def _open(self) -> sqlite3.Connection:
        if (kind := remote_kind(self.path, self._mounts)) is not None:
            raise self._fault(
                f"is on a file system of another machine ({kind}), where it would not be safe; use a local disk"
            )
        if not self.path.parent.is_dir():
            raise self._fault("its folder does not exist")
        # Created by us so that nobody else can read it: specs may hold what is nobody else's business.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        give_up = time.monotonic() + PATIENCE
        while True:
            connection = sqlite3.connect(self.path, timeout=PATIENCE, check_same_thread=False)
            try:
                self._prepare(connection)
            except BaseException as error:
                connection.close()
                # Two that switch the same new file to WAL: sqlite tells one of them at once, without its patience.
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.02)
            else:
                return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # In one transaction: somebody else may be making it just now.
        connection.execute("BEGIN")
        kind, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        is_new = (kind, version) == (0, 0) and connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None
        connection.rollback()
        if not is_new:
            self._check_kind(kind, version)
        if self._is_checked and not is_new:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise self.damaged()
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal" and connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
            raise self._fault("is where sqlite cannot keep a write-ahead log; use a local disk")
        connection.execute("PRAGMA synchronous=FULL")
        if is_new:
            marks = f"PRAGMA application_id={self._kind}; PRAGMA user_version={self._version}"
            connection.executescript(f"BEGIN IMMEDIATE; {self._schema}; {marks}; COMMIT")

    def _check_kind(self, kind: int, version: int) -> None:
        if kind != self._kind or version == 0:
            raise self._fault("is another kind of file, which is left alone")
        if version != self._version:
            other = "a newer" if version > self._version else "another"
            raise self._fault(
                f"is of {other} version of gts-async (version {version}, not {self._version}); it is left alone"
            )

    def explained(self, error: sqlite3.Error) -> FileError:
        """Give the FileError that `error` stands for; a file that it makes useless is closed."""
        code = _code(error)
        if code in _USELESS and self._connection is not None:
            self._connection.close()
            self._connection = None
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            what = (
                "is damaged"
                if code == sqlite3.SQLITE_CORRUPT
                else "is another kind of file, or its beginning is damaged"
            )
            return self._fault(f"{what}; {self._if_damaged}")
        return self._fault(_TOLD.get(code, "{}").replace("{}", str(error)))

    def _fault(self, text: str) -> FileError:
        return FileError(f"{self.path}: {text}", path=str(self.path))

    async def aclose(self) -> None:
        """Close the file; it is opened again at the next use."""

        def close() -> None:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

        async def in_turn() -> None:
            async with self._turn:
                await anyio.to_thread.run_sync(close)

        if self._connection is not None or self._turn.locked():
            await finished(in_turn())


_USELESS = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR)

_TOLD = {
    sqlite3.SQLITE_FULL: "the disk is full: nothing was written",
    sqlite3.SQLITE_IOERR: "cannot be read or written ({}): the disk is full or failing, or files may not get larger",
    sqlite3.SQLITE_BUSY: f"another process has kept it locked for more than {PATIENCE:g} s",
    sqlite3.SQLITE_LOCKED: "is locked",
    sqlite3.SQLITE_READONLY: "cannot be written ({})",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened ({})",
    sqlite3.SQLITE_PERM: "cannot be used ({})",
}


def _is_unreadable(error: sqlite3.Error) -> bool:
    """Tell whether a text in a row is none."""
    return str(error).startswith("Could not decode to UTF-8")


def _code(error: BaseException) -> int:
    """Give sqlite's primary result code; 0 if there is none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def remote_kind(path: Path, mounts: Path) -> str | None:
    """Give the kind of the file system that `path` is on if it is another machine's, going by the table `mounts`."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    folder, best, kind = path.absolute().parent.resolve(), Path(), ""
    for fields in (line.split(" ") for line in lines):
        if len(fields) < 3:
            continue
        # Spaces and the like are spelled in octal there (proc_mounts).
        place = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1]))
        # Of two mounts on the same place the later one is seen.
        if folder.is_relative_to(place) and len(place.parts) >= len(best.parts):
            best, kind = place, fields[2]
    return kind if REMOTE.fullmatch(kind) else None
