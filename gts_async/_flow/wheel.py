"""Wheel: a timer wheel: what is due when, for tens of thousands of entries that are put off again and again. Pure.

Which of them may be looked at then is for `hub`.
"""

import heapq
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

GRAIN = 0.05
"""Seconds of one bucket."""

CROWD = 16
"""Entries of one bucket from which on it does not matter which of them comes first."""

NEVER = float("inf")


class Timed(Protocol):
    """Something that is due at `due`; `NEVER` if it is not."""

    due: float


E = TypeVar("E", bound=Timed)


class Wheel(Generic[E]):
    """Entries in buckets by when they are due.

    Nothing is ever taken out of a bucket before its time: an entry that was put off or called off (its `due` has
    changed) is passed over when the bucket comes up. So putting one in costs an append, calling it off an assignment.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, list[E]] = {}
        self._order: list[int] = []

    def put(self, entry: E, due: float) -> None:
        """Make `entry` due at `due`, and at no other time."""
        entry.due = due
        number = int(due / GRAIN)
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = [entry]
            heapq.heappush(self._order, number)
        else:
            bucket.append(entry)

    def take(self, now: float) -> list[E]:
        """Give the entries that are due by `now`; they are due no more."""
        taken: list[E] = []
        number = int(now / GRAIN)
        while self._order and self._order[0] <= number:
            first = self._order[0]
            bucket = self._buckets[first]
            later: list[E] = []
            for entry in bucket:
                if entry.due <= now:
                    entry.due = NEVER
                    taken.append(entry)
                elif entry.due != NEVER and int(entry.due / GRAIN) == first:
                    later.append(entry)
            if later:
                # In the bucket of this very moment; there is no other like it.
                self._buckets[first] = later
                break
            del self._buckets[first]
            heapq.heappop(self._order)
        return taken

    def soonest(self) -> E | None:
        """Give the entry that is due next, or in a crowd one that is due within the same `GRAIN`; None if none is."""
        while self._order:
            first = self._order[0]
            bucket = self._buckets[first]
            live = (entry for entry in bucket if entry.due != NEVER and int(entry.due / GRAIN) == first)
            soonest = next(live, None) if len(bucket) > CROWD else min(live, key=attrgetter("due"), default=None)
            if soonest is not None:
                return soonest
            del self._buckets[first]
            heapq.heappop(self._order)
        return None
