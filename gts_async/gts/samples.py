"""Samples for predict: what users give, checked and turned into the rows that the engine wants.

What is wrong with a row is decided in `rows`; rows to train on travel as files, see `datafiles`.
"""

import unicodedata
from collections.abc import Iterable, Mapping

from gts_async._errors import InvalidArgument, Problem, WrongType
from gts_async.gts.faults import is_unicode
from gts_async.gts.rows import TEXTS, Row, invalid_data, sample_faults
from gts_async.gts.values import FIXED_LABELS, TaskType


def prepare(task_type: TaskType, sample: Row) -> dict[str, object]:
    """Give the row that the engine wants for `sample`; raises InvalidData with `.problems`.

    Only what is predicted from travels. Similarity and nli look up a label and summary reads a summary, though neither
    is used: without them the engine fails (`qiankunding_nli.py: inference`), so a dummy goes in their place. An ie
    sample's entities and relations stay here: the engine would refuse one at the start of the text, and cut the text
    at the others (`item_encoder.py`). Preparing twice changes nothing.
    """
    return prepare_all(task_type, (sample,))[0]


def prepare_all(task_type: TaskType, samples: Iterable[Row]) -> list[dict[str, object]]:
    """Give the rows for all `samples`, in order; raises InvalidData whose `.problems` name every bad one."""
    samples = list(samples)
    if found := problems(task_type, samples):
        raise invalid_data("predict", found)
    return [_row(task_type, sample) for sample in samples]


def problems(task_type: TaskType, samples: Iterable[object]) -> tuple[Problem, ...]:
    """Give every fault of every sample; `file` is "sample" and `line` its place, counted from 1."""
    return tuple(
        Problem("sample", line, fault.field, fault.why, fault.remedy)
        for line, sample in enumerate(samples, start=1)
        for fault in sample_faults(task_type, sample)
    )


def is_blank(task_type: TaskType, row: Row) -> bool:
    """Tell if there is nothing in a row that the model reads: spaces, controls, unassigned and unreadable signs only.

    Of qiankunding classification, such a row changes the answers of others in its request, some by 5 %: its numbers are
    of twice the precision, and so become all that are computed with it (`bert_UnifiedMC.py: predict`).
    """
    text = row.get("content")
    if task_type is not TaskType.CLASSIFICATION or not isinstance(text, str):
        return False
    return not text[:1].isalnum() and all(unicodedata.category(sign)[0] in "CZ" or sign == "\ufffd" for sign in text)


def guess_task_type(sample: Row) -> TaskType:
    """Give the task type that a sample like this one is for; raises InvalidArgument if several or none are."""
    if not isinstance(sample, Mapping):
        raise WrongType("sample", f"must be a mapping, not {type(sample).__name__}")
    if "content" in sample:
        return TaskType.CLASSIFICATION
    if "text" in sample:
        return TaskType.IE if "choice" in sample else TaskType.SUMMARY
    if "sentence1" in sample:
        raise InvalidArgument(
            "task_type", "sentence pairs may be similarity or nli", "pass task_type= and engine_type="
        )
    raise InvalidArgument("sample", "has none of content, text, sentence1", "give a sample as the engine's tasks want")


def _row(task_type: TaskType, sample: Row) -> dict[str, object]:
    row: dict[str, object] = {field: _text(field, sample[field]) for field in TEXTS[task_type]}
    if labels := FIXED_LABELS.get(task_type):
        row["label"] = labels[0]
    elif task_type is TaskType.SUMMARY:
        row["summary"] = ""
    elif task_type is TaskType.IE:
        row["task"], row["choice"] = str(sample["task"]), _plain(sample["choice"])
    return row


def _text(field: str, value: object) -> str:
    """Give an exact string; what another kind of string says it is may be something else than what was checked."""
    text = str(value)
    if type(value) is not str and not is_unicode(text):
        raise invalid_data(
            "predict", (Problem("sample", 1, field, "holds half of a surrogate pair, which no UTF-8 can carry"),)
        )
    return text


def _plain(choice: object) -> object:
    """Give `choice` as lists of exact strings, whatever kinds of list and string it was made of."""
    return [_plain(item) for item in choice] if isinstance(choice, (list, tuple)) else str(choice)
