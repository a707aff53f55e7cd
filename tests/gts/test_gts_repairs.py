"""What a corrected copy changes in the lines of a file."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gts_async.gts.datafiles import FileReport, check_lines
from gts_async.gts.jsonlines import BLANK, BYTE_ORDER_MARK
from gts_async.gts.repairs import LargestId, Repairer, lines_of
from gts_async.gts.rows import label_text
from gts_async.gts.values import PIPELINES, EngineType, TaskType

BAGUALU, QIANKUNDING = EngineType.BAGUALU, EngineType.QIANKUNDING
CLASSIFICATION, SIMILARITY, NLI = TaskType.CLASSIFICATION, TaskType.SIMILARITY, TaskType.NLI

MENDED = [
    (CLASSIFICATION, BAGUALU, '{"content":"a","label":"x"}', {"content": "a", "label": "x", "id": 7}),
    (CLASSIFICATION, BAGUALU, '{"id":null,"content":"a","label":"x"}', {"id": 7, "content": "a", "label": "x"}),
    (CLASSIFICATION, BAGUALU, '{"id":1,"content":"a","label":3}', {"id": 1, "content": "a", "label": "3"}),
    (CLASSIFICATION, QIANKUNDING, '{"content":"a","label":0}', {"content": "a", "label": "0"}),
    (CLASSIFICATION, QIANKUNDING, '{"content":"a","label":0.5}', {"content": "a", "label": "0.5"}),
    (
        SIMILARITY,
        QIANKUNDING,
        '{"sentence1":"a","sentence2":"b","label":1}',
        {"sentence1": "a", "sentence2": "b", "label": "1", "id": 7},
    ),
    (SIMILARITY, QIANKUNDING, '{"id":null,"sentence1":"a","label":0.0}', {"id": None, "sentence1": "a", "label": "0"}),
    (CLASSIFICATION, BAGUALU, '{"labels":[1,"b",2.5]}', {"labels": ["1", "b", "2.5"]}),
    (CLASSIFICATION, QIANKUNDING, '{"content":"a","label":1,"x":NaN}', None),
    (CLASSIFICATION, QIANKUNDING, '{"content":"a\\ud800","label":1}', {"content": "a\ud800", "label": "1"}),
]


@pytest.mark.parametrize(("kind", "engine", "line", "row"), MENDED)
@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\r"])
def test_a_row_is_mended_and_its_ending_kept(
    kind: TaskType, engine: EngineType, line: str, row: object, ending: str
) -> None:
    mended = Repairer(kind, engine, 7).mend(f"{line}{ending}".encode())
    assert mended[len(mended.rstrip(b"\r\n")) :].decode() == ending
    if row is not None:
        assert json.loads(mended) == row


KEPT = [
    (CLASSIFICATION, BAGUALU, '{"content": "a",  "label":"x", "id": 5}'),
    (CLASSIFICATION, BAGUALU, '{"content":"a","label":true,"id":"a1"}'),
    (CLASSIFICATION, QIANKUNDING, '{"content":"a","label":null}'),
    (CLASSIFICATION, QIANKUNDING, '{"content":5,"label":"x"}'),
    (SIMILARITY, QIANKUNDING, '{"id":1,"sentence1":"a","sentence2":"b","label":2}'),
    (SIMILARITY, QIANKUNDING, '{"labels":[0,1]}'),
    (NLI, QIANKUNDING, '{"id":1,"sentence1":"a","sentence2":"b","label":1}'),
    (TaskType.SUMMARY, BAGUALU, '{"text":"a","summary":5}'),
    (TaskType.IE, BAGUALU, '{"task":"实体识别","text":"a"}'),
    (CLASSIFICATION, BAGUALU, "{nope"),
    (CLASSIFICATION, BAGUALU, "[1]"),
]


@pytest.mark.parametrize(("kind", "engine", "line"), KEPT)
def test_what_has_no_one_right_answer_is_kept_to_the_byte(kind: TaskType, engine: EngineType, line: str) -> None:
    repairer = Repairer(kind, engine)
    for content in (f"{line}\n".encode(), line.encode(), "é".encode("latin-1") + line.encode("gbk")):
        assert repairer.mend(content) == content
    assert not +repairer.changes


def test_changes_are_counted_by_kind() -> None:
    repairer = Repairer(CLASSIFICATION, BAGUALU, 3)
    lines = ['\ufeff{"content":"a","label":1}\n', "\n", " \r\n", '{"content":"b","label":"x"}\n', "\ufeff\n"]
    mended = [repairer.mend(line.encode()) for line in lines]
    assert [json.loads(line)["id"] for line in mended if line] == [3, 4]
    assert repairer.changes == {"byte_order_mark": 2, "ids": 2, "number_labels": 1, "blank_lines": 3}


@pytest.mark.parametrize(
    ("ids", "first"),
    [([], 0), ([0, 1], 2), ([5, "9", None], 10), (["a", 1e999, -3], 0), ([1 << 80, 4], 5), ([[1], {}, True], 2)],
)
def test_new_ids_begin_above_all_there_are(ids: list[object], first: int) -> None:
    largest = LargestId()
    for value in ids:
        largest.see(json.dumps({"id": value}).encode())
    largest.see(b"nope\n")
    largest.see(b'\xef\xbb\xbf{"id":-1}')
    assert largest.next == first


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("[]", []),
        (' [ {"a":1} ,\n{"a":2}]\n', [{"a": 1}, {"a": 2}]),
        ('{\n"a":1\n}\n{"a":\n2}', [{"a": 1}, {"a": 2}]),
        ('[1,"x\\n",null]', [1, "x\n", None]),
        ('[{"a":[{"b":1}]}]', [{"a": [{"b": 1}]}]),
    ],
)
def test_items_and_objects_become_lines(text: str, rows: list[object]) -> None:
    lines = list(lines_of(text))
    assert [json.loads(line) for line in lines] == rows
    assert all(line.endswith(b"\n") and b"\n" not in line[:-1] for line in lines)


@pytest.mark.parametrize("text", ["[1,", "[1", "[1 2]", "[1,]", '[1] {"a":1}', "[1]]", '{"a":', "[" * 100_000])
def test_an_array_that_breaks_off_is_no_array(text: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        list(lines_of(text))


@pytest.mark.parametrize(("label", "text"), [(1, "1"), (0, "0"), (1.0, "1"), (2, None), (True, None), ("1", None)])
def test_numbers_are_labels_of_similarity_only_if_they_are_its_own(label: object, text: str | None) -> None:
    assert label_text(SIMILARITY, label) == text


def fixed(kind: TaskType, engine: EngineType, content: Iterable[bytes]) -> list[bytes]:
    lines = [line for content_line in content for line in content_line.splitlines(keepends=True)]
    largest = LargestId()
    for line in lines:
        largest.see(line)
    repairer = Repairer(kind, engine, largest.next)
    return [mended for line in lines if (mended := repairer.mend(line))]


def fixable(report: FileReport) -> list[str]:
    marks = BYTE_ORDER_MARK.why, BLANK.why
    return [problem.why for problem in report.problems if problem.why.startswith(marks)]


VALUES = st.sampled_from([None, True, 0, 1, 2.5, "0", "x", "neutral", [], {}, "a\ud800", float("nan")])
ROWS = st.dictionaries(
    st.sampled_from(["id", "content", "label", "labels", "sentence1", "sentence2", "text", "summary"]), VALUES
)
LINES = st.lists(
    st.tuples(st.sampled_from(["", "\ufeff", " "]), ROWS.map(json.dumps), st.sampled_from(["\n", "\r\n", "\n\n"]))
    .map("".join)
    .map(str.encode)
    | st.sampled_from([b"\n", b"{nope\n", b"\xff\n", b"5\n", b"\xef\xbb\xbf\n", b"\xef\xbb\xbf\xef\xbb\xbf{}\n"]),
    max_size=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(PIPELINES)), LINES)
def test_a_fixed_file_has_no_fixable_faults_and_stays_as_it_is(
    pipeline: tuple[EngineType, TaskType], content: list[bytes]
) -> None:
    engine, kind = pipeline
    once = fixed(kind, engine, content)
    report = check_lines("f.json", once, kind, engine)
    assert fixable(report) == []
    assert {kind: count for kind, count in report.fixable.items() if kind not in ("encoding", "array")} == {}
    assert fixed(kind, engine, once) == once


def test_an_array_is_cut_in_time_that_grows_with_its_length_only() -> None:
    spaces = " " * 1_000_000
    items = f'{{"a": "{spaces}"{spaces}}}{spaces},\n{{"b":{spaces}\r\n1{spaces},\t\n "c": 2}}'
    text = f"{spaces}[{spaces}{items}{spaces}]{spaces}"
    first, second = lines_of(text)
    assert json.loads(first) == {"a": spaces}
    assert second == f'{{"b":1{spaces}, "c": 2}}\n'.encode()
