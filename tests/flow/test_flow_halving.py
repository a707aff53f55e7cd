"""Finding the bad items of a batch: who is blamed for what, and how many requests it may cost."""

import math
import random

import attrs
import pytest

from gts_async._flow.halving import EXTRA_PER_ANSWER, FREE_EXTRA, MAX_STRANGERS, STEADY_AFTER, WAVERING, Blame, Halving


class Bad(Exception):
    """Surely about an item; `shown` is the one that is shown."""

    def __init__(self, shown=None):
        super().__init__("bad")
        self.shown = shown


class Failed(Exception):
    """About an item, or not."""


class Proven(Exception):
    """About an item, or how many there are: the server has answered since."""


class Gone(Exception):
    """About no item."""


BLAMED = {Bad: Blame.ITEM, Failed: Blame.DOUBTFUL, Proven: Blame.ITEMS, Gone: Blame.SERVER}
CHECKS = {Bad: 0, Failed: 2, Proven: 0}
"""Requests that it takes to see that the server answers at all."""


@attrs.define
class Server:
    """Answers with negatives; refuses batches with one of `bad` or more than `most`, and everything if `is_down`."""

    bad: set = attrs.field(factory=set)
    error: type = Failed
    shows: bool = False
    most: int = 10**9
    is_down: bool = False
    down_after: int = 10**9
    asked: list = attrs.field(factory=list)

    async def __call__(self, items):
        self.asked.append(list(items))
        if self.is_down or len(self.asked) > self.down_after:
            raise self.error("down")
        if len(items) > self.most:
            raise self.error("out of memory")
        for item in items:
            if item in self.bad:
                raise (Bad(item) if self.shows else self.error())
        return [-item for item in items]

    def halving(self):
        def named(error, items):
            shown = getattr(error, "shown", None)
            return [place for place, item in enumerate(items) if item == shown] if shown is not None else []

        return Halving(self, lambda error: BLAMED[type(error)], named)


def check(outcomes, items, bad):
    assert [outcome.item for outcome in outcomes] == list(items)
    assert [outcome.item for outcome in outcomes if not outcome.is_ok] == sorted(bad)
    assert all(outcome.value == -outcome.item for outcome in outcomes if outcome.is_ok)
    assert all(outcome.tries >= 1 for outcome in outcomes)


async def warm(server):
    """Give a halving that has been answered before."""
    halving = server.halving()
    await halving.outcomes([10**6])
    server.asked.clear()
    return halving


async def test_what_is_not_refused_costs_one_request():
    server = Server()
    check(await server.halving().outcomes(range(64)), range(64), set())
    assert len(server.asked) == 1


@pytest.mark.parametrize("error", [Failed, Bad, Proven])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100])
async def test_one_bad_item_fails_alone_and_costs_about_one_request_a_halving(size, error):
    for bad in range(size):
        server = Server({bad}, error)
        halving = await warm(server)
        check(await halving.outcomes(range(size)), range(size), {bad})
        # The first that are blamed are asked for once more, unless the server has said why.
        is_asked_again = error is not Bad
        most = math.ceil(math.log2(size)) + (2 if size > 1 else 0) + is_asked_again + CHECKS[error]
        assert len(server.asked) - 1 <= most
        assert max(map(server.asked.count, server.asked)) <= max(1 + is_asked_again, CHECKS[error])


@pytest.mark.parametrize("size", [1, 2, 3, 64])
@pytest.mark.parametrize("error", [Failed, Proven])
async def test_an_item_that_is_refused_only_for_a_moment_is_not_blamed(size, error):
    server = Server({size - 1}, error)
    halving = await warm(server)

    async def recover():
        server.bad = set()

    halving.pause = recover
    check(await halving.outcomes(range(size)), range(size), set())
    assert len(server.asked) > 1


async def test_once_a_server_has_proven_steady_one_request_less_is_made_for_each_bad_item():
    server = Server({37}, Proven)
    halving = await warm(server)
    costs = []
    for _ in range(STEADY_AFTER + 2):
        server.asked.clear()
        check(await halving.outcomes(range(64)), range(64), {37})
        costs.append(len(server.asked))
    assert costs == [*[costs[0]] * STEADY_AFTER, *[costs[0] - 1] * 2]


async def test_where_a_server_wavers_an_item_is_asked_for_several_times():
    server = Server({0}, Proven)
    halving = await warm(server)
    halving.has_wavered = True
    await halving.outcomes(range(64))
    assert server.asked.count([0]) == 1 + WAVERING


async def test_every_further_request_is_told():
    told = []
    server = Server({3, 40, 41})
    halving = await warm(server)
    halving.on_extra = lambda: told.append(len(server.asked))
    await halving.outcomes(range(64))
    assert told == list(range(1, len(server.asked)))


@pytest.mark.parametrize("size", [2, 8, 64])
async def test_what_must_be_refused_is_not_asked(size):
    server = Server({size - 1}, Bad)
    halving = await warm(server)
    check(await halving.outcomes(range(size)), range(size), {size - 1})
    assert len(server.asked) - 1 == math.log2(size) + 1


@pytest.mark.parametrize("seed", range(30))
async def test_several_bad_items_cost_so_many_times_as_much(seed):
    chance = random.Random(seed)
    size = chance.randint(2, 80)
    bad = set(chance.sample(range(size), chance.randint(1, max(1, size // 10))))
    server = Server(bad, chance.choice([Failed, Bad, Proven]))
    halving = await warm(server)
    check(await halving.outcomes(range(size)), range(size), bad)
    assert len(server.asked) - 1 <= len(bad) * (2 * math.ceil(math.log2(size)) + 2)


async def test_items_that_the_error_shows_are_taken_out_without_halving():
    server = Server({3, 20, 50}, shows=True)
    check(await server.halving().outcomes(range(64)), range(64), {3, 20, 50})
    assert [len(items) for items in server.asked] == [64, 63, 62, 61]


@pytest.mark.parametrize("bad", [{0}, {31}, {32}, {63}, {0, 63}, {5, 6, 40}])
async def test_bad_items_are_found_in_the_first_batch_too(bad):
    server = Server(bad)
    check(await server.halving().outcomes(range(64)), range(64), bad)


async def test_a_server_that_fails_is_not_asked_for_halves():
    server = Server()
    halving = await warm(server)
    server.is_down = True
    with pytest.raises(Failed) as caught:
        await halving.outcomes(range(64))
    assert server.asked == [list(range(64)), [10**6]]
    assert "not about what was asked" in caught.value.__notes__[0]


async def test_a_server_that_fails_from_the_start_is_asked_for_a_few_alone():
    server = Server(is_down=True)
    with pytest.raises(Failed):
        await server.halving().outcomes(range(64))
    assert [len(items) for items in server.asked] == [64] + [1] * MAX_STRANGERS


async def test_a_server_that_fails_for_one_item_after_the_other_is_given_up():
    server = Server(is_down=True)
    halving = server.halving()
    for item in range(MAX_STRANGERS - 1):
        check(await halving.outcomes([item]), [item], {item})
    with pytest.raises(Failed):
        await halving.outcomes([99])
    assert len(server.asked) == 2 * MAX_STRANGERS - 1


@pytest.mark.parametrize("bad", [{0, 1}, {0}, {1}])
async def test_two_items_alone_may_both_be_bad(bad):
    check(await Server(bad).halving().outcomes([0, 1]), [0, 1], bad)


@pytest.mark.parametrize("down_after", range(1, 10))
async def test_nobody_is_blamed_for_a_server_that_fails_on_the_way(down_after):
    server = Server({0})
    halving = await warm(server)
    server.down_after = down_after
    with pytest.raises(Failed):
        await halving.outcomes(range(64))
    assert len(server.asked) <= down_after + 8


@pytest.mark.parametrize("down_after", range(5))
async def test_what_is_about_no_item_is_raised_at_once(down_after):
    server = Server({5}, Bad)
    halving = await warm(server)
    server.down_after, server.error = down_after, Gone

    async def ask(items):
        server.error = Gone if len(server.asked) >= down_after else Bad
        return await server(items)

    halving.ask = ask
    with pytest.raises(Gone):
        await halving.outcomes(range(64))
    assert len(server.asked) == down_after + 1


@pytest.mark.parametrize("error", [Failed, Proven])
async def test_batches_that_only_fail_as_a_whole_become_smaller(error):
    server = Server(most=40, error=error)
    halving = await warm(server)
    for _ in range(10):
        check(await halving.outcomes(range(64)), range(64), set())
    assert [len(items) for items in server.asked[-4:]] == [32] * 4
    assert len(server.asked) < 40


@pytest.mark.parametrize("error", [Failed, Bad, Proven])
async def test_where_nearly_everything_is_refused_the_search_ends(error):
    server = Server(set(range(1, 10_000)), error)
    halving = await warm(server)
    with pytest.raises(error) as caught:
        for start in range(0, 10_000, 50):
            await halving.outcomes(range(start, start + 50))
    assert len(server.asked) <= FREE_EXTRA + EXTRA_PER_ANSWER * 10
    assert any("too many" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("error", [Failed, Bad, Proven])
async def test_as_many_bad_items_as_one_in_three_are_found(error):
    server = Server(set(range(0, 10_000, 3)), error)
    halving = await warm(server)
    for start in range(0, 1000, 50):
        items = range(start, start + 50)
        check(await halving.outcomes(items), items, {item for item in items if item % 3 == 0})


async def test_nothing_is_nothing():
    server = Server()
    assert await server.halving().outcomes([]) == []
    assert server.asked == []
