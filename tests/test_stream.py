"""Streams of samples: any source, in flat memory and in order, and a bad sample or a bad engine told apart."""

import asyncio
import json
import threading

import pytest

from gts_async import (
    InferencePool,
    InvalidArgument,
    InvalidData,
    LeaseLost,
    MisuseError,
    ServerFailed,
    TimedOut,
    UnexpectedAnswer,
    WrongState,
)
from gts_async._asking import _named
from gts_async.gts.values import Prediction
from gts_async.testing import faults
from gts_async.testing.plugin import ENGINE_URL
from gts_async.wire import Answer

FILES = {"train_data": "d.json", "val_data": "d.json", "test_data": "d.json", "label_data": "l.json"}
PAIRS = {"train_data": "d.json", "val_data": "d.json", "test_data": "d.json", "label_data": "d.json"}


class Stumbling:
    """An engine in front of the engine: it does to predicts that hold some content what `meet` says."""

    def __init__(self, engine):
        self.engine = engine
        self.asked = []
        self.meet = lambda contents: None

    def answer(self, request, now):
        if not request.path.endswith("/predict"):
            return self.engine.answer(request, now)
        contents = [row.get("content", row.get("text")) for row in json.loads(request.body)["sentences"]]
        self.asked.append(contents)
        met = self.meet(contents)
        return self.engine.answer(request, now) if met is None else met

    def fail_for(self, *bad):
        self.meet = lambda contents: FAILED if set(bad) & set(contents) else None


FAILED = Answer(500, (("content-type", "text/plain"),), b"Internal Server Error")
ODD = Answer.json(200, {"ret_code": 200, "result": {"predictions": ["a"], "probabilities": []}, "message": "x"})


@pytest.fixture
def stumbling(gts_session, gts_engine):
    """Give what stands in front of `gts_engine`."""
    server = gts_session._transport._servers[ENGINE_URL] = Stumbling(gts_engine)
    return server


@pytest.fixture
def task(gts_session, tmp_path):
    """Give a function that makes a trained task."""

    async def train(engine_type="qiankunding", task_type="classification"):
        rows = [{"id": i, "content": f"text {i}", "label": "ab"[i % 2]} for i in range(40)]
        if task_type == "summary":
            rows = [{"text": "long", "summary": "short"}] * 3
        (tmp_path / "d.json").write_text("\n".join(map(json.dumps, rows)))
        (tmp_path / "l.json").write_text(json.dumps({"labels": ["a", "b"]}))
        made = await gts_session.create_task("t", task_type=task_type, engine_type=engine_type)
        await made.upload(tmp_path / "d.json", *([] if task_type == "summary" else [tmp_path / "l.json"]))
        await (await made.train(**(PAIRS if task_type == "summary" else FILES)))
        return made

    return train


def samples(count):
    return [{"content": str(n)} for n in range(count)]


async def collected(stream):
    async with stream as outcomes:
        return [outcome async for outcome in outcomes]


# Sources


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", [list, iter, "async"])
async def test_any_source_gives_the_same_outcomes(task, kind, ordered):
    async def numbered():
        for sample in samples(500):
            yield sample

    source = numbered() if kind == "async" else kind(samples(500))
    async with (await task()).serve() as inference:
        found = await collected(inference.stream(source, max_batch=16, ordered=ordered))
        alone = await inference.predict(samples(500))
    assert [int(outcome.item["content"]) for outcome in found] == list(range(500)) or not ordered
    by_number = {int(outcome.item["content"]): outcome.value for outcome in found}
    assert [by_number[n] for n in range(500)] == alone


async def test_a_file_that_is_waited_for_does_not_hold_up_the_loop(task):
    may_go, turns = threading.Event(), 0

    def lines():
        yield {"content": "first"}
        assert may_go.wait(10)
        yield {"content": "second"}

    async with (await task()).serve() as inference, inference.stream(lines()) as outcomes:
        assert (await anext(outcomes)).item == {"content": "first"}
        second = asyncio.ensure_future(anext(outcomes))
        while turns < 50:
            await asyncio.sleep(0)
            turns += 1
        assert not second.done()
        may_go.set()
        assert (await second).item == {"content": "second"}


async def test_an_error_of_the_source_comes_after_the_outcomes_of_what_it_gave(task):
    def breaking():
        yield from samples(10)
        raise OSError("the disk is gone")

    seen = []
    async with (await task()).serve() as inference, inference.stream(breaking(), max_batch=4) as outcomes:
        with pytest.raises(OSError, match="disk"):
            async for outcome in outcomes:
                seen.append(outcome.item)
    assert seen == samples(10)


async def test_leaving_early_leaves_no_task_and_no_thread(task):
    def endless():
        while True:
            yield {"content": "x"}

    async with (await task()).serve() as inference:
        before = asyncio.all_tasks()
        async with inference.stream(endless()) as outcomes:
            async for outcome in outcomes:
                assert outcome.is_ok
                break
        assert asyncio.all_tasks() == before
        assert [thread for thread in threading.enumerate() if thread.name == "gts-async-samples"] == []


class Counted(dict):
    """A sample; `alive` tells how many there are."""

    alive = 0

    def __init__(self, **fields):
        super().__init__(**fields)
        Counted.alive += 1

    def __del__(self):
        Counted.alive -= 1


@pytest.mark.parametrize("ordered", [True, False])
async def test_no_more_samples_are_held_than_are_on_their_way(task, ordered):
    most = count = 0
    source = (Counted(content=str(n)) for n in range(6000))
    made = await task()
    async with made.serve() as inference, inference.stream(source, max_batch=32, ordered=ordered) as outcomes:
        async for outcome in outcomes:
            count += outcome.is_ok
            most = max(most, Counted.alive)
    assert count == 6000
    assert most <= 32 * 30


async def test_what_stream_gives_shows_no_inner_type_and_says_how_to_use_it(task):
    async with (await task()).serve() as inference:
        stream = inference.stream([])
        assert repr(stream) == "<Stream closed>"
        with pytest.raises(MisuseError, match="async with"):
            await anext(stream)
        async with stream as outcomes:
            assert outcomes is stream
            assert repr(stream) == "<Stream open>"
            assert [outcome async for outcome in outcomes] == []
        with pytest.raises(MisuseError, match="once"):
            async with stream:
                pass
        with pytest.raises(InvalidArgument, match="items"):
            inference.stream(5)


# Who is to blame


async def test_a_sample_that_the_engine_fails_for_fails_alone(task, stumbling):
    async with (await task()).serve() as inference:
        await inference.predict_one({"content": "first"})
        stumbling.fail_for("37")
        before = len(stumbling.asked)
        found = await collected(inference.stream(samples(63)))
    assert [outcome.item["content"] for outcome in found if not outcome.is_ok] == ["37"]
    assert isinstance(found[37].error, ServerFailed)
    assert found[37].error.is_about_request
    assert "about this one" in found[37].error.__notes__[-1]
    assert [outcome.item for outcome in found] == samples(63)
    # The halves of 63, those left over, twice the sample that shows that the model is there, the bad one once more.
    further = len(stumbling.asked) - before - 1
    assert further <= 6 + 2 + 2 + 1
    assert inference.stats.retries == further
    assert ["first"] not in stumbling.asked[before:]


@pytest.mark.parametrize("count", [2, 5])
async def test_several_bad_samples_cost_so_many_times_as_much(task, stumbling, count):
    bad = [str(7 * n) for n in range(count)]
    async with (await task()).serve() as inference:
        stumbling.fail_for(*bad)
        stumbling.asked.clear()
        found = await collected(inference.stream(samples(63)))
        assert [outcome.item["content"] for outcome in found if not outcome.is_ok] == bad
        assert inference.stats.retries == len(stumbling.asked) - 1 <= count * (2 * 6 + 2)


async def test_what_a_bad_sample_costs_a_pool_is_counted_too(task, stumbling):
    async with InferencePool([(await task()).serve()]) as pool:
        stumbling.fail_for("37")
        stumbling.asked.clear()
        found = await collected(pool.stream(samples(63)))
        assert [outcome.item["content"] for outcome in found if not outcome.is_ok] == ["37"]
        further = len(stumbling.asked) - 1
        assert pool.stats.retries == further <= 6 + 2 + 2 + 1
    assert pool.stats.retries == further


async def test_a_sample_whose_answer_cannot_be_read_fails_alone(task, stumbling):
    async with (await task()).serve() as inference:
        stumbling.meet = lambda contents: ODD if "5" in contents else None
        found = await collected(inference.stream(samples(64)))
    assert [type(outcome.error) for outcome in found if not outcome.is_ok] == [UnexpectedAnswer]
    assert not found[5].is_ok


@pytest.mark.parametrize("engine_type", ["qiankunding", "bagualu"])
async def test_samples_that_the_engine_names_are_taken_out_without_halving(task, stumbling, engine_type):
    def refuse(contents):
        bad = [content for content in contents if content in ("7", "20")]
        said = f"样本【{ {'content': bad[0]} }】格式错误：缺少`label`字段" if bad else ""
        return Answer.json(200, {"ret_code": -101, "message": said}) if bad else None

    async with (await task(engine_type)).serve() as inference:
        stumbling.meet = refuse
        stumbling.asked.clear()
        found = await collected(inference.stream(samples(63)))
        assert [n for n, outcome in enumerate(found) if isinstance(outcome.error, InvalidData)] == [7, 20]
        assert len(stumbling.asked) == 3
        assert inference.stats.retries == 2
        # Where one load serves one predict: of those that were refused, none has spent it.
        assert inference.stats.reloads == 0
        assert await inference.predict(samples(3))
        assert inference.stats.reloads == (engine_type == "bagualu")


@pytest.mark.parametrize("is_warm", [True, False])
@pytest.mark.parametrize("engine_type", ["qiankunding", "bagualu"])
async def test_an_engine_that_fails_for_everything_ends_the_stream_in_a_few_requests(
    task, stumbling, engine_type, is_warm
):
    async with (await task(engine_type)).serve() as inference:
        if is_warm:
            await collected(inference.stream(samples(3)))
        before = len(stumbling.asked)
        stumbling.meet = lambda contents: FAILED
        with pytest.raises((ServerFailed, WrongState, LeaseLost)):
            await collected(inference.stream(samples(100_000)))
        assert len(stumbling.asked) - before <= 40


async def test_an_engine_whose_memory_is_too_small_gets_smaller_batches(task, stumbling):
    async with (await task()).serve() as inference:
        stumbling.meet = lambda contents: FAILED if len(contents) > 40 else None
        found = await collected(inference.stream(samples(64 * 30), max_at_once=1))
    assert all(outcome.is_ok for outcome in found)
    assert len(stumbling.asked) <= 30 * 2 + 30


async def test_bad_samples_are_outcomes_of_a_stream_and_are_not_sent(task, stumbling):
    bad = [{}, {"content": 5}, "text", {"content": "\ud800"}, None]
    async with (await task()).serve() as inference:
        stumbling.asked.clear()
        found = await collected(inference.stream([{"content": "x"}, *bad, {"content": "y"}]))
        asked = [contents[:2] for contents in stumbling.asked]
    assert [outcome.is_ok for outcome in found] == [True, *[False] * 5, True]
    assert all(isinstance(outcome.error, InvalidData) and outcome.tries == 0 for outcome in found[1:-1])
    assert asked == [["x", "y"]]


async def test_a_bad_sample_does_not_stall_the_others_of_an_ordered_stream(task, stumbling):
    async with (await task()).serve() as inference:
        stumbling.fail_for("0")
        async with inference.stream(samples(64 * 40), max_batch=64) as outcomes:
            first = asyncio.ensure_future(anext(outcomes))
            while not first.done():
                await asyncio.sleep(0)
            begun = {int(content) // 64 for contents in stumbling.asked for content in contents if content.isdigit()}
            assert len(begun) > 16
            rest = [outcome async for outcome in outcomes]
    assert not (await first).is_ok
    assert [outcome.item for outcome in rest] == samples(64 * 40)[1:]


# One at a time


async def test_callers_of_different_task_types_do_not_spoil_each_others_batch(gts_session, task, stumbling):
    await task()
    async with gts_session.task("t").serve() as inference:
        calls = [{"content": "x"}, {"text": "a summary's"}, {"content": "y"}, {"text": "another"}]
        found = await asyncio.gather(*map(inference.predict_one, calls), return_exceptions=True)
    assert [isinstance(result, Prediction) for result in found] == [True, False, True, False]
    assert not any({"x", "a summary's"} <= set(contents) for contents in stumbling.asked)


async def test_a_caller_that_gives_up_harms_nobody_and_is_told_so(task, gts_faults, gts_clock):
    async with (await task()).serve() as inference:
        gts_faults.append(faults.silent("predict", is_after=False))
        patient = asyncio.ensure_future(inference.predict_one({"content": "x"}))
        with pytest.raises(TimedOut, match=r"within 0\.01 s"):
            await inference.predict_one({"content": "y"}, timeout=0.01)
        assert isinstance(await patient, Prediction)
        with pytest.raises(InvalidArgument, match="timeout"):
            await inference.predict_one({"content": "y"}, timeout=-1)


async def test_many_samples_are_checked_while_the_loop_goes_on(task, stumbling):
    given = samples(20_000)
    turns, turns_before_asked = 0, []
    stumbling.meet = lambda contents: turns_before_asked.append(turns)

    async def count():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1
            given.clear()

    async with (await task()).serve() as inference:
        turns_before_asked.clear()
        counting = asyncio.create_task(count())
        found = await inference.predict(given)
        assert turns_before_asked[0] >= 19
        bad = [*samples(1500), {}, *samples(5000), {"content": 5}]
        asked = len(stumbling.asked)
        with pytest.raises(InvalidData) as caught:
            await inference.predict(bad)
        counting.cancel()
    assert len(found) == 20_000
    assert given == []
    assert [problem.line for problem in caught.value.problems] == [1501, 6502]
    assert len(stumbling.asked) == asked


async def test_many_samples_from_a_generator_are_predicted_off_the_loop(task):
    readers = set()

    def source():
        for sample in samples(300):
            readers.add(threading.get_ident())
            yield sample

    async with (await task()).serve() as inference:
        assert len(await inference.predict(source())) == 300
    assert threading.get_ident() not in readers


# What the engine names


LONG = "x" * 3000


@pytest.mark.parametrize(
    ("contents", "bad", "named"),
    [
        (["a", "b", "c"], "b", [1]),
        (["a", "b", "b"], "b", [1, 2]),
        (["a", "b", "c"], "d", []),
        (["b1", "b", "b2"], "b", [1]),
        ([LONG, "b"], LONG, [0]),
        ([LONG + "1", LONG + "2"], LONG + "1", []),
        (["it's", 'say "x"', "行\n"], "行\n", [2]),
        (["http://h/?a=1", "http://h/?a=2"], "http://h/?a=1", []),
        (["http://h/?a=1", "http://g/?a=2"], "http://g/?a=2", [1]),
        (["http://h/?a=1", "b"], "b", [1]),
        (["a\x00", "a", "\ue000"], "a\x00", [0]),
    ],
)
def test_the_named_row_is_found_or_nobody_is_blamed(contents, bad, named):
    rows = [{"content": content} for content in contents]
    error = InvalidData(call="predict", code=-101, message=f"样本【{ {'content': bad} }】格式错误：缺少`label`字段")
    assert _named(error, rows) == named


def test_other_refusals_name_nobody():
    assert _named(InvalidData(message="样本【{'content': 'a'}】"), [{"content": "a"}]) == []
    assert _named(ServerFailed("样本【{'content': 'a'}】格式错误"), [{"content": "a"}]) == []
