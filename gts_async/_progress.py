"""Progress: how far a piece of work has come, one small value for transfers, watches and many things at once.

How it is shown is in ``progress/``.
"""

import inspect
from collections.abc import Callable, Sized
from itertools import count
from typing import Literal, Protocol

import attrs

from gts_async._errors import WrongType

Unit = Literal["bytes", "samples", "jobs", "seconds"]

INTERVAL = 0.05
"""Seconds between two calls at least, where things are counted that may come by the thousand in a second."""

_numbers = count(1)


@attrs.frozen
class Progress:
    """How far a piece of work has come: an upload, a download, a watch, a prediction, a batch.

    `what` is the name of what is being worked on: a file (of an upload of several the one that is being sent, at the
    end "3 files"), a task, a job with its status. `done` and `total` are in `unit`: bytes of the whole transfer (the
    form's body for an upload, the object for a download, the unpacked files for an archive), samples or jobs that have
    an outcome, seconds so far and in all. `total` is None while nobody has said. When a try of a transfer fails and the
    next one begins anew, `done` falls back. `number` is the same in all that one call tells, and another for every
    call, so that one callable can tell several calls apart.

    What was sent has merely left this machine. Only `is_acknowledged` says that all has come to its end: an upload was
    answered, a download was verified and stands under its own name, an archive is unpacked, every sample or job has its
    outcome (which may be an error), watched work is settled. Work that did not end well has no `total` then.
    """

    what: str
    done: float
    total: float | None = None
    is_acknowledged: bool = False
    unit: Unit = attrs.field(default="bytes", kw_only=True)
    number: int = attrs.field(default=0, kw_only=True, eq=False, repr=False)

    @property
    def fraction(self) -> float | None:
        """What part of the whole is done, 0 to 1; None while the whole is unknown."""
        if self.total is None:
            return None
        return min(1.0, self.done / self.total) if self.total else 1.0

    def __str__(self) -> str:
        if self.is_acknowledged and self.unit == "seconds":
            return f"{self.what}: {self.done:,.0f} {self.unit}"
        whole = "?" if self.total is None else f"{self.total:,.0f}"
        return f"{self.what}: {self.done:,.0f} of {whole} {self.unit}" + (", done" if self.is_acknowledged else "")


class OnProgress(Protocol):
    """What is told of progress: any callable of one argument.

    It is called on the event loop, a few times per transferred megabyte, once per look or 20 times a second at most, so
    it must return at once. What it raises ends the transfer, the stream or the wait, never the work that is watched.
    """

    def __call__(self, progress: Progress, /) -> object:
        """Take note."""
        ...


def told(progress: OnProgress | None) -> OnProgress | None:
    """Give what one call tells of its progress: `progress`, which is told the call's own number as well.

    Raises WrongType if it cannot be called, or only awaited.
    """
    if progress is None:
        return None
    if not callable(progress):
        raise WrongType("progress", f"must be a callable, not {type(progress).__name__}", "it is given a Progress")
    if inspect.iscoroutinefunction(progress) or inspect.iscoroutinefunction(type(progress).__call__):
        raise WrongType("progress", "must not be async: nobody would await it", "give a plain function")
    return _Numbered(progress, next(_numbers))


@attrs.frozen
class _Numbered:
    progress: OnProgress
    number: int

    def __call__(self, progress: Progress, /) -> None:
        self.progress(attrs.evolve(progress, number=self.number))


class Tally:
    """Counts things that are done, and tells of it every `INTERVAL` at most; the end is told always."""

    def __init__(
        self, progress: OnProgress, what: str, unit: Unit, total: int | None, now: Callable[[], float]
    ) -> None:
        self._progress = progress
        self._what = what
        self._unit: Unit = unit
        self._total = total
        self._now = now
        self._done = 0
        self._told_at = float("-inf")
        self._is_over = False

    def begin(self) -> None:
        """Tell that nothing is done yet."""
        self._tell(self._now())

    def add(self) -> None:
        """Count one more."""
        self._done += 1
        now = self._now()
        if now - self._told_at >= INTERVAL:
            self._tell(now)

    def end(self) -> None:
        """Tell that these were all."""
        if not self._is_over:
            self._is_over, self._total = True, self._done
            self._tell(self._now())

    def _tell(self, now: float) -> None:
        self._told_at = now
        if self._total is not None and self._done > self._total:
            # The length was that of something else.
            self._total = None
        self._progress(Progress(self._what, self._done, self._total, self._is_over, unit=self._unit))


def tally(progress: OnProgress | None, what: str, unit: Unit, items: object, now: Callable[[], float]) -> Tally | None:
    """Give a tally of `items`, whose number is the total if they know it; None if nobody is to be told.

    Raises what `told` raises.
    """
    progress = told(progress)
    return None if progress is None else Tally(progress, what, unit, _length(items), now)


def _length(items: object) -> int | None:
    if not isinstance(items, Sized):
        return None
    try:
        return len(items)
    except Exception:
        # Some data sets have a length by their looks only, and say so when asked.
        return None
