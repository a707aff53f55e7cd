"""What an ie row must hold: its task, the types to look for, and entities and relations that are where they say.

Rows of other tasks are in `rows`.
"""

import unicodedata
from collections.abc import Iterator, Mapping

import attrs

from gts_async.gts.faults import HALF_A_PAIR, Fault, is_unicode, kind, missing, no_string, shown

ENTITIES = "实体识别"
RELATIONS = "关系抽取"
"""The two kinds of ie row, the words that its ``task`` takes."""

WINDOW, STRIDE = 400, 200
"""Characters that the training looks at together, and how far apart they begin; what is left at the end of a longer
text is never looked at (`dataset_utils.py: data_segment`)."""

LEAVE_OUT = "correct it, or leave it out"
AS_TASK = "write the types that the row's task asks for"

MAX_CHOICES = 1000
"""Different choices of which is kept what they allow."""

SEPARATORS = ("[unused1]", "[unused2]")
"""What bagualu puts between the types; in a text or a type it would count as one more (`item_encoder.py: encode`)."""

_DROPPED = frozenset({"Cc", "Cf", "Co", "Zs", "Zl", "Zp", "Mn"})
"""Categories of characters of which the tokenizer makes nothing (`BertNormalizer`)."""

Row = Mapping[str, object]


def is_relations(row: Row) -> bool:
    """Tell whether a row asks for relations, not for entities only."""
    return row.get("task") == RELATIONS


def schema_faults(row: Row) -> Iterator[Fault]:
    """Check ``task`` and ``choice``, the types to look for, and that there is text at all."""
    text = row.get("text")
    if text == "":
        yield Fault("text", "is empty, which the engine refuses", "leave the row out")
    elif isinstance(text, str):
        yield from _separators("text", text)
    task = row.get("task")
    if task not in (ENTITIES, RELATIONS):
        yield Fault("task", f"is {shown(task)}, must be {ENTITIES} or {RELATIONS}", "write the one that is meant")
        return
    choice = row.get("choice")
    if not isinstance(choice, (list, tuple)) or not choice:
        yield Fault("choice", f"is {shown(choice)}, must be a list of at least one type", "list the types to look for")
        return
    for place, item in enumerate(choice):
        if task == ENTITIES and not _is_word(item):
            yield Fault(f"choice[{place}]", f"is {shown(item)}, must be an entity type, a string", AS_TASK)
        elif task == RELATIONS and not _is_triple(item):
            yield Fault(f"choice[{place}]", f"is {shown(item)}, must be [subject type, relation, object type]", AS_TASK)
        else:
            for word in (item,) if isinstance(item, str) else item:
                yield from _separators(f"choice[{place}]", word)


def annotation_faults(row: Row) -> Iterator[Fault]:
    """Check the entities and relations of an ie row against its text and its choice."""
    types, relations = _vocabulary(row.get("choice"))
    for field in ("entity_list", "spo_list"):
        items = row.get(field)
        if items is None:
            if field in row and (field == "spo_list") is not is_relations(row):
                yield Fault(field, "is null, which ends the training", "leave it out, or give []")
            continue
        if not isinstance(items, list):
            yield Fault(field, f"is {kind(items)}, must be an array", "give a list, empty if there is none")
            continue
        for place, item in enumerate(items):
            where = f"{field}[{place}]"
            if not isinstance(item, Mapping):
                yield Fault(where, f"is {kind(item)}, must be an object", LEAVE_OUT)
            elif field == "entity_list":
                yield from _entity(where, item, row.get("text"), types)
            else:
                yield from _relation(where, item, row, types, relations)


_Allowed = tuple[frozenset[str], frozenset[tuple[str, str, str]]]
_NONE: list[object] = []


class Soundness:
    """A quick test for ie rows of which the two functions above have nothing to say; it knows the usual good row only.

    Most rows of a file have the same choice: what it allows is kept.
    """

    def __init__(self) -> None:
        self._allowed: dict[object, _Allowed | None] = {}

    def __call__(self, row: Row) -> bool:
        """Tell whether a row is good; one that it refuses may be good all the same."""
        try:
            return self._is_sound(row)
        except TypeError:  # a list where a word should be
            return False

    def _is_sound(self, row: Row) -> bool:
        text, choice, task = row.get("text"), row.get("choice"), row.get("task")
        if type(text) is not str or not text or "[unused" in text or type(choice) is not list:
            return False
        if task == ENTITIES:
            allowed = self._allowing(tuple(choice), row)
            items, others = row.get("entity_list"), row.get("spo_list", _NONE)
            if allowed is None or type(items) is not list or others != _NONE:
                return False
            return all(_type_of(item, text, allowed[0]) is not None for item in items)
        if task != RELATIONS or set(map(type, choice)) != {list}:
            return False
        allowed = self._allowing(tuple(map(tuple, choice)), row)
        items, others = row.get("spo_list"), row.get("entity_list", _NONE)
        if allowed is None or type(items) is not list or others != _NONE:
            return False
        return all(_is_sound_relation(item, text, *allowed) for item in items)

    def _allowing(self, key: object, row: Row) -> _Allowed | None:
        return self._allowed[key] if key in self._allowed else self._keep(key, row)

    def _keep(self, key: object, row: Row) -> _Allowed | None:
        if len(self._allowed) >= MAX_CHOICES:
            self._allowed.clear()
        allowed = None
        if not any(schema_faults(row)):
            types, relations = _vocabulary(row["choice"])
            allowed = frozenset(types), frozenset(relations)
        self._allowed[key] = allowed
        return allowed


def _type_of(entity: object, text: str, types: frozenset[str]) -> str | None:
    """Give the type of an entity that is good, None for others."""
    if type(entity) is not dict:
        return None
    index, named, kind_of_entity = entity.get("entity_index"), entity.get("entity_text"), entity.get("entity_type")
    if type(index) is not list or len(index) != 2 or type(named) is not str or not named:
        return None
    start, end = index
    is_good = (
        type(start) is int
        and type(end) is int
        and 0 < start < end
        and text[start:end] == named
        and named[0].isalnum()
        and named[-1].isalnum()
    )
    return kind_of_entity if is_good and type(kind_of_entity) is str and kind_of_entity in types else None


def _is_sound_relation(
    relation: object, text: str, types: frozenset[str], relations: frozenset[tuple[str, str, str]]
) -> bool:
    if type(relation) is not dict:
        return False
    subject, thing = (_type_of(relation.get(side), text, types) for side in ("subject", "object"))
    predicate = relation.get("predicate")
    if subject is None or thing is None or type(predicate) is not str:
        return False
    return (subject, predicate, thing) in relations


def _separators(field: str, text: str) -> Iterator[Fault]:
    yield from (
        Fault(field, f"holds {sign}, which bagualu puts between the types", "remove it")
        for sign in SEPARATORS
        if sign in text
    )


def _vocabulary(choice: object) -> tuple[set[str], set[tuple[str, str, str]]]:
    """Give the entity types, and the relations as triples, that `choice` allows; both empty if it cannot be read."""
    items = choice if isinstance(choice, (list, tuple)) else ()
    relations = {(item[0], item[1], item[2]) for item in items if _is_triple(item)}
    types = {item for item in items if isinstance(item, str)}
    return types | {word for head, _, tail in relations for word in (head, tail)}, relations


def _entity(where: str, entity: Row, text: object, types: set[str]) -> Iterator[Fault]:
    for field in ("entity_text", "entity_type"):
        yield from _word(where, entity, field)
    kind_of_entity = entity.get("entity_type")
    if isinstance(kind_of_entity, str) and types and kind_of_entity not in types:
        yield Fault(f"{where}.entity_type", f"{shown(kind_of_entity)} is not in choice", "add it to choice")
    index = entity.get("entity_index")
    if not (isinstance(index, list) and len(index) == 2 and all(type(place) is int for place in index)):
        yield Fault(f"{where}.entity_index", f"is {shown(index)}, must be [start, end]", "write two whole numbers")
        return
    start, end = index
    if start == 0:
        yield Fault(
            f"{where}.entity_index",
            "begins at 0; the engine's check wants more than 0 and refuses an entity at the start of the text",
            "put a character in front of the text and add 1 to its indexes, or leave the row out",
        )
    elif start < 0 or end <= start:
        why = f"is {index}, must be start < end, counted in characters from 1 up"
        yield Fault(f"{where}.entity_index", why, _place_of(entity, text))
    elif isinstance(text, str):
        there = text[start:end]
        if entity.get("entity_text") != there:
            why = f"text[{start}:{end}] is {shown(there)}, not its entity_text"
            yield Fault(f"{where}.entity_index", why, _place_of(entity, text))
        elif there and (_is_dropped(there[0]) or _is_dropped(there[-1])) and _is_looked_at(start, end, len(text)):
            yield Fault(
                f"{where}.entity_text",
                f"{shown(there)} begins or ends with what the tokenizer drops; the training looks for a token there",
                "leave such characters out of the entity, and correct its index",
            )


def _relation(
    where: str, relation: Row, row: Row, types: set[str], relations: set[tuple[str, str, str]]
) -> Iterator[Fault]:
    yield from _word(where, relation, "predicate")
    ends = []
    for side in ("subject", "object"):
        entity = relation.get(side)
        if isinstance(entity, Mapping):
            yield from _entity(f"{where}.{side}", entity, row.get("text"), types)
            ends.append(entity.get("entity_type"))
        else:
            yield Fault(f"{where}.{side}", f"is {kind(entity)}, must be an object", LEAVE_OUT)
    triple = (ends[0], relation.get("predicate"), ends[1]) if len(ends) == 2 else ()
    if relations and triple and all(map(_is_word, triple)) and triple not in relations:
        yield Fault(f"{where}.predicate", f"{shown(list(triple))} is not in choice", "add it to choice")


def _word(where: str, item: Row, field: str) -> Iterator[Fault]:
    value = item.get(field)
    if not isinstance(value, str):
        fault = no_string(field, value) if field in item else missing(field, item)
        yield attrs.evolve(fault, field=f"{where}.{field}")
    elif not value:
        yield Fault(f"{where}.{field}", "is empty, which the engine refuses", LEAVE_OUT)
    elif not is_unicode(value):
        yield Fault(f"{where}.{field}", HALF_A_PAIR, "remove that character")


def _place_of(entity: Row, text: object) -> str:
    """Say where an entity is in the text, which may have been counted in bytes, in code units or from 1."""
    named = entity.get("entity_text")
    if not (isinstance(text, str) and isinstance(named, str) and named):
        return LEAVE_OUT
    start = text.find(named, 1)
    return f"the text has it at [{start}, {start + len(named)}]" if start > 0 else LEAVE_OUT


def _is_dropped(sign: str) -> bool:
    return not sign.isalnum() and (unicodedata.category(sign) in _DROPPED or sign == "\ufffd")


def _is_looked_at(start: int, end: int, length: int) -> bool:
    """Tell whether an entity lies within one of the windows of its text."""
    last = max(0, length - WINDOW) // STRIDE
    return end <= min(start // STRIDE, last) * STRIDE + WINDOW


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value != "" and is_unicode(value)


def _is_triple(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(map(_is_word, value))
