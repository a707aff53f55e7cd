"""What is told of progress by everything that takes ``progress=``, and what becomes of the work when it raises."""

import asyncio
import itertools
import json

import attrs
import pytest

from gts_async import InferencePool, JobSpec, Progress, WorkFailed, WrongType
from gts_async._progress import INTERVAL, Tally, tally, told
from gts_async.emulator.backends import Stage
from gts_async.emulator.scripted import Script
from gts_async.testing import faults

FILES = {"train_data": "d.json", "val_data": "d.json", "test_data": "d.json", "label_data": "l.json"}
SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="python train.py")


class Enough(Exception):
    pass


class Listener:
    """Keeps what it is told; raises Enough when `when` says so."""

    def __init__(self, when=lambda progress: False):
        self.heard = []
        self.when = when

    def __call__(self, progress):
        self.heard.append(progress)
        if self.when(progress):
            raise Enough

    @property
    def last(self):
        return self.heard[-1]

    def check(self, unit):
        """All of one call, counted upwards, acknowledged once, at the end."""
        assert {progress.unit for progress in self.heard} == {unit}
        assert len({progress.number for progress in self.heard}) == 1
        assert self.heard[0].number > 0
        assert [p.is_acknowledged for p in self.heard] == [False] * (len(self.heard) - 1) + [True]
        done = [progress.done for progress in self.heard]
        assert done == sorted(done)


@pytest.fixture
def data(tmp_path):
    rows = [{"id": i, "content": f"text {i}", "label": "ab"[i % 2]} for i in range(40)]
    (tmp_path / "d.json").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "l.json").write_text(json.dumps({"labels": ["a", "b"]}))
    return [tmp_path / "d.json", tmp_path / "l.json"]


@pytest.fixture
async def task(gts_session, data):
    task = await gts_session.create_task("t", task_type="classification", engine_type="qiankunding")
    await task.upload(*data)
    return task


@pytest.fixture
async def trained(task):
    await (await task.train(**FILES))
    return task


@pytest.fixture
def seen(gts_session):
    """Give the paths that were asked so far."""
    return lambda: [request.path for request in gts_session._transport.seen]


@pytest.fixture
def no_leaks():
    """Check that no task is left that was not there before."""

    async def check(before):
        for _ in range(10):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before

    return check


def samples(count):
    return [{"content": str(n)} for n in range(count)]


# What is no callable


class Async:
    async def __call__(self, progress): ...


async def async_function(progress): ...


@pytest.mark.parametrize("bad", [7, "print", [], async_function, Async()])
async def test_what_cannot_be_told_is_refused_before_any_traffic(trained, data, gts_session, seen, bad):
    run, job = await trained.train(**FILES), gts_session.job("id")
    await run
    async with trained.serve() as inference:
        before = seen()
        for refused in (
            lambda: inference.stream([{}], progress=bad),
            lambda: gts_session.submit_many([SPEC], progress=bad),
        ):
            with pytest.raises(WrongType, match="progress: must"):
                refused()
        for call in (
            lambda: trained.upload(*data, progress=bad),
            lambda: job.download("model", progress=bad),
            lambda: inference.predict([{"content": "x"}], progress=bad),
            lambda: gts_session.wait_all([run, job], progress=bad),
        ):
            with pytest.raises(WrongType, match="progress: must"):
                await call()
        for handle in (trained, run, job):
            with pytest.raises(WrongType, match="progress: must"):
                handle.watch(progress=bad)
            with pytest.raises(WrongType, match="progress: must"):
                await handle.wait(progress=bad)
        assert seen() == before


# Transfers


async def test_an_upload_tells_of_its_bytes_and_then_that_they_were_taken(task, data):
    listener = Listener()
    await task.upload(*data, progress=listener)
    listener.check("bytes")
    assert listener.last.fraction == 1.0


async def test_two_calls_have_numbers_of_their_own(task, data):
    listener = Listener()
    await task.upload(data[0], progress=listener)
    await task.upload(data[0], progress=listener)
    assert len({progress.number for progress in listener.heard}) == 2


async def test_what_is_told_of_an_upload_may_end_it(task, data, no_leaks):
    before = asyncio.all_tasks()
    with pytest.raises(Enough):
        await task.upload(*data, progress=Listener(lambda progress: True))
    await no_leaks(before)


async def test_a_download_tells_of_what_is_fetched_and_of_what_is_unpacked(gts_session, tmp_path):
    job = await gts_session.submit(SPEC)
    await job
    listener = Listener()
    await job.download(tmp_path / "model", progress=listener)
    assert [p.fraction for p in listener.heard if p.is_acknowledged] == [1.0, 1.0]
    assert {(p.unit, p.number) for p in listener.heard} == {("bytes", listener.last.number)}


async def test_what_is_told_of_a_download_may_end_it_and_the_next_one_goes_on(gts_session, tmp_path, no_leaks):
    job = await gts_session.submit(SPEC)
    await job
    before = asyncio.all_tasks()
    with pytest.raises(Enough):
        await job.download(tmp_path / "model", progress=Listener(lambda progress: True))
    await no_leaks(before)
    assert await job.download(tmp_path / "model")


# Watches


@pytest.mark.parametrize("way", ["watch", "wait"])
async def test_a_watch_tells_of_every_look_and_of_the_end(task, gts_trainer, seen, way):
    gts_trainer.plan(Script(training=30.0))
    run = await task.train(**FILES)
    looks = seen().count("/api/check_task_status")
    listener = Listener()
    if way == "wait":
        await run.wait(progress=listener)
    else:
        async for _ in run.watch(progress=listener):
            pass
    listener.check("seconds")
    looks = seen().count("/api/check_task_status") - looks
    # The last look is told of as the end.
    assert looks > 10
    assert len(listener.heard) == looks
    assert [p.what for p in listener.heard if p.total is None] == [p.what for p in listener.heard[:-1]]
    assert (listener.heard[0].what, listener.last.what) == ("t initialized", "t succeeded")
    assert 30 <= listener.last.done < 60
    assert listener.last.fraction == 1.0


async def test_a_watch_tells_what_is_expected_once_such_work_was_seen(task, gts_trainer):
    gts_trainer.plan(Script(training=30.0), Script(training=30.0))
    first, second = Listener(), Listener()
    await (await task.train(**FILES)).wait(progress=first)
    await (await task.train(**FILES)).wait(progress=second)
    # Once it is plain that it has begun.
    expected = [p.total for p in second.heard if p.what == "t training"]
    assert expected
    assert all(abs(total - second.last.done) < 10 for total in expected)
    assert all(0 <= p.fraction <= 1 for p in second.heard if p.total is not None)


async def test_a_look_that_fails_is_told_of_like_any_other(task, gts_trainer, gts_faults):
    gts_trainer.plan(Script(training=30.0))
    run, listener = await task.train(**FILES), Listener()
    gts_faults.append(faults.cut("/check_task_status", times=3))
    await run.wait(progress=listener)
    listener.check("seconds")
    # Nothing was seen yet.
    assert [p.what for p in listener.heard[:4]] == ["t", "t", "t", "t initialized"]


async def test_two_watches_of_one_run_hear_of_the_looks_that_they_share(task, gts_trainer, seen):
    gts_trainer.plan(Script(training=30.0))
    run = await task.train(**FILES)
    looks = seen().count("/api/check_task_status")
    one, other = Listener(), Listener()
    await asyncio.gather(run.wait(progress=one), run.wait(progress=other), run.wait())
    looks = seen().count("/api/check_task_status") - looks
    assert abs(len(one.heard) - looks) <= 1
    assert abs(len(other.heard) - looks) <= 1
    one.check("seconds")
    other.check("seconds")
    assert one.last.number != other.last.number


async def test_work_that_failed_is_told_as_that_and_never_as_a_whole(task, gts_trainer):
    gts_trainer.plan(Script(training=5.0, outcome=Stage.FAILED))
    run, listener = await task.train(**FILES), Listener()
    with pytest.raises(WorkFailed):
        await run.wait(progress=listener)
    assert (listener.last.what, listener.last.is_acknowledged, listener.last.total) == ("t failed", True, None)


async def test_a_settled_run_tells_its_end_alone(trained, seen):
    run = await trained.train(**FILES)
    await run
    before, listener = seen(), Listener()
    await run.wait(progress=listener)
    assert seen() == before
    assert [(p.what, p.is_acknowledged) for p in listener.heard] == [("t succeeded", True)]


async def test_a_job_is_told_of_like_a_run(gts_session):
    job, listener = await gts_session.submit(SPEC), Listener()
    await job.wait(progress=listener)
    listener.check("seconds")
    assert listener.last.what == f"{job.id} succeeded"


@pytest.mark.parametrize("at_once", [True, False])
async def test_what_is_told_of_a_watch_ends_it_and_not_the_work(task, gts_trainer, no_leaks, at_once):
    gts_trainer.plan(Script(training=30.0))
    run = await task.train(**FILES)
    before = asyncio.all_tasks()
    other = asyncio.ensure_future(run.wait())
    watch = run.watch(progress=Listener(lambda p: at_once or p.what == "t training"))
    with pytest.raises(Enough):
        async for _ in watch:
            pass
    assert [change async for change in watch] == []
    assert (await other).status.name == "SUCCEEDED"
    await no_leaks(before)
    assert task._engine.hub._alarm is None


async def test_what_is_told_at_the_end_of_a_watch_may_raise(task):
    run = await task.train(**FILES)
    with pytest.raises(Enough):
        await run.wait(progress=Listener(lambda progress: progress.is_acknowledged))
    assert (await run).status.name == "SUCCEEDED"


# Samples


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize("asked", ["predict", "stream", "pool"])
async def test_predictions_tell_of_the_samples_that_are_done(trained, asked, kind):
    listener = Listener()
    rows = kind(samples(300))
    if asked == "pool":
        async with InferencePool([trained.serve()]) as pool:
            await pool.predict(rows, progress=listener)
    else:
        async with trained.serve() as inference:
            if asked == "predict":
                await inference.predict(rows, progress=listener)
            else:
                async with inference.stream(rows, progress=listener) as outcomes:
                    assert len([outcome async for outcome in outcomes]) == 300
    listener.check("samples")
    first = None if (asked, kind) == ("stream", iter) else 300
    assert listener.heard[0] == Progress("t", 0, first, unit="samples")
    assert listener.last == Progress("t", 300, 300, is_acknowledged=True, unit="samples")


async def test_no_samples_are_told_as_all_done(trained):
    listener = Listener()
    async with trained.serve() as inference:
        assert await inference.predict([], progress=listener) == []
    assert [(p.done, p.fraction, p.is_acknowledged) for p in listener.heard] == [(0, 1.0, True)]


@pytest.mark.parametrize("when", ["at once", "later", "at the end"])
@pytest.mark.parametrize("asked", ["predict", "stream", "pool"])
async def test_what_is_told_of_samples_ends_the_asking(trained, gts_clock, no_leaks, asked, when):
    ends = {
        "at once": lambda p: True,
        "later": lambda p: p.done >= 100,
        "at the end": lambda p: p.is_acknowledged,
    }
    listener = Listener(ends[when])
    session = trained.serve(max_batch=8)
    async with InferencePool([session]) if asked == "pool" else session as inference:
        before = asyncio.all_tasks()
        given = []
        with pytest.raises(Enough):
            if asked == "predict":
                await inference.predict(samples(1000), progress=listener)
            else:
                async with inference.stream(samples(1000), progress=listener) as outcomes:
                    async for outcome in outcomes:
                        given.append(outcome)
                        await gts_clock.sleep(INTERVAL)
        await no_leaks(before)
        if asked != "predict" and when == "later":
            # What was in flight is handed out, in order, and nothing more was begun.
            assert 100 <= len(given) < 1000
            assert [int(outcome.item["content"]) for outcome in given] == list(range(len(given)))
        assert len(await inference.predict(samples(10))) == 10


async def test_a_stream_that_is_left_early_is_never_told_as_done(trained):
    listener = Listener()
    async with trained.serve() as inference, inference.stream(samples(100), progress=listener) as outcomes:
        async for _ in outcomes:
            break
    assert not any(progress.is_acknowledged for progress in listener.heard)


# Jobs


async def test_a_batch_tells_of_the_jobs_that_were_handed_out(gts_session):
    listener = Listener()
    specs = [attrs.evolve(SPEC, run_command=f"python {n}.py") for n in range(5)]
    async with gts_session.submit_many(specs, progress=listener) as outcomes:
        jobs = [outcome.unwrap() async for outcome in outcomes]
    listener.check("jobs")
    assert listener.last == Progress("submitted", 5, 5, is_acknowledged=True, unit="jobs")
    waiting = Listener()
    looks = await gts_session.wait_all([*jobs, jobs[0]], progress=waiting)
    assert len(looks) == 6
    waiting.check("jobs")
    assert waiting.last == Progress("settled", 6, 6, is_acknowledged=True, unit="jobs")


async def test_no_job_is_lost_when_what_is_told_of_a_batch_raises(gts_session, gts_clock, no_leaks):
    specs = [attrs.evolve(SPEC, run_command=f"python {n}.py") for n in range(50)]
    before, given = asyncio.all_tasks(), []
    with pytest.raises(Enough):
        async with gts_session.submit_many(specs, max_at_once=4, progress=Listener(lambda p: p.done > 0)) as outcomes:
            async for outcome in outcomes:
                given.append(outcome.unwrap())
                await gts_clock.sleep(INTERVAL)
    listed = await gts_session.list_jobs()
    assert {job.id for job in given} == {listing.id for listing in listed}
    assert 0 < len(given) < 50
    await no_leaks(before)


async def test_what_is_told_of_many_waits_ends_them(gts_session, no_leaks):
    jobs = [await gts_session.submit(SPEC) for _ in range(3)]
    before = asyncio.all_tasks()
    with pytest.raises(Enough):
        await gts_session.wait_all(jobs, progress=Listener(lambda p: p.is_acknowledged))
    with pytest.raises(Enough):
        await gts_session.wait_all(jobs, progress=Listener(lambda p: True))
    await no_leaks(before)


# How often


def test_many_things_are_told_of_twenty_times_a_second_and_the_last_one_always():
    listener = Listener()
    now = 0.0
    count = Tally(listener, "x", "samples", None, lambda: now)
    count.begin()
    for _ in range(10_000):
        now += 0.0003
        count.add()
    count.end()
    count.end()
    assert 55 <= len(listener.heard) <= 62
    assert listener.last == Progress("x", 10_000, 10_000, is_acknowledged=True, unit="samples")
    assert sum(progress.is_acknowledged for progress in listener.heard) == 1


class Shy:
    def __len__(self):
        raise TypeError("this data set has no length")


@pytest.mark.parametrize(("items", "total"), [([1, 2], 2), (iter([1, 2]), None), (Shy(), None), (range(7), 7)])
def test_the_total_is_told_where_the_input_knows_its_length(items, total):
    listener = Listener()
    tally(listener, "x", "samples", items, lambda: 0.0).begin()
    assert listener.last.total == total


def test_a_length_that_was_too_small_is_not_the_total():
    listener, seconds = Listener(), itertools.count()
    count = Tally(listener, "x", "samples", 1, lambda: next(seconds))
    count.add()
    count.add()
    count.end()
    assert [(p.done, p.total) for p in listener.heard] == [(1, 1), (2, None), (2, 2)]


def test_nobody_is_told_of_nothing():
    assert told(None) is None
    assert tally(None, "x", "jobs", [], lambda: 0.0) is None
