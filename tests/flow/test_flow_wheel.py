"""The timer wheel against the naive list of what is due when."""

import pytest
from hypothesis import given, strategies as st

from gts_async._flow.wheel import GRAIN, NEVER, Wheel


class Entry:
    bucket = None


def take(wheel, now):
    """Give what is due by `now` as the wheel's user finds it out, who then forgets the bucket."""
    taken = []
    for bucket in wheel.take(now):
        assert bucket.has_come
        assert bucket.due <= now
        for entry in bucket:
            if entry.bucket is bucket:
                entry.bucket = None
                taken.append(entry)
    return taken


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
            entries[number].bucket = None
            due.pop(number, None)
        elif what == "go on":
            now += value
            expected = {n for n, when in due.items() if when <= now}
            assert sorted(map(entries.index, take(wheel, now))) == sorted(expected)
            due = {n: when for n, when in due.items() if n not in expected}
        else:
            assert wheel.soonest() == min(due.values(), default=NEVER)
    assert len(take(wheel, 1e9)) == len(due)
    assert wheel.soonest() == NEVER
    assert not wheel._buckets


@given(STEPS)
def test_a_coarse_one_gives_each_at_most_a_grain_late_and_never_early(steps):
    wheel, entries, due, now = Wheel(), [Entry() for _ in range(6)], {}, 0.0
    wheel.is_coarse = True
    for what, number, value in steps:
        if what == "put":
            wheel.put(entries[number], now + value)
            due[number] = now + value
        elif what == "call off":
            entries[number].bucket = None
            due.pop(number, None)
        elif what == "go on":
            now += value
            taken = {entries.index(entry) for entry in take(wheel, now)}
            assert all(due[n] <= now for n in taken)
            due = {n: when for n, when in due.items() if n not in taken}
            assert all(when > now - GRAIN * 1.001 for when in due.values())
        elif due:
            assert 0 <= wheel.soonest() - min(due.values()) <= GRAIN * 1.001
    assert len(take(wheel, 1e9)) == len(due)


def test_thousands_share_the_buckets_of_a_coarse_one():
    wheel = Wheel()
    wheel.is_coarse = True
    for n in range(10_000):
        wheel.put(Entry(), 100.0 + n / 10_000)
    assert len(wheel._buckets) <= 1 / GRAIN + 1


def test_what_is_put_off_again_and_again_is_given_once():
    wheel, entry = Wheel(), Entry()
    for n in range(1000):
        wheel.put(entry, 1.0 + n * GRAIN / 500)
    assert take(wheel, 1.0) == []
    assert take(wheel, 2.0) == [entry]
    assert take(wheel, 9.0) == []


def test_what_was_put_back_into_its_old_bucket_is_given_once():
    wheel, entry = Wheel(), Entry()
    for due in (1.0, 2.0, 1.0):
        wheel.put(entry, due)
    assert take(wheel, 1.0) == [entry]
    assert take(wheel, 9.0) == []


def test_what_was_due_before_the_last_turn_of_the_wheel_is_not_lost():
    wheel, entry = Wheel(), Entry()
    assert take(wheel, 10.0) == []
    wheel.put(entry, 3.0)
    assert take(wheel, 10.0) == [entry]


@pytest.mark.parametrize("number", range(1, 200))
def test_a_due_time_on_the_edge_of_a_bucket_is_neither_early_nor_late(number):
    wheel, entry = Wheel(), Entry()
    wheel.put(entry, number * GRAIN)
    assert take(wheel, number * GRAIN - 1e-9) == []
    assert take(wheel, number * GRAIN) == [entry]
