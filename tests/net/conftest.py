"""A server of faults for what no mock can show: framing, resets, half-closed connections, drips."""

import pytest

from gts_async.testing import ChaosServer, chaos


@pytest.fixture
async def server():
    """Give a chaos server on the test's own loop; in the end no client may have left a connection open."""
    async with ChaosServer() as server:
        yield server
        await server.drained()


OK = b"HTTP/1.1 200 OK\r\n"


def sent(data):
    """Send this and end the connection."""
    return chaos.send(data), chaos.close()


def drip(head, piece):
    """Send `head`, then `piece` every 10 ms for ever."""
    return chaos.send(head), chaos.endlessly(piece, every=0.01)


@pytest.fixture
def fault():
    """Give the scripts of faults by name."""
    return {
        "closed": (chaos.close(),),
        "reset": (chaos.reset(),),
        "silent": (chaos.stall(),),
        "short body": sent(OK + b'content-length: 99\r\n\r\n{"x": 1'),
        "cut chunk": sent(OK + b'transfer-encoding: chunked\r\n\r\n5\r\n{"x"'),
        "cut without a length": sent(OK + b'\r\n{"x": '),
        "two lengths": sent(OK + b'content-length: 8\r\ncontent-length: 9\r\n\r\n{"x": 1} '),
        "endless header": drip(OK, b"x-a: " + b"b" * 50_000),
        "not http": sent(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        "dripping header": drip(OK, b"x-a: b\r\n"),
        "dripping body": drip(OK + b"content-length: 999999\r\n\r\n", b" "),
        "endless 1xx": drip(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        "huge body": drip(OK + b"content-length: 99999999999\r\n\r\n", b" " * 200_000),
    }
