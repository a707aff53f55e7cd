"""InFlight: work that several tasks do for one owner, and that must not outlive it."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from gts_async._errors import MisuseError


class InFlight:
    """``with in_flight.one():`` around each piece of work, in whatever task."""

    def __init__(self) -> None:
        self._landed: dict[anyio.CancelScope, anyio.Event] = {}

    @contextmanager
    def one(self) -> Iterator[None]:
        """Let `aclose` end the block, which raises MisuseError then."""
        landed = anyio.Event()
        with anyio.CancelScope() as scope:
            self._landed[scope] = landed
            try:
                yield
            finally:
                del self._landed[scope]
                landed.set()
        if scope.cancelled_caught:
            raise MisuseError("closed before an answer came")

    async def aclose(self) -> None:
        """Cancel all of it, and wait until it has ended."""
        landed = dict(self._landed)
        for scope in landed:
            scope.cancel()
        for event in landed.values():
            await event.wait()
