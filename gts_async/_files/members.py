"""What is in a zip archive, and whether all of it may be unpacked. Names only: the bytes are unpacked in `archive`."""

import os
import re
import stat
import struct
import sys
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO

import attrs

from gts_async._errors import DownloadCorrupt, FileError, UnsafePath, plain


@attrs.frozen(kw_only=True)
class ArchiveLimits:
    """What an archive may grow to: how many files and folders, how many bytes, and how many times its own size.

    The defaults are above what the cloud can make: its volumes end at 102400 MB (`pkg/communication/validate.go`).
    The ratio is not looked at below 64 MiB. Deflate reaches 1032 at most, real models stay below 10.
    """

    max_members: int = 100_000
    max_bytes: int = 128 << 30
    max_ratio: float = 100.0


DEFAULT_LIMITS = ArchiveLimits()
RATIO_MATTERS_FROM = 64 << 20
MAX_DEPTH = 64
MAX_COMPONENT = 255
MAX_PATH = 2048
MAX_LISTING = 64 << 20
"""Bytes that the list of members may take: zipfile reads it whole, and a member's entry may have 192 KB."""

PACKED_UNDER = "/data/"
"""Where the cloud's uploader has the model's volume: it names every member absolutely (`pkg/storage/pack.go`)."""

_IS_UTF8 = 0x800
_CODINGS = ("utf-8", "gb18030")
"""What names are in that do not say so: Linux's, or a Chinese Windows's."""

_ENCRYPTED = 0x1 | 0x40 | 0x2000
_DEVICES = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{n}{i}" for n in ("COM", "LPT") for i in range(1, 10))})
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2066-\u2069\\]")
"""Control characters, also those that turn the direction of what is shown, what is no character, and backslashes."""

_DRIVE = re.compile("[A-Za-z]:")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s24x3H12x")


@attrs.frozen
class Member:
    """A file or folder of an archive, and where it goes: path components below the target folder."""

    info: zipfile.ZipInfo
    parts: tuple[str, ...]
    is_folder: bool


def plan(infos: Sequence[zipfile.ZipInfo], archive: str, size: int, limits: ArchiveLimits) -> tuple[Member, ...]:
    """Give what is to be unpacked, folders without contents included, if all of it may be; `size` is the archive's.

    Leading slashes are dropped, and with them the uploader's mount point ``/data/`` where every member has it, so that
    the model's own files come to lie directly in the folder. Raises UnsafePath for a name that would leave the folder
    or that some system would misread, for links and devices, for two files of one name; DownloadCorrupt for members
    that overlap; FileError for what is too much, encrypted or packed in an unknown way. Names that some systems take
    for the same, for they differ only in case or in how their letters are composed, count as one.
    """
    packed = all(info.orig_filename.startswith(PACKED_UNDER) for info in infos)
    members = []
    for info in infos:
        name = _name(info)
        parts = _parts(archive, name.removeprefix(PACKED_UNDER) if packed else name)
        _check_kind(archive, name, info)
        if parts:
            members.append(Member(info, parts, name.endswith("/")))
        elif not name.endswith("/"):
            raise _unsafe(archive, name, "has no name")
    _check_collisions(archive, members)
    _check_amount(archive, members, size, limits)
    _check_overlap(archive, infos, size)
    return tuple(members)


def folders_of(members: Sequence[Member]) -> list[tuple[str, ...]]:
    """Give all folders that the members need, each behind the one that it is in."""
    found: set[tuple[str, ...]] = set()
    for member in members:
        found.update(member.parts[:depth] for depth in range(1, len(member.parts) + member.is_folder))
    return sorted(found, key=len)


def check_count(file: BinaryIO, archive: str, limits: ArchiveLimits) -> None:
    """Raise FileError if the archive lists more members than allowed, before anybody makes an object of each.

    Walks the list as zipfile does, which believes its length in bytes and not the number written beside it.
    """
    start, length = _listing(file)
    if length > MAX_LISTING:
        raise FileError(f"{archive}: its list of members takes {length} bytes, more than {MAX_LISTING}", path=archive)
    file.seek(start)
    count = 0
    while length >= _ENTRY.size:
        head = file.read(_ENTRY.size)
        if len(head) < _ENTRY.size:
            raise zipfile.BadZipFile("the list of members is cut")
        signature, *extra = _ENTRY.unpack(head)
        if signature != b"PK\1\2":
            raise zipfile.BadZipFile("the list of members is broken")
        count += 1
        if count > limits.max_members:
            raise FileError(f"{archive}: has more than {limits.max_members} members (max_members)", path=archive)
        file.seek(sum(extra), os.SEEK_CUR)
        length -= _ENTRY.size + sum(extra)


def _listing(file: BinaryIO) -> tuple[int, int]:
    """Give where the list of members begins, and its length, as zipfile finds them."""
    found = _end(file)
    if found is None:
        raise zipfile.BadZipFile("is not a zip archive, or its end is missing")
    end, length = found
    record_at = end - _LOCATOR.size - _END64.size
    if (told := _located(file, end - _LOCATOR.size)) is not None:
        # Newer Pythons look where they are told first, older ones do not.
        if told != record_at and _record(file, told):
            raise _ambiguous()
        if record := _record(file, record_at):
            end, length = record_at, _END64.unpack(record)[8]
    if length > end:
        raise zipfile.BadZipFile("the list of members is longer than the archive")
    return end - length, length


def _located(file: BinaryIO, at: int) -> int | None:
    """Give where the large record at the end is said to be; None if nothing says so."""
    file.seek(max(0, at))
    locator = file.read(_LOCATOR.size)
    if at < 0 or not locator.startswith(b"PK\6\7"):
        return None
    told: int = _LOCATOR.unpack(locator)[2]
    return told


def _record(file: BinaryIO, at: int) -> bytes | None:
    """Give the large record at the end, if it is there."""
    file.seek(max(0, at))
    record = file.read(_END64.size)
    return record if at >= 0 and len(record) == _END64.size and record.startswith(b"PK\6\6") else None


def _end(file: BinaryIO) -> tuple[int, int] | None:
    """Give where the record at the end begins, and the length of the list that it tells."""
    size = file.seek(0, os.SEEK_END)
    tail_at = max(0, size - _END.size - (1 << 16))
    file.seek(tail_at)
    tail = file.read()
    at = len(tail) - _END.size
    if not (at >= 0 and tail[at:].startswith(b"PK\5\6") and tail.endswith(b"\0\0")):
        at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + _END.size:
        return None
    if any(other != at and _ends_with_its_comment(tail, other) for other in _places(b"PK\5\6", tail)):
        raise _ambiguous()
    return tail_at + at, _END.unpack_from(tail, at)[5]


def _places(signature: bytes, tail: bytes) -> Iterator[int]:
    at = tail.find(signature)
    while at >= 0:
        yield at
        at = tail.find(signature, at + 1)


def _ends_with_its_comment(tail: bytes, at: int) -> bool:
    return len(tail) >= at + _END.size and at + _END.size + _END.unpack_from(tail, at)[7] == len(tail)


def _ambiguous() -> zipfile.BadZipFile:
    """Give the error for an archive in which one program finds other members than the next."""
    return zipfile.BadZipFile("has two ends, of which each tells of other members")


def _name(info: zipfile.ZipInfo) -> str:
    """Give a member's name as it was meant: zipfile takes for IBM's what does not say that it is UTF-8."""
    if not info.flag_bits & _IS_UTF8 and not info.orig_filename.isascii():
        written = info.orig_filename.encode("cp437")
        for coding in _CODINGS:
            with suppress(UnicodeDecodeError):
                return written.decode(coding)
    return info.orig_filename


def _parts(archive: str, name: str) -> tuple[str, ...]:
    if _ODD.search(name) or _DRIVE.match(name.lstrip("/")):
        raise _unsafe(archive, name, "is no plain name")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError:
        problem = f"cannot be written in {sys.getfilesystemencoding()}; set a locale with UTF-8"
        raise _unsafe(archive, name, problem) from None
    if len(parts) > MAX_DEPTH or length > MAX_PATH:
        raise _unsafe(archive, name, "is too long or too deep")
    for part in parts:
        _check_part(archive, name, part)
    return parts


def _check_part(archive: str, name: str, part: str) -> None:
    if part == "..":
        raise _unsafe(archive, name, "would leave the folder")
    if len(os.fsencode(part)) > MAX_COMPONENT:
        raise _unsafe(archive, name, "is too long")
    if part != part.rstrip(". ") or part.partition(".")[0].rstrip().upper() in _DEVICES:
        raise _unsafe(archive, name, "means something else, or a device, on some systems")


def _check_kind(archive: str, name: str, info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    is_folder = name.endswith("/")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR and not is_folder):
        raise _unsafe(archive, name, "is a link or a device, not a file")
    if info.flag_bits & _ENCRYPTED:
        raise FileError(f"{archive}: is encrypted; unpack it with its password", path=archive)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FileError(f"{archive}: is packed by method {info.compress_type}, not deflate", path=archive)


def _check_collisions(archive: str, members: Sequence[Member]) -> None:
    spelled: dict[tuple[str, ...], tuple[str, ...]] = {}
    files: set[tuple[str, ...]] = set()
    folders: set[tuple[str, ...]] = set()
    for member in members:
        name = "/".join(member.parts)
        key = tuple(map(_folded, member.parts))
        for depth in range(1, len(key) + 1):
            if spelled.setdefault(key[:depth], member.parts[:depth]) != member.parts[:depth]:
                raise _unsafe(archive, name, "is there in another spelling, too, which is the same on some systems")
        if member.is_folder:
            folders.add(key)
        elif key in files:
            raise _unsafe(archive, name, "is there twice")
        else:
            files.add(key)
        folders.update(key[:depth] for depth in range(1, len(key)))
    both = files & folders
    if both:
        raise _unsafe(archive, "/".join(spelled[min(both)]), "is both a file and a folder")


def _folded(part: str) -> str:
    """Give what a name is to a system that knows no case and composes letters in its own way."""
    return (
        part
        if part.isascii() and part.islower()
        else unicodedata.normalize("NFD", unicodedata.normalize("NFD", part).casefold())
    )


def _check_amount(archive: str, members: Sequence[Member], size: int, limits: ArchiveLimits) -> None:
    total = sum(member.info.file_size for member in members)
    if total > limits.max_bytes:
        raise FileError(f"{archive}: unpacks to {total} bytes, more than {limits.max_bytes} (max_bytes)", path=archive)
    if total > RATIO_MATTERS_FROM and total > size * limits.max_ratio:
        raise FileError(
            f"{archive}: unpacks to {total} bytes, over {limits.max_ratio:g} times its size (max_ratio)", path=archive
        )


def _check_overlap(archive: str, infos: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Members that share their bytes are how an archive unpacks to more than deflate allows."""
    ends = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < ends or info.header_offset + info.compress_size > size:
            raise DownloadCorrupt(f"{archive}: its members overlap", path=archive)
        ends = info.header_offset + info.compress_size


def _unsafe(archive: str, name: str, problem: str) -> UnsafePath:
    shown = plain(repr(name), 200)
    return UnsafePath(f"{archive}: nothing was unpacked: the member {shown} {problem}", path=archive)
