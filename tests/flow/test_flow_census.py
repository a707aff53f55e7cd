"""What the listing knows of a work: who asks shares one reading, bounded in pages, and nothing is said too early."""

import asyncio

import pytest

from gts_async._errors import NotSent, TransportError
from gts_async._flow.census import ABSENCES, GOOD_FOR, MAX_PAGES, REST, WAIT, Census
from gts_async._flow.hub import Hub
from gts_async._flow.lane import Lane
from gts_async.testing import FakeClock

LOOKS_PER_SECOND = 50.0


class Account:
    """An account whose listing has one work a page, newest first, and the census of it."""

    def __init__(self, *listed, followed=(), **options):
        self.clock = FakeClock(**options)
        hub = Hub(self.clock, LOOKS_PER_SECOND)
        lane = self.lane = Lane(hub, self._glance)
        for work_id in (*listed, *followed):
            lane.eye(work_id)
        self.listed = list(listed)
        self.is_endless = False
        self.delay = 0.0
        self.failures = {}
        self.read = []
        self.census = Census(lane, self._page)

    async def _glance(self, work_id):
        raise AssertionError("a census looks at nothing by itself")

    async def _page(self, number):
        self.read.append(number)
        await self.clock.sleep(self.delay)
        if error := self.failures.pop(number, None):
            raise error
        if self.is_endless:
            return {f"stranger-{number}": "working"}
        return {work_id: f"{work_id} works" for work_id in self.listed[number - 1 : number]}

    async def look(self, work_id):
        return await self.census.look(work_id)

    async def is_missing(self, work_id, *others):
        return await self.census.is_missing(work_id, lambda: {work_id, *others})


async def test_a_listed_work_is_shown_as_listed_and_nothing_further_down_is_read():
    account = Account("a", "b", "c", "d")
    assert await account.look("b") == "b works"
    assert account.read == [1, 2]


async def test_a_work_that_a_complete_listing_lacks_is_surely_not_there():
    account = Account("a", "b", followed=["gone"])
    assert await account.look("gone") is None
    assert account.read == [1, 2, 3]


async def test_whoever_asks_next_reads_on_where_the_last_one_stopped():
    account = Account("a", "b", "c", "d")
    for work_id in ("b", "a", "d", "c"):
        assert await account.look(work_id) == f"{work_id} works"
    assert account.read == [1, 2, 3, 4]


async def test_five_hundred_who_ask_at_once_share_one_reading():
    lost = [f"lost-{number}" for number in range(500)]
    account = Account("a", "b", followed=lost)
    assert await asyncio.gather(*map(account.look, lost)) == [None] * 500
    assert account.read == [1, 2, 3]


async def test_a_reading_is_believed_for_a_while_and_then_made_anew():
    account = Account("a", followed=["gone"])
    await account.look("gone")
    account.listed.insert(0, "gone")
    await account.clock.sleep(GOOD_FOR - 1)
    assert await account.look("gone") is None
    assert account.read == [1, 2]
    await account.clock.sleep(1)
    assert await account.look("gone") == "gone works"
    assert account.read == [1, 2, 1]


async def test_a_work_that_was_not_followed_when_the_reading_began_is_not_missed_by_it():
    account = Account("a", followed=["gone"])
    await account.look("gone")
    account.listed.insert(0, "new")
    account.lane.eye("new")
    with pytest.raises(TransportError, match="a moment ago"):
        await account.look("new")
    await account.clock.sleep(REST)
    assert await account.look("new") == "new works"


async def test_a_reading_is_gone_on_with_for_two_minutes_at_most():
    account = Account(*(f"work-{number}" for number in range(20)))
    for number in range(10):
        assert await account.look(f"work-{number}") == f"work-{number} works"
        await account.clock.sleep(15)
    assert account.read == [1, 2, 3, 4, 5, 6, 7, 8, *range(1, 10), 10]


async def test_only_what_is_followed_is_kept_of_a_reading():
    account = Account("a")
    account.listed[:0] = [f"other-{number}" for number in range(10)]
    await account.look("a")
    assert account.census._reading.found == {"a": "a works"}


async def test_every_page_but_the_first_counts_as_a_look():
    account = Account(*(f"work-{number}" for number in range(100)))
    await account.look("work-99")
    assert account.clock.now() == pytest.approx(98 / LOOKS_PER_SECOND)


async def test_a_failure_of_the_listing_is_told_to_all_who_ask_and_not_tried_again_at_once():
    account = Account("a", "b", "c")
    account.delay = 0.1
    account.failures[2] = failure = NotSent("nobody there")
    assert await asyncio.gather(account.look("c"), account.look("b"), return_exceptions=True) == [failure] * 2
    await account.clock.sleep(REST - 1)
    with pytest.raises(NotSent):
        await account.look("b")
    assert account.read == [1, 2]
    await account.clock.sleep(1)
    assert await account.look("c") == "c works"
    assert account.read == [1, 2, 2, 3]


async def test_a_listing_without_an_end_says_nothing_and_costs_little():
    account = Account(followed=["lost"])
    account.is_endless = True
    with pytest.raises(TransportError, match=f"no end after {MAX_PAGES} pages"):
        await account.look("lost")
    assert len(account.read) == MAX_PAGES
    while account.clock.now() < 600:
        with pytest.raises(TransportError):
            await account.look("lost")
        await account.clock.sleep(5)
    # Ten pages a second on average, whoever asks how often.
    assert len(account.read) <= 7 * MAX_PAGES


async def test_a_reading_that_takes_too_long_is_given_up():
    account = Account(followed=["lost"])
    account.is_endless, account.delay = True, 10.0
    with pytest.raises(TransportError, match="no end"):
        await account.look("lost")
    assert account.clock.now() == pytest.approx(120, abs=1)


async def test_others_do_not_wait_long_for_what_is_being_read():
    account = Account(*"abcdefghij", followed=["gone"])
    account.delay = 1.0
    reading = asyncio.create_task(account.look("gone"))
    await asyncio.sleep(0)
    with pytest.raises(TransportError, match="still being read"):
        await account.look("j")
    assert account.clock.now() == WAIT
    assert await reading is None
    assert await account.look("j") == "j works"
    assert len(account.read) == 11


@pytest.mark.parametrize("turns", range(0, 12))
async def test_a_reading_that_was_cut_is_gone_on_with_by_the_next(turns):
    account = Account("a", "b", "c")
    first, second = asyncio.create_task(account.look("c")), asyncio.create_task(account.look("c"))
    for _ in range(turns):
        await asyncio.sleep(0)
    first.cancel()
    assert await second == "c works"
    await asyncio.gather(first, return_exceptions=True)
    # The page that was cut is asked for again, no other.
    assert sorted(set(account.read)) == [1, 2, 3]
    assert len(account.read) <= 4
    assert account.read == sorted(account.read)


# Counts ---------------------------------------------------------------------------------------------------------------


async def counts(account, *works, times=1, apart=301.0):
    """Ask of the first of the works `times` times; give the answers."""
    answers = []
    for _ in range(times):
        answers.append(await account.is_missing(*works))
        await account.clock.sleep(apart)
    return answers


async def test_a_doubted_work_is_missing_when_two_counts_lack_it():
    account = Account("a", followed=["gone"])
    assert await counts(account, "gone", times=3) == [False, True, True]
    assert ABSENCES == 2


async def test_a_count_is_for_all_and_made_once_in_five_minutes():
    account = Account("a", "b", followed=["gone"])
    for _ in range(100):
        assert not await account.is_missing("a", "gone", "b")
        await account.clock.sleep(2.9)
    assert account.read == [1, 2, 3]
    assert await counts(account, "b", "gone", "a", apart=20.0) == [False]
    assert account.read == [1, 2, 3]
    assert await counts(account, "a", "gone", "b", apart=0.0) == [False]
    assert account.read == [1, 2, 3, 1, 2, 3]
    assert await account.is_missing("gone", "a", "b")


async def test_a_count_goes_no_further_down_than_the_doubted():
    account = Account("a", "b", "c", "d")
    assert not await account.is_missing("a", "b")
    assert account.read == [1, 2]


async def test_a_work_that_shows_again_has_not_been_missing():
    account = Account("a", followed=["away"])
    answers = await counts(account, "away")
    account.listed.append("away")
    answers += await counts(account, "away")
    account.listed.remove("away")
    answers += await counts(account, "away", times=2)
    assert answers == [False, False, False, True]


async def test_a_count_that_fails_shows_nothing():
    account = Account("a", followed=["gone"])
    answers = await counts(account, "gone")
    account.failures[2] = NotSent("nobody there")
    answers += await counts(account, "gone", times=2)
    assert answers == [False, False, True]


async def test_a_count_that_was_cut_is_gone_on_with_by_the_next_who_asks():
    account = Account("a", "b", followed=["gone"])
    account.delay = 1.0
    with pytest.raises(TimeoutError):
        async with account.clock.timeout(1.5):
            await account.is_missing("gone")
    assert account.read == [1, 2]
    assert not await account.is_missing("gone")
    assert account.read == [1, 2, 2, 3]
    await account.clock.sleep(301)
    assert await account.is_missing("gone")


@pytest.mark.parametrize("reads", ["look", "is_missing"])
async def test_a_work_that_is_only_doubted_waits_for_no_reading_of_others(reads):
    account = Account("a", followed=["gone"])
    account.delay = 1.0
    reading = asyncio.create_task(getattr(account, reads)("gone"))
    await asyncio.sleep(0)
    assert not await account.is_missing("a")
    assert account.clock.now() == 0.0
    await reading
