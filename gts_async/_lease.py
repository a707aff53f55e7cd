"""Lease: the right to an engine's one model slot, which one inference session has at a time.

Among the sessions of a loop it goes round in the order of asking. Among loops, and among the processes of a user on
this machine, it is the lock of a file, which ends with the process that holds it. Other users and other machines are
not kept out, and on Windows no other process is. What shows that the slot was taken all the same is in
``gts/identity.py``.
"""

import asyncio
import hashlib
import json
import logging
import os
import stat
import tempfile
import weakref
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread
import attrs

from gts_async._errors import Busy
from gts_async._flow.clock import Clock
from gts_async._flow.shield import finished
from gts_async._net.config import BaseURL

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two tries to lock the file while another process has it; each pause is half as long again."""

log = logging.getLogger("gts_async")


class Lease:
    """What one session takes before it loads a model into the slot of the engine at `base_url`, and gives back.

    With `is_private`, an engine that lives in this process, there is no file.
    """

    def __init__(
        self,
        base_url: BaseURL,
        task_id: str,
        clock: Clock,
        *,
        is_private: bool = False,
        folder: Path | None = None,
    ) -> None:
        self._base_url = base_url
        self._task_id = task_id
        self._clock = clock
        self._is_private = is_private or fcntl is None
        self._folder = folder
        self._slot: _Slot | None = None
        self._file: _Locked | None = None

    async def take(self, *, wait: bool) -> None:
        """Take the lease when it is free; without `wait` raises Busy, which says who has it, if it is not."""
        slot = _slot(slot_name(self._base_url))
        if wait:
            await slot.turn.acquire()
        else:
            try:
                slot.turn.acquire_nowait()
            except anyio.WouldBlock:
                raise self._busy(f"another inference session of this program, for task {slot.holder!r}") from None
        self._slot = slot
        slot.holder = self._task_id
        try:
            if not self._is_private:
                await self._lock(wait=wait)
        except BaseException:
            await self.give_back()
            raise

    async def give_back(self) -> None:
        """Let the next one have it; does nothing if it was not taken. A cancelled caller is cancelled afterwards."""
        slot, file, self._slot, self._file = self._slot, self._file, None, None
        try:
            if file is not None:
                await finished(anyio.to_thread.run_sync(file.remove))
        finally:
            if slot is not None:
                slot.turn.release()

    async def _lock(self, *, wait: bool) -> None:
        pause = FIRST_PAUSE
        # Shielded: a lock that the thread gets after its caller was cancelled would have nobody to give it back.
        while (holder := await finished(self._try_lock())) is not None:
            if not wait:
                raise self._busy(holder)
            await self._clock.sleep(pause)
            pause = min(1.5 * pause, LONGEST_PAUSE)

    async def _try_lock(self) -> str | None:
        """Lock the file; gives who has it instead, if somebody does."""
        try:
            found = await anyio.to_thread.run_sync(self._open)
        except OSError as error:
            log.warning("%s: other processes will not see that its model slot is taken: %s", self._base_url, error)
            return None
        if isinstance(found, str):
            return found
        self._file = found
        return None

    def _open(self) -> "_Locked | str":
        folder = own_folder(runtime_folder() if self._folder is None else self._folder)
        digest = hashlib.blake2b(slot_name(self._base_url).encode(), digest_size=12).hexdigest()
        since = datetime.now(UTC).isoformat(timespec="seconds")
        note = {"engine": self._base_url.text, "task": self._task_id, "pid": os.getpid(), "since": since}
        return _locked(folder / f"{digest}.lease", json.dumps(note).encode())

    def _busy(self, holder: str) -> Busy:
        return Busy(f"{self._base_url}: {holder}, holds the engine's one model slot")

    def __repr__(self) -> str:
        return f"<Lease of {self._base_url} {'taken' if self._slot is not None else 'not taken'}>"


def slot_name(base_url: BaseURL) -> str:
    """Give what two spellings of one engine's URL have in common: the port is told, this machine has one name."""
    host = "localhost" if base_url.is_loopback else base_url.host.lower()
    path = base_url.text.partition("://")[2].partition("/")[2]
    return f"{base_url.scheme}://{host}:{base_url.port}/{path}"


@attrs.define(eq=False)
class _Slot:
    """An engine's slot as one loop sees it: whose turn it is. Any task may release it."""

    turn: anyio.Semaphore = attrs.field(factory=lambda: anyio.Semaphore(1, max_value=1))
    holder: str = ""


_slots: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Slot]] = weakref.WeakKeyDictionary()


def _slot(name: str) -> _Slot:
    return _slots.setdefault(asyncio.get_running_loop(), {}).setdefault(name, _Slot())


def runtime_folder() -> Path:
    """Give where the lock files of this user are: the runtime folder that the system made, or one of our own.

    Not platformdirs': where the variable is not set, it warns about that, or names a folder that is not there.
    """
    user = os.geteuid()
    for place in (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{user}"):
        if place and os.path.isabs(place) and os.path.isdir(place) and os.stat(place).st_uid == user:
            return Path(place, "gts_async")
    return Path(tempfile.gettempdir(), f"gts_async-{user}")


def own_folder(folder: Path) -> Path:
    """Make a folder that is nobody else's to change; raises OSError if it is, or cannot be made."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is not a folder that only this user may write to")
    return folder


class _Locked:
    """A file that this process has locked."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd: int | None = fd
        _held.add(self)

    def remove(self) -> None:
        """Remove and unlock it: whoever has opened it in between sees that it is not the same any more."""
        _held.discard(self)
        if self._fd is None:
            return
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s was not removed: %s", self._path, error)
        finally:
            self.forget()

    def forget(self) -> None:
        """Close it."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __del__(self) -> None:
        self.forget()


_held: weakref.WeakSet[_Locked] = weakref.WeakSet()


def _locked(path: Path, note: bytes) -> _Locked | str:
    """Open and lock a file, and write into it whose it is; gives what is written there if somebody else has it."""
    assert fcntl is not None  # noqa: S101 - else no file is used
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = _is_at(path, fd)
            if is_ours:
                os.ftruncate(fd, 0)
                os.pwrite(fd, note, 0)
        except BlockingIOError:
            holder = _holder(os.pread(fd, 4096, 0))
            os.close(fd)
            return holder
        except BaseException:
            os.close(fd)
            raise
        if is_ours:
            return _Locked(path, fd)
        # Whoever had it has removed it between our opening and our locking it.
        os.close(fd)


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def _holder(note: bytes) -> str:
    try:
        said = json.loads(note)
        return f"process {said['pid']:d}, for task {said['task']!r} since {said['since']:.25}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _let_go() -> None:
    """Close in a forked child what its parent holds: the lock would live on with the child."""
    for locked in tuple(_held):
        locked.forget()


if fcntl is not None:
    os.register_at_fork(after_in_child=_let_go)
