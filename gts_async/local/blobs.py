"""A file on disk as an object of the store, and the packing of a model folder into one.

Who may fetch it, and until when, is in `emulator.store`.
"""

import hashlib
import os
import shutil
import stat
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import attrs

from gts_async.emulator.crc import crc_of

CHUNK = 1 << 20
"""Bytes that are read or copied at a time."""

PACKED_UNDER = "/data/"
"""The uploader names its entries absolutely, by the place where it has mounted the volume."""

_EARLIEST = (1980, 1, 1, 0, 0, 0)


@attrs.frozen
class FileBlob:
    """A file as it was when it was taken: its size in bytes, the quoted MD5 of its content as etag, and its CRC-64.

    The file must not change afterwards; once it is removed, `read` raises FileNotFoundError.
    """

    path: Path
    size: int
    etag: str
    crc64: int | None = None

    @classmethod
    def of(cls, path: Path) -> "FileBlob":
        """Take the file at `path`, reading it once from end to end. Raises OSError."""
        digest = hashlib.md5(usedforsecurity=False)
        size, crc = 0, crc_of(b"")
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                crc = crc_of(chunk, crc)
                size += len(chunk)
        return cls(path, size, f'"{digest.hexdigest().upper()}"', crc)

    def read(self, start: int, stop: int) -> bytes:
        """Give the bytes from `start` up to `stop`. Raises OSError."""
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(max(stop - start, 0))


def pack(folder: Path, target: Path) -> FileBlob:
    """Zip all regular files under `folder` into `target` as the cloud's uploader does, and give the finished file.

    Every entry is called ``/data/<path within the folder>`` (`pkg/storage/pack.go`, called with the directory as its
    own prefix). Symbolic links are left out: in a container they could not reach the host's files. `target` appears
    only once it is complete. Raises OSError.
    """
    part = target.with_name(f"{target.name}.part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _regular_files(folder):
            _add(archive, path, PACKED_UNDER + path.relative_to(folder).as_posix())
    os.replace(part, target)
    return FileBlob.of(target)


def _regular_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if stat.S_ISREG(path.lstat().st_mode):
            yield path


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    # ZipFile.write would make the name relative, so the entry is described by hand.
    status = path.stat()
    entry = zipfile.ZipInfo(name, max(time.localtime(status.st_mtime)[:6], _EARLIEST))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (status.st_mode & 0xFFFF) << 16
    entry.file_size = status.st_size
    with path.open("rb") as source, archive.open(entry, "w") as target:
        shutil.copyfileobj(source, target, CHUNK)
