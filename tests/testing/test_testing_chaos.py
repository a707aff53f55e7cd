"""The chaos server itself: which script meets whom, what it records, how it refuses, restarts and ends."""

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import threading

import httpx
import pytest

from gts_async import MisuseError
from gts_async.testing import ChaosServer, chaos

WELL = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


# Which script meets whom


async def test_a_request_that_no_script_waits_for_gets_an_empty_document(server, dial):
    client = await dial(server)
    for _ in range(2):
        await client.get()
        assert await client.exactly(len(WELL)) == WELL


async def test_scripts_are_played_once_each_in_their_order_whatever_the_connection(server, dial):
    server.otherwise(chaos.send(b"o"))
    server.on_request(chaos.send(b"1"), chaos.send(b"2"))
    server.on_request(chaos.send(b"3"))
    one, other = await dial(server), await dial(server)
    seen = b""
    for client, length in [(one, 2), (other, 1), (one, 1), (other, 1)]:
        await client.get()
        seen += await client.exactly(length)
    assert seen == b"123oo"


async def test_the_script_of_a_connection_starts_before_anything_is_read_and_requests_are_served_after_it(server, dial):
    server.on_connection(chaos.send(b"hello"))
    first, second = await dial(server), await dial(server)
    assert await first.exactly(5) == b"hello"
    await first.get()
    assert await first.exactly(len(WELL)) == WELL
    await second.get()
    assert await second.exactly(len(WELL)) == WELL


async def test_a_function_is_an_action_too_and_may_play_others(server, dial):
    async def echo(connection):
        await chaos.answer(body=connection.request.body)(connection)
        assert connection.is_open
        connection.close()

    server.on_request(echo)
    client = await dial(server)
    await client.get(body=b"again")
    assert (await client.to_the_end()).endswith(b"\r\n\r\nagain")


async def test_forgetting_drops_what_waits_and_what_otherwise_was_told(server, dial):
    server.on_connection(chaos.close())
    server.on_request(chaos.close())
    server.otherwise(chaos.close())
    server.forget()
    client = await dial(server)
    await client.get()
    assert await client.exactly(len(WELL)) == WELL


# What it saw


async def test_requests_are_recorded_whole(server, dial):
    client = await dial(server)
    sent = b"PUT /a/b?c=d HTTP/1.1\r\nHost: h\r\nX-Two:  1 \r\nx-two: 2\r\nContent-Length: 3\r\n\r\n123"
    await client.send(sent)
    await client.exactly(len(WELL))
    assert server.requests == [
        chaos.ChaosRequest(
            "PUT", "/a/b?c=d", (("host", "h"), ("x-two", "1"), ("x-two", "2"), ("content-length", "3")), b"123", 0
        )
    ]
    [request] = server.requests
    assert (request.path, request.header("X-TWO"), request.header("x-none")) == ("/a/b", "1", None)
    assert server.received == len(sent)


async def test_a_chunked_body_is_put_together_and_its_trailers_are_passed_over(server, dial):
    client = await dial(server)
    pieces = (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n0a\r\n0123456789\r\n0\r\nX: 1\r\n\r\n"
    )
    for at in range(len(pieces)):
        await client.send(pieces[at : at + 1])
    await client.exactly(len(WELL))
    await client.get("/next")
    await client.exactly(len(WELL))
    assert [(request.target, request.body) for request in server.requests] == [("/", b"abc0123456789"), ("/next", b"")]


async def test_requests_that_come_at_once_are_served_one_after_the_other(server, dial):
    client = await dial(server)
    await client.send(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
    assert await client.exactly(2 * len(WELL)) == 2 * WELL
    assert [request.path for request in server.requests] == ["/1", "/2"]


async def test_connections_are_counted_and_numbered(server, dial):
    assert (server.connections, server.open, server.most_open) == (0, 0, 0)
    first, second = await dial(server), await dial(server)
    await server.until(lambda: server.open == 2)
    first.close()
    await server.until(lambda: server.open == 1)
    third = await dial(server)
    for client in (second, third):
        await client.get()
        await client.exactly(len(WELL))
    assert (server.connections, server.open, server.most_open) == (3, 2, 2)
    assert [request.connection for request in server.requests] == [1, 2]


async def test_waiting_is_bounded(server, dial):
    await dial(server)
    await server.until(lambda: server.open)
    with pytest.raises(TimeoutError, match="1 connections, 1 open, 0 requests"):
        await server.drained(within=0.01)
    with pytest.raises(TimeoutError):
        await server.until(lambda: False, within=0)


async def test_drained_is_when_the_last_client_has_gone(server, dial):
    clients = [await dial(server) for _ in range(3)]
    await server.until(lambda: server.open == 3)
    for client in clients:
        client.close()
    await server.drained()
    assert (server.open, server.most_open) == (0, 3)


# What befalls everybody


async def test_a_refusing_server_keeps_its_connections_and_its_port(server, dial):
    client = await dial(server)
    await server.until(lambda: server.open)
    port = server.port
    server.refuse()
    with pytest.raises(ConnectionRefusedError):
        await dial(server)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    await client.get()
    assert await client.exactly(len(WELL)) == WELL
    server.accept()
    assert server.port == port
    again = await dial(server)
    await again.get()
    assert await again.exactly(len(WELL)) == WELL


async def test_with_a_full_backlog_connections_hang_in_the_handshake(server, dial):
    before = await dial(server)
    with server.fill_backlog():
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await dial(server, within=0.03)
        await before.get()
        assert await before.exactly(len(WELL)) == WELL
        assert server.connections == 1
    after = await dial(server)
    await after.get()
    assert await after.exactly(len(WELL)) == WELL
    assert (server.connections, server.open) == (2, 2)


async def test_refusing_and_accepting_end_a_full_backlog_and_only_who_listens_can_have_one(server, dial):
    for end, refuses in ((server.refuse, True), (server.accept, False)):
        with server.fill_backlog():
            with pytest.raises(MisuseError, match="hang"), server.fill_backlog():
                pass
            end()
        if refuses:
            with pytest.raises(ConnectionRefusedError):
                await dial(server)
            with pytest.raises(MisuseError, match="hang"), server.fill_backlog():
                pass
            server.accept()
        client = await dial(server)
        await client.get()
        assert await client.exactly(len(WELL)) == WELL
    assert server.connections == 2


@pytest.mark.parametrize("reset", [False, True])
async def test_hanging_up_ends_all_connections_and_what_is_played_to_them(server, dial, reset):
    server.on_connection(chaos.stall())
    server.on_connection(chaos.endlessly(b"x" * 100_000))
    server.on_connection(chaos.read())
    clients = [await dial(server) for _ in range(4)]
    await server.until(lambda: server.open == 4)
    server.hang_up(reset=reset)
    assert server.open == 0
    for client in clients:
        if reset:
            with pytest.raises(ConnectionResetError):
                await client.to_the_end()
        else:
            await client.to_the_end()
    again = await dial(server)
    await again.get()
    assert await again.exactly(len(WELL)) == WELL


# How it lives


def tasks_of_servers():
    return [
        task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "").startswith("ChaosServer")
    ]


def open_descriptors():
    return set(os.listdir("/proc/self/fd"))


async def test_leaving_closes_everything_whatever_is_being_played(dial):
    own_tasks, descriptors = asyncio.all_tasks(), open_descriptors()
    async with ChaosServer() as server:
        for action in (chaos.stall(), chaos.pause(1000), chaos.hold(asyncio.Event()), chaos.read(), chaos.half_close()):
            server.on_connection(action)
        server.on_connection(chaos.endlessly(b"x" * 100_000))
        clients = [await dial(server) for _ in range(7)]
        await server.until(lambda: server.open == 7)
        assert asyncio.all_tasks() - own_tasks == set(tasks_of_servers())
        assert len(tasks_of_servers()) == 7
        port = server.port
    assert asyncio.all_tasks() == own_tasks
    for client in clients:
        await client.to_the_end()
        client.close()
    assert open_descriptors() == descriptors
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass
    gc.collect()


def test_leaving_ends_the_thread_and_closes_everything():
    threads, descriptors = threading.active_count(), open_descriptors()
    with ChaosServer() as server:
        server.on_connection(chaos.stall())
        assert threading.active_count() == threads + 1
        client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        with client:
            while not server.open:
                pass
            server.hang_up()
            assert client.recv(1) == b""
    assert threading.active_count() == threads
    assert open_descriptors() == descriptors


async def test_a_server_is_entered_once_and_used_while_it_runs():
    server = ChaosServer()
    for use in (lambda: server.port, lambda: server.url, server.refuse, server.accept, server.hang_up):
        with pytest.raises(MisuseError, match="does not run"):
            use()
    assert repr(server) == "<ChaosServer not running>"
    async with server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        with pytest.raises(MisuseError, match="no TLS"):
            _ = server.ca_file
    for again in (server.__aenter__(), asyncio.to_thread(server.__enter__)):
        with pytest.raises(MisuseError, match="once"):
            await again


# Scripts that are wrong themselves


async def broken(connection):
    raise LookupError("the script's own mistake")


async def send_after_the_end(connection):
    connection.half_close()
    await connection.send(b"more")


async def read_after_the_end(connection):
    connection.close()
    await connection.receive(1)


async def fail(connection):
    pytest.fail("this must not be asked")


async def wait_for_what_is_cancelled(connection):
    task = asyncio.create_task(asyncio.sleep(1000))
    task.cancel()
    await task


@pytest.mark.parametrize(
    ("script", "fault", "text"),
    [
        ((broken,), LookupError, "own mistake"),
        ((chaos.close(), chaos.answer()), RuntimeError, r"chaos.answer\(.* after the end"),
        ((send_after_the_end,), RuntimeError, "nothing can be sent"),
        ((read_after_the_end,), RuntimeError, "nothing can be done"),
        ((chaos.pause(0), chaos.send("text")), TypeError, "bytes-like"),
        ((fail,), pytest.fail.Exception, "must not be asked"),
        ((wait_for_what_is_cancelled,), RuntimeError, "cancelled from within"),
    ],
)
@pytest.mark.parametrize("lives", ["on_connection", "on_request", "otherwise"])
async def test_a_fault_of_a_script_is_raised_when_the_server_is_left(dial, script, fault, text, lives):
    async def meet_it(server):
        client = await dial(server)
        with contextlib.suppress(ConnectionError):
            await client.get()
        await server.drained()

    with pytest.raises(fault, match=text):
        async with ChaosServer() as server:
            getattr(server, lives)(*script)
            await meet_it(server)


def test_a_fault_is_raised_from_the_thread_too_and_several_are_grouped():
    with pytest.raises(ExceptionGroup) as caught, ChaosServer() as server:
        server.otherwise(broken)
        for _ in range(2):
            with pytest.raises(httpx.ReadError):
                httpx.get(server.url)
    assert [type(error) for error in caught.value.exceptions] == [LookupError] * 2


async def test_a_fault_does_not_hide_what_failed_in_the_block():
    with pytest.raises(httpx.ReadError) as caught:
        async with ChaosServer() as server, httpx.AsyncClient() as client:
            server.on_request(broken)
            await client.get(server.url)
    assert "own mistake" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "text",
    [b"what is this\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"x" * 1_100_000],
    ids=["first line", "length", "endless"],
)
async def test_what_is_not_http_is_a_fault_of_the_test(dial, text):
    with pytest.raises(ValueError, match=r"request|invalid literal"):
        async with ChaosServer() as server:
            client = await dial(server)
            await client.send(text)
            await server.drained()


async def test_a_client_that_goes_in_the_middle_is_no_fault(server, dial):
    for sent in (b"", b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n123"):
        client = await dial(server)
        await client.send(sent)
        client.close()
    await server.until(lambda: server.connections == 3)
    await server.drained()
    assert server.requests == []


# With httpx


async def test_an_httpx_client_keeps_its_connection(server):
    async with httpx.AsyncClient(base_url=server.url) as client:
        for number in range(5):
            server.on_request(chaos.answer(json=number))
            assert (await client.post("/n", json=number)).json() == number
    await server.drained()
    assert server.connections == 1
    assert [request.body for request in server.requests] == [b"0", b"1", b"2", b"3", b"4"]


def test_the_fixtures_serve_programs_without_a_loop(chaos_server, chaos_tls_server):
    context = ssl.create_default_context(cafile=chaos_tls_server.ca_file)
    for server in (chaos_server, chaos_tls_server):
        server.on_request(chaos.answer(503))
        assert [httpx.get(server.url, verify=context).status_code for _ in range(2)] == [503, 200]
        assert len(server.requests) == 2
