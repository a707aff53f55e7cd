import asyncio

import anyio
import pytest

from gts_async import InvalidArgument, MisuseError, Outcome, WrongType
from gts_async._flow.fanout import FanOut


async def doubled(item):
    return [Outcome(item, item * 2)]


async def collected(fan_out):
    async with fan_out as outcomes:
        return [outcome.value async for outcome in outcomes]


@pytest.mark.parametrize("max_at_once", [1, 3, 50])
@pytest.mark.parametrize("is_ordered", [True, False])
async def test_every_item_gets_its_outcome(max_at_once, is_ordered):
    values = await collected(FanOut(doubled, range(20), max_at_once=max_at_once, is_ordered=is_ordered))
    assert sorted(values) == [2 * n for n in range(20)]
    if is_ordered:
        assert values == sorted(values)


async def test_async_iterables_and_nothing_at_all_are_fine():
    async def numbers():
        for n in range(3):
            yield n

    assert sorted(await collected(FanOut(doubled, numbers(), max_at_once=2))) == [0, 2, 4]
    assert await collected(FanOut(doubled, [], max_at_once=2)) == []


async def test_completion_order_is_the_order_in_which_things_end():
    may_end = [asyncio.Event() for _ in range(3)]

    async def work(n):
        await may_end[n].wait()
        return [Outcome(n, n)]

    async with FanOut(work, range(3), max_at_once=3) as outcomes:
        for n in (2, 0, 1):
            may_end[n].set()
            assert (await anext(outcomes)).value == n


async def test_ordered_outcomes_wait_for_their_turn_while_others_are_worked_on():
    first_may_end, begun = asyncio.Event(), []

    async def work(n):
        begun.append(n)
        if n == 0:
            await first_may_end.wait()
        return [Outcome(n, n)]

    async with FanOut(work, range(6), max_at_once=2, is_ordered=True, max_ahead=6) as outcomes:
        while len(begun) < 6:
            await asyncio.sleep(0)
        first_may_end.set()
        assert [outcome.value async for outcome in outcomes] == list(range(6))


async def test_no_more_than_the_limit_at_once_and_items_are_pulled_lazily():
    pulled, working, most = [], 0, 0

    def items():
        for n in range(1000):
            pulled.append(n)
            yield n

    async def work(n):
        nonlocal working, most
        working += 1
        most = max(most, working)
        for _ in range(20):
            await asyncio.sleep(0)
        working -= 1
        return [Outcome(n, n)]

    async with FanOut(work, items(), max_at_once=4, max_ahead=10) as outcomes:
        for _ in range(5):
            await anext(outcomes)
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(pulled) <= 5 + 10 + 1
    assert most == 4


async def test_leaving_the_block_cancels_what_is_in_flight():
    cancelled = []

    async def work(n):
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append(n)
            raise

    async with FanOut(work, range(10), max_at_once=3):
        for _ in range(20):
            await asyncio.sleep(0)
    assert sorted(cancelled) == [0, 1, 2]


@pytest.mark.parametrize("style", ["task", "wait_for", "timeout", "scope"])
async def test_a_cancelled_consumer_leaves_nothing_running(style):
    async def consume():
        async with FanOut(lambda _: asyncio.sleep(1000), range(10), max_at_once=3) as outcomes:
            async for _ in outcomes:
                pass

    before = asyncio.all_tasks()
    if style == "task":
        task = asyncio.create_task(consume())
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif style == "wait_for":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consume(), 0.01)
    elif style == "timeout":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await consume()
    else:
        with anyio.move_on_after(0.01) as scope:
            await consume()
        assert scope.cancelled_caught
    assert asyncio.all_tasks() == before


async def test_an_error_of_the_body_is_not_wrapped():
    with pytest.raises(KeyError):
        async with FanOut(doubled, range(10), max_at_once=3) as outcomes:
            await anext(outcomes)
            raise KeyError


async def test_an_error_of_the_iterable_comes_after_the_outcomes_before_it():
    def items():
        yield from range(3)
        raise OSError("the disk is gone")

    seen = []
    async with FanOut(doubled, items(), max_at_once=2) as outcomes:
        with pytest.raises(OSError, match="disk"):
            async for outcome in outcomes:
                seen.append(outcome.value)
    assert sorted(seen) == [0, 2, 4]


async def test_an_error_of_the_work_itself_ends_it_after_what_is_in_flight():
    async def work(n):
        if n == 2:
            raise RuntimeError("for all")
        return [Outcome(n, n)]

    seen = []
    async with FanOut(work, range(1000), max_at_once=1) as outcomes:
        with pytest.raises(RuntimeError, match="for all"):
            async for outcome in outcomes:
                seen.append(outcome.value)
    assert seen == [0, 1]


async def test_it_closes_what_it_was_given_to_close():
    closed = []

    async def closing():
        closed.append(1)

    with pytest.raises(KeyError):
        async with FanOut(doubled, range(3), max_at_once=1, closing=closing):
            raise KeyError
    assert closed == [1]


async def test_misuse_says_how_to_use_it():
    fan_out = FanOut(doubled, range(3), max_at_once=1)
    with pytest.raises(MisuseError, match="async with"):
        await anext(fan_out)
    async with fan_out:
        pass
    with pytest.raises(MisuseError, match="once"):
        async with fan_out:
            pass


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_at_once": 0}, InvalidArgument),
        ({"max_at_once": 1.5}, WrongType),
        ({"max_at_once": 1, "max_per_second": 0}, InvalidArgument),
        ({"max_at_once": 1, "max_per_second": "5"}, WrongType),
    ],
)
def test_bounds_that_cannot_work_are_refused(options, error):
    with pytest.raises(error):
        FanOut(doubled, range(3), **options)


def test_what_cannot_be_iterated_is_refused():
    with pytest.raises(WrongType, match="items"):
        FanOut(doubled, 5, max_at_once=1)


def test_an_outcome_unwraps_to_its_value_or_its_error():
    assert Outcome("item", 1).unwrap() == 1
    with pytest.raises(KeyError):
        Outcome("item", error=KeyError("x")).unwrap()


async def test_an_ordered_fan_out_ends_when_the_part_that_others_wait_for_fails():
    may_fail = asyncio.Event()

    async def work(n):
        if n == 0:
            await may_fail.wait()
            raise RuntimeError("for all")
        return [Outcome(n, n)]

    seen = []
    async with FanOut(work, range(1000), max_at_once=2, is_ordered=True, max_ahead=4) as outcomes:
        for _ in range(50):
            await asyncio.sleep(0)
        may_fail.set()
        with pytest.raises(RuntimeError, match="for all"):
            async with asyncio.timeout(30):
                async for outcome in outcomes:
                    seen.append(outcome.value)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("is_ordered", [True, False])
async def test_work_that_was_cancelled_by_something_else_ends_it_as_an_error(is_ordered):
    async def work(n):
        if n == 1:
            raise asyncio.CancelledError
        return [Outcome(n, n)]

    async with FanOut(work, range(3), max_at_once=1, is_ordered=is_ordered) as outcomes:
        assert (await anext(outcomes)).value == 0
        with pytest.raises(MisuseError, match="cancelled"):
            await anext(outcomes)
    assert asyncio.current_task().cancelling() == 0


async def test_several_consumers_share_the_outcomes():
    may_end = asyncio.Event()

    async def work(n):
        await may_end.wait()
        return [Outcome(n, n)]

    async def consume(outcomes):
        return [outcome.value async for outcome in outcomes]

    async with FanOut(work, range(6), max_at_once=2) as outcomes:
        consumers = [asyncio.create_task(consume(outcomes)) for _ in range(3)]
        for _ in range(20):
            await asyncio.sleep(0)
        may_end.set()
        async with asyncio.timeout(30):
            seen = await asyncio.gather(*consumers)
    assert sorted(value for values in seen for value in values) == list(range(6))


@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("max_ahead", [1, 2, 7])
async def test_fewer_ahead_than_at_once_is_only_slower(is_ordered, max_ahead):
    fan_out = FanOut(doubled, range(30), max_at_once=5, max_ahead=max_ahead, is_ordered=is_ordered)
    async with asyncio.timeout(30):
        assert sorted(await collected(fan_out)) == [2 * n for n in range(30)]


async def test_a_consumer_that_stops_but_stays_holds_no_more_than_was_allowed_ahead():
    done = []

    async def work(n):
        done.append(n)
        return [Outcome(n, n)]

    async with FanOut(work, range(10_000), max_at_once=3, max_ahead=8, is_ordered=True) as outcomes:
        await anext(outcomes)
        for _ in range(500):
            await asyncio.sleep(0)
        assert len(done) <= 2 * 8
        assert [outcome.value async for outcome in outcomes] == list(range(1, 10_000))


async def test_cancelling_at_any_turn_of_the_loop_leaves_nothing_running(cancelled_after):
    begun, ended, closed = [], [], []

    async def work(n):
        begun.append(n)
        try:
            for _ in range(3):
                await asyncio.sleep(0)
            return [Outcome(n, n)]
        finally:
            ended.append(n)

    async def closing():
        await asyncio.sleep(0)
        closed.append(1)

    async def consume():
        async with FanOut(work, range(8), max_at_once=3, closing=closing) as outcomes:
            async for _ in outcomes:
                pass

    before = asyncio.all_tasks()
    for turns in range(41):
        await cancelled_after(turns, consume)
        assert asyncio.all_tasks() == before
        assert sorted(begun) == sorted(ended)
    # Only a task that was cancelled before it began has nothing to close.
    assert len(closed) >= 39


async def test_cancelling_again_while_the_block_is_being_left_still_waits_for_what_is_in_flight():
    ended = []

    async def work(n):
        try:
            await asyncio.sleep(1000)
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            ended.append(n)

    async def consume():
        async with FanOut(work, range(3), max_at_once=3) as outcomes:
            await anext(outcomes)

    before = asyncio.all_tasks()
    task = asyncio.create_task(consume())
    for turn in range(40):
        if turn >= 20 and turn % 3 == 0:
            task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("wrong", [0, -1])
def test_nothing_ahead_at_all_cannot_work(wrong):
    with pytest.raises(InvalidArgument, match="max_ahead"):
        FanOut(doubled, range(3), max_at_once=1, max_ahead=wrong)


@pytest.mark.parametrize("max_reordered", [None, 100])
async def test_a_part_whose_turn_it_is_lets_others_be_finished_after_it_up_to_a_bound(max_reordered):
    may_end, begun = asyncio.Event(), []

    async def work(n):
        begun.append(n)
        if n == 0:
            await may_end.wait()
        return [Outcome(n, n)]

    options = {"max_at_once": 2, "is_ordered": True, "max_reordered": max_reordered}
    async with FanOut(work, range(1000), **options) as outcomes:
        first = asyncio.create_task(anext(outcomes))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(begun) == (max_reordered or 8)
        may_end.set()
        assert (await first).value == 0
        # Now nothing is held up, and whoever takes the outcomes decides how far it goes.
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(begun) == (max_reordered or 8) + 8
        assert [outcome.value async for outcome in outcomes] == list(range(1, 1000))


class Unclosed(MisuseError):
    pass


async def unclosed():
    raise Unclosed("the file is full")


async def test_a_fault_of_the_closing_is_raised_where_nothing_else_is():
    with pytest.raises(Unclosed, match="full"):
        async with FanOut(doubled, range(3), max_at_once=1, closing=unclosed) as outcomes:
            assert len([outcome async for outcome in outcomes]) == 3


@pytest.mark.parametrize("error", [KeyError("mine"), asyncio.CancelledError()])
async def test_a_fault_of_the_closing_does_not_hide_what_ended_the_block(error):
    with pytest.raises(type(error)) as caught:
        async with FanOut(doubled, range(3), max_at_once=1, closing=unclosed):
            raise error
    assert "the file is full" in caught.value.__notes__[0]
