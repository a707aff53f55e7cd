import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gts_async.local.sample import write_sample

pytestmark = pytest.mark.slow

HOME = Path(__file__).parents[2]
TRAIN = (
    "--train-data", "train.json", "--val-data", "dev.json", "--test-data", "test.json", "--label-data", "labels.json",
)  # fmt: skip
JOB = ("job", "submit", "--gpu-type", "NVIDIA-GeForce-RTX-3090", "--image-path", "line-fit:1")
TYPES = ("--task-type", "classification", "--engine-type", "qiankunding")
Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Give the settings of an engine and a cloud that run for this module's tests."""
    folder = tmp_path_factory.mktemp("served")
    process = subprocess.Popen(
        [sys.executable, "-m", "gts_async", "serve", "--engine-port", "0", "--cloud-port", "0", "--data-dir", "data"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(HOME)},
        text=True,
    )
    with process:
        assert process.stdout is not None
        exports = [process.stdout.readline().split()[1].partition("=") for _ in range(3)]
        yield {name: value for name, _, value in exports}
        process.terminate()
        assert process.wait(10) == 0


def lines(ended: subprocess.CompletedProcess[str], code: int = 0) -> list[dict[str, object]]:
    assert ended.returncode == code, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_both_servers_answer_and_the_token_is_good(served: dict[str, str], main: Run) -> None:
    found = lines(main("ping", "--json", given=served))
    assert [record["service"] for record in found] == ["engine", "cloud"]


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_the_token_may_come_from_a_file_or_stdin(source: str, served: dict[str, str], run: Run, tmp_path: Path) -> None:
    token = served["GTS_ASYNC_TOKEN"]
    given = {**served, "GTS_ASYNC_TOKEN": ""}
    (tmp_path / "token").write_text(f"{token}\n")
    ended = run("job", "gpus", "--token-file", "token" if source == "file" else "-", given=given, text=f"{token}\n")
    assert ended.returncode == 0, ended.stderr
    assert token not in ended.stdout + ended.stderr


def test_a_wrong_token_is_not_authorised(served: dict[str, str], main: Run) -> None:
    ended = main("job", "list", given={**served, "GTS_ASYNC_TOKEN": "wr0ng"})
    assert (ended.returncode, ended.stdout) == (4, "")
    assert "wr0ng" not in ended.stderr


def test_a_task_lives_from_create_to_delete(served: dict[str, str], main: Run, run: Run, tmp_path: Path) -> None:
    paths = write_sample(tmp_path, rows=600)
    assert main("task", "create", "news", *TYPES, given=served).stdout == "news\n"
    assert main("task", "create", "news", *TYPES, given=served).returncode == 1
    assert lines(main("task", "list", "--json", given=served)) == [{"id": "news"}]
    sent = main("task", "upload", "news", *map(str, paths), *TYPES, given=served)
    assert sent.stdout == "news  uploaded train.json, dev.json, test.json, labels.json\n"
    transitions = lines(main("task", "train", "news", *TRAIN, *TYPES, "--json", given=served))
    assert [change["status"] for change in transitions] == ["initialized", "training", "succeeded"]
    assert transitions[-1]["is_final"] is True
    (look,) = lines(main("task", "status", "news", "--json", given=served))
    assert (look["status"], look["test_acc"]) == ("succeeded", transitions[-1]["test_acc"])
    waited = main("task", "wait", "news", given=served)
    assert (waited.returncode, waited.stderr) == (0, "")
    rows = paths.test.read_text("utf-8").splitlines()[:20]
    (tmp_path / "some.jsonl").write_text("\n".join([*rows, "no json"]), "utf-8")
    *predicted, bad = lines(main("predict", "news", "some.jsonl", given=served), code=1)
    assert [record["row"] for record in predicted] == list(range(1, 21))
    right = [record["label"] == json.loads(row)["label"] for record, row in zip(predicted, rows, strict=True)]
    assert sum(right) > 14
    assert bad == {"row": 21, "error": "is not a JSON object"}
    (only,) = lines(main("predict", "news", "--text", "老队长打进制胜球", given=served))
    (piped,) = lines(run("predict", "news", "-", given=served, text='{"content": "老队长打进制胜球"}'))
    assert only == piped
    assert only["label"] == "体育"
    assert main("task", "delete", "news", given=served).returncode == 0
    assert main("task", "status", "news", given=served).returncode == 1


def on_terminal(*arguments: str, given: dict[str, str], folder: Path) -> tuple[str, str]:
    """Run a command with a terminal as its stderr; give its stdout, and what it drew, without colours and movements."""
    terminal, end = os.openpty()
    environ = {**os.environ, **given, "PYTHONPATH": str(HOME), "TERM": "xterm-256color", "COLUMNS": "100"}
    environ.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "gts_async", *arguments]
    drawn = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=end, cwd=folder, env=environ, text=True) as process:
        os.close(end)
        # At the end of the other side Linux says EIO.
        with suppress(OSError):
            while piece := os.read(terminal, 65536):
                drawn += piece
        os.close(terminal)
        assert process.stdout is not None
        shown = process.stdout.read()
    assert process.returncode == 0, drawn
    return shown, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode())


def test_commands_draw_bars_on_a_terminal_but_not_beside_json(
    served: dict[str, str], main: Run, tmp_path: Path
) -> None:
    paths = write_sample(tmp_path, rows=600)
    main("task", "create", "drawn", *TYPES, given=served)
    shown, drawn = on_terminal("task", "upload", "drawn", *map(str, paths), given=served, folder=tmp_path)
    assert shown == "drawn  uploaded train.json, dev.json, test.json, labels.json\n"
    assert "train.json" in drawn
    shown, drawn = on_terminal("task", "train", "drawn", *TRAIN, given=served, folder=tmp_path)
    assert "succeeded" in shown.splitlines()[-1]
    assert re.search(r"drawn (initialized|training) .*\d s", drawn)
    shown, drawn = on_terminal("predict", "drawn", str(paths.dev), given=served, folder=tmp_path)
    assert len(shown.splitlines()) == len(paths.dev.read_text("utf-8").splitlines())
    assert re.search(r"[\d,]+ samples", drawn)
    shown, drawn = on_terminal("task", "wait", "drawn", "--json", given=served, folder=tmp_path)
    assert drawn == ""


def test_bad_data_is_refused_line_by_line_before_sending(served: dict[str, str], main: Run, tmp_path: Path) -> None:
    main("task", "create", "bad", *TYPES, given=served)
    (tmp_path / "bad.json").write_text('{"content": 3, "label": "a"}\nno json\n')
    ended = main("task", "upload", "bad", "bad.json", *TYPES, given=served)
    assert ended.returncode == 1
    told = ended.stderr.splitlines()
    assert told[0].startswith("error: ")
    assert [line.split()[0] for line in told[1:]] == ["bad.json:1:", "bad.json:2:"]


def test_a_training_that_failed_is_exit_one(served: dict[str, str], main: Run, tmp_path: Path) -> None:
    main("task", "create", "few", *TYPES, given=served)
    paths = write_sample(tmp_path, rows=60)
    paths.train.write_text("".join(paths.train.read_text("utf-8").splitlines(keepends=True)[:3]), "utf-8")
    main("task", "upload", "few", *map(str, paths), given=served)
    ended = main("task", "train", "few", *TRAIN, given=served)
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1].endswith("training → failed")


def test_a_detached_training_is_picked_up_by_its_token(served: dict[str, str], main: Run, tmp_path: Path) -> None:
    main("task", "create", "later", *TYPES, given=served)
    main("task", "upload", "later", *map(str, write_sample(tmp_path, rows=600)), given=served)
    token = main("task", "train", "later", *TRAIN, "--detach", given=served).stdout.strip()
    assert json.loads(token)["task_id"] == "later"
    ended = main("watch", token, given=served)
    assert ended.returncode == 0
    assert "succeeded" in ended.stdout.splitlines()[-1]


def test_a_job_runs_and_its_model_is_fetched(served: dict[str, str], main: Run, tmp_path: Path) -> None:
    (submitted,) = lines(main(*JOB, "--detach", "--json", given=served))
    job_id = str(submitted["id"])
    for _ in range(1000):
        if lines(main("job", "status", job_id, "--json", given=served))[0]["status"] != "working":
            break
    (final,) = lines(main("watch", job_id, "--json", given=served))
    assert (final["status"], final["is_final"]) == ("succeeded", True)
    fetched = main("job", "download", job_id, "model", given=served)
    assert fetched.stdout.split() == ["model/metrics.json", "model/model.json", "model/train.log"]
    assert (tmp_path / "model" / "model.json").exists()
    listed = lines(main("job", "list", "--json", given=served))
    assert job_id in [record["id"] for record in listed]


def test_a_deadline_ends_the_wait_and_says_how_to_go_on(served: dict[str, str], main: Run) -> None:
    ended = main(*JOB, "--run-command", "sleep 60", "--deadline", "0.2", given=served)
    assert ended.returncode == 124
    job_id = ended.stdout.split()[0]
    assert f"gts-async job wait {job_id}" in ended.stderr
    early = main("job", "download", job_id, "model", given=served)
    assert early.returncode == 1
    assert main("job", "stop", job_id, given=served).stdout == f"{job_id}  stopped\n"


def test_ctrl_c_detaches_and_the_job_goes_on(served: dict[str, str], run: Run, start: Start) -> None:
    process = start(*JOB, "--run-command", "sleep 60", given=served)
    assert process.stdout is not None
    job_id = process.stdout.readline().strip()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == f"the work itself goes on; pick it up with:\n  gts-async job wait {job_id}\n"
    (look,) = lines(run("job", "status", job_id, "--json", given=served))
    assert look["status"] == "working"
    assert run("job", "stop", job_id, given=served).returncode == 0


def test_what_is_not_there_is_exit_one(served: dict[str, str], main: Run) -> None:
    assert main("task", "status", "nobody", given=served).returncode == 1
    assert main("job", "status", "nobody", given=served).returncode == 1
    assert main("predict", "nobody", "--text", "a", given=served).returncode == 1


def test_what_the_cloud_would_do_unasked_is_said(served: dict[str, str], run: Run) -> None:
    ended = run(*JOB, "--run-command", "echo $HOME", "--detach", given=served)
    assert ended.returncode == 0
    assert ended.stderr.startswith("note: run_command: no shell reads it")


def test_a_reader_that_goes_away_ends_the_command_quietly(served: dict[str, str], start: Start) -> None:
    process = start("job", "gpus", given=served)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, "")


@pytest.mark.parametrize("port", ["--engine-port", "--cloud-port"])
def test_a_taken_port_is_one_line(port: str, served: dict[str, str], main: Run) -> None:
    url = served["GTS_ASYNC_ENGINE"]
    other = {"--engine-port": "--cloud-port", "--cloud-port": "--engine-port"}[port]
    ended = main("serve", port, url.rpartition(":")[2], other, "0", "--data-dir", "other")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert len(ended.stderr.splitlines()) == 1


def test_a_server_with_a_given_token_does_not_print_it_and_ends_with_ctrl_c(start: Start, run: Run) -> None:
    arguments = ("serve", "--engine-port", "0", "--cloud-port", "0", "--token", "my.t0ken", "--json", "--data-dir", "d")
    process = start(*arguments, "--generation", "2024-04")
    assert process.stdout is not None
    settings = json.loads(process.stdout.readline())
    assert settings.keys() == {"engine", "cloud", "dialect", "data_dir"}
    given = {f"GTS_ASYNC_{name.upper()}": settings[name] for name in ("engine", "cloud", "dialect")}
    assert run("ping", given={**given, "GTS_ASYNC_TOKEN": "my.t0ken"}).returncode == 0
    taken = run("serve", "--engine-port", "0", "--cloud-port", "0", "--data-dir", settings["data_dir"])
    assert taken.returncode == 3
    assert "in use by another server" in taken.stderr
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "my.t0ken" not in out + told
