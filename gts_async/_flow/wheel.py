"""Wheel: a timer wheel: what is due when, for tens of thousands of entries that are put off again and again. Pure.

Which of them may be looked at then is for `hub`.
"""

import heapq
from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

GRAIN = 0.05
"""Seconds between two buckets of a coarse wheel."""

NEVER = float("inf")


class Bucket(list[Any]):
    """Entries that were due at `due` when they were put there; still are those whose `bucket` it is.

    Once it `has_come`, its time is over.
    """

    __slots__ = ("due", "has_come")

    def __init__(self, due: float) -> None:
        super().__init__()
        self.due = due
        self.has_come = False


class Timed(Protocol):
    """Something that is due with its `bucket`; None if it is not."""

    bucket: Bucket | None


E = TypeVar("E", bound=Timed)


class Wheel(Generic[E]):
    """Entries in buckets by when they are due: to the instant, or, if `is_coarse`, up to a `GRAIN` late.

    Nothing is ever taken out of a bucket: an entry that was put off or called off (it has another `bucket`, or none) is
    to be passed over when the bucket has come. So putting one in costs an append, calling it off an assignment. An
    entry refers to its bucket, not to a time of its own: each of tens of thousands of times would have to be fetched
    from memory when it comes up.
    """

    def __init__(self) -> None:
        self.is_coarse = False
        self._buckets: dict[float, Bucket] = {}
        self._order: list[float] = []

    def put(self, entry: E, due: float) -> None:
        """Make `entry` due at `due`, and at no other time."""
        if self.is_coarse:
            due = (due // GRAIN + 1.0) * GRAIN
        bucket = self._buckets.get(due)
        if bucket is None:
            bucket = self._buckets[due] = Bucket(due)
            heapq.heappush(self._order, due)
        bucket.append(entry)
        entry.bucket = bucket

    def take(self, now: float) -> Iterator[Bucket]:
        """Give the buckets that are due by `now`, and take them out."""
        while self._order and self._order[0] <= now:
            bucket = self._buckets.pop(heapq.heappop(self._order))
            bucket.has_come = True
            yield bucket

    def soonest(self) -> float:
        """Give when the next entry is due; NEVER if none is."""
        while self._order:
            due = self._order[0]
            bucket = self._buckets[due]
            if any(entry.bucket is bucket for entry in bucket):
                return due
            del self._buckets[heapq.heappop(self._order)]
        return NEVER
