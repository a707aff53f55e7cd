"""What the real GTS Engine answered, asked of the emulated one: the same requests in the same order.

The recordings are in `tests/samples/gts_replay`, one group a file. What they do not hold is in their `given` lines and
in `_UPLOADED` here: data files that were put on the server's disk, and the kills and restarts done by hand. Trainings
go by scripts that are read from the recorded times. A model's numbers are compared in shape only.

Not replayed: concurrent calls, what shows in connections and processes only, uploads of megabytes, the OpenAPI pages.
Two looks are left without their answer, as it was caught between two writes: a half-written task_info.json in
`lifecycle-argparse`, and in `data-rules` a status that the disk had already left behind.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import attrs
import pytest

from gts_async.emulator.backends import Stage
from gts_async.emulator.engine import Engine
from gts_async.emulator.scripted import MemoryFiles, Script, ScriptedTrainer
from gts_async.wire import Answer, Request

Record = Mapping[str, Any]

SAMPLES = Path(__file__).parents[1] / "samples" / "gts_replay"
FIRST_SECOND = 1795326117.0
"""2026-11-22 05:41:57 UTC, which two of the recorded task ids hold."""
NEVER = 1e9

SERVERS = {
    "/srv/gts/tasks1": """root slashes list_task create_task check_task_status connection misc upfiles train-validation
        stop_train-validation""",
    "/srv/gts/tasks2": """lifecycle-success predict lifecycle-retrain lifecycle-failed lifecycle-argparse
        pipeline-qiankunding-classification pipeline-qiankunding-nli pipeline-bagualu-ie pipeline-bagualu-summary
        official-client-0.1.6 event-loop examples restart data-rules""",
    "/srv/gts/tasks3": "stop_train crash delete-while-training",
    "/srv/gts/tasks4": "no-gpu-driver",
}
"""The groups that were recorded on one server, by its task folder."""


def _records(group: str) -> list[Record]:
    return [json.loads(line) for line in (SAMPLES / f"{group}.jsonl").read_text().splitlines()]


def _played(groups: str) -> list[Record]:
    return sorted((record for group in groups.split() for record in _records(group)), key=lambda r: r["seq"])


CASES = [pytest.param(r["seq"], id=f"{r['seq']} {r['name']}"[:80]) for g in SERVERS.values() for r in _played(g)]


@pytest.fixture(scope="module")
def differences() -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for task_dir, groups in SERVERS.items():
        replay = Replay(task_dir)
        for record in _played(groups):
            found[record["seq"]] = list(replay.play(record))
    return found


@pytest.mark.parametrize("seq", CASES)
def test_the_emulator_answers_as_the_service_did(differences: dict[int, list[str]], seq: int) -> None:
    assert differences[seq] == []


def test_every_record_is_replayed() -> None:
    assert sum(len(_records(path.stem)) for path in SAMPLES.glob("*.jsonl")) == len(CASES) == 480


_UPLOADED = {
    "classification": '{"content":"a","label":"体育","id":1}\n',
    "similarity": '{"id":0,"sentence1":"a","sentence2":"b","label":"1"}\n',
    "nli": '{"id":0,"sentence1":"a","sentence2":"b","label":"neutral"}\n',
    "ie": '{"task":"实体识别","text":"我叫李开复","choice":["人名"]}\n',
    "summary": '{"text":"长文","summary":"短"}\n',
}
_LABELS = {"qk-clf": ["体育", "军事", "农业"]}


@attrs.define
class Replay:
    """One server: the emulated one, its trainings, and the time of day."""

    task_dir: str
    files: MemoryFiles = attrs.Factory(MemoryFiles)
    trainer: ScriptedTrainer = attrs.field(init=False)
    engine: Engine = attrs.field(init=False)
    now: float = FIRST_SECOND
    began: dict[int, float] = attrs.Factory(dict)
    scripts: dict[int, Script] = attrs.Factory(dict)
    last_task: str = ""

    def __attrs_post_init__(self) -> None:
        self.trainer = ScriptedTrainer(self.files, default=Script(startup=NEVER))
        self.engine = Engine(self.files, self.trainer, task_dir=self.task_dir)

    def play(self, record: Record) -> Iterator[str]:
        for given in record.get("given", ()):
            self.prepare(given)
        self.last_task = record.get("task_id", self.last_task)
        if "timeline" in record:
            yield from self.follow(record)
        elif "exchanges" in record:
            yield from self.official_call(record)
        elif "request" in record:
            yield from _differences(self.send(record["request"]), record["response"])
        elif "response" in record:
            yield from _differences(self.upload_set(record["task_id"]), record["response"])
        elif "files" in record:
            yield from _unequal("files", self.data_folder("up"), [tuple(entry) for entry in record["files"]])
        elif "task_info" in record:
            yield from _unequal("task_info", self.task_info(), _without_pid(record["task_info"]))
        else:
            yield from _unequal("status", self.task_info()["status"], record["status"])

    def prepare(self, given: Record) -> None:
        match given:
            case {"upload": task_id, "name": name}:
                content = given["text"].encode() if "text" in given else base64.b64decode(given["base64"])
                assert self.upload(task_id, {name: content}).status == 200
            case {"upload_set": task_id}:
                assert self.upload_set(task_id).status == 200
            case {"create": task_id}:
                assert self.post("/api/create_task/", {"task_name": task_id, **given}).status == 200
            case {"delete": task_id}:
                assert self.post("/api/delete_task/", {"task_id": task_id}).status == 200
            case {"load": task_id}:
                assert self.post("/api/start_inference", {"task_id": task_id}).status == 200
            case {"restart": True}:
                self.engine.restart()
            case {"kill": _}:
                assert self.trainer.kill(self.newest(), self.now)
            case {"interrupt": _}:
                pid = self.newest()
                startup = self.scripts[pid].startup
                ends = self.now - self.began[pid] - startup
                self.trainer.rewrite(pid, Script(startup=startup, training=ends, outcome=Stage.FAILED))
            case _:
                raise AssertionError(given)

    def send(self, recorded: Record) -> Answer:
        self.now += 0.001
        path, _, query = recorded["path"].partition("?")
        headers = {"host": "127.0.0.1:5201", **recorded.get("headers", {})}
        body = base64.b64decode(recorded["base64"]) if "base64" in recorded else recorded.get("body", "").encode()
        pairs = tuple(parse_qsl(query, keep_blank_values=True))
        known = len(self.trainer.orders)
        answer = self.engine.answer(Request(recorded["method"], path, pairs, tuple(headers.items()), body), self.now)
        if len(self.trainer.orders) > known:
            self.began[self.newest()] = self.now
            self.scripts[self.newest()] = self.trainer.default
        return answer

    def post(self, path: str, document: Record) -> Answer:
        headers = {"content-type": "application/json"}
        return self.send({"method": "POST", "path": path, "headers": headers, "body": json.dumps(document)})

    def upload(self, task_id: str, files: Mapping[str, bytes]) -> Answer:
        lines = [b'--B\r\nContent-Disposition: form-data; name="task_id"\r\n\r\n' + task_id.encode() + b"\r\n"]
        for name, content in files.items():
            disposition = f'Content-Disposition: form-data; name="files"; filename="{name}"'
            lines.append(b"--B\r\n" + disposition.encode() + b"\r\n\r\n" + content + b"\r\n")
        headers = {"content-type": "multipart/form-data; boundary=B"}
        body = base64.b64encode(b"".join(lines) + b"--B--\r\n")
        return self.send({"method": "POST", "path": "/api/upfiles/", "headers": headers, "base64": body})

    def upload_set(self, task_id: str) -> Answer:
        """Upload what trains: the recordings only tell that train, dev, test, labels and unlabeled were."""
        info = self.engine.task_info(task_id)
        assert info is not None
        row = _UPLOADED[info["task_type"]].encode()
        labels = json.dumps({"labels": _LABELS.get(task_id, ["体育", "军事"])}).encode()
        files = dict.fromkeys(("train.json", "dev.json", "test.json"), row)
        is_classification = info["task_type"] == "classification"
        files |= {
            "labels.json": labels if is_classification else row,
            "unlabeled.json": _UPLOADED["classification"].encode(),
        }
        return self.upload(task_id, files)

    def follow(self, record: Record) -> Iterator[str]:
        """Look at a task when the recording did, on a training whose script is what the recording saw."""
        looks = [look for look in record["timeline"] if "polls" not in look and "train_answered" not in look]
        script = _script(looks)
        if record.get("start"):
            self.trainer.default = script
            began = self.now = self.now + 0.001
            yield from _differences(self.post("/api/train", record["start"]), record["timeline"][0]["train_answered"])
            self.trainer.default = Script(startup=NEVER)
        elif script != _script(()):
            began = self.now
            pid = self.newest()
            wait = began - self.began[pid]
            self.trainer.rewrite(pid, attrs.evolve(script, startup=script.startup + wait))
        began = self.now
        for look in looks:
            self.now = began + look["at"]
            yield from self.look(look)
        self.now = began + record["timeline"][-1]["at"]
        yield from self.look({**looks[-1], "at": record["timeline"][-1]["at"]})

    def look(self, look: Record) -> Iterator[str]:
        before = self.now
        answer = self.post("/api/check_task_status", {"task_id": self.last_task})
        self.now = before
        if "status" in look:
            yield from _differences(answer, look)
        if "task_info" in look:
            yield from _unequal(f"task_info at {look['at']}", self.task_info(), _without_pid(look["task_info"]))

    def official_call(self, record: Record) -> Iterator[str]:
        """Send what the official client sent; it gives a 200's document to its caller, and hides all else."""
        for exchange in record["exchanges"]:
            host = {"host": "127.0.0.1:5202", **exchange["request"].get("headers", {})}
            answer = self.send({**exchange["request"], "headers": host})
            yield from _unequal("status", answer.status, exchange["status"])
            yield from _unequal("location", answer.header("location"), exchange["location"])
        hidden = {"ret_code": answer.status, "message": "Server Failed"}
        returned = json.loads(answer.body) if answer.status == 200 else hidden
        yield from _unequal("returned", _comparable(returned), _comparable(record["returned"]))

    def newest(self) -> int:
        return max(self.trainer.orders)

    def task_info(self) -> Record:
        return _without_pid(self.engine.task_info(self.last_task) or {})

    def data_folder(self, task_id: str) -> list[tuple[str, int]]:
        contents = self.files.contents.items()
        return sorted((name, len(content)) for (task, name), content in contents if task == task_id and "/" not in name)


def _script(looks: Any) -> Script:
    """Read from the looks when the process began to write, and what came of it; a new pid tells that it did."""
    infos = [(look["at"], look.get("task_info", {}), look.get("body")) for look in looks]
    first = infos[0][1].get("train_pid") if infos else None
    seen = [
        (at, body["ret_code"] if "status_code" not in info else info["status_code"], info or body)
        for at, info, body in infos
        if info.get("train_pid") != first or (not info and body["ret_code"] > 0)
    ]
    if not seen:
        return Script(startup=0.0, training=0.0, outcome=Stage.DIED)
    begins = seen[0][0] - 0.01
    ends = next(((at, code, info) for at, code, info in seen if code in (2, 3)), None)
    if ends is None:
        return Script(startup=begins, training=NEVER)
    outcome = Stage.SUCCEEDED if ends[1] == 2 else Stage.FAILED
    return Script(
        startup=begins, training=ends[0] - begins - 0.01, outcome=outcome, test_acc=ends[2].get("test_acc", 0.0)
    )


def _without_pid(info: Record) -> Record:
    return {key: value for key, value in info.items() if key != "train_pid"}


def _differences(answer: Answer, recorded: Record) -> Iterator[str]:
    yield from _unequal("status", answer.status, recorded["status"])
    expected = recorded["body"]
    is_json = answer.header("content-type") == "application/json" and answer.body
    yield from _unequal("body", _comparable(json.loads(answer.body) if is_json else answer.text), _comparable(expected))
    if "headers" in recorded and not _is_modelled(expected):
        headers = dict(answer.headers)
        # Where a path of the recorded machine was in the body, its length tells nothing.
        length = {"content-length": headers["content-length"]} if "/srv/gts/" in str(expected) else {}
        yield from _unequal("headers", headers, {**recorded["headers"], **length} if recorded["headers"] else headers)
        exact = (
            expected if isinstance(expected, str) else json.dumps(expected, ensure_ascii=False, separators=(",", ":"))
        )
        if "tasks" not in expected:
            yield from _unequal("bytes", answer.body, exact.encode())


def _is_modelled(body: Any) -> bool:
    return isinstance(body, dict) and bool(body.get("result"))


def _comparable(body: Any) -> Any:
    """Leave out the order of the task list, and what only a trained model could repeat."""
    if isinstance(body, dict) and "tasks" in body:
        return {**body, "tasks": sorted(body["tasks"])}
    return {**body, "result": _shape(body["result"])} if _is_modelled(body) else body


def _shape(value: Any, key: str = "") -> Any:
    match value:
        case dict():
            return {key: _shape(inner, key) for key, inner in value.items()}
        case list() if key in ("entity_list", "spo_list"):
            return [_shape(inner) for inner in value[:1]]
        case list():
            return [_shape(inner) for inner in value]
        case _:
            return type(value).__name__


def _unequal(what: str, found: object, expected: object) -> Iterator[str]:
    if found != expected:
        yield f"{what}: {found!r}, recorded {expected!r}"
