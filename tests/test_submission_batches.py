"""Many jobs submitted, with and without a journal, while answers are lost; against the pure cloud on the fake clock."""

import asyncio
import itertools
import random
from weakref import WeakSet

import attrs
import pytest

from gts_async import (
    AsyncSession,
    FileError,
    JobSpec,
    NotSent,
    OutcomeUnknown,
    QuotaExceeded,
    Unauthorized,
    WrongType,
)
from gts_async._journal import Journal
from gts_async.emulator.cloud import Cloud
from gts_async.emulator.cloud_quirks import CloudQuirks, Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.testing import EmulatorTransport, faults
from gts_async.wire import Answer

SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="python train.py")
GENERATIONS = list(Generation)
CREATES = ("/api/userJob", "/api/job/training")


def numbered(count, start=0):
    return [attrs.evolve(SPEC, run_command=f"python train.py {number}") for number in range(start, start + count)]


class Place:
    """A cloud of some generation, and sessions that talk to it."""

    def __init__(self, clock, generation=Generation.JAVA, quirks=None, **options):
        self.clock = clock
        self.cloud = Cloud(
            ScriptedRunner(), ObjectStore(b"key", "https://store.test"), token="t", generation=generation, quirks=quirks
        )
        self.transport = EmulatorTransport({"https://cloud.test": self.cloud}, lambda: clock.wall().timestamp())
        self.path = "/job/training" if generation is Generation.HEAD else "/userJob"
        self.dialect = "2024-04" if generation is Generation.HEAD else "2023-12"
        self.session = self.another(**options)

    def another(self, **options):
        given = {"token": "t", "dialect": self.dialect, "clock": self.clock, "chance": lambda: 0.5, **options}
        return AsyncSession(cloud="https://cloud.test/api", transport=self.transport, **given)

    def fault(self, fault, *, method="POST"):
        self.transport.faults.append(OfMethod(**attrs.asdict(fault), method=method))

    @property
    def creates(self):
        return [r for r in self.transport.seen if r.method == "POST" and r.path in CREATES]

    async def ids(self):
        return {listing.id for listing in await self.session.list_jobs(size=1000)}


@attrs.define
class OfMethod(faults.Fault):
    method: str = "POST"

    def meets(self, method, path):
        return method == self.method and super().meets(method, path)


@attrs.define
class Unlucky(faults.Fault):
    """Meets every create with some chance, before or after it is carried out."""

    chance: random.Random = attrs.field(factory=lambda: random.Random(1))
    rate: float = 0.05

    def meets(self, method, path):
        self.is_after = self.chance.random() < 0.5
        return path in CREATES and self.chance.random() < self.rate


async def collected(fan_out):
    async with fan_out as outcomes:
        return [outcome async for outcome in outcomes]


# Lost answers


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("has_journal", [False, True])
async def test_every_intent_is_exactly_one_job_although_answers_are_lost(gts_clock, tmp_path, generation, has_journal):
    place = Place(gts_clock, generation)
    place.transport.faults.append(Unlucky(faults.cut().outcome, rate=0.2))
    journal = tmp_path / "batch.db" if has_journal else None
    outcomes = await collected(place.session.submit_many(numbered(200), max_at_once=8, journal=journal))
    assert [outcome.error for outcome in outcomes if not outcome.is_ok] == []
    place.transport.faults.clear()
    assert {outcome.value.id for outcome in outcomes} == await place.ids()
    assert len(outcomes) == 200
    assert max(outcome.tries for outcome in outcomes) in (2, 3)


async def test_a_job_that_did_not_arrive_holds_nobody_up_and_is_sent_once_more(gts_clock):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path, is_after=False))
    done_at = []
    async with place.session.submit_many(numbered(20), max_at_once=1) as outcomes:
        async for outcome in outcomes:
            done_at.append((gts_clock.now(), outcome.tries, outcome.is_ok))
    assert [tries for at, tries, _ in done_at if at < 1] == [1] * 19
    assert done_at[-1][1:] == (2, True)
    assert done_at[-1][0] == pytest.approx(30, abs=1)


async def test_a_job_that_never_arrives_is_sent_three_times_and_no_more(gts_clock, tmp_path):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path, times=3, is_after=False))
    (outcome,) = await collected(place.session.submit_many([SPEC], journal=tmp_path / "batch.db"))
    assert isinstance(outcome.error, NotSent)
    assert isinstance(outcome.error.__cause__, OutcomeUnknown)
    assert outcome.tries == 3
    (outcome,) = await collected(place.session.submit_many([SPEC], journal=tmp_path / "batch.db"))
    assert await place.ids() == {outcome.value.id}


async def test_while_the_listing_is_away_nothing_is_sent_again(gts_clock, tmp_path):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path))
    place.fault(faults.status(503, path=place.path, times=8), method="GET")
    (outcome,) = await collected(place.session.submit_many([SPEC], journal=tmp_path / "batch.db"))
    assert await place.ids() == {outcome.value.id}
    assert len(place.creates) == 1


async def test_what_cannot_be_settled_stays_unknown_and_the_next_run_settles_it(gts_clock, tmp_path):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path))
    place.fault(faults.status(503, path=place.path, times=1000), method="GET")
    (outcome,) = await collected(place.session.submit_many([SPEC], journal=tmp_path / "batch.db"))
    assert isinstance(outcome.error, OutcomeUnknown)
    assert outcome.error.intent.mark is not None
    place.transport.faults.clear()
    (outcome,) = await collected(place.another().submit_many([SPEC], journal=tmp_path / "batch.db"))
    assert await place.ids() == {outcome.value.id}
    assert len(place.creates) == 1


async def test_a_job_without_room_for_a_mark_is_never_sent_again(gts_clock, tmp_path):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path, is_after=False))
    spec = attrs.evolve(SPEC, callback_url="https://here.test/" + "x" * 230)
    for _ in range(2):
        (outcome,) = await collected(place.session.submit_many([spec], journal=tmp_path / "batch.db"))
        assert isinstance(outcome.error, OutcomeUnknown)
    assert place.creates == []


async def test_sends_and_sends_again_keep_the_pace_together(gts_clock):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path, times=5, is_after=False))
    sent_at = []
    handle = place.transport.handle_async_request

    async def noting(request):
        if request.method == "POST":
            sent_at.append(gts_clock.now())
        return await handle(request)

    place.transport.handle_async_request = noting
    assert all(o.is_ok for o in await collected(place.session.submit_many(numbered(70), max_per_second=2)))
    assert len(sent_at) == 75
    assert min(later - earlier for earlier, later in itertools.pairwise(sent_at)) >= 0.499


# The journal


async def test_a_second_run_gives_the_jobs_of_the_first(gts_clock, tmp_path):
    place = Place(gts_clock)
    specs = [attrs.evolve(SPEC, run_command=f"python train.py {number // 2}") for number in range(10)]
    runs = [await collected(place.another().submit_many(specs, journal=tmp_path / "batch.db")) for _ in range(2)]
    first, second = ({outcome.value.id for outcome in run} for run in runs)
    assert first == second == await place.ids()
    assert len(place.creates) == 10


async def test_a_new_callback_url_makes_no_other_job(gts_clock, tmp_path):
    place = Place(gts_clock, Generation.GO)
    found = []
    for run in range(2):
        spec = attrs.evolve(SPEC, callback_url=f"https://here.test/{run}")
        (outcome,) = await collected(place.session.submit_many([spec], journal=tmp_path / "batch.db"))
        assert outcome.item == spec
        found.append(outcome.value)
    assert found[0] == found[1]


async def test_what_a_dead_run_has_left_is_found_or_sent_once_its_lease_is_over(gts_clock, tmp_path):
    place = Place(gts_clock)
    specs = numbered(4)
    dead = Journal(tmp_path / "batch.db", lambda: gts_clock.wall().timestamp())
    for spec in specs[:2]:
        intent = place.session._submission.intent(spec, dead.key(spec))
        await dead.begin(intent.key, intent.spec, intent.mark)
        dead.sending(intent.key)
    # One had arrived when it was killed, the other had not.
    arrived = await place.session._submission.send(intent)
    await dead._database.aclose()
    done = {}
    async with place.session.submit_many(specs, journal=tmp_path / "batch.db", max_at_once=1) as outcomes:
        async for outcome in outcomes:
            done[outcome.item] = gts_clock.now(), outcome.unwrap().id
    assert done[specs[2]][0] == done[specs[3]][0] == 0
    assert done[specs[1]] == (pytest.approx(10, abs=1.5), arrived.id)
    assert done[specs[0]][0] == pytest.approx(33, abs=1.5)
    assert {job_id for _, job_id in done.values()} == await place.ids()
    assert len(place.creates) == 4


async def test_two_sessions_on_one_journal_submit_each_job_once(gts_clock, tmp_path):
    place = Place(gts_clock)
    place.transport.faults.append(Unlucky(faults.cut().outcome, rate=0.1))
    runs = [
        collected(place.another().submit_many(numbered(100), journal=tmp_path / "batch.db", max_at_once=5))
        for _ in range(2)
    ]
    first, second = await asyncio.gather(*runs)
    place.transport.faults.clear()
    ids = await place.ids()
    assert len(ids) == 100
    for run in (first, second):
        assert {outcome.unwrap().id for outcome in run} == ids


async def test_a_journal_takes_two_commits_per_job(gts_clock, tmp_path):
    place = Place(gts_clock)
    statements = []
    async with place.session.submit_many(numbered(30), journal=tmp_path / "batch.db", max_at_once=1) as outcomes:
        book = outcomes._closing.__self__
        await book._database.run(lambda connection: connection.set_trace_callback(statements.append))
        assert len([outcome async for outcome in outcomes]) == 30
    assert statements.count("COMMIT") <= 2 * 30 + 1


@pytest.mark.parametrize("turns", range(0, 60, 5))
async def test_a_batch_that_is_left_leaves_nothing_unknown(gts_clock, tmp_path, turns):
    place = Place(gts_clock)

    async def batch(session):
        return {o.unwrap().id for o in await collected(session.submit_many(numbered(6), journal=tmp_path / "batch.db"))}

    running = asyncio.create_task(batch(place.session))
    while not place.transport.seen:
        await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    ids = await batch(place.another())
    assert ids == await place.ids()
    assert len(ids) == len(place.creates) == 6
    assert gts_clock.now() < 1


async def test_what_was_sent_is_kept_when_the_batch_is_left_before_it_is_settled(gts_clock, tmp_path):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path))
    place.fault(faults.status(503, path=place.path, times=4), method="GET")
    async with place.session.submit_many(numbered(2), journal=tmp_path / "batch.db", max_at_once=1) as outcomes:
        assert (await anext(outcomes)).is_ok
    again = await collected(place.another().submit_many(numbered(2), journal=tmp_path / "batch.db"))
    assert {outcome.unwrap().id for outcome in again} == await place.ids()
    assert len(place.creates) == 2


# Refusals


async def test_a_wrong_token_ends_a_batch_and_nothing_further_is_sent(gts_clock, tmp_path):
    place = Place(gts_clock, Generation.GO)
    session = place.another(token="wrong")
    with pytest.raises(Unauthorized):
        await collected(session.submit_many(numbered(100), max_at_once=1, journal=tmp_path / "batch.db"))
    assert len(place.transport.seen) == 1
    outcomes = await collected(place.session.submit_many(numbered(100), journal=tmp_path / "batch.db"))
    assert len(await place.ids()) == len(outcomes) == 100


async def test_what_waits_to_be_settled_is_handed_over_before_a_wrong_token_ends_the_batch(gts_clock):
    place = Place(gts_clock, Generation.GO)
    place.fault(faults.cut(place.path, is_after=False))
    place.fault(faults.status(401, b"Unauthorized", place.path, times=100))
    seen = []
    with pytest.raises(Unauthorized):
        async with place.session.submit_many(numbered(10), max_at_once=1) as outcomes:
            async for outcome in outcomes:
                seen.append(outcome)
    assert [outcome.error.intent.mark is not None for outcome in seen if not outcome.is_ok] == [True]
    assert gts_clock.now() < 30


async def test_a_token_that_the_listing_does_not_take_ends_the_batch_too_and_the_intent_is_told(gts_clock):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path))
    place.fault(faults.status(401, b"Unauthorized", place.path, times=100), method="GET")
    seen = []
    with pytest.raises(Unauthorized):
        async with place.session.submit_many(numbered(50), max_at_once=1) as outcomes:
            async for outcome in outcomes:
                seen.append(outcome)
    assert isinstance(seen[0].error, OutcomeUnknown)
    assert len(place.creates) < 5


async def test_a_bad_spec_and_one_beyond_the_quota_fail_alone(gts_clock):
    place = Place(gts_clock, Generation.HEAD, CloudQuirks(quotas={"NVIDIA-A100-SXM4-80GB": 1}))
    big = attrs.evolve(SPEC, gpu_type="NVIDIA-A100-SXM4-80GB", gpu_number=2)
    outcomes = await collected(place.session.submit_many([*numbered(5), "none", big, *numbered(5, 5)], max_at_once=2))
    assert {type(outcome.error) for outcome in outcomes if not outcome.is_ok} == {WrongType, QuotaExceeded}
    assert len([outcome for outcome in outcomes if outcome.is_ok]) == 10


async def test_without_a_balance_every_job_is_refused_and_none_is_unknown(gts_clock, tmp_path):
    place = Place(gts_clock, Generation.HEAD, CloudQuirks(balance=-1.0))
    outcomes = await collected(place.session.submit_many(numbered(5), journal=tmp_path / "batch.db"))
    assert [type(outcome.error) for outcome in outcomes] == [QuotaExceeded] * 5


async def test_what_is_no_journal_keeps_everything_from_being_sent(gts_clock, tmp_path):
    path = tmp_path / "batch.db"
    path.write_text("this is no database at all, but quite long text that sqlite refuses to read" * 20)
    place = Place(gts_clock)
    outcomes = await collected(place.session.submit_many(numbered(3), journal=path))
    assert {type(outcome.error) for outcome in outcomes} == {FileError}
    assert place.transport.seen == []


# Size


async def test_thousands_of_specs_are_pulled_as_they_are_needed_and_do_not_pile_up(gts_clock):
    alive = WeakSet()
    pulled = done = furthest = most = 0

    def specs():
        nonlocal pulled
        for number in range(3000):
            pulled += 1
            spec = attrs.evolve(SPEC, run_command=f"python train.py {number}")
            alive.add(spec)
            yield spec

    class Answering:
        made = 0

        def answer(self, request, now):
            self.made += 1
            return json_answer(f'{{"job_id":"ai{self.made}"}}')

    place = Place(gts_clock)
    place.transport._servers["https://cloud.test"] = Answering()
    async with place.session.submit_many(specs(), max_at_once=16) as outcomes:
        async for outcome in outcomes:
            outcome.unwrap()
            done += 1
            furthest, most = max(furthest, pulled - done), max(most, len(alive))
    assert done == 3000
    assert furthest <= 6 * 16
    assert most <= 6 * 16


def json_answer(text):
    return Answer(200, (("content-type", "application/json"),), text.encode())


async def test_no_more_wait_to_be_settled_than_a_thousand(gts_clock):
    place = Place(gts_clock)
    place.fault(faults.cut(place.path, times=1200, is_after=False))
    pulled = 0

    def specs():
        nonlocal pulled
        for spec in numbered(1500):
            pulled += 1
            if gts_clock.now() < 20:
                assert pulled <= 1100
            yield spec

    outcomes = await collected(place.session.submit_many(specs(), max_at_once=16))
    assert len(outcomes) == 1500
    assert {outcome.value.id for outcome in outcomes} == {
        job.id for page in (1, 2) for job in await place.session.list_jobs(page=page, size=1000)
    }
