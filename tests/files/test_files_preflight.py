import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gts_async._errors import InvalidData
from gts_async._files.preflight import STEP, preflight
from gts_async.gts.datafiles import MAX_LINE, FileKind
from gts_async.gts.values import EngineType, TaskType

CLASSIFICATION = (TaskType.CLASSIFICATION, EngineType.BAGUALU)


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def rows(count: int, label: str = "news") -> bytes:
    return lines(*({"id": number, "content": f"第{number}条", "label": label} for number in range(count)))


@pytest.fixture
def train(tmp_path: Path) -> Path:
    path = tmp_path / "train.json"
    path.write_bytes(rows(20))
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.json"
    path.write_bytes(lines({"labels": ["news", "sports"]}))
    return path


async def test_good_files_are_reported_in_order(train: Path, labels: Path) -> None:
    reports = await preflight([train, str(labels)], *CLASSIFICATION)
    assert [(report.name, report.kind, report.rows) for report in reports] == [
        ("train.json", FileKind.LABELLED, 20),
        ("labels.json", FileKind.LABELS, 1),
    ]
    assert [report.problems for report in reports] == [(), ()]


async def test_every_error_of_every_file_is_listed_and_the_first_ten_are_told(train: Path, labels: Path) -> None:
    train.write_bytes(rows(20) + b"{\n" * 15)
    labels.write_bytes(b"[]\n")
    with pytest.raises(InvalidData) as caught:
        await preflight([train, labels], *CLASSIFICATION)
    problems = caught.value.problems
    assert [(problem.file, problem.line) for problem in problems[:15]] == [("train.json", 21 + n) for n in range(15)]
    assert {problem.file for problem in problems} == {"train.json", "labels.json"}
    told = str(caught.value).splitlines()
    assert told[0] == f"upload: not sent: {len(problems)} errors in the data files:"
    assert told[1].strip().startswith("train.json:21: ")
    assert len(told) == 12
    assert told[-1].strip() == f"and {len(problems) - 10} more, see .problems"


async def test_a_label_that_no_labels_file_lists_is_an_error_of_its_file(train: Path, labels: Path) -> None:
    train.write_bytes(rows(20) + rows(1, "stars"))
    with pytest.raises(InvalidData, match="stars") as caught:
        await preflight([train, labels], *CLASSIFICATION)
    assert [(problem.file, problem.line, problem.field) for problem in caught.value.problems] == [
        ("train.json", 21, "label")
    ]


async def test_warnings_between_files_are_in_the_report_and_raise_nothing(train: Path) -> None:
    (report,) = await preflight([train], *CLASSIFICATION)
    assert [problem.is_warning for problem in report.problems] == [True]
    assert "no file lists the labels" in report.problems[0].why


async def test_a_last_line_without_an_ending_counts(train: Path, labels: Path) -> None:
    train.write_bytes(rows(20).rstrip(b"\n"))
    report, _ = await preflight([train, labels], *CLASSIFICATION)
    assert report.rows == 20


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: os.mkfifo(path)])
async def test_what_is_not_a_regular_file_is_refused_by_name(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "dev.json"
    make(path)
    with pytest.raises(Exception, match=r"dev\.json") as caught:
        await preflight([path], *CLASSIFICATION)
    assert getattr(caught.value, "path", None) == str(path)


MEASURED = """
import asyncio, resource, sys
from gts_async._errors import InvalidData
from gts_async._files.preflight import preflight
from gts_async.gts.values import EngineType, TaskType
async def main():
    grown = []
    for path in sys.argv[1:]:
        try:
            await preflight([path], TaskType.SUMMARY, EngineType.BAGUALU)
        except InvalidData:
            pass
        grown.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    print(grown[-1] - grown[0])
asyncio.run(main())
"""


@pytest.mark.parametrize("line", [json.dumps({"text": "x" * 5000, "summary": "y"}).encode() + b"\n", b"x" * 4096])
async def test_memory_stays_flat_whatever_the_size_of_the_file(tmp_path: Path, line: bytes) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    for path, size in ((small, 20 << 20), (large, 100 << 20)):
        path.write_bytes(line * (size // len(line)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEASURED, str(small), str(large), stdout=subprocess.PIPE
    )
    said, _ = await process.communicate()
    process._transport.close()  # type: ignore[attr-defined]
    assert int(said) * 1024 < MAX_LINE


@pytest.mark.parametrize("ticks", range(8))
async def test_cancelling_stops_reading_and_leaves_nothing(
    tmp_path: Path, nothing_left: Callable[[], None], ticks: int
) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(rows(10) * (8 * STEP // 500))
    task = asyncio.ensure_future(preflight([path], *CLASSIFICATION))
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    nothing_left()
