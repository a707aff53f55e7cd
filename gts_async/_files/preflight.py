"""Preflight: reads data files off the loop and finds what the training would stumble over, before anything is sent.

What makes a file good is in ``gts/datafiles.py``; here they are only read, block by block, in flat memory.
"""

from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path

import attrs

from gts_async._errors import FileError, InvalidData, Problem, plain
from gts_async._files.disk import DiskThread, step
from gts_async._files.originals import MAX_ARRAY, Original, understood
from gts_async._files.steady import LINE, STEP, blocks, identity
from gts_async._progress import OnProgress, Progress
from gts_async.gts.datafiles import DataFile, FileKind, FileReport, compare
from gts_async.gts.faults import ARRAY
from gts_async.gts.formats import HEAD
from gts_async.gts.jsonlines import Cutter
from gts_async.gts.reports import MAX_PROBLEMS, alike
from gts_async.gts.values import EngineType, TaskType

SHOWN = 10
"""Problems that the error's text repeats, those alike counted as one; all of them are in its `problems`."""


async def preflight(
    paths: Sequence[str | Path], task_type: TaskType, engine_type: EngineType
) -> tuple[FileReport, ...]:
    """Give a report for each file, in order, with the warnings between files in those of the files they name.

    Raises InvalidData if there is any error: its `problems` list every one of every file, without the warnings. Raises
    FileMissing and FileError for what cannot be read.
    """
    places = [Path(path) for path in paths]
    reports = await examine(places, [place.name for place in places], task_type, engine_type)
    errors = [problem for report in reports for problem in report.problems if not problem.is_warning]
    if errors:
        raise _invalid(errors, sum(report.errors for report in reports))
    return reports


async def examine(
    paths: Sequence[Path],
    names: Sequence[str],
    task_type: TaskType,
    engine_type: EngineType,
    *,
    max_problems: int = MAX_PROBLEMS,
    tells_unreadable: bool = False,
    progress: OnProgress | None = None,
) -> tuple[FileReport, ...]:
    """Give a report for each file, under its name, with what is wrong between files in those of the files it names.

    A file that cannot be read raises FileMissing or FileError; with `tells_unreadable` it is a problem like others.
    `progress` is told of the bytes of all files that have been read.
    """
    reading = _Reading(paths, names, task_type, engine_type, max_problems, tells_unreadable)
    thread = DiskThread()
    steps = reading.steps()
    try:
        while (state := await thread.run(step, steps)) is not None:
            if progress is not None:
                progress(state)
    finally:
        await thread.finish(steps.close)
    return tuple(reading.reports)


@attrs.define
class _Reading:
    paths: Sequence[Path]
    names: Sequence[str]
    task_type: TaskType
    engine_type: EngineType
    max_problems: int
    tells_unreadable: bool
    reports: list[FileReport] = attrs.field(factory=list)
    done: int = 0
    total: int = 0

    def steps(self) -> Generator[Progress, None, None]:
        """Read the files in the thread, adding their reports; gives how far it has come in each step."""
        seen: set[tuple[int, int]] = set()
        for path in self.paths:
            with suppress(OSError):  # told when it is read
                self.total += path.stat().st_size
        for path, name in zip(self.paths, self.names, strict=True):
            try:
                report = yield from self._read(path, name)
            except FileError as error:
                if not self.tells_unreadable:
                    raise
                report = _unreadable(name, error)
            with suppress(OSError):
                # The file under another name would be found to share every text with itself.
                report = attrs.evolve(report, texts=None if identity(path) in seen else report.texts)
                seen.add(identity(path))
            self.reports.append(report)
        between = compare(self.reports, self.task_type, self.engine_type, self.max_problems)
        self.reports[:] = [_with_more(report, between) for report in self.reports]

    def _read(self, path: Path, name: str) -> Generator[Progress, None, FileReport]:
        data = DataFile(name, self.task_type, self.engine_type, self.max_problems)
        cutter = Cutter()
        fresh = total = work = 0
        for block in blocks(path, "cannot check"):
            if not total:
                data.begin(block[:HEAD])
            total += len(block)
            if data.is_hopeless:
                break
            lines = cutter.cut(block)
            data.feed_all(lines)
            fresh += len(block)
            work += len(block) + LINE * len(lines)
            if work >= STEP:
                self.done += fresh
                yield Progress(name, self.done, self.total)
                fresh = work = 0
        data.feed_all(cutter.rest())
        self.done += fresh
        yield Progress(name, self.done, self.total)
        report = data.report()
        if data.is_hopeless and report.fixable and not (yield from self._can_be_copied(path, report)):
            report = attrs.evolve(report, fixable={})
        return report

    def _can_be_copied(self, path: Path, report: FileReport) -> Generator[Progress, None, bool]:
        """Tell whether a corrected copy of a file that holds no lines would hold some: it may be damaged further on."""
        if path.stat().st_size > MAX_ARRAY:
            return ARRAY not in report.fixable
        looking = understood(path, "cannot check")
        while True:
            try:
                next(looking)
            except StopIteration as found:
                return isinstance(found.value, Original) and report.fixable.keys() <= found.value.changes.keys()
            yield Progress(report.name, self.done, self.total)


def _unreadable(name: str, error: FileError) -> FileReport:
    why = str(error).removeprefix("cannot check: ").removeprefix(f"{error.path}: ")
    problem = Problem(name, 0, "", f"cannot be read: {why}")
    return FileReport(name=name, kind=FileKind.UNREADABLE, rows=0, labels={}, problems=(problem,), errors=1)


def _with_more(report: FileReport, between: Sequence[Problem]) -> FileReport:
    """Add what was found between files; nothing more is compared then."""
    mine = [problem for problem in between if problem.file == report.name]
    if not mine:
        return attrs.evolve(report, texts=None)
    before = [problem for problem in report.problems if not problem.is_warning]
    errors = [problem for problem in mine if not problem.is_warning]
    told = sorted((*before, *errors), key=lambda problem: (not problem.line, problem.line))
    warnings = [problem for problem in (*report.problems, *mine) if problem.is_warning]
    return attrs.evolve(report, problems=(*told, *warnings), errors=report.errors + len(errors), texts=None)


def _invalid(errors: Sequence[Problem], count: int) -> InvalidData:
    groups = alike(errors)
    what = "1 error" if count == 1 else f"{count:,} errors"
    lines = [f"upload: not sent: {what} in the data files:", *map(_line, groups[:SHOWN])]
    if left := sum(map(len, groups[SHOWN:])):
        lines.append(f"and {left:,} more, see .problems")
    text = plain("\n  ".join(lines), 8 * 1024)
    error = InvalidData(text, call="upload", message=text)
    error.problems = tuple(errors)
    return error


def _line(problems: Sequence[Problem]) -> str:
    first, *others = problems
    if not others:
        return str(first)
    left = len(others) - 1
    more = f" and {left:,} other{'s' if left > 1 else ''}" if left else ""
    return f"{first} (and in line {others[0].line}{more})"
