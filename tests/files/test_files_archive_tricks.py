"""Archives that different programs read differently, names in other codings, and disks without room for them."""

import errno
import io
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gts_async._errors import DownloadCorrupt, FileError, UnsafePath
from gts_async._files.archive import unpack
from gts_async._files.members import ArchiveLimits

END = struct.Struct("<4s4H2LH")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR = struct.Struct("<4sLQL")


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


def named(name: bytes) -> bytes:
    """Give an archive whose only member has this name, in whatever coding."""
    stand_in = b"x" * len(name)
    return zipped({stand_in.decode(): b"1"}).replace(stand_in, name)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "data.zip"


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# Names


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("模型/权重.bin".encode(), "模型/权重.bin"),
        ("模型/权重.bin".encode("gbk"), "模型/权重.bin"),
        ("誠實.bin".encode("gbk"), "誠實.bin"),
        (b"/data/" + "词表.txt".encode("gbk"), "词表.txt"),
        (b"caf\x82.txt", "café.txt"),
    ],
)
async def test_a_name_that_does_not_tell_its_coding_is_read_as_it_was_meant(
    archive: Path, tmp_path: Path, name: bytes, there: str
) -> None:
    """A letter of "誠" is a backslash to whoever takes it for something else."""
    archive.write_bytes(named(name))
    assert await unpack(archive, tmp_path / "model") == [tmp_path / "model" / there]


@pytest.mark.parametrize("name", ["../模型".encode("gbk"), "模型/../../x".encode(), b"\xb0\xa1\\..\\x", b"C:/\xb0\xa1"])
async def test_and_it_is_judged_as_it_is_read(archive: Path, tmp_path: Path, name: bytes) -> None:
    archive.write_bytes(named(name))
    with pytest.raises(UnsafePath):
        await unpack(archive, tmp_path / "model")
    assert names_in(tmp_path) == ["data.zip"]


UNPACKING = """
import asyncio, sys
from pathlib import Path
from gts_async._errors import UnsafePath
from gts_async._files.archive import unpack
try:
    asyncio.run(unpack(Path(sys.argv[1]), Path(sys.argv[2])))
except UnsafePath as error:
    print(ascii(str(error)))
"""


def test_a_name_that_the_system_cannot_write_is_told_as_such(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(named("模型".encode()))
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", UNPACKING, str(archive), str(tmp_path / "model")]
    done = subprocess.run(command, env=ascii_only, capture_output=True, text=True, check=True)
    assert "cannot be written in ascii" in done.stdout
    assert names_in(tmp_path) == ["data.zip"]


async def test_two_codings_of_one_name_are_two_of_one_name(archive: Path, tmp_path: Path) -> None:
    content = zipped({"xxxx": b"1", "yyyyyy": b"2"})
    archive.write_bytes(content.replace(b"xxxx", "模型".encode("gbk")).replace(b"yyyyyy", "模型".encode()))
    with pytest.raises(UnsafePath, match="twice"):
        await unpack(archive, tmp_path / "model")


async def test_a_member_does_not_take_the_place_of_its_archive(archive: Path, tmp_path: Path) -> None:
    content = zipped({"a": b"1", archive.name: b"2"})
    archive.write_bytes(content)
    with pytest.raises(UnsafePath, match="the archive itself"):
        await unpack(archive, tmp_path)
    assert archive.read_bytes() == content
    assert names_in(tmp_path) == [archive.name]


# Ends


def with_a_second_end(comment_length: int) -> bytes:
    """Give an archive with a comment that is the end of another archive, of nothing."""
    made = zipped({"a": b"1"})
    return made[:-2] + struct.pack("<H", comment_length) + END.pack(b"PK\5\6", 0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("comment_length", [END.size, END.size + 5])
async def test_an_archive_with_two_ends_is_not_believed(archive: Path, tmp_path: Path, comment_length: int) -> None:
    junk = bytes(comment_length - END.size)
    archive.write_bytes(with_a_second_end(comment_length) + junk)
    with pytest.raises(DownloadCorrupt, match="two ends"):
        await unpack(archive, tmp_path / "model")
    assert names_in(tmp_path) == ["data.zip"]


async def test_an_archive_in_an_archive_is_no_second_end(archive: Path, tmp_path: Path) -> None:
    inner = zipped({"a": b"1"})
    archive.write_bytes(zipped({"inner.zip": inner, "b": inner[-60:]}))
    await unpack(archive, tmp_path / "model")
    assert (tmp_path / "model/inner.zip").read_bytes() == inner


async def test_a_comment_is_passed_over(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(zipped({"a": b"1"})[:-2] + struct.pack("<H", 9) + b"a comment")
    assert await unpack(archive, tmp_path / "model") == [tmp_path / "model/a"]


async def test_two_large_ends_are_not_believed(archive: Path, tmp_path: Path) -> None:
    """The locator tells one list, the place right before it another: which one is read depends on the program."""
    made = zipped({"a": b"1"})
    start, stop = made.index(b"PK\1\2"), made.index(b"PK\5\6")
    length = stop - start
    true = END64.pack(b"PK\6\6", 44 + END64.size, 45, 45, 0, 0, 1, 1, length, start)
    other = END64.pack(b"PK\6\6", 44, 45, 45, 0, 0, 0, 0, 0, stop + END64.size)
    end = END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    archive.write_bytes(made[:stop] + true + other + LOCATOR.pack(b"PK\6\7", 0, stop, 1) + end)
    with pytest.raises(DownloadCorrupt, match="two ends"):
        await unpack(archive, tmp_path / "model")


# Room


def boasting(size: int) -> bytes:
    """Give an archive that declares a file of so many bytes."""
    made = zipped({"a": b"1"})
    start, stop = made.index(b"PK\1\2"), made.index(b"PK\5\6")
    entry = bytearray(made[start:stop]) + struct.pack("<HHQ", 1, 8, size)
    struct.pack_into("<L", entry, 24, 0xFFFFFFFF)
    struct.pack_into("<H", entry, 30, 12)
    return made[:start] + entry + END.pack(b"PK\5\6", 0, 0, 1, 1, len(entry), start, 0)


@pytest.mark.parametrize("is_new", [True, False])
async def test_what_cannot_fit_is_told_before_a_byte_is_written(archive: Path, tmp_path: Path, is_new: bool) -> None:
    free = os.statvfs(tmp_path)
    size = free.f_bfree * free.f_frsize + (1 << 30)
    archive.write_bytes(boasting(size))
    place = tmp_path / "model" if is_new else tmp_path
    limits = ArchiveLimits(max_bytes=1 << 62, max_ratio=1e18)
    with pytest.raises(FileError, match=rf"needs {size} bytes, \d+ are free") as caught:
        await unpack(archive, place, limits=limits)
    assert type(caught.value) is FileError
    assert caught.value.path == str(place)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert names_in(tmp_path) == ["data.zip"]


# Disks


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a folder within a folder, on a disk of its own."""
    folder = tmp_path / "model/sub"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_folder_on_another_disk_is_told_before_a_file_is_moved(archive: Path, other_disk: Path) -> None:
    archive.write_bytes(zipped({"a": b"1", "sub/b": b"2"}))
    with pytest.raises(FileError, match="on another disk") as caught:
        await unpack(archive, other_disk.parent)
    assert caught.value.path == str(other_disk)
    assert names_in(other_disk.parent) == ["sub"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
async def test_what_a_disk_says_of_syncing_counts_if_it_knows_how(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    archive.write_bytes(zipped({f"f{count}": b"1" for count in range(100)}))

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    if number == errno.EINVAL:
        assert len(await unpack(archive, tmp_path / "model")) == 100
    else:
        with pytest.raises(FileError, match="cannot unpack into"):
            await unpack(archive, tmp_path / "model")
        assert names_in(tmp_path) == ["data.zip"]
