"""The watching benchmark measures what it says, and every way of watching looks at everything and leaves nothing."""

import asyncio
import subprocess
import sys
import time

import attrs
import pytest

from benchmarks.promises import judge
from benchmarks.watch import ALL, ALONE, BOUNDED, ENOUGH, NOTHING, OURS, PEER, Medians, promises
from benchmarks.watching import Figures, Heart
from benchmarks.ways_to_watch import WAYS, Looks


@pytest.mark.parametrize("way", [way for way in WAYS if way != "nothing"])
async def test_every_way_looks_at_every_job_and_leaves_no_task(way):
    job_ids = [f"job-{number}" for number in range(30)]
    looks = Looks(job_ids)
    async with asyncio.timeout(60), WAYS[way](looks) as begin:
        await begin(job_ids[:20])
        await begin(job_ids[20:])
        while looks.unseen:
            await asyncio.sleep(0.001)
    assert looks.count == 30
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.ordinary_loop
async def test_a_loop_that_stands_still_is_late_for_all_that_time_not_for_one_beat():
    heart = Heart()
    beating = asyncio.create_task(heart.beat())
    await asyncio.sleep(0)
    heart.is_noting = True
    time.sleep(0.2)  # noqa: ASYNC251 - that is the stall
    while not heart.lags:
        await asyncio.sleep(0.001)
    beating.cancel()
    assert max(heart.lags) > 0.15
    assert len([lag for lag in heart.lags if lag > 0.1]) >= 5


IDLE = Figures(looks=0, cpu=0.1, bytes_each=0.0, unseen=0, lag_median=0.001, lag_p99=0.002, lag_most=0.003)
OF_TASKS = attrs.evolve(IDLE, looks=10_000, cpu=0.1 + 0.2, bytes_each=1600.0, lag_p99=0.5)
OF_OURS = attrs.evolve(IDLE, looks=10_000, cpu=0.1 + 0.03, bytes_each=160.0, lag_p99=0.01)
OF_LOOKS = attrs.evolve(IDLE, looks=10_000, cpu=0.1 + 0.01, bytes_each=0.0)


def verdict_on(count, ours):
    found = {(way, count): [OF_TASKS] for way in ALL}
    found |= {(NOTHING, 0): [IDLE], (ALONE, count): [OF_LOOKS], (OURS, count): [ours]}
    by_way = {way: Medians(found, way, count, 5.0) for way in (OURS, PEER, BOUNDED)}
    assert by_way[PEER].per_look == pytest.approx(20e-6)
    assert by_way[PEER].scheduling == pytest.approx(19e-6)
    return judge("watching", promises(count, by_way[OURS], by_way[PEER], by_way[BOUNDED]))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, 0),
        ({"cpu": 0.1 + 0.036}, 1),
        ({"bytes_each": 400.0}, 1),
        ({"lag_p99": 0.025}, 1),
        ({"looks": 8_000, "cpu": 0.1 + 0.024}, 1),
        ({"unseen": 1}, 1),
    ],
    ids=["all is kept", "CPU", "memory", "lag", "looks away", "forgets one"],
)
def test_what_is_promised_is_judged_where_there_are_enough_jobs(change, code):
    assert verdict_on(ENOUGH, attrs.evolve(OF_OURS, **change)) == code


def test_costs_of_a_few_jobs_are_told_but_not_judged(capsys):
    assert verdict_on(1000, attrs.evolve(OF_OURS, cpu=0.1 + 0.105, bytes_each=1000.0, lag_p99=0.1)) == 0
    assert "2.0 ×" in capsys.readouterr().out


@pytest.mark.benchmark
def test_a_short_run_shows_all_ways_side_by_side():
    command = "benchmarks.watch --counts 500 --rounds 1 --ramp 0.2 --settling 0.4 --seconds 0.5"
    done = subprocess.run([sys.executable, "-m", *command.split()], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert f"{'500 jobs':<30}" + "".join(f"{way:>15}" for way in ALL) in lines
    assert "500 jobs on one loop; not judged below 50,000" in lines
