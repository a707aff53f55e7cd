"""The benchmarks of predictions measure what they say, notice wrong answers, and judge what they promise."""

import asyncio
import subprocess
import sys
import time

import attrs
import httpx
import pytest

from benchmarks.batch import Gauge
from benchmarks.batching import Lone, Overhead, lone_calls, overhead
from benchmarks.fanout import DEVICE, ENOUGH, ENOUGH_CALLS, Case, Medians, Round, cases, promises
from benchmarks.fifo_engine import IMMEDIATE, TASK, Device, FifoEngine, Seen, predicted, sample
from benchmarks.promises import judge
from benchmarks.streaming import Kept, Streamed, growth, promises as of_stream, stream
from benchmarks.ways_to_predict import NAIVE, OFFICIAL, ONE, STREAM, WAYS, Run
from gts_async import Outcome, Prediction

SLOW = Device(per_request=0.02, per_sample=0.005)
QUICK = Device(per_request=0.002, per_sample=0.0001)


class Lying(FifoEngine):
    """Gives sample 3 the answer of another one."""

    def predict(self, rows):
        other = sample(7)
        return super().predict([other if row == sample(3) else row for row in rows])


@attrs.frozen
class Here:
    """An engine in this process, to be asked like one in another."""

    engine: FifoEngine

    @property
    def url(self):
        return self.engine.url

    def ask(self, what, *args):
        return what(self.engine, *args)


def test_the_bound_is_that_of_full_batches_without_a_pause():
    assert DEVICE.least(10_000, 64) == pytest.approx(156 * 0.0178 + 0.0082)
    assert DEVICE.least(10_000, 1) == pytest.approx(52.0)
    assert Case(STREAM, 2, 128).bound == pytest.approx(0.0178)


async def test_the_device_does_one_request_after_the_other_and_the_rest_of_the_engine_does_not_wait():
    ended = []
    async with FifoEngine(SLOW) as engine, httpx.AsyncClient(base_url=engine.url) as client:

        async def ask(path, **document):
            answer = (await client.post(f"/api/{path}", json={"task_id": TASK, **document})).json()
            ended.append(path)
            return answer

        await ask("start_inference")
        began = time.monotonic()
        batches = [[sample(0), sample(1), sample(2)], [sample(3), sample(4)], [{"content": "who answers?"}]]
        asked = [asyncio.create_task(ask("predict", sentences=rows)) for rows in batches]
        async with asyncio.timeout(60):
            while engine.held < 3:
                await asyncio.sleep(0)
        status = await ask("check_task_status")
        answers = await asyncio.gather(*asked)
        assert time.monotonic() - began >= 3 * 0.02 + 6 * 0.005
        assert engine.seen() == Seen(requests=3, samples=5, probes=1, largest=3, most_at_once=3)
        assert engine.seen() == Seen()
    assert (status["ret_code"], status["message"]) == (5, "On Inference")
    assert ended == ["start_inference", "check_task_status", "predict", "predict", "predict"]
    for rows, answer in zip(batches, answers, strict=True):
        labels, shares = zip(*(predicted(row["content"]) for row in rows), strict=True)
        assert answer["result"] == {"predictions": [*labels], "probabilities": [[*each] for each in shares]}


@pytest.mark.parametrize(("way", "requests"), [(NAIVE, 70), (OFFICIAL, 70), (ONE, 3), (STREAM, 3)])
async def test_every_way_has_all_samples_answered(way, requests):
    async with FifoEngine(QUICK) as engine:
        run = await WAYS[way]([engine.url], 70)
        seen = engine.seen()
    assert (run.samples, run.wrong, len(run.latencies)) == (70, 0, 70)
    assert run.seconds >= QUICK.least(70, 64)
    assert run.latency(0.0) <= run.latency(0.5) <= run.latency(1.0) <= run.seconds
    assert (seen.samples, seen.requests) == (70, requests)
    # The official client spells the paths wrong, of its other two calls as well.
    assert seen.redirects == (72 if way == OFFICIAL else 0)


@pytest.mark.parametrize("way", [ONE, STREAM])
async def test_several_engines_share_the_samples(way):
    async with FifoEngine(QUICK) as one, FifoEngine(QUICK) as other:
        run = await WAYS[way]([one.url, other.url], 640)
        seen = [one.seen(), other.seen()]
    assert run.wrong == 0
    assert sum(each.samples for each in seen) == 640
    assert min(each.samples for each in seen) >= 128
    # One row of each full request is our own, and the first request to each engine.
    assert sum(seen, Seen()).requests == 11 + 2


@pytest.mark.parametrize("way", WAYS)
async def test_the_answer_of_another_sample_is_noticed(way):
    async with Lying(IMMEDIATE) as engine:
        assert (await WAYS[way]([engine.url], 9)).wrong == 1


async def test_the_answer_of_another_sample_is_noticed_without_company_and_in_a_stream():
    async with Lying(IMMEDIATE) as engine:
        lone = await lone_calls(engine.url, 4)
        engine.seen()
        streamed = await stream(Here(engine), 200, 64)
    assert lone.wrong == 3
    assert [len(each) for each in (lone.batched, lone.bare, lone.httpx)] == [4, 4, 4]
    assert (streamed.given, streamed.wrong) == (200, 1)
    assert streamed.seen.samples == 200
    assert 64 <= streamed.ahead <= 200


def test_answers_that_are_missing_or_in_another_order_are_wrong():
    right = [predicted(sample(number)["content"]) for number in range(4)]
    run = Run(4)
    run.judge(right)
    assert run.wrong == 0
    run.judge([right[1], right[0], None])
    assert run.wrong == 4


async def test_the_batcher_is_measured_beside_callers_that_ask_nobody():
    cost = await overhead(100)
    assert cost.batched > 0
    assert attrs.evolve(cost, callers=1.0, batched=3.5).batcher == 2.5


def measured(samples=ENOUGH, **change):
    """Give what would keep all promises, but for the change."""
    given = {"one": 2.85, "pooled": 0.95, "wrong": 0, "largest": 64, "asked": ENOUGH, "probes": 79} | change
    found = {}
    for case in cases(samples, 1000, 300, 3):
        seconds = {
            NAIVE: 5.2,
            OFFICIAL: 1.6,
            ONE: given["one"] * samples / 10_000,
            STREAM: given["one"] * samples / 10_000,
        }[case.way]
        if case.engines > 1:
            seconds = given["pooled"] * samples / 10_000
        run = Run(case.samples, seconds=seconds, cpu=0.5, latencies=[0.1])
        seen = Seen(requests=1, samples=case.samples, largest=1, most_at_once=4)
        if case.way == STREAM:
            run.wrong, seen.largest = given["wrong"], given["largest"]
            seen.samples, seen.probes = given["asked"], given["probes"]
        found[case] = [Round(run, seen)]
    return found


KEPT = {"costs": [Overhead(6e-6, 14e-6)], "lone": Lone([0.0012] * ENOUGH_CALLS, [0.001], [0.001])}


@pytest.mark.parametrize(
    ("change", "other", "broken"),
    [
        ({}, {}, 0),
        ({"one": 3.1}, {}, 4),
        ({"one": 2.95}, {}, 2),
        ({"pooled": 1.1}, {}, 1),
        ({"wrong": 1}, {}, 1),
        ({"largest": 65}, {}, 1),
        ({"asked": ENOUGH + 100}, {}, 1),
        ({"probes": 103}, {}, 1),
        ({}, {"costs": [Overhead(6e-6, 16.5e-6)]}, 1),
        ({}, {"lone": Lone([0.0014] * ENOUGH_CALLS, [0.001], [0.001])}, 1),
        ({}, {"lone": Lone([0.0012] * ENOUGH_CALLS, [0.001], [0.001], wrong=1)}, 1),
    ],
    ids=[
        "kept",
        "slow",
        "off the bound",
        "pool",
        "wrong",
        "batch",
        "twice",
        "probes",
        "batcher",
        "delay",
        "lone and wrong",
    ],
)
def test_what_is_promised_is_judged(change, other, broken, capsys):
    found = promises(measured(**change), **(KEPT | other))
    assert judge("predictions", found) == (broken > 0)
    assert capsys.readouterr().out.count("BROKEN") == broken


def test_rates_of_a_few_samples_are_told_but_not_judged():
    few = measured(1000, one=9.0, pooled=9.0, asked=1000, probes=0)
    slow = Lone([1.0], [0.001], [0.001])
    assert judge("few", promises(few, [Overhead(0.0, 1.0)], slow)) == 0
    assert judge("few", promises(measured(1000, asked=1000, probes=0, wrong=1), [Overhead(0.0, 1.0)], slow)) == 1


def test_a_ratio_is_that_of_the_same_round():
    naive, ours = Case(NAIVE, 1, 100), Case(ONE, 1, 100)
    seconds = {naive: (1.0, 2.0, 4.0), ours: (0.1, 0.1, 0.1)}
    found = {
        case: [Round(Run(100, seconds=each, latencies=[0.1]), Seen()) for each in rounds]
        for case, rounds in seconds.items()
    }
    assert Medians(found, ours).ratio == pytest.approx(20.0)


STREAMED = Streamed(300_000, 300_000, 0, 640, 10.0, 9.0, Gauge(50_000_000, 60_000_000), Seen(1, 300_000, 4_688, 64))
ALL_THERE = attrs.evolve(STREAMED, seen=Seen(1, 0, 1, 0))
CHECKPOINT = Kept(STREAMED, STREAMED, ALL_THERE, 1000)


@pytest.mark.parametrize(
    ("streamed", "kept", "broken"),
    [
        (STREAMED, None, 0),
        (STREAMED, CHECKPOINT, 0),
        (attrs.evolve(STREAMED, gauge=Gauge(50_000_000, 71_000_000)), None, 1),
        (attrs.evolve(STREAMED, ahead=5_000), None, 1),
        (attrs.evolve(STREAMED, given=299_999), None, 1),
        (attrs.evolve(STREAMED, wrong=1), None, 1),
        (attrs.evolve(STREAMED, seen=Seen(1, 300_001, 6_001, 65)), None, 3),
        (STREAMED, attrs.evolve(CHECKPOINT, first=attrs.evolve(STREAMED, wrong=1)), 1),
        (STREAMED, attrs.evolve(CHECKPOINT, again=attrs.evolve(ALL_THERE, given=1, wrong=1)), 2),
        (STREAMED, attrs.evolve(CHECKPOINT, again=STREAMED), 1),
    ],
    ids=["kept", "checkpoint", "memory", "ahead", "lost", "wrong", "asked", "kept wrong", "lost again", "asked again"],
)
def test_what_is_promised_of_a_stream_is_judged(streamed, kept, broken, capsys):
    assert judge("stream", of_stream(streamed, 2e-6, kept, 64)) == (broken > 0)
    assert capsys.readouterr().out.count("BROKEN") == broken


def test_the_memory_of_a_short_stream_is_told_but_not_judged():
    short = attrs.evolve(STREAMED, samples=1000, gauge=Gauge(0, 10**9))
    assert growth(short).is_kept
    assert not growth(attrs.evolve(short, samples=300_000)).is_kept


def test_an_outcome_out_of_turn_is_wrong():
    streamed = Streamed(4)
    for number, asked in ((1, 1), (0, 0), (2, 2), (3, 0)):
        label, shares = predicted(sample(number)["content"])
        streamed.check(Outcome(sample(asked), Prediction(label, max(shares), shares)))
    assert (streamed.given, streamed.wrong) == (4, 3)


@pytest.mark.benchmark
@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (
            "benchmarks.fanout --samples 200 --rounds 1 --httpx 40 --official 10 --engines 1 --calls 5",
            "200 samples at once; rates and CPU are not judged below 5,000",
        ),
        ("benchmarks.streaming --samples 2000 --kept 1000", "2,000 samples in their order, batches of 64"),
    ],
)
def test_a_short_run_keeps_what_it_promises(command, shown):
    done = subprocess.run([sys.executable, "-m", *command.split()], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert shown in done.stdout.splitlines()
    assert "BROKEN" not in done.stdout
