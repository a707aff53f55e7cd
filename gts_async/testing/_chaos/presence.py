"""Whether a chaos server's client is still there, told without reading what it sent before it went."""

import asyncio
import contextlib
import select
from typing import TYPE_CHECKING, Self

from gts_async._errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class ClientGone(ConnectionError):
    """The client has closed, shut down or reset the connection. It ends a script, and is no fault of it."""


class Departures:
    """Tells when clients go, without reading what they sent before: the hang-ups of many sockets in one epoll."""

    def __init__(self) -> None:
        if not hasattr(select, "epoll"):
            raise MisuseError("a chaos server needs Linux")
        self._epoll = select.epoll()
        self._told: dict[int, Callable[[], object]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._look)

    def watch(self, descriptor: int, tell: "Callable[[], object]") -> None:
        """Call `tell` once, when the client behind this descriptor has gone."""
        self._told[descriptor] = tell
        self._epoll.register(descriptor, select.EPOLLRDHUP)

    def unwatch(self, descriptor: int) -> None:
        """Tell no more; nothing happens if it was told."""
        if self._told.pop(descriptor, None):
            # A closed descriptor has left by itself.
            with contextlib.suppress(OSError, ValueError):
                self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Tell nobody any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            tell = self._told.get(descriptor)
            self.unwatch(descriptor)
            if tell:
                tell()


class Present:
    """Raises ClientGone in its block as soon as a client goes, as `asyncio.timeout` raises TimeoutError in time."""

    def __init__(self, departures: Departures, descriptor: int) -> None:
        self._departures = departures
        self._descriptor = descriptor
        self._has_gone = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - coroutines run in tasks
        self._task = task
        self._cancelling = task.cancelling()
        self._departures.watch(self._descriptor, self._go)
        return self

    def _go(self) -> None:
        self._has_gone = True
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: "TracebackType | None"
    ) -> None:
        self._departures.unwatch(self._descriptor)
        if self._has_gone and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise ClientGone("the client has gone") from error
