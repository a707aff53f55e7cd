"""Preflight: reads data files off the loop and finds what the training would stumble over, before anything is sent.

What makes a file good is in ``gts/datafiles.py``; here they are only read, line by line, in flat memory.
"""

from collections.abc import Generator, Sequence
from pathlib import Path

import attrs

from gts_async._errors import InvalidData, Problem, plain
from gts_async._files.disk import DiskThread, opened, step, translated
from gts_async.gts.datafiles import MAX_LINE, DataFile, FileReport, compare
from gts_async.gts.values import EngineType, TaskType

STEP = 1 << 20
"""Bytes read between two chances to cancel."""

SHOWN = 10
"""Problems that the error's text repeats; all of them are in its `problems`."""


async def preflight(
    paths: Sequence[str | Path], task_type: TaskType, engine_type: EngineType
) -> tuple[FileReport, ...]:
    """Give a report for each file, in order, with the warnings between files in those of the files they name.

    Raises InvalidData if there is any error: its `problems` list every one of every file, without the warnings. Raises
    FileMissing and FileError for what cannot be read.
    """
    reports: list[FileReport] = []
    thread = DiskThread()
    steps = _steps([Path(path) for path in paths], task_type, engine_type, reports)
    try:
        while await thread.run(step, steps) is not None:
            pass
    finally:
        await thread.finish(steps.close)
    between = compare(reports, task_type, engine_type)
    errors = [problem for report in reports for problem in (*report.problems, *between) if _is_error(problem, report)]
    if errors:
        raise _invalid(errors)
    return tuple(_with_warnings(report, between) for report in reports)


def _steps(
    paths: Sequence[Path], task_type: TaskType, engine_type: EngineType, reports: list[FileReport]
) -> Generator[int, None, None]:
    """Read the files in the thread, adding their reports; gives how many bytes it has read in each step."""
    for path in paths:
        data = DataFile(path.name, task_type, engine_type)
        done = 0
        with translated(path, "cannot check"), opened(path) as file:
            # A longer line comes in pieces: a file without any line ending must not be read whole.
            while line := file.readline(MAX_LINE + 1):
                data.feed(line)
                done += len(line)
                if done >= STEP:
                    yield done
                    done = 0
        reports.append(data.report())


def _is_error(problem: Problem, report: FileReport) -> bool:
    return not problem.is_warning and problem.file == report.name


def _with_warnings(report: FileReport, between: Sequence[Problem]) -> FileReport:
    more = (problem for problem in between if problem.file == report.name)
    return attrs.evolve(report, problems=(*report.problems, *more))


def _invalid(errors: Sequence[Problem]) -> InvalidData:
    count = f"{len(errors)} error" + ("s" if len(errors) > 1 else "")
    lines = [f"upload: not sent: {count} in the data files:", *map(str, errors[:SHOWN])]
    lines += [f"and {len(errors) - SHOWN} more, see .problems"] if len(errors) > SHOWN else []
    text = plain("\n  ".join(lines), 8 * 1024)
    error = InvalidData(text, call="upload", message=text)
    error.problems = tuple(errors)
    return error
