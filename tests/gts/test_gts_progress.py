"""When a training counts as finished: each row is a life of a task as looks at it, and what must be believed of it."""

import pytest

from gts_async import EngineType, NotFound, ServerFailed, TaskInfo, TaskStatus, TransportError, WorkLost, WorkStalled
from gts_async.gts.progress import Before, RunProgress

# initialized, training, succeeded, failed, stopped, serving
I, T, S, F, X, V = [TaskStatus(n) for n in range(6)]  # noqa: E741
CRASH = ServerFailed("500", status=500)
GATEWAY = ServerFailed("502", status=502)
CUT = TransportError("cut")
GONE = NotFound("gone")


def look(status, test_acc=None):
    return TaskInfo(status, test_acc=test_acc)


def believed(progress, sightings, *, every=1.0):
    """Feed sightings, one per `every` seconds, and give the statuses believed, and whether the last one is final."""
    seen = []
    for number, sighting in enumerate(sightings):
        sighting = look(sighting) if isinstance(sighting, TaskStatus) else sighting
        seen += [info.status for info in progress.see(sighting, number * every)]
        if progress.final is not None:
            break
    return seen, progress.final is not None


def run(before, *, acc=None, engine=EngineType.BAGUALU):
    return RunProgress(Before(before, acc), engine_type=engine, started_at=0.0)


LIVES = [
    # what the task showed before the train call, what it shows after, what is believed
    (I, [I, I, T, S], [I, I, T, S]),
    (I, [I, S], [I, S]),
    (I, [F], [F]),
    (I, [I, T, X], [I, T, X]),
    (S, [S, S, T, S], [I, I, T, S]),
    (S, [S, F], [I, F]),
    (S, [V, S, T, F], [I, I, T, F]),
    (F, [F, F, T, F], [I, I, T, F]),
    (F, [F, S], [I, S]),
    (X, [X, T, X], [I, T, X]),
    (X, [X, F], [I, F]),
    (V, [V, V, T, S], [I, I, T, S]),
    (V, [V, S, T, S], [I, I, T, S]),
    (V, [S, V, T, V], [I, I, T, V]),
    (None, [CRASH, CRASH, CRASH, CRASH, T, CRASH, CRASH, CRASH], [I, I, I, I, T, S]),
    (None, [CRASH, V, T, CRASH, CRASH, CRASH], [I, I, T, S]),
    (None, [CRASH, F], [I, F]),
    (I, [I, T, CRASH, CRASH, CRASH], [I, T, S]),
    (I, [I, CRASH, CRASH, CRASH], [I, S]),
    (I, [I, CRASH, T, S], [I, T, S]),
    (I, [T, CRASH, T, CRASH, CRASH, T, S], [T, T, T, S]),
    (I, [T, CRASH, CRASH, CUT, T, F], [T, T, F]),
    (I, [CUT, GATEWAY, T, CUT, S], [T, S]),
    (F, [F, GONE, T, S], [I, T, S]),
]


@pytest.mark.parametrize(("before", "sightings", "expected"), LIVES)
def test_the_life_of_a_run_is_told_from_what_was_there_before(before, sightings, expected):
    assert believed(run(before), sightings) == (expected, True)


@pytest.mark.parametrize(
    ("before", "status"), [(S, S), (F, F), (X, X), (V, V), (None, CRASH), (V, S), (S, V), (None, V), (None, S), (I, I)]
)
def test_success_of_the_previous_run_is_not_believed_and_a_run_that_never_begins_stalls(before, status):
    progress = run(before)
    with pytest.raises(WorkStalled, match="not begun"):
        believed(progress, [status] * 1000)
    assert progress.final is None


def test_a_new_accuracy_proves_a_new_run_whose_training_was_missed():
    progress = run(S, acc=0.9, engine=EngineType.QIANKUNDING)
    assert believed(progress, [look(S, 0.9), look(S, 0.9), look(S, 0.91)]) == ([I, I, S], True)
    assert progress.final.test_acc == 0.91


def test_a_finished_bagualu_task_is_a_success_of_unknown_accuracy():
    progress = run(I)
    believed(progress, [T, CRASH, CRASH, CRASH])
    assert (progress.final.status, progress.final.test_acc) == (S, None)


def test_three_500s_in_an_instant_are_noise():
    progress = run(I)
    assert believed(progress, [T, CRASH, CRASH, CRASH, CRASH, CRASH, T], every=0.1) == ([T, T], False)


def test_one_500_that_several_watches_met_counts_once():
    progress = run(I)
    progress.see(look(T), 0.0)
    for now in (1.0, 1.0, 1.0, 3.0, 3.0, 3.0):
        assert progress.see(CRASH, now) == ()
    assert [info.status for info in progress.see(CRASH, 4.0)] == [S]


def test_no_number_of_500s_makes_a_qiankunding_task_succeed():
    assert believed(run(I, engine=EngineType.QIANKUNDING), [T, *[CRASH] * 50, S]) == ([T, S], True)


def test_a_gateways_500s_do_not_count_as_the_engines():
    assert believed(run(I), [T, *[GATEWAY] * 50]) == ([T], False)


def test_a_deleted_task_is_lost_after_a_moment():
    with pytest.raises(WorkLost):
        believed(run(I), [T, GONE, GONE, GONE])


@pytest.mark.parametrize("sightings", [[T, I], [S, I]])
def test_a_task_made_anew_is_not_this_run(sightings):
    with pytest.raises(WorkLost, match="anew"):
        believed(run(S), sightings)


def test_an_unknown_status_is_passed_on_and_settles_nothing():
    odd = TaskInfo(TaskStatus.UNKNOWN, code=9)
    assert believed(run(I), [T, odd, T, S]) == ([T, TaskStatus.UNKNOWN, T, S], True)


UNFENCED = [([S], [S]), ([V], [V]), ([I, T, F], [I, T, F]), ([CRASH, CRASH, CRASH], [S]), ([CRASH, T, X], [T, X])]


@pytest.mark.parametrize(("sightings", "expected"), UNFENCED)
def test_a_training_of_somebody_else_is_believed_as_it_is(sightings, expected):
    assert believed(RunProgress(None, engine_type=None, started_at=0.0), sightings) == (expected, True)


def test_a_task_that_never_was_is_not_found():
    with pytest.raises(NotFound):
        RunProgress(None, engine_type=None, started_at=0.0).see(GONE, 0.0)


@pytest.mark.parametrize("end", [S, F, X, V])
def test_training_is_passed_between_initialized_and_any_end(end):
    assert run(I).between(I, look(end, 0.9)) == (TaskInfo(T, "On Training"),)
    assert run(I).between(T, look(end)) == ()


@pytest.mark.parametrize("before", [S, F, X, V, None])
def test_looks_are_quick_until_a_run_on_a_used_task_has_begun(before):
    progress = run(before)
    assert progress.wants_look_within(0.0) == 0.1
    assert progress.wants_look_within(100.0) == 2.0
    progress.see(look(T), 100.0)
    assert progress.wants_look_within(100.0) is None
    assert run(I).wants_look_within(0.0) is None
