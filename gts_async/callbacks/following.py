"""Heeds what other processes put into the store: one that listens to the cloud, and others that watch the jobs."""

import asyncio
from collections.abc import Callable

from gts_async._errors import FileError
from gts_async.callbacks.store import BATCH, CallbackStore, Row


class Following:
    """Tells of each callback that comes into the store otherwise than through `origin`, from `begin` on.

    It looks every `every` seconds.
    """

    def __init__(self, store: CallbackStore, origin: bytes, hear: Callable[[Row], None], every: float) -> None:
        self._every = every
        self._store = store
        self._origin = origin
        self._hear = hear
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Open the store, and begin; raises FileError."""
        last = await self._store.last()
        if self._store.is_shared and self._task is None:
            self._task = asyncio.create_task(self._go(last), name="callbacks of other processes")

    async def _go(self, last: int) -> None:
        while True:
            try:
                rows = await self._store.since(last)
            except FileError:
                # Told where callbacks come in; this goes on as soon as the store does.
                rows = []
            for row in rows:
                last = row.number
                if row.origin != self._origin:
                    self._hear(row)
            if len(rows) < BATCH:
                await asyncio.sleep(self._every)

    async def aclose(self) -> None:
        """End it."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
