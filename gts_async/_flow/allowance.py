"""Allowance: how many requests one server gets at once, found out by its answers. Pure: seconds are passed in.

One more for each full window of good answers, half after a failure (AIMD): so it settles near what the server can do.
"""

import attrs

FIRST, MOST = 2, 16

QUEUED = 4.0
"""Times the best latency, above which requests only wait for each other at the server."""


@attrs.frozen
class Sent:
    """What held when a request was sent: how many were in flight, itself included, if that was all, which halving."""

    at_once: int
    is_full: bool
    halvings: int


class Allowance:
    """Begins with `FIRST` at once, goes up to `most` and down to 1.

    Grown by answers to requests that were sent when the window was full; halved by failures, and when a whole window of
    answers took more than `QUEUED` times the best seen for requests of about that many rows. Requests sent before a
    halving do not halve again. What a request takes alone is the best, whatever was seen before.
    """

    def __init__(self, most: int = MOST) -> None:
        self.size = min(FIRST, most)
        self.in_flight = 0
        self._most = most
        self._halvings = self._good = self._late = 0
        self._best: dict[int, float] = {}

    @property
    def load(self) -> float:
        """The share of the window that is in flight."""
        return self.in_flight / self.size

    def send(self) -> Sent:
        """Count a request that is sent now; `leave` once it is over, however it ended."""
        self.in_flight += 1
        return Sent(self.in_flight, self.in_flight >= self.size, self._halvings)

    def leave(self) -> None:
        """Count a request less in flight."""
        self.in_flight -= 1

    def answered(self, sent: Sent, rows: int, seconds: float) -> None:
        """Note a good answer to so many rows."""
        # Rows between two powers of two take about as long; of others nothing is known.
        about = rows.bit_length()
        best = self._best.get(about, seconds)
        self._best[about] = seconds if sent.at_once == 1 else min(best, seconds)
        if seconds > QUEUED * best and sent.at_once > 1:
            self._late += 1
            if self._late >= self.size:
                self.failed(sent)
            return
        self._late = 0
        if sent.is_full and sent.halvings == self._halvings:
            self._good += 1
        if self._good >= self.size:
            self._good = 0
            self.size = min(self.size + 1, self._most)

    def failed(self, sent: Sent) -> None:
        """Note that a request was refused, not answered in time, or cut."""
        if sent.halvings == self._halvings:
            self._halve()

    def begin_anew(self) -> None:
        """Go down to one at a time, for a server that comes back; what one takes alone is the best then."""
        self._halve()
        self.size = 1

    def _halve(self) -> None:
        self.size = max(1, self.size // 2)
        self._halvings += 1
        self._good = self._late = 0
