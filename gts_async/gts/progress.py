"""When a training counts as finished: the rules that turn a series of looks at a task into this run's life.

The engine tells neither run from run nor success from a crash: for 4 to 8 s after a train call it still shows what the
task was before, and a finished bagualu task answers its status with 500 for ever. Pure: looks and times are passed in.
"""

import attrs

from gts_async._errors import NotFound, ServerFailed, WorkLost, WorkStalled
from gts_async.gts.values import EngineType, TaskInfo, TaskStatus

START_GRACE = 120.0
"""Seconds from the train call to the first sign of its process; importing takes 4 to 8 s on a fast host."""

QUICK_LOOK, QUICK_PART = 0.1, 0.02
"""Seconds between two looks while a run must be told from the one before, and what part of the wait so far."""

FAULTS = 3
FAULT_SECONDS = 2.0
FAULT_SPACING = 0.5
"""So many 500s in a row, so many seconds apart, over so many seconds are an answer: a half-written file is whole within
milliseconds."""

LOST_SECONDS = 2.0
"""A task that stays unknown for that long has been deleted."""

AT_REST = frozenset({TaskStatus.SUCCEEDED, TaskStatus.SERVING, None})
"""What a finished task shows in turn while somebody loads and releases its model; None is bagualu's 500."""

SETTLED = frozenset({TaskStatus.SUCCEEDED, TaskStatus.FAILED, TaskStatus.STOPPED, TaskStatus.SERVING})


@attrs.frozen
class Before:
    """What the task showed right before the train call; `status` is None if it answered 500."""

    status: TaskStatus | None
    test_acc: float | None = None


class RunProgress:
    """The life of one training.

    With `before`, nothing that the task may have shown already is believed until the run has been seen to begin: its
    TRAINING was seen, or a status that only this run can have brought. Without (`before=None`: a training that
    somebody else started), every look is believed. `engine_type` None means unknown.
    """

    def __init__(
        self,
        before: Before | None,
        *,
        engine_type: EngineType | None,
        started_at: float,
        start_grace: float = START_GRACE,
        has_begun: bool = False,
    ) -> None:
        self.before = before
        self.final: TaskInfo | None = None
        self.has_begun = has_begun or before is None
        self._engine_type = engine_type
        self.started_at = started_at
        self._start_grace = start_grace
        self._has_been_seen = False
        self._faults = 0
        self._fault_since = self._fault_at = 0.0
        self._unknown_since: float | None = None

    @property
    def calm(self) -> TaskStatus | None:
        """TRAINING, once the run has begun and the engine answers well."""
        is_calm = self.has_begun and self.final is None and self._faults == 0 and self._unknown_since is None
        return TaskStatus.TRAINING if is_calm and self._has_been_seen else None

    def see(self, sighting: TaskInfo | Exception, now: float) -> tuple[TaskInfo, ...]:
        """Give the looks to believe.

        Raises WorkLost (the task was deleted or made anew), WorkStalled (the run never began), and NotFound if the
        first look at somebody else's training finds no task at all.
        """
        if isinstance(sighting, NotFound):
            return self._see_nothing(sighting, now)
        self._has_been_seen, self._unknown_since = True, None
        if isinstance(sighting, ServerFailed) and sighting.status == 500:
            return self._see_fault(now)
        if isinstance(sighting, Exception):
            return ()
        self._faults = 0
        if sighting.status is TaskStatus.TRAINING:
            self.has_begun = True
        elif not self.has_begun and not self._is_news(sighting):
            return self._not_begun(sighting, now)
        return self._believe(sighting)

    def between(self, previous: TaskStatus, look: TaskInfo) -> tuple[TaskInfo, ...]:
        """Give TRAINING if it must have been passed: every ending but a deletion comes after it."""
        is_passed = previous is TaskStatus.INITIALIZED and look.status in SETTLED
        return (TaskInfo(TaskStatus.TRAINING, "On Training", observed_at=look.observed_at),) if is_passed else ()

    def is_backward(self, previous: TaskStatus, status: TaskStatus) -> bool:
        """True if a training that somebody else started is gone: the task is as if it had never been trained."""
        return status is TaskStatus.INITIALIZED and previous is not TaskStatus.INITIALIZED

    def wants_look_within(self, now: float) -> float | None:
        """Ask for quick looks until a run on a used task has begun: its only sure sign may last less than a second."""
        if self.has_begun or self.before is None or self.before.status is TaskStatus.INITIALIZED:
            return None
        return max(QUICK_LOOK, QUICK_PART * (now - self.started_at))

    def _believe(self, look: TaskInfo) -> tuple[TaskInfo, ...]:
        if look.status is TaskStatus.INITIALIZED and self.before is not None:
            raise WorkLost("the task was deleted and created anew: this run is gone")
        if look.status in SETTLED:
            self.has_begun = True
            self.final = look
        return (look,)

    def _is_news(self, look: TaskInfo) -> bool:
        """True if only this run can have brought that status."""
        assert self.before is not None  # noqa: S101 - without a fence the run counts as begun
        before = self.before.status
        if look.status is TaskStatus.INITIALIZED:
            if before is not TaskStatus.INITIALIZED:
                raise WorkLost("the task was deleted and created anew: this run is gone")
            return False
        if before in AT_REST and look.status in AT_REST:
            # Loading and releasing the old model moves a task between these; only a new accuracy proves a new run.
            is_measured = look.status is TaskStatus.SUCCEEDED and before is TaskStatus.SUCCEEDED
            return is_measured and look.test_acc != self.before.test_acc
        return look.status is not before

    def _not_begun(self, look: TaskInfo | None, now: float) -> tuple[TaskInfo, ...]:
        waited = now - self.started_at
        if waited > self._start_grace:
            raise WorkStalled(
                f"the training has not begun {waited:.0f} s after the engine accepted it: its process died early, or "
                "ran unseen to the same end as the run before; the engine's train.log tells"
            )
        message = look.message if look is not None else ""
        return (TaskInfo(TaskStatus.INITIALIZED, message, observed_at=look.observed_at if look is not None else None),)

    def _see_fault(self, now: float) -> tuple[TaskInfo, ...]:
        if self._faults == 0:
            self._fault_since = now
        if self._faults == 0 or now - self._fault_at >= FAULT_SPACING:
            # Several watches of one run may each have met the same one.
            self._faults += 1
            self._fault_at = now
        is_possible = self._engine_type is not EngineType.QIANKUNDING
        is_ours = self.has_begun or (self.before is not None and self.before.status not in AT_REST)
        if not is_ours:
            return self._not_begun(None, now)
        if is_possible and self._faults >= FAULTS and now - self._fault_since >= FAULT_SECONDS:
            return self._believe(TaskInfo(TaskStatus.SUCCEEDED, "Train Success"))
        return ()

    def _see_nothing(self, error: NotFound, now: float) -> tuple[TaskInfo, ...]:
        if self.before is None and not self._has_been_seen:
            raise error
        if self._unknown_since is None:
            self._unknown_since = now
        elif now - self._unknown_since >= LOST_SECONDS:
            raise WorkLost(f"the engine does not know the task any more: {error}") from error
        return ()
