"""An embedded cloud that takes its time, keeps a ledger of creates, and kills its clients when they least expect it.

Each run of a client has a URL of its own, so that every create is known to be that run's.
"""

import asyncio
import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Literal, Self

import attrs

from benchmarks.ledger import Create
from gts_async.emulator.backends import JobStage
from gts_async.emulator.cloud import Cloud, Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.local.asgi import EmulatorApp, Worker
from gts_async.local.serving import serve

TOKEN = "token"  # noqa: S105 - the embedded cloud's
SLOWEST = 0.03
"""Seconds that a create takes at most, a part of them before it is carried out and the rest after."""

LATE = 0.02
LATEST = 15.0
"""How many of them take up to so many seconds before they are carried out, whether or not their client still lives.

The servers' own limit is 10 s (`Timeout: 10000`). Whoever takes it for granted earlier that a create did not arrive
submits some of these twice.
"""

_RUN = re.compile(r"/run-(\d+)(/.*)")
_CREATES = ("/api/userJob", "/api/job/training")

On = Literal["arrival", "answer"]


@attrs.frozen(kw_only=True)
class Aim:
    """When a run is to be killed.

    `delay` seconds after the first `on` of a create of its own once `position` specs of the batch have reached the
    cloud; but at the latest when no create of its own has come for `quiet` seconds.
    """

    pid: int
    batch: str
    position: int
    on: On
    delay: float
    quiet: float


@attrs.define
class _Aimed:
    aim: Aim
    alarm: asyncio.TimerHandle
    is_due: bool = False
    shot_at: float | None = None


class SlowCloud(Worker):
    """The emulated cloud on loopback, which takes the place of its own worker: so it sees each request, and when."""

    def __init__(self, generation: Generation, seed: int) -> None:
        super().__init__("slow cloud")
        self._chance = random.Random(seed)
        runner = ScriptedRunner(outcome=JobStage.RUNNING)
        store = ObjectStore(b"secret", "http://store.test")
        self._cloud = Cloud(runner, store, token=TOKEN, generation=generation, secret=b"%d" % seed)
        self._creates: list[Create] = []
        self._reached: dict[str, set[str]] = {}
        self._aimed: dict[int, _Aimed] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        app = EmulatorApp(self._cloud.answer, self, max_body=1 << 20)
        served = await self._stack.enter_async_context(serve(app))
        self.url = served.url
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)
        self.close()

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Answer a request, which is the first of `args`."""
        request = args[0]
        found = _RUN.fullmatch(request.path)
        assert found is not None, request.path
        run, path = int(found[1]), found[2]
        request = attrs.evolve(request, path=path)
        if request.method != "POST" or path not in _CREATES:
            await asyncio.sleep(self._chance.random() * SLOWEST)
            return function(request, time.time())
        name = json.loads(request.body)["runCommand"].split()[-1]
        create = Create(name=name, run=run, arrived=time.monotonic())
        self._creates.append(create)
        self._reached.setdefault(_batch(name), set()).add(name)
        self._happens("arrival", create)
        before, after = (self._chance.random() * SLOWEST / 2 for _ in range(2))
        await asyncio.sleep(self._chance.random() * LATEST if self._chance.random() < LATE else before)
        answer = function(request, time.time())
        create.job_id = json.loads(answer.body)["job_id"]
        await asyncio.sleep(after)
        create.answered = time.monotonic()
        self._happens("answer", create)
        return answer

    def creates(self, batch: str) -> tuple[list[Create], bool]:
        """Give all creates of a batch, and whether they have all been carried out."""
        found = [create for create in self._creates if _batch(create.name) == batch]
        return found, all(create.answered is not None for create in found)

    def take_aim(self, run: int, aim: Aim) -> None:
        """Kill that run when `aim` says; its process must not be waited for before `lower` was asked."""
        self._aimed[run] = _Aimed(aim, self._loop.call_later(aim.quiet, self._shoot, run))

    def lower(self, run: int) -> float | None:
        """Take no aim any more; gives when the run was shot at, if it was."""
        aimed = self._aimed.pop(run)
        aimed.alarm.cancel()
        return aimed.shot_at

    def _happens(self, what: On, create: Create) -> None:
        aimed = self._aimed.get(create.run)
        if aimed is None or aimed.is_due:
            return
        aim = aimed.aim
        aimed.is_due = what == aim.on and len(self._reached[aim.batch]) >= aim.position
        if aimed.is_due or what == "arrival":
            aimed.alarm.cancel()
            aimed.alarm = self._loop.call_later(aim.delay if aimed.is_due else aim.quiet, self._shoot, create.run)

    def _shoot(self, run: int) -> None:
        aimed = self._aimed[run]
        aimed.is_due, aimed.shot_at = True, time.monotonic()
        os.kill(aimed.aim.pid, signal.SIGKILL)


def _batch(name: str) -> str:
    return name.partition("-")[0]
