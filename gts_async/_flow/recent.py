"""Recent: how long the newest requests to one server took, and how long one of another size may take. Pure."""

import statistics
from collections import deque

ENOUGH = 8
"""Answers from which something can be told."""


class Recent:
    """The newest `size` latencies with what they were about."""

    def __init__(self, size: int = 64) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=size)
        self._shares: deque[float] = deque(maxlen=size)
        self.typical: float | None = None
        """Seconds in which one more request is answered, the median; None before there are enough."""

    def add(self, rows: int, seconds: float, at_once: int = 1) -> None:
        """Note a request of so many rows that took so long, with so many in flight, itself included."""
        self._seen.append((rows, seconds))
        # A server that answers four in the time of four is as fast as one that answers one in the time of one.
        self._shares.append(seconds / at_once)
        if len(self._shares) >= ENOUGH:
            self.typical = statistics.median_low(self._shares)

    def quantile(self, share: float, rows: int) -> float | None:
        """Give the seconds within which this share of such requests is answered; None before there are enough.

        What was answered about fewer rows is scaled up: no request takes longer for each row than a smaller one.
        """
        if len(self._seen) < ENOUGH:
            return None
        scaled = sorted(seconds * max(1.0, rows / about) for about, seconds in self._seen)
        return scaled[min(len(scaled) - 1, int(share * len(scaled)))]

    def clear(self) -> None:
        """Forget everything."""
        self._seen.clear()
        self._shares.clear()
        self.typical = None
