"""How the cluster's agent understands a job: Go's decoding of the stored JSON, and the arithmetic of GPUs.

What it then does with it is in `cloud_agent`.
"""

import json
from collections.abc import Mapping

from gts_async.emulator.backends import JobOrder

OLD_TYPES = ("MPI", "Pytorch", "GeneralJob")
"""Job types until 2024-04, case-sensitive (`pkg/job/job.go`); for any other the creation in the cluster fails."""

HEAD_TYPES = ("mpi", "pytorch", "general")
"""Job types of HEAD in lower case (`syncjob.go: jobTypeCheck`); any other is skipped at every fetch."""

_INTEGERS = ("ckptvol", "gpunumber", "jobid", "modelvol", "stoptime", "stoptype")
_TEXTS = (
    "ckptpath", "runcommand", "datasetpath", "datasetname", "gputype", "hfurl", "imagepath", "jobname", "jobtype",
    "modelpath", "pretrainedmodelname", "pretrainedmodelpath",
)  # fmt: skip


def old_order(job_id: str, json_all: str) -> JobOrder | None:
    """Give what the agent decodes from the stored JSON, None if it cannot (`marketmanager.go: RawJobDataItem`).

    Go finds keys in any case, takes whole JSON numbers for ints and strings for strings, and nothing else; null and
    absent are the zero value.
    """
    document = {key.lower(): value for key, value in json.loads(json_all).items() if value is not None}
    env = document.get("env", {})
    is_decodable = (
        all(_is_int(document.get(name, 0)) for name in _INTEGERS)
        and all(isinstance(document.get(name, ""), str) for name in _TEXTS)
        and isinstance(env, dict)
        and all(value is None or isinstance(value, str) for value in env.values())
    )
    return _decoded(job_id, document, env) if is_decodable else None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _decoded(job_id: str, document: Mapping[str, object], env: Mapping[str, str | None]) -> JobOrder:
    def number(name: str) -> int:
        return int(str(document.get(name, 0)))

    def text(name: str) -> str:
        return str(document.get(name, ""))

    gpus = number("gpunumber")
    return JobOrder(
        job_id=job_id,
        gpu_number=gpus if gpus < 8 else gpus // 8 * 8,  # from 8 on whole machines of 8
        gpu_type=text("gputype"),
        ckpt_path=text("ckptpath"),
        ckpt_vol=number("ckptvol"),
        model_path=text("modelpath"),
        model_vol=number("modelvol"),
        image_path=text("imagepath"),
        job_type=text("jobtype"),
        stop_type=number("stoptype"),
        stop_time=number("stoptime"),
        run_command=text("runcommand"),
        # the creators of Pytorch and MPI jobs are not given any (`job.go`)
        env={key: value or "" for key, value in env.items()} if text("jobtype") == "GeneralJob" else {},
    )


def head_order(job_id: str, created: Mapping[str, str | int]) -> JobOrder | None:
    """Give what HEAD's agent makes of a create, None if its job type is not known (`syncjob.go: processTrainningJobs`).

    From 8 GPUs on it asks for none at all per machine, which is a bug of its own. There is no ``env`` any more.
    """

    def number(name: str) -> int:
        return int(created[name])

    job_type = str(created["jobType"]).lower()
    if job_type not in HEAD_TYPES:
        return None
    gpus, stop_time = number("gpuNumber"), number("stopTime")
    has_limit = number("stopType") == 1 and stop_time > 0
    return JobOrder(
        job_id=job_id,
        gpu_number=gpus if gpus < 8 else 0,
        gpu_type=str(created["gpuType"]),
        ckpt_path=str(created["ckptPath"]),
        ckpt_vol=number("ckptVol"),
        model_path=str(created["created_model_path"]),
        model_vol=number("created_model_vol"),
        image_path=str(created["imagePath"]),
        job_type=job_type,
        stop_type=int(has_limit),
        stop_time=stop_time if has_limit else 0,
        run_command=str(created["runCommand"]),
        env={},
    )
