"""Fits a logistic regression in epochs, which is what `max_num_epoch`, `min_num_epoch` and `seed` mean here.

One epoch is PASSES passes of stochastic average gradient over the rows: a linear model learns less from one pass than
a pretrained network does. The seed orders the rows of every pass. After `min_num_epoch` epochs the fit ends as soon as
the loss on the training rows falls by less than TOLERANCE; the dev rows are measured and logged, never chosen by.
"""

import logging
import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from gts_async.emulator.backends import TrainingOrder

LOG = logging.getLogger(__name__)

PASSES = 10
TOLERANCE = 1e-4
"""Nats per row."""


@attrs.frozen
class Epochs:
    """How long to train, and with which seed."""

    most: int
    least: int
    seed: int

    @classmethod
    def of(cls, order: TrainingOrder) -> "Epochs":
        """Take them from an order; the engine checks no range, here less than one epoch raises ValueError."""
        if order.max_num_epoch < 1:
            raise ValueError(f"max_num_epoch: {order.max_num_epoch} is less than 1")
        return cls(order.max_num_epoch, min(order.min_num_epoch, order.max_num_epoch), order.seed)

    def shuffling(self, epoch: int) -> int:
        """Give the seed of one epoch, in the range that scikit-learn takes."""
        return (self.seed + epoch) % (1 << 32)


def fit(
    features: Any,
    classes: Any,
    *,
    strength: float,
    epochs: Epochs,
    weights: Any = None,
    measure: Callable[[Any], float] | None = None,
) -> Any:
    """Give a classifier with ``predict_proba`` and ``classes_``; where there is only one class it is always that one.

    `strength` is the inverse of the regularization (scikit-learn's C). `measure` rates the classifier for the log.
    """
    if len(np.unique(classes)) < 2:
        return DummyClassifier(strategy="prior").fit(features, classes)
    model = LogisticRegression(C=strength, solver="sag", max_iter=PASSES, warm_start=True)
    loss = math.inf
    for epoch in range(1, epochs.most + 1):
        _one_epoch(model.set_params(random_state=epochs.shuffling(epoch)), features, classes, weights)
        before, loss = loss, float(log_loss(classes, model.predict_proba(features), sample_weight=weights))
        rating = "" if measure is None else f", dev {measure(model):.4f}"
        LOG.info("epoch %d: loss %.4f%s", epoch, loss, rating)
        if epoch >= epochs.least and before - loss < TOLERANCE:
            break
    return model


def presence(pieces: Callable[[Any], Iterable[str]]) -> Any:
    """Give a vectorizer that tells which of the pieces known from training a thing has; `pieces` names a thing's."""
    settings: dict[str, Any] = {"analyzer": pieces, "binary": True, "dtype": np.float64}
    return CountVectorizer(**settings)


def _one_epoch(model: Any, features: Any, classes: Any, weights: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an epoch is meant to end early
        model.fit(features, classes, sample_weight=weights)
