"""The engine's own checks of data files and of rows to predict, in its words; far weaker than what training needs.

What a file has to hold for the training to succeed is the client's `gts/datafiles.py`.
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from gts_async.emulator import engine_coercion as coercion
from gts_async.emulator.engine_bodies import Crash
from gts_async.emulator.engine_coercion import Fault, Field, Refused

Faulty = str | None
"""The message that `train` and `predict` show for the first bad row, None if every row passes."""

_ENTITY = coercion.record(
    entity_text=Field(coercion.text(min_length=1)),
    entity_type=Field(coercion.text(min_length=1)),
    entity_index=Field(coercion.tuple_of(coercion.integer(above=0), coercion.integer(above=0))),
)
_RELATION = coercion.record(predicate=Field(coercion.text(min_length=1)), subject=Field(_ENTITY), object=Field(_ENTITY))
_CHOICE = coercion.either(coercion.text(min_length=1), coercion.tuple_of(*[coercion.text(min_length=1)] * 3))
_IE_ROW = coercion.record(
    task=Field(coercion.text(pattern="(实体识别|关系抽取)")),
    text=Field(coercion.text(min_length=1)),
    entity_list=Field(coercion.optional(coercion.list_of(_ENTITY)), None),
    spo_list=Field(coercion.optional(coercion.list_of(_RELATION)), None),
    choice=Field(coercion.list_of(_CHOICE, min_items=1)),
    # The model's pattern is written as a class attribute, which pydantic takes for one more field.
    regex=Field(coercion.text(), ""),
)
"""An entity at index 0 is refused, although training would take it."""


def check_file(task_type: str, kind: str, content: bytes) -> Faulty:
    """Check a data file of `kind` train, dev, test or label; raises Crash where the service's check does."""
    rows: list[object] = []
    for line in _lines(content):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError):
            return f"行【{line}】非json格式"
    return check_rows(task_type, kind, rows)


def check_rows(task_type: str, kind: str, rows: Iterable[object]) -> Faulty:
    """Check rows of `kind` train, dev, test, label or unlabeled; raises Crash where the service's check does."""
    if task_type not in _CHECKS:
        raise Crash(f"no check for task type {task_type!r}")
    return next((faulty for row in rows if (faulty := _CHECKS[task_type](kind, row)) is not None), None)


def is_unlabeled_file(content: bytes) -> bool:
    """Tell whether the advanced mode takes the file: every row has "content", whatever the task."""
    for line in _lines(content):
        try:
            row = json.loads(line.strip())
        except (ValueError, RecursionError):
            return False
        if not _has(row, "content"):
            return False
    return True


def _lines(content: bytes) -> Iterable[str]:
    """Give the lines as Python's text mode does; raises Crash at the first byte that is not UTF-8."""
    try:
        yield from io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Crash(f"the file is not UTF-8: {error}") from error


def _classification(kind: str, row: object) -> Faulty:
    if kind == "label":
        return None if _has(row, "labels") else "标签描述格式错误：缺少`labels`字段"
    return _lacks(row, ("content", "label") if kind in ("train", "dev") else ("content",))


def _summary(_kind: str, row: object) -> Faulty:
    return _lacks(row, ("text", "summary"))


def _ie(_kind: str, row: object) -> Faulty:
    faults = _ie_faults(row)
    if not faults:
        return None
    # Keys that are no texts break the call of the model, not its validation, so there is no report around the words.
    said = faults[0].message if faults[0] == coercion.NOT_KEYWORDS else coercion.as_text(faults, "IESample")
    return f"样本【{row}】格式错误：\n{said}"


def _ie_faults(row: object) -> Sequence[Fault]:
    document = coercion.as_dict(row)
    if document is None:
        return [Fault(f"IESample expected dict not {type(row).__name__}", "type_error", ("__root__",))]
    try:
        _IE_ROW(document)
    except Refused as refused:
        return refused.faults
    return ()


def _nothing(_kind: str, _row: object) -> Faulty:
    return None


_CHECKS: Mapping[str, Callable[[str, object], Faulty]] = {
    "classification": _classification,
    "similarity": _nothing,
    "nli": _nothing,
    "ie": _ie,
    "summary": _summary,
}


def _lacks(row: object, keys: Iterable[str]) -> Faulty:
    return next((f"样本【{row}】格式错误：缺少`{key}`字段" for key in keys if not _has(row, key)), None)


def _has(row: object, key: str) -> bool:
    """Tell whether ``key in row``: for a text whether it holds the word; raises Crash for what has no ``in``."""
    if isinstance(row, dict | list | str):
        return key in row
    raise Crash(f"{type(row).__name__} holds nothing")
