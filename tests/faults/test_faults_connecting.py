"""Connections and TLS handshakes that fail: what surely was not sent is sent again, and nothing else is."""

import contextlib
import functools
import os
import resource

import pytest

from gts_async import NotSent, OutcomeUnknown, RetryPolicy, Timeouts
from gts_async.testing import ChaosServer, chaos


def calls(case):
    """Run a test with a call that may be repeated and with one that must not be."""
    return pytest.mark.parametrize("call", ["look", "create"], ids=[f"{case} look", f"{case} create"])


@calls("A1 refused")
async def test_a_closed_port_is_tried_four_times_and_was_not_sent(floor, server, call):
    async with floor(server) as this:
        server.refuse()
        error = await this.fails(NotSent, this.send(call), stage="connect")
        assert len(error.attempts) == 4
        assert server.connections == 0
        server.accept()


@calls("A1 refused once")
async def test_a_port_that_opens_between_two_tries_gets_the_request_once(floor, server, call):
    def chance():
        server.accept()
        return 0.0

    async with floor(server, chance=chance) as this:
        server.refuse()
        await this.send(call)
        assert len(server.requests) == 1
        assert [event.kind for event in this.events] == ["tried again", "answered"]


@calls("A1 refused for longer than the call may take")
async def test_no_try_begins_after_the_calls_time(floor, server, call):
    # Half of 10 s to wait: there is no time for that.
    options = {"retry": RetryPolicy(initial=10, maximum=10), "chance": lambda: 0.5}
    async with floor(server, **options) as this:
        server.refuse()
        error = await this.fails(NotSent, this.send(call, timeout=2), stage="connect")
        assert [attempt.delay for attempt in error.attempts] == [None]
        server.accept()


@calls("A2 never accepted")
async def test_a_connection_that_is_never_accepted_is_tried_four_times_and_was_not_sent(floor, server, call):
    async with floor(server, timeouts=Timeouts(connect=0.05, total=5)) as this:
        with server.fill_backlog():
            error = await this.fails(NotSent, this.send(call), stage="connect")
        assert len(error.attempts) == 4
        assert server.requests == []


@calls("A2 never accepted, within the call's own time")
async def test_the_calls_time_bounds_connecting_too(floor, server, call):
    async with floor(server) as this:
        with server.fill_backlog():
            error = await this.fails(NotSent, this.send(call, timeout=0.1), stage="connect")
        assert len(error.attempts) == 1


@contextlib.contextmanager
def no_file_descriptors():
    """Let the process open nothing more; gives what ends that early."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    restore = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield restore
    finally:
        restore()


@calls("A1 no file descriptor left")
async def test_a_process_out_of_file_descriptors_sends_nothing_and_recovers(floor, server, call):
    async with floor(server) as this:
        with no_file_descriptors():
            error = await this.fails(NotSent, this.send(call), stage="connect")
        assert len(error.attempts) == 4
        assert server.connections == 0


@calls("A1 no file descriptor left for a moment")
async def test_a_process_out_of_file_descriptors_for_a_moment_sends_once(floor, server, call):
    ends = []

    def chance():
        ends[0]()
        return 0.0

    async with floor(server, chance=chance) as this:
        with no_file_descriptors() as end:
            ends.append(end)
            await this.send(call)
        assert len(server.requests) == 1
        assert [event.kind for event in this.events] == ["tried again", "answered"]


@calls("A7 no file descriptor left for the authorities' file")
async def test_authorities_that_could_not_be_read_once_are_read_again(floor, tls_server, call):
    async with floor(tls_server) as this:
        this.can_be_used_after = False
        with no_file_descriptors():
            error = await this.fails(NotSent, this.send(call))
            assert "no certificate authorities" in str(error)
        # They are read now, and are not this server's.
        error = await this.fails(NotSent, this.send(call))
        assert "certificate is not trusted" in str(error)


@pytest.fixture
async def tls_server():
    async with ChaosServer(tls=True) as server:
        yield server


HANDSHAKES = {
    "A11 stalls": [chaos.stall()],
    "A11 drips": [chaos.send(b"\x16\x03\x03\x40\x00"), chaos.drip(b"\x02" * 10_000, every=0.01)],
    "A12 closes": [chaos.close()],
    "A12 resets": [chaos.reset()],
    "A12 closes in the middle of a record": [chaos.send(b"\x16\x03\x03\x00\x7a\x02\x00\x00"), chaos.close()],
    "A12 speaks plain HTTP": [chaos.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), chaos.close()],
    "A12 refuses by an alert": [chaos.send(b"\x15\x03\x03\x00\x02\x02\x28"), chaos.close()],
    "A12 speaks nonsense": [chaos.send(bytes(range(256)) * 4), chaos.close()],
}


@pytest.mark.parametrize("call", ["look", "create"])
@pytest.mark.parametrize("actions", HANDSHAKES.values(), ids=HANDSHAKES)
async def test_a_handshake_that_does_not_end_is_tried_four_times_and_was_not_sent(floor, tls_server, call, actions):
    async with floor(tls_server, ca_file=tls_server.ca_file, timeouts=Timeouts(connect=0.1, total=5)) as this:
        for _ in range(4):
            tls_server.on_connection(chaos.before_handshake(*actions))
        error = await this.fails(NotSent, this.send(call), stage="tls")
        assert len(error.attempts) == tls_server.connections == 4
        assert tls_server.requests == []


@calls("A11 within the call's own time")
async def test_the_calls_time_bounds_the_handshake_too(floor, tls_server, call):
    async with floor(tls_server, ca_file=tls_server.ca_file) as this:
        tls_server.on_connection(chaos.before_handshake(chaos.stall()))
        error = await this.fails(NotSent, this.send(call, timeout=0.1), stage="tls")
        assert len(error.attempts) == tls_server.connections == 1


@calls("A12 closes once")
async def test_a_handshake_that_works_at_the_next_try_gets_the_request_once(floor, tls_server, call):
    async with floor(tls_server, ca_file=tls_server.ca_file) as this:
        tls_server.on_connection(chaos.before_handshake(chaos.close()))
        await this.send(call)
        assert (tls_server.connections, len(tls_server.requests)) == (2, 1)


HANG_UPS = {
    "A13 closed": [chaos.close()],
    "A13 reset": [chaos.reset()],
    "A13 closed on its side only": [chaos.half_close()],
}


@pytest.mark.parametrize("actions", HANG_UPS.values(), ids=HANG_UPS)
async def test_a_connection_that_ends_before_the_request_is_read_is_another_try_for_a_look(floor, server, actions):
    server.on_connection(*actions)
    async with floor(server) as this:
        await this.look()
        assert server.connections == 2
        assert [event.kind for event in this.events] == ["tried again", "answered"]


@pytest.mark.parametrize("actions", HANG_UPS.values(), ids=HANG_UPS)
async def test_a_connection_that_ends_before_the_request_is_read_leaves_a_create_unknown(floor, server, actions):
    server.on_connection(*actions)
    async with floor(server) as this:
        error = await this.fails(OutcomeUnknown, this.create())
        assert error.intent.spec is not None
        assert len(error.attempts) == server.connections == 1
