"""Keeps each task's data files in a folder of its own, `<root>/<task_id>/data/<name>`; models and logs lie beside."""

import os
import shutil
import tempfile
from pathlib import Path

from gts_async._errors import InvalidArgument

MAX_NAME_BYTES = 255
"""What the usual file systems take for one name."""


class FolderFiles:
    """The emulator's Files, kept in folders below `root` (made when the first file comes).

    A name that would leave its folder raises InvalidArgument, a ValueError, whatever is asked. The engine itself lets
    ``../x`` through (`gts_engine_service.py: upfiles`), which is nothing to imitate on somebody's own machine.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()

    def task_folder(self, task_id: str) -> Path:
        """Give the folder of everything that belongs to the task."""
        return self.root / _plain_name("task_id", task_id)

    def path(self, task_id: str, name: str) -> Path:
        """Give where the file is, or would be, kept."""
        return self.task_folder(task_id) / "data" / _plain_name("name", name)

    def write(self, task_id: str, name: str, content: bytes) -> None:
        """Keep `content` in place of what was there; a reader sees the old or the new file, never a part."""
        path = self.path(task_id, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)

    def read(self, task_id: str, name: str) -> bytes:
        """Give what was kept; raises KeyError."""
        try:
            return self.path(task_id, name).read_bytes()
        except OSError as error:
            raise KeyError(name) from error

    def remove(self, task_id: str) -> None:
        """Forget all files of the task, and its folder if nothing else is in there."""
        folder = self.task_folder(task_id)
        shutil.rmtree(folder / "data", ignore_errors=True)
        remove_empty(folder)


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` beside `path` and move it there in one step; the folder must exist."""
    descriptor, draft = tempfile.mkstemp(prefix=".draft-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def remove_empty(folder: Path) -> None:
    """Remove `folder` if it is empty; other parts of the task may still lie in it."""
    try:
        folder.rmdir()
    except OSError:
        return


def _plain_name(argument: str, name: str) -> str:
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise InvalidArgument(argument, f"{name!r} would leave its folder", "use a plain file name")
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(argument, f"{name!r} is not valid text", "use a plain file name") from None
    if len(encoded) > MAX_NAME_BYTES:
        raise InvalidArgument(argument, f"has {len(encoded)} bytes", f"use at most {MAX_NAME_BYTES}")
    return name
