"""Connections that break while a request is sent or its answer comes: uploads cut, servers half gone, TLS cut short."""

import json

import pytest

from gts_async import Intent, InvalidData, JobSpec, OutcomeUnknown, TimedOut, Timeouts, UnexpectedAnswer
from gts_async.testing import ChaosServer, chaos

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
SIZED = HEAD + b"content-length: 99\r\n\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
STORED = {"ret_code": 200, "message": "ok"}
BIG = 4_000_000
"""Bytes: more than the buffers on both sides hold."""


@pytest.fixture
def big_file(tmp_path):
    path = tmp_path / "train.json"
    path.write_bytes(b"x" * BIG)
    return path


@pytest.fixture
def big_spec():
    env = {"X": "x" * BIG}
    return JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="run", env=env)


async def resets_early(connection):
    await chaos.receive(10_000)(connection)
    connection.reset()


async def closes_early(connection):
    await chaos.receive(10_000)(connection)
    connection.close()


CUTS = {"A13 reset during the upload": resets_early, "A13 closed during the upload": closes_early}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
async def test_an_upload_that_is_cut_begins_anew_and_arrives_whole(floor, server, big_file, cut):
    async with floor(server, engine=server.url) as this:
        for _ in range(3):
            server.on_connection(cut)
        server.on_request(chaos.answer(json=STORED))
        await this.session.task("tnews").upload(big_file, check=False)
        assert server.connections == 4
        (request,) = server.requests
        assert len(request.body) == int(request.header("content-length")) > BIG
        assert request.body.count(b"x" * BIG) == 1


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
async def test_an_upload_that_is_always_cut_ends_after_four_tries(floor, server, big_file, cut):
    async with floor(server, engine=server.url) as this:
        for _ in range(4):
            server.on_connection(cut)
        error = await this.fails(OutcomeUnknown, this.session.task("tnews").upload(big_file, check=False))
        assert len(error.attempts) == server.connections == 4
        assert server.requests == []


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
async def test_a_create_that_is_cut_while_it_is_sent_is_unknown_and_sent_once(floor, server, big_spec, cut):
    server.on_connection(cut)
    async with floor(server) as this:
        error = await this.fails(OutcomeUnknown, this.session._submission.send(Intent("", big_spec)))
        assert len(error.attempts) == server.connections == 1


async def refuses_early(connection):
    """Answer before the request has arrived, and read the rest all the same, as a good server does."""
    await chaos.receive(10_000)(connection)
    await chaos.answer(413, json={"message": "the body is too large"})(connection)
    connection.half_close()


async def test_a_refusal_that_comes_during_the_upload_is_told_and_the_create_not_sent_again(floor, server, big_spec):
    server.on_connection(refuses_early)
    async with floor(server) as this:
        await this.fails(
            InvalidData, this.session._submission.send(Intent("", big_spec)), code=413, message="the body is too large"
        )
        assert server.connections == 1


@pytest.mark.parametrize(
    "read", [0, 10_000], ids=["C1 nothing of the upload is read", "C1 the upload is read no further"]
)
async def test_an_upload_that_stalls_ends_with_its_time(floor, server, big_file, read):
    server.on_connection(chaos.receive(read), chaos.stall())
    async with floor(server, engine=server.url) as this:
        upload = this.session.task("tnews").upload(big_file, check=False, timeout=0.2)
        error = await this.fails(TimedOut, upload)
        assert len(error.attempts) == server.connections == 1


async def test_an_upload_that_stalls_is_begun_anew_after_a_silence(floor, server, big_file):
    server.on_connection(chaos.receive(10_000), chaos.stall())
    async with floor(server, engine=server.url, timeouts=Timeouts(read=0.1, total=5)) as this:
        server.on_request(chaos.answer(json=STORED))
        await this.session.task("tnews").upload(big_file, check=False)
        assert (server.connections, len(server.requests)) == (2, 1)


async def test_a_create_whose_body_is_not_read_is_unknown_when_its_time_is_over(floor, server, big_spec):
    server.on_connection(chaos.stall())
    async with floor(server) as this:
        error = await this.fails(TimedOut, this.session._submission.send(Intent("", big_spec), timeout=0.2))
        assert len(error.attempts) == server.connections == 1


async def says_goodbye(connection):
    connection.half_close()


async def dies(connection):
    """The machine is gone: what the client sends next is answered by RST."""
    connection.reset()


@pytest.mark.parametrize("end", [says_goodbye, dies], ids=["A13 half-open: FIN", "A13 half-open: RST"])
async def test_a_connection_that_died_while_idle_is_not_used(floor, server, end):
    async with floor(server) as this:
        server.on_request(chaos.answer(json={"status": "working"}), end)
        await this.look()
        await server.until(lambda: server.open == (1 if end is says_goodbye else 0))
        # A create would be lost on it; nobody would know.
        await this.create()
        assert (server.connections, len(server.requests)) == (2, 2)
        assert [event.kind for event in this.events] == ["answered", "answered"]


@pytest.fixture
async def tls_server():
    async with ChaosServer(tls=True) as server:
        yield server


async def alerts(connection):
    """Break TLS in the middle: what comes is no record that the client could open, and then a fatal alert."""
    await connection._write(b"\x17\x03\x03\x00\x20" + b"\x00" * 32 + b"\x15\x03\x03\x00\x02\x02\x14")
    connection.close(is_announced=False)


TLS_CUTS = {
    "A12 TLS broken instead of an answer": [alerts],
    "A12 TLS broken in a body": [chaos.send(SIZED + b'{"status": '), alerts],
    "A12 no close_notify instead of an answer": [chaos.truncate_tls()],
    "A12 no close_notify in a head": [chaos.send(HEAD), chaos.truncate_tls()],
    "A12 no close_notify in a body with a length": [chaos.send(SIZED + b'{"status": '), chaos.truncate_tls()],
    "A12 no close_notify in a chunked body": [chaos.send(CHUNKED + b'b\r\n{"status": \r\n'), chaos.truncate_tls()],
    "A12 no close_notify in a body without a length": [chaos.send(HEAD + b'\r\n{"status": '), chaos.truncate_tls()],
    "A12 reset in a body": [chaos.send(SIZED + b'{"status": '), chaos.reset()],
}


@pytest.mark.parametrize("actions", TLS_CUTS.values(), ids=TLS_CUTS)
async def test_tls_that_breaks_is_another_try_for_a_look(floor, tls_server, actions):
    async with floor(tls_server, ca_file=tls_server.ca_file) as this:
        tls_server.on_request(*actions)
        await this.look()
        assert tls_server.connections == len(tls_server.requests) == 2


@pytest.mark.parametrize("actions", TLS_CUTS.values(), ids=TLS_CUTS)
async def test_tls_that_breaks_leaves_a_create_unknown_and_it_is_sent_once(floor, tls_server, actions):
    async with floor(tls_server, ca_file=tls_server.ca_file) as this:
        tls_server.on_request(*actions)
        error = await this.fails(OutcomeUnknown, this.create(), stage="answer")
        assert len(error.attempts) == tls_server.connections == len(tls_server.requests) == 1


@pytest.mark.parametrize("actions", TLS_CUTS.values(), ids=TLS_CUTS)
async def test_tls_that_always_breaks_is_four_tries_and_told(floor, tls_server, actions):
    async with floor(tls_server, ca_file=tls_server.ca_file) as this:
        tls_server.otherwise(*actions)
        # What is whole but for its end may be either.
        with pytest.raises((OutcomeUnknown, UnexpectedAnswer)):
            await this.look()
        assert len(tls_server.requests) == 4


def whole(document):
    body = json.dumps(document).encode()
    return HEAD + b"\r\n" + body


async def test_a_whole_answer_without_length_and_close_notify_is_taken(floor, tls_server):
    # Many servers never send close_notify; a whole JSON document cannot be the beginning of another one.
    async with floor(tls_server, ca_file=tls_server.ca_file) as this:
        tls_server.on_request(chaos.send(whole({"status": "working"})), chaos.truncate_tls())
        await this.look()
        assert len(tls_server.requests) == 1
