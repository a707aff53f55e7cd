"""A server of both services that answers every look with the id that was asked for, if it answers well at all."""

import collections
import gzip
import json
import random
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import attrs

from gts_async.testing import ChaosServer, chaos
from gts_async.testing.chaos import Action, ClientGone, Connection

LONGEST = 0.01
"""Seconds that a good answer takes at most."""

BURST_EVERY = 30.0
BURST = 0.1
"""Seconds between the beginnings of two bursts of "too many requests", and how long each is.

They are not strewn in like the other faults: one stops all calls of a client for a while, which is right and is tested,
and a client that is always stopped shows nothing else.
"""

OK = b"HTTP/1.1 200 OK\r\n"
JSON = b"content-type: application/json\r\n"
PAGE = b"<html><body><h1>Bad Gateway</h1></body></html>"
HTML = {"content-type": "text/html"}
BOMB = gzip.compress(bytes(64 << 20))


def whole(document: object) -> bytes:
    """Give a whole good answer."""
    body = json.dumps(document).encode()
    return OK + JSON + b"content-length: %d\r\n\r\n" % len(body) + body


def look(about: str) -> dict[str, object]:
    """Give a look that both services' readers take, at the task or job with this id.

    It leaves out the key by which the client would notice itself that another job is meant.
    """
    return {"ret_code": 1, "message": about, "status": "success", "url": f"http://store.test/{about}"}


FOREIGN = whole(look("somebody-else"))
CHUNKED = OK + JSON + b"transfer-encoding: chunked\r\n\r\n"

FAULTS: Mapping[str, Callable[[bytes], tuple[Action, ...]]] = {
    "RST": lambda good: (chaos.reset(),),
    "FIN": lambda good: (chaos.close(),),
    "RST in the body": lambda good: (chaos.send(good[:-9]), chaos.reset()),
    "cut body": lambda good: (chaos.send(good[:-9]), chaos.close()),
    "cut chunk": lambda good: (chaos.send(CHUNKED + b'3f\r\n{"ret_code":1,'), chaos.close()),
    "cut, no length": lambda good: (chaos.send(OK + JSON + b'\r\n{"ret_code":1,'), chaos.close()),
    "500": lambda good: (chaos.answer(500, body=b"Internal Server Error"),),
    "503": lambda good: (chaos.answer(503),),
    "502 page": lambda good: (chaos.answer(502, body=PAGE, headers=HTML),),
    "200 page": lambda good: (chaos.answer(body=PAGE, headers=HTML),),
    "bad JSON": lambda good: (chaos.answer(body=b'{"ret_code": 1, "mess'),),
    "nothing": lambda good: (chaos.answer(body=b""),),
    "redirect": lambda good: (chaos.answer(307, headers={"location": "http://127.0.0.1:1/"}),),
    "204 with a body": lambda good: (chaos.send(b"HTTP/1.1 204 No Content\r\n\r\n" + FOREIGN),),
    "stall": lambda good: (chaos.stall(),),
    "header drip": lambda good: (chaos.send(OK), chaos.endlessly(b"x-slow: yes\r\n", every=0.1)),
    "endless 103": lambda good: (chaos.endlessly(b"HTTP/1.1 103 Early Hints\r\n\r\n", every=0.1),),
    "slow body": lambda good: (chaos.drip(good, every=0.02, size=8),),
    "two lengths": lambda good: (chaos.send(good.replace(b"content-length", b"content-length: 7\r\ncontent-length")),),
    "leftover answer": lambda good: (chaos.send(good + FOREIGN),),
    "leftover bytes": lambda good: (chaos.send(good + b"\r\n\r\n{}"),),
    "close at reuse": lambda good: (chaos.send(good), chaos.pause(random.random() * LONGEST), chaos.close()),
    "RST at reuse": lambda good: (chaos.send(good), chaos.pause(random.random() * LONGEST), chaos.reset()),
    "HTTP/1.0": lambda good: (chaos.send(good.replace(b"1.1", b"1.0", 1)), chaos.close()),
    "huge header": lambda good: (chaos.send(OK + b"x-huge: " + b"x" * 300_000 + b"\r\n\r\n"), chaos.close()),
    "gzip bomb": lambda good: (chaos.answer(body=BOMB, headers={"content-encoding": "gzip"}),),
    "endless body": lambda good: (chaos.send(OK + JSON + b"\r\n"), chaos.endlessly(bytes(1 << 16))),
}
"""What may become of a good answer."""


@attrs.frozen
class Played:
    """What a faulty server has done: answers by what was wrong with them ("" for nothing), and its connections now.

    `broken` are scripts that failed by themselves, not because a client went.
    """

    answers: Mapping[str, int]
    broken: int
    open: int


class FaultyServer:
    """Answers looks, `faults` (0 to 1) of them with some fault, and all of them with 429 in short bursts."""

    def __init__(self, faults: float, seed: int) -> None:
        self.faults = faults
        self._chance = random.Random(seed)
        self._chaos = ChaosServer()
        self._answers: collections.Counter[str] = collections.Counter()
        self._next: list[str] = []
        self._broken = 0
        self._began: float | None = None

    async def __aenter__(self) -> Self:
        await self._chaos.__aenter__()
        self._chaos.otherwise(self._answer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._chaos.__aexit__(kind, error, traceback)

    @property
    def url(self) -> str:
        """Where it is."""
        return self._chaos.url

    def played(self) -> Played:
        """Tell what it has done."""
        return Played(dict(self._answers), self._broken, self._chaos.open)

    async def _answer(self, connection: Connection) -> None:
        # They are kept for tests; here there are too many.
        self._chaos.requests.clear()
        assert connection.request is not None
        asked = json.loads(connection.request.body)
        good = whole(look(asked.get("task_id") or asked["job_id"]))
        fault, script = self._choose(good)
        self._answers[fault] += 1
        try:
            for action in script:
                await action(connection)
        except ClientGone:
            raise
        except Exception:
            self._broken += 1
            raise

    def _choose(self, good: bytes) -> tuple[str, tuple[Action, ...]]:
        now = time.monotonic()
        if self._began is None:
            # The first burst comes early enough for a run of seconds.
            self._began = now - BURST_EVERY + 0.5
        if (now - self._began) % BURST_EVERY < BURST:
            return "429", (chaos.answer(429, headers={"retry-after": "1"}),)
        if self._chance.random() >= self.faults:
            return "", (chaos.pause(self._chance.random() * LONGEST), chaos.send(good))
        if not self._next:
            self._next = self._chance.sample(tuple(FAULTS), len(FAULTS))
        fault = self._next.pop()
        return fault, FAULTS[fault](good)
