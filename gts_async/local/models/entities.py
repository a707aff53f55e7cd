"""Finds entities in a text: each character is tagged from a window around it, and the best allowed tags are taken.

Tags are "outside", and "begins" and "goes on" for each type; a text has at most one entity at each place.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from gts_async.local.models.classification import spread
from gts_async.local.models.fitting import Epochs, fit, presence

Entity = Mapping[str, Any]
"""An entity as the engine writes it: entity_text, entity_type, entity_index; of a prediction also its score."""

STRENGTH = 10.0
REACH = 3
"""Characters on each side that a tag can depend on."""

_EDGE = "\0"
_OUTSIDE = 0


@attrs.frozen
class Tagger:
    """A trained entity model; it knows only the types that were in its training rows."""

    types: tuple[str, ...]
    vectorizer: Any
    regression: Any

    def entities(self, text: str, wanted: Collection[str]) -> list[dict[str, Any]]:
        """Give the entities of the wanted types, from left to right, each with a score from 0 to 1."""
        if not text:
            return []
        features = self.vectorizer.transform(windows(text))
        chances = spread(self.regression, features, 2 * len(self.types) + 1)
        tags = _best_tags(self._only(chances, wanted))
        return [_entity(text, self.types, tags, chances, span) for span in _spans(tags)]

    def _only(self, chances: Any, wanted: Collection[str]) -> Any:
        usable = [True, *(kind in wanted for kind in self.types for _ in ("begins", "goes on"))]
        return np.where(usable, chances, 0.0)


def fit_tagger(texts: Sequence[str], entities: Sequence[Sequence[Entity]], epochs: Epochs) -> Tagger:
    """Learn from texts and the entities of each; an entity beyond the text's (cut) end is passed over."""
    types = tuple(sorted({entity["entity_type"] for found in entities for entity in found}))
    characters = [window for text in texts for window in windows(text)]
    tags = np.array([tag for text, found in zip(texts, entities, strict=True) for tag in _tags(text, found, types)])
    if not characters:
        raise ValueError("the training rows have no text")
    vectorizer = presence(list)
    features = vectorizer.fit_transform(characters)
    return Tagger(types, vectorizer, fit(features, tags, strength=STRENGTH, epochs=epochs))


def windows(text: str) -> list[list[str]]:
    """Give for each character what its tag may depend on: the characters, pairs and triples around it."""
    around = _EDGE * REACH + text + _EDGE * REACH
    return [_window(around, place) for place in range(REACH, REACH + len(text))]


def _window(text: str, place: int) -> list[str]:
    singles = [f"{step}:{text[place + step]}" for step in range(-REACH, REACH + 1)]
    pairs = [f"{step}:{text[place + step : place + step + 2]}" for step in range(-2, 2)]
    triples = [f"{step}:{text[place + step : place + step + 3]}" for step in range(-2, 1)]
    kinds = [f"{step}={_kind(text[place + step])}" for step in (-1, 0, 1)]
    return [*singles, *pairs, *triples, *kinds]


def _kind(sign: str) -> str:
    if sign.isdigit():
        return "digit"
    if sign.isascii():
        return "letter" if sign.isalpha() else "sign"
    return "word" if sign.isalpha() else "mark"


def _tags(text: str, entities: Sequence[Entity], types: tuple[str, ...]) -> list[int]:
    tags = [_OUTSIDE] * len(text)
    for entity in sorted(entities, key=lambda one: one["entity_index"]):
        start, stop = entity["entity_index"]
        if stop > len(text) or any(tags[start:stop]):
            continue
        begins = 1 + 2 * types.index(entity["entity_type"])
        tags[start:stop] = [begins] + [begins + 1] * (stop - start - 1)
    return tags


def _best_tags(chances: Any) -> list[int]:
    """Give the likeliest tags in which nothing goes on that did not begin (Viterbi)."""
    with np.errstate(divide="ignore"):
        logs = np.log(chances)
    count = logs.shape[1]
    steps = np.zeros((count, count))
    for goes_on in range(2, count, 2):
        steps[:, goes_on] = -np.inf
        steps[[goes_on - 1, goes_on], goes_on] = 0.0
    best = logs[0].copy()
    best[2::2] = -np.inf
    came_from = []
    for row in logs[1:]:
        ways = best[:, None] + steps
        came_from.append(ways.argmax(axis=0))
        best = ways.max(axis=0) + row
    tags = [int(best.argmax())]
    for origins in reversed(came_from):
        tags.append(int(origins[tags[-1]]))
    return tags[::-1]


def _spans(tags: Sequence[int]) -> list[tuple[int, int]]:
    spans = []
    for start, tag in enumerate(tags):
        if tag % 2:
            stop = start + 1
            while stop < len(tags) and tags[stop] == tag + 1:
                stop += 1
            spans.append((start, stop))
    return spans


def _entity(
    text: str, types: tuple[str, ...], tags: Sequence[int], chances: Any, span: tuple[int, int]
) -> dict[str, Any]:
    start, stop = span
    tagged = chances[np.arange(start, stop), tags[start:stop]]
    return {
        "entity_text": text[start:stop],
        "entity_type": types[tags[start] // 2],
        "entity_index": [start, stop],
        "score": float(np.exp(np.log(tagged).mean())),
    }
