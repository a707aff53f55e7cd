"""What a file is told to be that holds no lines of JSON in UTF-8, and what is said of a line that is no row."""

import gzip
import io
import json
import pickle
import zipfile

import pytest

from gts_async.gts.datafiles import FileKind, FileReport, check_lines
from gts_async.gts.faults import Fault
from gts_async.gts.formats import Commonness, encoding_of
from gts_async.gts.jsonlines import MAX_LINE, Cutter, read, repeated_key
from gts_async.gts.values import EngineType, TaskType

ROW = '{"content":"体育新闻","label":"x","id":1}'
OTHER = '{"content":"军事新闻","label":"x","id":2}'
TEXT = f"{ROW}\n{OTHER}\n"


def check(content: bytes) -> FileReport:
    cutter = Cutter()
    lines = [*(cutter.cut(content) if content else ()), *cutter.rest()]
    return check_lines("f.json", lines, TaskType.CLASSIFICATION, EngineType.BAGUALU)


def packed(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return file.getvalue()


FOREIGN = {
    "gzip": (gzip.compress(TEXT.encode()), "is compressed with gzip", "gunzip"),
    "zip": (packed("train.json"), "is a zip archive", "unpack it"),
    "xlsx": (packed("[Content_Types].xml", "xl/workbook.xml"), "is an Excel workbook", "lines of JSON"),
    "docx": (packed("word/document.xml"), "is a Word document", "lines of JSON"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "is an old Excel or Word", "lines of JSON"),
    "parquet": (b"PAR1" + bytes(100), "is a Parquet table", "lines of JSON"),
    "arrow": (b"ARROW1\0\0" + bytes(9), "is an Arrow table", "lines of JSON"),
    "pickle": (pickle.dumps([{"content": "a"}]), "is a Python pickle", "lines of JSON"),
    "sqlite": (b"SQLite format 3\0" + bytes(80), "is an SQLite database", "lines of JSON"),
    "tar": (bytes(257) + b"ustar\x0000", "is a tar archive", "unpack it"),
    "csv": ("content,label\n体育,x\n".encode(), "looks like comma-separated text (CSV)", "lines of JSON"),
    "csv with quotes": ('"content","label"\n"体育","x"\n'.encode(), "looks like comma-separated", "lines of JSON"),
    "csv of numbers": ("1,体育\n".encode(), "looks like comma-separated text (CSV)", "lines of JSON"),
    "csv with mark": ("\ufeffcontent,label\n体育,x\n".encode(), "looks like comma-separated", "lines of JSON"),
    "tsv": ("content\tlabel\n体育\tx\n".encode(), "looks like tab-separated text (TSV)", "lines of JSON"),
    "html": (b"<!DOCTYPE html>\n<html>", "is HTML or XML", "log-in page"),
    "zeros": (bytes(5000), "holds NUL bytes", "make the file anew"),
    "NUL in the first row": (ROW.replace("体", "\0").encode(), "holds NUL bytes", "make the file anew"),
}


@pytest.mark.parametrize(("content", "why", "remedy"), FOREIGN.values(), ids=FOREIGN)
def test_a_file_given_by_mistake_is_told_for_what_it_is_once(content: bytes, why: str, remedy: str) -> None:
    report = check(content)
    told = [problem for problem in report.problems if "byte order mark" not in problem.why]
    assert [problem.why.startswith(why) for problem in told] == [True]
    assert remedy in told[0].remedy
    assert (report.kind, report.rows, report.fixable.get("encoding")) == (FileKind.UNREADABLE, 0, None)


ENCODINGS = {
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "utf-32": "UTF-32",
    "utf-32-le": "UTF-32",
    "utf-32-be": "UTF-32",
}


@pytest.mark.parametrize(("codec", "name"), ENCODINGS.items())
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_an_encoding_is_known_with_and_without_a_mark(codec: str, name: str, mark: str) -> None:
    content = (mark * (codec[-2:] in ("le", "be")) + TEXT).encode(codec)
    found = encoding_of(content)
    assert found is not None
    assert found.name == name
    assert content[found.mark :].decode(found.codec) == TEXT
    report = check(content)
    assert [problem.why for problem in report.problems] == [f"is {name}; the engine answers the train call with 500"]
    assert "save the file as UTF-8" in report.problems[0].remedy
    assert report.fixable == {"encoding": 1}


@pytest.mark.parametrize("codec", ["gbk", "gb18030", "gb2312"])
def test_gbk_is_told_once_with_the_number_of_its_lines(codec: str) -> None:
    (problem, *_) = check(TEXT.encode(codec)).problems
    assert problem.why.startswith("is not UTF-8 but reads as GBK")
    assert problem.why.endswith("(2 such lines)")


@pytest.mark.parametrize(
    ("text", "codec"), [("體育新聞報導與國際", "big5"), ("日本語のニュース", "shift_jis"), ("café déjà", "latin-1")]
)
def test_what_decodes_as_gbk_by_chance_is_not_called_so(text: str, codec: str) -> None:
    (problem,) = check(ROW.replace("体育新闻", text).encode(codec, "ignore")).problems
    assert problem.why.startswith("is not UTF-8; the engine")


def test_common_chinese_is_told_from_chance() -> None:
    assert Commonness().is_chinese
    assert Commonness().see("plain").is_chinese
    assert Commonness().see("体育，新闻！plain").is_chinese
    assert not Commonness().see("鱀鱁鱂鱃鱄").is_chinese
    assert Commonness().see("体育新闻" * 9).see("囧喆").is_chinese


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b", "\x0c"])
def test_only_line_feeds_and_carriage_returns_end_a_line(sign: str) -> None:
    text = ROW.replace("育", sign if sign > "\x1f" else json.dumps(sign)[1:-1])
    report = check(f"{text}\n{OTHER}".encode())
    assert (report.rows, report.problems) == (2, ())


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_lines_are_cut_alike_in_blocks_of_any_size(ending: str, size: int) -> None:
    content = ending.join([ROW, "", OTHER, "{", ROW]).encode()
    cutter = Cutter()
    cut = [line for start in range(0, len(content), size) for line in cutter.cut(content[start : start + size])]
    assert [*cut, *cutter.rest()] == content.splitlines(keepends=True)


def test_a_line_without_end_comes_in_pieces() -> None:
    cutter = Cutter()
    block = b"x" * (4 << 20)
    lengths = [len(line) for _ in range(8) for line in cutter.cut(block)]
    assert max(lengths) <= MAX_LINE + len(block)
    assert cutter.cut(b"y\nz\n{") == [b"y\n", b"z\n"]
    assert cutter.rest() == [b"{"]


REMEDIES = [
    ("{'content': 'a', 'label': 'x'}", "json.dumps"),
    ('{"content":"a",}', "comma before the closing bracket"),
    ('{"content":["a",]}', "comma before the closing bracket"),
    ('{"content":"a"},', "the comma after the row"),
    ('{"content":"a\tb"}', "\\t and \\n"),
    ('{"content":"a\0b"}', "NUL bytes"),
    ('{"content":"a', "cut off"),
    ('{"content":"a"}{"content":"b"}', "a line of its own"),
    ('{"content":"a","id":' + "1" * 5000 + "}", "in quotes"),
    ("[" * 100_000 + "]" * 100_000, "too many brackets"),
]


@pytest.mark.parametrize(("line", "remedy"), REMEDIES)
def test_a_line_that_is_not_json_comes_with_the_likely_remedy(line: str, remedy: str) -> None:
    (problem,) = check(f"{ROW}\n{line}\n".encode()).problems
    assert problem.line == 2
    assert problem.why.startswith("is not JSON (")
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    "start",
    ['{\n"content":"a"', '{"labels": [\n"a"\n]}', '\n[\n{"content":"a"}\n]', '{"content":"a",\n"label":"x"}', "[]"],
)
def test_what_goes_over_several_lines_is_told_once(start: str) -> None:
    (problem,) = check(start.encode()).problems
    assert problem.why.startswith("begins an array, or an object of several lines")
    assert "one object a line" in problem.remedy


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", "123456789012345678901234567890"])
def test_numbers_that_only_pythons_json_reads_are_read(value: str) -> None:
    assert not isinstance(read(f'{{"a":{value}}}'.encode()), Fault)


@pytest.mark.parametrize("field", ["content", "label"])
def test_half_a_surrogate_pair_is_an_error(field: str) -> None:
    row = json.loads(ROW) | {field: "a\ud800"}
    (problem,) = check(json.dumps(row).encode()).problems
    assert (problem.field, problem.remedy) == (field, "remove that character")


def test_a_mark_in_the_middle_is_told_and_its_row_is_read() -> None:
    report = check(f"{ROW}\n\ufeff{OTHER}\n".encode())
    assert [(problem.line, problem.why[:29]) for problem in report.problems] == [(2, "begins with a byte order mark")]
    assert report.rows == 2


def test_a_key_that_is_there_twice_is_a_warning() -> None:
    (problem,) = check(b'{"content":"a","label":"x","id":1,"label":"y"}\n').problems
    assert (problem.line, problem.field, problem.is_warning) == (1, "label", True)
    assert problem.remedy == "keep one"


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"a":1,"a":2}', "a"),
        ('{"a":"a"}', None),
        ('{"a":{"b":1,"b":2}}', None),
        ('{"a":{"b":1},"a":0}', "a"),
        ("{nope", None),
    ],
)
def test_the_outermost_key_that_is_there_twice(line: str, key: str | None) -> None:
    assert repeated_key(line.encode()) == key


def test_a_blank_file_and_one_of_blank_lines() -> None:
    assert [problem.why[:12] for problem in check(b"").problems] == ["holds no row"]
    assert [problem.why[:8] for problem in check(b" \n\n").problems] == ["is blank"]


def test_a_row_of_many_keys_twice_is_read_in_time_that_grows_with_its_length_only() -> None:
    keys = ",".join(f'"k{number % 150_000}":1' for number in range(200_000))
    assert repeated_key(f"{{{keys}}}".encode()) == "k0"
