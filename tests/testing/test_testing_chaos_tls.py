"""A chaos server with TLS: its certificates, what goes wrong in and before the handshake, and how it ends."""

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import sys

import httpx
import pytest

from gts_async.testing import ChaosServer, chaos
from gts_async.testing.chaos import Certificate


@contextlib.asynccontextmanager
async def running(is_threaded, **options):
    if is_threaded:
        with ChaosServer(**options) as server:
            yield server
    else:
        async with ChaosServer(**options) as server:
            yield server


@pytest.fixture(params=[False, True], ids=["on the test's loop", "in a thread"])
async def tls_server(request):
    async with running(request.param, tls=True) as server:
        yield server


class Secure:
    """A TLS client whose socket is asyncio's, so that its errors are ssl's own."""

    def __init__(self, server, name="127.0.0.1"):
        self.server, self.name = server, name

    async def __aenter__(self):
        context = ssl.create_default_context(cafile=self.server.ca_file)
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self.server.port, ssl=context, server_hostname=self.name
        )
        return self

    async def __aexit__(self, *_):
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def get(self, body=b""):
        self.writer.write(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await self.writer.drain()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_a_good_certificate_is_for_both_names_of_loopback(tls_server, name):
    async with Secure(tls_server, name) as client:
        await client.get()
        assert await client.reader.readuntil(b"{}")


@pytest.mark.parametrize(
    ("certificate", "text"),
    [
        (Certificate.UNKNOWN, "unable to get local issuer certificate"),
        (Certificate.WRONG_HOST, "IP address mismatch"),
        (Certificate.EXPIRED, "certificate has expired"),
        (Certificate.NOT_YET_VALID, "certificate is not yet valid"),
    ],
)
@pytest.mark.parametrize("is_threaded", [False, True])
async def test_a_bad_certificate_is_bad_for_one_reason_only(is_threaded, certificate, text):
    async with running(is_threaded, tls=certificate) as server:
        for _ in range(2):
            with pytest.raises(ssl.SSLCertVerificationError) as caught:
                async with Secure(server):
                    pass
            assert caught.value.verify_message.startswith(text)
        await server.drained()
        assert (server.connections, server.requests) == (2, [])


async def test_with_httpx(tls_server):
    context = ssl.create_default_context(cafile=tls_server.ca_file)
    async with httpx.AsyncClient(base_url=tls_server.url, verify=context) as client:
        body = bytes(range(256)) * 4000
        tls_server.on_request(chaos.answer(body=body))
        assert (await client.post("/", content=body)).content == body
        assert (await client.get("/")).json() == {}
    await tls_server.drained()
    assert tls_server.connections == 1
    assert [len(request.body) for request in tls_server.requests] == [len(body), 0]


async def test_a_script_of_a_connection_starts_after_the_handshake(tls_server):
    tls_server.on_connection(chaos.send(b"hello"), chaos.receive(3), chaos.send(b"on"))
    async with Secure(tls_server) as client:
        assert await client.reader.readexactly(5) == b"hello"
        client.writer.write(b"abcGET / HTTP/1.1\r\n\r\n")
        assert await client.reader.readexactly(2) == b"on"
        await client.reader.readuntil(b"{}")
    await tls_server.drained()
    assert tls_server.received == 3 + 18


@pytest.mark.parametrize(
    ("actions", "error"),
    [
        ((chaos.close(),), ConnectionResetError),
        ((chaos.receive(10), chaos.reset()), ConnectionResetError),
        ((chaos.receive(200), chaos.close()), ConnectionResetError),
        ((chaos.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), chaos.stall()), ssl.SSLError),
    ],
)
async def test_before_the_handshake_the_socket_is_bare(tls_server, actions, error):
    tls_server.on_connection(chaos.before_handshake(*actions))
    with pytest.raises(error):
        async with Secure(tls_server):
            pass
    await tls_server.drained()


async def test_the_handshake_goes_on_after_what_came_before_it(tls_server):
    tls_server.on_connection(chaos.before_handshake(chaos.pause(0.01)), chaos.send(b"hello"))
    async with Secure(tls_server) as client:
        assert await client.reader.readexactly(5) == b"hello"


async def test_a_handshake_may_stall(tls_server):
    tls_server.on_connection(chaos.before_handshake(chaos.stall()))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), Secure(tls_server):
            pass
    await tls_server.drained()


async def test_before_handshake_elsewhere_is_a_fault_of_the_script():
    with pytest.raises(ValueError, match="must be the first action"):
        async with ChaosServer(tls=True) as server:
            server.on_connection(chaos.send(b"x"), chaos.before_handshake(chaos.close()))
            async with Secure(server) as client:
                await client.reader.readexactly(1)
                await server.drained()


def bare_end(server, *actions):
    """Play these after one byte of a request; give what a client sees that minds a missing close_notify."""
    server.on_request(chaos.send(b"x"), *actions)
    context = ssl.create_default_context(cafile=server.ca_file)
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as bare,
        context.wrap_socket(bare, server_hostname="localhost", suppress_ragged_eofs=False) as secure,
    ):
        secure.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert secure.recv(1) == b"x"
        return secure.recv(1)


def test_close_says_goodbye(chaos_tls_server):
    assert bare_end(chaos_tls_server, chaos.close()) == b""


def test_half_close_says_goodbye_and_reads_on(chaos_tls_server):
    assert bare_end(chaos_tls_server, chaos.half_close()) == b""


def test_truncating_does_not_say_goodbye(chaos_tls_server):
    with pytest.raises(ssl.SSLEOFError):
        bare_end(chaos_tls_server, chaos.truncate_tls())


async def test_reset_resets(tls_server):
    tls_server.on_request(chaos.send(b"x"), chaos.pause(0.01), chaos.reset())
    async with Secure(tls_server) as client:
        await client.get()
        assert await client.reader.readexactly(1) == b"x"
        with pytest.raises(ConnectionResetError):
            await client.reader.readexactly(1)


async def test_what_comes_after_a_half_close_is_read(tls_server):
    tls_server.on_request(chaos.half_close(), chaos.receive(4), chaos.reset())
    reader, writer = await asyncio.open_connection("127.0.0.1", tls_server.port)
    tls = ssl.create_default_context(cafile=tls_server.ca_file)
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    secure = tls.wrap_bio(came, goes, server_hostname="localhost")

    async def until_done(action):
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                writer.write(goes.read())
                data = await reader.read(65_536)
                came.write(data) if data else came.write_eof()
            else:
                writer.write(goes.read())
                return result

    await until_done(secure.do_handshake)
    await until_done(lambda: secure.write(b"GET / HTTP/1.1\r\n\r\n"))
    assert await until_done(lambda: secure.read(1)) == b""
    await until_done(lambda: secure.write(b"rest"))
    await tls_server.drained()
    assert tls_server.received == 18 + 4
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_a_client_that_says_goodbye_and_waits_is_let_go(tls_server):
    tls_server.on_connection(chaos.stall())
    async with Secure(tls_server), Secure(tls_server) as idle:
        await tls_server.until(lambda: tls_server.open == 2)
        idle.writer.close()
        await idle.writer.wait_closed()


@pytest.mark.parametrize("is_threaded", [False, True])
async def test_the_authoritys_file_is_there_for_as_long_as_the_server(is_threaded):
    async with running(is_threaded, tls=True) as server:
        assert server.url.startswith("https://127.0.0.1:")
        path = server.ca_file
        assert os.path.exists(path)
    assert not os.path.exists(path)


def test_without_the_extra_it_says_what_installs_it():
    code = """
import sys
sys.modules["trustme"] = None
from gts_async import MissingExtra
from gts_async.testing import ChaosServer
with ChaosServer() as server:
    print(server.connections)
try:
    with ChaosServer(tls=True):
        print("it runs")
except MissingExtra as error:
    print(error.extra, error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    says = 'testing a chaos server with TLS needs an extra: python -m pip install "gts-async[testing]"'
    assert (ran.stdout, ran.stderr) == (f"0\n{says}\n", "")
