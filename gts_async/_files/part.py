"""Part: the unfinished file of a download, and the note beside it that says what it is the beginning of.

Everything here blocks and runs in the transfer's DiskThread. Where the bytes come from is in `download`.
"""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path

import attrs

from gts_async import wire
from gts_async._errors import DownloadCorrupt, FileError, UnexpectedAnswer, UnsafePath
from gts_async._files.checksums import Summing
from gts_async._files.disk import may_write, translated
from gts_async._files.staging import sync_folder

READ_AT_ONCE = 8 << 20
"""Bytes that are read between two chances to cancel."""

MAX_AT_ONCE = 1024
"""Pieces that one system call writes (IOV_MAX)."""

STRONG = re.compile(r'"[!#-~]+"')
"""An ETag that is the same for the same bytes only."""

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


@attrs.frozen
class Version:
    """Which object, and which state of it, a part is the beginning of.

    `url` is without its query. `etag` is there only if it is a strong one, fit for If-Range; `size` in bytes, and
    `checksums`, if the store told them.
    """

    url: str = ""
    etag: str | None = None
    size: int | None = None
    checksums: tuple[str, ...] = ()


class Part:
    """``<target>.part``, locked against other downloads to the same target, and its note ``<target>.part.json``.

    The target itself is touched once, by `promote`. `close` keeps what has arrived, so that another process may go on.
    `is_inherited` tells whether the part's beginning is from an earlier download. With `keeps_note` the note stays
    beside the finished target too: the next such download asks whether that is the object still, and `forget` is for
    whoever needs it no more.
    """

    def __init__(self, target: Path, *, keeps_note: bool = False) -> None:
        self.target = target
        self.keeps_note = keeps_note
        self.path = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")
        self.version = Version()
        self.is_inherited = False
        self._position = 0
        self._descriptor: int | None = None
        self._failure: FileError | None = None
        self._summing = Summing(())

    def open(self, url: str) -> Version:
        """Open or make the part, lock it, and give what it is the beginning of.

        Raises FileError if that cannot work (no such folder, not writable, locked), UnsafePath if something else has
        been put in the part's place.
        """
        self._check_target()
        with translated(self.path, "cannot download to"):
            if self.keeps_note and self.note.exists() and not self.path.exists():
                self._take_back()
            self._descriptor = self._locked()
            size = os.fstat(self._descriptor).st_size
            version = self._noted()
            if version is None or version.url != url or (version.size is not None and size > version.size):
                self.restart(Version(url))
            else:
                self.version, self._position, self.is_inherited = version, size, size > 0
                self._summing = Summing(version.checksums)
        return self.version

    def position(self) -> int:
        """Give the number of bytes that have been written; raises what a write before it raised."""
        if self._failure is not None:
            raise self._failure
        return self._position

    def restart(self, version: Version) -> None:
        """Begin anew with what `version` says."""
        with translated(self.path, "cannot write"):
            # The old bytes go first: a note that promises another object's bytes would be resumed.
            os.ftruncate(self._open_descriptor, 0)
            self._position = 0
            self.is_inherited = False
            self.version = version
            self._summing = Summing(version.checksums)
            self._write_note()

    def learn(self, version: Version) -> None:
        """Note what has become known about the same object."""
        self.version = version
        with translated(self.path, "cannot write"):
            self._write_note()

    def write(self, position: int, pieces: Sequence[bytes]) -> None:
        """Append the bytes that begin at `position`.

        Does nothing if the part has not come that far (a write that was still queued is dropped when its waiter is
        cancelled), or after a failed write.
        """
        if self._failure is not None or position != self._position:
            return
        try:
            with translated(self.path, "cannot write"):
                left = [memoryview(piece) for piece in pieces]
                while left:
                    count = os.pwritev(self._open_descriptor, left[:MAX_AT_ONCE], self._position)
                    self._position += count
                    left = _without(left, count)
        except FileError as error:
            self._failure = error
            raise
        if self._summing and self._summing.position == position:
            for piece in pieces:
                self._summing.update(piece)

    def check(self) -> Generator[int, None, None]:
        """Compare with what the store announced; raises DownloadCorrupt.

        What was not summed up when it was written, because an earlier download did that, is read again,
        `READ_AT_ONCE` bytes a step.
        """
        self._check_size()
        summing = self._summing
        with translated(self.path, "cannot read"):
            while summing and (data := os.pread(self._open_descriptor, READ_AT_ONCE, summing.position)):
                summing.update(data)
                yield summing.position
        if wrong := summing.wrong():
            raise DownloadCorrupt(
                f"{self.target}: the {wrong} of what arrived is not the one that the store announced",
                path=str(self.target),
            )

    def _check_size(self) -> None:
        size = os.fstat(self._open_descriptor).st_size
        if size != (self._position if self.version.size is None else self.version.size):
            raise DownloadCorrupt(
                f"{self.target}: {size} bytes arrived, the store announced {self.version.size}", path=str(self.target)
            )

    def promote(self) -> None:
        """Give the finished part the target's name, in an order that survives a power cut."""
        with translated(self.target, "cannot finish"):
            try:
                os.fsync(self._open_descriptor)
            except OSError:
                # The system may have dropped pages that it could not write: this part is worth nothing any more.
                self.discard()
                raise
            os.replace(self.path, self.target)
            sync_folder(self.target.parent)
            if not self.keeps_note:
                self._drop_note()
        self._release()

    def forget(self) -> None:
        """Remove the finished target and its note."""
        with translated(self.target, "cannot remove"):
            self.target.unlink(missing_ok=True)
            self._drop_note()

    def discard(self) -> None:
        """Remove the part and its note."""
        for path in (self._fresh_note, self.note, self.path):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        self._release()

    def close(self) -> None:
        """Keep what has arrived, if anything has, and let go of the lock."""
        if self._descriptor is None:
            return
        if self._position == 0:
            self.discard()
        else:
            self._release()

    @property
    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise FileError(f"{self.path}: the download is over", path=str(self.path))
        return self._descriptor

    def _check_target(self) -> None:
        check_name(self.target)
        with translated(self.target, "cannot download to"):
            if not stat.S_ISDIR(os.stat(self.target.parent).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if self.target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))

    def _take_back(self) -> None:
        """Let the finished target be a part again, unless somebody is at it: whoever unpacks it has locked it."""
        try:
            descriptor = os.open(self.target, os.O_RDWR | _FLAGS)
        except OSError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(self.target, self.path)
        except BlockingIOError as error:
            raise self._under_way() from error
        finally:
            os.close(descriptor)

    def _under_way(self) -> FileError:
        return FileError(f"{self.target}: another download to it is under way", path=str(self.target))

    def _locked(self) -> int:
        while True:
            descriptor = self._opened()
            try:
                self._check_ours(descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_in_place(descriptor):
                    return descriptor
            except BlockingIOError as error:
                os.close(descriptor)
                raise self._under_way() from error
            except BaseException:
                os.close(descriptor)
                raise
            # Its owner has just finished, and renamed or removed what we opened.
            os.close(descriptor)

    def _opened(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UnsafePath(f"{self.path}: is a symbolic link; remove it", path=str(self.path)) from error
            raise

    def _check_ours(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        # A second name means that somebody else's file would be written.
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise UnsafePath(f"{self.path}: is not a file of its own; remove it", path=str(self.path))

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def _noted(self) -> Version | None:
        try:
            descriptor = os.open(self.note, os.O_RDONLY | _FLAGS)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            try:
                version = wire.decode(file.read(1 << 16), Version, call="download")
            except (UnexpectedAnswer, OSError):
                return None
        return version if version.etag is None or STRONG.fullmatch(version.etag) else None

    def _write_note(self) -> None:
        self._fresh_note.unlink(missing_ok=True)
        descriptor = os.open(self._fresh_note, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(wire.encode(self.version))
            os.replace(self._fresh_note, self.note)
        except OSError:
            self._fresh_note.unlink(missing_ok=True)
            raise

    @property
    def _fresh_note(self) -> Path:
        return self.note.with_name(f"{self.note.name}.new")

    def _drop_note(self) -> None:
        # A download that was killed may have left the fresh one.
        self._fresh_note.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def check_name(path: Path) -> None:
    """Raise UnsafePath for a name that no system can have."""
    if "\0" in str(path):
        raise UnsafePath(f"{str(path)!r}: has a NUL in it", path=str(path))


def check_folder(folder: Path) -> None:
    """Raise FileError unless files can be written into the folder, or it can be made."""
    check_name(folder)
    found = folder
    with translated(folder, "cannot download to"):
        while not os.path.lexists(found) and found != found.parent:
            found = found.parent
        if not found.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not may_write(found):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _without(pieces: list[memoryview], count: int) -> list[memoryview]:
    """Give what is left of the pieces behind their first `count` bytes."""
    for place, piece in enumerate(pieces):
        if count < len(piece):
            return [piece[count:], *pieces[place + 1 :]]
        count -= len(piece)
    return []
