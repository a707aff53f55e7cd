"""Trust: who sees the token and a signed URL, what the environment changes, and what follows a redirect."""

import asyncio
import io
import traceback

import httpx
import pytest

from gts_async import (
    AsyncSession,
    Denied,
    GtsAsyncError,
    InvalidArgument,
    JobSpec,
    SystemClock,
    UnexpectedAnswer,
)
from gts_async.cli.app import run_command_line
from gts_async.cli.options import Options
from gts_async.cli.show import Show
from gts_async.testing import ChaosServer, chaos

TOKEN = "TOPSECRET" * 4
SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="python train.py")
REDIRECTS = (301, 302, 303, 307, 308)


def cases(case, *values):
    return [pytest.param(value, id=f"{case} {value!r}"[:60]) for value in values]


# K3: signed URLs


class Hasty(SystemClock):
    """Waits for nothing between two tries."""

    async def sleep(self, seconds):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "fault",
    [
        chaos.answer(403, body=b"<Error><Code>AccessDenied</Code><Message>Signature=TOPSECRET</Message></Error>"),
        chaos.answer(404, body=b"https://store.test/x?Signature=TOPSECRET"),
        chaos.answer(302, headers={"Location": "http://169.254.169.254/?Signature=TOPSECRET"}),
        chaos.answer(302, headers={"Location": "/again?k=TOPSECRET"}),
        chaos.reset(),
        chaos.send(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\nETag: "v1"\r\n\r\nhalf'),
        chaos.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    ],
    ids=["K3 403", "K3 404", "K3 metadata", "K3 redirects", "K3 reset", "K3 cut", "K3 no http"],
)
async def test_a_signed_urls_query_is_in_no_error_log_or_file(fault, server, tmp_path, caplog):
    caplog.set_level("DEBUG")

    async def serve(connection):
        if connection.request.path == "/api/userJob/job_status":
            url = f"{server.url}/model.zip?OSSAccessKeyId=LTAI&Signature=TOPSECRET"
            await chaos.answer(json={"status": "success", "url": url})(connection)
            return
        await fault(connection)
        connection.close()

    server.otherwise(serve)
    async with AsyncSession(cloud=f"{server.url}/api", token="t", clock=Hasty()) as session:
        with pytest.raises(GtsAsyncError) as caught:
            await session.job("j-1").download(tmp_path)
    assert any("Signature=TOPSECRET" in request.target for request in server.requests)
    error = caught.value
    while error is not None:
        told = [
            *traceback.format_exception(error),
            repr(error),
            repr(vars(error)),
            repr(getattr(error, "_request", "")),
        ]
        assert "SECRET" not in "".join(told)
        error = error.__cause__ or error.__context__
    assert "SECRET" not in caplog.text + repr([record.args for record in caplog.records])
    assert caplog.records
    for path in tmp_path.rglob("*"):
        assert b"SECRET" not in path.read_bytes()


# K4: the token in the clear

ELSEWHERE = (
    "cloud.test",
    "127.0.0.1.cloud.test",
    "localhost.cloud.test",
    "x.localhost",
    "localhost.",
    "0.0.0.0",
    "10.0.0.1",
)


@pytest.mark.parametrize("host", cases("K4", *ELSEWHERE, "[fe80::1]"))
@pytest.mark.parametrize("call", ["look", "create"])
async def test_the_token_is_not_sent_in_the_clear_to_another_machine(host, call, server, resolve):
    asked = resolve(*ELSEWHERE)
    async with AsyncSession(cloud=f"http://{host}:{server.port}/api", token=TOKEN) as session:
        with pytest.raises(InvalidArgument, match="in the clear"):
            await (session.job("j-1").status() if call == "look" else session.submit(SPEC))
    assert (asked, server.connections) == ([], 0)


@pytest.mark.parametrize("host", cases("K4", "127.0.0.1", "localhost", "LOCALHOST"))
async def test_it_is_to_this_machine(host, server, resolve):
    resolve("localhost")
    server.otherwise(chaos.answer(json={"status": "working"}))
    async with AsyncSession(cloud=f"http://{host}:{server.port}/api", token="t") as session:
        await session.job("j-1").status()
    assert server.requests[0].header("authorization") == "Bearer t"


async def test_it_is_to_another_machine_if_somebody_decides_so(server, resolve):
    resolve("cloud.test")
    server.otherwise(chaos.answer(json={"status": "working"}))
    url = f"http://cloud.test:{server.port}/api"
    async with AsyncSession(cloud=url, token="t", allow_insecure_http=True) as session:
        await session.job("j-1").status()
    assert server.requests[0].header("authorization") == "Bearer t"


async def test_the_engine_is_never_sent_the_token(server):
    server.otherwise(chaos.answer(json={"ret_code": 200, "message": "ok", "tasks": []}))
    async with AsyncSession(engine=server.url, token=TOKEN) as session:
        await session.list_tasks()
    assert "SECRET" not in repr(server.requests)


# K5, K7: the environment

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "FTP_PROXY")


@pytest.mark.parametrize(
    ("proxy", "exceptions"),
    [
        ("{trap}", ""),
        ("{trap}", "fe80::/10,10.0.0.0/8,,*."),
        ("socks5://127.0.0.1:1", ""),
        ("socks5h://[::1", "["),
        ("http://[fe80::1%25eth0]:x", "::1/129"),
        ("not a url", "%%%"),
        ("", "*"),
    ],
    ids=["K5 a trap", "K5 CIDR", "K5 socks", "K5 broken IPv6", "K5 zone", "K5 no URL", "K5 empty"],
)
async def test_no_proxy_of_the_environment_is_used(floor, server, proxy, exceptions, monkeypatch, tmp_path):
    async with ChaosServer() as trap:
        for variable in PROXIES:
            monkeypatch.setenv(variable, proxy.format(trap=trap.url))
        monkeypatch.setenv("NO_PROXY", exceptions)
        monkeypatch.setenv("no_proxy", exceptions)
        async with floor(server) as this:
            await this.look()
            await this.create()
        url = f"{server.url}/model.zip"
        server.on_request(chaos.answer(json={"status": "success", "url": url}))
        server.otherwise(chaos.answer(body=b"zip"))
        async with AsyncSession(cloud=f"{server.url}/api") as session:
            await session.job("j-1").download(tmp_path, extract=False)
        assert trap.connections == 0


async def test_a_netrc_is_not_read(server, nowhere, monkeypatch):
    netrc = "machine 127.0.0.1 login me password TOPSECRET\ndefault login me password TOPSECRET\n"
    for place in (".netrc", "_netrc", "own"):
        (nowhere / place).write_text(netrc)
        (nowhere / place).chmod(0o600)
    monkeypatch.setenv("NETRC", str(nowhere / "own"))
    url = f"{server.url}/model.zip"
    server.on_request(chaos.answer(json={"ret_code": 200, "message": "ok", "tasks": []}))
    server.on_request(chaos.answer(json={"status": "success", "url": url}))
    server.otherwise(chaos.answer(body=b"zip"))
    async with AsyncSession(engine=server.url, cloud=f"{server.url}/api") as session:
        await session.list_tasks()
        await session.job("j-1").download(nowhere, extract=False)
    assert len(server.requests) == 3
    assert [request.header("authorization") for request in server.requests] == [None] * 3


async def test_cookies_of_a_server_are_never_sent_back(server, tmp_path):
    cookies = [("Set-Cookie", "a=TOPSECRET; Path=/"), ("Set-Cookie", "b=2; Domain=127.0.0.1; Max-Age=9999")]
    job = {"status": "success", "url": f"{server.url}/model.zip"}

    async def serve(connection):
        is_api = connection.request.path.startswith("/api")
        step = chaos.answer(json=job, headers=cookies) if is_api else chaos.answer(403, headers=cookies)
        await step(connection)

    server.otherwise(serve)
    async with AsyncSession(cloud=f"{server.url}/api", token="t") as session:
        await session.job("j-1").status()
        for _ in range(2):
            with pytest.raises(Denied):
                await session.job("j-1").download(tmp_path)
    assert len(server.requests) > 5
    assert [request.header("cookie") for request in server.requests] == [None] * len(server.requests)


# Redirects of the API


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("origin", ["same", "other", "other scheme"])
@pytest.mark.parametrize("call", ["look", "create"])
async def test_a_redirect_of_the_api_is_not_followed_by_body_or_token(floor, server, call, origin, status):
    async with ChaosServer() as other:
        target = {
            "same": "/api/elsewhere",
            "other": f"{other.url}/api",
            "other scheme": f"https://127.0.0.1:{other.port}/",
        }
        async with floor(server) as this:
            server.on_request(chaos.answer(status, headers={"Location": target[origin]}))
            await this.fails(UnexpectedAnswer, this.send(call))
            assert len(server.requests) == 1
        assert other.connections == 0


# K8: the store


@pytest.mark.parametrize("origin", ["K8 the API's own", "K8 another"])
async def test_the_store_is_sent_nothing_but_a_plain_request(server, origin, tmp_path):
    async with ChaosServer() as other:
        store = server if "own" in origin else other
        url = f"{store.url}/model.zip?Signature=a%2Fb"
        for each in (server, other):
            each.otherwise(chaos.answer(body=b"zip"))
        server.on_request(chaos.answer(json={"status": "success", "url": url}))
        async with AsyncSession(cloud=f"{server.url}/api", token=TOKEN) as session:
            await session.job("j-1").download(tmp_path, extract=False)
        asked = store.requests[-1]
        assert (asked.method, asked.target, asked.body) == ("GET", "/model.zip?Signature=a%2Fb", b"")
        assert {name for name, _ in asked.headers} <= {"host", "accept-encoding", "connection"}
        assert "SECRET" not in repr(asked)


async def test_nor_is_it_when_the_api_is_spoken_to_by_a_client_with_credentials(server, tmp_path):
    server.on_request(chaos.answer(json={"status": "success", "url": f"{server.url}/model.zip"}))
    server.otherwise(chaos.answer(body=b"zip"))
    async with (
        httpx.AsyncClient(headers={"Authorization": "Basic TOPSECRET", "X-Api-Key": "TOPSECRET"}) as client,
        AsyncSession(cloud=f"{server.url}/api", http_client=client) as session,
    ):
        await session.job("j-1").download(tmp_path, extract=False)
    assert "SECRET" in repr(server.requests[0])
    assert "SECRET" not in repr(server.requests[1])


# K12: the command line


def write(path, mode, text):
    path.write_text(text)
    path.chmod(mode)


@pytest.mark.parametrize("form", [["--token", "TOPSECRET"], ["--token=TOPSECRET"]], ids=["K12 apart", "K12 together"])
def test_a_token_in_the_arguments_is_refused_with_what_to_do(form, chaos_server, capsys, nowhere):
    arguments = ["job", "status", "j-1", "--cloud", f"{chaos_server.url}/api", *form]
    assert run_command_line(arguments) == 2
    told = capsys.readouterr()
    assert "GTS_ASYNC_TOKEN" in told.err
    assert "--token-file" in told.err
    assert "SECRET" not in told.out + told.err
    assert chaos_server.connections == 0


@pytest.mark.parametrize("place", ["K12 environment", "K12 file", "K12 stdin"])
def test_the_command_line_takes_the_token_from_elsewhere(place, chaos_server, capsys, nowhere, monkeypatch):
    chaos_server.otherwise(chaos.answer(json={"status": "working"}))
    arguments = ["--json", "job", "status", "j-1", "--cloud", f"{chaos_server.url}/api"]
    if place.endswith("environment"):
        monkeypatch.setenv("GTS_ASYNC_TOKEN", "TOPSECRET")
    elif place.endswith("file"):
        write(nowhere / "token", 0o600, "TOPSECRET\n")
        arguments += ["--token-file", "token"]
    else:
        monkeypatch.setattr("sys.stdin", io.StringIO("TOPSECRET\nand more\n"))
        arguments += ["--token-file", "-"]
    assert run_command_line(arguments) == 0
    told = capsys.readouterr()
    assert "SECRET" not in told.out + told.err
    assert chaos_server.requests[0].header("authorization") == "Bearer TOPSECRET"


def test_the_command_line_warns_of_a_token_file_that_others_may_read(chaos_server, nowhere):
    chaos_server.otherwise(chaos.answer(json={"status": "working"}))
    write(nowhere / "token", 0o644, "TOPSECRET\n")
    with pytest.warns(UserWarning, match="chmod 600 token") as caught:
        assert run_command_line(["job", "status", "j-1", "--cloud", chaos_server.url, "--token-file", "token"]) == 0
    assert "SECRET" not in str(caught[0].message)


def test_the_command_line_does_not_show_a_token_file_that_it_cannot_read(chaos_server, capsys, nowhere):
    (nowhere / "token").write_bytes(b"TOPSECRET\xff")
    (nowhere / "token").chmod(0o600)
    assert run_command_line(["job", "status", "j-1", "--cloud", chaos_server.url, "--token-file", "token"]) == 3
    assert "SECRET" not in capsys.readouterr().err


def test_a_command_to_copy_speaks_to_the_same_service_and_holds_no_token():
    options = Options(
        show=Show(), cloud="http://c.test", ca_file="a b.pem", allow_insecure_http=True, token="TOPSECRET"
    )
    told = options.again("job", "wait", "j-1")
    assert told == "gts-async job wait j-1 --cloud http://c.test --ca-file 'a b.pem' --allow-insecure-http"
    assert "SECRET" not in told + repr(options)
