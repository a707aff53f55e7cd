"""The two dialects as data."""

import pickle

import attrs
import pytest

from gts_async._errors import InvalidArgument
from gts_async.sxwl.dialects import DIALECTS, dialect
from gts_async.sxwl.values import JobSpec, JobStatus, JobType


def test_the_known_dialects_are_found_by_name():
    assert [dialect(name).name for name in ("2023-12", "2024-04")] == ["2023-12", "2024-04"]


@pytest.mark.parametrize("name", ["2025-01", "", None, 2023, ["2023-12"]])
def test_an_unknown_dialect_is_refused_with_the_known_ones(name):
    with pytest.raises(InvalidArgument, match='use "2023-12" or "2024-04"'):
        dialect(name)


@pytest.mark.parametrize("each", DIALECTS, ids=lambda each: each.name)
def test_a_dialect_spells_fields_that_exist_and_every_job_type(each):
    fields = {field.name for field in attrs.fields(JobSpec)}
    assert {field for field, _ in each.spelling} <= fields
    assert each.as_text <= fields
    assert each.mark_field in fields
    assert set(each.job_types) == set(JobType)
    assert JobStatus.UNKNOWN not in each.words.values()


@pytest.mark.parametrize("each", DIALECTS, ids=lambda each: each.name)
def test_no_key_is_sent_twice(each):
    keys = [key for _, key in each.spelling]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("each", DIALECTS, ids=lambda each: each.name)
def test_a_dialect_can_be_pickled_and_hashed(each):
    assert pickle.loads(pickle.dumps(each)) == each
    assert hash(pickle.loads(pickle.dumps(each))) == hash(each)


def test_each_dialect_leaves_out_one_field():
    sent = {each.name: {field for field, _ in each.spelling} for each in DIALECTS}
    fields = {field.name for field in attrs.fields(JobSpec)}
    assert fields - sent["2023-12"] == {"mark"}
    assert fields - sent["2024-04"] == {"env"}
