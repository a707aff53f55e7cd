"""``gts-async check``: what a training would stumble over in data files, and corrected copies of them; no network."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter

from gts_async._errors import InvalidArgument, Problem
from gts_async._files.preflight import examine
from gts_async._files.repair import Copy, repair
from gts_async._progress import Progress
from gts_async.cli.exits import Exit
from gts_async.cli.options import Flag, Given
from gts_async.cli.show import Show
from gts_async.gts.faults import ARRAY, BLANK_LINES, BYTE_ORDER_MARKS, COMMAS, ENCODING, IDS, NUMBER_LABELS
from gts_async.gts.reports import FileKind, FileReport, alike
from gts_async.gts.values import PIPELINES, EngineType, TaskType, check_name, check_pipeline

INTO = Path("fixed")

MAX_PROBLEMS = 200
LINES_SHOWN = 12
"""Lines that are named where many have the same fault; JSON names them all."""

CHANGES = {
    ENCODING: ("was {encoding}, is UTF-8", "was {encoding}, is UTF-8"),
    BYTE_ORDER_MARKS: ("byte order mark removed", "{count} byte order marks removed"),
    ARRAY: ("1 row put on a line of its own", "{count} rows put on lines of their own"),
    BLANK_LINES: ("1 blank line removed", "{count} blank lines removed"),
    COMMAS: ("1 comma behind a row removed", "{count} commas behind rows removed"),
    IDS: ("1 row numbered", "{count} rows numbered"),
    NUMBER_LABELS: ("1 number turned into a label", "{count} numbers turned into labels"),
}
"""The words for each kind of change, for one and for many, in the order that they are made."""

WORDS = {
    FileKind.LABELS: "labels",
    FileKind.LABELLED: "labelled rows",
    FileKind.UNLABELLED: "rows without a label",
    FileKind.UNREADABLE: "no rows",
}


async def check(
    file: Path,
    /,
    *files: Path,
    task_type: Annotated[TaskType, Parameter(name="--task-type")],
    engine_type: Annotated[EngineType | None, Parameter(name="--engine-type")] = None,
    fix: Flag = False,
    into: Path = INTO,
    force: Flag = False,
    max_problems: int = MAX_PROBLEMS,
    options: Given,
) -> int:
    """Check data files before they are sent; see `app.HELPS`.

    Args:
        file: a file of rows, or of labels
        files: the others of the same task: what is wrong between them is told as well
        task_type: what the task is to learn
        engine_type: which of the engine's two training stacks it uses; only classification has the choice
        fix: write corrected copies, check those, and say what was changed and what is still wrong
        into: folder for the copies; made if it is not there
        force: with --fix: overwrite other files of the same names in that folder, though never an original
        max_problems: faults of each file that are shown; the rest is counted
        options: the global ones
    """
    paths = (file, *files)
    pipeline = check_pipeline(task_type, engine_type or _only_engine(task_type))
    if max_problems < 1:
        raise InvalidArgument("--max-problems", f"{max_problems} is too few", "use 1 or more")
    began = time.monotonic()
    copies: Sequence[Copy | None] = [None] * len(paths)
    shown = list(paths)
    with options.show.live("checking") as update:

        def progress(state: Progress) -> None:
            update(f"checking  {state}")

        if fix:
            update("correcting")
            copies = await repair(paths, into, *pipeline, is_forced=force)
            shown = [copy.target or copy.source for copy in copies]
        reports = await examine(
            shown,
            [str(path) for path in shown],
            *pipeline,
            max_problems=max_problems,
            tells_unreadable=True,
            progress=progress,
        )
    reports = tuple(map(_with_name, reports))
    for path, report, copy in zip(paths, reports, copies, strict=True):
        _show(options.show, path, report, copy)
    return _sum_up(options.show, reports, time.monotonic() - began, is_fixed=fix)


def _only_engine(task_type: TaskType) -> EngineType:
    engines = [engine for engine, kind in PIPELINES if kind is task_type]
    if len(engines) > 1:
        raise InvalidArgument("--engine-type", f"is needed for {task_type}", f"use {' or '.join(sorted(engines))}")
    return engines[0]


def _with_name(report: FileReport) -> FileReport:
    """Add what is wrong with the file's name: the upload would refuse it."""
    try:
        check_name("name", Path(report.name).name)
    except InvalidArgument as error:
        problem = Problem(report.name, 0, "", f"its name {error.problem}, which breaks the engine's command", error.fix)
        return attrs.evolve(report, problems=(problem, *report.problems), errors=report.errors + 1)
    return report


def _show(show: Show, path: Path, report: FileReport, copy: Copy | None) -> None:
    warnings = sum(problem.is_warning for problem in report.problems)
    record: dict[str, object] = {
        "file": str(path),
        "kind": report.kind,
        "rows": report.rows,
        "errors": report.errors,
        "warnings": warnings,
        "fixable": report.fixable,
        "problems": [_record(problem) for problem in report.problems],
    }
    if copy is not None:
        record["copy"] = None if copy.target is None else str(copy.target)
        record |= {"changes": copy.changes, "encoding": copy.encoding or None, "why_no_copy": copy.why_not or None}
    if show.is_json:
        show.data(record)
        return
    count = len(report.labels) if report.kind is FileKind.LABELS else report.rows
    what = WORDS[report.kind]
    amount = what if report.kind is FileKind.UNREADABLE else f"{count} {what[:-1] if _is_one(count, what) else what}"
    style = "bold red" if report.errors else "bold yellow" if warnings else "bold green"
    show.data({}, f"{report.name}  {amount}: {_verdict(report.errors, warnings)}", style)
    for line in () if copy is None else _changes(copy):
        show.data({}, f"  {line}", "cyan")
    for problems in alike(report.problems):
        _show_problems(show, problems)


def _is_one(count: int, words: str) -> bool:
    return count == 1 and words.endswith("s")


def _record(problem: Problem) -> Mapping[str, object]:
    return attrs.asdict(problem, filter=lambda field, _: field.name != "file")


def _show_problems(show: Show, problems: Sequence[Problem]) -> None:
    """Show one fault, with all the lines that have it."""
    problem, *others = problems
    where = f"{problem.file}:{problem.line}" if problem.line else problem.file
    field = f"{problem.field}: " if problem.field else ""
    word = "warning" if problem.is_warning else "error"
    show.data({}, f"  {where}: {word}: {field}{problem.why}", "yellow" if problem.is_warning else "red", is_prose=True)
    if others:
        lines = ", ".join(str(other.line) for other in others[:LINES_SHOWN])
        more = f" and {_count(len(others) - LINES_SHOWN, 'other')}" if len(others) > LINES_SHOWN else ""
        show.data({}, f"      so {'is line' if len(others) == 1 else 'are lines'} {lines}{more}", "dim", is_prose=True)
    if problem.remedy:
        show.data({}, f"      {problem.remedy}", "dim", is_prose=True)


def _changes(copy: Copy) -> Iterator[str]:
    if copy.target is None:
        yield f"no copy of {copy.source}: {copy.why_not}"
        return
    for kind, (one, many) in CHANGES.items():
        if count := copy.changes.get(kind):
            yield (one if count == 1 else many).format(count=f"{count:,}", encoding=copy.encoding)
    if not copy.changes:
        yield f"the same as {copy.source}"
    if not copy.is_written:
        yield "was there already"


def _verdict(errors: int, warnings: int) -> str:
    words = [_count(errors, "error"), _count(warnings, "warning")]
    return ", ".join(word for word in words if not word.startswith("0 ")) or "good"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def _sum_up(show: Show, reports: Sequence[FileReport], seconds: float, *, is_fixed: bool) -> int:
    errors = sum(report.errors for report in reports)
    warnings = sum(problem.is_warning for report in reports for problem in report.problems)
    fixable = sum(sum(report.fixable.values()) for report in reports if report.errors)
    text = f"{_count(len(reports), 'file')}, {_verdict(errors, warnings)} ({seconds:.1f} s)"
    show.talk(text, "bold red" if errors else "yellow" if warnings else "bold green")
    if fixable and not is_fixed:
        show.talk(
            "  some of it can be mended: the same command with --fix writes corrected copies into a folder", "cyan"
        )
    return Exit.FAILED if errors else Exit.OK
