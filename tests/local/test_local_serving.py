import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import attrs
import httpx
import pytest

from gts_async import _errors
from gts_async.emulator.cloud import DROPPED
from gts_async.emulator.store import Grant
from gts_async.local.asgi import App, ConnectionCut, EmulatorApp, StoreApp, Worker, routed
from gts_async.local.blobs import CHUNK, FileBlob
from gts_async.local.deliveries import Deliveries
from gts_async.local.serving import listening, serve
from gts_async.wire import Answer, Request

MAX_BODY = 4096


@attrs.define
class Emulator:
    """Answers by path, and keeps what it was asked and by which thread."""

    answers: dict[str, Answer]
    requests: list[Request] = attrs.field(factory=list)
    threads: set[str] = attrs.field(factory=set)
    blocked: threading.Event = attrs.field(factory=threading.Event)

    def answer(self, request: Request, now: float) -> Answer:
        assert abs(now - time.time()) < 60
        self.requests.append(request)
        self.threads.add(threading.current_thread().name)
        if request.path == "/blocked":
            self.blocked.wait(20)
        return self.answers.get(request.path, Answer(200, (("x-kind", "plain"),), b"ok"))


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("toy")
    yield worker
    worker.close()


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    emulator = Emulator(
        {"/500": Answer(500, (("content-type", "text/plain; charset=utf-8"),), b"Internal Server Error")}
    )
    yield emulator
    emulator.blocked.set()


@pytest.fixture
def app(emulator: Emulator, worker: Worker) -> App:
    return EmulatorApp(emulator.answer, worker, max_body=MAX_BODY, closes_after_500=True)


@pytest.fixture
def blob(tmp_path: Path) -> FileBlob:
    path = tmp_path / "data.zip"
    path.write_bytes(os.urandom(5 * CHUNK + 17))
    return FileBlob.of(path)


async def raw(url: str, *requests: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    for request in requests:
        writer.write(request)
    await writer.drain()
    return reader, writer


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.005)


async def test_request_arrives_as_it_was_sent(app: App, emulator: Emulator, worker: Worker) -> None:
    async with serve(app) as served, httpx.AsyncClient() as client:
        answer = await client.post(
            f"{served.url}/api/a%2Fb%20c/?q=%E5%90%8D&q=&z=1%2B1", content=b"\x00body", headers={"X-Mixed": "Case"}
        )
    assert (answer.status_code, answer.headers["x-kind"], answer.content) == (200, "plain", b"ok")
    (request,) = emulator.requests
    assert (request.method, request.path, request.body) == ("POST", "/api/a%2Fb%20c/", b"\x00body")
    assert request.query == (("q", "名"), ("q", ""), ("z", "1+1"))
    assert request.header("x-mixed") == "Case"
    assert request.header("host") == served.url.removeprefix("http://")


async def test_same_application_works_without_a_socket(emulator: Emulator, worker: Worker) -> None:
    app = EmulatorApp(emulator.answer, worker, max_body=MAX_BODY)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client:
        answer = await client.post("/a%2Fb?x=1", content=b"body")
    assert answer.content == b"ok"
    assert emulator.requests[0].path == "/a%2Fb"
    assert emulator.requests[0].query == (("x", "1"),)


async def test_one_thread_enters_the_emulator_and_the_loop_goes_on(app: App, emulator: Emulator) -> None:
    async with serve(app) as served, httpx.AsyncClient(base_url=served.url) as client:
        blocked = asyncio.create_task(client.get("/blocked"))
        await until(lambda: bool(emulator.requests))
        behind = [asyncio.create_task(client.get(f"/{n}")) for n in range(5)]
        await asyncio.sleep(0)
        assert len(emulator.requests) == 1
        emulator.blocked.set()
        assert {(await answer).status_code for answer in (blocked, *behind)} == {200}
    assert len(emulator.requests) == 6
    assert len(emulator.threads) == 1
    assert threading.current_thread().name not in emulator.threads


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_body_beyond_the_limit_is_answered_413(app: App, emulator: Emulator, is_announced: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(1000)

    async with serve(app) as served, httpx.AsyncClient(base_url=served.url) as client:
        answer = await client.post("/", content=bytes(MAX_BODY + 1) if is_announced else chunks())
        assert (answer.status_code, answer.content) == (413, b"")
        assert (await client.post("/", content=bytes(MAX_BODY))).status_code == 200
    assert [len(request.body) for request in emulator.requests] == [MAX_BODY]


async def test_a_request_that_breaks_off_is_not_answered(app: App, emulator: Emulator) -> None:
    async with serve(app) as served:
        _, writer = await raw(served.url, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        writer.close()
        await writer.wait_closed()
        async with httpx.AsyncClient(base_url=served.url) as client:
            await client.get("/after")
    assert [request.path for request in emulator.requests] == ["/after"]


async def test_a_500_closes_its_connection_unannounced_and_unlogged(
    app: App, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG, "uvicorn"), caplog.at_level(logging.DEBUG, "gts_async"):
        async with serve(app) as served:
            reader, writer = await raw(served.url, b"GET /500 HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = (await asyncio.wait_for(reader.read(), 60)).decode()
            writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 500 ")
    assert body == "Internal Server Error"
    assert "connection" not in head.lower()
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []
    assert capfd.readouterr().err == ""


async def test_a_dropped_answer_ends_the_connection_without_a_byte(
    app: App, emulator: Emulator, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    emulator.answers["/dropped"] = DROPPED
    async with serve(app) as served, httpx.AsyncClient(base_url=served.url) as client:
        reader, writer = await raw(served.url, b"POST /dropped HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            await client.post("/dropped")
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []
    assert capfd.readouterr().err == ""


async def test_without_a_socket_500s_are_plain_and_drops_are_errors(app: App, emulator: Emulator) -> None:
    emulator.answers["/dropped"] = DROPPED
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client:
        assert (await client.get("/500")).status_code == 500
        with pytest.raises(ConnectionCut):
            await client.get("/dropped")


async def test_other_answers_keep_their_connection(app: App) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serve(app, name="uvicorn") as served:
        reader, writer = await raw(served.url)
        for _ in range(3):
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            assert await reader.readexactly(2) == b"ok"
        writer.close()
    assert sorted(line.split(":")[0] for line in head.splitlines()[1:-1]) == [
        "content-length",
        "date",
        "server",
        "x-kind",
    ]


async def test_an_emulator_that_raises_is_a_500_and_is_logged(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    def broken(request: Request, now: float) -> Answer:
        raise LookupError("a fault of ours")

    async with serve(EmulatorApp(broken, worker, max_body=1)) as served, httpx.AsyncClient() as client:
        assert (await client.get(served.url)).status_code == 500
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("a fault of ours",)]


def granting(blob: FileBlob, start: int, stop: int) -> Callable[[Request, float], Grant | Answer]:
    headers = (("content-length", str(stop - start)), ("etag", blob.etag))

    def grant(request: Request, now: float) -> Grant | Answer:
        if request.header("authorization"):
            return Answer(403, (), b"no")
        return Grant(status=206, headers=headers, blob=blob, start=start, stop=stop)

    return grant


@pytest.mark.parametrize("start", [0, 5, CHUNK, 2 * CHUNK - 1, 5 * CHUNK + 16, 5 * CHUNK + 17])
async def test_store_streams_what_was_granted(blob: FileBlob, worker: Worker, start: int) -> None:
    app = StoreApp(granting(blob, start, blob.size), worker)
    async with serve(app) as served, httpx.AsyncClient() as client:
        answer = await client.get(f"{served.url}/store/x")
        refusal = await client.get(f"{served.url}/store/x", headers={"Authorization": "Bearer t"})
    assert (answer.status_code, answer.headers["etag"]) == (206, blob.etag)
    assert answer.content == blob.path.read_bytes()[start:]
    assert (refusal.status_code, refusal.content) == (403, b"no")


async def test_store_stops_reading_once_the_client_has_left(blob: FileBlob, worker: Worker) -> None:
    size, reads = 1 << 40, []

    @attrs.frozen
    class Endless:
        size: int
        etag: str

        def read(self, start: int, stop: int) -> bytes:
            reads.append(start)
            return bytes(stop - start)

    async with serve(StoreApp(granting(Endless(size, '"e"'), 0, size), worker)) as served:
        reader, writer = await raw(served.url, b"GET /store/x HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readexactly(CHUNK)
        writer.transport.abort()
        before = -1
        async with asyncio.timeout(60):
            while before != len(reads):
                before = len(reads)
                await asyncio.sleep(0.1)


async def test_a_file_that_is_gone_breaks_the_answer_off(blob: FileBlob, worker: Worker) -> None:
    blob.path.unlink()
    async with serve(StoreApp(granting(blob, 0, blob.size), worker)) as served, httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"{served.url}/store/x")


async def test_paths_find_their_application(app: App, blob: FileBlob, worker: Worker) -> None:
    both = routed("/store/", StoreApp(granting(blob, 1, 3), worker), app)
    async with serve(both) as served, httpx.AsyncClient(base_url=served.url) as client:
        assert (await client.get("/store/a")).content == blob.read(1, 3)
        assert (await client.get("/stores")).content == b"ok"


def test_listeners_are_tcp_by_name_so_that_asyncio_sends_without_delay() -> None:
    with listening() as listener:
        assert listener.proto == socket.IPPROTO_TCP


async def test_a_taken_port_is_refused_by_name(app: App) -> None:
    async with serve(app) as served:
        port = int(served.url.rpartition(":")[2])
        with pytest.raises(_errors.InvalidArgument, match=str(port)) as refusal:
            async with serve(app, port=port):
                pass
    assert refusal.value.argument == "port"


@pytest.mark.parametrize(
    ("host", "port", "argument"), [("no.such.host.invalid", 0, "host"), ("127.0.0.1", 70000, "port")]
)
def test_an_address_that_cannot_be_is_refused_by_name(host: str, port: int, argument: str) -> None:
    with pytest.raises(_errors.InvalidArgument) as refusal:
        listening(host, port)
    assert refusal.value.argument == argument


async def test_a_port_is_free_again_at_once(app: App) -> None:
    async with serve(app) as served, httpx.AsyncClient() as client:
        await client.get(served.url)
        port = int(served.url.rpartition(":")[2])
    async with serve(app, port=port) as again, httpx.AsyncClient() as client:
        assert again.url == served.url
        assert (await client.get(again.url)).status_code == 200


async def test_closing_is_bounded_whatever_clients_do(
    app: App, emulator: Emulator, blob: FileBlob, worker: Worker
) -> None:
    both = routed("/store/", StoreApp(granting(blob, 0, blob.size), worker), app)
    get = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
    before = asyncio.all_tasks()
    async with serve(both) as served:
        clients = [
            await raw(served.url),
            await raw(served.url, b"GET / HT"),
            await raw(served.url, get % b"/idle"),
            await raw(served.url, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf"),
            await raw(served.url, get % b"/store/never-read"),
            await raw(served.url, get % b"/blocked"),
        ]
        await until(lambda: len(emulator.requests) == 2)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert asyncio.all_tasks() == before
    for _, writer in clients:
        writer.transport.abort()


async def test_closing_lets_an_answer_finish(app: App, emulator: Emulator) -> None:
    async with httpx.AsyncClient() as client:
        async with serve(app) as served:
            asked = asyncio.create_task(client.get(f"{served.url}/blocked"))
            await until(lambda: bool(emulator.requests))
            asyncio.get_running_loop().call_later(0.1, emulator.blocked.set)
        assert (await asked).content == b"ok"
        with pytest.raises(httpx.ConnectError):
            await client.get(served.url)


async def test_cancelling_the_block_closes_the_server(app: App) -> None:
    urls: asyncio.Queue[str] = asyncio.Queue()

    async def block() -> None:
        async with serve(app) as served:
            urls.put_nowait(served.url)
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    url = await urls.get()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_signals_stay_with_the_program(app: App) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with serve(app):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize(
    ("status", "location", "arrived"),
    [
        (200, None, [("POST", "/hook", b"{}")]),
        (500, None, [("POST", "/hook", b"{}")]),
        (307, "/elsewhere", [("POST", "/hook", b"{}"), ("POST", "/elsewhere", b"{}")]),
        (302, "/elsewhere", [("POST", "/hook", b"{}"), ("GET", "/elsewhere", b"")]),
        (302, "file:///etc/passwd", [("POST", "/hook", b"{}")]),
    ],
)
async def test_deliveries_are_posted_once_and_counted(
    emulator: Emulator, worker: Worker, status: int, location: str | None, arrived: list[tuple[str, str, bytes]]
) -> None:
    headers = () if location is None else (("location", location),)
    emulator.answers["/hook"] = Answer(status, headers, b"")
    deliveries = Deliveries()
    async with serve(EmulatorApp(emulator.answer, worker, max_body=MAX_BODY)) as served:
        deliveries.begin(f"{served.url}/hook?t=1", (("content-type", "application/json"), ("user-agent", "x")), b"{}")
        await until(lambda: deliveries.sent + deliveries.failed > 0)
    assert [(request.method, request.path, request.body) for request in emulator.requests] == arrived
    request = emulator.requests[0]
    assert request.query == (("t", "1"),)
    assert (request.header("content-type"), request.header("user-agent")) == ("application/json", "x")
    assert (deliveries.sent, deliveries.failed) == (1, 0)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "nonsense", "http://127.0.0.1:x/", ""])
async def test_a_delivery_that_cannot_be_made_is_counted_and_harmless(url: str) -> None:
    deliveries = Deliveries()
    deliveries.begin(url, (), b"{}")
    await until(lambda: deliveries.failed == 1)
    assert deliveries.sent == 0


async def test_a_delivery_to_a_closed_port_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    deliveries = Deliveries()
    deliveries.begin(f"http://127.0.0.1:{port}/", (), b"{}")
    await until(lambda: deliveries.failed == 1)
    assert deliveries.sent == 0
