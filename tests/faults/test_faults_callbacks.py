"""Callbacks that are forged, lost, doubled, early, late, huge, slow or malformed: none changes what is said of a job.

The looks of the watches are counted: a callback can bring one forward, and that is all that it can do.
"""

import asyncio
import base64
import json
import logging
import time
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from gts_async import AsyncSession, DeadlineExceeded, JobSpec, JobStatus, Schedule, WorkFailed
from gts_async.callbacks import CallbackLimits, receiver
from gts_async.emulator.backends import JobStage
from gts_async.emulator.cloud import Cloud
from gts_async.emulator.cloud_quirks import CloudQuirks, Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.testing import EmulatorTransport, chaos

BASE = "https://hooks.test/jobs"
SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="python train.py")
FAILED = b'{"jobId":"","status":"fail","url":""}\n'
SUCCEEDED = b'{"jobId":"ai1","status":"success","url":"https://store.test/forged.zip?Signature=SECRETmark"}'
OLD = [pytest.param(generation, id=generation.name) for generation in (Generation.JAVA, Generation.GO)]
QUARTER = Schedule(minimum=900, maximum=900, jitter=0)
"""A look every quarter of an hour: what comes in between was woken."""


def cases(case, *values):
    return [pytest.param(*value, id=f"{case} {value[0]}") for value in values]


class Stage:
    """A cloud of some generation, a session that talks to it on the fake clock, and a receiver that plays no server."""

    def __init__(self, clock, generation=Generation.GO, *, schedule=QUARTER, quirks=None, hooks=None, **runner):
        self.clock = clock
        self.store = ObjectStore(b"key", "https://store.test")
        self.cloud = Cloud(
            ScriptedRunner(**runner), self.store, token="t", generation=generation, quirks=quirks or CloudQuirks()
        )
        servers = {"https://cloud.test": self.cloud, "https://store.test": self.store}
        self.transport = EmulatorTransport(servers, self.wall)
        self.session = AsyncSession(
            cloud="https://cloud.test/api", token="t", transport=self.transport, clock=clock, schedule=schedule,
            chance=lambda: 0.5,
        )  # fmt: skip
        self.app = receiver(self.session, BASE, **(hooks or {}))

    def wall(self):
        return self.clock.wall().timestamp()

    @property
    def looks(self):
        return len([request for request in self.transport.seen if "status" in request.path])

    async def submit(self, spec=SPEC):
        """Give a job and the callback URL that was made for it."""
        spec = self.app.spec(spec)
        return await self.session.submit(spec), spec.callback_url

    async def looked(self, job):
        """Begin to watch the job; gives the watching task once it has looked."""
        before = self.looks
        watching = asyncio.create_task(final(job))
        while self.looks == before:
            await asyncio.sleep(0)
        await self.a_moment()
        return watching

    async def a_moment(self):
        """Let everything happen that waits for no more than a turn in the budget of looks."""
        await self.clock.sleep(1)

    async def deliver(self, count=1):
        """Let the cloud's own callbacks come in as they are due; gives when."""
        for _ in range(count):
            while not (due := self.cloud.callbacks(self.wall())):
                await self.clock.sleep(1)
            for delivery in due:
                assert await post(self.app, delivery.url, delivery.body) == 200
        return self.clock.now()


async def final(job):
    """Give the statuses of a job to its end, and when that was seen."""
    changes = [change async for change in job.watch(deadline=10_000)]
    assert changes[-1].is_final
    return [change.status for change in changes]


async def post(app, url, body=FAILED, method="POST", headers=((b"content-type", b"application/json"),), pause=0.0):
    sent = []

    async def receive():
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": body}

    async def send(message):
        sent.append(message)

    path = url.removeprefix("https://hooks.test")
    await app({"type": "http", "method": method, "path": path, "headers": headers}, receive, send)
    return sent[0]["status"]


# Forged


@pytest.mark.parametrize(
    ("body", "status"),
    cases(
        "J1",
        (b'{"jobId":"","status":"fail","url":""}', 200),
        (b'{"jobId":"%s","status":"success","url":"https://store.test/forged"}', 200),
        (b'{"job_id":"%s","status":"success"}', 200),
        (b'{"status":"deleted"}', 200),
        (b'{"jobId":"%s","status":"success","url":"file:///etc/passwd"}', 400),
    ),
)
async def test_a_forged_callback_is_a_look_more_and_no_verdict(gts_clock, body, status):
    stage = Stage(gts_clock, outcome=JobStage.RUNNING)
    job, url = await stage.submit()
    watching = await stage.looked(job)
    looks = stage.looks
    assert await post(stage.app, url, body.replace(b"%s", job.id.encode())) == status
    await stage.a_moment()
    assert stage.looks - looks == (1 if status == 200 else 0)
    with pytest.raises(DeadlineExceeded) as caught:
        await watching
    assert [change.status for change in caught.value.history] == [JobStatus.WORKING]


async def test_a_callback_wakes_the_watch_of_its_own_job_and_no_other_whatever_it_says_j1(gts_clock):
    stage = Stage(gts_clock, outcome=JobStage.RUNNING)
    jobs = [await stage.submit() for _ in range(3)]
    watching = [await stage.looked(job) for job, _ in jobs]
    before = len(stage.transport.seen)
    other = jobs[2][0].id.encode()
    await post(stage.app, jobs[0][1], b'{"status":"success","jobId":"%s"}' % other)
    await stage.a_moment()
    asked = [request.body for request in stage.transport.seen[before:]]
    assert len(asked) == 1
    assert jobs[0][0].id.encode() in asked[0]
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)


@pytest.mark.parametrize(
    ("name", "path"),
    cases(
        "J2",
        ("nothing", "/jobs/"),
        ("another place", "/"),
        ("a job's id", "/jobs/aia1905cd8-650a-4cd9-b005-677ec3376db0"),
    )
    + cases("J3", ("a guess", f"/jobs/{'A' * 43}"), ("short", "/jobs/AAAA"), ("long", f"/jobs/{'A' * 5000}")),
)
async def test_what_has_no_url_of_ours_is_unknown_and_only_counted(gts_clock, caplog, name, path):
    caplog.set_level(logging.DEBUG)
    stage = Stage(gts_clock)
    stage.app.url()
    caplog.clear()
    for _ in range(100):
        assert await post(stage.app, f"https://hooks.test{path}") == 404
    assert stage.app.received.unknown == 100
    assert caplog.records == []
    assert stage.looks == 0


async def test_every_character_of_a_url_counts_j3(gts_clock):
    stage = Stage(gts_clock)
    url = stage.app.url()
    for place in range(len(BASE) + 1, len(url)):
        wrong = url[:place] + ("A" if url[place] != "A" else "B") + url[place + 1 :]
        assert await post(stage.app, wrong) == 404


# Doubled, replayed, out of order, early, late


async def test_a_replay_is_known_after_a_restart_and_handled_once_j4(gts_clock, tmp_path):
    handled = []

    async def handler(callback):
        handled.append(callback.callback_url)

    path = tmp_path / "callbacks.db"
    async with receiver(None, BASE, store=path, on_callback=handler) as app:
        url = app.url()
        assert await post(app, url, SUCCEEDED) == 200
        while not app.received.handled:
            await asyncio.sleep(0.002)
    async with receiver(None, BASE, store=path, on_callback=handler) as app:
        assert await post(app, url, SUCCEEDED) == 200
        assert (app.received.rung, app.received.repeated) == (0, 1)
        await asyncio.sleep(0.02)
    assert handled == [url]


@pytest.mark.parametrize("generation", OLD)
async def test_what_the_cloud_sends_twice_is_one_look_and_handled_once_j5(gts_clock, generation):
    handled = []

    async def handler(callback):
        handled.append(callback.callback_url)

    stage = Stage(gts_clock, generation, quirks=CloudQuirks(callback_copies=3), hooks={"on_callback": handler})
    job, url = await stage.submit()
    watching = await stage.looked(job)
    looks = stage.looks
    came = await stage.deliver()
    assert await watching == [JobStatus.WORKING, JobStatus.SUCCEEDED]
    await stage.a_moment()
    assert gts_clock.now() - came < 5
    assert (stage.looks - looks, handled) == (1, [url])
    assert (stage.app.received.rung, stage.app.received.repeated) == (1, 2)
    await stage.app.aclose()


async def test_a_success_before_its_time_is_not_believed_and_what_comes_after_the_end_changes_nothing_j6(gts_clock):
    stage = Stage(gts_clock, running=3000)
    job, url = await stage.submit()
    watching = await stage.looked(job)
    assert await post(stage.app, url, SUCCEEDED) == 200
    await stage.a_moment()
    assert not watching.done()
    await stage.deliver()
    assert await watching == [JobStatus.WORKING, JobStatus.SUCCEEDED]
    assert await post(stage.app, url, b'{"status":"fail"}') == 200
    assert (await job).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("generation", OLD)
async def test_without_any_callback_the_next_look_finds_the_end_j7(gts_clock, generation):
    stage = Stage(gts_clock, generation, quirks=CloudQuirks(callback_copies=0))
    job, _ = await stage.submit()
    assert await final(job) == [JobStatus.WORKING, JobStatus.SUCCEEDED]
    assert 60 < gts_clock.now() < 2000
    assert stage.app.received.rung == 0


async def test_one_that_comes_before_anybody_watches_or_knows_the_job_is_not_missed(gts_clock):
    stage = Stage(gts_clock, running=1)
    spec = stage.app.spec(SPEC)
    assert await post(stage.app, spec.callback_url) == 200
    job = await stage.session.submit(spec)
    await stage.deliver()
    assert await final(job) == [JobStatus.SUCCEEDED]


async def test_one_that_comes_after_the_session_was_closed_is_answered_and_kept(gts_clock, tmp_path):
    stage = Stage(gts_clock, hooks={"store": tmp_path / "callbacks.db"})
    _, url = await stage.submit()
    await stage.session.aclose()
    assert await post(stage.app, url, SUCCEEDED) == 200
    assert await post(stage.app, url, SUCCEEDED) == 200
    assert (stage.app.received.rung, stage.app.received.repeated) == (1, 1)
    await stage.app.aclose()


async def test_a_failed_job_that_goes_on_after_all_is_told_by_its_second_callback(gts_clock):
    stage = Stage(gts_clock, quirks=CloudQuirks(fails_first=True))
    job, url = await stage.submit()
    await post(stage.app, url, FAILED)
    watching = await stage.looked(job)
    await stage.deliver()
    assert (await watching)[-1] is JobStatus.SUCCEEDED


async def test_a_failure_whose_callback_names_no_job_wakes_its_watch(gts_clock):
    stage = Stage(gts_clock, outcome=JobStage.FAILED)
    job, _ = await stage.submit()
    watching = await stage.looked(job)
    came = await stage.deliver()
    assert (await watching)[-1] is JobStatus.FAILED
    # Held for 30 s and seen at the next looks: not a quarter of an hour after it.
    assert gts_clock.now() - came <= 900
    with pytest.raises(WorkFailed):
        await job


# Huge, slow, malformed


@pytest.mark.parametrize(
    ("name", "body", "headers", "pause", "status"),
    cases(
        "J9",
        ("ten megabytes", b" " * 10_000_000, [(b"content-type", b"application/json")], 0, 413),
        ("one byte too many", FAILED.ljust(64 * 1024 + 1), [(b"content-type", b"application/json")], 0, 413),
        ("slow", FAILED, [(b"content-type", b"application/json")], 0.5, 408),
        ("a form", FAILED, [(b"content-type", b"application/x-www-form-urlencoded")], 0, 415),
        ("text", FAILED, [(b"content-type", b"text/plain")], 0, 415),
        ("compressed", FAILED, [(b"content-encoding", b"gzip")], 0, 415),
        ("no JSON", b"status=fail", [(b"content-type", b"application/json")], 0, 400),
        ("empty", b"", [(b"content-type", b"application/json")], 0, 400),
        ("a list", b"[]", [(b"content-type", b"application/json")], 0, 400),
        ("deep", b"[" * 60_000, [(b"content-type", b"application/json")], 0, 400),
        ("no text", b'{"status":"\xff\xfe"}', [(b"content-type", b"application/json")], 0, 400),
        ("another type", b'{"status":true}', [(b"content-type", b"application/json")], 0, 400),
        ("two jobs", b'{"status":"fail","jobId":"a","job_id":"b"}', [(b"content-type", b"application/json")], 0, 400),
    ),
)
async def test_what_is_no_callback_is_refused_within_bounds_and_does_nothing(
    gts_clock, name, body, headers, pause, status
):
    handled = []

    async def handler(callback):
        handled.append(callback)

    limits = CallbackLimits(body_time=0.05)
    stage = Stage(gts_clock, hooks={"on_callback": handler, "limits": limits})
    async with asyncio.timeout(60):
        assert await post(stage.app, stage.app.url(), body, headers=headers, pause=pause) == status
    await stage.a_moment()
    assert (stage.app.received.rung, handled) == (0, [])


def test_the_bounds_are_64_kib_and_5_seconds_unless_told_otherwise_j9():
    limits = CallbackLimits()
    assert (limits.max_body, limits.body_time) == (65_536, 5.0)


@pytest.mark.parametrize(
    ("method", "where", "status"),
    cases(
        "J10",
        ("GET", "{}", 405),
        ("HEAD", "{}", 405),
        ("OPTIONS", "{}", 405),
        ("DELETE", "{}/", 405),
        ("POST", "{}/..", 404),
        ("POST", "{}/%2e%2e", 404),
        ("POST", "{}?x", 404),
        ("POST", "{};x", 404),
        ("POST", "//", 404),
        ("GET", "/", 404),
        ("POST", "", 404),
    ),
)
async def test_other_methods_and_paths_do_nothing(gts_clock, method, where, status):
    stage = Stage(gts_clock)
    assert await post(stage.app, where.format(stage.app.url()), method=method) == status
    assert stage.app.received.rung == 0


# The handler


@pytest.mark.parametrize("fault", [pytest.param("raises", id="J11 raises"), pytest.param("is slow", id="J11 is slow")])
async def test_a_handler_that_fails_is_called_again_after_an_answer_that_was_sent_already(tmp_path, fault):
    tries = []

    async def handler(callback):
        tries.append(callback.tries)
        if len(tries) < 3:
            if fault == "raises":
                raise RuntimeError
            await asyncio.Event().wait()

    limits = CallbackLimits(handler_time=0.02, first_delay=0.001)
    async with receiver(None, BASE, store=tmp_path / "c.db", on_callback=handler, limits=limits) as app:
        assert await post(app, app.url()) == 200
        async with asyncio.timeout(60):
            while not app.received.handled:
                await asyncio.sleep(0.002)
    assert tries == [1, 2, 3]


# A flood


async def test_a_flood_takes_no_more_than_its_room_and_is_told_to_come_back_j12(tmp_path, caplog):
    limits = CallbackLimits(max_at_once=100)
    rung = []

    class Bells:
        def ring(self, key):
            rung.append(key)

    most = 0
    async with receiver(Bells(), BASE, store=tmp_path / "callbacks.db", limits=limits) as app:

        async def one(url):
            nonlocal most
            status = await post(app, url)
            most = max(most, app._at_once)
            return status

        urls = [app.url() for _ in range(10_000)]
        statuses = await asyncio.gather(*(one(url) for url in urls))
        assert set(statuses) == {200, 503}
        assert statuses.count(503) == app.received.busy
        assert most <= 100
        # Each watch was woken, whether or not its callback was taken; and later all are.
        assert set(rung) == set(urls)
        for begin in range(0, 1000, 100):
            again = [url for url, status in zip(urls, statuses, strict=True) if status == 503][begin : begin + 100]
            assert set(await asyncio.gather(*(post(app, url) for url in again))) <= {200}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# The URL of the model


@pytest.mark.parametrize(
    ("name", "model", "status"),
    cases(
        "J13",
        ("metadata", "http://169.254.169.254/latest/meta-data/", 200),
        ("here", "{}/model.zip", 200),
        ("another host", "http://other.test/model.zip", 200),
        ("a file", "file:///etc/passwd", 400),
        ("gopher", "gopher://127.0.0.1:70/", 400),
    ),
)
async def test_a_url_from_a_callback_is_never_fetched(gts_clock, server, resolve, tmp_path, name, model, status):
    asked = resolve()
    server.otherwise(chaos.answer(body=b"forged"))
    handled = []

    async def handler(callback):
        handled.append(callback)

    stage = Stage(gts_clock, hooks={"on_callback": handler})
    job, url = await stage.submit()
    body = json.dumps({"jobId": job.id, "status": "success", "url": model.format(server.url)}).encode()
    assert await post(stage.app, url, body) == status
    watching = await stage.looked(job)
    await stage.deliver()
    assert (await watching)[-1] is JobStatus.SUCCEEDED
    assert all(model[:12] not in repr(callback) for callback in handled)
    # Fetched from where the cloud itself says, when it was asked.
    (fetched,) = await job.download(tmp_path)
    assert fetched.read_bytes().decode() == f"the model of {job.id}\n"
    assert (asked, server.requests) == ([], [])
    assert model[:20].encode() not in b"".join(request.path.encode() for request in stage.transport.seen)
    await stage.app.aclose()


# Signed by a gateway


SECRETS = [f"whsec_{base64.b64encode(bytes([number]) * 24).decode()}" for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("name", "secret", "age", "body", "status"),
    cases(
        "J15",
        ("the old secret", SECRETS[0], 0, FAILED, 200),
        ("the new secret", SECRETS[1], 0, FAILED, 200),
        ("another secret", SECRETS[2], 0, FAILED, 401),
        ("too old", SECRETS[0], 400, FAILED, 401),
        ("from the future", SECRETS[0], -400, FAILED, 401),
        ("a little old", SECRETS[0], 200, FAILED, 200),
        ("no JSON", SECRETS[0], 0, b"x", 400),
        ("no JSON and no signature", SECRETS[2], 0, b"x", 401),
    ),
)
async def test_where_signatures_are_asked_for_nothing_goes_without_a_good_one(
    gts_clock, name, secret, age, body, status
):
    at = time.time() - age
    signature = Webhook(secret).sign("msg", datetime.fromtimestamp(int(at), UTC), body.decode())
    headers = {"webhook-id": "msg", "webhook-timestamp": str(int(at)), "webhook-signature": signature}
    stage = Stage(gts_clock, hooks={"signing_secrets": SECRETS[:2]})
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert await post(stage.app, stage.app.url(), body, headers=raw) == status
    assert stage.app.received.rung == (status == 200)
    assert await post(stage.app, stage.app.url(), body) == 401
