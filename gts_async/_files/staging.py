"""Staging: the folder beside its place in which an archive is unpacked, and what earlier ones have left.

Its owner holds a lock on it, so that what a killed process has left can be told from what another is filling.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SUFFIX = re.compile(r"\.unpacking-[0-9a-f]{8}")
MAX_STEM = 230
"""Bytes of a folder's name that its staging folder's has: with what follows there must be room for it."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_UNKNOWN = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
"""What a system says that cannot sync a thing of that kind; Windows's and some network disks cannot sync folders."""


@contextmanager
def staged(directory: Path, place: Path) -> Iterator[Path]:
    """Make an empty folder in `place` for what is to become `directory`; what is still in it at the end is removed."""
    _sweep(directory, place)
    staging, descriptor = _made(directory, place)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Have the file's bytes on the disk itself."""
    _sync(path, os.O_RDONLY | os.O_CLOEXEC)


def sync_folder(path: Path) -> None:
    """Have the folder's list of names on the disk itself, unless it may be written only."""
    with suppress(PermissionError):
        _sync(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def sync(descriptor: int) -> None:
    """Have an open file's bytes, or a folder's names, on the disk itself, unless that disk cannot be told to."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise


def locked(descriptor: int) -> bool | None:
    """Try to lock an open file or folder; None if that is not known here, as on some network disks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno == errno.EWOULDBLOCK else None
    return True


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def _made(directory: Path, place: Path) -> tuple[Path, int]:
    while True:
        staging = place / f"{_stem(directory)}.unpacking-{secrets.token_hex(4)}"
        staging.mkdir()
        # Another process may take it for left over until it is locked.
        with suppress(FileNotFoundError):
            descriptor = os.open(staging, _FOLDER)
            if locked(descriptor) is not False and staging.is_dir():
                return staging, descriptor
            os.close(descriptor)


def _sweep(directory: Path, place: Path) -> None:
    """Remove what processes that were killed have left; what cannot be removed does no harm."""
    stem = _stem(directory)
    with suppress(OSError):
        for path in list(place.iterdir()):
            if path.name.startswith(stem) and _SUFFIX.fullmatch(path.name[len(stem) :]):
                _sweep_one(path)


def _stem(directory: Path) -> str:
    """Give the beginning of the names of all staging folders for `directory`: its name, unless that is very long."""
    return "." + os.fsencode(directory.name)[:MAX_STEM].decode("utf-8", "ignore")


def _sweep_one(path: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(path, _FOLDER)
        try:
            if locked(descriptor):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(descriptor)
