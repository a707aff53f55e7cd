"""Slots against real sockets: what a mock cannot show."""

import asyncio
import ssl

import httpx
import pytest

from gts_async._net.slots import SlotTransport

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\nno"


class Server:
    """Answers every request with `reply`; counts connections, and may hold answers back."""

    def __init__(self, reply=GOOD):
        self.reply = reply
        self.connections = 0
        self.open = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        self.connections += 1
        self.open += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await self.may_answer.wait()
                writer.write(self.reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


async def no_context():
    raise AssertionError("plain http needs no certificates")


def transport(**options):
    return SlotTransport(**{"max_connections": 2, "ssl_context": no_context, **options})


async def drained(server):
    """Wait until the server has seen all its connections go."""
    async with asyncio.timeout(5):
        while server.open:
            await asyncio.sleep(0.01)


async def test_a_clean_exchange_leaves_its_connection_for_the_next():
    async with Server() as server, httpx.AsyncClient(transport=transport()) as client:
        for _ in range(5):
            assert (await client.get(server.url)).text == "ok"
        assert server.connections == 1


async def test_a_5xx_throws_the_connection_away_because_the_engine_closes_it_unannounced():
    async with Server(FAILED) as server, httpx.AsyncClient(transport=transport()) as client:
        for _ in range(3):
            assert (await client.get(server.url)).status_code == 500
        assert server.connections == 3


async def test_no_more_connections_than_allowed_and_the_rest_wait_their_turn():
    slots = transport(max_connections=3)
    async with Server() as server, httpx.AsyncClient(transport=slots, timeout=None) as client:
        server.may_answer.clear()
        tasks = [asyncio.create_task(client.get(server.url)) for _ in range(10)]
        while server.connections < 3:
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert (server.connections, slots.in_use) == (3, 3)
        server.may_answer.set()
        assert [r.text for r in await asyncio.gather(*tasks)] == ["ok"] * 10
        assert (server.connections, slots.in_use, slots.idle) == (3, 0, 3)


async def test_waiting_for_a_connection_ends_as_a_pool_timeout():
    async with Server() as server, httpx.AsyncClient(transport=transport(max_connections=1)) as client:
        server.may_answer.clear()
        first = asyncio.create_task(client.get(server.url, timeout=None))
        while server.connections < 1:
            await asyncio.sleep(0)
        with pytest.raises(httpx.PoolTimeout):
            await client.get(server.url, timeout=httpx.Timeout(5, pool=0.01))
        server.may_answer.set()
        assert (await first).text == "ok"


@pytest.mark.parametrize("is_warm", [False, True])
async def test_cancelling_at_any_turn_of_the_loop_loses_no_slot(is_warm):
    slots = transport(max_connections=1)
    async with Server() as server, httpx.AsyncClient(transport=slots, timeout=5) as client:
        for turns in range(41):
            if is_warm:
                await client.get(server.url)
            task = asyncio.create_task(client.get(server.url))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert slots.in_use == 0
            assert (await client.get(server.url)).text == "ok"
        assert server.open <= 2
    await drained(server)


async def test_an_answer_that_was_not_read_to_its_end_takes_its_connection_with_it():
    async with Server() as server, httpx.AsyncClient(transport=transport()) as client:
        async with client.stream("GET", server.url) as response:
            assert response.status_code == 200
        assert (await client.get(server.url)).text == "ok"
        assert server.connections == 2


async def test_idle_connections_expire_before_the_server_drops_them():
    slots = transport(keepalive_expiry=0.05)
    async with Server() as server, httpx.AsyncClient(transport=slots) as client:
        await client.get(server.url)
        assert slots.idle == 1
        await drained(server)
        assert slots.idle == 0


async def test_closing_closes_every_connection():
    async with Server() as server:
        async with httpx.AsyncClient(transport=transport()) as client:
            await asyncio.gather(client.get(server.url), client.get(server.url))
        await drained(server)
        assert server.connections == 2


async def test_a_connection_that_cannot_be_made_gives_its_place_back():
    slots = transport(max_connections=1)
    async with httpx.AsyncClient(transport=slots) as client:
        for _ in range(3):
            with pytest.raises(httpx.ConnectError):
                await client.get("http://127.0.0.1:1/")
        assert slots.in_use == 0


async def test_certificates_are_asked_for_once_per_new_https_slot():
    asked = []

    async def context():
        asked.append(1)
        return ssl.create_default_context()

    async with httpx.AsyncClient(transport=transport(ssl_context=context)) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("https://127.0.0.1:1/")
    assert asked == [1]
