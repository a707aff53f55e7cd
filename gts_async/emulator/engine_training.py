"""The engine's training processes: what is ordered, what they write into task_info.json and when, and the stop.

Who really trains is the `Trainer` backend; the checks before a training are in `engine_checks`.
"""

from collections.abc import Mapping

import attrs

from gts_async.emulator.backends import Stage, Trainer, TrainingOrder, TrainingState
from gts_async.emulator.engine_bodies import Crash
from gts_async.emulator.engine_quirks import EngineQuirks
from gts_async.emulator.engine_tasks import Info, TaskFolders

INITIALIZED = {"status": "Initialized", "status_code": 0}
TRAINING = {"status": "On Training", "status_code": 1}
SUCCEEDED = {"status": "Train Success", "status_code": 2}
FAILED = {"status": "Train Failed", "status_code": 3}
STOPPED = {"status": "Train Stopped", "status_code": 4}
SERVING = {"status": "On Inference", "status_code": 5}

MODES: Mapping[tuple[str, str], frozenset[str]] = {
    ("qiankunding", "classification"): frozenset({"standard", "advanced"}),
    ("qiankunding", "similarity"): frozenset({"fast", "standard", "advanced"}),
    ("qiankunding", "nli"): frozenset({"fast", "standard", "advanced"}),
    ("bagualu", "classification"): frozenset({"standard"}),
    ("bagualu", "ie"): frozenset({"standard"}),
    ("bagualu", "summary"): frozenset({"standard", "advanced"}),
}
"""The pipelines there are, by engine and task type, and the train modes that each of them can do."""

_SHELL = frozenset(" \t\n\r\"'`$&|;<>()\\")


def fate(order: TrainingOrder) -> Stage | None:
    """Tell what comes of an order whatever its data are: DIED, FAILED, or None if the data decide.

    The engine pastes the order into a shell command, so characters of the shell break it up; the training script
    refuses unknown engines and modes before it writes a status (`gts_engine_train.py: main`) and fails for a pipeline
    or mode that there is not.
    """
    words = (order.task_id, order.engine_type, order.task_type, order.train_mode, order.unlabeled_data)
    names = (order.train_data, order.val_data, order.test_data, order.label_data)
    if not _SHELL.isdisjoint("".join(words + names)):
        return Stage.DIED
    if order.engine_type not in ("qiankunding", "bagualu") or order.train_mode not in ("fast", "standard", "advanced"):
        return Stage.DIED
    modes = MODES.get((order.engine_type, order.task_type), frozenset())
    return None if order.train_mode in modes else Stage.FAILED


@attrs.define
class _Process:
    pid: int
    order: TrainingOrder
    stage: Stage = Stage.STARTING
    at_start: Info = attrs.Factory(Info)


class Training:
    """The processes of every task, by its folder; `settle` lets them write what they have come to by now."""

    def __init__(self, folders: TaskFolders, trainer: Trainer, quirks: EngineQuirks) -> None:
        self._folders = folders
        self._trainer = trainer
        self._quirks = quirks
        self._processes: dict[str, list[_Process]] = {}
        self._outputs: dict[str, str] = {}

    def start(self, folder: str, order: TrainingOrder, now: float) -> None:
        """Delete the task's outputs and begin; nothing runs for an order whose command the shell breaks up."""
        if self._quirks.wipes_outputs:
            self._outputs.pop(folder, None)
        if fate(order) is Stage.DIED:
            if not self._quirks.hides_deaths:
                self._folders.update_info(folder, **FAILED)
            return
        process = _Process(self._trainer.start(order, now), order)
        self._processes.setdefault(folder, []).append(process)
        if not self._quirks.keeps_old_status:
            self._begin(folder, process)

    def is_running(self, folder: str) -> bool:
        """Tell whether a process of the task was alive when last settled."""
        return bool(self._processes.get(folder))

    def settle(self, folder: str, now: float) -> None:
        """Let the task's processes write, the oldest first, what they have come to since the last look."""
        for process in tuple(self._processes.get(folder, ())):
            try:
                self._advance(folder, process, self._trainer.state(process.pid, now))
            except Crash:
                # A process that cannot read its task_info.json when it begins ends without a word.
                self._drop(folder, process)

    def stop(self, folder: str, now: float) -> bool:
        """Kill the process that wrote its pid last, and write 4; False if the task is not in training.

        Raises Crash if that process is gone.
        """
        info = self._folders.info(folder)
        running = self._processes.get(folder, [])
        if info["status"] != TRAINING["status"]:
            if self._quirks.refuses_early_stop or not running:
                return False
            pid = running[-1].pid
        else:
            pid = info["train_pid"]
        if not self._kill(folder, pid, now) and self._quirks.fails_to_stop_dead:
            raise Crash(f"no process {pid}")
        if not self._quirks.stops_newest_only:
            for process in tuple(running):
                self._kill(folder, process.pid, now)
        self._folders.write_info(folder, info | STOPPED)
        return True

    def forget(self, folder: str, task_id: str) -> None:
        """Drop all that is known of a task that was deleted."""
        self._processes.pop(folder, None)
        self._outputs.pop(folder, None)
        self._trainer.forget(task_id)

    def output_of(self, folder: str) -> str:
        """Give the id under which the trainer keeps the task's model; raises Crash if the outputs were wiped."""
        if folder not in self._outputs or "save_path" not in self._folders.info(folder):
            raise Crash(f"no model in {folder}/outputs")
        return self._outputs[folder]

    def _kill(self, folder: str, pid: object, now: float) -> bool:
        process = next((process for process in self._processes.get(folder, ()) if process.pid == pid), None)
        if process is None:
            return False
        self._drop(folder, process)
        return self._trainer.kill(process.pid, now)

    def _drop(self, folder: str, process: _Process) -> None:
        self._processes[folder] = [other for other in self._processes[folder] if other is not process]

    def _advance(self, folder: str, process: _Process, state: TrainingState) -> None:
        begun = state.stage is not Stage.STARTING and (state.stage is not Stage.DIED or state.had_begun)
        if begun and process.stage is Stage.STARTING:
            self._begin(folder, process)
        if state.stage not in (Stage.STARTING, Stage.TRAINING):
            self._drop(folder, process)
            self._end(folder, process, state)

    def _begin(self, folder: str, process: _Process) -> None:
        process.stage = Stage.TRAINING
        order = process.order
        names = {"train_data": order.train_data, "val_data": order.val_data}
        names |= {"test_data": order.test_data, "label_data": order.label_data}
        process.at_start = Info(self._folders.info(folder) | TRAINING | {"train_pid": process.pid} | names)
        self._folders.write_info(folder, process.at_start)

    def _end(self, folder: str, process: _Process, state: TrainingState) -> None:
        if state.stage is Stage.FAILED or fate(process.order) is Stage.FAILED:
            self._folders.write_info(folder, process.at_start | FAILED)
        elif state.stage is Stage.SUCCEEDED:
            measured = {} if state.test_acc is None else {"test_acc": state.test_acc}
            self._outputs[folder] = process.order.task_id
            try:
                self._folders.update_info(folder, **SUCCEEDED, **measured, save_path=f"{folder}/outputs")
            except Crash:
                # An unreadable task_info.json is one more exception inside the training, which makes it fail.
                self._folders.write_info(folder, process.at_start | FAILED)
        elif not self._quirks.hides_deaths:
            self._folders.update_info(folder, **FAILED)
