"""InferenceStats: what an inference session has done, and how long its requests took, in memory of fixed size."""

import math
from collections.abc import Iterable
from typing import Self

import attrs

from gts_async._errors import InvalidArgument

STEP = 1.05
"""How far apart the borders of two neighbouring buckets are: a latency read back is right to 2.5 %."""

SHORTEST, LONGEST = 1e-6, 1e5
"""Seconds; what is shorter or longer is counted as this."""

_FIRST = math.log(SHORTEST, STEP)
_BUCKETS = math.ceil(math.log(LONGEST, STEP) - _FIRST) + 1


@attrs.define
class InferenceStats:
    """Counts of what was asked, and the spread of the seconds that answered requests took.

    `samples` and `batches` count what was answered; `retries` the further requests that one costs which was not: the
    same again, its parts, in search of a bad sample, or a short one that shows whether the engine answers at all;
    `reloads` models loaded again; `hedges` requests that were sent to a second engine because the first was late.
    """

    samples: int = 0
    batches: int = 0
    retries: int = 0
    reloads: int = 0
    hedges: int = 0
    _buckets: list[int] = attrs.field(factory=lambda: [0] * _BUCKETS, init=False, repr=False)

    @property
    def mean_batch(self) -> float:
        """Samples in a request on average; 0 before the first answer."""
        return self.samples / self.batches if self.batches else 0.0

    def record(self, samples: int, seconds: float) -> None:
        """Count one answered request with so many samples, which took `seconds`."""
        self.samples += samples
        self.batches += 1
        within = min(max(seconds, SHORTEST), LONGEST)
        self._buckets[int(math.log(within, STEP) - _FIRST)] += 1

    def latency(self, share: float) -> float:
        """Give the seconds within which this share of the requests was answered: 0.5 is the median, 0.99 the p99.

        Right to 2.5 %; nan before the first answer. Raises InvalidArgument for a share that is not from 0 to 1.
        """
        if not 0 <= share <= 1:
            raise InvalidArgument("share", f"{share!r} is out of range", "use 0 to 1, 0.99 for the p99")
        left = math.ceil(share * sum(self._buckets)) or 1
        for number, count in enumerate(self._buckets):
            left -= count
            if left <= 0:
                return SHORTEST * math.pow(STEP, number + 0.5)
        return math.nan

    @classmethod
    def total(cls, parts: Iterable[Self]) -> Self:
        """Add several up: the counts, and the latencies as if one had recorded them all."""
        whole = cls()
        for part in parts:
            whole.samples += part.samples
            whole.batches += part.batches
            whole.retries += part.retries
            whole.reloads += part.reloads
            whole.hedges += part.hedges
            whole._buckets = [a + b for a, b in zip(whole._buckets, part._buckets, strict=True)]
        return whole

    def __str__(self) -> str:
        text = f"{self.samples} samples in {self.batches} batches (mean {self.mean_batch:.1f})"
        if any(self._buckets):
            text += f", p50 {self.latency(0.5) * 1000:.3g} ms, p99 {self.latency(0.99) * 1000:.3g} ms"
        counts = {"retries": self.retries, "reloads": self.reloads, "hedges": self.hedges}
        return text + "".join(f", {count} {name}" for name, count in counts.items() if count)
