"""Several engines asked as one, against pure engines on the fake clock."""

import asyncio
import json

import attrs
import pytest

from gts_async import (
    AsyncSession,
    InferencePool,
    InvalidArgument,
    InvalidData,
    LeaseLost,
    MisuseError,
    NotFound,
    NotSent,
    ServerFailed,
    TimedOut,
    WrongType,
)
from gts_async.emulator.engine import Engine
from gts_async.emulator.scripted import MemoryFiles, ScriptedTrainer
from gts_async.gts import calls
from gts_async.testing import EmulatorTransport, faults
from gts_async.wire import Answer

FILES = {"train_data": "d.json", "val_data": "d.json", "test_data": "d.json", "label_data": "l.json"}
SAMPLES = [{"content": str(n)} for n in range(600)]
EVER = 10**6


class Server:
    """An engine whose predict answers 500 to what holds `poison`, and nonsense to what holds `nonsense`.

    It may also know no task any more.
    """

    def __init__(self, engine):
        self.engine = engine
        self.poison = self.nonsense = None
        self.is_deleted = False

    def answer(self, request, now):
        if self.nonsense is not None and request.path.endswith("predict") and self.nonsense in request.body:
            return Answer(200, (("content-type", "application/json"),), b"[]", None)
        if self.poison is not None and request.path.endswith("predict") and self.poison in request.body:
            return Answer(500, (("content-type", "text/plain"),), b"Internal Server Error", None)
        if self.is_deleted:
            request = attrs.evolve(request, body=request.body.replace(b'"t"', b'"gone"'))
        return self.engine.answer(request, now)


class Line(EmulatorTransport):
    """Answers predicts after so many `seconds`, a function of their number, and loads after `loading`."""

    def __init__(self, server, url, clock):
        super().__init__({url: server}, lambda: clock.wall().timestamp())
        self.clock = clock
        self.seconds = None
        self.loading = 0.0
        self.in_flight = self.most = 0

    async def handle_async_request(self, request):
        if request.url.path.endswith("start_inference"):
            await self.clock.sleep(self.loading)
        if self.seconds is None or not request.url.path.endswith("predict"):
            return await super().handle_async_request(request)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await self.clock.sleep(self.seconds(len(self.seen)))
        finally:
            self.in_flight -= 1
        return await super().handle_async_request(request)


@attrs.define
class Farm:
    """Engines with the same trained task each; one list each of tasks, their transports, their servers."""

    clock: object
    folder: object
    tasks: list = attrs.field(factory=list)
    transports: list = attrs.field(factory=list)
    servers: list = attrs.field(factory=list)

    async def add(self, task_type="classification", engine_type="qiankunding", name="t", labels="ab"):
        (self.folder / "d.json").write_text(
            "\n".join(json.dumps({"id": i, "content": f"text {i}", "label": labels[i % 2]}) for i in range(40))
        )
        (self.folder / "l.json").write_text(json.dumps({"labels": list(labels)}))
        url = f"http://engine{len(self.tasks)}.test"
        files = MemoryFiles()
        self.servers.append(Server(Engine(files, ScriptedTrainer(files))))
        self.transports.append(Line(self.servers[-1], url, self.clock))
        session = AsyncSession(engine=url, transport=self.transports[-1], clock=self.clock, chance=lambda: 0.5)
        task = await session.create_task(name, task_type=task_type, engine_type=engine_type)
        await task.upload(self.folder / "d.json", self.folder / "l.json")
        await (await task.train(**FILES))
        self.tasks.append(task)

    def pool(self, max_batch=10, **options):
        return InferencePool([task.serve(max_batch=max_batch) for task in self.tasks], chance=lambda: 0.0, **options)

    def asked(self, path="predict"):
        return [len([r for r in transport.seen if r.path.endswith(path)]) for transport in self.transports]

    def statuses(self):
        pairs = zip(self.servers, self.tasks, strict=True)
        return [server.engine.task_info(task.id)["status_code"] for server, task in pairs]


@pytest.fixture
async def farm(gts_clock, tmp_path):
    """Give three of them."""
    farm = Farm(gts_clock, tmp_path)
    for _ in range(3):
        await farm.add()
    return farm


async def test_requests_go_to_the_least_loaded_engine(farm):
    async with farm.pool() as pool:
        results = await pool.predict(SAMPLES)
        counts = farm.asked()
        alone = await pool.sessions[0].predict(SAMPLES)
    assert results == alone
    # And each engine is asked once for what its model is known by: full requests have no room for that.
    assert sum(counts) == 67 + 3
    assert min(counts) >= 5


async def test_an_engine_that_dies_in_a_stream_loses_no_sample(farm):
    async with farm.pool() as pool:
        seen = []
        async with pool.stream(SAMPLES) as outcomes:
            async for outcome in outcomes:
                seen.append(outcome)
                if len(seen) == 100:
                    farm.transports[1].faults.append(faults.refused("predict", times=EVER))
    assert [outcome.item for outcome in seen] == SAMPLES
    assert all(outcome.is_ok for outcome in seen)


async def test_an_engine_that_failed_is_left_alone_longer_each_time_and_asked_one_sample_before_it_gets_others(farm):
    async with farm.pool() as pool:
        await pool.predict(SAMPLES[:30])
        outage = faults.refused("predict", times=EVER)
        farm.transports[0].faults.append(outage)
        await pool.predict(SAMPLES)
        before, began = farm.asked()[0], farm.clock.now()
        met = []
        while len(met) < 4:
            left = outage.times
            await farm.clock.sleep(0.1)
            if outage.times < left and outage.times % 2 == 0:
                met.append(round(farm.clock.now() - began))
        assert met == [5, 15, 35, 76]
        assert farm.asked()[0] == before
        farm.transports[0].faults.clear()
        await farm.clock.sleep(60)
        assert farm.asked()[0] == before + 1
        asked = [request for request in farm.transports[0].seen if request.path.endswith("predict")]
        assert len(json.loads(asked[-1].body)["sentences"]) <= 2
        await pool.predict(SAMPLES)
        assert farm.asked()[0] > before + 5


async def test_with_every_engine_gone_the_last_error_is_raised(farm):
    async with farm.pool() as pool:
        for transport in farm.transports:
            transport.faults.append(faults.refused("predict", times=EVER))
        began = farm.clock.now()
        with pytest.raises(NotSent):
            await pool.predict([{"content": "x"}])
        assert 20 <= farm.clock.now() - began <= 30
        for transport in farm.transports:
            transport.faults.clear()
        await farm.clock.sleep(60)
        assert len(await pool.predict([{"content": "x"}])) == 1


async def test_engines_that_were_all_restarted_may_take_a_minute_to_load(farm):
    async with farm.pool() as pool:
        right = await pool.predict(SAMPLES)
        for transport, server in zip(farm.transports, farm.servers, strict=True):
            transport.faults.append(faults.refused("predict", times=8))
            transport.loading = 60.0
            server.engine.restart()
        began = farm.clock.now()
        assert await pool.predict(SAMPLES) == right
        assert 60 < farm.clock.now() - began < 90
        assert pool.stats.reloads >= 1
        for transport in farm.transports:
            transport.loading = 0.0


async def test_an_engine_that_cannot_load_is_set_aside_and_joins_later(farm, caplog):
    farm.transports[2].faults.append(faults.refused("start_inference", times=8))
    async with farm.pool() as pool:
        assert "set aside" in caplog.text
        await pool.predict(SAMPLES)
        assert farm.asked()[2] == 0
        await farm.clock.sleep(60)
        await pool.predict(SAMPLES)
        assert farm.asked()[2] >= 5
    assert farm.asked("end_inference") == [1, 1, 1]
    assert farm.statuses() == [2, 2, 2]


async def test_with_no_engine_that_can_load_the_errors_are_raised_and_none_is_loaded(farm):
    farm.transports[0].faults.append(faults.refused("start_inference", times=EVER))
    for transport in farm.transports[1:]:
        transport.faults.append(faults.status(503, path="start_inference", times=EVER))
    with pytest.raises(NotSent) as raised:
        async with farm.pool():
            raise AssertionError("it cannot have been opened")
    assert len(raised.value.__notes__) == 2
    assert "503" in raised.value.__notes__[0]
    for transport in farm.transports:
        transport.faults.clear()
    async with farm.pool() as pool:
        assert len(await pool.predict(SAMPLES)) == 600


async def test_a_mistake_of_the_caller_on_entry_is_raised_and_none_is_left_loaded(farm):
    sessions = [task.serve() for task in farm.tasks]
    async with sessions[2]:
        with pytest.raises(MisuseError, match="open already"):
            async with InferencePool(sessions):
                raise AssertionError("it cannot have been opened")
        assert farm.statuses() == [2, 2, 5]
        assert await sessions[2].predict(SAMPLES[:1])


async def test_an_engine_whose_slot_was_taken_is_asked_no_more_and_the_others_go_on(farm):
    async with farm.pool() as pool:
        seen = []
        async with pool.stream(SAMPLES) as outcomes:
            async for outcome in outcomes:
                seen.append(outcome)
                if len(seen) == 100:
                    await farm.tasks[1]._engine.exchange.send(calls.end_inference("t"))
        assert [outcome.item for outcome in seen] == SAMPLES
        assert all(outcome.is_ok for outcome in seen)
        before = farm.asked()[1]
        await farm.clock.sleep(600)
        await pool.predict(SAMPLES)
        assert farm.asked()[1] == before


async def test_when_all_slots_were_taken_that_is_raised_at_once(farm):
    async with farm.pool() as pool:
        for task in farm.tasks:
            await task._engine.exchange.send(calls.end_inference("t"))
        began = farm.clock.now()
        with pytest.raises(LeaseLost):
            await pool.predict(SAMPLES)
        assert farm.clock.now() - began < 3
        with pytest.raises(LeaseLost):
            await pool.predict_one(SAMPLES[0])


async def test_a_sample_that_every_engine_refuses_fails_alone(farm):
    samples = [*SAMPLES[:25], {"content": "poison"}, *SAMPLES[25:50]]
    for server in farm.servers:
        server.poison = b"poison"
    async with farm.pool() as pool:
        await pool.predict(SAMPLES)
        async with pool.stream(samples) as outcomes:
            found = [outcome async for outcome in outcomes]
        assert [outcome.item for outcome in found] == samples
        assert [outcome.item["content"] for outcome in found if not outcome.is_ok] == ["poison"]
        assert isinstance(found[25].error, ServerFailed)
        assert "3 ready" in repr(pool)


@pytest.mark.parametrize("poison", [b"sentences", b'"content":"7"'])
async def test_what_one_engine_stumbles_over_is_answered_by_another(farm, poison):
    """It answers nothing at all any more, or not this sample."""
    async with farm.pool() as pool:
        right = await pool.predict(SAMPLES[:50])
        farm.servers[0].poison = poison
        for _ in range(5):
            assert await pool.predict(SAMPLES[:50]) == right
        assert "2 ready" in repr(pool)


async def test_an_answer_that_cannot_be_is_asked_for_at_another_engine(farm):
    async with farm.pool() as pool:
        right = await pool.predict(SAMPLES[:50])
        farm.servers[0].nonsense = b'"content":"7"'
        for _ in range(5):
            assert await pool.predict(SAMPLES[:50]) == right
        assert "2 ready" in repr(pool)


async def test_a_sample_that_no_engine_gives_an_answer_for_sets_none_aside(farm):
    for server in farm.servers:
        server.nonsense = b'"content":"7"'
    async with farm.pool() as pool:
        async with pool.stream(SAMPLES) as outcomes:
            found = [outcome async for outcome in outcomes]
        assert [outcome.item["content"] for outcome in found if not outcome.is_ok] == ["7"]
        assert "3 ready" in repr(pool)


async def test_the_time_of_a_request_counts_whoever_is_asked(farm):
    async with farm.pool() as pool:
        await pool.predict(SAMPLES)
        for transport in farm.transports:
            transport.seconds = lambda number: 100.0
        began = farm.clock.now()
        with pytest.raises(TimedOut, match=r"within 0\.8 s"):
            await pool.predict(SAMPLES[:5], timeout=0.8)
        assert farm.clock.now() - began == pytest.approx(0.8)
        assert "3 ready" in repr(pool)
        with pytest.raises(InvalidArgument, match="timeout"):
            await pool.predict(SAMPLES[:5], timeout=0)


@pytest.mark.parametrize("hedge", [True, False])
async def test_late_requests_are_hedged_if_asked_for(farm, hedge):
    async with farm.pool(hedge=hedge) as pool:
        for transport in farm.transports:
            transport.seconds = lambda number: 0.9 if number % 17 == 0 else 0.1
        right = await pool.predict(SAMPLES[:1])
        for _ in range(300):
            assert await pool.predict(SAMPLES[:1]) == right
        assert (5 <= pool.stats.hedges <= 15) is hedge
        assert pool.stats.hedges == 0 or hedge


async def test_samples_that_cannot_be_asked_are_told_before_anything_is_sent(farm):
    async with farm.pool() as pool:
        before = farm.asked()
        with pytest.raises(InvalidData):
            await pool.predict([*SAMPLES[:5], {"text": "no content"}])
        assert farm.asked() == before


async def test_calls_made_at_once_travel_together_to_all_engines(farm):
    async with farm.pool() as pool:
        right = await pool.predict(SAMPLES)
        before = sum(farm.asked())
        assert await asyncio.gather(*map(pool.predict_one, SAMPLES)) == right
        assert 60 <= sum(farm.asked()) - before <= 80


async def test_the_statistics_are_those_of_all_sessions(farm):
    async with farm.pool() as pool:
        farm.transports[0].faults.append(faults.refused("predict", times=2))
        await pool.predict(SAMPLES[:100])
        stats = pool.stats
        assert (stats.samples, stats.batches) == (100, 12)
        assert stats.samples == sum(session.stats.samples for session in pool.sessions)
        assert stats.retries == 2
    assert pool.stats.samples == 100
    assert pool.stats.retries == 2


async def test_one_predict_per_load_is_respected_and_never_hedged(gts_clock, tmp_path):
    farm = Farm(gts_clock, tmp_path)
    for _ in range(2):
        await farm.add(engine_type="bagualu")
    async with farm.pool(hedge=True) as pool:
        assert pool.max_at_once == 2
        for transport in farm.transports:
            transport.seconds = lambda number: 0.9 if number % 17 == 0 else 0.1
        right = await pool.predict(SAMPLES[:1]) * 600
        async with pool.stream(SAMPLES[:1] * 600, max_at_once=8) as outcomes:
            found = []
            async for outcome in outcomes:
                found.append(outcome.value)
                assert max(member.allowance.in_flight for member in pool._races.crew.members) <= 1
        assert found == right
        asked = sum(farm.asked())
        for _ in range(50):
            assert await pool.predict(SAMPLES[:1]) == right[:1]
        assert pool.stats.hedges == 0
        assert sum(farm.asked()) == asked + 50
        assert pool.stats.reloads >= 50
    assert min(farm.asked()) >= 10
    assert max(transport.most for transport in farm.transports) == 1


async def test_engines_of_different_pipelines_are_refused_before_anything_is_sent(farm):
    counts = [len(transport.seen) for transport in farm.transports]
    task = farm.tasks[0]
    for other in (attrs.evolve(task, task_type="nli"), attrs.evolve(task, engine_type="bagualu")):
        with pytest.raises(InvalidArgument, match="more than one"):
            InferencePool([farm.tasks[1].serve(), other.serve()])
    assert [len(transport.seen) for transport in farm.transports] == counts


async def test_a_task_that_is_known_by_its_id_goes_along(farm):
    unknown = attrs.evolve(farm.tasks[0], task_type=None, engine_type=None)
    async with InferencePool([unknown.serve(), farm.tasks[1].serve()]) as pool:
        right = await pool.sessions[1].predict(SAMPLES)
        assert await pool.predict(SAMPLES) == right


async def test_copies_of_one_model_have_one_fingerprint_whoever_is_there(farm):
    async with farm.pool() as pool:
        whole = await pool._fingerprint()
        assert whole == await pool.sessions[1]._fingerprint()
    farm.transports[0].faults.append(faults.refused("start_inference", times=EVER))
    async with farm.pool() as pool:
        assert await pool._fingerprint() == whole


async def test_engines_with_models_of_their_own_have_the_fingerprint_of_the_set(farm):
    await farm.add(name="other")
    async with farm.pool() as pool:
        signs = {await session._fingerprint() for session in pool.sessions}
        assert await pool._fingerprint() == "; ".join(sorted(signs))
        assert len(signs) == 2


async def test_an_engine_that_joins_later_with_a_model_no_checkpoint_knows_is_not_asked(farm, tmp_path):
    await farm.add(name="other")
    farm.transports[3].faults.append(faults.refused("start_inference", times=8))
    async with farm.pool() as pool:
        async with pool.stream(SAMPLES, checkpoint=tmp_path / "c.db") as outcomes:
            assert len([outcome async for outcome in outcomes]) == 600
        await farm.clock.sleep(60)
        await pool.predict(SAMPLES)
        # It is asked for its fingerprint only, after what its model is known by.
        assert farm.asked()[3] == 2
    assert farm.statuses() == [2, 2, 2, 2]


async def test_a_checkpoint_goes_on_with_other_copies_of_the_model(farm, tmp_path):
    async with farm.pool() as pool, pool.stream(SAMPLES, checkpoint=tmp_path / "c.db") as outcomes:
        first = [outcome.value async for outcome in outcomes]
    farm.transports[1].faults.append(faults.refused("start_inference", times=EVER))
    async with farm.pool() as pool, pool.stream(SAMPLES, checkpoint=tmp_path / "c.db") as outcomes:
        found = [outcome async for outcome in outcomes]
    assert [outcome.value for outcome in found] == first
    assert {outcome.tries for outcome in found} == {0}


async def test_an_engine_that_cannot_tell_its_fingerprint_is_set_aside(farm):
    async with farm.pool() as pool:
        farm.transports[0].faults.append(faults.refused("predict", times=2))
        assert await pool._fingerprint() == await pool.sessions[1]._fingerprint()
        assert "2 ready" in repr(pool)


@pytest.mark.parametrize("turns", [*range(8), 12, 20, 35, 60, 90])
async def test_cancelled_at_any_moment_it_releases_everything(gts_clock, tmp_path, cancelled_after, turns):
    farm = Farm(gts_clock, tmp_path)
    for _ in range(2):
        await farm.add()
    farm.transports[1].faults.append(faults.refused("predict", times=2))
    before = asyncio.all_tasks()

    async def work():
        async with farm.pool() as pool:
            await pool.predict(SAMPLES[:100])

    await cancelled_after(turns, work)
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert farm.statuses() == [2, 2]
    async with farm.pool() as pool:
        assert len(await pool.predict(SAMPLES[:20])) == 20


@pytest.mark.parametrize("turns", [0, 3, 8, 20, 45])
async def test_one_call_that_is_cancelled_does_not_harm_the_others(farm, cancelled_after, turns):
    async with farm.pool(hedge=True) as pool:
        right = await pool.predict(SAMPLES[:200])
        others = asyncio.create_task(pool.predict(SAMPLES[:200]))
        await cancelled_after(turns, lambda: pool.predict(SAMPLES))
        assert await others == right
        assert await pool.predict(SAMPLES[:200]) == right
        for _ in range(3):
            await asyncio.sleep(0)
        assert {member.allowance.in_flight for member in pool._races.crew.members} == {0}


async def test_leaving_tells_those_who_still_wait(farm):
    async with farm.pool() as pool:
        waiting = [asyncio.create_task(pool.predict(SAMPLES)) for _ in range(3)]
        for _ in range(20):
            await asyncio.sleep(0)
    for told in waiting:
        with pytest.raises(MisuseError):
            await told
    assert farm.statuses() == [2, 2, 2]


async def test_it_may_be_entered_again_but_not_twice(farm):
    pool = farm.pool()
    for _ in range(2):
        async with pool:
            assert len(await pool.predict(SAMPLES[:20])) == 20
            with pytest.raises(MisuseError, match="open already"):
                await pool.__aenter__()
        assert "closed" in repr(pool)


async def test_misuse_is_refused(farm):
    with pytest.raises(InvalidArgument, match="sessions"):
        InferencePool([])
    with pytest.raises(WrongType, match="sessions"):
        InferencePool(farm.tasks)
    with pytest.raises(InvalidArgument, match="two on one engine"):
        async with InferencePool([farm.tasks[0].serve(), farm.tasks[0].serve()]):
            pass
    with pytest.raises(MisuseError, match="async with"):
        await farm.pool().predict([{"content": "x"}])


async def test_two_names_of_one_engine_are_one_engine():
    async with (
        AsyncSession(engine="http://localhost:5201") as one,
        AsyncSession(engine="http://127.0.0.1:5201") as other,
    ):
        with pytest.raises(InvalidArgument, match="two on one engine"):
            async with InferencePool([one.task("t").serve(), other.task("t").serve()]):
                pass


async def test_a_deleted_task_sets_its_engine_aside(farm):
    farm.servers[0].is_deleted = True
    async with farm.pool() as pool:
        assert "2 ready" in repr(pool)
        assert len(await pool.predict(SAMPLES)) == 600
    for server in farm.servers:
        server.is_deleted = True
    with pytest.raises(NotFound):
        async with farm.pool():
            raise AssertionError("it cannot have been opened")
