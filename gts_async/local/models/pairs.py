"""Similarity and inference (nli) of two sentences: what they share, what each has alone, and a logistic regression.

Every row of all three files needs an id, sentence1, sentence2 and a label that is one of the task's strings; a number
is no label. Only sentence1 must be a string: the other is pasted into a template. `train_mode` and the labels file are
not looked at, as in the engine.
"""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import attrs
import numpy as np
from scipy.sparse import csr_matrix, hstack

from gts_async.emulator.backends import TrainingOrder
from gts_async.local.files import FolderFiles
from gts_async.local.models.classification import accuracy, spread
from gts_async.local.models.fitting import Epochs, fit, presence
from gts_async.local.models.rows import Row, Split, Trained, text_limit, text_of

LOG = logging.getLogger(__name__)

LABELS: Mapping[str, tuple[str, ...]] = {
    "similarity": ("0", "1"),
    "nli": ("entailment", "contradiction", "neutral"),
}
"""The labels of both tasks, in the order of their probabilities."""

STRENGTH = 10.0
NEGATIONS = frozenset("不没无非未别莫勿否")
COMPARED = 128
"""Characters of each sentence that are aligned; the alignment's time grows with their product."""

Pair = tuple[str, str]


@attrs.frozen
class PairClassifier:
    """A trained similarity or nli model."""

    task_type: str
    max_len: int
    vectorizer: Any
    regression: Any

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """Give the labels and their probabilities.

        Raises KeyError for a row without a label of the task, though it is not used, and ValueError for no rows at
        all in similarity: there the engine answers 500. Of no rows, nli makes two empty lists.
        """
        if not rows and self.task_type == "similarity":
            raise ValueError("the engine's similarity pipeline fails on an empty list")
        labels = LABELS[self.task_type]
        _classes(rows, labels)
        probabilities = self.probabilities(_pairs(rows, self.max_len))
        predictions = [labels[place] for place in probabilities.argmax(axis=1)]
        return {"predictions": predictions, "probabilities": probabilities.tolist()}

    def probabilities(self, pairs: Sequence[Pair]) -> Any:
        """Give one row of probabilities for each pair."""
        count = len(LABELS[self.task_type])
        return spread(self.regression, features(pairs, self.vectorizer), count) if pairs else np.zeros((0, count))


def train(order: TrainingOrder, files: FolderFiles) -> Trained:
    """Train on the order's files and measure on its test file."""
    labels = LABELS[order.task_type]
    max_len = text_limit(order)
    split = Split.read(order, files)
    if any("id" not in row for row in split.all):
        raise KeyError("id")
    (pairs, classes), dev, test = (
        (_pairs(rows, max_len), _classes(rows, labels)) for rows in (split.train, split.dev, split.test)
    )
    if order.task_type == "similarity":  # it means the same the other way round
        pairs, classes = [*pairs, *((b, a) for a, b in pairs)], np.concatenate([classes, classes])
    vectorizer = presence(differences).fit([*pairs, ("甲", "乙")])  # equal pairs alone have no pieces
    known = features(dev[0], vectorizer) if dev[0] else None
    regression = fit(
        features(pairs, vectorizer),
        classes,
        strength=STRENGTH,
        epochs=Epochs.of(order),
        measure=None if known is None else lambda fresh: float(np.mean(fresh.predict(known) == dev[1])),
    )
    model = PairClassifier(order.task_type, max_len, vectorizer, regression)
    test_acc = accuracy(model.probabilities(test[0]), test[1])
    LOG.info("test accuracy %.4f of %d rows", test_acc, len(test[0]))
    return Trained(model, test_acc)


def _pairs(rows: Sequence[Row], max_len: int) -> list[Pair]:
    if not all(isinstance(row["sentence1"], str) for row in rows):
        raise TypeError("sentence1: not text in every row")
    return [(text_of(row, "sentence1", max_len), str(row["sentence2"])[:max_len]) for row in rows]


def _classes(rows: Sequence[Row], labels: tuple[str, ...]) -> Any:
    places = {label: place for place, label in enumerate(labels)}
    return np.array([places[row["label"]] for row in rows], dtype=int)


def features(pairs: Sequence[Pair], vectorizer: Any) -> Any:
    """Give a sparse matrix: how much the sentences share, beside the pieces that only one of them has."""
    shared = csr_matrix([_shared(first, second) for first, second in pairs])
    return hstack([shared, vectorizer.transform(pairs)]).tocsr()


def differences(pair: Pair) -> list[str]:
    """Give the characters and character pairs that only one sentence has, marked with its number."""
    first, second = ({*_pieces(text, 1), *_pieces(text, 2)} for text in pair)
    return [f"1{piece}" for piece in first - second] + [f"2{piece}" for piece in second - first]


def _shared(first: str, second: str) -> list[float]:
    longest = max(len(first), len(second), 1)
    numbers = [[sign for sign in text if sign.isdigit()] for text in (first, second)]
    negations = [sum(sign in NEGATIONS for sign in text) for text in (first, second)]
    return [
        *(share for size in (1, 2, 3) for share in _overlaps(first, second, size)),
        SequenceMatcher(None, first[:COMPARED], second[:COMPARED], autojunk=False).ratio(),
        float(first == second),
        min(len(first), len(second)) / longest,
        math.tanh((len(first) - len(second)) / 10),
        float(numbers[0] == numbers[1]),
        float(negations[0] % 2 == negations[1] % 2),
    ]


def _overlaps(first: str, second: str, size: int) -> tuple[float, float, float]:
    """Give the shares of the first's pieces, of the second's and of both together that the other has, too."""
    one, other = Counter(_pieces(first, size)), Counter(_pieces(second, size))
    common = (one & other).total()
    left, right = one.total(), other.total()
    return common / max(left, 1), common / max(right, 1), 2 * common / max(left + right, 1)


def _pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(len(text) - size + 1)]
