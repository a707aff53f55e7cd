"""What a download sends, what it takes, and what is there afterwards."""

import base64
import hashlib
import json
import logging
import os
import random
import ssl
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gts_async._errors import (
    Denied,
    DownloadCorrupt,
    NotFound,
    NotSent,
    RateLimited,
    ServerFailed,
    ServiceError,
    UnexpectedAnswer,
    UnsafeURL,
)
from gts_async._files.address import HERE
from gts_async._files.download import BATCH, download
from gts_async._progress import Progress
from gts_async.testing import ChaosServer, chaos

Store = Naps = Any
"""From conftest.py, which cannot be imported."""

Fetch = Callable[..., Awaitable[Path]]
CONTENT = random.Random(7).randbytes(300_000)
"""What the store serves."""


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def note_of(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


def line_of(asked: chaos.ChaosRequest) -> str:
    return f"{asked.method} {asked.target} {asked.version}"


def assert_only(target: Path) -> None:
    assert sorted(target.parent.iterdir()) == [target]


# What goes out


async def test_the_request_carries_nothing_of_the_client(fetch: Fetch, store: Store, target: Path) -> None:
    store.scripts = [store.cut(100_000)]
    await fetch()
    first, second = store.asked
    path = store.url.split("/", 3)[3]
    assert line_of(first) == line_of(second) == f"GET /{path} HTTP/1.1"
    assert {name.lower() for name, _ in first.headers} == {"host", "accept-encoding"}
    assert {name.lower() for name, _ in second.headers} == {"host", "accept-encoding", "range", "if-range"}
    assert first.header("accept-encoding") == "identity"


@pytest.mark.parametrize("query", ["x=%2f%2F+~'(){}|^[]\"", "a=1&a=2&=&%zz", "Signature=YWJj%2Bd%3D%3D"])
async def test_the_url_is_sent_byte_for_byte(fetch: Fetch, store: Store, query: str) -> None:
    store.url = store.url.partition("?")[0] + "/a/../b%2Fc?" + query
    await fetch()
    assert line_of(store.asked[0]) == f"GET /bucket/ai1/data.zip/a/../b%2Fc?{query} HTTP/1.1"


# What is there afterwards


async def test_the_file_is_there_whole_and_nothing_else(fetch: Fetch, target: Path) -> None:
    assert await fetch() == target
    assert target.read_bytes() == CONTENT
    assert_only(target)


async def test_an_older_file_is_replaced(fetch: Fetch, target: Path) -> None:
    target.write_bytes(b"old")
    await fetch()
    assert target.read_bytes() == CONTENT
    assert_only(target)


async def test_an_empty_object_is_an_empty_file(fetch: Fetch, store: Store, target: Path) -> None:
    store.content = b""
    await fetch()
    assert target.read_bytes() == b""
    assert_only(target)


async def test_the_part_is_for_its_owner_only_and_its_note_holds_no_key(
    fetch: Fetch, store: Store, target: Path
) -> None:
    store.scripts = [store.cut(100_000), *(chaos.answer(503) for _ in range(2))]
    with pytest.raises(ServerFailed):
        await fetch(max_attempts=2)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (part_of(target), note_of(target))]
    note = json.loads(note_of(target).read_bytes())
    assert modes == [0o600, 0o600]
    assert note == {
        "url": store.url.partition("?")[0] + "?<redacted>",
        "etag": '"v1"',
        "size": len(CONTENT),
        "checksums": [],
    }


async def test_a_chunked_answer_without_length_works(fetch: Fetch, store: Store, target: Path) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (CONTENT[:1000], CONTENT[1000:])) + b"0\r\n\r\n"
    store.scripts = [chaos.answer(headers={"Transfer-Encoding": "chunked"}, body=body)]
    await fetch()
    assert target.read_bytes() == CONTENT


async def test_a_chunked_answer_that_is_cut_is_no_success(fetch: Fetch, store: Store, target: Path) -> None:
    headers = {"Transfer-Encoding": "chunked", "ETag": '"v1"'}
    store.server.on_request(chaos.answer(headers=headers, body=b"5\r\n" + CONTENT[:5] + b"\r\n"), chaos.close())
    await fetch()
    assert store.asked[1].header("range") == "bytes=5-"
    assert target.read_bytes() == CONTENT


async def test_an_answer_whose_end_nobody_can_tell_from_a_cut_is_refused(
    fetch: Fetch, store: Store, target: Path
) -> None:
    store.server.on_request(chaos.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + CONTENT), chaos.close())
    with pytest.raises(DownloadCorrupt, match="neither length nor checksum"):
        await fetch()
    assert list(target.parent.iterdir()) == []


async def test_unless_its_checksum_is_known(fetch: Fetch, store: Store, target: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-MD5: %s\r\n\r\n"
    md5 = base64.b64encode(hashlib.md5(CONTENT).digest())
    store.server.on_request(chaos.send(head % md5 + CONTENT), chaos.close())
    await fetch()
    assert target.read_bytes() == CONTENT


async def test_bytes_are_kept_as_the_store_has_them_and_never_decoded(fetch: Fetch, store: Store, target: Path) -> None:
    store.content = b"\x1f\x8b not really gzip"
    store.headers = {"Content-Encoding": "gzip"}
    await fetch()
    assert target.read_bytes() == store.content


async def test_a_mock_transport_will_do(tmp_path: Path) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=CONTENT))
    async with httpx.AsyncClient(transport=transport) as client:
        path = await download(client, "https://bucket.example/data.zip?Signature=x", tmp_path / "m.zip")
    assert path.read_bytes() == CONTENT


# Refusals


EXPIRED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>AccessDenied</Code><Message>Request has expired.</Message><RequestId>65</RequestId>
<StringToSign>GET 1706 /bucket/ai1/data.zip</StringToSign><SignatureProvided>s3cr/t=</SignatureProvided></Error>"""


async def test_an_expired_url_is_renewed_once_and_the_download_goes_on(
    fetch: Fetch, store: Store, target: Path
) -> None:
    store.scripts = [store.cut(100_000), chaos.answer(403, body=EXPIRED)]
    asked_for = 0

    async def fresh_url() -> str:
        nonlocal asked_for
        asked_for += 1
        return store.url.replace("1706", "1899")

    await fetch(fresh_url=fresh_url)
    assert asked_for == 1
    assert store.asked[2].header("range") == "bytes=100000-"
    assert "Expires=1899" in store.asked[2].target
    assert target.read_bytes() == CONTENT


async def test_a_fresh_url_that_is_refused_as_well_ends_it(fetch: Fetch, store: Store, target: Path) -> None:
    store.scripts = [store.cut(100_000), *(chaos.answer(403, body=EXPIRED) for _ in range(3))]

    async def fresh_url() -> str:
        return store.url

    with pytest.raises(Denied, match=r"403 AccessDenied: Request has expired\.") as caught:
        await fetch(fresh_url=fresh_url)
    assert (caught.value.code, caught.value.message) == (403, "Request has expired.")
    assert len(store.asked) == 3
    assert part_of(target).stat().st_size == 100_000


async def test_after_progress_a_url_may_expire_again(fetch: Fetch, store: Store, target: Path) -> None:
    expired = chaos.answer(403, body=EXPIRED)
    store.scripts = [store.cut(100_000), expired, store.cut(100_000), expired]
    count = 0

    async def fresh_url() -> str:
        nonlocal count
        count += 1
        return store.url

    await fetch(fresh_url=fresh_url)
    assert count == 2
    assert target.read_bytes() == CONTENT


async def test_a_fresh_url_is_checked_like_the_first(fetch: Fetch, store: Store) -> None:
    store.scripts = [chaos.answer(403, body=EXPIRED)]

    async def fresh_url() -> str:
        return "http://bucket.example/data.zip?Signature=s3cr"

    with pytest.raises(UnsafeURL):
        await fetch(fresh_url=fresh_url)


@pytest.mark.parametrize(
    ("status", "error", "tries"),
    [
        (403, Denied, 1),
        (401, Denied, 1),
        (404, NotFound, 1),
        (410, NotFound, 1),
        (400, ServiceError, 1),
        (204, UnexpectedAnswer, 1),
        (206, UnexpectedAnswer, 1),
        (304, UnexpectedAnswer, 1),
        (302, UnexpectedAnswer, 1),
        (408, ServerFailed, 3),
        (500, ServerFailed, 3),
        (503, ServerFailed, 3),
        (429, RateLimited, 3),
    ],
)
async def test_each_refusal_is_its_error_and_leaves_nothing(
    fetch: Fetch, store: Store, target: Path, status: int, error: type[Exception], tries: int
) -> None:
    store.scripts = [chaos.answer(status) for _ in range(tries)]
    with pytest.raises(error) as caught:
        await fetch(max_attempts=3)
    assert type(caught.value) is error
    assert str(status) in str(caught.value)
    assert len(store.asked) == tries
    assert list(target.parent.iterdir()) == []


async def test_a_server_error_in_passing_is_waited_out(fetch: Fetch, store: Store, target: Path, naps: Naps) -> None:
    store.scripts = [chaos.answer(503, headers={"Retry-After": "7"}), chaos.answer(502)]
    await fetch()
    assert naps.slept == [7.0, 0.25]
    assert target.read_bytes() == CONTENT


async def test_a_store_that_asks_for_too_long_a_wait_is_not_waited_for(fetch: Fetch, store: Store, naps: Naps) -> None:
    store.scripts = [chaos.answer(429, headers={"Retry-After": "3600"})]
    with pytest.raises(RateLimited) as caught:
        await fetch()
    assert caught.value.retry_after == 3600
    assert naps.slept == []


async def test_a_huge_refusal_is_not_read_whole(fetch: Fetch, store: Store) -> None:
    body = b"<Error><Code>NoSuchKey</Code><Message>gone</Message>" + b"x" * 10_000_000
    store.scripts = [chaos.answer(404, body=body)]
    with pytest.raises(NotFound, match="404 NoSuchKey: gone") as caught:
        await fetch()
    assert len(str(caught.value)) < 300


async def test_nobody_listening_is_not_sent(client: httpx.AsyncClient, target: Path, naps: Naps) -> None:
    async with ChaosServer() as server:
        server.refuse()
        with pytest.raises(NotSent):
            await download(client, f"{server.url}/x", target, fence=HERE, sleep=naps, max_attempts=2)
    assert len(naps.slept) == 1


# Integrity


def vouching(content: bytes) -> list[dict[str, object]]:
    digest = hashlib.md5(content)
    return [
        {"ETag": f'"{digest.hexdigest().upper()}"', "x-oss-object-type": "Normal"},
        {"ETag": f'"{digest.hexdigest()}"', "x-amz-request-id": "1"},
        {"ETag": '"x-2"', "Content-MD5": base64.b64encode(digest.digest()).decode()},
    ]


@pytest.mark.parametrize("headers", vouching(CONTENT))
async def test_a_right_checksum_is_verified(
    fetch: Fetch, store: Store, target: Path, headers: dict[str, object]
) -> None:
    store.etag, store.headers = None, headers
    await fetch()
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("headers", vouching(b"something else"))
async def test_a_wrong_checksum_removes_the_part_and_leaves_the_target(
    fetch: Fetch, store: Store, target: Path, headers: dict[str, object]
) -> None:
    target.write_bytes(b"old")
    store.etag, store.headers = None, headers
    with pytest.raises(DownloadCorrupt, match="MD5"):
        await fetch()
    assert target.read_bytes() == b"old"
    assert_only(target)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-oss-object-type": "Multipart"},
        {"x-amz-request-id": "1", "x-amz-server-side-encryption": "aws:kms"},
        {"x-amz-request-id": "1", "x-amz-server-side-encryption-customer-algorithm": "AES256"},
        {"x-oss-object-type": "Normal", "ETag": '"0123456789abcdef0123456789abcdef-2"'},
        {"Content-MD5": "nonsense"},
    ],
)
async def test_an_etag_that_only_looks_like_an_md5_is_not_taken_for_one(
    fetch: Fetch, store: Store, target: Path, headers: dict[str, object]
) -> None:
    store.etag, store.headers = None, {"ETag": '"0123456789abcdef0123456789abcdef"', **headers}
    await fetch()
    assert target.read_bytes() == CONTENT


async def test_more_bytes_than_announced_are_refused(fetch: Fetch, store: Store, target: Path) -> None:
    async def endless(connection: chaos.Connection) -> None:
        first = int(connection.request.header("range").removeprefix("bytes=").removesuffix("-"))
        span = f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}"
        await chaos.answer(206, headers={"Transfer-Encoding": "chunked", "Content-Range": span})(connection)
        await chaos.endlessly(b"10000\r\n" + bytes(65536) + b"\r\n")(connection)

    store.scripts = [store.cut(100_000), endless]
    with pytest.raises(DownloadCorrupt, match="more than"):
        await fetch()
    assert list(target.parent.iterdir()) == []


# Redirects and addresses


async def test_a_redirect_is_followed_and_the_rest_is_asked_for_there(fetch: Fetch, store: Store, target: Path) -> None:
    moved = chaos.answer(307, headers={"Location": "/else/where.zip?sig=%2F1"})
    store.scripts = [moved, store.cut(100_000), moved]
    await fetch()
    assert [asked.target for asked in store.asked[1::2]] == ["/else/where.zip?sig=%2F1"] * 2
    assert store.asked[3].header("range") == "bytes=100000-"
    assert all(asked.header("authorization") is None for asked in store.asked)
    assert target.read_bytes() == CONTENT


async def test_a_redirect_loop_ends(fetch: Fetch, store: Store) -> None:
    store.scripts = [chaos.answer(302, headers={"Location": "?again"}) for _ in range(20)]
    with pytest.raises(UnexpectedAnswer, match="more than 5 redirects"):
        await fetch()
    assert len(store.asked) == 6


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/latest/meta-data",
        "http://bucket.example/x",
        "file:///etc/passwd",
        "https://user:s3cr@bucket.example/x",
    ],
)
async def test_a_redirect_to_where_we_must_not_go_is_refused(
    fetch: Fetch, store: Store, target: Path, location: str
) -> None:
    store.scripts = [chaos.answer(302, headers={"Location": location})]
    with pytest.raises(UnsafeURL):
        await fetch()
    assert len(store.asked) == 1
    assert list(target.parent.iterdir()) == []


async def test_a_redirect_from_https_to_this_machine_is_refused(tmp_path: Path) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"location": "http://127.0.0.1:1/x"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
        with pytest.raises(UnsafeURL, match="not https"):
            await download(client, "https://bucket.example/x", tmp_path / "x", fence=HERE)


async def test_private_addresses_are_refused_before_anything_is_touched(
    client: httpx.AsyncClient, store: Store, target: Path
) -> None:
    with pytest.raises(UnsafeURL) as caught:
        await download(client, store.url, target)
    assert "s3cr" not in str(caught.value)
    assert list(target.parent.iterdir()) == []
    assert store.asked == []


async def test_a_name_that_leads_into_this_machine_is_found_out_on_the_connection(
    store: Store, target: Path, no_tls: ssl.SSLContext, nothing_left: Callable[[], None]
) -> None:
    class ToStore(httpx.AsyncHTTPTransport):
        """Resolves every name to the store, as a rebinding name server would."""

    import httpcore

    class Backend(httpcore.AsyncNetworkBackend):
        async def connect_tcp(self, host: str, port: int, **options: object) -> httpcore.AsyncNetworkStream:
            real = httpcore.AnyIOBackend()
            return await real.connect_tcp("127.0.0.1", int(store.url.split(":")[2].split("/")[0]))

    transport = ToStore(verify=no_tls, trust_env=False)
    transport._pool = httpcore.AsyncConnectionPool(network_backend=Backend())
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(UnsafeURL, match=r"127\.0\.0\.1"):
            await download(client, "https://bucket.example/data.zip?Signature=s3cr", target)
    assert store.asked == []


async def test_https_is_verified_and_the_address_looked_at(store: Store, target: Path) -> None:
    trusting = ssl.create_default_context()
    async with ChaosServer(tls=True) as server:
        server.otherwise(store.serve)
        url = f"https://localhost:{server.port}/data.zip?Signature=s3cr"
        async with httpx.AsyncClient(verify=trusting, trust_env=False) as client:
            with pytest.raises(NotSent, match="certificate"):
                await download(client, url, target, fence=HERE, max_attempts=1)
            with pytest.raises(UnsafeURL):
                await download(client, url, target)
        trusting.load_verify_locations(server.ca_file)
        async with httpx.AsyncClient(verify=trusting, trust_env=False) as client:
            await download(client, url, target, fence=HERE)
    assert target.read_bytes() == CONTENT


# Secrets


async def test_no_error_note_or_log_of_ours_holds_the_key(
    fetch: Fetch, store: Store, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="gts_async")
    echo = f"<Error><Code>SignatureDoesNotMatch</Code><Message>{store.url} s3cr/t= s3cr%2Ft%3D</Message></Error>"
    said = []
    for scripts in (
        [chaos.answer(403, body=echo.encode())],
        [chaos.answer(500, body=echo.encode())] * 2,
        [chaos.answer(404, body=f"<html>{store.url}</html>".encode())],
        [store.cut(10)] * 3,
        [chaos.answer(302, headers={"Location": "http://bucket.example/?" + store.url.partition("?")[2]})],
    ):
        store.scripts = list(scripts)
        with pytest.raises(Exception) as caught:  # noqa: PT011
            await fetch(max_attempts=2)
        error: BaseException | None = caught.value
        while error is not None:
            said.append(repr(error) + str(error) + repr(vars(error)))
            error = error.__cause__
    said += [record.getMessage() for record in caplog.records if record.name.startswith("gts_async")]
    said += [path.read_text("latin-1") for path in target.parent.iterdir() if path != part_of(target)]
    for secret in ("s3cr", "LTAI5t"):
        assert not [text for text in said if secret in text]


# Progress and memory


async def test_progress_ends_acknowledged(fetch: Fetch, store: Store) -> None:
    store.content = content = os.urandom(3 * BATCH + 5)
    told: list[Progress] = []
    store.scripts = [store.cut(BATCH + 77)]
    await fetch(progress=told.append)
    assert told[-1] == Progress("model.zip", len(content), len(content), is_acknowledged=True)
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert [p.is_acknowledged for p in told].count(True) == 1


@pytest.mark.parametrize("error", [OSError, TimeoutError, BrokenPipeError, ValueError])
async def test_what_the_progress_callable_raises_ends_the_download(
    fetch: Fetch, store: Store, target: Path, error: type[Exception]
) -> None:
    def object_to(progress: Progress) -> None:
        raise error("no more")

    with pytest.raises(error, match="no more"):
        await fetch(progress=object_to)
    assert len(store.asked) == 1
    assert not target.exists()
    assert part_of(target).stat().st_size == len(CONTENT)


async def test_memory_does_not_grow_with_the_object(
    store: Store, target: Path, grown_by_the_second: Callable[[str, Path], Awaitable[int]]
) -> None:
    small, large = b"x" * (8 << 20), b"x" * (96 << 20)

    async def grow(connection: chaos.Connection) -> None:
        store.content = large
        await store.whole(connection)

    store.content, store.scripts = small, [store.whole, grow]
    grown = await grown_by_the_second(store.url, target)
    assert target.with_name("model.zipb").stat().st_size == len(large)
    assert grown < 16 << 20
