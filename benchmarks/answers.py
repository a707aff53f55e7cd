"""Is each answer of a stream what the model gives for that sample alone, whatever happens to engines and program?

A really trained model is served by three processes; the reference is the model itself, asked about one sample at a
time. All samples are predicted by one engine, with `predict_one` and streamed; with bad samples among them, of every
kind; by a pool of three of which one at a time is killed (SIGKILL) and comes back; by a program with a checkpoint that
is killed at random moments and started again; and by engines that answer 500 for a while, for good, or in short spells.
Then a few by each of the engine's six pipelines.
``python -m benchmarks.answers [--samples 100000] [--bad 0.01] [--kills 5] [--program-kills 20] [--seed N]``

Right is only what is equal to the last digit. Exactly the bad samples fail, each with its own error. ``--parts`` says
which of these runs there are.
"""

import argparse
import asyncio
import collections
import itertools
import logging
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks.answering import MAX_BATCH, Bench, Inference, Run, Verdict, each, stream
from benchmarks.checkpointed import Order, told_in
from benchmarks.promises import Promise, judge
from benchmarks.touchy_engine import Process, TouchyEngine
from benchmarks.trained import BY_CLIENT, BY_ENGINE, MAIN, PIPELINES, Bad, Samples, reference, train
from gts_async import GtsAsyncError, InferenceSession

ENGINES = 3

PRICED = 20
"""Bad samples of each kind whose price is measured, each in a batch of its own."""

HALVING = math.ceil(math.log2(MAX_BATCH)) + 2
"""Requests that one bad sample may cost in addition, if nobody says which one it is."""

PROOF = 4
"""Requests that may ask in addition whether it is the engine that fails, where it did not say that it is the sample."""

PRICES: Mapping[Bad, int] = {Bad.NAMED: 1, Bad.UNNAMED: HALVING, Bad.ODD: HALVING + PROOF, Bad.CRASH: HALVING + PROOF}

MOST_BLAMED = 0.001
"""The share of good samples that may be blamed while every fifth request is answered 500, at whatever moment."""

LEAST_DISTINCT = 0.99
"""The share of samples whose answers must differ, or none that is another sample's would be seen."""

DOWN, UP = (0.1, 1.0), (0.5, 3.0)
"""Seconds, at least and at most, for which an engine is down, and after which the next one is killed."""

STARTUP, UNSTARTED = 1.5, 0.15
"""Seconds within which a program that is not to get to its first sample is killed; the share of such runs."""

SICK, SPELLS = 3.0, 8.0
"""Seconds for which an engine is sick, and for which engines have short spells."""

MAX_AGAIN = ENGINES * 4 * MAX_BATCH
"""Samples that are asked again, on average, after a kill: what was in flight then."""

BACK_WITHIN = 20.0
"""Seconds after which an engine has not come back, for this command."""

PATIENCE = 180.0
"""Seconds after which a run of the program that is not killed will never end, for this command."""


async def undisturbed(bench: Bench) -> None:
    """Ask one engine, in all ways."""
    async with bench.open() as inference:
        with bench.run("predict_one") as run:
            await each(inference, run.verdict)
    for how, is_ordered in (("ordered", True), ("as they come", False)):
        async with bench.open() as inference:
            with bench.run(f"stream, {how}", is_ordered=is_ordered) as run:
                await stream(inference, run.verdict)


async def bad_samples(bench: Bench) -> None:
    """Ask one engine about bad samples, too."""
    async with bench.open() as inference:
        with bench.run("stream, some are bad", bench.poisoned(), is_ordered=True) as run:
            await stream(inference, run.verdict)
    async with bench.open() as inference:
        with bench.run("predict_one, some are bad", bench.poisoned(bench.few)) as run:
            await each(inference, run.verdict)


async def prices(bench: Bench) -> None:
    """Find out how many requests a bad sample of each kind costs beyond those of a stream without."""
    batches, least = min(2 * PRICED, bench.samples.count // MAX_BATCH), 0
    for kind in (None, *BY_ENGINE):
        chance = random.Random(f"{bench.seed} {kind}")
        numbers = [start * MAX_BATCH + chance.randrange(MAX_BATCH) for start in range(1, batches, 2)]
        bad = {} if kind is None else dict.fromkeys(numbers, kind)
        samples = Samples(MAIN, batches * MAX_BATCH, bad)
        async with bench.open() as inference:
            what = "none is bad" if kind is None else f"one in {2 * MAX_BATCH} is {kind.name.lower()}"
            with bench.run(f"stream, {what}", samples) as run:
                await stream(inference, run.verdict)
        if kind is None:
            least = run.asked.requests
        else:
            bench.prices[kind] = (run.asked.requests - least) / len(numbers)


async def killed_engines(bench: Bench) -> None:
    """Stream by a pool of which one at a time is killed, and comes back."""
    chance, is_over = random.Random(f"{bench.seed} engines"), False

    async def kill(run: Run) -> None:
        while run.kills < bench.engine_kills and not is_over:
            await asyncio.sleep(chance.uniform(*UP))
            engine = chance.choice(bench.engines)
            run.asked += engine.ask(TouchyEngine.seen)
            engine.kill()
            run.kills += 1
            await asyncio.sleep(chance.uniform(*DOWN))
            await asyncio.to_thread(engine.start, MAIN)

    with bench.run("pool, one at a time killed", bench.poisoned(bench.few), is_ordered=True) as run:
        async with bench.open(ENGINES) as inference:
            killing = asyncio.create_task(kill(run))
            try:
                await stream(inference, run.verdict, killing.done)
            finally:
                is_over = True
                await killing


async def killed_programs(bench: Bench) -> None:
    """Have a program stream with a checkpoint, by one engine or three, and kill it so often; new ones if need be."""
    chance, left = random.Random(f"{bench.seed} programs"), bench.program_kills
    samples = bench.poisoned(kinds=BY_CLIENT)
    for program in itertools.count():
        with bench.run("program with a checkpoint, killed", samples, is_ordered=True) as run:
            await _program(bench, run, bench.folder / f"program-{program}", left, chance)
        left -= run.kills
        if left <= 0 or run.ended:
            return


async def _program(bench: Bench, run: Run, place: Path, kills: int, chance: random.Random) -> None:
    samples, right = run.verdict.samples, bench.right
    for number in itertools.count():
        order = Order(
            urls=[engine.url for engine in bench.engines[: 1 + 2 * (number % 2)]],
            samples=samples.count,
            bad={place: bad.name for place, bad in samples.bad.items()},
            max_batch=MAX_BATCH,
            checkpoint=f"{place}.db",
            outcomes=f"{place}-{number}.outcomes",
        )
        rows = chance.randrange(2 * samples.count // (kills + 1) + 1) // len(order.urls)
        code, words = await _run(bench, order, rows if run.kills < kills else None, chance)
        verdict = run.verdict if code >= 0 else Verdict(samples, right, is_ordered=True)
        for outcome in told_in(order.outcomes):
            verdict.note(samples.sample(outcome.number), outcome.answer, outcome.failure)
        if code >= 0:
            run.ended = words[-1000:] if code else ""
            return
        run.kills += 1
        # What a run tells before it is killed must be as right as what the last one tells.
        run.verdict.add(verdict)


async def _run(bench: Bench, order: Order, rows: int | None, chance: random.Random) -> tuple[int, str]:
    """Run the program, kill it when so many more rows have been asked; gives its exit code and its last words."""
    command = [sys.executable, "-m", "benchmarks.checkpointed", order.encoded()]
    with Path(f"{order.outcomes}.stderr").open("w+b") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr)  # noqa: ASYNC220 - a fork
        # Not reaped before nobody can kill it any more: its number is not given away so.
        ending = asyncio.ensure_future(asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WEXITED | os.WNOWAIT))
        patience = PATIENCE
        if rows is not None and chance.random() < UNSTARTED:
            patience = chance.uniform(0.0, STARTUP)
        elif rows is not None:
            bench.engines[0].ask(TouchyEngine.take_aim, process.pid, rows, chance.uniform(0.0, 0.02))
        if not (await asyncio.wait([ending], timeout=patience))[0]:
            process.kill()
            await ending
        bench.engines[0].ask(TouchyEngine.lower)
        code = process.wait()
        stderr.seek(0)
        return code, stderr.read().decode(errors="replace")


async def sick_engines(bench: Bench) -> None:
    """Ask engines that answer 500 to all predicts, though they say that all is well."""
    await _sick(bench, ENGINES, "predict", float("inf"))
    await _sick(bench, ENGINES, "predict", SICK)
    await _sick(bench, 1, "predict", SICK)


async def failing_engines(bench: Bench) -> None:
    """Ask engines that answer 500 to whatever they are asked, for a while."""
    await _sick(bench, ENGINES, "everything", SICK)
    await _sick(bench, 1, "everything", SICK)


async def _sick(bench: Bench, engines: int, what: Literal["predict", "everything"], seconds: float) -> None:
    """Stream while one engine is sick; by a pool until that asks all its engines again, or as long as it may take."""
    bad, sick = bench.poisoned(bench.few), bench.engines[engines // 2]
    sick.ask(TouchyEngine.sicken, what, max(2, bad.count // MAX_BATCH // 10), seconds)
    who = "pool, one" if engines > 1 else "one engine"
    how = f"answers 500 to {what}, {'for good' if seconds > PATIENCE else f'for {seconds:g} s'}"
    with bench.run(f"{who} {how}", bad) as run:
        run.is_to_end = engines == 1
        async with bench.open(engines) as inference:
            await stream(inference, run.verdict, _is_over(sick, inference) if seconds < PATIENCE else lambda: True)
            run.note = repr(inference)
            run.is_short = seconds < PATIENCE and engines > 1 and f"{ENGINES} ready" not in run.note
    sick.ask(TouchyEngine.sicken, None)


def _is_over(sick: Process, inference: Inference) -> Callable[[], bool]:
    """Give what tells whether an engine's sickness has been got over; asked it is a few times a second at most."""
    asked_at, give_up_at = 0.0, time.monotonic() + BACK_WITHIN

    def ask() -> bool:
        nonlocal asked_at
        if time.monotonic() - asked_at < 0.2:
            return False
        asked_at = time.monotonic()
        is_back = isinstance(inference, InferenceSession) or f"{ENGINES} ready" in repr(inference)
        return asked_at > give_up_at or (is_back and bool(sick.ask(TouchyEngine.was_sick)))

    return ask


async def flickering_engines(bench: Bench) -> None:
    """Ask engines with short spells in which all is answered 500; a stream that one of them ends is begun anew."""
    for engines in (ENGINES, 1):
        for number, engine in enumerate(bench.engines[:engines]):
            engine.ask(TouchyEngine.flicker, bench.seed + number)
        name = f"{'pool, all have' if engines > 1 else 'one engine with'} short spells of 500"
        until, ends = time.monotonic() + SPELLS, collections.Counter[str]()
        with bench.run(name, bench.poisoned(bench.few)) as run:
            run.is_to_end = run.verdict.is_500_likely = True
            while time.monotonic() < until:
                verdict = Verdict(run.verdict.samples, bench.right, is_500_likely=True)
                try:
                    async with bench.open(engines) as inference:
                        await stream(inference, verdict, partial(_is_past, until))
                except GtsAsyncError as error:
                    ends[type(error).__name__] += 1
                run.verdict.add(verdict)
            run.ended = ", ".join(f"{times} {error}" for error, times in ends.items()) or "nothing"
        for engine in bench.engines:
            engine.ask(TouchyEngine.flicker, None)


def _is_past(until: float) -> bool:
    return time.monotonic() > until


async def every_pipeline(bench: Bench) -> None:
    """Ask each of the engine's pipelines about a few."""
    count = max(2 * MAX_BATCH, min(1000, bench.samples.count // 100))
    for task in PIPELINES:
        kinds = (Bad.LACKS, Bad.CRASH, Bad.NAMED)
        samples = Samples.poisoned(task, count, 3 * bench.share, kinds, bench.seed)
        right = reference(bench.engines[0].folder, samples)
        async with bench.open(1, task) as inference:
            with bench.run(f"{' '.join(PIPELINES[task])}, predict_one", samples, right) as run:
                await each(inference, run.verdict)
            with bench.run(f"{' '.join(PIPELINES[task])}, stream", samples, right, is_ordered=True) as run:
                await stream(inference, run.verdict)


PARTS: Mapping[str, Callable[[Bench], Coroutine[Any, Any, None]]] = {
    "undisturbed": undisturbed,
    "bad": bad_samples,
    "prices": prices,
    "engines": killed_engines,
    "programs": killed_programs,
    "sick": sick_engines,
    "failing": failing_engines,
    "spells": flickering_engines,
    "pipelines": every_pipeline,
}


async def run_all(bench: Bench, parts: Sequence[str]) -> None:
    """Run these parts."""
    for part in parts:
        await PARTS[part](bench)


def promises(runs: Sequence[Run], costs: Mapping[Bad, float], distinct: float) -> list[Promise]:
    """Judge what came of all runs."""

    def none(what: str, faults: Callable[[Verdict], Sequence[int]]) -> Promise:
        return Promise.exactly(what, sum(len(faults(run.verdict)) for run in runs), 0)

    calm = [run.verdict for run in runs if not run.verdict.is_500_likely]
    spells = [run.verdict for run in runs if run.verdict.is_500_likely]
    blamed, asked = sum(len(v.blamed) for v in spells), sum(v.right + len(v.blamed) for v in spells)
    programs = [run for run in runs if run.name.startswith("program")]
    kills = sum(run.kills for run in programs)
    again = sum(run.asked.again for run in programs) / max(1, kills)
    return [
        Promise.none("samples given an outcome", f"{sum(run.verdict.given + run.verdict.before for run in runs):,}"),
        Promise.none("engines killed", f"{sum(run.kills for run in runs) - kills:,}"),
        Promise.none("programs killed", f"{kills:,}"),
        Promise("of all answers, different", f"{distinct:.2%}", f"≥ {LEAST_DISTINCT:.0%}", distinct >= LEAST_DISTINCT),
        none("answers that are not the model's", lambda v: v.wrong),
        Promise.exactly("good samples that ended with an error", sum(len(v.blamed) for v in calm), 0),
        Promise.at_most("the same where a fifth of all is answered 500, for each", blamed / max(1, asked), MOST_BLAMED),
        none("bad samples that were answered", lambda v: v.spared),
        none("bad samples that ended with another error than theirs", lambda v: v.misjudged),
        none("outcomes that came twice", lambda v: v.twice),
        none("outcomes in another order than promised", lambda v: v.displaced),
        Promise.exactly("samples without an outcome", sum(run.missing for run in runs), 0),
        Promise.exactly("runs that ended with an error", sum(not run.is_to_end and run.ended != "" for run in runs), 0),
        Promise.exactly("engines that were well again and not asked any more", sum(run.is_short for run in runs), 0),
        Promise.at_most("samples asked again after a program was killed", again, MAX_AGAIN),
        *(
            Promise.at_most(f"more requests for one bad of {MAX_BATCH}: {kind.name.lower()}", price, PRICES[kind])
            for kind, price in costs.items()
        ),
    ]


def main() -> int:
    """Train, run, print the table and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=100_000, help=f"at least {2 * MAX_BATCH}")
    parser.add_argument("--bad", type=float, default=0.01, help="the share of bad samples")
    parser.add_argument("--kills", type=int, default=5, help="engines killed")
    parser.add_argument("--program-kills", type=int, default=20, help="programs killed")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="only these runs")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    # It is told of each engine that is set aside.
    logging.getLogger("gts_async").setLevel(logging.ERROR)
    samples = Samples(MAIN, options.samples)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folders = [folder / f"engine-{number}" for number in range(ENGINES)]
        asyncio.run(train(folders[0], tuple(PIPELINES) if "pipelines" in options.parts else (MAIN,)))
        right = reference(folders[0], samples)
        for copy in folders[1:]:
            shutil.copytree(folders[0], copy)
        engines = [Process(place) for place in folders]
        for engine in engines:
            stack.callback(engine.close)
            engine.start()
        bench = Bench(
            folder=folder,
            engines=engines,
            samples=samples,
            right=right,
            share=options.bad,
            seed=options.seed,
            engine_kills=options.kills,
            program_kills=options.program_kills,
        )
        asyncio.run(run_all(bench, options.parts))
    title = f"{options.samples:,} samples, one in {1 / options.bad:,.0f} bad where some are (seed {options.seed})"
    return judge(title, promises(bench.runs, bench.prices, len(set(right)) / len(right)))


if __name__ == "__main__":
    raise SystemExit(main())
