import itertools
import json

import pytest

from gts_async.local.sample import LABELS, sample_rows, write_sample


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample") / "made")


def test_the_four_files_have_the_names_that_the_quick_start_uploads(sample):
    assert [path.name for path in sample] == ["train.json", "dev.json", "test.json", "labels.json"]


def test_the_rows_are_split_in_three_and_no_text_or_id_occurs_twice(sample):
    parts = [rows_of(path) for path in sample[:3]]
    assert [len(part) for part in parts] == [600, 200, 200]
    rows = [*itertools.chain(*parts)]
    assert len({row["content"] for row in rows}) == len({row["id"] for row in rows}) == 1000
    assert all(type(row["id"]) is int for row in rows)


def test_every_topic_is_trained_about_equally_often(sample):
    labels = [row["label"] for row in rows_of(sample.train)]
    assert rows_of(sample.labels) == [{"labels": list(LABELS)}]
    assert set(labels) == set(LABELS)
    assert len(LABELS) >= 5
    assert all(abs(labels.count(label) - 100) < 30 for label in LABELS)


def test_the_same_seed_gives_the_same_files_and_another_one_others(sample, tmp_path):
    again, other = write_sample(tmp_path / "again"), write_sample(tmp_path / "other", seed=7)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in sample]
    assert other.train.read_bytes() != sample.train.read_bytes()


def test_texts_are_short_headlines_in_chinese(sample):
    texts = [row["content"] for row in rows_of(sample.test)]
    assert all(8 <= len(text) <= 40 for text in texts)
    assert all(not any(sign.isascii() for sign in text) for text in texts)


def test_rows_to_predict_are_mostly_new(sample):
    trained = {row["content"] for row in rows_of(sample.train)}
    rows = sample_rows(500)
    assert all(row.keys() == {"content"} for row in rows)
    assert len({row["content"] for row in rows}) == 500
    assert sum(row["content"] in trained for row in rows) < 50
    assert rows == sample_rows(500)


@pytest.mark.parametrize("rows", [0, 59, 20_001])
def test_a_size_that_cannot_train_or_cannot_be_drawn_is_refused(tmp_path, rows):
    with pytest.raises(ValueError, match="60 to 20000"):
        write_sample(tmp_path / "none", rows=rows)
    assert not (tmp_path / "none").exists()


def test_a_single_row_to_predict_can_be_had_and_none_cannot():
    assert len(sample_rows(1)) == 1
    with pytest.raises(ValueError, match="1 to 20000"):
        sample_rows(0)


def test_the_largest_sample_can_be_drawn(tmp_path):
    assert len(rows_of(write_sample(tmp_path, rows=20_000).train)) == 12_000
