"""Mending: what is left of a damaged journal, and how it is saved into a sound one; blocking, for the command line.

A journal that nobody has damaged mends itself: what a killed run has left is settled by the next (`_batch`).
"""

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import attrs

from gts_async._errors import FileError, FileMissing, InvalidArgument
from gts_async._files.place import local_path
from gts_async._intent import content_key, read_spec
from gts_async._journal import JOURNAL_KIND, JOURNAL_VERSION, SCHEMA

COLUMNS = (
    "key",
    "spec",
    "mark",
    "begun_at",
    "job_id",
    "owner",
    "lease_until",
    "status",
    "status_at",
    "watcher",
    "watch_until",
)
PAGE = 4096
"""Bytes of a page of ours; the first has the header and the tables' places, and is the same in every journal."""

MAX_SIZE = 1 << 36
"""Bytes of any journal; a header that tells of more is damaged itself."""

Row = tuple[Any, ...]


@attrs.frozen
class Health:
    """What a journal holds: how many of its intents are submitted, unknown (nobody is at them), in hand of a process.

    `problems` is empty for a sound one.
    """

    path: str
    submitted: int = 0
    unknown: int = 0
    in_hand: int = 0
    problems: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """True if every row can be read, and holds what it should."""
        return not self.problems


def check(path: str | os.PathLike[str]) -> Health:
    """Look through a journal without changing it; raises FileError if it is none, or cannot be read at all."""
    place = local_path("path", path)
    _check_there(place)
    with tempfile.TemporaryDirectory(prefix="gts-async-") as folder:
        problems, rows = _read(_snapshot(place, Path(folder) / "journal.db"), place)
    return _health(place, rows, problems)


@attrs.frozen
class Repaired:
    """What came of a repair: the journal as it is now, and where the damaged one is kept (None: it was sound)."""

    health: Health
    kept_as: str | None = None
    problems: tuple[str, ...] = ()


def repair(path: str | os.PathLike[str]) -> Repaired:
    """Save what can be read into a sound journal of that name; the damaged one is kept beside it.

    Raises FileError if the file is none of ours, or if somebody has it open. A sound journal is not touched.
    """
    place = local_path("path", path)
    found = check(place)
    if found.is_sound:
        return Repaired(found)
    kept = _copied(place, _free_name(place))
    try:
        _check_unused(place)
    except FileError:
        _remove(kept)
        raise
    try:
        with tempfile.TemporaryDirectory(prefix="gts-async-") as folder:
            _, rows = _read(_copied(kept, Path(folder) / "journal.db"), place)
        fresh = place.with_name(f"{place.name}.mending")
        _write(fresh, rows)
        # A log of the old file must never meet the new one: sqlite would play it back.
        _remove(place, "-wal", "-shm")
        fresh.replace(place)
        _sync(place.parent)
    except (OSError, sqlite3.Error) as error:
        raise FileError(f"{place}: could not be mended: {error}; it is kept as {kept}", path=str(place)) from error
    return Repaired(_health(place, rows, ()), str(kept), found.problems)


def _check_there(place: Path) -> None:
    if not place.is_file():
        raise FileMissing(f"{place}: there is no such file", path=str(place))


def _copied(place: Path, target: Path) -> Path:
    """Copy the file and its log, which holds what came last."""
    try:
        for tail in ("", "-wal"):
            source = place.with_name(place.name + tail)
            if source.exists():
                copy = target.with_name(target.name + tail)
                os.close(os.open(copy, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
                shutil.copyfile(source, copy)
    except OSError as error:
        raise FileError(f"{place}: cannot be copied to {target.parent} ({error.strerror})", path=str(place)) from error
    return target


def _snapshot(place: Path, target: Path) -> Path:
    """Copy a journal that somebody may be writing to; one that sqlite cannot copy is copied as it lies there."""
    if place.with_name(f"{place.name}-wal").exists():
        try:
            with (
                closing(sqlite3.connect(f"{place.absolute().as_uri()}?mode=ro", uri=True)) as source,
                closing(sqlite3.connect(target)) as copy,
            ):
                source.backup(copy)
            return target
        except sqlite3.DatabaseError:
            _remove(target, "", "-wal", "-shm", "-journal")
    return _copied(place, target)


def _remove(place: Path, *tails: str) -> None:
    for tail in tails or ("", "-wal"):
        place.with_name(place.name + tail).unlink(missing_ok=True)


def _free_name(place: Path) -> Path:
    for number in range(1, 1000):
        name = place.with_name(f"{place.name}.damaged" + ("" if number == 1 else f"-{number}"))
        if not name.exists():
            return name
    raise FileError(f"{place}: there are 999 damaged ones beside it", path=str(place))


def _check_unused(place: Path) -> None:
    """Raise FileError if another process has the journal open."""
    with closing(sqlite3.connect(place, timeout=0)) as connection, suppress(sqlite3.DatabaseError):
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise FileError(f"{place}: is in use by another process; end that first", path=str(place)) from error


def _read(copy: Path, place: Path) -> tuple[tuple[str, ...], dict[str, Row]]:
    """Give the problems of the copy of a journal, and the rows that can be read."""
    problems: list[str] = []
    nothing = FileError(f"{place}: is no journal, or nothing of it is left", path=str(place))
    if not (has_header := _has_header(copy)):
        problems.append("its beginning is damaged")
        _give_header(copy)
    problems += _lengthened(copy)
    with closing(sqlite3.connect(copy)) as connection:
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        try:
            kind, version = (
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            )
        except sqlite3.DatabaseError:
            raise nothing from None
        if (kind, version) != (JOURNAL_KIND, JOURNAL_VERSION):
            text = "is a journal of another version of gts-async" if kind == JOURNAL_KIND else "is no journal"
            raise FileError(f"{place}: {text}", path=str(place))
        problems += _faults(connection)
        rows = {str(row[0]): row for row in _rows(connection)}
    if not has_header and not rows:
        raise nothing
    wrong = {key: fault for key, row in rows.items() if (fault := _wrong(row)) is not None}
    sound = {key: row for key, row in rows.items() if key not in wrong}
    return (*problems, *wrong.values()), sound


def _has_header(copy: Path) -> bool:
    with copy.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _give_header(copy: Path) -> None:
    """Put the first page of a fresh journal over the damaged one, in case the rest is there."""
    fresh = copy.with_name("fresh.db")
    _write(fresh, {})
    page = bytearray(fresh.read_bytes()[:PAGE])
    # How many pages there are, sqlite then takes from the file's size: the two counters differ.
    page[24:28], page[92:96] = b"\0\0\0\2", b"\0\0\0\1"
    data = copy.read_bytes()
    copy.write_bytes(bytes(page) + data[PAGE:])


def _lengthened(copy: Path) -> list[str]:
    """Let a copy that was cut have its length again, without which sqlite reads nothing of it; tell if it was."""
    with copy.open("r+b") as file:
        header = file.read(100)
        size, wanted = copy.stat().st_size, int.from_bytes(header[28:32]) * PAGE
        if header[24:28] != header[92:96] or not size < wanted <= MAX_SIZE:
            return []
        file.truncate(wanted)
    return [f"its end is missing: {size} of {wanted} bytes are there"]


def _faults(connection: sqlite3.Connection) -> list[str]:
    try:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if found == ["ok"] else [line.replace("*** in database main ***\n", "") for line in found]


def _rows(connection: sqlite3.Connection) -> Iterator[Row]:
    """Give every row that can be read, some of them twice: by the first letters of their keys, from both ends.

    So a page that cannot be read costs its own rows, and not all that come after it.
    """
    select = f"SELECT {', '.join(COLUMNS)} FROM intents"  # noqa: S608 - our own names
    for number in range(256):
        within = (f"{number:02x}", f"{number:02x}g")
        for order in ("ASC", "DESC"):
            try:
                yield from connection.execute(f"{select} WHERE key >= ? AND key < ? ORDER BY key {order}", within)
                break
            except sqlite3.DatabaseError:
                continue


def _wrong(row: Row) -> str | None:
    """Give what is wrong with a row; None if nothing is."""
    key, document, mark, begun_at, job_id, *_ = row
    try:
        spec = read_spec(document)
    except (InvalidArgument, TypeError, AttributeError):
        return f"the intent {key} holds no spec"
    if not str(key).startswith(content_key(spec)):
        return f"the intent {key} holds another spec"
    is_kept = isinstance(begun_at, float) and all(text is None or isinstance(text, str) for text in (mark, job_id))
    return None if is_kept else f"the intent {key} holds what was never written"


def _write(path: Path, rows: dict[str, Row]) -> None:
    """Write a journal in one file, on disk when this returns."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size={PAGE}")
        connection.execute("PRAGMA synchronous=FULL")
        marks = f"PRAGMA application_id={JOURNAL_KIND}; PRAGMA user_version={JOURNAL_VERSION}"
        connection.executescript(f"BEGIN; {SCHEMA}; {marks}; COMMIT")
        with connection:
            places = ", ".join("?" * len(COLUMNS))
            connection.executemany(f"INSERT INTO intents VALUES ({places})", rows.values())  # noqa: S608


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _health(place: Path, rows: dict[str, Row], problems: tuple[str, ...]) -> Health:
    now = time.time()
    submitted = in_hand = 0
    for row in rows.values():
        submitted += row[4] is not None
        in_hand += row[4] is None and row[5] is not None and row[6] > now
    return Health(str(place), submitted, len(rows) - submitted - in_hand, in_hand, problems)
