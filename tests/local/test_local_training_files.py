import os

import pytest

from gts_async.local.files import FolderFiles, remove_empty, write_whole


@pytest.fixture
def files(tmp_path):
    return FolderFiles(tmp_path / "engine")


def test_each_file_lies_in_its_tasks_data_folder(files, tmp_path):
    files.write("topics", "训练.json", b"one")
    assert (tmp_path / "engine/topics/data/训练.json").read_bytes() == b"one"
    assert files.read("topics", "训练.json") == b"one"


def test_a_second_upload_replaces_the_first_and_leaves_nothing_beside_it(files):
    files.write("t", "train.json", b"a long first content")
    files.write("t", "train.json", b"short")
    assert files.read("t", "train.json") == b"short"
    assert os.listdir(files.path("t", "train.json").parent) == ["train.json"]


@pytest.mark.parametrize(("task_id", "name"), [("t", "other.json"), ("u", "train.json")])
def test_a_file_that_is_not_there_is_a_key_error(files, task_id, name):
    files.write("t", "train.json", b"x")
    with pytest.raises(KeyError):
        files.read(task_id, name)


UNSAFE = ["", ".", "..", "a/b", "../x", "/etc/passwd", "a\\b", "a\0b", "é" * 128, "\ud800"]


@pytest.mark.parametrize("name", UNSAFE)
def test_a_name_that_would_leave_its_folder_is_refused(files, name):
    for attempt in (
        lambda: files.write("t", name, b"x"),
        lambda: files.read("t", name),
        lambda: files.write(name, "train.json", b"x"),
        lambda: files.read(name, "train.json"),
        lambda: files.remove(name),
    ):
        with pytest.raises(ValueError, match=r"name|task_id"):
            attempt()
    assert not files.root.exists()


def test_a_name_of_as_many_bytes_as_a_file_system_takes_is_kept(files):
    files.write("t", "a" * 255, b"x")
    assert files.read("t", "a" * 255) == b"x"


def test_removing_a_task_leaves_other_tasks_alone(files):
    files.write("t", "train.json", b"x")
    files.write("u", "train.json", b"y")
    files.remove("t")
    files.remove("never there")
    assert os.listdir(files.root) == ["u"]
    assert files.read("u", "train.json") == b"y"


def test_what_others_keep_in_the_tasks_folder_survives_its_files(files):
    files.write("t", "train.json", b"x")
    model = files.task_folder("t") / "outputs"
    model.mkdir()
    files.remove("t")
    assert model.exists()
    assert not files.path("t", "train.json").parent.exists()


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path):
    target = tmp_path / "kept"
    target.mkdir()
    with pytest.raises(OSError, match="kept"):
        write_whole(target, b"a folder cannot be replaced by a file")
    assert os.listdir(tmp_path) == ["kept"]


def test_a_folder_with_something_in_it_is_not_removed(tmp_path):
    (tmp_path / "task/outputs").mkdir(parents=True)
    remove_empty(tmp_path / "task")
    assert (tmp_path / "task/outputs").exists()
