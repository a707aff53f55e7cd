"""The runner whose jobs only need time."""

import io
import zipfile

import attrs
import pytest

from gts_async.emulator.backends import JobOrder, JobStage
from gts_async.emulator.scripted_jobs import BytesBlob, ScriptedRunner

ORDER = JobOrder(
    job_id="ai1", gpu_number=1, gpu_type="g", ckpt_path="/c", ckpt_vol=1, model_path="/m", model_vol=1,
    image_path="i", job_type="Pytorch", stop_type=0, stop_time=0, run_command="", env={},
)  # fmt: skip
Q, R, T, U, F = JobStage.QUEUED, JobStage.RUNNING, JobStage.TRAINED, JobStage.UPLOADED, JobStage.FAILED


def stages(runner, order, *moments):
    runner.start(order, 100.0)
    return [runner.state(order.job_id, 100.0 + moment).stage for moment in moments]


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (U, [Q, Q, R, R, T, T, U, U]),
        (F, [Q, Q, R, R, F, F, F, F]),
        (T, [Q, Q, R, R, T, T, T, T]),
        (R, [Q, Q, R, R, R, R, R, R]),
        (Q, [Q, Q, Q, Q, Q, Q, Q, Q]),
    ],
)
def test_a_job_passes_through_its_stages_as_time_does(outcome, expected):
    runner = ScriptedRunner(queued=10, running=20, packing=5, outcome=outcome)
    assert stages(runner, ORDER, 0, 9.9, 10, 29.9, 30, 34.9, 35, 1e9) == expected


@pytest.mark.parametrize(
    ("job_type", "queued", "outcome", "expected"),
    [
        ("Pytorch", 10, U, [Q, R, R, U]),
        ("Pytorch", 10, F, [Q, R, R, U]),
        ("Pytorch", 500, U, [Q, Q, Q, F]),
        ("GeneralJob", 500, U, [Q, Q, Q, U]),
        ("general", 500, U, [Q, Q, Q, U]),
    ],
)
def test_a_time_limit_ends_a_running_job_well_and_a_queued_one_only_if_it_is_general(
    job_type, queued, outcome, expected
):
    order = attrs.evolve(ORDER, job_type=job_type, stop_type=1, stop_time=1)
    runner = ScriptedRunner(queued=queued, running=1000, outcome=outcome)
    assert stages(runner, order, 0, 10, 59.9, 60) == expected


def test_a_killed_job_leaves_no_model():
    runner = ScriptedRunner(running=1)
    assert stages(runner, ORDER, 5) == [U]
    runner.kill("ai1")
    runner.kill("unknown")
    assert runner.state("ai1", 200.0).model is None
    assert (runner.killed, runner.orders) == (["ai1"], [ORDER])


def test_the_model_is_a_zip_with_absolute_names_unless_it_is_given():
    runner = ScriptedRunner(running=1)
    runner.start(ORDER, 0.0)
    model = runner.state("ai1", 5.0).model
    with zipfile.ZipFile(io.BytesIO(model.read(0, model.size))) as archive:
        assert archive.namelist() == ["/data/model.txt"]
    given = BytesBlob(b"bytes")
    other = ScriptedRunner(running=1, model=given)
    other.start(ORDER, 0.0)
    assert other.state("ai1", 5.0).model == given


def test_a_blob_shows_size_and_quoted_md5_but_not_its_bytes():
    blob = BytesBlob(b"hello")
    assert (blob.size, blob.etag) == (5, '"5D41402ABC4B2A76B9719D911017C592"')
    assert blob.read(1, 3) == b"el"
    assert "hello" not in repr(blob)
