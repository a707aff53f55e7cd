import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from gts_async import JobSpec
from gts_async._journal import Journal

Run = Callable[..., subprocess.CompletedProcess[str]]

SPEC = JobSpec(gpu_type="g", image_path="registry.test/image", env={"KEY": "s3cret"})


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Give a journal of 100 jobs, one of which is unknown."""

    async def filled() -> None:
        book = Journal(tmp_path / "batch.db", lambda: 1000.0)
        for number in range(100):
            spec = attrs.evolve(SPEC, run_command=f"run {number}")
            key = book.key(spec)
            await book.begin(key, spec, None)
            book.sending(key)
            if number:
                await book.done(key, f"ai{number}")
        await book.aclose()

    asyncio.run(filled())
    return tmp_path / "batch.db"


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(9 * 4096)
        file.write(b"\xff" * 4096)


def test_a_sound_journal_is_told_and_exits_well(journal: Path, main: Run) -> None:
    ended = main("journal", "check", str(journal))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{journal}  sound: 99 submitted, 1 unknown, 0 in hand\n"
    ended = main("--json", "journal", "repair", str(journal))
    record = json.loads(ended.stdout)
    assert (ended.returncode, record["is_sound"], record["kept_as"]) == (0, True, None)


def test_a_damaged_journal_exits_with_failure_and_is_mended(journal: Path, main: Run) -> None:
    damage(journal)
    ended = main("journal", "check", str(journal), "--json")
    record = json.loads(ended.stdout)
    assert (ended.returncode, record["is_sound"]) == (1, False)
    assert record["problems"]
    ended = main("journal", "repair", str(journal))
    assert ended.returncode == 0
    assert f"kept as {journal}.damaged" in ended.stderr
    assert "job list" in ended.stderr
    assert main("journal", "check", str(journal)).returncode == 0
    assert "s3cret" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("command", ["check", "repair"])
def test_a_journal_that_is_not_there_is_usage_or_failure_by_name(tmp_path: Path, main: Run, command: str) -> None:
    ended = main("journal", command, str(tmp_path / "nothing.db"))
    assert ended.returncode in (1, 2)
    assert "nothing.db" in ended.stderr
    assert ended.stdout == ""
