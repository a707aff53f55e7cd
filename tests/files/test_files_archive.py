import asyncio
import io
import os
import resource
import stat
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gts_async._errors import DownloadCorrupt, FileError, FileMissing, UnsafePath
from gts_async._files.archive import SMALL, STEP, unpack
from gts_async._files.members import ArchiveLimits, check_count
from gts_async._progress import Progress

Names = dict[str, bytes]


def zipped(members: Names | list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    pairs = list(members.items()) if isinstance(members, dict) else members
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in pairs:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            # ZipInfo cuts at NUL; a hostile archive does not.
            info.filename = info.orig_filename
            info.compress_type = method
            archive.writestr(info, content)
    return file.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "data.zip"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_untouched(archive: Path) -> None:
    assert sorted(path.name for path in archive.parent.iterdir()) == [archive.name]


@pytest.mark.parametrize(
    ("members", "there"),
    [
        ({"/data/model.bin": b"1", "/data/sub/x": b"2"}, {"model.bin": b"1", "sub/x": b"2"}),
        ({"/data/": b"", "/data/a": b"1"}, {"a": b"1"}),
        ({"/data/data/a": b"1"}, {"data/a": b"1"}),
        ({"data/a": b"1", "data/b": b"2"}, {"data/a": b"1", "data/b": b"2"}),
        ({"/data/a": b"1", "/other/b": b"2"}, {"data/a": b"1", "other/b": b"2"}),
        ({"/data/a": b"1", "b": b"2"}, {"data/a": b"1", "b": b"2"}),
        ({"///a//./b": b"1"}, {"a/b": b"1"}),
        ({"模型/权重　一.bin": b"1"}, {"模型/权重　一.bin": b"1"}),
        ({"a": b""}, {"a": b""}),
        ({"data": b"1"}, {"data": b"1"}),
        ({}, {}),
    ],
)
async def test_the_model_s_files_lie_directly_in_the_folder(
    archive: Path, folder: Path, members: Names, there: Names
) -> None:
    archive.write_bytes(zipped(members))
    paths = await unpack(archive, folder)
    assert tree(folder) == there
    assert sorted(paths) == sorted(folder / name for name in there)
    assert sorted(path.name for path in archive.parent.iterdir()) == ["data.zip", "model"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
async def test_what_is_unpacked_is_what_was_packed(archive: Path, folder: Path, method: int) -> None:
    members = {f"f{size}": os.urandom(size) for size in (0, 1, 1 << 20, (3 << 20) + 1)}
    archive.write_bytes(zipped(members, method))
    assert [path.name for path in await unpack(archive, folder)] == list(members)
    assert tree(folder) == members


async def test_empty_folders_are_made(archive: Path, folder: Path) -> None:
    archive.write_bytes(zipped({"a/b/": b"", "c/": b""}))
    assert await unpack(archive, folder) == []
    assert (folder / "a/b").is_dir()
    assert (folder / "c").is_dir()


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/data/../../evil",
        "/../evil",
        "a/..",
        "..\\evil",
        "a\\b",
        "C:\\evil",
        "C:/evil",
        "/c:evil",
        "a\0b",
        "\0",
        "a\nb",
        "\x1b[2Jx",
        "x" * 256,
        "权" * 86,
        "a/" * 64 + "a",
        "/".join(["x" * 200] * 20),
        "CON",
        "aux.bin",
        "dir/NUL.tar.gz",
        "com1/x",
        "a./b",
        "a ",
        "a..",
        "",
        ".",
    ],
)
async def test_a_name_that_would_leave_the_folder_or_be_misread_is_refused(
    archive: Path, folder: Path, name: str
) -> None:
    archive.write_bytes(zipped({"good": b"1", name: b"evil"}))
    with pytest.raises(UnsafePath) as caught:
        await unpack(archive, folder)
    assert caught.value.path == str(archive)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert_untouched(archive)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFDIR])
async def test_a_link_or_device_is_refused(archive: Path, folder: Path, kind: int) -> None:
    info = zipfile.ZipInfo("link")
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    archive.write_bytes(zipped([("good", b"1"), (info, b"/etc/passwd")]))
    with pytest.raises(UnsafePath, match="link or a device"):
        await unpack(archive, folder)
    assert_untouched(archive)


async def test_a_link_and_then_a_file_through_it_is_refused(archive: Path, folder: Path, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("sub")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.write_bytes(zipped([(info, str(tmp_path).encode()), ("sub/evil", b"1")]))
    with pytest.raises(UnsafePath):
        await unpack(archive, folder)
    assert_untouched(archive)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [("a", "a"), ("a/b", "a//b"), ("a", "./a"), ("/data/x", "/data//x"), ("a", "a/b"), ("a/b", "a"), ("a/", "a")],
)
async def test_two_members_of_one_name_are_refused(archive: Path, folder: Path, names: tuple[str, str]) -> None:
    archive.write_bytes(zipped([(name, b"1") for name in names]))
    with pytest.raises(UnsafePath):
        await unpack(archive, folder)
    assert_untouched(archive)


async def test_an_encrypted_archive_is_refused(archive: Path, folder: Path) -> None:
    content = bytearray(zipped({"a": b"1"}, zipfile.ZIP_STORED))
    for at in (content.index(b"PK\3\4") + 6, content.index(b"PK\1\2") + 8):
        content[at] |= 1
    archive.write_bytes(content)
    with pytest.raises(FileError, match="encrypted"):
        await unpack(archive, folder)
    assert_untouched(archive)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
async def test_other_packing_methods_are_refused(archive: Path, folder: Path, method: int) -> None:
    archive.write_bytes(zipped({"a": b"1"}, method))
    with pytest.raises(FileError, match="method"):
        await unpack(archive, folder)
    assert_untouched(archive)


# Too much


async def test_a_bomb_is_refused_by_its_ratio(archive: Path, folder: Path) -> None:
    archive.write_bytes(zipped({"zeros": bytes(65 << 20)}))
    assert archive.stat().st_size < 100_000
    with pytest.raises(FileError, match="max_ratio"):
        await unpack(archive, folder)
    assert_untouched(archive)
    await unpack(archive, folder, limits=ArchiveLimits(max_ratio=2000))
    assert (folder / "zeros").stat().st_size == 65 << 20


async def test_more_bytes_than_allowed_are_refused(archive: Path, folder: Path) -> None:
    archive.write_bytes(zipped({"a": bytes(600), "b": bytes(600)}))
    with pytest.raises(FileError, match="max_bytes"):
        await unpack(archive, folder, limits=ArchiveLimits(max_bytes=1000))
    assert_untouched(archive)


async def test_more_members_than_allowed_are_refused(archive: Path, folder: Path) -> None:
    archive.write_bytes(zipped({str(number): b"" for number in range(11)}))
    with pytest.raises(FileError, match="max_members"):
        await unpack(archive, folder, limits=ArchiveLimits(max_members=10))
    assert_untouched(archive)
    await unpack(archive, folder, limits=ArchiveLimits(max_members=11))
    assert len(tree(folder)) == 11


MILLION = """
import asyncio, resource, sys
from pathlib import Path
from gts_async._errors import FileError
from gts_async._files.archive import unpack
async def main():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        await unpack(Path(sys.argv[1]), Path(sys.argv[2]))
    except FileError as error:
        print("max_members" in str(error), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
asyncio.run(main())
"""


async def test_a_million_members_cost_no_memory(archive: Path, folder: Path) -> None:
    entry = struct.pack("<4s24x3H12x", b"PK\1\2", 0, 0, 0)
    # The end record says "one member": zipfile would believe the length of the list.
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry) * 1_000_000, 0, 0)
    archive.write_bytes(entry * 1_000_000 + end)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MILLION, str(archive), str(folder), stdout=subprocess.PIPE
    )
    said, _ = await process.communicate()
    process._transport.close()  # type: ignore[attr-defined]
    was_refused, grown = said.split()
    assert was_refused == b"True"
    assert int(grown) * 1024 < 24 << 20


def test_a_zip64_list_is_counted_too(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    path.write_bytes(zipped({str(number): b"" for number in range(66_000)}, zipfile.ZIP_STORED))
    assert b"PK\6\6" in path.read_bytes()
    with path.open("rb") as file:
        check_count(file, str(path), ArchiveLimits(max_members=66_000))
        with pytest.raises(FileError, match="max_members"):
            check_count(file, str(path), ArchiveLimits(max_members=65_999))


# Lies and damage


def with_declared_size(content: bytes, size: int) -> bytes:
    patched = bytearray(content)
    struct.pack_into("<L", patched, content.index(b"PK\3\4") + 22, size)
    struct.pack_into("<L", patched, content.index(b"PK\1\2") + 24, size)
    return bytes(patched)


@pytest.mark.parametrize("declared", [0, 1, 999_999, 1_000_001, 2_000_000])
async def test_a_member_that_is_not_as_long_as_declared_is_refused(archive: Path, folder: Path, declared: int) -> None:
    archive.write_bytes(with_declared_size(zipped({"a": os.urandom(1_000_000)}), declared))
    with pytest.raises(DownloadCorrupt):
        await unpack(archive, folder)
    assert_untouched(archive)


async def test_no_more_is_written_than_was_declared(archive: Path, folder: Path) -> None:
    archive.write_bytes(with_declared_size(zipped({"a": bytes(60 << 20)}), 1000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(DownloadCorrupt):
            await unpack(archive, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_members_that_share_their_bytes_are_refused(archive: Path, folder: Path) -> None:
    one = zipped({"a": bytes(100_000)})
    start = one.index(b"PK\1\2")
    entry = one[start : one.index(b"PK\5\6")]
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, 2 * len(entry), start, 0)
    archive.write_bytes(one[:start] + entry + entry.replace(b"a", b"b") + end)
    with pytest.raises(DownloadCorrupt, match="overlap"):
        await unpack(archive, folder)
    assert_untouched(archive)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: b"PK",
        lambda content: b"<html>not found</html>",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-10],
        lambda content: content[10:],
        lambda content: content.replace(b"PK\1\2", b"PK\1\3"),
        lambda content: content.replace(b"PK\3\4", b"PK\3\5"),
        lambda content: content[:100_000] + bytes([content[100_000] ^ 1]) + content[100_001:],
        lambda content: struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 0xFFFFFFF0, 0, 0),
    ],
)
async def test_a_damaged_archive_is_told_as_such(archive: Path, folder: Path, spoil: Callable[[bytes], bytes]) -> None:
    archive.write_bytes(spoil(zipped({"a": os.urandom(200_000)})))
    with pytest.raises(DownloadCorrupt) as caught:
        await unpack(archive, folder)
    assert caught.value.path == str(archive)
    assert_untouched(archive)


GOOD = zipped({"/data/a": b"x" * 300, "/data/b/c": b"y" * 300, "/data/d": b""})


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_whatever_is_changed_only_our_errors_come_and_nothing_outside_is_touched(
    tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(GOOD)
    for at, value in changes:
        content[at] = value
    archive = tmp_path / "data.zip"
    archive.write_bytes(content)
    try:
        paths = asyncio.run(unpack(archive, tmp_path / "model"))
    except FileError:
        assert_untouched(archive)
    else:
        assert all(path.is_relative_to(tmp_path / "model") and path.is_file() for path in paths)
        subprocess.run(["rm", "-r", str(tmp_path / "model")], check=True)
        assert_untouched(archive)


async def test_a_missing_archive_or_parent_is_named(archive: Path, folder: Path) -> None:
    with pytest.raises(FileMissing, match=r"data\.zip"):
        await unpack(archive, folder)
    archive.write_bytes(GOOD)
    with pytest.raises(FileMissing, match="no/such"):
        await unpack(archive, archive.parent / "no/such/model")


# A folder that is already there


async def test_unpacking_twice_works_and_what_else_is_there_stays(archive: Path, folder: Path) -> None:
    archive.write_bytes(GOOD)
    await unpack(archive, folder)
    (folder / "mine").write_bytes(b"mine")
    (folder / "a").write_bytes(b"old")
    inode = folder.stat().st_ino
    await unpack(archive, folder)
    assert tree(folder) == {"a": b"x" * 300, "b/c": b"y" * 300, "d": b"", "mine": b"mine"}
    assert folder.stat().st_ino == inode
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "d", "mine"]


@pytest.mark.parametrize(
    "obstacle",
    [
        lambda folder: (folder / "a").mkdir(),
        lambda folder: (folder / "b").write_bytes(b""),
        lambda folder: (folder / "b/c").mkdir(parents=True),
        lambda folder: (folder / "b").symlink_to("/tmp"),
    ],
)
async def test_something_else_in_the_way_is_told_before_a_file_is_moved(
    archive: Path, folder: Path, obstacle: Callable[[Path], object]
) -> None:
    archive.write_bytes(zipped({"d": b"new", "a": b"1", "b/c": b"2"}))
    folder.mkdir()
    (folder / "d").write_bytes(b"old")
    obstacle(folder)
    before = sorted(str(path) for path in folder.rglob("*"))
    with pytest.raises(FileError, match="remove it"):
        await unpack(archive, folder)
    assert sorted(str(path) for path in folder.rglob("*")) == before
    assert (folder / "d").read_bytes() == b"old"


async def test_a_link_in_the_place_of_a_file_is_replaced_and_not_written_through(
    archive: Path, folder: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder.mkdir()
    (folder / "a").symlink_to(victim)
    archive.write_bytes(zipped({"a": b"new"}))
    await unpack(archive, folder)
    assert victim.read_bytes() == b"precious"
    assert (folder / "a").read_bytes() == b"new"


async def test_a_file_in_the_place_of_the_folder_is_told(archive: Path, folder: Path) -> None:
    archive.write_bytes(GOOD)
    folder.write_bytes(b"")
    with pytest.raises(FileError, match="model"):
        await unpack(archive, folder)


# The disk, and cancelling


async def test_a_full_disk_leaves_nothing_behind(archive: Path, folder: Path) -> None:
    archive.write_bytes(zipped({"small": b"1", "large": os.urandom(200_000)}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(FileError, match="cannot unpack to") as caught:
            await unpack(archive, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not isinstance(caught.value, DownloadCorrupt)
    assert isinstance(caught.value.__cause__, OSError)
    assert_untouched(archive)


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("style", ["native", "scope"])
@pytest.mark.parametrize("step", [1, 3])
async def test_cancelling_between_the_steps_leaves_nothing_behind(
    archive: Path, folder: Path, nothing_left: Callable[[], None], is_new: bool, style: str, step: int
) -> None:
    archive.write_bytes(zipped({str(number): bytes(STEP) for number in range(6)}, zipfile.ZIP_STORED))
    if not is_new:
        folder.mkdir()
        (folder / "mine").write_bytes(b"mine")
    told = 0

    def stop(progress: Progress) -> None:
        nonlocal told
        told += 1
        if told == step:
            cancel()

    if style == "native":
        task = asyncio.ensure_future(unpack(archive, folder, progress=stop))
        cancel: Callable[[], object] = task.cancel
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with anyio.CancelScope() as scope:
            cancel = scope.cancel
            await unpack(archive, folder, progress=stop)
        assert scope.cancelled_caught
    assert told == step
    assert tree(folder) == ({} if is_new else {"mine": b"mine"})
    assert folder.exists() == (not is_new)
    assert len(list(archive.parent.iterdir())) == (1 if is_new else 2)


@pytest.mark.parametrize("ticks", range(15))
async def test_cancelling_at_any_tick_leaves_all_or_nothing(
    archive: Path, folder: Path, nothing_left: Callable[[], None], ticks: int
) -> None:
    archive.write_bytes(zipped({str(number): b"x" for number in range(2 * STEP // SMALL)}))
    task = asyncio.ensure_future(unpack(archive, folder))
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    nothing_left()
    assert len(tree(folder)) in (0, 2 * STEP // SMALL)
    assert len(list(archive.parent.iterdir())) == 1 + folder.exists()


async def test_progress_counts_the_unpacked_bytes_and_ends_acknowledged(archive: Path, folder: Path) -> None:
    archive.write_bytes(zipped({"a": os.urandom(STEP), "b": os.urandom(STEP)}))
    told: list[Progress] = []
    await unpack(archive, folder, progress=told.append)
    total = 2 * STEP
    assert told[-1] == Progress("data.zip", total, total, is_acknowledged=True)
    assert [p.done for p in told] == [STEP, 2 * STEP, 2 * STEP]
    assert [p.is_acknowledged for p in told] == [False, False, True]


async def test_nothing_in_an_archive_is_ever_loaded(archive: Path, folder: Path) -> None:
    bomb = b"cthreading\n_set_sentinel\n(tR."
    archive.write_bytes(zipped({"model.pkl": bomb, "sitecustomize.py": b"raise SystemExit", "x.pth": b"import no"}))
    before = threading.active_count()
    await unpack(archive, folder)
    assert (folder / "model.pkl").read_bytes() == bomb
    assert threading.active_count() <= before + 1
