"""The benchmarks run, and keep the promises that they judge themselves; what they measure is nobody's assertion."""

import asyncio
import subprocess
import sys

import pytest

from benchmarks.cancelling import STYLES, Moment
from benchmarks.memory import Trend
from benchmarks.promises import Promise, judge


def output_of(command):
    """Give the lines that a benchmark prints; it must keep its promises and complain of nothing."""
    done = subprocess.run([sys.executable, "-m", *command.split()], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout.splitlines()


@pytest.mark.benchmark
def test_the_cost_of_a_request_is_measured_side_by_side():
    header, *rows = output_of("benchmarks.requests_cpu --rounds 1 --requests 64")
    assert "gts_async" in header
    assert [row.split()[0] for row in rows] == ["1", "16", "64"]


@pytest.mark.benchmark
def test_a_storm_of_cancellations_leaves_nothing_behind():
    lines = output_of("benchmarks.cancel_storm --cancels 500 --seed 1")
    assert any("of 20 plain calls afterwards" in line for line in lines)


@pytest.mark.benchmark
def test_an_outage_is_not_made_worse_and_is_got_over():
    lines = output_of("benchmarks.retry_storm --callers 50 --outage 1 --pause 0.2")
    assert len([line for line in lines if "requests for each call that reached it" in line]) == 2


@pytest.mark.benchmark
def test_a_client_under_constant_fault_stays_right_and_its_curve_is_drawn(tmp_path):
    lines = output_of(f"benchmarks.soak --seconds 1 --seed 1 --png {tmp_path / 'soak.png'}")
    assert any("wrong answers" in line for line in lines)
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


def test_a_broken_promise_is_told_and_makes_the_exit_code(capsys):
    kept, broken = Promise.exactly("tasks", 0, 0), Promise.at_most("seconds", 11.0, 10.0)
    assert judge("all is well", [kept, Promise.none("calls", "7")]) == 0
    assert "BROKEN" not in capsys.readouterr().out
    assert judge("not so well", [kept, broken]) == 1
    assert capsys.readouterr().out.splitlines()[-1].split() == ["seconds", "11", "≤", "10", "BROKEN"]


@pytest.mark.parametrize("moment", [(0, 0.0), (3, 0.0), (0, 0.001)], ids=["at once", "turns", "seconds"])
@pytest.mark.parametrize("style", STYLES)
async def test_every_style_cuts_a_call_short_and_lets_others_end(style, moment):
    ended = []

    async def call(seconds):
        await asyncio.sleep(seconds)
        ended.append(seconds)

    async with asyncio.timeout(60):
        await STYLES[style](lambda: call(3600), Moment(*moment))
        await STYLES[style](lambda: call(0), Moment(1000, 0.0))
    assert ended == [0]
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_trend_is_not_moved_by_outliers_or_a_step():
    times = [float(n) for n in range(20)]
    rising = [2.0 * time + (100.0 if time in (3, 11) else 0.0) for time in times]
    assert Trend.of(times, rising).slope == 2.0
    stepped = [1.0 if time > 12 else 0.0 for time in times]
    assert Trend.of(times, stepped).slope == 0.0
    assert Trend.of(times, stepped).lowest == 0.0
