"""The life of tasks, trainings and the model slot over time, as the real service lives it."""

import json
from typing import Any

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from gts_async.emulator.backends import Stage, TrainingOrder
from gts_async.emulator.engine import Engine
from gts_async.emulator.engine_quirks import EngineQuirks
from gts_async.emulator.engine_training import MODES, fate
from gts_async.emulator.scripted import MemoryFiles, Script, ScriptedTrainer
from gts_async.wire import Answer, Request

CONTENTS = {
    "classification": {"content": "a", "label": "x", "labels": ["x", "y", "z"]},
    "similarity": {"sentence1": "a", "sentence2": "b", "label": "1"},
    "nli": {"sentence1": "a", "sentence2": "b", "label": "neutral"},
    "ie": {"task": "关系抽取", "text": "英王", "choice": [["节目", "嘉宾", "人物"], ["a", "b", "c"]]},
    "summary": {"text": "长文", "summary": ""},
}


@attrs.define
class World:
    """An engine with everything that can be plugged into it, and a clock."""

    files: MemoryFiles = attrs.Factory(MemoryFiles)
    trainer: ScriptedTrainer = attrs.field(init=False)
    engine: Engine = attrs.field(init=False)
    now: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.trainer = ScriptedTrainer(self.files)
        self.engine = Engine(self.files, self.trainer)

    def ask(self, call: str, task_id: str = "a", **document: Any) -> Answer:
        body = json.dumps({"task_id": task_id, **document}).encode()
        headers = (("content-type", "application/json"),)
        return self.engine.answer(Request("POST", f"/api/{call}", headers=headers, body=body), self.now)

    def code(self, call: str, task_id: str = "a", **document: Any) -> int:
        answer = self.ask(call, task_id, **document)
        return answer.status if answer.status != 200 else int(json.loads(answer.body)["ret_code"])

    def create(self, task_id: str = "a", engine_type: str = "qiankunding", task_type: str = "classification") -> None:
        kinds = {"engine_type": engine_type, "task_type": task_type}
        assert self.code("create_task/", task_name=task_id, **kinds) == 200
        assert self.upload(task_id, "d", json.dumps(CONTENTS[task_type]).encode()) == 200

    def upload(self, task_id: str, name: str, content: bytes) -> int:
        head = f'--B\r\nContent-Disposition: x; name="task_id"\r\n\r\n{task_id}\r\n--B\r\n'
        head += f'Content-Disposition: x; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + b"\r\n--B--"
        headers = (("content-type", "multipart/form-data; boundary=B"),)
        answer = self.engine.answer(Request("POST", "/api/upfiles/", headers=headers, body=body), self.now)
        return answer.status if answer.status != 200 else int(json.loads(answer.body)["ret_code"])

    def train(self, task_id: str = "a", **more: Any) -> int:
        files = dict.fromkeys(("train_data", "val_data", "test_data", "label_data"), "d")
        return self.code("train", task_id, **{**files, **more})

    def trained(self, task_id: str = "a", *pipeline: str) -> None:
        self.create(task_id, *pipeline)
        assert self.train(task_id) == 200
        self.now += 7

    def status(self, task_id: str = "a") -> int:
        return self.code("check_task_status", task_id)

    def statuses(self, *times: float) -> list[int]:
        """Give the status at each of these times from now on; the clock stays at the last."""
        began, seen = self.now, []
        for at in times:
            self.now = began + at
            seen.append(self.status())
        return seen


def test_a_training_goes_from_initialized_over_training_to_success() -> None:
    world = World()
    world.create()
    assert world.train() == 200
    assert world.statuses(0, 4.9, 5, 6.9, 7, 8) == [0, 0, 1, 1, 2, 2]
    assert json.loads(world.ask("check_task_status").body)["test_acc"] == 0.6


def test_a_failed_run_keeps_the_accuracy_of_the_success_before() -> None:
    world = World()
    world.trained()
    world.trainer.plan(Script(outcome=Stage.FAILED))
    assert [world.status(), world.train()] == [2, 200]
    assert world.statuses(1, 5, 7) == [2, 1, 3]
    info = world.engine.task_info("a")
    assert info is not None
    assert (info["test_acc"], info["save_path"]) == (0.6, "/srv/gts/tasks/a/outputs")
    assert world.code("start_inference") == 500


def test_a_stage_that_nobody_saw_is_written_all_the_same() -> None:
    world = World()
    world.trained()
    assert world.status() == 2
    info = world.engine.task_info("a")
    assert info is not None
    assert (info["train_pid"], info["train_data"]) == (18_000, "d")


@pytest.mark.parametrize(("asked", "shown"), [(2, 4), (5, 4), (6, 4)])
def test_a_stop_kills_what_trains(asked: int, shown: int) -> None:
    world = World()
    world.create()
    world.train()
    world.now += 5
    assert [world.status(), world.code("stop_train"), world.status()] == [1, 200, 4]
    assert world.statuses(asked) == [shown]
    assert world.code("stop_train") == -103


def test_a_process_that_starts_later_writes_over_the_stop() -> None:
    world = World()
    world.trainer.plan(Script(training=60), Script(outcome=Stage.FAILED))
    world.create()
    world.train()
    world.now += 6
    assert world.train() == 200
    assert [world.status(), world.code("stop_train")] == [1, 200]
    assert world.statuses(4, 5, 7) == [4, 1, 3]


def test_the_older_process_writes_its_end_over_the_stop_of_the_newer() -> None:
    world = World()
    world.trainer.plan(Script(training=15), Script(training=60))
    world.create()
    world.train()
    world.now += 6
    assert [world.status(), world.train()] == [1, 200]
    world.now += 6
    assert [world.status(), world.code("stop_train"), world.status()] == [1, 200, 4]
    assert world.statuses(7, 9) == [4, 2]


def test_a_killed_process_trains_for_ever_in_the_status() -> None:
    world = World()
    world.create()
    world.train()
    world.now += 6
    assert world.trainer.kill(18_000, world.now)
    assert world.statuses(0, 3600) == [1, 1]
    assert [world.code("stop_train"), world.status(), world.train()] == [500, 1, 200]


def test_a_deleted_task_takes_its_training_and_files_along() -> None:
    world = World()
    world.create()
    world.train()
    world.now += 6
    assert [world.code("delete_task/"), world.status(), world.code("delete_task/")] == [200, -100, -100]
    assert world.files.contents == {}
    world.create()
    assert world.statuses(0, 10) == [0, 0]


def test_a_training_whose_info_becomes_unreadable_fails() -> None:
    world = World()
    world.create()
    world.train()
    world.now += 6
    assert [world.status(), world.upload("a", "../task_info.json", b"{"), world.status()] == [1, 200, 500]
    assert world.statuses(2) == [3]


def test_a_training_whose_info_is_unreadable_at_its_start_leaves_it_so() -> None:
    world = World()
    world.create()
    world.train()
    world.upload("a", "../task_info.json", b"{")
    assert world.statuses(0, 6, 60) == [500, 500, 500]
    assert world.engine.task_info("a") is None


def test_a_model_answers_for_others_and_outlives_its_task() -> None:
    world = World()
    world.trained("a")
    world.create("b")
    world.create("n", "qiankunding", "nli")
    rows = [{"content": "b"}]
    assert [world.code("predict", "b", sentences=rows), world.code("start_inference", "a")] == [500, 200]
    first = world.ask("predict", "a", sentences=rows).body
    assert world.code("predict", "n", sentences=[CONTENTS["nli"]]) == 500
    assert world.code("start_inference", "b") == 500
    assert world.code("delete_task/", "a") == 200
    assert world.ask("predict", "b", sentences=rows).body == first
    assert [world.code("predict", "a"), world.code("end_inference", "a")] == [-100, 500]
    assert world.code("predict", "b", sentences=rows) == 500


def test_a_new_training_leaves_the_old_model_answering() -> None:
    world = World()
    world.trained()
    assert [world.code("start_inference"), world.train(), world.status()] == [200, 200, 5]
    world.now += 60
    assert [world.status(), world.code("predict", sentences=[{"content": "b"}])] == [2, 200]
    assert world.trainer.predicted[-1].pid == 18_000
    assert world.code("start_inference") == 200
    assert world.code("predict", sentences=[{"content": "b"}]) == 200
    assert world.trainer.predicted[-1].pid == 18_001


def test_loading_another_task_leaves_the_first_on_inference() -> None:
    world = World()
    world.trained("a")
    world.trained("b")
    assert [world.code("start_inference", task) for task in "ab"] == [200, 200]
    assert [world.status(task) for task in "ab"] == [5, 5]
    assert world.code("predict", "a", sentences=[{"content": "b"}]) == 200
    assert world.trainer.predicted[-1].task_id == "b"


def test_ending_twice_is_a_500_and_unknown_ids_still_free_the_model() -> None:
    world = World()
    world.trained()
    world.code("start_inference")
    assert [world.code("end_inference"), world.status(), world.code("end_inference")] == [200, 2, 500]
    world.code("start_inference")
    assert [world.code("end_inference", "nope"), world.status(), world.code("end_inference")] == [500, 5, 500]


def test_bad_rows_are_told_before_it_is_found_that_nothing_is_loaded() -> None:
    world = World()
    world.create()
    assert world.code("predict", sentences=[{}]) == -101
    assert world.code("predict", sentences=[{"content": "b"}]) == 500


def entity(found: dict[str, Any], kind: str) -> bool:
    return list(found) == ["entity_text", "entity_type", "entity_index", "score"] and found["entity_type"] == kind


@pytest.mark.parametrize("pipeline", sorted(MODES), ids="-".join)
def test_results_have_the_shape_of_their_pipeline(pipeline: tuple[str, str]) -> None:
    world = World()
    world.trained("a", *pipeline)
    assert world.code("start_inference") == 200
    rows = [CONTENTS[pipeline[1]]] * 2
    document = json.loads(world.ask("predict", sentences=rows).body)
    assert list(document) == ["ret_code", "result", "message"]
    result = document["result"]
    match pipeline[1]:
        case "summary":
            assert list(result) == ["0", "1"]
        case "ie":
            assert [list(found) for found in result] == [["task", "text", "entity_list", "spo_list", "choice"]] * 2
            relation = result[0]["spo_list"][0]
            assert list(relation) == ["predicate", "subject", "object", "score"]
            assert entity(relation["subject"], "节目")
            assert entity(relation["object"], "人物")
            assert len(result[0]["entity_list"]) == 4
        case kind:
            labels = {"similarity": "01", "nli": ("entailment", "contradiction", "neutral")}.get(kind, "xyz")
            assert list(result) == ["predictions", "probabilities"]
            assert all(sum(row) == pytest.approx(1) for row in result["probabilities"])
            likeliest = [labels[row.index(max(row))] for row in result["probabilities"]]
            assert (len(likeliest), result["predictions"]) == (2, likeliest)


@pytest.mark.parametrize(
    ("pipeline", "result"),
    [
        (("qiankunding", "classification"), {"predictions": [], "probabilities": []}),
        (("qiankunding", "nli"), {"predictions": [], "probabilities": []}),
        (("qiankunding", "similarity"), 500),
        (("bagualu", "classification"), None),
        (("bagualu", "ie"), []),
        (("bagualu", "summary"), {}),
    ],
)
def test_no_rows_have_a_result_of_their_own(pipeline: tuple[str, str], result: object) -> None:
    world = World()
    world.trained("a", *pipeline)
    world.code("start_inference")
    answer = world.ask("predict", sentences=[])
    assert (answer.status if answer.status == 500 else json.loads(answer.body)["result"]) == result


@pytest.mark.parametrize(
    ("pipeline", "row", "code"),
    [
        (("bagualu", "classification"), {"content": 5, "id": 1}, 200),
        (("bagualu", "classification"), {"content": None}, 500),
        (("bagualu", "classification"), {"content": ["a"]}, 500),
        (("qiankunding", "classification"), "content", 500),
        (("qiankunding", "classification"), "a", -101),
        (("qiankunding", "classification"), 5, 500),
        (("qiankunding", "nli"), {"sentence1": "a", "sentence2": "b"}, 500),
        (("qiankunding", "nli"), {"sentence1": "a", "sentence2": "b", "label": 0}, 500),
        (("qiankunding", "similarity"), {"sentence1": "a", "sentence2": "b", "label": 1}, 500),
        (("qiankunding", "similarity"), {"sentence1": "a", "label": "1"}, 500),
        (("bagualu", "ie"), {"task": "关系抽取", "text": "李", "choice": ["人"]}, 500),
        (("bagualu", "ie"), {"task": "实体识别", "text": "李", "choice": ["人"]}, 200),
        (("bagualu", "ie"), {"task": "实体识别", "text": "李"}, -101),
        (("bagualu", "summary"), {"text": "a"}, -101),
    ],
)
def test_rows_that_do_not_fit_are_refused_or_break_the_pipeline(
    pipeline: tuple[str, str], row: object, code: int
) -> None:
    world = World()
    world.trained("a", *pipeline)
    world.code("start_inference")
    assert world.code("predict", sentences=[row]) == code


ORDER = TrainingOrder(
    task_id="a", engine_type="bagualu", task_type="ie", train_data="t", val_data="v", test_data="t", label_data="l",
    unlabeled_data="", train_mode="standard", max_len=1, max_num_epoch=1, min_num_epoch=1, seed=1, gpuid=-1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"train_mode": "fast"}, Stage.FAILED),
        ({"train_mode": "advanced"}, Stage.FAILED),
        ({"train_mode": "foo"}, Stage.DIED),
        ({"task_type": "nli"}, Stage.FAILED),
        ({"engine_type": "foo"}, Stage.DIED),
        ({"engine_type": "qiankunding", "task_type": "nli", "train_mode": "fast"}, None),
        ({"train_data": "a;id>INJECTED;.json"}, Stage.DIED),
        ({"task_id": "sp ace"}, Stage.DIED),
        ({"unlabeled_data": "$(id)"}, Stage.DIED),
    ],
)
def test_some_orders_are_decided_before_any_data_is_read(changes: dict[str, str], expected: Stage | None) -> None:
    assert fate(attrs.evolve(ORDER, **changes)) is expected


def test_the_order_holds_what_the_engine_coerced() -> None:
    world = World()
    world.create()
    assert world.train(gpuid="1", max_len=64.9, seed=True, unlabeled_data="not-checked") == 200
    order = world.trainer.orders[18_000]
    assert (order.gpuid, order.max_len, order.seed, order.max_num_epoch) == (1, 64, 1, 3)
    assert (order.train_data, order.unlabeled_data, order.train_mode) == ("d", "not-checked", "standard")


def test_names_are_found_by_where_they_lead() -> None:
    world = World()
    world.create("a")
    world.create("b")
    assert world.upload("a", "../../b/data/moved", b"{}") == 200
    assert world.files.contents["b", "moved"] == b"{}"
    assert world.train("a", train_data="../../b/data/d", val_data="./d", test_data="/srv/gts/tasks/b/data/d") == 200
    assert world.train("a", train_data="d/") == -101
    assert [world.upload("a", "sub/x", b""), world.upload("a", "..", b"")] == [500, 500]


class RefusingFiles(MemoryFiles):
    """Files that never leave their folder, as those on a disk have to be."""

    def write(self, task_id: str, name: str, content: bytes) -> None:
        if "/" in name:
            raise ValueError(name)
        super().write(task_id, name, content)

    def read(self, task_id: str, name: str) -> bytes:
        if "/" in name:
            raise ValueError(name)
        return super().read(task_id, name)


def test_a_name_that_the_backend_refuses_is_a_500() -> None:
    world = World(RefusingFiles())
    world.create()
    assert [world.upload("a", "../x", b""), world.upload("a", "/etc/x", b"")] == [500, 500]
    assert [world.train(train_data="../x"), world.train(train_data="/etc/x")] == [500, 500]
    assert world.upload("a", "x", b"") == 200


STEPS = st.lists(
    st.sampled_from(["wait", "train", "stop_train", "start_inference", "end_inference", "kill", "predict"]), max_size=25
)


@given(STEPS, st.sampled_from(sorted(MODES)))
@settings(max_examples=80, deadline=None)
def test_whatever_is_done_the_status_is_one_that_there_is(steps: list[str], pipeline: tuple[str, str]) -> None:
    world = World()
    world.engine = Engine(world.files, world.trainer, quirks=EngineQuirks(bagualu_success_is_500=False))
    world.create("a", *pipeline)
    for step in steps:
        match step:
            case "wait":
                world.now += 3
            case "train":
                assert world.train() == 200
            case "kill":
                for pid in world.trainer.orders:
                    world.trainer.kill(pid, world.now)
            case call:
                assert world.code(call, sentences=[CONTENTS[pipeline[1]]]) in (200, -103, 500)
        assert world.status() in range(6)
