"""Checkpoints: what is kept, what is refused and why, what a damaged, full or shared file does; and real kills."""

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gts_async import (
    AsyncSession,
    Entity,
    Extraction,
    FileError,
    InvalidArgument,
    Prediction,
    Relation,
    Summary,
    TaskStatus,
    TaskType,
)
from gts_async._checkpoint import Checkpoint, sample_key
from gts_async._errors import GtsAsyncError
from gts_async.emulator.engine import Engine
from gts_async.emulator.scripted import MemoryFiles, Script, ScriptedTrainer
from gts_async.gts import samples as rules
from gts_async.wire import Request

HOME = Path(__file__).parents[1]
ROW = {"content": "x"}
ENTITY = Entity("上海", "地点", 1, 3, 0.1 + 0.2)
RESULTS = [
    Prediction("a", 0.1 + 0.2, (0.1 + 0.2, 1e-300, 0.7)),
    Extraction("在上海", (ENTITY,), (Relation("p", ENTITY, ENTITY, 1.0),), b'{"text": "\xe5\x9c\xa8"}'),
    Summary("a\u2028b\x00"),
]


def key(text, kind=TaskType.CLASSIFICATION):
    return sample_key(kind, {"content": text})


def model(name):
    async def fingerprint():
        return name

    return fingerprint


@pytest.fixture
async def opened(tmp_path):
    """Give a function that opens checkpoints; they are closed in the end."""
    made = []

    def open_one(task="t", fingerprint="m", name="results.db"):
        made.append(Checkpoint(tmp_path / name, task, model(fingerprint)))
        return made[-1]

    yield open_one
    for kept in made:
        with contextlib.suppress(GtsAsyncError):
            await kept.aclose()


async def kept_by(kept, results, start=0):
    keys = [key(str(start + n)) for n in range(len(results))]
    assert await kept.known(start, keys) == {}
    await kept.keep(start, keys, dict(enumerate(results)))
    await kept.aclose()
    return keys


# What is kept


async def test_every_kind_of_result_comes_back_as_it_was(opened):
    keys = await kept_by(opened(), RESULTS)
    found = await opened().known(0, keys)
    assert found == dict(enumerate(RESULTS))
    assert found[1].json == RESULTS[1].json
    assert [type(value) for value in found.values()] == [Prediction, Extraction, Summary]


async def test_results_are_found_by_position_whatever_the_batches_were(opened):
    keys = await kept_by(opened(), [Summary(str(n)) for n in range(10)])
    kept = opened()
    assert await kept.known(3, keys[3:5]) == {0: Summary("3"), 1: Summary("4")}
    assert list(await kept.known(8, [*keys[8:], key("10"), None])) == [0, 1]
    assert await kept.known(10, [None] * 5) == {}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"content": "x", "id": 1}, {"id": 2, "content": "x"}),
        ({"text": "t", "task": "实体识别", "choice": ["a"]}, {"choice": ("a",), "task": "实体识别", "text": "t"}),
    ],
)
def test_a_sample_is_known_by_what_is_sent_for_it(one, other):
    kind = TaskType.CLASSIFICATION if "content" in one else TaskType.IE
    assert sample_key(kind, rules.prepare(kind, one)) == sample_key(kind, rules.prepare(kind, other))
    assert len({sample_key(kind, {"content": text}) for kind in TaskType for text in ("", "x", "y", "x\n")}) == 20


async def test_many_results_are_written_in_few_commits_while_the_stream_goes_on(opened, tmp_path):
    kept, commits = opened(), []
    run = kept._database.run

    async def counted(work):
        commits.append(work)
        return await run(work)

    await kept.known(0, [])
    kept._database.run = counted
    for start in range(0, 6400, 64):
        keys = [key(str(start + n)) for n in range(64)]
        await kept.keep(start, keys, {n: Summary(str(start + n)) for n in range(64)})
    await kept.aclose()
    assert len(commits) < 50
    assert sqlite3.connect(tmp_path / "results.db").execute("SELECT count(*) FROM results").fetchone() == (6400,)


# What is refused


async def test_another_task_model_or_input_is_refused_with_what_and_from_where(opened):
    keys = await kept_by(opened("t", "accuracy 0.6"), [Summary(str(n)) for n in range(10)])
    with pytest.raises(InvalidArgument, match="of the task 't', not of 'u', up to sample 9"):
        await opened("u", "accuracy 0.6", "results.db").known(0, keys)
    for kept in list(opened.__closure__[0].cell_contents):
        await kept.aclose()
    with pytest.raises(InvalidArgument, match=r"another model \(it was accuracy 0.6, and is accuracy 0.7\)"):
        await opened("t", "accuracy 0.7").known(0, keys)
    for kept in list(opened.__closure__[0].cell_contents):
        await kept.aclose()
    changed = [*keys[:6], key("new"), *keys[7:]]
    kept = opened("t", "accuracy 0.6")
    assert len(await kept.known(0, changed[:5])) == 5
    with pytest.raises(InvalidArgument, match="other samples: the input differs at sample 6") as caught:
        await kept.known(5, changed[5:])
    assert caught.value.argument == "checkpoint"


async def test_a_sample_that_cannot_be_asked_any_more_is_another_input(opened):
    keys = await kept_by(opened(), [Summary("x")] * 3)
    with pytest.raises(InvalidArgument, match="differs at sample 1"):
        await opened().known(0, [keys[0], None, keys[2]])


async def test_a_file_that_holds_nothing_yet_takes_any_model(opened):
    first = opened("t", "one")
    assert await first.known(0, [key("x")]) == {}
    await first.aclose()
    second = opened("u", "two")
    assert await second.known(0, [key("x")]) == {}


async def test_a_file_in_use_is_refused_until_it_is_closed(opened, tmp_path):
    first = opened()
    await first.known(0, [])
    with pytest.raises(FileError, match="another stream is using it") as caught:
        await opened().known(0, [])
    assert caught.value.path == str(tmp_path / "results.db")
    await first.aclose()
    assert await opened().known(0, []) == {}


async def test_nothing_but_the_file_is_left_behind(opened, tmp_path):
    await kept_by(opened(), RESULTS)
    assert [path.name for path in tmp_path.iterdir()] == ["results.db"]
    assert (tmp_path / "results.db").stat().st_mode & 0o777 == 0o600


# Damage


def damage(path, how):
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(how)
    connection.close()


@pytest.mark.parametrize(
    "how",
    [
        "UPDATE results SET result = replace(result, '0.7', '0.6') WHERE position = 0",
        "UPDATE results SET result = 'x' WHERE position = 1",
        "UPDATE results SET kind = 'y' WHERE position = 1",
        "UPDATE results SET kind = x'ff' WHERE position = 1",
        "UPDATE results SET sample = 5 WHERE position = 2",
        "UPDATE results SET crc = crc + 1 WHERE position = 2",
        "UPDATE results SET position = 3 WHERE position = 2",
        "DELETE FROM source",
    ],
)
async def test_a_row_that_is_not_what_was_written_is_damage_and_never_an_answer(opened, tmp_path, how):
    keys = await kept_by(opened(), RESULTS)
    damage(tmp_path / "results.db", how)
    with pytest.raises(FileError, match="damaged; delete it to ask for everything again"):
        await opened().known(0, [*keys, key("3")])


@pytest.mark.parametrize("seed", range(20))
async def test_bytes_that_changed_are_told_or_harmless(opened, tmp_path, seed):
    expected = {n: Summary(f"summary {n} " * 10) for n in range(100)}
    keys = await kept_by(opened(), list(expected.values()))
    path, chance = tmp_path / "results.db", random.Random(seed)
    content = bytearray(path.read_bytes())
    for _ in range(10):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    found = {}
    # A text that changed into another may look like another model's: refused as well.
    with contextlib.suppress(FileError, InvalidArgument):
        found = await opened().known(0, keys)
    assert all(found[n] == expected[n] for n in found)


@pytest.mark.parametrize("content", [b"", b"not a database at all, but a text of some length " * 50])
async def test_an_empty_file_is_new_and_any_other_is_left_alone(opened, tmp_path, content):
    (tmp_path / "results.db").write_bytes(content)
    if not content:
        assert await opened().known(0, []) == {}
        return
    with pytest.raises(FileError, match="another kind of file"):
        await opened().known(0, [])
    assert (tmp_path / "results.db").read_bytes() == content


async def test_what_cannot_be_written_is_told_at_the_next_turn_and_only_once(opened, tmp_path):
    kept = opened()
    await kept.known(0, [])
    (tmp_path / "results.db").rename(tmp_path / "elsewhere.db")
    await kept.keep(0, [key("x")], {0: Summary("x")})
    with pytest.raises(FileError, match="moved, replaced or deleted"):
        async with asyncio.timeout(60):
            while True:
                await kept.keep(1, [key("x")], {})
                await asyncio.sleep(0.001)
    await kept.aclose()


async def test_what_cannot_be_written_last_is_told_when_it_is_closed(opened, tmp_path):
    kept = opened()
    await kept.known(0, [])
    (tmp_path / "results.db").rename(tmp_path / "elsewhere.db")
    await kept.keep(0, [key("x")], {0: Summary("x")})
    with pytest.raises(FileError, match="moved, replaced or deleted"):
        await kept.aclose()


# Streams


async def begun_training(session, folder):
    rows = [{"id": i, "content": f"text {i}", "label": "ab"[i % 2]} for i in range(40)]
    (folder / "d.json").write_text("\n".join(map(json.dumps, rows)))
    (folder / "l.json").write_text(json.dumps({"labels": ["a", "b"]}))
    made = await session.create_task("t", task_type="classification", engine_type="qiankunding")
    await made.upload(folder / "d.json", folder / "l.json")
    return await made.train(**FILES)


@pytest.fixture
async def task(gts_session, tmp_path):
    run = await begun_training(gts_session, tmp_path)
    await run
    return run.task


FILES = {"train_data": "d.json", "val_data": "d.json", "test_data": "d.json", "label_data": "l.json"}


def samples(count):
    return [{"content": str(n)} for n in range(count)]


async def collected(stream):
    async with stream as outcomes:
        return [outcome async for outcome in outcomes]


def asked(trainer):
    return Counter(row["content"] for call in trainer.predicted for row in call.rows)


async def test_failures_are_asked_again_and_results_are_not(task, gts_trainer, tmp_path):
    path, inputs = tmp_path / "kept.db", [*samples(5), {}, *samples(10)[5:]]
    async with task.serve() as inference:
        first = await collected(inference.stream(inputs, max_batch=3, checkpoint=path))
        gts_trainer.predicted.clear()
        again = await collected(inference.stream(inputs, max_batch=4, checkpoint=str(path)))
        assert not set(asked(gts_trainer)) & {str(n) for n in range(10)}
        longer = await collected(inference.stream([*inputs, {"content": "10"}], checkpoint=path))
    assert [outcome.value for outcome in again] == [outcome.value for outcome in first]
    assert [outcome.tries for outcome in again] == [0] * 11
    assert [outcome.is_ok for outcome in again] == [n != 5 for n in range(11)]
    assert longer[-1].tries == 1
    assert longer[-1].is_ok


async def test_two_streams_do_not_share_a_file(task, tmp_path):
    async with task.serve() as inference, inference.stream(samples(50), checkpoint=tmp_path / "kept.db") as first:
        await anext(first)
        with pytest.raises(FileError, match="another stream is using it"):
            await collected(inference.stream(samples(50), checkpoint=tmp_path / "kept.db"))
        assert len([outcome async for outcome in first]) == 49


async def test_leaving_early_keeps_what_was_answered(task, gts_trainer, tmp_path):
    async with task.serve() as inference:
        async with inference.stream(samples(1000), max_batch=5, checkpoint=tmp_path / "kept.db") as outcomes:
            seen = [(await anext(outcomes)).value for _ in range(50)]
        gts_trainer.predicted.clear()
        again = await collected(inference.stream(samples(1000), checkpoint=tmp_path / "kept.db"))
    assert [outcome.value for outcome in again[:50]] == seen
    assert not set(asked(gts_trainer)) & {str(n) for n in range(50)}
    assert [outcome.item for outcome in again] == samples(1000)


async def test_a_full_disk_ends_the_stream_with_what_happened(task, tmp_path):
    path = tmp_path / "kept.db"
    async with task.serve() as inference:
        await collected(inference.stream(samples(10), checkpoint=path))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100_000, hard))
        try:
            with pytest.raises(FileError, match="full"):
                await collected(inference.stream(samples(20_000), checkpoint=path))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
        again = await collected(inference.stream(samples(500), checkpoint=path))
    assert [outcome.item for outcome in again] == samples(500)
    assert sum(outcome.tries == 0 for outcome in again) >= 10


# Kills

PREDICT = """
import asyncio, json, sys
from gts_async import AsyncSession

url, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])


def samples():
    for number in range(count):
        yield {"content": str(number)}


async def main():
    async with AsyncSession(engine=url) as session:
        async with session.task("t", task_type="classification", engine_type="qiankunding").serve() as inference:
            async with inference.stream(samples(), max_batch=8, max_at_once=3, checkpoint=path) as outcomes:
                async for outcome in outcomes:
                    print(json.dumps([outcome.item["content"], outcome.unwrap().probabilities]), flush=True)


asyncio.run(main())
"""


FORKS = """
import json, os, sys, traceback
from gts_async import AsyncSession
from gts_async._checkpoint import Checkpoint


def run(program, output, arguments):
    os.dup2(os.open(output, os.O_WRONLY), 1)
    os.dup2(os.open(output + ".errors", os.O_WRONLY | os.O_CREAT), 2)
    sys.argv = ["-", *arguments]
    exec(program, {"__name__": "__main__"})


for line in sys.stdin:
    what, *rest = json.loads(line)
    if what == "wait":
        print(os.waitstatus_to_exitcode(os.waitpid(*rest, 0)[1]), flush=True)
        continue
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    code = 1
    try:
        run(*rest)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
"""
"""Runs programs in processes of their own that have all imports done, which is most of what a new one takes."""


class Forks:
    """Processes of that kind."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.server = subprocess.Popen(
            [sys.executable, "-c", FORKS],
            cwd=HOME,
            env={**os.environ, "PYTHONPATH": str(HOME)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, *what):
        self.server.stdin.write(json.dumps(what) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def begin(self, program, *arguments):
        self.count += 1
        return Run(self, self.folder / f"output-{self.count}", program, arguments)


class Run:
    """One of them."""

    def __init__(self, forks, output, program, arguments):
        os.mkfifo(output)
        self.forks, self.output = forks, output
        self.pid = forks.tell("run", program, str(output), list(map(str, arguments)))
        self.stdout = output.open()

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        assert self.end()[2] == -signal.SIGKILL

    def end(self):
        """Wait for its end; gives what else it printed, its errors, and its exit code."""
        with self.stdout:
            rest = self.stdout.read()
        code = self.forks.tell("wait", self.pid)
        return rest, self.output.with_name(f"{self.output.name}.errors").read_text(), code


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    forks = Forks(tmp_path_factory.mktemp("forks"))
    with forks.server:
        yield forks


class World:
    """A pure engine with a trained task, served from this process; `delay` is how long a predict takes."""

    def __init__(self):
        self.trainer = ScriptedTrainer(MemoryFiles(), default=Script(startup=0, training=0))
        self.engine = Engine(self.trainer.files, self.trainer)
        self.lock, self.delay = threading.Lock(), 0.045
        world = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # An answer is written in two parts: else each takes 40 ms more.
            disable_nagle_algorithm = True

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.path.endswith("predict"):
                    time.sleep(world.delay)
                headers = tuple((name.lower(), value) for name, value in self.headers.items())
                answer = world.answer(self.path, headers, body)
                with contextlib.suppress(OSError):
                    self.send_response(answer.status)
                    for name, value in (*answer.headers, ("content-length", str(len(answer.body)))):
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(answer.body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path, headers, body):
        with self.lock:
            return self.engine.answer(Request("POST", path, (), headers, body), time.time())


async def prepared(world, folder):
    async with AsyncSession(engine=world.url) as session:
        run = await begun_training(session, folder)
        assert (await run.task.status()).status is TaskStatus.SUCCEEDED


@pytest.fixture
def world(tmp_path):
    world = World()
    thread = threading.Thread(target=world.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    asyncio.run(prepared(world, tmp_path))
    yield world
    world.server.shutdown()
    thread.join()
    world.server.server_close()


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_is_not(world, forks, tmp_path):
    chance, count, kills, told = random.Random(1), 300, 5, 0
    expected, errors, code = forks.begin(PREDICT, world.url, tmp_path / "whole.db", count).end()
    assert code == 0, errors
    world.trainer.predicted.clear()
    # At random moments: so many new outcomes after the last kill, and a bit.
    for _ in range(kills):
        run = forks.begin(PREDICT, world.url, tmp_path / "killed.db", count)
        told += chance.randrange(1, count // kills)
        for _ in range(told):
            assert run.stdout.readline()
        time.sleep(chance.random() * 0.02)
        run.kill()
    found, errors, code = forks.begin(PREDICT, world.url, tmp_path / "killed.db", count).end()
    assert code == 0, errors
    assert found == expected
    times = asked(world.trainer)
    assert all(times[str(n)] >= 1 for n in range(count))
    # Three batches are in flight, and as many may wait for the commit that is under way.
    twice = sum(times[str(n)] - 1 for n in range(count))
    assert twice <= kills * 8 * 3 * 2


@pytest.mark.slow
def test_two_processes_on_one_file_get_a_clear_error_and_no_harm_is_done(world, forks, tmp_path):
    path = tmp_path / "kept.db"
    world.delay = 0.05
    first = forks.begin(PREDICT, world.url, path, 300)
    first.stdout.readline()
    # The engine's lease would keep the second one waiting, so this one asks for the file itself.
    program = (
        "import asyncio, sys; from gts_async._checkpoint import Checkpoint;"
        f"asyncio.run(Checkpoint({str(path)!r}, 't').known(0, []))"
    )
    _, errors, code = forks.begin(program).end()
    assert code == 1
    assert "FileError" in errors
    assert "another stream is using it" in errors
    world.delay = 0
    rest, errors, code = first.end()
    assert code == 0, errors
    assert len(rest.splitlines()) == 299
