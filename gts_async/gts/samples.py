"""Samples for predict: what users give, checked and turned into the rows that the engine wants.

What is wrong with a row is decided in `rows`; rows to train on travel as files, see `datafiles`.
"""

from collections.abc import Iterable, Mapping

from gts_async._errors import InvalidArgument, Problem, WrongType
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


def guess_task_type(sample: Row) -> TaskType:
    """Give the task type that a sample like this one is for; raises InvalidArgument if several or none are."""
    if not isinstance(sample, Mapping):
        raise WrongType("sample", f"must be a mapping, not {type(sample).__name__}")
    if "content" in sample:
        return TaskType.CLASSIFICATION
    if "text" in sample:
        return TaskType.IE if "choice" in sample else TaskType.SUMMARY
    if "sentence1" in sample:
        raise InvalidArgument("task_type", "sentence pairs may be similarity or nli", "pass task_type=")
    raise InvalidArgument("sample", "has none of content, text, sentence1", "give a sample as the engine's tasks want")


def _row(task_type: TaskType, sample: Row) -> dict[str, object]:
    row: dict[str, object] = {field: str(sample[field]) for field in TEXTS[task_type]}
    if labels := FIXED_LABELS.get(task_type):
        row["label"] = labels[0]
    elif task_type is TaskType.SUMMARY:
        row["summary"] = ""
    elif task_type is TaskType.IE:
        row["task"], row["choice"] = str(sample["task"]), _plain(sample["choice"])
    return row


def _plain(choice: object) -> object:
    """Give `choice` as lists of exact strings, whatever kinds of list and string it was made of."""
    return [_plain(item) for item in choice] if isinstance(choice, (list, tuple)) else str(choice)
