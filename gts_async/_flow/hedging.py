"""HedgeBudget: how many requests may be sent twice. Pure."""

SHARE = 0.05
"""Of all requests, at most so many are sent a second time."""

SAVED = 10.0
"""Second ones that a time without any saves up: a burst of late answers means that all servers are late."""


class HedgeBudget:
    """A bucket that each request fills by `share` and each hedge empties by one; it begins empty."""

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self._left = 0.0

    def earn(self) -> None:
        """Count a request."""
        self._left = min(SAVED, self._left + self._share)

    def spend(self) -> bool:
        """Take what one hedge costs, if there is as much; tells whether there was."""
        # Twenty times 0.05 are a little less than 1 in floats.
        if self._left < 1.0 - 1e-9:
            return False
        self._left -= 1.0
        return True
