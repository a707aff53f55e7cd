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

from gts_async._files.download import download

Script = Callable[["Store", "Asked"], Awaitable[None]]


@attrs.frozen
class Asked:
    """One request as it came, and the connection to answer on."""

    line: str
    headers: tuple[tuple[str, str], ...]
    writer: asyncio.StreamWriter

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    async def answer(self, status: str, headers: dict[str, object], body: bytes = b"") -> None:
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self.writer.write("\r\n".join(lines).encode() + body)
        await self.writer.drain()


@attrs.define
class Store:
    """Serves `content` like an object store; `scripts` answer the first requests instead, one each."""

    content: bytes = b""
    etag: str | None = '"v1"'
    scripts: list[Script] = attrs.field(factory=list)
    asked: list[Asked] = attrs.field(factory=list)
    headers: dict[str, object] = attrs.field(factory=dict)
    sent: int = 0
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                pairs = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in head[1:-2]))
                asked = Asked(head[0], pairs, writer)
                self.asked.append(asked)
                script = self.scripts.pop(0) if self.scripts else Store.whole
                await script(self, asked)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def wanted(self, asked: Asked) -> tuple[str, dict[str, object], bytes]:
        """Give status, headers and body of the right answer, ranges and If-Range included."""
        headers = {**self.headers, **({"ETag": self.etag} if self.etag else {})}
        asks = asked.header("range")
        if asks is None or asked.header("if-range") not in (None, self.etag):
            return "200 OK", {**headers, "Content-Length": len(self.content)}, self.content
        first = int(asks.removeprefix("bytes=").removesuffix("-"))
        if first >= len(self.content):
            return (
                "416 Range Not Satisfiable",
                {"Content-Range": f"bytes */{len(self.content)}", "Content-Length": 0},
                b"",
            )
        span = f"bytes {first}-{len(self.content) - 1}/{len(self.content)}"
        rest = self.content[first:]
        return "206 Partial Content", {**headers, "Content-Range": span, "Content-Length": len(rest)}, rest

    async def whole(self, asked: Asked) -> None:
        """Answer rightly."""
        status, headers, body = self.wanted(asked)
        self.sent += len(body)
        await asked.answer(status, headers, body)

    def cut(self, after: int) -> Script:
        """Answer rightly, but end the connection after that many bytes of the body."""

        async def script(store: "Store", asked: Asked) -> None:
            status, headers, body = store.wanted(asked)
            store.sent += min(after, len(body))
            await asked.answer(status, headers, body[:after])
            asked.writer.write_eof()
            raise OSError

        return script

    def stall(self, after: int, reached: asyncio.Event | None = None) -> Script:
        """Answer rightly, but say nothing more after that many bytes of the body."""

        async def script(store: "Store", asked: Asked) -> None:
            status, headers, body = store.wanted(asked)
            store.sent += min(after, len(body))
            await asked.answer(status, headers, body[:after])
            if reached is not None:
                reached.set()
            await asyncio.Event().wait()

        return script

    def say(self, status: str, body: bytes = b"", **headers: object) -> Script:
        """Answer this and nothing else."""

        async def script(store: "Store", asked: Asked) -> None:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            await asked.answer(status, {"Content-Length": len(body), **names}, body)

        return script


CONTENT = random.Random(7).randbytes(300_000)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = Store(CONTENT)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(store.serve(reader, writer))
        tasks.add(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store.url = f"http://127.0.0.1:{port}/bucket/ai1/data.zip?Expires=1706&OSSAccessKeyId=LTAI5t&Signature=s3cr%2Ft%3D"
    yield store
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.wait_closed()


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
            client, store.url, target, **{"allow_private": True, "sleep": naps, "chance": lambda: 0.5, **options}
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
