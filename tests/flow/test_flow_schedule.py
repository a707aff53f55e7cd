import pytest
from hypothesis import given, strategies as st

from gts_async import InvalidArgument, Schedule
from gts_async._flow.schedule import CLOUD_BOUNDS, ENGINE_BOUNDS


@pytest.mark.parametrize(
    ("in_status", "chance", "interval"),
    [
        (0.0, 0.5, 0.5),
        (9.9, 0.5, 0.5),
        (60.0, 0.5, 3.0),
        (300.0, 0.5, 15.0),
        (86_400.0, 0.5, 15.0),
        (60.0, 0.0, 2.7),
        (60.0, 1.0, 3.3),
    ],
)
def test_the_interval_grows_with_the_time_in_the_status(in_status, chance, interval):
    assert Schedule().within(ENGINE_BOUNDS).interval(in_status, chance) == pytest.approx(interval)


@given(st.floats(0, 1e9), st.floats(0, 1, exclude_max=True))
def test_no_interval_leaves_its_bounds_by_more_than_the_jitter(in_status, chance):
    low, high = CLOUD_BOUNDS
    interval = Schedule(jitter=0.1).within(CLOUD_BOUNDS).interval(in_status, chance)
    assert 0.9 * low <= interval <= 1.1 * high + 1e-9


@pytest.mark.parametrize(
    ("given_", "bounds"),
    [
        ({}, (0.5, 15.0)),
        ({"minimum": 1.0}, (1.0, 15.0)),
        ({"maximum": 60.0}, (0.5, 60.0)),
        ({"minimum": 30.0}, (30.0, 30.0)),
        ({"maximum": 0.1}, (0.1, 0.1)),
        ({"minimum": 1.0, "maximum": 2.0}, (1.0, 2.0)),
    ],
)
def test_the_services_bounds_stand_where_none_are_set(given_, bounds):
    schedule = Schedule(**given_).within(ENGINE_BOUNDS)
    assert (schedule.minimum, schedule.maximum) == bounds


@pytest.mark.parametrize(
    "wrong",
    [
        {"fraction": -0.1},
        {"fraction": 1.1},
        {"jitter": 1.0},
        {"jitter": float("nan")},
        {"minimum": 0},
        {"maximum": float("inf")},
        {"minimum": 3, "maximum": 2},
    ],
)
def test_a_schedule_that_cannot_work_is_refused(wrong):
    with pytest.raises(InvalidArgument) as caught:
        Schedule(**wrong)
    assert caught.value.argument == next(iter(wrong))
