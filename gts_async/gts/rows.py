"""What one row must hold: to train on (`training_faults`) and to be predicted (`sample_faults`).

The engine checks less than its pipelines need; these are the pipelines' needs. Files of rows are in `datafiles`, what
is sent for a sample is in `samples`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs

from gts_async._errors import InvalidData, Problem
from gts_async.gts.values import FIXED_LABELS, EngineType, TaskType

Row = Mapping[str, object]

MISSING = "is missing"
NUMBER_THEM = "number the rows"

ENTITIES = "实体识别"
RELATIONS = "关系抽取"
"""The two kinds of ie row, the words that its ``task`` takes."""

TEXTS: Mapping[TaskType, tuple[str, ...]] = {
    TaskType.CLASSIFICATION: ("content",),
    TaskType.SIMILARITY: ("sentence1", "sentence2"),
    TaskType.NLI: ("sentence1", "sentence2"),
    TaskType.IE: ("text",),
    TaskType.SUMMARY: ("text",),
}
"""The fields that hold what the model reads."""


@attrs.frozen
class Fault:
    """What is wrong with one field of one row."""

    field: str
    why: str
    remedy: str = ""


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
        return "spo_list" if row.get("task") == RELATIONS else "entity_list"
    return "label"


def sample_faults(task_type: TaskType, row: object) -> Iterator[Fault]:
    """Give what keeps the engine from predicting `row`: it answers 500 to most of these, for the whole batch."""
    if not isinstance(row, Mapping):
        yield Fault("", f"is {kind(row)}, not a mapping")
        return
    yield from _texts(row, TEXTS[task_type])
    if task_type is TaskType.IE:
        yield from _schema(row)


def soundness(task_type: TaskType, engine_type: EngineType) -> Callable[[Row], bool]:
    """Give a quick test for rows of which `training_faults` has nothing to say, given that UTF-8 can carry them.

    It knows the usual good row only: one that it refuses may be good all the same.
    """
    if task_type is TaskType.IE:
        return lambda row: False
    if task_type is TaskType.CLASSIFICATION:
        wants_number = engine_type is EngineType.BAGUALU

        def is_sound(row: Row) -> bool:
            get = row.get
            return (
                type(get("content")) is str
                and type(get("label")) is str
                and (not wants_number or (type(get("id")) is int and "probs" not in row))
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
    yield from _texts(row, TEXTS[task_type])
    if task_type is TaskType.IE:
        yield from _schema(row)
        yield from _annotations(row)
    else:
        yield from _id(task_type, engine_type, row)
        yield from _label(task_type, engine_type, row)


def _texts(row: Row, fields: Iterable[str]) -> Iterator[Fault]:
    for field in fields:
        value = row.get(field)
        remedy = f'write "{value}", in quotes' if is_number(value) and field == "label" else ""
        if not isinstance(value, str):
            yield Fault(field, f"is {kind(value)}, must be a string", remedy) if field in row else Fault(field, MISSING)
        elif not is_unicode(value):
            yield Fault(field, "holds half of a surrogate pair, which no UTF-8 can carry", "remove that character")


def _id(task_type: TaskType, engine_type: EngineType, row: Row) -> Iterator[Fault]:
    """Bagualu classification reads `id` as a whole number (`RawSample`); sentence pairs only want one to be there."""
    if task_type is TaskType.CLASSIFICATION:
        if engine_type is not EngineType.BAGUALU:
            return
        if not _is_whole(row.get("id")):
            what = f"is {kind(row['id'])}" if "id" in row else MISSING
            yield Fault("id", f"{what}; bagualu needs a whole number in every row", NUMBER_THEM)
        if "probs" in row and not _is_numbers(row["probs"]):
            yield Fault("probs", f"is {shown(row['probs'])}; bagualu reads it as a list of numbers", "leave it out")
    elif task_type is not TaskType.SUMMARY and "id" not in row:
        yield Fault("id", MISSING, NUMBER_THEM)


def _label(task_type: TaskType, engine_type: EngineType, row: Row) -> Iterator[Fault]:
    field = label_field(task_type, row)
    label = row.get(field)
    if label is None:
        return
    allowed = FIXED_LABELS.get(task_type)
    if allowed is not None:
        if not isinstance(label, str) or label not in allowed:
            words = ", ".join(f'"{word}"' for word in allowed)
            remedy = f'write "{label}", in quotes' if str(label) in allowed else ""
            yield Fault(field, f"is {shown(label)}, must be one of the strings {words}", remedy)
    elif engine_type is EngineType.BAGUALU and task_type is TaskType.CLASSIFICATION and is_number(label):
        return  # pydantic reads it as a string
    else:
        yield from _texts(row, (field,))


def _schema(row: Row) -> Iterator[Fault]:
    """Check ``task`` and ``choice``, the types to look for, and that there is text at all."""
    if row.get("text") == "":
        yield Fault("text", "is empty, which the engine refuses")
    task = row.get("task")
    if task not in (ENTITIES, RELATIONS):
        yield Fault("task", f"is {shown(task)}, must be {ENTITIES} or {RELATIONS}")
        return
    choice = row.get("choice")
    if not isinstance(choice, (list, tuple)) or not choice:
        yield Fault("choice", f"is {shown(choice)}, must be a list of at least one type")
        return
    for place, item in enumerate(choice):
        if task == ENTITIES and not _is_word(item):
            yield Fault(f"choice[{place}]", f"is {shown(item)}, must be an entity type, a string")
        elif task == RELATIONS and not _is_triple(item):
            yield Fault(f"choice[{place}]", f"is {shown(item)}, must be [subject type, relation, object type]")


def _annotations(row: Row) -> Iterator[Fault]:
    """Check the entities and relations of an ie row against its text and its choice."""
    types, relations = _vocabulary(row.get("choice"))
    for field in ("entity_list", "spo_list"):
        items = row.get(field)
        if items is None:
            if field in row and field != label_field(TaskType.IE, row):
                yield Fault(field, "is null, which ends the training", "leave it out, or give []")
            continue
        if not isinstance(items, list):
            yield Fault(field, f"is {kind(items)}, must be an array")
            continue
        for place, item in enumerate(items):
            where = f"{field}[{place}]"
            if not isinstance(item, Mapping):
                yield Fault(where, f"is {kind(item)}, must be an object")
            elif field == "entity_list":
                yield from _entity(where, item, row.get("text"), types)
            else:
                yield from _relation(where, item, row, types, relations)


def _vocabulary(choice: object) -> tuple[set[str], set[tuple[str, str, str]]]:
    """Give the entity types, and the relations as triples, that `choice` allows; both empty if it cannot be read."""
    items = choice if isinstance(choice, (list, tuple)) else ()
    relations = {(item[0], item[1], item[2]) for item in items if _is_triple(item)}
    types = {item for item in items if isinstance(item, str)}
    return types | {word for head, _, tail in relations for word in (head, tail)}, relations


def _entity(where: str, entity: Row, text: object, types: set[str]) -> Iterator[Fault]:
    yield from (Fault(f"{where}.{fault.field}", fault.why) for fault in _texts(entity, ("entity_text", "entity_type")))
    kind_of_entity = entity.get("entity_type")
    if isinstance(kind_of_entity, str) and types and kind_of_entity not in types:
        yield Fault(f"{where}.entity_type", f"{shown(kind_of_entity)} is not in choice")
    for field in ("entity_text", "entity_type"):
        if entity.get(field) == "":
            yield Fault(f"{where}.{field}", "is empty, which the engine refuses")
    index = entity.get("entity_index")
    if not (isinstance(index, list) and len(index) == 2 and all(type(place) is int for place in index)):
        yield Fault(f"{where}.entity_index", f"is {shown(index)}, must be [start, end]")
        return
    start, end = index
    if start == 0:
        yield Fault(
            f"{where}.entity_index",
            "begins at 0; the engine's check wants more than 0 and refuses an entity at the start of the text",
            "put a character in front of the text and add 1 to its indexes, or leave the row out",
        )
    elif start < 0 or end <= start:
        yield Fault(f"{where}.entity_index", f"is {index}, must be start < end, counted in characters from 1 up")
    elif isinstance(text, str) and text[start:end] != entity.get("entity_text"):
        yield Fault(f"{where}.entity_index", f"text[{start}:{end}] is {shown(text[start:end])}, not its entity_text")


def _relation(
    where: str, relation: Row, row: Row, types: set[str], relations: set[tuple[str, str, str]]
) -> Iterator[Fault]:
    yield from (Fault(f"{where}.{fault.field}", fault.why) for fault in _texts(relation, ("predicate",)))
    if relation.get("predicate") == "":
        yield Fault(f"{where}.predicate", "is empty, which the engine refuses")
    ends = []
    for side in ("subject", "object"):
        entity = relation.get(side)
        if isinstance(entity, Mapping):
            yield from _entity(f"{where}.{side}", entity, row.get("text"), types)
            ends.append(entity.get("entity_type"))
        else:
            yield Fault(f"{where}.{side}", f"is {kind(entity)}, must be an object")
    triple = (ends[0], relation.get("predicate"), ends[1]) if len(ends) == 2 else ()
    if relations and triple and all(_is_word(word) for word in triple) and triple not in relations:
        yield Fault(f"{where}.predicate", f"{shown(list(triple))} is not in choice")


def kind(value: object) -> str:
    """Give what `value` is, in JSON's words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    names = ((str, "a string"), ((int, float), "a number"), (Mapping, "an object"), ((list, tuple), "an array"))
    return next((name for types, name in names if isinstance(value, types)), f"a {type(value).__name__}")


def shown(value: object) -> str:
    """Give `value` short, for a message."""
    if value is None:
        return "null"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def is_number(value: object) -> bool:
    """True for a JSON number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_unicode(text: str) -> bool:
    """False if UTF-8 cannot carry `text`: it holds a lone surrogate."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _is_whole(value: object) -> bool:
    """True for what pydantic takes as an int: 5, 5.0, true and "5" alike."""
    if not isinstance(value, (int, float, str)):
        return False
    try:
        int(value)
    except (ValueError, OverflowError):
        return False
    return True


def _is_numbers(value: object) -> bool:
    return isinstance(value, list) and all(is_number(item) for item in value)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value != "" and is_unicode(value)


def _is_triple(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(map(_is_word, value))
