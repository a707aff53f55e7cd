"""What becomes of samples when engines of a pool die, hang, are slow or come back: over real sockets.

Time runs `RATE` times as fast for the sessions, so that pauses and patience are short.
"""

import asyncio
import contextlib
import json

import pytest

from gts_async import AsyncSession, InferencePool, NotSent, TransportError
from gts_async.emulator.engine import Engine
from gts_async.emulator.scripted import MemoryFiles, Script, ScriptedTrainer
from gts_async.local.asgi import EmulatorApp, Worker
from gts_async.local.serving import listening, serve
from gts_async.local.stack import EmbeddedEngine
from tests.steady_loop import LoopClock

RATE = 10.0
FILES = {"train_data": "d.json", "val_data": "d.json", "test_data": "d.json", "label_data": "l.json"}
SAMPLES = [{"content": f"sample {number}"} for number in range(1500)]


class Relay:
    """Passes connections on to `port`, until it is killed: then connections break and new ones are refused.

    Not on asyncio's own server, which leaks connections that it accepts while it is being closed.
    """

    def __init__(self, port):
        self._to = port
        self._port = 0
        self._passing = set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._port}"

    def start(self):
        self._listener = listening(port=self._port)
        self._port = self._listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def kill(self):
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    def _accept(self):
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        task = asyncio.create_task(self._pass(connection))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)
        # Also one that was cancelled before it began.
        task.add_done_callback(lambda _: connection.close())

    async def _pass(self, connection):
        writers = []
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
            writers.append(writer)
            upstream, other = await asyncio.open_connection("127.0.0.1", self._to)
            writers.append(other)
            await asyncio.gather(_copy(reader, other), _copy(upstream, writer))
        finally:
            for each in writers:
                each.transport.abort()


async def _copy(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()


class Node:
    """An engine on loopback, which does one predict at a time in `seconds`, behind a relay."""

    def __init__(self):
        self.trainer = ScriptedTrainer(MemoryFiles(), default=Script(startup=0, training=0))
        self.engine = Engine(self.trainer.files, self.trainer)
        self.seconds = 0.002
        self.hangs = False
        self.asked = self.gone = 0
        self._device = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def running(self):
        worker = Worker("engine")
        self.app = EmulatorApp(self.engine.answer, worker, max_body=1 << 24, closes_after_500=True)
        try:
            async with serve(self._serve) as served:
                self.relay = Relay(int(served.url.rpartition(":")[2]))
                self.relay.start()
                try:
                    yield self
                finally:
                    await self.relay.kill()
        finally:
            worker.close()

    @property
    def url(self):
        return self.relay.url

    @property
    def rows(self):
        """How many rows its model has answered."""
        return sum(len(predicted.rows) for predicted in self.trainer.predicted)

    async def restart(self):
        """Start again after a kill, with nothing loaded."""
        self.engine.restart()
        self.hangs = False
        self.relay.start()

    async def _serve(self, scope, receive, send):
        if not scope["path"].endswith("/predict"):
            return await self.app(scope, receive, send)
        self.asked += 1
        kept = []

        async def received():
            kept.append(await receive())
            return kept[-1]

        async with self._device:
            seconds = self.seconds(self.asked) if callable(self.seconds) else self.seconds
            await asyncio.sleep(seconds)
        if self.hangs:
            while (await received())["type"] != "http.disconnect":
                pass
            self.gone += 1
            return None
        return await self.app(scope, receive, send)


@pytest.fixture
async def nodes(tmp_path):
    """Give three engines with the same trained task, and a function that makes sessions of it."""
    (tmp_path / "d.json").write_text(
        "\n".join(json.dumps({"id": i, "content": f"text {i}", "label": "ab"[i % 2]}) for i in range(40))
    )
    (tmp_path / "l.json").write_text(json.dumps({"labels": ["a", "b"]}))
    async with contextlib.AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(Node().running()) for _ in range(3)]
        for node in nodes:
            session = await stack.enter_async_context(AsyncSession(engine=node.url, clock=LoopClock(RATE)))
            node.task = await trained(session, tmp_path)
        yield nodes


async def trained(session, folder):
    task = await session.create_task("t", task_type="classification", engine_type="qiankunding")
    await task.upload(folder / "d.json", folder / "l.json")
    await (await task.train(**FILES))
    return task


def pool_of(nodes, **options):
    return InferencePool([node.task.serve(max_batch=10) for node in nodes], **options)


async def right_answers(node, samples=SAMPLES):
    async with node.task.serve(max_batch=500) as inference:
        return await inference.predict(samples)


async def streamed(pool, *, at=None, do=None, ordered=True, samples=SAMPLES):
    """Stream all samples and give their outcomes; await `do()` once there are `at` of them."""
    found = []
    async with pool.stream(samples, ordered=ordered) as outcomes:
        async for outcome in outcomes:
            found.append(outcome)
            if len(found) == at:
                await do()
    return found


def check(found, right, *, ordered=True):
    """Each sample has exactly one outcome, and that is the right one."""
    if not ordered:
        found = sorted(found, key=lambda outcome: SAMPLES.index(outcome.item))
    assert [outcome.item for outcome in found] == SAMPLES
    assert [outcome.error for outcome in found if not outcome.is_ok] == []
    assert [outcome.value for outcome in found] == right


@pytest.mark.parametrize("ordered", [True, False])
async def test_an_engine_that_is_killed_in_a_stream_loses_no_sample(nodes, ordered):
    right = await right_answers(nodes[0])
    async with pool_of(nodes) as pool:
        found = await streamed(pool, at=200, do=nodes[1].relay.kill, ordered=ordered)
        check(found, right, ordered=ordered)
        assert pool.stats.retries >= 1
        assert "2 ready" in repr(pool)


async def test_an_engine_that_is_restarted_is_loaded_again_and_asked_again(nodes):
    right = await right_answers(nodes[0])
    async with pool_of(nodes) as pool:

        async def restart():
            await nodes[1].relay.kill()
            await nodes[1].restart()

        check(await streamed(pool, at=200, do=restart), right)
        while "3 ready" not in repr(pool):
            await asyncio.sleep(0.01)
        before = nodes[1].rows
        check(await streamed(pool), right)
        assert pool.sessions[1].stats.reloads >= 1
        assert nodes[1].rows - before > 100


async def test_an_engine_that_is_down_for_a_while_is_asked_again_when_it_is_back(nodes):
    async with pool_of(nodes) as pool:
        await nodes[1].relay.kill()
        await pool.predict(SAMPLES[:200])
        assert "2 ready" in repr(pool)
        await asyncio.sleep(7 / RATE)
        assert "2 ready" in repr(pool)
        await nodes[1].restart()
        while "3 ready" not in repr(pool):
            await asyncio.sleep(0.01)
        before = nodes[1].asked
        await pool.predict(SAMPLES)
        assert nodes[1].asked > before


async def test_a_slow_engine_gets_few_samples(nodes):
    right = await right_answers(nodes[0])
    # Far longer than the program takes for a request, however slow the machine; not so long that it counts as hanging.
    nodes[2].seconds = 0.09
    before = [node.rows for node in nodes]
    async with pool_of(nodes) as pool:
        check(await streamed(pool), right)
    shares = [node.rows - earlier for node, earlier in zip(nodes, before, strict=True)]
    assert shares[2] < min(shares[:2]) / 3


async def test_what_hangs_at_one_engine_is_called_off_there_and_sent_to_others(nodes):
    right = await right_answers(nodes[0])

    async def hang():
        nodes[2].hangs = True

    async with pool_of(nodes) as pool:
        found = await asyncio.wait_for(streamed(pool, at=300, do=hang), 60)
        check(found, right)
        assert nodes[2].gone >= 1
        nodes[2].hangs = False


async def test_an_engine_that_hangs_from_the_start_holds_nothing_up(nodes):
    right = await right_answers(nodes[0])
    nodes[0].hangs = True
    async with pool_of(nodes) as pool:
        check(await asyncio.wait_for(streamed(pool), 60), right)
        nodes[0].hangs = False


async def test_with_all_engines_dead_the_stream_ends_with_the_error_and_its_outcomes_are_right(nodes):
    right = await right_answers(nodes[0])
    found = []
    began = asyncio.get_running_loop().time()
    async with pool_of(nodes) as pool:
        with pytest.raises(TransportError):
            async with pool.stream(SAMPLES) as outcomes:
                async for outcome in outcomes:
                    found.append(outcome)
                    if len(found) == 200:
                        for node in nodes:
                            await node.relay.kill()
        places = [SAMPLES.index(outcome.item) for outcome in found]
        assert places == sorted(set(places))
        assert [outcome.unwrap() for outcome in found] == [right[place] for place in places]
        assert 200 <= len(found) < len(SAMPLES)
        with pytest.raises(TransportError):
            await pool.predict_one(SAMPLES[0])
        with pytest.raises(TransportError):
            await pool.predict(SAMPLES)
    # 20 s of patience at this rate are two; the rest is what releasing three dead engines takes.
    assert asyncio.get_running_loop().time() - began < 20


async def test_a_pool_whose_engines_were_all_down_for_a_moment_loses_nothing(nodes):
    right = await right_answers(nodes[0])

    async def blink():
        for node in nodes:
            await node.relay.kill()
        await asyncio.sleep(3 / RATE)
        for node in nodes:
            await node.restart()

    async with pool_of(nodes) as pool:
        check(await streamed(pool, at=200, do=blink), right)


async def test_one_after_the_other_may_be_killed_and_come_back(nodes):
    right = await right_answers(nodes[0])

    async def rolling():
        for node in nodes:
            await node.relay.kill()
            await asyncio.sleep(2 / RATE)
            await node.restart()
            while "3 ready" not in repr(pool):
                await asyncio.sleep(0.01)

    for node in nodes:
        node.seconds = 0.01
    async with pool_of(nodes) as pool:
        restarting = asyncio.create_task(rolling())
        while not restarting.done():
            check(await streamed(pool), right)
        await restarting
    assert min(session.stats.samples for session in pool.sessions) > 0


async def test_hedging_sends_at_most_five_percent_twice_as_the_servers_count_them(nodes):
    right = await right_answers(nodes[0], SAMPLES[:100])
    for node in nodes:
        node.seconds = lambda asked: 0.06 if asked % 12 == 0 else 0.002
    before = sum(node.asked for node in nodes)
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(AsyncSession(engine=node.url)) for node in nodes]
        tasks = [session.task("t", task_type="classification", engine_type="qiankunding") for session in sessions]
        async with InferencePool([task.serve() for task in tasks], hedge=True) as pool:
            for _ in range(2):
                for sample, answer in zip(SAMPLES[:100], right, strict=True):
                    assert await pool.predict_one(sample) == answer
            stats = pool.stats
    # A hedge may be called off before it reaches its server.
    asked = sum(node.asked for node in nodes) - before
    known = len(nodes) * 2
    assert 200 < asked <= 200 + stats.hedges + known
    assert stats.hedges <= 0.05 * 200


async def test_real_engines_one_of_them_killed_give_every_answer(tmp_path):
    rows = [{"id": i, "content": f"{('good', 'bad')[i % 2]} text {i}", "label": "ab"[i % 2]} for i in range(40)]
    (tmp_path / "d.json").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "l.json").write_text(json.dumps({"labels": ["a", "b"]}))
    async with contextlib.AsyncExitStack() as stack:
        relays, sessions = [], []
        for number in range(2):
            engine = await stack.enter_async_context(EmbeddedEngine(tmp_path / f"engine{number}"))
            relays.append(Relay(int(engine.url.rpartition(":")[2])))
            relays[-1].start()
            stack.push_async_callback(relays[-1].kill)
            sessions.append(await stack.enter_async_context(AsyncSession(engine=relays[-1].url)))
        tasks = await asyncio.gather(*(trained(session, tmp_path) for session in sessions))
        async with tasks[0].serve(max_batch=500) as inference:
            right = await inference.predict(SAMPLES)
        async with InferencePool([task.serve(max_batch=10) for task in tasks]) as pool:
            check(await streamed(pool, at=200, do=relays[1].kill), right)
            assert pool.stats.samples >= len(SAMPLES)


async def test_an_engine_that_is_down_on_entry_joins_when_it_is_back(nodes):
    await nodes[2].relay.kill()
    async with pool_of(nodes) as pool:
        assert "2 ready" in repr(pool)
        await pool.predict(SAMPLES[:100])
        await nodes[2].restart()
        while "3 ready" not in repr(pool):
            await asyncio.sleep(0.01)
        before = nodes[2].asked
        await pool.predict(SAMPLES)
        assert nodes[2].asked > before
    assert [node.engine.task_info("t")["status_code"] for node in nodes] == [2, 2, 2]


async def test_with_all_engines_down_entering_raises(nodes):
    for node in nodes:
        await node.relay.kill()
    with pytest.raises(NotSent) as raised:
        async with pool_of(nodes):
            raise AssertionError("it cannot have been opened")
    assert len(raised.value.__notes__) == 2
