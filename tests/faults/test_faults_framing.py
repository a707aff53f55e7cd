"""Answers whose HTTP is broken or strange: none is half believed, and none is ever given to another request."""

import asyncio
import json
import random

import pytest

from gts_async import JobStatus, Limits, OutcomeUnknown, ServerFailed, TimedOut, UnexpectedAnswer
from gts_async.testing import ChaosServer, chaos
from gts_async.wire import Call, Request

OK = b"HTTP/1.1 200 OK\r\n"
# Good for a look and for a create.
DOCUMENT = b'{"status":"working","job_id":"j-1"}'
OTHER = b'{"status":"success","job_id":"j-1"}'
LENGTH = b"content-length: %d\r\n" % len(DOCUMENT)
CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNK = b"%x\r\n%s\r\n" % (len(DOCUMENT), DOCUMENT)
LAST = b"0\r\n\r\n"
SIZED = LENGTH + b"\r\n" + DOCUMENT


def sized(number):
    return OK + b"content-length: " + number + b"\r\n\r\n" + DOCUMENT


def chunked(body):
    return OK + CHUNKED + b"\r\n" + body


def whole(body=DOCUMENT, head=OK):
    return head + b"content-length: %d\r\n\r\n%s" % (len(body), body)


def named(cases):
    return pytest.mark.parametrize("sent", cases.values(), ids=cases)


# What is no answer at all --------------------------------------------------------------------------------------------

BROKEN = {
    "B1 body shorter than its length": sized(b"99"),
    "B1 no body": OK + LENGTH + b"\r\n",
    "B1 cut in the head": OK + b"content-le",
    "B1 cut in the status line": b"HTTP/1.1 20",
    "B1 cut before the empty line": OK + LENGTH,
    "B1 cut in the empty line": OK + LENGTH + b"\r",
    "B2 chunk cut mid-way": chunked(CHUNK[:9]),
    "B2 cut before the last chunk": chunked(CHUNK),
    "B2 cut in the last chunk": chunked(CHUNK + b"0\r\n"),
    "B2 cut after a size": chunked(b"23\r\n"),
    "B2 cut in a size": chunked(b"2"),
    "B2 cut before any chunk": chunked(b""),
    "B3 neither a length nor a body": OK + b"\r\n",
    "B4 conflicting lengths": OK + LENGTH + b"content-length: 9\r\n\r\n" + DOCUMENT,
    "B4 conflicting lengths in one line": sized(b"%d, 9" % len(DOCUMENT)),
    "B4 lengths spelled apart": OK + LENGTH + b"content-length: 0%d\r\n\r\n" % len(DOCUMENT) + DOCUMENT,
    "length below zero": sized(b"-1"),
    "length with a plus": sized(b"+%d" % len(DOCUMENT)),
    "length in hex": sized(b"0x23"),
    "length with a point": sized(b"35.0"),
    "length empty": sized(b""),
    "length in other digits": sized("٣٥".encode()),
    "length of 20 digits": sized(b"9" * 20),
    "length of 5000 digits": sized(b"9" * 5000),
    "chunk size of 20 digits": chunked(b"F" * 20 + b"\r\n" + DOCUMENT),
    "chunk size of 21 digits": chunked(b"F" * 21 + b"\r\n" + DOCUMENT),
    "chunk size below zero": chunked(b"-" + CHUNK + LAST),
    "chunk size with a plus": chunked(b"+" + CHUNK + LAST),
    "chunk size with 0x": chunked(b"0x" + CHUNK + LAST),
    "chunk size with an underscore": chunked(b"2_3\r\n" + DOCUMENT + b"\r\n" + LAST),
    "chunk size with a space before": chunked(b" " + CHUNK + LAST),
    "chunk size missing": chunked(b"\r\n" + DOCUMENT),
    "chunk longer than its size": chunked(b"22\r\n" + DOCUMENT + b"\r\n" + LAST),
    "chunk followed by something else": chunked(b"23\r\n" + DOCUMENT + b"XX" + LAST),
    "chunk lines that end in bare LF": chunked(CHUNK + LAST).replace(b"\r\n", b"\n"),
    "chunk extension of 200 KB": chunked(b"23;x=" + b"y" * 200_000 + b"\r\n" + DOCUMENT + b"\r\n" + LAST),
    "trailer of 1 MB": chunked(CHUNK + b"0\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n"),
    "trailer without a colon": chunked(CHUNK + b"0\r\nxy\r\n\r\n"),
    "trailer cut": chunked(CHUNK + b"0\r\nset-cookie: TOP"),
    "B7 header of 300 KB": OK + b"x: " + b"y" * 300_000 + b"\r\n" + SIZED,
    "B8 headers of 300 KB": OK + b"x: y\r\n" * 50_000 + SIZED,
    "B10 101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n" + OK + SIZED,
    "B9 103 and no more": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "B9 100 and no more": b"HTTP/1.1 100 Continue\r\n\r\n",
    "B15 status 000": whole(head=b"HTTP/1.1 000 OK\r\n"),
    "B15 status 099": whole(head=b"HTTP/1.1 099 OK\r\n"),
    "B15 status of two digits": whole(head=b"HTTP/1.1 20 OK\r\n"),
    "B15 status of four digits": whole(head=b"HTTP/1.1 2000 OK\r\n"),
    "B15 status below zero": whole(head=b"HTTP/1.1 -20 OK\r\n"),
    "B15 status in words": whole(head=b"HTTP/1.1 OK OK\r\n"),
    "B15 NUL in the reason": whole(head=b"HTTP/1.1 200 O\x00K\r\n"),
    "NUL in a header": OK + b"x: a\x00b\r\n" + SIZED,
    "CR in a header": OK + b"x: a\rb\r\n" + SIZED,
    "header without a colon": OK + b"what\r\n" + SIZED,
    "header without a name": OK + b": x\r\n" + SIZED,
    "space before a header's colon": OK + b"x : y\r\n" + SIZED,
    "space in a header's name": OK + b"x y: z\r\n" + SIZED,
    "other letters in a header's name": OK + "é: z\r\n".encode() + SIZED,
    "folded line before any header": OK + b" x: y\r\n" + SIZED,
    "transfer coding gzip": OK + b"transfer-encoding: gzip\r\n" + SIZED,
    "transfer coding gzip, chunked": OK + b"transfer-encoding: gzip, chunked\r\n\r\n" + CHUNK + LAST,
    "transfer coding identity": OK + b"transfer-encoding: identity\r\n" + SIZED,
    "transfer coding unknown": OK + b"transfer-encoding: x\r\n" + SIZED,
    "chunked twice": OK + CHUNKED + CHUNKED + b"\r\n" + CHUNK + LAST,
    "version in lower case": whole(head=b"http/1.1 200 OK\r\n"),
    "no version": whole(head=b"200 OK\r\n"),
    "HTTP/0.9": DOCUMENT,
    "two spaces in the status line": whole(head=b"HTTP/1.1  200 OK\r\n"),
    "tab in the status line": whole(head=b"HTTP/1.1\t200 OK\r\n"),
    "ICY": whole(head=b"ICY 200 OK\r\n"),
    "empty line first": b"\r\n" + whole(),
    "lines that end in CR": OK.replace(b"\n", b"") + b"\r" + DOCUMENT,
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2 settings": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00\x03\x00\x00\x00d" * 3,
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "SMTP": b"220 mail.test ESMTP\r\n",
    "a request": b"POST /api/userJob HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    "nothing but NUL": b"\x00" * 200_000,
}


@named(BROKEN)
async def test_a_broken_answer_is_another_try_for_a_look_on_another_connection(server, floor, sent):
    async with floor(server) as this:
        server.on_request(chaos.send(sent), chaos.close())
        assert (await this.look()).status is JobStatus.WORKING
        assert [request.connection for request in server.requests] == [0, 1]
        assert [event.kind for event in this.events] == ["tried again", "answered"]


@named(BROKEN)
async def test_a_look_that_gets_nothing_but_broken_answers_gives_up_after_four(server, floor, sent):
    async with floor(server) as this:
        server.otherwise(chaos.send(sent), chaos.close())
        error = await this.fails(OutcomeUnknown, this.look(), call="job_status", stage="answer")
        assert len(error.attempts) == len(server.requests) == server.connections == 4
        assert [attempt.status for attempt in error.attempts] == [None] * 4
        assert error.attempts[-1].delay is None
        assert error.__cause__ is not None


@named(BROKEN)
async def test_a_create_with_a_broken_answer_may_have_happened_and_is_sent_once(server, floor, sent):
    async with floor(server) as this:
        server.otherwise(chaos.send(sent), chaos.close())
        error = await this.fails(OutcomeUnknown, this.create(), call="create_job", stage="answer")
        assert len(error.attempts) == len(server.requests) == 1
        assert error.intent.spec.image_path == "registry.test/image"


LEFT_OPEN = [
    "B4 conflicting lengths", "length in hex", "chunk size below zero", "chunk followed by something else",
    "B7 header of 300 KB", "B10 101 unasked", "NUL in a header", "transfer coding gzip", "version in lower case",
]  # fmt: skip


@pytest.mark.parametrize("sent", [BROKEN[name] for name in LEFT_OPEN], ids=LEFT_OPEN)
async def test_a_connection_on_which_nonsense_came_is_closed_although_the_server_leaves_it_open(server, floor, sent):
    async with floor(server) as this:
        server.otherwise(chaos.send(sent))
        await this.fails(OutcomeUnknown, this.create())
        await server.drained()
        server.otherwise(chaos.answer(json={"status": "success"}))
        assert (await this.look()).status is JobStatus.SUCCEEDED
        assert [request.connection for request in server.requests] == [0, 1]


# What never ends -----------------------------------------------------------------------------------------------------

UNENDING = {
    "B9 endless 103": chaos.endlessly(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 20, every=0.005),
    "B9 endless 100": chaos.endlessly(b"HTTP/1.1 100 Continue\r\n\r\n" * 20, every=0.005),
    "B8 header drip": (chaos.send(OK), chaos.endlessly(b"x: y\r\n", every=0.005)),
    "chunk size without an end": chaos.send(chunked(b"2")),
    "missing last chunk": chaos.send(chunked(CHUNK)),
    "chunks without an end": (chaos.send(OK + CHUNKED + b"\r\n"), chaos.endlessly(b"1\r\n \r\n", every=0.005)),
    "trailers without an end": (chaos.send(chunked(CHUNK + b"0\r\n")), chaos.endlessly(b"x: y\r\n", every=0.005)),
    "body that is short of one byte": chaos.send(sized(b"%d" % (len(DOCUMENT) + 1))),
    "204 that is not all there": chaos.send(b"HTTP/1.1 204 No Content\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("call", ["look", "create"])
@pytest.mark.parametrize("script", UNENDING.values(), ids=UNENDING)
async def test_an_answer_without_an_end_ends_with_the_calls_time(server, floor, call, script):
    async with floor(server) as this:
        server.otherwise(*(script if isinstance(script, tuple) else (script,)), chaos.stall())
        began = asyncio.get_running_loop().time()
        error = await this.fails(TimedOut, this.send(call, timeout=0.1), stage="answer")
        assert 0.1 <= asyncio.get_running_loop().time() - began < 2
        assert len(error.attempts) == len(server.requests) == 1


# What is strange but good --------------------------------------------------------------------------------------------

STRANGE = {
    "header folded over two lines": OK + b"x: a\r\n b\r\n\tc\r\n" + SIZED,
    "length folded over two lines": OK + b"content-length:\r\n 35\r\n\r\n" + DOCUMENT,
    "the same length twice": OK + LENGTH + LENGTH + b"\r\n" + DOCUMENT,
    "the same length twice in one line": sized(b"35, 35"),
    "length with zeros before": sized(b"000035"),
    "lines that end in bare LF": (OK + LENGTH).replace(b"\r\n", b"\n") + b"\n" + DOCUMENT,
    "status line without a reason": whole(head=b"HTTP/1.1 200\r\n"),
    "status line with an empty reason": whole(head=b"HTTP/1.1 200 \r\n"),
    "B15 reason of invalid bytes": whole(head=b"HTTP/1.1 200 \xff\xfe\x80\r\n"),
    "B15 reason with ANSI escapes": whole(head=b"HTTP/1.1 200 \x1b[31mTOP\x07\r\n"),
    "header of invalid bytes": OK + b"x: \xff\xfe\r\n" + SIZED,
    "header with ANSI escapes": OK + b"x: \x1b[31m\x07\r\n" + SIZED,
    "header without a value": OK + b"x:\r\n" + SIZED,
    "header of 50 KB": OK + b"x: " + b"y" * 50_000 + b"\r\n" + SIZED,
    "B8 10 000 headers of the same name": OK + b"x: y\r\n" * 10_000 + SIZED,
    "B8 6 000 headers": OK + b"".join(b"x%d: y\r\n" % number for number in range(6_000)) + SIZED,
    "chunk extensions": chunked(b'23;a=b;c="d"\r\n' + DOCUMENT + b"\r\n0;x\r\n\r\n"),
    "chunk size with zeros before": chunked(b"00000000" + CHUNK + LAST),
    "chunked in capitals": OK + b"Transfer-Encoding: CHUNKED\r\n\r\n" + CHUNK + LAST,
    "a chunk for every byte": chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in DOCUMENT) + LAST),
    "trailers": chunked(CHUNK + b"0\r\nx-checksum: 1\r\nset-cookie: TOPSECRET\r\ncontent-length: 99\r\n\r\n"),
    "100 unasked": b"HTTP/1.1 100 Continue\r\n\r\n" + whole(),
    "several 103": b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 5 + whole(),
    "199": b"HTTP/1.1 199 What\r\n\r\n" + whole(),
    "HTTP/1.2": whole(head=b"HTTP/1.2 200 OK\r\n"),
    "cookies": OK + b"set-cookie: a=TOP; path=/\r\n" * 50 + SIZED,
}


@named(STRANGE)
async def test_a_strange_answer_is_read_as_any_other(server, floor, sent):
    async with floor(server) as this:
        server.otherwise(chaos.send(sent))
        for _ in range(2):
            assert (await this.look()).status is JobStatus.WORKING
        assert (await this.create()).id == "j-1"
        assert [request.connection for request in server.requests] == [0, 0, 0]
        assert all(request.header("cookie") is None for request in server.requests)


async def test_an_answer_may_come_in_single_bytes(server, floor):
    async with floor(server) as this:
        server.otherwise(chaos.drip(chunked(CHUNK + LAST), every=0.0))
        for _ in range(2):
            assert (await this.look()).status is JobStatus.WORKING
        assert server.connections == 1


async def test_a_chunk_for_every_byte_leaves_turns_to_others(server, floor):
    body = DOCUMENT[:-1] + b" " * 20_000 + b"}"
    sent = chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + LAST)
    turns = 0

    async def others():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with floor(server) as this:
        server.otherwise(chaos.send(sent))
        task = asyncio.create_task(others())
        assert (await this.look()).status is JobStatus.WORKING
        task.cancel()
        # Its 120 KB come in a handful of reads, and each of them without a turn in between.
        assert turns > 70


CLOSED = {
    "B13 HTTP/1.0": whole(head=b"HTTP/1.0 200 OK\r\n"),
    "B13 HTTP/1.0 without a length": b"HTTP/1.0 200 OK\r\n\r\n" + DOCUMENT,
    "B13 HTTP/1.0 that would keep alive": whole(head=b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n"),
    "B13 HTTP/0.9 by name": whole(head=b"HTTP/0.9 200 OK\r\n"),
    "B13 Connection: close": whole(head=OK + b"connection: close\r\n"),
    "B13 Connection: Close, X": whole(head=OK + b"connection: Close, X\r\n"),
    "B3 whole without a length": OK + b"\r\n" + DOCUMENT,
}


@pytest.mark.parametrize("ending", [chaos.close(), chaos.half_close()], ids=["closed", "half closed"])
@named(CLOSED)
async def test_an_answer_that_ends_its_connection_is_good_and_the_next_has_another(server, floor, sent, ending):
    async with floor(server) as this:
        server.otherwise(chaos.send(sent), ending)
        for _ in range(2):
            assert (await this.look()).status is JobStatus.WORKING
        assert (await this.create()).id == "j-1"
        assert [request.connection for request in server.requests] == [0, 1, 2]


# Announced as the last, and yet the connection stays open on the server's side.
@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\n", OK + b"connection: close\r\n"], ids=["1.0", "close"])
async def test_a_connection_that_was_announced_to_end_is_not_used_again(server, floor, head):
    async with floor(server) as this:
        server.otherwise(chaos.send(whole(head=head)))
        for _ in range(2):
            assert (await this.look()).status is JobStatus.WORKING
        await server.until(lambda: server.open == 0)
        assert [request.connection for request in server.requests] == [0, 1]


@pytest.mark.parametrize("tail", [CHUNK + LAST, CHUNK + LAST + DOCUMENT], ids=["", "and something after it"])
async def test_b5_a_connection_whose_answer_had_two_framings_is_not_used_again(server, floor, tail):
    async with floor(server) as this:
        server.on_request(chaos.send(OK + LENGTH + CHUNKED + b"\r\n" + tail))
        assert (await this.look()).status is JobStatus.WORKING
        assert (await this.look()).status is JobStatus.WORKING
        assert [request.connection for request in server.requests] == [0, 1]


# Cut where its own framing cannot tell -------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [*range(1, len(DOCUMENT) - 1, 4), len(DOCUMENT) - 1])
async def test_b3_a_document_cut_by_the_end_of_its_connection_is_never_a_success(server, floor, cut):
    async with floor(server) as this:
        server.otherwise(chaos.send(OK + b"\r\n" + DOCUMENT[:cut]), chaos.close())
        error = await this.fails(UnexpectedAnswer, this.look(), is_cut=True)
        assert error.body == DOCUMENT[:cut].decode()
        assert len(server.requests) == 4
        await this.fails(OutcomeUnknown, this.create())
        assert len(server.requests) == 5


@pytest.mark.parametrize("cut", range(12, 16))
async def test_b3_a_document_cut_in_the_middle_of_a_character_is_asked_for_again(server, floor, cut):
    body = json.dumps({"status": "运行"}, ensure_ascii=False).encode()
    async with floor(server) as this:
        server.on_request(chaos.send(OK + b"\r\n" + body[:cut]), chaos.close())
        assert (await this.look()).status is JobStatus.WORKING


async def test_b3_a_stop_is_not_done_because_nothing_came(server, floor):
    async with floor(server) as this:
        server.on_request(chaos.send(OK + b"\r\n"), chaos.close())
        server.otherwise(chaos.answer(body=b""))
        stop = Call("stop", Request("POST", "/stop"), lambda answer: answer.body, is_repeatable=True)
        assert await this.session._cloud.exchange.send(stop) == b""
        assert len(server.requests) == 2


@pytest.mark.parametrize("length", [0, 5])
async def test_a_length_shorter_than_the_document_is_cut_and_the_rest_goes_nowhere(server, floor, length):
    async with floor(server) as this:
        server.on_request(chaos.send(sized(b"%d" % length)))
        assert (await this.look()).status is JobStatus.WORKING
        assert [request.connection for request in server.requests] == [0, 1]


# What comes besides the answer ---------------------------------------------------------------------------------------

GOOD = whole()
MORE = {
    "a second answer": whole(OTHER),
    "ten more answers": whole(OTHER) * 10,
    "one byte": b"{",
    "an empty line": b"\r\n",
    "half of an answer": whole(OTHER)[:20],
    "the rest of a body": OTHER,
    "one more chunk": CHUNK + LAST,
    "a 100 KB header": OK + b"x: " + b"y" * 100_000,
    "a 103": b"HTTP/1.1 103 Early Hints\r\n\r\n",
}


@named(MORE)
async def test_what_comes_with_an_answer_is_not_the_answer_to_the_next_request(server, floor, sent):
    async with floor(server, limits=Limits(max_connections=1)) as this:
        server.on_request(chaos.send(GOOD + sent))
        for _ in range(2):
            assert (await this.look()).status is JobStatus.WORKING
        assert [request.connection for request in server.requests] == [0, 1]


@named(MORE)
async def test_what_comes_later_on_an_idle_connection_is_not_the_answer_to_the_next_request(server, floor, sent):
    async with floor(server, limits=Limits(max_connections=1)) as this:
        done = asyncio.Event()
        server.on_request(chaos.send(GOOD), chaos.hold(done), chaos.send(sent))
        assert (await this.look()).status is JobStatus.WORKING
        done.set()
        await asyncio.sleep(0.02)
        assert (await this.look()).status is JobStatus.WORKING
        assert [request.connection for request in server.requests] == [0, 1]


def large_answer(size):
    """Give a whole answer of so many bytes, its head included."""
    start = b'{"status":"working","job_id":"j-1","more":"'
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"
    room = size - len(head % 100_000) - len(start) - 2
    # As long in digits as the length itself.
    body = start + b"x" * (room + (size < 100_000)) + b'"}'
    sent = head % len(body) + body
    assert len(sent) == size
    return sent


# httpcore reads 64 KiB at a time, the loop and anyio more: what lies between them nobody sees but anyio.
SIZES = [65_535, 65_536, 65_537, 131_072, 196_608, 262_144]


@pytest.mark.parametrize("size", SIZES)
async def test_what_comes_with_a_large_answer_is_not_the_answer_to_the_next_request(server, floor, size):
    async with floor(server, limits=Limits(max_connections=1)) as this:
        server.on_request(chaos.send(large_answer(size) + whole(OTHER)))
        for _ in range(2):
            assert (await this.look()).status is JobStatus.WORKING
        assert [request.connection for request in server.requests] == [0, 1]


RECORDS = {
    "in the same record": (chaos.send(GOOD + whole(OTHER)),),
    "in a second record": (chaos.send(GOOD), chaos.send(whole(OTHER))),
    "an empty line in a second record": (chaos.send(GOOD), chaos.send(b"\r\n")),
    "the server's goodbye": (chaos.send(GOOD), chaos.close()),
    **{f"after {size} bytes": (chaos.send(large_answer(size) + whole(OTHER)),) for size in SIZES},
}


@pytest.mark.parametrize("script", RECORDS.values(), ids=RECORDS)
async def test_what_comes_with_an_answer_over_tls_is_not_the_answer_to_the_next_request(floor, script):
    async with (
        ChaosServer(tls=True) as server,
        floor(server, limits=Limits(max_connections=1), ca_file=server.ca_file) as this,
    ):
        server.on_request(*script)
        for _ in range(2):
            assert (await this.look()).status is JobStatus.WORKING
        assert [request.connection for request in server.requests] == [0, 1]
        assert (await this.create()).id == "j-1"


BODILESS = {
    "B11 204 with a body": whole(OTHER, head=b"HTTP/1.1 204 No Content\r\n"),
    "B11 204 with chunks": b"HTTP/1.1 204 No Content\r\n" + CHUNKED + b"\r\n" + CHUNK + LAST,
    "B11 304 with a body": whole(OTHER, head=b"HTTP/1.1 304 Not Modified\r\n"),
    "B11 304 with an answer in it": whole(whole(OTHER), head=b"HTTP/1.1 304 Not Modified\r\n"),
    "B11 204 and another answer": b"HTTP/1.1 204 No Content\r\n\r\n" + whole(OTHER),
    "B11 304 of a length": b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9999999999\r\n\r\n",
}


@named(BODILESS)
async def test_the_body_of_an_answer_that_has_none_is_ignored_and_its_connection_dropped(server, floor, sent):
    async with floor(server, limits=Limits(max_connections=1)) as this:
        server.on_request(chaos.send(sent))
        error = await this.fails(UnexpectedAnswer, this.look(), body="")
        assert sent[9:12].decode() in error.problem
        assert (await this.look()).status is JobStatus.WORKING
        assert len(server.requests) == 2
        if len(sent) > 80:
            assert [request.connection for request in server.requests] == [0, 1]


@pytest.mark.parametrize("status", [b"204", b"304"])
async def test_a_create_answered_by_no_body_may_have_happened_only_if_the_answer_was_good(server, floor, status):
    async with floor(server) as this:
        server.on_request(chaos.send(b"HTTP/1.1 " + status + b" X\r\n\r\n"))
        await this.fails(OutcomeUnknown if status == b"204" else UnexpectedAnswer, this.create())
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [b"600", b"799", b"999"])
async def test_b15_a_status_beyond_all_known_is_a_failure_of_the_servers(server, floor, status):
    sent = whole(b"\x1b[31m\xff<html>", head=b"HTTP/1.1 " + status + b" \xff\x1b[31m\r\n")
    async with floor(server) as this:
        server.otherwise(chaos.send(sent))
        error = await this.fails(ServerFailed, this.look(), status=int(status))
        assert len(error.attempts) == len(server.requests) == server.connections == 4
        assert "\x1b" not in str(error) + error.body
        await this.fails(OutcomeUnknown, this.create())
        assert len(server.requests) == 5


# Before the request --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [(), (chaos.close(),)], ids=["open", "closed"])
@pytest.mark.parametrize("status", [200, 408])
async def test_what_a_server_says_to_an_idle_connection_answers_nothing(server, floor, status, ending):
    async with floor(server, limits=Limits(max_connections=1)) as this:
        done = asyncio.Event()
        unasked = chaos.answer(status, json={"status": "success", "job_id": "not asked for"})
        server.on_request(chaos.send(GOOD), chaos.hold(done), unasked, *ending)
        assert (await this.look()).status is JobStatus.WORKING
        done.set()
        await asyncio.sleep(0.02)
        assert (await this.create()).id == "j-1"
        assert [request.connection for request in server.requests] == [0, 1]


async def test_an_answer_before_any_request_is_never_followed_by_another_ones(server, floor):
    async with floor(server, limits=Limits(max_connections=1)) as this:
        server.on_connection(chaos.send(whole(OTHER)))
        for _ in range(3):
            server.on_request(chaos.send(GOOD))
        # Nothing shows that what is there already is not the answer; but from then on all would be late by one.
        assert (await this.look()).status in (JobStatus.SUCCEEDED, JobStatus.WORKING)
        await asyncio.sleep(0.02)
        for _ in range(2):
            assert (await this.look()).status is JobStatus.WORKING
        assert server.connections == 2


# While the request is sent -------------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path):
    """Give a file that is larger than all buffers between client and server."""
    path = tmp_path / "train.json"
    path.write_bytes(b'{"content": "x", "label": "y"}\n' * 1_000_000)
    return path


TOO_LARGE = whole(b"too large", head=b"HTTP/1.1 413 Too Large\r\nconnection: close\r\n")


async def test_a_refusal_in_the_middle_of_an_upload_is_read(server, floor, large):
    async with floor(server, engine=server.url) as this:
        server.on_connection(chaos.receive(1000), chaos.send(TOO_LARGE), chaos.half_close())
        work = this.session.task("t").upload(large, check=False)
        error = await this.fails(UnexpectedAnswer, work, call="upload")
        assert "413" in error.problem
        assert server.connections == 1


async def test_a_refusal_of_a_server_that_then_reads_no_more_ends_with_the_time(server, floor, large):
    async with floor(server, engine=server.url) as this:
        server.on_connection(chaos.receive(1000), chaos.send(TOO_LARGE), chaos.stall())
        work = this.session.task("t").upload(large, check=False, timeout=0.2)
        await this.fails(TimedOut, work, call="upload", stage="send")
        assert server.connections == 1


async def test_an_upload_whose_connection_is_reset_is_sent_again_from_the_start(server, floor, large):
    async with floor(server, engine=server.url) as this:
        server.on_connection(chaos.receive(1000), chaos.reset())
        server.otherwise(chaos.answer(json={"ret_code": 200, "message": "ok"}))
        await this.session.task("t").upload(large, check=False)
        assert [request.connection for request in server.requests] == [1]
        assert len(server.requests[0].body) > 31_000_000


async def test_an_answer_before_the_whole_request_was_read_leaves_nothing_for_the_next(server, floor, large):
    async def early(connection):
        request = await connection.receive(1000)
        await connection.send(whole(b'{"ret_code": 200, "message": "ok"}'))
        while not request.endswith(b"--\r\n"):
            request += await connection.receive(1 << 20)

    async with floor(server, engine=server.url, limits=Limits(max_connections=1)) as this:
        server.on_connection(early)
        await this.session.task("t").upload(large, check=False)
        with pytest.raises(UnexpectedAnswer, match="ret_code"):
            await this.session.task("t").status()
        assert [request.connection for request in server.requests] == [0]


# Whose answer it is --------------------------------------------------------------------------------------------------


def about(number):
    """Ask about the job of that number; gives the number that the answer is about."""
    request = Request.json("POST", "/userJob/job_status", {"number": number})
    return Call("look", request, lambda answer: json.loads(answer.body)["number"], is_repeatable=True)


@pytest.mark.parametrize("at", [0, 10, 45, -1], ids=["no byte", "in the head", "in the body", "one byte short"])
async def test_b16_the_rest_of_an_answer_to_a_cancelled_request_is_not_the_next_ones(server, floor, at):
    async with floor(server, limits=Limits(max_connections=1)) as this:
        goes_on = asyncio.Event()
        sent = whole(b'{"number": 1}')
        server.on_request(chaos.send(sent[:at]), chaos.hold(goes_on), chaos.send(sent[at:]))
        server.otherwise(chaos.answer(json={"number": 2}))
        first = asyncio.create_task(this.session._cloud.exchange.send(about(1)))
        await server.until(lambda: server.requests)
        await asyncio.sleep(0.005)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        goes_on.set()
        assert await this.session._cloud.exchange.send(about(2)) == 2
        assert [request.connection for request in server.requests] == [0, 1]


async def test_b16_among_many_cancelled_and_broken_requests_every_answer_is_its_own(server, floor):
    chance = random.Random(5)

    async def any_answer(connection):
        number = json.loads(connection.request.body)["number"]
        sent = whole(json.dumps({"number": number}).encode())
        fault = chance.random()
        if fault < 0.1:
            await connection.send(sent + whole(b'{"number": -1}'))
        elif fault < 0.2:
            await connection.send(sent[: chance.randrange(len(sent))])
            connection.close()
        elif fault < 0.4:
            await chaos.drip(sent, every=0.001, size=20)(connection)
        else:
            await connection.send(sent)

    async with floor(server, limits=Limits(max_connections=4)) as this:
        server.otherwise(any_answer)
        asked = [asyncio.create_task(this.session._cloud.exchange.send(about(number))) for number in range(150)]
        for task in chance.sample(asked, 30):
            asyncio.get_running_loop().call_later(chance.random() * 0.3, task.cancel)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        got = [(number, answer) for number, answer in enumerate(answers) if isinstance(answer, int)]
        assert len(got) > 100
        assert all(number == answer for number, answer in got)
