"""Where the engine looks for a data file and where it puts one, given whatever name a client sends."""

import posixpath

from gts_async.emulator.backends import Files
from gts_async.emulator.engine_bodies import Crash
from gts_async.emulator.engine_quirks import EngineQuirks
from gts_async.emulator.engine_tasks import TaskFolders, check_path

_REFUSALS = (ValueError, OSError)


class DataFiles:
    """The data folder of every task: `Files` keeps the contents, under (task id, file name).

    A name that leads out of all data folders is given to `Files` raw, under the task it was sent for; `Files` may
    refuse it with a ValueError, which the client sees as a 500.
    """

    def __init__(self, folders: TaskFolders, files: Files, quirks: EngineQuirks) -> None:
        self._folders = folders
        self._files = files
        self._quirks = quirks

    def shown(self, task_id: str, name: str) -> str:
        """Give the path as the engine's messages show it."""
        return posixpath.join(self._folders.root, task_id, "data", name)

    def read(self, task_id: str, name: str) -> bytes | None:
        """Give the content, None if there is no such file; raises Crash for a folder, which an empty name is."""
        target = self._folders.path(task_id, "data", name)
        has_folder = self._folders.is_folder(self._folders.path(task_id, "data"))
        if not has_folder and not posixpath.isabs(name):
            return None
        if name.endswith("/") and not self._folders.is_folder(target):
            return None
        if self._folders.is_folder(target):
            if self._quirks.opens_folders:
                raise Crash(f"{target} is a folder")
            return None
        if self._folders.is_info(target):
            return self._folders.raw_info(posixpath.dirname(target))
        try:
            return self._files.read(*self._key(task_id, name, target))
        except KeyError:
            return None
        except _REFUSALS as error:
            raise Crash(f"the backend refuses {name!r}: {error}") from error

    def write(self, task_id: str, name: str, content: bytes) -> None:
        """Keep an upload; raises Crash where the file system would refuse."""
        target = self._folders.path(task_id, "data", name)
        folder = posixpath.dirname(target)
        check_path(target)
        if self._folders.is_folder(target) or name.endswith("/"):
            raise Crash(f"{target} is a folder")
        if self._folders.is_inside(target) and not self._folders.is_folder(folder):
            raise Crash(f"there is no folder {folder}")
        if posixpath.basename(target) == "task_info.json" and self._folders.is_folder(folder):
            self._folders.write_raw(folder, content)
            return
        try:
            self._files.write(*self._key(task_id, name, target), content)
        except _REFUSALS as error:
            raise Crash(f"the backend refuses {name!r}: {error}") from error

    def _key(self, task_id: str, name: str, target: str) -> tuple[str, str]:
        """Give task and file name for a target in some task's data folder, else the name as it was sent."""
        within = posixpath.relpath(target, self._folders.root).split("/")
        if len(within) == 3 and within[1] == "data":
            return within[0], within[2]
        return task_id, name
