"""EmulatorTransport: what the servers are asked, and what comes back."""

import asyncio

import httpx
import pytest

from gts_async.emulator.cloud import DROPPED
from gts_async.testing import EmulatorTransport, faults
from gts_async.wire import Answer


class Echo:
    """Answers with what it was asked, as text."""

    def __init__(self):
        self.asked = []

    def answer(self, request, now):
        self.asked.append((request, now))
        return Answer(200, (("x-now", str(now)),), f"{request.method} {request.path}".encode())


@pytest.fixture
def server():
    return Echo()


@pytest.fixture
def transport(server):
    return EmulatorTransport({"http://engine.test": server, "https://cloud.test:8443": server}, lambda: 1.5)


@pytest.fixture
async def client(transport):
    async with httpx.AsyncClient(transport=transport) as client:
        yield client


async def test_the_server_of_the_origin_is_asked_with_the_time(client, server):
    answer = await client.post("http://engine.test/api/x", json={"a": 1}, params={"q": "a b"}, headers={"X-Y": "z"})
    (request, now) = server.asked[0]
    assert (answer.status_code, answer.text, answer.headers["x-now"], now) == (200, "POST /api/x", "1.5", 1.5)
    assert (request.method, request.path, request.query, request.body) == (
        "POST",
        "/api/x",
        (("q", "a b"),),
        b'{"a":1}',
    )
    assert request.header("x-y") == "z"


async def test_a_port_is_part_of_the_origin(client):
    assert (await client.get("https://cloud.test:8443/")).status_code == 200
    with pytest.raises(httpx.ConnectError, match=r"cloud\.test"):
        await client.get("https://cloud.test/")


async def test_a_path_is_handed_on_as_it_was_encoded(client, server):
    await client.get("http://engine.test/a%2Fb/%E4%BD%A0")
    assert server.asked[0][0].path == "/a%2Fb/%E4%BD%A0"


async def test_a_streamed_body_arrives_whole(client, server):
    async def pieces():
        yield b"ab"
        yield b"cd"

    await client.post("http://engine.test/", content=pieces())
    assert server.asked[0][0].body == b"abcd"


async def test_a_fault_before_keeps_the_request_from_the_server_and_one_after_does_not(client, transport, server):
    transport.faults += [faults.cut(is_after=False), faults.cut()]
    for seen in (0, 1):
        with pytest.raises(httpx.ReadError):
            await client.get("http://engine.test/")
        assert len(server.asked) == len(transport.seen) == seen
    assert (await client.get("http://engine.test/")).status_code == 200


async def test_an_answer_that_the_cloud_drops_is_a_connection_that_ends_without_one():
    class Dropping(Echo):
        def answer(self, request, now):
            super().answer(request, now)
            return DROPPED

    server = Dropping()
    async with httpx.AsyncClient(transport=EmulatorTransport({"http://cloud.test": server}, lambda: 0.0)) as client:
        with pytest.raises(httpx.RemoteProtocolError, match="disconnected"):
            await client.get("http://cloud.test/")
    assert len(server.asked) == 1


async def test_faults_meet_the_requests_they_are_for_in_order(client, transport):
    transport.faults += [faults.status(500, path="/a"), faults.status(501), faults.status(502, path="/a")]
    codes = [(await client.get(f"http://engine.test/{path}")).status_code for path in ("b", "a", "a", "a", "b")]
    assert codes == [501, 500, 502, 200, 200]


async def test_requests_are_really_on_their_way_so_that_they_can_be_cancelled(client, server, transport):
    seen = set()
    for turns in range(12):
        before = len(server.asked)
        task = asyncio.create_task(client.get("http://engine.test/"))
        for _ in range(turns):
            await asyncio.sleep(0)
        is_done = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        seen.add((len(server.asked) - before, is_done))
    # Cancelled before the server was asked, after it, and not at all.
    assert seen == {(0, False), (1, False), (1, True)}
