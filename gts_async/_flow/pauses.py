"""Pauses: how long a server that failed is left alone, longer each time. Pure: chance is passed in."""

SHORTEST, LONGEST = 5.0, 60.0
"""Seconds of the first pause, and of the longest."""

JITTER = 0.2
"""Share of a pause that is up to chance."""

FORGIVEN_AFTER = 10
"""Good answers after which the next pause is the shortest again."""


class Pauses:
    """Pause n (from 0) is ``min(60, 5 · 2ⁿ)`` seconds, a random part of a fifth of it left off."""

    def __init__(self) -> None:
        self._taken = self._good = 0

    def next(self, chance: float) -> float:
        """Give the seconds of the pause that begins now; `chance` is in [0, 1)."""
        # The exponent is capped because 2 ** 1100 no longer fits a float.
        pause = min(LONGEST, SHORTEST * 2.0 ** min(self._taken, 64))
        self._taken += 1
        self._good = 0
        return pause * (1.0 - JITTER * chance)

    def answered(self) -> None:
        """Note a good answer."""
        self._good += 1
        if self._good >= FORGIVEN_AFTER:
            self._taken = 0
