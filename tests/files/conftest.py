"""A store on raw loopback sockets whose answers a test scripts, and counting of what a transfer leaves behind."""

import asyncio
import contextlib
import gc
import os
import random
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from gts_async._files.address import HERE
from gts_async._files.download import download
from gts_async.testing import ChaosServer, chaos

Headers = dict[str, str]


@attrs.define
class Store:
    """Serves `content` like an object store; `scripts` are played to the first requests instead, one each."""

    server: ChaosServer
    content: bytes = b""
    etag: str | None = '"v1"'
    scripts: list[chaos.Action] = attrs.field(factory=list)
    headers: Headers = attrs.field(factory=dict)
    sent: int = 0
    url: str = ""

    @property
    def asked(self) -> list[chaos.ChaosRequest]:
        """What came so far."""
        return self.server.requests

    async def serve(self, connection: chaos.Connection) -> None:
        """Play the next script, or answer rightly."""
        await (self.scripts.pop(0) if self.scripts else self.whole)(connection)

    def wanted(self, asked: chaos.ChaosRequest) -> tuple[int, Headers, bytes]:
        """Give status, headers and body of the right answer, ranges and If-Range included."""
        headers = {**self.headers, **({"ETag": self.etag} if self.etag else {})}
        asks = asked.header("range")
        if asks is None or asked.header("if-range") not in (None, self.etag):
            return 200, {**headers, "Content-Length": str(len(self.content))}, self.content
        first = int(asks.removeprefix("bytes=").removesuffix("-"))
        if first >= len(self.content):
            return 416, {"Content-Range": f"bytes */{len(self.content)}"}, b""
        span = f"bytes {first}-{len(self.content) - 1}/{len(self.content)}"
        rest = self.content[first:]
        return 206, {**headers, "Content-Range": span, "Content-Length": str(len(rest))}, rest

    async def whole(self, connection: chaos.Connection) -> None:
        """Answer rightly."""
        await self.part(connection, len(self.content))

    async def part(self, connection: chaos.Connection, size: int) -> None:
        """Answer rightly as far as `size` bytes of the body."""
        assert connection.request
        status, headers, body = self.wanted(connection.request)
        self.sent += len(body[:size])
        await chaos.answer(status, headers=headers, body=body[:size])(connection)

    def cut(self, after: int) -> chaos.Action:
        """Answer rightly, but end the connection after that many bytes of the body."""

        async def script(connection: chaos.Connection) -> None:
            await self.part(connection, after)
            connection.close()

        return script

    def stall(self, after: int, reached: asyncio.Event | None = None) -> chaos.Action:
        """Answer rightly, but say nothing more after that many bytes of the body."""

        async def script(connection: chaos.Connection) -> None:
            await self.part(connection, after)
            if reached is not None:
                reached.set()
            await chaos.stall()(connection)

        return script


CONTENT = random.Random(7).randbytes(300_000)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with ChaosServer() as server:
        store = Store(server, CONTENT)
        store.url = f"{server.url}/bucket/ai1/data.zip?Expires=1706&OSSAccessKeyId=LTAI5t&Signature=s3cr%2Ft%3D"
        server.otherwise(store.serve)
        yield store


@pytest.fixture(scope="session")
def no_tls() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
async def client(no_tls: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    """A client with everything on it that must not travel to a store."""
    headers = {"Authorization": "Bearer t0ken", "Content-Type": "application/json", "X-Api-Key": "k3y"}
    async with httpx.AsyncClient(
        verify=no_tls, trust_env=False, headers=headers, cookies={"c": "00kie"}, auth=("u", "p4ss"), params={"q": "1"}
    ) as client:
        yield client


class Naps:
    """Sleeps no time at all, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def naps() -> Naps:
    return Naps()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "model.zip"


@pytest.fixture
def fetch(client: httpx.AsyncClient, store: Store, target: Path, naps: Naps) -> Callable[..., Awaitable[Path]]:
    async def fetch(**options: Any) -> Path:
        return await download(
            client, store.url, target, **{"fence": HERE, "sleep": naps, "chance": lambda: 0.5, **options}
        )

    return fetch


def open_files() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return {name: path for name, path in found.items() if path.startswith("/") and not path.startswith("/dev")}


@pytest.fixture
def nothing_left() -> Iterator[Callable[[], None]]:
    """Check that no file is open and no thread or task alive that was not before."""
    files = open_files()

    def check() -> None:
        gc.collect()
        for thread in threading.enumerate():
            if thread.name.startswith("gts-async-disk"):
                thread.join(5)
                assert not thread.is_alive()
        assert open_files() == files

    yield check
    check()
