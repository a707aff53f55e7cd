"""How each generation of SXWL servers spells things, as data: paths, field names, encodings, status words.

What a call does with a dialect is in `calls`; how answers are read is in `answers`.
"""

from collections.abc import Mapping
from enum import Enum

import attrs

from gts_async._errors import InvalidArgument
from gts_async.sxwl.values import NEWER, OLDER, JobStatus, JobType


class Place(Enum):
    """Where a request carries the job's id."""

    JSON = "json"
    FORM = "form"
    QUERY = "query"


@attrs.frozen
class Route:
    """The method and path of a call, relative to a base URL that ends in ``/api``, and where the job's id goes."""

    method: str
    path: str
    place: Place = Place.JSON


@attrs.frozen(kw_only=True)
class Dialect:
    """One generation of servers.

    A route that is None is a call that these servers lack. `spelling` pairs the fields of a JobSpec with the keys of
    the create body, in the order they are sent; a field may have several keys. The fields in `as_text` travel as
    strings of digits. `words` are the statuses that a look answers, `numbers` those of a listing without words.
    `mark_field` is the field of a JobSpec that comes back in a listing, there under `mark_key` of ``jsonAll``.
    `has_urls`: a success brings the URL of the model. `fails_may_turn`: a fail may still become a success.
    `hides_deletions`: a look may go on showing a deleted job as it was; only the listing tells.
    """

    name: str
    create_job: Route
    job_status: Route
    stop_job: Route
    delete_job: Route | None
    list_jobs: Route | None
    gpu_types: Route | None
    spelling: tuple[tuple[str, str], ...]
    as_text: frozenset[str]
    job_types: Mapping[JobType, str] = attrs.field(hash=False)
    words: Mapping[str, JobStatus] = attrs.field(hash=False)
    numbers: Mapping[int, JobStatus] = attrs.field(hash=False)
    mark_field: str
    mark_key: str
    has_urls: bool
    fails_may_turn: bool
    hides_deletions: bool


_SPELLED_ALIKE = (
    ("gpu_number", "gpuNumber"),
    ("gpu_type", "gpuType"),
    ("ckpt_path", "ckptPath"),
    ("ckpt_vol", "ckptVol"),
    ("model_path", "modelPath"),
    ("model_vol", "modelVol"),
    ("image_path", "imagePath"),
    ("job_type", "jobType"),
    ("stop_type", "stopType"),
    ("stop_time", "stopTime"),
)

_DOCUMENTED = Dialect(
    name=OLDER,
    create_job=Route("POST", "/userJob"),
    job_status=Route("POST", "/userJob/job_status"),
    stop_job=Route("POST", "/userJob/job_del"),
    delete_job=Route("POST", "/userJob/job_del"),
    # The Java server lists here (UserJobController.java: queryUserJob), and so does the Go one (scheduler.api: JobGet).
    list_jobs=Route("GET", "/userJob"),
    gpu_types=Route("GET", "/userJob/getGpuType"),
    # The Java server keeps the whole body and hands it on: a key that it does not know could become a column's value.
    spelling=(
        *_SPELLED_ALIKE,
        ("pretrained_model_name", "pretrainedModelName"),
        ("pretrained_model_path", "pretrainedModelPath"),
        ("dataset_name", "datasetName"),
        ("dataset_path", "datasetPath"),
        ("run_command", "runCommand"),
        ("callback_url", "callbackUrl"),
        ("env", "env"),
    ),
    # The Go server refuses numbers here and strings elsewhere (types.go: JobCreateReq); the Java server takes both, but
    # a gpuNumber or stopTime as a string then keeps the cluster from reading any job (marketmanager.go: GetJobs).
    as_text=frozenset({"ckpt_vol", "model_vol", "stop_type"}),
    job_types={JobType.GENERAL: "GeneralJob", JobType.PYTORCH: "Pytorch", JobType.MPI: "MPI"},
    words={
        "working": JobStatus.WORKING,
        "success": JobStatus.SUCCEEDED,
        # Servers of 2023-12-04 spelled it so.
        "sucess": JobStatus.SUCCEEDED,
        "fail": JobStatus.FAILED,
    },
    # 2 is trained but not uploaded yet, which a look calls "working" too (sys_cpod_main_model.go).
    numbers={0: JobStatus.WORKING, 1: JobStatus.FAILED, 2: JobStatus.WORKING, 3: JobStatus.SUCCEEDED},
    mark_field="callback_url",
    mark_key="callbackUrl",
    has_urls=True,
    # Any later word of the cluster replaces an earlier one, final or not (cpod_status_logic.go).
    fails_may_turn=True,
    # The Java server's look is without a condition on deleted rows (UserJobMapper.xml).
    hides_deletions=True,
)

_CURRENT = Dialect(
    name=NEWER,
    create_job=Route("POST", "/job/training"),
    # Since 2024-11-25; /userJob/job_status is still there, but never tells the success of a job (job_status_logic.go).
    job_status=Route("GET", "/job/gpu/status", Place.QUERY),
    stop_job=Route("POST", "/job/gpu/stop", Place.FORM),
    delete_job=Route("POST", "/userJob/job_del"),
    list_jobs=Route("GET", "/job/training"),
    gpu_types=Route("GET", "/resource/gpus"),
    spelling=(
        # modelPath and modelVol are what the same servers required until 2024-11-22, created_model_… what they require
        # since; each passes over the other's keys (sdk.api: JobCreateReq). There is no env any more.
        *_SPELLED_ALIKE,
        ("model_path", "created_model_path"),
        ("model_vol", "created_model_vol"),
        ("pretrained_model_name", "model_name"),
        ("pretrained_model_path", "model_path"),
        ("dataset_name", "dataset_name"),
        ("dataset_path", "dataset_path"),
        ("run_command", "runCommand"),
        ("callback_url", "callbackUrl"),
        ("mark", "trainedModelName"),
    ),
    as_text=frozenset(),
    # "GeneralJob" would be passed over by the cluster, in silence (syncjob.go: jobTypeCheck).
    job_types={JobType.GENERAL: "general", JobType.PYTORCH: "pytorch", JobType.MPI: "mpi"},
    words={
        "notassigned": JobStatus.UNASSIGNED,
        "assigned": JobStatus.ASSIGNED,
        "datapreparing": JobStatus.PREPARING,
        "pending": JobStatus.PENDING,
        "paused": JobStatus.PAUSED,
        "pausing": JobStatus.PAUSING,
        "running": JobStatus.RUNNING,
        "failed": JobStatus.FAILED,
        "succeeded": JobStatus.SUCCEEDED,
        "stopped": JobStatus.STOPPED,
    },
    numbers={},
    mark_field="mark",
    mark_key="trainedModelName",
    # The cluster no longer uploads what a training makes (syncjob.go: UploadModel is false).
    has_urls=False,
    fails_may_turn=False,
    hides_deletions=False,
)

DIALECTS = (_DOCUMENTED, _CURRENT)


def dialect(name: str) -> Dialect:
    """Give the dialect of that name: "2023-12" is the documented API, "2024-04" what its servers became.

    Raises InvalidArgument for any other name.
    """
    for known in DIALECTS:
        if known.name == name:
            return known
    names = " or ".join(f'"{known.name}"' for known in DIALECTS)
    raise InvalidArgument("dialect", f"there is no {name!r}", f"use {names}")
