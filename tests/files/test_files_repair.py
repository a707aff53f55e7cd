import asyncio
import contextlib
import errno
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gts_async._errors import FileError, InvalidArgument
from gts_async._files.originals import MAX_ARRAY
from gts_async._files.preflight import examine
from gts_async._files.repair import Copy, repair
from gts_async.gts.reports import FileReport
from gts_async.gts.values import PIPELINES, EngineType, TaskType

CLASSIFICATION = (TaskType.CLASSIFICATION, EngineType.BAGUALU)
PLAIN = (TaskType.CLASSIFICATION, EngineType.QIANKUNDING)

ROWS = [{"id": number, "content": f"第{number}条新闻", "label": "体育"} for number in range(20)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "train.json"
    path.write_text(LINES, "utf-8")
    return path


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "fixed"


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


WRITTEN: dict[str, tuple[bytes, dict[str, int], str]] = {
    "mark": (b"\xef\xbb\xbf" + LINES.encode(), {"byte_order_mark": 1}, ""),
    "blank lines": (LINES.replace("\n", "\n\n").encode(), {"blank_lines": 20}, ""),
    "UTF-16": (LINES.encode("utf-16"), {"encoding": 1}, "UTF-16"),
    "UTF-16 big-endian, no mark": (LINES.encode("utf-16-be"), {"encoding": 1}, "UTF-16"),
    "UTF-32": (LINES.encode("utf-32"), {"encoding": 1}, "UTF-32"),
    "GBK": (LINES.encode("gbk"), {"encoding": 1}, "GBK"),
    "GBK array": (json.dumps(ROWS, ensure_ascii=False).encode("gb18030"), {"encoding": 1, "array": 20}, "GBK"),
    "UTF-8 and GBK": (
        b"".join(line.encode("gbk" if place % 3 else "utf-8") for place, line in enumerate(LINES.splitlines(True))),
        {"encoding": 13},
        "GBK in some lines",
    ),
    "commas": (LINES.replace("}\n", "},\n").encode(), {"commas": 20}, ""),
    "array": (json.dumps(ROWS, ensure_ascii=False, indent=2).encode(), {"array": 20}, ""),
    "array after a mark": (
        b"\xef\xbb\xbf" + json.dumps(ROWS, ensure_ascii=False).encode(),
        {"array": 20, "byte_order_mark": 1},
        "",
    ),
    "objects over several lines": (
        "\n".join(json.dumps(row, ensure_ascii=False, indent=1) for row in ROWS).encode(),
        {"array": 20},
        "",
    ),
    "nothing to do": (LINES.encode(), {}, ""),
}


@pytest.mark.parametrize(("content", "changes", "encoding"), WRITTEN.values(), ids=WRITTEN)
async def test_a_copy_is_what_the_engine_reads_and_the_original_stays(
    source: Path, into: Path, content: bytes, changes: dict[str, int], encoding: str
) -> None:
    source.write_bytes(content)
    (copy,) = await repair([source], into, *CLASSIFICATION)
    assert (copy.target, copy.changes, copy.encoding, copy.is_written) == (into / "train.json", changes, encoding, True)
    assert (into / "train.json").read_text("utf-8") == LINES
    assert source.read_bytes() == content
    assert left_in(into) == ["train.json"]


async def test_ids_are_numbered_above_those_there_are(source: Path, into: Path) -> None:
    rows = [{"content": "a", "label": 1}, {"content": "b", "label": "x", "id": 41}, {"content": "c", "label": 2.5}]
    source.write_text(json.dumps(rows), "utf-8")
    (copy,) = await repair([source], into, *CLASSIFICATION)
    mended = [json.loads(line) for line in (into / "train.json").read_bytes().splitlines()]
    assert [(row["id"], row["label"]) for row in mended] == [(42, "1"), (41, "x"), (43, "2.5")]
    assert copy.changes == {"array": 3, "ids": 2, "number_labels": 2}


KEPT = {
    "three encodings": (
        '{"content":"体育","label":"x"}\n'.encode()
        + '{"content":"体育","label":"x"}\n'.encode("gbk")
        + b'{"content":"caf\xe9"}\n'
    ),
    "another encoding": '{"content":"体育新聞報導與國際","label":"x"}\n'.encode("big5", "ignore"),
    "a broken array": b'[{"content":"a","label":"x"},\n{"content":"b"',
    "rows that no rule mends": b'{"content":5,"label":"x"}\nnope\n{"content":"a"}\n',
    "nothing": b"",
}


@pytest.mark.parametrize("content", KEPT.values(), ids=KEPT)
async def test_what_cannot_be_mended_is_kept_as_it_is_and_still_told(source: Path, into: Path, content: bytes) -> None:
    source.write_bytes(content)
    (copy,) = await repair([source], into, *PLAIN)
    assert copy.changes == {}
    assert (into / "train.json").read_bytes() == content
    (report,) = await examine([into / "train.json"], ["train.json"], *PLAIN)
    assert report.errors


NOT_COPIED = [
    (b"PAR1" + bytes(90), "is a Parquet table, not JSON lines"),
    (b"content,label\na,b\n", "looks like comma-separated text (CSV), not JSON lines"),
    (LINES.encode("utf-16")[:-1], "is UTF-16, but damaged"),
    (b"\xff\xfe" + b"\x00\xd8" * 9, "is UTF-16, but damaged"),
]


@pytest.mark.parametrize(("content", "why"), NOT_COPIED)
async def test_what_is_no_text_of_rows_gets_no_copy(source: Path, into: Path, content: bytes, why: str) -> None:
    source.write_bytes(content)
    (copy,) = await repair([source], into, *PLAIN)
    assert (copy.target, copy.why_not, copy.is_written) == (None, why, False)
    assert left_in(into) == []


async def test_a_file_that_is_not_there_keeps_no_other_from_its_copy(source: Path, into: Path) -> None:
    missing = source.with_name("dev.json")
    copies = await repair([missing, source], into, *CLASSIFICATION)
    assert [copy.is_written for copy in copies] == [False, True]
    assert copies[0].why_not == "No such file or directory"


async def test_the_same_copy_again_is_no_second_one(source: Path, into: Path) -> None:
    await repair([source], into, *CLASSIFICATION)
    before = (into / "train.json").stat()
    (copy,) = await repair([source], into, *CLASSIFICATION)
    after = (into / "train.json").stat()
    assert copy.is_written is False
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


async def test_another_file_in_its_place_stays_unless_it_is_forced(source: Path, into: Path) -> None:
    into.mkdir()
    (into / "train.json").write_text("mine")
    with pytest.raises(FileError, match=r"is there already, and differs.*--force"):
        await repair([source], into, *CLASSIFICATION)
    assert (into / "train.json").read_text() == "mine"
    assert left_in(into) == ["train.json"]
    (copy,) = await repair([source], into, *CLASSIFICATION, is_forced=True)
    assert copy.is_written
    assert (into / "train.json").read_text("utf-8") == LINES


def hard_link(source: Path, into: Path) -> None:
    into.mkdir()
    (into / source.name).hardlink_to(source)


def symbolic_link(source: Path, into: Path) -> None:
    into.mkdir()
    (into / source.name).symlink_to(source)


def linked_folder(source: Path, into: Path) -> None:
    into.symlink_to(source.parent, target_is_directory=True)


@pytest.mark.parametrize("make", [hard_link, symbolic_link, linked_folder])
@pytest.mark.parametrize("is_forced", [False, True])
async def test_an_original_is_never_written_to_by_any_link(
    source: Path, into: Path, make: Callable[[Path, Path], None], is_forced: bool
) -> None:
    source.write_text("\ufeff" + LINES, "utf-8")
    make(source, into)
    before = source.stat()
    with pytest.raises(FileError, match="is the original itself"):
        await repair([source], into, *CLASSIFICATION, is_forced=is_forced)
    assert source.read_text("utf-8") == "\ufeff" + LINES
    assert (source.stat().st_mtime_ns, source.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


async def test_an_original_is_not_the_target_of_another(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    other = folder / "train.json"
    other.write_text(LINES, "utf-8")
    with pytest.raises(FileError, match="is the original itself"):
        await repair([source], source.parent, *CLASSIFICATION, is_forced=True)
    with pytest.raises(InvalidArgument, match=r"two are called train\.json"):
        await repair([source, other], tmp_path / "fixed", *CLASSIFICATION)


def dangling(target: Path) -> None:
    target.symlink_to(target.parent / "nowhere")


@pytest.mark.parametrize("make", [dangling, Path.mkdir, os.mkfifo])
async def test_what_is_no_file_is_not_written_over(source: Path, into: Path, make: Callable[[Path], object]) -> None:
    into.mkdir()
    make(into / "train.json")
    with pytest.raises(FileError, match="is never written over"):
        await repair([source], into, *CLASSIFICATION, is_forced=True)
    assert left_in(into) == ["train.json"]


async def test_a_link_to_the_original_is_read_through(source: Path, into: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(source)
    (copy,) = await repair([link], into, *CLASSIFICATION)
    assert copy.target == into / "link.json"
    assert not (into / "link.json").is_symlink()
    assert link.is_symlink()


async def test_a_file_in_the_folders_place_is_told(source: Path, into: Path) -> None:
    into.write_text("")
    with pytest.raises(FileError, match="cannot write to") as caught:
        await repair([source], into, *CLASSIFICATION)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EEXIST


async def test_a_full_disk_leaves_nothing_behind(into: Path) -> None:
    full = Path("/dev/shm")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=full if full.is_dir() else None)))
        source = folder / "train.json"
        source.write_text(LINES * 100, "utf-8")
        code = (
            "import asyncio, resource, signal, sys; from pathlib import Path; from gts_async._errors import FileError; "
            "from gts_async._files.repair import repair; from gts_async.gts.values import EngineType, TaskType\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))\n"
            "try: asyncio.run(repair([Path(sys.argv[1])], Path(sys.argv[2]), TaskType.CLASSIFICATION, "
            "EngineType.BAGUALU))\n"
            "except FileError as error: print(error)"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(source), str(into), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        process._transport.close()  # type: ignore[attr-defined]
    assert b"cannot write" in said
    assert left_in(into) == []


async def test_an_array_beyond_the_bound_is_kept_and_told(source: Path, into: Path) -> None:
    source.write_bytes(b'[{"content":"a","label":"x"}' + b" " * MAX_ARRAY + b"]")
    (copy,) = await repair([source], into, *PLAIN)
    assert copy.changes == {}
    (report,) = await examine([into / "train.json"], ["train.json"], *PLAIN)
    assert (report.errors, report.fixable) == (1, {})


async def test_a_line_without_end_is_kept_to_the_byte(source: Path, into: Path) -> None:
    blank, row = b" " * (1 << 20), b'{"content":"a","label":1}'
    source.write_bytes(b"\n" + row + b"\n" + b"x" * (17 << 20) + 3 * blank + row + blank + b"\n" + row)
    (copy,) = await repair([source], into, *PLAIN)
    assert copy.changes == {"blank_lines": 1, "number_labels": 2}
    lines = (into / "train.json").read_bytes().split(b"\n")
    assert [len(lines), len(lines[1])] == [3, (21 << 20) + len(row)]


@pytest.mark.parametrize("ticks", [1, 2, 4, 8, 16, 32])
async def test_cancelling_leaves_no_half_of_a_copy(
    source: Path, into: Path, nothing_left: Callable[[], None], ticks: int
) -> None:
    source.write_text("\ufeff" + LINES * 3000, "utf-8")
    task = asyncio.ensure_future(repair([source], into, *CLASSIFICATION))
    for _ in range(ticks):
        await asyncio.sleep(0.002)
    was_done = task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert was_done or task.cancelled()
    assert not into.exists() or left_in(into) == (["train.json"] if was_done else [])
    nothing_left()


CELLS = st.sampled_from([None, True, 0, 1, 2.5, "0", "neutral", "体育", [], {}])
FIELDS = st.sampled_from(["id", "content", "label", "labels", "sentence1", "sentence2", "text", "summary"])
OBJECTS = st.lists(st.dictionaries(FIELDS, CELLS), min_size=1, max_size=5)


def written(rows: Sequence[object], shape: str) -> str:
    texts = [json.dumps(row, ensure_ascii=False) for row in rows]
    match shape:
        case "array":
            return json.dumps(rows, ensure_ascii=False, indent=1)
        case "blank":
            return "\n\n".join(texts) + "\n\n"
        case _:
            return shape.join(texts) + shape


async def fixed_twice(content: bytes, pipeline: tuple[TaskType, EngineType]) -> tuple[Copy, FileReport, bytes, bytes]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "rows.json").write_bytes(content)
        (copy,) = await repair([folder / "rows.json"], folder / "once", *pipeline)
        await repair([folder / "once" / "rows.json"], folder / "twice", *pipeline)
        (report,) = await examine([folder / "once" / "rows.json"], ["rows.json"], *pipeline)
        return copy, report, *((folder / times / "rows.json").read_bytes() for times in ("once", "twice"))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(PIPELINES)),
    OBJECTS,
    st.sampled_from(["\n", "\r\n", "\r", "blank", "array", ",\n", ", \r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030"]),
)
def test_a_fixed_file_has_nothing_left_to_fix(
    pipeline: tuple[EngineType, TaskType], rows: list[object], shape: str, codec: str
) -> None:
    engine, kind = pipeline
    copy, report, once, twice = asyncio.run(fixed_twice(written(rows, shape).encode(codec), (kind, engine)))
    assert copy.is_written
    assert report.fixable == {}
    assert report.rows == len(rows)
    assert twice == once


PIECES = st.lists(
    st.sampled_from(
        [
            *(
                text.encode()
                for text in ('{"id": 1}', '{"content":"体育","label":1}', '{"id":null}', "{}", '{"a":1,"a":2}')
            ),
            *(b"[", b"]", b",", b"{", b"}", b'"', b"null", b"5", b"\x80", b"\xef\xbb\xbf", b" ", b"\t"),
            *("体育".encode(codec) for codec in ("gbk", "utf-8", "utf-16-le", "big5")),
            *(b"\n", b"\r", b"\r\n", b"\n\n", b",\n", b"\\ud800", b"\x0c", "\u2028".encode()),
        ]
    )
    | st.binary(max_size=4).filter(lambda piece: not {0, 0xFE, 0xFF} & set(piece)),
    max_size=12,
).map(b"".join)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(PIPELINES)), PIECES)
def test_no_file_breaks_the_check_and_none_has_anything_left_to_fix(
    pipeline: tuple[EngineType, TaskType], content: bytes
) -> None:
    async def checked() -> None:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / "rows.json").write_bytes(content)
            (before,) = await examine([folder / "rows.json"], ["rows.json"], *pipeline[::-1])
            (copy,) = await repair([folder / "rows.json"], folder / "once", *pipeline[::-1])
            assert (folder / "rows.json").read_bytes() == content
            if copy.target is None:
                assert before.errors
                assert (before.fixable, copy.changes) == ({}, {})
                return
            assert copy.changes or not before.fixable
            (report,) = await examine([folder / "once" / "rows.json"], ["rows.json"], *pipeline[::-1])
            assert report.fixable == {}
            assert report.rows >= before.rows
            (again,) = await repair([folder / "once" / "rows.json"], folder / "twice", *pipeline[::-1])
            if again.target is not None:  # what is no text at all shows when the blank lines in front of it are gone
                assert again.changes == {}
                assert again.target.read_bytes() == copy.target.read_bytes()

    asyncio.run(checked())
