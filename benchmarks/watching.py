"""One case of `watch`: a process that watches many jobs in one way for some seconds, and measures itself.

``python -m benchmarks.watching CASE``, where CASE is a `Case` as JSON; prints its `Figures` as JSON. The look itself
does nothing: what is left is what it costs to know when each look is due, and to make it.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence

import attrs
import msgspec

from benchmarks import memory
from benchmarks.ways_to_watch import PORTIONS, WAYS, Begin, Looks

BEAT = 0.01
"""Seconds between two beats of the loop, whose delays are its lag."""

MOST_PORTIONS = 50
"""Portions in which the watches begin: nobody has 50,000 jobs from one moment to the next."""


@attrs.frozen(kw_only=True)
class Case:
    """How many jobs to watch, in which of the `WAYS`, and how long, in seconds.

    They begin one after the other within `ramp`, have `settling` to get over that, and cost is measured in `seconds`.
    """

    way: str
    count: int
    ramp: float
    settling: float
    seconds: float


@attrs.frozen(kw_only=True)
class Figures:
    """What was measured: looks and CPU seconds, and bytes for each watch; and the loop's lag, in seconds.

    The lag is that of all the time in which all are watched, settling included. `unseen` jobs had not been looked at
    even once when the settling was over.
    """

    looks: int
    cpu: float
    bytes_each: float
    unseen: int
    lag_median: float
    lag_p99: float
    lag_most: float


class Heart:
    """Beats every `BEAT` seconds and notes by how much each beat comes late, while it `is_noting`."""

    def __init__(self) -> None:
        self.is_noting = False
        self.lags: list[float] = []

    async def beat(self) -> None:
        """Go on for ever."""
        due = time.monotonic()
        while True:
            due += BEAT
            await asyncio.sleep(due - time.monotonic())
            lag = time.monotonic() - due
            while lag > BEAT:
                # Beats that should have come while the loop stood still: left out, a long stall would count but once.
                self._note(lag)
                lag -= BEAT
                due += BEAT
            self._note(lag)

    def _note(self, lag: float) -> None:
        if self.is_noting:
            self.lags.append(lag)


async def measure(case: Case) -> Figures:
    """Watch and measure."""
    job_ids = [f"ai{number:06}-8a5d-4a3e-9d0c-2f6f2b1c7e10" for number in range(case.count)]
    looks, heart = Looks(job_ids), Heart()
    beating = asyncio.create_task(heart.beat())
    async with WAYS[case.way](looks) as begin:
        await asyncio.sleep(0.2)
        memory.collect()
        before = memory.resident()
        await _begin_all(begin, job_ids, PORTIONS.get(case.way, MOST_PORTIONS), case.ramp)
        heart.is_noting = True
        await asyncio.sleep(case.settling)
        unseen, looks.is_marking = looks.unseen, False
        count, cpu = looks.count, time.process_time()
        await asyncio.sleep(case.seconds)
        cpu, count = time.process_time() - cpu, looks.count - count
        heart.is_noting = False
        memory.collect()
        held = memory.resident() - before
    beating.cancel()
    lags = sorted(heart.lags)
    return Figures(
        looks=count,
        cpu=cpu,
        bytes_each=held / max(1, case.count),
        unseen=unseen,
        lag_median=statistics.median(lags),
        lag_p99=lags[min(len(lags) - 1, int(len(lags) * 0.99))],
        lag_most=lags[-1],
    )


async def _begin_all(begin: Begin, job_ids: Sequence[str], portions: int, ramp: float) -> None:
    until, step = time.monotonic(), max(1, -(-len(job_ids) // portions))
    for start in range(0, len(job_ids), step):
        await begin(job_ids[start : start + step])
        until += ramp / portions
        await asyncio.sleep(until - time.monotonic())


def main() -> None:
    """Measure the case and print its figures."""
    case = msgspec.json.decode(sys.argv[1], type=Case)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(measure(case))))


if __name__ == "__main__":
    main()
