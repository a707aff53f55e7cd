"""The official client of GTS Engine, as it is on PyPI, against the emulated engine, over HTTP on loopback.

Its recorded calls are in `tests/samples/official`. It blocks, so the servers run in a thread of their own.
"""

import builtins
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import requests
from anyio.from_thread import start_blocking_portal
from gts_engine_client import GTSEngineClient

from gts_async.emulator.backends import Stage
from gts_async.emulator.engine import Engine
from gts_async.emulator.scripted import MemoryFiles, Script, ScriptedTrainer
from gts_async.local.asgi import EmulatorApp, Message, Receive, Send, Worker
from gts_async.local.sample import LABELS, sample_rows, write_sample
from gts_async.local.serving import serve
from gts_async.local.stack import MAX_ENGINE_BODY, EmbeddedEngine
from gts_async.wire import Answer, Request

Record = Mapping[str, Any]

SAMPLES = Path(__file__).parents[1] / "samples" / "official"
RECORDS = [json.loads(line) for line in (SAMPLES / "gts-engine-client-0.1.6.jsonl").read_text().splitlines()]
FAILED_422 = {"ret_code": 422, "message": "Server Failed"}
FAILED_500 = {"ret_code": 500, "message": "Server Failed"}
BIG = 8_000_000
"""Bytes of the file that stands for the recorded one of 200 MB."""

leaks_files = pytest.mark.filterwarnings(
    # the client opens the file that it uploads and never closes it
    "ignore:unclosed file:ResourceWarning"
)


@attrs.define
class Served:
    """An emulated engine that is served, what it was asked, and the time that it is told."""

    trainer: ScriptedTrainer
    engine: Engine
    now: float = 1_795_326_117.0
    exchanges: list[tuple[Request, Answer]] = attrs.field(factory=list)
    connections: list[tuple[str, int]] = attrs.field(factory=list)
    """Of each exchange, where its connection comes from."""
    url: str = ""

    def answer(self, request: Request, _now: float) -> Answer:
        answer = self.engine.answer(request, self.now)
        self.exchanges.append((request, answer))
        return answer

    @property
    def client(self) -> GTSEngineClient:
        return client_of(self.url)

    def taken(self) -> list[tuple[Request, Answer]]:
        """Give the exchanges since the last time."""
        taken, self.exchanges = self.exchanges, []
        return taken


def client_of(url: str) -> GTSEngineClient:
    return GTSEngineClient(*url.removeprefix("http://").split(":"))


@contextmanager
def serving() -> Iterator[Served]:
    files = MemoryFiles()
    trainer = ScriptedTrainer(files)
    served = Served(trainer, Engine(files, trainer))
    worker = Worker("engine")
    emulator = EmulatorApp(served.answer, worker, max_body=MAX_ENGINE_BODY, closes_after_500=True)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        served.connections.append(scope["client"])
        await emulator(scope, receive, send)

    with start_blocking_portal() as portal, ExitStack() as stack:
        stack.callback(worker.close)
        served.url = stack.enter_context(portal.wrap_async_context_manager(serve(app))).url
        yield served


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as served:
        yield served


@pytest.fixture
def trained(served: Served, tmp_path: Path) -> Callable[..., GTSEngineClient]:
    def train(task_id: str, task_type: str, engine_type: str, row: Record) -> GTSEngineClient:
        client = served.client
        assert client.create_task(task_id, task_type, engine_type)["ret_code"] == 200
        rows, labels = tmp_path / "rows.json", tmp_path / "labels.json"
        rows.write_text(json.dumps(row) + "\n")
        labels.write_text('{"labels": ["a", "b"]}\n' if task_type == "classification" else json.dumps(row) + "\n")
        for path in (rows, labels):
            assert client.upload_file(task_id, str(path))["ret_code"] == 200
        answer = client.start_train(task_id, rows.name, rows.name, labels.name, 0, rows.name, "")
        assert answer["ret_code"] == 200
        served.now += 60
        served.taken()
        return client

    return train


CLASSIFIED = {"id": 1, "content": "x", "label": "a"}
EXTRACTED = {"task": "实体识别", "text": "我叫李开复", "choice": ["人名"], "entity_list": []}


# The recorded calls


@pytest.fixture(scope="module")
def differences(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, list[str]]]:
    with serving() as served:
        player = Player(served, tmp_path_factory.mktemp("official"))
        player.prepare()
        yield {record["seq"]: list(player.play(record)) for record in RECORDS}


@leaks_files
@pytest.mark.parametrize("seq", [pytest.param(r["seq"], id=r["name"]) for r in RECORDS])
def test_the_client_sends_and_gets_what_was_recorded(differences: dict[int, list[str]], seq: int) -> None:
    assert differences[seq] == []


def test_every_recorded_call_is_there() -> None:
    assert len(RECORDS) == 35
    methods = {name for name, _ in inspect.getmembers(GTSEngineClient, inspect.isfunction) if name[0] != "_"}
    assert {record["call"] for record in RECORDS if "call" in record} == methods


@attrs.define
class Player:
    """Makes the recorded calls one after the other, and tells what came out differently."""

    served: Served
    folder: Path

    def prepare(self) -> None:
        """Make the tasks that were there when the recording began; the bagualu one among them has been trained."""
        listed = next(record["returned"]["tasks"] for record in RECORDS if record["name"] == "list_tasks")
        client = self.served.client
        for name in (*listed, "offbig"):
            if name not in ("off", "offbig"):
                client.create_task(name, "ie", "bagualu")
        path = self.folder / "ie.json"
        path.write_text(json.dumps(EXTRACTED) + "\n")
        client.upload_file("bg-ie", str(path))
        client.start_train("bg-ie", path.name, path.name, path.name, 0, path.name, "")
        self.served.now += 60
        self.served.trainer.default = Script(startup=6.9, training=0.98, test_acc=2 / 3)
        self.served.taken()

    def play(self, record: Record) -> Iterator[str]:
        if "timeline" in record:
            yield from self.poll(record["timeline"])
            return
        client = self.served.client
        if record["name"] == "server down":
            client = GTSEngineClient("127.0.0.1", 1)
        if record["kwargs"].get("task_id") == "offbig":
            client.create_task("offbig", "ie", "bagualu")
            self.served.taken()
        try:
            returned = getattr(client, record["call"])(*record["args"], **self.arguments(record))
        except Exception as error:
            yield from unequal("raised", type(error), _kind(record.get("raised")))
        else:
            yield from unequal("returned", comparable(returned), comparable(record.get("returned")))
        yield from self.sent(record)

    def poll(self, timeline: list[tuple[float, Record]]) -> Iterator[str]:
        began = self.served.now
        for at, answer in timeline:
            self.served.now = began + at
            yield from unequal(f"at {at}", self.served.client.check_task_status("off"), answer)
        yield from unequal("round trips", len(self.served.taken()), 2 * len(timeline))

    def arguments(self, record: Record) -> Record:
        name = record["kwargs"].get("local_data_path")
        if name is None:
            return record["kwargs"]
        path = self.folder / name
        if record.get("raised") is None:
            path.write_bytes(record["content"].encode() if "content" in record else bytes(BIG))
        return {**record["kwargs"], "local_data_path": str(path)}

    def sent(self, record: Record) -> Iterator[str]:
        exchanges = self.served.taken()
        less = 0 if "content" in record or record["call"] != "upload_file" else 200 * 1024 * 1024 - BIG
        for (request, answer), recorded in zip(exchanges, record["exchanges"], strict=False):
            assert isinstance(request.body, bytes)
            yield from unequal("request", (request.method, request.path), ("POST", recorded["path"]))
            yield from unequal("bytes", len(request.body), recorded["bytes"] - less)
            if "body" in recorded:
                yield from unequal("body", json.loads(request.body), recorded["body"])
            yield from unequal("status", answer.status, recorded["status"])
            location = self.served.url + recorded["location"] if "location" in recorded else None
            yield from unequal("location", answer.header("location"), location)
        yield from unequal("round trips", len(exchanges), len(record["exchanges"]))


def _kind(name: str | None) -> object:
    return name and getattr(builtins if name != "ConnectionError" else requests, name)


def comparable(returned: Any) -> Any:
    """Leave out the order of the tasks, and the numbers that only the same model could repeat."""
    match returned:
        case {"tasks": tasks}:
            return {**returned, "tasks": sorted(tasks)}
        case {"result": {"predictions": predictions, "probabilities": probabilities}}:
            shape = [type(one) for one in predictions], [[type(p) for p in row] for row in probabilities]
            return {**returned, "result": shape}
        case _:
            return returned


def unequal(what: str, found: object, expected: object) -> Iterator[str]:
    if found != expected:
        yield f"{what}: {found!r}, recorded {expected!r}"


# What its users run into


@pytest.mark.parametrize(
    ("call", "arguments", "paths"),
    [
        ("create_task", ("t", "ie", "bagualu"), ["/api/create_task/"]),
        ("delete_task", ("t",), ["/api/delete_task/"]),
        ("start_train", ("t", "a", "b", "c", 0, "d", ""), ["/api/train"]),
        ("list_tasks", (), ["/api/list_task", "/api/list_task/"]),
        ("check_task_status", ("t",), ["/api/check_task_status/", "/api/check_task_status"]),
        ("stop_train", ("t",), ["/api/stop_train/", "/api/stop_train"]),
        ("start_inference", ("t",), ["/api/start_inference/", "/api/start_inference"]),
        ("end_inference", ("t",), ["/api/end_inference/", "/api/end_inference"]),
        ("inference", ("t", []), ["/api/predict/", "/api/predict"]),
    ],
)
def test_a_call_takes_one_round_trip_or_two(served: Served, call: str, arguments: Any, paths: list[str]) -> None:
    assert "message" in getattr(served.client, call)(*arguments)
    exchanges = served.taken()
    assert [request.path for request, _ in exchanges] == paths
    assert [answer.status == 307 for _, answer in exchanges] == [True] * (len(paths) - 1) + [False]


def test_an_upload_sends_its_whole_body_twice_and_leaves_the_file_open(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(b"{}\n" * 10_000)
    with pytest.warns(ResourceWarning, match=r"unclosed file.*train\.json"):
        assert served.client.upload_file("nobody", str(path)) == {"ret_code": -100, "message": "task id不存在"}
    first, second = [request for request, _ in served.taken()]
    assert first.body == second.body
    assert len(first.body) > 30_000


def test_every_call_has_a_connection_of_its_own(served: Served) -> None:
    client = served.client
    # A 500 closes its connection unannounced: who asks again on another one never notices.
    assert [client.end_inference("nobody") for _ in range(20)] == [FAILED_500] * 20
    assert len(served.taken()) == 40
    assert len(set(served.connections)) == 20


@leaks_files
def test_a_training_with_the_defaults_is_refused(served: Served, trained: Callable[..., GTSEngineClient]) -> None:
    client = trained("t", "classification", "qiankunding", CLASSIFIED)
    required = ("t", "rows.json", "rows.json", "labels.json", 0)
    assert client.start_train(*required) == FAILED_422
    assert client.start_train(*required, test_data="rows.json") == FAILED_422
    assert client.start_train(*required, unlabeled_data="") == FAILED_422
    reasons = [json.loads(answer.body)["detail"] for _, answer in served.taken()]
    missing = [[fault["loc"][1] for fault in reason] for reason in reasons]
    assert missing == [["test_data", "unlabeled_data"], ["unlabeled_data"], ["test_data"]]
    assert client.start_train(*required, test_data="", unlabeled_data="") == FAILED_500
    assert client.start_train(*required, "rows.json", "") == {"ret_code": 200, "message": "训练调度成功"}


@leaks_files
@pytest.mark.parametrize(("task_type", "row"), [("ie", EXTRACTED), ("classification", CLASSIFIED)])
def test_a_finished_bagualu_task_looks_failed_until_it_is_loaded(
    trained: Callable[..., GTSEngineClient], task_type: str, row: Record
) -> None:
    client = trained("t", task_type, "bagualu", row)
    assert [client.check_task_status("t") for _ in range(3)] == [FAILED_500] * 3
    assert client.start_inference("t") == {"ret_code": 200, "message": "加载预测模型"}
    assert client.check_task_status("t") == {"ret_code": 5, "message": "On Inference"}
    assert client.end_inference("t") == {"ret_code": 200, "message": "释放预测模型"}
    assert client.check_task_status("t") == FAILED_500


@leaks_files
def test_bagualu_classification_predicts_once_a_load(trained: Callable[..., GTSEngineClient]) -> None:
    client = trained("t", "classification", "bagualu", CLASSIFIED)
    for _ in range(2):
        client.start_inference("t")
        answers = [client.inference("t", [{"content": "x"}]) for _ in range(3)]
        assert [answer["ret_code"] for answer in answers] == [200, 500, 500]


@leaks_files
def test_after_a_second_training_the_first_success_is_still_shown(
    served: Served, trained: Callable[..., GTSEngineClient]
) -> None:
    client = trained("t", "classification", "qiankunding", CLASSIFIED)
    before = client.check_task_status("t")
    served.trainer.plan(Script(startup=5, training=2, outcome=Stage.FAILED))
    client.start_train("t", "rows.json", "rows.json", "labels.json", 0, "rows.json", "")
    seen = []
    for _ in range(4):
        seen.append(client.check_task_status("t"))
        served.now += 3
    assert before["message"] == "Train Success"
    training, failed = {"ret_code": 1, "message": "On Training"}, {"ret_code": 3, "message": "Train Failed"}
    assert seen == [before, before, training, failed]


def test_a_redirect_leads_where_the_client_had_asked(served: Served) -> None:
    port = int(served.url.rsplit(":", 1)[1])
    assert GTSEngineClient("localhost", port).list_tasks()["ret_code"] == 200
    assert served.taken()[0][1].header("location") == f"http://localhost:{port}/api/list_task/"


# The engine that really trains


@leaks_files
@pytest.mark.slow
def test_a_whole_journey_with_an_engine_that_really_trains(tmp_path: Path) -> None:
    paths = write_sample(tmp_path / "sample", rows=120)
    with start_blocking_portal() as portal:
        embedded = EmbeddedEngine(tmp_path / "engine")
        with portal.wrap_async_context_manager(embedded):
            client = client_of(embedded.url)
            created = client.create_task("tnews", "classification", "qiankunding")
            assert created == {"ret_code": 200, "message": "task成功创建", "task_id": "tnews"}
            for path in paths:
                assert client.upload_file("tnews", str(path)) == {"ret_code": 200, "message": "上传成功"}
            train, dev, test, labels = (path.name for path in paths)
            assert client.start_train("tnews", train, dev, labels, 0, test, "")["ret_code"] == 200
            seen = followed(client, "tnews")
            assert seen[-1]["message"] == "Train Success"
            assert 0.2 < seen[-1]["test_acc"] <= 1
            # Between two looks the training itself may be over.
            assert [status["ret_code"] for status in seen] in ([0, 1, 2], [0, 2])
            assert client.start_inference("tnews")["ret_code"] == 200
            result = client.inference("tnews", sample_rows(5))["result"]
            assert len(result["predictions"]) == 5
            assert set(result["predictions"]) <= set(LABELS)
            assert [sum(row) for row in result["probabilities"]] == pytest.approx([1] * 5)
            assert client.end_inference("tnews")["ret_code"] == 200
            assert client.check_task_status("tnews") == seen[-1]
            assert client.delete_task("tnews") == {"ret_code": 200, "message": "Success"}
            assert client.list_tasks()["tasks"] == []


def followed(client: GTSEngineClient, task_id: str) -> list[Record]:
    """Poll as the users of the client do; give each status once."""
    seen: list[Record] = []
    until = time.monotonic() + 60
    while time.monotonic() < until:
        status = client.check_task_status(task_id)
        if not seen or status != seen[-1]:
            seen.append(status)
        if status["ret_code"] not in (0, 1):
            return seen
        time.sleep(0.01)
    raise AssertionError(f"not over after 60 s: {seen}")
