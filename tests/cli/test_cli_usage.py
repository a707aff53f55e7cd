import json
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]

NOWHERE = {"GTS_ASYNC_ENGINE": "http://127.0.0.1:9", "GTS_ASYNC_CLOUD": "http://127.0.0.1:9/api"}
"""The discard port: nobody listens there."""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("tsk",), 'Did you mean "task"'),
        (("task", "create", "x"), "--task-type"),
        (("task", "create", "x", "--task-type", "poetry", "--engine-type", "bagualu"), "poetry"),
        (("task", "create", "two words", "--task-type", "ie", "--engine-type", "bagualu"), "letters, digits"),
        (("task", "create", "x", "--task-type", "nli", "--engine-type", "bagualu"), "qiankunding"),
        (("task", "status", "x", "--wat"), "--wat"),
        (("ping", "--dialect", "2025-01"), "2025-01"),
        (("predict", "x"), "--text"),
        (("predict", "x", "--text", "a", "rows.jsonl"), "together"),
        (("predict", "x", "--wat"), "--wat"),
        (("predict", "x", "--text", "a", "--task-type", "ie", "--engine-type", "bagualu"), "FILE"),
        (("job", "submit", "--gpu-type", "A 100", "--image-path", "x"), "space"),
        (("job", "submit", "--gpu-type", "A100", "--image-path", "x", "--env", "A"), "NAME=VALUE"),
        (("job", "status", "a/b"), "is not an id"),
        (("watch", '{"kind":"cat"}'), "quote the text"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_command_line_is_usage_and_says_what_is_wrong(arguments: tuple[str, ...], told: str, main: Run) -> None:
    ended = main(*arguments, given=NOWHERE)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: ")
    assert told in ended.stderr


def test_a_token_in_the_arguments_is_refused_and_not_repeated(main: Run) -> None:
    ended = main("ping", "--token=s3cret", given=NOWHERE)
    assert ended.returncode == 2
    assert "s3cret" not in ended.stderr
    assert "--token-file" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (("task", "list"), {}),
        (("ping",), {}),
        (("task", "list"), {"GTS_ASYNC_ENGINE": "nonsense"}),
        (("job", "gpus"), {**NOWHERE, "GTS_ASYNC_TOKEN_FILE": "/nowhere/token"}),
        (("job", "gpus", "--token-file", "/nowhere/token"), NOWHERE),
        (("job", "gpus"), {"GTS_ASYNC_CLOUD": "http://192.0.2.1/api", "GTS_ASYNC_TOKEN": "t"}),
        (("serve", "--engine-port", "99999", "--data-dir", "."), {}),
        (("serve", "--data-dir", "/proc/nowhere"), {}),
    ],
    ids=["no engine", "nothing", "no url", "no token file", "no such token file", "in the clear", "port", "data"],
)
def test_wrong_settings_are_configuration(arguments: tuple[str, ...], given: dict[str, str], main: Run) -> None:
    ended = main(*arguments, given=given)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert len(ended.stderr.splitlines()) == 1


def test_a_service_that_is_not_there_is_network(main: Run) -> None:
    ended = main("ping", "--json", given=NOWHERE)
    assert (ended.returncode, ended.stdout) == (5, "")
    assert ended.stderr.startswith("error: ")


def environment_without(folder: Path, missing: str) -> dict[str, str]:
    """Give an environment whose packages (run Python with -S) are all that are installed here but one."""
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.name != missing and entry.suffix != ".pth" and not entry.name.startswith("__editable__"):
            (folder / entry.name).symlink_to(entry)
    return {"PYTHONPATH": f"{HOME}:{folder}"}


@pytest.mark.parametrize(
    ("missing", "command", "extra"),
    [
        ("cyclopts", "--help", "cli"),
        ("rich", "--help", "cli"),
        ("cyclopts", "demo", "cli"),
        ("sklearn", "demo", "local"),
        ("uvicorn", "demo", "local"),
        ("uvicorn", "serve", "local"),
    ],
)
def test_a_missing_extra_is_one_line_with_the_command_that_installs_it(
    missing: str, command: str, extra: str, run: Run, tmp_path: Path
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    given = environment_without(packages, missing)
    ended = run(command, given={**given, "TMPDIR": str(tmp_path)}, flags=("-S",))
    assert (ended.returncode, ended.stdout) == (3, "")
    (line,) = ended.stderr.splitlines()
    assert line.endswith(f'needs an extra: python -m pip install "gts-async[{extra}]"')
    assert not list(tmp_path.glob("gts-async-demo-*"))


def test_help_names_every_command_and_exit_code_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import json, sys; from gts_async.__main__ import main; code = main(['--help']); "
        "json.dump([code, sorted({name.partition('.')[0] for name in sys.modules})], sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True, cwd=HOME
    )
    exit_code, modules = json.loads(ended.stderr)
    assert exit_code == 0
    assert not {"httpx", "httpcore", "anyio", "sklearn", "numpy", "uvicorn"} & set(modules)
    for word in ("demo", "serve", "ping", "check", "task", "predict", "job", "watch", "124 deadline", "--json"):
        assert word in ended.stdout


@pytest.mark.parametrize(
    "command", ["demo", "serve", "ping", "check", "task", "predict", "job", "watch", "journal", "callback"]
)
def test_every_command_has_its_help_with_the_global_options(command: str, main: Run) -> None:
    ended = main(command, "--help")
    assert ended.returncode == 0
    assert f"Usage: gts-async {command}" in ended.stdout
    assert "--token-file" in ended.stdout


def test_the_version_is_told(main: Run) -> None:
    ended = main("--version")
    assert ended.returncode == 0
    assert ended.stdout[0].isdigit()


def test_an_unexpected_error_is_one_line_and_a_traceback_only_if_asked_for(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "cyclopts.py").write_text("raise RuntimeError('boom')")
    given = {"PYTHONPATH": f"{tmp_path / 'broken'}:{HOME}"}
    ended = run("ping", given=given)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: RuntimeError: boom\n")
    assert "Traceback" in run("ping", given={**given, "GTS_ASYNC_DEBUG": "1"}).stderr
