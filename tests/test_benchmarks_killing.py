"""The kill loop notices what it is there to notice, and its own means do what they say."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from benchmarks.ledger import Create, Kill, Landing, Told, journaled, judged, landings
from benchmarks.slow_cloud import TOKEN, Aim, SlowCloud
from benchmarks.submitting import Run, names, submit, told_in
from gts_async.emulator.cloud import Generation

NAMES = ["0-0", "0-1"]
WELL = [
    Create(name="0-0", run=1, arrived=1.0, answered=2.0, job_id="a"),
    Create(name="0-1", run=1, arrived=1.0, answered=2.0, job_id="b"),
]
TOLD = [Told(name="0-0", job_id="a"), Told(name="0-1", job_id="b")]
JOURNALED = {"0-0": "a", "0-1": "b"}
UNKNOWN = Told(name="0-1", error="OutcomeUnknown")
FAULTS = ("lost", "doubled", "mixed_up", "untold", "refused", "unwritten", "unknown")


@pytest.mark.parametrize(
    ("creates", "journal", "told", "faults"),
    [
        pytest.param(WELL, JOURNALED, TOLD, {}, id="all is well"),
        pytest.param(
            [*WELL, Create(name="0-1", run=2, arrived=3.0, job_id="c")],
            JOURNALED,
            TOLD,
            {"doubled": ["0-1"]},
            id="a second job",
        ),
        pytest.param(
            WELL[:1],
            JOURNALED,
            TOLD,
            {"lost": ["0-1"], "mixed_up": ["0-1"]},
            id="no job, and an id that nobody gave",
        ),
        pytest.param(
            WELL[:1],
            {"0-0": "a"},
            TOLD[:1],
            {"lost": ["0-1"], "untold": ["0-1"]},
            id="no job, and not a word of it",
        ),
        pytest.param(
            WELL[:1], {**JOURNALED, "0-1": None}, [TOLD[0], UNKNOWN], {"unknown": ["0-1"]}, id="no job, told as unknown"
        ),
        pytest.param(
            WELL,
            {**JOURNALED, "0-1": None},
            TOLD,
            {"unwritten": ["0-1"]},
            id="an id that the journal lacks",
        ),
        pytest.param(
            WELL, {**JOURNALED, "0-1": "a"}, TOLD, {"mixed_up": ["0-1"]}, id="another job's id in the journal"
        ),
        pytest.param(WELL, JOURNALED, [*TOLD, TOLD[1]], {"untold": ["0-1"]}, id="told twice"),
        pytest.param(
            WELL,
            JOURNALED,
            [TOLD[0], Told(name="0-1", error="InvalidData", text="no")],
            {"refused": ["0-1: InvalidData: no"]},
            id="refused",
        ),
    ],
)
def test_whatever_is_wrong_with_a_batch_is_told(creates, journal, told, faults):
    verdict = judged(NAMES, creates, journal, [told], [])
    assert {what: getattr(verdict, what) for what in FAULTS if getattr(verdict, what)} == faults


def test_both_of_two_last_runs_must_tell_everything():
    assert judged(NAMES, WELL, JOURNALED, [TOLD, TOLD], []).untold == []
    assert judged(NAMES, WELL, JOURNALED, [TOLD, TOLD[1:]], []).untold == ["0-0"]


def test_kills_are_told_apart_by_how_far_the_creates_had_got():
    creates = [
        Create(name="0-0", run=1, arrived=1.0, answered=1.5, job_id="a"),
        Create(name="0-1", run=1, arrived=1.0, answered=1.9, job_id="b"),
        Create(name="0-2", run=1, arrived=1.0, answered=2.5, job_id="c"),
        Create(name="0-3", run=1, arrived=2.1, answered=2.6, job_id="d"),
        Create(name="0-4", run=2, arrived=3.0, answered=3.5, job_id="e"),
    ]
    held = {"0-0": "a", **dict.fromkeys(["0-1", "0-2", "0-3", "0-4"])}
    kills = [Kill(run=1, at=2.0, journaled=held), Kill(run=2, at=2.9, journaled=held)]
    first = Landing(frozenset({"0-4"}), frozenset({"0-2", "0-3"}), frozenset({"0-1"}))
    later = Landing(frozenset(), frozenset({"0-4"}), frozenset())
    assert landings(kills, creates) == [first, later]
    idle = Kill(run=3, at=9.0, journaled=held)
    assert landings([*kills, idle], creates)[2].is_idle


def test_what_was_settled_is_counted_by_what_the_kill_had_left_behind():
    cut = [Landing(frozenset({"0-0"}), frozenset(), frozenset({"0-1"}))]
    verdict = judged(NAMES, WELL, JOURNALED, [TOLD], cut)
    assert (verdict.listed, verdict.sent_again) == (1, 1)


def run_of(server, folder, *, run=1, jobs=4, dialect="2023-12"):
    return Run(
        url=f"{server.url}/run-{run}/api",
        token=TOKEN,
        dialect=dialect,
        batch="7",
        jobs=jobs,
        max_at_once=2,
        journal=folder / "journal",
        outcomes=folder / f"{run}.outcomes",
    )


@pytest.mark.parametrize("generation", Generation)
async def test_what_a_run_tells_is_what_the_ledger_and_the_journal_have(generation, tmp_path):
    async with SlowCloud(generation, seed=1) as server:
        run = run_of(server, tmp_path, dialect="2024-04" if generation is Generation.HEAD else "2023-12")
        await submit(run)
        creates, is_quiet = server.creates("7")
        assert is_quiet
        held = journaled(run.journal)
    assert judged(names(run), creates, held, [told_in(run.outcomes)], []).lost == []
    assert held == {create.name: create.job_id for create in creates}
    assert sorted(held) == sorted(names(run))


async def test_a_run_is_killed_when_the_batch_has_got_so_far(tmp_path):
    aimed_at = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])  # noqa: ASYNC220 - a fork
    try:
        async with SlowCloud(Generation.JAVA, seed=1) as server:
            server.take_aim(2, Aim(pid=aimed_at.pid, batch="7", position=5, on="answer", delay=0.001, quiet=60.0))
            await submit(run_of(server, tmp_path, run=1, jobs=4))
            assert aimed_at.poll() is None
            await submit(run_of(server, tmp_path, run=2, jobs=6))
            assert await asyncio.to_thread(aimed_at.wait, 10) == -signal.SIGKILL
            assert server.lower(2) is not None
    finally:
        aimed_at.kill()
        aimed_at.wait()


async def test_a_run_that_creates_nothing_is_killed_all_the_same():
    aimed_at = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])  # noqa: ASYNC220 - a fork
    try:
        async with SlowCloud(Generation.JAVA, seed=1) as server:
            server.take_aim(1, Aim(pid=aimed_at.pid, batch="7", position=1, on="arrival", delay=0.0, quiet=0.01))
            assert await asyncio.to_thread(aimed_at.wait, 10) == -signal.SIGKILL
    finally:
        aimed_at.kill()
        aimed_at.wait()


def test_without_a_journal_there_is_nothing_in_it(tmp_path):
    assert journaled(tmp_path / "journal") == {}
    assert list(tmp_path.iterdir()) == []


async def test_a_journal_is_read_with_what_is_not_yet_checkpointed_and_without_being_touched(tmp_path):
    async with SlowCloud(Generation.JAVA, seed=1) as server:
        run = run_of(server, tmp_path)
        await submit(run)
    held = journaled(run.journal)
    with closing(sqlite3.connect(run.journal)) as connection, connection:
        connection.execute("UPDATE intents SET job_id = 'another ' || job_id")
        connection.commit()
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        assert journaled(run.journal) == {name: f"another {job_id}" for name, job_id in held.items()}
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
        assert before[tmp_path / "journal-wal"]


@pytest.mark.benchmark
def test_a_batch_whose_programs_are_killed_now_and_then_is_submitted_once():
    # With this seed a program submits one job after the other, so that a kill rarely leaves one that was not sent yet:
    # to tell that it did not arrive takes half a minute of real time.
    command = "benchmarks.kill_loop --times 2 --jobs 12 --generation 2024-01 --seed 4 --together"
    done = subprocess.run([sys.executable, "-m", *command.split()], capture_output=True, text=True, timeout=110)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.splitlines()[-1] == "0 lost, 0 unexplained duplicates"
