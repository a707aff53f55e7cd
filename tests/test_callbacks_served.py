"""The receiver behind real servers, in other people's applications, and called by the embedded cloud."""

import asyncio
import contextlib
import http.client
import socket

import attrs
import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount
from starlette.testclient import TestClient

from gts_async import AsyncSession, JobSpec, JobStatus, Schedule
from gts_async.callbacks import receiver
from gts_async.emulator.cloud_quirks import CallbackForm, CloudQuirks, Generation
from gts_async.local.serving import listening, serve, url_of
from gts_async.local.stack import EmbeddedCloud

BODY = {"jobId": "", "status": "fail", "url": ""}
SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="true")
SELDOM = Schedule(minimum=300, maximum=300)
"""So seldom that a watch which is not woken would outlast the test."""


class Bells:
    def __init__(self):
        self.rung = []

    def ring(self, key):
        self.rung.append(key)


def bare(app):
    return app


def in_starlette(app):
    return Starlette(routes=[Mount("/sxwl", app=app)])


def in_starlette_below(app):
    return Starlette(routes=[Mount("/a", routes=[Mount("/sxwl", app=app)])])


def in_fastapi(app):
    outer = FastAPI()
    outer.mount("/sxwl", app)
    return outer


def in_middleware(app):
    async def passing(request, call_next):
        return await call_next(request)

    middleware = [Middleware(BaseHTTPMiddleware, dispatch=passing), Middleware(GZipMiddleware)]
    return Starlette(routes=[Mount("/sxwl", app=app)], middleware=middleware)


OUTER = [
    pytest.param("", bare, id="alone"),
    pytest.param("/any/where", bare, id="alone below a path"),
    pytest.param("/sxwl", in_starlette, id="Starlette"),
    pytest.param("/a/sxwl", in_starlette_below, id="Starlette twice"),
    pytest.param("/sxwl", in_fastapi, id="FastAPI"),
    pytest.param("/sxwl", in_middleware, id="middleware"),
]


@contextlib.asynccontextmanager
async def uvicorn_of(app, **options):
    """Serve with uvicorn as it comes, its own HTTP parser and lifespan included; gives the root URL."""
    with listening() as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, **options))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with asyncio.timeout(60):
            while not server.started:
                await asyncio.sleep(0.005)
        try:
            yield url_of(listener)
        finally:
            server.should_exit = True
            await serving


@pytest.mark.parametrize(("path", "outer"), OUTER)
async def test_it_works_alone_and_mounted(path, outer, tmp_path, caplog):
    bells = Bells()
    hooks = receiver(bells, f"https://hooks.test{path}", store=tmp_path / "callbacks.db")
    async with uvicorn_of(outer(hooks)) as root, httpx.AsyncClient(base_url=root) as client:
        url = hooks.url()
        place = url.removeprefix("https://hooks.test")
        answers = [await client.post(place, json=BODY), await client.post(f"{place}/", json=BODY)]
        answers += [await client.get(place), await client.head(place), await client.options(place)]
        answers += [await client.post(place[:-1], json=BODY), await client.post(f"{path}/", json=BODY)]
        answers += [
            await client.post(place, data=BODY),
            await client.post(place, content=b"{", headers={"content-type": "application/json"}),
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 405, 405, 405, 404, 404, 415, 400]
        assert {answer.content for answer in answers} == {b""}
    await hooks.aclose()
    assert bells.rung == [url]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_behind_a_proxy_that_takes_the_path_away_it_works_too(tmp_path):
    hooks = receiver(None, "https://hooks.test/public/sxwl")
    async with uvicorn_of(hooks, root_path="/public/sxwl") as root, httpx.AsyncClient(base_url=root) as client:
        token = hooks.url().rpartition("/")[2]
        assert (await client.post(f"/{token}", json=BODY)).status_code == 200


async def test_a_server_with_lifespan_opens_and_closes_the_store(tmp_path):
    handled = asyncio.Event()

    async def handler(callback):
        handled.set()

    async with receiver(None, "https://hooks.test", store=tmp_path / "callbacks.db") as early:
        app = httpx.ASGITransport(early)
        async with httpx.AsyncClient(transport=app) as client:
            await client.post(early.url(), json=BODY)
    hooks = receiver(None, "https://hooks.test", store=tmp_path / "callbacks.db", on_callback=handler)
    async with uvicorn_of(hooks, lifespan="on"):
        # Begun at the start, not at the first request.
        await asyncio.wait_for(handled.wait(), 60)
    assert [task for task in asyncio.all_tasks() if "callback" in task.get_name()] == []


def test_it_works_under_a_test_client_whose_requests_have_loops_of_their_own(tmp_path):
    bells = Bells()
    hooks = receiver(bells, "https://hooks.test/sxwl", store=tmp_path / "callbacks.db")
    client = TestClient(in_starlette(hooks), base_url="https://hooks.test")
    urls = [hooks.url() for _ in range(5)]
    assert [client.post(url, json=BODY).status_code for url in urls] == [200] * 5
    assert bells.rung == urls
    asyncio.run(hooks.aclose())


# What arrives in other ways than it should


@contextlib.asynccontextmanager
async def hooks_on(bells, kind, **options):
    hooks = receiver(bells, "https://hooks.test", **options)
    served = uvicorn_of(hooks) if kind == "stock" else serve(hooks)
    async with served as root:
        root = root if kind == "stock" else root.url
        yield hooks, int(root.rpartition(":")[2]), hooks.url().rpartition("/")[2]


@pytest.mark.parametrize("kind", ["stock", "ours"])
async def test_ten_megabytes_are_answered_and_their_sender_reads_it(kind):
    bells = Bells()
    async with hooks_on(bells, kind) as (hooks, port, token):

        def send():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", f"/{token}", b" " * 10_000_000, {"content-type": "application/json"})
            with contextlib.closing(connection), connection.getresponse() as response:
                return response.status

        assert await asyncio.to_thread(send) == 413
        assert (hooks.received.refused, bells.rung) == (1, [])


@pytest.mark.parametrize("kind", ["stock", "ours"])
async def test_a_sender_that_goes_away_in_the_middle_leaves_nothing_behind(kind, caplog):
    bells = Bells()
    async with hooks_on(bells, kind) as (hooks, port, token):
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(f"POST /{token} HTTP/1.1\r\nhost: h\r\ncontent-length: 99\r\n\r\n{{".encode())
            async with asyncio.timeout(60):
                while not hooks._at_once:
                    await asyncio.sleep(0.002)
        async with asyncio.timeout(60):
            while hooks._at_once:
                await asyncio.sleep(0.002)
        assert bells.rung == []
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


# The embedded cloud


@pytest.mark.slow
@pytest.mark.parametrize(
    ("generation", "form"),
    [
        (Generation.JAVA, CallbackForm.JAVA),
        (Generation.GO, CallbackForm.GO),
        (Generation.GO, CallbackForm.DOCUMENTED),
    ],
    ids=lambda value: value.name,
)
async def test_the_clouds_callback_ends_a_watch_that_would_not_look_for_minutes(tmp_path, generation, form):
    quirks = CloudQuirks(agent_period=0.05, callbacks=form, callback_copies=2)
    with listening() as listener:
        async with (
            EmbeddedCloud(tmp_path / "cloud", generation=generation, quirks=quirks) as cloud,
            AsyncSession(cloud=cloud.url, token=cloud.token, schedule=SELDOM) as session,
            receiver(session, f"{url_of(listener)}/hooks/", store=tmp_path / "callbacks.db") as hooks,
            serve(Starlette(routes=[Mount("/hooks", app=hooks)]), listener=listener),
        ):
            jobs = [await session.submit(hooks.spec(SPEC)) for _ in range(3)]
            async with asyncio.timeout(60):
                looks = await asyncio.gather(*jobs)
                while cloud.deliveries.sent < 6:
                    await asyncio.sleep(0.01)
            assert {look.status for look in looks} == {JobStatus.SUCCEEDED}
            assert (hooks.received.rung, hooks.received.repeated) == (3, 3)
            assert cloud.deliveries.failed == 0


@pytest.mark.slow
async def test_a_job_of_a_program_that_ended_is_woken_in_the_next_one(tmp_path):
    quirks = CloudQuirks(agent_period=0.05)
    waiting = tmp_path / "wait.sh"
    waiting.write_text(f"while [ ! -e {tmp_path}/listening ]; do sleep 0.02; done\n")
    with listening() as listener:
        base = url_of(listener)
        async with EmbeddedCloud(tmp_path / "cloud", quirks=quirks) as cloud:
            async with AsyncSession(cloud=cloud.url, token=cloud.token) as session:
                spec = attrs.evolve(SPEC, run_command=f"sh {waiting}")
                hooks = receiver(session, base, store=tmp_path / "callbacks.db")
                token = (await session.submit(hooks.spec(spec))).token()
            async with (
                AsyncSession(cloud=cloud.url, token=cloud.token, schedule=SELDOM) as session,
                receiver(session, base, store=tmp_path / "callbacks.db") as hooks,
                serve(hooks, listener=listener),
            ):
                job = session.resume(token)
                waits = asyncio.create_task(job.wait())
                assert (await job.status()).status is JobStatus.WORKING
                (tmp_path / "listening").touch()
                async with asyncio.timeout(60):
                    look = await waits
                assert (look.status, hooks.received.rung) == (JobStatus.SUCCEEDED, 1)
