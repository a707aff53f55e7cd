"""The timer wheel against the naive list of what is due when."""

import pytest
from hypothesis import given, strategies as st

from gts_async._flow.wheel import GRAIN, NEVER, Wheel


class Entry:
    due = NEVER


DUE = st.one_of(st.floats(0, 2), st.integers(0, 40).map(lambda n: n * GRAIN), st.floats(0, 1e5))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 5), DUE),
        st.tuples(st.just("call off"), st.integers(0, 5), st.just(0.0)),
        st.tuples(st.just("go on"), st.just(0), DUE),
        st.tuples(st.just("ask"), st.just(0), st.just(0.0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_it_gives_what_is_due_as_a_plain_list_would(steps):
    wheel, entries, due, now = Wheel(), [Entry() for _ in range(6)], {}, 0.0
    for what, number, value in steps:
        if what == "put":
            wheel.put(entries[number], now + value)
            due[number] = now + value
        elif what == "call off":
            entries[number].due = NEVER
            due.pop(number, None)
        elif what == "go on":
            now += value
            taken = wheel.take(now)
            expected = {n for n, when in due.items() if when <= now}
            assert sorted(map(entries.index, taken)) == sorted(expected)
            assert all(entries[n].due == NEVER for n in expected)
            due = {n: when for n, when in due.items() if n not in expected}
        else:
            soonest = wheel.soonest()
            assert (None if soonest is None else soonest.due) == min(due.values(), default=None)
    assert len(wheel.take(1e9)) == len(due)
    assert wheel.soonest() is None
    assert not wheel._buckets


def test_what_is_put_off_again_and_again_is_given_once():
    wheel, entry = Wheel(), Entry()
    for n in range(1000):
        wheel.put(entry, 1.0 + n * GRAIN / 500)
    assert wheel.take(1.0) == []
    assert wheel.take(2.0) == [entry]
    assert wheel.take(9.0) == []


def test_what_is_due_later_in_this_very_bucket_stays():
    wheel, now, later = Wheel(), Entry(), Entry()
    wheel.put(now, 1.01)
    wheel.put(later, 1.02)
    assert wheel.take(1.015) == [now]
    assert wheel.soonest() is later
    assert wheel.take(1.02) == [later]


def test_what_was_due_before_the_last_turn_of_the_wheel_is_not_lost():
    wheel, entry = Wheel(), Entry()
    assert wheel.take(10.0) == []
    wheel.put(entry, 3.0)
    assert wheel.take(10.0) == [entry]


@pytest.mark.parametrize("number", range(1, 200))
def test_a_due_time_on_the_edge_of_a_bucket_is_neither_early_nor_late(number):
    wheel, entry = Wheel(), Entry()
    wheel.put(entry, number * GRAIN)
    assert wheel.take(number * GRAIN - 1e-9) == []
    assert wheel.take(number * GRAIN) == [entry]
