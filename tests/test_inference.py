"""Inference sessions against the pure engine: the lease, the load, the answers, the release."""

import asyncio
import json

import anyio
import pytest

from gts_async import (
    Busy,
    DeadlineExceeded,
    InvalidArgument,
    InvalidData,
    LeaseLost,
    MisuseError,
    NotFound,
    NotSent,
    Prediction,
    ServerFailed,
    TaskStatus,
    WrongState,
)
from gts_async.emulator.scripted import Script
from gts_async.testing import faults

FILES = {"train_data": "d.json", "val_data": "d.json", "test_data": "d.json"}
ROWS = {
    "classification": [{"id": i, "content": f"text {i}", "label": "ab"[i % 2]} for i in range(40)],
    "similarity": [{"id": i, "sentence1": "x", "sentence2": "y", "label": "01"[i % 2]} for i in range(40)],
    "nli": [{"id": i, "sentence1": "x", "sentence2": "y", "label": "entailment"} for i in range(40)],
    "ie": [
        {
            "task": "实体识别",
            "text": "在上海",
            "choice": ["地点"],
            "entity_list": [{"entity_text": "上海", "entity_type": "地点", "entity_index": [1, 3]}],
        }
    ],
    "summary": [{"text": "a long text", "summary": "a text"}],
}


@pytest.fixture
def trained(gts_session, tmp_path):
    """Give a function that makes a trained task of a kind."""

    async def train(task_type="classification", engine_type="qiankunding", name="t"):
        (tmp_path / "d.json").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS[task_type]))
        (tmp_path / "l.json").write_text(json.dumps({"labels": ["a", "b"]}))
        task = await gts_session.create_task(name, task_type=task_type, engine_type=engine_type)
        is_classified = task_type == "classification"
        await task.upload(tmp_path / "d.json", *([tmp_path / "l.json"] if is_classified else []))
        run = await task.train(**FILES, label_data="l.json" if is_classified else "d.json")
        await run
        return task

    return train


def asked(transport, path):
    return len([request for request in transport.seen if request.path.endswith(path)])


@pytest.fixture
def seen(gts_session):
    """Give the count of requests that reached a path."""
    return lambda path: asked(gts_session._transport, path)


PIPELINES = [
    ("classification", "qiankunding", {"content": "x"}),
    ("classification", "bagualu", {"content": "x"}),
    ("similarity", "qiankunding", {"sentence1": "x", "sentence2": "y"}),
    ("nli", "qiankunding", {"sentence1": "x", "sentence2": "y"}),
    ("ie", "bagualu", {"task": "实体识别", "text": "在上海", "choice": ["地点"]}),
    ("summary", "bagualu", {"text": "a long text"}),
]


@pytest.mark.parametrize(("task_type", "engine_type", "sample"), PIPELINES)
async def test_every_pipeline_is_served_and_asked(trained, task_type, engine_type, sample):
    task = await trained(task_type, engine_type)
    async with task.serve() as inference:
        one = await inference.predict_one(sample)
        some = await inference.predict([sample] * 3)
        assert some == [one] * 3
        assert await inference.predict([]) == []
        async with inference.stream([sample] * 5, max_batch=2) as outcomes:
            assert [outcome.value async for outcome in outcomes] == [one] * 5
    assert "label" not in sample
    assert "summary" not in sample


async def test_a_prediction_has_the_probability_of_its_label(trained):
    async with (await trained()).serve() as inference:
        one = await inference.predict_one({"content": "x"})
    assert isinstance(one, Prediction)
    assert one.probability == max(one.probabilities)
    assert sum(one.probabilities) == pytest.approx(1.0)


async def test_the_model_is_released_on_the_way_out(trained, seen):
    task = await trained()
    async with task.serve():
        assert (await task.status()).status is TaskStatus.SERVING
    assert (await task.status()).status is TaskStatus.SUCCEEDED
    assert seen("end_inference") == 1


@pytest.mark.parametrize("style", ["task", "wait_for", "timeout", "scope"])
async def test_the_model_is_released_when_the_user_is_cancelled(trained, seen, style):
    task = await trained()
    is_open = asyncio.Event()

    async def use():
        async with task.serve():
            is_open.set()
            await asyncio.sleep(1000)

    if style == "task":
        using = asyncio.create_task(use())
        await is_open.wait()
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using
    elif style == "wait_for":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(use(), 0.5)
    elif style == "timeout":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await use()
    else:
        with anyio.move_on_after(0.5):
            await use()
    assert is_open.is_set()
    assert seen("end_inference") == 1
    async with task.serve(when_taken="raise") as inference:
        assert await inference.predict([{"content": "x"}])


async def test_an_error_of_the_body_comes_through_and_the_model_is_released(trained, seen):
    task = await trained()
    with pytest.raises(KeyError):
        async with task.serve():
            raise KeyError
    assert seen("end_inference") == 1


async def test_one_at_a_time_per_engine_others_wait_or_are_told(trained):
    first, second = await trained(name="one"), await trained(name="two")
    order = []

    async def use(task):
        async with task.serve():
            order.append(f"{task.id} in")
            await asyncio.sleep(0)
            order.append(f"{task.id} out")

    async with first.serve():
        waiting = asyncio.create_task(use(second))
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            async with second.serve(when_taken="raise"):
                pass
        order.append("first out")
    await waiting
    assert order == ["first out", "two in", "two out"]


async def test_a_task_in_training_is_not_loaded(trained, gts_trainer, seen):
    task = await trained()
    gts_trainer.plan(Script(training=1000.0))
    run = await task.train(**FILES, label_data="l.json")
    async for change in run.watch():
        if change.status is TaskStatus.TRAINING:
            break
    with pytest.raises(WrongState):
        async with task.serve():
            pass
    assert seen("start_inference") == 0


async def test_leaving_does_not_end_a_training_that_goes_on(trained, gts_trainer):
    task = await trained()
    async with task.serve():
        gts_trainer.plan(Script(training=1000.0))
        run = await task.train(**FILES, label_data="l.json")
        async for change in run.watch():
            if change.status is TaskStatus.TRAINING:
                break
    with pytest.raises(DeadlineExceeded):
        await run.wait(deadline=100)


async def test_a_task_without_a_model_says_so_and_leaves_the_lease(gts_session, trained, seen):
    empty = await gts_session.create_task("empty", task_type="nli", engine_type="qiankunding")
    with pytest.raises(ServerFailed):
        async with empty.serve():
            pass
    with pytest.raises(NotFound):
        async with gts_session.task("nobody").serve():
            pass
    assert seen("end_inference") == 0
    async with (await trained()).serve(when_taken="raise") as inference:
        assert await inference.predict([{"content": "x"}])


async def test_one_load_serves_one_predict_without_the_user_noticing(trained, seen):
    async with (await trained(engine_type="bagualu")).serve() as inference:
        for _ in range(3):
            assert len(await inference.predict([{"content": "x"}])) == 1
        results = await asyncio.gather(*[inference.predict_one({"content": str(n)}) for n in range(100)])
        assert len(results) == 100
        assert inference.stats.reloads == seen("start_inference") - 1 == inference.stats.batches - 1


async def test_a_task_known_by_its_id_only_learns_what_it_is(gts_session, trained):
    await trained(engine_type="bagualu")
    async with gts_session.task("t").serve() as inference:
        for _ in range(4):
            assert len(await inference.predict([{"content": "x"}])) == 1


async def test_sentence_pairs_of_an_unknown_task_must_be_told(gts_session, trained):
    await trained("nli")
    pair = {"sentence1": "x", "sentence2": "y"}
    async with gts_session.task("t").serve() as inference:
        with pytest.raises(InvalidArgument, match="task_type"):
            await inference.predict([pair])
    async with gts_session.task("t", task_type="nli", engine_type="qiankunding").serve() as inference:
        assert (await inference.predict_one(pair)).label in ("entailment", "contradiction", "neutral")


async def test_bad_samples_are_listed_before_anything_is_sent(trained, seen):
    async with (await trained()).serve() as inference:
        before = seen("/api/predict")
        with pytest.raises(InvalidData) as caught:
            await inference.predict([{"content": "x"}, {"text": "y"}, {"content": 5}])
        assert [problem.line for problem in caught.value.problems] == [2, 3]
    assert seen("/api/predict") == before


async def test_a_bad_sample_in_a_stream_fails_alone(trained):
    samples = [{"content": "x"}, {}, {"content": "y"}, "text", {"content": "z"}]
    async with (await trained()).serve() as inference, inference.stream(samples, max_batch=3) as outcomes:
        results = [outcome async for outcome in outcomes]
    assert [outcome.is_ok for outcome in results] == [True, False, True, False, True]
    assert [outcome.item for outcome in results] == samples


async def test_somebody_elses_end_of_our_inference_is_a_lost_lease(trained, gts_session):
    task = await trained()
    async with task.serve() as inference:
        line = await gts_session._engine.exchange.line()
        await line.client.post(f"{line.base_url}/api/end_inference", json={"task_id": task.id})
        with pytest.raises(LeaseLost):
            await inference.predict([{"content": "x"}])


async def test_an_engine_that_is_gone_ends_the_stream_and_not_the_session(trained, gts_faults):
    async with (await trained()).serve() as inference:
        gts_faults.append(faults.refused("predict", times=1000))
        with pytest.raises(NotSent):
            async with inference.stream([{"content": "x"}] * 500) as outcomes:
                async for _ in outcomes:
                    raise AssertionError("nobody can have answered")
        gts_faults.clear()
        assert await inference.predict([{"content": "x"}])


async def test_a_load_that_was_cut_is_released_as_soon_as_it_can_be(trained, gts_faults, seen):
    task = await trained()
    gts_faults.append(faults.cut("start_inference", times=4))
    with pytest.raises(Exception, match="start_inference"):
        async with task.serve():
            raise AssertionError("it cannot have been loaded")
    assert seen("end_inference") >= 1
    assert (await task.status()).status is TaskStatus.SUCCEEDED


async def test_a_reload_that_was_cancelled_is_released_too(trained, seen):
    task = await trained(engine_type="bagualu")
    async with task.serve() as inference:
        await inference.predict([{"content": "x"}])
        again = asyncio.create_task(inference.predict([{"content": "x"}]))
        before = seen("start_inference")
        while seen("start_inference") == before:
            await asyncio.sleep(0)
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
    with pytest.raises(ServerFailed):  # what a trained bagualu task answers that is not served
        await task.status()


async def test_a_stream_with_a_checkpoint_goes_on_where_it_was(trained, seen, tmp_path):
    samples = [{"content": str(n)} for n in range(10)]
    path = tmp_path / "results.db"
    async with (await trained()).serve() as inference:
        async with inference.stream(samples, max_batch=2, max_at_once=1, checkpoint=path) as outcomes:
            early = [(await anext(outcomes)).value for _ in range(4)]
        before = seen("/api/predict")
        async with inference.stream(samples, max_batch=2, checkpoint=path) as outcomes:
            every = [outcome async for outcome in outcomes]
        assert [outcome.value for outcome in every[:4]] == early
        assert [outcome.item for outcome in every] == samples
        assert seen("/api/predict") - before <= 3
        assert every[0].tries == 0
        with pytest.raises(InvalidArgument, match="other samples"):
            async with inference.stream(samples[1:], max_batch=2, checkpoint=path) as outcomes:
                async for _ in outcomes:
                    pass


async def test_misuse_says_how_to_use_it(trained):
    task = await trained()
    inference = task.serve()
    with pytest.raises(MisuseError, match="async with"):
        await inference.predict([{"content": "x"}])
    with pytest.raises(MisuseError, match="async with"):
        inference.stream([])
    async with inference:
        with pytest.raises(MisuseError, match="open already"):
            async with inference:
                pass
    with pytest.raises(InvalidArgument, match="when_taken"):
        task.serve(when_taken="steal")
    with pytest.raises(InvalidArgument, match="max_batch"):
        task.serve(max_batch=0)
