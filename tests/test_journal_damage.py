"""Damaged journals: they are refused, told about, and mended as far as they can be read."""

import asyncio
import contextlib
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from gts_async import FileError, FileMissing, JobSpec
from gts_async._journal import Journal
from gts_async._mending import check, repair

SPEC = JobSpec(gpu_type="g", image_path="registry.test/image")
COUNT = 300
FEWER = 100
PAGE = 4096


def specs(count):
    return [attrs.evolve(SPEC, run_command=f"python train.py {number}") for number in range(count)]


def filled(path, count):
    """Give the bytes of a journal of so many jobs, every tenth of which is unknown."""

    async def fill():
        book = Journal(path, lambda: 1000.0)
        for number, spec in enumerate(specs(count)):
            key = book.key(spec)
            await book.begin(key, spec, None)
            book.sending(key)
            if number % 10:
                await book.done(key, f"ai{number}")
        await book.aclose()

    asyncio.run(fill())
    return path.read_bytes()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Give the bytes of a journal of 300 jobs, every tenth of which is unknown."""
    return filled(tmp_path_factory.mktemp("sound") / "batch.db", COUNT)


@pytest.fixture(scope="module")
def shorter(tmp_path_factory):
    """Give the bytes of one of 100 jobs: a dozen pages and more, for what is tried often."""
    return filled(tmp_path_factory.mktemp("shorter") / "batch.db", FEWER)


@pytest.fixture
def journal(tmp_path, sound):
    path = tmp_path / "batch.db"
    path.write_bytes(sound)
    path.chmod(0o600)
    return path


def blanked(path, *pages):
    with path.open("r+b") as file:
        for page in pages:
            file.seek(page * PAGE)
            file.write(b"\xff" * PAGE)


def truncated(path, part):
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * part))


DAMAGES = {
    "a page in the middle": lambda path: blanked(path, 20),
    "several pages": lambda path: blanked(path, 7, 30, 31),
    "cut at two thirds": lambda path: truncated(path, 2 / 3),
    "cut within a page": lambda path: truncated(path, 0.501),
    "the last page gone": lambda path: truncated(path, 1 - PAGE / path.stat().st_size),
}


async def submitted(path, count=COUNT):
    """Give what a journal says of each of the specs."""
    book = Journal(path, lambda: 2000.0)
    try:
        found = [await book.begin(book.key(spec), spec, None) for spec in specs(count)]
    finally:
        await book.aclose()
    return found


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_journal_is_refused_with_the_way_out_and_mended(journal, damage):
    DAMAGES[damage](journal)
    damaged = journal.read_bytes()
    with pytest.raises(FileError, match=f"is damaged; .* gts-async journal repair {journal}"):
        await submitted(journal)
    health = check(journal)
    assert not health.is_sound
    assert 0 < health.submitted < COUNT
    assert journal.read_bytes() == damaged
    mended = repair(journal)
    assert mended.health.is_sound
    assert (mended.health.submitted, mended.health.unknown) == (health.submitted, health.unknown)
    assert Path(mended.kept_as).read_bytes() == damaged
    assert {stat.S_IMODE(path.stat().st_mode) for path in journal.parent.iterdir()} == {0o600}
    assert check(journal).is_sound
    found = await submitted(journal)
    assert sum(entry.job_id is not None for entry in found) == health.submitted
    assert all(entry.job_id == f"ai{number}" for number, entry in enumerate(found) if entry.job_id is not None)


async def test_one_page_that_cannot_be_read_costs_its_own_rows_only(journal):
    blanked(journal, 20)
    assert check(journal).submitted + check(journal).unknown > COUNT * 0.9


async def test_a_lost_beginning_is_put_back(journal):
    blanked(journal, 0)
    with pytest.raises(FileError, match="its beginning is damaged"):
        await submitted(journal)
    mended = repair(journal)
    assert "its beginning is damaged" in mended.problems
    assert mended.health.submitted == COUNT * 0.9
    assert mended.health.unknown == COUNT * 0.1


async def test_damage_to_the_index_alone_costs_nothing(journal):
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE type = 'index'").fetchone()
    blanked(journal, root - 1)
    assert not check(journal).is_sound
    mended = repair(journal)
    assert mended.health.submitted + mended.health.unknown == COUNT


async def test_rows_that_hold_what_was_never_written_are_left_out(journal):
    with closing(sqlite3.connect(journal)) as connection, connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM intents ORDER BY key LIMIT 3")]
        connection.execute("UPDATE intents SET spec = 'nonsense' WHERE key = ?", (keys[0],))
        connection.execute("UPDATE intents SET spec = replace(spec, 'python', 'pyth0n') WHERE key = ?", (keys[1],))
        connection.execute("UPDATE intents SET begun_at = 'never' WHERE key = ?", (keys[2],))
    health = check(journal)
    assert [problem.split()[2] for problem in health.problems] == keys
    assert repair(journal).health.submitted + health.unknown == COUNT - 3


def test_a_sound_journal_is_not_touched(journal, sound):
    health = check(journal)
    assert health.is_sound
    assert (health.submitted, health.unknown, health.in_hand) == (COUNT * 0.9, COUNT * 0.1, 0)
    mended = repair(journal)
    assert (mended.kept_as, mended.health) == (None, health)
    assert journal.read_bytes() == sound
    assert [path.name for path in journal.parent.iterdir()] == ["batch.db"]


async def test_what_is_only_in_the_log_yet_is_seen_and_saved(journal):
    book = Journal(journal, lambda: 3000.0)
    spec = attrs.evolve(SPEC, run_command="the last")
    key = book.key(spec)
    await book.begin(key, spec, None)
    await book.done(key, "ai-last")
    # As a killed process leaves it: the log is not played back by a close.
    crashed = journal.parent / "crashed"
    crashed.mkdir()
    for name in ("batch.db", "batch.db-wal"):
        shutil.copy(journal.with_name(name), crashed / name)
    assert check(journal).submitted == COUNT * 0.9 + 1
    await book.aclose()
    blanked(crashed / "batch.db", 20)
    mended = repair(crashed / "batch.db")
    assert mended.kept_as is not None
    assert (crashed / "batch.db.damaged-wal").exists()
    assert sorted(path.name for path in crashed.iterdir() if "damaged" not in path.name) == ["batch.db"]
    again = Journal(crashed / "batch.db", lambda: 3000.0)
    assert (await again.begin(key, spec, None)).job_id == "ai-last"
    await again.aclose()


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
print("open", flush=True)
sys.stdin.read()
"""


def test_a_journal_that_somebody_has_open_is_not_mended(journal):
    blanked(journal, 20)
    damaged = journal.read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(journal)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(FileError, match="in use"):
            repair(journal)
        assert journal.read_bytes() == damaged
        assert [path.name for path in journal.parent.iterdir() if "damaged" in path.name] == []
        holder.stdin.close()
    assert repair(journal).kept_as is not None


@pytest.mark.parametrize("work", [check, repair])
def test_what_is_no_journal_is_neither_checked_nor_mended(tmp_path, work):
    with pytest.raises(FileMissing):
        work(tmp_path / "nothing.db")
    with closing(sqlite3.connect(tmp_path / "theirs.db")) as connection:
        connection.executescript("CREATE TABLE theirs (x)")
    (tmp_path / "text.db").write_bytes(b"text" * 5000)
    for name in ("theirs.db", "text.db"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(FileError, match="is no journal"):
            work(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_is_damaged_only_our_own_errors_come_and_what_is_mended_can_be_used(tmp_path, shorter, seed):
    chance = random.Random(seed)
    journal, data = tmp_path / "batch.db", bytearray(shorter)
    for _ in range(chance.choice((1, 10, 1000))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    journal.write_bytes(data[: chance.choice((len(data), chance.randrange(len(data))))])
    with contextlib.suppress(FileError):
        await submitted(journal, FEWER)
    mended = None
    with contextlib.suppress(FileError):
        mended = repair(journal)
    if mended is None:
        with pytest.raises(FileError, match=r"is no journal|another version"):
            check(journal)
        return
    assert mended.health.is_sound
    found = await submitted(journal, FEWER)
    known = [entry.job_id for entry in found if entry.job_id is not None]
    assert len(known) == len(set(known)) <= mended.health.submitted


def test_damaged_ones_are_kept_side_by_side(journal):
    for name in ("batch.db.damaged", "batch.db.damaged-2"):
        blanked(journal, 20)
        assert repair(journal).kept_as == str(journal.with_name(name))
