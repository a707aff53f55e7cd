"""Summaries made of the text's own sentences: a logistic regression ranks them, the best are kept in their order.

It learns from the training pairs which sentences a summary is closest to, whether whole sentences or their clauses
serve better, and how long a summary may be. Every row of all three files needs text and summary; the advanced mode
trains the same. No accuracy is measured, as in the engine; the overlap with the summaries (F1) goes to the log.
"""

import itertools
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

import attrs
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from gts_async.emulator.backends import TrainingOrder
from gts_async.local.files import FolderFiles
from gts_async.local.models.classification import spread
from gts_async.local.models.fitting import Epochs, fit
from gts_async.local.models.rows import Row, Split, Trained, text_limit, text_of

LOG = logging.getLogger(__name__)

STRENGTH = 10.0
SENTENCES = re.compile(r"[^。！？!?；;\n]+[。！？!?；;]*")
CLAUSES = re.compile(r"[^。！？!?；;\n，,：:]+[。！？!?；;，,：:]*")

_Pair = tuple[str, str]


@attrs.frozen
class Summarizer:
    """A trained summary model; `max_summary` is in characters."""

    max_len: int
    max_summary: int
    pieces: re.Pattern[str]
    vectorizer: Any
    regression: Any

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Give the summaries, keyed by the row's place as a string."""
        return {str(place): self.summary(text_of(row, "text", self.max_len)) for place, row in enumerate(rows)}

    def summary(self, text: str) -> str:
        """Give the text's best pieces within `max_summary`: the very best one in any case."""
        pieces = split_pieces(text, self.pieces)
        if not pieces:
            return text.strip()
        scores = spread(self.regression, features(pieces, self.vectorizer), 2)[:, 1]
        room = self.max_summary
        kept: list[int] = []
        for place in sorted(range(len(pieces)), key=lambda one: -scores[one]):
            if not kept or len(pieces[place]) <= room:
                kept.append(place)
                room -= len(pieces[place])
        return "".join(pieces[place] for place in sorted(kept)).rstrip("，,：:；;")


def train(order: TrainingOrder, files: FolderFiles) -> Trained:
    """Train on the order's files."""
    split = Split.read(order, files)
    max_len = text_limit(order)
    pairs, dev, test = ([_pair(row, max_len) for row in rows] for rows in (split.train, split.dev, split.test))
    pattern = max((SENTENCES, CLAUSES), key=lambda one: _reachable(pairs, one))
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 2)).fit([*(text for text, _ in pairs), "文"])
    examples = [(split_pieces(text, pattern), summary) for text, summary in pairs]
    examples = [(pieces, summary) for pieces, summary in examples if pieces]
    if not examples:
        raise ValueError("the training rows have no text")
    matrix = np.concatenate([features(pieces, vectorizer) for pieces, _ in examples])
    closest = np.concatenate([_closest(pieces, summary) for pieces, summary in examples])
    regression = fit(matrix, closest, strength=STRENGTH, epochs=Epochs.of(order))
    longest = round(1.2 * median(len(summary) for _, summary in pairs))
    model = Summarizer(max_len, longest, pattern, vectorizer, regression)
    for name, known in (("dev", dev), ("test", test)):
        LOG.info("%s overlap %.4f of %d rows", name, _rate(model, known), len(known))
    return Trained(model)


def split_pieces(text: str, pattern: re.Pattern[str]) -> list[str]:
    """Give the text's sentences, or clauses, without the space around them."""
    pieces = (piece.strip() for piece in pattern.findall(text))
    return [piece for piece in pieces if piece]


def features(pieces: Sequence[str], vectorizer: Any) -> Any:
    """Give for each piece: its place, its length, and how much it has in common with the rest and with the start."""
    weights = vectorizer.transform(pieces)
    common = (weights @ weights.T).toarray()
    count = len(pieces)
    places = np.arange(count)
    columns = [
        places == 0,
        places == count - 1,
        places / count,
        1 / (1 + places),
        np.minimum([len(piece) / 50 for piece in pieces], 2.0),
        (common.sum(axis=1) - 1) / max(count - 1, 1),
        common[0],
        [any(sign.isdigit() for sign in piece) for piece in pieces],
        [piece.endswith(("？", "?")) for piece in pieces],
    ]
    return np.column_stack([np.asarray(column, dtype=float) for column in columns])


def overlap(text: str, summary: str) -> float:
    """Give how alike two texts are in their characters and character pairs, from 0 to 1 (F1)."""
    one, other = (Counter([*text, *map("".join, itertools.pairwise(text))]) for text in (text, summary))
    return 2 * (one & other).total() / max(one.total() + other.total(), 1)


def _pair(row: Row, max_len: int) -> _Pair:
    return text_of(row, "text", max_len), text_of(row, "summary", max_len)


def _closest(pieces: Sequence[str], summary: str) -> Any:
    """Mark the piece that is closest to the summary."""
    likeness = [overlap(piece, summary) for piece in pieces]
    return (np.arange(len(pieces)) == int(np.argmax(likeness))).astype(int)


def _reachable(pairs: Sequence[_Pair], pattern: re.Pattern[str]) -> float:
    """Give how close a single piece can come to the summaries."""
    best = [
        max((overlap(piece, summary) for piece in split_pieces(text, pattern)), default=0.0) for text, summary in pairs
    ]
    return fmean(best)


def _rate(model: Summarizer, pairs: Sequence[_Pair]) -> float:
    return fmean(overlap(model.summary(text), summary) for text, summary in pairs) if pairs else 0.0
