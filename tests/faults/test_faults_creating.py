"""Creates whose answer is lost, late or a lie, or that are cancelled: what is made, who learns of it, what is resent.

What became of a create is judged by a ledger: every job that the cloud ever made, by its command.
"""

import asyncio
import gc
import itertools
import json
import sqlite3
import sys
from contextlib import closing

import attrs
import httpx
import pytest

from gts_async import (
    AsyncSession,
    Denied,
    InvalidArgument,
    InvalidData,
    JobSpec,
    MisuseError,
    OutcomeUnknown,
    QuotaExceeded,
    TaskStatus,
    Unauthorized,
    UnexpectedAnswer,
    WorkLost,
    WrongState,
    WrongType,
)
from gts_async.emulator.cloud import Cloud, Generation
from gts_async.emulator.scripted import Script
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.testing import EmulatorTransport, FakeClock, chaos, faults
from gts_async.wire import Answer, Request

SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="run")
FILES = {"train_data": "train.json", "val_data": "dev.json", "test_data": "test.json", "label_data": "labels.json"}
CREATES = ("/api/userJob", "/api/job/training")
LOOKS = ("/api/userJob/job_status", "/api/job/gpu/status")
TYPES = {"task_type": "classification", "engine_type": "bagualu"}
each = pytest.mark.parametrize("generation", Generation, ids=lambda generation: generation.name)


def numbered(count, start=0):
    return [attrs.evolve(SPEC, run_command=f"run {number}") for number in range(start, start + count)]


def document(told, status=200):
    return Answer(status, (("content-type", "application/json"),), json.dumps(told).encode())


class Ledger:
    """A cloud of one generation, and all that it was asked to make.

    `creates` and `listings` are called with the request and ``carry_out()``, and give the answer to it: so a fault may
    carry a request out and say something else, or raise what httpx would.
    """

    def __init__(self, generation=Generation.GO):
        self.generation = generation
        self.clock = FakeClock()
        self.cloud = Cloud(
            ScriptedRunner(), ObjectStore(b"key", "https://store.test"), token="t", generation=generation
        )
        self.asked = []
        self.creates = self.listings = self.looks = lambda request, carry_out: carry_out()
        self.path = CREATES[generation is Generation.HEAD]

    def answer(self, request, now):
        is_create = request.method == "POST" and request.path in CREATES
        if is_create:
            self.asked.append(json.loads(request.body)["runCommand"])
        kind = self.creates if is_create else self.listings if request.path in CREATES else self.looks
        return kind(request, lambda: self.cloud.answer(request, now))

    def session(self, **options):
        self.transport = EmulatorTransport({"https://cloud.test": self}, lambda: self.clock.wall().timestamp())
        options.setdefault("dialect", "2024-04" if self.generation is Generation.HEAD else "2023-12")
        options.setdefault("transport", self.transport)
        return AsyncSession(cloud="https://cloud.test/api", token="t", clock=self.clock, chance=lambda: 0.5, **options)

    def rows(self):
        """Give the rows of the cloud's own listing, all of them."""
        query = (("current", "1"), ("size", "100000"))
        request = Request("GET", self.path, query, (("authorization", "Bearer t"),))
        return json.loads(self.cloud.answer(request, self.clock.wall().timestamp()).body)["content"]

    def jobs(self):
        """Give the ids of the jobs that there are, by their command."""
        found = {}
        for row in self.rows():
            found.setdefault(row["runCommand"], []).append(row["jobName"])
        return found

    def first(self, fault, number=1):
        """Let the create of that number meet `fault`, and the others nothing."""
        count = itertools.count(1)
        self.creates = lambda request, carry_out: fault(carry_out()) if next(count) == number else carry_out()

    def without_listing(self):
        self.listings = lambda request, carry_out: Answer(503, (), b"")


def lost(answer):
    raise httpx.ReadError("connection reset")


def silent(answer):
    raise httpx.ReadTimeout("no answer")


def instead(status, body=b"", kind="text/plain"):
    return lambda answer: Answer(status, (("content-type", kind),), body)


SAYS_NOTHING = {
    "F1 reset": lost,
    "F1 silence": silent,
    "F2 500": instead(500, b"internal error"),
    "F2 502 page": instead(502, b"<html>bad gateway</html>", "text/html"),
    "F2 504": instead(504),
    "F2 408": instead(408),
    "F2 400 of its own timeout": instead(400, b'{"message": "context deadline exceeded"}', "application/json"),
    "F2 200 without a body": instead(200),
    "F2 200 that is a page": instead(200, b"<html>welcome</html>", "text/html"),
    "F2 200 without an id": instead(200, b'{"job_id": ""}', "application/json"),
    "F2 200 cut": instead(200, b'{"job_id": "ai1', "application/json"),
}


async def collected(fan_out):
    async with fan_out as outcomes:
        return [outcome async for outcome in outcomes]


def tasks_of_others():
    return asyncio.all_tasks() - {asyncio.current_task()}


# F1, F2: jobs


@each
@pytest.mark.parametrize("fault", SAYS_NOTHING.values(), ids=SAYS_NOTHING)
async def test_a_job_that_was_made_is_found_whatever_the_answer_was(generation, fault):
    ledger = Ledger(generation)
    ledger.first(fault)
    job = await ledger.session().submit(SPEC)
    assert ledger.jobs() == {"run": [job.id]}
    assert ledger.asked == ["run"]


@each
@pytest.mark.parametrize("fault", SAYS_NOTHING.values(), ids=SAYS_NOTHING)
async def test_a_job_that_was_made_is_reconciled_by_another_session_once_there_is_a_listing(generation, fault):
    ledger = Ledger(generation)
    ledger.first(fault)
    ledger.without_listing()
    with pytest.raises(OutcomeUnknown) as caught:
        await ledger.session().submit(SPEC)
    token = caught.value.intent.token()
    ledger.listings = lambda request, carry_out: carry_out()
    for _ in range(2):
        job = await ledger.session().reconcile(token)
        assert ledger.jobs() == {"run": [job.id]}
    assert ledger.asked == ["run"]


@each
async def test_a_job_that_is_made_eight_seconds_late_is_no_second_one(generation, tmp_path):
    ledger = Ledger(generation)

    def late(request, carry_out):
        if len(ledger.asked) == 1:
            ledger.clock.call_later(8, carry_out)
            raise httpx.ReadTimeout("no answer")
        return carry_out()

    ledger.creates = late
    outcomes = await collected(ledger.session().submit_many(numbered(3), journal=tmp_path / "batch.db", max_at_once=1))
    assert {outcome.item.run_command: [outcome.unwrap().id] for outcome in outcomes} == ledger.jobs()
    assert sorted(ledger.asked) == ["run 0", "run 1", "run 2"]


async def test_f1_a_job_whose_answer_is_reset_on_the_wire_is_found_there(floor, server):
    ledger = Ledger(Generation.JAVA)

    async def served(connection):
        request = connection.request
        path, _, query = request.target.partition("?")
        pairs = tuple(tuple(pair.split("=")) for pair in query.split("&") if pair)
        headers = (("authorization", "Bearer t"), ("content-type", "application/json"))
        answer = ledger.answer(Request(request.method, path, pairs, headers, request.body), 1e9)
        if request.method == "POST" and path in CREATES:
            await chaos.reset()(connection)
        else:
            await chaos.answer(answer.status, json=json.loads(answer.body))(connection)

    async with floor(server) as this:
        server.otherwise(served)
        job = await this.session.submit(SPEC)
    assert ledger.jobs() == {"run": [job.id]}
    assert ledger.asked == ["run"]


# Answers and listings that lie


async def test_an_answer_with_another_jobs_id_is_not_believed(tmp_path):
    ledger = Ledger()
    first = []

    def mixed_up(answer):
        return first[0]

    def creates(request, carry_out):
        first.append(carry_out())
        return mixed_up(first[-1]) if len(ledger.asked) == 3 else first[-1]

    ledger.creates = creates
    outcomes = await collected(ledger.session().submit_many(numbered(5), journal=tmp_path / "batch.db", max_at_once=1))
    assert {outcome.item.run_command: [outcome.unwrap().id] for outcome in outcomes} == ledger.jobs()
    assert len(ledger.asked) == 5


async def test_an_answer_with_another_jobs_id_leaves_the_outcome_unknown_where_nothing_tells_jobs_apart(tmp_path):
    ledger = Ledger()
    ledger.creates = lambda request, carry_out: document({"job_id": "ai1"})
    specs = [attrs.evolve(spec, callback_url="https://here.test/" + "x" * 230) for spec in numbered(2)]
    for _ in range(2):
        outcomes = await collected(ledger.session().submit_many(specs, journal=tmp_path / "batch.db", max_at_once=1))
        assert [outcome.value and outcome.value.id for outcome in outcomes] == ["ai1", None]
        assert isinstance(outcomes[1].error, OutcomeUnknown)
        assert outcomes[1].error.intent.spec.run_command == "run 1"
    assert len(ledger.asked) == 2


def oldest_first(rows):
    return rows[::-1]


def marks_cut(rows):
    return [{**row, "jsonAll": row["jsonAll"][:-30]} for row in rows]


def marks_left_out(rows):
    return [{**row, "jsonAll": None} for row in rows]


def marks_changed(rows):
    return [{**row, "jsonAll": row["jsonAll"].replace("gts-", "GTS-")} for row in rows]


def nothing(rows):
    return []


def without_names(rows):
    return [{**row, "jobName": ""} for row in rows]


def twice(rows):
    return [row for row in rows for _ in range(2)]


def with_those_of_others(rows):
    others = [
        {**row, "jobName": f"stranger-{number}", "jsonAll": '{"callbackUrl": "https://x.test/", "env": 5}'}
        for number, row in enumerate(rows)
    ]
    return [row for pair in zip(others, rows, strict=True) for row in pair]


def lying(ledger, lie):
    """Let listings show what `lie` makes of the rows."""

    def listing(request, carry_out):
        query = dict(request.query)
        number, size = int(query["current"]), int(query["size"])
        return document({"content": lie(ledger.rows())[(number - 1) * size : number * size]})

    ledger.listings = listing


@each
@pytest.mark.parametrize(
    ("lie", "is_found"),
    [
        (oldest_first, True),
        (twice, True),
        (with_those_of_others, True),
        (marks_cut, False),
        (marks_left_out, False),
        (marks_changed, False),
        (nothing, False),
        (without_names, False),
    ],
)
async def test_a_listing_that_lies_makes_no_second_job(generation, lie, is_found, tmp_path):
    ledger = Ledger(generation)
    session = ledger.session()
    await collected(session.submit_many(numbered(130, 1000)))
    await ledger.clock.sleep(3)
    await session.submit(attrs.evolve(SPEC, run_command="newest"))
    await ledger.clock.sleep(3)
    lying(ledger, lie)
    ledger.first(lost, 3)
    known = set(ledger.jobs())
    outcomes = await collected(session.submit_many(numbered(8), journal=tmp_path / "batch.db", max_at_once=1))
    made = {command: ids for command, ids in ledger.jobs().items() if command not in known}
    assert {outcome.item.run_command: [outcome.value.id] for outcome in outcomes if outcome.is_ok} == (
        made if is_found else {command: ids for command, ids in made.items() if command != "run 2"}
    )
    assert [type(outcome.error) for outcome in outcomes if not outcome.is_ok] == [OutcomeUnknown] * (not is_found)
    assert len(made) == 8
    assert all(len(ids) == 1 for ids in made.values())


async def test_a_listing_that_does_not_show_a_job_at_first_is_asked_again():
    ledger = Ledger()
    session = ledger.session()
    await session.submit(attrs.evolve(SPEC, run_command="before"))
    ledger.first(lost)
    looked = itertools.count()
    lying(ledger, lambda rows: rows[1:] if next(looked) < 3 else rows)
    job = await session.submit(SPEC)
    assert ledger.jobs()["run"] == [job.id]


async def test_a_listing_in_the_wrong_order_is_read_to_its_end():
    ledger = Ledger()
    session = ledger.session()
    await session.submit(attrs.evolve(SPEC, run_command="oldest"))
    await ledger.clock.sleep(2)
    await collected(session.submit_many(numbered(250), max_at_once=50))
    await ledger.clock.sleep(2)
    lying(ledger, oldest_first)
    ledger.first(lost)
    job = await session.submit(SPEC)
    assert ledger.jobs()["run"] == [job.id]


@each
async def test_jobs_that_are_all_gone_after_some_minutes_do_not_keep_a_create_from_being_settled(generation):
    ledger = Ledger(generation)
    session = ledger.session()
    await session.submit(SPEC)
    await ledger.clock.sleep(200)
    lying(ledger, nothing)
    ledger.creates = lambda request, carry_out: lost(None)
    with pytest.raises(OutcomeUnknown) as caught:
        await session.submit(SPEC)
    assert await session.reconcile(caught.value.intent) is None


async def test_a_mark_of_ones_own_that_is_used_again_gives_nobody_anothers_job():
    ledger = Ledger(Generation.HEAD)
    ledger.creates = lambda request, carry_out: lost(None) if len(ledger.asked) == 1 else carry_out()
    specs = [attrs.evolve(spec, mark="bert") for spec in numbered(3)]
    outcomes = await collected(ledger.session().submit_many(specs, max_at_once=1))
    assert {o.item.run_command: [o.value.id] for o in outcomes if o.is_ok} == ledger.jobs()
    (unknown,) = [outcome for outcome in outcomes if not outcome.is_ok]
    assert isinstance(unknown.error, OutcomeUnknown)
    assert unknown.item.run_command == "run 0"
    assert len(ledger.asked) == 3


# F1, F2: tasks and trainings of the engine

ENGINE_SAYS = {
    "F1 reset": faults.cut,
    "F1 silence": faults.silent,
    "F2 502": lambda path: attrs.evolve(faults.status(502, path=path), is_after=True),
    "F2 504": lambda path: attrs.evolve(faults.status(504, path=path), is_after=True),
}


@pytest.fixture
async def task(gts_session, tmp_path):
    """Give a task whose files are uploaded."""
    rows = "\n".join(json.dumps({"id": number, "content": "text", "label": "ab"[number % 2]}) for number in range(40))
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(rows)
    (tmp_path / "labels.json").write_text(json.dumps({"labels": ["a", "b"]}))
    task = await gts_session.create_task("news", **TYPES)
    await task.upload(*tmp_path.glob("*.json"))
    return task


@pytest.mark.parametrize("fault", ENGINE_SAYS.values(), ids=ENGINE_SAYS)
async def test_a_task_that_was_made_is_settled_by_its_name_whatever_the_answer_was(gts_session, gts_faults, fault):
    gts_faults.append(fault("create_task"))
    task = await gts_session.create_task("sports", **TYPES)
    assert [task.id for task in await gts_session.list_tasks()] == ["sports"] == [task.id]


@pytest.mark.parametrize("fault", ENGINE_SAYS.values(), ids=ENGINE_SAYS)
async def test_a_task_that_cannot_be_settled_now_is_reconciled_by_its_name(gts_session, gts_faults, fault):
    gts_faults += [fault("create_task"), faults.refused(times=100)]
    with pytest.raises(OutcomeUnknown) as caught:
        await gts_session.create_task(**TYPES)
    gts_faults.clear()
    name = caught.value.intent
    assert (await gts_session.reconcile(name)).id == name
    assert [task.id for task in await gts_session.list_tasks()] == [name]


@pytest.mark.parametrize("fault", ENGINE_SAYS.values(), ids=ENGINE_SAYS)
async def test_a_training_that_began_is_reconciled_by_its_token_whatever_the_answer_was(
    gts_session, gts_faults, gts_trainer, task, fault
):
    gts_faults.append(fault("/api/train"))
    with pytest.raises(OutcomeUnknown) as caught:
        await task.train(**FILES)
    run = await gts_session.reconcile(caught.value.intent)
    assert (await run).status is TaskStatus.SUCCEEDED
    assert [order.task_id for order in gts_trainer.orders.values()] == ["news"]


# F4: cancelled callers


@pytest.mark.parametrize("turns", range(0, 32, 3))
async def test_f4_a_submission_that_is_cancelled_is_finished_and_told(cancelled_after, caplog, turns):
    ledger = Ledger()
    session = ledger.session()
    await session.ping()
    got = []

    async def submitting():
        got.append(await session.submit(SPEC))

    await cancelled_after(turns, submitting)
    assert tasks_of_others() == set()
    made = ledger.jobs().get("run", [])
    assert len(made) == len(ledger.asked) <= 1
    assert [job.id for job in got] == made or all(f"{job_id} goes on" in caplog.text for job_id in made)
    assert session._cloud.exchange._in_flight._value == session._cloud.exchange.limits.max_in_flight


@pytest.mark.parametrize("turns", [*range(1, 10), *range(10, 60, 7)])
async def test_f4_a_batch_that_is_cancelled_has_in_its_journal_what_the_cloud_has(cancelled_after, tmp_path, turns):
    ledger = Ledger()
    session = ledger.session()
    await session.ping()

    async def batch():
        async with session.submit_many(numbered(12), journal=tmp_path / "batch.db", max_at_once=3) as outcomes:
            async for _ in outcomes:
                pass

    running = asyncio.ensure_future(batch())
    # The file is opened before the first create, in a thread: the turns that count come after that.
    while not ledger.transport.seen:
        await asyncio.sleep(0)

    async def joined():
        await running

    await cancelled_after(turns, joined)
    assert tasks_of_others() == set()
    with closing(sqlite3.connect(tmp_path / "batch.db")) as journal:
        written = journal.execute("SELECT job_id, owner FROM intents").fetchall()
    assert sorted(written) == sorted((ids[0], None) for ids in ledger.jobs().values())
    assert len(ledger.asked) == len(written)
    again = await collected(ledger.session().submit_many(numbered(12), journal=tmp_path / "batch.db"))
    assert {outcome.item.run_command: [outcome.unwrap().id] for outcome in again} == ledger.jobs()
    assert len(ledger.asked) == 12


@pytest.mark.parametrize("turns", range(0, 12, 2))
async def test_f4_a_task_whose_create_is_cancelled_is_found_by_its_name(gts_session, cancelled_after, turns):
    await gts_session.list_tasks()
    await cancelled_after(turns, lambda: gts_session.create_task("sports", **TYPES))
    found = await gts_session.reconcile("sports")
    assert (found is not None) is ("sports" in [task.id for task in await gts_session.list_tasks()])
    assert (await gts_session.create_task("sports", **TYPES, exist_ok=True)).id == "sports"


@pytest.mark.parametrize("turns", range(0, 20, 4))
async def test_f4_a_training_whose_call_is_cancelled_shows_itself_and_is_not_begun_twice(
    gts_session, gts_trainer, task, cancelled_after, turns, gts_clock
):
    gts_trainer.plan(Script(startup=5.0, training=60.0))
    await cancelled_after(turns, lambda: task.train(**FILES))
    begun = len(gts_trainer.orders)
    await gts_clock.sleep(10)
    if begun:
        with pytest.raises(WrongState, match="going on"):
            await task.train(**FILES)
        assert (await task.wait()).status is TaskStatus.SUCCEEDED
    else:
        assert (await (await task.train(**FILES))).status is TaskStatus.SUCCEEDED
    assert len(gts_trainer.orders) == 1


async def test_closing_the_session_while_it_submits_loses_nothing(server, tmp_path):
    ledger = Ledger()
    answering = asyncio.Event()

    async def served(connection):
        request = connection.request
        path, _, query = request.target.partition("?")
        pairs = tuple(tuple(pair.split("=")) for pair in query.split("&") if pair)
        headers = (("authorization", "Bearer t"), ("content-type", "application/json"))
        answer = ledger.answer(Request(request.method, path, pairs, headers, request.body), 1e9)
        if len(ledger.asked) >= 4:
            answering.set()
        await asyncio.sleep(0.03)
        await chaos.answer(answer.status, json=json.loads(answer.body))(connection)

    server.otherwise(served)
    session = AsyncSession(cloud=f"{server.url}/api", token="t")
    specs = numbered(12)
    running = asyncio.create_task(
        collected(session.submit_many(specs, journal=tmp_path / "batch.db", max_at_once=3)), name="batch"
    )
    alone = asyncio.create_task(session.submit(SPEC))
    await answering.wait()
    await session.aclose()
    outcomes, job = await asyncio.gather(running, alone, return_exceptions=True)
    assert {type(outcome.error) for outcome in outcomes} <= {type(None), MisuseError, OutcomeUnknown}
    told = {o.item.run_command: [o.value.id] for o in outcomes if o.is_ok}
    assert {**told, "run": [job.id]} == ledger.jobs()
    async with AsyncSession(cloud=f"{server.url}/api", token="t") as another:
        again = await collected(another.submit_many(specs, journal=tmp_path / "batch.db"))
    assert {o.item.run_command: [o.unwrap().id] for o in again} == {
        command: ids for command, ids in ledger.jobs().items() if command != "run"
    }
    assert len(ledger.asked) == 13


# F7: many


async def test_f7_of_a_thousand_three_fail_with_their_own_errors():
    ledger = Ledger(Generation.HEAD)
    refusals = {"run 10": "余额不足", "run 500": "JobCreate CheckQuota userId: u gpu: g left: 0 need: 1"}

    def creates(request, carry_out):
        said = refusals.get(ledger.asked[-1])
        return carry_out() if said is None else document({"message": said}, 400)

    ledger.creates = creates
    specs = numbered(1000)
    specs[700] = {"gpu_type": "g"}
    outcomes = await collected(ledger.session().submit_many(specs, max_at_once=16))
    failed = {id(outcome.item): type(outcome.error) for outcome in outcomes if not outcome.is_ok}
    assert failed == {id(specs[10]): QuotaExceeded, id(specs[500]): QuotaExceeded, id(specs[700]): WrongType}
    in_order = sorted(outcomes, key=lambda outcome: next(i for i, spec in enumerate(specs) if spec is outcome.item))
    assert len(in_order) == 1000
    assert {o.item.run_command: [o.value.id] for o in in_order if o.is_ok} == ledger.jobs()


@each
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (document({"message": "余额不足"}, 400), QuotaExceeded),
        (Answer(400, (("content-type", "text/plain"),), "余额不足".encode()), QuotaExceeded),
        (Answer(403, (), b"no"), Denied),
        (Answer(413, (), b"too large"), InvalidData),
    ],
    ids=["no money in JSON", "no money in text", "denied", "too large"],
)
async def test_f7_a_refusal_is_typed_fails_alone_and_is_tried_again_by_the_next_run(
    generation, answer, error, tmp_path
):
    ledger = Ledger(generation)
    ledger.creates = lambda request, carry_out: answer if len(ledger.asked) == 2 else carry_out()
    for refused in ([error], []):
        outcomes = await collected(
            ledger.session().submit_many(numbered(4), journal=tmp_path / "batch.db", max_at_once=1)
        )
        assert [type(outcome.error) for outcome in outcomes if not outcome.is_ok] == refused
    assert {outcome.item.run_command: [outcome.value.id] for outcome in outcomes} == ledger.jobs()
    assert sorted(ledger.asked) == ["run 0", "run 1", "run 1", "run 2", "run 3"]


@pytest.mark.parametrize("has_journal", [True, False])
@pytest.mark.parametrize("max_at_once", [1, 4, 16])
async def test_after_a_401_no_further_create_is_begun(tmp_path, max_at_once, has_journal):
    ledger = Ledger()
    ledger.creates = lambda request, carry_out: (
        carry_out() if len(ledger.asked) <= 20 else Answer(401, (), b"Unauthorized")
    )
    on_their_way, told = [], []

    def noting(event):
        if event.status == 401:
            exchange = session._cloud.exchange
            calls = exchange.limits.max_in_flight - exchange._in_flight._value
            on_their_way.append(calls)

    session = ledger.session(on_event=noting)
    # Connected before: only then are all calls that have been begun on their way.
    await session.list_jobs()
    journal = tmp_path / "batch.db" if has_journal else None
    with pytest.raises(Unauthorized):
        async with session.submit_many(numbered(200), journal=journal, max_at_once=max_at_once) as outcomes:
            async for outcome in outcomes:
                told.append(outcome)
    # The one that was refused first, and those that had been begun by then; each of these was refused, too.
    assert 21 <= len(ledger.asked) <= 20 + on_their_way[0] <= 20 + max_at_once
    assert len(on_their_way) == len(ledger.asked) - 20
    assert {outcome.item.run_command: [outcome.unwrap().id] for outcome in told} == ledger.jobs()
    if has_journal:
        with closing(sqlite3.connect(journal)) as rows:
            assert rows.execute("SELECT count(*), count(job_id) FROM intents").fetchone() == (20, 20)


# Iterables


def breaking_off():
    yield from numbered(5)
    raise OSError("the file ends here")


async def breaking_off_later():
    for spec in numbered(5):
        await asyncio.sleep(0)
        yield spec
    raise OSError("the file ends here")


@pytest.mark.parametrize("has_journal", [True, False])
@pytest.mark.parametrize("specs", [breaking_off, breaking_off_later])
async def test_what_an_iterable_gave_before_it_broke_off_is_submitted_and_told(tmp_path, specs, has_journal):
    ledger = Ledger()
    told = []
    journal = tmp_path / "batch.db" if has_journal else None
    with pytest.raises(OSError, match="the file ends here"):
        async with ledger.session().submit_many(specs(), journal=journal, max_at_once=3) as outcomes:
            async for outcome in outcomes:
                told.append(outcome)
    assert {outcome.item.run_command: [outcome.unwrap().id] for outcome in told} == ledger.jobs()
    assert len(told) == 5


@pytest.mark.parametrize("garbage", ["specs", [None, 5, {}, [SPEC], b"x"], {1: SPEC}])
async def test_garbage_among_the_specs_is_refused_one_by_one_and_nothing_is_sent(garbage):
    ledger = Ledger()
    outcomes = await collected(ledger.session().submit_many(garbage))
    assert {type(outcome.error) for outcome in outcomes} == {WrongType}
    assert ledger.asked == []


@pytest.mark.parametrize("wrong", [None, 5, SPEC])
def test_what_is_no_iterable_is_refused_at_once(wrong):
    with pytest.raises(WrongType, match="iterable"):
        Ledger().session().submit_many(wrong)


async def hanging():
    for spec in numbered(2):
        yield spec
    await asyncio.Event().wait()


@pytest.mark.parametrize("specs", [itertools.repeat(SPEC), hanging()], ids=["without an end", "that hangs"])
async def test_an_iterable_may_be_left_at_any_time(tmp_path, specs):
    ledger = Ledger()
    async with ledger.session().submit_many(specs, journal=tmp_path / "batch.db", max_at_once=3) as outcomes:
        async for outcome in outcomes:
            assert outcome.is_ok
            if len(ledger.asked) >= 2:
                break
    assert tasks_of_others() == set()
    with closing(sqlite3.connect(tmp_path / "batch.db")) as journal:
        written = {row[0] for row in journal.execute("SELECT job_id FROM intents")}
    assert written == {job_id for ids in ledger.jobs().values() for job_id in ids}


@pytest.mark.slow
async def test_thousands_of_specs_leave_nothing_behind():
    ledger = Ledger()
    ledger.creates = lambda request, carry_out: document({"job_id": f"ai{len(ledger.asked)}"})
    count, blocks = 0, {}
    specs = (attrs.evolve(SPEC, run_command=f"run {number}") for number in range(5000))
    session = ledger.session()
    async with session.submit_many(specs, max_at_once=16) as outcomes:
        async for outcome in outcomes:
            assert outcome.is_ok
            count += 1
            if count in (1000, 5000):
                # What the test itself keeps of each request is not what is counted.
                ledger.transport.seen.clear()
                ledger.asked[:] = [None] * len(ledger.asked)
                gc.collect()
                blocks[count] = sys.getallocatedblocks()
    assert blocks[5000] - blocks[1000] < 2000


# F9


@each
async def test_f9_a_job_that_was_accepted_and_never_appears_is_lost_after_its_grace(generation, tmp_path):
    ledger = Ledger(generation)
    ledger.looks = lambda request, carry_out: (
        document({"message": "sql: no rows in result set"}, 400) if request.path in LOOKS else carry_out()
    )
    lying(ledger, nothing)
    session = ledger.session()
    (outcome,) = await collected(session.submit_many([SPEC], journal=tmp_path / "batch.db"))
    with pytest.raises(WorkLost):
        await outcome.unwrap().wait()
    assert ledger.clock.now() == pytest.approx(30, abs=15)
    # Its intent is done with: the next run gives the same job, and sends nothing.
    (again,) = await collected(ledger.session().submit_many([SPEC], journal=tmp_path / "batch.db"))
    assert again.unwrap() == outcome.unwrap()
    assert len(ledger.asked) == 1


# F10


async def test_f10_what_an_iterable_gives_only_once_is_sent_again_as_it_was():
    ledger = Ledger()
    session = ledger.session()
    sent = []

    class Refusing(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            if request.method == "POST":
                sent.append(await request.aread())
                if len(sent) < 3:
                    raise httpx.ConnectError("refused", request=request)
            return await ledger.transport.handle_async_request(request)

    session = ledger.session(transport=Refusing())
    outcomes = await collected(session.submit_many((spec for spec in [SPEC]), max_at_once=1))
    assert [outcome.unwrap().id for outcome in outcomes] == ledger.jobs()["run"]
    assert len(sent) == 3
    assert len(set(sent)) == 1


async def test_f10_a_body_that_can_be_read_only_once_is_not_taken(gts_session, task):
    async def once():
        yield b"data"

    with pytest.raises((InvalidArgument, TypeError)):
        await task.upload(once())


async def test_a_wrong_answer_to_the_question_who_is_there_is_told_by_reconcile_itself():
    ledger = Ledger()
    session = ledger.session()
    await session.submit(attrs.evolve(SPEC, run_command="before"))
    ledger.first(lost)
    lying(ledger, marks_changed)
    with pytest.raises(OutcomeUnknown) as caught:
        await session.submit(SPEC)
    with pytest.raises(UnexpectedAnswer, match="marks"):
        await session.reconcile(caught.value.intent)
