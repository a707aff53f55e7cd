"""A whole session whose requests a test answers: by respx in its two modes, by a transport, by a client.

No name is ever looked up here, so nothing can reach the network.
"""

import asyncio
import gzip
import io
import json
import zipfile

import attrs
import httpx
import pytest
import respx

from gts_async import (
    AsyncSession,
    JobSpec,
    JobStatus,
    Limits,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    TaskStatus,
    TimedOut,
    Unauthorized,
    UnexpectedAnswer,
)
from gts_async.sxwl.marks import unmarked
from gts_async.testing import chaos

ENGINE = "http://engine.test:5201"
CLOUD = "https://cloud.test/api"
MODEL = "https://store.test/bucket/data.zip?OSSAccessKeyId=me&Signature=s%2Fg"
SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="python train.py")
LOOKED = b'{"ret_code": 1, "message": "On Training"}'


@attrs.frozen
class Mocked:
    """One way to answer a session's requests: a router for them, and what a session needs to be answered by it."""

    router: respx.MockRouter
    options: dict

    def session(self, **options):
        return AsyncSession(**{**self.options, **options})

    def task_status(self):
        return self.router.post(f"{ENGINE}/api/check_task_status")

    def create_job(self):
        return self.router.post(f"{CLOUD}/userJob")

    def job_status(self):
        return self.router.post(f"{CLOUD}/userJob/job_status")


@pytest.fixture(autouse=True)
async def no_name_is_looked_up(monkeypatch):
    asked = []

    async def getaddrinfo(host, *args, **options):
        asked.append(host)
        raise OSError("a test must not ask for a name")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    yield
    assert asked == []


@pytest.fixture
def options(gts_clock):
    return {"engine": ENGINE, "cloud": CLOUD, "token": "a-token", "clock": gts_clock, "chance": lambda: 0.5}


def over_respx(using, options):
    return respx.mock(using=using, assert_all_called=False), options


def over_transport(options):
    router = respx.MockRouter(using=None, assert_all_called=False)
    return router, {**options, "transport": httpx.MockTransport(router.async_handler)}


@pytest.fixture(params=["httpcore", "httpx"])
def intercepted(request, options):
    """Two ways: what respx does to httpcore's pools, or to httpx's clients."""
    router, given = over_respx(request.param, options)
    with router:
        yield Mocked(router, given)


@pytest.fixture(params=["respx on httpcore", "respx on httpx", "a transport", "a client"])
async def mocked(request, options):
    """All four ways."""
    if request.param.startswith("respx"):
        router, given = over_respx(request.param.split()[-1], options)
    else:
        router, given = over_transport(options)
    if request.param != "a client":
        with router:
            yield Mocked(router, given)
        return
    async with httpx.AsyncClient(transport=given.pop("transport")) as client:
        yield Mocked(router, {**given, "http_client": client})


def in_memory(body, **headers):
    return lambda request: httpx.Response(200, headers=headers, content=body)


def streamed(body, **headers):
    async def pieces():
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    return lambda request: httpx.Response(200, headers=headers, content=pieces())


def zipped(**files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


async def test_an_engines_calls_are_answered_by_the_mock(mocked, tmp_path):
    data = tmp_path / "train.json"
    data.write_text('{"content": "阳台朝南的房子好卖吗？", "label": "house"}\n')
    create = mocked.router.post(f"{ENGINE}/api/create_task/")
    create.respond(json={"ret_code": 200, "message": "ok", "task_id": "tnews"})
    upload = mocked.router.post(f"{ENGINE}/api/upfiles/").respond(json={"ret_code": 200, "message": "ok"})
    status = mocked.task_status().respond(content=LOOKED, content_type="application/json")
    async with mocked.session() as session:
        task = await session.create_task("tnews", task_type="classification", engine_type="bagualu")
        await task.upload(data, check=False)
        assert (await task.status()).status is TaskStatus.TRAINING
    assert json.loads(create.calls.last.request.content)["task_name"] == "tnews"
    assert data.read_bytes() in upload.calls.last.request.content
    assert int(upload.calls.last.request.headers["content-length"]) == len(upload.calls.last.request.content)
    assert [route.call_count for route in (create, upload, status)] == [1, 1, 1]
    assert all("authorization" not in call.request.headers for call in mocked.router.calls)


async def test_a_clouds_calls_are_answered_by_the_mock(mocked):
    create = mocked.create_job().respond(json={"job_id": "ai1"})
    status = mocked.job_status().respond(json={"status": "working"})
    stop = mocked.router.post(f"{CLOUD}/userJob/job_del").respond(json={"message": "ok"})
    async with mocked.session() as session:
        job = await session.submit(SPEC)
        assert (await job.status()).status is JobStatus.WORKING
        await job.stop()
    assert json.loads(create.calls.last.request.content)["gpuType"] == SPEC.gpu_type
    assert [route.call_count for route in (create, status, stop)] == [1, 2, 1]
    assert {call.request.headers["authorization"] for call in mocked.router.calls} == {"Bearer a-token"}


@pytest.mark.parametrize("answer", [in_memory, streamed])
@pytest.mark.parametrize("way", ["httpcore", "httpx", "a transport"])
async def test_a_models_download_is_answered_by_the_mock(way, answer, options, tmp_path):
    router, given = over_transport(options) if way == "a transport" else over_respx(way, options)
    with router:
        mocked, body = Mocked(router, given), zipped(weights="1 2 3", labels="a b")
        mocked.job_status().respond(json={"status": "success", "url": MODEL})
        store = router.get(MODEL).mock(side_effect=answer(body, **{"Content-Length": str(len(body))}))
        async with mocked.session() as session:
            paths = await session.job("ai1").download(tmp_path / "model")
    assert {path.name: path.read_text() for path in paths} == {"weights": "1 2 3", "labels": "a b"}
    assert store.call_count == 1
    assert "authorization" not in store.calls.last.request.headers


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
async def test_a_given_client_never_sees_the_store_but_respx_does(using, options, tmp_path):
    seen = []

    def cloud(request):
        seen.append(request.url.host)
        return httpx.Response(200, json={"status": "success", "url": MODEL})

    router, given = over_respx(using, options)
    async with httpx.AsyncClient(transport=httpx.MockTransport(cloud), headers={"x-key": "mine"}) as client:
        with router:
            store = router.get(MODEL).mock(side_effect=in_memory(zipped(weights="1 2 3")))
            router.route(host="cloud.test").pass_through()
            async with AsyncSession(**given, http_client=client) as session:
                await session.job("ai1").download(tmp_path)
        assert "x-key" not in store.calls.last.request.headers
        assert set(seen) == {"cloud.test"}
        assert not client.is_closed


FAULTS = [
    (httpx.ConnectError, NotSent, NotSent, 4),
    (httpx.ConnectTimeout("slow"), NotSent, NotSent, 4),
    (httpx.ReadTimeout, TimedOut, TimedOut, 1),
    (httpx.ReadError("reset"), OutcomeUnknown, OutcomeUnknown, 1),
    (httpx.RemoteProtocolError, OutcomeUnknown, OutcomeUnknown, 1),
]


@pytest.mark.parametrize(("fault", "on_look", "on_submit", "submissions"), FAULTS)
async def test_what_a_mock_raises_is_translated_as_ours(mocked, fault, on_look, on_submit, submissions):
    status = mocked.job_status().mock(side_effect=fault)
    create = mocked.create_job().mock(side_effect=fault)
    async with mocked.session() as session:
        with pytest.raises(on_look) as caught:
            await session.job("ai1").status()
        assert type(caught.value) is on_look
        assert len(caught.value.attempts) == status.call_count == 4
        with pytest.raises(on_submit) as caught:
            await session.submit(SPEC)
        assert type(caught.value) is on_submit
        assert len(caught.value.attempts) == create.call_count == submissions
    if submissions == 1:
        assert unmarked(caught.value.intent.spec) == SPEC


@pytest.mark.parametrize("answer", [in_memory, streamed])
async def test_an_answer_counts_whether_it_is_in_memory_or_streamed(mocked, answer):
    mocked.task_status().mock(side_effect=answer(LOOKED))
    async with mocked.session() as session:
        assert (await session.task("tnews").status()).message == "On Training"


@pytest.mark.parametrize("answer", [in_memory, streamed])
async def test_a_mock_may_compress(mocked, answer):
    mocked.task_status().mock(side_effect=answer(gzip.compress(LOOKED), **{"Content-Encoding": "gzip"}))
    async with mocked.session() as session:
        assert (await session.task("tnews").status()).message == "On Training"


PADDED = LOOKED + b" " * 1000
LONG = {
    "in memory": in_memory(PADDED),
    "streamed": streamed(PADDED),
    "packed": in_memory(gzip.compress(PADDED), **{"Content-Encoding": "gzip"}),
    "packed and streamed": streamed(gzip.compress(PADDED), **{"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("form", LONG)
async def test_an_answer_may_be_as_large_as_allowed(mocked, form):
    mocked.task_status().mock(side_effect=LONG[form])
    async with mocked.session(limits=Limits(max_answer_bytes=len(PADDED))) as session:
        assert (await session.task("tnews").status()).message == "On Training"


@pytest.mark.parametrize("form", LONG)
async def test_an_answer_that_is_a_byte_larger_is_refused(mocked, form):
    status = mocked.task_status().mock(side_effect=LONG[form])
    async with mocked.session(limits=Limits(max_answer_bytes=len(PADDED) - 1)) as session:
        with pytest.raises(UnexpectedAnswer, match=f"larger than {len(PADDED) - 1} bytes"):
            await session.task("tnews").status()
    assert status.call_count == 1


async def test_a_401_asks_for_the_token_once_more(mocked):
    tokens = iter(["old", "new"])

    async def ask():
        return next(tokens)

    status = mocked.job_status().mock(side_effect=[httpx.Response(401), httpx.Response(200, json={"status": "fail"})])
    async with mocked.session(token=ask) as session:
        assert (await session.job("ai1").status()).status is JobStatus.FAILED
    assert [call.request.headers["authorization"] for call in status.calls] == ["Bearer old", "Bearer new"]


async def test_a_401_to_a_fixed_token_is_raised_at_once(mocked):
    status = mocked.job_status().respond(401, text="no")
    async with mocked.session() as session:
        with pytest.raises(Unauthorized):
            await session.job("ai1").status()
    assert status.call_count == 1


async def test_a_429_is_waited_out_as_long_as_it_asks(mocked, gts_clock):
    create = mocked.create_job()
    create.side_effect = [
        httpx.Response(429, headers={"Retry-After": "7"}),
        httpx.Response(200, json={"job_id": "ai1"}),
    ]
    async with mocked.session() as session:
        assert (await session.submit(SPEC)).id == "ai1"
    assert (create.call_count, gts_clock.now()) == (2, 7.0)


async def test_a_429_that_asks_for_too_long_is_raised_with_how_long(mocked):
    status = mocked.job_status().respond(429, headers={"Retry-After": "3600"})
    async with mocked.session() as session:
        with pytest.raises(RateLimited) as caught:
            await session.job("ai1").status()
    assert (caught.value.retry_after, status.call_count) == (3600.0, 1)


# What only respx does


async def test_a_request_that_is_not_mocked_is_told_to_the_test_at_once(intercepted):
    async with intercepted.session() as session:
        with pytest.raises(respx.models.AllMockedAssertionError, match="not mocked"):
            await session.submit(SPEC)
        intercepted.create_job().respond(json={"job_id": "ai1"})
        assert (await session.submit(SPEC)).id == "ai1"


async def test_a_request_may_be_let_through_to_a_real_server(intercepted, server):
    server.otherwise(chaos.answer(body=LOOKED, headers={"content-type": "application/json"}))
    intercepted.router.route(host="127.0.0.1").pass_through()
    async with intercepted.session(engine=server.url) as session:
        assert (await session.task("tnews").status()).message == "On Training"
        assert (await session.task("tnews").status()).message == "On Training"
    assert len(server.requests) == 2


async def test_no_mocked_fault_costs_a_connection(intercepted):
    is_reached = asyncio.Event()

    async def hang(request):
        is_reached.set()
        await asyncio.Event().wait()

    async def cut(request):
        async def pieces():
            yield b"{"
            raise httpx.ReadError("cut", request=request)

        return httpx.Response(200, content=pieces())

    faults = [httpx.ConnectError, httpx.ReadError, httpx.Response(500), cut]
    intercepted.job_status().mock(side_effect=[*faults * 3, hang, httpx.Response(200, json={"status": "working"})])
    async with intercepted.session(limits=Limits(max_connections=1)) as session:
        for _ in range(3):
            with pytest.raises(OutcomeUnknown):
                await session.job("ai1").status()
        hanging = asyncio.create_task(session.job("ai1").status())
        await is_reached.wait()
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        assert (await session.job("ai1").status()).status is JobStatus.WORKING


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
async def test_the_limit_of_connections_holds_whatever_is_mocked(using, options):
    at_once, seen = 0, []

    async def count(request):
        nonlocal at_once
        at_once += 1
        seen.append(at_once)
        for _ in range(20):
            await asyncio.sleep(0)
        at_once -= 1
        return httpx.Response(200, json={"status": "working"})

    router, given = over_respx(using, options)
    with router:
        Mocked(router, given).job_status().mock(side_effect=count)
        async with AsyncSession(**given, limits=Limits(max_connections=2)) as session:
            await asyncio.gather(*(session.job("ai1").status() for _ in range(10)))
    assert (len(seen), max(seen)) == (10, 2)


async def looked_at(options, router):
    router.post(f"{ENGINE}/api/check_task_status").respond(content=LOOKED)
    async with AsyncSession(**options) as session:
        return (await session.task("tnews").status()).message


@respx.mock
async def test_respx_works_as_a_decorator(options):
    assert await looked_at(options, respx) == "On Training"


@respx.mock(using="httpx")
async def test_respx_works_as_a_decorator_that_hands_itself_over(options, respx_mock):
    assert await looked_at(options, respx_mock) == "On Training"


async def test_respx_works_as_a_fixture(options, respx_mock):
    assert await looked_at(options, respx_mock) == "On Training"


@pytest.mark.respx(using="httpx")
async def test_respx_works_as_a_fixture_with_a_marker(options, respx_mock):
    assert await looked_at(options, respx_mock) == "On Training"


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
async def test_respx_may_begin_when_the_session_is_open_already(using, options):
    async with AsyncSession(**options) as session:
        for said in (b"On Training", b"Train Success"):
            router, _ = over_respx(using, options)
            with router:
                router.post(f"{ENGINE}/api/check_task_status").respond(content=LOOKED.replace(b"On Training", said))
                assert (await session.task("tnews").status()).message == said.decode()
