"""How many looks may begin when, by times passed in."""

import pytest
from hypothesis import given, strategies as st

from gts_async._flow.budget import FINEST, LookBudget


def begin(budget, now):
    """Let one look begin when it may; gives when."""
    now += budget.delay(now)
    assert budget.room(now) >= 1
    budget.take(now)
    return now


def test_looks_are_evenly_spaced():
    budget, now, begun = LookBudget(2.0), 0.0, []
    for _ in range(4):
        now = begin(budget, now)
        begun.append(now)
    assert begun == [0.0, 0.5, 1.0, 1.5]


def test_a_quiet_second_is_not_saved_up():
    budget = LookBudget(2.0)
    budget.take(0.0)
    assert budget.room(100.0) == 1
    budget.take(100.0)
    assert budget.room(100.0) == 0
    assert budget.delay(100.0) == 0.5


@given(st.floats(0.01, 20_000), st.lists(st.tuples(st.floats(0, 3), st.integers(1, 50)), min_size=1, max_size=60))
def test_in_no_stretch_of_time_are_there_more_than_so_many_a_second(per_second, steps):
    budget, now, begun = LookBudget(per_second), 0.0, []
    for pause, wanted in steps:
        now += pause
        given_ = min(wanted, budget.room(now))
        assert (given_ == 0) == (budget.delay(now) > 0)
        if given_:
            budget.take(now, given_)
            begun.append((now, given_))
    for first, (since, _) in enumerate(begun):
        looks = 0
        for at, number in begun[first:]:
            looks += number
            assert looks <= (at - since + FINEST) * per_second + 2


def test_where_they_are_closer_than_it_is_worth_waking_up_they_begin_in_groups():
    budget, now, looks = LookBudget(5000.0), 0.0, 0
    wakings = 0
    while now < 1.0:
        now += budget.delay(now)
        looks += budget.room(now)
        budget.take(now, budget.room(now))
        wakings += 1
    assert looks == pytest.approx(5000, rel=0.02)
    assert wakings <= 1.05 / FINEST


def test_a_look_that_did_not_begin_leaves_its_place_to_another():
    budget = LookBudget(2.0)
    budget.take(0.0)
    budget.give_back()
    assert budget.room(0.0) == 1
    assert budget.delay(0.0) == 0.0


@given(st.integers(1, 100))
def test_giving_back_saves_nothing_up(number):
    budget = LookBudget(2.0)
    budget.take(0.0, number)
    for _ in range(number):
        budget.give_back()
    assert budget.room(0.0) == 1
