"""What one request goes through at several servers: failures, hanging, hedging. All on the fake clock."""

import asyncio

import pytest

from gts_async import MisuseError, TimedOut
from gts_async._flow.crew import Crew, Member
from gts_async._flow.race import Culprit, Races


class Refused(Exception):
    """The request is to blame."""


class Odd(Exception):
    """Nobody knows who is to blame."""


class Full(Exception):
    """The server has too much to do."""


class Gone(Exception):
    """The server must not be asked any more."""


CULPRITS = {
    Refused: Culprit.REQUEST,
    Odd: Culprit.UNCLEAR,
    Gone: Culprit.MEMBER_FOR_GOOD,
    OSError: Culprit.MEMBER,
    Full: Culprit.OVERLOAD,
}


class Server:
    """Answers its own name after `seconds` (a function of the number of the request, or fixed), or fails."""

    def __init__(self, name, clock):
        self.name = name
        self.clock = clock
        self.seconds = 0.1
        self.error = None
        self.capacity = None
        self.until = None
        self.asked = self.cancelled = self.in_flight = 0

    async def answer(self):
        self.asked += 1
        self.in_flight += 1
        try:
            if self.capacity is not None and self.in_flight > self.capacity:
                raise Full
            seconds = self.seconds(self.asked) if callable(self.seconds) else self.seconds
            await self.clock.sleep(seconds if self.until is None else self.until - self.clock.now())
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        if self.error is not None:
            raise self.error
        return self.name


class Field:
    """Several servers and the races among them; `aside` are those that were set aside, with the error."""

    def __init__(self, clock, count, *, is_hedging=False):
        self.clock = clock
        self.servers = [Server("abcdef"[number], clock) for number in range(count)]
        self.aside = []
        self.crew = Crew([Member(server, number) for number, server in enumerate(self.servers)], clock)
        self.races = Races(
            self.crew,
            clock,
            judge=lambda error: CULPRITS[type(error)],
            on_aside=lambda member, error: self.aside.append((member.worker.name, error)),
            may_hedge=lambda: is_hedging,
        )

    def run(self, rows=1):
        return self.races.run(Server.answer, rows)

    async def warm_up(self, count=60):
        """Let all have answered often enough that what is usual is known."""
        for _ in range(count):
            await asyncio.gather(*(self.run() for _ in self.servers))

    def is_quiet(self):
        return all(member.allowance.in_flight == 0 for member in self.crew.members) and not self.races._flying


@pytest.fixture
def field(gts_clock):
    """Give ``field(count, …)``."""
    return lambda count, **options: Field(gts_clock, count, **options)


async def test_an_answer_is_given_and_its_place_given_back(field):
    three = field(3)
    assert await three.run() == "a"
    assert three.is_quiet()
    assert three.races.retries == 0


async def test_what_fails_at_one_is_sent_to_another_and_that_one_set_aside(field):
    three = field(3)
    three.servers[0].error = OSError("down")
    assert await three.run() == "b"
    assert three.aside == [("a", three.servers[0].error)]
    assert three.races.retries == 1
    assert [await three.run() for _ in range(2)] == ["b", "b"]
    assert three.servers[0].asked == 1


async def test_many_requests_that_fail_at_one_set_it_aside_once(field):
    three = field(3)
    three.servers[0].error = OSError("down")
    answers = await asyncio.gather(*(three.run() for _ in range(12)))
    assert set(answers) == {"b", "c"}
    assert len(three.aside) == 1
    assert three.is_quiet()


async def test_what_every_server_would_answer_is_raised_at_once(field):
    three = field(3)
    three.servers[0].error = Refused("bad rows")
    with pytest.raises(Refused):
        await three.run()
    assert [server.asked for server in three.servers] == [1, 0, 0]
    assert three.aside == []


async def test_what_may_be_the_servers_fault_is_asked_at_another(field):
    three = field(3)
    three.servers[0].error = Odd("500")
    assert await three.run() == "b"
    assert three.aside == [("a", three.servers[0].error)]


async def test_what_another_answers_so_too_is_the_requests_fault(field):
    three = field(3)
    for server in three.servers:
        server.error = Odd(server.name)
    with pytest.raises(Odd):
        await three.run()
    assert [server.asked for server in three.servers] == [1, 1, 0]
    assert three.aside == []
    assert three.is_quiet()


async def test_with_no_other_to_ask_it_counts_as_the_requests_fault(field):
    two = field(2)
    two.servers[0].error, two.servers[1].error = Odd("500"), OSError("down")
    with pytest.raises(Odd):
        await two.run()
    assert [name for name, _ in two.aside] == ["b"]


async def test_one_that_has_too_much_to_do_gets_less_at_once_and_is_not_set_aside(field):
    two = field(2)
    for server in two.servers:
        server.capacity = 1
    answers = await asyncio.gather(*(two.run() for _ in range(20)))
    assert sorted(set(answers)) == ["a", "b"]
    assert two.aside == []
    assert two.races.retries >= 2


async def test_one_that_has_too_much_to_do_without_anything_in_flight_is_set_aside(field):
    two = field(2)
    two.servers[0].capacity = 0
    assert await two.run() == "b"
    assert [name for name, _ in two.aside] == ["a"]


async def test_an_answer_counts_although_the_other_flight_fails_at_the_same_moment(field, gts_clock):
    for _ in range(10):
        two = field(2, is_hedging=True)
        await two.warm_up()
        began, late = gts_clock.now(), two.crew.recent.quantile(0.95, 1)
        two.servers[0].until = two.servers[1].until = began + late + 0.1
        two.servers[0].error = Refused("bad rows")
        assert await two.run() == "b"


async def test_one_that_is_lost_is_never_asked_again(field):
    two = field(2)
    two.servers[0].error = Gone("taken")
    assert [await two.run() for _ in range(5)] == ["b"] * 5
    assert two.servers[0].asked == 1
    two.servers[1].error = Gone("taken as well")
    with pytest.raises(Gone, match="as well"):
        await two.run()
    with pytest.raises(Gone, match="as well"):
        await two.run()


async def test_with_all_down_the_last_error_is_raised_in_bounded_time(field, gts_clock):
    three = field(3)
    for server in three.servers:
        server.error = OSError(f"{server.name} is down")
    with pytest.raises(OSError, match="c is down"):
        await three.run()
    assert gts_clock.now() == pytest.approx(20.3)
    assert three.is_quiet()


async def test_a_request_that_fails_everywhere_again_and_again_is_not_sent_for_ever(field, gts_clock):
    two = field(2)

    async def revive():
        while True:
            await gts_clock.sleep(1)
            for member in two.crew.members:
                if not member.is_ready:
                    two.crew.come_back(member)

    reviving = asyncio.create_task(revive())
    for server in two.servers:
        server.error = OSError("it does not like this one")
    with pytest.raises(OSError, match="like"):
        await two.run()
    assert sum(server.asked for server in two.servers) == 4
    reviving.cancel()


async def test_one_that_hangs_is_set_aside_and_its_request_called_off_and_sent_elsewhere(field, gts_clock):
    three = field(3)
    await three.warm_up()
    three.servers[0].seconds = 1000.0
    began = gts_clock.now()
    answers = await asyncio.gather(*(three.run() for _ in range(3)))
    assert sorted(answers) == ["b", "b", "c"] or sorted(answers) == ["b", "c", "c"]
    assert gts_clock.now() - began == pytest.approx(1.1)
    assert three.servers[0].cancelled == 1
    ((name, error),) = three.aside
    assert name == "a"
    assert isinstance(error, TimedOut)
    assert three.is_quiet()


async def test_hanging_is_relative_to_what_the_others_take(field, gts_clock):
    three = field(3)
    for server in three.servers:
        server.seconds = 10.0
    await three.warm_up(20)
    three.servers[0].seconds = 70.0
    answers = await asyncio.gather(*(three.run() for _ in range(3)))
    assert sorted(answers) == ["a", "b", "c"]
    assert three.aside == []


async def test_a_large_request_may_take_longer_than_small_ones(field, gts_clock):
    two = field(2)
    await two.warm_up()
    for server in two.servers:
        server.seconds = 20.0
    assert await two.run(rows=64) in ("a", "b")
    assert two.aside == []


async def test_a_request_that_is_hard_itself_gets_longer_each_time_and_is_answered_in_the_end(field, gts_clock):
    three = field(3)
    await three.warm_up()
    for server in three.servers:
        server.seconds = 12.0

    async def revive():
        while True:
            await gts_clock.sleep(1)
            for member in three.crew.members:
                if not member.is_ready:
                    three.crew.come_back(member)
                    for _ in range(8):
                        member.recent.add(1, 0.1)

    reviving = asyncio.create_task(revive())
    assert await three.run() in ("a", "b", "c")
    assert sum(server.cancelled for server in three.servers) == 2
    reviving.cancel()


async def test_one_alone_may_take_as_long_as_it_takes(field, gts_clock):
    one = field(1)
    await one.warm_up()
    one.servers[0].seconds = 500.0
    assert await one.run() == "a"
    assert one.aside == []


async def test_before_anything_is_known_a_hanging_one_is_found_as_soon_as_the_others_have_answered(field, gts_clock):
    three = field(3)
    three.servers[0].seconds = 1000.0
    first = asyncio.create_task(three.run())
    await asyncio.sleep(0)
    for _ in range(20):
        assert await three.run() in ("b", "c")
    assert await first in ("b", "c")
    assert gts_clock.now() < 5
    assert three.servers[0].cancelled >= 1


async def test_a_late_request_is_hedged_and_the_first_answer_wins(field, gts_clock):
    two = field(2, is_hedging=True)
    await two.warm_up()
    two.servers[0].seconds = 0.9
    began = gts_clock.now()
    assert await two.run() == "b"
    assert gts_clock.now() - began == pytest.approx(0.2)
    assert two.races.hedges == 1
    assert two.races.retries == 0
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert two.servers[0].cancelled == 1
    assert two.is_quiet()
    # What was called off took at least that long: else one that is always late would never be known as slow.
    assert two.crew.members[0].recent.quantile(1.0, 1) == pytest.approx(0.2)


async def test_the_first_request_may_win_after_all(field, gts_clock):
    two = field(2, is_hedging=True)
    await two.warm_up()
    two.servers[0].seconds, two.servers[1].seconds = 0.15, 0.9
    assert await two.run() == "a"
    assert two.races.hedges == 1
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert two.servers[1].cancelled == 1


@pytest.mark.parametrize("late", [0, 1])
async def test_if_one_of_both_fails_the_other_answers(field, gts_clock, late):
    two = field(2, is_hedging=True)
    await two.warm_up()
    two.servers[late].seconds, two.servers[1 - late].seconds = 0.9, 0.15
    two.servers[1 - late].error = OSError("down")
    assert await two.run() == two.servers[late].name
    assert [name for name, _ in two.aside] == [two.servers[1 - late].name]
    assert two.is_quiet()


async def test_at_most_five_percent_are_sent_twice(field, gts_clock):
    two = field(2, is_hedging=True)
    await two.warm_up(10)
    for server in two.servers:
        server.seconds = lambda number: 0.9 if number % 17 == 0 else 0.1
    for _ in range(1000):
        await two.run()
    asked = sum(server.asked for server in two.servers)
    assert two.races.hedges == asked - 1020
    assert 30 <= two.races.hedges <= 0.05 * 1020


async def test_nothing_is_hedged_unless_asked_for(field, gts_clock):
    two = field(2)
    await two.warm_up()
    two.servers[0].seconds = 0.9
    assert await two.run() == "a"
    assert two.races.hedges == 0


async def test_nothing_is_hedged_with_fewer_than_two_ready(field, gts_clock):
    two = field(2, is_hedging=True)
    await two.warm_up()
    two.crew.set_aside(two.crew.members[1], OSError("down"), asides=0)
    two.servers[0].seconds = 0.9
    assert await two.run() == "a"
    assert two.races.hedges == 0


async def test_a_hedge_does_not_take_the_place_of_those_who_wait(field, gts_clock):
    two = field(2, is_hedging=True)
    await two.warm_up(10)
    for server in two.servers:
        server.seconds = 0.9
    running = [asyncio.create_task(two.run()) for _ in range(40)]
    await asyncio.gather(*running[:30])
    assert two.races.hedges == 0
    await asyncio.gather(*running)


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancelled_request_leaves_nothing_in_flight(field, gts_clock, cancelled_after, turns):
    two = field(2, is_hedging=True)
    await two.warm_up()
    two.servers[0].error = OSError("down") if turns % 2 else None
    for server in two.servers:
        server.seconds = 0
    await cancelled_after(turns, two.run)
    for _ in range(5):
        await asyncio.sleep(0)
    assert two.is_quiet()
    two.servers[0].error = None
    assert await two.run() in ("a", "b")


async def test_closing_calls_off_what_is_in_flight(field, gts_clock):
    two = field(2)
    running = [asyncio.create_task(two.run()) for _ in range(7)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await two.races.aclose()
    for told in running:
        with pytest.raises(MisuseError, match="closed"):
            await told
    assert two.is_quiet()
    assert all(server.in_flight == 0 for server in two.servers)
