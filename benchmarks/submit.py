"""Is every job of a batch submitted exactly once, whatever the network does to its creates?

Thousands of specs from a lazy generator go through submit_many to the embedded cloud in another process, which does to
a share of the creates (and listings) what a network and a server can do. Then its ledger of all jobs that were made is
compared with the outcomes: each job belongs to exactly one, none was made twice, none is lost. With `--journal` the
batch is then run again from its journal against a cloud that behaves: that must make nothing but what was refused.
``python -m benchmarks.submit [--jobs 10000] [--faults 0.05] [--generation 2024-01] [--journal] [--seed N]``
"""

import argparse
import asyncio
import collections
import random
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from benchmarks.batch import CALLBACK, WARM, Specs, Submitted, has_callback, submit_all
from benchmarks.comparison import Findings, Made, Told, compare
from benchmarks.faulty_cloud import TOKEN, FaultyCloud, Played
from benchmarks.promises import Promise, judge
from benchmarks.server import Remote, serving
from gts_async import AsyncSession, GtsAsyncError, Limits, Timeouts
from gts_async.emulator.cloud_quirks import Generation

TIMEOUTS = Timeouts(connect=2.0, read=2.0, total=15.0)
MOST_GROWTH = 10.0
"""MB."""

FEWEST_FOR_GROWTH = 5_000
"""Jobs from which on such a growth means anything."""

RECONCILIATIONS = 5
"""Times that an open outcome is asked for."""

MOST_SHOWN = 5
"""Of each kind of fault found."""


@attrs.frozen
class Reconciled:
    """What asking for the open outcomes gave: answers that the ledger does not confirm, and errors that stayed."""

    wrong: list[Told]
    failed: list[str]


async def reconcile(session: AsyncSession, batch: Submitted, made: list[Made]) -> Reconciled:
    """Ask the session what became of each open outcome."""
    contents = {job.id: job.content for job in made}
    jobs = await asyncio.gather(*(settled(session, error.intent) for _, error in batch.open))
    wrong: list[Told] = []
    failed: list[str] = []
    for (told, _), job in zip(batch.open, jobs, strict=True):
        mine = [one for one in made if told.mark in one.mark and one.content == told.content]
        if isinstance(job, Exception):
            failed.append(f"{type(job).__name__}: {job}")
            continue
        is_right = contents.get(job.id) == told.content if job is not None else not mine
        if not is_right:
            wrong.append(told)
    return Reconciled(wrong, failed)


async def settled(session: AsyncSession, intent: Any) -> Any:
    """Give what becomes of an intent, or the error that stays; listings meet faults, too, so it is asked again."""
    error: GtsAsyncError | None = None
    for _ in range(RECONCILIATIONS):
        try:
            return await session.reconcile(intent)
        except GtsAsyncError as failure:
            error = failure
    return error


@attrs.frozen
class Again:
    """A second run from the journal: how many jobs it made, contents that now have more jobs than specs.

    `changed` are outcomes that name another job than the first run's, `errors` those with any error.
    """

    made: int
    twice: list[int]
    changed: list[tuple[int, str]]
    errors: list[Told]


async def submit_again(
    server: Remote[FaultyCloud], session: AsyncSession, specs: Specs, at_once: int, journal: Path, first: Submitted
) -> Again:
    """Run the batch once more against a cloud that behaves."""
    server.ask(FaultyCloud.behave)
    known = collections.Counter((one.content, one.job_id) for one in first.read() if one.job_id)
    made = len(server.ask(FaultyCloud.ledger))
    again = await submit_all(session, Specs(specs.jobs, specs.has_callbacks), at_once, journal)
    ledger, told = server.ask(FaultyCloud.ledger), list(again.read())
    missing = known - collections.Counter((one.content, one.job_id) for one in told)
    return Again(
        made=len(ledger) - made,
        twice=compare(specs.counts(), ledger, told, {}).twice,
        changed=sorted(missing),
        errors=[one for one in told if one.error],
    )


@attrs.frozen
class Result:
    """All that is judged."""

    batch: Submitted
    specs: Specs
    made: list[Made]
    findings: Findings
    misdirected: list[Made]
    reconciled: Reconciled
    again: Again | None
    played: Played


async def run(
    server: Remote[FaultyCloud], generation: Generation, jobs: int, at_once: int, journal: Path | None
) -> Result:
    dialect = "2024-04" if generation is Generation.HEAD else "2023-12"
    specs = Specs(jobs, has_callbacks=generation is not Generation.HEAD)
    limits = Limits(max_connections=at_once)
    session = AsyncSession(cloud=server.url, token=TOKEN, dialect=dialect, limits=limits, timeouts=TIMEOUTS)
    async with session:
        batch = await submit_all(session, specs, at_once, journal)
        made, played = server.ask(FaultyCloud.ledger), server.ask(FaultyCloud.played)
        findings = compare(specs.counts(), made, batch.read(), collections.Counter(played.refused))
        misdirected = [job for job in made if generation is not Generation.HEAD and not is_directed(job)]
        reconciled = await reconcile(session, batch, made)
        again = await submit_again(server, session, specs, at_once, journal, batch) if journal is not None else None
    return Result(batch, specs, made, findings, misdirected, reconciled, again, played)


def is_directed(job: Made) -> bool:
    """Tell whether the job's callbacks go where its spec wants them, if it does: a fragment is not sent."""
    return job.mark.partition("#")[0] == CALLBACK if has_callback(job.content) else CALLBACK not in job.mark


def promises(result: Result, at_once: int) -> list[Promise]:
    batch, findings, jobs = result.batch, result.findings, result.specs.jobs
    creates, looks = result.played.creates, result.played.looks
    met, seen = sum(count for fault, count in creates.items() if fault), sum(creates.values())
    kinds = len(creates.keys() - {""})
    open_and_made = sum(is_made for _, is_made in findings.unknown)
    return [
        Promise.none("creates that the cloud saw", f"{seen:,}"),
        Promise.none("creates that met a fault", f"{met:,} ({met / max(1, seen):.1%}), {kinds} kinds"),
        Promise.none("looks that the cloud saw", f"{sum(looks.values()):,}"),
        Promise.none("jobs made", f"{len(result.made):,}"),
        Promise.none("seconds", f"{batch.seconds:.1f}"),
        Promise.none("jobs a second, over the first 90 %", f"{0.9 * jobs / batch.most_of_them:,.0f}"),
        Promise.none("CPU for each job", f"{batch.cpu / jobs * 1e3:.2f} ms"),
        growth(batch, jobs),
        Promise.at_most("specs pulled before the first outcome", batch.pulled_first, 8 * at_once),
        Promise.none("most specs pulled ahead of their outcomes", f"{batch.most_ahead:,}"),
        Promise.exactly("scripts of the cloud's that failed", result.played.broken, 0),
        Promise.exactly("outcomes", batch.outcomes, jobs),
        Promise.exactly("jobs whose callbacks would go elsewhere", len(result.misdirected), 0),
        *judged(findings),
        Promise.none("of these, made", f"{open_and_made:,}"),
        Promise.exactly("of these, settled wrongly by reconcile()", len(result.reconciled.wrong), 0),
        Promise.exactly("of these, not settled by it, asked again and again", len(result.reconciled.failed), 0),
        Promise.none("outcomes that say that no create arrived", f"{len(findings.unsent):,}"),
        *(from_journal(result.again) if result.again is not None else ()),
    ]


def judged(findings: Findings) -> list[Promise]:
    """Promise that nothing differs."""
    return [
        Promise.exactly("contents with more jobs than specs (duplicates)", len(findings.twice), 0),
        Promise.exactly("marks that several jobs have", len(findings.same_mark), 0),
        Promise.exactly("jobs without a mark", len(findings.unmarked), 0),
        Promise.exactly("jobs that no outcome tells of (lost)", len(findings.lost), 0),
        Promise.exactly("outcomes with a job that was never made", len(findings.phantoms), 0),
        Promise.exactly("outcomes with another spec's job", len(findings.mixed_up), 0),
        Promise.exactly("jobs told to several specs", len(findings.shared), 0),
        Promise.exactly("contents with a wrong number of outcomes", len(findings.untold), 0),
        Promise.exactly("contents whose refusals are not told as such", len(findings.refusals), 0),
        Promise.exactly("outcomes with other errors", len(findings.errors), 0),
        Promise.exactly("outcomes left open, although the cloud has a listing", len(findings.unknown), 0),
    ]


def growth(batch: Submitted, jobs: int) -> Promise:
    """Judge the peak of memory, if there were jobs enough to tell."""
    grown = (batch.gauge.most - batch.gauge.warm) / 1e6
    what = f"MB of memory beyond the peak of the first {WARM:.0%}"
    if jobs < FEWEST_FOR_GROWTH:
        return Promise.none(f"{what}: too few jobs to judge", f"{grown:.1f}")
    return Promise.at_most(what, grown, MOST_GROWTH)


def from_journal(again: Again) -> list[Promise]:
    """Promise that a second run makes only what the cloud has refused in the first, or never got."""
    return [
        Promise.none("run again from the journal: jobs made", f"{again.made:,}"),
        Promise.exactly("contents with more jobs than specs (duplicates)", len(again.twice), 0),
        Promise.exactly("outcomes of the first run that are not told again", len(again.changed), 0),
        Promise.exactly("outcomes with an error", len(again.errors), 0),
    ]


def show(result: Result) -> None:
    """Print what was found, a few of each kind."""
    print(f"\nthe cloud's answers to creates: {dict(sorted(result.played.creates.items()))}")
    print(f"to looks: {dict(sorted(result.played.looks.items()))}")
    found = attrs.asdict(result.findings, recurse=False)
    found |= {"misdirected": result.misdirected, "wrongly reconciled": result.reconciled.wrong}
    found |= {"not reconciled": result.reconciled.failed}
    if result.again is not None:
        found |= {f"again: {name}": ones for name, ones in attrs.asdict(result.again, recurse=False).items()}
    for name, ones in found.items():
        if isinstance(ones, list) and ones:
            more = f" … and {len(ones) - MOST_SHOWN} more" if len(ones) > MOST_SHOWN else ""
            print(f"{name}: {', '.join(map(repr, ones[:MOST_SHOWN]))}{more}")


def main() -> int:
    """Submit, compare, print what came of it and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--faults", type=float, default=0.05, help="share of the answers, 0 to 1")
    parser.add_argument("--generation", choices=[one.value for one in Generation], default=Generation.GO.value)
    parser.add_argument("--journal", action="store_true", help="keep one, and run the batch again from it")
    parser.add_argument("--only", default="*", help='creates meet only faults of such names, as in "RST, made"')
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    generation = Generation(options.generation)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(partial(FaultyCloud, generation, options.faults, options.seed, options.only)) as server,
    ):
        journal = Path(folder) / "batch.db" if options.journal else None
        result = asyncio.run(run(server, generation, options.jobs, options.at_once, journal))
    title = (
        f"{options.jobs:,} jobs, {options.at_once} at once, {options.faults:.0%} faults, {generation.name}"
        f"{', with a journal' if options.journal else ''} (seed {options.seed})"
    )
    code = judge(title, promises(result, options.at_once))
    show(result)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
