import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from gts_async.__main__ import main as run_main

HOME = Path(__file__).parents[2]
"""Where the package lies, whether it is installed or not."""

INTERRUPTIBLE = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from gts_async.__main__ import main; sys.exit(main())"
)
"""The command line with Ctrl-C switched on, also where whoever runs the tests has it switched off."""

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


def environment(folder: Path, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give an environment without settings, proxies or configuration files of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GTS_ASYNC_", "XDG_"))}
    return {**kept, "HOME": str(folder), "PYTHONPATH": str(HOME), "PYTHONUTF8": "1", **(given or {})}


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``gts-async`` within this process, which is quicker; stdin is empty."""
    for name in set(os.environ) - set(environment(tmp_path)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def main(*arguments: str, given: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as scope:
            for name, value in (given or {}).items():
                scope.setenv(name, value)
            code = run_main(arguments)
        shown = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, shown.out, shown.err)

    return main


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``gts-async`` with the given arguments, to its end."""

    def run(
        *arguments: str, given: Mapping[str, str] | None = None, text: str = "", flags: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *flags, "-m", "gts_async", *arguments],
            input=text,
            env=environment(tmp_path, given),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start ``gts-async`` with the given arguments; it is killed with the test if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, given: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(tmp_path, given),
            cwd=tmp_path,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()
