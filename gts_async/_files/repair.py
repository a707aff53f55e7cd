"""Writes corrected copies of data files into a folder; the originals are read and never touched.

What a copy changes is in ``gts/repairs.py``. Everything here blocks and runs in a DiskThread.
"""

import codecs
import errno
import os
import secrets
import stat
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs

from gts_async._errors import FileError, InvalidArgument
from gts_async._files.disk import DiskThread, step, translated
from gts_async._files.preflight import STEP
from gts_async._files.steady import BLOCK, blocks, identity
from gts_async.gts.formats import GBK, HEAD, MARKED_UTF8, Commonness, Encoding, encoding_of, foreign
from gts_async.gts.jsonlines import NOT_LINES, Cutter, misread
from gts_async.gts.repairs import ARRAY, BYTE_ORDER_MARKS, ENCODING, LargestId, Repairer, lines_of
from gts_async.gts.repeats import WANTS_IDS
from gts_async.gts.values import EngineType, TaskType

MAX_ARRAY = 32 << 20
"""Bytes of an array, or of objects over several lines, that are still turned into lines: it is read whole."""

WHAT = "cannot correct"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW

Lines = Callable[[], Iterator[bytes]]


@attrs.frozen(kw_only=True)
class Copy:
    """What became of one file: `target`, None if no copy can be made of it, for the reason that `why_not` gives.

    `changes` counts what was changed, by kind; `encoding` is what the original was in, if it was not UTF-8.
    `is_written` is False if that very copy was there already.
    """

    source: Path
    target: Path | None = None
    changes: Mapping[str, int] = attrs.field(factory=dict)
    encoding: str = ""
    is_written: bool = False
    why_not: str = ""


async def repair(
    paths: Sequence[Path], into: Path, task_type: TaskType, engine_type: EngineType, *, is_forced: bool = False
) -> tuple[Copy, ...]:
    """Write a corrected copy of each file into the folder, under its name, each whole or not at all.

    What is there already stays, if it is not the same to the byte: FileError, unless `is_forced`. An original is
    refused as a target in any case, by whatever name or link. Raises InvalidArgument for two files of one name.
    """
    copies: list[Copy] = []
    thread = DiskThread()
    steps = _steps(paths, into, task_type, engine_type, is_forced, copies)
    try:
        while await thread.run(step, steps) is not None:
            pass
    finally:
        await thread.finish(steps.close)
    return tuple(copies)


def _steps(
    paths: Sequence[Path],
    into: Path,
    task_type: TaskType,
    engine_type: EngineType,
    is_forced: bool,
    copies: list[Copy],
) -> Generator[int, None, None]:
    names = [path.name for path in paths]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise InvalidArgument("files", f"two are called {double}", "correct them into folders of their own")
    originals = frozenset(_identities(paths))
    with translated(into, "cannot write to"):
        into.mkdir(parents=True, exist_ok=True)
    for path in paths:
        _refuse_original(into / path.name, originals)
    for path in paths:
        yield 0
        try:
            original = yield from _understood(path)
        except FileError as error:
            original = str(error).removeprefix(f"{WHAT}: ").removeprefix(f"{path}: ")
        if isinstance(original, str):
            copies.append(Copy(source=path, why_not=original))
            continue
        number = yield from _first_id(original.lines, (engine_type, task_type))
        repairer = Repairer(task_type, engine_type, number)
        target = into / path.name
        is_written = yield from _write(target, map(repairer.mend, original.lines()), originals, is_forced)
        changes = {**original.changes, **{kind: count for kind, count in repairer.changes.items() if count}}
        copies.append(
            Copy(source=path, target=target, changes=changes, encoding=original.encoding, is_written=is_written)
        )


def _identities(paths: Sequence[Path]) -> Iterator[tuple[int, int]]:
    for path in paths:
        with suppress(OSError):  # what is not there is told when it is read
            yield identity(path)


@attrs.frozen
class _Original:
    """How a file's lines are read in UTF-8, as often as needed, and what has been changed in them for that."""

    lines: Lines
    changes: Mapping[str, int]
    encoding: str


def _understood(path: Path) -> Generator[int, None, "_Original | str"]:
    """Find out what a file is; gives why it cannot be corrected where it is no text of rows at all."""
    head = next(blocks(path, WHAT), b"")[:HEAD]
    if fault := foreign(head):
        return fault.why
    encoding = encoding_of(head)
    if encoding is None or encoding == MARKED_UTF8:
        is_utf8 = yield from _decodes(path, MARKED_UTF8)
        is_gbk = not is_utf8 and (yield from _decodes(path, GBK))
        encoding = GBK if is_gbk else None
    elif not (yield from _decodes(path, encoding)):
        return f"is {encoding.name}, but damaged"
    changes = {} if encoding is None else {ENCODING: 1}
    name = "" if encoding is None else encoding.name
    read = partial(_in_utf8, path, encoding)
    start = b"".join(_first(read(), HEAD))
    if misread(start) == NOT_LINES and path.stat().st_size <= MAX_ARRAY:
        with suppress(ValueError, RecursionError):
            text = b"".join(read()).decode("utf-8-sig")
            rows = 0
            for _ in lines_of(text):  # read to the end first: half a file of rows would hide that the rest is broken
                rows += 1
                if rows % 1000 == 0:
                    yield 0
            marks = {BYTE_ORDER_MARKS: 1} if encoding_of(head) == MARKED_UTF8 else {}
            return _Original(partial(lines_of, text), {**changes, **marks, ARRAY: rows}, name)
    return _Original(partial(_lines, read), changes, name)


def _decodes(path: Path, encoding: Encoding) -> Generator[int, None, bool]:
    """Tell whether the whole file is likely to be in that encoding."""
    decoder = codecs.getincrementaldecoder(encoding.codec)()
    seen = Commonness()
    done = 0
    try:
        for block in blocks(path, WHAT):
            text = decoder.decode(block)
            if encoding == GBK:
                seen.see(text)
            done += len(block)
            if done >= STEP:
                yield done
                done = 0
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return seen.is_chinese


def _in_utf8(path: Path, encoding: Encoding | None) -> Iterator[bytes]:
    if encoding is None:
        yield from blocks(path, WHAT)
        return
    decoder = codecs.getincrementaldecoder(encoding.codec)()
    mark = encoding.mark
    for block in blocks(path, WHAT):
        yield decoder.decode(block[mark:]).encode()
        mark = 0


def _lines(read: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    cutter = Cutter()
    for block in read():
        yield from cutter.cut(block) if block else ()
    yield from cutter.rest()


def _first(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    for piece in pieces:
        yield piece[:size]
        size -= len(piece)
        if size <= 0:
            return


def _first_id(lines: Lines, pipeline: tuple[EngineType, TaskType]) -> Generator[int, None, int]:
    largest = LargestId()
    if pipeline in WANTS_IDS:
        done = 0
        for line in lines():
            largest.see(line)
            done += len(line)
            if done >= STEP:
                yield done
                done = 0
    return largest.next


def _write(
    target: Path, lines: Iterator[bytes], originals: frozenset[tuple[int, int]], is_forced: bool
) -> Generator[int, None, bool]:
    """Write the lines beside the target and put them in its place; gives False if they were there already."""
    unfinished = target.with_name(f".{target.name[:200]}.{secrets.token_hex(8)}.part")
    with translated(target, "cannot write"):
        descriptor = os.open(unfinished, _NEW, 0o666)
        try:
            with os.fdopen(descriptor, "wb", buffering=BLOCK) as file:
                done = 0
                for line in lines:
                    file.write(line)
                    done += len(line)
                    if done >= STEP:
                        yield done
                        done = 0
                file.flush()
                os.fsync(file.fileno())
            _refuse_original(target, originals)
            is_written = _put(unfinished, target, is_forced)
            _sync_folder(target.parent)
        finally:
            with suppress(FileNotFoundError):
                unfinished.unlink()
    return is_written


def _put(unfinished: Path, target: Path, is_forced: bool) -> bool:
    try:
        # Unlike a rename, a link never takes another file's place.
        os.link(unfinished, target)
    except FileExistsError:
        if _is_same(unfinished, target):
            return False
        if not is_forced:
            raise FileError(
                f"{target}: is there already, and differs; take another folder, or overwrite it with --force",
                path=os.fspath(target),
            ) from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without links, which can be asked before only.
        if target.exists() and not is_forced:
            raise FileError(f"{target}: is there already", path=os.fspath(target)) from None
    else:
        return True
    os.replace(unfinished, target)
    return True


def _refuse_original(target: Path, originals: frozenset[tuple[int, int]]) -> None:
    """Refuse a target that is one of the originals, by any link, or no regular file at all."""
    with translated(target, "cannot write"):
        for look in (os.stat, os.lstat):
            with suppress(FileNotFoundError):
                seen = look(target)
                if (seen.st_dev, seen.st_ino) in originals:
                    why = "is the original itself, which is never written to; take another folder"
                    raise FileError(f"{target}: {why}", path=os.fspath(target))
                if not stat.S_ISREG(seen.st_mode):
                    what = "a link" if stat.S_ISLNK(seen.st_mode) else "no regular file"
                    raise FileError(f"{target}: is {what}, which is never written over", path=os.fspath(target))


def _is_same(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.lstat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while block := left.read(BLOCK):
            if block != right.read(BLOCK):
                return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
