"""Backends for tests: files in a dict, and trainings that go by a script and by the time they are told.

Jobs by script are in `scripted_jobs`, what its trainings "made" in `toy_models`; `gts_async.local` really trains.
"""

import json

import attrs

from gts_async.emulator.backends import Files, Stage, TrainingOrder, TrainingState
from gts_async.emulator.toy_models import Predicted, ToyModel


class MemoryFiles:
    """Files in a dict: `contents` maps (task id, file name) to bytes, and a test may fill it as it likes."""

    def __init__(self) -> None:
        self.contents: dict[tuple[str, str], bytes] = {}

    def write(self, task_id: str, name: str, content: bytes) -> None:
        """Keep `content`, replacing what was there."""
        self.contents[task_id, name] = content

    def read(self, task_id: str, name: str) -> bytes:
        """Give what was kept; raises KeyError."""
        return self.contents[task_id, name]

    def remove(self, task_id: str) -> None:
        """Forget all files of the task."""
        self.contents = {key: content for key, content in self.contents.items() if key[0] != task_id}


@attrs.frozen(kw_only=True)
class Script:
    """How one training goes: `startup` and then `training` seconds, and its outcome SUCCEEDED, FAILED or DIED.

    With DIED and `training` 0 it dies in its imports and never shows as training. `test_acc` is measured by
    qiankunding only.
    """

    startup: float = 5.0
    training: float = 2.0
    outcome: Stage = Stage.SUCCEEDED
    test_acc: float = 0.6


@attrs.define
class _Run:
    order: TrainingOrder
    script: Script
    began: float
    killed: float | None = None
    has_succeeded: bool = False

    def state(self, now: float) -> TrainingState:
        begins = self.began + self.script.startup
        ends = begins + self.script.training
        if self.killed is not None and self.killed < ends:
            return TrainingState(Stage.DIED, had_begun=self.killed >= begins)
        if now < begins:
            return TrainingState(Stage.STARTING)
        if now < ends:
            return TrainingState(Stage.TRAINING)
        self.has_succeeded = self.script.outcome is Stage.SUCCEEDED
        measured = self.has_succeeded and self.order.engine_type == "qiankunding"
        return TrainingState(
            self.script.outcome, self.script.test_acc if measured else None, had_begun=self.script.training > 0
        )


class ScriptedTrainer:
    """Trains nothing: each `start` takes the next script that was given, `default` when there is none left.

    `files` is where its classifiers find their labels. `orders` are all that were started, by pid; `predicted` is what
    its models were asked.
    """

    def __init__(self, files: Files | None = None, *scripts: Script, default: Script = Script()) -> None:
        self.default = default
        self.orders: dict[int, TrainingOrder] = {}
        self.predicted: list[Predicted] = []
        self.files = files
        self._scripts = list(scripts)
        self._runs: dict[int, _Run] = {}

    def plan(self, *scripts: Script) -> None:
        """Add scripts for the trainings to come."""
        self._scripts.extend(scripts)

    def start(self, order: TrainingOrder, now: float) -> int:
        """Begin the next script, and give a new pid."""
        pid = 18_000 + len(self.orders)
        self.orders[pid] = order
        self._runs[pid] = _Run(order, self._scripts.pop(0) if self._scripts else self.default, now)
        return pid

    def state(self, pid: int, now: float) -> TrainingState:
        """Tell where the script is at `now`; raises KeyError if the task was forgotten."""
        return self._runs[pid].state(now)

    def kill(self, pid: int, now: float) -> bool:
        """Kill the process, as the engine's stop does and as a test may to show an end from outside."""
        run = self._runs.get(pid)
        if run is None or run.state(now).stage not in (Stage.STARTING, Stage.TRAINING):
            return False
        run.killed = now
        return True

    def rewrite(self, pid: int, script: Script) -> None:
        """Give a process another script, counted from its start, for what a test only knows later."""
        self._runs[pid].script = script

    def forget(self, task_id: str) -> None:
        """Drop the task's processes and models; models that are loaded go on answering."""
        self._runs = {pid: run for pid, run in self._runs.items() if run.order.task_id != task_id}

    def load(self, task_id: str) -> ToyModel:
        """Give the toy model of the newest training that was seen to succeed; raises KeyError if there is none."""
        made = [pid for pid, run in self._runs.items() if run.order.task_id == task_id and run.has_succeeded]
        if not made:
            raise KeyError(task_id)
        order = self._runs[made[-1]].order
        return ToyModel(order, made[-1], self._labels(order), self.predicted)

    def _labels(self, order: TrainingOrder) -> tuple[str, ...]:
        """Give the labels in the order of the labels file, as the engine's classifiers have them."""
        try:
            first = self.files.read(order.task_id, order.label_data).splitlines()[0] if self.files else b""
            labels = json.loads(first)["labels"]
        except (KeyError, IndexError, TypeError, ValueError):
            return ("0", "1")
        return tuple(map(str, labels))
