"""Every action of a chaos server, as a raw client sees it."""

import asyncio
import socket
import struct
import threading
import time

import httpx
import pytest

from gts_async.testing import ChaosServer, chaos

# Answers


@pytest.mark.parametrize(
    ("action", "sent"),
    [
        (chaos.answer(), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (chaos.answer(404, body=b"no"), b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"),
        (
            chaos.answer(json={"a": "é"}),
            b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"a": "\xc3\xa9"}',
        ),
        (
            chaos.answer(json=None, headers={"Content-Type": "text/x"}),
            b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nContent-Length: 4\r\n\r\nnull",
        ),
        (
            chaos.answer(headers=[("A", "1"), ("A", "2")]),
            b"HTTP/1.1 200 OK\r\nA: 1\r\nA: 2\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            chaos.answer(body=b"abc", headers={"content-length": "9"}),
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",
        ),
        (chaos.answer(204, body=b"x"), b"HTTP/1.1 204 No Content\r\n\r\n"),
        (chaos.answer(304), b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        (chaos.answer(103), b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (chaos.answer(999), b"HTTP/1.1 999 Unknown\r\nContent-Length: 0\r\n\r\n"),
        (chaos.send(b"\x00\xff"), b"\x00\xff"),
    ],
)
async def test_bytes_go_out_as_they_are_meant(server, dial, action, sent):
    server.on_request(action, chaos.close())
    client = await dial(server)
    await client.get()
    assert await client.to_the_end() == sent


async def test_head_is_answered_without_a_body(server):
    server.otherwise(chaos.answer(body=b"four"))
    async with httpx.AsyncClient(base_url=server.url) as client:
        head = await client.head("/")
        assert (head.headers["content-length"], head.content) == ("4", b"")
        assert (await client.get("/")).content == b"four"
    assert server.connections == 1


def test_what_cannot_be_an_action_is_said_at_once():
    with pytest.raises(ValueError, match="either"):
        chaos.answer(json={}, body=b"x")
    with pytest.raises(TypeError):
        chaos.pause()
    with pytest.raises(TypeError):
        chaos.close(1)


def test_actions_are_values_that_show_what_they_do():
    assert chaos.pause(0.5) == chaos.pause(0.5) != chaos.pause(1)
    assert repr(chaos.drip(b"ab", every=0.5)) == "chaos.drip(b'ab', every=0.5)"
    assert repr(chaos.send(b"x" * 1000)) == f"chaos.send(b'{'x' * 58}…)"
    assert repr(chaos.answer(204)) == "chaos.answer(b'HTTP/1.1 204 No Content\\r\\n\\r\\n', b'')"


async def test_a_large_answer_arrives_whole_however_slowly_it_is_read(server, dial):
    body = bytes(range(256)) * 40_000
    server.on_request(chaos.answer(body=body), chaos.close())
    client = await dial(server)
    await client.get()
    await asyncio.sleep(0.02)
    assert (await client.to_the_end()).endswith(body)


async def test_a_drip_comes_in_pieces(server, dial):
    server.on_request(chaos.drip(b"abcde", every=0.01, size=2), chaos.close())
    client = await dial(server)
    await client.get()
    pieces = []
    while piece := await client.receive():
        pieces.append(piece)
    assert b"".join(pieces) == b"abcde"
    # A client that is late gets several at once, but none is divided.
    assert {len(piece) % 2 for piece in pieces[:-1]} <= {0}
    if server._thread is None:
        assert pieces == [b"ab", b"cd", b"e"]


@pytest.mark.parametrize("every", [0.0, 0.001])
async def test_endlessly_ends_with_the_client(server, dial, every):
    server.on_request(chaos.endlessly(b"ab" * 1000, every=every))
    client = await dial(server)
    await client.get()
    assert await client.exactly(100_000) == b"ab" * 50_000
    client.close()
    await server.drained()


# Reading


async def test_read_takes_one_whole_request_and_no_answer_goes_out(server, dial):
    server.on_connection(chaos.read(), chaos.send(b"-"), chaos.read(), chaos.close())
    client = await dial(server)
    await client.get("/1", b"body")
    assert await client.exactly(1) == b"-"
    await client.get("/2")
    assert await client.to_the_end() == b""
    assert [(request.path, request.body) for request in server.requests] == [("/1", b"body"), ("/2", b"")]


async def test_receive_takes_that_many_bytes_and_no_more(server, dial):
    server.on_connection(chaos.receive(7), chaos.send(b"-"), chaos.stall())
    client = await dial(server)
    with pytest.raises(TimeoutError):
        await client.send(b"x" * 50_000_000, within=0.1)
    assert await client.exactly(1) == b"-"
    assert server.received == 7


async def test_what_was_received_is_not_part_of_the_request_that_follows(server, dial):
    server.on_connection(chaos.receive(5))
    server.on_request(chaos.close())
    client = await dial(server)
    await client.send(b"JUNK GET /x HTTP/1.1\r\n\r\n")
    assert await client.to_the_end() == b""
    assert [request.path for request in server.requests] == ["/x"]


async def test_a_connections_own_methods(server, dial):
    seen = []

    async def converse(connection):
        seen.append((connection.number, connection.request, connection.is_open))
        seen.append(await connection.receive(3))
        seen.append((await connection.read_request()).path)
        await connection.send(b"half")
        connection.half_close()
        while data := await connection.receive(100):
            seen.append(data)
        connection.close()
        connection.reset()
        seen.append((connection.is_open, connection.request.path))

    server.on_connection(converse)
    client = await dial(server)
    await client.send(b"abcGET /p HTTP/1.1\r\n\r\nrest")
    assert await client.to_the_end() == b"half"
    client.close()
    await server.drained()
    assert seen == [(0, None, True), b"abc", "/p", b"rest", (False, "/p")]


# Waiting


async def test_a_pause_takes_its_time(server, dial):
    server.on_request(chaos.pause(0.05), chaos.close())
    client = await dial(server)
    started = time.monotonic()
    await client.get()
    assert await client.to_the_end() == b""
    assert time.monotonic() - started >= 0.049


@pytest.mark.parametrize("kind", [asyncio.Event, threading.Event, None], ids=["asyncio", "threading", "function"])
@pytest.mark.parametrize("is_set_before", [False, True])
async def test_an_answer_is_held_until_it_may_go(server, dial, kind, is_set_before):
    event = kind() if kind else threading.Event()
    server.on_request(chaos.hold(event if kind else event.is_set), chaos.answer(), chaos.close())
    if is_set_before:
        event.set()
    client = await dial(server)
    await client.get()
    if not is_set_before:
        await server.until(lambda: server.requests)
        with pytest.raises(TimeoutError):
            await client.receive(within=0.01)
    event.set()
    assert (await client.to_the_end()).startswith(b"HTTP/1.1 200")


async def test_an_event_of_the_servers_loop_need_not_stay_set(dial):
    event = asyncio.Event()
    async with ChaosServer() as server:
        server.on_connection(chaos.hold(event), chaos.send(b"go"))
        client = await dial(server)
        while not event._waiters:
            await asyncio.sleep(0)
        event.set()
        event.clear()
        assert await client.exactly(2) == b"go"


@pytest.mark.parametrize(
    "action",
    [
        chaos.stall(),
        chaos.pause(1000),
        chaos.hold(threading.Event()),
        chaos.drip(b"ab", 1000),
        chaos.endlessly(b"a", 1000),
    ],
    ids=lambda action: action.name,
)
@pytest.mark.parametrize("is_rst", [False, True])
async def test_a_script_ends_when_the_client_goes(server, dial, action, is_rst):
    played = []

    async def note(connection):
        played.append(connection)

    server.on_connection(action, note)
    client = await dial(server)
    # Bytes that nobody reads must not hide the end behind them.
    await client.send(b"unread")
    await server.until(lambda: server.open)
    if is_rst:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    await server.until(lambda: not server.open)
    assert played == []


async def test_a_client_that_goes_with_bytes_it_could_not_send_is_seen_by_whoever_waits_for_it(server, dial):
    server.on_connection(chaos.stall())
    client = await dial(server)
    with pytest.raises(TimeoutError):
        await client.send(b"x" * 50_000_000, within=0.1)
    client.close()
    await server.drained()


async def test_a_stalled_client_gets_nothing_and_keeps_its_connection(server, dial):
    server.on_request(chaos.send(b"HTTP/1.1 2"), chaos.stall())
    client = await dial(server)
    await client.get()
    assert await client.exactly(10) == b"HTTP/1.1 2"
    with pytest.raises(TimeoutError):
        await client.receive(within=0.02)
    assert server.open == 1


async def test_cancelling_a_script_from_within_is_its_own_affair(server, dial):
    async def impatient(connection):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await chaos.stall()(connection)
        await connection.send(b"on")

    server.on_connection(impatient)
    client = await dial(server)
    assert await client.exactly(2) == b"on"


# The end


async def test_close_is_fin_even_if_bytes_were_not_read(server, dial):
    server.on_request(chaos.send(b"last"), chaos.close())
    client = await dial(server)
    await client.send(b"POST / HTTP/1.1\r\n\r\n" + b"unread" * 1000)
    assert await client.to_the_end() == b"last"


async def test_close_before_anything_is_fin(server, dial):
    server.on_connection(chaos.close())
    client = await dial(server)
    assert await client.to_the_end() == b""


async def test_reset_is_rst_after_what_was_sent(server, dial):
    server.on_request(chaos.send(b"part"), chaos.reset())
    client = await dial(server)
    await client.get()
    assert await client.exactly(4) == b"part"
    with pytest.raises(ConnectionResetError):
        await client.receive()
    await server.drained()


async def test_half_close_is_fin_of_one_side_and_the_other_is_read_on(server, dial):
    server.on_request(chaos.send(b"last"), chaos.half_close())
    client = await dial(server)
    await client.get()
    assert await client.to_the_end() == b"last"
    for _ in range(10):
        await client.send(b"x" * 100_000)
    await server.until(lambda: server.received > 1_000_000)
    assert server.open == 1
    client.close()
    await server.drained()


async def test_half_close_may_be_followed_by_reading(server, dial):
    server.on_connection(chaos.half_close(), chaos.read(), chaos.receive(2), chaos.reset())
    client = await dial(server)
    assert await client.to_the_end() == b""
    await client.get("/later", b"")
    await client.send(b"12")
    await server.drained()
    assert [request.path for request in server.requests] == ["/later"]


@pytest.mark.parametrize("action", [chaos.truncate_tls(), chaos.before_handshake(chaos.send(b""), chaos.close())])
async def test_what_is_about_tls_does_the_same_without_it(server, dial, action):
    server.on_connection(action)
    client = await dial(server)
    assert await client.to_the_end() == b""
