"""Jobs through a whole session, against the pure cloud on the fake clock."""

import asyncio

import attrs
import pytest

from gts_async import (
    AsyncSession,
    DeadlineExceeded,
    FileError,
    InvalidArgument,
    JobSpec,
    JobStatus,
    NotFound,
    NotSupported,
    OutcomeUnknown,
    Unauthorized,
    WorkFailed,
    WorkLost,
    WorkStopped,
    WrongState,
    WrongType,
)
from gts_async.callbacks import receiver
from gts_async.emulator.backends import JobStage
from gts_async.emulator.cloud import Cloud
from gts_async.emulator.cloud_quirks import CloudQuirks, Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.testing import EmulatorTransport, faults

GPU = "NVIDIA-GeForce-RTX-3090"
SPEC = JobSpec(gpu_type=GPU, image_path="registry.test/image", run_command="python train.py")
GENERATIONS = list(Generation)


class Stage:
    """A cloud of some generation with its runner, and a session that talks to it."""

    def __init__(self, clock, generation=Generation.JAVA, quirks=None, **runner):
        self.store = ObjectStore(b"key", "https://store.test")
        self.runner = ScriptedRunner(**runner)
        self.quirks = quirks or CloudQuirks()
        self.cloud = Cloud(self.runner, self.store, token="t", generation=generation, quirks=self.quirks)
        servers = {"https://cloud.test": self.cloud, "https://store.test": self.store}
        self.transport = EmulatorTransport(servers, lambda: clock.wall().timestamp())
        dialect = "2024-04" if generation is Generation.HEAD else "2023-12"
        self.session = AsyncSession(
            cloud="https://cloud.test/api",
            token="t",
            dialect=dialect,
            transport=self.transport,
            clock=clock,
            chance=lambda: 0.5,
        )


def submits(stage):
    return [
        request for request in stage.transport.seen if request.method == "POST" and request.path.endswith("/userJob")
    ]


def statuses(history):
    return [change.status for change in history]


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_a_job_is_submitted_and_watched_to_its_success(gts_clock, generation):
    session = Stage(gts_clock, generation).session
    job = await session.submit(SPEC)
    changes = [change async for change in job.watch(deadline=3600)]
    assert changes[-1].is_final
    assert statuses(changes)[-1] is JobStatus.SUCCEEDED
    assert (changes[-1].look.url is not None) is (generation is not Generation.HEAD)
    assert (await job).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_after_our_own_stop_a_job_is_settled_whatever_the_server_says(gts_clock, generation):
    session = Stage(gts_clock, generation).session
    job = await session.submit(SPEC)
    waiting = asyncio.create_task(job.wait())
    await asyncio.sleep(0)
    await job.stop()
    with pytest.raises(WorkStopped):
        await waiting
    assert (await job.status()).status is JobStatus.STOPPED
    await job.stop()


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_a_failed_job_raises_with_all_that_is_known(gts_clock, generation):
    session = Stage(gts_clock, generation, outcome=JobStage.FAILED).session
    job = await session.submit(SPEC)
    with pytest.raises(WorkFailed) as caught:
        await job
    assert caught.value.handle == job
    assert caught.value.last_look.status is JobStatus.FAILED
    with pytest.raises(WrongState, match="failed"):
        await job.stop()


async def test_working_for_ever_is_bounded_by_the_deadline_and_the_job_goes_on(gts_clock):
    stage = Stage(gts_clock, outcome=JobStage.RUNNING)
    job = await stage.session.submit(SPEC)
    with pytest.raises(DeadlineExceeded) as caught:
        await job.wait(deadline=3600)
    assert gts_clock.now() == pytest.approx(3600, abs=1)
    assert caught.value.handle.token() == job.token()
    assert stage.runner.killed == []


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_a_job_that_never_was_is_not_found(gts_clock, generation):
    session = Stage(gts_clock, generation).session
    with pytest.raises(NotFound):
        await session.job("ai-nobody").wait()
    with pytest.raises(NotFound):
        await session.job("ai-nobody").status()


async def test_a_job_that_vanishes_is_lost_after_a_grace(gts_clock):
    stage = Stage(gts_clock, Generation.GO)
    job = await stage.session.submit(SPEC)
    watch = job.watch()
    assert (await anext(watch)).status is JobStatus.WORKING
    other = Stage(gts_clock, Generation.GO)
    stage.transport._servers["https://cloud.test"] = other.cloud
    with pytest.raises(WorkLost):
        await anext(watch)


async def test_a_model_is_downloaded_and_unpacked(gts_clock, tmp_path):
    stage = Stage(gts_clock)
    job = await stage.session.submit(SPEC)
    with pytest.raises(WrongState, match="no model"):
        await job.download(tmp_path / "early")
    await job
    paths = await job.download(tmp_path / "model")
    assert [path.read_text() for path in paths] == [f"the model of {job.id}\n"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["model.txt"]
    (packed,) = await job.download(tmp_path / "packed", extract=False)
    assert packed.read_bytes()[:2] == b"PK"
    fetched = [request for request in stage.transport.seen if request.path.endswith("data.zip")]
    assert fetched
    assert not [request for request in fetched if request.header("authorization")]


@pytest.mark.parametrize("length", [190, 200, 220, 234, 235, 255])
async def test_a_directory_may_have_as_long_a_name_as_the_system_lets_it(gts_clock, tmp_path, length):
    job = await Stage(gts_clock).session.submit(SPEC)
    await job
    for _ in range(2):
        (path,) = await job.download(tmp_path / ("x" * length))
        assert path.read_text() == f"the model of {job.id}\n"
        assert list(tmp_path.rglob("*")) == [path.parent, path]


async def test_a_directory_that_cannot_be_made_is_named(gts_clock, tmp_path):
    job = await Stage(gts_clock).session.submit(SPEC)
    await job
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError) as caught:
        await job.download(tmp_path / "file" / "model")
    assert caught.value.path == str(tmp_path / "file" / "model")


async def test_the_newer_dialect_hands_out_no_url(gts_clock, tmp_path):
    session = Stage(gts_clock, Generation.HEAD).session
    job = await session.submit(SPEC)
    await job
    with pytest.raises(NotSupported):
        await job.download(tmp_path)


async def test_jobs_and_gpus_are_listed(gts_clock):
    for generation in GENERATIONS:
        session = Stage(gts_clock, generation).session
        first, second = await session.submit(SPEC), await session.submit(SPEC)
        assert [listing.id for listing in await session.list_jobs()] == [second.id, first.id]
        assert GPU in [gpu.name for gpu in await session.gpu_types()]


@pytest.mark.parametrize("fault", [faults.cut("userJob"), faults.silent("userJob"), faults.status(503, path="userJob")])
async def test_a_submit_whose_answer_was_lost_is_never_repeated(gts_clock, fault):
    stage = Stage(gts_clock)
    stage.transport.faults.append(attrs.evolve(fault, times=1, is_after=False))
    with pytest.raises(OutcomeUnknown) as caught:
        await stage.session.submit(SPEC)
    assert caught.value.intent.spec.image_path == SPEC.image_path
    assert submits(stage) == []


async def test_a_submit_that_surely_did_not_arrive_is_repeated(gts_clock):
    stage = Stage(gts_clock)
    stage.transport.faults.append(faults.refused("userJob", times=2))
    await stage.session.submit(SPEC)
    assert len([request for request in stage.transport.seen if request.path.endswith("/userJob")]) == 1


@pytest.mark.parametrize("turns", range(0, 12))
async def test_a_cancelled_submit_is_finished_and_its_job_told_in_the_log(gts_clock, caplog, turns):
    stage = Stage(gts_clock)
    await stage.session.ping()
    submitting = asyncio.create_task(stage.session.submit(SPEC))
    for _ in range(turns):
        await asyncio.sleep(0)
    submitting.cancel()
    (result,) = await asyncio.gather(submitting, return_exceptions=True)
    taken = [listing.id for listing in await stage.session.list_jobs()]
    if isinstance(result, asyncio.CancelledError):
        assert all(job_id in caplog.text for job_id in taken)
    else:
        assert [result.id] == taken


async def test_a_wrong_token_ends_a_batch_at_once(gts_clock):
    stage = Stage(gts_clock, Generation.GO)
    session = AsyncSession(cloud="https://cloud.test/api", token="wrong", transport=stage.transport, clock=gts_clock)
    with pytest.raises(Unauthorized):
        async with session.submit_many([SPEC] * 100, max_at_once=2) as outcomes:
            async for _ in outcomes:
                raise AssertionError("nothing can have come of it")
    assert len(stage.transport.seen) <= 2


async def test_many_jobs_are_submitted_and_one_bad_spec_fails_alone(gts_clock):
    stage = Stage(gts_clock)
    specs = [SPEC, "not a spec", *[SPEC] * 20]
    async with stage.session.submit_many(iter(specs), max_at_once=4) as outcomes:
        results = [outcome async for outcome in outcomes]
    assert len(results) == 22
    (bad,) = [outcome for outcome in results if not outcome.is_ok]
    assert isinstance(bad.error, WrongType)
    assert len({outcome.value.id for outcome in results if outcome.is_ok}) == 21


async def test_submits_are_spaced_as_asked(gts_clock):
    stage = Stage(gts_clock)
    async with stage.session.submit_many([SPEC] * 11, max_per_second=2) as outcomes:
        assert len([outcome async for outcome in outcomes]) == 11
    assert gts_clock.now() == pytest.approx(5.0)


async def test_what_was_never_sent_is_tried_again_by_the_next_run(gts_clock, tmp_path):
    stage = Stage(gts_clock)
    for token in ("not a\ntoken", "t"):

        async def ask(token=token):
            return token

        session = AsyncSession(
            cloud="https://cloud.test/api", token=ask, transport=stage.transport, clock=gts_clock, chance=lambda: 0.5
        )
        async with session.submit_many([SPEC], journal=tmp_path / "batch.db") as outcomes:
            (outcome,) = [outcome async for outcome in outcomes]
        assert outcome.is_ok is (token == "t")
    assert len(stage.transport.seen) == 1


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_a_cancelled_batch_leaves_no_id_out_of_its_journal(gts_clock, tmp_path, turns):
    stage = Stage(gts_clock)

    async def batch():
        async with stage.session.submit_many([SPEC] * 5, journal=tmp_path / "batch.db", max_at_once=2) as outcomes:
            return [outcome.unwrap().id async for outcome in outcomes]

    running = asyncio.create_task(batch())
    while not stage.transport.seen:
        await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(await batch()) == 5
    assert len(submits(stage)) == 5


async def test_a_journal_that_is_none_is_refused_by_name(gts_clock, tmp_path):
    path = tmp_path / "batch.db"
    path.write_text("this is no database at all, but quite long text that sqlite refuses to read" * 20)
    async with Stage(gts_clock).session.submit_many([SPEC], journal=path) as outcomes:
        (outcome,) = [outcome async for outcome in outcomes]
    assert str(path) in str(outcome.error)


async def test_a_callback_wakes_the_watch_and_only_that(gts_clock):
    stage = Stage(gts_clock, Generation.GO)
    app = receiver(stage.session, "http://here.test/callbacks")
    job = await stage.session.submit(app.spec(SPEC))
    waiting = asyncio.create_task(job.wait())
    while not (due := stage.cloud.callbacks(gts_clock.wall().timestamp())):
        await gts_clock.sleep(1)
    (delivery,) = due
    came = gts_clock.now()
    assert await posted(app, delivery.url, delivery.body) == 200
    assert (await waiting).status is JobStatus.SUCCEEDED
    assert gts_clock.now() - came < 1
    assert (app.received.rung, app.received.unknown) == (1, 0)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/callbacks/guess", b"{}", 404),
        ("GET", None, b"", 405),
        ("POST", None, b"not json", 400),
        ("POST", None, b"x" * 70_000, 413),
        ("POST", None, b'{"jobId":"","status":"fail","url":""}\n', 200),
        ("POST", None, b'{"status":"success","job_id":"somebody-elses","url":"https://x.test/"}', 200),
    ],
)
async def test_a_callback_is_only_a_hint(gts_clock, method, path, body, status):
    stage = Stage(gts_clock, outcome=JobStage.RUNNING)
    app = receiver(stage.session, "http://here.test/callbacks")
    spec = app.spec(SPEC)
    job = await stage.session.submit(spec)
    assert await posted(app, path or spec.callback_url, body, method) == status
    with pytest.raises(DeadlineExceeded):
        await job.wait(deadline=100)


def test_a_callback_url_is_of_its_own_and_within_the_clouds_limit(gts_session):
    app = receiver(gts_session, "http://here.test/callbacks")
    assert app.spec(SPEC).callback_url != app.spec(SPEC).callback_url
    with pytest.raises(InvalidArgument):
        app.spec(app.spec(SPEC))
    with pytest.raises(InvalidArgument, match="255"):
        receiver(gts_session, "http://here.test/" + "x" * 300).spec(SPEC)


async def posted(app, url, body, method="POST"):
    """Play an ASGI server: give the status that the app answers."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    path = url.removeprefix("http://here.test")
    await app({"type": "http", "method": method, "path": path}, receive, send)
    return sent[0]["status"]


async def test_a_job_is_resumed_from_its_token(gts_clock):
    session = Stage(gts_clock).session
    job = await session.submit(SPEC)
    assert session.resume(job.token()) == job


@pytest.mark.parametrize("job_id", ["", " ", "a/b", "..", "a?b", "x" * 129, 5, None])
def test_a_job_id_that_a_server_would_misread_is_refused(gts_session, job_id):
    with pytest.raises(InvalidArgument, match="job_id"):
        gts_session.job(job_id)


async def test_the_token_stays_off_plain_http_unless_that_is_asked_for(gts_clock):
    stage = Stage(gts_clock)
    options = {"cloud": "http://cloud.test/api", "token": "t", "transport": stage.transport, "clock": gts_clock}
    with pytest.raises(InvalidArgument, match="in the clear"):
        await AsyncSession(**options).list_jobs()
    stage.transport._servers["http://cloud.test"] = stage.cloud
    assert await AsyncSession(**options, allow_insecure_http=True).list_jobs() == []


async def test_a_spec_that_would_surprise_warns(gts_clock):
    session = Stage(gts_clock).session
    with pytest.warns(UserWarning, match="shell"):
        await session.submit(attrs.evolve(SPEC, run_command="python a.py && python b.py"))


async def test_ping_shows_that_the_token_is_good(gts_clock):
    stage = Stage(gts_clock, Generation.GO)
    assert (await stage.session.ping()).cloud == 0.0
    wrong = AsyncSession(cloud="https://cloud.test/api", token="wrong", transport=stage.transport, clock=gts_clock)
    with pytest.raises(Unauthorized):
        await wrong.ping()
