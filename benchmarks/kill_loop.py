"""Is a job ever lost or submitted twice when the program that submits the batch is killed again and again?

A program submits a batch of jobs with a journal to the embedded cloud, which takes a while for each create. It is
killed (SIGKILL) at random moments: before its first create, while creates are under way, while their ids are written
down, while it settles what the run before left behind; and it is started again on the same journal until the batch is
done. Then comes a new batch with a new journal, until there were kills enough. In the end the cloud's ledger is
compared with the journal and with what the last run told.
``python -m benchmarks.kill_loop [--times 200] [--jobs 200] [--generation all] [--together] [--seed N]``

With ``--together`` two programs share each journal, and both are killed. What a kill left behind is settled when its
lease has run out, or when it is sure that nothing arrived: half a minute, in which other batches go on beside it.
"""

import argparse
import asyncio
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs
import msgspec

from benchmarks.ledger import Kill, Landing, Told, Verdict, journaled, judged, landings
from benchmarks.promises import Promise, judge
from benchmarks.server import Remote, serving
from benchmarks.slow_cloud import TOKEN, Aim, SlowCloud
from benchmarks.submitting import Run, names, told_in
from gts_async.emulator.cloud import Generation

KILLS = 20
"""Kills in one batch, at most; they are spread over its creates, from the first to the last."""

LANES = 4
"""Batches at once: while one waits until it may say that something did not arrive, the others go on."""

AT_ONCE = (1, 4, 16)
"""What a batch may submit at once."""

WITHIN = 0.004
"""Seconds after a create has come, or was answered, within which a kill strikes: the ids are written down then."""

STARTUP = 0.8
"""Seconds within which a run that is not to get to its first create is killed."""

UNSTARTED = 0.1
"""The share of such runs."""

QUIET = 8.0
"""Seconds without a create after which a kill strikes at the latest: the run is settling what others left behind."""

PATIENCE = 240.0
"""Seconds after which a run that is not killed will never end, for this command."""

ENOUGH = 100
"""Kills from which on all kinds of moments must have been met."""


@attrs.frozen(kw_only=True)
class Plan:
    """What is asked for."""

    jobs: int
    generations: Sequence[Generation]
    together: bool
    seed: int
    folder: Path


@attrs.frozen(kw_only=True)
class Ended:
    """What came of one batch: its verdict, its kills and where they landed, how many runs it took, and seconds.

    `failed` are the last words of runs that failed by themselves, `stuck` counts those that did not end.
    """

    verdict: Verdict
    kills: Sequence[Kill]
    cut: Sequence[Landing]
    runs: int
    failed: Sequence[str]
    stuck: int
    last_seconds: float


@attrs.define
class Batch:
    """One batch under way, with its journal, at one of the clouds."""

    plan: Plan
    number: int
    server: Remote[SlowCloud]
    generation: Generation
    runs_of_all: "itertools.count[int]"
    kills: list[Kill] = attrs.field(factory=list)
    failed: list[str] = attrs.field(factory=list)
    last_runs: list[list[Told]] = attrs.field(factory=list)
    runs: int = 0
    stuck: int = 0
    last_seconds: float = 0.0

    @property
    def name(self) -> str:
        """What its specs' names begin with."""
        return str(self.number)

    async def run(self, kills: int) -> Ended:
        """Run it to its end, through at most so many kills."""
        chance = random.Random(f"{self.plan.seed} {self.number}")
        at_once, programs = chance.choice(AT_ONCE), 2 if self.plan.together else 1
        shares = [kills // programs + (number < kills % programs) for number in range(programs)]
        await asyncio.gather(*(self._program(share, at_once, random.Random(chance.random())) for share in shares))
        creates, is_quiet = self.server.ask(SlowCloud.creates, self.name)
        while not is_quiet:
            await asyncio.sleep(0.05)
            creates, is_quiet = self.server.ask(SlowCloud.creates, self.name)
        self.kills.sort(key=lambda kill: kill.at)
        cut = landings(self.kills, creates)
        verdict = judged(names(self._order(0, 1)), creates, journaled(self._journal), self.last_runs, cut)
        return Ended(
            verdict=verdict,
            kills=self.kills,
            cut=cut,
            runs=self.runs,
            failed=self.failed,
            stuck=self.stuck,
            last_seconds=self.last_seconds,
        )

    @property
    def _journal(self) -> Path:
        return self.plan.folder / f"batch-{self.name}.journal"

    def _order(self, run: int, at_once: int) -> Run:
        return Run(
            url=f"{self.server.url}/run-{run}/api",
            token=TOKEN,
            dialect="2024-04" if self.generation is Generation.HEAD else "2023-12",
            batch=self.name,
            jobs=self.plan.jobs,
            max_at_once=at_once,
            journal=self._journal,
            outcomes=self.plan.folder / f"run-{run}.outcomes",
        )

    async def _program(self, kills: int, at_once: int, chance: random.Random) -> None:
        """Start one program again and again, killing it so often; give up when it ends by itself."""
        for position in sorted(chance.randrange(self.plan.jobs + 1) for _ in range(kills)):
            if not await self._killed(position, at_once, chance):
                return
        await self._killed(None, at_once, chance)

    async def _killed(self, position: int | None, at_once: int, chance: random.Random) -> bool:
        """Run the program, with a kill when so many specs have reached the cloud; tells whether it was killed."""
        run = next(self.runs_of_all)
        order = self._order(run, at_once)
        self.runs += 1
        words = self.plan.folder / f"run-{run}.stderr"
        began = time.monotonic()
        with words.open("wb") as stderr:
            command = [sys.executable, "-m", "benchmarks.submitting", _encoded(order)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr)  # noqa: ASYNC220 - a fork
        if position is not None:
            self.server.ask(SlowCloud.take_aim, run, self._aim(process.pid, position, chance))
        is_stuck = not await asyncio.to_thread(_ends, process.pid, PATIENCE)
        shot_at = None if position is None else self.server.ask(SlowCloud.lower, run)
        if is_stuck:
            self.stuck += 1
            process.kill()
        code = process.wait()
        if shot_at is not None and code < 0:
            self.kills.append(Kill(run=run, at=shot_at, journaled=journaled(self._journal)))
            return True
        self.last_seconds = max(self.last_seconds, time.monotonic() - began)
        if code != 0 and not is_stuck:
            self.failed.append(words.read_text(errors="replace")[-2000:])
        self.last_runs.append(told_in(order.outcomes) if order.outcomes.exists() else [])
        return False

    def _aim(self, pid: int, position: int, chance: random.Random) -> Aim:
        is_early = chance.random() < UNSTARTED
        return Aim(
            pid=pid,
            batch=self.name,
            position=self.plan.jobs + 1 if is_early else position,
            on="arrival" if chance.random() < 0.5 else "answer",
            delay=chance.random() * WITHIN,
            quiet=chance.random() * (STARTUP if is_early else QUIET) + (0.0 if is_early else STARTUP),
        )


def _encoded(order: Run) -> str:
    return msgspec.json.encode(order, enc_hook=str).decode()


def _ends(pid: int, within: float) -> bool:
    """Wait until the process has ended, without taking its end notice of it: its number is not given away so."""
    until = time.monotonic() + within
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


async def loop(plan: Plan, times: int, servers: Sequence[Remote[SlowCloud]]) -> list[Ended]:
    """Run batches until there were so many kills, several at once."""
    numbers, runs = itertools.count(), itertools.count(1)
    ended: list[Ended] = []
    left = times

    async def lane() -> None:
        nonlocal left
        while left > 0:
            kills = min(left, KILLS)
            left -= kills
            number = next(numbers)
            place = number % len(servers)
            batch = Batch(plan, number, servers[place], plan.generations[place], runs)
            ended.append(await batch.run(kills))
            left += kills - len(ended[-1].kills)
            print(f"batch {number} of generation {plan.generations[place].value}: {_told(ended[-1])}", flush=True)

    while left > 0:
        async with asyncio.TaskGroup() as group:
            for _ in range(LANES):
                group.create_task(lane())
    return ended


def _told(batch: Ended) -> str:
    verdict = batch.verdict
    return (
        f"{len(batch.kills)} kills, {batch.runs} runs, {verdict.listed} settled by listing, {verdict.sent_again} sent "
        f"again, {len(verdict.unknown)} unknown; {len(verdict.lost)} lost, {len(verdict.doubled)} twice"
    )


def promises(batches: Sequence[Ended], times: int, jobs: int, seconds: float) -> list[Promise]:
    cut = [landing for batch in batches for landing in batch.cut]
    verdicts = [batch.verdict for batch in batches]
    kills = sum(len(batch.kills) for batch in batches)

    def landed(what: str, parts: Sequence[int]) -> Promise:
        met = sum(1 for part in parts if part)
        measured = f"{met:,} kills, {sum(parts):,} creates"
        return Promise(what, measured, "≥ 1" if kills >= ENOUGH else "", met > 0 or kills < ENOUGH)

    def none(what: str, found: Sequence[Sequence[str]]) -> Promise:
        return Promise.exactly(what, sum(len(part) for part in found), 0)

    return [
        Promise("kills", f"{kills:,}", f"≥ {times:,}", kills >= times),
        landed("landed between the intent on disk and its create", [len(c.unsent) for c in cut]),
        landed("landed while creates were in flight", [len(c.in_flight) for c in cut]),
        landed("landed between an answer and its id in the journal", [len(c.unnoted) for c in cut]),
        Promise.none("landed while nothing was under way", f"{sum(c.is_idle for c in cut):,} kills"),
        Promise.none(f"batches of {jobs:,} jobs", f"{len(batches):,}"),
        Promise.none("runs of the program", f"{sum(batch.runs for batch in batches):,}"),
        Promise.none("creates cut short whose job was found", f"{sum(v.listed for v in verdicts):,}"),
        Promise.none(
            "intents that never arrived and were sent by a later run", f"{sum(v.sent_again for v in verdicts):,}"
        ),
        Promise.none("jobs told as unknown", f"{sum(len(v.unknown) for v in verdicts):,}"),
        Promise.none(
            "seconds; of the longest run that was not killed",
            f"{seconds:.0f}; {max(b.last_seconds for b in batches):.0f}",
        ),
        none("jobs lost", [v.lost for v in verdicts]),
        none("jobs submitted twice", [v.doubled for v in verdicts]),
        none("ids that are another job's, or nobody's", [v.mixed_up for v in verdicts]),
        none("specs of which a last run told nothing, or twice", [v.untold for v in verdicts]),
        none("specs that ended with another error", [v.refused for v in verdicts]),
        none("ids that were told and are not in the journal", [v.unwritten for v in verdicts]),
        none("runs that failed by themselves", [b.failed for b in batches]),
        Promise.exactly("runs that did not end", sum(b.stuck for b in batches), 0),
    ]


def main() -> int:
    """Kill, compare, print the table and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200, help="kills")
    parser.add_argument("--jobs", type=int, default=200, help="jobs of a batch")
    parser.add_argument(
        "--generation", choices=["all", *(generation.value for generation in Generation)], default="all"
    )
    parser.add_argument("--together", action="store_true", help="two programs on each journal")
    parser.add_argument("--keep", type=Path, help="a folder for the journals and outcomes, which stay there")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    generations = [*Generation] if options.generation == "all" else [Generation(options.generation)]
    began = time.monotonic()
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        plan = Plan(
            jobs=options.jobs, generations=generations, together=options.together, seed=options.seed, folder=folder
        )
        servers = [
            stack.enter_context(serving(partial(SlowCloud, generation, options.seed + number)))
            for number, generation in enumerate(generations)
        ]
        batches = asyncio.run(loop(plan, options.times, servers))
    who = "two programs on each journal" if options.together else "one program on each journal"
    title = f"{options.times:,} kills of {who}, {options.jobs:,} jobs a batch (seed {options.seed})"
    code = judge(title, promises(batches, options.times, options.jobs, time.monotonic() - began))
    for batch in batches:
        for what, found in attrs.asdict(batch.verdict).items():
            if found and what not in ("unknown", "listed", "sent_again"):
                print(f"{what}: {', '.join(found[:5])}")
        for words in batch.failed[:2]:
            print(f"a run's last words: {words}")
    lost, doubled = (sum(len(getattr(b.verdict, what)) for b in batches) for what in ("lost", "doubled"))
    print(f"{lost} lost, {doubled} unexplained duplicates")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
