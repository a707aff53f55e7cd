"""What inference statistics count, and how near their latencies are."""

import math

import pytest

from gts_async import InvalidArgument
from gts_async._statistics import InferenceStats


def recorded(*seconds, samples=1):
    stats = InferenceStats()
    for each in seconds:
        stats.record(samples, each)
    return stats


def test_nothing_has_a_mean_of_nothing_and_no_latency():
    stats = InferenceStats()
    assert stats.mean_batch == 0.0
    assert math.isnan(stats.latency(0.5))
    assert str(stats) == "0 samples in 0 batches (mean 0.0)"


def test_samples_and_batches_are_counted():
    stats = InferenceStats()
    stats.record(64, 0.1)
    stats.record(16, 0.1)
    assert (stats.samples, stats.batches, stats.mean_batch) == (80, 2, 40.0)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("scale", [1e-5, 1e-3, 1.0, 60.0])
def test_a_latency_is_right_to_two_and_a_half_percent(share, scale):
    seconds = [scale * (1 + number / 100) for number in range(1000)]
    exact = seconds[max(0, math.ceil(share * len(seconds)) - 1)]
    assert recorded(*seconds).latency(share) == pytest.approx(exact, rel=0.025)


def test_one_late_answer_of_a_thousand_shows_in_the_tail_only():
    stats = recorded(*[0.01] * 999, 5.0)
    assert stats.latency(0.999) == pytest.approx(0.01, rel=0.025)
    assert stats.latency(1.0) == pytest.approx(5.0, rel=0.025)


@pytest.mark.parametrize(("seconds", "kept"), [(0.0, 1e-6), (-1.0, 1e-6), (1e-9, 1e-6), (1e9, 1e5)])
def test_what_cannot_be_is_counted_at_the_ends(seconds, kept):
    assert recorded(seconds).latency(0.5) == pytest.approx(kept, rel=0.03)


@pytest.mark.parametrize("share", [-0.1, 1.1, 50, math.nan])
def test_a_share_is_from_0_to_1(share):
    with pytest.raises(InvalidArgument, match="share"):
        recorded(1.0).latency(share)


def test_a_total_is_as_if_one_had_recorded_everything():
    one, other = recorded(0.01, 0.02, samples=3), recorded(0.5, samples=5)
    one.retries, one.hedges, other.retries, other.reloads = 1, 2, 10, 4
    whole = InferenceStats.total([one, other])
    assert (whole.samples, whole.batches) == (11, 3)
    assert (whole.retries, whole.reloads, whole.hedges) == (11, 4, 2)
    assert whole.latency(0.5) == pytest.approx(0.02, rel=0.025)
    assert whole.latency(1.0) == pytest.approx(0.5, rel=0.025)
    one.record(1, 9.0)
    assert whole.batches == 3


def test_what_is_shown_is_short_and_leaves_out_what_did_not_happen():
    stats = recorded(0.0123, samples=64)
    assert repr(stats) == "InferenceStats(samples=64, batches=1, retries=0, reloads=0, hedges=0)"
    stats.reloads = 2
    assert str(stats) == "64 samples in 1 batches (mean 64.0), p50 12.6 ms, p99 12.6 ms, 2 reloads"
