"""When a cloud job counts as finished: the rules that turn a series of looks at a job into its life.

Pure: looks and times are passed in.
"""

import attrs

from gts_async._errors import NotFound, WorkLost
from gts_async.sxwl.values import JobInfo, JobStatus

URL_GRACE = 30.0
"""Seconds that a success may stay without its URL: the oldest servers store the file's row a moment later."""

FAIL_GRACE = 30.0
"""Seconds that a fail must last: agents report every 10 s and take back a failed creation, which then goes on."""

LOST_GRACE = 30.0
"""Seconds that a job that was there may be unknown before it counts as lost."""

SETTLED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED})

HEADWAY = (
    JobStatus.UNASSIGNED,
    JobStatus.ASSIGNED,
    JobStatus.PREPARING,
    JobStatus.PENDING,
    JobStatus.RUNNING,
)
"""The stages of the newer dialect in their order; pausing and paused come and go."""


@attrs.frozen
class _Held:
    """A look that is not believed yet, and since when it has been seen."""

    look: JobInfo
    since: float


class JobProgress:
    """The life of one job.

    `is_known`: the cloud has given us this id itself, so that an unknown job has vanished rather than never been.
    `has_urls`: a success brings a URL sooner or later. `fails_may_turn`: a fail may still become a success.
    """

    __slots__ = (
        "_fails_may_turn",
        "_has_urls",
        "_held",
        "_is_known",
        "_unknown_since",
        "calm",
        "final",
        "is_ours",
    )

    def __init__(self, *, is_known: bool, has_urls: bool, fails_may_turn: bool) -> None:
        self.final: JobInfo | None = None
        self.calm: JobStatus | None = None
        self.is_ours = self._is_known = is_known
        self._has_urls = has_urls
        self._fails_may_turn = fails_may_turn
        self._held: _Held | None = None
        self._unknown_since: float | None = None

    def see(self, sighting: JobInfo | Exception, now: float) -> tuple[JobInfo, ...]:
        """Give the looks to believe; raises NotFound (never been there) or WorkLost (gone)."""
        self.calm = None
        if isinstance(sighting, NotFound):
            return self._see_nothing(sighting, now)
        if isinstance(sighting, Exception):
            return ()
        self._is_known, self._unknown_since = True, None
        turned: tuple[JobInfo, ...] = ()
        if self._held is not None and self._held.look.status is not sighting.status:
            # It was real after all: it has turned into something else.
            turned, self._held = (self._held.look,), None
        if grace := self._grace(sighting):
            self._held = self._held or _Held(sighting, now)
            if now - self._held.since < grace:
                return turned
        self._held = None
        if sighting.status in SETTLED:
            self.final = sighting
        else:
            self.calm = sighting.status
        return (*turned, sighting)

    def between(self, previous: JobStatus, look: JobInfo) -> tuple[JobInfo, ...]:
        """Give the stage passed unseen: to succeed, a job of the newer dialect must have run."""
        is_early = previous in (JobStatus.UNASSIGNED, JobStatus.ASSIGNED, JobStatus.PREPARING, JobStatus.PENDING)
        is_passed = is_early and look.status is JobStatus.SUCCEEDED
        return (JobInfo(JobStatus.RUNNING, observed_at=look.observed_at),) if is_passed else ()

    def is_backward(self, previous: JobStatus, status: JobStatus) -> bool:
        """True if the cluster has put the job back, as when it is queued anew."""
        return previous in HEADWAY and status in HEADWAY and HEADWAY.index(status) < HEADWAY.index(previous)

    def wants_look_within(self, now: float) -> float | None:
        """Ask for nothing more than the schedule gives: the cluster reports every 10 s."""
        return None

    def _grace(self, look: JobInfo) -> float:
        """Give the seconds that this look must last before it is believed."""
        if look.status is JobStatus.FAILED and self._fails_may_turn:
            return FAIL_GRACE
        if look.status is JobStatus.SUCCEEDED and self._has_urls and look.url is None:
            return URL_GRACE
        return 0.0

    def _see_nothing(self, error: NotFound, now: float) -> tuple[JobInfo, ...]:
        if not self._is_known:
            raise error
        if self._unknown_since is None:
            self._unknown_since = now
        elif now - self._unknown_since >= LOST_GRACE:
            raise WorkLost(f"the cloud does not know the job any more: {error}") from error
        return ()
