"""Words: progress as people read it: sizes, counts and times, short; and how fast it goes."""

import time

from gts_async._errors import plain
from gts_async._progress import Progress

MAX_NAME = 80
"""Characters of a name that are shown."""

SOON = 0.5
"""Seconds of a call after which its speed means something."""


class Course:
    """What one call has told: the newest, and since when it goes on from where it began."""

    def __init__(self, progress: Progress) -> None:
        self.newest = progress
        self._first = progress
        self._began = self._told_at = time.monotonic()

    def take(self, progress: Progress) -> None:
        """Take what it tells now; if less is done than before, it has begun anew."""
        self._told_at = time.monotonic()
        if progress.done < self.newest.done:
            self._first, self._began = progress, self._told_at
        self.newest = progress

    @property
    def name(self) -> str:
        """What is worked on, in one line that is safe for a terminal."""
        return plain(self.newest.what, MAX_NAME).replace("\n", " ")

    @property
    def amount(self) -> str:
        """How much is done, of how much if that is known; of seconds, as many as have passed by now."""
        progress, done = self.newest, self.newest.done
        if progress.unit == "seconds" and not progress.is_acknowledged:
            done += time.monotonic() - self._told_at
        if progress.total is None or (progress.unit == "seconds" and progress.is_acknowledged):
            return _measure(progress, done)
        whole = _measure(progress, progress.total)
        if progress.unit == "seconds":
            return f"{_duration(done)} of about {whole}"
        return f"{_size(done)} of {whole}" if progress.unit == "bytes" else f"{done:,.0f} of {whole}"

    @property
    def speed(self) -> str:
        """How much is done in a second, and how long it may still take; empty while nobody can tell.

        What has gone through but not come to its end is being answered, verified or written.
        """
        progress, passed = self.newest, self._told_at - self._began
        if progress.unit == "bytes" and not progress.is_acknowledged and progress.done == progress.total:
            return "finishing"
        done = progress.done - self._first.done
        if progress.unit == "seconds" or passed < SOON or done <= 0:
            return ""
        per_second = f"{_measure(progress, done / passed)}/s"
        if progress.total is None or progress.done >= progress.total:
            return per_second
        return f"{per_second}, {_duration((progress.total - progress.done) * passed / done)} left"

    def __str__(self) -> str:
        """Give one line for where nothing can be drawn."""
        return f"{self.name}: {self.amount}" + (", done" if self._is_told_done else "")

    @property
    def _is_told_done(self) -> bool:
        # What became of watched work is part of its name.
        return self.newest.is_acknowledged and self.newest.unit != "seconds"


def _measure(progress: Progress, number: float) -> str:
    if progress.unit == "bytes":
        return _size(number)
    return _duration(number) if progress.unit == "seconds" else _count(number, progress.unit)


def _count(number: float, unit: str) -> str:
    """Give a number of things, whose name is a plural."""
    shown = f"{number:,.0f}"
    return f"{shown} {unit.removesuffix('s') if shown == '1' else unit}"


def _size(count: float) -> str:
    """Give a number of bytes in the largest unit that leaves at least 1."""
    if count < 999.5:
        return _count(count, "bytes")
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.2f} GB"


def _duration(seconds: float) -> str:
    """Give seconds as s, m:ss or h:mm:ss."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
