"""Models that have learned nothing: the exact shapes of the engine's six pipelines, filled with numbers from hashes."""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from gts_async.emulator.backends import TrainingOrder


@attrs.frozen
class Predicted:
    """One call of a loaded model: whose it was, which training made it, and the rows."""

    task_id: str
    pid: int
    rows: tuple[Any, ...]


@attrs.frozen
class ToyModel:
    """Answers in the exact shapes of the engine's pipelines; its numbers depend on the task and the rows only.

    Raises where the pipelines raise, which the engine turns into a 500.
    """

    order: TrainingOrder
    pid: int
    labels: tuple[str, ...]
    predicted: list[Predicted] = attrs.field(repr=False, eq=False)

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Give the ``result`` document."""
        self.predicted.append(Predicted(self.order.task_id, self.pid, tuple(rows)))
        return _PIPELINES[self.order.engine_type, self.order.task_type](self, rows)

    def chance(self, text: str) -> float:
        """Give a number from 0 to 1 for `text`, another one for every task."""
        return zlib.crc32(f"{self.order.task_id}\n{text}".encode("utf-8", "surrogatepass")) / 0xFFFFFFFF


Rows = Sequence[Mapping[str, Any]]


def _classify(model: ToyModel, labels: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    probabilities = [_softmax([model.chance(f"{label}\n{text}") for label in labels]) for text in texts]
    predictions = [labels[row.index(max(row))] for row in probabilities]
    return {"predictions": predictions, "probabilities": probabilities}


def _qiankunding_classification(model: ToyModel, rows: Rows) -> dict[str, Any]:
    return _classify(model, model.labels, [_content(row) for row in rows])


def _bagualu_classification(model: ToyModel, rows: Rows) -> dict[str, Any] | None:
    """Bagualu's trainer gives None for no batches."""
    return _qiankunding_classification(model, rows) if rows else None


def _content(row: Mapping[str, Any]) -> str:
    content = row["content"]
    if not isinstance(content, str | int | float):
        raise TypeError(f"content is {type(content).__name__}")
    return str(content)


def _similarity(model: ToyModel, rows: Rows) -> dict[str, Any]:
    if not rows:
        raise UnboundLocalError("dataset")
    return _pairs(model, ("0", "1"), rows)


def _nli(model: ToyModel, rows: Rows) -> dict[str, Any]:
    return _pairs(model, ("entailment", "contradiction", "neutral"), rows)


def _pairs(model: ToyModel, labels: Sequence[str], rows: Rows) -> dict[str, Any]:
    """Every row needs a label that there is, although it is not used."""
    unused = dict.fromkeys(labels, "")
    texts = [f"{row['sentence1']}\n{row['sentence2']}{unused[row['label']]}" for row in rows]
    return _classify(model, labels, texts)


def _ie(model: ToyModel, rows: Rows) -> list[dict[str, Any]]:
    return [_extract(model, row) for row in rows]


def _extract(model: ToyModel, row: Mapping[str, Any]) -> dict[str, Any]:
    """Find the text's first character for every entity type, and one triple for every relation asked for."""
    entities, relations = [], []
    for choice in row["choice"]:
        if row["task"] == "实体识别":
            entities.append(_entity(model, row["text"], str(choice)))
            continue
        subject_type, predicate, object_type = choice
        subject, target = _entity(model, row["text"], subject_type), _entity(model, row["text"], object_type)
        entities += [subject, target]
        score = model.chance(f"{predicate}\n{row['text']}")
        relations.append({"predicate": predicate, "subject": subject, "object": target, "score": score})
    found = {"task": row["task"], "text": row["text"], "entity_list": entities, "spo_list": relations}
    return {**found, "choice": row["choice"]}


def _entity(model: ToyModel, text: str, kind: str) -> dict[str, Any]:
    found = {"entity_text": text[:1], "entity_type": kind, "entity_index": [0, 1]}
    return {**found, "score": model.chance(f"{kind}\n{text}")}


def _summarise(_model: ToyModel, rows: Rows) -> dict[str, str]:
    return {str(i): str(row["text"])[:16] for i, row in enumerate(rows)}


_PIPELINES: Mapping[tuple[str, str], Callable[[ToyModel, Rows], Any]] = {
    ("qiankunding", "classification"): _qiankunding_classification,
    ("qiankunding", "similarity"): _similarity,
    ("qiankunding", "nli"): _nli,
    ("bagualu", "classification"): _bagualu_classification,
    ("bagualu", "ie"): _ie,
    ("bagualu", "summary"): _summarise,
}


def _softmax(scores: Sequence[float]) -> list[float]:
    weights = [math.exp(score) for score in scores]
    return [weight / sum(weights) for weight in weights]
