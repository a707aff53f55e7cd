"""What the newest latencies tell, and how long a failed server is left alone."""

import pytest

from gts_async._flow.pauses import Pauses
from gts_async._flow.recent import Recent


def seen(*answers, size=64):
    recent = Recent(size)
    for rows, seconds in answers:
        recent.add(rows, seconds)
    return recent


def test_few_answers_tell_nothing():
    recent = seen(*[(64, 0.1)] * 7)
    assert recent.quantile(0.99, 64) is None
    assert recent.typical is None
    recent.add(64, 0.1)
    assert recent.quantile(0.99, 64) == recent.typical == 0.1


@pytest.mark.parametrize(("share", "seconds"), [(0.0, 1), (0.5, 51), (0.95, 96), (0.99, 100), (1.0, 100)])
def test_a_share_of_the_answers_came_within_its_quantile(share, seconds):
    recent = seen(*[(1, number) for number in range(1, 101)], size=100)
    assert recent.quantile(share, 1) == seconds


@pytest.mark.parametrize(("rows", "seconds"), [(1, 0.1), (10, 0.1), (20, 0.2), (1000, 10.0)])
def test_larger_requests_may_take_longer_in_proportion_and_smaller_ones_as_long(rows, seconds):
    assert seen(*[(10, 0.1)] * 20).quantile(0.5, rows) == pytest.approx(seconds)


def test_only_the_newest_count():
    recent = seen(*[(1, 9.0)] * 100, *[(1, 0.1)] * 10, size=10)
    assert recent.quantile(1.0, 1) == recent.typical == 0.1


def test_the_typical_time_is_divided_among_those_in_flight():
    recent = Recent()
    for _ in range(8):
        recent.add(64, 0.4, at_once=4)
    assert recent.typical == pytest.approx(0.1)
    assert recent.quantile(0.5, 64) == 0.4


def test_forgetting_leaves_nothing():
    recent = seen(*[(64, 0.1)] * 20)
    recent.clear()
    assert recent.typical is recent.quantile(0.5, 64) is None


def test_pauses_double_up_to_a_minute():
    pauses = Pauses()
    assert [pauses.next(0.0) for _ in range(6)] == [5, 10, 20, 40, 60, 60]


def test_a_fifth_of_a_pause_is_up_to_chance():
    assert Pauses().next(0.5) == pytest.approx(4.5)
    assert Pauses().next(0.999) >= 4.0


def test_ten_good_answers_make_the_next_pause_the_shortest_again():
    pauses = Pauses()
    assert [pauses.next(0.0) for _ in range(3)] == [5, 10, 20]
    for _ in range(9):
        pauses.answered()
    assert pauses.next(0.0) == 40
    for _ in range(10):
        pauses.answered()
    assert pauses.next(0.0) == 5


def test_thousands_of_pauses_are_no_overflow():
    pauses = Pauses()
    assert {pauses.next(0.0) for _ in range(3000)} == {5, 10, 20, 40, 60}
