"""What is learned of how long stages take."""

import pytest
from hypothesis import given, strategies as st

from gts_async._flow.experience import Duration, Experience
from tests.flow.conftest import Stage

QUEUED, RUNNING = Stage.QUEUED, Stage.RUNNING


def test_stays_and_rests_are_learned_for_each_kind_and_status():
    known = Experience()
    known.learn("small", {QUEUED: 0.0, RUNNING: 10.0}, 40.0)
    known.learn("large", {RUNNING: 0.0}, 1000.0)
    assert known.stay("small", QUEUED).mean == 10.0
    assert known.stay("small", RUNNING).mean == 30.0
    assert known.rest("small", QUEUED).mean == 40.0
    assert known.rest("large", RUNNING).mean == 1000.0
    assert known.stay("large", QUEUED) is known.rest("other", RUNNING) is None


def test_the_newest_counts_most_and_the_spread_tells_how_much_they_differ():
    duration = Duration(100.0, 25.0)
    for _ in range(30):
        duration.learn(200.0)
    assert duration.mean == pytest.approx(200, rel=0.01)
    assert duration.spread < 5


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_the_mean_stays_within_what_was_seen_and_the_spread_is_never_negative(seconds):
    duration = Duration(seconds[0], seconds[0] / 4)
    for value in seconds[1:]:
        duration.learn(value)
    assert min(seconds) - 1e-6 <= duration.mean <= max(seconds) + 1e-6
    assert 0 <= duration.spread <= max(seconds)
