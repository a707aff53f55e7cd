import asyncio
import io
import json
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from gts_async import _errors
from gts_async.emulator.cloud import CloudQuirks, Generation
from gts_async.local.asgi import EmulatorApp, Worker
from gts_async.local.serving import serve
from gts_async.local.stack import EmbeddedCloud, EmbeddedEngine
from gts_async.wire import Answer, Request

QUICK = CloudQuirks(agent_period=0.05)
JOB = {
    "gpuNumber": 1,
    "gpuType": "NVIDIA-GeForce-RTX-3090",
    "ckptPath": "/workspace/ckpt",
    "ckptVol": "1024",
    "modelPath": "/workspace/model",
    "modelVol": "1024",
    "imagePath": "image",
    "jobType": "GeneralJob",
    "stopType": "0",
}


def client_of(cloud: EmbeddedCloud) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=cloud.url, headers={"Authorization": f"Bearer {cloud.token}"})


async def submitted(client: httpx.AsyncClient, **more: object) -> str:
    answer = await client.post("/userJob", json={**JOB, **more})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job_id"])


async def settled(client: httpx.AsyncClient, job_id: str) -> dict[str, str]:
    async with asyncio.timeout(60):
        while True:
            answer = await client.post("/userJob/job_status", json={"job_id": job_id})
            if answer.status_code == 200 and answer.json()["status"] != "working":
                return dict(answer.json())
            await asyncio.sleep(0.02)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("generation", [Generation.JAVA, Generation.GO])
async def test_a_job_runs_for_real_and_its_model_can_be_fetched(tmp_path: Path, generation: Generation) -> None:
    async with EmbeddedCloud(tmp_path, generation=generation, quirks=QUICK) as cloud:
        assert cloud.url.startswith("http://127.0.0.1:")
        assert cloud.url.endswith("/api")
        async with client_of(cloud) as client, httpx.AsyncClient() as store:
            end = await settled(client, await submitted(client))
            assert end["status"] == "success"
            assert end["url"].startswith(cloud.url.removesuffix("api") + "store/")
            whole = await store.get(end["url"])
            part = await store.get(end["url"], headers={"Range": "bytes=10-"})
            refused = await client.get(end["url"])
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert json.loads(archive.read("/data/model.json"))["slope"] == pytest.approx(1.75, abs=0.05)
    assert (part.status_code, part.content) == (206, whole.content[10:])
    assert part.headers["etag"] == whole.headers["etag"]
    assert refused.status_code == 400


async def test_a_failing_job_fails_and_a_strangers_token_is_refused(tmp_path: Path) -> None:
    async with EmbeddedCloud(tmp_path, quirks=QUICK) as cloud, client_of(cloud) as client:
        assert (await settled(client, await submitted(client, runCommand="false")))["status"] == "fail"
        refusal = await client.post("/userJob", json=JOB, headers={"Authorization": "Bearer x.y.z"})
    assert refusal.status_code == 401


async def test_a_callback_really_arrives_and_is_counted(tmp_path: Path) -> None:
    arrived: list[Request] = []

    def hook(request: Request, now: float) -> Answer:
        arrived.append(request)
        return Answer(204)

    worker = Worker("hook")
    receiving = serve(EmulatorApp(hook, worker, max_body=1 << 20))
    async with receiving as receiver, EmbeddedCloud(tmp_path, quirks=QUICK) as cloud, client_of(cloud) as client:
        job_id = await submitted(client, callbackUrl=f"{receiver.url}/hook?k=secret")
        await until(lambda: cloud.deliveries.sent == 1)
        end = await settled(client, job_id)
        await submitted(client, runCommand="false", callbackUrl="http://127.0.0.1:9/nobody")
        await until(lambda: cloud.deliveries.failed == 1)
    worker.close()
    (request,) = arrived
    assert (request.method, request.path, request.query) == ("POST", "/hook", (("k", "secret"),))
    assert isinstance(request.body, bytes)
    assert json.loads(request.body) == {"jobId": job_id, "status": "success", "url": end["url"]}


async def test_deleting_a_job_kills_its_process(tmp_path: Path) -> None:
    async with EmbeddedCloud(tmp_path, quirks=QUICK) as cloud, client_of(cloud) as client:
        job_id = await submitted(client, runCommand="sleep 60")
        await until((tmp_path / job_id / "output.log").exists)
        await client.post("/userJob/job_del", json={"job_id": job_id})
        await until(lambda: not (tmp_path / job_id).exists())


async def test_leaving_the_block_ends_jobs_tasks_and_server(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    cloud = EmbeddedCloud(tmp_path, quirks=QUICK)
    async with cloud, client_of(cloud) as client:
        job_id = await submitted(client, runCommand="sleep 60")
        await until((tmp_path / job_id / "output.log").exists)
        url, began = cloud.url, time.monotonic()
    assert time.monotonic() - began < 2
    assert asyncio.all_tasks() == before
    assert not (tmp_path / job_id).exists()
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)
    with pytest.raises(_errors.MisuseError):
        cloud.url  # noqa: B018


async def test_every_cloud_has_a_token_of_its_own_that_repr_hides(tmp_path: Path) -> None:
    one, other = EmbeddedCloud(tmp_path), EmbeddedCloud(tmp_path)
    assert one.token != other.token
    assert one.token not in repr(one)
    assert EmbeddedCloud(tmp_path, token="mine").token == "mine"


async def test_an_engine_answers_and_closes_after_a_500(tmp_path: Path) -> None:
    async with EmbeddedEngine(tmp_path) as engine, httpx.AsyncClient(base_url=engine.url) as client:
        created = await client.post(
            "/api/create_task/", json={"task_name": "t", "task_type": "nli", "engine_type": "q"}
        )
        assert created.json() == {"ret_code": 200, "message": "task成功创建", "task_id": "t"}
        assert created.headers["server"] == "uvicorn"
        files = [("files", ("train.json", b"{}\n"))]
        assert (await client.post("/api/upfiles/", data={"task_id": "t"}, files=files)).json()["ret_code"] == 200
        reader, writer = await asyncio.open_connection(*engine.url.removeprefix("http://").split(":"))
        writer.write(b"POST /api/end_inference HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
    assert answer.endswith(b"\r\n\r\nInternal Server Error")
    assert b"connection:" not in answer.lower()


@pytest.mark.parametrize("kind", [EmbeddedEngine, EmbeddedCloud])
async def test_a_taken_port_and_a_second_entry_are_refused(
    tmp_path: Path, kind: Callable[..., EmbeddedEngine | EmbeddedCloud]
) -> None:
    async with kind(tmp_path / "a") as server:
        port = int(server.url.split(":")[2].removesuffix("/api"))
        with pytest.raises(_errors.InvalidArgument, match="port"):
            await kind(tmp_path / "b", port).__aenter__()
        with pytest.raises(_errors.MisuseError):
            await server.__aenter__()


@pytest.mark.parametrize("kind", [EmbeddedEngine, EmbeddedCloud])
async def test_a_missing_extra_is_named_on_entering(
    tmp_path: Path, kind: Callable[..., EmbeddedEngine | EmbeddedCloud], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    server = kind(tmp_path)
    with pytest.raises(_errors.MissingExtra) as missing:
        await server.__aenter__()
    assert missing.value.extra == "local"
    assert "\n" not in str(missing.value)
