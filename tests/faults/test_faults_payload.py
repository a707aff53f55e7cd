"""Bodies that lie: whatever a server puts into a well-framed answer, it is read exactly or refused by name."""

import asyncio
import gzip
import json
import zlib

import pytest

from gts_async import (
    Denied,
    GpuType,
    InvalidArgument,
    InvalidData,
    JobStatus,
    Limits,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    RateLimited,
    Schedule,
    ServerFailed,
    ServiceError,
    TaskStatus,
    TaskType,
    Unauthorized,
    UnexpectedAnswer,
)
from gts_async.gts.calls import predict
from gts_async.testing import chaos
from gts_async.wire import Answer

# Good for a look and for a create.
DOCUMENT = b'{"status":"working","job_id":"j-1"}'
MARK = b"\xef\xbb\xbf"
JSON = {"content-type": "application/json"}


def with_more(more):
    """Give the good document with one more key, that nobody reads, and this value."""
    return DOCUMENT[:-1] + b',"more":' + more + b"}"


def both(value):
    """Give the document with this JSON in the place of what a look and a create read."""
    return b'{"status":' + value + b',"job_id":' + value + b"}"


def named(cases):
    return pytest.mark.parametrize("body", cases.values(), ids=cases)


# What is read --------------------------------------------------------------------------------------------------------

GOOD = {
    "E3 byte order mark": MARK + DOCUMENT,
    "white space around": b" \r\n\t" + DOCUMENT + b"\r\n\r\n ",
    "64 KB of white space": b" " * 65_536 + DOCUMENT,
    "duplicate keys, of which the last counts": b'{"status":"fail","job_id":"j-2",' + DOCUMENT[1:],
    "letters spelled out": b'{"\\u0073tatus":"\\u0077orking","job_id":"\\u006a-1"}',
    "E11 unknown keys": b'{"":null,"a":[{}],"STATUS":1,' + DOCUMENT[1:],
    "E5 an integer of 5000 digits that nobody reads": with_more(b"9" * 5000),
    "E5 a number beyond all floats that nobody reads": with_more(b"-1e99999"),
    "E10 any types where nobody reads": with_more(b'[true,5.9,null,"x",{"status":[]}]'),
    "NUL spelled out": with_more(b'"a\\u0000b"'),
    "emoji": with_more('"😀"'.encode()),
    "emoji spelled out": with_more(b'"\\ud83d\\ude00"'),
    "depth of 400": with_more(b"[" * 400 + b"]" * 400),
    "a string of 1 MB": with_more(b'"' + b"x" * 1_000_000 + b'"'),
    "a string of 1 MB of other letters": with_more('"运行"'.encode() + b',"x":"' + "运行😀".encode() * 100_000 + b'"'),
    "100 000 keys": with_more(b"1," + b",".join(b'"%d":1' % key for key in range(100_000))),
}


@named(GOOD)
async def test_what_is_strange_but_right_is_read(server, floor, body):
    async with floor(server) as this:
        server.otherwise(chaos.answer(body=body, headers=JSON))
        assert (await this.look()).status is JobStatus.WORKING
        assert (await this.create()).id == "j-1"
        assert [request.connection for request in server.requests] == [0, 0]


@pytest.mark.parametrize(
    "kind",
    ["application/json; charset=gbk", "application/json;charset=ISO-8859-1", "text/plain", "text/html", "x", "", None],
)
async def test_json_is_utf_8_whatever_the_header_says(server, floor, kind):
    body = '{"status":"运行","job_id":"j-1"}'.encode()
    async with floor(server) as this:
        server.otherwise(chaos.answer(body=body, headers={} if kind is None else {"content-type": kind}))
        look = await this.look()
        assert (look.status, look.word) == (JobStatus.UNKNOWN, "运行")


async def test_e11_an_unknown_status_is_kept_and_told_once_and_ends_no_wait(server, floor, caplog):
    words = ["working", "paused\x1b[31m", "paused\x1b[31m", "working", "paused\x1b[31m", "success"]
    async with floor(server, schedule=Schedule(minimum=0.001, maximum=0.001)) as this:
        for word in words:
            server.on_request(chaos.answer(json={"status": word, "url": "http://store.test/data.zip"}))
        statuses = [change.status.name async for change in this.session.job("j-1").watch()]
        assert statuses == ["WORKING", "UNKNOWN", "WORKING", "UNKNOWN", "SUCCEEDED"]
        told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(told) == 1
        assert "paused" in told[0]
        assert "\x1b" not in told[0]


# What cannot be read -------------------------------------------------------------------------------------------------

UNREADABLE = {
    "E2 invalid UTF-8": both(b'"\xff"'),
    "E2 invalid UTF-8 where nobody reads": with_more(b'"\xff"'),
    "E2 invalid UTF-8 in a key": DOCUMENT[:-1] + b',"\xff":1}',
    "E2 overlong UTF-8": with_more(b'"\xc0\xaf"'),
    "E2 UTF-8 beyond Unicode": with_more(b'"\xf4\x90\x80\x80"'),
    "E2 surrogates in UTF-8": with_more(b'"\xed\xa0\xbd\xed\xb8\x80"'),
    "E2 half of a character, then more": with_more(b'"\xe8\xbf"'),
    "Latin-1": with_more('"é"'.encode("latin-1")),
    "GBK": with_more('"运行"'.encode("gbk")),
    "UTF-16": DOCUMENT.decode().encode("utf-16"),
    "UTF-16 without a mark": DOCUMENT.decode().encode("utf-16-le"),
    "UTF-32": DOCUMENT.decode().encode("utf-32"),
    "E3 two byte order marks": MARK * 2 + DOCUMENT,
    "E3 byte order mark at the end": DOCUMENT + MARK,
    "E7 half of a surrogate pair": with_more(b'"\\ud800 and more"'),
    "E7 the other half of one": with_more(b'"\\udc00 and more"'),
    "E7 two first halves": with_more(b'"\\ud800\\ud800 and more"'),
    "E10 true": both(b"true"),
    "E10 an integer": both(b"5"),
    "E10 5.9": both(b"5.9"),
    "E10 null": both(b"null"),
    "E10 a list": both(b'["working"]'),
    "E10 an object": both(b'{"status":"working"}'),
    "E12 a list": b"[" + DOCUMENT + b"]",
    "E12 an empty list": b"[]",
    "E12 a string": b'"working"',
    "E12 a number": b"5",
    "D15 null": b"null",
    "true": b"true",
    "keys missing": b'{"message":"hello"}',
    "keys in capitals": b'{"STATUS":"working","JOB_ID":"j-1"}',
    "NaN": with_more(b"NaN"),
    "Infinity": with_more(b"-Infinity"),
    "a number with a zero before": with_more(b"01"),
    "a number with a plus": with_more(b"+1"),
    "a number in hex": with_more(b"0x1"),
    "a number without digits": with_more(b"-"),
    "True": with_more(b"True"),
    "undefined": with_more(b"undefined"),
    "a comment": b"/* x */" + DOCUMENT,
    "one comma more": DOCUMENT[:-1] + b",}",
    "single quotes": DOCUMENT.replace(b'"', b"'"),
    "keys without quotes": b"{status:1}",
    "NUL": with_more(b'"a\x00b"'),
    "a line break in a string": with_more(b'"a\nb"'),
    "an unknown escape": with_more(b'"\\x41"'),
    "two documents": DOCUMENT + DOCUMENT,
    "lines of JSON": DOCUMENT + b"\n" + DOCUMENT,
    "something after it": DOCUMENT + b"0",
    "NUL after it": DOCUMENT + b"\x00",
    "a call of a function": b"f(" + DOCUMENT + b")",
    "a guard before it": b")]}',\n" + DOCUMENT,
    "an event of a stream": b"data: " + DOCUMENT + b"\n\n",
    "D2 a page": b"<!doctype html><html><body>Log in to the hotel's WLAN</body></html>",
    "D2 a page after white space": b"\r\n <html></html>",
    "XML": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "ANSI escapes": b"\x1b[2J\x1b[31mhello",
    "binary": bytes(range(256)) * 10,
    "depth of 100 000 where nobody reads": with_more(b"[" * 100_000 + b"]" * 100_000),
    "depth of 100 000 objects": with_more(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "1 MB of nonsense": b"\x1b[31m?" * 180_000,
}


@named(UNREADABLE)
async def test_what_cannot_be_read_is_unexpected_at_once_and_a_create_may_have_happened(server, floor, body):
    async with floor(server) as this:
        server.otherwise(chaos.answer(body=body, headers=JSON))
        error = await this.fails(UnexpectedAnswer, this.look(), call="job_status", is_cut=False)
        assert len(server.requests) == 1
        assert len(error.body) < 2100 + 3 * 2048
        assert len(str(error)) < 1500
        assert "\x1b" not in str(error) + error.body
        unknown = await this.fails(OutcomeUnknown, this.create(), call="create_job")
        assert type(unknown.__cause__) is UnexpectedAnswer
        assert len(unknown.attempts) == 1
        # Its framing was good, so the connection is as well.
        assert [request.connection for request in server.requests] == [0, 0]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"status":5}', r"got `int` - at `\$\.status`"),
        (b'{"status":"success","url":[]}', r"got `array` - at `\$\.url`"),
        (b"[]", r"Expected `object`, got `array`"),
        (DOCUMENT + b" {}", r"not JSON \(.*byte 3.\)"),
        (with_more(b'"\xff"'), "not JSON .*utf-8"),
        (with_more(b"[" * 9000), "nested too deeply"),
    ],
)
async def test_e12_what_cannot_be_read_is_named_with_its_place(server, floor, body, where):
    async with floor(server) as this:
        server.otherwise(chaos.answer(body=body))
        with pytest.raises(UnexpectedAnswer, match=where):
            await this.look()


CUT = {
    "E1 in a string": DOCUMENT[:14],
    "E1 before the last brace": DOCUMENT[:-1],
    "E1 one brace": b"{",
    "E1 in an escape": b'{"status":"\\u00',
    "E1 in a literal": with_more(b"tru")[:-1],
    "E1 in a list where nobody reads": with_more(b"[[1,2],[3")[:-1],
    "E1 after a byte order mark": MARK,
    "E2 in a character": b'{"status":"' + "运".encode()[:2],
    "D15 nothing": b"",
    "D15 an empty line": b"\r\n",
}


@named(CUT)
async def test_what_looks_cut_is_asked_for_again_and_a_create_may_have_happened(server, floor, body):
    async with floor(server) as this:
        server.on_request(chaos.answer(body=body, headers=JSON))
        assert (await this.look()).status is JobStatus.WORKING
        server.otherwise(chaos.answer(body=body, headers=JSON))
        await this.fails(UnexpectedAnswer, this.look(), is_cut=True)
        assert len(server.requests) == 2 + 4
        await this.fails(OutcomeUnknown, this.create())
        assert len(server.requests) == 2 + 4 + 1


# Numbers -------------------------------------------------------------------------------------------------------------

ROW = {"gpuProd": "A", "amount": 6.5, "gpuAllocatable": 8}


@pytest.mark.parametrize("number", ["8", 8, "-1", -1, "0008"])
async def test_e9_a_whole_number_of_the_clouds_may_be_a_string(server, floor, number):
    async with floor(server) as this:
        server.otherwise(chaos.answer(json=[{**ROW, "gpuAllocatable": number}]))
        assert await this.session.gpu_types() == [GpuType("A", 6.5, int(number))]


@pytest.mark.parametrize("number", ["6.5", "6", 6, "0.000001"])
async def test_e9_a_price_may_be_a_string(server, floor, number):
    async with floor(server) as this:
        server.otherwise(chaos.answer(json=[{**ROW, "amount": number}]))
        assert await this.session.gpu_types() == [GpuType("A", float(number), 8)]


HUGE = "9" * 5000
WRONG_NUMBERS = ['"8.5"', '""', '" 8"', '"8x"', '"٣"', '"0x8"', '"1_0"', '"nan"', '"null"', "true", "5.9", "[8]", "{}"]


@pytest.mark.parametrize("number", [*WRONG_NUMBERS, HUGE, f'"{HUGE}"', "1e999", "1" * 30 + ".5"])
async def test_e10_nothing_else_is_a_whole_number(server, floor, number):
    async with floor(server) as this:
        server.otherwise(chaos.answer(body=b'[{"gpuProd":"A","gpuAllocatable":%s}]' % number.encode()))
        await this.fails(UnexpectedAnswer, this.session.gpu_types(), is_cut=False)
        server.otherwise(chaos.answer(body=b'{"content":[{"jobName":"a","workStatus":%s}]}' % number.encode()))
        await this.fails(UnexpectedAnswer, this.session.list_jobs(), is_cut=False)
        assert len(server.requests) == 2


@pytest.mark.parametrize("number", ['"nan"', '"inf"', '"1e5"', '"6,5"', '"."', "true", "NaN", HUGE, "1e999"])
async def test_e10_nothing_else_is_a_price(server, floor, number):
    async with floor(server) as this:
        server.otherwise(chaos.answer(body=b'[{"gpuProd":"A","amount":%s}]' % number.encode()))
        await this.fails(UnexpectedAnswer, this.session.gpu_types(), is_cut=False)


# Nothing that the engine has ever answered had a number as a string.
ENGINES = ['"2"', '"200"', "2.0", "2.5", "true", "null", "[]", "{}", HUGE, "1e999", "NaN", '"nan"']


@pytest.mark.parametrize("number", ENGINES, ids=lambda number: number[:9])
async def test_e10_the_engines_codes_and_accuracies_are_numbers(server, floor, number):
    async with floor(server, engine=server.url) as this:
        task = this.session.task("t")
        server.otherwise(chaos.answer(body=b'{"ret_code":%s,"message":"x"}' % number.encode()))
        await this.fails(UnexpectedAnswer, task.status(), call="task_status", is_cut=False)
        await this.fails(UnexpectedAnswer, task.delete(), call="delete_task", is_cut=False)
        assert len(server.requests) == 2
        if number not in ("2.0", "2.5", "null"):
            server.otherwise(chaos.answer(body=b'{"ret_code":2,"message":"x","test_acc":%s}' % number.encode()))
            await this.fails(UnexpectedAnswer, task.status(), call="task_status", is_cut=False)


@pytest.mark.parametrize("code", [6, 199, 10**30])
async def test_e11_an_unknown_code_of_the_engines_is_kept(server, floor, code):
    async with floor(server, engine=server.url) as this:
        server.otherwise(chaos.answer(json={"ret_code": code, "message": "On Holiday", "more": []}))
        look = await this.session.task("t").status()
        assert (look.status, look.code, look.message) == (TaskStatus.UNKNOWN, code, "On Holiday")


# Codings that nobody asked for ---------------------------------------------------------------------------------------

PACKED = gzip.compress(DOCUMENT)
FLATE = zlib.compressobj(wbits=-15)
RAW = FLATE.compress(DOCUMENT) + FLATE.flush()

UNDONE = {
    "gzip": ("gzip", PACKED),
    "gzip in capitals": ("GZIP", PACKED),
    "x-gzip": ("x-gzip", PACKED),
    "deflate": ("deflate", zlib.compress(DOCUMENT)),
    "deflate that is gzip": ("deflate", PACKED),
    "identity": ("identity", DOCUMENT),
    "an empty name": ("", DOCUMENT),
    "gzip with a file name": ("gzip", PACKED[:3] + b"\x08" + PACKED[4:10] + b"../../x\x00" + PACKED[10:]),
    "gzip not compressed": ("gzip", gzip.compress(DOCUMENT, 0)),
}


@pytest.mark.parametrize(("coding", "body"), UNDONE.values(), ids=UNDONE)
async def test_a_coding_that_was_not_asked_for_is_undone(server, floor, coding, body):
    async with floor(server) as this:
        server.otherwise(chaos.answer(body=body, headers={"content-encoding": coding}))
        assert (await this.look()).status is JobStatus.WORKING
        assert (await this.create()).id == "j-1"
        assert all(request.header("accept-encoding") == "identity" for request in server.requests)


async def test_a_packed_body_may_come_in_single_bytes(server, floor):
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(PACKED)
    async with floor(server) as this:
        server.otherwise(chaos.drip(head + PACKED, every=0.0))
        assert (await this.look()).status is JobStatus.WORKING


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_072])
async def test_a_packed_body_of_any_size_is_unpacked_whole(server, floor, size):
    body = with_more(b'"' + b"x" * (size - len(with_more(b'""'))) + b'"')
    assert len(body) == size
    async with floor(server, limits=Limits(max_answer_bytes=size)) as this:
        server.otherwise(chaos.answer(body=gzip.compress(body), headers={"content-encoding": "gzip"}))
        assert (await this.look()).status is JobStatus.WORKING


REFUSED = {
    "br": ("br", DOCUMENT),
    "zstd": ("zstd", DOCUMENT),
    "compress": ("compress", DOCUMENT),
    "gzip twice": ("gzip, gzip", gzip.compress(PACKED)),
    "gzip and br": ("gzip, br", PACKED),
    "gzip and identity": ("gzip, identity", PACKED),
    "ten times": (", ".join(["gzip"] * 10), PACKED),
    "an unknown one": ("\x1b[31mx", DOCUMENT),
    "one of 10 KB": ("x" * 10_000, DOCUMENT),
    "deflate without a header": ("deflate", RAW),
    "gzip that is not": ("gzip", DOCUMENT),
    "gzip that is zip": ("gzip", b"PK\x03\x04" + DOCUMENT),
    "gzip of a wrong checksum": ("gzip", PACKED[:-8] + b"\x00\x00\x00\x00" + PACKED[-4:]),
    "gzip of a wrong length": ("gzip", PACKED[:-4] + b"\x00\x00\x00\x00"),
    "gzip broken in the middle": ("gzip", PACKED[:12] + b"\xff\xff\xff\xff" + PACKED[16:]),
    "gzip followed by something else": ("gzip", PACKED + b"more"),
    "gzip followed by zeros": ("gzip", PACKED + b"\x00" * 100),
    "gzip followed by gzip": ("gzip", PACKED + PACKED),
    "deflate followed by something else": ("deflate", zlib.compress(DOCUMENT) + b"more"),
}


@pytest.mark.parametrize(("coding", "body"), REFUSED.values(), ids=REFUSED)
async def test_a_coding_that_cannot_be_undone_is_unexpected_and_a_create_may_have_happened(server, floor, coding, body):
    async with floor(server) as this:
        server.otherwise(chaos.answer(body=body, headers={"content-encoding": coding}))
        error = await this.fails(UnexpectedAnswer, this.look(), call="job_status", is_cut=False)
        assert "the answer (200)" in error.problem
        assert len(error.problem) < 150
        assert "\x1b" not in str(error)
        assert len(server.requests) == 1
        await this.fails(OutcomeUnknown, this.create(), call="create_job")
        assert len(server.requests) == 2


@pytest.mark.parametrize("cut", [1, 5, 10, 11, 20, len(PACKED) - 9, len(PACKED) - 8, len(PACKED) - 1])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_packed_body_cut_anywhere_is_never_a_success(server, floor, coding, cut):
    packed = PACKED if coding == "gzip" else zlib.compress(DOCUMENT)
    body = packed[: min(cut, len(packed) - 1)]
    async with floor(server) as this:
        server.on_request(chaos.answer(body=body, headers={"content-encoding": coding}))
        assert (await this.look()).status is JobStatus.WORKING
        assert len(server.requests) == 2
        server.otherwise(chaos.answer(body=body, headers={"content-encoding": coding}))
        error = await this.fails(OutcomeUnknown, this.look(), stage="answer")
        assert len(error.attempts) == 4
        await this.fails(OutcomeUnknown, this.create(), stage="answer")
        assert len(server.requests) == 2 + 4 + 1


@pytest.mark.parametrize("body", [b"", gzip.compress(b"")], ids=["nothing", "nothing, packed"])
async def test_nothing_in_a_coding_is_nothing(server, floor, body):
    async with floor(server) as this:
        server.otherwise(chaos.answer(body=body, headers={"content-encoding": "gzip"}))
        error = await this.fails(UnexpectedAnswer, this.look(), is_cut=True)
        assert "is empty" in error.problem


# Size ----------------------------------------------------------------------------------------------------------------

SMALL = Limits(max_answer_bytes=10_000)


def padded(size):
    return DOCUMENT + b" " * (size - len(DOCUMENT))


def sized(body):
    return chaos.answer(body=body)


def in_chunks(body):
    pieces = [body[start : start + 999] for start in range(0, len(body), 999)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return chaos.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")


def packed(body):
    return chaos.answer(body=gzip.compress(body), headers={"content-encoding": "gzip"})


@pytest.mark.parametrize("form", [sized, in_chunks, packed])
async def test_an_answer_of_just_the_allowed_size_is_read_and_one_byte_more_is_refused(server, floor, form):
    async with floor(server, limits=SMALL) as this:
        server.otherwise(form(padded(10_000)))
        assert (await this.look()).status is JobStatus.WORKING
        server.otherwise(form(padded(10_001)))
        error = await this.fails(UnexpectedAnswer, this.look(), is_cut=False)
        assert "larger than 10000 bytes" in error.problem
        assert len(server.requests) == 2
        await this.fails(OutcomeUnknown, this.create())
        assert len(server.requests) == 3


ENDLESS = {
    "E13 a length of 10 GB": (b"content-length: 10000000000\r\n\r\n", b" " * 65_536),
    "E13 chunks without an end": (b"transfer-encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65_536 + b"\r\n"),
    "E13 neither": (b"\r\n", b" " * 65_536),
    "E14 packed without an end": (b"content-encoding: gzip\r\n\r\n", gzip.compress(b" " * 10_000_000)[:-9]),
}


@pytest.mark.parametrize("status", [200, 307, 400, 401, 404, 429, 500, 503])
@pytest.mark.parametrize(("head", "body"), ENDLESS.values(), ids=ENDLESS)
async def test_a_body_without_an_end_is_left_and_its_connection_dropped(server, floor, status, head, body):
    async with floor(server, limits=SMALL) as this:
        line = b"HTTP/1.1 %d X\r\nlocation: http://elsewhere.test/?x=TOP\r\nretry-after: 0\r\n" % status
        server.otherwise(chaos.send(line + head), chaos.endlessly(body))
        error = await this.fails(UnexpectedAnswer, this.look(), is_cut=False)
        assert f"the answer ({status}) is larger than 10000 bytes" in error.problem
        await this.fails(OutcomeUnknown, this.create())
        assert [request.connection for request in server.requests] == [0, 1]
        await server.drained()


# What servers say ----------------------------------------------------------------------------------------------------

SHOUT = "坏\x1b[31m\x07\x00\u202e\x9b31m https://store.test/data.zip?Signature=TOPSECRET "
REFUSALS = {
    400: (InvalidData, "syntax error "),
    401: (Unauthorized, ""),
    402: (ServiceError, ""),
    403: (Denied, ""),
    413: (InvalidData, ""),
    429: (RateLimited, ""),
}


@pytest.mark.parametrize("is_json", [True, False], ids=["json", "text"])
@pytest.mark.parametrize("status", REFUSALS)
async def test_e16_a_refusal_of_a_megabyte_is_cut_and_harmless(server, floor, status, is_json):
    kind, start = REFUSALS[status]
    said = start + SHOUT * (1_000_000 // len(SHOUT))
    body = json.dumps({"message": said}).encode() if is_json else said.encode()
    async with floor(server) as this:
        server.otherwise(chaos.answer(status, body=body, headers={"retry-after": "3600"}))
        for call in ("look", "create"):
            error = await this.fails(kind, this.send(call), code=status)
            assert error.message.startswith(start + "坏\\x1b[31m")
        assert len(server.requests) == 2
        check_harmless(this)


@pytest.mark.parametrize("status", [200, 302, 404, 405, 408, 418, 425, 500, 502, 503, 507])
async def test_e16_any_other_answer_of_a_megabyte_is_cut_and_harmless(server, floor, status):
    async with floor(server) as this:
        server.otherwise(chaos.answer(status, body=SHOUT.encode() * 12_000, headers={"location": f"/x?{SHOUT[12:]}"}))
        for call in ("look", "create"):
            with pytest.raises((UnexpectedAnswer, ServiceError, ServerFailed, OutcomeUnknown)):
                await this.send(call)
        check_harmless(this)


async def test_e16_the_engines_megabytes_are_cut_and_harmless(server, floor):
    async with floor(server, engine=server.url) as this:
        task = this.session.task("t")
        shout = SHOUT * 12_000
        for call, status, document in [
            (task.status, 200, {"ret_code": -100, "message": shout}),
            (task.status, 200, {"ret_code": -7, "message": shout}),
            (task.delete, 200, {"ret_code": 99, "message": shout}),
            (task.delete, 200, shout),
            (task.delete, 422, {"detail": [{"loc": ["body", shout], "msg": shout}] * 3}),
            (task.delete, 422, {"detail": shout}),
            (task.delete, 404, shout),
            (task.delete, 429, shout),
            (task.delete, 500, shout),
        ]:
            server.otherwise(chaos.answer(status, json=document, headers={"retry-after": "3600"}))
            with pytest.raises((UnexpectedAnswer, ServiceError, ServerFailed)) as caught:
                await call()
            this.errors.append(caught.value)
        check_harmless(this)


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        (TaskType.CLASSIFICATION, {"predictions": [SHOUT * 12_000], "probabilities": [[]]}),
        (TaskType.SIMILARITY, {"predictions": [SHOUT * 12_000], "probabilities": [[0.5, 0.5]]}),
        (TaskType.SUMMARY, {SHOUT * 12_000: "x"}),
        (
            TaskType.IE,
            [
                {
                    "text": "x",
                    "entity_list": [
                        {"entity_text": SHOUT * 9000, "entity_type": "y", "entity_index": [0, 1], "score": 1.0}
                    ],
                    "spo_list": [],
                }
            ],
        ),
    ],
)
def test_e16_a_result_of_a_megabyte_is_cut_and_harmless(kind, result):
    call = predict("t", kind, [{"content": "x"}])
    with pytest.raises(UnexpectedAnswer) as caught:
        call.read(Answer.json(200, {"ret_code": 200, "message": "ok", "result": result}))
    assert len(str(caught.value)) < 2000
    assert str(caught.value).isprintable()
    assert len(caught.value.problem) < 2000


def check_harmless(this):
    """Check that nothing that was told is long, or moves a terminal's cursor, or shows a signed URL's query."""
    texts = [str(error) for error in this.errors]
    texts += [value for error in this.errors for value in vars(error).values() if isinstance(value, str)]
    texts += [event.detail for event in this.events]
    texts += [record.getMessage() for record in this._caplog.records if record.name == "gts_async"]
    assert max(map(len, texts)) < 10_000
    for text in texts:
        assert text.replace("\n", "").isprintable()
        assert "TOPSECRET" not in text


ECHOES = {
    "a page about an error": lambda said: chaos.answer(500, body=b"<html>Authorization: " + said),
    "a gateway's page": lambda said: chaos.answer(502, body=said),
    "a refused token": lambda said: chaos.answer(401, body=b"Unauthorized: " + said),
    "a refusal": lambda said: chaos.answer(400, json={"message": said.decode()}),
    "a page": lambda said: chaos.answer(200, body=b"<html>" + said),
    "what is no JSON": lambda said: chaos.answer(200, body=said),
    "JSON of another shape": lambda said: chaos.answer(json={"headers": {"authorization": said.decode()}}),
    "a redirect": lambda said: chaos.answer(302, body=said, headers={"location": "/?token=" + said.decode()}),
    "packed": lambda said: chaos.answer(
        400, body=gzip.compress(said), headers={"content-encoding": "gzip"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
async def test_a_server_that_repeats_the_token_does_not_get_it_into_any_error(server, floor, echo):
    async def repeat(connection):
        said = connection.request.header("authorization").encode()
        await echo(said)(connection)

    # The harness looks for it in everything that is told.
    async with floor(server) as this:
        server.otherwise(repeat)
        for call in ("look", "create"):
            with pytest.raises((UnexpectedAnswer, ServiceError, ServerFailed, OutcomeUnknown)):
                await this.send(call)


# Secrets are looked for in all of it. From each of its pieces to its end, that would take a minute for 100 KB.
SLOW = {
    "addresses": b"http://",
    "addresses in JSON": b"https:\\/\\/",
    "addresses with users": b"http://a@",
    "addresses with queries": b"http://a?",
    "names of signatures": b"signature ",
    "names of signatures, quoted": b"%2525Signature%253D",
    "bearers": b"bearer ",
    "bearers in a row": b"bearer+",
    "backslashes": b"\\",
    "percent signs": b"%25",
    "entities": b"&amp;",
    "spaces": b" ",
    "control characters": b"\x1b",
}


@pytest.mark.parametrize("piece", SLOW.values(), ids=SLOW)
async def test_no_text_is_made_to_hold_the_loop(server, floor, piece):
    page = piece * (90_000 // len(piece))
    scripts = [
        (chaos.send(page + b"\r\n\r\n"), chaos.close()),
        (chaos.send(b"HTTP/1.1 200 OK\r\nlocation: " + page + b"\r\nx y: 1\r\n\r\n"), chaos.close()),
        (chaos.answer(302, headers={"location": page.replace(b"\x1b", b"_").decode()}),),
        *((chaos.answer(status, body=page),) for status in (200, 400, 401, 500)),
    ]
    # A token may begin with any character of theirs.
    async with floor(server, token="-%\\&TOPSECRET" * 3) as this:
        for script in scripts:
            server.otherwise(*script)
            began = asyncio.get_running_loop().time()
            with pytest.raises((UnexpectedAnswer, ServiceError, ServerFailed, OutcomeUnknown)):
                await this.create()
            assert asyncio.get_running_loop().time() - began < 3


# What is sent --------------------------------------------------------------------------------------------------------

ODD_IDS = {
    "E17 a slash": "a/b",
    "E17 two points": "..",
    "E17 out of the base": "../../admin",
    "E17 a query": "a?b=c",
    "E17 a fragment": "a#b",
    "E17 a line break": "a\r\nx: y",
    "E17 10 KB": "a" * 10_000,
    "E17 percent": "%2e%2e%2f",
    "E17 a backslash": "..\\x",
    "E17 NUL": "a\x00",
    "E17 a space": "a b",
    "E17 other letters": "ä",
    "E17 nothing": "",
}


@pytest.mark.parametrize("name", ODD_IDS.values(), ids=ODD_IDS)
async def test_e17_an_odd_id_is_refused_before_anything_is_sent(server, floor, name):
    async with floor(server, engine=server.url) as this:
        for use in (
            lambda: this.session.job(name).status(),
            lambda: this.session.job(name).stop(),
            lambda: this.session.task(name).status(),
            lambda: this.session.create_task(name, task_type="nli", engine_type="qiankunding"),
        ):
            with pytest.raises(InvalidArgument):
                await use()
        assert server.requests == []


@pytest.mark.parametrize(
    "name", [name for name in ODD_IDS.values() if name], ids=[n for n in ODD_IDS if n[4:] != "nothing"]
)
async def test_e17_an_odd_id_that_a_server_gives_is_not_taken(server, floor, name):
    async with floor(server, engine=server.url) as this:
        server.otherwise(chaos.answer(json={"job_id": name}))
        await this.fails(OutcomeUnknown, this.create())
        assert len(server.requests) == 1


async def test_an_answer_about_another_job_is_not_taken(server, floor):
    async with floor(server) as this:
        server.otherwise(chaos.answer(json={"status": "success", "job_id": "j-2"}))
        await this.fails(UnexpectedAnswer, this.look())
        server.otherwise(chaos.answer(json={}))
        await this.fails(NotFound, this.look())
        server.otherwise(chaos.answer(400, json={"message": "余额不足"}))
        await this.fails(QuotaExceeded, this.create())
