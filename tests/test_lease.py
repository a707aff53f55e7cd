"""The lease of an engine's model slot: in this loop, among loops, and among processes."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from gts_async import Busy, SystemClock
from gts_async._lease import Lease, runtime_folder, slot_name
from gts_async._net.config import BaseURL

URL = BaseURL.parse("http://engine.example:5201", "engine")
OTHER = BaseURL.parse("http://engine.example:5202", "engine")


class Hasty(SystemClock):
    """A clock whose pauses are short."""

    async def sleep(self, seconds):
        await asyncio.sleep(min(seconds, 0.002))


@pytest.fixture
def folder(tmp_path):
    """Give a folder of lock files that no other test uses."""
    return tmp_path / "runtime"


@pytest.fixture
def lease(folder):
    """Give a function that makes a lease."""

    def make(task_id="t", base_url=URL, **options):
        return Lease(base_url, task_id, Hasty(), **{"folder": folder, **options})

    return make


def open_files():
    return len(os.listdir("/proc/self/fd"))


async def test_one_holds_it_and_the_others_get_it_in_the_order_of_asking(lease):
    order = []

    async def use(name):
        mine = lease(name)
        await mine.take(wait=True)
        order.append(name)
        await asyncio.sleep(0)
        await mine.give_back()

    first = lease("first")
    await first.take(wait=True)
    users = []
    for number in range(5):
        users.append(asyncio.create_task(use(number)))
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert order == []
    await first.give_back()
    await asyncio.gather(*users)
    assert order == [0, 1, 2, 3, 4]


async def test_who_does_not_wait_is_told_who_has_it(lease):
    mine = lease("tnews")
    await mine.take(wait=False)
    with pytest.raises(Busy, match="another inference session of this program, for task 'tnews'"):
        await lease().take(wait=False)
    await lease(base_url=OTHER).take(wait=False)
    await mine.give_back()
    await lease().take(wait=False)


async def test_giving_back_what_was_not_taken_does_nothing(lease):
    mine = lease()
    await mine.give_back()
    await mine.take(wait=False)
    await mine.give_back()
    await mine.give_back()
    with pytest.raises(Busy):
        await asyncio.gather(lease().take(wait=False), lease().take(wait=False))


SPELLINGS = [
    ("http://localhost:5201", "http://127.0.0.1:5201", True),
    ("http://localhost:5201", "http://[::1]:5201/", True),
    ("http://engine.example", "HTTP://Engine.example:80", True),
    ("https://engine.example", "https://engine.example:443/", True),
    ("https://engine.example", "http://engine.example", False),
    ("http://localhost:5201", "http://localhost:5202", False),
    ("http://engine.example/a", "http://engine.example/b", False),
]


@pytest.mark.parametrize(("one", "other", "is_same"), SPELLINGS)
def test_two_spellings_of_an_engine_are_one(one, other, is_same):
    names = [slot_name(BaseURL.parse(text, "engine")) for text in (one, other)]
    assert (names[0] == names[1]) is is_same


# The file


async def test_the_file_is_the_users_own_tells_whose_it_is_and_goes_with_the_lease(lease, folder):
    before = open_files()
    mine = lease("tnews")
    await mine.take(wait=False)
    (path,) = folder.iterdir()
    note = json.loads(path.read_text())
    assert (note["pid"], note["task"], note["engine"]) == (os.getpid(), "tnews", str(URL))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (fd,) = [int(n) for n in os.listdir("/proc/self/fd") if os.path.realpath(f"/proc/self/fd/{n}") == str(path)]
    assert not os.get_inheritable(fd)
    await mine.give_back()
    assert list(folder.iterdir()) == []
    assert open_files() == before


async def test_an_engine_of_this_process_alone_needs_no_file(lease, folder):
    mine = lease(is_private=True)
    await mine.take(wait=False)
    assert not folder.exists()
    with pytest.raises(Busy):
        await lease(is_private=True).take(wait=False)
    await mine.give_back()


def _in_the_way(folder):
    folder.write_text("a file")


def _anybodys(folder):
    folder.mkdir()
    folder.chmod(0o777)


def _elsewhere(folder):
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


def _nowhere(folder):
    folder.symlink_to(folder.parent / "missing" / "deep")


@pytest.mark.parametrize("spoil", [_in_the_way, _anybodys, _elsewhere, _nowhere])
async def test_a_folder_that_cannot_be_trusted_or_written_is_a_warning(lease, folder, caplog, spoil):
    spoil(folder)
    mine = lease()
    await mine.take(wait=False)
    assert "other processes will not see" in caplog.text
    with pytest.raises(Busy):
        await lease().take(wait=False)
    await mine.give_back()
    assert not (folder.parent / "missing").exists()


def test_the_folder_is_the_systems_or_one_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_folder() == tmp_path / "gts_async"
    for useless in (str(tmp_path / "missing"), "relative", ""):
        monkeypatch.setenv("XDG_RUNTIME_DIR", useless)
        found = runtime_folder()
        assert found.parent.is_dir()
        assert str(os.geteuid()) in str(found)


# Loops and processes


async def test_a_file_that_was_removed_between_opening_and_locking_it_counts_for_nothing(lease, folder, monkeypatch):
    locked, lock = [], fcntl.flock

    def removed_at_first(fd, how):
        if not locked:
            (path,) = folder.iterdir()
            path.unlink()
        locked.append(fd)
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", removed_at_first)
    before = open_files()
    mine = lease()
    await mine.take(wait=False)
    assert len(locked) == 2
    assert len(list(folder.iterdir())) == 1
    assert open_files() == before + 1
    await mine.give_back()


def test_of_many_loops_of_a_process_one_has_it_at_a_time(lease, folder):
    inside, most, rounds = [], [], 15

    async def use(number):
        for _ in range(rounds):
            mine = lease(str(number))
            await mine.take(wait=True)
            inside.append(number)
            most.append(len(inside))
            await asyncio.sleep(0.001)
            inside.remove(number)
            await mine.give_back()

    threads = [threading.Thread(target=lambda n=n: asyncio.run(use(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 4 * rounds
    assert max(most) == 1
    assert list(folder.iterdir()) == []


HOLD = """
import asyncio, os, sys, time
from pathlib import Path
from gts_async import SystemClock
from gts_async._lease import Lease
from gts_async._net.config import BaseURL

async def hold():
    lease = Lease(BaseURL.parse(sys.argv[1], "engine"), "theirs", SystemClock(), folder=Path(sys.argv[2]))
    await lease.take(wait=True)
    child = os.fork() if sys.argv[3] == "forks" else -1
    if child != 0:
        print(child, flush=True)
    time.sleep(1000)

asyncio.run(hold())
"""


@pytest.fixture
def holder(folder):
    """Give a function that starts a process which holds the lease, and gives its process and its child's id."""
    with contextlib.ExitStack() as ends:

        def start(forks=""):
            arguments = [sys.executable, "-c", HOLD, str(URL), str(folder), forks]
            process = ends.enter_context(subprocess.Popen(arguments, stdout=subprocess.PIPE))
            ends.callback(process.kill)
            child = int(process.stdout.readline())
            if child > 0:
                ends.callback(os.kill, child, signal.SIGKILL)
            return process, child

        yield start


@pytest.mark.slow
@pytest.mark.parametrize("forks", ["", "forks"])
async def test_a_killed_process_leaves_it_to_who_waits_even_if_its_child_lives(lease, folder, holder, forks):
    process, child = await asyncio.to_thread(holder, forks)
    with pytest.raises(Busy, match=f"process {process.pid}, for task 'theirs' since 20"):
        await lease().take(wait=False)
    mine = lease("mine")
    waiting = asyncio.create_task(mine.take(wait=True))
    done, _ = await asyncio.wait({waiting}, timeout=0.1)
    assert not done
    process.kill()
    await waiting
    if forks:
        os.kill(child, 0)
    (path,) = folder.iterdir()
    assert json.loads(path.read_text())["task"] == "mine"
    await mine.give_back()


# Cancellation


@pytest.mark.parametrize("turns", range(16))
async def test_who_is_cancelled_while_taking_it_holds_nothing(lease, cancelled_after, turns):
    before = open_files()

    async def take():
        mine = lease("cancelled")
        await mine.take(wait=True)
        try:
            await asyncio.sleep(1000 if turns > 12 else 0)
        finally:
            await mine.give_back()

    await cancelled_after(turns, take)
    assert open_files() == before
    other = lease()
    await other.take(wait=False)
    await other.give_back()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("turns", range(12))
async def test_who_is_cancelled_while_waiting_leaves_the_queue(lease, folder, cancelled_after, turns):
    first, last = lease("first"), lease("last")
    await first.take(wait=True)
    await cancelled_after(turns, lambda: lease("cancelled").take(wait=True))
    waiting = asyncio.create_task(last.take(wait=True))
    await asyncio.sleep(0)
    await first.give_back()
    await waiting
    await last.give_back()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("turns", range(12))
async def test_who_is_cancelled_while_another_process_has_it_keeps_no_file_open(lease, folder, cancelled_after, turns):
    # A lock of the same process through another opening of the file is to us like another process's.
    theirs = lease("theirs")
    await asyncio.to_thread(lambda: setattr(theirs, "_file", theirs._open()))
    before = open_files()
    await cancelled_after(turns, lambda: lease("cancelled").take(wait=True))
    assert open_files() == before
    with pytest.raises(Busy, match=f"process {os.getpid()}, for task 'theirs'"):
        await lease().take(wait=False)
    await theirs.give_back()
    await lease().take(wait=False)


@pytest.mark.parametrize("turns", range(10))
async def test_who_is_cancelled_while_giving_it_back_has_given_it_back(lease, folder, cancelled_after, turns):
    mine = lease()
    await mine.take(wait=True)
    await cancelled_after(turns, mine.give_back)
    # Cancelled before it began, it gives back at the next try.
    await mine.give_back()
    assert list(folder.iterdir()) == []
    other = lease()
    await other.take(wait=False)
    await other.give_back()
