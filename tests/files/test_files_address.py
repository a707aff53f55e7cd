import ipaddress

import httpx
import pytest

from gts_async._errors import UnsafeURL
from gts_async._files import address

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
    assert address.checked(url, allow_private=True).host


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
    ],
)
def test_some_are_refused_even_then(url: str) -> None:
    with pytest.raises(UnsafeURL):
        address.checked(url, allow_private=True)


def test_a_redirect_never_leaves_https() -> None:
    with pytest.raises(UnsafeURL, match="not https"):
        address.checked("http://127.0.0.1/x", allow_private=True, is_redirect_from_https=True)


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


async def told(host: str, connected_to: str, peer: str, *, allow_private: bool = False) -> FakeStream:
    stream = FakeStream(peer)
    trace = address.guard(httpx.URL(f"https://{host}/x"), allow_private=allow_private, on_event=lambda event: None)
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
    assert not (await told("store.lan", "store.lan", "10.0.0.1", allow_private=True)).was_closed
