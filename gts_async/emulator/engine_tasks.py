"""The engine's task folders, kept in memory: which there are, and the task_info.json in each, byte for byte.

The data files in them are kept by the `Files` backend; here it is only known whether their folder is there.
"""

import json
import posixpath
from collections.abc import Mapping
from typing import Any

from gts_async.emulator.engine_bodies import Crash

INFO = "task_info.json"
MAX_COMPONENT = 255
"""Bytes of one name in a path, as Linux file systems have it."""


class Info(dict[str, Any]):
    """What task_info.json holds: task_id, status, status_code, task_type, task_name, engine_type, and later more."""

    def __missing__(self, key: str) -> Any:
        """Crash as the service does on a key that is not there."""
        raise Crash(f"KeyError: {key}")


class TaskFolders:
    """A tree of folders below `root`; every path is absolute and without ``..``."""

    def __init__(self, root: str) -> None:
        self.root = posixpath.normpath(root)
        self._folders: dict[str, None] = {}
        self._infos: dict[str, bytes] = {}

    def path(self, *names: str) -> str:
        """Give the path that the engine means; an absolute name leaves the root, ``..`` climbs."""
        return posixpath.normpath(posixpath.join(self.root, *names))

    def listed(self) -> list[str]:
        """Give the names in the root, plain files too, none if the root is not there."""
        children = [path for path in self._folders if posixpath.dirname(path) == self.root]
        names = [posixpath.basename(path) for path in children]
        return names + [INFO] * (self.root in self._infos)

    def is_listed(self, task_id: str) -> bool:
        """Tell whether `task_id` is a name in the root, which is all that the engine asks of an id."""
        if task_id in ("", ".", "..") or "/" in task_id:
            return False
        return self.is_folder(self.path(task_id)) or (task_id == INFO and self.root in self._infos)

    def is_folder(self, path: str) -> bool:
        """Tell whether `path` was made."""
        return path in self._folders

    def is_inside(self, path: str) -> bool:
        """Tell whether `path` lies below the root, where nothing exists that was not made here."""
        return path.startswith(self.root + "/")

    def make(self, path: str) -> None:
        """Make the folder and all above it; raises Crash where the file system would refuse."""
        check_path(path)
        steps = [path]
        while steps[-1] not in (self.root, posixpath.dirname(steps[-1])):
            steps.append(posixpath.dirname(steps[-1]))
        for step in reversed(steps):
            if self.is_info(step):
                raise Crash(f"{step} is a file")
            self._folders[step] = None

    def remove(self, path: str) -> None:
        """Remove the folder and all below; raises Crash if `path` is no folder."""
        if not self.is_folder(path):
            raise Crash(f"{path} is no folder")
        gone = [folder for folder in self._folders if folder == path or folder.startswith(path + "/")]
        for folder in gone:
            del self._folders[folder]
            self._infos.pop(folder, None)

    def is_info(self, path: str) -> bool:
        """Tell whether `path` is a task_info.json."""
        return posixpath.basename(path) == INFO and posixpath.dirname(path) in self._infos

    def has_info(self, folder: str) -> bool:
        """Tell whether `folder` has something called task_info.json, be it a file or a folder."""
        return folder in self._infos or self.is_folder(posixpath.join(folder, INFO))

    def raw_info(self, folder: str) -> bytes | None:
        """Give the task_info.json of `folder` as it is, None if there is none."""
        return self._infos.get(folder)

    def info(self, folder: str) -> Info:
        """Give what the task_info.json says; raises Crash if it is not there or not a JSON object."""
        raw = self._infos.get(folder)
        if raw is None:
            raise Crash(f"no {INFO} in {folder}")
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise Crash(f"{INFO} is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise Crash(f"{INFO} holds no object")
        return Info(document)

    def write_info(self, folder: str, info: Mapping[str, Any]) -> None:
        """Replace the task_info.json of a folder that is there; raises Crash if it is not."""
        self.write_raw(folder, json.dumps(info, indent=4).encode())

    def write_raw(self, folder: str, raw: bytes) -> None:
        """Replace it by any bytes, as an upload under the name ``../task_info.json`` does."""
        if not self.is_folder(folder) or self.is_folder(posixpath.join(folder, INFO)):
            raise Crash(f"{folder} cannot hold a {INFO}")
        self._infos[folder] = raw

    def update_info(self, folder: str, **changes: object) -> None:
        """Read, change and write, as service and training process do; raises Crash if there is nothing to read."""
        self.write_info(folder, self.info(folder) | changes)

    def with_status(self, code: object) -> list[str]:
        """Give the folders whose task_info.json can be read and has this status_code."""
        return [folder for folder in self._infos if self._code(folder) == code]

    def _code(self, folder: str) -> object:
        try:
            return self.info(folder).get("status_code")
        except Crash:
            return None


def check_path(path: str) -> None:
    """Raise Crash for a path that Linux does not take."""
    try:
        too_long = any(len(name.encode("utf-8", "surrogateescape")) > MAX_COMPONENT for name in path.split("/"))
    except UnicodeEncodeError as error:
        raise Crash(f"not a path: {error}") from error
    if too_long or "\0" in path:
        raise Crash("not a path: too long, or with a NUL")
