"""A GTS Engine whose one device does one request after the other: the embedded engine, served as cheaply as can be.

Its model has learned nothing, but tells every sample from every other: ``predicted`` says what it answers.
"""

import asyncio
import json
import time
import zlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import attrs

from benchmarks.server import Listening
from gts_async.emulator.engine import Engine
from gts_async.emulator.scripted import MemoryFiles, Script, ScriptedTrainer
from gts_async.wire import Answer, Request

TASK = "tnews"
TASK_TYPE, ENGINE_TYPE = "classification", "qiankunding"
LABELS = ("negative", "positive")
FILES = {f"{kind}_data": f"{kind}.json" for kind in ("train", "val", "test", "label")}
REASONS = {200: b"OK", 307: b"Temporary Redirect", 500: b"Internal Server Error"}


def sample(number: int) -> dict[str, str]:
    """Give the sample of that number, as long as a headline."""
    return {"content": f"{number:08} 沿河两座老桥下月起维修，开车的人请提前改走新路！"}


def is_sample(row: Mapping[str, str]) -> bool:
    """Tell whether a row is one of the samples above."""
    return row["content"][:8].isdecimal()


def predicted(content: str) -> tuple[str, tuple[float, ...]]:
    """Give what the engine answers for a sample: the label, and the probabilities of all `LABELS`."""
    share = zlib.crc32(content.encode()) / 0x1_0000_0000
    return LABELS[share > 0.5], (1.0 - share, share)


@attrs.frozen
class Device:
    """What a request costs, in seconds; with nothing to do it takes no time at all."""

    per_request: float = 0.005
    per_sample: float = 0.0002

    def seconds(self, samples: int) -> float:
        """Give how long one request with so many samples takes."""
        return self.per_request + self.per_sample * samples

    def least(self, samples: int, max_batch: int) -> float:
        """Give the seconds below which nobody gets so many samples through: in full batches, with no pause between."""
        full, rest = divmod(samples, max_batch)
        return full * self.seconds(max_batch) + (self.seconds(rest) if rest else 0.0)


IMMEDIATE = Device(0.0, 0.0)
"""Answers without any delay: what is left is what the client costs."""


@attrs.define
class Seen:
    """What the device was given: requests, their samples, the most in one, and how many it held at most at once.

    `probes` are rows that the client sent besides, to see who answers. `redirects` are requests that came under the
    other spelling of a path, and had to come again.
    """

    requests: int = 0
    samples: int = 0
    probes: int = 0
    largest: int = 0
    most_at_once: int = 0
    redirects: int = 0

    def __add__(self, other: "Seen") -> "Seen":
        """Give what two engines have seen of one thing; the largest and the most at once are of one of them."""
        return Seen(
            requests=self.requests + other.requests,
            samples=self.samples + other.samples,
            probes=self.probes + other.probes,
            largest=max(self.largest, other.largest),
            most_at_once=max(self.most_at_once, other.most_at_once),
            redirects=self.redirects + other.redirects,
        )


Write = Callable[[Answer], None]


class FifoEngine(Listening):
    """Serves one trained task, `TASK`, on loopback; every other request is answered while the device is busy.

    `held` requests are at the device now, or wait for it.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._engine = Engine(MemoryFiles(), _Trainer(self))
        self.connections: set[asyncio.Transport] = set()
        self._free_at = 0.0
        self._asked = 0
        self.held = 0
        self._seen = Seen()

    def connected(self) -> "_Connection":
        """Give what is to talk with whoever has connected."""
        return _Connection(self)

    async def __aenter__(self) -> Self:
        self._train()
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, traceback)
        for connection in tuple(self.connections):
            connection.abort()

    def _train(self) -> None:
        kind = {"task_name": TASK, "task_type": TASK_TYPE, "engine_type": ENGINE_TYPE}
        create = Request.json("POST", "/api/create_task/", kind)
        train = Request.json("POST", "/api/train", {"task_id": TASK, **FILES})
        for request in (create, _upload(), train):
            answer = self._engine.answer(request, time.time())
            assert b'"ret_code":200' in answer.body, answer.text

    def behave(self, device: Device) -> None:
        """From now on cost that."""
        self.device = device

    def seen(self) -> Seen:
        """Tell what was seen since this was asked last."""
        seen, self._seen = self._seen, Seen()
        return seen

    def answer(self, request: Request, write: Write) -> None:
        """Answer at once, but for what the device has to do: that when it is done."""
        self._asked = 0
        answer = self._engine.answer(request, time.time())
        self._seen.redirects += answer.status == 307
        if not self._asked:
            write(answer)
            return
        loop = asyncio.get_running_loop()
        # A timer that comes late delays its answer, but not the device.
        self._free_at = max(self._free_at, loop.time()) + self.device.seconds(self._asked)
        self.held += 1
        self._seen.most_at_once = max(self._seen.most_at_once, self.held)
        if self._free_at > loop.time():
            loop.call_at(self._free_at, self._done, write, answer)
        else:
            self._done(write, answer)

    def _done(self, write: Write, answer: Answer) -> None:
        self.held -= 1
        write(answer)

    def predict(self, rows: Any) -> Any:
        """Give what the model makes of rows."""
        self._asked = len(rows)
        self._seen.requests += 1
        samples = sum(is_sample(row) for row in rows)
        self._seen.samples += samples
        self._seen.probes += len(rows) - samples
        self._seen.largest = max(self._seen.largest, samples)
        found = [predicted(row["content"]) for row in rows]
        return {"predictions": [label for label, _ in found], "probabilities": [shares for _, shares in found]}


def _upload() -> Request:
    rows = {name: '{"content": "x", "label": "positive"}' for name in FILES.values()}
    rows[FILES["label_data"]] = json.dumps({"labels": LABELS})
    parts = {f'files"; filename="{name}': row for name, row in rows.items()} | {"task_id": TASK}
    lines = [f'--part\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{part}' for name, part in parts.items()]
    headers = (("content-type", "multipart/form-data; boundary=part"),)
    return Request("POST", "/api/upfiles/", headers=headers, body="\r\n".join([*lines, "--part--\r\n"]).encode())


class _Trainer(ScriptedTrainer):
    """Is done at once, and what it has trained is the engine's one model."""

    def __init__(self, model: FifoEngine) -> None:
        super().__init__(default=Script(startup=0.0, training=0.0))
        self._model = model

    def load(self, task_id: str) -> Any:
        super().load(task_id)
        return self._model


class _Connection(asyncio.Protocol):
    """One connection; requests must not be pipelined, and have bodies of a told length."""

    def __init__(self, engine: FifoEngine) -> None:
        self._engine = engine
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._engine.connections.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        head, found, body = self._unread.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = tuple((name.lower(), value.strip()) for name, _, value in pairs)
        method, path, _ = first.split(" ")
        request = Request(method, path, headers=headers, body=body)
        if len(body) < int(request.header("content-length") or 0):
            return
        self._unread = b""
        self._engine.answer(request, self._write)

    def _write(self, answer: Answer) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
        if not self._transport.is_closing():
            head = b"HTTP/1.1 %d %b\r\n" % (answer.status, REASONS.get(answer.status, b"Other"))
            self._transport.write(head + lines.encode("latin-1") + b"\r\n" + answer.body)
            if answer.status == 500:
                # As the real one does.
                self._transport.close()
