"""What hostile answers cost: no more memory than an honest one of the largest allowed size, whatever they unfold to.

One process of its own asks; for each case it forks, so that each begins with the same memory, and tells its peak.
"""

import gzip
import json
import subprocess
import sys
import zlib

import pytest

from gts_async.testing import ChaosServer, chaos

pytestmark = pytest.mark.slow

MIB = 1 << 20
MOST = 8 * MIB
"""The default of Limits.max_answer_bytes."""

ALLOWED = 16 * MIB

HEAD = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n"
LENGTH = b"content-length: 10000000000\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
GZIP = b"content-encoding: gzip\r\n"
DOCUMENT = b'{"status":"working","job_id":"j-1"'
MORE = DOCUMENT + b',"more":'
MARK = b"\xef\xbb\xbf"
SPACES = b" " * MIB


def bomb():
    """Give some 480 bytes that unfold to 480 KB, and these to 480 MB."""
    machine = zlib.compressobj(9, wbits=31)
    inner = b"".join(machine.compress(SPACES) for _ in range(480)) + machine.flush()
    return inner, gzip.compress(inner, 9)


BOMB, BOMB_IN_BOMB = bomb()


def unending(status, head, again):
    return chaos.send(HEAD % status + head), chaos.endlessly(again)


def whole(status, body, *, coding=None):
    headers = {"content-type": "application/json"} | ({"content-encoding": coding} if coding else {})
    return (chaos.answer(status, body=body, headers=headers),)


def filled(start, piece, end):
    """Give a legal document of just the allowed size, whose last value is full of these pieces."""
    room = MOST - len(start) - len(end) - 1
    body = start + piece * (room // len(piece)) + end
    return body.ljust(MOST - 1) + b"}"


LONG = '"syntax error \x1b[31m坏'.encode() * 50_000

CASES = {
    "E13 10 GB": ("UnexpectedAnswer", unending(200, LENGTH, SPACES)),
    "E13 10 GB, refused": ("UnexpectedAnswer", unending(400, LENGTH, SPACES)),
    "E13 10 GB, redirected": ("UnexpectedAnswer", unending(307, b"location: /x\r\n" + LENGTH, SPACES)),
    "E13 10 GB, failed": ("UnexpectedAnswer", unending(503, LENGTH, SPACES)),
    "E13 endless chunks": ("UnexpectedAnswer", unending(200, CHUNKED, b"100000\r\n" + SPACES + b"\r\n")),
    "E13 endless chunks of two bytes": ("TimedOut", unending(200, CHUNKED, b"2\r\n  \r\n" * 10_000)),
    "E13 endless trailers": ("OutcomeUnknown", unending(200, CHUNKED + b"0\r\n", b"x: y\r\n" * 10_000)),
    "E13 until the end": ("UnexpectedAnswer", unending(200, b"\r\n", SPACES)),
    "E14 gzip bomb": ("UnexpectedAnswer", whole(200, BOMB, coding="gzip")),
    "E14 gzip bomb, refused": ("UnexpectedAnswer", whole(400, BOMB, coding="gzip")),
    "E14 gzip bomb, unauthorized": ("UnexpectedAnswer", whole(401, BOMB, coding="gzip")),
    "E14 gzip bomb, redirected": ("UnexpectedAnswer", whole(307, BOMB, coding="gzip")),
    "E14 gzip bomb, failed": ("UnexpectedAnswer", whole(503, BOMB, coding="gzip")),
    "E14 deflate bomb": ("UnexpectedAnswer", whole(200, zlib.compress(SPACES * 100, 9), coding="deflate")),
    "E14 gzip-gzip bomb": ("UnexpectedAnswer", whole(200, BOMB_IN_BOMB, coding="gzip, gzip")),
    "E14 gzip-gzip bomb, half told": ("UnexpectedAnswer", whole(200, BOMB_IN_BOMB, coding="gzip")),
    "E14 endless gzip": ("UnexpectedAnswer", unending(200, GZIP + LENGTH, BOMB[:100_000])),
    "B8 endless headers": ("OutcomeUnknown", unending(200, b"", b"x: y\r\n" * 10_000)),
    "B7 endless header": ("OutcomeUnknown", unending(200, b"x: ", b"y" * MIB)),
    "B9 endless 103": ("TimedOut", (chaos.endlessly(b"HTTP/1.1 103 X\r\nlink: </x>\r\n\r\n" * 1000),)),
    "E16 1 MB, refused": ("InvalidData", whole(400, b'{"message":' + LONG.replace(b"\x1b", b"") + b'"}')),
    "E16 1 MB of text, refused": ("InvalidData", whole(400, LONG)),
    "E16 1 MB of text, failed": ("ServerFailed", whole(503, LONG)),
    "E16 1 MB of nonsense": ("UnexpectedAnswer", whole(200, LONG)),
    "E16 8 MB of text, refused": ("InvalidData", whole(400, b"syntax error" + "坏".encode() * 2_700_000)),
    "E16 8 MB of invalid text, failed": ("ServerFailed", whole(503, b"\xff" * (MOST - 1))),
    "E16 8 MB of invalid text": ("UnexpectedAnswer", whole(200, b'{"status":"' + b"\xff" * (MOST - 99))),
    "8 MB of one string": ("working", whole(200, filled(MORE + b'"', b"x", b'"'))),
    "8 MB of one string of other letters": ("working", whole(200, filled(MORE + b'"', "坏".encode(), b'"'))),
    "8 MB of one string with an emoji": ("working", whole(200, filled(MORE + b'"', b"x", '😀"'.encode()))),
    "8 MB of empty lists": ("working", whole(200, filled(MORE + b"[", b"[],", b"0]"))),
    "8 MB of numbers": ("working", whole(200, filled(MORE + b"[", b"1.5,", b"0]"))),
    "8 MB of keys": ("working", whole(200, filled(DOCUMENT + b",", b'"":0,', b'"":0'))),
    "8 MB packed": ("working", whole(200, gzip.compress(filled(MORE + b"[", b"[],", b"0]")), coding="gzip")),
    "8 MB after a byte order mark": ("working", whole(200, filled(MARK + MORE + b'"', b"x", b'"'))),
}  # fmt: skip

ASKING = """
import asyncio, gc, json, os, sys
from gts_async import AsyncSession, GtsAsyncError, RetryPolicy

async def ask(url, timeout):
    async with AsyncSession(cloud=url, token="TOPSECRET" * 4, retry=RetryPolicy(max_attempts=1)) as session:
        try:
            return (await session.job("j-1").status(timeout=timeout)).status.value
        except GtsAsyncError as error:
            return type(error).__name__

def memory(line):
    with open("/proc/self/status") as status:
        return next(int(row.split()[1]) * 1024 for row in status if row.startswith(line))

url, *cases = sys.argv[1:]
asyncio.run(ask(url + "/warm", 5.0))
gc.collect()
for case in cases:
    reading, writing = os.pipe()
    if os.fork() == 0:
        before = memory("VmRSS")
        said = asyncio.run(ask(f"{url}/{case}", 1.0 if case in SLOW else 60.0))
        os.write(writing, json.dumps([said, memory("VmHWM") - before]).encode())
        os._exit(0)
    os.close(writing)
    os.wait()
    print(os.read(reading, 1000).decode(), flush=True)
    os.close(reading)
"""


@pytest.fixture(scope="module")
def measured():
    """Give for each case what asking came to, and by how many bytes its process has grown at its largest."""
    names = list(CASES)

    async def play(connection):
        case = connection.request.path.split("/")[1]
        if case == "warm":
            await chaos.answer(json={"status": "working"})(connection)
            return
        for action in CASES[names[int(case)]][1]:
            await action(connection)

    slow = {str(number) for number, name in enumerate(names) if CASES[name][0] == "TimedOut"}
    with ChaosServer() as server:
        server.otherwise(play)
        done = subprocess.run(
            [sys.executable, "-c", f"SLOW = {slow!r}\n{ASKING}", server.url, *map(str, range(len(names)))],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
    assert done.returncode == 0, done.stderr
    return dict(zip(names, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_no_answer_costs_more_memory_than_an_honest_one_may(measured, name):
    said, growth = measured[name]
    assert said == CASES[name][0]
    assert growth < ALLOWED, f"{growth / MIB:.1f} MiB"


def test_what_is_measured_is_seen_to_grow(measured):
    # The largest honest answer is held at least once.
    assert measured["8 MB of one string"][1] > MOST
