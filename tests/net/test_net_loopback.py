"""The Exchange over slots and real sockets: whatever happens on the wire, no slot and no turn is lost."""

import asyncio
import logging
import ssl
import traceback

import httpcore
import httpx
import pytest

from gts_async import (
    GtsAsyncError,
    Limits,
    NotSent,
    OutcomeUnknown,
    RetryPolicy,
    TimedOut,
    Timeouts,
    TransportError,
    UnexpectedAnswer,
)
from gts_async._net.client import client_over
from gts_async._net.config import BaseURL
from gts_async._net.exchange import Exchange
from gts_async._net.secret import Credential
from gts_async._net.sending import Line
from gts_async._net.slots import SlotTransport
from gts_async.testing import chaos
from gts_async.wire import Call, Multipart, Request, decode
from tests.steady_loop import LoopClock

GOOD = chaos.answer(json={"x": 1})
FAILED = chaos.answer(503, body=b"no")


def read(answer):
    return decode(answer.body, dict[str, int], call="look")


LOOK = Call("look", Request.json("POST", "/look", {"id": 1}), read, is_repeatable=True)
CREATE = Call("create", Request.json("POST", "/create", {}), read, is_repeatable=False)
UPLOAD = Call("upload", Request("POST", "/upload", body=Multipart((), ())), read, is_repeatable=True)


async def context():
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Sender:
    """An Exchange over slots, and everything that could leak."""

    def __init__(self, url, *, max_connections=2, max_in_flight=2, token=None, **options):
        self.slots = SlotTransport(max_connections=max_connections, ssl_context=context)
        self.client = client_over(self.slots)
        self.gate = asyncio.Semaphore(max_in_flight)
        self.max_in_flight = max_in_flight
        line = Line(self.client, BaseURL.parse(url, "engine"), Credential(token))

        async def connect():
            return line

        options = {"timeouts": Timeouts(total=5), "retry": RetryPolicy(initial=0.001), **options}
        self.exchange = Exchange(connect, clock=LoopClock(), in_flight=self.gate, **options)

    async def __aenter__(self):
        self.tasks = asyncio.all_tasks()
        return self

    async def __aexit__(self, *_):
        self.check()
        await self.client.aclose()
        await asyncio.sleep(0)

    def check(self):
        """Check that nothing is taken any more."""
        assert self.slots.in_use == 0
        assert self.gate._value == self.max_in_flight


class Body:
    content_type = "multipart/form-data; boundary=b"
    length = 6

    def __init__(self, counts):
        self.counts = counts
        counts["opened"] += 1

    async def chunks(self):
        for piece in (b"ab", b"cd", b"ef"):
            await asyncio.sleep(0)
            yield piece

    async def aclose(self):
        await asyncio.sleep(0)
        self.counts["closed"] += 1


@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("before", [[], [FAILED]], ids=["answered", "tried again"])
async def test_cancelling_a_call_at_any_turn_of_the_loop_loses_nothing(server, cancelled_after, is_warm, before):
    server.otherwise(GOOD)
    async with Sender(server.url, max_connections=1, max_in_flight=1) as sender:
        for turns in range(41):
            if is_warm:
                await sender.exchange.send(LOOK)
            for failing in before:
                server.on_request(failing)
            await cancelled_after(turns, lambda: sender.exchange.send(LOOK))
            sender.check()
            server.forget()
            server.otherwise(GOOD)
            assert await sender.exchange.send(LOOK) == {"x": 1}
        assert sender.slots.idle == 1


async def test_cancelling_an_upload_at_any_turn_of_the_loop_closes_its_body(server, cancelled_after):
    server.otherwise(GOOD)
    counts = {"opened": 0, "closed": 0}

    async def open_body(form):
        return Body(counts)

    async with Sender(server.url) as sender:
        for turns in range(41):
            await cancelled_after(turns, lambda: sender.exchange.send(UPLOAD, open_body=open_body))
            sender.check()
            # A body that was cancelled while it closed has been asked to, at least.
            assert 0 <= counts["opened"] - counts["closed"] <= 1
            counts.update(opened=0, closed=0)
        assert await sender.exchange.send(UPLOAD, open_body=open_body) == {"x": 1}
        assert counts == {"opened": 1, "closed": 1}


async def test_cancelling_those_who_wait_for_their_turn_keeps_the_others_going(server, cancelled_after):
    server.otherwise(GOOD)
    async with Sender(server.url, max_connections=1, max_in_flight=1) as sender:
        for turns in range(0, 41, 4):
            others = [asyncio.create_task(sender.exchange.send(LOOK)) for _ in range(3)]
            await cancelled_after(turns, lambda: sender.exchange.send(LOOK))
            async with asyncio.timeout(30):
                assert await asyncio.gather(*others) == [{"x": 1}] * 3
            sender.check()


BROKEN = [
    "closed",
    "reset",
    "short body",
    "cut chunk",
    "cut without a length",
    "two lengths",
    "endless header",
    "not http",
]


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_is_another_try_for_a_look(server, fault, name):
    server.on_request(*fault[name])
    server.otherwise(GOOD)
    async with Sender(server.url) as sender:
        assert await sender.exchange.send(LOOK) == {"x": 1}
        assert (len(server.requests), server.connections) == (2, 2)


ENDLESS = ["silent", "dripping header", "dripping body", "endless 1xx"]
BOUND = 0.15


@pytest.mark.parametrize("name", [*BROKEN, *ENDLESS])
async def test_a_create_with_a_broken_answer_may_have_happened_and_is_sent_once(server, fault, name):
    server.otherwise(*fault[name])
    async with Sender(server.url) as sender:
        with pytest.raises(OutcomeUnknown):
            await sender.exchange.send(CREATE, timeout=BOUND if name in ENDLESS else 5)
        assert len(server.requests) == 1
        sender.check()


@pytest.mark.parametrize("name", ENDLESS)
async def test_an_endless_answer_ends_with_the_calls_time(server, fault, name):
    server.otherwise(*fault[name])
    async with Sender(server.url) as sender:
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimedOut):
            await sender.exchange.send(LOOK, timeout=BOUND)
        assert BOUND <= asyncio.get_running_loop().time() - began < 2
        sender.check()


async def test_a_body_larger_than_allowed_is_not_read(server, fault):
    server.otherwise(*fault["huge body"])
    async with Sender(server.url, limits=Limits(max_answer_bytes=10**6)) as sender:
        with pytest.raises(UnexpectedAnswer, match="larger than"):
            await sender.exchange.send(LOOK)
        assert len(server.requests) == 1


async def test_a_refused_connection_was_not_sent():
    async with Sender("http://127.0.0.1:1/") as sender:
        with pytest.raises(NotSent) as caught:
            await sender.exchange.send(CREATE)
        assert len(caught.value.attempts) == 4


async def test_a_connection_that_is_never_accepted_was_not_sent(server):
    async with Sender(server.url, timeouts=Timeouts(connect=0.05, total=0.15)) as sender:
        with server.fill_backlog(), pytest.raises(NotSent):
            await sender.exchange.send(CREATE)
        sender.check()
    assert server.connections == 0


async def test_a_server_that_never_answers_in_tls_got_nothing(server):
    async with Sender(f"https://127.0.0.1:{server.port}/") as sender:
        with pytest.raises(NotSent):
            await sender.exchange.send(CREATE, timeout=0.1)
        sender.check()
    assert server.requests == []


async def test_waiting_for_a_connection_in_vain_was_not_sent(server):
    server.otherwise(chaos.stall())
    async with Sender(server.url, max_connections=1) as sender:
        first = asyncio.create_task(sender.exchange.send(LOOK))
        while not server.requests:
            await asyncio.sleep(0)
        with pytest.raises(NotSent, match="no free connection"):
            await sender.exchange.send(CREATE, timeout=0.1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_a_connection_that_the_server_closes_as_it_is_used_again(server):
    # uvicorn's keep-alive ends without a word; the worst case is that it ends as the next request is on its way.
    last = (GOOD, chaos.receive(1), chaos.close())
    server.otherwise(GOOD)
    async with Sender(server.url) as sender:
        server.on_request(*last)
        assert await sender.exchange.send(LOOK) == {"x": 1}
        assert await sender.exchange.send(LOOK) == {"x": 1}
    async with Sender(server.url) as sender:
        server.on_request(*last)
        assert await sender.exchange.send(LOOK) == {"x": 1}
        with pytest.raises(OutcomeUnknown):
            await sender.exchange.send(CREATE)


async def test_closing_the_client_ends_what_is_going_on(server):
    server.otherwise(chaos.stall())
    async with Sender(server.url, max_in_flight=9) as sender:
        looks = [asyncio.create_task(sender.exchange.send(LOOK)) for _ in range(3)]
        create = asyncio.create_task(sender.exchange.send(CREATE))
        while len(server.requests) < 2:
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await sender.client.aclose()
            results = await asyncio.gather(*looks, create, return_exceptions=True)
        assert all(isinstance(result, GtsAsyncError) for result in results)
        assert {type(result).__name__ for result in results} <= {"MisuseError", "OutcomeUnknown"}
        sender.check()


async def test_no_log_of_any_logger_shows_the_token(server, caplog):
    caplog.set_level(logging.DEBUG)
    server.on_request(chaos.reset())
    server.on_request(FAILED)
    server.otherwise(GOOD)
    async with Sender(server.url, token="TOPSECRET") as sender:
        await sender.exchange.send(LOOK)
    names = {"gts_async", httpx.__name__, f"{httpcore.__name__}.http11"}
    assert names <= {record.name for record in caplog.records}
    assert "TOPSECRET" not in caplog.text


@pytest.mark.parametrize("name", ["closed", "reset", "silent", "short body", "dripping header"])
async def test_no_traceback_shows_the_token(server, fault, name):
    server.otherwise(*fault[name])
    async with Sender(server.url, token="TOPSECRET") as sender:
        with pytest.raises(TransportError) as caught:
            await sender.exchange.send(CREATE, timeout=BOUND)
    error = caught.value.with_traceback(caught.value.__traceback__.tb_next)
    assert "TOPSECRET" not in "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
