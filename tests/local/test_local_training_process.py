"""The training processes themselves: how they begin, end, fail, die and are killed. They and the time are real."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest

from gts_async import MissingExtra, MisuseError
from gts_async.emulator.backends import Stage, TrainingOrder, TrainingState
from gts_async.local.files import FolderFiles
from gts_async.local.sample import sample_rows, write_sample
from gts_async.local.trainer import LOG_FILE, LocalTrainer, child_environment

pytestmark = pytest.mark.slow

ORDER = TrainingOrder(
    task_id="t",
    engine_type="qiankunding",
    task_type="classification",
    train_data="train.json",
    val_data="dev.json",
    test_data="test.json",
    label_data="labels.json",
    unlabeled_data="",
    train_mode="standard",
    max_len=512,
    max_num_epoch=3,
    min_num_epoch=3,
    seed=42,
    gpuid=0,
)
ENDLESS = attrs.evolve(ORDER, max_num_epoch=10**9, min_num_epoch=10**9)
OPEN = (Stage.STARTING, Stage.TRAINING)
DEADLINE = 30.0


@pytest.fixture
def files(tmp_path):
    kept = FolderFiles(tmp_path / "engine")
    for path in write_sample(tmp_path / "sample", rows=100):
        kept.write("t", path.name, path.read_bytes())
    return kept


@pytest.fixture
def trainer(files):
    with contextlib.closing(LocalTrainer(files.root)) as made:
        yield made


def until(condition):
    """Poll a real process: give the first true answer."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.01)
    pytest.fail(f"not within {DEADLINE} s")


def reaches(trainer, pid, *stages):
    """Wait for one of the stages, giving all that were seen on the way."""
    seen = []

    def has_arrived():
        state = trainer.state(pid, 0.0)
        if state not in seen:
            seen.append(state)
        return state.stage in stages

    until(has_arrived)
    return seen


def trainings():
    """Give this process's training children and its zombies, as the system lists them."""
    listed = subprocess.run(["ps", "-A", "-o", "ppid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    mine = [row for row in rows if row[0] == str(os.getpid())]
    return [row for row in mine if row[1].startswith("Z") or "gts_async.local.training" in row[-1]]


def test_a_training_starts_trains_and_succeeds_and_leaves_no_process(trainer, files):
    pid = trainer.start(ORDER, 0.0)
    seen = reaches(trainer, pid, Stage.SUCCEEDED, Stage.FAILED, Stage.DIED)
    assert seen[0] == TrainingState(Stage.STARTING)
    assert seen[-1].stage is Stage.SUCCEEDED
    assert seen[-1].test_acc > 0.4
    assert len(trainer.load("t").predict(sample_rows(3))["predictions"]) == 3
    log = (files.task_folder("t") / LOG_FILE).read_text(encoding="utf-8")
    assert "test accuracy" in log
    assert "trained in" in log
    until(lambda: not trainings())
    assert trainer.state(pid, 0.0) == seen[-1]
    assert trainer.kill(pid, 0.0) is False
    with contextlib.closing(LocalTrainer(files.root)) as later:
        assert later.load("t").predict([]) == {"predictions": [], "probabilities": []}


def test_a_failed_rerun_takes_the_old_model_with_it_and_says_why_in_the_log(trainer, files):
    first = trainer.start(ORDER, 0.0)
    reaches(trainer, first, Stage.SUCCEEDED)
    second = trainer.start(attrs.evolve(ORDER, test_data="nowhere.json"), 0.0)
    assert second != first
    assert reaches(trainer, second, Stage.FAILED, Stage.DIED)[-1] == TrainingState(Stage.FAILED)
    assert trainer.state(first, 0.0).stage is Stage.SUCCEEDED
    with pytest.raises(KeyError):
        trainer.load("t")
    log = (files.task_folder("t") / LOG_FILE).read_text(encoding="utf-8")
    assert "KeyError: 'nowhere.json'" in log
    assert "trained in" not in log


def test_an_order_that_the_engines_script_refuses_dies_without_having_begun(trainer):
    pid = trainer.start(attrs.evolve(ORDER, train_mode="slow"), 0.0)
    assert reaches(trainer, pid, Stage.DIED, Stage.FAILED, Stage.TRAINING) == [
        TrainingState(Stage.STARTING),
        TrainingState(Stage.DIED, had_begun=False),
    ]
    pid = trainer.start(attrs.evolve(ORDER, task_type="ie"), 0.0)
    assert reaches(trainer, pid, Stage.DIED, Stage.FAILED)[-1].stage is Stage.FAILED


def test_a_process_killed_in_its_imports_never_began(trainer):
    pid = trainer.start(ORDER, 0.0)
    assert trainer.kill(pid, 0.0) is True
    assert trainer.state(pid, 0.0) == TrainingState(Stage.DIED, had_begun=False)
    assert trainer.kill(pid, 0.0) is False
    until(lambda: not trainings())
    assert trainer.state(pid, 0.0) == TrainingState(Stage.DIED, had_begun=False)


def test_a_second_training_leaves_the_first_running_and_close_ends_both(files):
    trainer = LocalTrainer(files.root)
    pids = [trainer.start(ENDLESS, 0.0), trainer.start(ENDLESS, 0.0)]
    for pid in pids:
        reaches(trainer, pid, Stage.TRAINING)
    assert len(trainings()) == 2
    assert trainer.kill(pids[0], 0.0) is True
    until(lambda: len(trainings()) == 1)
    assert trainer.state(pids[0], 0.0) == TrainingState(Stage.DIED, had_begun=True)
    assert trainer.state(pids[1], 0.0) == TrainingState(Stage.TRAINING)
    trainer.close()
    assert trainings() == []
    assert trainer.state(pids[1], 0.0) == TrainingState(Stage.DIED, had_begun=True)
    trainer.close()
    with pytest.raises(MisuseError):
        trainer.start(ORDER, 0.0)


def test_the_first_of_two_trainings_can_still_finish_its_model(trainer):
    first = trainer.start(ORDER, 0.0)
    second = trainer.start(attrs.evolve(ORDER, val_data="nowhere.json"), 0.0)
    assert reaches(trainer, second, Stage.FAILED, Stage.DIED)[-1].stage is Stage.FAILED
    assert reaches(trainer, first, Stage.SUCCEEDED, Stage.FAILED, Stage.DIED)[-1].stage is Stage.SUCCEEDED
    assert len(trainer.load("t").predict(sample_rows(2))["predictions"]) == 2


def test_forgetting_a_task_ends_its_training_and_leaves_nothing_behind(trainer, files):
    pid = trainer.start(ENDLESS, 0.0)
    reaches(trainer, pid, Stage.TRAINING)
    files.remove("t")
    trainer.forget("t")
    assert trainings() == []
    assert list(files.root.iterdir()) == []
    with pytest.raises(KeyError):
        trainer.state(pid, 0.0)
    assert trainer.kill(pid, 0.0) is False
    trainer.forget("t")
    trainer.forget("../t")


@pytest.mark.parametrize("task_id", ["never", "../t", ""])
def test_there_is_no_model_of_a_task_that_was_never_trained(trainer, task_id):
    with pytest.raises(KeyError):
        trainer.load(task_id)


def test_an_order_for_a_task_outside_the_root_is_refused(trainer, files):
    with pytest.raises(ValueError, match="would leave its folder"):
        trainer.start(attrs.evolve(ORDER, task_id="../elsewhere"), 0.0)
    assert not (files.root.parent / "elsewhere").exists()


@pytest.mark.parametrize(
    ("number", "stage", "code"),
    [(signal.SIGINT, "failed", 1), (signal.SIGTERM, "training", -signal.SIGTERM)],
    ids=["interrupted", "terminated"],
)
def test_an_interrupted_training_has_failed_and_a_terminated_one_says_nothing(files, tmp_path, number, stage, code):
    (files.task_folder("t") / "outputs").mkdir()
    order = tmp_path / "order.json"
    order.write_text(json.dumps({"root": str(files.root), "order": attrs.asdict(ENDLESS)}), encoding="utf-8")
    command = [sys.executable, "-m", "gts_async.local.training", str(order)]
    log = tmp_path / "train.log"
    with log.open("wb") as output, subprocess.Popen(command, stderr=output) as process:
        try:
            until(lambda: b"epoch 1:" in log.read_bytes())
            process.send_signal(number)
            assert process.wait(DEADLINE) == code
        finally:
            process.kill()
    assert json.loads((tmp_path / "state.json").read_bytes())["stage"] == stage
    assert list((files.task_folder("t") / "outputs").iterdir()) == []


def test_a_training_process_gets_no_secrets_and_finds_the_package():
    secret = {"GTS_ASYNC_TOKEN": "s3cret", "GTS_ASYNC_TOKEN_FILE": "/s3cret", "AWS_SECRET_ACCESS_KEY": "s3cret"}
    made = child_environment({"PATH": "/bin", "LC_ALL": "C", "PYTHONPATH": "mine", **secret})
    assert "s3cret" not in "".join(made.values())
    assert made["PATH"] == "/bin"
    assert made["LC_ALL"] == "C"
    assert made["PYTHONPATH"].split(os.pathsep)[-1] == "mine"
    assert 1 <= int(made["OMP_NUM_THREADS"]) <= (os.cpu_count() or 1)
    where = "import gts_async; print(gts_async.__file__)"
    found = subprocess.run(
        [sys.executable, "-P", "-c", where], env=made, cwd="/", capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).samefile(Path(__file__).parents[2] / "gts_async/__init__.py")


def test_importing_the_trainer_imports_no_scikit_learn():
    what = "import sys, gts_async.local.trainer, gts_async.local.files, gts_async.local.sample; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", what], capture_output=True, text=True, check=True).stdout.split()
    assert "gts_async.local.trainer" in loaded
    assert not {"sklearn", "joblib", "numpy", "scipy"}.intersection(loaded)


def test_without_scikit_learn_the_trainer_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtra, match=r"gts-async\[local\]"):
        LocalTrainer(tmp_path)
