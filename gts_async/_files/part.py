"""Part: the unfinished file of a download, and the note beside it that says what it is the beginning of.

Everything here blocks and runs in the transfer's DiskThread. Where the bytes come from is in `download`.
"""

import errno
import os
import stat
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

from gts_async._errors import DownloadCorrupt, FileError, UnsafePath
from gts_async._files.checksums import Summing
from gts_async._files.disk import may_write, translated
from gts_async._files.note import Note, Version
from gts_async._files.staging import locked, sync, sync_folder

READ_AT_ONCE = 8 << 20
"""Bytes that are read between two chances to cancel."""

WRITE_AT_ONCE = 1 << 20
"""Bytes that one system call writes. Writes of 2 MiB and more were seen to cost several times the CPU on a virtual
machine, now and then: probably for memory in pieces of that size, which it had given back to its host."""

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Neither a link is followed nor a pipe waited for: others may have put one there."""


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
        self.note = Note(target.with_name(f"{target.name}.part.json"))
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
            version = self.note.read()
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
        self.learn(version)

    def learn(self, version: Version) -> None:
        """Note what has become known about the same object."""
        self.version = version
        with translated(self.note.path, "cannot write"):
            self.note.write(version)

    def write(self, position: int, data: memoryview) -> None:
        """Append the bytes that begin at `position`.

        Does nothing if the part has not come that far (a write that was still queued is dropped when its waiter is
        cancelled), or after a failed write.
        """
        if self._failure is not None or position != self._position:
            return
        try:
            with translated(self.path, "cannot write"):
                self._check_alone()
                left = data
                while left:
                    count = os.pwrite(self._open_descriptor, left[:WRITE_AT_ONCE], self._position)
                    self._position += count
                    left = left[count:]
        except FileError as error:
            self._failure = error
            raise
        if self._summing and self._summing.position == position:
            self._summing.update(data)

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
                sync(self._open_descriptor)
            except OSError:
                # The system may have dropped pages that it could not write: this part is worth nothing any more.
                self.discard()
                raise
            if not os.path.samestat(os.fstat(self._open_descriptor), os.lstat(self.path)):
                raise FileError(f"{self.path}: something else is in its place by now", path=str(self.path))
            os.replace(self.path, self.target)
            sync_folder(self.target.parent)
            if not self.keeps_note:
                self.note.drop()
        self._release()

    def forget(self) -> None:
        """Remove the finished target and its note."""
        with translated(self.target, "cannot remove"):
            self.target.unlink(missing_ok=True)
            self.note.drop()

    def discard(self) -> None:
        """Remove the part and its note, unless they are another's by now."""
        if self._descriptor is None or self._is_in_place(self._descriptor):
            with suppress(OSError):
                self.note.drop()
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
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
            with suppress(FileNotFoundError):
                # A link or a file is replaced; so would be /dev/null.
                if stat.S_IFMT(self.target.lstat().st_mode) not in (stat.S_IFREG, stat.S_IFLNK):
                    raise UnsafePath(f"{self.target}: is a pipe, a socket or a device, no file", path=str(self.target))

    def _check_alone(self) -> None:
        """Raise FileError if the part is not as long as what was written: somebody else has done that."""
        if os.fstat(self._open_descriptor).st_size != self._position:
            raise FileError(f"{self.path}: another program changes it, too", path=str(self.path))

    def _take_back(self) -> None:
        """Let the finished target be a part again, unless somebody is at it: whoever unpacks it has locked it."""
        try:
            descriptor = os.open(self.target, os.O_RDWR | _FLAGS)
        except OSError:
            return
        try:
            if locked(descriptor) is False:
                raise self._under_way()
            os.rename(self.target, self.path)
        finally:
            os.close(descriptor)

    def _under_way(self) -> FileError:
        return FileError(f"{self.target}: another download to it is under way", path=str(self.target))

    def _locked(self) -> int:
        while True:
            descriptor, is_fresh = self._opened()
            try:
                self._check_ours(descriptor)
                if locked(descriptor) is False:
                    raise self._under_way()
                if self._is_in_place(descriptor):
                    if is_fresh or _is_own(descriptor):
                        return descriptor
                    self.path.unlink()
            except BaseException:
                os.close(descriptor)
                raise
            # Its owner has just finished, and renamed or removed what we opened; or it was none of ours.
            os.close(descriptor)

    def _opened(self) -> tuple[int, bool]:
        """Give the part, and whether it was made just now."""
        flags = os.O_RDWR | _FLAGS
        with suppress(FileExistsError):
            return os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
        try:
            return os.open(self.path, flags | os.O_CREAT, 0o600), False
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

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_own(descriptor: int) -> bool:
    """Tell whether nobody else can have the file open for writing; from now on only its owner may read it.

    A disk that knows no modes, such as one that Windows wrote, has the same one for all files, whatever is set.
    """
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        return False
    with suppress(OSError):
        os.fchmod(descriptor, 0o600)
    was_open_to_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return not was_open_to_others or os.fstat(descriptor).st_mode == status.st_mode


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
