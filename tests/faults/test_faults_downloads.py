"""Downloads: models that are cut, changed, wrong, hostile; disks that are full; processes that are killed."""

import ast
import asyncio
import base64
import contextlib
import errno
import fcntl
import hashlib
import io
import itertools
import json
import os
import pickle
import random
import resource
import shutil
import signal
import ssl
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import quote

import attrs
import fastcrc
import httpx
import pytest

import gts_async
from gts_async import AsyncSession, Denied, DownloadCorrupt, FileError, RetryPolicy, UnexpectedAnswer, UnsafePath
from gts_async._files.address import HERE
from gts_async._files.archive import unpack
from gts_async._files.download import BATCH, download
from gts_async.testing import ChaosServer, chaos

CONTENT = random.Random(9).randbytes(300_000)


def cases(case, *values):
    return [pytest.param(value, id=f"{case} {value!r}"[:60]) for value in values]


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def say(data, *then):
    """Send these bytes, and do what follows."""

    async def play(connection):
        await chaos.send(data)(connection)
        for action in then:
            await action(connection)

    return play


def chunked(body, *, size=65_536, is_whole=True, ending=b"0\r\n\r\n", headers=b""):
    """Answer in chunks of that size; one that is not whole is cut."""
    head = b'HTTP/1.1 200 OK\r\nETag: "v1"\r\nTransfer-Encoding: chunked\r\n' + headers + b"\r\n"
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return say(head + chunks + ending) if is_whole else say(head + chunks, chaos.close())


@attrs.define
class Store:
    """A cloud whose jobs are all done, and the store that has their model; `scripts` are played first, one each."""

    server: ChaosServer
    content: bytes = CONTENT
    headers: dict = attrs.field(factory=lambda: {"ETag": '"v1"'})
    scripts: list = attrs.field(factory=list)
    pace: float = 0.0
    """Seconds that it waits after each megabyte, and before the first."""
    passes_over_nothing: bool = False
    """Whether it sends the whole object to whoever asks for what lies behind it, as Aliyun's does."""
    sent: int = 0
    signed: int = 0
    """URLs that were handed out, each another one."""

    async def serve(self, connection):
        """Answer as the cloud or as the store."""
        if connection.request.path.startswith("/api"):
            self.signed += 1
            url = f"{self.server.url}/model?Signature={self.signed}"
            await chaos.answer(json={"status": "success", "url": url})(connection)
        else:
            await (self.scripts.pop(0) if self.scripts else self.part(None))(connection)

    def part(self, most):
        """Answer rightly, as far as so many bytes."""

        async def play(connection):
            status, headers, body = self.wanted(connection.request)
            self.sent += len(body[:most])
            if not self.pace:
                await chaos.answer(status, headers=headers, body=body[:most])(connection)
                return
            await asyncio.sleep(self.pace)
            await chaos.answer(status, headers=headers)(connection)
            for at in range(0, len(body), 1 << 20):
                await chaos.send(body[at : at + (1 << 20)])(connection)
                await asyncio.sleep(self.pace)

        return play

    def cut(self, most, end=chaos.close):
        """Answer rightly, but end the connection after so many bytes."""

        async def play(connection):
            await self.part(most)(connection)
            # A reset overtakes what is on its way, which nobody has got then.
            await asyncio.sleep(0.03 if end is chaos.reset else 0)
            await end()(connection)

        return play

    def some(self, most):
        """Send no more than so many bytes of what was asked for, and tell no total."""

        async def play(connection):
            _, _, body = self.wanted(connection.request)
            first = len(self.content) - len(body)
            span = {"Content-Range": f"bytes {first}-{first + most - 1}/*"}
            await chaos.answer(206, headers=span, body=body[:most])(connection)

        return play

    def wanted(self, request):
        """Give status, headers and body of the right answer; If-Range is passed over, as by Aliyun's store."""
        size, asks = len(self.content), request.header("range")
        if asks is None:
            return 200, {**self.headers, "Content-Length": str(size)}, self.content
        first = int(asks.removeprefix("bytes=").removesuffix("-"))
        if first >= size:
            if self.passes_over_nothing:
                return 200, {**self.headers, "Content-Length": str(size)}, self.content
            return 416, {"Content-Range": f"bytes */{size}"}, b""
        span = {"Content-Range": f"bytes {first}-{size - 1}/{size}", "Content-Length": str(size - first)}
        return 206, {**self.headers, **span}, self.content[first:]

    @property
    def asked(self):
        """What the store was asked for so far."""
        return [request for request in self.server.requests if request.path == "/model"]


@pytest.fixture
def store(server):
    store = Store(server)
    server.otherwise(store.serve)
    return store


@pytest.fixture
async def session(store):
    async with AsyncSession(cloud=f"{store.server.url}/api", token="t", retry=RetryPolicy(initial=0.001)) as session:
        yield session


@pytest.fixture
def job(session):
    return session.job("j-1")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data.zip"


@pytest.fixture
def fetch(session, store, target):
    """Give ``await fetch()``: fetches the model as a job does, but never waits between two tries; gives its bytes."""

    async def fetch(**options):
        async def at_once(_):
            await asyncio.sleep(0)

        client, url = await session._cloud.store(), f"{store.server.url}/model?Signature=0"
        path = await download(client, url, target, fence=session._cloud.fence, sleep=at_once, **options)
        assert names_in(target.parent) == [target.name]
        return path.read_bytes()

    return fetch


def names_in(folder):
    """Give what lies in a folder, and below."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def starts(store):
    """Give where each answer began."""
    return [int((asked.header("range") or "bytes=0-")[6:-1]) for asked in store.asked]


# Cuts


ENDS = [pytest.param(chaos.close, id="I1 FIN"), pytest.param(chaos.reset, id="I1 RST")]


@pytest.mark.parametrize("end", ENDS)
async def test_a_model_that_is_cut_at_two_fifths_is_resumed(fetch, store, end):
    store.content = random.Random(1).randbytes(5 * BATCH)
    store.scripts = [store.cut(2 * BATCH, end)]
    got = await fetch()
    assert hashlib.sha256(got).digest() == hashlib.sha256(store.content).digest()
    assert [0 <= 2 * BATCH - start <= BATCH for start in starts(store)[1:]] == [True]


@pytest.mark.parametrize("end", ENDS)
async def test_twenty_cuts_cost_a_batch_each_at_most(fetch, store, end):
    store.content = random.Random(2).randbytes(1 << 20) * 63
    each = 3 << 20
    store.scripts = [store.cut(each, end) for _ in range(20)]
    assert await fetch() == store.content
    began = starts(store)
    assert len(began) == 21
    cost = [start + each - following for start, following in itertools.pairwise(began)]
    assert all(0 <= twice <= BATCH for twice in cost)
    assert end is chaos.reset or sum(cost) == 0


@pytest.mark.parametrize("end", cases("I1", chaos.truncate_tls, chaos.close, chaos.reset))
async def test_a_tls_connection_that_just_ends_is_resumed(tmp_path, end):
    """With or without close_notify, the body has not come to its end."""
    trusting = ssl.create_default_context()
    async with ChaosServer(tls=True) as server:
        store = Store(server)
        store.scripts = [store.cut(100_000, end)]
        server.otherwise(store.serve)
        trusting.load_verify_locations(server.ca_file)
        async with httpx.AsyncClient(verify=trusting, trust_env=False) as client:
            url = f"https://localhost:{server.port}/model"
            path = await download(client, url, tmp_path / "m", fence=HERE, chance=lambda: 0.1)
    assert path.read_bytes() == CONTENT
    assert len(store.asked) == 2
    assert starts(store)[1] > 0


async def test_thousands_of_tiny_chunks_are_one_file_and_little_memory(fetch, store):
    """I1, I7: a byte a chunk; each costs more memory than it brings, so that they are written in time."""
    store.content, kept = CONTENT[:40_000], CONTENT[:30_000]
    store.scripts = [chunked(kept, size=1, is_whole=False)]
    told = []
    assert await fetch(progress=told.append) == store.content
    assert starts(store) == [0, len(kept)]
    assert [state.done for state in told] == [40_000, 40_000]


@pytest.mark.slow
async def test_tiny_chunks_do_not_collect_in_memory(store, target, grown_by_the_second):
    store.scripts = [chunked(CONTENT[:1000], size=1), chunked(CONTENT[:200_000], size=1)]
    grown = await grown_by_the_second(f"{store.server.url}/model", target)
    assert target.with_name("data.zipb").read_bytes() == CONTENT[:200_000]
    # 200,000 pieces of their own would be 10 MB and more.
    assert grown < 4 << 20


# Sizes that nobody told, or that are no such thing


async def test_a_part_of_unknown_total_is_not_taken_for_the_last_one(fetch, store):
    """I7: the first answer has no length and is cut, the next tell no total: only a 416 says that this was all."""
    store.scripts = [chunked(CONTENT[:100_000], is_whole=False), store.some(50_000), store.some(150_000)]
    assert await fetch() == CONTENT
    assert starts(store) == [0, 100_000, 150_000, 300_000]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(lambda: chunked(CONTENT, size=4096), id="I7 chunks"),
        pytest.param(lambda: chunked(CONTENT, ending=b'0\r\nX-Checksum: 1\r\nETag: "v9"\r\n\r\n'), id="I7 trailers"),
        pytest.param(
            lambda: chaos.send(b"HTTP/1.0 200 OK\r\nContent-Length: 300000\r\n\r\n" + CONTENT), id="I7 HTTP/1.0"
        ),
        pytest.param(lambda: chaos.answer(headers={"Content-Encoding": "gzip"}, body=CONTENT), id="I7 coded for good"),
    ],
)
async def test_however_it_comes_it_is_the_object_s_bytes(fetch, store, body):
    store.scripts = [body()]
    assert await fetch() == CONTENT
    assert len(store.asked) == 1


async def test_what_is_packed_on_the_way_is_refused(fetch, store, target):
    packed = zlib.compress(CONTENT)
    store.scripts = [chunked(packed, headers=b"Content-Encoding: gzip\r\n")]
    with pytest.raises(UnexpectedAnswer, match=r"packed \(gzip\)"):
        await fetch()
    assert names_in(target.parent) == []


SPANS = (
    "bytes 0-199999/300000",
    "bytes 100000-99999/300000",
    "bytes 100000-300000/300000",
    "bytes 100000-299999/300001",
    "bytes=100000-299999/300000",
    "bytes 100000-299999",
    "items 100000-299999/300000",
    "bytes 1e5-299999/300000",
    "bytes */300000",
    "",
)


@pytest.mark.parametrize("span", cases("I4", *SPANS))
async def test_a_part_with_another_range_than_asked_for_is_not_appended(fetch, store, span):
    store.scripts = [store.cut(100_000), chaos.answer(206, headers={"Content-Range": span}, body=CONTENT[100_000:])]
    assert await fetch() == CONTENT
    assert starts(store) == [0, 100_000, 0]


async def test_several_ranges_in_one_answer_are_not_appended(fetch, store):
    """I4: nobody has asked for multipart/byteranges."""
    body = b"--x\r\nContent-Range: bytes 100000-299999/300000\r\n\r\n" + CONTENT[100_000:] + b"\r\n--x--"
    headers = {"Content-Type": "multipart/byteranges; boundary=x"}
    store.scripts = [store.cut(100_000), chaos.answer(206, headers=headers, body=body)]
    assert await fetch() == CONTENT
    assert starts(store) == [0, 100_000, 0]


async def test_a_part_that_is_longer_than_its_range_is_refused(fetch, store, target):
    headers = {"Content-Range": "bytes 100000-199999/300000"}
    store.scripts = [store.cut(100_000), chaos.answer(206, headers=headers, body=CONTENT[100_000:])]
    with pytest.raises(DownloadCorrupt, match="more than the 100000 bytes"):
        await fetch()
    assert names_in(target.parent) == []


async def test_an_etag_that_changed_although_the_range_was_granted_begins_anew(fetch, store):
    """I4: a store that passes over If-Range, as Aliyun's does, sends the rest of another object."""
    fresh = CONTENT[::-1]

    async def replaced(connection):
        await store.cut(100_000)(connection)
        store.content, store.headers = fresh, {"ETag": '"v2"'}

    store.scripts = [replaced]
    assert await fetch() == fresh
    assert starts(store) == [0, 100_000, 0]


@pytest.mark.parametrize("passes_over", cases("I5", False, True))
async def test_a_whole_part_is_not_fetched_again(fetch, store, target, passes_over):
    """Also from a store that passes over a range of nothing and sends everything, as Aliyun's does."""
    await fetch()
    note = {"url": f"{store.server.url}/model?<redacted>", "etag": '"v1"', "size": len(CONTENT)}
    target.rename(f"{target}.part")
    Path(f"{target}.part.json").write_text(json.dumps(note))
    store.passes_over_nothing, store.sent = passes_over, 0
    assert await fetch() == CONTENT
    assert store.sent == 1


# URLs that expire


EXPIRED = b"<Error><Code>AccessDenied</Code><Message>Request has expired.</Message><Expires>now</Expires></Error>"


async def test_a_url_that_expires_in_the_middle_is_renewed_once_and_the_rest_fetched(job, store, tmp_path):
    """I6: the cloud is asked for it, and for no third one."""
    store.scripts = [store.cut(100_000), chaos.answer(403, body=EXPIRED)]
    [path] = await job.download(tmp_path, extract=False)
    assert path.read_bytes() == CONTENT
    assert [asked.target[-1] for asked in store.asked] == ["1", "1", "2"]
    assert starts(store) == [0, 100_000, 100_000]
    assert store.sent == len(CONTENT)


async def test_a_renewed_url_that_is_refused_ends_it_and_what_came_stays(job, store, tmp_path):
    """I6: nobody is asked again and again."""
    store.scripts = [store.cut(100_000), *(chaos.answer(403, body=EXPIRED) for _ in range(3))]
    with pytest.raises(Denied, match=r"Request has expired\."):
        await job.download(tmp_path, extract=False)
    assert (len(store.asked), store.signed) == (3, 2)
    assert (tmp_path / "data.zip.part").read_bytes() == CONTENT[:100_000]
    store.scripts = []
    [path] = await job.download(tmp_path, extract=False)
    assert path.read_bytes() == CONTENT
    assert starts(store)[3:] == [100_000]


# Checksums


def b64(value):
    return base64.b64encode(value).decode()


def vouching(content):
    """Give headers by which stores tell a checksum of the content, and the name of it."""
    md5, sha1, sha256 = (hashlib.new(name, content).digest() for name in ("md5", "sha1", "sha256"))
    crc32c, crc64 = fastcrc.crc32.iscsi(content), fastcrc.crc64.xz(content)
    return [
        ("CRC-64", {"x-oss-hash-crc64ecma": str(crc64)}),
        ("CRC-64", {"x-oss-hash-crc64ecma": str(crc64), "x-oss-object-type": "Multipart", "ETag": f'"{md5.hex()}-3"'}),
        ("MD5", {"x-oss-object-type": "Normal", "ETag": f'"{md5.hex().upper()}"'}),
        ("MD5", {"Content-MD5": b64(md5)}),
        ("MD5", {"x-goog-hash": f"md5={b64(md5)}"}),
        ("CRC-32C", {"x-goog-hash": f"crc32c={b64(crc32c.to_bytes(4, 'big'))}"}),
        ("SHA-256", {"x-amz-checksum-sha256": b64(sha256), "x-amz-checksum-type": "FULL_OBJECT"}),
        ("SHA-1", {"x-amz-checksum-sha1": b64(sha1)}),
        ("CRC-32", {"x-amz-checksum-crc32": b64(zlib.crc32(content).to_bytes(4, "big"))}),
        ("CRC-32C", {"x-amz-checksum-crc32c": b64(crc32c.to_bytes(4, "big"))}),
        ("SHA-256", {"Digest": f"unixsum=7,SHA-256={b64(sha256)}"}),
        ("SHA-256", {"Repr-Digest": f"sha-256=:{b64(sha256)}:, sha-512=:AA==:"}),
        ("MD5", {"Repr-Digest": f"md5=:{b64(md5)}:"}),
    ]


def vouched(content):
    return [pytest.param(name, headers, id=f"I9 {[*headers]}"[:60]) for name, headers in vouching(content)]


@pytest.mark.parametrize(("name", "headers"), vouched(CONTENT))
async def test_a_checksum_that_is_right_is_verified_also_over_a_cut(fetch, store, name, headers):
    store.headers = {"ETag": '"v1"', **headers}
    store.scripts = [store.cut(123_456)]
    assert await fetch() == CONTENT
    assert starts(store) == [0, 123_456]


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize(("name", "headers"), vouched(CONTENT[:-1] + b"x"))
async def test_a_checksum_that_is_wrong_removes_the_part_and_leaves_the_target(
    fetch, store, target, name, headers, is_cut
):
    target.write_bytes(b"old")
    store.headers = {"ETag": '"v1"', **headers}
    store.scripts = [store.cut(123_456)] if is_cut else []
    with pytest.raises(DownloadCorrupt, match=rf"the {name} of what arrived"):
        await fetch()
    assert names_in(target.parent) == ["data.zip"]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(("name", "headers"), vouched(CONTENT))
async def test_the_beginning_of_an_earlier_download_is_summed_up_from_the_disk(fetch, store, target, name, headers):
    store.headers = {"ETag": '"v1"', **headers}
    store.scripts = [store.cut(100_000), chaos.answer(403)]
    with pytest.raises(Denied):
        await fetch()
    part = Path(f"{target}.part")
    assert part.stat().st_size == 100_000
    store.scripts = []
    assert await fetch() == CONTENT
    assert starts(store)[-1] == 100_000


async def test_a_beginning_that_was_damaged_since_is_found_out_and_fetched_anew(fetch, store, target):
    store.headers = {"ETag": '"v1"', "x-oss-hash-crc64ecma": str(fastcrc.crc64.xz(CONTENT))}
    store.scripts = [store.cut(100_000), chaos.answer(403)]
    with pytest.raises(Denied):
        await fetch()
    part = Path(f"{target}.part")
    part.write_bytes(b"damaged" + part.read_bytes()[7:])
    assert await fetch() == CONTENT
    assert starts(store)[2:] == [100_000, 0]


@pytest.mark.parametrize(
    "headers",
    cases(
        "I9",
        {"x-oss-hash-crc64ecma": "-1"},
        {"x-oss-hash-crc64ecma": str(1 << 64)},
        {"x-oss-hash-crc64ecma": "0x12"},
        {"Content-MD5": "nonsense"},
        {"Digest": "MD5=AAAA,,=;SHA-256"},
        {"Repr-Digest": "sha-256=:AAAA:"},
        {"x-amz-checksum-sha256": b64(bytes(32)) + "-3"},
        {"x-amz-checksum-crc32": b64(bytes(4)), "x-amz-checksum-type": "COMPOSITE"},
        {"x-goog-hash": f"md5={b64(bytes(16))}", "x-goog-stored-content-encoding": "gzip"},
        {"ETag": f'"{bytes(16).hex()}"'},
        {"ETag": f'"{bytes(16).hex()}"', "x-amz-request-id": "1", "x-amz-server-side-encryption": "aws:kms"},
    ),
)
async def test_what_is_no_checksum_of_the_whole_object_is_not_taken_for_one(fetch, store, headers):
    store.headers = headers
    assert await fetch() == CONTENT


WITHOUT_EXTRA = """
import sys
sys.modules["fastcrc"] = None
from gts_async._files.checksums import Summing, told
print(*told({"x-oss-hash-crc64ecma": "7", "x-goog-hash": "crc32c=AAAAAA==", "content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}))
print(bool(Summing(["crc64:0000000000000007"])), bool(Summing(["crc32:00000000"])))
"""


async def test_without_the_extra_its_checksums_are_passed_over():
    """I9: also those in the note of a download that began with it."""
    assert await run(WITHOUT_EXTRA) == f"md5:{'0' * 32}\nFalse True\n"


@pytest.mark.parametrize("after", cases("I9", 0, 1000))
async def test_the_announced_length_decides(fetch, store, target, after):
    """An answer that ends before its length is cut, and one that goes on behind it never delivers more."""
    head = b'HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Length: 300000\r\n\r\n'
    store.scripts = [chaos.send(head + CONTENT + b"x" * after)]
    assert await fetch() == CONTENT
    store.scripts = [say(head.replace(b"300000", b"300001") + CONTENT, chaos.close()) for _ in range(2)]
    store.content += b"!"
    assert await fetch() == store.content


# Waiting and refusals


async def test_a_date_in_retry_after_is_waited_for(session, store, target):
    waited = []

    async def nap(seconds):
        waited.append(seconds)

    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    store.scripts = [chaos.answer(503, headers={"Retry-After": soon})]
    client = await session._cloud.store()
    await download(client, f"{store.server.url}/model", target, fence=session._cloud.fence, sleep=nap)
    assert 15 <= waited[0] <= 20


async def test_a_model_on_an_ipv6_address_is_fetched(tmp_path):
    reader_count = 0

    async def serve(reader, writer):
        nonlocal reader_count
        reader_count += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nmodel")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "::1", 0)
    async with server, httpx.AsyncClient(trust_env=False, verify=False) as client:
        port = server.sockets[0].getsockname()[1]
        path = await download(client, f"http://[::1]:{port}/model", tmp_path / "m", fence=HERE)
        assert path.read_bytes() == b"model"
    assert reader_count == 1


# Names


NAMES = ("../../x", "/etc/passwd", "C:\\x", "a\0b", "x" * 300, "CON", "trailing...", "", "=?utf-8?b?Li4vLi4veA==?=")


@pytest.mark.parametrize("name", cases("I13", *NAMES))
async def test_the_name_is_the_caller_s_whatever_the_store_suggests(fetch, store, name):
    said = f"attachment; filename=\"{name}\"; filename*=UTF-8''{quote(name)}".replace("\0", "%00")
    store.headers = {"Content-Disposition": said, "Content-Type": "application/zip", "Content-Location": "/../../x"}
    assert await fetch() == CONTENT


@pytest.mark.parametrize("name", cases("I13", "x" * 300, "x" * 250, "a\0b", "no/such/x"))
async def test_a_name_that_the_system_cannot_have_is_told_before_any_traffic(session, store, tmp_path, name):
    client = await session._cloud.store()
    with pytest.raises(FileError) as caught:
        await download(client, f"{store.server.url}/model", tmp_path / name, fence=session._cloud.fence)
    assert caught.value.path.startswith(str(tmp_path))
    assert store.asked == []
    assert names_in(tmp_path) == []


# Disks


@contextlib.contextmanager
def room(folder, size):
    """Leave only so many bytes for files in the folder: a small disk of its own, else a limit for this process."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0:
        try:
            yield
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    else:
        with limited(size):
            yield


@contextlib.contextmanager
def limited(size):
    """Let no file of this process grow above so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FULL = [pytest.param(room, id="I10 tmpfs"), pytest.param(lambda _, size: limited(size), id="I10 RLIMIT_FSIZE")]


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("full", FULL)
async def test_a_full_disk_ends_a_download_and_leaves_what_came(session, store, disk, full):
    client = await session._cloud.store()

    async def fetch():
        return await download(client, f"{store.server.url}/model", disk / "m", fence=session._cloud.fence)

    with full(disk, 128 << 10):
        (disk / "m").write_bytes(b"old")
        with pytest.raises(FileError, match="cannot write") as caught:
            await fetch()
        assert caught.value.__cause__.errno in (errno.ENOSPC, errno.EFBIG)
        assert len(store.asked) == 1
        assert names_in(disk) == ["m", "m.part", "m.part.json"]
        assert (disk / "m").read_bytes() == b"old"
        kept = (disk / "m.part").read_bytes()
        assert 0 < len(kept) <= 128 << 10
        assert CONTENT.startswith(kept)


@pytest.mark.parametrize("full", FULL)
async def test_a_disk_without_room_for_the_note_is_told_before_any_traffic(session, store, disk, full):
    client = await session._cloud.store()
    filler = 4096 if full is room else 0
    with full(disk, filler):
        if filler:
            (disk / "filler").write_bytes(bytes(filler))
        with pytest.raises(FileError, match="cannot write") as caught:
            await download(client, f"{store.server.url}/model", disk / "m", fence=session._cloud.fence)
        assert caught.value.__cause__.errno in (errno.ENOSPC, errno.EFBIG)
        assert [name for name in names_in(disk) if name != "filler"] == []
    assert store.asked == []


@pytest.mark.parametrize("full", FULL)
@pytest.mark.parametrize("is_new", [True, False])
async def test_a_full_disk_ends_unpacking_and_nothing_is_there(tmp_path, disk, full, is_new):
    archive = tmp_path / "data.zip"
    archive.write_bytes(zipped({"a/small": b"1", "large": CONTENT}))
    with full(disk, 128 << 10):
        folder = disk / "model" if is_new else disk
        with pytest.raises(FileError) as caught:
            await unpack(archive, folder)
        assert type(caught.value) is FileError
        assert caught.value.__cause__.errno in (errno.ENOSPC, errno.EFBIG)
        assert names_in(disk) == []


async def test_after_a_full_disk_the_zip_is_unpacked_and_not_fetched_again(job, store, tmp_path):
    """I10: what could not be unpacked need not come twice."""
    store.content = zipped({"model.bin": bytes(1 << 20), "noise": CONTENT})
    with limited(500_000), pytest.raises(FileError, match="cannot unpack"):
        await job.download(tmp_path / "model")
    assert names_in(tmp_path) == [".model.j-1.zip", ".model.j-1.zip.part.json"]
    store.sent = 0
    await job.download(tmp_path / "model")
    assert store.sent == 1
    assert names_in(tmp_path) == ["model", "model/model.bin", "model/noise"]


@pytest.mark.parametrize("where", cases("I19", "missing", "read-only", "below a file", "is a file"))
async def test_a_folder_that_cannot_take_the_model_is_told_before_any_request(job, store, where):
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        (top / "file").write_bytes(b"")
        (top / "locked").mkdir(mode=0o555)
        folder = {
            "missing": top / "locked/no/such",
            "read-only": top / "locked",
            "below a file": top / "file/model",
            "is a file": top / "file",
        }[where]
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            for extract in (True, False):
                with pytest.raises(FileError, match=r"Permission denied|Not a directory") as caught:
                    await job.download(folder, extract=extract)
                assert caught.value.path == str(folder)
        finally:
            if is_root:
                os.seteuid(0)
        assert names_in(top) == ["file", "locked"]
    assert store.server.requests == []


async def test_files_are_on_the_disk_before_they_have_their_names(tmp_path):
    """I12: unpacked, synced, put in place, folder synced: the archive may be dropped after that."""
    archive = tmp_path / "data.zip"
    archive.write_bytes(zipped({"a": b"1", "b/c": b"2"}))
    calls = []

    def note_call(frame, event, called):
        if event == "c_call" and called.__name__ in ("write", "fsync", "replace", "rename"):
            calls.append(called.__name__)

    for folder, names in ((tmp_path / "new", ["rename"]), (tmp_path / "new", ["replace"] * 2)):
        calls.clear()
        threading.setprofile(note_call)
        try:
            await unpack(archive, folder)
        finally:
            threading.setprofile(None)
        at = calls.index(names[0])
        # Two files, the folder of one, and the folder that they are in.
        assert calls[at - 4 : at] == ["fsync"] * 4
        assert calls[at : at + len(names)] == names
        assert set(calls[at + len(names) :]) == {"fsync"}


# Processes that are killed


async def run(script, *arguments):
    """Run a script in a process of its own; give what it says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *map(str, arguments), stdout=subprocess.PIPE
    )
    said, _ = await process.communicate()
    process._transport.close()
    assert process.returncode == 0
    return said.decode()


KILLED = """
import asyncio, os, signal, sys, time
import anyio._backends._asyncio, httpcore  # so that the children need not
from gts_async import AsyncSession

url, folder, place, way, extract = *sys.argv[1:5], sys.argv[5] == "True"

def at_call(number):
    \"\"\"Die at that call to the system that concerns a file below the folder.\"\"\"
    def hook(event, args):
        nonlocal number
        is_change = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "fcntl.flock")
        if is_change or (event == "open" and folder in str(args[0])):
            number -= 1
            if number < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

async def fetch():
    async with AsyncSession(cloud=f"{url}/api", token="t") as session:
        await session.job("j-1").download(place, extract=extract)

def child(dies):
    \"\"\"Fetch in a child, which dies; tell whether it came to its end.\"\"\"
    pid = os.fork()
    if pid == 0:
        if way == "call" and dies is not None:
            at_call(dies)
        asyncio.run(fetch())
        os._exit(0)
    if way == "moment" and dies is not None:
        time.sleep(dies)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]

for line in sys.stdin:
    print(child(eval(line)), flush=True)
"""


@attrs.define
class Killed:
    """A process whose children fetch the model, and die."""

    process: asyncio.subprocess.Process

    async def fetch(self, dies=None):
        """Let one fetch; tell whether it came to its end."""
        self.process.stdin.write(f"{dies}\n".encode())
        status = int(await self.process.stdout.readline())
        assert status in (0, signal.SIGKILL)
        return status == 0


@contextlib.asynccontextmanager
async def killed(store, folder, place, way, extract):
    arguments = (store.server.url, folder, place, way, extract)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, *map(str, arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield Killed(process)
    finally:
        process.stdin.close()
        await process.wait()
        process._transport.close()


@pytest.fixture
def memory_disk():
    """Give a folder that costs no time to sync, where the system has such a place: a kill takes nothing off a disk."""
    place = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=place if os.path.isdir(place) else None) as name:
        yield Path(name)


MEMBERS = {"model.bin": CONTENT, "sub/config.json": b"{}", "sub/deep/vocab.txt": b"a\nb\n"}
NEW = ["model", "model/model.bin", "model/sub", "model/sub/config.json", "model/sub/deep", "model/sub/deep/vocab.txt"]


def check_whole_files(folder, place, is_there):
    """No file has its own name unless it is whole; of those that were there before, none is missing."""
    for name, content in MEMBERS.items():
        path = place / name
        if path.exists():
            assert path.read_bytes() in ((content, b"old") if is_there else (content,))
        else:
            assert not is_there
    assert is_there or not place.exists() or [name for name in names_in(folder) if name.startswith("model")] == NEW


@pytest.mark.slow
@pytest.mark.parametrize(
    "is_there", [pytest.param(False, id="I11 new folder"), pytest.param(True, id="I11 old folder")]
)
async def test_a_kill_at_any_call_to_the_system_leaves_no_half_and_the_next_run_finishes(store, memory_disk, is_there):
    store.content = zipped(MEMBERS)
    folder, number, deaths = memory_disk / "disk", 0, 0
    place = folder / "model"
    async with killed(store, folder, place, "call", True) as runs:
        while True:
            (place if is_there else folder).mkdir(parents=True)
            for name in MEMBERS if is_there else ():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(b"old")
            has_ended = await runs.fetch(number)
            check_whole_files(folder, place, is_there)
            if has_ended:
                break
            assert await runs.fetch()
            assert names_in(folder) == NEW
            assert {name: (place / name).read_bytes() for name in MEMBERS} == MEMBERS
            shutil.rmtree(folder)
            number, deaths = number + 1, deaths + 1
    assert deaths > 25


@pytest.mark.slow
async def test_a_kill_at_any_call_leaves_the_zip_whole_or_as_it_was(store, memory_disk):
    """I11, for a download alone: between rename and cleaning up, too."""
    folder, number = memory_disk / "disk", 0
    async with killed(store, folder, folder, "call", False) as runs:
        while True:
            folder.mkdir()
            (folder / "data.zip").write_bytes(b"old")
            has_ended = await runs.fetch(number)
            assert (folder / "data.zip").read_bytes() in (b"old", CONTENT)
            if has_ended:
                break
            assert await runs.fetch()
            assert names_in(folder) == ["data.zip"]
            assert (folder / "data.zip").read_bytes() == CONTENT
            shutil.rmtree(folder)
            number += 1
    assert number > 8


@pytest.mark.slow
async def test_kills_at_any_moment_are_survived_and_the_next_run_goes_on(store, tmp_path):
    """I11: one model, and processes that die one after the other until it is there."""
    members = {f"{name}.bin": random.Random(name).randbytes(6 << 20) for name in "abc"}
    store.content, store.pace = zipped(members), 0.02
    folder, deaths, whole = tmp_path / "disk", 0, None
    folder.mkdir()
    place = folder / "model"
    async with killed(store, folder, place, "moment", True) as runs:
        while not await runs.fetch(0.08 + 0.03 * deaths):
            deaths += 1
            assert deaths < 100
            if place.exists():
                # One that was killed when all was done; the next begins anew, beside what is there.
                whole = whole or len(store.asked)
                assert {name for name in names_in(place) if not name.startswith(".")} == set(members)
    assert deaths > 2
    until_whole = starts(store)[:whole]
    assert until_whole == sorted(until_whole)
    assert sorted(path.name for path in folder.iterdir()) == ["model"]
    assert {path.name: path.read_bytes() for path in place.iterdir()} == members


BOTH = """
import asyncio, sys
from gts_async import AsyncSession, FileError
async def main():
    async with AsyncSession(cloud=f"{sys.argv[1]}/api", token="t") as session:
        while True:
            try:
                await session.job("j-1").download(sys.argv[2], extract=False)
            except FileError as error:
                print(error, flush=True)
                await asyncio.sleep(0.01)
            else:
                break
asyncio.run(main())
"""


@pytest.mark.slow
async def test_of_two_processes_with_one_target_one_is_refused_until_the_other_is_done(job, store, tmp_path):
    """I15: and both end with the whole model."""
    reached, is_refused = asyncio.Event(), asyncio.Event()

    async def slow(connection):
        reached.set()
        await is_refused.wait()
        await store.part(None)(connection)

    store.scripts = [slow]
    first = asyncio.create_task(run(BOTH, store.server.url, tmp_path))
    await reached.wait()
    with pytest.raises(FileError, match="another download to it is under way"):
        await job.download(tmp_path, extract=False)
    second = asyncio.create_task(run(BOTH, store.server.url, tmp_path))
    while len([request for request in store.server.requests if request.path.startswith("/api")]) < 3:
        await asyncio.sleep(0.01)
    is_refused.set()
    assert await first == ""
    assert set((await second).splitlines()) <= {f"{tmp_path}/data.zip: another download to it is under way"}
    assert names_in(tmp_path) == ["data.zip"]
    assert (tmp_path / "data.zip").read_bytes() == CONTENT


async def test_a_zip_that_another_program_unpacks_is_not_taken_from_it(job, store, tmp_path):
    """I15: the lock is its own until it has read all."""
    store.content = zipped({"model.bin": bytes(1 << 20), "noise": CONTENT})
    with limited(500_000), pytest.raises(FileError, match="cannot unpack"):
        await job.download(tmp_path / "model")
    before = names_in(tmp_path)
    with (tmp_path / ".model.j-1.zip").open("rb") as zip_file:
        fcntl.flock(zip_file, fcntl.LOCK_SH)
        with pytest.raises(FileError, match="another download to it is under way"):
            await job.download(tmp_path / "model")
        assert names_in(tmp_path) == before
    await job.download(tmp_path / "model")
    assert store.sent == len(store.content) + 1


async def test_two_at_once_unpack_into_one_folder_and_take_nothing_from_each_other(tmp_path):
    """I15: each has a place of its own, which the other does not take for left over."""
    archive, folder = tmp_path / "data.zip", tmp_path / "model"
    archive.write_bytes(zipped({str(number): bytes(1 << 20) for number in range(24)}))
    folder.mkdir()
    await asyncio.gather(*(unpack(archive, folder) for _ in range(3)))
    assert len(names_in(folder)) == 24
    assert names_in(tmp_path) == sorted(["data.zip", "model", *(f"model/{number}" for number in range(24))])


async def test_what_is_only_named_like_something_left_over_stays(tmp_path):
    archive, folder = tmp_path / "data.zip", tmp_path / "model"
    archive.write_bytes(zipped({"a": b"1"}))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious").write_bytes(b"1")
    (tmp_path / ".model.unpacking-0000000a").symlink_to(mine)
    (tmp_path / ".model.unpacking-mine").mkdir()
    (tmp_path / ".other.unpacking-0000000b").mkdir()
    (tmp_path / ".model.unpacking-0000000c").write_bytes(b"a file")
    (tmp_path / ".model.unpacking-0000000d").mkdir()
    await unpack(archive, folder)
    assert {path.name for path in tmp_path.iterdir()} == {
        "data.zip",
        "model",
        "mine",
        ".model.unpacking-0000000a",
        ".model.unpacking-mine",
        ".other.unpacking-0000000b",
        ".model.unpacking-0000000c",
    }
    assert (mine / "precious").read_bytes() == b"1"


# Archives


def hostile(*members, method=zipfile.ZIP_STORED):
    """Make an archive of (name, content) or (name, content, mode), whatever the names are."""
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore", category=UserWarning), zipfile.ZipFile(file, "w", method) as archive:
        for name, content, *mode in members:
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            info.external_attr = (mode[0] if mode else stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content, method)
    return file.getvalue()


def patched(content, at, form, *values):
    """Overwrite what stands `at` so many bytes behind a signature."""
    signature, offset = at
    found = bytearray(content)
    struct.pack_into(form, found, found.index(signature) + offset, *values)
    return bytes(found)


LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
LINK = stat.S_IFLNK | 0o777


def with_size(size, content=b"x" * 100):
    """Declare a size, as zip64 does, in both places."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a", "w", force_zip64=True) as member,
    ):
        member.write(content)
    made = file.getvalue()
    extra = struct.pack("<HHQQ", 1, 16, size, len(zlib.compress(content)))
    entry = made[made.index(CENTRAL) : made.index(END)]
    name_at = made.index(CENTRAL) + 46
    fresh = bytearray(made[made.index(CENTRAL) : name_at + 1] + extra)
    struct.pack_into("<LL", fresh, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", fresh, 30, len(extra))
    start = made.index(CENTRAL)
    end = struct.pack("<4s4H2LH", END, 0, 0, 1, 1, len(fresh), start, 0)
    assert entry
    return made[:start] + bytes(fresh) + end


def overlapping():
    one = hostile(("a", bytes(1000)), method=zipfile.ZIP_DEFLATED)
    start, stop = one.index(CENTRAL), one.index(END)
    entries = b"".join(one[start:stop].replace(b"a", bytes([ord("a") + number])) for number in range(20))
    return one[:start] + entries + struct.pack("<4s4H2LH", END, 0, 0, 20, 20, len(entries), start, 0)


def listed(length):
    """Make a list of members with comments, longer than anything that is read whole."""
    entry = struct.pack("<4s24x3H12x", CENTRAL, 1, 0, 0xFFFF) + b"a" + bytes(0xFFFF)
    count = length // len(entry) + 1
    return entry * count + struct.pack("<4s4H2LH", END, 0, 0, 1, 1, len(entry) * count, 0, 0)


EVIL = {
    "I16 dotdot": (hostile(("../evil", b"1")), UnsafePath),
    "I16 dotdot within": (hostile(("a/../../evil", b"1")), UnsafePath),
    "I16 dotdot below data": (hostile(("/data/../../evil", b"1")), UnsafePath),
    "I16 link": (hostile(("sub", b"/tmp", LINK)), UnsafePath),
    "I16 link and a file through it": (hostile(("sub", b"..", LINK), ("sub/evil", b"1")), UnsafePath),
    "I16 NUL": (hostile(("a\0../evil", b"1")), UnsafePath),
    "I16 backslash": (hostile(("..\\evil", b"1")), UnsafePath),
    "I16 drive": (hostile(("C:/evil", b"1")), UnsafePath),
    "I16 drive below data": (hostile(("/data/C:evil", b"1")), UnsafePath),
    "I16 network share": (hostile(("\\\\host\\share", b"1")), UnsafePath),
    "I16 direction turned": (hostile(("model\u202ebin.exe", b"1")), UnsafePath),
    "I16 line separator": (hostile(("a\u2028b", b"1")), UnsafePath),
    "I16 too deep": (hostile(("a/" * 65 + "a", b"1")), UnsafePath),
    "I16 too long": (hostile(("x" * 256, b"1")), UnsafePath),
    "I16 twice": (hostile(("a", b"1"), ("a", b"2")), UnsafePath),
    "I16 twice but for case": (hostile(("Model.bin", b"1"), ("model.BIN", b"2")), UnsafePath),
    "I16 twice but for a folder's case": (hostile(("A/x", b"1"), ("a/y", b"2")), UnsafePath),
    "I16 file and folder but for case": (hostile(("A", b"1"), ("a/y", b"2")), UnsafePath),
    "I16 twice but for composing": (hostile(("caf\u00e9", b"1"), ("cafe\u0301", b"2")), UnsafePath),
    "I16 twice but for sharp s": (hostile(("STRASSE", b"1"), ("stra\u00dfe", b"2")), UnsafePath),
    "I16 encrypted": (patched(hostile(("a", b"1")), (CENTRAL, 8), "<H", 1), FileError),
    "I16 10 GB from 1 MB": (with_size(10 << 30, bytes(1 << 20)), FileError),
    "I16 16 EB": (with_size((1 << 64) - 1), FileError),
    "I16 zip64 lies small": (with_size(5), DownloadCorrupt),
    "I16 zip64 lies large": (with_size(5000), DownloadCorrupt),
    "I16 size lies": (patched(hostile(("a", b"12345")), (CENTRAL, 24), "<L", 4), DownloadCorrupt),
    "I16 packed size lies": (patched(hostile(("a", b"12345")), (CENTRAL, 20), "<L", 500), DownloadCorrupt),
    "I16 CRC lies": (patched(hostile(("a", b"12345")), (CENTRAL, 16), "<L", 7), DownloadCorrupt),
    "I16 another name in place": (hostile(("aa", b"1")).replace(b"aa", b"bb", 1), DownloadCorrupt),
    "I16 offset lies": (patched(hostile(("a", b"1")), (CENTRAL, 42), "<L", 7), DownloadCorrupt),
    "I16 overlapping": (overlapping(), DownloadCorrupt),
    "I16 a list of 65 MB": (listed(65 << 20), FileError),
    "I16 no zip": (b"<html>Sign in</html>", DownloadCorrupt),
    "I16 tar": (b"model.bin".ljust(257, b"\0") + b"ustar".ljust(767, b"\0") + bytes(1024), DownloadCorrupt),
}


@pytest.mark.parametrize(("content", "error"), [pytest.param(*evil, id=name) for name, evil in EVIL.items()])
async def test_an_evil_archive_puts_nothing_anywhere(tmp_path, content, error):
    (tmp_path / "place").mkdir()
    archive = tmp_path / "place" / "data.zip"
    archive.write_bytes(content)
    for folder in (tmp_path / "place" / "model", tmp_path / "place"):
        with pytest.raises(FileError) as caught:
            await unpack(archive, folder)
        assert type(caught.value) is error, repr(caught.value)
        assert str(caught.value).isprintable()
        assert names_in(tmp_path) == ["place", "place/data.zip"]


async def test_an_evil_archive_is_not_kept_by_a_job(job, store, tmp_path):
    """I16: the next call would only find it again."""
    store.content = hostile(("../evil", b"1"))
    with pytest.raises(UnsafePath):
        await job.download(tmp_path / "model")
    assert names_in(tmp_path) == []


async def test_what_is_in_the_way_costs_no_second_download(job, store, tmp_path):
    """I16: a link or a file of another kind in the folder is the user's to remove; the zip waits for it."""
    store.content = zipped(MEMBERS)
    place = tmp_path / "model"
    place.mkdir()
    (place / "sub").symlink_to("/tmp")
    with pytest.raises(UnsafePath, match="remove it"):
        await job.download(place)
    (place / "sub").unlink()
    store.sent = 0
    await job.download(place)
    assert store.sent == 1
    assert names_in(tmp_path) == NEW


async def test_modes_and_times_are_not_the_archive_s(tmp_path):
    """I16: nothing that runs, nothing that others may write, nothing from the year 2107."""
    archive = tmp_path / "data.zip"
    archive.write_bytes(hostile(("run", b"1", stat.S_IFREG | 0o6777), ("d/x", b"1", stat.S_IFREG)))
    before, umask = time.time(), os.umask(0o027)
    try:
        paths = await unpack(archive, tmp_path / "model")
    finally:
        os.umask(umask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o640}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model", tmp_path / "model/d")} == {0o750}
    assert all(before - 5 <= path.stat().st_mtime <= time.time() + 5 for path in paths)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path(self.path),)


async def test_a_pickle_in_an_archive_is_a_file_and_nothing_else(job, store, tmp_path):
    """I17: unpickling it would make another file."""
    bomb = Bomb()
    bomb.path = str(tmp_path / "exploded")
    pickled = pickle.dumps(bomb)
    names = ("model.pkl", "pytorch_model.bin", "model.joblib", "model.npy", "conftest.py", "sitecustomize.py", "x.pth")
    store.content = zipped(dict.fromkeys(names, pickled))
    await job.download(tmp_path / "model")
    assert names_in(tmp_path) == sorted(["model", *(f"model/{name}" for name in names)])
    assert {(tmp_path / "model" / name).read_bytes() for name in names} == {pickled}
    pickle.loads(pickled)
    assert (tmp_path / "exploded").exists()


LOADERS = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "torch",
    "numpy",
    "shelve",
    "marshal",
    "runpy",
}


def test_no_part_of_what_fetches_models_can_load_one():
    """I17: no import of anything that unpickles, in the whole package but for the local engine's own models."""
    root = Path(gts_async.__file__).parent
    found = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            loads = {name.split(".")[0] for name in names} & LOADERS
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("eval", "exec"):
                loads = {node.func.id}
            if loads:
                found.append((path.relative_to(root).as_posix(), *sorted(loads)))
    assert [each for each in found if not each[0].startswith("local/")] == []


# Cancelling


def open_files():
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(path))
    return found


@pytest.mark.parametrize("start", cases("I18", *range(0, 41, 8)))
async def test_cancelling_a_job_s_download_at_any_tick_leaves_all_or_nothing(
    job, store, tmp_path, cancelled_after, start
):
    store.content = zipped(MEMBERS)
    await job.status()
    for ticks in range(start, start + 8, 2):
        place = tmp_path / f"{ticks}" / "model"
        place.parent.mkdir()
        # Every tick counts four times: a tick of the loop is less than a step of the disk or of the server.
        await cancelled_after(4 * ticks, lambda place=place: job.download(place))
        check_whole_files(place.parent, place, False)
        beside = place.with_name(".model.j-1.zip.part")
        if beside.exists():
            assert store.content.startswith(beside.read_bytes())
            assert beside.with_name(f"{beside.name}.json").exists()
        await job.download(place)
        assert names_in(place.parent) == NEW
    for thread in threading.enumerate():
        if thread.name.startswith("gts-async-disk"):
            thread.join(5)
            assert not thread.is_alive()
    assert [path for path in open_files() if str(tmp_path) in path] == []
