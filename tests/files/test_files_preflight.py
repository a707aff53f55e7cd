import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from gts_async._errors import FileError, InvalidData
from gts_async._files.preflight import examine, preflight
from gts_async._files.steady import BLOCK, STEP, blocks
from gts_async.gts.datafiles import MAX_LINE, MAX_PROBLEMS, FileKind
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
    bad = [{"id": 1, "content": "a", "label": "news", "probs": number} for number in range(15)]
    train.write_bytes(rows(20) + lines(*bad))
    labels.write_bytes(b"[]\n")
    with pytest.raises(InvalidData) as caught:
        await preflight([train, labels], *CLASSIFICATION)
    problems = caught.value.problems
    assert [(problem.file, problem.line) for problem in problems[:15]] == [("train.json", 21 + n) for n in range(15)]
    assert {problem.file for problem in problems} == {"train.json", "labels.json"}
    told = str(caught.value).splitlines()
    assert told[0] == f"upload: not sent: {len(problems)} errors in the data files:"
    assert [line.strip() for line in told[1:11]] == [str(problem) for problem in problems[:10]]
    assert told[11:] == [f"  and {len(problems) - 10} more, see .problems"]


@pytest.mark.parametrize(
    ("count", "others"),
    [(1, ""), (2, " (and in line 22)"), (3, " (and in line 22 and 1 other)"), (90, " (and in line 22 and 88 others)")],
)
async def test_what_is_wrong_with_many_lines_is_told_once(train: Path, count: int, others: str) -> None:
    train.write_bytes(rows(20) + b"{]\n" * count)
    with pytest.raises(InvalidData) as caught:
        await preflight([train], *CLASSIFICATION)
    problems = caught.value.problems
    assert [problem.line for problem in problems] == list(range(21, count + 21))
    said = f"{count} error" + ("s" if count > 1 else "")
    assert str(caught.value) == f"upload: not sent: {said} in the data files:\n  {problems[0]}{others}"


async def test_errors_that_are_not_listed_are_counted(train: Path) -> None:
    train.write_bytes(rows(20) + b"{]\n" * 1234)
    with pytest.raises(InvalidData) as caught:
        await preflight([train], *CLASSIFICATION)
    assert len(caught.value.problems) == MAX_PROBLEMS + 1
    first, *_, last = str(caught.value).splitlines()
    assert first == "upload: not sent: 1,234 errors in the data files:"
    assert last.strip() == f"train.json: {1234 - MAX_PROBLEMS} more errors"


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


SWITCHED = """
import asyncio, os, sys
from pathlib import Path
from gts_async._files.preflight import examine
from gts_async.gts.values import EngineType, TaskType
def told():
    try:
        asyncio.run(examine([Path(sys.argv[1])], ["x"], TaskType.SUMMARY, EngineType.BAGUALU))
    except Exception as error:
        return f"{type(error).__name__} {error}"
told()  # another user may not be able to import what is needed
if os.geteuid() == 0:
    os.seteuid(65534)
print(told())
"""


async def test_a_file_that_may_not_be_read_is_told(train: Path) -> None:
    train.chmod(0)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SWITCHED, str(train), stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    process._transport.close()  # type: ignore[attr-defined]
    assert said.decode().startswith("FileError cannot check: ")
    assert "Permission denied" in said.decode()


async def test_links_are_followed(train: Path, labels: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(train)
    report, _ = await preflight([link, labels], *CLASSIFICATION)
    assert (report.name, report.rows) == ("link.json", 20)


async def test_a_file_shares_nothing_with_itself_under_another_name(train: Path, labels: Path, tmp_path: Path) -> None:
    link = tmp_path / "dev.json"
    link.hardlink_to(train)
    reports = await preflight([train, link, labels], *CLASSIFICATION)
    assert [report.problems for report in reports] == [(), (), ()]


async def test_a_text_in_two_files_is_a_warning(train: Path, labels: Path, tmp_path: Path) -> None:
    dev = tmp_path / "dev.json"
    dev.write_bytes(rows(3))
    _, report, _ = await preflight([train, dev, labels], *CLASSIFICATION)
    assert [problem.why[:29] for problem in report.problems] == ["3 texts are in train.json, to"]
    assert report.texts is None


@pytest.mark.parametrize("change", [lambda file: file.write(b"{}\n"), lambda file: file.truncate(3 * BLOCK)])
def test_a_file_that_changes_while_it_is_read_is_told(train: Path, change: Callable[[BinaryIO], object]) -> None:
    train.write_bytes(b"\n" * (4 * BLOCK))
    reading = blocks(train, "cannot check")
    assert len(next(reading)) == BLOCK
    with train.open("ab") as file:
        change(file)
    with pytest.raises(FileError, match=r"train\.json: has changed while it was read; try again"):
        list(reading)


def test_a_file_that_grows_all_the_time_comes_to_an_end(train: Path) -> None:
    train.write_bytes(b"\n" * BLOCK)
    seen = 0
    with pytest.raises(FileError, match="has changed"):
        for block in blocks(train, "cannot check"):
            seen += len(block)
            with train.open("ab") as file:
                file.write(block)
    assert seen == BLOCK


async def test_files_that_cannot_be_read_are_problems_where_that_is_asked_for(train: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "dev.json", tmp_path, train]
    reports = await examine(paths, ["dev", "folder", "train"], *CLASSIFICATION, tells_unreadable=True)
    assert [(report.errors, report.kind) for report in reports[:2]] == [(1, FileKind.UNREADABLE)] * 2
    assert [report.problems[0].why for report in reports[:2]] == [
        "cannot be read: No such file or directory",
        "cannot be read: Is a directory",
    ]
    assert reports[2].rows == 20


async def test_progress_is_told_of_all_files_together(train: Path, labels: Path) -> None:
    train.write_bytes(rows(20) * (3 * STEP // 500))
    told: list[Any] = []
    await examine([train, labels], ["a", "b"], *CLASSIFICATION, progress=told.append)
    sizes = [path.stat().st_size for path in (train, labels)]
    assert [state.what for state in told] == ["a"] * (len(told) - 1) + ["b"]
    assert (told[-1].done, told[-1].fraction, told[-2].done) == (sum(sizes), 1.0, sizes[0])
    assert len(told) >= sizes[0] // STEP


async def test_a_file_given_by_mistake_is_not_read_to_its_end(train: Path) -> None:
    with train.open("wb") as file:
        file.write(b"PAR1")
        file.truncate(1 << 40)
    with pytest.raises(InvalidData, match="is a Parquet table"):
        await preflight([train], *CLASSIFICATION)


async def test_the_loop_gets_its_turns_while_a_file_is_read(train: Path) -> None:
    train.write_bytes(b"".join(rows(2000, f"label{n}") for n in range(60)))
    late: list[float] = []

    async def tick() -> None:
        while True:
            began = time.process_time()
            await asyncio.sleep(0)
            late.append(time.process_time() - began)

    ticking = asyncio.ensure_future(tick())
    await preflight([train], *CLASSIFICATION)
    ticking.cancel()
    late.sort()
    assert late[len(late) * 99 // 100] < 0.05


MEASURED = """
import asyncio, resource, sys
from gts_async._errors import InvalidData
from gts_async._files.preflight import preflight
from gts_async.gts.values import EngineType, TaskType
async def main():
    grown = []
    for path in sys.argv[2:]:
        try:
            await preflight([path], TaskType(sys.argv[1]), EngineType.BAGUALU)
        except InvalidData:
            pass
        grown.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    print(grown[-1] - grown[0])
asyncio.run(main())
"""


@pytest.mark.parametrize("line", [json.dumps({"text": "x" * 5000, "summary": "y"}).encode() + b"\n", b"x" * 4096])
async def test_memory_stays_flat_whatever_the_size_of_the_file(tmp_path: Path, line: bytes) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    for path, size in ((small, 20 << 20), (large, 70 << 20)):
        path.write_bytes(line * (size // len(line)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEASURED, "summary", str(small), str(large), stdout=subprocess.PIPE
    )
    said, _ = await process.communicate()
    process._transport.close()  # type: ignore[attr-defined]
    assert int(said) * 1024 < MAX_LINE


async def test_memory_stays_flat_whatever_ids_and_labels_there_are(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    for path, count in ((small, 170_000), (large, 350_000)):
        with path.open("w") as file:
            for number in range(count):
                file.write(f'{{"id":{number * 7919 % 1_000_003},"content":"c{number}","label":"label {number}"}}\n')
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEASURED, "classification", str(small), str(large), stdout=subprocess.PIPE
    )
    said, _ = await process.communicate()
    process._transport.close()  # type: ignore[attr-defined]
    assert int(said) * 1024 < 6 << 20


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
