"""What a model answers to predict: the three shapes that the six pipelines give, read into our values.

Refusals and failures of the call itself are read in `answers`.
"""

import math
from functools import partial

import attrs
from msgspec import UNSET, Raw, UnsetType

from gts_async.gts.answers import Reply, accepted, odd
from gts_async.gts.values import FIXED_LABELS, Entity, Extraction, Prediction, Relation, Result, Summary, TaskType
from gts_async.wire import Answer, decode

TOLERANCE = 1e-3
"""How far from 1 the sum of a row of probabilities may be: they are made of 32-bit numbers."""


@attrs.frozen
class _Classes:
    predictions: tuple[str, ...]
    probabilities: tuple[tuple[float, ...], ...]


@attrs.frozen
class _Entity:
    entity_text: str
    entity_type: str
    entity_index: tuple[int, int]
    score: float


@attrs.frozen
class _Relation:
    predicate: str
    subject: _Entity
    object: _Entity
    score: float


@attrs.frozen
class _Extract:
    text: str
    entity_list: tuple[_Entity, ...]
    spo_list: tuple[_Relation, ...]


@attrs.frozen
class _Classified(Reply):
    result: _Classes | UnsetType | None = UNSET


@attrs.frozen
class _Extracted(Reply):
    result: tuple[Raw, ...] | UnsetType | None = UNSET


@attrs.frozen
class _Summarized(Reply):
    result: dict[str, str] | UnsetType | None = UNSET


def results(task_type: TaskType, asked: int, answer: Answer) -> tuple[Result, ...]:
    """Give what a model of `task_type` makes of `asked` rows, in their order; raises NotFound or InvalidData.

    The engine answers null for no rows at all (bagualu classification). A shape, a label or a number of results that
    this task type cannot have raises UnexpectedAnswer.
    """
    found: tuple[Result, ...]
    if task_type is TaskType.IE:
        found = _extractions(answer)
    elif task_type is TaskType.SUMMARY:
        found = _summaries(answer)
    else:
        found = _predictions(task_type, answer)
    if len(found) != asked:
        raise odd("predict", f"{len(found)} results for {asked} rows", answer)
    return found


def _predictions(task_type: TaskType, answer: Answer) -> tuple[Prediction, ...]:
    result = accepted("predict", answer, _Classified).result
    if result is None:
        return ()
    if isinstance(result, UnsetType):
        raise odd("predict", "no `result`", answer)
    if len(result.predictions) != len(result.probabilities):
        counts = f"{len(result.predictions)} predictions with {len(result.probabilities)} rows of probabilities"
        raise odd("predict", counts, answer)
    pairs = tuple(zip(result.predictions, result.probabilities, strict=True))
    for label, row in pairs:
        if problem := _odd_row(label, row, FIXED_LABELS.get(task_type)):
            raise odd("predict", problem if len(row) > 20 else f"{problem}: {label!r}, {list(row)}", answer)
    if len(sizes := set(map(len, result.probabilities))) > 1:
        raise odd("predict", f"rows of {' and of '.join(map(str, sorted(sizes)))} probabilities in one answer", answer)
    return tuple(Prediction(label, max(row), row) for label, row in pairs)


def _odd_row(label: str, row: tuple[float, ...], labels: tuple[str, ...] | None) -> str | None:
    """Say what no model of this kind can answer, if this is such a row; the largest probability is the label's."""
    if labels is not None and (label not in labels or len(row) != len(labels)):
        return f"no answer of a task whose labels are {', '.join(labels)}"
    if not row or not all(math.isfinite(p) and -TOLERANCE <= p <= 1 + TOLERANCE for p in row):
        return f"not the probabilities of {label!r}"
    if abs(math.fsum(row) - 1) > TOLERANCE:
        return f"probabilities that add up to {math.fsum(row):.4g}"
    if labels is not None and row[labels.index(label)] < max(row):
        return "not the label of the largest probability"
    return None


def _extractions(answer: Answer) -> tuple[Extraction, ...]:
    result = accepted("predict", answer, _Extracted).result
    if isinstance(result, UnsetType):
        raise odd("predict", "no `result`", answer)
    return tuple(_extraction(row, answer) for row in result or ())


def _extraction(json: Raw, answer: Answer) -> Extraction:
    # A copy of its own, or one kept result would keep the whole answer.
    own = bytes(json)
    row = decode(own, _Extract, call="predict")
    entity = partial(_entity, row.text, answer)
    return Extraction(
        row.text,
        tuple(map(entity, row.entity_list)),
        tuple(Relation(r.predicate, entity(r.subject), entity(r.object), r.score) for r in row.spo_list),
        own,
    )


def _entity(text: str, answer: Answer, found: _Entity) -> Entity:
    start, end = found.entity_index
    if start < 0 or text[start:end] != found.entity_text:
        raise odd("predict", f"{found.entity_text!r} is not at {start}:{end} of its text", answer)
    return Entity(found.entity_text, found.entity_type, start, end, found.score)


def _summaries(answer: Answer) -> tuple[Summary, ...]:
    """Give the summaries by row: the engine keys them "0", "1", … (`inference_manager_std.py`)."""
    result = accepted("predict", answer, _Summarized).result
    if isinstance(result, UnsetType):
        raise odd("predict", "no `result`", answer)
    texts = result or {}
    try:
        return tuple(Summary(texts[str(row)]) for row in range(len(texts)))
    except KeyError as error:
        raise odd("predict", f"{len(texts)} summaries, but none for row {error}", answer) from None
