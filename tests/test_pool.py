"""Several engines asked as one, against pure engines on the fake clock."""

import json

import pytest

from gts_async import AsyncSession, InferencePool, InvalidArgument, MisuseError, NotSent, WrongType
from gts_async.emulator.engine import Engine
from gts_async.emulator.scripted import MemoryFiles, ScriptedTrainer
from gts_async.testing import EmulatorTransport, faults

FILES = {"train_data": "d.json", "val_data": "d.json", "test_data": "d.json", "label_data": "l.json"}


@pytest.fixture
async def engines(gts_clock, tmp_path):
    """Give three tasks with the same model, each on an engine of its own, and their transports."""
    rows = [{"id": i, "content": f"text {i}", "label": "ab"[i % 2]} for i in range(40)]
    (tmp_path / "d.json").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "l.json").write_text(json.dumps({"labels": ["a", "b"]}))
    tasks, transports = [], []
    for number in range(3):
        url = f"http://engine{number}.test"
        engine = Engine(MemoryFiles(), ScriptedTrainer())
        transports.append(EmulatorTransport({url: engine}, lambda: gts_clock.wall().timestamp()))
        session = AsyncSession(engine=url, transport=transports[-1], clock=gts_clock, chance=lambda: 0.5)
        task = await session.create_task("t", task_type="classification", engine_type="qiankunding")
        await task.upload(tmp_path / "d.json", tmp_path / "l.json")
        await (await task.train(**FILES))
        tasks.append(task)
    return tasks, transports


def predicts(transport):
    return len([request for request in transport.seen if request.path.endswith("/predict")])


SAMPLES = [{"content": str(n)} for n in range(600)]


async def test_requests_go_to_the_least_loaded_engine(engines):
    tasks, transports = engines
    async with InferencePool([task.serve(max_batch=10) for task in tasks]) as pool:
        results = await pool.predict(SAMPLES)
        alone = await pool.sessions[0].predict(SAMPLES)
    assert results == alone
    counts = [predicts(transport) for transport in transports]
    assert sum(counts) == 120
    assert min(counts) >= 5


async def test_an_engine_that_dies_in_a_stream_loses_no_sample(engines):
    tasks, transports = engines
    async with InferencePool([task.serve(max_batch=10) for task in tasks]) as pool:
        seen = []
        async with pool.stream(SAMPLES) as outcomes:
            async for outcome in outcomes:
                seen.append(outcome)
                if len(seen) == 100:
                    transports[1].faults.append(faults.refused("predict", times=10_000))
    assert [outcome.item for outcome in seen] == SAMPLES
    assert all(outcome.is_ok for outcome in seen)


async def test_an_engine_that_failed_rests_and_is_asked_again_later(engines, gts_clock):
    tasks, transports = engines
    async with InferencePool([task.serve() for task in tasks]) as pool:
        transports[0].faults.append(faults.refused("predict", times=4))
        await pool.predict_one({"content": "x"})
        resting = predicts(transports[0])
        for _ in range(5):
            await pool.predict_one({"content": "x"})
        assert predicts(transports[0]) == resting == 0
        await gts_clock.sleep(6)
        await pool.predict_one({"content": "x"})
        assert predicts(transports[0]) == 1


async def test_with_every_engine_gone_the_last_error_is_raised(engines):
    tasks, transports = engines
    async with InferencePool([task.serve() for task in tasks]) as pool:
        for transport in transports:
            transport.faults.append(faults.refused("predict", times=10_000))
        with pytest.raises(NotSent):
            await pool.predict([{"content": "x"}])
        for transport in transports:
            transport.faults.clear()


async def test_an_engine_that_cannot_load_leaves_none_loaded(engines):
    tasks, transports = engines
    transports[2].faults.append(faults.refused("start_inference", times=100))
    with pytest.raises(NotSent):
        async with InferencePool([task.serve() for task in tasks]):
            raise AssertionError("it cannot have been opened")
    ended = [len([r for r in transport.seen if r.path.endswith("end_inference")]) for transport in transports]
    assert ended == [1, 1, 0]


async def test_misuse_is_refused(engines):
    tasks, _ = engines
    with pytest.raises(InvalidArgument, match="sessions"):
        InferencePool([])
    with pytest.raises(WrongType, match="sessions"):
        InferencePool(tasks)
    with pytest.raises(InvalidArgument, match="two on one engine"):
        async with InferencePool([tasks[0].serve(), tasks[0].serve()]):
            pass
    with pytest.raises(MisuseError, match="async with"):
        await InferencePool([tasks[0].serve()]).predict([{"content": "x"}])
