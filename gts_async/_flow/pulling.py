"""Pulling: items of any iterable, a chunk at a time, in bounded memory and without holding up the loop.

What is done with the chunks is in `fanout`.
"""

import asyncio
import contextlib
import contextvars
import logging
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar, cast

from gts_async._errors import MisuseError, WrongType
from gts_async._flow.shield import finished

Item = TypeVar("Item")

LINGER = 0.05
"""Seconds that items wait for their chunk to become full when the source is slow."""

LEAVING_TIME = 0.5
"""Seconds that a source has to come back from what it waits for when nobody wants more of it."""

IN_MEMORY: frozenset[type] = frozenset(
    {list, tuple, range, deque, set, frozenset, dict, type({}.values()), type(iter([]))}
)
"""What surely waits for nothing; a class made from one of them may."""

log = logging.getLogger("gts_async")


class Chunks(AsyncIterator[list[Item]]):
    """Lists of at most `size` items, in their order.

    An error of the source is raised after the items that came before it. One task at a time may pull.
    """

    @abstractmethod
    async def __anext__(self) -> list[Item]: ...

    async def aclose(self) -> None:
        """Pull nothing more; an iterator that was given is left as it is, one that we made is closed."""


def chunks(items: Iterable[Item] | AsyncIterable[Item], size: int) -> Chunks[Item]:
    """Give the items of either kind of iterable in chunks; raises WrongType for anything else.

    Lists and the like are read on the loop. Any other plain iterable is read by a thread of its own, from its `iter` to
    its end, with the context variables of the first pull; an async one by a task of its own. Either reads on until
    `size` items wait, so at most that many are read ahead. A source that is slow gives chunks that are not full.
    """
    if type(items) in IN_MEMORY:
        return _InMemory(cast("Iterable[Item]", items), size)
    if isinstance(items, AsyncIterable):
        return _OfTask(items, size)
    if isinstance(items, Iterable):
        return _OfThread(items, size)
    raise WrongType("items", f"must be an iterable or an async iterable, not {type(items).__name__}")


def pulled(parts: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    """Give an async iterator over either kind of iterable; raises WrongType for anything else."""
    if isinstance(parts, AsyncIterable):
        return aiter(parts)
    if isinstance(parts, Iterable):
        return _Pulled(iter(parts))
    raise WrongType("items", f"must be an iterable or an async iterable, not {type(parts).__name__}")


async def gathered(items: Iterable[Item]) -> list[Item]:
    """Give all items as a list, without holding up the loop."""
    if type(items) in IN_MEMORY:
        return list(items)
    source, found = chunks(items, 1024), []
    try:
        async for chunk in source:
            found += chunk
    finally:
        await finished(source.aclose())
    return found


class _InMemory(Chunks[Item]):
    def __init__(self, items: Iterable[Item], size: int) -> None:
        self._items = iter(items)
        self._size = size

    async def __anext__(self) -> list[Item]:
        chunk = list(islice(self._items, self._size))
        if not chunk:
            raise StopAsyncIteration
        return chunk


class _Fed(Chunks[Item], Generic[Item]):
    """Chunks of what somebody else, a thread or a task, puts into `_waiting`."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: deque[Item] = deque()
        self._news = asyncio.Event()
        self._error: Exception | None = None
        self._has_begun = self._has_ended = self._is_over = False

    async def __anext__(self) -> list[Item]:
        if not self._has_begun:
            self._has_begun = True
            self._begin()
        await self._enough()
        chunk = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
        if chunk:
            self._make_room()
            return chunk
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopAsyncIteration

    async def _enough(self) -> None:
        """Wait for a whole chunk, for the end, or for `LINGER` when there is something already."""
        loop = asyncio.get_running_loop()
        since: float | None = None
        while not self._is_enough():
            if self._waiting and since is None:
                since = loop.time()
            try:
                async with asyncio.timeout_at(None if since is None else since + LINGER):
                    await self._news.wait()
            except TimeoutError:
                return

    def _is_enough(self) -> bool:
        # Cleared before it is looked at: what comes later sets it again.
        self._news.clear()
        return self._has_ended or len(self._waiting) >= self._size

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _make_room(self) -> None: ...


class _OfThread(_Fed[Item]):
    """Fed by one daemon thread: a pooled one would hold up the end of the process for as long as the source waits."""

    def __init__(self, items: Iterable[Item], size: int) -> None:
        super().__init__(size)
        self._items = items
        self._room = threading.Event()

    def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._read,), name="gts-async-samples", daemon=True).start()

    def _make_room(self) -> None:
        self._room.set()

    def _read(self) -> None:
        try:
            self._read_all()
        except Exception as error:
            self._error = error
        except BaseException as error:
            self._error = MisuseError(f"the iterable raised {error!r}")
        finally:
            self._has_ended = True
            self._tell()

    def _read_all(self) -> None:
        iterator = iter(self._items)
        try:
            for item in iterator:
                self._waiting.append(item)
                if len(self._waiting) in (1, self._size):
                    self._tell()
                self._wait_for_room()
                if self._is_over:
                    break
        finally:
            close = getattr(iterator, "close", None)
            if iterator is not self._items and close is not None:
                close()

    def _wait_for_room(self) -> None:
        while len(self._waiting) >= self._size and not self._is_over:
            self._room.wait()
            self._room.clear()

    def _tell(self) -> None:
        # The loop may be closed by the time that the source comes back.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._news.set)

    async def aclose(self) -> None:
        self._is_over = True
        self._room.set()
        if not self._has_begun:
            return
        try:
            async with asyncio.timeout(LEAVING_TIME):
                while not self._has_ended:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            log.warning("the iterable of samples has not come back within %g s; its thread is left to it", LEAVING_TIME)


class _OfTask(_Fed[Item]):
    """Fed by one task, so that an async generator runs in the same one from its beginning to its end."""

    def __init__(self, items: AsyncIterable[Item], size: int) -> None:
        super().__init__(size)
        self._items = items
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._read())

    def _make_room(self) -> None:
        self._room.set()

    async def _read(self) -> None:
        try:
            await self._read_all()
        except asyncio.CancelledError:
            if self._is_over:
                raise
            self._error = MisuseError("something that the iterable waited for was cancelled")
        except Exception as error:
            self._error = error
        finally:
            self._has_ended = True
            self._news.set()

    async def _read_all(self) -> None:
        iterator = aiter(self._items)
        try:
            async for item in iterator:
                self._waiting.append(item)
                if len(self._waiting) in (1, self._size):
                    self._news.set()
                while len(self._waiting) >= self._size:
                    self._room.clear()
                    await self._room.wait()
        finally:
            aclose = getattr(iterator, "aclose", None)
            if iterator is not self._items and aclose is not None:
                await aclose()

    async def aclose(self) -> None:
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=LEAVING_TIME)


class _Pulled(AsyncIterator[Item]):
    """A plain iterator, pulled like an async one."""

    def __init__(self, parts: Iterator[Item]) -> None:
        self._parts = parts

    async def __anext__(self) -> Item:
        try:
            return next(self._parts)
        except StopIteration:
            raise StopAsyncIteration from None
