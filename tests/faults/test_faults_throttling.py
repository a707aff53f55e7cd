"""Many calls at once, and a server that says no to one of them: who still sends, how much, and for how long."""

import asyncio
from collections import Counter

import attrs
import pytest

from gts_async import JobSpec, JobStatus, RateLimited, RetryPolicy, ServerFailed, Timeouts, Unauthorized
from gts_async.testing import chaos
from tests.steady_loop import LoopClock

WELL = {"status": "working", "job_id": "j-1"}
WORKERS = 20
HASTE = 20


def hasty(**options):
    """Give options for a clock twenty times as fast: a second that a server asks for passes in 50 ms."""
    timeouts = Timeouts(connect=600, read=600, total=600)
    return {"clock": LoopClock(HASTE), "timeouts": timeouts, "chance": lambda: 0.5, **options}


class Busy:
    """Has all workers here at once and refuses the first `refused` of them; later answers as many at once as may come.

    `arrived` holds, for each request after that first round, when it came, how many were here at once, and how many of
    them had been answered.
    """

    def __init__(self, floor, refused, retry_after, rounds):
        self.floor = floor
        self.refused = refused
        self.headers = [] if retry_after is None else [("Retry-After", retry_after)]
        self.left = WORKERS * (rounds - 1) + refused
        self.numbers = self.here = self.answered = 0
        self.refused_at = None
        self.all_here = asyncio.Event()
        self.go_on = asyncio.Event()
        self.arrived = []

    async def __call__(self, connection):
        number, self.numbers = self.numbers, self.numbers + 1
        if number < WORKERS:
            await self._first_round(connection, number)
            return
        self.here += 1
        self.arrived.append((asyncio.get_running_loop().time(), self.here, self.answered))
        if self.here == min(width_after(self.answered), self.left):
            # All that may come are here; one too many would be here soon.
            asyncio.get_running_loop().call_later(0.01, self._release)
        await self.go_on.wait()
        await chaos.answer(json=WELL)(connection)

    def _release(self):
        self.answered += self.here
        self.left -= self.here
        self.here = 0
        self.go_on.set()
        self.go_on = asyncio.Event()

    async def _first_round(self, connection, number):
        if number == WORKERS - 1:
            self.all_here.set()
        await self.all_here.wait()
        if number < self.refused:
            self.refused_at = self.refused_at or asyncio.get_running_loop().time()
            await chaos.answer(429, json={"message": "slowly"}, headers=self.headers)(connection)
            return
        # Only once the client knows; else its next calls would be on their way already.
        while sum(event.kind == "tried again" for event in self.floor.events) < self.refused:
            await asyncio.sleep(0.001)
        await chaos.answer(json=WELL)(connection)

    def check(self, pause):
        """Check that nothing came for `pause` seconds of the session's clock, and that no more came than may."""
        assert self.arrived[0][0] - self.refused_at >= pause / HASTE
        assert all(here <= width_after(answered) for _, here, answered in self.arrived), self.arrived
        assert self.left == 0


def width_after(answered):
    """Give how many may be on their way at once: half as many as before, and one more for each round of answers."""
    width = WORKERS / 2
    for _ in range(answered):
        width += 1 / width
    return min(WORKERS, int(width))


async def work(floor, call, todo):
    # Shared, so that no worker is left with more than one call to make.
    for _ in todo:
        await floor.send(call)


ROUNDS = 6
REFUSALS = {"D10 one refused": 1, "D10 half of them refused": 10, "D10 all refused": WORKERS}


@pytest.mark.parametrize("call", ["look", "create"])
@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS)
async def test_after_too_many_requests_all_pause_and_half_as_many_go_on(floor, server, call, refused):
    async with floor(server, **hasty()) as this:
        busy = Busy(this, refused, "4", ROUNDS)
        server.otherwise(busy)
        todo = iter(range(WORKERS * ROUNDS))
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(work(this, call, todo))
        assert len(server.requests) == WORKERS * ROUNDS + refused
        assert sum(event.kind == "tried again" for event in this.events) == refused
        busy.check(pause=4)


@pytest.mark.parametrize("call", ["look", "create"], ids=["D10 no Retry-After look", "D10 no Retry-After create"])
async def test_without_a_retry_after_the_pause_is_the_backoff(floor, server, call):
    retry = RetryPolicy(initial=8, maximum=8)
    async with floor(server, **hasty(retry=retry)) as this:
        busy = Busy(this, 1, None, rounds=2)
        server.otherwise(busy)
        todo = iter(range(WORKERS * 2))
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(work(this, call, todo))
        # Half of eight seconds.
        busy.check(pause=4)


async def test_one_service_that_refuses_holds_up_no_call_to_the_other(floor, server):
    async with floor(server, engine=server.url, **hasty()) as this:

        async def refuse_the_cloud(connection):
            if connection.request.path.startswith("/api/userJob"):
                await chaos.answer(429, json={"message": "slowly"}, headers=[("Retry-After", "10")])(connection)
            else:
                await chaos.answer(json={"ret_code": 1, "message": "On Training"})(connection)

        server.otherwise(refuse_the_cloud)
        look = asyncio.create_task(this.look())
        await server.until(lambda: this.events)
        began = asyncio.get_running_loop().time()
        await this.session.task("tnews").status()
        assert asyncio.get_running_loop().time() - began < 10 / HASTE / 2
        look.cancel()
        await asyncio.gather(look, return_exceptions=True)


async def test_a_pause_longer_than_the_calls_time_is_told_at_once(floor, server):
    async with floor(server, **hasty()) as this:
        server.on_request(chaos.answer(429, json={"message": "slowly"}, headers=[("Retry-After", "6")]))
        look = asyncio.create_task(this.look(timeout=50))
        await server.until(lambda: this.events)
        error = await this.fails(RateLimited, this.create(timeout=3), code=429)
        assert 3 < error.retry_after <= 6
        assert (await look).status is JobStatus.WORKING
        assert len(server.requests) == 2


async def test_a_retry_after_of_a_failing_server_is_kept_too(floor, server):
    async with floor(server, **hasty()) as this:
        server.on_request(chaos.answer(503, headers=[("Retry-After", "4")]))
        await this.look()
        assert [event.kind for event in this.events] == ["tried again", "answered"]
        assert this.events[1].elapsed >= 4


# A batch


def specs(count):
    base = JobSpec(gpu_type="NVIDIA-GeForce-RTX-3090", image_path="registry.test/image", run_command="run")
    return [attrs.evolve(base, run_command=f"run {number}") for number in range(count)]


async def submitted(floor, outcomes):
    """Take all outcomes; give those that came and the error at the end."""
    seen = []
    try:
        async with outcomes:
            async for outcome in outcomes:
                seen.append(outcome)
    except Unauthorized as error:
        floor.errors.append(error)
        return seen, error
    return seen, None


@pytest.mark.parametrize("at_once", [1, 16], ids=["D5 one at a time", "D5 sixteen at once"])
async def test_a_401_ends_a_batch_of_a_hundred_with_one_error_and_nothing_is_sent_again(floor, server, at_once):
    async with floor(server) as this:
        server.otherwise(chaos.answer(401, json={"message": "expired"}))
        seen, error = await submitted(this, this.session.submit_many(specs(100), max_at_once=at_once))
        assert (seen, type(error), error.code) == ([], Unauthorized, 401)
        assert len(server.requests) <= at_once
        assert Counter(event.kind for event in this.events) == {"gave up": len(server.requests)}
        sent = [request.body for request in server.requests]
        assert len(set(sent)) == len(sent)


@pytest.mark.parametrize("at", [1, 30, 100], ids=["D5 at the first", "D5 in the middle", "D5 at the last"])
async def test_a_single_401_ends_a_batch_though_the_server_would_take_the_rest(floor, server, at):
    async with floor(server) as this:
        server.otherwise(chaos.answer(json=WELL))
        for number in range(1, at + 1):
            server.on_request(chaos.answer(401 if number == at else 200, json=WELL))
        seen, error = await submitted(this, this.session.submit_many(specs(100), max_at_once=4))
        assert type(error) is Unauthorized
        # What was in flight is finished and told; nothing is begun any more.
        assert at - 1 <= len(seen) < at + 4
        assert len(server.requests) == len(seen) + 1
        assert all(outcome.is_ok for outcome in seen)


# Retry storms


@pytest.mark.parametrize("callers", [100], ids=["D11 a hundred callers"])
async def test_a_dead_server_sees_few_more_requests_than_it_was_offered_and_is_found_well_again_at_once(
    floor, server, callers
):
    async with floor(server) as this:
        server.otherwise(chaos.answer(503, body=b"busy"))
        looks = await asyncio.gather(*(this.look() for _ in range(callers)), return_exceptions=True)
        assert {type(look) for look in looks} == {ServerFailed}
        # The budget: 500 at 14 a try.
        assert callers < len(server.requests) <= callers + 500 // 14
        server.otherwise(chaos.answer(json=WELL))
        looks = await asyncio.gather(*(this.look() for _ in range(callers)))
        assert {look.status for look in looks} == {JobStatus.WORKING}
        # What was earned meanwhile pays for another try.
        server.on_request(chaos.answer(503, body=b"busy"))
        assert (await this.look()).status is JobStatus.WORKING
