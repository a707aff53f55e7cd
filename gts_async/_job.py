"""Job: an SXWL cloud job by its id: look at it, stop it, wait for it, fetch its model."""

import os
from collections.abc import Generator, Hashable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import anyio
import anyio.to_thread
import attrs
import msgspec

from gts_async._cloud import Cloud
from gts_async._errors import (
    FileError,
    NotFound,
    NotSupported,
    WrongState,
)
from gts_async._files.archive import unpack
from gts_async._files.download import download, forget
from gts_async._files.part import check_folder
from gts_async._files.place import local_path
from gts_async._flow.course import Course
from gts_async._flow.exits import OnExit, settled
from gts_async._flow.transition import Transition
from gts_async._flow.watch import Watch
from gts_async._net.secret import signed
from gts_async._progress import OnProgress, told
from gts_async.sxwl import calls
from gts_async.sxwl.checks import check_id
from gts_async.sxwl.progress import SETTLED, JobProgress
from gts_async.sxwl.values import JobInfo, JobStatus

PACKED = "data.zip"
"""The name of the one object that the cloud makes of a model folder (`modeluploadjob.go`)."""

MAX_PACKED_NAME = 240
"""Bytes in the name of a zip that is to be unpacked; its unfinished file and the note of that have longer ones."""


@attrs.frozen
class Job:
    """A job of the SXWL cloud: an id, and a session to ask. ``info = await job`` waits for the end.

    `is_known` says that the cloud itself gave us the id, so that an unknown job has vanished rather than never been.
    """

    id: str
    is_known: bool = attrs.field(default=False, repr=False, eq=False)
    _cloud: Cloud = attrs.field(kw_only=True, repr=False, eq=False, alias="cloud")
    _kind: Hashable = attrs.field(default=None, kw_only=True, repr=False, eq=False, alias="kind")
    _since: float | None = attrs.field(default=None, kw_only=True, repr=False, eq=False, alias="since")

    @cached_property
    def _course(self) -> Course[JobInfo]:
        """What this handle has seen; all its watches share it. `_kind` and `_since` are as `Course` has them."""
        dialect = self._cloud.dialect
        progress = JobProgress(is_known=self.is_known, has_urls=dialect.has_urls, fails_may_turn=dialect.fails_may_turn)
        return self._cloud.course(self.id, progress, kind=self._kind, since=self._since)

    @property
    def history(self) -> tuple[Transition[JobInfo], ...]:
        """Every change that watches and waits of this handle have seen."""
        return self._course.history

    @property
    def durations(self) -> dict[JobStatus, float]:
        """Seconds in each status that watches of this handle have seen; the present one's are until now."""
        return cast("dict[JobStatus, float]", self._course.durations)

    @property
    def eta(self) -> float | None:
        """Seconds until a good end, as jobs of the same image and GPUs took in this session; None if none has ended."""
        return self._course.eta

    async def status(self, *, timeout: float | None = None) -> JobInfo:
        """Give what the job is doing now; STOPPED, without asking, after our own stop. Raises NotFound."""
        if self.id in self._cloud.stopped:
            return JobInfo(JobStatus.STOPPED, observed_at=self._cloud.clock.wall())
        return await self._cloud.exchange.send(calls.job_status(self._cloud.dialect, self.id), timeout=timeout)

    async def stop(self, *, timeout: float | None = None) -> None:
        """Stop the job: no model will come of it.

        The job is looked at first, because the servers say yes to everything and would hide or overwrite the ending of
        one that is over (`job_stop_logic.go`, `gpu_job_stop_logic.go`). Raises WrongState for such, and NotFound.
        """
        if self.id in self._cloud.stopped:
            return
        look = await self.status(timeout=timeout)
        if look.status is JobStatus.STOPPED:
            return
        if look.status in SETTLED:
            raise WrongState(f"{self.id}: the job has {look.status.value} already", call="stop_job")
        with suppress(NotFound):
            # Gone since the look: perhaps by this very stop, when the answer to its first try was lost.
            await self._cloud.exchange.send(calls.stop_job(self._cloud.dialect, self.id), timeout=timeout)
        self._cloud.stopped.add(self.id)
        self._cloud.hub.ring(self.id)

    def watch(
        self,
        *,
        deadline: float | None = None,
        stalled_after: float | None = None,
        progress: OnProgress | None = None,
    ) -> Watch[JobInfo]:
        """Give the job's transitions until it is settled.

        "working" covers everything from a full queue to a crash loop and has no bound on the servers' side: set a
        `deadline` or `stalled_after` (seconds). `progress` is told of each look, see `Watch`. Raises NotFound for a job
        that never was, WorkLost for one that vanished, WorkStalled, DeadlineExceeded, Unauthorized; the job goes on
        whatever happens to the watch.
        """
        return self._cloud.watch(self, self._course, deadline=deadline, stalled_after=stalled_after, progress=progress)

    async def wait(
        self,
        *,
        deadline: float | None = None,
        stalled_after: float | None = None,
        on_exit: OnExit = "detach",
        progress: OnProgress | None = None,
    ) -> JobInfo:
        """Give the final look, or raise WorkFailed, WorkStopped and what `watch` raises.

        `on_exit="stop"` stops the job if the wait ends before it, by a deadline or by cancellation.
        """
        watch = self.watch(deadline=deadline, stalled_after=stalled_after, progress=progress)
        return await settled(watch, self.stop, on_exit)

    def __await__(self) -> Generator[Any, None, JobInfo]:
        return self.wait().__await__()

    async def download(
        self,
        directory: str | os.PathLike[str],
        *,
        progress: OnProgress | None = None,
        extract: bool = True,
    ) -> list[Path]:
        """Fetch the model into `directory` (made if need be) and give the files that are there now.

        The cloud packs the whole model folder into one zip file; with `extract` its files are put into the directory
        and the zip is dropped, else the zip itself is kept. A new directory appears whole, or not at all; into one that
        exists the files are moved one by one. A download that was cut or killed goes on where it was at the next call,
        and one that could not be unpacked, as on a full disk, need not be fetched again. `progress` is told of the
        bytes fetched, then of those unpacked.

        Raises WrongState if there is no model to fetch (yet), NotSupported where the dialect hands out no URL,
        FileError and its kinds, and TransportError.
        """
        progress = told(progress)
        target = local_path("directory", directory)
        await anyio.to_thread.run_sync(check_folder, target)
        link = signed(await self._url())
        try:
            packed = await self._packed(target) if extract else target / PACKED
            await anyio.Path(packed.parent).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"{target}: cannot be made ({error.strerror})", path=str(target)) from error
        await download(
            await self._cloud.store(),
            link.reveal(),
            packed,
            fresh_url=self._url,
            progress=progress,
            sleep=self._cloud.clock.sleep,
            fence=self._cloud.fence,
            keeps_note=extract,
        )
        if not extract:
            return [packed]
        try:
            paths = await unpack(packed, target, progress=progress)
        except FileError as error:
            if error.path == str(packed):
                # It would be no better the next time.
                await forget(packed)
            raise
        await forget(packed)
        return paths

    async def _packed(self, directory: Path) -> Path:
        """Give where the zip lies until it is unpacked: beside a directory that is to appear whole, else within it.

        Of a directory with a very long name it lies within: there is no room for more in one beside it.
        """
        within = directory / f".{self.id}.zip"
        if not directory.name:
            return within
        beside = directory.with_name(f".{directory.name}.{self.id}.zip")
        if len(os.fsencode(beside.name)) > MAX_PACKED_NAME:
            return within
        begun = (beside, Path(f"{beside}.part"), Path(f"{beside}.part.json"))
        if not await anyio.Path(directory).exists() or any([await anyio.Path(path).exists() for path in begun]):
            return beside
        return within

    async def _url(self) -> str:
        if not self._cloud.dialect.has_urls:
            raise NotSupported(
                f'{self.id}: the servers of the dialect "{self._cloud.dialect.name}" hand out no model URL'
            )
        look = await self.status()
        if look.status is not JobStatus.SUCCEEDED or look.url is None:
            state = look.status.value if look.status is not JobStatus.SUCCEEDED else "succeeded, but no file is stored"
            raise WrongState(f"{self.id}: there is no model to fetch: the job is {state}", call="download")
        return look.url

    def token(self) -> str:
        """Give JSON without secrets from which ``session.resume`` makes this job again, in any process."""
        return msgspec.json.encode(JobToken(kind="job", job_id=self.id, is_known=self.is_known)).decode()


@attrs.frozen(kw_only=True)
class JobToken:
    """A Job as it is written down."""

    kind: Literal["job"]
    job_id: str
    is_known: bool = True

    def job(self, cloud: Cloud) -> Job:
        """Give the job that the token was made of."""
        check_id("job_id", self.job_id)
        return Job(self.job_id, is_known=self.is_known, cloud=cloud)
