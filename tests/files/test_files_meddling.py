"""A part that others have put there or meddle with, and disks that know no locks or cannot sync a folder."""

import errno
import fcntl
import json
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gts_async._errors import FileError, FileMissing, UnsafePath
from gts_async._files.address import shown
from gts_async.testing import chaos

Store = Any
"""From conftest.py, which cannot be imported."""

Fetch = Callable[..., Awaitable[Path]]
SO_FAR = 100_000


def part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def note_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


@pytest.fixture
def begun(store: Store, target: Path) -> Path:
    """Give the part that an earlier download has left, with its note."""
    part_of(target).write_bytes(store.content[:SO_FAR])
    part_of(target).chmod(0o600)
    note = {"url": shown(store.url), "etag": store.etag, "size": len(store.content), "checksums": []}
    note_of(target).write_text(json.dumps(note))
    return part_of(target)


def first_asked(store: Store) -> str | None:
    return store.asked[0].header("range")


# What is there before


async def test_what_an_earlier_download_left_is_gone_on_with(
    fetch: Fetch, store: Store, target: Path, begun: Path
) -> None:
    await fetch()
    assert first_asked(store) == f"bytes={SO_FAR}-"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o660, 0o606, 0o666, 0o622])
async def test_a_part_that_others_may_write_to_is_not_gone_on_with(
    fetch: Fetch, store: Store, target: Path, begun: Path, mode: int
) -> None:
    """Somebody may hold it open, and write to the finished file."""
    begun.chmod(mode)
    with begun.open("r+b") as held:
        await fetch()
        held.write(b"evil")
    assert first_asked(store) is None
    assert target.read_bytes() == store.content
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o755, 0o400, 0o444])
async def test_a_part_that_others_may_read_is_hidden_and_gone_on_with(
    fetch: Fetch, store: Store, target: Path, begun: Path, mode: int
) -> None:
    begun.chmod(mode)
    if os.access(begun, os.W_OK):
        await fetch()
        assert first_asked(store) == f"bytes={SO_FAR}-"
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
    else:
        with pytest.raises(FileError, match="Permission denied"):
            await fetch()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_a_part_of_somebody_else_s_is_not_gone_on_with(
    fetch: Fetch, store: Store, target: Path, begun: Path
) -> None:
    os.chown(begun, 65534, 65534)
    await fetch()
    assert first_asked(store) is None
    assert (target.stat().st_uid, target.read_bytes()) == (0, store.content)


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.mkdir(), lambda path: path.symlink_to("/dev/zero")])
async def test_a_note_that_is_no_file_is_neither_waited_for_nor_read(
    fetch: Fetch, store: Store, target: Path, nothing_left: Callable[[], None], put: Callable[[Path], None]
) -> None:
    part_of(target).write_bytes(b"x")
    put(note_of(target))
    if note_of(target).is_dir():
        with pytest.raises(FileError, match="cannot write") as caught:
            await fetch()
        assert caught.value.path == str(note_of(target))
        assert store.asked == []
    else:
        await fetch()
        assert target.read_bytes() == store.content


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)])
async def test_a_pipe_or_device_in_the_target_s_place_is_told_before_any_traffic(
    fetch: Fetch, store: Store, target: Path, put: Callable[[Path], None]
) -> None:
    put(target)
    with pytest.raises(UnsafePath, match="no file"):
        await fetch()
    assert store.asked == []
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert not target.is_file()


# What happens meanwhile


def meanwhile(store: Store, do: Callable[[], object]) -> chaos.Action:
    """Answer rightly, and do something in the middle of it."""

    async def play(connection: chaos.Connection) -> None:
        await store.part(connection, SO_FAR)
        do()
        await chaos.send(store.content[SO_FAR:])(connection)

    return play


@pytest.mark.parametrize(
    "put",
    [
        lambda path: path.write_bytes(b"another's, unfinished"),
        lambda path: path.symlink_to("/etc/hostname"),
        lambda path: path.mkdir(),
    ],
)
async def test_what_has_come_into_the_place_of_the_part_is_not_taken_for_it(
    fetch: Fetch, store: Store, target: Path, put: Callable[[Path], object]
) -> None:
    target.write_bytes(b"old")

    def replace() -> None:
        part_of(target).unlink()
        put(part_of(target))

    store.scripts = [meanwhile(store, replace)]
    with pytest.raises(FileError, match="in its place"):
        await fetch()
    assert target.read_bytes() == b"old"
    assert os.path.lexists(part_of(target))


async def test_a_part_that_is_removed_meanwhile_is_told(fetch: Fetch, store: Store, target: Path) -> None:
    store.scripts = [meanwhile(store, lambda: part_of(target).unlink())]
    with pytest.raises(FileMissing):
        await fetch()
    assert not target.exists()


@pytest.mark.parametrize("size", [10, 10 << 20])
async def test_a_part_to_which_another_writes_is_left_to_it(
    fetch: Fetch, store: Store, target: Path, size: int
) -> None:
    store.content *= 20
    store.scripts = [meanwhile(store, lambda: None)]

    def meddle(progress: object) -> None:
        os.truncate(part_of(target), size)

    with pytest.raises(FileError, match="another program"):
        await fetch(progress=meddle)
    assert not target.exists()
    assert part_of(target).stat().st_size == size


# Disks that cannot do everything


def failing(call: Callable[..., Any], number: int, *, for_folders_only: bool = False) -> Callable[..., Any]:
    def fail(descriptor: int, *arguments: Any) -> Any:
        if for_folders_only and not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return call(descriptor, *arguments)
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
async def test_a_disk_that_syncs_no_folders_will_do(
    fetch: Fetch, store: Store, target: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, number, for_folders_only=True))
    await fetch()
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert target.read_bytes() == store.content


async def test_a_disk_that_loses_the_folder_is_told(
    fetch: Fetch, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, errno.EIO, for_folders_only=True))
    with pytest.raises(FileError, match="cannot finish"):
        await fetch()


async def test_a_disk_that_loses_the_bytes_leaves_no_part(
    fetch: Fetch, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", failing(os.fsync, errno.EIO))
    with pytest.raises(FileError, match="cannot finish"):
        await fetch()
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
async def test_a_disk_that_knows_no_locks_will_do(
    fetch: Fetch, store: Store, target: Path, begun: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Lustre knows them only if mounted so."""
    monkeypatch.setattr(fcntl, "flock", failing(fcntl.flock, number))
    await fetch(keeps_note=True)
    await fetch(keeps_note=True)
    assert first_asked(store) == f"bytes={SO_FAR}-"
    assert target.read_bytes() == store.content


async def test_of_two_without_locks_no_half_gets_the_name(
    fetch: Fetch, store: Store, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(fcntl.flock, errno.ENOSYS))
    store.content *= 20
    others: list[Path] = []

    async def another(connection: chaos.Connection) -> None:
        await store.part(connection, SO_FAR)
        others.append(await fetch())
        await chaos.send(store.content[SO_FAR:])(connection)

    store.scripts = [another]
    with pytest.raises(FileError):
        await fetch()
    assert others == [target]
    assert target.read_bytes() == store.content
