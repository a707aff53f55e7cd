"""What a download does on the disk, and what it does not."""

import asyncio
import os
import random
import resource
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest

from gts_async._errors import (
    FileError,
    FileMissing,
    UnsafePath,
)
from gts_async._files.address import HERE
from gts_async._files.download import download
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


# The disk


async def test_a_missing_folder_is_told_before_any_traffic(
    client: httpx.AsyncClient, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(FileMissing, match="no/such"):
        await download(client, store.url, tmp_path / "no/such/model.zip", fence=HERE)
    assert store.asked == []


async def test_a_target_that_is_a_folder_or_below_a_file_is_told_before_any_traffic(
    client: httpx.AsyncClient, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "folder", tmp_path / "file/model.zip"):
        with pytest.raises(FileError) as caught:
            await download(client, store.url, path, fence=HERE)
        assert isinstance(caught.value.__cause__, OSError)
    assert store.asked == []


@pytest.fixture
def unwritable() -> Iterator[Path]:
    """A folder that may not be written, also if the tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "locked").mkdir(mode=0o555)
        folder.chmod(0o755)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        yield folder / "locked"
        if is_root:
            os.seteuid(0)


async def test_a_folder_that_may_not_be_written_is_told_before_any_traffic(
    client: httpx.AsyncClient, store: Store, unwritable: Path
) -> None:
    with pytest.raises(FileError, match=r"Permission denied"):
        await download(client, store.url, unwritable / "model.zip", fence=HERE)
    assert store.asked == []


@pytest.mark.parametrize("put", ["symlink", "hardlink", "fifo", "folder"])
async def test_something_else_in_the_place_of_the_part_is_not_written_to(
    fetch: Fetch, store: Store, target: Path, tmp_path: Path, put: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")

    match put:
        case "symlink":
            part_of(target).symlink_to(victim)
        case "hardlink":
            part_of(target).hardlink_to(victim)
        case "fifo":
            os.mkfifo(part_of(target))
        case "folder":
            part_of(target).mkdir()
    with pytest.raises(FileError if put == "folder" else UnsafePath):
        await fetch()
    assert store.asked == []
    assert victim.read_bytes() == b"precious"
    assert os.path.lexists(part_of(target))


async def test_a_note_that_is_a_link_is_replaced_and_not_written_through(
    fetch: Fetch, target: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    note_of(target).symlink_to(victim)
    note_of(target).with_name(note_of(target).name + ".new").symlink_to(victim)
    await fetch()
    assert victim.read_bytes() == b"precious"
    assert target.read_bytes() == CONTENT


async def test_a_target_that_is_a_link_is_replaced_and_not_written_through(
    fetch: Fetch, target: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    target.symlink_to(victim)
    await fetch()
    assert victim.read_bytes() == b"precious"
    assert not target.is_symlink()


async def test_a_second_download_to_the_same_target_is_refused(
    fetch: Fetch, store: Store, client: httpx.AsyncClient, target: Path
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(connection: chaos.Connection) -> None:
        reached.set()
        await go_on.wait()
        await store.whole(connection)

    store.scripts = [slow]
    first = asyncio.ensure_future(fetch())
    await reached.wait()
    with pytest.raises(FileError, match="another download"):
        await fetch()
    go_on.set()
    await first
    assert target.read_bytes() == CONTENT
    await fetch()
    assert_only(target)


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files may not grow above 100 kB: the disk is as good as full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_keeps_the_part_and_the_next_call_goes_on(
    fetch: Fetch, store: Store, target: Path, nothing_left: Callable[[], None], request: pytest.FixtureRequest
) -> None:
    target.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(FileError, match="cannot write") as caught:
            await fetch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(caught.value.__cause__, OSError)
    assert len(store.asked) == 1
    assert target.read_bytes() == b"old"
    assert part_of(target).stat().st_size == 100_000
    await fetch()
    assert store.asked[1].header("range") == "bytes=100000-"
    assert target.read_bytes() == CONTENT


async def test_a_disk_that_is_full_at_once_is_told_before_any_traffic(
    client: httpx.AsyncClient, store: Store, target: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(FileError, match="cannot"):
            await download(client, store.url, target, fence=HERE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.asked == []


async def test_the_order_survives_a_power_cut(fetch: Fetch, target: Path) -> None:
    """Written, synced, renamed, folder synced: told by the interpreter of the calls in the transfer's own thread."""
    calls: list[str] = []

    def note_call(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ in ("pwrite", "fsync", "replace", "rename"):
            calls.append(called.__name__)

    threading.setprofile(note_call)
    try:
        await fetch()
    finally:
        threading.setprofile(None)
    assert calls[-4:] == ["pwrite", "fsync", "replace", "fsync"]
