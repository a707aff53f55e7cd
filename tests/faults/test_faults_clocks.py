"""Clocks that jump: the time of day ahead and back, and the monotonic one by an hour while the machine slept."""

import asyncio
import itertools
import random
from datetime import timedelta

import httpx
import pytest

from gts_async import AsyncSession, DeadlineExceeded, JobStatus, TimedOut, Timeouts
from gts_async.testing import FakeClock

CLOUD = "https://cloud.test/api"
HOUR = 3600.0


def cloud(clock, answer, **options):
    """Give a session on a clock of our own, whose requests `answer` answers."""
    options = {"token": "t", "chance": lambda: 0.5, **options}
    return AsyncSession(cloud=CLOUD, transport=httpx.MockTransport(answer), clock=clock, **options)


class Wandering(FakeClock):
    """A clock whose time of day jumps an hour ahead or back whenever it is asked."""

    def __init__(self):
        super().__init__()
        self.jumps = itertools.cycle([timedelta(hours=1), timedelta(), timedelta(hours=-1)])

    def wall(self):
        return super().wall() + next(self.jumps)


async def watched(clock, *, deadline=None):
    """Wait for a job through trouble of all kinds; give when each request was sent, and what came of it."""
    sent = []
    trouble = {3: 503, 4: 500, 9: 429, 12: 502, 13: 502, 14: 502}

    async def answer(request):
        sent.append(round(clock.now(), 6))
        number = len(sent)
        if number == 20:
            await asyncio.Event().wait()
        status = "success" if number > 30 else "working"
        document = {"status": status, "url": "https://store.test/m.zip" if number > 33 else None}
        return httpx.Response(trouble.get(number, 200), json=document, headers={"retry-after": "2"})

    chance = random.Random(5).random
    async with cloud(clock, answer, chance=chance, timeouts=Timeouts(total=20)) as session:
        try:
            ended = (await session.job("j-1").wait(deadline=deadline)).status
        except DeadlineExceeded:
            ended = DeadlineExceeded
    return sent, ended, round(clock.now(), 6)


DEADLINES = {"C6 to its end": (None, JobStatus.SUCCEEDED), "C6 to its deadline": (100.0, DeadlineExceeded)}


@pytest.mark.parametrize(("deadline", "end"), DEADLINES.values(), ids=DEADLINES)
async def test_a_jump_of_the_time_of_day_changes_no_wait(deadline, end):
    steady = await watched(FakeClock(), deadline=deadline)
    assert steady[1] is end
    assert deadline is None or steady[2] == deadline
    assert await watched(Wandering(), deadline=deadline) == steady


async def turns(count=200):
    """Let everything happen that needs no time."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("many", [1, 9], ids=["C7 one watch", "C7 nine watches"])
async def test_after_an_hour_of_sleep_each_job_is_looked_at_once_and_no_missed_look_is_made_up_for(many):
    clock = FakeClock(autojump=False)
    sent = []

    async def answer(request):
        sent.append(clock.now())
        return httpx.Response(200, json={"status": "working"})

    async with cloud(clock, answer) as session:
        waits = [asyncio.create_task(session.job(f"j-{n}").wait()) for n in range(many)]
        # One after the other, 50 in a second.
        for _ in range(many):
            await turns()
            clock.advance(0.02)
        assert len(sent) == many
        clock.advance(HOUR)
        for _ in range(many):
            await turns()
            clock.advance(0.02)
        assert len(sent) == 2 * many
        assert all(HOUR <= when < HOUR + 0.05 * many for when in sent[many:])
        # An hour in one status: the next look is due in a minute.
        clock.advance(50)
        await turns()
        assert len(sent) == 2 * many
        clock.advance(15)
        for _ in range(many):
            await turns()
            clock.advance(0.02)
        assert len(sent) == 3 * many
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def test_a_job_that_ended_while_the_machine_slept_is_found_so():
    clock = FakeClock(autojump=False)
    documents = iter([{"status": "working"}, {"status": "success", "url": "https://store.test/m.zip"}])

    async def answer(request):
        return httpx.Response(200, json=next(documents))

    async with cloud(clock, answer) as session:
        wait = asyncio.create_task(session.job("j-1").wait(deadline=2 * HOUR))
        await turns()
        clock.advance(HOUR)
        await turns()
        assert (await wait).status is JobStatus.SUCCEEDED
        assert clock.now() == HOUR


async def test_a_call_in_flight_over_an_hour_of_sleep_ends_as_timed_out_and_is_not_sent_again_and_again():
    clock = FakeClock(autojump=False)
    sent = []

    async def answer(request):
        sent.append(clock.now())
        await asyncio.Event().wait()

    async with cloud(clock, answer) as session:
        look = asyncio.create_task(session.job("j-1").status())
        await turns()
        clock.advance(HOUR)
        with pytest.raises(TimedOut):
            await look
        assert sent == [0.0]


async def test_a_deadline_that_passed_while_the_machine_slept_ends_the_wait_and_the_next_wait_looks_at_once():
    clock = FakeClock(autojump=False)
    documents = [{"status": "working"}, {"status": "success", "url": "https://store.test/m.zip"}]

    async def answer(request):
        return httpx.Response(200, json=documents.pop(0))

    async with cloud(clock, answer) as session:
        job = session.job("j-1")
        wait = asyncio.create_task(job.wait(deadline=HOUR / 2))
        await turns()
        clock.advance(HOUR)
        with pytest.raises(DeadlineExceeded) as caught:
            await wait
        assert caught.value.last_look.status is JobStatus.WORKING
        assert (await job.wait()).status is JobStatus.SUCCEEDED
        assert clock.now() == HOUR
