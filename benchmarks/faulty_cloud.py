"""The embedded cloud behind a network that does its worst to creates, and a ledger of the jobs that it has made."""

import asyncio
import collections
import fnmatch
import json
import random
import time
from collections.abc import Callable, Mapping
from enum import Enum
from types import TracebackType
from typing import Self

import attrs

from benchmarks.comparison import Made
from gts_async.emulator.backends import JobStage
from gts_async.emulator.cloud import Cloud
from gts_async.emulator.cloud_answers import go_answer, java_error, text, timed_out
from gts_async.emulator.cloud_quirks import CloudQuirks, Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.testing import ChaosServer, chaos
from gts_async.testing.chaos import Action, ChaosRequest, ClientGone, Connection
from gts_async.wire import Answer, Request

TOKEN = "t"  # noqa: S105 - of a server that lives as long as the benchmark
LONGEST = 0.01
"""Seconds that a good answer takes at most."""

SLOW = 0.5
LATEST = 8.0
"""Seconds after its connection's end that a job is made at the latest; the real servers give up after 10."""

SHUT = 0.05
"""Seconds for which connections are refused."""

BURST_EVERY = 10.0
BURST = 0.05
"""Seconds between the beginnings of two bursts of "too many requests", and how long each is."""

BURSTS = "429"
PAGE = b"<!DOCTYPE html><html><body><h1>Bad Gateway</h1></body></html>"
HTML = {"content-type": "text/html"}
QUOTA = "JobCreate CheckQuota userId: user-1 gpu: NVIDIA-GeForce-RTX-3090 left: 0 need: 1"
CREATES = ("/api/userJob", "/api/job/training")


class Making(Enum):
    """Whether a create that meets a fault makes its job."""

    NEVER = "not made"
    FIRST = "made"
    LATE = "made late"


@attrs.frozen
class Fault:
    """What becomes of a request: whether it is carried out, and what is played, given the good answer's bytes."""

    making: Making
    play: Callable[[bytes], tuple[Action, ...]]


def _answered(status: int, body: bytes = b"") -> Callable[[bytes], tuple[Action, ...]]:
    headers = HTML if body.startswith(b"<") else {}
    return lambda good: (chaos.answer(status, body=body, headers=headers),)


async def _reset_unread(connection: Connection) -> None:
    """Reset the connection as soon as the next request begins to arrive on it."""
    if await connection.receive(1):
        connection.reset()


# Without making anything, or after it.
_EITHER: Mapping[str, Callable[[bytes], tuple[Action, ...]]] = {
    "RST": lambda good: (chaos.reset(),),
    "FIN": lambda good: (chaos.close(),),
    "500": _answered(500, b"Error forwarding request\n"),
    "502": _answered(502, PAGE),
    "503": _answered(503),
    "200 page": _answered(200, PAGE),
    "200 nothing": _answered(200),
    "stall": lambda good: (chaos.stall(),),
}

_CREATE_FAULTS: Mapping[str, Fault] = {
    **{f"{name}, {making.value}": Fault(making, play) for name, play in _EITHER.items() for making in list(Making)[:2]},
    "RST, made late": Fault(Making.LATE, lambda good: (chaos.reset(),)),
    "503, made late": Fault(Making.LATE, _answered(503, b"Request Timeout")),
    "cut answer": Fault(Making.FIRST, lambda good: (chaos.send(good[:-9]), chaos.close())),
    "RST in the answer": Fault(Making.FIRST, lambda good: (chaos.send(good[:-9]), chaos.reset())),
    "bad JSON": Fault(Making.FIRST, _answered(200, b'{"job_id": "')),
    "slow": Fault(Making.FIRST, lambda good: (chaos.pause(SLOW), chaos.send(good))),
    "drip": Fault(Making.FIRST, lambda good: (chaos.drip(good, every=0.01, size=8),)),
    "next one RST unread": Fault(Making.FIRST, lambda good: (chaos.send(good), _reset_unread)),
}
"""What may become of a create; the server's own time limit, quota and closed door are added by each cloud."""

_LOOK_FAULTS: Mapping[str, Callable[[bytes], tuple[Action, ...]]] = {
    **_EITHER,
    "cut answer": lambda good: (chaos.send(good[:-9]), chaos.close()),
    "slow": lambda good: (chaos.pause(SLOW), chaos.send(good)),
}


@attrs.frozen
class Played:
    """What the cloud has done: answers by request and fault ("" for none), and refusals by the spec's content.

    `broken` are scripts that failed by themselves, not because a client went.
    """

    creates: Mapping[str, int]
    looks: Mapping[str, int]
    refused: Mapping[int, int]
    broken: int


class FaultyCloud:
    """The embedded cloud of a generation; `faults` (0 to 1) of its answers meet some fault, creates all kinds of them.

    `only` is a pattern of names: creates meet no other faults, and looks none. Jobs stay queued for ever. The number at
    the end of a job's command names its spec's content.
    """

    def __init__(self, generation: Generation, faults: float, seed: int, only: str = "*") -> None:
        self._generation = generation
        self._faults = faults
        self._chance = random.Random(seed)
        self._chaos = ChaosServer()
        quirks = CloudQuirks(agent_period=1e9)
        store = ObjectStore(b"key", "http://store.test")
        runner = ScriptedRunner(outcome=JobStage.QUEUED)
        self._cloud = Cloud(runner, store, token=TOKEN, generation=generation, quirks=quirks, secret=b"%d" % seed)
        self._made: list[Made] = []
        self._late: set[Callable[[], None]] = set()
        self._creates: collections.Counter[str] = collections.Counter()
        self._looks: collections.Counter[str] = collections.Counter()
        self._refused: collections.Counter[int] = collections.Counter()
        self._broken = 0
        self._next: list[str] = []
        self._began: float | None = None
        self._ways = dict(_CREATE_FAULTS) | {
            "timeout, made": Fault(Making.FIRST, lambda good: (chaos.send(_bytes(timed_out(generation))),)),
            "timeout, not made": Fault(Making.NEVER, lambda good: (chaos.send(_bytes(timed_out(generation))),)),
            "timeout, made late": Fault(Making.LATE, lambda good: (chaos.send(_bytes(timed_out(generation))),)),
            "quota": Fault(Making.NEVER, lambda good: (chaos.send(_bytes(self._quota())),)),
            "door shut after it": Fault(Making.FIRST, lambda good: (chaos.send(_closing(good)), self._shut)),
        }
        self._names = sorted(fnmatch.filter([*self._ways, BURSTS], only))
        if not self._names:
            raise ValueError(f"no fault is called {only!r}; there are {', '.join(sorted([*self._ways, BURSTS]))}")
        self._has_bursts = BURSTS in self._names
        self._names = [name for name in self._names if name != BURSTS]
        self._look_faults = faults if only == "*" else 0.0

    async def __aenter__(self) -> Self:
        await self._chaos.__aenter__()
        self._chaos.otherwise(self._serve)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._chaos.__aexit__(kind, error, traceback)

    @property
    def url(self) -> str:
        """What a session takes as the cloud's URL."""
        return f"{self._chaos.url}/api"

    # What the benchmark asks

    def ledger(self) -> list[Made]:
        """Give all jobs that were made, with those still to be made."""
        for make in tuple(self._late):
            make()
        return self._made

    def played(self) -> Played:
        """Tell what it has done."""
        return Played(dict(self._creates), dict(self._looks), dict(self._refused), self._broken)

    def behave(self) -> None:
        """From now on meet nothing with a fault."""
        self._faults = self._look_faults = 0.0

    # How it answers

    async def _serve(self, connection: Connection) -> None:
        # They are kept for tests; here there are too many.
        self._chaos.requests.clear()
        assert connection.request is not None
        asked = _wire(connection.request)
        is_create = asked.method == "POST" and asked.path in CREATES
        try:
            for action in self._create(asked) if is_create else self._look(asked):
                if connection.is_open:
                    await action(connection)
        except ClientGone:
            raise
        except Exception:
            self._broken += 1
            raise

    def _create(self, asked: Request) -> tuple[Action, ...]:
        if self._is_burst():
            self._creates[BURSTS] += 1
            return (chaos.answer(429, headers={"retry-after": "1"}),)
        if self._chance.random() >= self._faults or not self._names:
            self._creates[""] += 1
            return (chaos.pause(self._chance.random() * LONGEST), chaos.send(_bytes(self._make(asked))))
        if not self._next:
            self._next = self._chance.sample(self._names, len(self._names))
        name = self._next.pop()
        self._creates[name] += 1
        fault, good = self._ways[name], b""
        if fault.making is Making.FIRST:
            good = _bytes(self._make(asked))
        elif fault.making is Making.LATE:
            self._make_late(asked)
        elif name == "quota":
            self._refused[_content(asked)] += 1
        return fault.play(good)

    def _look(self, asked: Request) -> tuple[Action, ...]:
        good = _bytes(self._cloud.answer(asked, time.time()))
        if self._chance.random() >= self._look_faults:
            self._looks[""] += 1
            return (chaos.send(good),)
        name = self._chance.choice(tuple(_LOOK_FAULTS))
        self._looks[name] += 1
        return _LOOK_FAULTS[name](good)

    def _is_burst(self) -> bool:
        now = time.monotonic()
        if self._began is None:
            # The first burst comes early enough for a run of seconds.
            self._began = now - BURST_EVERY + 0.5
        return self._has_bursts and self._faults > 0 and (now - self._began) % BURST_EVERY < BURST

    def _make(self, asked: Request) -> Answer:
        answer = self._cloud.answer(asked, time.time())
        if answer.status == 200:
            body = json.loads(asked.body)  # type: ignore[arg-type]  # no uploads come here
            mark = body.get("trainedModelName" if self._generation is Generation.HEAD else "callbackUrl") or ""
            self._made.append(Made(json.loads(answer.body)["job_id"], _content(asked), mark))
        return answer

    def _make_late(self, asked: Request) -> None:
        def make() -> None:
            if make in self._late:
                self._late.discard(make)
                self._make(asked)

        self._late.add(make)
        asyncio.get_running_loop().call_later(self._chance.uniform(0.1, LATEST), make)

    def _quota(self) -> Answer:
        match self._generation:
            case Generation.JAVA:
                return java_error(QUOTA, time.time())
            case Generation.GO:
                return text(400, QUOTA)
            case Generation.HEAD:
                return go_answer({"message": QUOTA}, 400)

    async def _shut(self, connection: Connection) -> None:
        """Close this connection, and refuse others for a moment."""
        connection.close()
        self._chaos.refuse()
        asyncio.get_running_loop().call_later(SHUT, self._chaos.accept)


def _wire(asked: ChaosRequest) -> Request:
    path, _, query = asked.target.partition("?")
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return Request(asked.method, path, tuple((name, value) for name, _, value in pairs), asked.headers, asked.body)


def _content(asked: Request) -> int:
    return int(json.loads(asked.body)["runCommand"].rpartition(" ")[2])  # type: ignore[arg-type]


def _bytes(answer: Answer) -> bytes:
    head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
    return f"HTTP/1.1 {answer.status} X\r\n{head}content-length: {len(answer.body)}\r\n\r\n".encode() + answer.body


def _closing(good: bytes) -> bytes:
    return good.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
