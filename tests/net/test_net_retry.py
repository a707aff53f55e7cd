from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from gts_async import InvalidArgument, RetryPolicy
from gts_async._net.retry import RetryBudget, retry_after


@pytest.mark.parametrize(
    ("attempt", "chance", "wait"),
    [(1, 0.0, 0.0), (1, 0.5, 0.125), (2, 0.5, 0.25), (3, 0.5, 0.5), (3, 0.999, 0.999), (4, 0.5, None), (9, 0.5, None)],
)
def test_the_wait_is_a_random_part_of_a_doubling_ceiling(attempt, chance, wait):
    assert RetryPolicy().delay(attempt, chance) == wait


def test_the_third_retry_waits_at_most_one_second():
    assert RetryPolicy().delay(3, 1.0) == 1.0


def test_retry_after_is_waited_for_and_a_long_one_ends_the_call():
    assert RetryPolicy().delay(1, 0.5, retry_after=7.0) == 7.0
    assert RetryPolicy().delay(1, 0.5, retry_after=60.5) is None


@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True), st.one_of(st.none(), st.floats(0, 1e6)))
def test_a_wait_is_never_before_retry_after_nor_above_the_maximum(attempt, chance, retry_after):
    policy = RetryPolicy(max_attempts=4000)
    wait = policy.delay(attempt, chance, retry_after)
    if wait is None:
        assert attempt >= 4000 or (retry_after is not None and retry_after > policy.max_retry_after)
    else:
        assert (retry_after or 0.0) <= wait <= max(policy.maximum, retry_after or 0.0)


@given(st.lists(st.booleans(), max_size=3000))
def test_a_dead_server_sees_at_most_a_fourteenth_of_the_budget_more(successes):
    budget = RetryBudget(500)
    again = 0
    for is_success in successes:
        if is_success:
            budget.earn()
        else:
            again += budget.spend(RetryBudget.FAILURE)
    assert again <= (500 + sum(successes)) / 14
    assert 0 <= budget.left <= 500


@pytest.mark.parametrize(
    "wrong", [{"max_attempts": 0}, {"initial": -1}, {"maximum": float("inf")}, {"max_retry_after": float("nan")}]
)
def test_a_policy_that_cannot_work_is_refused(wrong):
    with pytest.raises(InvalidArgument) as caught:
        RetryPolicy(**wrong)
    assert caught.value.argument == next(iter(wrong))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0.0), ("7", 7.0), ("0.2", 0.2), ("9" * 20, 1e20), ("9" * 500, float("inf")), ("1e9", None), (".5", None)],
)
def test_a_server_that_asks_for_ages_is_not_asked_sooner(header, seconds):
    assert retry_after(header, datetime(2024, 1, 1, tzinfo=UTC)) == seconds
