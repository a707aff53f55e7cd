"""LookBudget: how many looks all watches of a session may make together. Pure: times are passed in."""

FINEST = 0.01
"""Seconds between two looks below which they begin in groups, so many seconds apart: waking up for each costs more."""


class LookBudget:
    """At most `per_second` looks, evenly spaced; a quiet second is not saved up."""

    def __init__(self, per_second: float) -> None:
        self._spacing = 1.0 / per_second
        self._group = FINEST if self._spacing < FINEST else 0.0
        self._next = float("-inf")

    def delay(self, now: float) -> float:
        """Give the seconds until a look may begin; 0 if one may at once."""
        wait = self._next - now
        return wait if wait > self._group else 0.0

    def room(self, now: float) -> int:
        """Give how many looks may begin now."""
        if self.delay(now) > 0:
            return 0
        return 1 + int((self._group - max(0.0, self._next - now)) / self._spacing)

    def take(self, now: float, looks: int = 1) -> None:
        """Count looks that begin now."""
        self._next = max(now, self._next) + looks * self._spacing

    def give_back(self) -> None:
        """Count one look less: it did not begin."""
        self._next -= self._spacing
