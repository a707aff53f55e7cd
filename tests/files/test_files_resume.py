"""Downloads that are cut, slow, cancelled or killed, and go on."""

import asyncio
import hashlib
import json
import os
import random
import signal
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from gts_async._errors import (
    TransportError,
)
from gts_async._files.address import HERE
from gts_async._files.download import BATCH, MinimumSpeed, download
from gts_async._net.slots import SlotTransport
from gts_async.testing import chaos

Store = Naps = Any
"""From conftest.py, which cannot be imported."""

Fetch = Callable[..., Awaitable[Path]]
CONTENT = random.Random(7).randbytes(300_000)
"""What the store serves."""


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def note_of(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


def assert_only(target: Path) -> None:
    assert sorted(target.parent.iterdir()) == [target]


KILLED = """
import asyncio, sys, httpx, ssl
from pathlib import Path
from gts_async._files.address import HERE
from gts_async._files.download import download
async def main():
    async with httpx.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trust_env=False) as client:
        await download(client, sys.argv[1], Path(sys.argv[2]), fence=HERE,
                       progress=lambda p: print(p.done, flush=True))
asyncio.run(main())
"""


# Cuts and resuming


@pytest.mark.parametrize("percent", [1, 40, 99])
async def test_a_cut_download_goes_on_where_it_was_cut(
    fetch: Fetch, store: Store, target: Path, naps: Naps, percent: int
) -> None:
    at = len(CONTENT) * percent // 100
    store.scripts = [store.cut(at)]
    await fetch()
    assert target.read_bytes() == CONTENT
    assert store.asked[1].header("range") == f"bytes={at}-"
    assert store.asked[1].header("if-range") == '"v1"'
    assert store.sent == len(CONTENT)
    assert naps.slept == [0.125]


async def test_many_cuts_cost_no_byte_twice_and_the_count_of_tries_begins_anew_with_progress(
    fetch: Fetch, store: Store, target: Path
) -> None:
    store.scripts = [store.cut(10_000) for _ in range(20)]
    await fetch(max_attempts=2)
    assert target.read_bytes() == CONTENT
    assert store.sent == len(CONTENT)
    assert len(store.asked) == 21


async def test_a_reset_loses_no_more_than_what_was_on_its_way(fetch: Fetch, store: Store, target: Path) -> None:
    async def reset(connection: chaos.Connection) -> None:
        await store.part(connection, 200_000)
        connection.reset()

    store.scripts = [reset]
    await fetch()
    assert target.read_bytes() == CONTENT
    assert len(store.asked) == 2


async def test_without_progress_the_attempts_run_out_and_tell_their_story(
    fetch: Fetch, store: Store, target: Path, naps: Naps
) -> None:
    store.scripts = [store.cut(50_000), *(store.cut(0) for _ in range(10))]
    with pytest.raises(TransportError) as caught:
        await fetch(max_attempts=3)
    assert len(store.asked) == 1 + 2
    assert [attempt.delay for attempt in caught.value.attempts] == [0.125, 0.25, None]
    assert isinstance(caught.value.__cause__, httpx.RemoteProtocolError)
    assert caught.value.url.endswith("data.zip?<redacted>")
    assert part_of(target).stat().st_size == 50_000
    assert not target.exists()


async def test_to_come_as_far_again_is_no_progress(fetch: Fetch, store: Store, target: Path) -> None:
    store.etag = None
    store.scripts = [store.cut(100_000) for _ in range(10)]
    with pytest.raises(TransportError):
        await fetch(max_attempts=3)
    assert len(store.asked) == 3
    assert all(asked.header("range") is None for asked in store.asked)


@pytest.mark.parametrize("etag", [None, 'W/"v1"', "v1"])
async def test_without_a_strong_etag_it_begins_anew(fetch: Fetch, store: Store, target: Path, etag: str | None) -> None:
    store.etag = etag
    store.scripts = [store.cut(100_000)]
    await fetch()
    assert store.asked[1].header("range") is None
    assert target.read_bytes() == CONTENT


async def test_a_store_that_ignores_ranges_is_not_appended(fetch: Fetch, store: Store, target: Path) -> None:
    store.scripts = [store.cut(100_000), chaos.answer(headers={"ETag": '"v1"'}, body=store.content)]
    await fetch()
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("size", [50_000, 120_000])
async def test_an_object_that_was_replaced_meanwhile_is_fetched_from_its_beginning(
    fetch: Fetch, store: Store, target: Path, size: int
) -> None:
    fresh = os.urandom(size)

    async def cut_and_replace(connection: chaos.Connection) -> None:
        await store.cut(100_000)(connection)
        store.content, store.etag = fresh, '"v2"'

    store.scripts = [cut_and_replace]
    await fetch()
    assert store.asked[1].header("if-range") == '"v1"'
    assert target.read_bytes() == fresh


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 0-199999/300000"},
        {"Content-Range": "bytes 100000-299999/999999"},
        {"Content-Range": "bytes 100000-299999/300000", "ETag": '"v2"'},
        {"Content-Range": "nonsense"},
        {},
    ],
)
async def test_another_part_than_was_asked_for_is_not_appended(
    fetch: Fetch, store: Store, target: Path, headers: dict[str, str]
) -> None:
    store.scripts = [store.cut(100_000), chaos.answer(206, headers=headers, body=CONTENT[:200_000])]
    await fetch()
    assert store.asked[2].header("range") is None
    assert target.read_bytes() == CONTENT


async def test_a_store_may_send_less_than_the_rest_at_a_time(fetch: Fetch, store: Store, target: Path) -> None:
    async def little(connection: chaos.Connection) -> None:
        first = int(connection.request.header("range").removeprefix("bytes=").removesuffix("-"))
        body = CONTENT[first : first + 50_000]
        span = f"bytes {first}-{first + len(body) - 1}/*"
        await chaos.answer(206, headers={"Content-Range": span}, body=body)(connection)

    store.scripts = [store.cut(100_000), little, little, little, little]
    await fetch(max_attempts=2)
    assert target.read_bytes() == CONTENT
    assert len(store.asked) == 5


@pytest.mark.parametrize("has_range", [True, False])
async def test_a_part_that_is_already_complete_is_verified_and_promoted(
    fetch: Fetch, store: Store, target: Path, has_range: bool
) -> None:
    note_and_part(store, target, len(CONTENT))
    if not has_range:
        store.scripts = [chaos.answer(416)]
    await fetch()
    assert [asked.header("range") for asked in store.asked] == [f"bytes={len(CONTENT) - 1}-"]
    assert store.sent == has_range
    assert target.read_bytes() == CONTENT
    assert_only(target)


async def test_a_whole_part_of_one_byte_is_promoted_too(fetch: Fetch, store: Store, target: Path) -> None:
    store.content = CONTENT[:1]
    note_and_part(store, target, 1)
    await fetch()
    assert [asked.header("range") for asked in store.asked] == ["bytes=0-"]
    assert target.read_bytes() == CONTENT[:1]


@pytest.mark.parametrize("size", [100, 200_000])
async def test_a_416_for_an_object_of_another_size_begins_anew(
    fetch: Fetch, store: Store, target: Path, size: int
) -> None:
    """Also if it is as long as what has arrived of the one before."""
    store.scripts = [store.cut(200_000), chaos.answer(416, headers={"Content-Range": f"bytes */{size}"})]
    await fetch()
    assert store.asked[2].header("range") is None
    assert target.read_bytes() == CONTENT


# Another process goes on


def note_and_part(store: Store, target: Path, size: int, **changes: object) -> None:
    part_of(target).write_bytes(CONTENT[:size])
    url = store.url.partition("?")[0] + "?<redacted>"
    note_of(target).write_text(
        json.dumps({"url": url, "etag": '"v1"', "size": len(store.content), "checksums": [], **changes})
    )


async def test_what_another_process_left_is_gone_on_with(fetch: Fetch, store: Store, target: Path) -> None:
    note_and_part(store, target, 123_456)
    store.url += "&fresh=signature"
    await fetch()
    assert store.asked[0].header("range") == "bytes=123456-"
    assert store.sent == len(CONTENT) - 123_456
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "spoil",
    [
        lambda target: note_of(target).unlink(),
        lambda target: note_of(target).write_bytes(b""),
        lambda target: note_of(target).write_bytes(b"{"),
        lambda target: note_of(target).write_bytes(b"[1]"),
        lambda target: note_of(target).write_bytes(b'{"url": 1}'),
        lambda target: note_of(target).write_bytes(note_of(target).read_bytes().replace(b"ai1", b"ai2")),
        lambda target: note_of(target).write_bytes(note_of(target).read_bytes().replace(b"300000", b"7")),
        lambda target: note_of(target).write_bytes(note_of(target).read_bytes().replace(b'\\"v1\\"', b"v1")),
        lambda target: note_of(target).write_bytes(note_of(target).read_bytes().replace(b'\\"v1\\"', b"v\\r\\n1")),
    ],
)
async def test_a_part_that_nobody_can_vouch_for_is_not_used(
    fetch: Fetch, store: Store, target: Path, spoil: Callable[[Path], object]
) -> None:
    note_and_part(store, target, 1000)
    part_of(target).write_bytes(b"x" * 1000)
    spoil(target)
    await fetch()
    assert target.read_bytes() == CONTENT


async def test_a_damaged_part_of_an_earlier_download_gets_one_chance_from_the_beginning(
    fetch: Fetch, store: Store, target: Path
) -> None:
    store.headers = {"x-oss-object-type": "Normal"}
    store.etag = f'"{hashlib.md5(CONTENT).hexdigest().upper()}"'
    note_and_part(store, target, 1000, etag=store.etag, checksums=[f"md5:{hashlib.md5(CONTENT).hexdigest()}"])
    part_of(target).write_bytes(b"x" * 1000)
    await fetch()
    assert [asked.header("range") for asked in store.asked] == ["bytes=1000-", None]
    assert target.read_bytes() == CONTENT


async def test_after_a_kill_the_next_run_goes_on_and_no_half_file_was_there(
    fetch: Fetch, store: Store, target: Path
) -> None:
    store.content = content = os.urandom(3 * BATCH)
    store.scripts = [store.stall(len(content) - 1)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, store.url, str(target), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    await process.wait()
    process._transport.close()  # type: ignore[attr-defined]
    assert not target.exists()
    kept = part_of(target).stat().st_size
    assert kept >= BATCH
    await fetch()
    assert store.asked[1].header("range") == f"bytes={kept}-"
    assert target.read_bytes() == content


# Slow and silent stores


IMPATIENT = MinimumSpeed(1024, 0.15)


@pytest.mark.parametrize("after", [0, 100_000])
async def test_a_store_that_falls_silent_is_left_and_the_rest_fetched(
    fetch: Fetch, store: Store, target: Path, after: int
) -> None:
    store.scripts = [store.stall(after)]
    await fetch(minimum_speed=IMPATIENT)
    assert target.read_bytes() == CONTENT
    assert store.sent == len(CONTENT)


async def test_a_store_that_only_drips_is_left_and_the_rest_fetched(fetch: Fetch, store: Store, target: Path) -> None:
    async def drip(connection: chaos.Connection) -> None:
        status, headers, body = store.wanted(connection.request)
        await chaos.answer(status, headers=headers)(connection)
        await chaos.drip(body)(connection)

    store.scripts = [drip]
    await fetch(minimum_speed=IMPATIENT)
    assert len(store.asked) == 2
    assert target.read_bytes() == CONTENT


async def test_dripping_headers_are_not_waited_for(fetch: Fetch, store: Store, target: Path) -> None:
    store.server.on_request(chaos.send(b"HTTP/1.1 200 OK\r\nX: "), chaos.endlessly(b"y", every=0.01))
    await fetch(minimum_speed=IMPATIENT)
    assert target.read_bytes() == CONTENT


async def test_too_slow_is_told_as_such_when_nothing_helps(fetch: Fetch, store: Store) -> None:
    store.scripts = [store.stall(0) for _ in range(2)]
    with pytest.raises(TransportError, match=r"fewer than 1024 bytes came in 0\.15 s") as caught:
        await fetch(minimum_speed=IMPATIENT, max_attempts=2)
    assert isinstance(caught.value.__cause__, (TimeoutError, httpx.ReadTimeout))


# Cancellation


@pytest.mark.parametrize("style", ["native", "wait_for", "scope"])
@pytest.mark.parametrize("after", [0, 1000, 3 * BATCH])
async def test_cancelling_keeps_part_and_note_and_the_next_call_goes_on(
    fetch: Fetch, store: Store, target: Path, style: str, after: int, nothing_left: Callable[[], None]
) -> None:
    store.content = content = CONTENT * 30
    reached = asyncio.Event()
    store.scripts = [store.stall(after, reached)]
    if style == "native":
        task = asyncio.ensure_future(fetch())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif style == "wait_for":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(fetch(), 0.1)
    else:
        with anyio.move_on_after(0.1) as scope:
            await fetch()
        assert scope.cancelled_caught
    assert not target.exists()
    kept = part_of(target).stat().st_size if part_of(target).exists() else 0
    assert kept <= after
    if kept:
        assert part_of(target).read_bytes() == content[:kept]
    assert part_of(target).exists() == note_of(target).exists()
    await fetch()
    assert target.read_bytes() == content
    assert_only(target)


@pytest.mark.parametrize("style", ["native", "scope"])
@pytest.mark.parametrize("start", range(0, 120, 20))
async def test_cancelling_at_any_tick_leaves_nothing_open_and_nothing_wrong(
    fetch: Fetch, target: Path, start: int, style: str, nothing_left: Callable[[], None]
) -> None:
    for ticks in range(start, start + 20):
        scope = anyio.CancelScope()

        async def scoped(scope: anyio.CancelScope) -> None:
            with scope:
                await fetch()

        task = asyncio.ensure_future(scoped(scope))
        for _ in range(ticks):
            await asyncio.sleep(0)
        (task if style == "native" else scope).cancel()
        await asyncio.gather(task, return_exceptions=True)
        if part_of(target).exists():
            kept = part_of(target).read_bytes()
            assert kept == CONTENT[: len(kept)]
            assert note_of(target).exists()
        if target.exists():
            assert target.read_bytes() == CONTENT
            target.unlink()


async def test_a_cancelled_download_gives_its_slot_back(store: Store, target: Path, no_tls: ssl.SSLContext) -> None:
    async def context() -> ssl.SSLContext:
        return no_tls

    slots = SlotTransport(max_connections=1, ssl_context=context)
    async with httpx.AsyncClient(transport=slots) as client:
        for after in (0, 1000, BATCH):
            reached = asyncio.Event()
            store.scripts = [store.stall(after, reached)]
            task = asyncio.ensure_future(download(client, store.url, target, fence=HERE))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert slots.in_use == 0
        await download(client, store.url, target, fence=HERE)
    assert target.read_bytes() == CONTENT


async def test_the_caller_s_own_tasks_are_the_only_ones_left(fetch: Fetch, store: Store) -> None:
    before = asyncio.all_tasks()
    store.scripts = [store.cut(100_000)]
    await fetch()
    mine = {task for task in asyncio.all_tasks() - before if "serve" not in repr(task)}
    assert mine == set()
