"""What a JobSpec takes, what it refuses, and what it warns of."""

import contextlib
import copy
import pickle

import attrs
import pytest
from hypothesis import given, strategies as st

from gts_async._errors import InvalidArgument, WrongType
from gts_async.sxwl.values import Environment, GpuType, JobInfo, JobListing, JobSpec, JobStatus, JobType, StopType

GPU = "NVIDIA-GeForce-RTX-3090"


def spec(**fields):
    return JobSpec(**{"gpu_type": GPU, "image_path": "registry.example/train:test", **fields})


def test_only_gpu_type_and_image_are_needed():
    made = JobSpec(gpu_type=GPU, image_path="i")
    assert (made.gpu_number, made.job_type, made.stop_type, made.stop_time) == (
        1,
        JobType.GENERAL,
        StopType.NATURAL,
        None,
    )
    assert made.warnings() == ()


def test_numbers_as_documented_strings_become_numbers():
    made = spec(gpu_number="2", ckpt_vol="10000", model_vol="10000", stop_type="1", stop_time="5")
    assert (made.gpu_number, made.ckpt_vol, made.model_vol, made.stop_time) == (2, 10000, 10000, 5)
    assert made.stop_type is StopType.TIME_LIMIT


@pytest.mark.parametrize(
    ("given_type", "taken"),
    [
        (JobType.MPI, JobType.MPI),
        ("GeneralJob", JobType.GENERAL),
        ("Pytorch", JobType.PYTORCH),
        ("MPI", JobType.MPI),
        ("general", JobType.GENERAL),
        ("pytorch", JobType.PYTORCH),
        ("mpi", JobType.MPI),
        ("General", JobType.GENERAL),
    ],
)
def test_job_types_are_taken_as_either_dialect_spells_them(given_type, taken):
    assert spec(job_type=given_type).job_type is taken


@pytest.mark.parametrize(
    ("fields", "argument", "says"),
    [
        ({"gpu_number": 0}, "gpu_number", "out of range"),
        ({"gpu_number": -1}, "gpu_number", "out of range"),
        ({"gpu_number": "one"}, "gpu_number", "not a whole number"),
        ({"gpu_number": "-1"}, "gpu_number", "not a whole number"),
        ({"gpu_number": "1" * 40}, "gpu_number", "not a whole number"),
        ({"gpu_number": 100_000}, "gpu_number", "out of range"),
        ({"gpu_type": ""}, "gpu_type", "is empty"),
        ({"gpu_type": "  "}, "gpu_type", "is empty"),
        ({"gpu_type": "RTX 3090"}, "gpu_type", "has a space"),
        ({"gpu_type": "x" * 61}, "gpu_type", "61 characters; use at most 60"),
        ({"ckpt_vol": 0}, "ckpt_vol", "out of range; use 1 to 102400"),
        ({"ckpt_vol": 102_401}, "ckpt_vol", "out of range"),
        ({"ckpt_vol": "10G"}, "ckpt_vol", "'10G' is not a whole number; give digits only, without a unit"),
        ({"ckpt_vol": "1.5"}, "ckpt_vol", "not a whole number"),
        ({"ckpt_vol": ""}, "ckpt_vol", "not a whole number"),
        ({"model_vol": "١٢"}, "model_vol", "not a whole number"),
        ({"model_vol": 0}, "model_vol", "out of range"),
        ({"image_path": ""}, "image_path", "is empty"),
        ({"image_path": "a b"}, "image_path", "has a space"),
        ({"image_path": " a"}, "image_path", "spaces around"),
        ({"image_path": "i" * 256}, "image_path", "256 characters"),
        ({"ckpt_path": "data"}, "ckpt_path", "absolute"),
        ({"ckpt_path": ""}, "ckpt_path", "is empty"),
        ({"ckpt_path": "/"}, "ckpt_path", "cannot be mounted"),
        ({"ckpt_path": "/a:b"}, "ckpt_path", "without a colon"),
        ({"ckpt_path": "/a\n"}, "ckpt_path", "line break"),
        ({"ckpt_path": "/" + "a" * 255}, "ckpt_path", "256 characters"),
        ({"model_path": "/data/", "ckpt_path": "/data"}, "model_path", "is ckpt_path too"),
        ({"dataset_name": "d", "dataset_path": "/workspace/model"}, "dataset_path", "is model_path too"),
        ({"dataset_name": "d", "dataset_path": "d"}, "dataset_path", "absolute"),
        ({"job_type": "TensorFlow"}, "job_type", "documented, but no server runs it"),
        ({"job_type": ""}, "job_type", "use GeneralJob, Pytorch or MPI"),
        ({"stop_type": 2}, "stop_type", "there is no 2"),
        ({"stop_type": 1}, "stop_time", "ends the job at once"),
        ({"stop_type": 1, "stop_time": 0}, "stop_time", "at least 1"),
        ({"stop_time": -1}, "stop_time", "out of range"),
        ({"stop_time": "5m"}, "stop_time", "not a whole number"),
        ({"pretrained_model_name": "m"}, "pretrained_model_path", "is missing, and pretrained_model_name does nothing"),
        (
            {"pretrained_model_path": "/m"},
            "pretrained_model_name",
            "is missing, and pretrained_model_path does nothing",
        ),
        ({"dataset_name": "d"}, "dataset_path", "is missing"),
        ({"dataset_path": "/d"}, "dataset_name", "is missing"),
        ({"dataset_name": "", "dataset_path": "/d"}, "dataset_name", "is empty"),
        ({"run_command": ""}, "run_command", "is empty"),
        ({"run_command": "python  run.py"}, "run_command", "an empty argument"),
        ({"run_command": "python run.py\n"}, "run_command", "line break"),
        ({"run_command": "python\trun.py"}, "run_command", "control character"),
        ({"run_command": " python"}, "run_command", "spaces around"),
        ({"run_command": "x" * 65_536}, "run_command", "65536 characters"),
        ({"run_command": "长" * 30_000}, "run_command", "90000 bytes"),
        ({"callback_url": "ftp://h/p"}, "callback_url", "http or https"),
        ({"callback_url": "https:///p"}, "callback_url", "with a host"),
        ({"callback_url": "/p"}, "callback_url", "http or https"),
        ({"callback_url": "https://h:no/p"}, "callback_url", "http or https"),
        ({"callback_url": "https://[h/p"}, "callback_url", "http or https"),
        ({"callback_url": "https://h/a b"}, "callback_url", "has a space"),
        ({"callback_url": "https://h/:id/x"}, "callback_url", "starts with a colon"),
        ({"callback_url": "https://h/" + "p" * 246}, "callback_url", "256 characters"),
        ({"env": {"1A": "x"}}, "env['1A']", "cannot name a variable"),
        ({"env": {"": "x"}}, "env['']", "cannot name a variable"),
        ({"env": {"A=B": "x"}}, "env['A=B']", "cannot name a variable"),
        ({"env": {"A": "x\0"}}, "env['A']", "NUL"),
        ({"env": {"A": "\ud800"}}, "env['A']", "half a character"),
        ({"mark": ""}, "mark", "is empty"),
        ({"mark": "a/b"}, "mark", "not an id"),
        ({"mark": "m" * 129}, "mark", "not an id"),
    ],
)
def test_what_cannot_run_is_refused_with_its_name_and_a_fix(fields, argument, says):
    with pytest.raises(InvalidArgument) as caught:
        spec(**fields)
    assert caught.value.argument == argument
    assert says in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("fields", "argument"),
    [
        ({"gpu_number": True}, "gpu_number"),
        ({"gpu_number": 1.0}, "gpu_number"),
        ({"gpu_number": None}, "gpu_number"),
        ({"ckpt_vol": 1.5}, "ckpt_vol"),
        ({"model_vol": b"10"}, "model_vol"),
        ({"stop_time": False}, "stop_time"),
        ({"stop_type": True}, "stop_type"),
        ({"stop_type": None}, "stop_type"),
        ({"gpu_type": None}, "gpu_type"),
        ({"image_path": 7}, "image_path"),
        ({"ckpt_path": b"/a"}, "ckpt_path"),
        ({"job_type": None}, "job_type"),
        ({"run_command": ["python", "run.py"]}, "run_command"),
        ({"callback_url": b"https://h"}, "callback_url"),
        ({"dataset_name": 1, "dataset_path": "/d"}, "dataset_name"),
        ({"env": [("A", "b")]}, "env"),
        ({"env": {"A": 1}}, "env['A']"),
        ({"env": {"A": None}}, "env['A']"),
        ({"env": {1: "a"}}, "env[1]"),
        ({"mark": 7}, "mark"),
    ],
)
def test_wrong_types_are_refused_by_name(fields, argument):
    with pytest.raises(WrongType) as caught:
        spec(**fields)
    assert caught.value.argument == argument
    assert isinstance(caught.value, TypeError)


def test_a_refused_value_of_env_is_not_repeated():
    with pytest.raises(InvalidArgument) as caught:
        spec(env={"TOKEN": "s3cret\0"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"callback_url": "http://127.0.0.1:8000/cb/3f0c?x=1"},
        {"callback_url": "https://h/" + "p" * 245},
        {"ckpt_vol": 1, "model_vol": 102_400},
        {"gpu_type": "x" * 60},
        {"stop_type": StopType.TIME_LIMIT, "stop_time": 1},
        {"env": None},
        {"env": {"_A.b-C": ""}},
        {"dataset_name": "owner/数据", "dataset_path": "/数据"},
    ],
)
def test_what_is_just_within_the_limits_is_taken(fields):
    assert isinstance(spec(**fields), JobSpec)


@pytest.mark.parametrize(
    ("fields", "dialect", "warned_of"),
    [
        ({"run_command": "python run.py --x=1"}, None, []),
        ({"run_command": "cd /w && python 'run.py' > $LOG; ls | wc"}, "2023-12", ["$ & ' ; > | reach the program"]),
        ({"run_command": "python *.py"}, "2024-04", ["* reach the program"]),
        ({"run_command": "python run.py", "job_type": "MPI"}, None, ["launcher's command only"]),
        ({"job_type": "MPI"}, None, []),
        ({"gpu_number": 7}, None, []),
        ({"gpu_number": 8}, "2023-12", []),
        ({"gpu_number": 8}, "2024-04", ["without any GPU"]),
        ({"gpu_number": 12}, "2023-12", ["12 is rounded down to 8"]),
        ({"gpu_number": 12}, None, ["12 is rounded down to 8", "without any GPU"]),
        ({"stop_type": 1, "stop_time": 5}, None, ["still running after 5 minutes, image pull included"]),
        ({"stop_time": 5}, None, ["no effect without stop_type"]),
        ({"env": {"A": "b"}}, "2023-12", []),
        ({"env": {"A": "b"}}, "2024-04", ["ignore it"]),
        ({"env": {"A": "b"}, "job_type": "Pytorch"}, "2023-12", ["a Pytorch job does not see it"]),
        ({"env": {"A": "b"}, "job_type": "Pytorch"}, None, ["does not see it", "ignore it"]),
        ({"callback_url": "https://h/p"}, "2023-12", []),
        ({"callback_url": "https://h/p"}, "2024-04", ["no longer call it"]),
        ({"dataset_name": "d", "dataset_path": "/d"}, "2023-12", []),
        (
            {"dataset_name": "d", "dataset_path": "/d"},
            "2024-04",
            [
                "dataset_name: the servers",
            ],
        ),
        (
            {"pretrained_model_name": "d", "pretrained_model_path": "/d"},
            "2024-04",
            ["pretrained_model_name: the servers"],
        ),
    ],
)
def test_what_the_cloud_would_do_in_silence_is_told(fields, dialect, warned_of):
    warnings = spec(**fields).warnings(dialect)
    assert len(warnings) == len(warned_of)
    for warning, part in zip(warnings, warned_of, strict=True):
        assert part in warning


def test_no_warning_repeats_a_value_of_env():
    assert "s3cret" not in " ".join(spec(env={"A": "s3cret"}, job_type="MPI").warnings())


def test_a_spec_can_be_hashed_pickled_copied_and_evolved():
    made = spec(env={"A": "b"}, callback_url="https://h/p", mark="m-1")
    assert pickle.loads(pickle.dumps(made)) == made
    assert copy.deepcopy(made) == made
    assert len({made, spec(env={"A": "b"}, callback_url="https://h/p", mark="m-1")}) == 1
    assert attrs.evolve(made, mark="m-2").env == {"A": "b"}


def test_env_does_not_change_with_the_mapping_it_came_from():
    variables = {"A": "b"}
    made = spec(env=variables)
    variables["A"] = "c"
    assert dict(made.env) == {"A": "b"}
    with pytest.raises(AttributeError):
        made.env._pairs = {}


def test_nothing_secret_is_in_a_repr():
    url = "https://h/p?Signature=s3cret"
    shown = repr([spec(env={"A": "s3cret"}, callback_url=url), JobInfo(JobStatus.SUCCEEDED, url)])
    shown += repr(JobListing("ai1", JobInfo(JobStatus.WORKING), url))
    assert "s3cret" not in shown
    assert "'A': '…'" in shown


def test_looks_are_equal_whenever_they_were_taken():
    assert JobInfo(JobStatus.WORKING) == JobInfo(JobStatus.WORKING, observed_at=None)
    assert GpuType("a") == GpuType("a", None, None)


@given(st.dictionaries(st.text(), st.text()))
def test_an_environment_equals_and_hashes_as_its_pairs(pairs):
    made = Environment(pairs)
    assert made == pairs
    assert hash(made) == hash(Environment(dict(reversed(pairs.items()))))
    assert len(made) == len(pairs)


@pytest.mark.parametrize(
    "field",
    [
        "gpu_type",
        "image_path",
        "ckpt_path",
        "run_command",
        "callback_url",
        "mark",
        "job_type",
        "gpu_number",
        "stop_time",
    ],
)
@given(text=st.text(max_size=40))
def test_only_our_errors_come_of_odd_text(field, text):
    with contextlib.suppress(InvalidArgument):
        assert spec(**{field: text, "env": {"A": text}}).env == {"A": text}
