"""The third generation's API (2024-04, as of 2026): Go with renamed paths and fields, JSON errors and finer statuses.

GPU jobs are here; finetunes, inference services and resources have files of their own.
"""

from collections.abc import Iterable, Mapping

from gts_async.emulator.cloud_answers import Refusal, beijing, go_answer, go_json, go_number, not_found
from gts_async.emulator.cloud_finetunes import FinetuneCalls
from gts_async.emulator.cloud_front import Accounts, Asked, Handler, Methods, cleaned, go_handler
from gts_async.emulator.cloud_go import JOB_ID, JobCalls
from gts_async.emulator.cloud_gozero import Kind, fields, read_form, read_json
from gts_async.emulator.cloud_inference import InferenceCalls
from gts_async.emulator.cloud_jobs import IS_SENT, HeadStatus, JobRow, JobTable, User
from gts_async.emulator.cloud_limits import NO_ACCESS, NO_ROWS, NOT_FOUND, Billing, Limits
from gts_async.emulator.cloud_listing import listing
from gts_async.emulator.cloud_orders import head_order
from gts_async.emulator.cloud_quirks import CloudQuirks
from gts_async.emulator.cloud_resources import Resource, ResourceCalls
from gts_async.wire import Answer, Request

_CREATE = (
    *fields(Kind.TEXT, "cpod_id", is_optional=True),
    *fields(Kind.INT, "gpuNumber"),
    *fields(Kind.TEXT, "gpuType ckptPath"),
    *fields(Kind.INT, "ckptVol"),
    *fields(Kind.TEXT, "created_model_path"),
    *fields(Kind.INT, "created_model_vol"),
    *fields(Kind.TEXT, "imagePath jobType"),
    *fields(Kind.INT, "stopType stopTime", is_optional=True),
    *fields(Kind.TEXT, "model_id model_name model_path", is_optional=True),
    *fields(Kind.INT, "model_size", is_optional=True),
    *fields(Kind.BOOL, "model_is_public", is_optional=True),
    *fields(Kind.TEXT, "model_template model_meta model_category", is_optional=True),
    *fields(Kind.TEXT, "dataset_id dataset_name dataset_path", is_optional=True),
    *fields(Kind.INT, "dataset_size", is_optional=True),
    *fields(Kind.BOOL, "dataset_is_public", is_optional=True),
    *fields(Kind.TEXT, "trainedModelName runCommand callbackUrl", is_optional=True),
)
"""`JobCreateReq` (`sdk.api`): numbers are numbers, and ``env`` is not looked at any more."""


class HeadFront:
    """The API of the official SDK, and what is left of the documented one."""

    def __init__(
        self, table: JobTable, quirks: CloudQuirks, accounts: Accounts, resources: Iterable[Resource] = ()
    ) -> None:
        self._table = table
        self._quirks = quirks
        self._accounts = accounts
        calls = JobCalls(table, succeeded=HeadStatus.SUCCEEDED, failed=HeadStatus.FAILED)
        self.billing = Billing(table, quirks)
        self.inference = InferenceCalls(table, self.billing, quirks)
        self._limits = Limits(table, self.billing, self.inference.running, quirks)
        self._finetunes = FinetuneCalls(table, self._limits, quirks)
        self._prefixes: dict[str, Methods] = {
            "/api/resource/gpus": {"GET": self.gpus},
            "/api/userJob/job_del": {"POST": calls.delete},
            "/api/userJob/job_status": {"POST": calls.status},
        }
        self._paths: dict[str, Methods] = {
            "/api/job/training": {"GET": self.list_jobs, "POST": self.create},
            "/api/job/gpu/status": {"GET": self.gpu_status},
            "/api/job/gpu/stop": {"POST": self.gpu_stop},
            **self._finetunes.routes,
            **self.inference.routes,
            **ResourceCalls(resources, self._finetunes.adapters).routes,
        }

    def user(self, request: Request) -> User | Answer:
        """Give who sends the request."""
        return self._accounts.for_go(request, wants_new=True)

    def handler(self, request: Request, now: float) -> Handler | Answer:
        """Give who answers the request: some paths the gateway renames, the rest have to be exact."""
        path = cleaned(request.path)
        renamed = next((methods for prefix, methods in self._prefixes.items() if path.startswith(prefix)), None)
        methods = renamed or self._paths.get(path)
        return not_found() if methods is None else go_handler(methods, request.method)

    def is_create(self, handler: Handler) -> bool:
        """Tell whether the handler makes jobs or services."""
        return handler in (self.create, self._finetunes.create, self.inference.create)

    def refused(self, message: str | None, now: float) -> Answer:
        """Give the answer to a Refusal: its words in a JSON document (`handler/error.go`)."""
        return go_answer({"message": message or ""}, 400)

    def create(self, asked: Asked) -> Answer:
        """POST /api/job/training (`job_create_logic.go`)."""
        given = {key: _column(value) for key, value in read_json(asked.request, _CREATE).items()}
        self._limits.check("JobCreate", asked.user, str(given["gpuType"]), int(given["gpuNumber"]))
        given["trainedModelName"] = given["trainedModelName"] or _trained_name(str(given["model_name"]), asked.now)
        name = self._table.new_id("train-", asked.now)
        self._table.insert(
            name,
            asked.user,
            asked.now,
            columns=_columns(given),
            json_all=go_json(_job_json(name, given, asked.user)),
            order=head_order(name, given),
            mounts_data=bool(given["model_id"] or given["dataset_id"]),
            cpod_id=str(given["cpod_id"]) or None,
        )
        return go_answer({"job_id": name})

    def list_jobs(self, asked: Asked) -> Answer:
        """GET /api/job/training: all the user's jobs, finetunes among them (`job_get_logic.go`)."""
        return go_answer(listing(self._table, self._quirks, asked, self._listed))

    def _listed(self, row: JobRow, shown: dict[str, object]) -> dict[str, object]:
        board = f"{self._quirks.inference_url}/tensorboard/{row.user.name}/?runFilter={row.name}#timeseries"
        more = {"userId": row.user.name, "status": HeadStatus(row.work_status).word, "tensor_url": board}
        return shown | more

    def gpu_status(self, asked: Asked) -> Answer:
        """GET /api/job/gpu/status: of any row of the user's (`gpu_job_status_logic.go`)."""
        row = self._table.named(read_form(asked.request, JOB_ID)["job_id"])
        if row is None:
            raise Refusal(NOT_FOUND)
        if row.user != asked.user:
            raise Refusal(NO_ACCESS)
        return go_answer({"job_id": row.name, "status": HeadStatus(row.work_status).word})

    def gpu_stop(self, asked: Asked) -> Answer:
        """POST /api/job/gpu/stop: guards only against a second stop (`gpu_job_stop_logic.go`)."""
        row = self._table.named(read_form(asked.request, JOB_ID)["job_id"])
        if row is None or row.user != asked.user:
            raise Refusal(NO_ROWS)
        if row.work_status == HeadStatus.STOPPED:
            return go_answer({"message": f"job_name: {row.name} is already stopped"})
        is_over = row.work_status in (HeadStatus.SUCCEEDED, HeadStatus.FAILED)
        if self._quirks.stop_overwrites or not is_over:
            row.work_status, row.obtain_status = HeadStatus.STOPPED, IS_SENT
        return go_answer({"message": f"job_name: {row.name} stopped"})

    def gpus(self, asked: Asked) -> Answer:
        """GET /api/resource/gpus."""
        busy = [row for row in self._table if row.is_moving]
        free = {gpu.name: gpu.total for gpu in self._quirks.gpus}
        for row in busy:
            free[row.text("gpuType")] = free.get(row.text("gpuType"), 0) - int(row.columns.get("gpuNumber", 0))
        return go_answer(
            [
                {"amount": go_number(gpu.price), "gpuProd": gpu.name, "gpuAllocatable": max(free[gpu.name], 0)}
                for gpu in self._quirks.gpus
            ]
        )


def _column(value: object) -> str | int:
    return value if isinstance(value, str | int) else ""


def _trained_name(model_name: str, now: float) -> str:
    last = model_name.split("/")[1] if "/" in model_name else "model"
    return f"{last}-{beijing(now, '%Y%m%d-%H%M%S')}"


def _columns(given: Mapping[str, str | int]) -> dict[str, str | int]:
    """The columns are filled by name, so that some get what was never meant for them, and modelVol nothing."""
    return {
        "gpuNumber": given["gpuNumber"],
        "gpuType": given["gpuType"],
        "ckptPath": given["ckptPath"],
        "ckptVol": str(given["ckptVol"]),
        "modelPath": given["model_path"],
        "imagePath": given["imagePath"],
        "jobType": given["jobType"],
        "stopType": given["stopType"],
        "stopTime": given["stopTime"],
        "pretrainedModelName": given["model_name"],
        "datasetName": given["model_name"] or given["dataset_name"],
        "datasetPath": given["dataset_path"],
        "runCommand": given["runCommand"],
        "callbackUrl": given["callbackUrl"],
    }


def _job_json(name: str, given: Mapping[str, str | int], user: User) -> dict[str, object]:
    """Give `JobJson` (`sys_user_job_model.go`), in the order of its fields."""
    return {
        "jobName": name,
        "jobType": given["jobType"],
        "ckptPath": given["ckptPath"],
        "ckptVol": given["ckptVol"],
        "modelPath": given["created_model_path"],
        "modelVol": given["created_model_vol"],
        "gpuNumber": given["gpuNumber"],
        "gpuType": given["gpuType"],
        "imagePath": given["imagePath"],
        "pretrainedModelId": given["model_id"],
        "pretrainedModelName": given["model_name"],
        "pretrainModelIsPublic": bool(given["model_is_public"]),
        "pretrainedModelSize": given["model_size"],
        "pretrainedModelPath": given["model_path"],
        "datasetId": given["dataset_id"],
        "datasetName": given["dataset_name"],
        "datasetIsPublic": bool(given["dataset_is_public"]),
        "datasetSize": given["dataset_size"],
        "datasetPath": given["dataset_path"],
        "runCommand": given["runCommand"],
        "stopTime": given["stopTime"],
        "stopType": given["stopType"],
        "backoffLimit": 1,
        "userId": user.name,
        "trainedModelName": given["trainedModelName"],
    }
