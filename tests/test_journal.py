"""A journal on its own: keys, leases, who looks, what it says of files that it cannot use."""

import asyncio
import sqlite3
import stat
import time
from contextlib import closing
from datetime import UTC, datetime

import attrs
import pytest

from gts_async import FileError, Intent, InvalidArgument, JobInfo, JobSpec, JobStatus
from gts_async._checkpoint import Checkpoint
from gts_async._database import Database, remote_kind
from gts_async._intent import IntentToken, read_spec, spec_document
from gts_async._journal import LEASE, RENEWAL, WATCH_LEASE, Journal

SPEC = JobSpec(gpu_type="g", image_path="i", env={"A": "1"}, run_command="run", stop_type=1, stop_time=5)


class Wall:
    """A time of day that is set by hand."""

    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def wall():
    return Wall()


@pytest.fixture
async def opened(tmp_path, wall):
    """Open journals of one file, each as another process would; all are closed at the end."""
    books = []

    def opened(name="batch.db"):
        books.append(Journal(tmp_path / name, wall))
        return books[-1]

    yield opened
    for book in books:
        await book.aclose()


async def begun(book, spec=SPEC, mark="gts-0123456789abcdef"):
    key = book.key(spec)
    return await book.begin(key, attrs.evolve(spec, mark=mark), mark)


# Keys and intents


def test_equal_specs_are_told_apart_by_their_order(tmp_path, wall):
    first, second = Journal(tmp_path / "a", wall), Journal(tmp_path / "b", wall)
    other = attrs.evolve(SPEC, run_command="run 2")
    assert [first.key(SPEC), first.key(other), first.key(SPEC)] == [
        second.key(SPEC),
        second.key(other),
        second.key(attrs.evolve(SPEC, callback_url="https://here.test/", mark="m")),
    ]
    assert len({Journal(tmp_path / "c", wall).key(spec) for spec in (SPEC, other)}) == 2


def test_a_spec_is_read_as_it_was_written():
    assert read_spec(spec_document(SPEC).decode()) == SPEC
    for wrong in ("", "[]", '{"gpu_type":"g"}', '{"gpu_type":"g","image_path":"i","colour":"red"}'):
        with pytest.raises(InvalidArgument):
            read_spec(wrong)


def test_an_intent_travels_as_text():
    import msgspec

    intent = Intent("k", SPEC, "gts-1", 12.5)
    assert msgspec.json.decode(intent.token(), type=IntentToken).intent() == intent
    assert "'1'" not in repr(intent)


# Intents and their leases


async def test_an_intent_is_on_disk_when_begin_returns(opened, tmp_path):
    entry = await begun(opened())
    assert entry.is_new
    with closing(sqlite3.connect(f"file:{tmp_path}/batch.db?mode=ro", uri=True)) as other:
        (row,) = other.execute("SELECT key, mark, job_id FROM intents").fetchall()
    assert row == (entry.intent.key, "gts-0123456789abcdef", None)
    assert stat.S_IMODE((tmp_path / "batch.db").stat().st_mode) == 0o600


async def test_a_job_that_is_known_is_given_to_everybody(opened):
    book = opened()
    entry = await begun(book)
    assert await book.done(entry.intent.key, "ai1")
    assert (await begun(opened())).job_id == "ai1"


async def test_the_intent_of_somebody_who_is_alive_is_held(opened, wall):
    mine, other = opened(), opened()
    entry = await begun(mine)
    keeping = asyncio.create_task(mine.keep_leases(lambda _: asyncio.sleep(0.001)))
    for _ in range(5):
        wall.now += RENEWAL
        # Renewed in time: it would be over after four of these.
        async with asyncio.timeout(60):
            while (held := await other.begin(entry.intent.key, SPEC, None)).held_for <= LEASE / 2:
                await asyncio.sleep(0.001)
        assert not held.is_new
    keeping.cancel()


async def test_the_intent_of_somebody_who_is_dead_is_taken_over_with_the_time_it_may_have_been_sent(opened, wall):
    entry = await begun(opened())
    other = opened()
    wall.now += LEASE - 0.1
    assert (await other.begin(entry.intent.key, SPEC, None)).held_for == pytest.approx(0.1)
    wall.now += 0.2
    taken = await other.begin(entry.intent.key, SPEC, None)
    assert (taken.held_for, taken.is_new, taken.job_id) == (0, False, None)
    assert taken.intent.mark == "gts-0123456789abcdef"
    assert taken.intent.begun_at == entry.intent.begun_at + RENEWAL
    # From now on it is held by the one who took it.
    assert (await opened().begin(entry.intent.key, SPEC, None)).held_for == LEASE


async def test_a_clock_that_was_set_back_holds_nobody_up_for_long(opened, wall):
    entry = await begun(opened())
    wall.now -= 3600
    assert (await opened().begin(entry.intent.key, SPEC, None)).held_for == 0


async def test_only_the_owner_sends_again(opened, wall):
    mine, other = opened(), opened()
    entry = await begun(mine)
    assert await mine.again(entry.intent.key)
    wall.now += LEASE + 1
    await other.begin(entry.intent.key, SPEC, None)
    assert not await mine.again(entry.intent.key)
    assert await other.again(entry.intent.key)
    await mine.undone(entry.intent.key)
    await other.release(entry.intent.key)
    assert not (await mine.begin(entry.intent.key, SPEC, None)).is_new


async def test_what_was_refused_is_forgotten_and_what_is_done_is_not(opened):
    book = opened()
    refused, done = await begun(book), await begun(book)
    await book.undone(refused.intent.key)
    await book.done(done.intent.key, "ai1")
    await book.undone(done.intent.key)
    again = opened()
    assert (await again.begin(refused.intent.key, SPEC, None)).is_new
    assert (await again.begin(done.intent.key, SPEC, None)).job_id == "ai1"


async def test_closing_forgets_what_was_never_sent_and_gives_up_the_rest(opened, wall):
    book = opened()
    unsent, sent = await begun(book), await begun(book)
    book.sending(sent.intent.key)
    wall.now += 5
    await book.aclose()
    again = opened()
    assert (await again.begin(unsent.intent.key, SPEC, None)).is_new
    left = await again.begin(sent.intent.key, SPEC, None)
    assert (left.is_new, left.held_for, left.intent.begun_at) == (False, 0, wall.now)


async def test_one_job_is_not_two_intents(opened):
    book = opened()
    first, second = await begun(book), await begun(book)
    assert await book.done(first.intent.key, "ai1")
    assert await book.done(first.intent.key, "ai1")
    assert not await book.done(second.intent.key, "ai1")


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancelled_write_is_whole_and_the_journal_goes_on(opened, turns, cancelled_after):
    book = opened()
    await begun(book)
    await cancelled_after(turns, lambda: begun(book))
    third = await begun(book)
    assert await book.done(third.intent.key, "ai3")


async def test_a_cancelled_write_keeps_others_out_until_it_is_over(tmp_path):
    database = Database(tmp_path / "x.db", "CREATE TABLE IF NOT EXISTS t (x)", 1)
    order = []

    def slow(connection):
        order.append("begun")
        time.sleep(0.03)
        order.append("ended")

    writing = asyncio.create_task(database.run(slow))
    while not order:
        await asyncio.sleep(0.001)
    writing.cancel()
    await asyncio.gather(database.run(lambda _: order.append("next")), writing, return_exceptions=True)
    assert order == ["begun", "ended", "next"]
    await database.aclose()


async def test_what_is_written_survives_a_power_cut(opened):
    book = opened()
    await begun(book)
    pragmas = await book._database.run(
        lambda c: [c.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    )
    assert pragmas == ["wal", 2]


# Who looks at a job


async def test_one_looks_at_a_job_and_the_others_read_what_it_saw(opened, wall):
    mine, other = opened(), opened()
    entry = await begun(mine)
    await mine.done(entry.intent.key, "ai1")
    assert await mine.claim_watch("ai1")
    assert not await other.claim_watch("ai1")
    assert await other.noted("ai1") is None
    seen_at = datetime(2024, 1, 1, tzinfo=UTC)
    await mine.note("ai1", JobInfo(JobStatus.SUCCEEDED, "https://store.test/x?Signature=secret", seen_at))
    noted = await other.noted("ai1")
    assert (noted.status, noted.url, noted.observed_at) == (JobStatus.SUCCEEDED, None, seen_at)
    assert not await other.claim_watch("ai2")
    assert await other.noted("ai2") is None


async def test_the_right_to_look_runs_out_unless_it_is_renewed_or_given_up(opened, wall):
    mine, other, third = opened(), opened(), opened()
    entry = await begun(mine)
    await mine.done(entry.intent.key, "ai1")
    for _ in range(5):
        assert await mine.claim_watch("ai1")
        wall.now += WATCH_LEASE * 0.6
        assert not await other.claim_watch("ai1")
    wall.now += WATCH_LEASE
    assert await other.claim_watch("ai1")
    assert not await mine.claim_watch("ai1")
    await other.release_watch("ai1")
    assert await third.claim_watch("ai1")
    await third.aclose()
    assert await mine.claim_watch("ai1")


async def test_a_right_to_look_that_was_just_renewed_costs_no_write(opened, wall):
    book = opened()
    entry = await begun(book)
    await book.done(entry.intent.key, "ai1")
    statements = []
    assert await book.claim_watch("ai1")
    await book._database.run(lambda connection: connection.set_trace_callback(statements.append))
    wall.now += WATCH_LEASE / 4
    assert await book.claim_watch("ai1")
    assert "COMMIT" not in statements


# Files that cannot be used


def foreign(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")


def newer(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t (x); PRAGMA application_id=0x67747361; PRAGMA user_version=99")


def text(path):
    path.write_text("this is no database at all, but quite long text that sqlite refuses to read" * 20)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (foreign, "another kind of file"),
        (newer, "newer version"),
        (text, "another kind of file, or its beginning is damaged"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to(path / "x" / "y"), "cannot be used"),
    ],
)
async def test_a_file_that_is_no_journal_is_named_and_left_alone(opened, tmp_path, make, told):
    path = tmp_path / "batch.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(FileError, match=told) as caught:
        await begun(opened())
    assert caught.value.path == str(path)
    assert before is None or path.read_bytes() == before


async def test_a_checkpoint_is_no_journal_and_a_journal_no_checkpoint(opened, tmp_path):
    checkpoint = Checkpoint(tmp_path / "results.db", "task")
    await checkpoint.known(0, [])
    await checkpoint.aclose()
    with pytest.raises(FileError, match="another kind of file"):
        await begun(opened("results.db"))
    await begun(opened())
    with pytest.raises(FileError, match="another kind of file"):
        await Checkpoint(tmp_path / "batch.db", "task").known(0, [])


async def test_a_folder_that_is_not_there_is_not_made(opened):
    with pytest.raises(FileError, match="folder does not exist"):
        await begun(opened("nowhere/batch.db"))


async def test_a_journal_that_is_moved_away_while_it_is_used_takes_nothing_more(opened, tmp_path):
    book = opened()
    await begun(book)
    (tmp_path / "batch.db").rename(tmp_path / "moved.db")
    with pytest.raises(FileError, match="moved, replaced or deleted"):
        await begun(book)


async def test_what_somebody_keeps_locked_is_told(tmp_path):
    database = Database(tmp_path / "x.db", "CREATE TABLE IF NOT EXISTS t (x)", 1)
    await database.run(lambda c: c.execute("PRAGMA busy_timeout=10"))
    with closing(sqlite3.connect(tmp_path / "x.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(FileError, match="locked"):
            await database.run(lambda c: c.execute("INSERT INTO t VALUES (1)"))
    await database.run(lambda c: c.execute("INSERT INTO t VALUES (1)"))
    await database.aclose()


MOUNTS = """/dev/sda / ext4 rw 0 0
server:/export {0} nfs4 rw 0 0
/dev/sdb {0}/local ext4 rw 0 0
//smb/share {0}/with\\040space cifs rw 0 0
junk
"""


@pytest.mark.parametrize(
    ("place", "kind"), [("a.db", "nfs4"), ("local/a.db", None), ("with space/deep/a.db", "cifs"), ("../a.db", None)]
)
def test_file_systems_of_other_machines_are_told_from_local_ones(tmp_path, place, kind):
    shared = tmp_path / "shared"
    (shared / "local").mkdir(parents=True)
    (shared / "with space/deep").mkdir(parents=True)
    table = tmp_path / "mounts"
    table.write_text(MOUNTS.format(shared))
    assert remote_kind(shared / place, table) == kind
    assert remote_kind(shared / place, tmp_path / "no table") is None


async def test_a_journal_on_another_machine_is_refused_before_anything_is_made(tmp_path, wall):
    table = tmp_path / "mounts"
    table.write_text(f"server:/export {tmp_path} nfs rw 0 0\n")
    with pytest.raises(FileError, match=r"another machine \(nfs\)"):
        await begun(Journal(tmp_path / "batch.db", wall, mounts=table))
    assert not (tmp_path / "batch.db").exists()
