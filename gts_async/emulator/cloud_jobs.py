"""The rows that the SXWL servers keep of jobs and uploaded files, what their status numbers mean, and how ids are made.

Who moves a job on is `cloud_agent`; how rows are shown is in `cloud_java`, `cloud_go` and `cloud_head`.
"""

import hashlib
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from enum import IntEnum

import attrs

from gts_async.emulator.backends import JobOrder
from gts_async.emulator.cloud_answers import Refusal

NEEDS_SENDING, IS_SENT = 0, 1
"""``obtain_status``: whether the cluster still gets the job with every fetch."""

CLUSTER = "cpod-1"


class OldStatus(IntEnum):
    """``work_status`` up to 2024-04 (`Constants.java`, `sys_cpod_main_model.go`); nothing tells queued from running."""

    RUNNING = 0
    FAILED = 1
    TRAINED = 2
    UPLOADED = 3


class HeadStatus(IntEnum):
    """``work_status`` since 2024-04, and of inference services; the names are the words (`model/consts.go`)."""

    NOTASSIGNED = 0
    ASSIGNED = 1
    DATAPREPARING = 2
    PENDING = 3
    PAUSED = 4
    PAUSING = 5
    RUNNING = 6
    FAILED = 7
    SUCCEEDED = 8
    STOPPED = 9

    @property
    def word(self) -> str:
        """The status as it is spelled on the wire."""
        return self.name.lower()


@attrs.frozen
class User:
    """An account: its number until 2024, and the name that HEAD knows it by."""

    number: int
    name: str

    @classmethod
    def of(cls, number: int) -> "User":
        """Give the account with that number."""
        return cls(number, f"user-{uuid.UUID(int=number)}")


@attrs.define(eq=False, kw_only=True)
class JobRow:
    """One row of `sys_user_job`.

    `order` is what the agent makes of the row, None if it makes nothing of it. `was_started` tells that the cluster
    has got the job, `is_over` that it has no more to report of it.
    """

    number: int
    name: str
    user: User
    created: float
    updated: float
    columns: Mapping[str, str | int]
    json_all: str
    order: JobOrder | None
    mounts_data: bool = False
    work_status: int = 0
    obtain_status: int = NEEDS_SENDING
    is_deleted: bool = False
    cpod_id: str | None = None
    was_started: bool = False
    is_over: bool = False

    def text(self, column: str) -> str:
        """Give a column as text, empty if it is null."""
        return str(self.columns.get(column, ""))

    @property
    def is_sent(self) -> bool:
        """Whether the cluster is to have the job."""
        return self.obtain_status == NEEDS_SENDING and not self.is_deleted

    @property
    def is_moving(self) -> bool:
        """Whether the job is in the cluster and may still change there."""
        return self.was_started and not self.is_over


@attrs.frozen
class FileRow:
    """One row of `sys_fileurl`, which can be read from `visible_from` on."""

    job_name: str
    url: str
    visible_from: float


_WIDTHS = {
    "gpuType": ("gpu_type", 60), "ckptPath": ("ckpt_path", 255), "ckptVol": ("ckpt_vol", 60),
    "modelPath": ("model_path", 255), "modelVol": ("model_vol", 60), "imagePath": ("image_path", 255),
    "hfUrl": ("hf_url", 255), "datasetPath": ("dataset_path", 255), "jobType": ("job_type", 60),
    "cpodId": ("cpod_id", 60), "pretrainedModelName": ("pretrained_model_name", 255),
    "callbackUrl": ("callback_url", 255), "pretrainedModelPath": ("pretrained_model_path", 255),
    "datasetName": ("dataset_name", 255), "runCommand": ("run_command", 65_535),
}  # fmt: skip
"""Columns of `sys_user_job` and how long they may be (`init.sql`)."""


def check_widths(columns: Mapping[str, str | int]) -> None:
    """Raise Refusal with MySQL's words if a value is too long for its column."""
    for key, (column, width) in _WIDTHS.items():
        if len(str(columns.get(key, ""))) > width:
            raise Refusal(f"Error 1406 (22001): Data too long for column '{column}' at row 1")


class JobTable:
    """All jobs and file rows of the cloud, and the ids it gives out: unguessable from outside if `secret` is."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._rows: list[JobRow] = []
        self._named: dict[object, JobRow] = {}
        self._files: list[FileRow] = []
        self._given = 0

    def __iter__(self) -> Iterator[JobRow]:
        return iter(self._rows)

    def new_id(self, prefix: str, now: float) -> str:
        """Give `prefix` and a UUID that this cloud has not given before."""
        self._given += 1
        seed = hashlib.sha256(self._secret + f"|{now!r}|{self._given}".encode()).digest()
        return f"{prefix}{uuid.UUID(bytes=seed[:16], version=4)}"

    def insert(
        self,
        name: str,
        user: User,
        now: float,
        *,
        columns: Mapping[str, str | int],
        json_all: str,
        order: JobOrder | None,
        mounts_data: bool = False,
        cpod_id: str | None = None,
    ) -> JobRow:
        """Add a row with the next number, and give it. Raises Refusal if a value is too long."""
        check_widths(columns)
        row = JobRow(
            number=len(self._rows) + 1,
            name=name,
            user=user,
            created=now,
            updated=now,
            columns=columns,
            json_all=json_all,
            order=order,
            mounts_data=mounts_data,
            cpod_id=cpod_id,
        )
        self._rows.append(row)
        self._named[name] = row
        return row

    def newest(self, where: Callable[[JobRow], bool]) -> JobRow | None:
        """Give the newest row for which `where` holds."""
        return next((row for row in reversed(self._rows) if where(row)), None)

    def named(self, name: object, *, with_deleted: bool = False) -> JobRow | None:
        """Give the job of that id."""
        row = self._named.get(name)
        return row if row is not None and (with_deleted or not row.is_deleted) else None

    def of_user(self, user: User, *, with_deleted: bool = False) -> list[JobRow]:
        """Give the user's jobs, newest first."""
        rows: Iterable[JobRow] = reversed(self._rows)
        return [row for row in rows if row.user == user and (with_deleted or not row.is_deleted)]

    def delete(self, name: object, now: float) -> None:
        """Mark the job of that id as deleted; whose it is, and whether there is one, nobody looks at."""
        row = self._named.get(name)
        if row is not None:
            row.is_deleted = True
            row.updated = now

    def delete_numbered(self, numbers: Collection[int], now: float) -> None:
        """Mark the jobs of those numbers as deleted; whose they are, nobody looks at here either."""
        for row in self._rows:
            if row.number in numbers:
                row.is_deleted = True
                row.updated = now

    def add_file(self, row: FileRow) -> None:
        """Insert a file row."""
        self._files.append(row)

    def files(self, name: str | None, now: float) -> list[tuple[int, FileRow]]:
        """Give the job's file rows that can be read by `now`, numbered, newest first; all jobs' if `name` is None."""
        rows = reversed(list(enumerate(self._files, 1)))
        wanted = ((number, row) for number, row in rows if name is None or row.job_name == name)
        return [(number, row) for number, row in wanted if row.visible_from <= now]

    def url(self, name: str | None, now: float) -> str | None:
        """Give the newest URL of the job that can be read by `now`; of any job if `name` is None."""
        return next((row.url for _, row in self.files(name, now)), None)
