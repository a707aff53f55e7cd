"""Experience: how long each stage of each kind of work has taken in this session, learned as works are watched.

It shapes the interval between looks (``schedule.py``) and tells about how long is left. Pure: times are passed in.
"""

from collections.abc import Hashable
from enum import Enum

import attrs

WEIGHT = 0.3
"""What the newest duration counts against all before it."""


@attrs.define
class Duration:
    """A learned duration in seconds, and by how much the single ones differ from it."""

    mean: float
    spread: float

    def learn(self, seconds: float) -> None:
        """Move towards one that was just seen."""
        miss = seconds - self.mean
        self.mean += WEIGHT * miss
        self.spread += WEIGHT * (abs(miss) - self.spread)


class Experience:
    """Learned durations, by kind of work and status.

    `stay` is how long a status lasts, `rest` how long it takes from entering it to a good end. Works that failed or
    were stopped teach nothing: they may end at any time.
    """

    def __init__(self) -> None:
        self._stays: dict[tuple[Hashable, Enum], Duration] = {}
        self._rests: dict[tuple[Hashable, Enum], Duration] = {}

    def stay(self, kind: Hashable, status: Enum) -> Duration | None:
        """Give how long works of that kind stay in `status`, if that is known."""
        return self._stays.get((kind, status))

    def rest(self, kind: Hashable, status: Enum) -> Duration | None:
        """Give how long works of that kind need from entering `status` to their good end, if that is known."""
        return self._rests.get((kind, status))

    def learn(self, kind: Hashable, entered: dict[Enum, float], ended: float) -> None:
        """Learn from a work that ended well at `ended`; `entered` tells when it entered each status, in order."""
        times = [*entered.values(), ended]
        for number, (status, time) in enumerate(entered.items()):
            _learn(self._stays, (kind, status), times[number + 1] - time)
            _learn(self._rests, (kind, status), ended - time)


def _learn(known: dict[tuple[Hashable, Enum], Duration], key: tuple[Hashable, Enum], seconds: float) -> None:
    duration = known.get(key)
    if duration is None:
        # Nothing is known of the spread yet: a quarter is a guess that is soon corrected.
        known[key] = Duration(seconds, seconds / 4)
    else:
        duration.learn(seconds)
