"""Slots against real sockets: what a mock cannot show."""

import asyncio
import random
import ssl

import httpx
import pytest

from gts_async import MisuseError
from gts_async._net.slots import DRAINING_TIME, SlotTransport

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


async def test_closing_tells_whoever_waits_for_a_connection():
    slots = transport(max_connections=1)
    async with Server() as server, httpx.AsyncClient(transport=slots, timeout=None) as client:
        server.may_answer.clear()
        first = asyncio.create_task(client.get(server.url))
        while server.connections < 1:
            await asyncio.sleep(0)
        waiting = [asyncio.create_task(client.get(server.url)) for _ in range(5)]
        for _ in range(20):
            await asyncio.sleep(0)
        closing = asyncio.create_task(slots.aclose())
        async with asyncio.timeout(1):
            results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [MisuseError] * 5
        server.may_answer.set()
        assert (await first).text == "ok"
        await closing
    await drained(server)


async def test_closing_cuts_an_exchange_that_does_not_end_by_itself():
    slots = transport()
    async with Server() as server:
        client = httpx.AsyncClient(transport=slots, timeout=None)
        server.may_answer.clear()
        task = asyncio.create_task(client.get(server.url))
        while server.connections < 1:
            await asyncio.sleep(0)
        async with asyncio.timeout(DRAINING_TIME + 1):
            await client.aclose()
            with pytest.raises(httpx.ReadError):
                await task
        assert (slots.in_use, slots.idle) == (0, 0)
        server.may_answer.set()
        await drained(server)


async def test_closing_twice_or_at_once_or_cancelled_is_fine(cancelled_after):
    for turns in range(8):
        slots = transport()
        async with Server() as server:
            client = httpx.AsyncClient(transport=slots)
            await asyncio.gather(client.get(server.url), client.get(server.url))
            await cancelled_after(turns, slots.aclose)
            await asyncio.gather(slots.aclose(), slots.aclose(), client.aclose())
            await drained(server)
        assert (slots.in_use, slots.idle) == (0, 0)
        with pytest.raises(MisuseError, match="closed"):
            await slots.handle_async_request(httpx.Request("GET", server.url))


@pytest.mark.parametrize("error", [FileNotFoundError("no roots"), ssl.SSLError("bad roots")])
async def test_certificates_that_cannot_be_loaded_mean_that_nothing_was_sent(error):
    async def context():
        raise error

    slots = transport(max_connections=1, ssl_context=context)
    async with httpx.AsyncClient(transport=slots) as client:
        for _ in range(3):
            with pytest.raises(httpx.ConnectError, match="roots"):
                await client.get("https://127.0.0.1:1/")
    assert slots.in_use == 0


class Echo(Server):
    """Answers with the path it was asked for, in two parts."""

    async def _serve(self, reader, writer):
        self.connections += 1
        self.open += 1
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                path = request.split(b" ")[1]
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(path))
                await asyncio.sleep(0)
                writer.write(path)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


async def test_a_storm_of_cancellations_loses_no_slot_and_mixes_up_no_answers():
    slots, chance, answered = transport(max_connections=5), random.Random(7), 0
    async with Echo() as server, httpx.AsyncClient(transport=slots, timeout=5) as client:

        async def ask(number):
            nonlocal answered
            assert (await client.get(f"{server.url}{number}")).text == f"/{number}"
            answered += 1

        for round_ in range(20):
            tasks = [asyncio.create_task(ask(round_ * 100 + number)) for number in range(20)]
            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)
            for task in chance.sample(tasks, 10):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
        assert slots.in_use == 0
        assert slots.idle <= 5
        assert answered >= 200
        await asyncio.gather(*[ask(n) for n in range(5)])
    await drained(server)
