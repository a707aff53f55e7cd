import pytest
from hypothesis import given, strategies as st

from gts_async import InvalidArgument, Schedule
from gts_async._flow.experience import Duration
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


@pytest.mark.parametrize(
    ("in_status", "interval"),
    [
        (1.0, 0.5),  # just changed: what has gone wrong at once shows now
        (1.9, 0.5),
        (2.0, 10.0),  # 5 % of what is usual, not of the time so far
        (100.0, 10.0),
        (171.0, 9.0),  # not past the beginning of the usual end
        (178.0, 5.0),  # near it: a quarter of the spread
        (181.0, 5.0),
        (219.0, 5.0),
        (221.0, 11.05),  # later than usual: as if nothing were known
        (1000.0, 15.0),
    ],
)
def test_where_the_usual_time_is_known_it_shapes_the_interval(in_status, interval):
    schedule = Schedule(jitter=0).within(ENGINE_BOUNDS)
    assert schedule.interval(in_status, 0.5, Duration(200.0, 20.0)) == pytest.approx(interval)


@given(st.floats(0, 1e9), st.floats(0, 1, exclude_max=True), st.floats(0, 1e9), st.floats(0, 1e9))
def test_what_is_usual_moves_no_interval_out_of_its_bounds(in_status, chance, mean, spread):
    low, high = CLOUD_BOUNDS
    interval = Schedule(jitter=0.1).within(CLOUD_BOUNDS).interval(in_status, chance, Duration(mean, spread))
    assert 0.9 * low <= interval <= 1.1 * high + 1e-9
