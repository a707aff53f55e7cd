import ipaddress

import httpx
import pytest

from gts_async._errors import UnsafeURL
from gts_async._files import address
from gts_async._net.config import BaseURL
from gts_async._net.hosts import Hosts

SIGNED = "https://bucket.oss-cn-beijing.aliyuncs.com/ai1/data.zip?Expires=1706&OSSAccessKeyId=LTAI&Signature=a%2Fb%3D"


@pytest.mark.parametrize(
    "url",
    [
        SIGNED,
        "https://host:8443/x",
        "https://8.8.8.8/x",
        "https://[2001:4860:4860::8888]/x",
        "https://host",
        "HTTPS://HOST/x",
        "https://host/a%2Fb/../c?x=[1]",
    ],
)
def test_public_https_is_followed(url: str) -> None:
    assert address.checked(url).scheme == "https"


@pytest.mark.parametrize(
    "url",
    [
        "http://bucket.example/x",
        "ftp://host/x",
        "file:///etc/passwd",
        "//evil/x",
        "/x",
        "",
        "https://",
        "https:///x",
        "https://user:pass@host/x",
        "https://token@host/x",
        "https://host/a b",
        "https://host/a\r\nX: y",
        "https://host/\x00",
        "https://bücher.example/x",
        "https://host:99999/x",
        "https://[::1/x",
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://LOCALHOST./x",
        "https://a.localhost/x",
        "https://10.0.0.1/x",
        "https://172.16.0.1/x",
        "https://192.168.1.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://100.100.100.200/latest/meta-data",
        "https://0.0.0.0/x",
        "https://[::1]/x",
        "https://[::]/x",
        "https://[fe80::1]/x",
        "https://[fd00::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://[::ffff:169.254.169.254]/x",
        "https://[::127.0.0.1]/x",
        "https://[64:ff9b::7f00:1]/x",
        "https://[2002:7f00:1::]/x",
        "https://224.0.0.1/x",
        "https://255.255.255.255/x",
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(UnsafeURL):
        address.checked(url)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8000/x", "http://localhost/x", "http://[::1]/x", "https://10.0.0.1/x", "https://[fd00::1]/x"],
)
def test_private_addresses_are_followed_when_allowed(url: str) -> None:
    assert address.checked(url, address.HERE).host


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/x",
        "http://bucket.example/x",
        "https://169.254.169.254/x",
        "https://[fe80::1]/x",
        "https://[::ffff:169.254.169.254]/x",
        "https://0.0.0.0/x",
        "https://224.0.0.1/x",
        "https://100.100.100.200/x",
        "https://168.63.129.16/x",
        "https://[fd00:ec2::254]/x",
        "https://[::169.254.169.254]/x",
        "https://[::ffff:0:169.254.169.254]/x",
        "https://[64:ff9b::169.254.169.254]/x",
        "https://[64:ff9b:1::169.254.169.254]/x",
        "https://127.1/x",
        "https://0x7f000001/x",
        "https://%31%32%37.0.0.1/x",
    ],
)
def test_some_are_refused_even_then(url: str) -> None:
    with pytest.raises(UnsafeURL):
        address.checked(url, address.HERE)


@pytest.mark.parametrize(
    ("api", "allows_private", "allows_loopback"),
    [
        ("http://127.0.0.1:8000", True, True),
        ("http://localhost", True, True),
        ("http://[::1]", True, True),
        ("https://10.1.2.3/api", True, False),
        ("https://[fd00::1]/api", True, False),
        ("https://100.64.1.1/api", True, False),
        ("https://cloud.example.com/api", False, False),
        ("https://x.localhost/api", False, False),
        ("https://8.8.8.8/api", False, False),
        ("https://169.254.169.254", False, False),
        ("https://100.100.100.200", False, False),
    ],
)
def test_only_an_api_that_is_itself_private_has_a_private_store(
    api: str, allows_private: bool, allows_loopback: bool
) -> None:
    fence = address.Fence.around(BaseURL.parse(api, "cloud"))
    assert (fence.allow_private, fence.allow_loopback) == (allows_private, allows_loopback)


LISTED = address.Fence(Hosts.parse("*.lan, 10.0.0.1, [fd00::1], store.example.com", "store_hosts"))


@pytest.mark.parametrize(
    "url",
    [
        "https://store.example.com/x",
        "https://STORE.example.com./x",
        "https://a.b.lan/x",
        "https://10.0.0.1:9000/x",
        "https://[FD00:0::1]/x",
    ],
)
def test_a_listed_host_may_be_private(url: str) -> None:
    assert address.checked(url, LISTED).host
    LISTED.check(ipaddress.ip_address("10.7.7.7"), httpx.URL(url).raw_host.decode(), url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/x",
        "https://store.example.com.evil.test/x",
        "https://xstore.example.com/x",
        "https://lan/x",
        "https://10.0.0.2/x",
        "https://[::ffff:10.0.0.1]/x",
        "http://store.example.com/x",
    ],
)
def test_any_other_is_refused_although_it_is_public(url: str) -> None:
    with pytest.raises(UnsafeURL):
        address.checked(url, LISTED)


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "169.254.169.254", "100.100.100.200", "fe80::1", "0.0.0.0"])
async def test_a_listed_host_leads_neither_here_nor_to_metadata(peer: str) -> None:
    with pytest.raises(UnsafeURL):
        await told("a.lan", "a.lan", peer, LISTED)


async def test_plain_http_is_for_this_machine_whatever_the_name_leads_to() -> None:
    trace = address.guard(httpx.URL("http://x.localhost/x"), address.HERE, on_event=lambda event: None)
    await trace("connection.connect_tcp.started", {"host": "x.localhost"})
    await trace("connection.connect_tcp.complete", {"return_value": FakeStream("127.0.0.1")})
    for peer in ("10.0.0.1", "8.8.8.8"):
        stream = FakeStream(peer)
        with pytest.raises(UnsafeURL, match="without https"):
            await trace("connection.connect_tcp.complete", {"return_value": stream})
        assert stream.was_closed


def test_a_redirect_never_leaves_https() -> None:
    with pytest.raises(UnsafeURL, match="not https"):
        address.checked("http://127.0.0.1/x", address.HERE, is_redirect_from_https=True)


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        (SIGNED, "https://bucket.oss-cn-beijing.aliyuncs.com/ai1/data.zip?<redacted>"),
        ("https://host/x", "https://host/x"),
        ("https://user:pa@ss@host/x#f", "https://<redacted>@host/x"),
    ],
)
def test_a_shown_url_holds_no_key(url: str, bare: str) -> None:
    assert address.shown(url) == bare


@pytest.mark.parametrize(
    "url", [SIGNED.replace("https", "http"), "https://u:s3cr@host/x?Signature=s3cr", "not a url s3cr"]
)
def test_the_refusal_does_not_show_the_query(url: str) -> None:
    with pytest.raises(UnsafeURL) as caught:
        address.checked(url)
    for secret in ("a%2Fb%3D", "LTAI", "s3cr"):
        assert secret not in repr(caught.value) + caught.value.path


@pytest.mark.parametrize(
    ("url", "exact"),
    [
        ("https://h/a%2Fb?x=%2f+~'(){}|^[]\"", b"/a%2Fb?x=%2f+~'(){}|^[]\""),
        ("https://h/a/../b?q#f", b"/a/../b?q"),
        ("https://h", b"/"),
        ("https://h?q=//x", b"/?q=//x"),
    ],
)
def test_the_target_is_byte_exact(url: str, exact: bytes) -> None:
    assert address.target(url) == exact


def test_a_redirect_to_what_is_no_url_is_refused() -> None:
    assert address.joined("https://h/a/b?x", "../c?y=%2f") == "https://h/c?y=%2f"
    with pytest.raises(UnsafeURL):
        address.joined("https://h/a", "https://[::1/x")


class FakeStream:
    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.was_closed = False

    def get_extra_info(self, name: str) -> object:
        return (self.peer, 443) if name == "server_addr" else None

    async def aclose(self) -> None:
        self.was_closed = True


async def told(host: str, connected_to: str, peer: str, fence: address.Fence = address.PUBLIC) -> FakeStream:
    stream = FakeStream(peer)
    trace = address.guard(httpx.URL(f"https://{host}/x"), fence, on_event=lambda event: None)
    await trace("connection.connect_tcp.started", {"host": connected_to})
    await trace("connection.connect_tcp.complete", {"return_value": stream})
    return stream


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1%2"])
async def test_a_name_that_leads_to_a_private_address_is_given_up_before_a_byte_is_sent(peer: str) -> None:
    with pytest.raises(UnsafeURL, match=str(ipaddress.ip_address(peer))):
        await told("store.example", "store.example", peer)


async def test_a_connection_to_a_public_address_stays_open() -> None:
    assert not (await told("store.example", "store.example", "8.8.8.8")).was_closed


async def test_a_proxy_may_be_private() -> None:
    assert not (await told("store.example", "proxy.lan", "10.0.0.1")).was_closed


async def test_a_private_peer_is_kept_when_allowed() -> None:
    assert not (await told("store.lan", "store.lan", "10.0.0.1", address.HERE)).was_closed
