"""Note: what an unfinished file is the beginning of, written down beside it as ``<target>.part.json``.

Everything here blocks and runs in the transfer's DiskThread. Whose bytes are in the unfinished file is up to `part`.
"""

import os
import re
import stat
from pathlib import Path

import attrs

from gts_async import wire
from gts_async._errors import UnexpectedAnswer

STRONG = re.compile(r'"[!#-~]+"')
"""An ETag that is the same for the same bytes only."""

MOST = 1 << 16
"""Bytes that are read of a note; nobody's is longer."""

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Neither a link is followed nor a pipe waited for: others may have put one there."""


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


class Note:
    """The file at `path`, which is replaced whole whenever it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fresh = path.with_name(f"{path.name}.new")

    def exists(self) -> bool:
        """Tell whether there is one."""
        return self.path.exists()

    def read(self) -> Version | None:
        """Give what it says; None if there is none, or none that makes sense."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | _FLAGS)
        except OSError:
            return None
        try:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            version = wire.decode(os.read(descriptor, MOST), Version, call="download") if is_file else None
        except (UnexpectedAnswer, OSError):
            return None
        finally:
            os.close(descriptor)
        is_sound = version is not None and (version.etag is None or STRONG.fullmatch(version.etag))
        return version if is_sound else None

    def write(self, version: Version) -> None:
        """Let it say this. Raises OSError."""
        self._fresh.unlink(missing_ok=True)
        descriptor = os.open(self._fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(wire.encode(version))
            os.replace(self._fresh, self.path)
        except OSError:
            self._fresh.unlink(missing_ok=True)
            raise

    def drop(self) -> None:
        """Remove it, and what a killed download has left of one. Raises OSError."""
        self._fresh.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
