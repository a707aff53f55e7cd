"""One job submitted: its mark, its lost answer, its cancelled caller; against the pure cloud on the fake clock."""

import asyncio
import json
import pickle

import attrs
import pytest

from gts_async import (
    AsyncSession,
    InvalidArgument,
    JobSpec,
    JobStatus,
    OutcomeUnknown,
    ServerFailed,
    TaskStatus,
    Unauthorized,
    WrongType,
)
from gts_async._settling import NONSENSE_PAUSES
from gts_async.emulator.cloud import Cloud
from gts_async.emulator.cloud_quirks import CloudQuirks, Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.testing import EmulatorTransport, faults

SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="python train.py")
GENERATIONS = list(Generation)
CREATES = ("/api/userJob", "/api/job/training")
MARK = "gts-[0-9a-f]{16}"


class Place:
    """A cloud of some generation, and sessions that talk to it."""

    def __init__(self, clock, generation=Generation.JAVA, quirks=None, **options):
        self.clock = clock
        self.runner = ScriptedRunner()
        store = ObjectStore(b"key", "https://store.test")
        self.cloud = Cloud(self.runner, store, token="t", generation=generation, quirks=quirks)
        self.transport = EmulatorTransport({"https://cloud.test": self.cloud}, lambda: clock.wall().timestamp())
        self.path = "/job/training" if generation is Generation.HEAD else "/userJob"
        self.dialect = "2024-04" if generation is Generation.HEAD else "2023-12"
        self.session = self.another(**options)

    def another(self, **options):
        given = {"token": "t", "dialect": self.dialect, "clock": self.clock, "chance": lambda: 0.5, **options}
        return AsyncSession(cloud="https://cloud.test/api", transport=self.transport, **given)

    def fault(self, fault):
        """Let a fault meet creates only: the listing has the same path."""
        self.transport.faults.append(OfCreates(**attrs.asdict(fault)))

    @property
    def creates(self):
        return [r for r in self.transport.seen if r.method == "POST" and r.path in CREATES]

    @property
    def listings(self):
        return [r for r in self.transport.seen if r.method == "GET" and r.path in CREATES]

    async def ids(self):
        return [listing.id for listing in await self.session.list_jobs()]


class OfCreates(faults.Fault):
    def meets(self, method, path):
        return method == "POST" and super().meets(method, path)


class OfListings(faults.Fault):
    def meets(self, method, path):
        return method == "GET" and super().meets(method, path)


# The answer was lost


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("lost", [faults.cut, faults.silent])
async def test_a_job_whose_answer_was_lost_is_found_by_its_mark(gts_clock, generation, lost):
    place = Place(gts_clock, generation)
    await place.session.submit(SPEC)
    place.fault(lost(place.path))
    job = await place.session.submit(SPEC)
    assert (await place.ids())[0] == job.id
    assert len(place.creates) == 2
    assert (await job.wait()).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("generation", "quirk"),
    [
        *((generation, "dropped_creates") for generation in GENERATIONS),
        (Generation.GO, "timed_out_creates"),
        (Generation.HEAD, "timed_out_creates"),
    ],
)
async def test_a_create_that_the_server_itself_gave_no_answer_to_is_found(gts_clock, generation, quirk):
    place = Place(gts_clock, generation, CloudQuirks(**{quirk: {1}}))
    job = await place.session.submit(SPEC)
    assert await place.ids() == [job.id]
    assert len(place.creates) == 1


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_a_create_that_did_not_arrive_is_unknown_until_it_is_reconciled(gts_clock, generation):
    place = Place(gts_clock, generation)
    place.fault(faults.cut(place.path, is_after=False))
    with pytest.raises(OutcomeUnknown) as caught:
        await place.session.submit(SPEC)
    assert gts_clock.now() == pytest.approx(3.0, abs=0.5)
    intent = caught.value.intent
    assert attrs.evolve(intent.spec, callback_url=None, mark=None) == SPEC
    assert await place.session.reconcile(intent) is None
    assert gts_clock.now() == pytest.approx(30.0, abs=0.5)
    assert place.creates == []


@pytest.mark.parametrize(
    "travel", [lambda intent: intent, lambda i: pickle.loads(pickle.dumps(i)), lambda i: i.token()]
)
async def test_another_process_reconciles_an_intent(gts_clock, travel):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path))
    # The listing is away for as long as the submission looks.
    place.transport.faults.append(OfListings(**attrs.asdict(faults.status(503, path="userJob", times=100))))
    with pytest.raises(OutcomeUnknown) as caught:
        await place.session.submit(SPEC)
    with pytest.raises(ServerFailed):
        await place.another().reconcile(travel(caught.value.intent))
    place.transport.faults.clear()
    before = gts_clock.now()
    job = await place.another().reconcile(travel(caught.value.intent))
    assert [job.id] == await place.ids()
    assert gts_clock.now() == before


async def test_a_listing_that_fails_for_a_moment_does_not_keep_a_job_from_being_found(gts_clock):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path))
    place.transport.faults.append(OfListings(**attrs.asdict(faults.cut("userJob", times=5))))
    assert (await place.session.submit(SPEC)).id in await place.ids()


async def test_one_page_of_nonsense_does_not_keep_a_job_from_being_found(gts_clock):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path))
    place.transport.faults.append(OfListings(**attrs.asdict(faults.status(200, path="userJob", times=2))))
    assert (await place.session.submit(SPEC)).id in await place.ids()


async def test_where_nothing_is_listed_the_answer_stays_lost_after_three_tries(gts_clock):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path))
    place.transport.faults.append(OfListings(**attrs.asdict(faults.status(404, path="userJob", times=100))))
    with pytest.raises(OutcomeUnknown):
        await place.session.submit(SPEC)
    assert gts_clock.now() == sum(NONSENSE_PAUSES)


async def test_the_looks_for_a_lost_job_keep_within_the_callers_timeout(gts_clock):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path, is_after=False))
    with pytest.raises(OutcomeUnknown):
        await place.session.submit(SPEC, timeout=0.25)
    assert gts_clock.now() == pytest.approx(0.25)


# Marks


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_a_job_carries_a_mark_of_its_own(gts_clock, generation):
    session = Place(gts_clock, generation).session
    for _ in range(2):
        await session.submit(SPEC)
    marks = [listing.mark for listing in await session.list_jobs()]
    assert len(set(marks)) == 2
    prefix = "" if generation is Generation.HEAD else "https://mark.invalid/#"
    assert all(mark.startswith(f"{prefix}gts-") for mark in marks)


async def test_without_room_for_a_mark_a_lost_answer_stays_lost(gts_clock):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path))
    with pytest.raises(OutcomeUnknown) as caught:
        await place.session.submit(attrs.evolve(SPEC, callback_url="https://here.test/" + "x" * 230))
    assert caught.value.intent.mark is None
    assert place.listings == []
    with pytest.raises(OutcomeUnknown) as again:
        await place.session.reconcile(caught.value.intent)
    assert again.value.intent == caught.value.intent


async def test_a_mark_of_the_users_own_is_trusted_once(gts_clock):
    place = Place(gts_clock, Generation.HEAD)
    spec = attrs.evolve(SPEC, mark="bert-2")
    place.fault(faults.cut(place.path))
    first = await place.session.submit(spec)
    place.fault(faults.cut(place.path, is_after=False))
    with pytest.raises(OutcomeUnknown) as caught:
        await place.session.submit(spec)
    assert caught.value.intent.mark is None
    assert [(listing.id, listing.mark) for listing in await place.session.list_jobs()] == [(first.id, "bert-2")]


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_the_spec_of_an_intent_is_submitted_under_a_mark_of_its_own(gts_clock, generation):
    place = Place(gts_clock, generation)
    place.fault(faults.cut(place.path, is_after=False))
    with pytest.raises(OutcomeUnknown) as caught:
        await place.session.submit(SPEC)
    for _ in range(2):
        await place.session.submit(caught.value.intent.spec)
    marks = {listing.mark for listing in await place.session.list_jobs()}
    assert len(marks) == 2
    assert not [mark for mark in marks if caught.value.intent.mark in mark]


# Sweeps


async def test_a_job_is_found_below_many_newer_ones(gts_clock):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path))
    place.transport.faults.append(OfListings(**attrs.asdict(faults.status(503, path="userJob", times=100))))
    with pytest.raises(OutcomeUnknown) as caught:
        await place.session.submit(SPEC)
    place.transport.faults.clear()
    async with place.another().submit_many([SPEC] * 250, max_at_once=50) as outcomes:
        assert all([outcome.is_ok async for outcome in outcomes])
    job = await place.session.reconcile(caught.value.intent)
    assert (await place.session.list_jobs(page=251, size=1))[0].id == job.id


async def test_those_who_look_at_the_same_time_share_a_sweep(gts_clock):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path, times=40))
    jobs = await asyncio.gather(*(place.session.submit(SPEC) for _ in range(40)))
    assert len({job.id for job in jobs}) == 40
    assert len(place.listings) <= 4


async def test_a_sweep_ends_where_everything_is_older(gts_clock):
    place = Place(gts_clock)
    async with place.session.submit_many([SPEC] * 450, max_at_once=50) as outcomes:
        assert all([outcome.is_ok async for outcome in outcomes])
    await gts_clock.sleep(5)
    await place.session.submit(SPEC)
    await gts_clock.sleep(5)
    place.fault(faults.cut(place.path, is_after=False))
    with pytest.raises(OutcomeUnknown):
        await place.session.submit(SPEC)
    assert {dict(request.query)["current"] for request in place.listings} == {"1"}


async def test_a_listing_that_never_ends_proves_nothing(gts_clock):
    place = Place(gts_clock)
    await place.session.submit(SPEC)
    place.fault(faults.cut(place.path, is_after=False))
    with pytest.raises(OutcomeUnknown) as caught:
        await place.session.submit(SPEC)
    answer = place.cloud.answer

    def always_the_first_page(request, now):
        return answer(attrs.evolve(request, query=(("current", "1"), ("size", "100"))), now)

    place.transport._servers["https://cloud.test"] = type(
        "Stuck", (), {"answer": staticmethod(always_the_first_page)}
    )()
    with pytest.raises(Exception, match="no end"):
        await place.another().reconcile(caught.value.intent)


# Cancelled callers


@pytest.mark.parametrize("turns", range(0, 24, 2))
@pytest.mark.parametrize("on_exit", ["detach", "stop"])
async def test_the_job_of_a_cancelled_submission_goes_on_or_is_stopped(gts_clock, caplog, turns, on_exit):
    place = Place(gts_clock)
    await place.session.ping()
    submitting = asyncio.create_task(place.session.submit(SPEC, on_exit=on_exit))
    for _ in range(turns):
        await asyncio.sleep(0)
    submitting.cancel()
    (result,) = await asyncio.gather(submitting, return_exceptions=True)
    made = place.creates
    assert len(made) <= 1
    if isinstance(result, asyncio.CancelledError):
        there = await place.ids()
        assert len(there) == (len(made) if on_exit == "detach" else 0)
        assert ("goes on" in caplog.text) is (bool(made) and on_exit == "detach")
        assert ("was stopped" in caplog.text) is (bool(made) and on_exit == "stop")
    else:
        assert [result.id] == await place.ids()


async def test_a_cancelled_submission_whose_answer_is_lost_is_settled_all_the_same(gts_clock, caplog):
    place = Place(gts_clock)
    await place.session.ping()
    place.fault(faults.cut(place.path))
    submitting = asyncio.create_task(place.session.submit(SPEC))
    while not place.creates:
        await asyncio.sleep(0)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    (job_id,) = await place.ids()
    assert f"{job_id} goes on" in caplog.text


async def test_what_to_do_on_exit_is_checked_first(gts_clock):
    place = Place(gts_clock)
    with pytest.raises(InvalidArgument, match="on_exit"):
        await place.session.submit(SPEC, on_exit="explode")
    with pytest.raises(WrongType, match="spec"):
        await place.session.submit("spec")
    assert place.transport.seen == []


# What is told


async def test_an_unknown_outcome_and_its_settling_are_told(gts_clock):
    told = []
    place = Place(gts_clock, on_event=told.append)
    place.fault(faults.cut(place.path))
    job = await place.session.submit(SPEC)
    kinds = [(event.kind, event.subject) for event in told]
    assert kinds.index(("unknown outcome", "create_job")) < kinds.index(("settled", job.id))


# Reconciling the engine's


async def test_a_task_is_reconciled_by_its_name(gts_session):
    await gts_session.create_task("news", task_type="classification", engine_type="bagualu")
    assert (await gts_session.reconcile("news")).id == "news"
    assert await gts_session.reconcile("olds") is None


@pytest.fixture
async def task(gts_session, tmp_path):
    """Give a task whose files are uploaded."""
    rows = "\n".join(json.dumps({"id": i, "content": f"text {i}", "label": "ab"[i % 2]}) for i in range(40))
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(rows)
    (tmp_path / "labels.json").write_text(json.dumps({"labels": ["a", "b"]}))
    task = await gts_session.create_task("news", task_type="classification", engine_type="bagualu")
    await task.upload(*tmp_path.glob("*.json"))
    return task


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_training_is_reconciled_by_its_token(gts_session, gts_faults, task, arrives):
    gts_faults.append(faults.cut("train/", is_after=arrives))
    with pytest.raises(OutcomeUnknown) as caught:
        await task.train(train_data="train.json", val_data="dev.json", test_data="test.json", label_data="labels.json")
    run = await gts_session.reconcile(caught.value.intent)
    if arrives:
        assert run.id == "news"
        assert (await run.wait()).status is TaskStatus.SUCCEEDED
    else:
        assert run is None


@pytest.mark.parametrize("wrong", [None, 5, '{"kind":"cat"}', "a b", ""])
async def test_what_is_no_intent_is_refused(gts_clock, wrong):
    with pytest.raises(InvalidArgument, match="intent"):
        await Place(gts_clock).session.reconcile(wrong)


async def test_a_token_that_is_not_accepted_settles_nothing(gts_clock):
    place = Place(gts_clock, Generation.GO)
    place.fault(faults.cut(place.path, is_after=False))
    with pytest.raises(OutcomeUnknown) as caught:
        await place.session.submit(SPEC)
    with pytest.raises(Unauthorized):
        await place.another(token="wrong").reconcile(caught.value.intent)


# When absence means something


async def unsettled(place):
    """Give the search for a job that did not arrive."""
    place.fault(faults.cut(place.path, is_after=False))
    since = place.clock.now()
    with pytest.raises(OutcomeUnknown) as caught:
        await place.session._submission.send(place.session._submission.intent(SPEC))
    return place.session._submission.settler.search(caught.value.intent, since=since)


async def test_absence_counts_after_half_a_minute_and_only_if_it_is_seen_twice(gts_clock):
    place = Place(gts_clock)
    search, settler = await unsettled(place), place.session._submission.settler
    for _ in range(5):
        await settler.look(search)
    assert not search.is_over
    await gts_clock.sleep(30)
    await settler.look(search)
    assert not search.is_over
    await settler.look(search)
    assert (search.is_over, search.job_id) == (True, None)


async def test_what_was_made_after_a_create_was_sent_does_not_end_the_search_for_it(gts_clock):
    place = Place(gts_clock)
    await place.session.submit(SPEC)
    await gts_clock.sleep(2)
    place.fault(faults.cut(place.path))
    since = gts_clock.now()
    submission = place.session._submission
    with pytest.raises(OutcomeUnknown) as caught:
        await submission.send(submission.intent(SPEC))
    await gts_clock.sleep(2)
    async with place.session.submit_many([SPEC] * 150, max_at_once=50) as outcomes:
        assert all([outcome.is_ok async for outcome in outcomes])
    await gts_clock.sleep(2)
    await place.session.submit(SPEC)
    assert await submission.settler.look(submission.settler.search(caught.value.intent, since=since)) is not None


async def test_those_who_find_nothing_share_their_sweeps_too(gts_clock):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path, times=40, is_after=False))
    ended = await asyncio.gather(*(place.session.submit(SPEC) for _ in range(40)), return_exceptions=True)
    assert {type(error) for error in ended} == {OutcomeUnknown}
    assert len(place.listings) <= 20
