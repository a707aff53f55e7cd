"""Every oddity of the engine, switched on and off."""

import json
from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from gts_async.emulator.backends import Stage
from gts_async.emulator.engine import Engine
from gts_async.emulator.engine_quirks import EngineQuirks
from gts_async.emulator.scripted import MemoryFiles, Script, ScriptedTrainer
from gts_async.wire import Answer, Request

ROW = b'{"content":"a","label":"x","id":1}\n'
LABELS = b'{"labels":["x","y"]}\n'
DATA = {"train_data": "t", "val_data": "t", "test_data": "t", "label_data": "l"}
NOW = 1_700_000_000.0


@attrs.define
class Service:
    """An engine whose trainings take 5 s to start and 2 s to train, and the clock."""

    engine: Engine
    trainer: ScriptedTrainer
    files: MemoryFiles
    now: float = NOW

    def ask(self, path: str, **document: Any) -> Answer:
        headers = (("content-type", "application/json"),)
        return self.engine.answer(Request("POST", path, headers=headers, body=json.dumps(document).encode()), self.now)

    def code(self, path: str, **document: Any) -> int:
        """Give the ret_code, or the HTTP status if it is not 200."""
        answer = self.ask(path, **document)
        return answer.status if answer.status != 200 else int(json.loads(answer.body)["ret_code"])

    def status(self, task_id: str = "a") -> int:
        return self.code("/api/check_task_status", task_id=task_id)

    def create(self, task_id: str = "a", engine_type: str = "qiankunding", task_type: str = "classification") -> int:
        created = self.code("/api/create_task/", task_name=task_id, task_type=task_type, engine_type=engine_type)
        self.upload(task_id, {"t": ROW, "l": LABELS})
        return created

    def upload(self, task_id: str, files: Mapping[str, bytes]) -> int:
        body = b'--B\r\nContent-Disposition: form-data; name="task_id"\r\n\r\n' + task_id.encode()
        for name, content in files.items():
            disposition = f'Content-Disposition: form-data; name="files"; filename="{name}"'.encode()
            body += b"\r\n--B\r\n" + disposition + b"\r\n\r\n" + content
        headers = (("content-type", "multipart/form-data; boundary=B"),)
        answer = self.engine.answer(
            Request("POST", "/api/upfiles/", headers=headers, body=body + b"\r\n--B--"), self.now
        )
        return answer.status if answer.status != 200 else int(json.loads(answer.body)["ret_code"])

    def train(self, task_id: str = "a", **more: Any) -> int:
        return self.code("/api/train", task_id=task_id, **{**DATA, **more})

    def trained(self, task_id: str = "a", engine_type: str = "qiankunding") -> None:
        self.create(task_id, engine_type)
        assert self.train(task_id) == 200
        self.wait(7)

    def serving(self, task_id: str = "a", engine_type: str = "qiankunding") -> None:
        self.trained(task_id, engine_type)
        assert self.code("/api/start_inference", task_id=task_id) == 200

    def predict(self, task_id: str = "a") -> int:
        return self.code("/api/predict", task_id=task_id, sentences=[{"content": "b"}])

    def wait(self, seconds: float) -> None:
        self.now += seconds


def service(**quirks: Any) -> Service:
    files = MemoryFiles()
    trainer = ScriptedTrainer(files)
    return Service(Engine(files, trainer, quirks=EngineQuirks(**quirks)), trainer, files)


def either_way(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("quirk", [True, False], ids=[name, f"not {name}"])


def test_the_defaults_are_the_real_service() -> None:
    on = attrs.asdict(EngineQuirks())
    assert on.pop("half_written_every") == 0
    assert set(on.values()) == {True}


def test_none_switches_every_one_off() -> None:
    assert not any(attrs.asdict(EngineQuirks.none()).values())


def test_without_quirks_a_task_lives_as_one_would_think() -> None:
    sane = service(**attrs.asdict(EngineQuirks.none()))
    sane.create("a", "bagualu")
    seen = [sane.status(), sane.train(), sane.status()]
    sane.wait(7)
    answer = sane.ask("/api/check_task_status", task_id="a")
    assert seen == [0, 200, 1]
    assert json.loads(answer.body) == {"ret_code": 2, "message": "Train Success", "test_acc": None}
    assert [sane.code("/api/start_inference", task_id="a"), sane.predict(), sane.predict()] == [200, 200, 200]
    assert [sane.code("/api/end_inference", task_id="a"), sane.status()] == [200, 2]


@either_way("bagualu_success_is_500")
def test_bagualu_success_cannot_be_read(quirk: bool) -> None:
    engine = service(bagualu_success_is_500=quirk)
    engine.trained("a", "bagualu")
    assert [engine.status(), engine.status()] == ([500, 500] if quirk else [2, 2])
    engine.trained("q", "qiankunding")
    assert engine.status("q") == 2


@either_way("closes_after_500")
def test_whoever_serves_the_engine_sees_whether_to_close(quirk: bool) -> None:
    assert service(closes_after_500=quirk).engine.quirks.closes_after_500 is quirk


@either_way("redirects_slashes")
def test_a_wrong_slash_is_sent_elsewhere(quirk: bool) -> None:
    answer = service(redirects_slashes=quirk).ask("/api/list_task")
    if quirk:
        assert (answer.status, answer.body) == (307, b"")
        assert answer.header("location") == "http://127.0.0.1:5201/api/list_task/"
    else:
        assert (answer.status, answer.header("location")) == (200, None)


@either_way("accepts_unsafe_names")
@pytest.mark.parametrize("name", ["a/b", "a b", "../c", ".", "a;id", "任务", "-a", "x" * 201])
def test_tasks_with_unsafe_names_are_created(quirk: bool, name: str) -> None:
    engine = service(accepts_unsafe_names=quirk)
    assert engine.code("/api/create_task/", task_name=name) == (200 if quirk else -104)


@either_way("accepts_unsafe_names")
@pytest.mark.parametrize("name", ["a b", "../c", "/etc/c", "a;id", "任务", "-a", "x" * 201])
def test_files_with_unsafe_names_are_kept(quirk: bool, name: str) -> None:
    engine = service(accepts_unsafe_names=quirk)
    engine.create()
    assert engine.upload("a", {"safe.json": b"1", name: b"2"}) == (200 if quirk else -104)
    assert (b"2" in engine.files.contents.values()) is quirk
    assert (("a", "safe.json") in engine.files.contents) is quirk


@either_way("accepts_any_pipeline")
@pytest.mark.parametrize("pipeline", [("bagualu", "nli"), ("qiankunding", "ie"), ("no", "no"), ("", "")])
def test_tasks_that_nothing_can_train_are_created(quirk: bool, pipeline: tuple[str, str]) -> None:
    assert service(accepts_any_pipeline=quirk).create("a", *pipeline) == (200 if quirk else -104)


@either_way("opens_folders")
def test_an_empty_file_name_opens_a_folder(quirk: bool) -> None:
    engine = service(opens_folders=quirk)
    engine.create()
    assert engine.train(test_data="") == (500 if quirk else -101)
    assert engine.upload("a", {"": b""}) == (500 if quirk else -104)


@either_way("starts_bad_orders")
@pytest.mark.parametrize(
    "order", [{"train_mode": "foo"}, {"train_data": "t t"}, {"unlabeled_data": "$x"}, {"train_mode": "fast"}]
)
def test_orders_that_cannot_start_are_scheduled(quirk: bool, order: Mapping[str, str]) -> None:
    engine = service(starts_bad_orders=quirk)
    engine.create()
    engine.upload("a", {"t t": ROW})
    assert engine.train(**order) == (200 if quirk else -104)
    engine.wait(3600)
    failed_in_the_end = quirk and order == {"train_mode": "fast"}
    assert engine.status() == (3 if failed_in_the_end else 0)


@either_way("trains_twice")
def test_a_second_training_is_accepted_during_the_first(quirk: bool) -> None:
    engine = service(trains_twice=quirk)
    engine.create()
    assert [engine.train(), engine.train()] == ([200, 200] if quirk else [200, -104])
    engine.wait(6)
    assert engine.train() == (200 if quirk else -104)
    engine.wait(60)
    assert [engine.status(), engine.train()] == [2, 200]
    assert len(engine.trainer.orders) == (4 if quirk else 2)


@either_way("wipes_outputs")
def test_a_new_training_deletes_the_old_model(quirk: bool) -> None:
    engine = service(wipes_outputs=quirk)
    engine.trained()
    engine.trainer.plan(Script(outcome=Stage.FAILED))
    assert engine.train() == 200
    engine.wait(7)
    assert engine.status() == 3
    assert engine.code("/api/start_inference", task_id="a") == (500 if quirk else 200)


@either_way("keeps_old_status")
def test_the_old_status_stays_until_the_process_writes(quirk: bool) -> None:
    engine = service(keeps_old_status=quirk)
    engine.trained()
    assert [engine.status(), engine.train(), engine.status()] == [2, 200, 2 if quirk else 1]
    engine.wait(4.9)
    assert engine.status() == (2 if quirk else 1)
    engine.wait(0.2)
    assert engine.status() == 1


@either_way("refuses_early_stop")
def test_a_stop_before_on_training_is_refused_and_lost(quirk: bool) -> None:
    engine = service(refuses_early_stop=quirk)
    engine.create()
    engine.train()
    assert engine.code("/api/stop_train", task_id="a") == (-103 if quirk else 200)
    engine.wait(7)
    assert engine.status() == (2 if quirk else 4)


@either_way("fails_to_stop_dead")
def test_a_dead_process_cannot_be_stopped(quirk: bool) -> None:
    engine = service(fails_to_stop_dead=quirk)
    engine.create()
    engine.train()
    engine.wait(6)
    assert [engine.status(), engine.trainer.kill(18_000, engine.now)] == [1, True]
    assert engine.code("/api/stop_train", task_id="a") == (500 if quirk else 200)
    assert engine.status() == (1 if quirk else 4)


@either_way("hides_deaths")
@pytest.mark.parametrize(("seconds", "shown"), [(0.0, 0), (2.0, 1)])
def test_a_death_leaves_the_status_as_it_was(quirk: bool, seconds: float, shown: int) -> None:
    engine = service(hides_deaths=quirk)
    engine.trainer.plan(Script(training=seconds, outcome=Stage.DIED))
    engine.create()
    engine.train()
    engine.wait(3600)
    assert engine.status() == (shown if quirk else 3)


@either_way("hides_deaths")
def test_an_order_that_the_shell_breaks_up_leaves_no_trace(quirk: bool) -> None:
    engine = service(hides_deaths=quirk)
    engine.create()
    engine.train(train_mode="foo")
    assert (engine.status(), engine.trainer.orders) == (0 if quirk else 3, {})


@either_way("stops_newest_only")
def test_a_stop_leaves_the_other_process_running(quirk: bool) -> None:
    engine = service(stops_newest_only=quirk)
    engine.trainer.plan(Script(training=60))
    engine.create()
    engine.train()
    engine.wait(10)
    engine.train()
    assert [engine.status(), engine.code("/api/stop_train", task_id="a"), engine.status()] == [1, 200, 4]
    engine.wait(5)
    assert engine.status() == (1 if quirk else 4)
    engine.wait(2)
    assert engine.status() == (2 if quirk else 4)


@either_way("serves_any_id")
def test_any_id_is_answered_by_what_is_loaded(quirk: bool) -> None:
    engine = service(serves_any_id=quirk)
    engine.serving("a")
    engine.create("never-trained")
    assert [engine.predict("a"), engine.predict("never-trained")] == [200, 200 if quirk else -104]
    assert {call.task_id for call in engine.trainer.predicted} == {"a"}


@either_way("fails_to_load_nothing")
def test_a_task_without_a_model_cannot_be_loaded(quirk: bool) -> None:
    engine = service(fails_to_load_nothing=quirk)
    engine.create()
    assert engine.code("/api/start_inference", task_id="a") == (500 if quirk else -104)
    assert engine.status() == 0


@either_way("one_predict_per_load")
def test_bagualu_classification_predicts_once_per_load(quirk: bool) -> None:
    engine = service(one_predict_per_load=quirk)
    engine.serving("a", "bagualu")
    assert [engine.predict(), engine.predict()] == [200, 500 if quirk else 200]
    assert [engine.code("/api/start_inference", task_id="a"), engine.predict()] == [200, 200]


@either_way("blind_end")
def test_the_end_frees_first_and_writes_success_for_whatever_is_named(quirk: bool) -> None:
    engine = service(blind_end=quirk)
    engine.serving("a")
    engine.create("b")
    assert engine.code("/api/end_inference", task_id="b") == (200 if quirk else -104)
    assert engine.predict("a") == (500 if quirk else 200)
    assert [engine.status("a"), engine.status("b")] == ([5, 500] if quirk else [5, 0])


@either_way("serving_survives_restart")
def test_on_inference_survives_a_restart(quirk: bool) -> None:
    engine = service(serving_survives_restart=quirk)
    engine.serving()
    engine.engine.restart()
    assert [engine.status(), engine.predict()] == [5 if quirk else 2, 500]
    assert engine.code("/api/end_inference", task_id="a") == 500
    assert engine.status() == (5 if quirk else 2)


@pytest.mark.parametrize(("every", "seen"), [(0, [0, 0, 0, 0]), (2, [0, 500, 0, 500]), (3, [0, 0, 500, 0])])
def test_looks_meet_a_half_written_file(every: int, seen: list[int]) -> None:
    engine = service(half_written_every=every)
    engine.create()
    assert [engine.status() for _ in seen] == seen
