"""One life, three server generations: what a job goes through, and what each generation says when something is wrong.

Everything goes through a whole session to the pure cloud on the fake clock; one life per generation is led on loopback.
"""

import asyncio
import json

import attrs
import httpx
import pytest

from gts_async import (
    AsyncSession,
    DeadlineExceeded,
    Denied,
    InvalidData,
    JobSpec,
    JobStatus,
    NotFound,
    NotSupported,
    OutcomeUnknown,
    QuotaExceeded,
    Schedule,
    ServerFailed,
    Unauthorized,
    UnexpectedAnswer,
    WorkFailed,
    WorkLost,
    WorkStopped,
    WrongState,
)
from gts_async.emulator.backends import JobStage
from gts_async.emulator.cloud import Cloud
from gts_async.emulator.cloud_quirks import CloudQuirks, Generation
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.emulator.store import ObjectStore
from gts_async.local.stack import EmbeddedCloud
from gts_async.testing import EmulatorTransport, Fault
from gts_async.wire import Request

GPU = "NVIDIA-GeForce-RTX-3090"
SPEC = JobSpec(gpu_type=GPU, image_path="registry.test/image", run_command="python train.py")
JAVA, GO, HEAD = Generation.JAVA, Generation.GO, Generation.HEAD
OLD = (JAVA, GO)
OTHER = "eyJhbGciOiJIUzUxMiJ9.e30.other"
STRANGER = "eyJhbGciOiJIUzUxMiJ9.e30.nobody"
CREATES = {JAVA: "/api/userJob", GO: "/api/userJob", HEAD: "/api/job/training"}
DIALECTS = {JAVA: "2023-12", GO: "2023-12", HEAD: "2024-04"}
WORKING, SUCCEEDED, FAILED, STOPPED = JobStatus.WORKING, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED
UNASSIGNED, RUNNING = JobStatus.UNASSIGNED, JobStatus.RUNNING
FIRST = {JAVA: WORKING, GO: WORKING, HEAD: UNASSIGNED}

each = pytest.mark.parametrize("generation", [JAVA, GO, HEAD], ids=lambda one: one.name.lower())
each_old = pytest.mark.parametrize("generation", OLD, ids=lambda one: one.name.lower())


class World:
    """A cloud of a generation, with two users, and sessions that talk to it."""

    def __init__(self, clock, generation, quirks=None, **runner):
        self.clock = clock
        self.generation = generation
        self.store = ObjectStore(b"key", "https://store.test")
        self.runner = ScriptedRunner(**runner)
        self.cloud = Cloud(
            self.runner,
            self.store,
            token="t",
            other_tokens=(OTHER,),
            generation=generation,
            quirks=CloudQuirks(**(quirks or {})),
        )
        servers = {"https://cloud.test": self.cloud, "https://store.test": self.store}
        self.transport = EmulatorTransport(servers, self.now)

    def now(self):
        return self.clock.wall().timestamp()

    def session(self, token="t", url="https://cloud.test/api", dialect=None, **more):
        dialect = dialect or DIALECTS[self.generation]
        return AsyncSession(
            cloud=url, token=token, dialect=dialect, transport=self.transport, clock=self.clock, chance=half, **more
        )

    def ask(self, method, path, query=(), document=None):
        """Ask the cloud as any other client of the first user's would, and give its answer."""
        headers = (("content-type", "application/json"), ("authorization", "Bearer t"))
        body = b"" if document is None else json.dumps(document).encode()
        return self.cloud.answer(Request(method, path, query, headers, body), self.now())

    def delete(self, job):
        """Delete the job as the site's own page does."""
        assert self.ask("POST", "/api/userJob/job_del", document={"job_id": job.id}).status == 200

    def listed(self):
        """Give the ids of all jobs that there are, newest first."""
        path = CREATES[self.generation]
        answer = self.ask("GET", path, (("current", "1"), ("size", "1000")))
        return [row["jobName"] for row in json.loads(answer.body)["content"]]

    def sent(self, path):
        """Give the requests that arrived at that path."""
        return [request for request in self.transport.seen if request.path == path]

    @property
    def creates(self):
        """How many creates arrived."""
        return len([request for request in self.sent(CREATES[self.generation]) if request.method == "POST"])


def half():
    return 0.5


def story(changes):
    """Give the statuses of a watch's transitions, those that nobody saw in brackets."""
    return [[change.status] if change.is_synthesized else change.status for change in changes]


# Its life -------------------------------------------------------------------------------------------------------------


@each
async def test_a_job_shows_its_stages_and_ends_with_what_the_generation_gives(gts_clock, generation):
    world = World(gts_clock, generation, queued=20, running=60, packing=40)
    job = await world.session().submit(SPEC)
    changes = [change async for change in job.watch(deadline=3600)]
    # Until 2024-04 nothing tells queued from running or packing; since then nothing waits for the packing.
    assert (
        story(changes)
        == {
            JAVA: [WORKING, SUCCEEDED],
            GO: [WORKING, SUCCEEDED],
            HEAD: [UNASSIGNED, RUNNING, SUCCEEDED],
        }[generation]
    )
    assert [change.is_final for change in changes] == [*[False] * (len(changes) - 1), True]
    assert [change.previous for change in changes] == [None, *(change.status for change in changes[:-1])]
    assert changes[-1].elapsed >= (130 if generation in OLD else 90)
    url = changes[-1].look.url
    assert url is None if generation is HEAD else url.startswith("https://store.test/")


@each
async def test_a_stage_that_passed_between_two_looks_is_told_as_unseen(gts_clock, generation):
    world = World(gts_clock, generation, running=5)
    session = world.session(schedule=Schedule(minimum=60, maximum=120))
    job = await session.submit(SPEC)
    changes = [change async for change in job.watch()]
    assert story(changes) == ([WORKING, SUCCEEDED] if generation in OLD else [UNASSIGNED, [RUNNING], SUCCEEDED])


@each
async def test_waiting_and_awaiting_give_the_final_look_again_and_again(gts_clock, generation):
    job = await World(gts_clock, generation).session().submit(SPEC)
    first = await job.wait(deadline=3600)
    assert first.status is SUCCEEDED
    assert await job == first
    assert await job.status() == first


@each
async def test_a_failure_is_an_error_with_its_history(gts_clock, generation):
    job = await World(gts_clock, generation, outcome=JobStage.FAILED).session().submit(SPEC)
    with pytest.raises(WorkFailed) as caught:
        await job
    assert (
        story(caught.value.history)
        == {
            JAVA: [WORKING, FAILED],
            GO: [WORKING, FAILED],
            HEAD: [UNASSIGNED, RUNNING, FAILED],
        }[generation]
    )
    assert caught.value.last_look.status is FAILED
    assert caught.value.handle == job


@each_old
async def test_a_success_gets_its_url_later(gts_clock, generation):
    world = World(gts_clock, generation, {"url_delay": 20.0})
    job = await world.session().submit(SPEC)
    info = await job.wait(deadline=3600)
    assert info.status is SUCCEEDED
    assert info.url is not None


@each_old
async def test_a_success_may_never_get_its_url(gts_clock, generation):
    # Go's status then answers as if there were no such job; its listing shows the success.
    session = World(gts_clock, generation, {"url_delay": float("inf")}).session()
    job = await session.submit(SPEC)
    info = await job.wait(deadline=3600)
    assert (info.status, info.url) == (SUCCEEDED, None)
    assert await session.job(job.id) == info


async def test_a_hundred_successes_without_a_file_cost_few_listings(gts_clock):
    world = World(gts_clock, GO, {"url_delay": float("inf")}, running=60)
    session = world.session()
    jobs = [await session.submit(SPEC) for _ in range(100)]
    finals = await session.wait_all(jobs, deadline=3600)
    assert {final.status for final in finals} == {SUCCEEDED}
    assert len(world.sent("/api/userJob")) - world.creates < 100


async def test_the_first_days_spelling_of_a_success_is_one(gts_clock):
    job = await World(gts_clock, JAVA, {"misspells_success": True}).session().submit(SPEC)
    info = await job
    assert (info.status, info.word) == (SUCCEEDED, "sucess")
    assert info.url is not None


@each_old
async def test_a_fail_that_soon_turns_into_a_success_ends_no_wait(gts_clock, generation):
    world = World(gts_clock, generation, {"fails_first": True}, running=15)
    job = await world.session().submit(SPEC)
    changes = [change async for change in job.watch(deadline=3600)]
    assert story(changes)[0] is WORKING
    assert story(changes)[-1] is SUCCEEDED
    assert [change.is_final for change in changes] == [*[False] * (len(changes) - 1), True]


@each_old
async def test_a_fail_that_turns_into_a_success_much_later_sticks_to_its_handle_and_shows_in_a_new_one(
    gts_clock, generation
):
    world = World(gts_clock, generation, {"fails_first": True}, running=600)
    session = world.session()
    job = await session.submit(SPEC)
    with pytest.raises(WorkFailed):
        await job
    assert gts_clock.now() < 600
    await gts_clock.sleep(600)
    with pytest.raises(WorkFailed):
        await job
    assert (await job.status()).status is SUCCEEDED
    assert (await session.resume(job.token())).status is SUCCEEDED


# Its end by somebody's hand -------------------------------------------------------------------------------------------


@each
async def test_after_our_stop_the_cluster_ends_the_job_and_other_sessions_see_what_the_generation_shows(
    gts_clock, generation
):
    world = World(gts_clock, generation, outcome=JobStage.RUNNING)
    job = await world.session().submit(SPEC)
    await gts_clock.sleep(15)
    await job.stop()
    assert (await job.status()).status is STOPPED
    with pytest.raises(WorkStopped):
        await job.wait()
    await gts_clock.sleep(15)
    await job.stop()
    assert world.listed() == ([job.id] if generation is HEAD else [])
    assert world.runner.killed == [job.id]
    elsewhere = world.session().resume(job.token())
    if generation is JAVA:
        assert (await elsewhere.status()).status is WORKING
    with pytest.raises(WorkStopped if generation is HEAD else WorkLost):
        await elsewhere.wait(deadline=3600)


@each
async def test_a_job_that_has_succeeded_is_not_stopped_any_more(gts_clock, generation):
    world = World(gts_clock, generation)
    job = await world.session().submit(SPEC)
    await job
    with pytest.raises(WrongState, match="succeeded"):
        await job.stop()
    assert (await job).status is SUCCEEDED
    assert world.sent("/api/userJob/job_del") == world.sent("/api/job/gpu/stop") == []


@each
async def test_a_job_that_somebody_deletes_meanwhile_is_lost_after_a_grace(gts_clock, generation):
    world = World(gts_clock, generation, outcome=JobStage.RUNNING)
    job = await world.session().submit(SPEC)
    watch = job.watch(deadline=3600)
    assert (await anext(watch)).status is FIRST[generation]
    world.delete(job)
    gone = gts_clock.now()
    with pytest.raises(WorkLost) as caught:
        async for change in watch:
            assert change.status is FIRST[generation]
    assert gts_clock.now() - gone >= 30
    assert caught.value.last_look.status is FIRST[generation]
    # Java goes on telling the last status of a deleted job for ever; only its listing lacks it.
    assert gts_clock.now() - gone < (900 if generation is JAVA else 300)


@each
async def test_a_job_that_runs_for_long_is_asked_for_in_the_listing_now_and_then_where_a_look_says_too_little(
    gts_clock, generation
):
    world = World(gts_clock, generation, outcome=JobStage.RUNNING)
    session = world.session()
    jobs = [await session.submit(SPEC) for _ in range(5)]
    ends = await session.wait_all(jobs, deadline=7200)
    assert [type(end) for end in ends] == [DeadlineExceeded] * 5
    listings = len(world.sent(CREATES[generation])) - world.creates
    assert 0 < listings <= 7200 / 300 if generation in OLD else listings == 0


async def test_a_job_that_ends_soon_is_not_asked_for_in_the_listing(gts_clock):
    world = World(gts_clock, JAVA, running=240)
    assert (await (await world.session().submit(SPEC))).status is SUCCEEDED
    assert len(world.sent("/api/userJob")) == world.creates == 1


async def test_a_job_whose_end_shows_although_it_is_listed_no_more_is_not_lost(gts_clock):
    world = World(gts_clock, JAVA, outcome=JobStage.RUNNING)
    job = await world.session().submit(SPEC)
    waiting = asyncio.create_task(job.wait(deadline=3600))
    await gts_clock.sleep(60)
    world.delete(job)
    # One page, an empty one, for each of the two counts that miss it.
    while len(world.sent("/api/userJob")) - world.creates < 2:
        await gts_clock.sleep(1)
    ended = {"status": "success", "url": "https://store.test/bucket/data.zip"}
    world.transport.faults.append(Fault(lambda request: httpx.Response(200, json=ended), "/job_status", times=10**9))
    assert (await waiting).status is SUCCEEDED


async def test_another_users_job_that_java_works_on_is_never_lost_though_it_is_in_no_listing_of_ours(gts_clock):
    world = World(gts_clock, JAVA, outcome=JobStage.RUNNING)
    theirs = await world.session(OTHER).submit(SPEC)
    mine = world.session()
    for job in (mine.job(theirs.id), world.session().resume(mine.job(theirs.id).token())):
        with pytest.raises(DeadlineExceeded):
            await job.wait(deadline=3600)
    assert len(world.sent("/api/userJob")) == 1


@each
async def test_a_hundred_jobs_that_are_deleted_at_once_are_all_lost_and_cost_few_listings(gts_clock, generation):
    world = World(gts_clock, generation, outcome=JobStage.RUNNING)
    session = world.session()
    jobs = [await session.submit(SPEC) for _ in range(100)]
    waiting = asyncio.create_task(session.wait_all(jobs, deadline=7200))
    await gts_clock.sleep(60)
    for job in jobs:
        world.delete(job)
    gone = gts_clock.now()
    world.transport.seen.clear()
    assert {type(end) for end in await waiting} == {WorkLost}
    assert gts_clock.now() - gone < (1200 if generation is JAVA else 400)
    assert len(world.sent(CREATES[generation])) < len(world.transport.seen) / 20


# Its database ---------------------------------------------------------------------------------------------------------


def away(message):
    """Give an answer of the cloud's that says so."""
    return lambda request: httpx.Response(400, json={"message": message})


def cut(request):
    """Give the beginning of a listing."""
    return httpx.Response(200, text='{"content":[{"jobName":"ai-')


@each
@pytest.mark.parametrize(
    "listing",
    [None, away("数据库查询错误"), away("系统错误，请稍后再试"), cut],
    ids=["only the status", "no such row", "system error", "cut"],
)
async def test_jobs_outlive_an_outage_of_the_database_that_looks_as_if_there_were_no_jobs(
    gts_clock, generation, listing
):
    world = World(gts_clock, generation, running=300)
    session = world.session()
    known = await session.submit(SPEC)
    jobs = [known, session.job(known.id), *[await session.submit(SPEC) for _ in range(4)]]
    waiting = asyncio.create_task(session.wait_all(jobs, deadline=3600))
    await gts_clock.sleep(20)
    said = "数据库查询错误" if generation is HEAD else "sql: no rows in result set"
    outage = [Fault(away(said), path, times=10**9) for path in ("/userJob/job_status", "/gpu/status")]
    if listing is not None:
        outage.append(Fault(listing, CREATES[generation], times=10**9))
    world.transport.faults.extend(outage)
    await gts_clock.sleep(150)
    world.transport.faults.clear()
    assert sum(10**9 - fault.times for fault in outage) > 5 * 3
    assert {final.status for final in await waiting} == {SUCCEEDED}


@pytest.mark.parametrize("answer", [(403, "no"), (404, "no"), (200, '{"job_id":"ai-1"}'), (400, "something new")])
async def test_where_no_listing_is_to_be_had_a_job_that_is_not_there_is_lost_as_well(gts_clock, answer):
    world = World(gts_clock, GO, outcome=JobStage.RUNNING)
    job = await world.session().submit(SPEC)
    world.delete(job)
    status, said = answer
    world.transport.faults.append(Fault(lambda request: httpx.Response(status, text=said), CREATES[GO], times=10**9))
    with pytest.raises(WorkLost) as caught:
        await job.wait()
    assert type(caught.value.__cause__) is NotFound
    assert 30 <= gts_clock.now() <= 60


async def test_a_listing_that_the_token_is_not_good_for_any_more_ends_the_wait(gts_clock):
    world = World(gts_clock, GO)
    job = await world.session().submit(SPEC)
    world.delete(job)
    world.transport.faults.append(Fault(lambda request: httpx.Response(401), CREATES[GO], times=10**9))
    with pytest.raises(Unauthorized):
        await job.wait()


async def test_a_wait_that_begins_in_an_outage_of_the_database_finds_its_job_all_the_same(gts_clock):
    world = World(gts_clock, HEAD)
    session = world.session()
    job = await session.submit(SPEC)
    world.transport.faults.extend(Fault(away("数据库查询错误"), path, times=5) for path in ("/status", "/training"))
    assert (await session.job(job.id).wait(deadline=3600)).status is SUCCEEDED


@each
async def test_a_job_that_is_deleted_already_is_not_stopped_but_missed_except_by_java(gts_clock, generation):
    world = World(gts_clock, generation, outcome=JobStage.RUNNING)
    job = await world.session().submit(SPEC)
    world.delete(job)
    if generation is JAVA:
        await job.stop()
        assert (await job.status()).status is STOPPED
        return
    with pytest.raises(NotFound):
        await job.stop()
    assert world.sent("/api/userJob/job_del") == world.sent("/api/job/gpu/stop") == []


async def test_what_we_have_stopped_stays_stopped_although_a_late_report_revives_it_in_the_listing(gts_clock):
    world = World(gts_clock, HEAD, {"stop_race": True}, running=1000)
    session = world.session()
    job = await session.submit(SPEC)
    await gts_clock.sleep(15)
    await job.stop()
    await gts_clock.sleep(15)
    (listing,) = await session.list_jobs()
    assert listing.info.status is RUNNING
    assert (await job.status()).status is STOPPED
    with pytest.raises(WorkStopped):
        await job


async def test_jobs_that_the_cloud_deletes_for_want_of_money_are_lost_and_no_further_one_is_made(gts_clock):
    world = World(gts_clock, HEAD, {"broke_after": 100.0}, outcome=JobStage.RUNNING)
    session = world.session()
    jobs = [await session.submit(SPEC) for _ in range(3)]
    ends = await session.wait_all(jobs, deadline=3600)
    assert [type(end) for end in ends] == [WorkLost] * 3
    assert 120 + 30 <= gts_clock.now() < 600
    assert await session.list_jobs() == []
    with pytest.raises(QuotaExceeded, match="余额不足"):
        await session.submit(SPEC)


# Whose it is ----------------------------------------------------------------------------------------------------------


@each
async def test_another_users_job_is_shown_by_the_old_generations_and_denied_by_the_new(gts_clock, generation):
    world = World(gts_clock, generation)
    theirs = await world.session(OTHER).submit(SPEC)
    mine = world.session()
    assert await mine.list_jobs() == []
    assert [one.id for one in await world.session(OTHER).list_jobs()] == [theirs.id]
    job = mine.job(theirs.id)
    if generation in OLD:
        assert (await job).status is SUCCEEDED
        return
    for ask in (job.status, job.wait, job.stop):
        with pytest.raises(Denied, match="无权访问该任务"):
            await ask()
    assert (await theirs).status is SUCCEEDED


@each
async def test_a_job_that_never_was_is_not_found_and_told_in_the_generations_own_way(gts_clock, generation):
    session = World(gts_clock, generation).session()
    with pytest.raises(NotFound) as caught:
        await session.job("ai-nobody").status()
    code, said = {
        JAVA: (200, "the cloud answers with nothing"),
        GO: (400, "sql: no rows in result set"),
        HEAD: (400, "数据库查询错误"),
    }[generation]
    assert caught.value.code == code
    assert said in str(caught.value)
    with pytest.raises(NotFound):
        await session.job("ai-nobody").wait()
    with pytest.raises(NotFound):
        await session.job("ai-nobody").stop()


@each
async def test_jobs_are_listed_by_pages_newest_first_without_deleted_ones(gts_clock, generation):
    world = World(gts_clock, generation)
    session = world.session()
    jobs = [await session.submit(SPEC) for _ in range(6)]
    world.delete(jobs[3])
    await jobs[0]
    kept = [job.id for job in reversed(jobs) if job is not jobs[3]]
    pages = [await session.list_jobs(page=page, size=2) for page in (1, 2, 3, 4)]
    assert [[listing.id for listing in page] for page in pages] == [kept[:2], kept[2:4], kept[4:], []]
    assert {listing.info.status for page in pages for listing in page} == {SUCCEEDED}


@each
async def test_a_listing_shows_each_job_as_a_look_would(gts_clock, generation):
    world = World(gts_clock, generation, queued=1000, packing=1000)
    session = world.session()
    job = await session.submit(SPEC)
    for _ in range(5):
        (listing,) = await session.list_jobs()
        assert listing.info.status is (await job.status()).status
        await gts_clock.sleep(700)
    assert listing.info.status is SUCCEEDED


@each
async def test_gpu_types_have_a_price_and_since_2024_a_number_that_is_free(gts_clock, generation):
    world = World(gts_clock, generation, outcome=JobStage.RUNNING)
    session = world.session()
    await session.submit(attrs.evolve(SPEC, gpu_number=4))
    await gts_clock.sleep(30)
    gpus = {gpu.name: (gpu.price, gpu.free) for gpu in await session.gpu_types()}
    free = 1020 if generation is HEAD else None
    assert gpus == {GPU: (3.5, free), "NVIDIA-A100-SXM4-80GB": (20.0, free and 1024)}


@each
async def test_a_job_is_taken_up_by_a_second_session(gts_clock, generation):
    world = World(gts_clock, generation)
    job = await world.session().submit(SPEC)
    await gts_clock.sleep(30)
    again = world.session().resume(job.token())
    assert again == job
    changes = [change async for change in again.watch(deadline=3600)]
    assert story(changes) == [WORKING if generation in OLD else RUNNING, SUCCEEDED]
    world.delete(job)
    lost = world.session().resume(job.token())
    if generation is JAVA:
        assert (await lost).status is SUCCEEDED
    else:
        with pytest.raises(WorkLost):
            await lost


# Creates whose answer says little -------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("quirk", ["timed_out_creates", "dropped_creates"])
async def test_a_create_that_was_carried_out_without_a_good_answer_is_found_and_not_sent_again(
    gts_clock, generation, quirk
):
    world = World(gts_clock, generation, {quirk: {1}})
    session = world.session()
    job = await session.submit(SPEC)
    assert world.listed() == [job.id]
    assert world.creates == 1
    assert (await job).status is SUCCEEDED


@each
async def test_a_create_that_never_reached_the_server_behind_the_gateway_is_left_open_and_settled_later(
    gts_clock, generation
):
    world = World(gts_clock, generation, {"unreachable": {1}})
    session = world.session()
    with pytest.raises(OutcomeUnknown) as caught:
        await session.submit(SPEC)
    assert caught.value.intent.spec.run_command == SPEC.run_command
    assert world.listed() == []
    assert world.creates == 1
    assert await session.reconcile(caught.value.intent) is None
    assert world.creates == 1


@each
async def test_a_job_that_is_made_after_its_creates_timeout_is_found_by_its_intent(gts_clock, generation):
    world = World(gts_clock, generation)
    session = world.session()
    kept = []

    def busy(request):
        kept.append(json.loads(request.content))
        return httpx.Response(503, text="Request Timeout")

    world.transport.faults.append(Fault(busy, CREATES[generation]))
    with pytest.raises(OutcomeUnknown) as caught:
        await session.submit(SPEC)
    assert world.listed() == []
    # What the server was still busy with comes out later.
    (document,) = kept
    late = json.loads(world.ask("POST", CREATES[generation], document=document).body)["job_id"]
    found = await session.reconcile(caught.value.intent)
    assert (found.id, world.listed()) == (late, [late])


@each
@pytest.mark.parametrize("turns", [1, 3, 6, 9, 12])
async def test_a_cancelled_create_is_finished_and_its_job_not_lost(gts_clock, generation, caplog, turns):
    world = World(gts_clock, generation)
    session = world.session()
    await session.ping()
    submitting = asyncio.create_task(session.submit(SPEC))
    for _ in range(turns):
        await asyncio.sleep(0)
    submitting.cancel()
    (result,) = await asyncio.gather(submitting, return_exceptions=True)
    await gts_clock.sleep(60)
    assert world.creates == len(world.listed()) <= 1
    for job_id in world.listed():
        assert result.id == job_id if not isinstance(result, BaseException) else job_id in caplog.text


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quirks", "said"),
    [
        ({"balance": -0.5}, "余额不足"),
        ({"balance": None}, "sql: no rows in result set"),
        ({"quotas": {GPU: 0}}, "JobCreate CheckQuota userId: user-"),
    ],
)
async def test_balance_and_quota_are_refused_as_such_and_fail_alone_in_a_batch(gts_clock, quirks, said):
    world = World(gts_clock, HEAD, quirks)
    session = world.session()
    with pytest.raises(QuotaExceeded) as caught:
        await session.submit(SPEC)
    assert (caught.value.code, caught.value.call) == (400, "create_job")
    assert said in caught.value.message
    async with session.submit_many([SPEC] * 3, max_at_once=1) as outcomes:
        assert [type(outcome.error) async for outcome in outcomes] == [QuotaExceeded] * 3
    assert world.creates == 4
    assert world.listed() == []


@each
async def test_a_strangers_token_is_unauthorized_in_every_call(gts_clock, generation):
    world = World(gts_clock, generation)
    session = world.session(STRANGER)
    job = session.job("ai-1")
    for ask in (lambda: session.submit(SPEC), job.status, job.wait, job.stop, session.list_jobs, session.gpu_types):
        with pytest.raises(Unauthorized) as caught:
            await ask()
        assert caught.value.code == 401
        assert caught.value.message == ("" if generation is JAVA else "Unauthorized: signature is invalid")
    assert len(world.transport.seen) == 6


@each
async def test_what_cannot_be_a_token_is_a_failure_of_javas_filter_and_a_refusal_by_gos(gts_clock, generation):
    session = World(gts_clock, generation).session("nonsense")
    with pytest.raises(ServerFailed if generation is JAVA else Unauthorized) as caught:
        await session.list_jobs()
    if generation is JAVA:
        assert caught.value.status == 500
    else:
        assert caught.value.message == "Unauthorized: token contains an invalid number of segments"


async def test_a_token_from_before_may_2024_is_said_to_be_too_old(gts_clock):
    session = World(gts_clock, HEAD, {"outdated_tokens": {"a.b.c"}}).session("a.b.c")
    with pytest.raises(Unauthorized, match="before May 2024"):
        await session.list_jobs()


@each_old
async def test_a_body_of_more_than_a_mebibyte_is_refused_as_too_large(gts_clock, generation):
    world = World(gts_clock, generation)
    with pytest.raises(InvalidData) as caught:
        await world.session().submit(attrs.evolve(SPEC, env={"DATA": "x" * (1 << 20)}))
    assert caught.value.code == 413
    assert world.listed() == []


@each
async def test_a_moments_trouble_of_the_gateway_is_got_over_by_looks(gts_clock, generation):
    world = World(gts_clock, generation, {"unreachable": {2, 3}, "overloaded": {5, 6}})
    session = world.session()
    job = await session.submit(SPEC)
    assert (await job.status()).status is FIRST[generation]
    assert [listing.id for listing in await session.list_jobs()] == [job.id]
    assert (await job).status is SUCCEEDED


@each
async def test_trouble_that_lasts_is_the_servers_failure(gts_clock, generation):
    world = World(gts_clock, generation, {"unreachable": range(2, 100)})
    session = world.session()
    job = await session.submit(SPEC)
    with pytest.raises(ServerFailed) as caught:
        await job.status()
    status, said = (502, "Bad Gateway") if generation is JAVA else (500, "Error forwarding request")
    assert caught.value.status == status
    assert said in caught.value.body
    assert len(caught.value.attempts) == 4


@each
async def test_the_other_dialect_has_paths_that_are_not_there(gts_clock, generation):
    world = World(gts_clock, generation)
    session = world.session(dialect="2024-04" if generation in OLD else "2023-12")
    for ask in (lambda: session.submit(SPEC), session.list_jobs, session.gpu_types):
        with pytest.raises(UnexpectedAnswer, match=r"no such call \(404\): it speaks another dialect"):
            await ask()
    assert world.listed() == []
    assert len(world.transport.seen) == 3


@each
async def test_a_url_without_its_api_shows_the_site_itself(gts_clock, generation):
    world = World(gts_clock, generation)
    session = world.session(url="https://cloud.test")
    job = session.job("ai-1")
    with pytest.raises(UnexpectedAnswer, match=r"lacks its /api"):
        await session.submit(SPEC)
    for ask in (session.list_jobs, session.gpu_types, job.status):
        with pytest.raises(UnexpectedAnswer, match=r"lacks its /api"):
            await ask()
    assert world.listed() == []


@pytest.mark.parametrize("generation", [GO, HEAD])
async def test_a_url_that_is_no_path_of_the_gateways_gets_no_answer_or_none_that_can_be_read(gts_clock, generation):
    world = World(gts_clock, generation)
    session = world.session(url="https://cloud.test/auth")
    with pytest.raises((OutcomeUnknown, UnexpectedAnswer)):
        await session.list_jobs()


async def test_the_newest_generation_hands_out_no_model(gts_clock, tmp_path):
    job = await World(gts_clock, HEAD).session().submit(SPEC)
    await job
    with pytest.raises(NotSupported):
        await job.download(tmp_path)


# On loopback ----------------------------------------------------------------------------------------------------------


@each
async def test_a_whole_life_with_real_processes_on_loopback(tmp_path, generation):
    quick = CloudQuirks(agent_period=0.1)
    schedule = Schedule(minimum=0.05, maximum=0.2)
    spec = JobSpec(gpu_type=GPU, image_path="image")
    async with EmbeddedCloud(tmp_path / "cloud", generation=generation, quirks=quick) as cloud:
        settings = {"cloud": cloud.url, "token": cloud.token, "dialect": DIALECTS[generation], "schedule": schedule}
        async with AsyncSession(**settings) as session, AsyncSession(**settings) as elsewhere:
            await session.ping()
            assert GPU in [gpu.name for gpu in await session.gpu_types()]
            good, bad, endless = [
                await session.submit(attrs.evolve(spec, run_command=command)) for command in (None, "false", "sleep 60")
            ]
            assert [one.id for one in await session.list_jobs()] == [endless.id, bad.id, good.id]
            with pytest.raises(WorkStopped):
                await asyncio.gather(endless.wait(), _stopped(endless))
            changes = [change async for change in good.watch(deadline=60)]
            assert changes[-1].status is SUCCEEDED
            if generation is HEAD:
                with pytest.raises(WorkFailed):
                    await elsewhere.resume(bad.token()).wait(deadline=60)
            assert (await elsewhere.resume(good.token()).wait(deadline=60)).status is SUCCEEDED
            if generation is not HEAD:
                paths = await good.download(tmp_path / "model")
                assert {path.name for path in paths} == {"metrics.json", "model.json", "train.log"}
            with pytest.raises(NotFound):
                await session.job("ai-nobody").status()
    assert not (tmp_path / "cloud" / endless.id).exists()


async def _stopped(job):
    await asyncio.sleep(0.3)
    await job.stop()
