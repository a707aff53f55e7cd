"""Information extraction (ie): entities from a tagger, relations from pairs of them, for texts with a choice of types.

Training needs entity_list on every 实体识别 row and spo_list on every 关系抽取 row of all three files; the text at
entity_index must be entity_text, neither beginning nor ending with a space, and the types must be in the row's choice.
No accuracy is measured, as in the engine; the share of right findings (F1) goes to the log.
"""

import logging
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from gts_async.emulator.backends import TrainingOrder
from gts_async.local.files import FolderFiles
from gts_async.local.models.entities import Entity, Tagger, fit_tagger
from gts_async.local.models.fitting import Epochs
from gts_async.local.models.relations import Example, Relations, Triple, document, fit_relations, span
from gts_async.local.models.rows import Row, Split, Trained, text_limit, text_of

LOG = logging.getLogger(__name__)

ENTITIES = "实体识别"
RELATIONS = "关系抽取"
_ENTITY_FIELDS = ("entity_text", "entity_type", "entity_index")


@attrs.frozen
class Extractor:
    """A trained ie model."""

    max_len: int
    tagger: Tagger
    finder: Relations | None

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Give one document for each row, in order: its task, text and choice, with what was found in it.

        Raises ValueError for a relation row whose choice is not of triples.
        """
        return [self._extract(row) for row in rows]

    def _extract(self, row: Row) -> dict[str, Any]:
        text = text_of(row, "text", self.max_len)
        relations: list[dict[str, Any]] = []
        entities = self.tagger.entities(text, _types(row))
        if row["task"] == RELATIONS and self.finder is not None:
            relations = self.finder.relations(text, entities, _triples(row))
        return {
            "task": row["task"],
            "text": row["text"],
            "entity_list": entities,
            "spo_list": relations,
            "choice": row["choice"],
        }


def train(order: TrainingOrder, files: FolderFiles) -> Trained:
    """Train on the order's files."""
    split = Split.read(order, files)
    max_len, epochs = text_limit(order), Epochs.of(order)
    known = [_known(row) for row in split.all][: len(split.train)]  # dev and test rows are checked, too
    texts = [text_of(row, "text", max_len) for row in split.train]
    tagger = fit_tagger(texts, known, epochs)
    finder = fit_relations(
        [
            Example(text, found, _triples(row), frozenset(map(document, row["spo_list"])))
            for text, found, row in zip(texts, known, split.train, strict=True)
            if row["task"] == RELATIONS
        ],
        epochs,
    )
    model = Extractor(max_len, tagger, finder)
    for name, rows in (("dev", split.dev), ("test", split.test)):
        LOG.info("%s F1: entities %.4f, relations %.4f", name, *_rate(model, rows))
    return Trained(model)


def _known(row: Row) -> list[Entity]:
    """Give the row's entities without repetition, or raise for what does not fit its text or its choice."""
    types = _types(row)
    if row["task"] == ENTITIES:
        entities = [_checked(entity, row, types) for entity in row["entity_list"]]
    else:
        allowed = set(_triples(row))
        for one in row["spo_list"]:
            if (one["subject"]["entity_type"], one["predicate"], one["object"]["entity_type"]) not in allowed:
                raise ValueError(f"{one['predicate']} is not in the choice of its row")
        entities = [_checked(one[role], row, types) for one in row["spo_list"] for role in ("subject", "object")]
    return list({(span(entity), entity["entity_type"]): entity for entity in entities}.values())


def _checked(entity: Entity, row: Row, types: set[str]) -> Entity:
    text, kind, (start, stop) = (entity[field] for field in _ENTITY_FIELDS)
    if text and not (_is_token(text[0]) and _is_token(text[-1])):
        raise ValueError(f"{text!r} begins or ends with what the engine's tokenizer drops")
    if not text or row["text"][start:stop] != text:
        raise ValueError(f"the text at {start}:{stop} is not {text!r}")
    if kind not in types:
        raise ValueError(f"{kind!r} is not in the choice of its row")
    return entity


def _is_token(sign: str) -> bool:
    return sign.isalnum() or unicodedata.category(sign) not in ("Cc", "Cf", "Co", "Zs", "Zl", "Zp", "Mn")


def _types(row: Row) -> set[str]:
    if row["task"] == RELATIONS:
        return {kind for subject, _, thing in _triples(row) for kind in (subject, thing)}
    return set(row["choice"])


def _triples(row: Row) -> list[Triple]:
    if any(not isinstance(one, list | tuple) or len(one) != 3 for one in row["choice"]):
        raise ValueError("a relation's choice is [subject type, predicate, object type]")
    return [(subject, predicate, thing) for subject, predicate, thing in row["choice"]]


def _rate(model: Extractor, rows: Sequence[Row]) -> tuple[float, float]:
    right = [_found(row, [dict(entity) for entity in _known(row)]) for row in rows]
    mine = [_found(one, one["entity_list"]) for one in model.predict(rows)]
    return _f1([one[0] for one in right], [one[0] for one in mine]), _f1(
        [one[1] for one in right], [one[1] for one in mine]
    )


def _found(row: Row, entities: Sequence[Entity]) -> tuple[set[Any], set[Any]]:
    return {(span(entity), entity["entity_type"]) for entity in entities}, set(map(document, row.get("spo_list") or ()))


def _f1(right: Sequence[set[Any]], mine: Sequence[set[Any]]) -> float:
    hits = sum(len(one & other) for one, other in zip(right, mine, strict=True))
    total = sum(map(len, right)) + sum(map(len, mine))
    return 2 * hits / total if total else 1.0
