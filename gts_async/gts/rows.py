"""What one row must hold: to train on (`training_faults`) and to be predicted (`sample_faults`).

The engine checks less than its pipelines need; these are the pipelines' needs. What is special about ie rows is in
`annotations`, files of rows are in `datafiles`, what is sent for a sample is in `samples`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from gts_async._errors import InvalidData, Problem
from gts_async.gts.annotations import Soundness, annotation_faults, is_relations, schema_faults
from gts_async.gts.faults import (
    HALF_A_PAIR,
    IDS,
    MISSING,
    NUMBER_LABELS,
    Fault,
    bare,
    is_number,
    is_unicode,
    kind,
    missing,
    no_string,
    shown,
)
from gts_async.gts.values import FIXED_LABELS, EngineType, TaskType

Row = Mapping[str, object]

NUMBER_THEM = "number the rows"
IN_QUOTES = "write texts in quotes"

MAX_ID = (1 << 63) - 1
"""Ids above are not read, nor those below -MAX_ID - 1: they become tensors of 64 bits."""

TEXTS: Mapping[TaskType, tuple[str, ...]] = {
    TaskType.CLASSIFICATION: ("content",),
    TaskType.SIMILARITY: ("sentence1", "sentence2"),
    TaskType.NLI: ("sentence1", "sentence2"),
    TaskType.IE: ("text",),
    TaskType.SUMMARY: ("text",),
}
"""The fields that hold what the model reads."""


def invalid_data(call: str, problems: Sequence[Problem]) -> InvalidData:
    """Give the error that carries `problems`; its text shows the first few."""
    shown = "; ".join(map(str, problems[:3]))
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    error = InvalidData(f"{call}: not sent: {shown}{more}", call=call, message=shown + more)
    error.problems = tuple(problems)
    return error


def label_field(task_type: TaskType, row: Row) -> str:
    """Give the field that holds what the model shall learn of this row."""
    if task_type is TaskType.SUMMARY:
        return "summary"
    if task_type is TaskType.IE:
        return "spo_list" if is_relations(row) else "entity_list"
    return "label"


def sample_faults(task_type: TaskType, row: object) -> Iterator[Fault]:
    """Give what keeps the engine from predicting `row`: it answers 500 to most of these, for the whole batch."""
    if not isinstance(row, Mapping):
        yield Fault("", f"is {kind(row)}, not a mapping")
        return
    yield from _texts(row, TEXTS[task_type])
    if task_type is TaskType.IE:
        yield from schema_faults(row)


def soundness(task_type: TaskType, engine_type: EngineType) -> Callable[[Row], bool]:
    """Give a quick test for rows of which `training_faults` has nothing to say, given that UTF-8 can carry them.

    It knows the usual good row only: one that it refuses may be good all the same.
    """
    if task_type is TaskType.IE:
        return Soundness()
    if task_type is TaskType.CLASSIFICATION:
        wants_number = engine_type is EngineType.BAGUALU

        def is_sound(row: Row) -> bool:
            get = row.get
            return (
                type(get("content")) is str
                and type(get("label")) is str
                and (not wants_number or (type(number := get("id")) is int and -MAX_ID <= number <= MAX_ID))
                and "probs" not in row
            )

        return is_sound
    if task_type is TaskType.SUMMARY:
        return lambda row: type(row.get("text")) is str and type(row.get("summary")) is str
    labels = frozenset(FIXED_LABELS[task_type])

    def is_pair(row: Row) -> bool:
        get = row.get
        label = get("label")
        return (
            type(get("sentence1")) is str
            and type(get("sentence2")) is str
            and type(label) is str
            and label in labels
            and "id" in row
        )

    return is_pair


def training_faults(task_type: TaskType, engine_type: EngineType, row: Row) -> Iterator[Fault]:
    """Give what keeps `row` from being trained on, apart from a label that is missing."""
    for field in TEXTS[task_type]:
        if field in row and _is_made_text(task_type, engine_type, field, row[field]):
            why = f"is {kind(row[field])}, which the engine reads as Python writes it"
            yield Fault(field, why, IN_QUOTES, is_warning=True)
        else:
            yield from _texts(row, (field,))
    if task_type is TaskType.IE:
        yield from schema_faults(row)
        yield from annotation_faults(row)
    else:
        yield from _id(task_type, engine_type, row)
        yield from _label(task_type, engine_type, row)


def label_text(task_type: TaskType, label: object) -> str | None:
    """Give the string that a number is meant to be as a label; None for all other values."""
    if not is_number(label) or task_type in (TaskType.IE, TaskType.SUMMARY):
        return None
    allowed = FIXED_LABELS.get(task_type)
    if allowed is None:
        return str(label)
    return next((word for word in allowed if word.isdigit() and int(word) == label), None)


def reads_as_text(task_type: TaskType, engine_type: EngineType, value: object) -> bool:
    """Tell whether `value` is no string, and bagualu classification makes one of it (pydantic, in `RawSample`)."""
    is_bagualu = task_type is TaskType.CLASSIFICATION and engine_type is EngineType.BAGUALU
    return is_bagualu and isinstance(value, (int, float))


def _is_made_text(task_type: TaskType, engine_type: EngineType, field: str, value: object) -> bool:
    if field == "sentence2":  # which is pasted into a template (`dataloader_UnifiedMC.py: ori2mrc`)
        return not isinstance(value, str)
    return reads_as_text(task_type, engine_type, value)


def _texts(row: Row, fields: Iterable[str]) -> Iterator[Fault]:
    for field in fields:
        value = row.get(field)
        if not isinstance(value, str):
            yield no_string(field, value) if field in row else missing(field, row)
        elif not is_unicode(value):
            yield Fault(field, HALF_A_PAIR, "remove that character")


def _id(task_type: TaskType, engine_type: EngineType, row: Row) -> Iterator[Fault]:
    """Bagualu classification reads `id` as a whole number (`RawSample`); sentence pairs only want one to be there."""
    if task_type is TaskType.CLASSIFICATION:
        if engine_type is not EngineType.BAGUALU:
            return
        if (what := _is_no_number(row)) is not None:
            change = IDS if row.get("id") is None else ""
            yield Fault("id", f"{what}; bagualu needs a whole number in every row", NUMBER_THEM, change=change)
        if "probs" in row and not _is_numbers(row["probs"]):
            yield Fault("probs", f"is {shown(row['probs'])}; bagualu reads it as a list of numbers", "leave it out")
    elif task_type is not TaskType.SUMMARY and "id" not in row:
        yield Fault("id", MISSING, NUMBER_THEM, change=IDS)


def _label(task_type: TaskType, engine_type: EngineType, row: Row) -> Iterator[Fault]:
    field = label_field(task_type, row)
    label = row.get(field)
    if label is None:
        return
    allowed = FIXED_LABELS.get(task_type)
    if allowed is not None:
        if not isinstance(label, str) or label not in allowed:
            words = ", ".join(f'"{word}"' for word in allowed)
            meant = label_text(task_type, label)
            change = "" if meant is None else NUMBER_LABELS
            if meant is None and isinstance(label, str):
                meant = next((word for word in allowed if bare(word) == bare(label)), None)
            remedy = "write one of these words in its place" if meant is None else f'write "{meant}", in quotes'
            yield Fault(field, f"is {shown(label)}, must be one of the strings {words}", remedy, change=change)
    elif not reads_as_text(task_type, engine_type, label):
        meant = label_text(task_type, label)
        if meant is None:
            yield from _texts(row, (field,))
        else:
            why = f"is {kind(label)}, must be a string"
            yield Fault(field, why, f'write "{meant}", in quotes', change=NUMBER_LABELS)


def _is_no_number(row: Row) -> str | None:
    """Say why a row's id is not what pydantic takes as an int, as 5, 5.0, true and "5" alike are; None if it is."""
    if "id" not in row:
        return MISSING
    value = row["id"]
    try:
        number = int(value) if isinstance(value, (int, float, str)) else None
    except (ValueError, OverflowError):
        number = None
    if number is None:
        return f"is {kind(value)}"
    return None if -MAX_ID - 1 <= number <= MAX_ID else "has more than 64 bits"


def _is_numbers(value: object) -> bool:
    return isinstance(value, list) and all(is_number(item) for item in value)
