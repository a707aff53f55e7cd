"""Slots against real sockets: what a mock cannot show."""

import asyncio
import random
import ssl

import httpx
import pytest

from gts_async import MisuseError
from gts_async._net.slots import DRAINING_TIME, SlotTransport
from gts_async.testing import chaos

GOOD = chaos.answer(body=b"ok")
FAILED = chaos.answer(500, body=b"no")


@pytest.fixture
def server(server):
    """Give a server that answers "ok"."""
    server.otherwise(GOOD)
    return server


@pytest.fixture
def may_answer(server):
    """Let the server hold its answers back until this event is set."""
    may_answer = asyncio.Event()
    server.otherwise(chaos.hold(may_answer), GOOD)
    return may_answer


async def no_context():
    raise AssertionError("plain http needs no certificates")


def transport(**options):
    return SlotTransport(**{"max_connections": 2, "ssl_context": no_context, **options})


async def test_a_clean_exchange_leaves_its_connection_for_the_next(server):
    async with httpx.AsyncClient(transport=transport()) as client:
        for _ in range(5):
            assert (await client.get(server.url)).text == "ok"
        assert server.connections == 1


async def test_a_5xx_throws_the_connection_away_because_the_engine_closes_it_unannounced(server):
    server.otherwise(FAILED)
    async with httpx.AsyncClient(transport=transport()) as client:
        for _ in range(3):
            assert (await client.get(server.url)).status_code == 500
        assert server.connections == 3


async def test_no_more_connections_than_allowed_and_the_rest_wait_their_turn(server, may_answer):
    slots = transport(max_connections=3)
    async with httpx.AsyncClient(transport=slots, timeout=None) as client:
        tasks = [asyncio.create_task(client.get(server.url)) for _ in range(10)]
        while server.connections < 3:
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert (server.connections, slots.in_use) == (3, 3)
        may_answer.set()
        assert [r.text for r in await asyncio.gather(*tasks)] == ["ok"] * 10
        assert (server.connections, slots.in_use, slots.idle) == (3, 0, 3)


async def test_waiting_for_a_connection_ends_as_a_pool_timeout(server, may_answer):
    async with httpx.AsyncClient(transport=transport(max_connections=1)) as client:
        first = asyncio.create_task(client.get(server.url, timeout=None))
        while server.connections < 1:
            await asyncio.sleep(0)
        with pytest.raises(httpx.PoolTimeout):
            await client.get(server.url, timeout=httpx.Timeout(5, pool=0.01))
        may_answer.set()
        assert (await first).text == "ok"


@pytest.mark.parametrize("is_warm", [False, True])
async def test_cancelling_at_any_turn_of_the_loop_loses_no_slot(server, is_warm):
    slots = transport(max_connections=1)
    async with httpx.AsyncClient(transport=slots, timeout=5) as client:
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
    await server.drained()


async def test_an_answer_that_was_not_read_to_its_end_takes_its_connection_with_it(server):
    async with httpx.AsyncClient(transport=transport()) as client:
        async with client.stream("GET", server.url) as response:
            assert response.status_code == 200
        assert (await client.get(server.url)).text == "ok"
        assert server.connections == 2


async def test_idle_connections_expire_before_the_server_drops_them(server):
    slots = transport(keepalive_expiry=0.05)
    async with httpx.AsyncClient(transport=slots) as client:
        await client.get(server.url)
        assert slots.idle == 1
        await server.drained()
        assert slots.idle == 0


async def test_closing_closes_every_connection(server):
    async with httpx.AsyncClient(transport=transport()) as client:
        await asyncio.gather(client.get(server.url), client.get(server.url))
    await server.drained()
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


async def test_closing_tells_whoever_waits_for_a_connection(server, may_answer):
    slots = transport(max_connections=1)
    async with httpx.AsyncClient(transport=slots, timeout=None) as client:
        first = asyncio.create_task(client.get(server.url))
        while server.connections < 1:
            await asyncio.sleep(0)
        waiting = [asyncio.create_task(client.get(server.url)) for _ in range(5)]
        for _ in range(20):
            await asyncio.sleep(0)
        closing = asyncio.create_task(slots.aclose())
        async with asyncio.timeout(30):
            results = await asyncio.gather(*waiting, return_exceptions=True)
        # At once, not after what is under way.
        assert not closing.done()
        assert [type(result) for result in results] == [MisuseError] * 5
        may_answer.set()
        assert (await first).text == "ok"
        await closing
    await server.drained()


async def test_closing_cuts_an_exchange_that_does_not_end_by_itself(server, may_answer):
    slots = transport()
    client = httpx.AsyncClient(transport=slots, timeout=None)
    task = asyncio.create_task(client.get(server.url))
    await server.until(lambda: server.requests)
    async with asyncio.timeout(DRAINING_TIME + 30):
        await client.aclose()
        with pytest.raises(httpx.ReadError):
            await task
    assert (slots.in_use, slots.idle) == (0, 0)
    may_answer.set()
    await server.drained()


async def test_closing_twice_or_at_once_or_cancelled_is_fine(server, cancelled_after):
    for turns in range(8):
        slots = transport()
        client = httpx.AsyncClient(transport=slots)
        await asyncio.gather(client.get(server.url), client.get(server.url))
        await cancelled_after(turns, slots.aclose)
        await asyncio.gather(slots.aclose(), slots.aclose(), client.aclose())
        await server.drained()
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


async def echo(connection):
    """Answer with the path that was asked for, in two parts."""
    path = connection.request.path.encode()
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(path))
    await asyncio.sleep(0)
    await connection.send(path)


async def test_a_storm_of_cancellations_loses_no_slot_and_mixes_up_no_answers(server):
    slots, chance, answered = transport(max_connections=5), random.Random(7), 0
    server.otherwise(echo)
    async with httpx.AsyncClient(transport=slots, timeout=5) as client:

        async def ask(number):
            nonlocal answered
            assert (await client.get(f"{server.url}/{number}")).text == f"/{number}"
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
    await server.drained()
