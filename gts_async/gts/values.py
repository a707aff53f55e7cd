"""The nouns of GTS Engine: tasks, their status, and what its six pipelines answer."""

from collections.abc import Mapping
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, TypeVar

import attrs
import msgspec

from gts_async._errors import InvalidArgument, WrongType, plain


class TaskStatus(IntEnum):
    """What a task is doing; the numbers are the engine's (`gts_engine_service.py: check_task_status`)."""

    INITIALIZED = 0
    TRAINING = 1
    SUCCEEDED = 2
    FAILED = 3
    STOPPED = 4
    SERVING = 5
    UNKNOWN = -1
    """A number that this library does not know; `TaskInfo.code` keeps it. Never settled."""


class EngineType(StrEnum):
    """Which of the engine's two training stacks a task uses."""

    QIANKUNDING = "qiankunding"
    BAGUALU = "bagualu"


class TaskType(StrEnum):
    """What a task learns."""

    CLASSIFICATION = "classification"
    SIMILARITY = "similarity"
    NLI = "nli"
    IE = "ie"
    SUMMARY = "summary"


PIPELINES: frozenset[tuple[EngineType, TaskType]] = frozenset(
    {
        (EngineType.QIANKUNDING, TaskType.CLASSIFICATION),
        (EngineType.QIANKUNDING, TaskType.SIMILARITY),
        (EngineType.QIANKUNDING, TaskType.NLI),
        (EngineType.BAGUALU, TaskType.CLASSIFICATION),
        (EngineType.BAGUALU, TaskType.IE),
        (EngineType.BAGUALU, TaskType.SUMMARY),
    }
)
"""The combinations that train; the engine accepts any other and then fails, or stays INITIALIZED for ever."""

FIXED_LABELS: Mapping[TaskType, tuple[str, ...]] = {
    TaskType.SIMILARITY: ("0", "1"),
    TaskType.NLI: ("entailment", "contradiction", "neutral"),
}
"""The labels of the task types that bring their own, in the order of their probabilities (`qiankunding_*.py`)."""


def _shortened(text: str) -> str:
    return repr(plain(text, 200))


@attrs.frozen
class TaskInfo:
    """One look at a task.

    `message` is the engine's text for the status. `test_acc` is the accuracy on the test file, 0 to 1; None before
    success and for every bagualu task (no bagualu pipeline measures it). `code` is the engine's own number.
    `observed_at` is aware, UTC.
    """

    status: TaskStatus
    message: str = attrs.field(default="", repr=_shortened)
    test_acc: float | None = None
    observed_at: datetime | None = attrs.field(default=None, eq=False)
    code: int = attrs.field(default=attrs.Factory(lambda self: int(self.status), takes_self=True))


@attrs.frozen
class Prediction:
    """A class, with the probability of each; for classification, similarity ("0", "1") and nli.

    `probabilities` are in the order of the labels file (similarity: 0, 1; nli: entailment, contradiction, neutral)
    and `probability` is the largest of them.
    """

    label: str
    probability: float
    probabilities: tuple[float, ...]

    @property
    def raw(self) -> dict[str, Any]:
        """What the engine's JSON says of this sample, under the engine's own names."""
        return {"predictions": self.label, "probabilities": list(self.probabilities)}


@attrs.frozen
class Entity:
    """A span of the text: `text[start:end]`, its type, and the model's score."""

    text: str
    type: str
    start: int
    end: int
    score: float


@attrs.frozen
class Relation:
    """Two entities and what holds between them."""

    predicate: str
    subject: Entity
    object: Entity
    score: float


@attrs.frozen
class Extraction:
    """What an ie task finds in one text: entities (实体识别) or relations (关系抽取).

    `json` is the engine's own text for it, as bytes; two that differ only in that are equal.
    """

    text: str
    entities: tuple[Entity, ...] = ()
    relations: tuple[Relation, ...] = ()
    json: bytes = attrs.field(default=b"", eq=False, repr=False)

    @property
    def raw(self) -> dict[str, Any] | None:
        """What the engine's JSON says of this sample; None if it was not read from any."""
        found: dict[str, Any] | None = msgspec.json.decode(self.json) if self.json else None
        return found


@attrs.frozen
class Summary:
    """The summary of one text."""

    text: str

    @property
    def raw(self) -> str:
        """What the engine's JSON says of this sample: the text, and nothing else."""
        return self.text


Result = Prediction | Extraction | Summary


@attrs.frozen(kw_only=True)
class TrainOptions:
    """Everything that `train` sends besides the task: file names as uploaded, and the training's numbers.

    The engine's own defaults (`gts_engine_service.py: TaskTrainInput`). `max_len` is in tokens, `gpuid` is the number
    given to CUDA_VISIBLE_DEVICES. Bagualu classification trains more epochs than asked when the data are few.
    """

    train_data: str
    val_data: str
    test_data: str
    label_data: str
    unlabeled_data: str = ""
    train_mode: str = "standard"
    max_len: int = 512
    max_num_epoch: int = 3
    min_num_epoch: int = 3
    seed: int = 42
    gpuid: int = 0

    def __attrs_post_init__(self) -> None:
        """Refuse what the engine would paste into its shell, or what cannot train."""
        for name in ("train_data", "val_data", "test_data", "label_data"):
            check_name(name, getattr(self, name))
        if self.unlabeled_data != "":
            check_name("unlabeled_data", self.unlabeled_data)
        if self.train_mode not in TRAIN_MODES:
            modes = " or ".join(repr(mode) for mode in TRAIN_MODES)
            raise InvalidArgument(
                "train_mode", f"the engine does not train in mode {self.train_mode!r}", f"use {modes}"
            )
        if self.train_mode == "advanced" and self.unlabeled_data == "":
            raise InvalidArgument("unlabeled_data", "the advanced mode needs unlabeled data", "name an uploaded file")
        check_number("max_len", self.max_len, 1, 1 << 20)
        check_number("max_num_epoch", self.max_num_epoch, 1, 1_000_000)
        check_number("min_num_epoch", self.min_num_epoch, 0, 1_000_000)
        check_number("seed", self.seed, 0, (1 << 32) - 1)
        check_number("gpuid", self.gpuid, 0, 1023)
        if self.min_num_epoch > self.max_num_epoch:
            raise InvalidArgument(
                "min_num_epoch", f"{self.min_num_epoch} is more than max_num_epoch={self.max_num_epoch}", "swap them"
            )


TRAIN_MODES = ("standard", "advanced")
"""Any other mode ends the training process before it can say so (argparse), or fails ("fast")."""

_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
MAX_NAME = 200
"""Characters; the engine makes folders and longer names from it, which must stay below 255 bytes."""


def check_name(argument: str, name: object) -> str:
    """Give `name` back if the engine can use it as a task id or file name.

    The engine pastes ids and file names unquoted into a shell command and into paths, so only letters, digits and
    ``_.-`` pass. Raises InvalidArgument or WrongType.
    """
    if not isinstance(name, str):
        raise WrongType(argument, f"must be a string, not {type(name).__name__}")
    if not name:
        raise InvalidArgument(argument, "is empty", "give a name of letters, digits and _.-")
    if name in (".", "..") or name.startswith("-") or not _SAFE.issuperset(name):
        odd = sorted(set(name) - _SAFE)
        why = f"has {', '.join(map(repr, odd[:5]))}" if odd else f"is {name!r}"
        raise InvalidArgument(
            argument,
            f"{why}, which the engine would paste unescaped into a shell command or a path",
            "use letters, digits and _.- only, not starting with a dash",
        )
    if len(name) > MAX_NAME:
        raise InvalidArgument(argument, f"has {len(name)} characters", f"use at most {MAX_NAME}")
    return name


def check_number(argument: str, number: object, low: int, high: int) -> None:
    """Raise unless `number` is a whole number from `low` to `high`; the engine itself checks no range."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise WrongType(argument, f"must be a whole number, not {type(number).__name__}")
    if not low <= number <= high:
        raise InvalidArgument(argument, f"{number} is out of range", f"use {low} to {high}")


def check_pipeline(task_type: str, engine_type: str) -> tuple[TaskType, EngineType]:
    """Give both as enums if the engine can train that combination; raises InvalidArgument."""
    kind = _member(TaskType, "task_type", task_type)
    engine = _member(EngineType, "engine_type", engine_type)
    if (engine, kind) not in PIPELINES:
        able = sorted(e.value for e, t in PIPELINES if t is kind)
        raise InvalidArgument(
            "engine_type", f"{engine.value} does not train {kind.value} tasks", f"use {' or '.join(able)}"
        )
    return kind, engine


M = TypeVar("M", bound=StrEnum)


def _member(kind: type[M], argument: str, value: str) -> M:
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(member.value for member in kind)
        raise InvalidArgument(argument, f"there is no {value!r}", f"use one of {names}") from None
