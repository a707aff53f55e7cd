"""Chunks of any iterable: what is read where, how far ahead, and what is left behind when nobody wants more."""

import asyncio
import contextvars
import threading
import time

import pytest

from gts_async import MisuseError, WrongType
from gts_async._flow import pulling
from gts_async._flow.pulling import chunks, gathered

NAME = contextvars.ContextVar("NAME", default="nobody")


class Source:
    """A plain iterable that tells what was pulled and by whom; made anew by every `iter`."""

    def __init__(self, count, error=None):
        self.count, self.error = count, error
        self.pulled, self.threads, self.closed = [], set(), 0

    def __iter__(self):
        try:
            for number in range(self.count):
                self.pulled.append(number)
                self.threads.add(threading.get_ident())
                yield number
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1


class AsyncSource(Source):
    async def __aiter__(self):
        try:
            for number in range(self.count):
                self.pulled.append(number)
                self.threads.add(asyncio.current_task())
                yield number
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1


async def listed(source):
    try:
        return [chunk async for chunk in source]
    finally:
        await source.aclose()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "gts-async-samples"]


async def gone(found=threads):
    """Wait until no thread of ours is left."""
    async with asyncio.timeout(30):
        while found():
            await asyncio.sleep(0.001)


async def numbers(count):
    for number in range(count):
        yield number


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 8, 100])
@pytest.mark.parametrize("kind", [list, tuple, iter, Source, AsyncSource, numbers, dict.fromkeys, set])
async def test_every_item_comes_once_and_in_order_in_chunks_of_the_size(kind, count):
    items = kind(count) if kind in (Source, AsyncSource, numbers) else kind(range(count))
    found = await listed(chunks(items, 4))
    assert [item for chunk in found for item in chunk] == list(range(count))
    assert max(map(len, found), default=0) <= 4
    await gone()


async def test_a_plain_iterable_is_read_by_one_thread_that_is_not_the_loops():
    source = Source(1000)
    assert len(await listed(chunks(source, 10))) >= 100
    assert len(source.threads) == 1
    assert threading.get_ident() not in source.threads


async def test_an_async_iterable_is_read_by_one_task_with_its_own_scopes():
    source = AsyncSource(100)

    async def scoped():
        async with asyncio.timeout(1000):
            async for item in source:
                yield item

    assert sum(map(len, await listed(chunks(scoped(), 10)))) == 100
    assert len(source.threads) == 1


@pytest.mark.parametrize("kind", [Source, AsyncSource])
async def test_no_more_is_read_ahead_than_one_chunk(kind):
    source = kind(1000)
    found = chunks(source, 8)
    await anext(found)
    async with asyncio.timeout(30):
        while len(source.pulled) < 16:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    assert len(source.pulled) == 16
    await found.aclose()
    await gone()
    assert source.closed == 1


async def test_a_source_that_blocks_does_not_hold_up_the_loop():
    may_go = threading.Event()

    def blocking():
        yield 1
        assert may_go.wait(60)
        yield 2

    found, turns = chunks(blocking(), 2), 0
    assert await anext(found) == [1]
    second = asyncio.create_task(anext(found))
    while turns < 100:
        await asyncio.sleep(0)
        turns += 1
    assert not second.done()
    may_go.set()
    assert await second == [2]
    await found.aclose()


@pytest.mark.parametrize("kind", ["thread", "task"])
async def test_a_slow_source_gives_chunks_that_are_not_full(kind):
    may_go, has_more = asyncio.Event(), threading.Event()

    async def slow():
        yield 1
        yield 2
        await may_go.wait()
        yield 3

    def slow_too():
        yield 1
        yield 2
        assert has_more.wait(60)
        yield 3

    found = chunks(slow() if kind == "task" else slow_too(), 64)
    async with asyncio.timeout(30):
        first = await anext(found)
        # Each lingers for its company; where the machine is busy, that may come with the next chunk.
        while len(first) < 2:
            first += await anext(found)
    assert first == [1, 2]
    may_go.set()
    has_more.set()
    assert await anext(found) == [3]
    with pytest.raises(StopAsyncIteration):
        await anext(found)


@pytest.mark.parametrize("kind", [Source, AsyncSource])
async def test_an_error_comes_after_the_items_before_it(kind):
    found = chunks(kind(5, OSError("the disk is gone")), 4)
    assert [await anext(found), await anext(found)] == [[0, 1, 2, 3], [4]]
    with pytest.raises(OSError, match="disk"):
        await anext(found)
    with pytest.raises(StopAsyncIteration):
        await anext(found)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_what_ends_a_process_or_a_task_ends_only_the_reading(error):
    with pytest.raises(MisuseError):
        await listed(chunks(Source(5, error), 4))
    if isinstance(error, asyncio.CancelledError):
        with pytest.raises(MisuseError, match="cancelled"):
            await listed(chunks(AsyncSource(5, error), 4))


async def test_context_variables_are_those_of_whoever_pulls_and_are_kept_from_item_to_item():
    NAME.set("me")

    def seen():
        for _ in range(10):
            yield NAME.get()
            NAME.set(NAME.get() + "!")

    found = [name for chunk in await listed(chunks(seen(), 2)) for name in chunk]
    assert found == ["me" + "!" * n for n in range(10)]
    assert NAME.get() == "me"


@pytest.mark.parametrize("kind", [Source, AsyncSource])
async def test_an_iterator_that_was_given_is_not_closed(kind):
    source = kind(1000)
    given = aiter(source) if kind is AsyncSource else iter(source)
    found = chunks(given, 4)
    first = await anext(found)
    await found.aclose()
    await gone()
    if kind is Source:
        assert source.closed == 0
        assert next(given) == source.pulled[-1] == len(source.pulled) - 1
        given.close()
    assert first == [0, 1, 2, 3]


class Shelf:
    """An iterable whose iterators have to be closed."""

    def __init__(self):
        self.closed = 0

    def __iter__(self):
        return Reader(self)


class Reader:
    def __init__(self, shelf):
        self.shelf = shelf

    def __iter__(self):
        return self

    def __next__(self):
        return 1

    def close(self):
        self.shelf.closed += 1


async def test_an_iterator_that_we_made_is_closed():
    shelf = Shelf()
    found = chunks(shelf, 4)
    assert await anext(found) == [1] * 4
    assert shelf.closed == 0
    await found.aclose()
    await gone()
    assert shelf.closed == 1
    given = chunks(iter(shelf), 4)
    await anext(given)
    await given.aclose()
    await gone()
    assert shelf.closed == 1


async def test_a_source_that_never_comes_back_is_left_to_its_thread(caplog):
    is_stuck, may_go = threading.Event(), threading.Event()

    def stuck():
        yield 1
        is_stuck.set()
        may_go.wait(30)
        yield 2

    found = chunks(stuck(), 1)
    await anext(found)
    await asyncio.to_thread(is_stuck.wait)
    began = time.monotonic()
    await found.aclose()
    assert pulling.LEAVING_TIME <= time.monotonic() - began < pulling.LEAVING_TIME + 20
    assert "has not come back" in caplog.text
    may_go.set()
    await gone()


async def test_nothing_is_begun_before_the_first_pull():
    source = Source(3)
    found = chunks(source, 2)
    await found.aclose()
    assert source.pulled == []
    assert threads() == []


@pytest.mark.parametrize("items", [5, None, object()])
def test_what_cannot_be_iterated_is_refused(items):
    with pytest.raises(WrongType, match="items"):
        chunks(items, 4)


@pytest.mark.parametrize("kind", [Source, AsyncSource])
async def test_cancelling_whoever_pulls_loses_and_doubles_nothing(kind, cancelled_after):
    found, seen = chunks(kind(300), 3), []

    async def pull():
        seen.extend(await anext(found))

    for turns in range(8):
        await cancelled_after(turns, pull)
    async for chunk in found:
        seen.extend(chunk)
    assert seen == list(range(300))
    await found.aclose()


async def test_everything_is_gathered_off_the_loop():
    source = Source(3000)
    assert await gathered(source) == list(range(3000))
    assert threading.get_ident() not in source.threads
    assert await gathered([1, 2]) == [1, 2]
    with pytest.raises(OSError, match="x"):
        await gathered(Source(3, OSError("x")))
