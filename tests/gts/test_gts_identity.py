"""What shows that another model answers, and what does not."""

import pytest

from gts_async.gts import samples
from gts_async.gts.identity import MAX_MOMENTS, PROBE_EVERY, PROBED_FROM, PROBES, Identity, alike, fingerprint
from gts_async.gts.values import Entity, Extraction, Prediction, Summary, TaskType


def predicted(*probabilities, label="a"):
    return Prediction(label, max(probabilities), probabilities)


def found(*entities):
    return Extraction(
        "李明住在上海", tuple(Entity("", kind, start, end, score) for kind, start, end, score in entities)
    )


NAME, PLACE = ("人名", 0, 2), ("地名", 4, 6)

PAIRS = [
    (predicted(0.25, 0.75), predicted(0.25, 0.75), True),
    (predicted(0.25, 0.75), predicted(0.2500001, 0.7499999), True),
    (predicted(0.25, 0.75), predicted(0.26, 0.74), False),
    (predicted(0.25, 0.75), predicted(0.25, 0.5, 0.25), False),
    # Two sure models: the small numbers tell.
    (predicted(0.999, 0.001), predicted(0.9985, 0.0015), False),
    (predicted(0.9999999, 0.0000001), predicted(0.9999995, 0.0000005), True),
    (found((*NAME, 0.999), (*PLACE, 0.6)), found((*NAME, 0.999)), True),
    (found((*NAME, 0.999)), found((*NAME, 0.998)), False),
    (found((*NAME, 0.999)), found((*PLACE, 0.999)), False),
    (found((*NAME, 0.999)), found(), False),
    (found(), found((*NAME, 0.51)), True),
    (found(), found((*NAME, 0.999)), False),
    (found(), found(), True),
    (Summary("one"), Summary("another"), True),
    (Summary("one"), predicted(1.0), False),
]


@pytest.mark.parametrize(("one", "other", "is_alike"), PAIRS)
def test_the_same_model_is_told_from_another_by_odds(one, other, is_alike):
    assert alike(one, other) is is_alike


@pytest.mark.parametrize(("one", "other", "is_alike"), [pair for pair in PAIRS if isinstance(pair[0], Prediction)])
def test_fingerprints_of_predictions_agree_with_that(one, other, is_alike):
    assert (fingerprint(one) == fingerprint(other)) is is_alike


def test_fingerprints_tell_extractions_and_summaries_apart():
    results = [found(), found((*NAME, 0.9)), found((*NAME, 0.95)), found((*PLACE, 0.9)), Summary("a"), Summary("b")]
    assert len({fingerprint(result) for result in results}) == len(results)
    assert fingerprint(predicted(0.25, 0.75, label="a")) != fingerprint(predicted(0.25, 0.75, label="b"))


FIRST = predicted(0.1, 0.9, label="b")

DOUBTS = [
    ([predicted(0.8, 0.2, label="a")], None, None),
    ([predicted(0.2, 0.8, label="b")], None, None),
    ([predicted(0.2, 0.8, label="a")], None, "label 1 is 'a' and not 'b'"),
    ([predicted(0.5, 0.5, label="z")], None, None),
    ([predicted(0.2, 0.3, 0.5, label="c")], None, "3 labels and not 2"),
    ([], predicted(0.1, 0.9, label="b"), None),
    ([], predicted(0.2, 0.8, label="b"), "another answer than before"),
    ([], predicted(0.2, 0.8, label="c"), "label 1 is 'c' and not 'b'"),
    ([Summary("x")], None, None),
]


@pytest.mark.parametrize(("results", "probed", "problem"), DOUBTS)
def test_what_cannot_come_from_the_model_of_before_is_told(results, probed, problem):
    identity = Identity()
    assert identity.doubt([], FIRST, 0.5, 1.0) is None
    doubt = identity.doubt(results, probed, 1.5, 2.0)
    assert doubt is None if problem is None else problem in doubt


def test_answers_since_the_last_probe_are_counted():
    identity = Identity()
    assert identity.doubt([FIRST] * 3, FIRST, 0.0, 1.0) is None
    assert identity.unsure == "no answer was wrong"
    for now in (2.0, 3.0):
        identity.doubt([FIRST] * 5, None, 1.5, now)
    assert identity.doubt([FIRST], predicted(0.3, 0.7, label="b"), 3.0, 3.5) is not None
    assert identity.unsure == "the 10 answers before may be another model's"
    # A probe that was sent before the last ones were answered says nothing of them.
    identity.doubt([], FIRST, 2.5, 4.0)
    assert identity.doubtful == 5
    identity.doubt([], FIRST, 3.0, 4.0)
    assert identity.doubtful == 0


def test_answers_that_nothing_proves_are_counted_in_bounded_memory():
    identity = Identity()
    for now in range(10 * MAX_MOMENTS):
        identity.doubt([Summary("x")] * 2, None, now, now + 0.5)
    assert identity.doubtful == 20 * MAX_MOMENTS
    assert len(identity._unsure) == MAX_MOMENTS


def test_the_probe_is_due_first_with_many_rows_and_after_a_while():
    identity = Identity()
    kind = TaskType.CLASSIFICATION
    assert identity.is_due(kind, 1, 100.0)
    identity.doubt([], FIRST, 100.0, 100.0)
    assert [identity.is_due(kind, rows, 100.5) for rows in (1, PROBED_FROM - 2)] == [False, False]
    assert not identity.is_due(kind, PROBED_FROM, 100.5, has_room=False)
    assert identity.is_due(kind, PROBED_FROM - 1, 100.5)
    # Asked with that one, it is not due with those that are in flight at the same time.
    assert not identity.is_due(kind, 1, 100.5 + PROBE_EVERY - 0.1)
    assert identity.is_due(kind, 1, 100.5 + PROBE_EVERY)
    assert not identity.is_due(kind, 1, 100.5 + PROBE_EVERY)
    assert identity.is_due(kind, 1, 100.5 + PROBE_EVERY, has_room=False, must=True)
    assert not identity.is_due(TaskType.SUMMARY, 1000, 1000.0, must=True)
    identity.can_probe = False
    assert not identity.is_due(kind, 1000, 1000.0)


@pytest.mark.parametrize("kind", TaskType)
def test_each_task_type_has_a_probe_that_is_a_row(kind):
    assert samples.prepare(kind, PROBES[kind]) == PROBES[kind]
