"""The second generation's API (2024-01): Go behind the documented paths, with strict types and plain-text errors.

What HEAD kept of it (status, delete) is here as well. How bodies are read is in `cloud_gozero`.
"""

from gts_async.emulator.cloud_answers import Refusal, go_answer, go_json, go_number, java_not_found, text
from gts_async.emulator.cloud_front import Accounts, Asked, Handler, Methods, cleaned, go_handler
from gts_async.emulator.cloud_gozero import Kind, fields, integer, read_json, read_numbers
from gts_async.emulator.cloud_jobs import JobTable, OldStatus, User
from gts_async.emulator.cloud_limits import NO_ROWS
from gts_async.emulator.cloud_listing import listing
from gts_async.emulator.cloud_orders import old_order
from gts_async.emulator.cloud_quirks import CloudQuirks
from gts_async.wire import Answer, Request

_CREATE = (
    *fields(Kind.INT, "gpuNumber"),
    *fields(Kind.TEXT, "gpuType ckptPath ckptVol modelPath modelVol imagePath jobType stopType"),
    *fields(Kind.INT, "stopTime", is_optional=True),
    *fields(Kind.TEXT, "pretrainedModelName pretrainedModelPath datasetName datasetPath", is_optional=True),
    *fields(Kind.TEXT, "runCommand callbackUrl", is_optional=True),
    *fields(Kind.TEXTS, "env", is_optional=True),
)
"""`JobCreateReq` until 2024-01-16 (`scheduler/internal/types/types.go`): volumes and stopType are strings of digits."""

JOB_ID = fields(Kind.TEXT, "job_id")


class JobCalls:
    """The two calls that both Go generations have; `succeeded` and `failed` are what their status numbers mean."""

    def __init__(self, table: JobTable, *, succeeded: int, failed: int) -> None:
        self._table = table
        self._words = {succeeded: "success", failed: "fail"}

    def status(self, asked: Asked) -> Answer:
        """POST /api/userJob/job_status: a success without a file row is an error (`job_status_logic.go`)."""
        name = read_json(asked.request, JOB_ID)["job_id"]
        row = self._table.named(name)
        if row is None:
            raise Refusal(NO_ROWS)
        word = self._words.get(row.work_status, "working")
        url = self._table.url(row.name, asked.now) if word == "success" else ""
        if url is None:
            raise Refusal(NO_ROWS)
        return go_answer({"url": url, "status": word})

    def delete(self, asked: Asked) -> Answer:
        """POST /api/userJob/job_del: a success, whatever the id is (`job_stop_logic.go`)."""
        self._table.delete(read_json(asked.request, JOB_ID)["job_id"], asked.now)
        return go_answer({"message": "delete job success"})


class GoFront:
    """The documented API as Go serves it."""

    def __init__(self, table: JobTable, quirks: CloudQuirks, accounts: Accounts) -> None:
        self._table = table
        self._quirks = quirks
        self._accounts = accounts
        calls = JobCalls(table, succeeded=OldStatus.UPLOADED, failed=OldStatus.FAILED)
        self._routes: dict[str, Methods] = {
            "/api/userJob/getGpuType": {"GET": self.gpu_types},
            "/api/userJob/job_status": {"POST": calls.status},
            "/api/userJob/job_del": {"POST": calls.delete},
            "/api/userJob": {"POST": self.create, "GET": self.list_jobs, "DELETE": self.delete_numbered},
        }

    def user(self, request: Request) -> User | Answer:
        """Give who sends the request; what the gateway does not know, Java still answers."""
        if self._methods(request) is None:
            return self._accounts.for_java(request)
        return self._accounts.for_go(request, wants_new=False)

    def handler(self, request: Request, now: float) -> Handler | Answer:
        """Give who answers the request: the first route that the path begins with (`gateway/match.go`)."""
        methods = self._methods(request)
        return java_not_found(request.path, now) if methods is None else go_handler(methods, request.method)

    def _methods(self, request: Request) -> Methods | None:
        path = cleaned(request.path)
        return next((methods for prefix, methods in self._routes.items() if path.startswith(prefix)), None)

    def is_create(self, handler: Handler) -> bool:
        """Tell whether the handler makes jobs."""
        return handler == self.create

    def refused(self, message: str | None, now: float) -> Answer:
        """Give the answer to a Refusal: its words as plain text."""
        return text(400, message or "")

    def create(self, asked: Asked) -> Answer:
        """POST /api/userJob (`job_create_logic.go`)."""
        given = read_json(asked.request, _CREATE)
        numbers = {name: integer(str(given[name]), "Atoi") for name in ("stopType", "modelVol", "ckptVol")}
        name = self._table.new_id("ai", asked.now)
        kept = {key: value for key, value in given.items() if not (key in ("callbackUrl", "env") and not value)}
        json_all = go_json(dict(sorted((kept | numbers | {"jobName": name}).items())))
        columns = {key: value for key, value in given.items() if isinstance(value, str | int)}
        columns |= {"stopType": numbers["stopType"]}
        order = old_order(name, json_all)
        self._table.insert(name, asked.user, asked.now, columns=columns, json_all=json_all, order=order)
        return go_answer({"job_id": name})

    def list_jobs(self, asked: Asked) -> Answer:
        """GET /api/userJob: the user's own jobs; both parameters have to be there (`job_get_logic.go`)."""
        return go_answer(listing(self._table, self._quirks, asked))

    def delete_numbered(self, asked: Asked) -> Answer:
        """DELETE /api/userJob: marks the jobs of these numbers, whosever they are (`job_delete_logic.go`)."""
        self._table.delete_numbered(read_numbers(asked.request), asked.now)
        return go_answer(None)

    def gpu_types(self, asked: Asked) -> Answer:
        """GET /api/userJob/getGpuType."""
        return go_answer([{"amount": go_number(gpu.price), "gpuProd": gpu.name} for gpu in self._quirks.gpus])
