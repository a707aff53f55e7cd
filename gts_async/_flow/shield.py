"""Shield: lets work run to its end although its caller is cancelled, and bounds it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


async def finished(
    work: Coroutine[Any, Any, T],
    *,
    within: float | None = None,
    grace: float | None = None,
    unclaimed: Callable[[T], None] | None = None,
) -> T:
    """Give the result of `work`, run in a task of its own for at most `within` seconds (then TimeoutError).

    A cancelled caller waits for it all the same, at most `grace` seconds more, and is cancelled afterwards; `unclaimed`
    is told the result that nobody gets then. An anyio shield alone would not do: a plain `task.cancel()` or
    `asyncio.wait_for` reaches through it.
    """
    task = asyncio.ensure_future(asyncio.wait_for(work, within))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.wait({task})
        except asyncio.CancelledError as error:
            if cancelled is None and grace is not None:
                asyncio.get_running_loop().call_later(grace, task.cancel)
            cancelled = error
    if cancelled is not None:
        if not task.cancelled() and task.exception() is None and unclaimed is not None:
            unclaimed(task.result())
        raise cancelled
    return task.result()
