"""One process group of this machine and the end of what it prints. Which job it belongs to is not known here."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

MAX_LOG = 1 << 20
"""Bytes that are kept of what a process prints, in two files of half that size."""


class CappedLog:
    """The end of what was written: `path`, before it ``<path>.1``, together at most `limit` bytes."""

    def __init__(self, path: Path, limit: int = MAX_LOG) -> None:
        self._path = path
        self._half = limit // 2
        self._room = self._half
        self._file = path.open("wb", buffering=0)

    def write(self, chunk: bytes) -> None:
        """Append `chunk`, dropping what is oldest. Raises OSError."""
        while chunk:
            written = self._file.write(chunk[: self._room])
            chunk = chunk[written:]
            self._room -= written
            if not self._room:
                self._turn()

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._file.close()

    def _turn(self) -> None:
        self._file.close()
        os.replace(self._path, self._path.with_name(f"{self._path.name}.1"))
        self._file = self._path.open("wb", buffering=0)
        self._room = self._half


class GroupProcess:
    """A running command and all that it starts, in a process group (and session) of its own.

    stdout and stderr go to `log`, which is closed with the process. `kill` may be called from any thread and at any
    time, `wait` by one thread. Raises OSError or ValueError if the command cannot be run; the log then says why.
    """

    def __init__(self, command: Sequence[str], *, folder: Path, variables: Mapping[str, str], log: CappedLog) -> None:
        try:
            self._process = subprocess.Popen(  # noqa: S603 - running the given command is the purpose
                command,
                cwd=folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            with contextlib.closing(log):
                log.write(f"cannot run {command[0]!r}: {error}\n".encode(errors="replace"))
            raise
        self._lock = threading.Lock()
        self._is_reaped = False
        self._drainer = threading.Thread(target=_drain, args=(self._process.stdout, log), daemon=True)
        self._drainer.start()

    def kill(self) -> None:
        """Send SIGKILL to the whole group, unless it is over."""
        with self._lock:
            if not self._is_reaped:
                self._kill_group()

    def wait(self, until: float | None = None) -> int | None:
        """Wait for the end and give the exit status; None if it had to be killed at `until` (`time.monotonic`).

        The rest of the group is killed with its first process, as a container dies with it.
        """
        is_cut, pause = False, 0.002
        while not self._has_ended():
            if not is_cut and until is not None and time.monotonic() >= until:
                is_cut = True
                self.kill()
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        status = self._reap()
        # A process that left the group can hold the pipe open for as long as it likes.
        self._drainer.join(1.0)
        return None if is_cut else status

    def _reap(self) -> int:
        with self._lock:
            # The group goes first: once its leader is reaped, its number could become another group's.
            self._kill_group()
            self._is_reaped = True
            return self._process.wait()

    def _has_ended(self) -> bool:
        if hasattr(os, "waitid"):
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return self._process.poll() is not None  # macOS before Python 3.13 can only look by reaping

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _drain(source: BinaryIO, log: CappedLog) -> None:
    with source, contextlib.closing(log):
        while chunk := os.read(source.fileno(), 1 << 16):
            # A log that cannot be written must not block the process.
            with contextlib.suppress(OSError, ValueError):
                log.write(chunk)
