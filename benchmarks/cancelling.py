"""Cancelling: the five ways in which asyncio programs cut a call short, at a moment that is left to chance."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import anyio

Ask = Callable[[], Awaitable[object]]
Style = Callable[[Ask, "Moment"], Awaitable[None]]

MOST_TURNS = 40
"""Turns of the loop after which a call over loopback has got through all of its awaits."""

LONGEST = 0.01
"""Seconds after which a call to a server that answers within 4 ms is likely to be over."""


class Moment:
    """A block in which `action` is called once: after some turns of the loop, or after some seconds."""

    def __init__(self, turns: int, seconds: float) -> None:
        self.turns = turns
        self.seconds = seconds

    @classmethod
    def by_chance(cls, chance: random.Random, longest: float = LONGEST) -> Self:
        """Give one of either kind, as likely as the other."""
        if chance.random() < 0.5:
            return cls(chance.randrange(MOST_TURNS), 0.0)
        return cls(0, chance.random() * longest)

    def does(self, action: Callable[[], object]) -> Self:
        """Say what is to be done."""
        self._action = action
        return self

    def __enter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle = (
            self._loop.call_later(self.seconds, self._action) if self.seconds else self._loop.call_soon(self._turn)
        )

    def _turn(self) -> None:
        if self.turns:
            self.turns -= 1
            self._handle = self._loop.call_soon(self._turn)
        else:
            self._action()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handle.cancel()


async def by_cancel(ask: Ask, moment: Moment) -> None:
    """Cancel the task."""
    await _cancelled(asyncio.ensure_future(ask()), moment)


async def by_wait_for(ask: Ask, moment: Moment) -> None:
    """Let `asyncio.wait_for` run out of time, or cancel the task that is in it."""
    if moment.seconds:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ask(), moment.seconds)
    else:
        await _cancelled(asyncio.ensure_future(asyncio.wait_for(ask(), 3600)), moment)


async def by_timeout(ask: Ask, moment: Moment) -> None:
    """Let `asyncio.timeout` run out."""
    now = asyncio.get_running_loop().time
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None) as bound:
            with moment.does(lambda: bound.reschedule(now())):
                await ask()


async def by_scope(ask: Ask, moment: Moment) -> None:
    """Cancel an anyio scope."""
    with anyio.CancelScope() as scope, moment.does(scope.cancel):
        await ask()


async def by_group(ask: Ask, moment: Moment) -> None:
    """Let another task of its TaskGroup fail."""
    failing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def fail() -> None:
        await failing

    async def call() -> None:
        await ask()
        sibling.cancel()

    def let_it_fail() -> None:
        if not failing.done():
            failing.set_exception(_SiblingFailed())

    try:
        with moment.does(let_it_fail):
            async with asyncio.TaskGroup() as group:
                sibling = group.create_task(fail())
                group.create_task(call())
    except* _SiblingFailed:
        pass


class _SiblingFailed(Exception):
    pass


STYLES: dict[str, Style] = {
    "task.cancel": by_cancel,
    "wait_for": by_wait_for,
    "asyncio.timeout": by_timeout,
    "anyio scope": by_scope,
    "TaskGroup": by_group,
}


async def _cancelled(task: "asyncio.Future[Any]", moment: Moment) -> None:
    with moment.does(task.cancel):
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()
