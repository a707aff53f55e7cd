"""What the emulator plugs in: who keeps files, who trains and predicts, who runs jobs. Protocols and their values."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

import attrs


class Files(Protocol):
    """The data files of each task, by the names that clients send; a name that leads out of the task may be refused.

    A refusal is a ValueError, which the client sees as a 500.
    """

    def write(self, task_id: str, name: str, content: bytes) -> None:
        """Keep `content`, replacing what was there."""
        ...

    def read(self, task_id: str, name: str) -> bytes:
        """Give what was kept; raises KeyError."""
        ...

    def remove(self, task_id: str) -> None:
        """Forget all files of the task."""
        ...


@attrs.frozen(kw_only=True)
class TrainingOrder:
    """One accepted ``/api/train``: the task, its file names, and the numbers as the engine coerced them."""

    task_id: str
    engine_type: str
    task_type: str
    train_data: str
    val_data: str
    test_data: str
    label_data: str
    unlabeled_data: str
    train_mode: str
    max_len: int
    max_num_epoch: int
    min_num_epoch: int
    seed: int
    gpuid: int


class Stage(Enum):
    """What a training process has come to."""

    STARTING = "starting"
    """Importing: the engine still shows the old status."""
    TRAINING = "training"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DIED = "died"
    """Gone without a word: the status stays what it was."""


@attrs.frozen
class TrainingState:
    """A stage, and the test accuracy if the pipeline measured one.

    `had_begun` matters for DIED only: False if the process died in its imports, so that it never showed as training.
    """

    stage: Stage
    test_acc: float | None = None
    had_begun: bool = True


class Model(Protocol):
    """A loaded model."""

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Give the ``result`` document exactly as the engine's pipeline shapes it; what it raises is a 500."""
        ...


class Trainer(Protocol):
    """Trains one process per order; all methods return at once, except `load`.

    The engine asks for the `state` of a process before it kills it or loads what it made.
    """

    def start(self, order: TrainingOrder, now: float) -> int:
        """Begin, and give the process's id, never used twice; a process of the same task that still runs goes on."""
        ...

    def state(self, pid: int, now: float) -> TrainingState:
        """Tell what the process has come to; raises KeyError if it was forgotten."""
        ...

    def kill(self, pid: int, now: float) -> bool:
        """Kill the process; False if it was already gone."""
        ...

    def forget(self, task_id: str) -> None:
        """Drop everything kept for the task, its trained model included; its processes may end."""
        ...

    def load(self, task_id: str) -> Model:
        """Load what the newest successful training made; raises KeyError if there is nothing."""
        ...


@attrs.frozen(kw_only=True)
class JobOrder:
    """One accepted job, as the cluster's agent understands it."""

    job_id: str
    gpu_number: int
    gpu_type: str
    ckpt_path: str
    ckpt_vol: int
    model_path: str
    model_vol: int
    image_path: str
    job_type: str
    stop_type: int
    stop_time: int
    run_command: str
    env: Mapping[str, str]


class JobStage(Enum):
    """What a job's process has come to."""

    QUEUED = "queued"
    RUNNING = "running"
    TRAINED = "trained"
    """Ended well; the model is being packed and uploaded."""
    UPLOADED = "uploaded"
    FAILED = "failed"


class Blob(Protocol):
    """An object in the store; one with an attribute `crc64` (int, or None if it is not known) has that told as well."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def etag(self) -> str:
        """The quoted entity tag."""
        ...

    def read(self, start: int, stop: int) -> bytes:
        """Give the bytes from `start` up to `stop`."""
        ...


@attrs.frozen
class JobState:
    """A stage, and the packed model once it is UPLOADED."""

    stage: JobStage
    model: Blob | None = None


class JobRunner(Protocol):
    """Runs jobs; all methods return at once."""

    def start(self, order: JobOrder, now: float) -> None:
        """Begin, or queue."""
        ...

    def state(self, job_id: str, now: float) -> JobState:
        """Tell what the job has come to."""
        ...

    def kill(self, job_id: str) -> None:
        """End the job without a model; unknown ids are ignored."""
        ...
