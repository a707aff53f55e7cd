"""How many requests one server gets at once."""

from collections import deque

import pytest

from gts_async._flow.allowance import Allowance


class Filled:
    """Keeps the window of an allowance full."""

    def __init__(self, allowance):
        self.allowance = allowance
        self.sent = deque()

    def answer(self, count, seconds=0.01, rows=64):
        """Have so many answered, first come first served, each replaced by a new one if there is room."""
        for _ in range(count):
            self._fill()
            self.allowance.leave()
            took = seconds(self.allowance) if callable(seconds) else seconds
            self.allowance.answered(self.sent.popleft(), rows, took)

    def empty(self):
        """End all that is in flight without a word."""
        while self.allowance.in_flight:
            self.allowance.leave()
        self.sent.clear()

    def _fill(self):
        while self.allowance.in_flight < self.allowance.size:
            self.sent.append(self.allowance.send())


@pytest.fixture
def allowance():
    """Give one that has not seen anything."""
    return Allowance()


@pytest.fixture
def filled(allowance):
    """Give what keeps it full."""
    return Filled(allowance)


def test_it_begins_with_two_and_grows_by_one_for_each_full_window(allowance, filled):
    sizes = []
    for _ in range(100):
        filled.answer(1)
        sizes.append(allowance.size)
    counts = [sizes.count(size) for size in range(2, 10)]
    # The first of the first window was sent when it was not full; that which fills a new place was sent for the last.
    assert counts == [2, 4, 5, 6, 7, 8, 9, 10]


def test_it_grows_to_sixteen_and_no_further(allowance, filled):
    filled.answer(1000)
    assert allowance.size == 16


@pytest.mark.parametrize("most", [1, 3])
def test_it_grows_to_what_it_is_told_and_no_further(most):
    allowance = Allowance(most)
    Filled(allowance).answer(100)
    assert allowance.size == most


def test_what_is_not_used_does_not_grow(allowance):
    for _ in range(100):
        sent = allowance.send()
        allowance.leave()
        allowance.answered(sent, 64, 0.01)
    assert allowance.size == 2


def test_failures_halve_it_down_to_one(allowance, filled):
    filled.answer(1000)
    sizes = []
    for _ in range(6):
        allowance.failed(allowance.send())
        sizes.append(allowance.size)
    assert sizes == [8, 4, 2, 1, 1, 1]


def test_requests_that_were_sent_before_a_halving_do_not_halve_again(allowance, filled):
    filled.answer(1000)
    sent = [allowance.send() for _ in range(16)]
    for each in sent:
        allowance.failed(each)
    assert allowance.size == 8


def test_a_window_of_late_answers_halves_it(allowance, filled):
    filled.answer(1000, seconds=0.01)
    filled.answer(15, seconds=0.05)
    assert allowance.size == 16
    filled.answer(1, seconds=0.05)
    assert allowance.size == 8


def test_one_late_answer_among_good_ones_halves_nothing(allowance, filled):
    filled.answer(1000, seconds=0.01)
    for _ in range(100):
        filled.answer(10, seconds=1.0)
        filled.answer(1, seconds=0.01)
    assert allowance.size == 16


def test_large_requests_are_not_late_because_small_ones_were_quick(allowance, filled):
    filled.answer(1000, seconds=0.005, rows=1)
    for _ in range(100):
        filled.answer(1, seconds=0.5, rows=64)
        assert allowance.size == 16


def test_what_one_request_takes_alone_is_the_best_from_then_on(allowance, filled):
    filled.answer(50, seconds=0.01)
    filled.empty()
    sent = allowance.send()
    allowance.leave()
    allowance.answered(sent, 64, 0.1)
    filled.answer(1000, seconds=0.2)
    assert allowance.size == 16


def test_a_server_that_comes_back_begins_with_one(allowance, filled):
    filled.answer(1000, seconds=0.001)
    old = allowance.send()
    allowance.begin_anew()
    assert allowance.size == 1
    allowance.failed(old)
    filled.empty()
    filled.answer(100, seconds=10.0)
    assert allowance.size > 8


def test_a_fifo_device_is_not_overrun(allowance, filled):
    """Each request takes 10 ms of one device, so that with n in flight each takes n times as long."""
    sizes = []
    for _ in range(500):
        filled.answer(1, seconds=lambda now: 0.01 * (now.in_flight + 1))
        sizes.append(allowance.size)
    # The best it has seen is two at once; four times that is eight at once.
    assert (min(sizes), max(sizes)) == (2, 9)
    assert sizes[-100:].count(1) == 0


def test_the_load_is_the_share_in_flight(allowance):
    assert allowance.load == 0
    allowance.send()
    assert allowance.load == 0.5
