"""What the receiver keeps on disk: before the answer, once, for later processes and other ones; and when it cannot."""

import asyncio
import logging
import resource
import signal
import sqlite3
import stat
import threading
from contextlib import closing, contextmanager

import pytest

from gts_async import FileError
from gts_async.callbacks import CallbackLimits, Receiver, receiver
from gts_async.callbacks.following import Following
from gts_async.callbacks.store import BATCH, MAX_PER_URL, Arrival, CallbackStore, Memory, on_disk
from gts_async.callbacks.urls import kept_key, new_key
from gts_async.sxwl.callbacks import read_callback

BASE = "https://hooks.test/jobs"
FAILED = b'{"jobId":"","status":"fail","url":""}\n'
SUCCEEDED = b'{"jobId":"ai1","status":"success","url":"https://store.test/data.zip?Signature=SECRETmark"}'


class Bells:
    def __init__(self):
        self.rung = []

    def ring(self, key):
        self.rung.append(key)


async def post(app, url, body=FAILED, sees=None):
    """Give the status that is answered; `sees` is called right before the answer goes out."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        if sees is not None and not sent:
            sees()
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": url.removeprefix("https://hooks.test")}, receive, send)
    return sent[0]["status"]


def rows_of(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT job_id, status, has_model FROM callbacks ORDER BY number").fetchall()


async def until(is_so):
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.002)


# Stored before it is answered


async def test_a_callback_is_on_disk_before_it_is_answered(tmp_path):
    path = tmp_path / "callbacks.db"
    seen = []
    async with receiver(None, BASE, store=path) as app:
        assert await post(app, app.url(), SUCCEEDED, sees=lambda: seen.extend(rows_of(path))) == 200
    assert seen == [("ai1", "succeeded", 1)]


async def test_what_is_committed_is_synced(tmp_path):
    database = on_disk(tmp_path / "callbacks.db")
    found = await database.run(
        lambda c: [c.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    )
    assert found == ["wal", 2]
    await database.aclose()


async def test_a_callback_is_stored_although_its_request_is_cancelled(tmp_path):
    path = tmp_path / "callbacks.db"
    has_begun = asyncio.Event()

    class Begun(CallbackStore):
        async def add(self, arrival):
            has_begun.set()
            return await super().add(arrival)

    async with Receiver(None, BASE, store=Begun(on_disk(path))) as app:
        posting = asyncio.create_task(post(app, app.url()))
        await has_begun.wait()
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
    assert rows_of(path) == [(None, "failed", 0)]


class Counting:
    """A database that counts its commits."""

    def __init__(self, database):
        self.database = database
        self.commits = 0

    async def run(self, work):
        self.commits += 1
        return await self.database.run(work)

    async def aclose(self):
        await self.database.aclose()


async def test_callbacks_that_come_together_share_commits(tmp_path):
    database = Counting(on_disk(tmp_path / "callbacks.db"))
    bells = Bells()
    app = Receiver(bells, BASE, store=CallbackStore(database))
    urls = [app.url() for _ in range(1000)]
    assert await asyncio.gather(*(post(app, url) for url in urls)) == [200] * 1000
    assert database.commits <= 4
    assert sorted(bells.rung) == sorted(urls)
    await app.aclose()
    assert len(rows_of(tmp_path / "callbacks.db")) == 1000


# Over a restart


async def test_a_url_is_good_after_a_restart_and_a_replay_is_known(tmp_path):
    path = tmp_path / "callbacks.db"
    async with receiver(None, BASE, store=path) as app:
        early, late = app.url(), app.url()
        assert await post(app, early) == 200
    bells = Bells()
    async with receiver(bells, BASE, store=str(path)) as app:
        assert await post(app, early) == 200
        assert bells.rung == []
        assert await post(app, late) == 200
        assert bells.rung == [late]
        assert (app.received.rung, app.received.repeated) == (1, 1)


async def test_a_url_is_good_although_its_process_was_killed_as_soon_as_it_was_made(tmp_path):
    early = receiver(None, BASE, store=tmp_path / "callbacks.db").url()
    async with receiver(None, BASE, store=tmp_path / "callbacks.db") as app:
        assert await post(app, early) == 200


async def test_a_job_of_an_earlier_process_is_woken_by_its_id_too(tmp_path):
    early = receiver(None, BASE, store=tmp_path / "callbacks.db").url()
    bells = Bells()
    async with receiver(bells, BASE, store=tmp_path / "callbacks.db") as app:
        await post(app, early, SUCCEEDED)
    assert bells.rung == [early, "ai1"]


async def test_urls_are_good_although_the_file_was_moved_away(tmp_path):
    path = tmp_path / "callbacks.db"
    async with receiver(None, BASE, store=path) as app:
        url = app.url()
    path.unlink()
    async with receiver(None, BASE, store=path) as app:
        assert await post(app, url) == 200


async def test_a_url_of_one_store_is_unknown_to_another(tmp_path):
    url = receiver(None, BASE, store=tmp_path / "a.db").url()
    assert await post(receiver(None, BASE, store=tmp_path / "b.db"), url) == 404


async def test_the_app_goes_on_after_it_was_closed(tmp_path):
    bells = Bells()
    app = receiver(bells, BASE, store=tmp_path / "callbacks.db")
    await app.aclose()
    url = app.url()
    assert await post(app, url) == 200
    assert bells.rung == [url]
    await app.aclose()
    await app.aclose()


# Within bounds, and without secrets


async def test_one_url_fills_no_disk(tmp_path):
    bells = Bells()
    async with receiver(bells, BASE, store=tmp_path / "callbacks.db") as app:
        url = app.url()
        for number in range(MAX_PER_URL + 5):
            assert await post(app, url, b'{"status":"success","jobId":"ai%d"}' % number) == 200
        assert await post(app, app.url()) == 200
    assert len(rows_of(tmp_path / "callbacks.db")) == MAX_PER_URL + 1
    assert (len(bells.rung), app.received.repeated) == (MAX_PER_URL + 1, 5)


async def test_without_a_file_the_newest_are_remembered():
    callback = read_callback(FAILED)
    memory = CallbackStore(Memory(50))
    for number in range(150):
        arrival = Arrival(url_id=number.to_bytes(16), callback=callback, received_at=1.0, origin=b"")
        assert await memory.add(arrival)
    rows = await memory.since(0)
    assert rows[0].number == 101
    assert (len(rows), await memory.last()) == (50, 150)


async def test_neither_urls_nor_what_models_can_be_fetched_with_are_on_disk(tmp_path):
    path = tmp_path / "callbacks.db"
    async with receiver(None, BASE, store=path) as app:
        url = app.url()
        await post(app, url, SUCCEEDED)
        await post(app, url, b'{"status":"https://store.test/?Signature=SECRETmark"}')
        kept = b"".join(one.read_bytes() for one in tmp_path.iterdir() if not one.name.endswith(".key"))
        key = (tmp_path / "callbacks.db.key").read_bytes()
    token = url.rpartition("/")[2].encode()
    assert b"ai1" in kept
    assert [secret for secret in (token, token[22:], b"SECRETmark", key) if secret in kept] == []


def test_the_files_are_for_their_owner_only(tmp_path):
    receiver(None, BASE, store=tmp_path / "callbacks.db")
    (key,) = tmp_path.iterdir()
    assert (key.name, stat.S_IMODE(key.stat().st_mode)) == ("callbacks.db.key", 0o600)
    assert (len(key.read_bytes()), len(new_key())) == (32, 32)
    key.chmod(0o644)
    with pytest.warns(UserWarning, match="chmod 600"):
        receiver(None, BASE, store=tmp_path / "callbacks.db")


def test_all_who_make_the_key_at_once_get_the_same(tmp_path):
    start = threading.Barrier(8)
    keys = []

    def make():
        start.wait()
        keys.append(kept_key(tmp_path / "key"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(keys), len(set(keys))) == (8, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_store_that_cannot_be_is_refused_at_once(tmp_path):
    with pytest.raises(FileError, match="nowhere"):
        receiver(None, BASE, store=tmp_path / "nowhere" / "callbacks.db")
    (tmp_path / "b.db.key").write_bytes(b"short")
    (tmp_path / "b.db.key").chmod(0o600)
    with pytest.raises(FileError, match="no key"):
        receiver(None, BASE, store=tmp_path / "b.db")


# A disk that is full, a file that is damaged


@contextmanager
def files_of_at_most(size):
    """Let no file grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


async def test_on_a_full_disk_callbacks_are_not_taken_but_wake_their_watches_and_are_told_once(tmp_path, caplog):
    bells = Bells()
    async with receiver(bells, BASE, store=tmp_path / "callbacks.db") as app:
        assert await post(app, app.url()) == 200
        full = [app.url() for _ in range(20)]
        with files_of_at_most(4096):
            assert [await post(app, url) for url in full] == [503] * 20
        assert bells.rung[1:] == full
        assert (app.received.unstored, app.received.repeated) == (20, 0)
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        # There is room again: the same callback is news still.
        assert [await post(app, url) for url in full] == [200] * 20
        assert bells.rung[21:] == full
    assert len(rows_of(tmp_path / "callbacks.db")) == 21


async def test_a_refusal_for_want_of_a_disk_says_when_to_come_again(tmp_path):
    (tmp_path / "callbacks.db").write_bytes(b"no database" * 1000)
    app = receiver(None, BASE, store=tmp_path / "callbacks.db")
    sent = []

    async def receive():
        return {"type": "http.request", "body": FAILED}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": app.url().removeprefix("https://hooks.test")}, receive, send)
    assert (b"retry-after", b"10") in sent[0]["headers"]


async def test_a_damaged_file_is_told_when_it_is_opened(tmp_path):
    (tmp_path / "callbacks.db").write_bytes(b"no database" * 1000)
    with pytest.raises(FileError, match=r"callbacks\.db"):
        async with receiver(None, BASE, store=tmp_path / "callbacks.db"):
            pass


async def test_a_server_starts_with_a_damaged_file_because_callbacks_wake_watches_without_it(tmp_path, caplog):
    (tmp_path / "callbacks.db").write_bytes(b"no database" * 1000)
    bells = Bells()
    app = receiver(bells, BASE, store=tmp_path / "callbacks.db")
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message["type"])

    url = app.url()
    assert await post(app, url) == 503
    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert bells.rung == [url]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


class Stuck:
    """A database whose disk does not answer."""

    def __init__(self):
        self.commits = 0

    async def run(self, work):
        self.commits += 1
        await asyncio.Event().wait()

    async def aclose(self):
        """Do nothing."""


async def test_a_disk_that_hangs_is_waited_for_within_bounds(tmp_path):
    bells = Bells()
    app = Receiver(bells, BASE, store=CallbackStore(Stuck()), limits=CallbackLimits(store_time=0.02))
    urls = [app.url() for _ in range(5)]
    assert await asyncio.gather(*(post(app, url) for url in urls)) == [503] * 5
    assert bells.rung == urls
    async with asyncio.timeout(60):
        await app.aclose()


# Other processes


async def test_what_another_process_has_received_wakes_the_watches_here(tmp_path):
    quick = CallbackLimits(follow_every=0.01)
    bells, theirs = Bells(), Bells()
    async with (
        receiver(bells, BASE, store=tmp_path / "callbacks.db", limits=quick) as app,
        receiver(theirs, BASE, store=tmp_path / "callbacks.db") as listener,
    ):
        url = app.url()
        assert await post(listener, url) == 200
        await until(lambda: bells.rung)
        assert await post(app, app.url()) == 200
        await until(lambda: len(bells.rung) > 1)
        await asyncio.sleep(0.05)
    # Once each: what came here is not heard of once more.
    assert bells.rung[0] == url
    assert len(bells.rung) == 2
    assert theirs.rung == [url]


async def test_what_came_before_the_beginning_wakes_nobody_because_every_watch_begins_with_a_look(tmp_path):
    async with receiver(None, BASE, store=tmp_path / "callbacks.db") as app:
        await post(app, app.url())
    bells = Bells()
    async with receiver(bells, BASE, store=tmp_path / "callbacks.db", limits=CallbackLimits(follow_every=0.005)):
        await asyncio.sleep(0.05)
    assert bells.rung == []


async def test_more_than_one_look_fetches_are_heard_without_a_pause_in_between():
    store = CallbackStore(Memory())
    for number in range(2 * BATCH + 1):
        arrival = Arrival(url_id=number.to_bytes(16), callback=read_callback(FAILED), received_at=1.0, origin=b"them")
        await store.add(arrival)
    heard = []
    hearing = asyncio.create_task(Following(store, b"here", heard.append, every=1000.0)._go(0))
    await until(lambda: len(heard) == 2 * BATCH + 1)
    hearing.cancel()
    assert [row.number for row in heard] == list(range(1, 2 * BATCH + 2))


async def test_two_that_receive_the_same_at_once_store_it_once(tmp_path):
    async with (
        receiver(None, BASE, store=tmp_path / "callbacks.db") as one,
        receiver(None, BASE, store=tmp_path / "callbacks.db") as other,
    ):
        urls = [one.url() for _ in range(50)]
        statuses = await asyncio.gather(*(post(app, url) for url in urls for app in (one, other)))
    assert statuses == [200] * 100
    assert len(rows_of(tmp_path / "callbacks.db")) == 50
    # Each rings for what the other has stored, too, if there is time for it; but of each pair one comes second.
    assert one.received.repeated + other.received.repeated == 50


async def test_taking_waits_for_another_process_that_is_just_writing(tmp_path):
    path = tmp_path / "callbacks.db"
    store = CallbackStore(on_disk(path))
    for number in range(2):
        arrival = Arrival(url_id=bytes([number]) * 16, callback=read_callback(FAILED), received_at=1.0, origin=b"")
        assert await store.add(arrival)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE callbacks SET due_at = NULL WHERE number = 1")
        taking = asyncio.create_task(store.take(10, now=2.0, until=3.0))
        await asyncio.sleep(0.1)
        assert not taking.done()
        other.execute("COMMIT")
        # What the other one has taken meanwhile is not given out again.
        assert [row.number for row in await taking] == [2]
    await store.aclose()
