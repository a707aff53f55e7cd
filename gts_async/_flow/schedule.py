"""Schedule: how long to wait between two looks at work that goes on. Pure: chance is passed in.

Tries of one call are another matter: ``_net/retry.py``.
"""

import attrs

from gts_async._errors import InvalidArgument
from gts_async._flow.experience import Duration


@attrs.frozen(kw_only=True)
class Schedule:
    """How often work is looked at.

    The interval is ``min(maximum, max(minimum, fraction · seconds in the current status)) · (1 ± jitter)``: fast after
    a change, and never later than a fixed part of how long the stage has taken anyway. Where it is known how long such
    work usually stays in a status, that counts instead of the time so far while it is longer, but for the first looks
    after a change; and near its usual end the work is looked at more often. `minimum` and `maximum` are in seconds;
    None takes the service's own (`ENGINE_BOUNDS`, `CLOUD_BOUNDS`).
    """

    fraction: float = 0.05
    minimum: float | None = None
    maximum: float | None = None
    jitter: float = 0.1

    def __attrs_post_init__(self) -> None:
        """Refuse a schedule that would never look, or never pause."""
        if not 0 <= self.fraction <= 1:
            raise InvalidArgument("fraction", f"{self.fraction} is out of range", "use 0 to 1")
        if not 0 <= self.jitter < 1:
            raise InvalidArgument("jitter", f"{self.jitter} is out of range", "use 0 up to 1")
        for name in ("minimum", "maximum"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InvalidArgument(name, f"{value} is out of range", "use more than 0 seconds")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise InvalidArgument("minimum", f"{self.minimum} is more than maximum={self.maximum}", "swap them")

    def within(self, bounds: tuple[float, float]) -> "Schedule":
        """Give this schedule with the service's bounds where none were set."""
        low = self.minimum if self.minimum is not None else min(bounds[0], self.maximum or bounds[0])
        high = self.maximum if self.maximum is not None else max(bounds[1], low)
        return attrs.evolve(self, minimum=low, maximum=high)

    def interval(self, in_status: float, chance: float, usual: Duration | None = None) -> float:
        """Give the seconds until the next look, `in_status` seconds after the last change; `chance` is in [0, 1)."""
        low, high = self.minimum or 0.0, self.maximum or float("inf")
        wait = self.fraction * in_status
        if usual is not None and in_status >= SETTLING * low:
            wait = min(max(wait, self.fraction * usual.mean), self._until_end(usual, in_status))
        # Comparisons, not min and max: this runs for every look of tens of thousands of watches.
        wait = low if wait < low else high if wait > high else wait
        return wait * (1.0 + self.jitter * (2.0 * chance - 1.0))

    def _until_end(self, usual: Duration, in_status: float) -> float:
        """Give the longest wait that does not pass over the usual end; near it, looks are part of the spread apart."""
        before = usual.mean - usual.spread - in_status
        if before > 0:
            return max(before, NEAR * usual.spread)
        return NEAR * usual.spread if in_status < usual.mean + usual.spread else float("inf")


SETTLING = 4
"""So many of the shortest intervals after a change, what has gone wrong at once is most likely to show."""

NEAR = 0.25
"""The part of the usual end's spread between two looks around it."""

ENGINE_BOUNDS = (0.5, 15.0)
"""Seconds: an engine answers in milliseconds, and a stage of a small training lasts less than a second."""

CLOUD_BOUNDS = (5.0, 60.0)
"""Seconds: the cluster's agent reports every 10 s, so looking faster shows nothing new."""
