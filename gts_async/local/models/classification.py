"""Classification of short texts, for both engines: TF-IDF of characters and character pairs, logistic regression.

Beyond what the engine's check asks for, training needs a label of the labels file on every row of all three files; for
qiankunding enough training rows; for bagualu an id that is a whole number on every row, and at most 50 labels. What
bagualu reads as a string may be a number. The advanced mode trains a second time, together with the unlabeled texts of
which the first model is surest.
"""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from gts_async.emulator.backends import TrainingOrder
from gts_async.local.files import FolderFiles
from gts_async.local.models.fitting import Epochs, fit
from gts_async.local.models.rows import Row, Split, Trained, as_number, as_string, read_rows, text_limit, text_of

LOG = logging.getLogger(__name__)

NEIGHBOURS = 32
"""What qiankunding looks for nearest neighbours among: two for each training row, and one more for each label that has
several rows (`knn_utils.py`)."""

MOST_LABELS = 50
"""With more, bagualu fails on every data set (`data_module_std.py`)."""

STRENGTH = 100.0
SURE_SHARE = 0.25
"""The share of the unlabeled texts that is taken over, by the distance between the two likeliest labels."""

SURE_WEIGHT = 0.3
"""What a text that was labeled by the model counts against one that was labeled by hand."""


@attrs.frozen
class Classifier:
    """A trained classification model."""

    labels: tuple[str, ...]
    max_len: int
    is_bagualu: bool
    vectorizer: Any
    regression: Any

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]] | None:
        """Give the labels and, in the order of the labels file, their probabilities.

        Of no rows, qiankunding makes two empty lists and bagualu null.
        """
        if not rows:
            return None if self.is_bagualu else {"predictions": [], "probabilities": []}
        probabilities = self.probabilities([text_of(row, "content", self.max_len) for row in rows])
        predictions = [self.labels[place] for place in probabilities.argmax(axis=1)]
        return {"predictions": predictions, "probabilities": probabilities.tolist()}

    def probabilities(self, texts: Sequence[str]) -> Any:
        """Give one row of probabilities for each text; a label that was not trained has 0."""
        return spread(self.regression, self.vectorizer.transform(texts), len(self.labels))


def spread(regression: Any, features: Any, count: int) -> Any:
    """Give the probabilities of `count` classes, where the regression may know only some of them."""
    probabilities = np.zeros((features.shape[0], count))
    if features.shape[0]:
        probabilities[:, regression.classes_] = regression.predict_proba(features)
    return probabilities


def accuracy(probabilities: Any, classes: Any) -> float:
    """Give the share of rows whose likeliest class is the right one; 0 for no rows."""
    return float(np.mean(probabilities.argmax(axis=1) == classes)) if len(classes) else 0.0


@attrs.frozen
class _Texts:
    """Texts and the places of their labels in the labels file."""

    texts: list[str]
    classes: Any

    @classmethod
    def of(cls, rows: Sequence[Row], labels: tuple[str, ...], max_len: int, is_bagualu: bool) -> "_Texts":
        places = {label: place for place, label in reversed(list(enumerate(labels)))}
        classes = np.array([places[as_string(row["label"]) if is_bagualu else row["label"]] for row in rows], dtype=int)
        return cls([text_of(row, "content", max_len) for row in rows], classes)


def train(order: TrainingOrder, files: FolderFiles) -> Trained:
    """Train on the order's files; the test accuracy is given for qiankunding only, as in the engine."""
    is_bagualu = order.engine_type == "bagualu"
    split = Split.read(order, files)
    _check(split, is_bagualu)
    labels = _read_labels(order, files, is_bagualu)
    max_len = text_limit(order)
    learned, dev, test = (_Texts.of(rows, labels, max_len, is_bagualu) for rows in (split.train, split.dev, split.test))
    epochs = Epochs.of(order)
    if is_bagualu:
        epochs = _raised(epochs, len(learned.texts))
    model = _fit(learned, dev, Classifier(labels, max_len, is_bagualu, None, None), epochs)
    if order.train_mode == "advanced":
        model = _again(model, learned, dev, _unlabeled(order, files, max_len), epochs)
    test_acc = accuracy(model.probabilities(test.texts), test.classes)
    LOG.info("test accuracy %.4f of %d rows", test_acc, len(test.texts))
    return Trained(model, None if is_bagualu else test_acc)


def _check(split: Split, is_bagualu: bool) -> None:
    if is_bagualu:
        for row in split.all:
            as_number(row["id"])
        return
    if not all(isinstance(row["content"], str) for row in split.all):
        raise TypeError("content: not text in every row")
    counts = Counter(str(row["label"]) for row in split.train)
    neighbours = sum(2 * count + 1 if count > 1 else 2 for count in counts.values())
    if neighbours < NEIGHBOURS:
        raise ValueError(f"{len(split.train)} training rows are too few: {neighbours} of {NEIGHBOURS} neighbours")


def _read_labels(order: TrainingOrder, files: FolderFiles, is_bagualu: bool) -> tuple[str, ...]:
    labels = read_rows(files, order.task_id, order.label_data)[0]["labels"]
    if not is_bagualu:
        return tuple(labels)
    if len(labels) > MOST_LABELS or len(set(labels)) < len(labels):
        raise ValueError(f"{len(labels)} labels: more than {MOST_LABELS}, or one of them twice")
    return tuple(map(as_string, labels))


def _raised(epochs: Epochs, rows: int) -> Epochs:
    """Raise the epochs as the engine does for few rows: to 40, or as many as make 1400 steps of one row."""
    floor = math.ceil(min(1400, 40 * rows) / rows)
    return Epochs(max(epochs.most, floor), epochs.least, epochs.seed)


def _unlabeled(order: TrainingOrder, files: FolderFiles, max_len: int) -> list[str]:
    rows = read_rows(files, order.task_id, order.unlabeled_data)
    return [text_of(row, "content", max_len) for row in rows]


def _fit(learned: _Texts, dev: _Texts, model: Classifier, epochs: Epochs, weights: Any = None) -> Classifier:
    # Pairs of characters do as well as longer pieces on a few hundred short texts, and train and predict faster.
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 2))
    features = vectorizer.fit_transform(learned.texts)
    known = vectorizer.transform(dev.texts) if dev.texts else None
    regression = fit(
        features,
        learned.classes,
        strength=STRENGTH,
        epochs=epochs,
        weights=weights,
        measure=None if known is None else lambda fresh: float(np.mean(fresh.predict(known) == dev.classes)),
    )
    return attrs.evolve(model, vectorizer=vectorizer, regression=regression)


def _again(model: Classifier, learned: _Texts, dev: _Texts, unlabeled: list[str], epochs: Epochs) -> Classifier:
    """Train once more, with the unlabeled texts of which `model` is surest (self-training)."""
    if not unlabeled or len(model.labels) < 2:
        return model
    probabilities = model.probabilities(unlabeled)
    ranked = np.sort(probabilities, axis=1)
    margins = ranked[:, -1] - ranked[:, -2]
    sure = np.flatnonzero(margins >= np.quantile(margins, 1 - SURE_SHARE))
    LOG.info("took over %d of %d unlabeled texts", len(sure), len(unlabeled))
    together = _Texts(
        [*learned.texts, *(unlabeled[place] for place in sure)],
        np.concatenate([learned.classes, probabilities[sure].argmax(axis=1)]),
    )
    weights = np.concatenate([np.ones(len(learned.texts)), np.full(len(sure), SURE_WEIGHT)])
    return _fit(together, dev, model, epochs, weights)
