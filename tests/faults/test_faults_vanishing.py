"""Things that are not there: a job right after its create, what is deleted twice, a model whose URL has expired."""

import httpx
import pytest

from gts_async import (
    AsyncSession,
    Denied,
    JobSpec,
    JobStatus,
    NotFound,
    ServerFailed,
    UnexpectedAnswer,
    WorkLost,
)
from gts_async.testing import FakeClock, chaos

SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="run")
UNKNOWN = (400, {"message": "sql: no rows in result set"})
NOTHING = (200, {})
NO_SUCH_PATH = (404, {"message": "not found"})
WORKING = (200, {"status": "working"})
DONE = (200, {"status": "success", "url": "https://store.test/m.zip"})


class Cloud:
    """Answers `missing` for the first `gap` seconds of its clock, then that the job works, then that it is done."""

    def __init__(self, clock, missing, gap):
        self.clock = clock
        self.missing = missing
        self.gap = gap
        self.looks = []

    async def __call__(self, request):
        if request.url.path == "/api/userJob":
            return httpx.Response(200, json={"job_id": "j-1"})
        now = self.clock.now()
        self.looks.append(now)
        status, document = self.missing if now < self.gap else WORKING if now < self.gap + 60 else DONE
        return httpx.Response(status, json=document)

    def session(self):
        transport = httpx.MockTransport(self)
        options = {"cloud": "https://cloud.test/api", "token": "t", "chance": lambda: 0.5}
        return AsyncSession(transport=transport, clock=self.clock, **options)


MISSING = {"D7 no rows": UNKNOWN, "D7 an empty answer": NOTHING}


@pytest.mark.parametrize("missing", MISSING.values(), ids=MISSING)
@pytest.mark.parametrize("gap", [1, 20, 29])
async def test_a_job_that_is_not_seen_right_after_its_create_is_waited_for(missing, gap):
    clock = FakeClock()
    async with Cloud(clock, missing, gap).session() as session:
        job = await session.submit(SPEC)
        assert (await job.wait()).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("missing", MISSING.values(), ids=MISSING)
async def test_a_job_that_is_never_seen_is_lost_after_half_a_minute(missing):
    clock = FakeClock()
    cloud = Cloud(clock, missing, 10_000)
    async with cloud.session() as session:
        job = await session.submit(SPEC)
        with pytest.raises(WorkLost) as caught:
            await job.wait()
        assert type(caught.value.__cause__) is NotFound
        assert (caught.value.handle, caught.value.history) == (job, ())
        # The first look at once, the last one when 30 s are over.
        assert cloud.looks[0] == 0
        assert 30 <= clock.now() <= 36


async def test_a_job_that_nobody_has_made_is_not_waited_for():
    clock = FakeClock()
    async with Cloud(clock, UNKNOWN, 10_000).session() as session:
        with pytest.raises(NotFound):
            await session.job("j-1").wait()
        assert clock.now() == 0


@pytest.mark.parametrize(
    ("gap", "end"), [(200, JobStatus.SUCCEEDED), (10_000, WorkLost)], ids=["D7 404", "D7 404 for ever"]
)
async def test_a_404_is_a_gateway_in_trouble_and_not_a_job_that_is_gone(gap, end):
    # The cloud says 400 of a job that it does not know.
    clock = FakeClock()
    async with Cloud(clock, NO_SUCH_PATH, gap).session() as session:
        job = await session.submit(SPEC)
        if end is WorkLost:
            with pytest.raises(WorkLost) as caught:
                await job.wait()
            assert type(caught.value.__cause__) is UnexpectedAnswer
            assert 300 <= clock.now() <= 370
        else:
            assert (await job.wait()).status is end


# Deleted twice

GONE = {"ret_code": -100, "message": "task_id not exist"}
OK = {"ret_code": 200, "message": "ok"}


async def test_a_task_that_is_gone_already_is_deleted(floor, server):
    async with floor(server, engine=server.url) as this:
        server.on_request(chaos.answer(json=GONE))
        await this.session.task("tnews").delete()
        assert len(server.requests) == 1


LOST = {"D8 answer lost": [chaos.reset()], "D8 502": [chaos.answer(502)], "D8 answer cut": [chaos.close()]}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
async def test_a_delete_whose_answer_was_lost_is_a_success_when_it_finds_nothing_any_more(floor, server, fault):
    async with floor(server, engine=server.url) as this:
        server.on_request(*fault)
        server.on_request(chaos.answer(json=GONE))
        await this.session.task("tnews").delete()
        assert len(server.requests) == 2


async def test_a_404_for_a_delete_is_a_wrong_url_and_no_success(floor, server):
    async with floor(server, engine=server.url) as this:
        server.otherwise(chaos.answer(404, json={"detail": "Not Found"}))
        await this.fails(UnexpectedAnswer, this.session.task("tnews").delete())
        assert len(server.requests) == 1


async def test_a_500_for_a_delete_is_no_success(floor, server):
    async with floor(server, engine=server.url) as this:
        server.otherwise(chaos.answer(500, body=b"Internal Server Error"))
        await this.fails(ServerFailed, this.session.task("tnews").delete(), status=500)
        assert len(server.requests) == 1


@pytest.mark.parametrize("dialect", ["2023-12", "2024-04"])
async def test_a_job_that_vanishes_between_look_and_stop_is_stopped(floor, server, dialect):
    async with floor(server, dialect=dialect) as this:
        # Not in the words of the newer one.
        this.can_be_used_after = dialect == "2023-12"
        server.on_request(chaos.answer(json={"status": "working" if dialect == "2023-12" else "running"}))
        server.on_request(chaos.answer(UNKNOWN[0], json=UNKNOWN[1]))
        job = this.session.job("j-1")
        await job.stop()
        assert (await job.status()).status is JobStatus.STOPPED
        assert len(server.requests) == 2


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
async def test_a_stop_whose_answer_was_lost_is_asked_for_again_and_is_a_success(floor, server, fault):
    async with floor(server) as this:
        server.on_request(chaos.answer(json={"status": "working"}))
        server.on_request(*fault)
        server.on_request(chaos.answer(UNKNOWN[0], json=UNKNOWN[1]))
        await this.session.job("j-1").stop()
        assert len(server.requests) == 3


async def test_a_job_that_never_was_cannot_be_stopped(floor, server):
    async with floor(server) as this:
        server.otherwise(chaos.answer(UNKNOWN[0], json=UNKNOWN[1]))
        await this.fails(NotFound, this.session.job("j-1").stop())
        assert len(server.requests) == 1


# A URL that has expired

EXPIRED = {
    "D6 signature": b"<Error><Code>SignatureDoesNotMatch</Code><Message>no match</Message></Error>",
    "D6 expired": b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
    "D6 nothing said": b"",
}


class Store:
    """The cloud and its store in one: gives a new URL with each look; refuses those that `refuses` says."""

    def __init__(self, server, said, refused):
        self.server = server
        self.said = said
        self.refused = refused
        self.looks = 0
        self.fetched = []

    async def __call__(self, connection):
        request = connection.request
        if not request.path.startswith("/store"):
            self.looks += 1
            url = f"{self.server.url}/store/m.zip?Signature=TOPSECRET{self.looks}"
            await chaos.answer(json={"status": "success", "url": url})(connection)
            return
        self.fetched.append(request.target.rpartition("TOPSECRET")[2])
        assert request.header("authorization") is None
        if len(self.fetched) <= self.refused:
            headers = [("Content-Type", "application/xml")]
            await chaos.answer(403, body=self.said, headers=headers)(connection)
        else:
            await chaos.answer(body=b"PK model", headers=[("ETag", '"v1"')])(connection)


@pytest.mark.parametrize("said", EXPIRED.values(), ids=EXPIRED)
async def test_for_a_url_that_has_expired_a_fresh_one_is_asked_for_once(floor, server, tmp_path, said):
    async with floor(server) as this:
        store = Store(server, said, refused=1)
        server.otherwise(store)
        (path,) = await this.session.job("j-1").download(tmp_path, extract=False)
        assert path.read_bytes() == b"PK model"
        assert (store.looks, store.fetched) == (2, ["1", "2"])


@pytest.mark.parametrize("said", EXPIRED.values(), ids=EXPIRED)
async def test_a_fresh_url_that_is_refused_too_ends_the_download(floor, server, tmp_path, said):
    async with floor(server) as this:
        store = Store(server, said, refused=9)
        server.otherwise(store)
        await this.fails(Denied, this.session.job("j-1").download(tmp_path, extract=False), code=403)
        assert (store.looks, store.fetched) == (2, ["1", "2"])
        assert list(tmp_path.glob("*.zip")) == []
