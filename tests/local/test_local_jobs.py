import hashlib
import json
import os
import signal
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import fastcrc
import pytest

from gts_async import _errors
from gts_async.emulator.backends import JobOrder, JobStage, JobState
from gts_async.local.blobs import FileBlob, pack
from gts_async.local.container import BUILT_IN_JOB, Folders, arguments, environment
from gts_async.local.jobs import LocalRunner
from gts_async.local.processes import MAX_LOG, CappedLog

ORDER = JobOrder(
    job_id="ai1",
    gpu_number=1,
    gpu_type="NVIDIA-GeForce-RTX-3090",
    ckpt_path="/workspace/ckpt",
    ckpt_vol=1024,
    model_path="/workspace/model",
    model_vol=1024,
    image_path="image",
    job_type="GeneralJob",
    stop_type=0,
    stop_time=0,
    run_command="",
    env={},
)
FOLDERS = Folders.of(Path("/jobs"), "ai1")


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[LocalRunner]:
    runner = LocalRunner(tmp_path, max_at_once=2)
    yield runner
    runner.close()


def order(job_id: str, *command: str, **changes: object) -> JobOrder:
    return attrs.evolve(ORDER, job_id=job_id, run_command=" ".join(command), **changes)


def script(folder: Path, text: str) -> str:
    path = folder / "script.py"
    path.write_text(text)
    return str(path)


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.005)


def settled(runner: LocalRunner, job_id: str) -> JobState:
    until(lambda: runner.state(job_id, 0).stage in {JobStage.UPLOADED, JobStage.FAILED})
    return runner.state(job_id, 0)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed grandchild stays a zombie until whatever adopted it looks.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("", BUILT_IN_JOB),
        ("true", ("true",)),
        ("echo a  b", ("echo", "a", "", "b")),
        ("echo 'a b' && ls $HOME", ("echo", "'a", "b'", "&&", "ls", "$HOME")),
        ("python -V python", (sys.executable, "-V", "python")),
        ("cp /workspace/ckpt/a /workspace/model", ("cp", "/jobs/ai1/ckpt/a", "/jobs/ai1/model")),
        ("run --out=/workspace/model/m.bin", ("run", "--out=/jobs/ai1/model/m.bin")),
        ("run x/workspace/model /workspace/model2", ("run", "x/workspace/model", "/workspace/model2")),
    ],
)
def test_command_is_split_at_single_spaces_and_moved_to_the_jobs_folders(
    command: str, expected: tuple[str, ...]
) -> None:
    assert arguments(attrs.evolve(ORDER, run_command=command), FOLDERS) == expected


def test_the_inner_of_two_nested_volumes_wins() -> None:
    nested = attrs.evolve(ORDER, ckpt_path="/workspace", run_command="run /workspace/model/a /workspace/b")
    assert arguments(nested, FOLDERS) == ("run", "/jobs/ai1/model/a", "/jobs/ai1/ckpt/b")


@pytest.mark.parametrize("path", ["", "/"])
def test_an_empty_or_root_volume_moves_nothing(path: str) -> None:
    command = "/bin/ls /etc"
    moved = arguments(attrs.evolve(ORDER, model_path=path, ckpt_path=path, run_command=command), FOLDERS)
    assert moved == ("/bin/ls", "/etc")


@pytest.mark.parametrize(
    ("job_type", "is_given"), [("GeneralJob", True), ("general", True), ("Pytorch", False), ("MPI", False)]
)
def test_env_reaches_only_general_jobs(job_type: str, is_given: bool) -> None:
    asked = attrs.evolve(ORDER, job_type=job_type, env={"OUT": "/workspace/model/x", "JOB_ID": "mine"})
    variables = environment(asked, FOLDERS, {"PATH": "/bin", "GTS_ASYNC_TOKEN": "secret"})
    assert variables.pop("OUT", None) == ("/jobs/ai1/model/x" if is_given else None)
    assert variables == {
        "PATH": "/bin",
        "LANG": "C.UTF-8",
        "HOME": "/jobs/ai1",
        "JOB_ID": "ai1",
        "SXWL_CKPT_PATH": "/jobs/ai1/ckpt",
        "SXWL_MODEL_PATH": "/jobs/ai1/model",
    }


@pytest.mark.parametrize("job_id", ["", "..", "a/b", ".hidden", "a b", "x" * 201])
def test_an_id_that_is_no_name_never_becomes_a_folder(runner: LocalRunner, job_id: str, tmp_path: Path) -> None:
    with pytest.raises(_errors.UnsafePath):
        runner.start(order(job_id), 0)
    assert list(tmp_path.iterdir()) == []


def test_job_without_a_command_fits_a_line_and_leaves_it_packed(runner: LocalRunner) -> None:
    runner.start(order("ai1", job_type="Pytorch"), 0)
    state = settled(runner, "ai1")
    assert state.stage is JobStage.UPLOADED
    assert isinstance(state.model, FileBlob)
    with zipfile.ZipFile(state.model.path) as archive:
        assert archive.namelist() == ["/data/metrics.json", "/data/model.json", "/data/train.log"]
        model, metrics = (json.loads(archive.read(f"/data/{name}.json")) for name in ("model", "metrics"))
    assert model["slope"] == pytest.approx(1.75, abs=0.05)
    assert model["intercept"] == pytest.approx(-4.0, abs=0.2)
    assert 0.1 < metrics["test_mse"] < 0.5


def test_a_relative_root_is_of_where_the_runner_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = LocalRunner(Path("jobs"))
    runner.start(order("ai1", "cp /bin/ls /workspace/model/copy"), 0)
    assert settled(runner, "ai1").stage is JobStage.UPLOADED
    runner.close()
    assert (tmp_path / "jobs" / "ai1" / "model" / "copy").exists()


def test_process_sees_its_folders_and_no_token(
    runner: LocalRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GTS_ASYNC_TOKEN", "secret")
    text = "import json, os, sys; json.dump([os.getcwd(), sys.argv[1:], dict(os.environ)], open(sys.argv[1], 'w'))"
    runner.start(order("ai1", "python", script(tmp_path, text), "/workspace/model/seen.json", "", "x"), 0)
    assert settled(runner, "ai1").stage is JobStage.UPLOADED
    home = tmp_path / "ai1"
    folder, given, variables = json.loads((home / "model" / "seen.json").read_text())
    assert folder == str(home)
    assert given == [str(home / "model" / "seen.json"), "", "x"]
    assert variables["SXWL_CKPT_PATH"] == str(home / "ckpt")
    assert "secret" not in variables.values()


@pytest.mark.parametrize("command", ["false", "no-such-program-anywhere", " ", "./missing", "a\0b"])
def test_a_command_that_fails_or_cannot_run_fails_the_job(runner: LocalRunner, command: str) -> None:
    runner.start(order("ai1", command), 0)
    assert settled(runner, "ai1") == JobState(JobStage.FAILED)


def test_why_a_command_cannot_run_is_in_its_log(runner: LocalRunner, tmp_path: Path) -> None:
    runner.start(order("ai1", "no-such-program-anywhere"), 0)
    settled(runner, "ai1")
    assert "no-such-program-anywhere" in (tmp_path / "ai1" / "output.log").read_text()


def test_jobs_beyond_the_limit_wait_their_turn(runner: LocalRunner) -> None:
    for job_id in ("a", "b", "c"):
        runner.start(order(job_id, "sleep 60"), 0)
    assert [runner.state(job_id, 0).stage for job_id in ("a", "b", "c")] == [
        JobStage.RUNNING,
        JobStage.RUNNING,
        JobStage.QUEUED,
    ]
    runner.kill("a")
    until(lambda: runner.state("c", 0).stage is JobStage.RUNNING)
    assert runner.state("a", 0).stage is JobStage.FAILED


def test_kill_reaches_the_whole_group_and_removes_the_folder(runner: LocalRunner, tmp_path: Path) -> None:
    text = (
        "import os, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "open('pids.part', 'w').write(f'{os.getpid()} {child.pid}')\n"
        "os.rename('pids.part', 'pids')\n"
        "time.sleep(60)\n"
    )
    runner.start(order("ai1", "python", script(tmp_path, text)), 0)
    pids = tmp_path / "ai1" / "pids"
    until(pids.exists)
    parent, child = map(int, pids.read_text().split())
    runner.kill("ai1")
    assert settled(runner, "ai1").stage is JobStage.FAILED
    with pytest.raises(ProcessLookupError):
        os.kill(parent, 0)
    until(lambda: not is_alive(child))
    until(lambda: not (tmp_path / "ai1").exists())


def test_what_a_job_leaves_behind_dies_with_it(runner: LocalRunner, tmp_path: Path) -> None:
    text = (
        "import subprocess, os\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "open(os.environ['SXWL_MODEL_PATH'] + '/pid', 'w').write(str(child.pid))\n"
    )
    runner.start(order("ai1", "python", script(tmp_path, text)), 0)
    assert settled(runner, "ai1").stage is JobStage.UPLOADED
    child = int((tmp_path / "ai1" / "model" / "pid").read_text())
    until(lambda: not is_alive(child))


def test_kill_of_a_queued_job_never_runs_it(runner: LocalRunner, tmp_path: Path) -> None:
    for job_id in ("a", "b", "c"):
        runner.start(order(job_id, "sleep 60"), 0)
    runner.kill("c")
    assert runner.state("c", 0).stage is JobStage.FAILED
    runner.close()
    assert not (tmp_path / "c").exists()


def test_kill_of_an_unknown_job_is_ignored_and_its_state_is_a_keyerror(runner: LocalRunner) -> None:
    runner.kill("nobody")
    with pytest.raises(KeyError):
        runner.state("nobody", 0)


def test_kill_leaves_an_uploaded_model_and_clears_a_failed_job(runner: LocalRunner, tmp_path: Path) -> None:
    runner.start(order("good", "true"), 0)
    runner.start(order("bad", "false"), 0)
    uploaded = settled(runner, "good")
    settled(runner, "bad")
    runner.kill("good")
    runner.kill("bad")
    until(lambda: not (tmp_path / "bad").exists())
    assert runner.state("good", 0) == uploaded
    assert uploaded.model is not None
    assert uploaded.model.read(0, 2) == b"PK"


def test_time_limit_of_a_running_job_counts_as_having_ended_well(tmp_path: Path) -> None:
    Folders.of(tmp_path, "ai1").make()
    (tmp_path / "ai1" / "model" / "kept").write_text("x")
    runner = LocalRunner(tmp_path, minute=0.1)
    runner.start(order("ai1", "sleep 60", job_type="Pytorch", stop_type=1, stop_time=2), 0)
    assert runner.state("ai1", 0).stage is JobStage.RUNNING
    state = settled(runner, "ai1")
    runner.close()
    assert state.stage is JobStage.UPLOADED
    assert isinstance(state.model, FileBlob)
    assert zipfile.ZipFile(state.model.path).namelist() == ["/data/kept"]


@pytest.mark.parametrize(
    ("job_type", "stage"), [("GeneralJob", JobStage.UPLOADED), ("Pytorch", JobStage.FAILED), ("MPI", JobStage.FAILED)]
)
def test_time_limit_of_a_queued_job(tmp_path: Path, job_type: str, stage: JobStage) -> None:
    runner = LocalRunner(tmp_path, max_at_once=1, minute=0.05)
    runner.start(order("first", "sleep 60"), 0)
    runner.start(order("second", "sleep 60", job_type=job_type, stop_type=1, stop_time=1), 0)
    assert settled(runner, "second").stage is stage
    assert runner.state("first", 0).stage is JobStage.RUNNING
    runner.close()


def test_a_time_limit_of_nothing_ends_the_job_at_once(runner: LocalRunner, tmp_path: Path) -> None:
    runner.start(order("ai1", "sleep 60", job_type="Pytorch", stop_type=1, stop_time=0), 0)
    assert runner.state("ai1", 0).stage is JobStage.FAILED
    assert not (tmp_path / "ai1").exists()


def test_output_beyond_the_limit_keeps_its_end(runner: LocalRunner, tmp_path: Path) -> None:
    text = "import sys\nfor n in range(400_000): print(f'line {n}')\nprint('the end', file=sys.stderr)"
    runner.start(order("ai1", "python", script(tmp_path, text)), 0)
    assert settled(runner, "ai1").stage is JobStage.UPLOADED
    home = tmp_path / "ai1"
    before, after = ((home / name).read_bytes() for name in ("output.log.1", "output.log"))
    assert len(before) + len(after) <= MAX_LOG
    assert len(before) == MAX_LOG // 2
    whole = (before + after).decode()
    assert "line 0\n" not in whole
    assert "line 399998\nline 399999\n" in whole
    assert "the end\n" in whole


def test_log_turns_exactly_at_its_half(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = CappedLog(path, limit=8)
    log.write(b"0123456789abcde")
    log.close()
    assert (path.with_name("log.1").read_bytes(), path.read_bytes()) == (b"89ab", b"cde")


def test_a_process_that_left_the_group_does_not_hold_up_the_job(runner: LocalRunner, tmp_path: Path) -> None:
    text = (
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "open('model/pid', 'w').write(str(child.pid))\n"
    )
    runner.start(order("ai1", "python", script(tmp_path, text)), 0)
    assert settled(runner, "ai1").stage is JobStage.UPLOADED
    os.kill(int((tmp_path / "ai1" / "model" / "pid").read_text()), signal.SIGKILL)


def test_close_kills_everything_and_may_be_called_again(tmp_path: Path) -> None:
    runner = LocalRunner(tmp_path, max_at_once=1)
    runner.start(order("a", "sleep 60"), 0)
    runner.start(order("b", "sleep 60"), 0)
    began = time.monotonic()
    runner.close()
    runner.close()
    assert time.monotonic() - began < 2
    assert [runner.state(job_id, 0).stage for job_id in "ab"] == [JobStage.FAILED, JobStage.FAILED]
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("job-")] == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(_errors.MisuseError):
        runner.start(order("c"), 0)


def test_one_id_is_one_job(runner: LocalRunner) -> None:
    runner.start(order("ai1", "true"), 0)
    with pytest.raises(_errors.AlreadyExists):
        runner.start(order("ai1", "true"), 0)


def test_a_runner_for_no_jobs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(_errors.InvalidArgument) as refusal:
        LocalRunner(tmp_path, max_at_once=0)
    assert refusal.value.argument == "max_at_once"


def test_pack_keeps_nested_files_and_leaves_links_out(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights.bin").write_bytes(bytes(3_000_000))
    (folder / "名.txt").write_text("x")
    (folder / "leak").symlink_to("/etc/hostname")
    os.mkfifo(folder / "pipe")
    os.utime(folder / "名.txt", (0, 0))
    blob = pack(folder, tmp_path / "data.zip")
    with zipfile.ZipFile(blob.path) as archive:
        assert archive.namelist() == ["/data/deep/weights.bin", "/data/名.txt"]
        assert archive.testzip() is None
        assert archive.read("/data/deep/weights.bin") == bytes(3_000_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.zip", "model"]


def test_blob_reads_any_range_of_its_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10
    path = tmp_path / "blob"
    path.write_bytes(content)
    blob = FileBlob.of(path)
    assert blob.size == len(content)
    assert blob.etag == f'"{hashlib.md5(content).hexdigest().upper()}"'
    assert blob.crc64 == fastcrc.crc64.xz(content)
    assert (blob.read(0, 3), blob.read(2558, 2560), blob.read(5, 5), blob.read(2559, 9999)) == (
        content[:3],
        content[-2:],
        b"",
        content[-1:],
    )
