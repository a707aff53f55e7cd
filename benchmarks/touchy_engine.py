"""A GTS Engine with really trained models, in a process that may be killed, and that can be told to be sick.

It is what `EmbeddedEngine` is made of, on the folder in which that one has trained; what a sample must hold to be
refused, or to make the pipeline stumble, is in `trained`. It may also shoot the program that asks it.
"""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import attrs

from benchmarks.server import Remote, serving
from benchmarks.trained import FILES, PIPELINES, Bad, bad_of, label_file
from gts_async.emulator.backends import Model, Stage, TrainingOrder, TrainingState
from gts_async.emulator.engine import Engine
from gts_async.emulator.engine_bodies import as_json, internal_error, result
from gts_async.gts.identity import PROBES
from gts_async.local.asgi import EmulatorApp, Worker
from gts_async.local.files import FolderFiles
from gts_async.local.serving import listening, serve
from gts_async.local.trainer import LocalTrainer
from gts_async.wire import Answer, Request

MAX_BODY = 64 << 20

WELL, UNWELL = (0.02, 0.4), (0.002, 0.06)
"""Seconds, at least and at most, between two short spells of sickness, and that each of them lasts."""

_PROBES = {json.dumps(probe, sort_keys=True) for probe in PROBES.values()}


@attrs.define
class Asked:
    """What was asked: requests to predict, those of them that asked only who answers, rows, and rows asked again."""

    requests: int = 0
    probes: int = 0
    rows: int = 0
    again: int = 0
    failures: int = 0

    def __add__(self, other: "Asked") -> "Asked":
        """Give the sums."""
        return Asked(*(a + b for a, b in zip(attrs.astuple(self), attrs.astuple(other), strict=True)))


@attrs.define
class _Aim:
    pid: int
    rows: int
    delay: float
    timer: threading.Timer | None = None


class TouchyEngine:
    """Serves all tasks that were trained in `folder`; what comes after a kill is told which task `was_serving`."""

    def __init__(self, folder: Path, port: int = 0, was_serving: str | None = None) -> None:
        self._folder = folder
        self._port = port
        self._was_serving = was_serving
        self._stack = AsyncExitStack()
        self._asked = Asked()
        self._rows: Counter[str] = Counter()
        self._aim: _Aim | None = None
        self._sick: Literal["predict", "everything"] | None = None
        self._sick_after = 0
        self._sick_for = self._sick_until = float("inf")
        self._spells: random.Random | None = None
        self._turns_at = 0.0
        self._is_in_spell = False

    async def __aenter__(self) -> Self:
        async with self._stack:
            listener = self._stack.enter_context(listening(port=self._port))
            worker = Worker("engine")
            self._stack.callback(worker.close)
            self._engine = Engine(FolderFiles(self._folder), _KeptTrainer(self._folder))
            await worker.run(self._recall)
            app = EmulatorApp(self._answer, worker, max_body=MAX_BODY, closes_after_500=True)
            self.url = (await self._stack.enter_async_context(serve(app, listener=listener))).url
            self._stack = self._stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _recall(self) -> None:
        """Know the tasks that are on the disk, as the real one does after a restart: On Inference, nothing loaded."""
        for name, (engine_type, task_type) in PIPELINES.items():
            if (self._folder / name).exists():
                names = {"task_name": name, "task_type": task_type, "engine_type": engine_type}
                self._do("create_task/", names)
                self._upload(name)
                self._do("train", {"task_id": name, **FILES, "label_data": label_file(name)})
        if self._was_serving is not None:
            self._do("start_inference", {"task_id": self._was_serving})
            self._engine.restart()

    def _upload(self, name: str) -> None:
        """Send the engine what is on its disk already, so that it knows of it."""
        files = {path.name: path.read_text(encoding="utf-8") for path in (self._folder / name / "data").iterdir()}
        parts = {f'files"; filename="{file}': text for file, text in files.items()} | {"task_id": name}
        lines = [f'--part\r\ncontent-disposition: form-data; name="{of}"\r\n\r\n{part}' for of, part in parts.items()]
        headers = (("content-type", "multipart/form-data; boundary=part"),)
        body = "\r\n".join([*lines, "--part--\r\n"]).encode()
        self._engine.answer(Request("POST", "/api/upfiles/", headers=headers, body=body), time.time())

    def _do(self, call: str, document: dict[str, str]) -> None:
        answer = self._engine.answer(Request.json("POST", f"/api/{call}", document), time.time())
        assert b'"ret_code":200' in answer.body, answer.text

    # What it can be told from outside.

    def pid(self) -> int:
        """Give its process's number."""
        return os.getpid()

    def seen(self) -> Asked:
        """Tell what was asked since this was asked last."""
        seen, self._asked = self._asked, Asked()
        self._rows.clear()
        return seen

    def sicken(
        self, what: Literal["predict", "everything"] | None, after: int = 0, seconds: float = float("inf")
    ) -> None:
        """Answer 500 to that, from so many requests to predict on, for so long; None: be well again."""
        self._sick, self._sick_after, self._sick_for, self._sick_until = what, after, seconds, float("inf")

    def was_sick(self) -> bool:
        """Tell whether its sickness has come and gone."""
        return time.monotonic() > self._sick_until

    def flicker(self, seed: int | None) -> None:
        """Have short spells, in which every request to predict is answered 500; None: no more."""
        self._spells = None if seed is None else random.Random(seed)

    def take_aim(self, pid: int, rows: int, delay: float) -> None:
        """Kill that process so many seconds after so many further rows have come."""
        self._aim = _Aim(pid, rows, delay)

    def lower(self) -> bool:
        """Do not kill any more; tells whether it has shot."""
        aim, self._aim = self._aim, None
        if aim is None or aim.timer is None:
            return False
        aim.timer.cancel()
        return True

    # What it answers, in its worker's thread.

    def _answer(self, request: Request, now: float) -> Answer:
        is_predict = request.path == "/api/predict"
        assert isinstance(request.body, bytes)
        rows = json.loads(request.body)["sentences"] if is_predict else []
        if is_predict:
            self._count(rows)
        answer = internal_error() if self._is_sick(is_predict) else None
        answer = answer or _refused(rows) or self._engine.answer(request, now)
        self._asked.failures += is_predict and answer.status == 500
        return answer

    def _count(self, rows: Sequence[Any]) -> None:
        samples = [text for row in rows if (text := json.dumps(row, sort_keys=True)) not in _PROBES]
        self._asked.requests += 1
        self._asked.probes += not samples
        self._asked.rows += len(samples)
        self._asked.again += sum(text in self._rows for text in samples)
        self._rows.update(samples)
        aim = self._aim
        if aim is not None and aim.timer is None and samples:
            aim.rows -= len(samples)
            if aim.rows <= 0:
                aim.timer = threading.Timer(aim.delay, os.kill, (aim.pid, signal.SIGKILL))
                aim.timer.start()

    def _is_sick(self, is_predict: bool) -> bool:
        now = time.monotonic()
        if self._sick is not None and (is_predict or self._sick == "everything"):
            self._sick_after -= is_predict
            if self._sick_after < 0:
                self._sick_until = min(self._sick_until, now + self._sick_for)
                if now < self._sick_until:
                    return True
        if self._spells is not None and is_predict:
            while now >= self._turns_at:
                self._is_in_spell = not self._is_in_spell
                self._turns_at = max(now, self._turns_at) + self._spells.uniform(
                    *(UNWELL if self._is_in_spell else WELL)
                )
            return self._is_in_spell
        return False


@attrs.define
class Process:
    """A process with a touchy engine, which can be killed and started again at the same place."""

    folder: Path
    url: str = ""
    _stack: ExitStack = attrs.field(factory=ExitStack)
    _remote: Remote[TouchyEngine] | None = None

    def start(self, was_serving: str | None = None) -> None:
        """Start it, the first time at any port."""
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        self._remote = self._stack.enter_context(serving(partial(TouchyEngine, self.folder, port, was_serving)))
        self.url = self._remote.url

    @property
    def ask(self) -> Any:
        """Ask the engine, as `Remote.ask`."""
        assert self._remote is not None
        return self._remote.ask

    def kill(self) -> None:
        """Kill it at once."""
        os.kill(self.ask(TouchyEngine.pid), signal.SIGKILL)
        self._stack.close()

    def close(self) -> None:
        """End it."""
        self._stack.close()


def _refused(rows: Sequence[Any]) -> Answer | None:
    """Refuse rows as the engine's check does: the first bad one only, shown as Python prints it, or in another way."""
    for row in rows:
        bad = bad_of(row)
        if bad is Bad.NAMED:
            return as_json(result(-101, f"样本【{row}】格式错误：缺少`content`字段"))
        if bad is Bad.UNNAMED:
            return as_json(result(-101, f"行【{json.dumps(row, ensure_ascii=False)}】非json格式"))
    return None


@attrs.frozen
class _Touchy:
    """A trained model that stumbles over what the samples say it should."""

    model: Model

    def predict(self, rows: Sequence[Any]) -> Any:
        found = [bad_of(row) for row in rows]
        if Bad.CRASH in found:
            raise ValueError("the pipeline stumbles")
        answer = self.model.predict(rows)
        for place, bad in enumerate(found):
            if bad is Bad.ODD:
                answer["probabilities"][place] = [2.0 * share for share in answer["probabilities"][place]]
        return answer


class _KeptTrainer(LocalTrainer):
    """Has trained everything long ago."""

    def start(self, order: TrainingOrder, now: float) -> int:
        return 1

    def state(self, pid: int, now: float) -> TrainingState:
        return TrainingState(Stage.SUCCEEDED, 0.9)

    def load(self, task_id: str) -> Model:
        return _Touchy(super().load(task_id))
