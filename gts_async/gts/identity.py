"""Identity: what shows that it is still the same model that answers. Pure; who asks and what follows is elsewhere.

The engine answers for any task with whatever was loaded last, so only the answers themselves can tell.
"""

import hashlib
import math
from collections import deque
from collections.abc import Mapping, Sequence

import attrs

from gts_async.gts import samples
from gts_async.gts.values import Extraction, Prediction, Result, Summary, TaskType

_SAMPLES: Mapping[TaskType, Mapping[str, object]] = {
    TaskType.CLASSIFICATION: {"content": "上海今年新建的公园已经对市民开放。"},
    TaskType.SIMILARITY: {"sentence1": "公园几点开门？", "sentence2": "公园的开放时间"},
    TaskType.NLI: {"sentence1": "公园已经对市民开放。", "sentence2": "市民可以去公园。"},
    TaskType.IE: {"task": "实体识别", "text": "李明住在上海", "choice": ["人名", "地名"]},
    TaskType.SUMMARY: {"text": "上海今年新建的公园已经对市民开放。"},
}

PROBES: Mapping[TaskType, Mapping[str, object]] = {
    kind: samples.prepare(kind, sample) for kind, sample in _SAMPLES.items()
}
"""For each task type a row whose answer is the model's signature; short: ie looks at all pairs of characters."""

NOISE = 0.003
"""How far, relatively, a number may be off when the same model answers among other rows: padding changes rounding."""

TINY = 1e-6
"""Numbers below are rounding, nothing else."""


PROBED_FROM, PROBE_EVERY = 8, 1.0
"""Rows, the probe among them, from which on a request carries it, and seconds after which any other request does."""

MAX_MOMENTS = 256
"""Moments that unproven answers are told apart by."""


@attrs.define
class Identity:
    """What a model has shown of itself: how many labels it has, which is at which place, its answer to the probe.

    Times are monotonic seconds, passed in. `can_probe` is False where the model answers no probe.
    """

    can_probe: bool = True
    _probed: Result | None = None
    _asked_at: float = float("-inf")
    _unsure: deque[tuple[float, int]] = attrs.field(factory=deque)
    _size: int | None = None
    _labels: dict[int, str] = attrs.field(factory=dict)

    def is_due(self, task_type: TaskType, rows: int, now: float, *, has_room: bool = True, must: bool = False) -> bool:
        """Tell whether a request with so many rows is to carry the probe, too; if not `has_room`, by itself after it.

        To tell so once means that it is asked now.
        """
        if task_type is TaskType.SUMMARY or not self.can_probe:
            return False
        is_due = (
            must
            or (has_room and rows + 1 >= PROBED_FROM)
            or self._probed is None
            or now - self._asked_at >= PROBE_EVERY
        )
        if is_due:
            self._asked_at = now
        return is_due

    def doubt(self, results: Sequence[Result], probed: Result | None, began: float, now: float) -> str | None:
        """Learn from the answer to a request of `began`; says instead why it cannot be the same model's as before.

        `probed` is what it makes of the probe, where that was asked, too.
        """
        problem = self._problem(results if probed is None else (*results, probed), probed)
        if problem is not None:
            return problem
        if probed is None:
            self._doubt_later(len(results), now)
        else:
            self._probed = self._probed or probed
            # What came later than this request was sent may be of a model that came in between.
            while self._unsure and self._unsure[0][0] <= began:
                self._unsure.popleft()
        return None

    def _doubt_later(self, count: int, now: float) -> None:
        self._unsure.append((now, count))
        if len(self._unsure) > MAX_MOMENTS:
            # Of a model that answers no probe, nothing is ever proven.
            earlier = self._unsure.popleft()
            later = self._unsure.popleft()
            self._unsure.appendleft((later[0], earlier[1] + later[1]))

    @property
    def doubtful(self) -> int:
        """How many answers may be another model's, if the present one is another."""
        return sum(count for _, count in self._unsure)

    @property
    def unsure(self) -> str:
        """The same in words."""
        count = self.doubtful
        return f"the {count} answers before may be another model's" if count else "no answer was wrong"

    def _problem(self, results: Sequence[Result], probed: Result | None) -> str | None:
        for result in results:
            if isinstance(result, Prediction) and (problem := self._odd_label(result)):
                return problem
        if probed is not None and self._probed is not None and not alike(self._probed, probed):
            return "the same sample has another answer than before"
        return None

    def _odd_label(self, result: Prediction) -> str | None:
        size = len(result.probabilities)
        self._size = self._size or size
        if size != self._size:
            return f"the model has {size} labels and not {self._size}"
        if result.probabilities.count(result.probability) > 1:
            return None
        place = result.probabilities.index(result.probability)
        known = self._labels.setdefault(place, result.label)
        return None if known == result.label else f"the model's label {place} is {result.label!r} and not {known!r}"


def alike(one: Result, other: Result) -> bool:
    """Tell whether the same model may have given both, for the same sample.

    A summary says nothing: what is sought with beams may flip by a rounding.
    """
    if isinstance(one, Prediction) and isinstance(other, Prediction):
        pairs = zip(one.probabilities, other.probabilities, strict=False)
        return len(one.probabilities) == len(other.probabilities) and all(_near(p, q) for p, q in pairs)
    if isinstance(one, Extraction) and isinstance(other, Extraction):
        # Entities near the threshold come and go; the surest is there, and as sure.
        best = max(one.entities, key=lambda entity: entity.score, default=None)
        found = {(entity.start, entity.end, entity.type): entity.score for entity in other.entities}
        if best is None:
            return max(found.values(), default=0.0) < 0.9
        return _near(best.score, found.get((best.start, best.end, best.type), 0.0))
    return isinstance(one, Summary) and isinstance(other, Summary)


def fingerprint(result: Result) -> str:
    """Give what stands for the model that answered the probe so, alone: the same text for the same model.

    Numbers are kept as the logarithms of their odds, to two places: what rounding does to them is far less.
    """
    if isinstance(result, Prediction):
        signs = [str(len(result.probabilities)), result.label, *map(_odds, result.probabilities)]
    elif isinstance(result, Extraction):
        signs = [f"{e.start}:{e.end} {e.type} {_odds(e.score)}" for e in result.entities]
    else:
        signs = [result.text]
    return hashlib.blake2b("\n".join(signs).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _near(p: float, q: float) -> bool:
    """Compare odds rather than numbers: of two sure models, one is often ten times as sure as the other."""
    return math.isclose(p, q, rel_tol=NOISE, abs_tol=TINY) and math.isclose(1 - p, 1 - q, rel_tol=NOISE, abs_tol=TINY)


def _odds(p: float) -> str:
    p = min(max(p, TINY), 1 - TINY)
    return f"{math.log(p / (1 - p)):.2f}"
