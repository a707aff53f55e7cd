"""HEAD's finetunes: rows of the job table whose work is only time, and the adapters that they leave.

The job runner of the cloud never sees them.
"""

import json
from typing import cast

from gts_async.emulator.backends import JobOrder, JobRunner, JobState
from gts_async.emulator.cloud_answers import Refusal, beijing, go_answer, go_json
from gts_async.emulator.cloud_front import Asked, Methods
from gts_async.emulator.cloud_go import JOB_ID
from gts_async.emulator.cloud_gozero import Field, Kind, fields, read_form, read_json
from gts_async.emulator.cloud_jobs import HeadStatus, JobRow, JobTable, User
from gts_async.emulator.cloud_limits import NO_ACCESS, NOT_FOUND, Limits
from gts_async.emulator.cloud_quirks import CloudQuirks
from gts_async.emulator.cloud_resources import Resource, owned_adapter
from gts_async.emulator.scripted_jobs import ScriptedRunner
from gts_async.wire import Answer

JOB_TYPE = "Finetune"

MODEL = (
    *fields(Kind.TEXT, "model_id model_name"),
    *fields(Kind.TEXT, "model_path", is_optional=True),
    *fields(Kind.INT, "model_size"),
    *fields(Kind.BOOL, "model_is_public"),
    *fields(Kind.TEXT, "model_template model_meta model_category"),
)
"""`Model` (`types.api`); the SDK takes all of these for optional."""

_HYPERPARAMETERS = fields(Kind.TEXT, "n_epochs batch_size learning_rate_multiplier")
_CREATE = (
    *MODEL,
    *fields(Kind.TEXT, "dataset_id dataset_name"),
    *fields(Kind.TEXT, "dataset_path", is_optional=True),
    *fields(Kind.INT, "dataset_size"),
    *fields(Kind.BOOL, "dataset_is_public"),
    *fields(Kind.TEXT, "cpod_id gpu_model", is_optional=True),
    *fields(Kind.INT, "gpu_count", is_optional=True),
    *fields(Kind.TEXT, "trainedModelName", is_optional=True),
    Field("hyperparameters", Kind.STRUCT, inner=_HYPERPARAMETERS),
    *fields(Kind.TEXT, "model_saved_type"),
    *fields(Kind.TEXT, "finetune_type", is_optional=True),
)

SUPPORTED_MODELS = frozenset({
    "ZhipuAI/chatglm3-6b", "google/gemma-2b-it", "google/gemma-2b", "mistralai/Mistral-7B-v0.1",
    "mistralai/Mistral-7B-Instruct-v0.1", "mistralai/Mixtral-8x7B-Instruct-v0.1", "IDEA-CCNL/Ziya-LLaMA-13B-v1",
    "meta-llama/Llama-2-7b", "meta-llama/Meta-Llama-3-8B-Instruct", "baichuan-inc/Baichuan2-7B-Chat",
    "LLM-Research/Llama-3.2-1B-Instruct",
})  # fmt: skip
"""`FinetuneModel` (`scheduler-api_prod.yaml`)."""


class WithFinetunes:
    """A `JobRunner` that lets time finish the finetunes, and leaves all other jobs to `runner`."""

    def __init__(self, runner: JobRunner, quirks: CloudQuirks) -> None:
        self._runner = runner
        self._clock = ScriptedRunner(queued=quirks.agent_period, running=quirks.finetune_time)

    def start(self, order: JobOrder, now: float) -> None:
        """Begin, or queue."""
        (self._clock if order.job_type == JOB_TYPE else self._runner).start(order, now)

    def state(self, job_id: str, now: float) -> JobState:
        """Tell what the job has come to."""
        return self._of(job_id).state(job_id, now)

    def kill(self, job_id: str) -> None:
        """End the job without a model."""
        self._of(job_id).kill(job_id)

    def _of(self, job_id: str) -> JobRunner:
        return self._clock if job_id.startswith("finetune-") else self._runner


class FinetuneCalls:
    """Create and status of finetunes; everything else about them is done as for GPU jobs."""

    def __init__(self, table: JobTable, limits: Limits, quirks: CloudQuirks) -> None:
        self._table = table
        self._limits = limits
        self._quirks = quirks
        self.routes: dict[str, Methods] = {
            "/api/job/finetune": {"POST": self.create},
            "/api/job/finetune/status": {"GET": self.status},
        }

    def create(self, asked: Asked) -> Answer:
        """POST /api/job/finetune (`finetune_logic.go`)."""
        given = read_json(asked.request, _CREATE)
        model, gpu, number = str(given["model_name"]), str(given["gpu_model"]), int(str(given["gpu_count"]))
        if model not in SUPPORTED_MODELS:
            raise Refusal(f"model: {model} for finetune is not supported")
        if not gpu:
            gpu, number = self._any_gpu(model, asked.user), 1
        self._limits.check("finetune", asked.user, gpu, number)
        return go_answer({"job_id": self._insert(given, gpu, number, asked)})

    def _any_gpu(self, model: str, user: User) -> str:
        if not self._quirks.gpus:
            raise Refusal(f"finetune no gpu match model: {model} userId: {user.name}")
        return self._quirks.gpus[0].name

    def _insert(self, given: dict[str, object], gpu: str, number: int, asked: Asked) -> str:
        name = self._table.new_id("finetune-", asked.now)
        model = str(given["model_name"])
        trained = given["trainedModelName"] or f"{model.split('/')[1]}-{beijing(asked.now, '%Y%m%d-%H%M%S')}"
        self._table.insert(
            name,
            asked.user,
            asked.now,
            columns={
                "gpuNumber": number,
                "gpuType": gpu,
                "jobType": JOB_TYPE,
                "pretrainedModelName": model,
                "datasetName": str(given["dataset_id"]),
            },
            json_all=go_json(_job_json(name, given | {"trainedModelName": trained}, asked.user)),
            order=_order(name, gpu, number),
            mounts_data=True,
            cpod_id=str(given["cpod_id"]) or None,
        )
        return name

    def status(self, asked: Asked) -> Answer:
        """GET /api/job/finetune/status: the id is never filled in, a success needs its adapter."""
        row = self._table.named(read_form(asked.request, JOB_ID)["job_id"])
        if row is None:
            raise Refusal(NOT_FOUND)
        if row.user != asked.user:
            raise Refusal(NO_ACCESS)
        adapter = None
        if row.work_status == HeadStatus.SUCCEEDED:
            adapter = self._adapter(row, asked.now)
            if adapter is None:
                raise Refusal(NOT_FOUND)
        return go_answer(
            {
                "job_id": "",
                "status": HeadStatus(row.work_status).word,
                "adapter_id": adapter.id if adapter else "",
                "adapter_name": adapter.name if adapter else "",
                "adapter_path": "",
                "adapter_size": adapter.size if adapter else 0,
                "adapter_is_public": False,
            }
        )

    def adapters(self, now: float) -> list[Resource]:
        """Give the adapters that finetunes have left by `now`."""
        return [adapter for row in self._table if (adapter := self._adapter(row, now)) is not None]

    def _adapter(self, row: JobRow, now: float) -> Resource | None:
        is_registered = now >= row.updated + self._quirks.adapter_delay
        if row.text("jobType") != JOB_TYPE or row.work_status != HeadStatus.SUCCEEDED or not is_registered:
            return None
        kept = json.loads(row.json_all)
        return owned_adapter(row.name, kept["trainedModelName"], kept["pretrainedModelName"], row.user)


def _order(name: str, gpu: str, number: int) -> JobOrder:
    return JobOrder(
        job_id=name,
        gpu_number=number,
        gpu_type=gpu,
        ckpt_path="",
        ckpt_vol=0,
        model_path="",
        model_vol=0,
        image_path="",
        job_type=JOB_TYPE,
        stop_type=0,
        stop_time=0,
        run_command="",
        env={},
    )


def _job_json(name: str, given: dict[str, object], user: User) -> dict[str, object]:
    wishes = cast("dict[str, str]", given["hyperparameters"])
    return {
        "jobName": name,
        "jobType": JOB_TYPE,
        "gpuNumber": given["gpu_count"],
        "gpuType": given["gpu_model"],
        "pretrainedModelId": given["model_id"],
        "pretrainedModelName": given["model_name"],
        "pretrainModelIsPublic": given["model_is_public"],
        "pretrainedModelSize": given["model_size"],
        "pretrainedModelPath": given["model_path"],
        "datasetId": given["dataset_id"],
        "datasetName": given["dataset_name"],
        "datasetIsPublic": given["dataset_is_public"],
        "datasetSize": given["dataset_size"],
        "datasetPath": given["dataset_path"],
        "backoffLimit": 1,
        "epochs": wishes["n_epochs"] or "3.0",
        "learningRate": wishes["learning_rate_multiplier"] or "5e-5",
        "batchSize": wishes["batch_size"] or "4",
        "userId": user.name,
        "trainedModelName": given["trainedModelName"],
        "model_saved_type": given["model_saved_type"],
        "finetuneType": given["finetune_type"] or "lora",
    }
