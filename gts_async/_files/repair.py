"""Writes corrected copies of data files into a folder; the originals are read and never touched.

What a copy changes is in ``gts/repairs.py``. Everything here blocks and runs in a DiskThread.
"""

import errno
import os
import secrets
import stat
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import attrs

from gts_async._errors import FileError, InvalidArgument
from gts_async._files.disk import DiskThread, step, translated
from gts_async._files.originals import Lines, understood
from gts_async._files.steady import BLOCK, LINE, STEP, changed, identity, version
from gts_async.gts.repairs import LargestId, Repairer
from gts_async.gts.repeats import WANTS_IDS
from gts_async.gts.values import EngineType, TaskType

WHAT = "cannot correct"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


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
            before = version(path, WHAT)
            original = yield from understood(path, WHAT)
        except FileError as error:
            copies.append(Copy(source=path, why_not=str(error).removeprefix(f"{WHAT}: ").removeprefix(f"{path}: ")))
            continue
        if isinstance(original, str):
            copies.append(Copy(source=path, why_not=original))
            continue
        number = yield from _first_id(original.lines, (engine_type, task_type))
        repairer = Repairer(task_type, engine_type, number)
        target = into / path.name
        lines = map(repairer.mend, _unchanged(path, before, original.lines()))
        is_written = yield from _write(target, lines, originals, is_forced)
        changes = {**original.changes, **{kind: count for kind, count in repairer.changes.items() if count}}
        copies.append(
            Copy(source=path, target=target, changes=changes, encoding=original.encoding, is_written=is_written)
        )


def _identities(paths: Sequence[Path]) -> Iterator[tuple[int, int]]:
    for path in paths:
        with suppress(OSError):  # what is not there is told when it is read
            yield identity(path)


def _unchanged(path: Path, before: tuple[int, int, int], lines: Iterator[bytes]) -> Iterator[bytes]:
    """Give the lines; raises FileError in the end if the file is another one than it was understood as."""
    try:
        yield from lines
    except UnicodeDecodeError:
        raise changed(path, WHAT) from None
    if version(path, WHAT) != before:
        raise changed(path, WHAT)


def _first_id(lines: Lines, pipeline: tuple[EngineType, TaskType]) -> Generator[int, None, int]:
    largest = LargestId()
    if pipeline in WANTS_IDS:
        done = 0
        for line in lines():
            largest.see(line)
            done += len(line) + LINE
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
                    done += len(line) + LINE
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
