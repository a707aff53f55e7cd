"""Trains for real: one process per order, each in a process group of its own, watched without ever blocking.

What such a process does is in `training`; this module imports no scikit-learn, so a server starts fast.
"""

import contextlib
import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, cast

import attrs

from gts_async._errors import InvalidArgument, MissingExtra, MisuseError
from gts_async.emulator.backends import Model, Stage, TrainingOrder, TrainingState
from gts_async.local.files import FolderFiles, remove_empty

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL_FILE = "outputs/model.joblib"
"""The trained model, in the task's folder; a training process writes it in one step just before it reports success."""

LOG_FILE = "logs/train.log"
ORDER_FILE = "order.json"
MARK_FILE = "state.json"

_SETTLED = (Stage.SUCCEEDED, Stage.FAILED)
_REAPING = 5.0
"""Seconds to wait for a killed process; it is gone within milliseconds unless the disk hangs."""

_INHERITED = frozenset(
    {
        "CONDA_PREFIX",
        "DYLD_LIBRARY_PATH",
        "HOME",
        "LANG",
        "LANGUAGE",
        "LD_LIBRARY_PATH",
        "PATH",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHOME",
        "PYTHONPATH",
        "SYSTEMROOT",
        "TEMP",
        "TMP",
        "TMPDIR",
        "TZ",
        "VIRTUAL_ENV",
    }
)


class _Run:
    """One training process, and the folder where it leaves its marks; a thread of its own reaps it when it ends."""

    def __init__(self, order: TrainingOrder, process: "subprocess.Popen[bytes]", folder: Path) -> None:
        self.task_id = order.task_id
        self.folder = folder
        self._process = process
        self._lock = threading.Lock()
        self._is_killed = False
        self._reaper = threading.Thread(target=self._reap, name=f"training {process.pid}", daemon=True)
        self._reaper.start()

    def kill(self) -> bool:
        """Kill the process and its children; False if it was gone, or has ended its training and is on its way out."""
        with self._lock:
            # What is not reaped keeps its number, so nobody else's group can be hit.
            if self._is_killed or self._is_gone() or self._mark().stage in _SETTLED:
                return False
            os.killpg(self._process.pid, signal.SIGKILL)
            self._is_killed = True
        return True

    def _is_gone(self) -> bool:
        """Tell whether it has ended; `poll` would say no while the reaper is just about to collect it."""
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def wait(self, limit: float) -> None:
        """Wait until the process is gone, at most `limit` seconds."""
        self._reaper.join(limit)

    def state(self) -> TrainingState:
        with self._lock:  # asked before the mark is read: what a process marks just before it ends must not be missed
            is_alive = not self._is_killed and not self._is_gone()
        mark = self._mark()
        if is_alive or mark.stage in _SETTLED:
            return mark
        return TrainingState(Stage.DIED, had_begun=mark.stage is not Stage.STARTING)

    def _mark(self) -> TrainingState:
        try:
            mark = json.loads((self.folder / MARK_FILE).read_bytes())
        except OSError:
            return TrainingState(Stage.STARTING)
        return TrainingState(Stage(mark["stage"]), mark["test_acc"])

    def _reap(self) -> None:
        if hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            with self._lock:
                self._process.wait()
        else:  # macOS before Python 3.13 can only wait by reaping
            self._process.wait()


class LocalTrainer:
    """The emulator's Trainer: scikit-learn in processes of their own, on the files that FolderFiles keeps below `root`.

    Like the engine, an order wipes the task's outputs and log, and a process of the same task that still runs goes on;
    the model that is loaded is the last one finished. Unlike the engine's, no process outlives `close` or `forget`.
    Raises MissingExtra if scikit-learn is not installed.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        if importlib.util.find_spec("sklearn") is None:
            raise MissingExtra("local", "training")
        self._files = FolderFiles(root)
        self._runs: dict[int, _Run] = {}
        self._numbers = itertools.count(1)
        self._is_closed = False

    def start(self, order: TrainingOrder, now: float) -> int:
        """Begin, and give the run's number: unlike the system's process numbers it is never used twice.

        Raises InvalidArgument for a task id that would leave the root, MisuseError once closed.
        """
        if self._is_closed:
            raise MisuseError("the trainer is closed: make a new one")
        folder = self._files.task_folder(order.task_id)
        for name in ("logs", "outputs"):
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir(parents=True)
        number = next(self._numbers)
        self._runs[number] = self._spawn(order, folder)
        return number

    def _spawn(self, order: TrainingOrder, folder: Path) -> _Run:
        (folder / "runs").mkdir(exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=folder / "runs"))
        note = {"root": str(self._files.root), "order": attrs.asdict(order)}
        (place / ORDER_FILE).write_text(json.dumps(note), encoding="utf-8")
        with (folder / LOG_FILE).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own module; the only argument is a path we made
                [sys.executable, "-P", "-m", "gts_async.local.training", str(place / ORDER_FILE)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=child_environment(os.environ),
                start_new_session=True,
            )
        return _Run(order, process, place)

    def state(self, pid: int, now: float) -> TrainingState:
        """Tell what a process has come to; raises KeyError if it was forgotten."""
        return self._runs[pid].state()

    def kill(self, pid: int, now: float) -> bool:
        """Send SIGKILL to a process and its children; False if it was already gone, or forgotten."""
        run = self._runs.get(pid)
        return run is not None and run.kill()

    def forget(self, task_id: str) -> None:
        """Kill every process of the task and drop its models, logs and marks; FolderFiles drops its data files.

        The engine lets a training run on after its task was deleted, until its next write fails. Nobody can see that.
        """
        for number, run in tuple(self._runs.items()):
            if run.task_id == task_id:
                run.kill()
                run.wait(_REAPING)  # it could still be writing
                del self._runs[number]
        try:
            folder = self._files.task_folder(task_id)
        except InvalidArgument:
            return
        for name in ("logs", "outputs", "runs"):
            shutil.rmtree(folder / name, ignore_errors=True)
        remove_empty(folder)

    def load(self, task_id: str) -> Model:
        """Load what the newest successful training of the task made, also one of an earlier trainer on this root.

        Takes about a second the first time, when scikit-learn is imported. Raises KeyError if there is nothing.
        """
        import joblib

        try:
            return cast("Model", joblib.load(self._files.task_folder(task_id) / MODEL_FILE))
        except (FileNotFoundError, InvalidArgument) as error:
            raise KeyError(task_id) from error

    def close(self) -> None:
        """Kill every process that still runs and wait until all are gone; calling it again does nothing."""
        self._is_closed = True
        for run in self._runs.values():
            run.kill()
        for run in self._runs.values():
            run.wait(_REAPING)


def child_environment(parent: "Mapping[str, str]") -> dict[str, str]:
    """Give a training process's environment: what Python and its libraries need to start, and nothing else.

    Tokens and other secrets are not on the list. OMP and BLAS get as many threads as this process may use processors.
    """
    kept = {name: value for name, value in parent.items() if name in _INHERITED or name.startswith("LC_")}
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(processors))
    return {**kept, **threads, "PYTHONPATH": _module_path(parent.get("PYTHONPATH", "")), "PYTHONUTF8": "1"}


def _module_path(path: str) -> str:
    home = str(Path(__file__).parents[2])
    # An installed package is found anyway, and its folder may not come before the standard library's.
    return path if home == sysconfig.get_path("purelib") else os.pathsep.join(filter(None, (home, path)))
