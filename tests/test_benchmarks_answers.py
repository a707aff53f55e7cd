"""The benchmark of answers notices what it is there to notice, and its engine is sick when it is told to be."""

import asyncio
import json
import subprocess
import sys

import httpx
import pytest

from benchmarks.answering import Failure, Run, Verdict
from benchmarks.answers import promises
from benchmarks.checkpointed import Told, told_in
from benchmarks.promises import judge
from benchmarks.touchy_engine import Asked, Process, TouchyEngine
from benchmarks.trained import ERRORS, MAIN, Bad, Samples, load, reference, told, train
from gts_async import Prediction

SAMPLES = Samples(MAIN, 3, {1: Bad.NAMED})
RIGHT = [("prediction", "a", 0.75, 0.25), None, ("prediction", "b", 0.25, 0.75)]
REFUSED = Failure("InvalidData", None, "refused: 000001")
WELL = [(0, RIGHT[0], None), (1, None, REFUSED), (2, RIGHT[2], None)]


def verdict_of(outcomes, *, is_ordered=True, pulled=0):
    verdict = Verdict(SAMPLES, RIGHT, is_ordered=is_ordered, pulled=pulled)
    for number, answer, failure in outcomes:
        verdict.note(SAMPLES.sample(number), answer, failure)
    return verdict


@pytest.mark.parametrize(
    ("outcomes", "faults"),
    [
        pytest.param(WELL, {}, id="all is well"),
        pytest.param([WELL[0], WELL[1], (2, RIGHT[0], None)], {"wrong": [2]}, id="another sample's answer"),
        pytest.param(
            [WELL[0], WELL[1], (2, ("prediction", "b", 0.25, 0.75000001), None)], {"wrong": [2]}, id="nearly right"
        ),
        pytest.param([(0, None, REFUSED), *WELL[1:]], {"blamed": [0]}, id="a good one has failed"),
        pytest.param([WELL[0], (1, RIGHT[0], None), WELL[2]], {"spared": [1]}, id="a bad one is answered"),
        pytest.param(
            [WELL[0], (1, None, Failure("InvalidData", None, "refused: 000002")), WELL[2]],
            {"misjudged": [1]},
            id="another one's error",
        ),
        pytest.param(
            [WELL[0], (1, None, Failure("ServerFailed", 500, "000001")), WELL[2]],
            {"misjudged": [1]},
            id="another error",
        ),
        pytest.param(WELL[:2], {"missing": [2]}, id="none"),
        pytest.param([*WELL[:2], WELL[0]], {"displaced": [0], "missing": [2], "twice": [0]}, id="twice"),
        pytest.param([WELL[0], WELL[2], WELL[1]], {"displaced": [2, 1]}, id="another order"),
    ],
)
def test_whatever_is_wrong_with_a_stream_is_told(outcomes, faults):
    verdict = verdict_of(outcomes)
    found = ("wrong", "blamed", "spared", "misjudged", "displaced", "twice", "missing")
    assert {what: getattr(verdict, what) for what in found if getattr(verdict, what)} == faults


def test_samples_that_are_given_again_have_outcomes_again():
    assert verdict_of([*WELL, *WELL, WELL[0]], pulled=7).faults == 0
    assert verdict_of([*WELL, *WELL, WELL[0]], pulled=6).twice == [0]
    # Of a stream that an error has ended.
    assert verdict_of([WELL[0], *WELL], is_ordered=False, pulled=6).faults == 0


def test_where_any_request_may_get_a_500_a_bad_sample_may_but_a_good_one_may_not():
    verdict = Verdict(SAMPLES, RIGHT, is_500_likely=True)
    for number in range(2):
        verdict.note(SAMPLES.sample(number), None, Failure("ServerFailed", 500, ""))
    assert (verdict.blamed, verdict.misjudged, verdict.failed) == ([0], [], 1)


def test_only_an_ordered_stream_has_an_order():
    assert verdict_of([WELL[2], WELL[0], WELL[1]], is_ordered=False).faults == 0


def test_what_several_streams_of_the_same_came_to_is_added_up():
    whole = verdict_of(WELL)
    whole.add(verdict_of(WELL))
    assert (whole.faults, whole.right, whole.failed, whole.given + whole.before) == (0, 4, 2, 6)
    whole.add(verdict_of([WELL[0], (1, RIGHT[0], None), (2, RIGHT[0], None), WELL[0]]))
    assert (whole.wrong, whole.spared, whole.twice) == ([2], [1], [0])


@pytest.mark.parametrize("bad", Bad)
def test_each_kind_of_bad_sample_has_an_error_of_its_own(bad):
    right = Failure(ERRORS[bad].__name__, 500 if bad is Bad.CRASH else None, "000007")
    assert right.is_of(bad, 7)
    assert not Failure("ServerFailed", 503, "000007").is_of(bad, 7)
    assert not Failure("TimedOut", None, "000007").is_of(bad, 7)


def run_of(outcomes, name="stream", **more):
    run = Run(name, verdict_of(outcomes))
    for what, value in more.items():
        setattr(run, what, value)
    return run


@pytest.mark.parametrize(
    ("run", "costs", "distinct", "code"),
    [
        pytest.param(run_of(WELL), {Bad.NAMED: 1.0}, 1.0, 0, id="all is well"),
        pytest.param(run_of([*WELL[:2], (2, RIGHT[0], None)]), {}, 1.0, 1, id="a wrong answer"),
        pytest.param(run_of([(0, None, REFUSED), *WELL[1:]]), {}, 1.0, 1, id="a good one has failed"),
        pytest.param(run_of(WELL[:2]), {}, 1.0, 1, id="none"),
        pytest.param(run_of(WELL[:2], ended="an error", is_to_end=True), {}, 1.0, 0, id="a stream that may end"),
        pytest.param(run_of(WELL, ended="an error"), {}, 1.0, 1, id="one that must not"),
        pytest.param(run_of(WELL, is_short=True), {}, 1.0, 1, id="an engine that was given up"),
        pytest.param(run_of(WELL), {Bad.NAMED: 1.1}, 1.0, 1, id="too dear"),
        pytest.param(run_of(WELL), {}, 0.9, 1, id="answers that are alike"),
        pytest.param(
            run_of(WELL, "program", kills=2, asked=Asked(again=1536)), {}, 1.0, 0, id="what was in flight, again"
        ),
        pytest.param(run_of(WELL, "program", kills=2, asked=Asked(again=1540)), {}, 1.0, 1, id="more than that"),
    ],
)
def test_what_is_not_as_promised_makes_the_exit_code(run, costs, distinct, code):
    assert judge("all", promises([run], costs, distinct)) == code


def test_samples_are_the_same_each_time_and_bad_in_all_ways():
    first, second = (Samples.poisoned(MAIN, 900, 0.1, tuple(Bad), 7) for _ in range(2))
    assert (list(first), first.bad) == (list(second), second.bad)
    assert set(first.bad.values()) == set(Bad)
    assert len(first.bad) == 90
    assert first.sample(901) == first.sample(1)
    assert len({json.dumps(sample) for sample in Samples(MAIN, 3000)}) == 3000


def test_a_line_that_was_cut_is_not_told(tmp_path):
    (tmp_path / "o").write_bytes(b'{"number":3,"answer":["prediction","a",0.5],"failure":null}\n{"number":4,"ans')
    assert list(told_in(tmp_path / "o")) == [Told(3, ("prediction", "a", 0.5), None)]
    assert not list(told_in(tmp_path / "none"))


@pytest.mark.benchmark
async def test_the_engine_is_sick_when_told_and_comes_back_where_it_was(tmp_path):
    await train(tmp_path, [MAIN])
    samples = Samples(MAIN, 20, {3: Bad.NAMED, 7: Bad.CRASH, 11: Bad.ODD})
    right = reference(tmp_path, samples)
    model = load(tmp_path, MAIN)
    assert right[0][1] == model.predict([{"content": samples.sample(0)["content"]}])["predictions"][0]
    process = Process(tmp_path)
    process.start()
    try:
        async with httpx.AsyncClient(base_url=process.url, timeout=60) as client:

            async def asked(call, *numbers, **more):
                sentences = {"sentences": [samples.sample(number) for number in numbers]} if numbers else {}
                document = {"task_id": MAIN, **sentences}
                return await client.post(f"/api/{call}", json=document, headers={"connection": "close"})

            await asked("start_inference")
            answer = (await asked("predict", 0, 1)).json()["result"]
            results = [
                Prediction(label, max(shares), tuple(shares))
                for label, shares in zip(answer["predictions"], answer["probabilities"], strict=True)
            ]
            assert list(map(told, results)) == right[:2]
            assert "000003" in (await asked("predict", 0, 3)).json()["message"]
            assert (await asked("predict", 0, 7)).status_code == 500
            assert sum((await asked("predict", 11)).json()["result"]["probabilities"][0]) == pytest.approx(2.0)
            assert process.ask(TouchyEngine.seen) == Asked(requests=4, rows=7, again=2, failures=1)

            process.ask(TouchyEngine.sicken, "predict", 1, 0.2)
            assert [(await asked("predict", 0)).status_code for _ in range(2)] == [200, 500]
            assert (await asked("check_task_status")).status_code == 200
            while not process.ask(TouchyEngine.was_sick):
                await asyncio.sleep(0.01)
            assert (await asked("predict", 0)).status_code == 200
            process.ask(TouchyEngine.sicken, "everything")
            assert (await asked("predict", 0)).status_code == (await asked("check_task_status")).status_code == 500
            process.ask(TouchyEngine.sicken, None)

            process.ask(TouchyEngine.flicker, 1)
            spells = set()
            while spells != {200, 500}:
                spells.add((await asked("predict", 0)).status_code)

            url = process.url
            process.kill()
            process.start(MAIN)
            assert process.url == url
            assert (await asked("check_task_status")).json()["ret_code"] == 5
            assert (await asked("predict", 0)).status_code == 500
    finally:
        process.close()


@pytest.mark.benchmark
def test_every_answer_is_the_models_with_bad_samples_about():
    command = [sys.executable, "-m", "benchmarks.answers", "--samples", "640", "--bad", "0.02", "--seed", "1"]
    command += ["--parts", "undisturbed", "bad", "prices"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "answers that are not the model's" in done.stdout
