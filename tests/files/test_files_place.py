"""What users may give where a path is asked for, and what they are told of anything else."""

from pathlib import Path

import pytest

from gts_async import InvalidArgument, JobSpec, WrongType
from gts_async._checkpoint import Checkpoint
from gts_async._files.place import local_path
from gts_async.callbacks import receiver


class OfBytes:
    def __fspath__(self):
        return b"data.json"


@pytest.mark.parametrize("path", ["data.json", Path("data.json"), ".", "/", "a b/数据.json", "\udcff.json"])
def test_a_path_is_taken_as_it_is(path):
    assert local_path("files", path) == Path(path)


@pytest.mark.parametrize("path", [None, 3, b"data.json", ["data.json"], OfBytes()], ids=repr)
def test_what_is_no_path_is_told_by_its_type(path):
    with pytest.raises(WrongType, match="files: must be a") as caught:
        local_path("files", path)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("path", ["", "a\0b", Path("a\0b"), "\ud800", "x/\udfff"], ids=ascii)
def test_a_path_that_no_system_can_have_is_told(path):
    with pytest.raises(InvalidArgument, match="files: ") as caught:
        local_path("files", path)
    assert not isinstance(caught.value, WrongType)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", [3, b"x", "", "a\0b"], ids=ascii)
async def test_every_call_that_takes_a_path_tells_before_anything_is_asked(gts_session, gts_engine, path):
    task = gts_session.task("news", task_type="classification", engine_type="bagualu")
    spec = JobSpec(image_path="python:3", gpu_type="x")
    with pytest.raises(InvalidArgument, match=r"^files: "):
        await task.upload(path)
    with pytest.raises(InvalidArgument, match=r"^directory: "):
        await gts_session.job("ai1").download(path)
    with pytest.raises(InvalidArgument, match=r"^journal: "):
        gts_session.submit_many([spec], journal=path)
    with pytest.raises(InvalidArgument, match=r"^store: "):
        receiver(gts_session, "https://example.test", store=path)
    with pytest.raises(InvalidArgument, match=r"^checkpoint: "):
        Checkpoint(path, "news")
