"""The nouns of the SXWL cloud: what a job is asked to be, and what is seen of it.

How each server generation spells them is in `dialects`; which looks are final is in `progress`.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import cast

import attrs

from gts_async._errors import InvalidArgument, WrongType, plain
from gts_async.sxwl import checks


class JobStatus(StrEnum):
    """What a job is doing.

    The documented API knows only WORKING (queued, running, uploading, crash-looping alike), SUCCEEDED and FAILED; the
    finer ones come from the newer dialect. STOPPED is also what we say after our own stop: the old servers go on
    saying "working" for ever.
    """

    WORKING = "working"
    UNASSIGNED = "unassigned"
    ASSIGNED = "assigned"
    PREPARING = "preparing"
    PENDING = "pending"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    UNKNOWN = "unknown"
    """A word that this library does not know; `JobInfo.word` keeps it. Never settled."""


class JobType(StrEnum):
    """How the cluster runs a job; spelled as the documented API does."""

    GENERAL = "GeneralJob"
    PYTORCH = "Pytorch"
    MPI = "MPI"


class StopType(IntEnum):
    """When a job ends by itself."""

    NATURAL = 0
    TIME_LIMIT = 1


def _hidden(text: object) -> str:
    return "None" if text is None else "'…'"


def _shortened(text: str) -> str:
    return repr(plain(text, 200))


@attrs.frozen
class JobInfo:
    """One look at a job.

    `url` is the signed link to the model (a secret: whoever has it can fetch), None until the cloud has uploaded it
    and always None in the newer dialect. `word` is the cloud's own word for the status. `observed_at` is aware, UTC.
    """

    status: JobStatus
    url: str | None = attrs.field(default=None, repr=_hidden)
    observed_at: datetime | None = attrs.field(default=None, eq=False)
    word: str = attrs.field(default="", repr=_shortened)


@attrs.frozen
class GpuType:
    """A kind of GPU: `name` is what `JobSpec.gpu_type` wants.

    `price` is in yuan for one GPU and hour (`sys_price.amount`). `free` is the most that one machine has free, None
    where the cloud does not say (the dialect "2023-12").
    """

    name: str
    price: float | None = None
    free: int | None = None


@attrs.frozen
class JobListing:
    """One job in a listing, newest first; `mark` is what `JobSpec.mark` travelled as, if anything."""

    id: str
    info: JobInfo
    mark: str | None = attrs.field(default=None, repr=_hidden)


class Environment(Mapping[str, str]):
    """Environment variables of a job: an immutable, hashable mapping whose repr shows names only."""

    __slots__ = ("_pairs",)
    _pairs: dict[str, str]

    def __init__(self, pairs: Mapping[str, str] | None = None) -> None:
        if pairs is not None and not isinstance(pairs, Mapping):
            raise WrongType("env", f"must be a mapping of strings, not {type(pairs).__name__}")
        object.__setattr__(self, "_pairs", dict(pairs or {}))

    def __getitem__(self, name: str) -> str:
        return self._pairs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __hash__(self) -> int:
        return hash(frozenset(self._pairs.items()))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("an Environment is immutable")

    def __reduce__(self) -> tuple[type["Environment"], tuple[dict[str, str]]]:
        return Environment, (dict(self._pairs),)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{name!r}: '…'" for name in self._pairs) + "}"


def _whole(value: int | str) -> int:
    # The documented bodies have "10000"; what is no number stays as it is, to be refused under its field's name.
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value) else cast("int", value)


def _whole_or_none(value: int | str | None) -> int | None:
    return None if value is None else _whole(value)


def _job_type(value: JobType | str) -> JobType:
    if not isinstance(value, str):
        raise WrongType("job_type", f"must be a JobType or its name, not {type(value).__name__}")
    lowered = value.lower()
    for member in JobType:
        if lowered in (member.value.lower(), member.name.lower()):
            return member
    why = "is documented, but no server runs it" if lowered == "tensorflow" else "is not a job type"
    raise InvalidArgument("job_type", f"{value!r} {why}", "use GeneralJob, Pytorch or MPI")


def _stop_type(value: StopType | int | str) -> StopType:
    number = _whole(value)
    if isinstance(number, bool) or not isinstance(number, int):
        raise WrongType("stop_type", f"must be a StopType, not {type(value).__name__}")
    if number not in (0, 1):
        raise InvalidArgument("stop_type", f"there is no {number}", "use StopType.NATURAL or StopType.TIME_LIMIT")
    return StopType(number)


OLDER, NEWER = "2023-12", "2024-04"
_NO_SHELL = re.compile(r"[\"'`|&;$<>*~\\]")


@attrs.frozen(kw_only=True)
class JobSpec:
    """What a job is asked to be.

    Volumes are in MB, `stop_time` in minutes and counted from the creation, image pull included (with
    `stop_type=StopType.TIME_LIMIT`). Numbers may be given as strings of digits. `run_command` is split at single
    spaces and run without a shell; None runs what the image is made for. `env` reaches only GENERAL jobs. A name of a
    data set or pretrained model goes with the path to mount it at. `mark` is a unique string that travels with the
    job, so that a create whose answer was lost can be found in a listing: in the newer dialect by itself, in the
    documented one only when `callback_url` has it in it.

    Raises InvalidArgument or WrongType for what no server generation can run.
    """

    gpu_number: int = attrs.field(default=1, converter=_whole)
    gpu_type: str
    ckpt_path: str = "/workspace/ckpt"
    ckpt_vol: int = attrs.field(default=1024, converter=_whole)
    model_path: str = "/workspace/model"
    model_vol: int = attrs.field(default=1024, converter=_whole)
    image_path: str
    job_type: JobType = attrs.field(default=JobType.GENERAL, converter=_job_type)
    stop_type: StopType = attrs.field(default=StopType.NATURAL, converter=_stop_type)
    stop_time: int | None = attrs.field(default=None, converter=_whole_or_none)
    pretrained_model_name: str | None = None
    pretrained_model_path: str | None = None
    dataset_name: str | None = None
    dataset_path: str | None = None
    run_command: str | None = None
    callback_url: str | None = attrs.field(default=None, repr=_hidden)
    env: Mapping[str, str] = attrs.field(factory=Environment, converter=Environment)
    mark: str | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot run."""
        checks.check_number("gpu_number", self.gpu_number, 1, checks.MAX_GPUS)
        checks.check_number("ckpt_vol", self.ckpt_vol, 1, checks.MAX_VOLUME)
        checks.check_number("model_vol", self.model_vol, 1, checks.MAX_VOLUME)
        checks.check_word("gpu_type", self.gpu_type, checks.MAX_GPU_TYPE)
        checks.check_word("image_path", self.image_path)
        checks.check_pair("pretrained_model", self.pretrained_model_name, self.pretrained_model_path)
        checks.check_pair("dataset", self.dataset_name, self.dataset_path)
        mounts = ("ckpt_path", "model_path", "pretrained_model_path", "dataset_path")
        checks.check_mounts({name: getattr(self, name) for name in mounts})
        self._check_time()
        if self.run_command is not None:
            checks.check_command(self.run_command)
        if self.callback_url is not None:
            checks.check_callback_url(self.callback_url)
        checks.check_env(self.env)
        if self.mark is not None:
            checks.check_id("mark", self.mark)

    def _check_time(self) -> None:
        if self.stop_time is not None:
            checks.check_number("stop_time", self.stop_time, 0, checks.MAX_MINUTES)
        if self.stop_type is StopType.TIME_LIMIT and not self.stop_time:
            raise InvalidArgument("stop_time", "a time limit of no minutes ends the job at once", "give at least 1")

    def warnings(self, dialect: str | None = None) -> tuple[str, ...]:
        """Give what the cloud would do with this spec without saying so, one line each; empty if nothing.

        With the name of a `dialect`, only what holds for its servers. The cluster's agent shows it:
        `marketmanager.go: rawJobToJob`, `job.go`, `syncjob.go: processTrainningJobs`.
        """
        doubts = (*_command_doubts(self), *_run_doubts(self), *_newer_doubts(self))
        return tuple(text for only, text in doubts if dialect is None or only in (None, dialect))


_Doubt = tuple[str | None, str]
"""The dialect that it holds for (None: all of them), and what would happen."""


def _command_doubts(spec: JobSpec) -> Iterator[_Doubt]:
    if spec.run_command is None:
        return
    odd = sorted(set(_NO_SHELL.findall(spec.run_command)))
    if odd:
        signs = " ".join(odd)
        yield None, f"run_command: no shell reads it, so {signs} reach the program as they are; put them in a script"
    if spec.job_type is JobType.MPI:
        yield None, "run_command: for an MPI job it replaces the launcher's command only, not the workers'"


def _run_doubts(spec: JobSpec) -> Iterator[_Doubt]:
    if spec.gpu_number > 8 and spec.gpu_number % 8:
        down = f"{spec.gpu_number} is rounded down to {spec.gpu_number // 8 * 8}"
        yield None, f"gpu_number: from 8 on whole machines of 8 are used, so {down}"
    if spec.stop_type is StopType.TIME_LIMIT:
        after = f"{spec.stop_time} minutes, image pull included,"
        yield None, f"stop_time: a job still running after {after} is ended and counts as succeeded"
    elif spec.stop_time is not None:
        yield None, "stop_time: has no effect without stop_type=StopType.TIME_LIMIT"
    if spec.env and spec.job_type is not JobType.GENERAL:
        yield OLDER, f"env: reaches only GeneralJob jobs; a {spec.job_type.value} job does not see it"


def _newer_doubts(spec: JobSpec) -> Iterator[_Doubt]:
    if spec.env:
        yield NEWER, "env: the servers of the dialect 2024-04 ignore it, whatever the job type"
    if spec.callback_url is not None:
        yield NEWER, "callback_url: the servers of the dialect 2024-04 no longer call it"
    for name in ("pretrained_model_name", "dataset_name"):
        if getattr(spec, name) is not None:
            yield NEWER, f"{name}: the servers of the dialect 2024-04 mount by id only; by its name nothing is mounted"
    if spec.gpu_number >= 8:
        yield NEWER, "gpu_number: from 8 on the servers of the dialect 2024-04 start workers without any GPU"
