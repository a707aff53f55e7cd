"""Tasks and their runs through a whole session, against the pure engine on the fake clock."""

import asyncio
import json

import pytest

from gts_async import (
    AlreadyExists,
    AsyncSession,
    DeadlineExceeded,
    InvalidArgument,
    InvalidData,
    MisuseError,
    NotFound,
    NotSent,
    OutcomeUnknown,
    ServerFailed,
    TaskStatus,
    UploadRejected,
    WorkFailed,
    WorkLost,
    WorkStalled,
    WorkStopped,
    WrongState,
)
from gts_async.emulator.backends import Stage
from gts_async.emulator.scripted import Script
from gts_async.testing import faults

FILES = {
    "train_data": "train.json",
    "val_data": "dev.json",
    "test_data": "test.json",
    "label_data": "labels.json",
}


@pytest.fixture
def data(tmp_path):
    """Give the paths of a small, good data set."""
    rows = "\n".join(json.dumps({"id": i, "content": f"text {i}", "label": "ab"[i % 2]}) for i in range(40))
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(rows)
    (tmp_path / "labels.json").write_text(json.dumps({"labels": ["a", "b"]}))
    return sorted(tmp_path.glob("*.json"))


@pytest.fixture
async def task(gts_session, data):
    """Give a bagualu classification task whose files are uploaded."""
    task = await gts_session.create_task("news", task_type="classification", engine_type="bagualu")
    await task.upload(*data)
    return task


def statuses(history):
    return [change.status.name for change in history]


async def test_a_training_is_watched_through_its_transitions(task, gts_clock):
    run = await task.train(**FILES)
    changes = [change async for change in run.watch()]
    assert statuses(changes) == ["INITIALIZED", "TRAINING", "SUCCEEDED"]
    assert [change.is_final for change in changes] == [False, False, True]
    assert [change.previous for change in changes] == [None, TaskStatus.INITIALIZED, TaskStatus.TRAINING]
    assert changes[0].elapsed < changes[1].elapsed < changes[2].elapsed == gts_clock.now()
    assert str(changes[1]).endswith("s  initialized → training")


async def test_a_finished_bagualu_run_is_a_success_although_its_status_is_500_for_ever(task):
    run = await task.train(**FILES)
    info = await run
    assert (info.status, info.test_acc) == (TaskStatus.SUCCEEDED, None)
    with pytest.raises(ServerFailed) as caught:
        await task.status()
    assert caught.value.status == 500


@pytest.mark.parametrize("outcome", [Stage.SUCCEEDED, Stage.FAILED])
async def test_a_short_training_like_the_one_before_is_not_missed(gts_session, gts_trainer, data, outcome):
    task = await gts_session.create_task("t", task_type="classification", engine_type="qiankunding")
    await task.upload(*data)
    gts_trainer.plan(*[Script(training=0.3, outcome=outcome)] * 2)
    first, second = [await gts_session.wait_all([await task.train(**FILES)], deadline=60) for _ in range(2)]
    assert first == second


async def test_a_settled_run_gives_the_same_look_again_at_once(task, gts_clock):
    run = await task.train(**FILES)
    first, then = await run, gts_clock.now()
    assert await run == first
    assert first.observed_at is not None
    assert [change.status async for change in run.watch()] == [TaskStatus.SUCCEEDED]
    assert gts_clock.now() == then


@pytest.mark.parametrize("outcome", [Stage.SUCCEEDED, Stage.FAILED])
async def test_success_of_the_previous_run_is_not_believed(gts_session, gts_trainer, data, outcome):
    task = await gts_session.create_task("t", task_type="classification", engine_type="qiankunding")
    await task.upload(*data)
    assert (await (await task.train(**FILES))).test_acc == 0.6
    gts_trainer.plan(Script(outcome=outcome, test_acc=0.7))
    run = await task.train(**FILES)
    assert (await task.status()).test_acc == 0.6
    if outcome is Stage.SUCCEEDED:
        assert (await run).test_acc == 0.7
    else:
        with pytest.raises(WorkFailed) as caught:
            await run
        assert statuses(caught.value.history) == ["INITIALIZED", "TRAINING", "FAILED"]
        assert caught.value.handle is run
        assert caught.value.last_look.status is TaskStatus.FAILED


async def test_a_run_after_a_stopped_a_served_and_a_finished_one_settles_by_itself(task, gts_trainer):
    first = await task.train(**FILES)
    await first.stop()
    with pytest.raises(WorkStopped):
        await first
    second = await task.train(**FILES)
    await second
    third = await task.train(**FILES)
    assert (await third).status is TaskStatus.SUCCEEDED
    async with task.serve():
        fourth = await task.train(**FILES)
        assert (await fourth.wait(deadline=100)).status is TaskStatus.SUCCEEDED
    gts_trainer.plan(Script(outcome=Stage.FAILED))
    with pytest.raises(WorkFailed):
        await (await task.train(**FILES))


async def test_a_process_that_never_comes_up_ends_as_stalled(task, gts_trainer, gts_clock):
    gts_trainer.plan(Script(training=0.0, outcome=Stage.DIED))
    run = await task.train(**FILES)
    with pytest.raises(WorkStalled, match="not begun"):
        await run
    assert 120 <= gts_clock.now() < 150


async def test_a_process_that_dies_in_training_ends_as_stalled_or_by_the_deadline(task, gts_trainer, gts_clock):
    gts_trainer.plan(Script(outcome=Stage.DIED))
    run = await task.train(**FILES)
    with pytest.raises(WorkStalled):
        await run.wait(stalled_after=300)
    with pytest.raises(DeadlineExceeded) as caught:
        await run.wait(deadline=1000)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.handle is run
    assert "goes on" in str(caught.value)


async def test_a_stop_in_the_seconds_before_the_process_is_up_takes_effect(task, gts_trainer, gts_clock):
    gts_trainer.plan(Script(startup=8.0, training=1000.0))
    run = await task.train(**FILES)
    await task.stop()
    assert gts_clock.now() >= 8.0
    with pytest.raises(WorkStopped):
        await run


async def test_a_stop_with_nothing_in_training_is_a_wrong_state(task):
    with pytest.raises(WrongState) as caught:
        await task.stop()
    assert "nothing is in training" in caught.value.__notes__[0]
    run = await task.train(**FILES)
    await run
    with pytest.raises(WrongState):
        await run.stop()


async def test_a_stop_of_a_run_that_ended_unwatched_says_how_it_ended(task, gts_clock):
    run = await task.train(**FILES)
    await gts_clock.sleep(60)
    with pytest.raises(WrongState, match="succeeded already"):
        await run.stop()
    assert gts_clock.now() < 70


async def test_a_stop_whose_answer_was_lost_took_all_the_same(task, gts_trainer, gts_faults):
    gts_trainer.plan(Script(training=1000.0))
    run = await task.train(**FILES)
    async for change in run.watch():
        if change.status is TaskStatus.TRAINING:
            break
    gts_faults.append(faults.cut("stop_train"))
    await run.stop()
    with pytest.raises(WorkStopped):
        await run


async def test_a_stop_of_a_training_whose_process_is_gone_says_so(task, gts_trainer):
    gts_trainer.plan(Script(outcome=Stage.DIED))
    run = await task.train(**FILES)
    with pytest.raises(WorkStalled):
        await run.wait(stalled_after=60)
    with pytest.raises(ServerFailed):
        await run.stop()


async def test_a_dead_training_is_trained_again_once_the_engine_has_said_so(task, gts_trainer):
    gts_trainer.plan(Script(outcome=Stage.DIED))
    run = await task.train(**FILES)
    with pytest.raises(WorkStalled):
        await run.wait(stalled_after=60)
    with pytest.raises(WrongState):
        await task.train(**FILES)
    with pytest.raises(ServerFailed):
        await run.stop()
    assert (await (await task.train(**FILES))).status is TaskStatus.SUCCEEDED


async def trained(task, gts_trainer, gts_clock):
    """Start a long training and wait until its process is up."""
    gts_trainer.plan(Script(training=3600))
    run = await task.train(**FILES)
    while gts_trainer.state(max(gts_trainer.orders), gts_clock.wall().timestamp()).stage is Stage.STARTING:
        await gts_clock.sleep(0.2)
    return run


async def test_a_stop_counts_although_the_run_before_was_stopped_too(task, gts_trainer, gts_clock):
    for _ in range(2):
        run = await trained(task, gts_trainer, gts_clock)
        await run.stop()
    with pytest.raises(WorkStopped):
        await run.wait(deadline=30)
    await task.train(**FILES)


async def test_a_stop_from_elsewhere_is_not_fooled_by_the_stop_before(gts_session, task, gts_trainer, gts_clock):
    run = await trained(task, gts_trainer, gts_clock)
    await run.stop()
    gts_trainer.plan(Script(training=3600))
    await task.train(**FILES)
    gts_session._engine.runs.clear()  # as in another process
    await task.stop()
    await gts_clock.sleep(30)
    assert (await task.status()).status is TaskStatus.STOPPED


async def test_a_run_that_only_status_calls_saw_end_does_not_bar_the_next(task, gts_trainer, gts_clock):
    await task.train(**FILES)
    await gts_clock.sleep(20)
    await task.train(**FILES)
    assert len(gts_trainer.orders) == 2


async def test_statuses_of_finished_bagualu_tasks_leave_the_retry_budget_alone(gts_session, task):
    await (await task.train(**FILES))
    before = gts_session._engine.exchange._budget.left
    for _ in range(20):
        with pytest.raises(ServerFailed):
            await task.status()
    assert gts_session._engine.exchange._budget.left == before


async def test_a_status_that_was_caught_half_written_is_looked_at_again(task, gts_faults):
    gts_faults.append(faults.status(500, path="check_task_status"))
    assert (await task.status()).status is TaskStatus.INITIALIZED


async def test_a_second_training_is_refused_while_one_goes_on(task, gts_trainer):
    gts_trainer.plan(Script(training=1000.0))
    run = await task.train(**FILES)
    for _ in range(2):
        with pytest.raises(WrongState, match="going on"):
            await task.train(**FILES)
        async for change in run.watch():
            if change.status is TaskStatus.TRAINING:
                break
    assert len(gts_trainer.orders) == 1


async def test_leaving_a_wait_stops_the_training_only_when_asked(task, gts_trainer):
    gts_trainer.plan(Script(training=1000.0))
    run = await task.train(**FILES)
    with pytest.raises(DeadlineExceeded):
        await run.wait(deadline=20)
    assert (await task.status()).status is TaskStatus.TRAINING
    with pytest.raises(DeadlineExceeded):
        await run.wait(deadline=20, on_exit="stop")
    assert (await task.status()).status is TaskStatus.STOPPED


async def test_a_cancelled_wait_stops_the_training_when_asked(task, gts_trainer):
    gts_trainer.plan(Script(training=1000.0))
    run = await task.train(**FILES)
    waiting = asyncio.create_task(run.wait(on_exit="stop"))
    async for change in run.watch():
        if change.status is TaskStatus.TRAINING:
            break
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await task.status()).status is TaskStatus.STOPPED


async def test_a_task_that_is_deleted_in_training_is_lost(task, gts_trainer):
    gts_trainer.plan(Script(training=1000.0))
    run = await task.train(**FILES)
    watch = run.watch()
    await anext(watch)
    await task.delete()
    with pytest.raises(WorkLost):
        await watch.settled()


async def test_deleting_what_is_gone_is_fine(task):
    await task.delete()
    await task.delete()
    with pytest.raises(NotFound):
        await task.status()


async def test_a_run_is_resumed_from_its_token_with_its_fence(gts_session, task, gts_clock):
    await (await task.train(**FILES))
    run = await task.train(**FILES)
    token = run.token()
    assert "http" not in token
    again = gts_session.resume(token)
    assert again.id == task.id
    assert (await again).status is TaskStatus.SUCCEEDED
    assert gts_clock.now() > 8


@pytest.mark.parametrize("token", ["", "{}", '{"kind":"cat"}', "null", '{"kind":"run","task_id":"../x"}'])
def test_a_token_that_is_none_is_refused(gts_session, token):
    with pytest.raises(InvalidArgument):
        gts_session.resume(token)


@pytest.mark.parametrize("fault", [faults.cut, faults.silent])
async def test_a_create_whose_answer_was_lost_is_settled_by_its_name(gts_session, gts_faults, fault):
    gts_faults.append(fault("create_task"))
    task = await gts_session.create_task("lost", task_type="nli", engine_type="qiankunding")
    assert (await task.status()).status is TaskStatus.INITIALIZED


async def test_a_name_that_was_taken_before_is_said_to_exist_even_after_a_lost_answer(gts_session, gts_faults, task):
    await (await task.train(**FILES)).stop()
    gts_faults.append(faults.cut("create_task"))
    with pytest.raises(AlreadyExists):
        await gts_session.create_task(task.id, task_type="classification", engine_type="bagualu")
    same = await gts_session.create_task(task.id, task_type="classification", engine_type="bagualu", exist_ok=True)
    assert same == task


async def test_a_name_that_a_finished_bagualu_task_has_is_said_to_exist_after_a_lost_answer(
    gts_session, gts_faults, task
):
    await (await task.train(**FILES))
    gts_faults.append(faults.cut("create_task"))
    with pytest.raises(AlreadyExists):
        await gts_session.create_task(task.id, task_type="classification", engine_type="bagualu")


async def test_a_stop_waits_for_a_training_that_somebody_else_has_just_started(gts_session, task, gts_trainer):
    await (await task.train(**FILES))
    ended = gts_session._engine.runs[task.id]
    gts_trainer.plan(Script(startup=8.0, training=3600))
    run = await task.train(**FILES)
    gts_session._engine.runs[task.id] = ended  # as if another process had started it
    await task.stop()
    with pytest.raises(WorkStopped):
        await run


async def test_a_create_that_cannot_be_settled_is_unknown(gts_session, gts_faults):
    gts_faults += [faults.cut("create_task"), faults.refused(times=100)]
    with pytest.raises(OutcomeUnknown) as caught:
        await gts_session.create_task("lost", task_type="nli", engine_type="qiankunding")
    assert caught.value.intent == "lost"
    assert isinstance(caught.value.__cause__, NotSent)


async def test_a_train_whose_answer_was_lost_is_unknown_and_its_run_can_be_watched(gts_session, gts_faults, task):
    gts_faults.append(faults.cut("/api/train"))
    with pytest.raises(OutcomeUnknown) as caught:
        await task.train(**FILES)
    assert (await gts_session.resume(caught.value.intent)).status is TaskStatus.SUCCEEDED


async def test_one_bad_look_does_not_end_a_watch(task, gts_faults):
    run = await task.train(**FILES)
    path = "check_task_status"
    gts_faults += [faults.status(500, path=path), faults.cut(path, times=3), faults.status(502, b"<html>", path=path)]
    assert (await run).status is TaskStatus.SUCCEEDED
    assert not [fault for fault in gts_faults if fault.times]


async def test_an_engine_that_is_gone_for_good_ends_the_watch(task, gts_faults, gts_clock):
    run = await task.train(**FILES)
    gts_faults.append(faults.refused(times=100_000))
    with pytest.raises(WorkLost, match="no usable look"):
        await run
    assert 300 <= gts_clock.now() < 330


async def test_tasks_without_a_name_get_different_ones(gts_session):
    made = [await gts_session.create_task(task_type="ie", engine_type="bagualu") for _ in range(3)]
    assert sorted(task.id for task in made) == [task.id for task in await gts_session.list_tasks()]
    assert len({task.id for task in made}) == 3


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "../x"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a;rm"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": 7}, "name"),
        ({"task_type": "poetry"}, "task_type"),
        ({"engine_type": "diesel"}, "engine_type"),
        ({"task_type": "ie"}, "engine_type"),
    ],
)
async def test_a_task_that_cannot_train_is_refused_before_any_io(gts_session, gts_faults, arguments, argument):
    gts_faults.append(faults.refused(times=100))
    arguments = {"name": "n", "task_type": "nli", "engine_type": "qiankunding", **arguments}
    with pytest.raises(InvalidArgument) as caught:
        await gts_session.create_task(arguments.pop("name"), **arguments)
    assert caught.value.argument == argument
    assert gts_faults[0].times == 100


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"train_data": "a b.json"}, "train_data"),
        ({"val_data": ""}, "val_data"),
        ({"test_data": "x;id"}, "test_data"),
        ({"train_mode": "fast"}, "train_mode"),
        ({"train_mode": "advanced"}, "unlabeled_data"),
        ({"max_len": 0}, "max_len"),
        ({"max_num_epoch": 1, "min_num_epoch": 2}, "min_num_epoch"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"gpuid": 1.5}, "gpuid"),
    ],
)
async def test_options_that_cannot_train_are_refused_by_name(task, gts_trainer, change, argument):
    with pytest.raises(InvalidArgument) as caught:
        await task.train(**{**FILES, **change})
    assert caught.value.argument == argument
    assert not gts_trainer.orders


async def test_a_file_with_errors_is_not_uploaded_and_all_of_them_are_listed(gts_session, gts_faults, tmp_path):
    task = await gts_session.create_task("n", task_type="classification", engine_type="bagualu")
    bad = tmp_path / "train.json"
    bad.write_text('{"content": "x", "label": "a"}\n\nnot json\n{"content": null, "label": "a", "id": 3}\n')
    gts_faults.append(faults.refused("upfiles", times=100))
    with pytest.raises(InvalidData) as caught:
        await task.upload(bad)
    assert {problem.line for problem in caught.value.problems} >= {1, 2, 3, 4}
    assert gts_faults[0].times == 100


async def test_an_upload_that_the_engine_cannot_store_is_rejected(task, data, gts_faults):
    gts_faults.append(faults.status(500, b"Internal Server Error", "upfiles"))
    with pytest.raises(UploadRejected, match="could not store") as caught:
        await task.upload(*data)
    assert isinstance(caught.value.__cause__, ServerFailed)


async def test_an_upload_tells_what_was_sent_and_at_the_end_that_it_arrived(task, data):
    told = []
    await task.upload(*data, progress=told.append)
    assert [state.is_acknowledged for state in told] == [False] * (len(told) - 1) + [True]
    assert told[-1].done == told[-1].total == told[-2].done
    assert {state.what for state in told[:-1]} <= {path.name for path in data}
    assert told[-1].what == f"{len(data)} files"
    await task.upload(data[0], progress=told.append)
    assert told[-1].what == data[0].name


async def test_a_missing_file_is_named(task, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        await task.upload(tmp_path / "nowhere.json")
    assert caught.value.path == str(tmp_path / "nowhere.json")


async def test_a_closed_session_says_so(gts_session, task):
    run = await task.train(**FILES)
    waiting = asyncio.create_task(run.wait())
    await asyncio.sleep(0)
    await gts_session.aclose()
    await gts_session.aclose()
    with pytest.raises(MisuseError, match="closed"):
        await waiting
    with pytest.raises(MisuseError, match="closed"):
        await task.status()


def test_a_session_of_another_loop_says_so(gts_session):
    asyncio.run(gts_session.list_tasks())
    with pytest.raises(MisuseError, match="another event loop"):
        asyncio.run(gts_session.list_tasks())


async def test_a_session_without_a_url_says_which_setting_is_missing(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GTS_ASYNC_ENGINE", raising=False)
    async with AsyncSession() as session:
        with pytest.raises(InvalidArgument, match="GTS_ASYNC_ENGINE"):
            await session.list_tasks()


async def test_watches_of_one_run_do_not_disturb_each_other(task):
    run = await task.train(**FILES)
    histories = await asyncio.gather(*[_collected(run.watch()) for _ in range(3)])
    assert histories == [["INITIALIZED", "TRAINING", "SUCCEEDED"]] * 3


async def _collected(watch):
    return [change.status.name async for change in watch]


async def test_a_watch_of_a_run_that_another_has_seen_end_does_not_follow_the_next_run(task, gts_trainer):
    run = await task.train(**FILES)
    slow = run.watch()
    assert (await anext(slow)).status is TaskStatus.INITIALIZED
    first = await run
    gts_trainer.plan(Script(training=60, outcome=Stage.FAILED))
    second = await task.train(**FILES)
    async for change in second.watch():
        if change.status is TaskStatus.TRAINING:
            break
    assert await slow.settled() == first


async def test_two_tasks_may_not_step_one_watch(task):
    watch = (await task.train(**FILES)).watch()
    assert (await anext(watch)).status is TaskStatus.INITIALIZED
    first = asyncio.create_task(anext(watch))
    await asyncio.sleep(0)
    with pytest.raises(MisuseError):
        await anext(watch)
    assert (await first).status is TaskStatus.TRAINING


async def test_all_runs_are_waited_for_in_their_order_and_failures_are_values(gts_session, gts_trainer, data):
    runs = []
    for number, outcome in enumerate([Stage.SUCCEEDED, Stage.FAILED, Stage.DIED]):
        task = await gts_session.create_task(f"t{number}", task_type="classification", engine_type="bagualu")
        await task.upload(*data)
        gts_trainer.plan(Script(training=5.0 - number, outcome=outcome))
        runs.append(await task.train(**FILES))
    good, failed, dead = await gts_session.wait_all(runs, deadline=200)
    assert (good.status, failed.status) == (TaskStatus.SUCCEEDED, TaskStatus.FAILED)
    assert isinstance(dead, DeadlineExceeded)
    async with gts_session.as_finished(runs[:2]) as outcomes:
        assert {outcome.item.id async for outcome in outcomes} == {"t0", "t1"}
