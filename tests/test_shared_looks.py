"""Jobs out of one journal, watched by several sessions: each is looked at by one of them, and all see it end."""

import asyncio
import collections

import attrs
import pytest

from gts_async import AsyncSession, JobSpec, JobStatus, WorkFailed
from gts_async._journal import WATCH_LEASE
from gts_async.emulator.backends import JobStage
from gts_async.emulator.cloud import Cloud
from gts_async.emulator.cloud_quirks import Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.testing import EmulatorTransport, FakeClock

SPEC = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="python train.py")
LOOKS = {Generation.JAVA: "/api/userJob/job_status", Generation.HEAD: "/api/job/gpu/status"}


class World:
    """A cloud, and sessions that each have a transport of their own, so that it is known who asks."""

    def __init__(self, generation, journal, outcome=JobStage.UPLOADED):
        self.clock = FakeClock()
        self.generation, self.journal = generation, journal
        store = ObjectStore(b"key", "https://store.test")
        self.cloud = Cloud(ScriptedRunner(outcome=outcome), store, token="t", generation=generation)

    def session(self):
        transport = EmulatorTransport({"https://cloud.test": self.cloud}, lambda: self.clock.wall().timestamp())
        dialect = "2024-04" if self.generation is Generation.HEAD else "2023-12"
        session = AsyncSession(
            cloud="https://cloud.test/api", token="t", dialect=dialect, clock=self.clock, transport=transport
        )
        return session, transport

    def looks(self, transport):
        return len([request for request in transport.seen if request.path == LOOKS[self.generation]])

    def pages(self, transport):
        listings = ("/api/userJob", "/api/job/training")
        return len([request for request in transport.seen if request.method == "GET" and request.path in listings])

    async def jobs(self, session, count):
        specs = [attrs.evolve(SPEC, run_command=f"python train.py {number}") for number in range(count)]
        async with session.submit_many(specs, journal=self.journal) as outcomes:
            return [outcome.unwrap() async for outcome in outcomes]


@pytest.fixture(params=list(LOOKS), ids=lambda generation: generation.name)
def world(request, tmp_path):
    return World(request.param, tmp_path / "batch.db")


async def test_one_of_two_sessions_looks_and_both_see_the_end(world):
    (one, ours), (other, theirs) = world.session(), world.session()
    async with one, other:
        jobs = await world.jobs(one, 3)
        again = await world.jobs(other, 3)
        assert {job.id for job in jobs} == {job.id for job in again}
        first = [asyncio.create_task(job.wait()) for job in jobs]
        while len({job.id for job in jobs if job.history}) < 3:
            await world.clock.sleep(1)
        second = [asyncio.create_task(job.wait()) for job in again]
        finals = await asyncio.gather(*first, *second)
        assert {final.status for final in finals} == {JobStatus.SUCCEEDED}
    # Whoever does not hold the lease only looks at what has ended.
    assert world.looks(theirs) <= 3 * 3 < world.looks(ours)
    assert all(final.url for final in finals) is (world.generation is Generation.JAVA)


async def test_whoever_looked_and_is_gone_is_replaced_when_its_lease_is_over(world):
    (one, _), (other, theirs) = world.session(), world.session()
    async with one, other:
        [job] = await world.jobs(one, 1)
        [again] = await world.jobs(other, 1)
        gone = asyncio.create_task(job.wait())
        await world.clock.sleep(1)
        gone.cancel()
        assert (await again.wait()).status is JobStatus.SUCCEEDED
        assert world.clock.now() < WATCH_LEASE + 120
    assert world.looks(theirs) > 0


async def test_a_session_that_is_closed_lets_the_others_look_at_once(world):
    (one, _), (other, theirs) = world.session(), world.session()
    async with other:
        async with one:
            [job] = await world.jobs(one, 1)
            [again] = await world.jobs(other, 1)
            gone = asyncio.create_task(job.wait())
            await world.clock.sleep(1)
            gone.cancel()
        waiting = asyncio.create_task(again.wait())
        await world.clock.sleep(12)
        assert world.looks(theirs) > 0
        await waiting


async def test_many_are_listed_by_the_one_that_looks_only(world):
    (one, ours), (other, theirs) = world.session(), world.session()
    async with one, other:
        jobs, again = await world.jobs(one, 50), await world.jobs(other, 50)
        before = collections.Counter(ours=world.pages(ours), theirs=world.pages(theirs))
        async with one.as_finished(jobs) as mine:
            while not all(job.history for job in jobs):
                await world.clock.sleep(0.5)
            async with other.as_finished(again) as yours:
                for outcomes in (mine, yours):
                    assert len([outcome.unwrap() async for outcome in outcomes]) == 50
        assert world.pages(theirs) - before["theirs"] == 0
        assert world.pages(ours) - before["ours"] > 0


async def test_a_journal_that_is_gone_ends_no_wait(world):
    session, transport = world.session()
    async with session:
        [job] = await world.jobs(session, 1)
        world.journal.unlink()
        assert (await job.wait()).status is JobStatus.SUCCEEDED
    assert world.looks(transport) > 1


@pytest.mark.parametrize("generation", LOOKS, ids=lambda generation: generation.name)
async def test_what_has_failed_has_failed_for_all(generation, tmp_path):
    world = World(generation, tmp_path / "batch.db", JobStage.FAILED)
    (one, _), (other, _) = world.session(), world.session()
    async with one, other:
        [job], [again] = await world.jobs(one, 1), await world.jobs(other, 1)
        for ended in await asyncio.gather(job.wait(), again.wait(), return_exceptions=True):
            assert isinstance(ended, WorkFailed)


async def test_whoever_is_rung_looks_though_another_holds_the_job(world):
    (one, _), (other, theirs) = world.session(), world.session()
    async with one, other:
        [job], [again] = await world.jobs(one, 1), await world.jobs(other, 1)
        waits = [asyncio.create_task(job.wait())]
        while not job.history:
            await world.clock.sleep(1)
        waits.append(asyncio.create_task(again.wait()))
        while not again.history:
            await world.clock.sleep(1)
        before = world.looks(theirs)
        other.ring(again.id)
        await world.clock.sleep(0.5)
        assert world.looks(theirs) == before + 1
        await asyncio.gather(*waits)
