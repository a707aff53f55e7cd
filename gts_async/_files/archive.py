"""Unpacking a model's archive, which is somebody else's file: nothing leaves the folder, nothing grows without bound.

Only zip, which is what the cloud makes. Nothing that was unpacked is ever loaded: a pickle in it runs code when it is.
"""

import errno
import fcntl
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import attrs

from gts_async._errors import DownloadCorrupt, FileError, UnsafePath
from gts_async._files.disk import DiskThread, may_write, opened, step, translated
from gts_async._files.members import DEFAULT_LIMITS, ArchiveLimits, Member, check_count, folders_of, plan
from gts_async._files.staging import staged, sync_file, sync_folder
from gts_async._progress import OnProgress, Progress

PIECE = 1 << 20
STEP = 8 << 20
"""Bytes unpacked between two chances to cancel; a file of any size counts as `SMALL` at least."""

SMALL = 64 << 10
SYNCING = 8
"""Files that are synced at once: a disk writes what it is told by many in one go, and is else waited for each time."""


async def unpack(
    archive: Path, directory: Path, *, limits: ArchiveLimits = DEFAULT_LIMITS, progress: OnProgress | None = None
) -> list[Path]:
    """Unpack the zip `archive` into the folder `directory`; give the files' paths, in the archive's order.

    Everything is unpacked beside its place first, and synced. Then a new `directory` appears whole, or not at all; into
    one that exists each file is moved by itself, taking the place of its namesake, and what else is there stays: so
    unpacking twice works, and after a crash between two files it makes them whole. What a crash left beside is removed.
    Files and folders are made with the modes of your umask, without any that the archive names, and the present time.
    ``/data/``, where the cloud's uploader has the model, is not part of the paths.

    Raises FileMissing, UnsafePath, DownloadCorrupt and FileError, and leaves `directory` as it was, for what `plan` in
    `members` lists, for a member that is not what the archive says, and if the disk fails or is full. Before anything
    is written it raises FileError if the disk has no room for all.
    """
    thread = DiskThread()
    unpacking = _Unpacking(Path(archive), Path(directory), limits)
    steps = unpacking.steps()
    told = 0
    try:
        while (done := await thread.run(step, steps)) is not None:
            if progress is not None and done != told:
                told = done
                progress(Progress(unpacking.archive.name, done, unpacking.total))
    finally:
        # Closing the steps removes what is unpacked beside its place, cancelled or not.
        await thread.finish(steps.close)
    if progress is not None:
        progress(Progress(unpacking.archive.name, unpacking.total, unpacking.total, is_acknowledged=True))
    return unpacking.files


@attrs.define
class _Unpacking:
    """One archive being unpacked, in the thread."""

    archive: Path
    directory: Path
    limits: ArchiveLimits
    total: int = 0
    files: list[Path] = attrs.field(factory=list)
    itself: os.stat_result = attrs.field(init=False)
    """What the archive is, by whatever name."""

    def steps(self) -> Generator[int, None, None]:
        """Do the work; between the steps, which give the bytes unpacked so far, it may be closed."""
        with _read_errors(self.archive), opened(self.archive) as file:
            with suppress(OSError):
                # A download that would take it back from under us is refused then, where locks are known.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            check_count(file, str(self.archive), self.limits)
            with zipfile.ZipFile(file) as content:
                self.itself = os.fstat(file.fileno())
                members = plan(content.infolist(), str(self.archive), self.itself.st_size, self.limits)
                self.total = sum(member.info.file_size for member in members)
                with translated(self.directory, "cannot unpack into"):
                    self._check_room()
                    yield from self._unpacked(content, members)

    def _check_room(self) -> None:
        """Raise FileError if the disk is too full; one that does not tell its size may be."""
        try:
            disk = os.statvfs(self.directory if self.directory.is_dir() else self.directory.parent)
        except OSError:
            return
        free = (disk.f_bavail if os.geteuid() else disk.f_bfree) * disk.f_frsize
        if disk.f_blocks and free < self.total:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            problem = f"needs {self.total} bytes, {free} are free; nothing was unpacked"
            raise FileError(f"{self.directory}: {problem}", path=str(self.directory)) from full

    def _unpacked(self, content: zipfile.ZipFile, members: Sequence[Member]) -> Generator[int, None, None]:
        is_new = not os.path.lexists(self.directory)
        with staged(self.directory, self.directory.parent if is_new else self.directory) as staging:
            yield from self._fill(staging, content, members)
            if is_new:
                os.rename(staging, self.directory)
                sync_folder(self.directory.parent)
            else:
                self._merge(staging, members)
        self.files = [self.directory.joinpath(*member.parts) for member in members if not member.is_folder]

    def _fill(self, staging: Path, content: zipfile.ZipFile, members: Sequence[Member]) -> Generator[int, None, None]:
        done = since = 0
        for member in members:
            path = staging.joinpath(*member.parts)
            (path if member.is_folder else path.parent).mkdir(parents=True, exist_ok=True)
            since += SMALL
            for count in () if member.is_folder else self._inflate(content, member, path):
                done, since = done + count, since + count
                if since >= STEP:
                    since = 0
                    yield done
        for count in self._synced(staging, members):
            since += count
            if since >= STEP:
                since = 0
                yield done

    def _inflate(self, content: zipfile.ZipFile, member: Member, path: Path) -> Iterator[int]:
        """Write one file; gives the bytes of each piece. More than was declared is never written."""
        left = member.info.file_size
        with translated(path, "cannot unpack to"), open(path, "xb") as file:
            for piece in self._pieces(content, member):
                left -= len(piece)
                if left < 0:
                    break
                file.write(piece)
                yield len(piece)
        if left:
            raise DownloadCorrupt(f"{self.archive}: {path.name} is not as long as declared", path=str(self.archive))

    def _pieces(self, content: zipfile.ZipFile, member: Member) -> Iterator[bytes]:
        with _read_errors(self.archive), content.open(member.info) as source:
            while piece := source.read(PIECE):
                yield piece

    def _synced(self, staging: Path, members: Sequence[Member]) -> Iterator[int]:
        """Have all on the disk itself before it is put in place: who sees it may drop the archive. Gives sizes."""
        with ThreadPoolExecutor(SYNCING, thread_name_prefix="gts-async-disk") as threads:
            held, jobs = 0, list[Callable[[], None]]()
            for job, size in _syncing(staging, members):
                held += size
                jobs.append(job)
                if held >= STEP:
                    _do(threads, jobs)
                    yield held
                    held, jobs = 0, []
            _do(threads, jobs)

    def _merge(self, staging: Path, members: Sequence[Member]) -> None:
        """Move each file to its place in the folder that is there; nothing is moved unless all can be."""
        for member in members:
            self._check_place(member)
        folders = [self.directory.joinpath(*parts) for parts in folders_of(members)]
        made: list[Path] = []
        try:
            for folder in folders:
                if not folder.is_dir():
                    folder.mkdir()
                    made.append(folder)
                elif folder.stat().st_dev != staging.stat().st_dev:
                    raise FileError(f"{folder}: is on another disk; unpack to where all is on one", path=str(folder))
                elif not may_write(folder):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        except (OSError, FileError):
            for folder in reversed(made):
                with suppress(OSError):
                    folder.rmdir()
            raise
        for member in members:
            if not member.is_folder:
                os.replace(staging.joinpath(*member.parts), self.directory.joinpath(*member.parts))
        for folder in (self.directory, *folders):
            sync_folder(folder)

    def _check_place(self, member: Member) -> None:
        place = self.directory
        for depth, part in enumerate(member.parts, start=1):
            place = place / part
            try:
                there = place.lstat()
            except FileNotFoundError:
                return
            mode = there.st_mode
            is_last = depth == len(member.parts)
            if os.path.samestat(there, self.itself):
                raise UnsafePath(f"{place}: is the archive itself, and one of its members is named so", path=str(place))
            if stat.S_ISLNK(mode) and not (is_last and not member.is_folder):
                raise UnsafePath(f"{place}: is a link, which would lead out of the folder; remove it", path=str(place))
            if stat.S_ISDIR(mode) != (not is_last or member.is_folder):
                kind = "folder" if stat.S_ISDIR(mode) else "file"
                raise FileError(f"{place}: there is a {kind} of that name; remove it", path=str(place))


def _syncing(staging: Path, members: Sequence[Member]) -> Iterator[tuple[Callable[[], None], int]]:
    """Give what is to be done so that all is on the disk, each with the bytes that it may be about."""
    for member in members:
        if not member.is_folder:
            yield partial(sync_file, staging.joinpath(*member.parts)), max(SMALL, member.info.file_size)
    for folder in (*folders_of(members), ()):
        yield partial(sync_folder, staging.joinpath(*folder)), SMALL


def _do(threads: ThreadPoolExecutor, jobs: Sequence[Callable[[], None]]) -> None:
    for future in [threads.submit(job) for job in jobs]:
        future.result()


@contextmanager
def _read_errors(archive: Path) -> Iterator[None]:
    """Turn what zipfile raises for a damaged archive into ours."""
    try:
        with translated(archive, "cannot read"):
            yield
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, OverflowError, RuntimeError) as error:
        raise DownloadCorrupt(f"{archive}: is damaged or no zip archive: {error}", path=str(archive)) from error
