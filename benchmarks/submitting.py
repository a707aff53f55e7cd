"""One run of a program that submits a batch with a journal; `kill_loop` starts it, kills it, and starts it again.

``python -m benchmarks.submitting ORDER``, where ORDER is a `Run` as JSON; outcomes are written as they come.
"""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import msgspec

from benchmarks.ledger import Told
from gts_async import AsyncSession, JobSpec


@attrs.frozen(kw_only=True)
class Run:
    """What a run is to submit (`jobs` specs, named by `batch` and their numbers), where, and where it keeps what."""

    url: str
    token: str
    dialect: str
    batch: str
    jobs: int
    max_at_once: int
    journal: Path
    outcomes: Path


def name_of(batch: str, number: int) -> str:
    """Give the name of one spec, which travels in its command."""
    return f"{batch}-{number}"


def names(run: Run) -> list[str]:
    """Give the names of all specs of the batch."""
    return [name_of(run.batch, number) for number in range(run.jobs)]


def specs(run: Run) -> Iterator[JobSpec]:
    """Give the batch's specs; they are the same in each run."""
    for name in names(run):
        yield JobSpec(
            gpu_type="NVIDIA-A100-SXM4-80GB", image_path="registry.test/train:1", run_command=f"sh train.sh {name}"
        )


async def submit(run: Run) -> None:
    """Submit the batch and write each outcome down, a line each."""
    session = AsyncSession(cloud=run.url, token=run.token, dialect=run.dialect)
    with run.outcomes.open("wb", buffering=0) as lines:
        async with session:
            fan_out = session.submit_many(specs(run), max_at_once=run.max_at_once, journal=run.journal)
            async with fan_out as outcomes:
                async for outcome in outcomes:
                    name = (outcome.item.run_command or "").split()[-1]
                    if outcome.error is None:
                        told = Told(name=name, job_id=outcome.unwrap().id)
                    else:
                        told = Told(name=name, error=type(outcome.error).__name__, text=str(outcome.error))
                    lines.write(msgspec.json.encode(told) + b"\n")


def told_in(outcomes: Path) -> list[Told]:
    """Give the outcomes that a run has written."""
    return [msgspec.json.decode(line, type=Told) for line in outcomes.read_bytes().splitlines()]


if __name__ == "__main__":
    asyncio.run(submit(msgspec.json.decode(sys.argv[1], type=Run, dec_hook=lambda kind, value: kind(value))))
