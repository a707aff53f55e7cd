"""Stores: where a model may be fetched from, whatever an API, a redirect or a resolver says."""

import json

import pytest

from gts_async import (
    AsyncSession,
    InvalidArgument,
    UnexpectedAnswer,
    UnsafeURL,
    WrongType,
)
from gts_async.testing import ChaosServer, chaos


def cases(case, *values):
    return [pytest.param(value, id=f"{case} {value!r}"[:60]) for value in values]


# Where a model may be fetched from


async def fetched(cloud, folder, **options):
    """Fetch a model from where the API at `cloud` says that it is."""
    given = {"token": "t", "allow_insecure_http": True, **options}
    async with AsyncSession(cloud=f"{cloud}/api", **given) as session:
        [path] = await session.job("j-1").download(folder, extract=False)
    return path.read_bytes()


def serving(server, url):
    """Let a server be an API that names this URL, and a store."""

    async def serve(connection):
        is_api = connection.request.path.startswith("/api")
        step = chaos.answer(json={"status": "success", "url": url}) if is_api else chaos.answer(body=b"zip")
        await step(connection)

    server.otherwise(serve)


INSIDE = (
    "https://127.0.0.1:{port}/x",
    "https://127.8.8.8:{port}/x",
    "https://localhost:{port}/x",
    "https://x.localhost:{port}/x",
    "https://[::1]:{port}/x",
    "https://[::ffff:127.0.0.1]:{port}/x",
    "https://[::127.0.0.1]:{port}/x",
    "https://10.0.0.1/x",
    "https://192.168.0.1/x",
    "https://172.16.0.1/x",
    "https://100.64.0.1/x",
    "https://[fd00::1]/x",
)
NEVER = (
    "https://169.254.169.254/latest/meta-data",
    "https://100.100.100.200/latest/meta-data",
    "https://168.63.129.16/metadata",
    "https://192.0.0.192/latest",
    "https://[fd00:ec2::254]/latest",
    "https://[fe80::1]/x",
    "https://[::ffff:169.254.169.254]/x",
    "https://[::a9fe:a9fe]/x",
    "https://[64:ff9b::169.254.169.254]/x",
    "https://[64:ff9b:1::169.254.169.254]/x",
    "https://[2002:a9fe:a9fe::]/x",
    "https://0.0.0.0/x",
    "https://[::]/x",
    "https://224.0.0.1/x",
    "https://user@127.0.0.1/x",
    "https://127.1/x",
    "https://0x7f.0.0.1/x",
    "https://2130706433/x",
    "https://0177.0.0.1/x",
    "https://%31%32%37.0.0.1/x",
    "https://bücher.test/x",
    "https://127.0.0.1\\@evil.test/x",
    "file:///etc/passwd",
    "ftp://127.0.0.1/x",
    "gopher://127.0.0.1/x",
)
REFUSED = (UnsafeURL, UnexpectedAnswer)
"""What is no URL of the web at all is an answer that the API must not give."""


@pytest.mark.parametrize("url", cases("K8", *INSIDE, *NEVER, "http://127.0.0.1:{port}/x", "http://store.test:{port}/x"))
async def test_an_api_elsewhere_leads_nobody_into_private_places(server, url, resolve, tmp_path):
    resolve("cloud.test", "store.test", "localhost", "x.localhost")
    serving(server, url.format(port=server.port))
    with pytest.raises(REFUSED):
        await fetched(f"http://cloud.test:{server.port}", tmp_path)
    assert [request.path for request in server.requests] == ["/api/userJob/job_status"]
    assert server.connections == 1


@pytest.mark.parametrize("url", cases("K8", *NEVER, "http://store.test:{port}/x", "http://10.0.0.1/x"))
async def test_an_api_on_this_machine_does_not_lead_to_these_either(server, url, resolve, tmp_path):
    resolve("store.test")
    serving(server, url.format(port=server.port))
    with pytest.raises(REFUSED):
        await fetched(server.url, tmp_path)
    assert server.connections == 1


@pytest.mark.parametrize("url", cases("K8", "http://127.0.0.1:{port}/x", "http://localhost:{port}/x"))
async def test_but_it_leads_to_its_own_machine(server, url, tmp_path):
    serving(server, url.format(port=server.port))
    assert await fetched(server.url, tmp_path) == b"zip"


async def test_a_name_that_leads_inside_is_given_up_before_a_byte_is_sent(server, resolve, tmp_path):
    asked = resolve("cloud.test", "store.test")
    async with ChaosServer(tls=True) as store:
        serving(server, f"https://store.test:{store.port}/x")
        options = {"ca_file": store.ca_file}
        with pytest.raises(UnsafeURL, match=r"leads to 127\.0\.0\.1"):
            await fetched(f"http://cloud.test:{server.port}", tmp_path, **options)
        assert store.received == 0
        # The address is that of the open connection: there is no second look, which might give another.
        assert asked.count("store.test") == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "target", cases("K8", *NEVER[:8], "http://store.test/x", "file:///etc/passwd", "//10.0.0.1:1@x/")
)
async def test_every_redirect_of_a_store_is_checked_again(server, target, status, resolve, tmp_path):
    resolve("store.test")
    serving(server, f"{server.url}/x?Signature=TOPSECRET")
    server.on_request(chaos.answer(json={"status": "success", "url": f"{server.url}/x?Signature=TOPSECRET"}))
    server.on_request(chaos.answer(status, headers={"Location": target}))
    with pytest.raises(UnsafeURL) as caught:
        await fetched(server.url, tmp_path)
    assert "SECRET" not in str(caught.value)
    assert len(server.requests) == 2


async def test_no_redirect_leads_from_https_to_http(tmp_path):
    async with ChaosServer(tls=True) as store, ChaosServer() as plain:
        serving(store, f"{store.url}/x")
        store.on_request(chaos.answer(json={"status": "success", "url": f"{store.url}/x"}))
        store.on_request(chaos.answer(302, headers={"Location": f"{plain.url}/x"}))
        with pytest.raises(UnsafeURL, match="not https"):
            await fetched(store.url, tmp_path, ca_file=store.ca_file)
        assert plain.connections == 0


async def test_a_store_may_redirect_five_times(server, tmp_path):
    serving(server, f"{server.url}/x")
    server.on_request(chaos.answer(json={"status": "success", "url": f"{server.url}/x"}))
    for _ in range(5):
        server.on_request(chaos.answer(307, headers={"Location": "/y"}))
    assert await fetched(server.url, tmp_path) == b"zip"
    server.on_request(chaos.answer(json={"status": "success", "url": f"{server.url}/x"}))
    for _ in range(6):
        server.on_request(chaos.answer(307, headers={"Location": "/y"}))
    with pytest.raises(UnexpectedAnswer, match="redirects"):
        await fetched(server.url, tmp_path / "again")


# The hosts that a user has listed


@pytest.mark.parametrize("place", ["argument", "environment", "file", "file with a list"])
async def test_models_come_from_listed_hosts_only(server, place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    hosts = ["store.example.com", "*.localhost", "localhost"]
    given = {"store_hosts": hosts} if place == "argument" else {}
    if place == "environment":
        monkeypatch.setenv("GTS_ASYNC_STORE_HOSTS", ", ".join(hosts))
    elif place != "argument":
        listed = json.dumps(hosts if place.endswith("list") else " ".join(hosts))
        (tmp_path / "gts_async.toml").write_text(f"store_hosts = {listed}\n")
    for url in ("http://localhost:{port}/x", "http://LOCALHOST:{port}/x"):
        serving(server, url.format(port=server.port))
        assert await fetched(server.url, tmp_path / "model", **given) == b"zip"
    for url in ("http://127.0.0.1:{port}/x", "https://example.com/x", "https://store.example.com.evil.test/x"):
        serving(server, url.format(port=server.port))
        with pytest.raises(UnsafeURL, match="is not in store_hosts"):
            await fetched(server.url, tmp_path / "model", **given)


async def test_a_redirect_must_lead_to_a_listed_host_too(server, tmp_path):
    async with ChaosServer() as other:
        serving(server, f"http://localhost:{server.port}/x")
        server.on_request(chaos.answer(json={"status": "success", "url": f"http://localhost:{server.port}/x"}))
        server.on_request(chaos.answer(302, headers={"Location": f"{other.url}/x"}))
        with pytest.raises(UnsafeURL, match="is not in store_hosts"):
            await fetched(server.url, tmp_path, store_hosts=["localhost"])
        assert other.connections == 0


async def test_listing_a_host_does_not_let_an_api_elsewhere_lead_to_this_machine(server, resolve, tmp_path):
    resolve("cloud.test", "store.test")
    async with ChaosServer(tls=True) as store:
        serving(server, f"https://store.test:{store.port}/x")
        options = {"store_hosts": "store.test, 127.0.0.1", "ca_file": store.ca_file}
        with pytest.raises(UnsafeURL, match="only an API on this machine"):
            await fetched(f"http://cloud.test:{server.port}", tmp_path, **options)
        assert store.received == 0


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        "",
        "*",
        "*.",
        "**.test",
        "a.*.test",
        "https://store.test",
        "store.test:443",
        "store.test/x",
        "bücher.test",
        "a b"[:1] + "\n/",
    ],
    ids=repr,
)
def test_what_is_no_host_is_refused(wrong):
    with pytest.raises(InvalidArgument, match="store_hosts"):
        AsyncSession(store_hosts=wrong)


@pytest.mark.parametrize("wrong", [[5], [None], [b"store.test"]], ids=repr)
def test_a_host_must_be_text(wrong):
    with pytest.raises(WrongType, match="store_hosts"):
        AsyncSession(store_hosts=wrong)
