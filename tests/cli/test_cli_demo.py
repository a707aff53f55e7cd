import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


def processes_below(folder: Path) -> list[str]:
    """Give the command lines of all processes that work in the folder or were told of it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            place = str((process / "cwd").readlink())
        except OSError:
            continue
        if str(folder) in command or place.startswith(str(folder)):
            found.append(command)
    return found


def test_the_demo_does_everything_for_real_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "place"
    ended = run("demo", "--json", "--dir", str(place), given={"FORCE_COLOR": "1"})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    *steps, summary = map(json.loads, ended.stdout.splitlines())
    assert {step["step"] for step in steps} == {
        "servers", "data", "pre-flight", "upload", "training", "serving", "predict", "jobs", "callbacks", "models",
    }  # fmt: skip
    trained = [step["status"] for step in steps if step["step"] == "training"]
    assert trained == ["initialized", "training", "succeeded"]
    assert summary["is_ok"] is True
    assert (summary["predictions"], summary["jobs"], summary["callbacks"], summary["models"]) == (1000, 20, 20, 20)
    assert summary["accuracy"] > 0.8
    assert summary["predictions_per_second"] > 0
    assert summary["transitions"] >= 20 + 3
    assert not list(place.iterdir())
    assert not processes_below(place)


@pytest.mark.parametrize(
    ("signum", "line", "flags"), [(signal.SIGINT, "training", ()), (signal.SIGTERM, "submitted", ("--keep",))]
)
def test_an_interrupted_demo_stops_everything_and_cleans_up_unless_told_to_keep(
    signum: int, line: str, flags: tuple[str, ...], start: Start, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    process = start("demo", "--dir", str(place), *flags, given={"NO_COLOR": "1"})
    assert process.stdout is not None
    for shown in process.stdout:
        if line in shown:
            break
    process.send_signal(signum)
    process.send_signal(signum)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    kept = [f"interrupted; all is stopped, and {folder} is kept\n" for folder in place.iterdir()]
    assert [told] == (kept if flags else ["interrupted; all is cleaned up\n"])
    assert not processes_below(place)
