"""When a job counts as finished: looks in, what is believed out."""

import pytest

from gts_async import JobInfo, JobStatus, NotFound, TransportError, WorkLost
from gts_async.sxwl.progress import JobProgress

W, S, F, X = JobStatus.WORKING, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED
URL = "https://store.test/data.zip?Signature=x"
GONE = NotFound("{}")
CUT = TransportError("cut")


def progress(*, is_known=True, has_urls=True, fails_may_turn=True):
    return JobProgress(is_known=is_known, has_urls=has_urls, fails_may_turn=fails_may_turn)


def believed(rules, sightings):
    """Feed (time, sighting) pairs; give what is believed and whether it is final."""
    seen = []
    for now, sighting in sightings:
        if isinstance(sighting, JobStatus):
            sighting = JobInfo(sighting, URL if sighting is S else None)
        seen += [look.status for look in rules.see(sighting, now)]
    return seen, rules.final is not None


NO_URL = JobInfo(S)

LIVES = [
    ([(0, W), (10, S)], [W, S], True),
    ([(0, S)], [S], True),
    ([(0, X)], [X], True),
    ([(0, W), (10, CUT), (20, W)], [W, W], False),
    # a fail must last
    ([(0, W), (10, F)], [W], False),
    ([(0, W), (10, F), (39, F)], [W], False),
    ([(0, W), (10, F), (40, F)], [W, F], True),
    # and may turn
    ([(0, W), (10, F), (20, S)], [W, F, S], True),
    ([(0, W), (10, F), (20, W), (30, F), (50, F)], [W, F, W], False),
    ([(0, W), (10, F), (20, CUT), (45, F)], [W, F], True),
    # a success without its URL has a moment
    ([(0, NO_URL), (29, NO_URL)], [], False),
    ([(0, NO_URL), (10, S)], [S], True),
    ([(0, NO_URL), (30, NO_URL)], [S], True),
    ([(0, NO_URL), (10, W), (20, S)], [S, W, S], True),
    # a job that was there may be away for a moment
    ([(0, W), (10, GONE), (20, W), (60, GONE), (80, GONE)], [W, W], False),
]


@pytest.mark.parametrize(("sightings", "expected", "is_final"), LIVES)
def test_the_life_of_a_job(sightings, expected, is_final):
    assert believed(progress(), sightings) == (expected, is_final)


def test_a_success_without_a_url_ends_without_one():
    rules = progress()
    believed(rules, [(0, NO_URL), (31, NO_URL)])
    assert rules.final.url is None


def test_the_newer_dialect_has_no_urls_and_final_fails():
    assert believed(progress(has_urls=False), [(0, NO_URL)]) == ([S], True)
    assert believed(progress(fails_may_turn=False), [(0, F)]) == ([F], True)


def test_a_job_that_never_was_is_not_found_at_once():
    with pytest.raises(NotFound):
        progress(is_known=False).see(GONE, 0.0)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_job_that_was_there_is_lost_after_a_grace(is_known):
    rules = progress(is_known=is_known)
    if not is_known:
        rules.see(JobInfo(W), 0.0)
    assert rules.see(GONE, 10.0) == ()
    with pytest.raises(WorkLost):
        rules.see(GONE, 40.0)


def test_running_is_passed_on_the_way_to_success():
    assert progress().between(JobStatus.PENDING, JobInfo(S)) == (JobInfo(JobStatus.RUNNING),)
    assert progress().between(W, JobInfo(S)) == ()
