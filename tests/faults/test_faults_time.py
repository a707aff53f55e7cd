"""Time: every call ends in its time whatever the server does, and a blocked loop does not end it before."""

import asyncio
import threading
import time

import httpx
import pytest

from gts_async import (
    AsyncSession,
    GtsAsyncError,
    Limits,
    NotSent,
    RetryPolicy,
    ServerFailed,
    TimedOut,
    Timeouts,
)
from gts_async.testing import ChaosServer, FakeClock, chaos

CLOUD = "https://cloud.test/api"
OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"content-type: application/json\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\n\r\n"
ONE_BYTE_CHUNK = b"1\r\n \r\n"
FAR = 1.0
"""Real seconds past its time after which a call is late, however slow the machine."""


def calls(case):
    """Run a test with a call that may be repeated and with one that must not be."""
    return pytest.mark.parametrize("call", ["look", "create"], ids=[f"{case} look", f"{case} create"])


# In the clock's own time, to the tenth of a second


def cloud(clock, answer, **options):
    """Give a session on a clock of our own, whose requests `answer` answers."""
    options = {"token": "t", "chance": lambda: 0.5, **options}
    return AsyncSession(cloud=CLOUD, transport=httpx.MockTransport(answer), clock=clock, **options)


class Dripping(httpx.AsyncByteStream):
    """A body that comes one byte at a time."""

    def __init__(self, clock, every):
        self.clock = clock
        self.every = every

    async def __aiter__(self):
        while True:
            await self.clock.sleep(self.every)
            yield b" "


def silence(clock):
    async def answer(request):
        await asyncio.Event().wait()

    return answer


def head_after(seconds):
    def fault(clock):
        async def answer(request):
            await clock.sleep(seconds)
            return httpx.Response(200, json={"status": "working"})

        return answer

    return fault


def resolving(clock):
    async def answer(request):
        await request.extensions["trace"]("connection.connect_tcp.started", {})
        await asyncio.Event().wait()

    return answer


def dripping(clock):
    async def answer(request):
        return httpx.Response(200, stream=Dripping(clock, 0.3))

    return answer


def failing(status, **headers):
    def fault(clock):
        async def answer(request):
            return httpx.Response(status, headers=headers)

        return answer

    return fault


def refusing(clock):
    async def answer(request):
        raise httpx.ConnectError("refused", request=request)

    return answer


PATIENT = RetryPolicy(max_attempts=10_000, budget=10**9, maximum=1)
TIMELY = {
    "C1 silence": (silence, TimedOut, {}),
    "C2 no head": (head_after(10_000), TimedOut, {}),
    "C3 body drip": (dripping, TimedOut, {}),
    "A6 a resolver that hangs": (resolving, NotSent, {}),
    "A1 refused for ever": (refusing, NotSent, {"retry": PATIENT}),
    "D1 failing for ever": (failing(502), ServerFailed, {"retry": PATIENT}),
    "D1 failing for ever, with a Retry-After": (failing(503, **{"retry-after": "7"}), ServerFailed, {"retry": PATIENT}),
}


@pytest.mark.parametrize("total", [0.5, 60.0])
@pytest.mark.parametrize(("fault", "error", "options"), TIMELY.values(), ids=TIMELY)
async def test_a_look_ends_within_a_tenth_of_a_second_of_its_time(fault, error, options, total):
    clock = FakeClock()
    async with cloud(clock, fault(clock), timeouts=Timeouts(total=total), **options) as session:
        with pytest.raises(GtsAsyncError) as caught:
            await session.job("j-1").status()
        assert type(caught.value) is error
        assert clock.now() <= total + 0.1


@pytest.mark.parametrize("total", [0.5, 60.0])
async def test_a_token_that_never_comes_is_waited_for_within_the_calls_time(total):
    async def token():
        await asyncio.Event().wait()

    clock = FakeClock()
    async with cloud(clock, silence(clock), token=token, timeouts=Timeouts(total=total)) as session:
        with pytest.raises(NotSent) as caught:
            await session.job("j-1").status()
        assert caught.value.stage == "token"
        assert total <= clock.now() <= total + 0.1


async def test_waiting_for_a_turn_counts():
    clock = FakeClock()
    options = {"timeouts": Timeouts(total=10), "limits": Limits(max_in_flight=1)}
    async with cloud(clock, head_after(9)(clock), **options) as session:
        jobs = [session.job(f"j-{n}").status() for n in range(3)]
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["JobInfo", "TimedOut", "NotSent"]
        assert clock.now() <= 10.1


# On real sockets, with a wide margin


def forever(*pieces, every=0.0):
    """Send the pieces, and then the last one again and again."""
    *first, last = pieces
    return [*map(chaos.send, first), chaos.endlessly(last, every=every)]


ENDLESS = {
    "C1 silence": [chaos.stall()],
    "C1 silence after half a head": [chaos.send(OK), chaos.stall()],
    "C1 silence after half a body": [chaos.send(JSON + b'content-length: 20\r\n\r\n{"status"'), chaos.stall()],
    "C2 header drip": forever(OK, b"x-a: b\r\n", every=0.005),
    "C2 one endless header": forever(OK + b"x-a: ", b"b", every=0.005),
    "C3 body drip": forever(JSON + b"content-length: 999999\r\n\r\n", b" ", every=0.005),
    "C3 chunk drip": forever(JSON + b"transfer-encoding: chunked\r\n\r\n", ONE_BYTE_CHUNK, every=0.005),
    "C3 chunk size drip": forever(JSON + b"transfer-encoding: chunked\r\n\r\n", b"0", every=0.005),
    "C3 drip without a length": forever(JSON + b"\r\n", b" ", every=0.005),
    "B9 endless 1xx": forever(HINTS, every=0.005),
    "B9 flood of 1xx": forever(HINTS * 2000),
    "C3 flood of small chunks": forever(JSON + b"transfer-encoding: chunked\r\n\r\n", ONE_BYTE_CHUNK * 10_000),
}


@pytest.mark.parametrize("call", ["look", "create"])
@pytest.mark.parametrize("actions", ENDLESS.values(), ids=ENDLESS)
async def test_an_answer_without_end_ends_with_the_calls_time(floor, server, actions, call):
    loop = asyncio.get_running_loop()
    async with floor(server, limits=Limits(max_answer_bytes=1 << 30)) as this:
        server.on_request(*actions)
        began = loop.time()
        error = await this.fails(TimedOut, this.send(call, timeout=0.15), stage="answer")
        assert 0.15 <= loop.time() - began < 0.15 + FAR
        assert len(error.attempts) == len(server.requests) == 1


SILENCES = {name: ENDLESS[name] for name in ENDLESS if name.startswith("C1")}


@pytest.mark.parametrize("actions", SILENCES.values(), ids=SILENCES)
async def test_a_silence_is_another_try_for_a_look(floor, server, actions):
    async with floor(server, timeouts=Timeouts(read=0.05, total=5)) as this:
        server.on_request(*actions)
        await this.look()
        assert server.connections == len(server.requests) == 2


@pytest.mark.parametrize("actions", SILENCES.values(), ids=SILENCES)
async def test_a_silence_leaves_a_create_unknown(floor, server, actions):
    async with floor(server, timeouts=Timeouts(read=0.05, total=5)) as this:
        server.on_request(*actions)
        error = await this.fails(TimedOut, this.create(), stage="answer")
        assert len(error.attempts) == len(server.requests) == 1


@calls("C1 always silent")
async def test_a_server_that_is_always_silent_is_asked_no_more_than_four_times(floor, server, call):
    async with floor(server, timeouts=Timeouts(read=0.03, total=5)) as this:
        server.otherwise(chaos.stall())
        error = await this.fails(TimedOut, this.send(call), stage="answer")
        assert len(error.attempts) == len(server.requests) == (4 if call == "look" else 1)


def slow(document, every):
    body = document.encode()
    head = JSON + b"content-length: %d\r\n\r\n" % len(body)
    return chaos.drip(head + body, every=every, size=4)


@pytest.mark.parametrize(("call", "document"), [("look", '{"status":"working"}'), ("create", '{"job_id":"j-1"}')])
async def test_an_answer_that_is_slow_but_steady_is_waited_for(floor, server, call, document):
    # It takes several times as long as a silence may last.
    async with floor(server, timeouts=Timeouts(read=0.1, total=5)) as this:
        server.on_request(slow(document, 0.01))
        await this.send(call)
        assert len(server.requests) == 1
        assert [event.kind for event in this.events] == ["answered"]


@calls("A6 a token that never comes")
async def test_a_token_callable_that_hangs_once_is_asked_again_by_the_next_call(floor, server, call):
    hangs = [True]

    async def token():
        if hangs.pop() if hangs else False:
            await asyncio.Event().wait()
        return "TOPSECRET" * 4

    async with floor(server, token=token) as this:
        await this.fails(NotSent, this.send(call, timeout=0.1), stage="token")
        assert server.connections == 0


# A loop that stands still


def block(seconds):
    """Do what a user's code must not do on the loop."""
    time.sleep(seconds)


def set_off(event):
    """Give an action that tells that what comes before it was done."""

    async def act(_):
        event.set()

    return act


@pytest.mark.ordinary_loop
@calls("C8 blocked")
async def test_an_answer_that_is_there_is_taken_although_the_loop_was_blocked_past_the_calls_time(floor, call):
    with ChaosServer() as server:
        async with floor(server) as this:
            await this.look()
            for _ in range(2):
                go_on, has_gone = threading.Event(), threading.Event()
                document = {"status": "working", "job_id": "j-1"}
                server.on_request(chaos.hold(go_on), chaos.answer(json=document), set_off(has_gone))
                sent, before = asyncio.create_task(this.send(call, timeout=0.3)), len(server.requests)
                await server.until(lambda before=before: len(server.requests) > before)
                go_on.set()
                assert has_gone.wait(60)
                block(0.5)
                await sent
            assert len(server.requests) == 3
            assert {event.kind for event in this.events} == {"answered"}


@pytest.mark.ordinary_loop
@pytest.mark.parametrize("many", [100], ids=["C8 a hundred calls"])
async def test_a_blocked_loop_makes_no_storm_of_timeouts(floor, many):
    with ChaosServer() as server:
        async with floor(server) as this:
            # Their connections are there already: making them takes far longer than asking.
            all_here, go_on, gone = threading.Event(), threading.Event(), threading.Semaphore(0)
            server.otherwise(chaos.hold(all_here), chaos.answer(json={"status": "working"}))
            looks = [asyncio.create_task(this.look()) for _ in range(many)]
            await server.until(lambda: len(server.requests) == many, within=60)
            all_here.set()
            await asyncio.gather(*looks)

            async def tell(_):
                gone.release()

            server.otherwise(chaos.hold(go_on), chaos.answer(json={"status": "working"}), tell)
            looks = [asyncio.create_task(this.look(timeout=1)) for _ in range(many)]
            await server.until(lambda: len(server.requests) == 2 * many)
            go_on.set()
            for _ in range(many):
                assert gone.acquire(timeout=60)
            block(1.2)
            await asyncio.gather(*looks)
            assert len(server.requests) == 2 * many
            assert {event.kind for event in this.events} == {"answered"}


@pytest.mark.ordinary_loop
@calls("C8 blocked, no answer")
async def test_a_blocked_loop_gives_no_reprieve_to_a_server_that_is_silent(floor, call):
    with ChaosServer() as server:
        async with floor(server) as this:
            server.on_request(chaos.stall())
            sent = asyncio.create_task(this.send(call, timeout=0.3))
            await server.until(lambda: len(server.requests) == 1)
            block(0.5)
            began = time.monotonic()
            error = await this.fails(TimedOut, sent, stage="answer")
            assert time.monotonic() - began < FAR
            assert len(error.attempts) == len(server.requests) == 1
