"""The engine's own checks of data files and rows, word for word."""

import pytest
from hypothesis import given, strategies as st

from gts_async.emulator.engine_bodies import Crash
from gts_async.emulator.engine_checks import check_file, check_rows, is_unlabeled_file

NER = {"task": "实体识别", "text": "我叫李开复", "choice": ["人名"]}
MISSING = "field required (type=value_error.missing)"


def entity(**changes: object) -> dict[str, object]:
    return {"entity_text": "李", "entity_type": "人名", "entity_index": [2, 3], **changes}


@pytest.mark.parametrize(
    ("task_type", "kind", "content", "message"),
    [
        ("classification", "train", b'{"content":"a","label":1}', None),
        ("classification", "train", b"", None),
        ("classification", "train", b'"a content with a label"', None),
        ("classification", "dev", b'{"content":1}', "样本【{'content': 1}】格式错误：缺少`label`字段"),
        ("classification", "test", b'{"content":1}\r\n{"content":2}\r\n', None),
        ("classification", "test", b'{"label":null}', "样本【{'label': None}】格式错误：缺少`content`字段"),
        ("classification", "label", b'{"labels":[]}', None),
        ("classification", "label", b"[]", "标签描述格式错误：缺少`labels`字段"),
        ("classification", "train", b"{}\n{", "行【{】非json格式"),
        ("classification", "train", b"{}\r\n\r\n", "行【\n】非json格式"),
        ("classification", "train", b"\xef\xbb\xbf{}\n", "行【\ufeff{}\n】非json格式"),
        ("summary", "label", b'{"text":""}', "样本【{'text': ''}】格式错误：缺少`summary`字段"),
        ("summary", "test", b'{"text":"","summary":""}', None),
        ("nli", "train", b"5\nnull\n[]\n", None),
        ("similarity", "label", b"5", None),
    ],
)
def test_a_file_passes_or_its_first_bad_line_is_named(
    task_type: str, kind: str, content: bytes, message: str | None
) -> None:
    assert check_file(task_type, kind, content) == message


@pytest.mark.parametrize("content", [b"5", b"null", b"true", b"\xff\n", '{"content":"你"}'.encode("gbk")])
def test_lines_that_are_no_objects_or_no_text_crash_the_check(content: bytes) -> None:
    with pytest.raises(Crash):
        check_file("classification", "test", content)


def test_an_unknown_task_type_crashes_the_check() -> None:
    with pytest.raises(Crash):
        check_rows("translation", "train", [])


def test_only_the_first_bad_row_is_named() -> None:
    assert check_rows("classification", "unlabeled", [{"content": 1}, {"a": 1}, {"b": 1}]) == (
        "样本【{'a': 1}】格式错误：缺少`content`字段"
    )


@pytest.mark.parametrize(
    ("row", "faults"),
    [
        (NER, []),
        ({**NER, "task": "实体识别 or so"}, []),
        ({**NER, "entity_list": None, "spo_list": []}, []),
        ({**NER, "text": 5, "choice": [["a", "b", "c"], True]}, []),
        ({**NER, "entity_list": [entity(entity_index=["2", 3.7])]}, []),
        ({**NER, "text": None}, ["text", "none is not an allowed value (type=type_error.none.not_allowed)"]),
        ({**NER, "text": []}, ["text", "str type expected (type=type_error.str)"]),
        ({**NER, "choice": {}}, ["choice", "value is not a valid list (type=type_error.list)"]),
        (
            {**NER, "choice": [["a", "b"]]},
            [
                "choice -> 0",
                "str type expected (type=type_error.str)",
                "choice -> 0",
                "wrong tuple length 2, expected 3 (type=value_error.tuple.length; actual_length=2; expected_length=3)",
            ],
        ),
        (
            {**NER, "entity_list": [entity(), entity(entity_index=[0, "x"], entity_type="")]},
            [
                "entity_list -> 1 -> entity_type",
                "ensure this value has at least 1 characters (type=value_error.any_str.min_length; limit_value=1)",
                "entity_list -> 1 -> entity_index -> 0",
                "ensure this value is greater than 0 (type=value_error.number.not_gt; limit_value=0)",
                "entity_list -> 1 -> entity_index -> 1",
                "value is not a valid integer (type=type_error.integer)",
            ],
        ),
        (
            {**NER, "spo_list": [{"predicate": "p", "subject": entity(entity_index=None), "object": 5}]},
            [
                "spo_list -> 0 -> subject -> entity_index",
                "none is not an allowed value (type=type_error.none.not_allowed)",
                "spo_list -> 0 -> object",
                "value is not a valid dict (type=type_error.dict)",
            ],
        ),
        ({**NER, "regex": None}, ["regex", "none is not an allowed value (type=type_error.none.not_allowed)"]),
        ([], ["task", MISSING, "text", MISSING, "choice", MISSING]),
        (5, ["__root__", "IESample expected dict not int (type=type_error)"]),
        (None, ["__root__", "IESample expected dict not NoneType (type=type_error)"]),
    ],
)
def test_ie_rows_are_told_in_pydantics_words(row: object, faults: list[str]) -> None:
    found = check_rows("ie", "train", [row])
    if not faults:
        assert found is None
        return
    count = len(faults) // 2
    head = f"样本【{row}】格式错误：\n{count} validation error{'s' if count > 1 else ''} for IESample\n"
    assert found == head + "\n".join("  " * (i % 2) + line for i, line in enumerate(faults))


def test_keys_that_are_no_texts_are_told_without_a_report() -> None:
    assert check_rows("ie", "train", [[[1, 2]]]) == "样本【[[1, 2]]】格式错误：\nkeywords must be strings"


@pytest.mark.parametrize(
    ("content", "is_good"),
    [(b'{"content":1}\n', True), (b"", True), (b' {"content":1} \n', True), (b'{"text":1}', False), (b"\n", False)],
)
def test_unlabeled_files_need_content_only(content: bytes, is_good: bool) -> None:
    assert is_unlabeled_file(content) is is_good


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NER, *entity()]), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(["classification", "similarity", "nli", "ie", "summary"]), JSON)
def test_any_row_passes_is_refused_or_crashes(task_type: str, row: object) -> None:
    try:
        message = check_rows(task_type, "train", [row])
    except Crash:
        assert not isinstance(row, dict | list | str)
    else:
        assert message is None or message.startswith(f"样本【{row}】格式错误：")
