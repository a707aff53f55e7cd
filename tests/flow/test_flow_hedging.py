"""How many requests may be sent twice."""

import random

import pytest

from gts_async._flow.hedging import HedgeBudget


def test_the_first_twenty_earn_the_first():
    budget = HedgeBudget()
    spent = []
    for number in range(1, 101):
        budget.earn()
        if budget.spend():
            spent.append(number)
    assert spent == [20, 40, 60, 80, 100]


@pytest.mark.parametrize("seed", range(5))
def test_never_more_than_five_percent_are_hedged(seed):
    budget, chance = HedgeBudget(), random.Random(seed)
    spent = 0
    for number in range(1, 5001):
        budget.earn()
        while chance.random() < 0.5 and budget.spend():
            spent += 1
        assert spent <= 0.05 * number + 1e-6
    assert spent >= 200


def test_a_quiet_time_saves_up_ten_at_most():
    budget = HedgeBudget()
    for _ in range(100_000):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == 10


def test_without_requests_there_is_nothing_to_spend():
    assert not HedgeBudget().spend()
