"""What a server sends beyond its answer is nobody's answer: such a connection is not used again."""

import asyncio
import ssl

import httpx
import pytest

from gts_async._net.slots import SlotTransport
from gts_async.testing import ChaosServer, chaos

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n%s"
FIRST, SECOND = ANSWER % b"#1", ANSWER % b"#2"


async def sent_in_two(connection):
    """Two writes are two records of TLS, which one read of the socket may bring together."""
    await connection.send(FIRST)
    await connection.send(SECOND)


LEFTOVERS = {
    "a second answer with the first": chaos.send(FIRST + SECOND),
    "a second answer right after": sent_in_two,
    "a line feed": chaos.send(FIRST + b"\r\n"),
    "a body where there is none": chaos.send(b"HTTP/1.1 204 No Content\r\n\r\n" + SECOND),
}


@pytest.fixture(params=[False, True], ids=["http", "https"])
async def server(request):
    async with ChaosServer(tls=request.param) as server:
        yield server


@pytest.fixture
async def client(server):
    async def context():
        return ssl.create_default_context(cafile=server.ca_file)

    slots = SlotTransport(max_connections=1, ssl_context=context)
    async with httpx.AsyncClient(transport=slots, trust_env=False) as client:
        yield client
        assert slots.in_use == 0


@pytest.mark.parametrize("name", LEFTOVERS)
async def test_what_comes_after_an_answer_is_not_taken_for_the_next_one(server, client, name):
    server.on_request(LEFTOVERS[name])
    server.otherwise(chaos.answer(body=b"#3"))
    assert (await client.get(server.url)).text in ("#1", "")
    assert (await client.get(server.url)).text == "#3"
    assert [request.connection for request in server.requests] == [0, 1]


async def test_what_comes_later_is_not_taken_for_the_next_answer(server, client):
    may_send, has_sent = asyncio.Event(), asyncio.Event()

    async def send_late(connection):
        await connection.send(FIRST)
        await may_send.wait()
        await connection.send(SECOND)
        has_sent.set()

    server.on_request(send_late)
    server.otherwise(chaos.answer(body=b"#3"))
    assert (await client.get(server.url)).text == "#1"
    may_send.set()
    await has_sent.wait()
    assert (await client.get(server.url)).text == "#3"
    assert [request.connection for request in server.requests] == [0, 1]


async def test_a_connection_without_leftovers_is_used_again(server, client):
    server.otherwise(chaos.answer(body=b"#3"))
    for _ in range(3):
        assert (await client.get(server.url)).text == "#3"
    assert server.connections == 1


async def test_a_connection_that_ended_with_its_answer_is_not_used_again(server, client):
    server.on_request(chaos.send(FIRST), chaos.close())
    server.otherwise(chaos.answer(body=b"#3"))
    assert (await client.get(server.url)).text == "#1"
    await server.drained()
    assert (await client.get(server.url)).text == "#3"
    assert server.connections == 2
