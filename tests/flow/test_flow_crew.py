"""Whose turn it is among several servers, on the fake clock."""

import asyncio

import pytest

from gts_async import MisuseError
from gts_async._flow.crew import Crew, Member, Turn


def crew_of(clock, count, **options):
    return Crew([Member(f"server {number}", number) for number in range(count)], clock, **options)


def answer(crew, turn, seconds=0.1, rows=1):
    crew.leave(turn)
    crew.answered(turn, rows, seconds)


def set_aside(crew, member, error=None):
    return crew.set_aside(member, error or OSError("down"), asides=member.asides)


async def turns_left(crew):
    """Take every place there is at once, and give them by server."""
    taken = []
    while any(member.has_room for member in crew.members):
        taken.append(await crew.turn())
    for turn in taken:
        crew.leave(turn)
    return [sum(turn.member is member for turn in taken) for member in crew.members]


async def test_the_least_loaded_gets_the_next(gts_clock):
    crew = crew_of(gts_clock, 3)
    numbers = [(await crew.turn()).member.number for _ in range(6)]
    assert numbers == [0, 1, 2, 0, 1, 2]


async def test_among_idle_ones_the_fastest_gets_the_next(gts_clock):
    crew = crew_of(gts_clock, 3)
    for seconds, member in zip((0.3, 0.2, 0.25), crew.members, strict=True):
        for _ in range(8):
            member.recent.add(1, seconds)
    assert [(await crew.turn()).member.number for _ in range(3)] == [1, 2, 0]


async def test_the_load_is_relative_to_the_allowance(gts_clock):
    crew = crew_of(gts_clock, 2)
    crew.members[0].allowance.size = 6
    numbers = [(await crew.turn()).member.number for _ in range(8)]
    assert numbers.count(0) == 6
    assert numbers[:4].count(0) == 3


async def test_who_comes_first_is_served_first(gts_clock):
    crew = crew_of(gts_clock, 1)
    held = [await crew.turn(), await crew.turn()]
    served = []

    async def wait(number):
        turn = await crew.turn()
        served.append(number)
        crew.leave(turn)

    waiting = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert served == []
    crew.leave(held[0])
    await asyncio.gather(*waiting)
    assert served == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("turns", range(4))
async def test_who_is_cancelled_holds_no_place_and_nobody_up(gts_clock, cancelled_after, turns):
    crew = crew_of(gts_clock, 1)
    held = [await crew.turn(), await crew.turn()]
    asyncio.get_running_loop().call_soon(crew.leave, held[0])

    async def work():
        crew.leave(await crew.turn())

    await cancelled_after(turns, work)
    assert crew.members[0].allowance.in_flight == 1
    crew.leave(await asyncio.wait_for(crew.turn(), 30))
    crew.leave(held[1])
    assert await turns_left(crew) == [2]


async def test_one_that_waits_and_is_cancelled_lets_later_ones_in(gts_clock):
    crew = crew_of(gts_clock, 1)
    held = [await crew.turn(), await crew.turn()]
    first, second = asyncio.create_task(crew.turn()), asyncio.create_task(crew.turn())
    await asyncio.sleep(0)
    crew.leave(held[0])
    first.cancel()
    turn = await asyncio.wait_for(second, 30)
    assert first.cancelled()
    crew.leave(turn)
    crew.leave(held[1])
    assert crew.members[0].allowance.in_flight == 0


async def test_what_is_set_aside_gets_nothing_until_it_comes_back_and_then_one_at_a_time(gts_clock):
    crew = crew_of(gts_clock, 2)
    assert set_aside(crew, crew.members[0])
    assert await turns_left(crew) == [0, 2]
    crew.come_back(crew.members[0])
    assert await turns_left(crew) == [1, 2]


async def test_an_error_of_before_it_came_back_does_not_set_it_aside_again(gts_clock):
    crew = crew_of(gts_clock, 1)
    old = [await crew.turn(), await crew.turn()]
    assert crew.set_aside(old[0].member, OSError("down"), asides=old[0].asides)
    assert not crew.set_aside(old[1].member, OSError("down"), asides=old[1].asides)
    crew.come_back(crew.members[0])
    assert not crew.set_aside(old[1].member, OSError("down"), asides=old[1].asides)
    assert crew.ready() == list(crew.members)


async def test_with_none_ready_requests_wait_for_one_to_come_back(gts_clock):
    crew = crew_of(gts_clock, 2, patience=20.0)
    for member in crew.members:
        set_aside(crew, member)
    waiting = asyncio.create_task(crew.turn())
    await gts_clock.sleep(19)
    crew.come_back(crew.members[1])
    turn = await waiting
    assert turn.member.number == 1
    later = asyncio.create_task(crew.turn())
    await gts_clock.sleep(100)
    assert not later.done()
    crew.leave(turn)
    assert (await later).member.number == 1


async def test_when_nobody_comes_back_all_are_told_the_last_error_in_bounded_time(gts_clock):
    crew = crew_of(gts_clock, 2, patience=20.0)
    set_aside(crew, crew.members[0], OSError("first"))
    await gts_clock.sleep(15)
    set_aside(crew, crew.members[1], OSError("last"))
    began = gts_clock.now()
    told = await asyncio.gather(crew.turn(), crew.turn(), return_exceptions=True)
    assert gts_clock.now() - began == pytest.approx(20)
    assert [str(error) for error in told] == ["last", "last"]
    with pytest.raises(OSError, match="last"):
        await crew.turn()
    assert gts_clock.now() - began == pytest.approx(20)
    crew.come_back(crew.members[0])
    assert (await crew.turn()).member.number == 0


async def test_patience_is_not_lost_while_one_is_waking(gts_clock):
    crew = crew_of(gts_clock, 2, patience=20.0)
    for member in crew.members:
        set_aside(crew, member, OSError("down"))
    waiting = asyncio.create_task(crew.turn())
    crew.members[1].is_waking = True
    await gts_clock.sleep(100)
    assert not waiting.done()
    crew.come_back(crew.members[1])
    crew.leave(await waiting)
    set_aside(crew, crew.members[1], OSError("down again"))
    waiting = asyncio.create_task(crew.turn())
    crew.members[0].is_waking = True
    await gts_clock.sleep(30)
    crew.members[0].is_waking = False
    await gts_clock.sleep(2)
    with pytest.raises(OSError, match="down again"):
        await waiting
    assert gts_clock.now() == pytest.approx(132)


async def test_the_error_that_many_are_told_does_not_grow(gts_clock):
    crew = crew_of(gts_clock, 1)
    crew.lose(crew.members[0], OSError("gone"))
    for _ in range(50):
        with pytest.raises(OSError, match="gone") as told:
            await crew.turn()
    assert len(told.traceback) < 6


async def test_when_all_are_lost_nobody_waits(gts_clock):
    crew = crew_of(gts_clock, 2)
    held = [await crew.turn() for _ in range(4)]
    waiting = asyncio.create_task(crew.turn())
    await asyncio.sleep(0)
    crew.lose(crew.members[0], OSError("first"))
    crew.lose(crew.members[1], OSError("last"))
    with pytest.raises(OSError, match="last"):
        await waiting
    assert gts_clock.now() == 0
    for turn in held:
        crew.leave(turn)


async def test_closing_tells_whoever_waits_and_whoever_comes(gts_clock):
    crew = crew_of(gts_clock, 1)
    _held = [await crew.turn(), await crew.turn()]
    waiting = asyncio.create_task(crew.turn())
    await asyncio.sleep(0)
    crew.close()
    for told in (waiting, crew.turn()):
        with pytest.raises(MisuseError, match="closed"):
            await told


def answers(crew, *seconds):
    """Have each member answer eight requests in so many seconds."""
    for _ in range(8):
        for member, took in zip(crew.members, seconds, strict=True):
            answer(crew, Turn(member, member.allowance.send(), member.asides), took)


async def test_a_slow_one_gets_a_single_request_at_once_until_it_is_as_fast_as_the_others(gts_clock):
    crew = crew_of(gts_clock, 3)
    answers(crew, 0.1, 0.11, 0.5)
    assert [member.is_slow for member in crew.members] == [False, False, True]
    assert await turns_left(crew) == [2, 2, 1]
    for _ in range(5):
        answers(crew, 0.1, 0.11, 0.1)
    assert await turns_left(crew) == [2, 2, 2]


async def test_one_that_was_slow_before_it_was_set_aside_may_be_as_fast_as_the_others_when_it_is_back(gts_clock):
    crew = crew_of(gts_clock, 2)
    answers(crew, 0.1, 0.5)
    set_aside(crew, crew.members[1])
    crew.come_back(crew.members[1])
    answers(crew, 0.1, 0.1)
    assert [member.is_slow for member in crew.members] == [False, False]
    assert crew.usual(0.5, 1, but=crew.members[0]) == 0.1


async def test_one_with_nobody_to_compare_it_to_is_not_slow(gts_clock):
    crew = crew_of(gts_clock, 2)
    answers(crew, 0.1, 9.0)
    crew.lose(crew.members[0], OSError("gone"))
    answers(crew, 0.1, 9.0)
    assert not crew.members[1].is_slow


async def test_what_is_usual_is_what_the_other_ready_ones_take(gts_clock):
    crew = crew_of(gts_clock, 3)
    assert crew.usual(0.99, 1, but=crew.members[0]) is None
    answers(crew, 50.0, 0.2, 0.3)
    assert crew.usual(0.99, 1, but=crew.members[0]) == 0.2
    assert crew.usual(0.99, 10, but=crew.members[0]) == pytest.approx(2.0)
    set_aside(crew, crew.members[1])
    assert crew.usual(0.99, 1, but=crew.members[0]) == 0.3
    set_aside(crew, crew.members[2])
    assert crew.usual(0.99, 1, but=crew.members[0]) is None


async def test_a_place_at_once_is_at_another_server_and_not_ahead_of_those_who_wait(gts_clock):
    crew = crew_of(gts_clock, 2)
    first = await crew.turn()
    second = crew.turn_at_once(but=first.member)
    assert second.member is not first.member
    crew.turn_at_once(but=first.member)
    assert crew.turn_at_once(but=first.member) is None
    await crew.turn()
    waiting = asyncio.create_task(crew.turn())
    await asyncio.sleep(0)
    assert crew.turn_at_once(but=second.member) is None
    waiting.cancel()


async def test_who_waits_for_another_one_gets_none_once_there_is_no_other(gts_clock):
    crew = crew_of(gts_clock, 3)
    for _ in range(6):
        await crew.turn()
    waiting = asyncio.create_task(crew.turn_of_another(crew.members[0]))
    await asyncio.sleep(0)
    set_aside(crew, crew.members[1])
    await asyncio.sleep(0)
    assert not waiting.done()
    set_aside(crew, crew.members[2])
    assert await waiting is None


async def test_who_waits_for_another_one_does_not_hold_the_others_up(gts_clock):
    crew = crew_of(gts_clock, 2)
    held = [await crew.turn() for _ in range(4)]
    picky = asyncio.create_task(crew.turn_of_another(crew.members[0]))
    plain = asyncio.create_task(crew.turn())
    await asyncio.sleep(0)
    crew.leave(held[0])
    assert (await plain).member is held[0].member is crew.members[0]
    assert not picky.done()
    crew.leave(held[1])
    assert (await picky).member is crew.members[1]
