"""Files in memory and trainings by script."""

import attrs
import pytest

from gts_async.emulator.backends import Stage, TrainingOrder, TrainingState
from gts_async.emulator.scripted import MemoryFiles, Script, ScriptedTrainer

ORDER = TrainingOrder(
    task_id="a", engine_type="qiankunding", task_type="nli", train_data="t", val_data="v", test_data="t",
    label_data="l", unlabeled_data="", train_mode="standard", max_len=1, max_num_epoch=1, min_num_epoch=1, seed=1,
    gpuid=0,
)  # fmt: skip


def test_files_are_kept_by_task_and_name_and_forgotten_by_task() -> None:
    files = MemoryFiles()
    files.write("a", "x", b"1")
    files.write("b", "x", b"2")
    files.write("a", "x", b"3")
    assert files.read("a", "x") == b"3"
    files.remove("a")
    assert files.contents == {("b", "x"): b"2"}
    with pytest.raises(KeyError):
        files.read("a", "x")


@pytest.mark.parametrize(
    ("script", "now", "state"),
    [
        (Script(), 4.9, TrainingState(Stage.STARTING)),
        (Script(), 5.0, TrainingState(Stage.TRAINING)),
        (Script(), 7.0, TrainingState(Stage.SUCCEEDED, 0.6)),
        (Script(startup=0, training=0, test_acc=0.9), 0.0, TrainingState(Stage.SUCCEEDED, 0.9, had_begun=False)),
        (Script(outcome=Stage.FAILED), 7.0, TrainingState(Stage.FAILED)),
        (Script(outcome=Stage.DIED), 7.0, TrainingState(Stage.DIED)),
        (Script(outcome=Stage.DIED, training=0), 7.0, TrainingState(Stage.DIED, had_begun=False)),
    ],
)
def test_the_script_and_the_time_decide_the_state(script: Script, now: float, state: TrainingState) -> None:
    trainer = ScriptedTrainer(None, script)
    assert trainer.state(trainer.start(ORDER, 0.0), now) == state


def test_bagualu_measures_no_accuracy() -> None:
    trainer = ScriptedTrainer()
    pid = trainer.start(attrs.evolve(ORDER, engine_type="bagualu", task_type="ie"), 0.0)
    assert trainer.state(pid, 9.0) == TrainingState(Stage.SUCCEEDED, None)


def test_scripts_are_taken_in_turn_and_then_the_default() -> None:
    trainer = ScriptedTrainer(None, Script(startup=1), default=Script(startup=3))
    trainer.plan(Script(startup=2))
    pids = [trainer.start(ORDER, 0.0) for _ in range(3)]
    assert [[trainer.state(pid, now).stage is Stage.STARTING for pid in pids] for now in (0.5, 1.5, 2.5)] == [
        [True, True, True],
        [False, True, True],
        [False, False, True],
    ]
    trainer.rewrite(pids[2], Script(startup=0, outcome=Stage.FAILED))
    assert trainer.state(pids[2], 2.5).stage is Stage.FAILED


@pytest.mark.parametrize(("at", "was_alive", "had_begun"), [(1.0, True, False), (6.0, True, True), (8.0, False, True)])
def test_a_kill_ends_what_still_runs(at: float, was_alive: bool, had_begun: bool) -> None:
    trainer = ScriptedTrainer()
    pid = trainer.start(ORDER, 0.0)
    assert trainer.kill(pid, at) is was_alive
    assert trainer.kill(pid, at) is False
    expected = TrainingState(Stage.DIED, had_begun=had_begun) if was_alive else TrainingState(Stage.SUCCEEDED, 0.6)
    assert trainer.state(pid, 99.0) == expected


def test_what_was_forgotten_is_not_known_any_more() -> None:
    trainer = ScriptedTrainer()
    pid = trainer.start(ORDER, 0.0)
    trainer.forget("a")
    assert trainer.kill(pid, 1.0) is False
    with pytest.raises(KeyError):
        trainer.state(pid, 1.0)
    assert trainer.start(ORDER, 1.0) != pid


def test_the_newest_success_is_loaded() -> None:
    trainer = ScriptedTrainer(None, Script(), Script(), Script(outcome=Stage.FAILED))
    pids = [trainer.start(ORDER, 0.0) for _ in range(3)]
    with pytest.raises(KeyError):
        trainer.load("a")
    for pid in pids:
        trainer.state(pid, 9.0)
    assert trainer.load("a").pid == pids[1]


def test_models_answer_alike_for_one_task_and_differently_for_two() -> None:
    trainer = ScriptedTrainer()
    rows = [{"sentence1": "a", "sentence2": "b", "label": "neutral"}]
    orders = [ORDER, ORDER, attrs.evolve(ORDER, task_id="b")]
    results = []
    for order in orders:
        trainer.state(trainer.start(order, 0.0), 9.0)
        results.append(trainer.load(order.task_id).predict(rows))
    assert results[0] == results[1] != results[2]
    assert [(call.task_id, call.rows) for call in trainer.predicted] == [(o.task_id, tuple(rows)) for o in orders]


@pytest.mark.parametrize(
    ("content", "labels"),
    [(b'{"labels":["x","y"]}\n', ("x", "y")), (b"", ("0", "1")), (b"[]", ("0", "1")), (None, ("0", "1"))],
)
def test_labels_are_those_of_the_labels_file(content: bytes | None, labels: tuple[str, ...]) -> None:
    files = MemoryFiles()
    if content is not None:
        files.write("a", "l", content)
    trainer = ScriptedTrainer(files)
    trainer.state(trainer.start(ORDER, 0.0), 9.0)
    assert trainer.load("a").labels == labels
