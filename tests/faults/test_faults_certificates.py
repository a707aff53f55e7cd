"""Certificates: whom a session trusts, what it says of those whom it does not, and how others are added."""

import asyncio
import os
import ssl
import threading

import certifi
import pytest
import trustme

from gts_async import AsyncSession, InvalidArgument, MisuseError, NotSent, RetryPolicy, WrongType
from gts_async._net.roots import Roots
from gts_async._net.settings import Found
from gts_async.cli.app import run_command_line
from gts_async.testing import ChaosServer, chaos

SUCCEEDED = {"status": "success", "url": "https://localhost:1/model.zip?Signature=TOPSECRET"}

BAD = pytest.mark.parametrize(
    ("certificate", "is_told", "says"),
    [
        (chaos.Certificate.GOOD, False, "if its authority is your own, pass"),
        (chaos.Certificate.UNKNOWN, True, "if its authority is your own, pass"),
        (chaos.Certificate.WRONG_HOST, True, "not valid for '127.0.0.1'"),
        (chaos.Certificate.EXPIRED, True, "has expired"),
        (chaos.Certificate.NOT_YET_VALID, True, "is not yet valid"),
    ],
    ids=[
        "A7 unknown authority",
        "A7 another authority than the one in ca_file",
        "A8 wrong host",
        "A9 expired",
        "A9 not yet valid",
    ],
)


@BAD
@pytest.mark.parametrize("call", ["look", "create"])
async def test_a_bad_certificate_is_not_sent_to_and_not_tried_again(floor, certificate, is_told, says, call):
    async with ChaosServer(tls=certificate) as server:
        async with floor(server, ca_file=server.ca_file if is_told else None) as this:
            this.can_be_used_after = False
            error = await this.fails(NotSent, this.send(call), stage="tls")
            assert len(error.attempts) == server.connections == 1
            assert says in str(error)
            assert "ca_file=" in str(error)
            assert "verify=" not in str(error)
        assert server.received == 0


@BAD
async def test_nor_is_a_model_fetched_over_one(certificate, is_told, says, tmp_path, caplog):
    async with ChaosServer() as cloud, ChaosServer(tls=certificate) as store:
        cloud.otherwise(chaos.answer(json={**SUCCEEDED, "url": f"{store.url}/model.zip?Signature=TOPSECRET"}))
        options = {"cloud": f"{cloud.url}/api", "ca_file": store.ca_file if is_told else None}
        async with AsyncSession(**options) as session:
            with pytest.raises(NotSent, match="ca_file=") as caught:
                await session.job("j-1").download(tmp_path)
        assert len(caught.value.attempts) == store.connections == 1
        assert says in str(caught.value)
        assert "verify=" not in str(caught.value)
        assert "TOPSECRET" not in str(caught.value) + caplog.text
        assert store.received == 0


# An authority of one's own


@pytest.mark.parametrize("call", ["look", "create"], ids=["A7 ca_file look", "A7 ca_file create"])
async def test_with_its_authoritys_file_a_server_is_trusted(floor, call):
    async with ChaosServer(tls=True) as server, floor(server, ca_file=server.ca_file) as this:
        await this.send(call)
        assert server.requests[-1].header("authorization") == "Bearer " + "TOPSECRET" * 4


async def test_the_store_is_trusted_by_the_same_file(tmp_path):
    async with ChaosServer(tls=True) as server:
        url = f"{server.url}/model.zip?Signature=TOPSECRET"
        server.on_request(chaos.answer(json={**SUCCEEDED, "url": url}))
        server.otherwise(chaos.answer(body=b"not really a zip"))
        async with AsyncSession(cloud=f"{server.url}/api", token="t", ca_file=server.ca_file) as session:
            [path] = await session.job("j-1").download(tmp_path, extract=False)
        assert path.read_bytes() == b"not really a zip"
        assert [request.header("authorization") for request in server.requests] == ["Bearer t", None]


async def test_the_usual_authorities_are_trusted_besides(tmp_path):
    own = tmp_path / "own.pem"
    trustme.CA().cert_pem.write_to_path(own)
    usual = {cert["serialNumber"] for cert in (await Roots().context()).get_ca_certs()}
    both = (await Roots(lambda: Found(str(own), "ca_file")).context()).get_ca_certs()
    assert len(usual) > 50
    assert usual < {cert["serialNumber"] for cert in both}
    assert len(both) == len((await Roots().context()).get_ca_certs()) + 1


@pytest.mark.parametrize("place", ["argument", "environment", "file"])
async def test_the_file_may_be_named_wherever_settings_are(place, floor, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    async with ChaosServer(tls=True) as server:
        os.symlink(server.ca_file, tmp_path / "own.pem")
        given = {}
        if place == "argument":
            given["ca_file"] = tmp_path / "own.pem"
        elif place == "environment":
            monkeypatch.setenv("HOME", str(tmp_path))
            monkeypatch.setenv("GTS_ASYNC_CA_FILE", "~/own.pem")
        else:
            (tmp_path / "gts_async.toml").write_text('ca_file = "own.pem"\n')
        async with floor(server, **given) as this:
            await this.look()


def test_the_command_line_takes_the_file(chaos_tls_server, capsys, monkeypatch):
    monkeypatch.setenv("GTS_ASYNC_CLOUD", f"{chaos_tls_server.url}/api")
    chaos_tls_server.otherwise(chaos.answer(json={"status": "working"}))
    assert run_command_line(["job", "status", "j-1"]) == 5
    assert "--ca-file" in capsys.readouterr().err
    assert run_command_line(["job", "status", "j-1", "--ca-file", chaos_tls_server.ca_file]) == 0
    assert "working" in capsys.readouterr().out


BROKEN = {
    "missing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "empty": lambda path: path.write_bytes(b""),
    "no certificate": lambda path: path.write_text("hello"),
    "a key": lambda path: trustme.CA().private_key_pem.write_to_path(path),
    "cut": lambda path: path.write_bytes(trustme.CA().cert_pem.bytes()[:300]),
}


@pytest.mark.parametrize("breaking", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("place", ["ca_file", "GTS_ASYNC_CA_FILE", "gts_async.toml (ca_file)"])
async def test_a_file_that_cannot_be_used_is_told_before_there_is_a_connection(
    breaking, place, server, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    breaking(tmp_path / "own.pem")
    given = {"ca_file": "own.pem"} if place == "ca_file" else {}
    if place == "GTS_ASYNC_CA_FILE":
        monkeypatch.setenv(place, "own.pem")
    elif place != "ca_file":
        (tmp_path / "gts_async.toml").write_text('ca_file = "own.pem"\n')
    session = AsyncSession(cloud=server.url, **given)
    for _ in range(2):
        with pytest.raises(InvalidArgument, match=r"own\.pem.*PEM") as caught:
            await session.__aenter__()
        assert caught.value.argument == place
    with pytest.raises(InvalidArgument):
        await session.job("j-1").status()
    await session.aclose()
    assert server.connections == 0


@pytest.mark.parametrize("wrong", [b"own.pem", 5, True])
def test_a_file_must_be_named_by_a_path(wrong):
    with pytest.raises(WrongType, match="ca_file"):
        AsyncSession(ca_file=wrong)


def test_a_transport_of_ones_own_has_its_own_authorities(tmp_path):
    import httpx

    with pytest.raises(InvalidArgument, match="transport"):
        AsyncSession(ca_file="own.pem", transport=httpx.MockTransport(lambda request: httpx.Response(200)))


# What TLS is spoken, and what the environment may say about it


async def test_tls_is_1_2_or_newer_and_always_verified():
    context = await Roots().context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2], ids=["TLS 1.1", "TLS 1.2"])
async def test_a_server_that_speaks_no_more_than_1_1_is_refused(newest, tmp_path):
    authority, served = trustme.CA(), []
    authority.cert_pem.write_to_path(tmp_path / "own.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, newest

    async def serve(reader, writer):
        served.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{"status":"working"}')
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        # The server does speak 1.1: a client that has nothing against it is served.
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        options = {"ca_file": tmp_path / "own.pem", "retry": RetryPolicy(max_attempts=1)}
        async with AsyncSession(cloud=url, **options) as session:
            if newest is ssl.TLSVersion.TLSv1_2:
                await session.job("j-1").status()
            else:
                await asyncio.to_thread(speak_1_1, server.sockets[0].getsockname()[1], tmp_path / "own.pem")
                with pytest.raises(NotSent) as caught:
                    await session.job("j-1").status()
                assert caught.value.stage == "tls"
    assert len(served) == 1


def speak_1_1(port, ca_file):
    import socket

    context = ssl.create_default_context(cafile=ca_file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    with (
        socket.create_connection(("127.0.0.1", port)) as bare,
        context.wrap_socket(bare, server_hostname="127.0.0.1") as secure,
    ):
        assert secure.version() == "TLSv1.1"
        secure.sendall(b"GET / HTTP/1.1\r\n\r\n")
        secure.recv(100)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("value", ["missing", "own"], ids=["K6 missing", "K6 there"])
async def test_the_environments_authorities_are_not_looked_at(floor, variable, value, monkeypatch, tmp_path):
    async with ChaosServer(tls=True) as server:
        place = tmp_path / "nowhere"
        if value == "own":
            place = server.ca_file if variable == "SSL_CERT_FILE" else os.path.dirname(server.ca_file)
        monkeypatch.setenv(variable, str(place))
        async with floor(server) as this:
            this.can_be_used_after = False
            await this.fails(NotSent, this.look())
        async with floor(server, ca_file=server.ca_file) as this:
            await this.look()


@pytest.mark.parametrize("place", ["keys.log", "nowhere/keys.log"])
async def test_the_connections_keys_are_written_nowhere(floor, place, monkeypatch, tmp_path):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / place))
    async with ChaosServer(tls=True) as server, floor(server, ca_file=server.ca_file) as this:
        await this.look()
    assert list(tmp_path.iterdir()) == []


# Loading


class Slow:
    """A `ca_file` that is looked for in the loading thread, as slowly as a test wants."""

    def __init__(self):
        self.is_asked = threading.Event()
        self.may_go = threading.Event()
        self.times = 0
        self.fault = None

    def __call__(self):
        self.times += 1
        self.is_asked.set()
        assert self.may_go.wait(5)
        if self.fault is not None:
            raise self.fault
        return None

    async def asked(self):
        await asyncio.to_thread(self.is_asked.wait, 5)


async def test_the_authorities_are_loaded_once_for_all_and_off_the_loop():
    slow = Slow()
    roots = Roots(slow)
    waiting = [asyncio.ensure_future(roots.context()) for _ in range(5)]
    await slow.asked()
    slow.may_go.set()
    contexts = await asyncio.gather(*waiting)
    assert {*map(id, contexts)} == {id(await roots.context())}
    assert slow.times == 1


async def test_the_first_caller_may_be_cancelled_while_others_wait():
    slow = Slow()
    roots = Roots(slow)
    first, second = (asyncio.ensure_future(roots.context()) for _ in range(2))
    await slow.asked()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    slow.may_go.set()
    assert isinstance(await second, ssl.SSLContext)
    assert first.cancelled()
    assert slow.times == 1


async def test_a_failure_to_load_does_not_stick(caplog):
    slow = Slow()
    slow.fault = FileNotFoundError("no such file")
    slow.may_go.set()
    roots = Roots(slow)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            await roots.context()
    alone = asyncio.ensure_future(roots.context())
    await asyncio.sleep(0)
    alone.cancel()
    await asyncio.gather(alone, return_exceptions=True)
    slow.fault = None
    assert isinstance(await roots.context(), ssl.SSLContext)
    # What nobody has waited for would be logged as never retrieved.
    assert caplog.text == ""


async def test_closing_ends_the_loading_and_whoever_waits_for_it():
    slow = Slow()
    roots = Roots(slow)
    before = asyncio.all_tasks()
    waiting = asyncio.ensure_future(roots.context())
    await slow.asked()
    await roots.aclose()
    with pytest.raises(MisuseError, match="closed"):
        await waiting
    with pytest.raises(MisuseError, match="closed"):
        await roots.context()
    assert asyncio.all_tasks() == before
    slow.may_go.set()


async def test_a_session_that_is_closed_at_once_leaves_no_task():
    async with ChaosServer(tls=True) as server:
        before = asyncio.all_tasks()
        session = AsyncSession(cloud=server.url, ca_file=server.ca_file)
        looking = [asyncio.ensure_future(session.job("j-1").status()) for _ in range(3)]
        await asyncio.sleep(0)
        await session.aclose()
        ended = await asyncio.gather(*looking, return_exceptions=True)
        assert [type(error) for error in ended] == [MisuseError] * 3
        assert asyncio.all_tasks() == before


async def test_certifis_own_file_is_what_is_trusted_without_any_other():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certifi.where())
    assert (await Roots().context()).get_ca_certs() == context.get_ca_certs()
