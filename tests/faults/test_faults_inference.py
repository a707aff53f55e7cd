"""The engine's one model slot under faults: taken by others, restarted, cut, hung; no answer is another model's.

On a fake clock, with pure engines.
"""

import asyncio
import json
import math
import os
import signal
import subprocess
import sys

import httpx
import pytest

from gts_async import (
    AsyncSession,
    Busy,
    InferencePool,
    InvalidData,
    LeaseLost,
    MisuseError,
    NotFound,
    NotSent,
    ServerFailed,
    TaskStatus,
    TimedOut,
    WrongState,
)
from gts_async._inference import InferenceSession
from gts_async.emulator.engine import Engine
from gts_async.emulator.scripted import MemoryFiles, Script, ScriptedTrainer
from gts_async.gts.identity import PROBES
from gts_async.gts.values import Prediction
from gts_async.local.asgi import EmulatorApp, Worker
from gts_async.local.serving import serve
from gts_async.testing import EmulatorTransport, faults
from gts_async.wire import Request

ROWS = [{"id": i, "content": f"text {i}", "label": "ab"[i % 2]} for i in range(40)]
PAIRS = [{"id": i, "sentence1": "x", "sentence2": "y", "label": "01"[i % 2]} for i in range(40)]
MANY = [{"content": f"sample {n}"} for n in range(1000)]
ONE = {"content": "x"}


class Held(EmulatorTransport):
    """Holds the requests of a path for ever, as long as it is told to; lets things happen after a load.

    A model of its engine cannot stand a sample with "poison" in it. `most` is how many requests met here.
    """

    path = "/held/by/nobody"
    after_load = None
    most = inside = 0

    async def handle_async_request(self, request):
        if request.url.path == self.path:
            await asyncio.Event().wait()
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            answer = await super().handle_async_request(request)
        finally:
            self.inside -= 1
        if b"poison" in request.content:
            return httpx.Response(500, content=b"Internal Server Error")
        if request.url.path == "/api/start_inference" and self.after_load is not None:
            happens, self.after_load = self.after_load, None
            await happens()
        return answer


def files_of(task_type):
    label_data = "l.json" if task_type == "classification" else "d.json"
    return {"train_data": "d.json", "val_data": "d.json", "test_data": "d.json", "label_data": label_data}


class World:
    """An engine, a session with it, and a stranger who knows of no lease."""

    def __init__(self, clock, url="http://engine.test"):
        self.clock = clock
        self.url = url
        self.trainer = ScriptedTrainer(MemoryFiles())
        self.engine = Engine(self.trainer.files, self.trainer)
        self.transport = Held({url: self.engine}, lambda: clock.wall().timestamp())
        self.session = AsyncSession(engine=url, transport=self.transport, clock=clock, chance=lambda: 0.5)

    def trained(self, name="mine", engine_type="qiankunding", task_type="classification", labels="ab"):
        """Give a trained task; how it came to be is not what these tests are about, so it takes no time and no turn."""
        rows = PAIRS if task_type == "similarity" else [{**row, "label": labels[row["id"] % 2]} for row in ROWS]
        files = {"d.json": "\n".join(map(json.dumps, rows)), "l.json": json.dumps({"labels": list(labels)})}
        self.trainer.plan(Script(startup=0.0, training=1e-9))
        self._tell("create_task/", json={"task_name": name, "task_type": task_type, "engine_type": engine_type})
        sent = [("files", (file, content.encode())) for file, content in files.items()]
        self._tell("upfiles/", data={"task_id": name}, files=sent)
        self._tell("train", json={"task_id": name, **files_of(task_type)})
        return self.session.task(name, task_type=task_type, engine_type=engine_type)

    def _tell(self, path, **content):
        made = httpx.Request("POST", f"{self.url}/api/{path}", **content)
        request = Request("POST", f"/api/{path}", (), tuple(made.headers.items()), made.read())
        assert json.loads(self.engine.answer(request, self.clock.wall().timestamp()).body)["ret_code"] == 200

    async def stranger(self, path, task_id, **more):
        """Do to the engine what somebody else's client does."""
        line = await self.session._engine.exchange.line()
        answer = await line.client.post(f"{self.url}/api/{path}", json={"task_id": task_id, **more})
        return answer.status_code

    def seen(self, path):
        """Give how many requests of a path have reached the engine."""
        return len([request for request in self.transport.seen if request.path == f"/api/{path}"])

    def asked(self):
        """Give how many rows each predict that reached the engine had."""
        return [len(rows) for rows in self.rows()]

    def rows(self):
        """Give the rows of each predict that reached the engine."""
        bodies = [json.loads(request.body) for request in self.transport.seen if request.path == "/api/predict"]
        return [body["sentences"] for body in bodies]


@pytest.fixture
async def world(gts_clock):
    """Give a world, and check on the way out that the slot is free for the next one and nothing runs on."""
    world = World(gts_clock)
    yield world
    world.transport.path = None
    world.transport.faults.clear()
    task = world.trained("afterwards")
    async with task.serve(when_taken="raise") as inference:
        assert len(await inference.predict([ONE])) == 1
    await world.session.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


# Theft


async def ended(world):
    await world.stranger("end_inference", "mine")


async def replaced(world):
    """By a model of the same kind, with the same labels."""
    world.trained("theirs")
    await world.stranger("start_inference", "theirs")


async def ended_and_replaced(world):
    await ended(world)
    await replaced(world)


async def relabelled(world):
    """By a model with other labels, as many."""
    world.trained("theirs", labels="yz")
    await world.stranger("start_inference", "theirs")


async def grown(world):
    """By a model with more labels."""
    world.trained("theirs", labels="abc")
    await world.stranger("start_inference", "theirs")


async def deleted(world):
    world.trained("theirs")
    await world.stranger("start_inference", "theirs")
    await world.stranger("delete_task/", "mine")


async def retrained(world):
    world.trainer.plan(Script(training=1000.0))
    run = await world.session.task("mine").train(**files_of("classification"))
    async for change in run.watch():
        if change.status is TaskStatus.TRAINING:
            break


THEFTS = [ended, replaced, ended_and_replaced, relabelled, grown, retrained]


@pytest.mark.parametrize("theft", THEFTS)
async def test_what_a_large_request_gets_is_our_models_or_nothing(world, theft):
    task = world.trained()
    async with task.serve() as inference:
        right = dict(zip((s["content"] for s in MANY), await inference.predict(MANY), strict=True))
        got = []
        with pytest.raises(LeaseLost, match="mine: somebody else has taken the engine's model slot"):
            async with inference.stream(MANY, max_batch=50, max_at_once=2) as outcomes:
                async for outcome in outcomes:
                    got.append(outcome)
                    if len(got) == 200:
                        await world.clock.sleep(2)
                        await theft(world)
        assert 200 <= len(got) < 1000
        assert all(outcome.unwrap() == right[outcome.item["content"]] for outcome in got)
        with pytest.raises(LeaseLost):
            await inference.predict([ONE])


@pytest.mark.parametrize("labels", ["", "ab", "yz", "abc"], ids=["ended", "replaced", "relabelled", "grown"])
@pytest.mark.parametrize("moment", ["between requests", "right after a load"])
async def test_where_each_request_loads_first_a_theft_must_be_quick_and_is_found_out(world, labels, moment):
    task = world.trained(engine_type="bagualu")
    if labels:
        world.trained("theirs", engine_type="bagualu", labels=labels)

    async def steal():
        await (world.stranger("start_inference", "theirs") if labels else ended(world))

    async with task.serve() as inference:
        right = await inference.predict(MANY[:100])
        if moment == "between requests":
            await steal()
            assert await inference.predict(MANY[:100]) == right
        else:
            world.transport.after_load = steal
            with pytest.raises(LeaseLost):
                await inference.predict(MANY[:100])


@pytest.mark.parametrize("theft", THEFTS)
async def test_small_requests_find_out_in_time_and_say_which_answers_may_be_wrong(world, theft):
    task = world.trained()
    async with task.serve() as inference:
        right = await inference.predict_one(ONE)
        await theft(world)
        answers = []
        with pytest.raises(LeaseLost) as lost:
            for _ in range(20):
                answers.append(await inference.predict_one(ONE))
                await world.clock.sleep(0.5)
        wrong = len([answer for answer in answers if answer != right])
        assert lost.value.doubtful >= wrong
        said = f"the {lost.value.doubtful} answers before may be" if lost.value.doubtful else "no answer was wrong"
        assert said in str(lost.value)
        assert len(answers) <= 2
        with pytest.raises(LeaseLost) as again:
            await inference.predict_one(ONE)
        assert str(again.value) == str(lost.value)


async def test_the_model_of_who_took_the_slot_is_left_alone(world):
    task = world.trained()
    with pytest.raises(LeaseLost):
        async with task.serve() as inference:
            await inference.predict(MANY[:40])
            await replaced(world)
            await inference.predict(MANY[:40])
    assert world.seen("end_inference") == 0
    assert await world.stranger("predict", "theirs", sentences=[ONE]) == 200


async def test_a_deleted_task_is_told(world):
    task = world.trained()
    async with task.serve() as inference:
        await inference.predict(MANY[:40])
        await deleted(world)
        await world.clock.sleep(2)
        with pytest.raises(NotFound):
            await inference.predict(MANY[:40])


async def test_a_model_of_another_kind_is_replaced_by_ours_and_a_fight_is_lost(world):
    task = world.trained()
    world.trained("theirs", task_type="similarity")
    async with task.serve() as inference:
        right = await inference.predict(MANY[:40])
        for _ in range(3):
            await world.stranger("start_inference", "theirs")
            assert await inference.predict(MANY[:40]) == right
        assert inference.stats.reloads == 3
        await world.stranger("start_inference", "theirs")
        with pytest.raises(LeaseLost, match="again and again"):
            await inference.predict(MANY[:40])


async def test_one_look_and_one_probe_a_second_with_small_requests(world):
    task = world.trained()
    async with task.serve() as inference:
        assert world.asked() == [1]
        for _ in range(10):
            await inference.predict([ONE])
        before = world.seen("check_task_status")
        assert sum(world.asked()) == 11
        await world.clock.sleep(1.5)
        await asyncio.gather(*(inference.predict([ONE]) for _ in range(10)))
        assert world.seen("check_task_status") == before + 1
        assert sum(world.asked()) == 22
        await world.clock.sleep(0.5)
        await inference.predict([ONE])
        assert sum(world.asked()) == 23
        await inference.predict(MANY[:7])
        assert sum(world.asked()) == 31
        assert inference.stats.samples == 28
        await inference.predict([ONE])
    # What was answered last is proven on the way out.
    assert sum(world.asked()) == 33


async def by_predict(inference, samples, max_batch):
    await inference.predict(samples)


async def by_predict_one(inference, samples, max_batch):
    await asyncio.gather(*map(inference.predict_one, samples))


async def by_stream(inference, samples, max_batch):
    async with inference.stream(samples, max_batch=max_batch) as outcomes:
        async for outcome in outcomes:
            outcome.unwrap()


@pytest.mark.parametrize("max_batch", [1, 2, 7, 8, 9, 64])
@pytest.mark.parametrize("way", [by_predict, by_predict_one, by_stream])
@pytest.mark.parametrize("is_pool", [False, True])
async def test_no_request_is_larger_than_max_batch_and_a_theft_is_found_out_all_the_same(
    world, max_batch, way, is_pool
):
    session = world.trained().serve(max_batch=max_batch)
    async with InferencePool([session]) if is_pool else session as inference:
        await way(inference, MANY[:130], max_batch)
        assert max(world.asked()) == max_batch
        if max_batch >= 8:
            # A place is left in each, so that none has to be followed by a request of our own.
            assert len(world.asked()) == 1 + math.ceil(130 / (max_batch - 1))
        await replaced(world)
        await world.clock.sleep(6)
        with pytest.raises(LeaseLost):
            await way(inference, MANY[:130], max_batch)
    assert max(world.asked()) == max_batch


async def test_an_answer_is_not_handed_out_when_nobody_can_tell_whose_it_is(world):
    task = world.trained()
    async with task.serve() as inference:
        await world.clock.sleep(2)
        world.transport.faults.append(faults.refused("check_task_status", times=100))
        with pytest.raises(NotSent, match="task_status"):
            await inference.predict([ONE])


async def test_what_a_sample_does_to_the_model_is_not_taken_for_a_theft_or_a_restart(world):
    task = world.trained()
    samples = [*MANY[:100], {"content": "poison"}, *MANY[100:127]]
    async with task.serve() as inference:
        async with inference.stream(samples, max_batch=128) as outcomes:
            got = [outcome async for outcome in outcomes]
        assert [outcome.item["content"] for outcome in got if not outcome.is_ok] == ["poison"]
        assert inference.stats.reloads == 0
    probes = [rows for rows in world.rows() if rows == [PROBES[task.task_type]]]
    assert 1 <= len(probes) <= 4


async def test_tries_after_the_first_are_counted(world):
    task = world.trained()
    async with task.serve() as inference:
        world.transport.faults.append(faults.cut("predict", times=2))
        await inference.predict([ONE])
        assert inference.stats.retries == 2
        await inference.predict([ONE])
        assert inference.stats.retries == 2


async def test_a_task_known_by_its_id_is_asked_at_once_when_it_has_shown_that_it_can(world):
    world.trained()
    async with world.session.task("mine").serve() as inference:
        for calls, most in ((2, 1), (4, 4)):
            world.transport.most = 0
            await asyncio.gather(*(inference.predict([ONE]) for _ in range(calls)))
            assert world.transport.most == most


# Restarts


@pytest.mark.parametrize("engine_type", ["qiankunding", "bagualu"])
@pytest.mark.parametrize("is_known", [True, False], ids=["a task", "an id"])
async def test_an_engine_that_was_restarted_is_loaded_again_and_the_stream_goes_on(world, engine_type, is_known):
    task = world.trained(engine_type=engine_type)
    task = task if is_known else world.session.task("mine")
    async with task.serve() as inference:
        right = await inference.predict(MANY)
        got = []
        async with inference.stream(MANY, max_batch=50) as outcomes:
            async for outcome in outcomes:
                got.append(outcome.unwrap())
                if len(got) == 200:
                    world.engine.restart()
        assert got == right
        assert inference.stats.reloads >= 1
    assert await shown(task) is not TaskStatus.SERVING


async def shown(task):
    """Give the status of a task, None for the 500 of a trained bagualu task."""
    try:
        return (await task.status()).status
    except ServerFailed:
        return None


async def test_requests_that_meet_a_restart_together_load_once(world):
    task = world.trained()
    async with task.serve() as inference:
        right = await inference.predict(MANY[:40])
        world.engine.restart()
        answers = await asyncio.gather(*(inference.predict(MANY[:40]) for _ in range(6)))
        assert answers == [right] * 6
        assert inference.stats.reloads == 1


async def test_a_task_left_on_inference_by_a_restart_is_served_all_the_same(world):
    task = world.trained()
    await world.stranger("start_inference", "mine")
    world.engine.restart()
    assert await shown(task) is TaskStatus.SERVING
    async with task.serve() as inference:
        assert await inference.predict([ONE])
    assert await shown(task) is TaskStatus.SUCCEEDED


async def test_a_status_that_is_stuck_is_repaired_on_the_way_out(world):
    task = world.trained()
    async with task.serve():
        world.engine.restart()
    assert await shown(task) is TaskStatus.SUCCEEDED
    assert await world.stranger("predict", "mine", sentences=[ONE]) == 500


async def test_an_end_whose_answer_was_lost_is_no_stuck_status(world):
    task = world.trained()
    async with task.serve():
        world.transport.faults.append(faults.cut("end_inference"))
    assert await shown(task) is TaskStatus.SUCCEEDED
    assert world.seen("start_inference") == 1


async def test_a_model_that_cannot_be_loaded_again_is_told(world):
    task = world.trained()
    async with task.serve() as inference:
        await inference.predict([ONE])
        world.engine.restart()
        world.transport.faults.append(faults.status(500, path="start_inference", times=100))
        with pytest.raises(WrongState, match="cannot be loaded again"):
            await inference.predict([ONE])


async def test_a_model_that_answers_nothing_is_told(world):
    task = world.trained()
    async with task.serve() as inference:
        world.transport.faults.append(faults.status(500, path="predict", times=10_000))
        with pytest.raises(WrongState, match="answers nothing"):
            async with inference.stream(MANY) as outcomes:
                async for _ in outcomes:
                    raise AssertionError("nobody can have answered")
        assert world.seen("start_inference") <= 4


# One load for one predict


async def test_batches_are_large_where_each_costs_a_load(world):
    task = world.trained(engine_type="bagualu")
    async with InferenceSession(task._engine, "mine", task.task_type, task.engine_type) as inference:
        results = await inference.predict(MANY)
        assert all(isinstance(result, Prediction) for result in results)
        assert inference.stats.batches == 2
        assert inference.stats.reloads == 1 == world.seen("start_inference") - 1


@pytest.mark.parametrize("is_known", [True, False], ids=["a task", "an id"])
async def test_an_answer_that_was_lost_has_spent_the_load_and_no_sample_is_to_blame(world, is_known):
    task = world.trained(engine_type="bagualu")
    async with (task if is_known else world.session.task("mine")).serve() as inference:
        for _ in range(3):
            world.transport.faults.append(faults.cut("predict"))
            assert len(await inference.predict([ONE])) == 1
        assert inference.stats.retries >= 3


async def test_rows_that_the_engine_refuses_have_not_spent_the_load(world):
    task = world.trained(engine_type="bagualu")
    async with task.serve() as inference:
        for expected in (1, 2):
            for _ in range(2):
                with pytest.raises(InvalidData, match="content"):
                    await inference._ask(task.task_type, [{"text": "x"}])
            assert await inference.predict([ONE])
            assert world.seen("start_inference") == expected


async def test_a_request_whose_first_answer_is_lost_every_time_is_given_up(world):
    async def lose():
        world.transport.faults.append(faults.cut("predict"))
        world.transport.after_load = lose

    async with world.trained(engine_type="bagualu").serve() as inference:
        await lose()
        with pytest.raises(ServerFailed):
            await inference.predict([ONE])
        assert world.seen("start_inference") <= 4
        world.transport.after_load = None


# Loading


@pytest.mark.slow
async def test_who_has_the_slot_in_another_process_is_told(world, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    world.transport.is_private = False
    task = world.trained()
    holder = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLD, stdout=subprocess.PIPE)
    try:
        assert await holder.stdout.readline() == b"held\n"
        with pytest.raises(Busy, match=f"process {holder.pid}, for task 'theirs'"):
            async with task.serve(when_taken="raise"):
                raise AssertionError("it is taken")
        assert world.seen("start_inference") == 0
    finally:
        holder.kill()
        await holder.wait()
    async with task.serve() as inference:
        assert await inference.predict([ONE])
        assert len(list((tmp_path / "gts_async").iterdir())) == 1
    assert list((tmp_path / "gts_async").iterdir()) == []


HOLD = """
import asyncio, time
from gts_async import SystemClock
from gts_async._lease import Lease
from gts_async._net.config import BaseURL

lease = Lease(BaseURL.parse("http://engine.test:80/", "engine"), "theirs", SystemClock())
asyncio.run(lease.take(wait=True))
print("held", flush=True)
time.sleep(1000)
"""


async def test_a_load_that_hangs_ends_in_its_time_and_frees_the_lease(world):
    task = world.trained()
    world.transport.path = "/api/start_inference"
    began = world.clock.now()
    with pytest.raises(TimedOut, match="start_inference"):
        async with task.serve(load_timeout=30):
            raise AssertionError("it cannot have been loaded")
    assert 30 <= world.clock.now() - began < 60


@pytest.mark.parametrize("is_shown", [False, True], ids=["not served before", "shown as served before"])
async def test_a_load_that_was_cut_and_comes_up_later_is_released(world, is_shown):
    task = world.trained()
    if is_shown:
        await world.stranger("start_inference", "mine")
    began = world.clock.now()
    world.transport.path = "/api/start_inference"
    entering = asyncio.create_task(task.serve().__aenter__())
    await world.clock.sleep(1)
    entering.cancel()
    await world.clock.sleep(2)
    world.transport.path = None
    await world.stranger("start_inference", "mine")
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert world.clock.now() - began < 10
    assert await world.stranger("predict", "mine", sentences=[ONE]) == 500
    assert await shown(task) is TaskStatus.SUCCEEDED


@pytest.mark.parametrize("path", ["end_inference", "check_task_status"])
async def test_a_release_that_hangs_ends_in_its_time_and_frees_the_lease(world, path):
    task = world.trained()
    async with task.serve():
        world.transport.path = f"/api/{path}"
        began = world.clock.now()
    assert world.clock.now() - began < 20


@pytest.mark.parametrize("turns", [*range(24), 40])
async def test_whoever_is_cancelled_while_entering_leaves_nothing(world, cancelled_after, turns):
    task = world.trained()

    async def use():
        async with task.serve():
            await asyncio.sleep(1000)

    await cancelled_after(turns, use)
    async with task.serve(when_taken="raise") as inference:
        assert await inference.predict([ONE])
    assert await shown(task) is TaskStatus.SUCCEEDED
    assert await world.stranger("predict", "mine", sentences=[ONE]) == 500


@pytest.mark.parametrize("turns", range(30))
async def test_whoever_is_cancelled_while_a_lost_model_is_loaded_again_spoils_nothing(world, cancelled_after, turns):
    task = world.trained()
    async with task.serve() as inference:
        right = await inference.predict([ONE])
        world.engine.restart()
        await cancelled_after(turns, lambda: inference.predict([ONE]))
        assert await inference.predict([ONE]) == right
    assert await shown(task) is TaskStatus.SUCCEEDED
    assert await world.stranger("predict", "mine", sentences=[ONE]) == 500


@pytest.mark.parametrize("engine_type", ["qiankunding", "bagualu"])
@pytest.mark.parametrize("turns", range(30))
async def test_what_another_task_asks_when_the_block_is_left_loads_nothing_any_more(world, engine_type, turns):
    task = world.trained(engine_type=engine_type)
    async with task.serve() as inference:
        await inference.predict([ONE])
        world.engine.restart()
        asking = asyncio.create_task(inference.predict([ONE]))
        for _ in range(turns):
            await asyncio.sleep(0)
    is_late = not asking.done()
    (answer,) = await asyncio.gather(asking, return_exceptions=True)
    assert isinstance(answer, MisuseError if is_late else (list, MisuseError)), answer
    assert await world.stranger("predict", "mine", sentences=[ONE]) == 500
    assert await shown(task) is not TaskStatus.SERVING


CHILD = """
import asyncio, sys
from gts_async import AsyncSession


async def main(url):
    async with AsyncSession(engine=url) as session:
        async with session.task("mine", task_type="classification", engine_type="qiankunding").serve() as inference:
            samples = ({"content": "x"} for _ in iter(int, 1))
            async with inference.stream(samples) as outcomes:
                async for outcome in outcomes:
                    outcome.unwrap()
                    print("serving", flush=True)


asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.slow
async def test_a_program_that_is_interrupted_by_the_keyboard_releases_the_model(world, tmp_path):
    task, worker = world.trained(), Worker("engine")
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    async with serve(EmulatorApp(world.engine.answer, worker, max_body=1 << 24)) as served:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, served.url, env=environment, **pipes)
        try:
            assert await child.stdout.readline() == b"serving\n"
            assert world.engine.task_info("mine")["status_code"] == TaskStatus.SERVING
            child.send_signal(signal.SIGINT)
            async with asyncio.timeout(60):
                _, errors = await child.communicate()
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    worker.close()
    assert child.returncode == -signal.SIGINT
    assert errors.splitlines()[-1] == b"KeyboardInterrupt"
    assert await shown(task) is TaskStatus.SUCCEEDED
    assert await world.stranger("predict", "mine", sentences=[ONE]) == 500
    assert list((tmp_path / "gts_async").iterdir()) == []


async def test_a_session_is_entered_once_at_a_time(world):
    inference = world.trained().serve()
    found = await asyncio.gather(inference.__aenter__(), inference.__aenter__(), return_exceptions=True)
    assert [type(one) for one in found] == [InferenceSession, MisuseError]
    assert await inference.predict([ONE])
    await inference.__aexit__(None, None, None)


async def test_a_load_that_its_callers_give_up_again_and_again_is_no_fight_for_the_slot(world):
    task = world.trained()
    async with task.serve() as inference:
        right = await inference.predict([ONE])
        world.engine.restart()
        world.transport.path = "/api/start_inference"
        for _ in range(5):
            asking = asyncio.ensure_future(inference.predict([ONE]))
            await world.clock.sleep(5)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
        world.transport.path = Held.path
        assert await inference.predict([ONE]) == right


@pytest.mark.parametrize("turns", range(24))
async def test_whoever_is_cancelled_while_leaving_has_left(world, cancelled_after, turns):
    task = world.trained()
    asking = []

    async def use():
        async with task.serve() as inference:
            asking.append(asyncio.ensure_future(inference.predict_one(ONE)))

    entering = await turns_of(task)
    await cancelled_after(entering + turns, use)
    await asyncio.gather(*asking, return_exceptions=True)
    assert await world.stranger("predict", "mine", sentences=[ONE]) == 500
    assert await shown(task) is TaskStatus.SUCCEEDED


async def turns_of(task):
    """Give how many turns of the loop entering takes."""
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    inference, counting = task.serve(), asyncio.create_task(count())
    await inference.__aenter__()
    found = turns
    counting.cancel()
    await inference.__aexit__(None, None, None)
    return found


@pytest.mark.parametrize("theft", [replaced, deleted])
async def test_a_theft_before_the_first_request_is_found_out(world, theft):
    task = world.trained()
    async with task.serve() as inference:
        await theft(world)
        await world.clock.sleep(1.5)
        with pytest.raises((LeaseLost, NotFound)):
            await inference.predict([ONE])


async def test_the_last_small_requests_are_proven_on_the_way_out(world):
    task = world.trained()
    with pytest.raises(LeaseLost, match="may be another model's") as lost:
        async with task.serve() as inference:
            await inference.predict_one(ONE)
            await replaced(world)
            await inference.predict_one(ONE)
    assert lost.value.doubtful == 2


async def test_an_error_of_the_block_is_not_hidden_by_what_the_way_out_finds(world):
    task = world.trained()
    with pytest.raises(ZeroDivisionError):
        async with task.serve() as inference:
            await inference.predict_one(ONE)
            await replaced(world)
            raise ZeroDivisionError


@pytest.mark.parametrize("max_batch", [1, 3, 64])
async def test_a_checkpoint_keeps_no_answer_of_who_took_the_slot(world, tmp_path, max_batch):
    task, path = world.trained(), tmp_path / "kept.db"
    async with task.serve() as inference:
        right = await inference.predict(MANY[:30])
    with pytest.raises(LeaseLost):
        async with task.serve() as inference:
            given = 0
            async with inference.stream(MANY[:30], max_batch=max_batch, max_at_once=1, checkpoint=path) as outcomes:
                async for _ in outcomes:
                    given += 1
                    if given == 3:
                        await replaced(world)
            assert max_batch == 64
            await inference.predict(MANY[:30])
    async with task.serve() as inference, inference.stream(MANY[:30], checkpoint=path) as outcomes:
        assert [outcome.unwrap() async for outcome in outcomes] == right


async def test_a_pool_does_not_hide_that_answers_may_be_wrong(world):
    session = world.trained().serve()
    other = World(world.clock, "http://other.test")
    async with other.session, InferencePool([session, other.trained().serve()]) as pool:
        await pool.predict_one(ONE)
        await pool.predict_one(ONE)
        await replaced(world)
        await replaced(other)
        with pytest.raises(LeaseLost) as lost:
            for _ in range(10):
                await pool.predict_one(ONE)
                await world.clock.sleep(0.4)
        assert lost.value.doubtful
        with pytest.raises(LeaseLost):
            await pool.predict_one(ONE)


async def test_the_last_small_requests_of_a_pool_are_proven_on_the_way_out(world):
    session = world.trained().serve()
    other = World(world.clock, "http://other.test")
    async with other.session:
        with pytest.raises(LeaseLost, match="may be another model's"):
            async with InferencePool([session, other.trained().serve()]) as pool:
                await replaced(world)
                await replaced(other)
                await pool.predict_one(ONE)
        assert "closed" in repr(pool)


async def test_a_pool_goes_on_without_an_engine_whose_answers_were_all_right(world, caplog):
    session = world.trained().serve()
    other = World(world.clock, "http://other.test")
    async with other.session, InferencePool([session, other.trained().serve()]) as pool:
        right = await pool.predict(MANY[:126])
        await replaced(world)
        assert await pool.predict(MANY[:126]) == right
        assert "1 ready" in repr(pool)
    assert "not asked any more" in caplog.text


async def test_an_engine_out_of_order_for_a_moment_is_not_taken_for_a_thief(world):
    task = world.trained()
    async with task.serve() as inference:
        await world.clock.sleep(2)
        world.transport.faults.append(faults.status(500, path="check_task_status", times=1))
        assert await inference.predict(MANY[:40])


async def test_what_a_sample_of_the_users_own_kind_raises_is_not_the_others_fault(world):
    class Lying(dict):
        def __getitem__(self, key):
            raise RuntimeError("no such thing")

    class LyingText(str):
        __slots__ = ()

        def __str__(self):
            return "\ud800"

    task = world.trained()
    bad = [Lying(content="x"), {"content": LyingText("x")}]
    async with task.serve() as inference:
        async with inference.stream([*MANY[:20], *bad, *MANY[20:30]]) as outcomes:
            found = [outcome async for outcome in outcomes]
        assert [place for place, outcome in enumerate(found) if not outcome.is_ok] == [20, 21]
        answers = await asyncio.gather(*map(inference.predict_one, [*MANY[:5], *bad]), return_exceptions=True)
        assert [isinstance(answer, Exception) for answer in answers] == [False] * 5 + [True] * 2


@pytest.mark.parametrize("blank", ["", "  ", "\0", "\u200b\u200d", "\ufffd", "\uffff\n"])
async def test_blank_texts_travel_apart_and_without_the_probe(world, blank):
    task = world.trained()
    samples = [*MANY[:20], {"content": blank}, *MANY[20:40], {"content": blank}]

    async def by_stream(inference):
        async with inference.stream(samples) as outcomes:
            return [outcome.unwrap() async for outcome in outcomes]

    async with task.serve() as inference:
        alone = [(await inference.predict([sample]))[0] for sample in samples]
        world.transport.seen.clear()
        assert await inference.predict(samples) == alone
        assert await asyncio.gather(*map(inference.predict_one, samples)) == alone
        assert await by_stream(inference) == alone
        texts = [[row["content"] for row in rows] for rows in world.rows()]
        assert texts.count([blank, blank]) == 3
        assert not any(blank in some for some in texts if some != [blank, blank])
