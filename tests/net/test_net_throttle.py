"""After "too many requests": one pause for all, half as many at once, one more for each round of answers."""

import asyncio

import httpx
import pytest

from gts_async import Limits, RateLimited, RetryPolicy
from gts_async._net.config import BaseURL
from gts_async._net.exchange import Exchange
from gts_async._net.sending import Line
from gts_async._net.throttle import FORGOTTEN_AFTER, Throttle
from gts_async.testing import FakeClock
from gts_async.wire import Call, Request, decode


def read(answer):
    if answer.status == 429:
        raise RateLimited(call="look", code=429, message=answer.text)
    return decode(answer.body, dict[str, int], call="look")


LOOK = Call("look", Request("POST", "/look"), read, is_repeatable=True)


class Service:
    """Takes a second for each answer; refuses as long as it has `refusals` left. Knows who was there when."""

    def __init__(self, clock, *refusals):
        self.clock = clock
        self.refusals = list(refusals)
        self.arrived = []
        self.at_once = self.most = 0

    async def __call__(self, request):
        self.arrived.append(self.clock.now())
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        is_refused = bool(self.refusals)
        headers = self.refusals.pop(0) if is_refused else {}
        try:
            await self.clock.sleep(1)
        finally:
            self.at_once -= 1
        return httpx.Response(429, headers=headers) if is_refused else httpx.Response(200, json={"x": 1})


def exchange(service, clock, **options):
    client = httpx.AsyncClient(transport=httpx.MockTransport(service), trust_env=False)

    async def connect():
        return Line(client, BaseURL.parse("http://service.test", "engine"))

    return Exchange(connect, clock=clock, chance=lambda: 0.5, **options)


async def test_nobody_is_sent_during_the_pause_that_one_was_asked_for():
    clock = FakeClock()
    service = Service(clock, {"retry-after": "7"})
    sender = exchange(service, clock)
    first = asyncio.create_task(sender.send(LOOK))
    await clock.sleep(1.5)
    assert await asyncio.gather(first, *(sender.send(LOOK) for _ in range(5))) == [{"x": 1}] * 6
    assert service.arrived[0] == 0
    assert min(service.arrived[1:]) == 8


async def test_half_as_many_at_once_go_on_and_one_more_for_each_round():
    clock = FakeClock()
    service = Service(clock, {"retry-after": "2"})
    sender = exchange(service, clock)
    await asyncio.gather(*(sender.send(LOOK) for _ in range(16)))
    widths = [service.most]
    for _ in range(3):
        service.most = 0
        await asyncio.gather(*(sender.send(LOOK, timeout=600) for _ in range(20)))
        widths.append(service.most)
    # Half of 16, and one more for each round: of about as many answers as are under way at once.
    assert widths == [16, 9, 10, 12]


async def test_many_refusals_of_one_moment_halve_once():
    clock = FakeClock()
    service = Service(clock, *[{"retry-after": "2"}] * 16)
    sender = exchange(service, clock)
    tasks = [asyncio.create_task(sender.send(LOOK, timeout=None)) for _ in range(16)]
    await clock.sleep(3.5)
    assert service.at_once == 8
    await asyncio.gather(*tasks)


async def test_what_waits_for_a_connection_is_held_by_a_pause_too():
    clock = FakeClock()
    service = Service(clock, *[{"retry-after": "7"}] * 2)
    sender = exchange(service, clock, limits=Limits(max_connections=2))
    assert await asyncio.gather(*(sender.send(LOOK, timeout=600) for _ in range(20))) == [{"x": 1}] * 20
    assert service.arrived[:2] == [0, 0]
    assert min(service.arrived[2:]) == 8
    assert service.most == 2


async def test_whoever_was_let_in_as_the_pause_began_goes_back_to_his_place():
    clock, order = FakeClock(), []
    throttle = Throttle(clock, widest=3)
    for _ in range(3):
        await throttle.enter()

    async def through(number):
        await throttle.enter()
        order.append((number, clock.now()))
        throttle.leave()

    tasks = [asyncio.create_task(through(number)) for number in range(6)]
    await asyncio.sleep(0)
    for _ in range(3):
        throttle.leave()
    # Those who left let three others in with the next turn; they have not gone through when this is told.
    asyncio.get_running_loop().call_soon(throttle.refused, 0.0, 5.0)
    await asyncio.gather(*tasks)
    assert order == [(number, 5.0) for number in range(6)]
    assert throttle.active == 0


async def test_a_queue_dissolves_at_once_when_there_is_room():
    clock = FakeClock()
    throttle = Throttle(clock, widest=50)
    throttle.refused(0.0, 1.0)
    throttle.width = None
    tasks = [asyncio.create_task(throttle.enter()) for _ in range(50)]
    await clock.sleep(1.0)
    for _ in range(3):
        await asyncio.sleep(0)
    assert throttle.active == 50
    await asyncio.gather(*tasks)


async def test_it_comes_down_to_one_and_not_to_none():
    clock = FakeClock()
    service = Service(clock, *[{}] * 6)
    sender = exchange(service, clock, retry=RetryPolicy(max_attempts=10))
    assert await sender.send(LOOK, timeout=600) == {"x": 1}
    assert sender._throttle.width in (None, 2)


async def test_whoever_cannot_wait_for_the_end_of_the_pause_is_told_at_once():
    clock = FakeClock()
    service = Service(clock, {"retry-after": "30"})
    sender = exchange(service, clock)
    first = asyncio.create_task(sender.send(LOOK))
    await clock.sleep(2)
    with pytest.raises(RateLimited, match="wait") as caught:
        await sender.send(LOOK, timeout=10)
    assert clock.now() == 2
    assert caught.value.retry_after == 29
    assert len(service.arrived) == 1
    assert await first == {"x": 1}


async def test_a_server_that_asks_for_a_day_does_not_stop_the_session_for_it():
    clock = FakeClock()
    service = Service(clock, {"retry-after": "86400"})
    sender = exchange(service, clock)
    with pytest.raises(RateLimited) as caught:
        await sender.send(LOOK)
    assert caught.value.retry_after == 86400
    assert await sender.send(LOOK) == {"x": 1}
    assert service.arrived == [0, 9]


async def test_a_refused_call_that_is_not_sent_again_makes_the_others_pause_too():
    clock = FakeClock()
    service = Service(clock, {})
    sender = exchange(service, clock)
    with pytest.raises(RateLimited):
        await sender.send(LOOK, max_attempts=1)
    await sender.send(LOOK)
    assert service.arrived == [0, 1 + RetryPolicy().initial]


async def test_after_a_quiet_minute_nothing_is_held_back():
    clock = FakeClock()
    throttle = Throttle(clock, widest=100)
    throttle.refused(0.0, 1.0)
    assert throttle.width == 1
    await clock.sleep(FORGOTTEN_AFTER + 1)
    throttle.answered(clock.now())
    assert throttle.width is None


async def test_cancelling_whoever_waits_at_any_turn_loses_no_room(cancelled_after):
    clock = FakeClock()
    for turns in range(30):
        throttle = Throttle(clock, widest=4)
        throttle.refused(clock.now(), 0.0)
        await throttle.enter()

        async def through(throttle=throttle):
            await throttle.enter()
            throttle.leave()

        others = [asyncio.create_task(through()) for _ in range(3)]
        cancelled = asyncio.create_task(cancelled_after(turns, through))
        for _ in range(turns // 2):
            await asyncio.sleep(0)
        throttle.leave()
        await asyncio.gather(*others, cancelled)
        assert (throttle.active, len(throttle._queue)) == (0, 0)
        await through()


async def test_turns_are_given_in_order():
    clock, order = FakeClock(), []
    throttle = Throttle(clock, widest=2)
    throttle.refused(0.0, 5.0)

    async def through(number):
        await throttle.enter()
        order.append(number)
        await asyncio.sleep(0)
        throttle.leave()

    tasks = []
    for number in range(20):
        tasks.append(asyncio.create_task(through(number)))
        await clock.sleep(0.3)
    await asyncio.gather(*tasks)
    assert order == list(range(20))


class Passing:
    """A clock on which a quarter of a second passes at each look, as on a machine that is busy."""

    def __init__(self):
        self.at = 0.0

    def now(self):
        self.at += 0.25
        return self.at

    async def sleep(self, seconds):
        await asyncio.sleep(0)
        self.at += seconds


PAUSES = [number * 0.25 + 0.1 for number in range(24)]


@pytest.mark.parametrize("pause", PAUSES)
async def test_a_pause_that_ends_between_two_looks_at_the_clock_holds_nobody_for_good(pause):
    throttle = Throttle(Passing(), widest=2)
    throttle.refused(0.0, pause)

    async def through():
        await throttle.enter()
        await asyncio.sleep(0)
        throttle.leave()

    async with asyncio.timeout(10):
        await asyncio.gather(*(through() for _ in range(5)))
    assert (throttle.active, len(throttle._queue)) == (0, 0)


@pytest.mark.parametrize("pause", PAUSES)
async def test_whoever_sees_the_pause_out_may_be_cancelled_as_it_ends(pause):
    throttle = Throttle(Passing(), widest=1)
    throttle.refused(0.0, pause)
    first, second = (asyncio.create_task(throttle.enter()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    (cancelled,) = await asyncio.gather(first, return_exceptions=True)
    if cancelled is None:
        throttle.leave()
    async with asyncio.timeout(10):
        await second
    assert (throttle.active, len(throttle._queue)) == (1, 0)


async def test_time_in_the_queue_is_told():
    clock, events = FakeClock(), []
    service = Service(clock)
    sender = exchange(service, clock, on_event=events.append, in_flight=asyncio.Semaphore(1), limits=Limits())
    await asyncio.gather(*(sender.send(LOOK) for _ in range(4)))
    assert [(event.queued, event.elapsed) for event in events] == [(0, 1), (1, 2), (2, 3), (3, 4)]
