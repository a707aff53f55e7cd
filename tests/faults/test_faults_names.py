"""Names: what a resolver may do to a client, from nothing at all to twenty dead addresses and a failover."""

import asyncio
import contextlib
import os
import socket
import threading

import pytest

from gts_async import NotSent, Timeouts
from gts_async._net.slots import SlotTransport
from gts_async.testing import chaos

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def calls(case):
    """Run a test with a call that may be repeated and with one that must not be."""
    return pytest.mark.parametrize("call", ["look", "create"], ids=[f"{case} look", f"{case} create"])


def row(address, port):
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))


class Resolver:
    """Answers in the place of the loop's resolver: each of `answers` once, the last one for ever.

    An answer is a list of addresses, an exception to raise, or an async callable that gives what a resolver gives.
    """

    def __init__(self, answers):
        self.answers = list(answers)
        self.asked = []

    async def __call__(self, host, port, **_):
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return await answer() if callable(answer) else [row(address, port) for address in answer]


@pytest.fixture
def resolver(monkeypatch):
    """Give ``resolver(*answers)``: names lead there from now on."""

    def give(*answers):
        fake = Resolver(answers)
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fake)
        return fake

    return give


def named(server, scheme="http"):
    """Give the options of a floor that knows its server by a name."""
    return {"cloud": f"{scheme}://localhost:{server.port}/api"}


async def forever():
    await asyncio.Event().wait()


@contextlib.contextmanager
def silent(address, port):
    """Let connections to that address hang in the middle of TCP's handshake."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            other = opened.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex((address, port))
        yield


@calls("A3 unknown name")
@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM])
async def test_a_name_that_leads_nowhere_is_tried_four_times_and_told_as_such(floor, server, resolver, call, code):
    asked = resolver(socket.gaierror(code, "no such thing"), ["127.0.0.1"])
    asked.answers[:0] = [asked.answers[0]] * 3
    async with floor(server, **named(server)) as this:
        error = await this.fails(NotSent, this.send(call), stage="name")
        assert "no such thing" in str(error)
        assert len(error.attempts) == len(asked.asked) == 4
        assert server.connections == 0


@calls("A3 unknown name once")
async def test_a_name_that_is_found_at_the_next_try_gets_the_request_once(floor, server, resolver, call):
    resolver(socket.gaierror(socket.EAI_AGAIN, "not now"), ["127.0.0.1"])
    async with floor(server, **named(server)) as this:
        await this.send(call)
        assert len(server.requests) == 1


def nothing():
    return []


def nonsense(port):
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("no address", port))]


def numbers():
    # What Python makes of an IPv6 address when it is built without IPv6.
    return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (10, b"\x00" * 16))]


@calls("A3 garbage")
@pytest.mark.parametrize("rows", [nothing, numbers], ids=["no address", "no IPv6"])
async def test_a_resolver_that_finds_no_address_without_saying_so_was_not_sent(floor, server, resolver, call, rows):
    async def answer():
        return rows()

    resolver(answer, answer, answer, answer, ["127.0.0.1"])
    async with floor(server, **named(server)) as this:
        error = await this.fails(NotSent, this.send(call))
        assert len(error.attempts) == 4
        assert server.connections == 0


def a_long_label():
    raise UnicodeError("label too long")


@calls("A3 garbage, where there was a connection before")
@pytest.mark.parametrize("rows", [nothing, a_long_label], ids=["no address", "no name"])
async def test_a_resolver_that_finds_no_address_any_more_was_not_sent(floor, server, resolver, call, rows):
    async def answer():
        return rows()

    resolver(["127.0.0.1"], answer, answer, answer, answer, ["127.0.0.1"])
    async with floor(server, **named(server)) as this:
        await this.look()
        server.hang_up()
        await server.drained()
        error = await this.fails(NotSent, this.send(call), stage="name")
        assert len(error.attempts) == 4
        assert server.connections == len(server.requests) == 1


@calls("A3 garbage address")
async def test_an_address_that_is_none_is_tried_and_was_not_sent(floor, server, resolver, call):
    async def answer():
        return nonsense(server.port)

    asked = resolver(["127.0.0.1"])
    async with floor(server, **named(server)) as this:
        # asyncio looks the strange address up once more, and learns that there is none.
        asked.answers = [answer, socket.gaierror(socket.EAI_NONAME, "no such thing")]
        await this.fails(NotSent, this.send(call))
        asked.answers = [["127.0.0.1"]]
        assert server.connections == 0


MANY = {
    "IPv6 refuses, IPv4 works": ["::1", "127.0.0.1"],
    "IPv4 refuses, IPv6 too, IPv4 works": ["127.0.0.2", "::1", "127.0.0.1"],
    "twenty addresses, the last one alive": [f"127.0.0.{n}" for n in range(2, 21)] + ["127.0.0.1"],
}


@calls("A1 many addresses")
@pytest.mark.parametrize("addresses", MANY.values(), ids=MANY)
async def test_one_address_of_a_name_that_works_is_enough(floor, server, resolver, call, addresses):
    asked = resolver(addresses)
    async with floor(server, **named(server)) as this:
        await this.send(call)
        assert len(asked.asked) == len(server.requests) == server.connections == 1
        assert [event.kind for event in this.events] == ["answered"]


@calls("A2 many addresses")
async def test_an_address_that_hangs_does_not_hide_the_next_one(floor, server, resolver, call):
    resolver(["127.0.0.2", "127.0.0.1"])
    async with floor(server, **named(server)) as this:
        with silent("127.0.0.2", server.port):
            await this.send(call)
        assert len(server.requests) == server.connections == 1


@calls("A1 many addresses, all dead")
async def test_twenty_dead_addresses_are_four_tries_and_leave_no_socket(floor, server, resolver, call):
    resolver([f"127.0.0.{n}" for n in range(2, 22)])
    async with floor(server, **named(server)) as this:
        before = len(os.listdir("/proc/self/fd"))
        error = await this.fails(NotSent, this.send(call), stage="connect")
        assert len(error.attempts) == 4
        assert len(os.listdir("/proc/self/fd")) == before
        resolver(["127.0.0.1"])


@calls("A2 many addresses, all silent")
async def test_twenty_silent_addresses_take_no_longer_than_one(floor, server, resolver, call):
    addresses = [f"127.0.0.{n}" for n in range(2, 22)]
    resolver(addresses)
    async with floor(server, **named(server), timeouts=Timeouts(connect=0.05, total=5)) as this:
        before = len(os.listdir("/proc/self/fd"))
        with contextlib.ExitStack() as stack:
            for address in addresses:
                stack.enter_context(silent(address, server.port))
            error = await this.fails(NotSent, this.send(call), stage="connect")
        assert len(error.attempts) == 4
        assert len(os.listdir("/proc/self/fd")) == before
        resolver(["127.0.0.1"])


async def serve_elsewhere(port, seen):
    """Listen on another loopback address: another machine of the same name."""

    async def answer(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                seen.append(head)
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                writer.write(HEAD + b'content-length: 20\r\n\r\n{"status":"working"}')
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.2", port)


@pytest.mark.parametrize("is_dead", [False, True], ids=["A5 both alive", "A5 the old one dead"])
async def test_after_a_failover_the_next_connection_uses_the_new_address(floor, server, resolver, is_dead):
    asked = resolver(["127.0.0.1"], ["127.0.0.2"])
    slots = SlotTransport(max_connections=4, ssl_context=no_context, keepalive_expiry=0.1)
    seen = []
    async with await serve_elsewhere(server.port, seen), floor(server, **named(server), transport=slots) as this:
        await this.look()
        await this.look()
        assert (len(server.requests), len(seen), server.connections) == (2, 0, 1)
        if is_dead:
            server.refuse()
            server.hang_up(reset=True)
        else:
            # An idle connection is kept for its time, whatever the name says meanwhile.
            async with asyncio.timeout(60):
                while slots.idle:
                    await asyncio.sleep(0.01)
        await this.look()
        assert (len(server.requests), len(seen), len(asked.asked)) == (2, 1, 2)


async def no_context():
    raise AssertionError("plain http needs none")


BOUNDS = {
    "A6 the call's own time": ({}, {"timeout": 0.1}, 1),
    "A6 the time for connecting": ({"timeouts": Timeouts(connect=0.05, total=5)}, {}, 4),
    "A6 the session's time": ({"timeouts": Timeouts(connect=None, total=0.1)}, {}, 1),
}


@pytest.mark.parametrize("call", ["look", "create"])
@pytest.mark.parametrize(("options", "own", "attempts"), BOUNDS.values(), ids=BOUNDS)
async def test_a_resolver_that_hangs_is_waited_for_within_its_time(
    floor, server, resolver, call, options, own, attempts
):
    asked = resolver(forever)
    async with floor(server, **named(server), **options) as this:
        error = await this.fails(NotSent, this.send(call, **own), stage="connect")
        assert len(error.attempts) == len(asked.asked) == attempts
        assert server.connections == 0
        resolver(["127.0.0.1"])


@pytest.mark.parametrize("many", [200], ids=["A6 two hundred calls"])
async def test_a_resolver_that_hangs_blocks_neither_the_loop_nor_a_thread_for_each_call(
    floor, server, monkeypatch, many
):
    release, resolve = threading.Event(), socket.getaddrinfo

    def hang(host, *rest, **options):
        if host == b"localhost":
            release.wait(60)
            return [row("127.0.0.1", server.port)]
        return resolve(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        async with floor(server, **named(server), engine=server.url) as this:
            server.otherwise(chaos.answer(json={"ret_code": 1, "message": "On Training", "status": "working"}))
            by_number = this.session.task("tnews")
            await by_number.status()
            before = threading.active_count()
            job = this.session.job("j-1")
            looks = [asyncio.create_task(job.status(timeout=0.3)) for _ in range(many)]
            # Whoever needs no resolver goes on: over a connection that is there, and over a new one.
            await by_number.status()
            server.hang_up()
            await by_number.status()
            results = await asyncio.gather(*looks, return_exceptions=True)
            assert {type(result) for result in results} == {NotSent}
            # As many as asyncio's own executor has.
            assert threading.active_count() - before <= 32
            release.set()
            # Of those who gave up, nobody is resolved for any more.
            await this.look()
    finally:
        release.set()
