"""Tells which entities of a text are related: a pair that the choice allows is judged by what stands around it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from gts_async.local.models.classification import spread
from gts_async.local.models.entities import Entity
from gts_async.local.models.fitting import Epochs, fit, presence

Triple = tuple[str, str, str]
"""Subject type, predicate, object type: one choice of a relation row."""

STRENGTH = 10.0
NEAR = 12
"""Characters between two entities that are looked at."""

Candidate = tuple[str, Entity, Entity]


@attrs.frozen
class Relations:
    """A trained relation model; it accepts only predicates that were in its training rows."""

    predicates: frozenset[str]
    vectorizer: Any
    regression: Any

    def relations(self, text: str, entities: Sequence[Entity], choice: Sequence[Triple]) -> list[dict[str, Any]]:
        """Give the accepted relations as the engine writes them, each with a score from 0.5 to 1."""
        found = [one for one in candidates(entities, choice) if one[0] in self.predicates]
        if not found:
            return []
        tokens = self.vectorizer.transform([evidence(text, one, entities) for one in found])
        scores = spread(self.regression, tokens, 2)[:, 1]
        return [
            {"predicate": predicate, "subject": subject, "object": thing, "score": float(score)}
            for (predicate, subject, thing), score in zip(found, scores, strict=True)
            if score >= 0.5
        ]


@attrs.frozen
class Example:
    """A text with its entities, what its choice allows, and its relations as (predicate, subject span, object span)."""

    text: str
    entities: Sequence[Entity]
    choice: Sequence[Triple]
    relations: frozenset[tuple[str, tuple[int, int], tuple[int, int]]]


def fit_relations(examples: Sequence[Example], epochs: Epochs) -> Relations | None:
    """Learn from texts whose entities are known; None if no pair of entities fits any choice."""
    tokens, answers = [], []
    for example in examples:
        for one in candidates(example.entities, example.choice):
            predicate, subject, thing = one
            tokens.append(evidence(example.text, one, example.entities))
            answers.append((predicate, span(subject), span(thing)) in example.relations)
    if not tokens:
        return None
    vectorizer = presence(list)
    features = vectorizer.fit_transform(tokens)
    regression = fit(features, np.array(answers, dtype=int), strength=STRENGTH, epochs=epochs)
    return Relations(frozenset(relation[0] for one in examples for relation in one.relations), vectorizer, regression)


def span(entity: Entity) -> tuple[int, int]:
    """Give where the entity begins and ends."""
    start, stop = entity["entity_index"]
    return start, stop


def candidates(entities: Sequence[Entity], choice: Sequence[Triple]) -> Iterator[Candidate]:
    """Give every predicate with a subject and another entity as object whose types the choice allows."""
    for subject_type, predicate, object_type in choice:
        subjects = [entity for entity in entities if entity["entity_type"] == subject_type]
        objects = [entity for entity in entities if entity["entity_type"] == object_type]
        yield from ((predicate, one, other) for one in subjects for other in objects if span(one) != span(other))


def evidence(text: str, candidate: Candidate, entities: Sequence[Entity]) -> list[str]:
    """Give what speaks for or against a candidate, once by itself and once together with its predicate."""
    predicate, subject, thing = candidate
    (start, stop), (begin, end) = span(subject), span(thing)
    is_subject_first = start < begin
    between = text[stop:begin] if is_subject_first else text[end:start]
    crossed = sum(min(stop, end) <= span(other)[0] < max(start, begin) for other in entities)
    signs = [
        f"first:{is_subject_first}",
        f"crossed:{min(crossed, 3)}",
        f"apart:{min(len(between).bit_length(), 5)}",
        f"before:{text[max(0, min(start, begin) - 2) : min(start, begin)]}",
        f"after:{text[max(stop, end) : max(stop, end) + 2]}",
        *(f"between:{between[:NEAR][place : place + size]}" for size in (1, 2) for place in range(len(between[:NEAR]))),
    ]
    return [*signs, predicate, *(f"{predicate}|{is_subject_first}|{sign}" for sign in signs)]


def document(relation: Mapping[str, Any]) -> tuple[str, tuple[int, int], tuple[int, int]]:
    """Give a relation of the engine's as an Example holds it."""
    return relation["predicate"], span(relation["subject"]), span(relation["object"])
