"""HEAD's inference services: their rows, their life, and the calls about them. Their own answers are not emulated."""

import attrs

from gts_async.emulator.cloud_answers import Refusal, beijing, go_answer
from gts_async.emulator.cloud_finetunes import MODEL
from gts_async.emulator.cloud_front import Asked, Methods
from gts_async.emulator.cloud_gozero import Kind, fields, read_form, read_json
from gts_async.emulator.cloud_jobs import CLUSTER, HeadStatus, JobTable, User
from gts_async.emulator.cloud_limits import NO_ACCESS, NO_ROWS, NOT_FOUND, Billing, Limits
from gts_async.emulator.cloud_quirks import CloudQuirks
from gts_async.wire import Answer

_SERVICE_NAME = fields(Kind.TEXT, "service_name")
_ADAPTER = (
    *fields(Kind.TEXT, "adapter_id adapter_name adapter_path", is_optional=True),
    *fields(Kind.INT, "adapter_size", is_optional=True),
    *fields(Kind.BOOL, "adapter_is_public", is_optional=True),
)
_CREATE = (
    *MODEL,
    *_ADAPTER,
    *fields(Kind.TEXT, "cpod_id gpu_model", is_optional=True),
    *fields(Kind.INT, "gpu_count min_instances max_instances", is_optional=True),
)


@attrs.define(eq=False, kw_only=True)
class ServiceRow:
    """One row of `sys_inference`; times are Unix seconds, None as long as there is none."""

    name: str
    user: User
    given: dict[str, object]
    created: float
    status: HeadStatus
    cpod_id: str | None
    assigned: float | None = None
    started: float | None = None
    ended: float | None = None

    @property
    def gpu(self) -> str:
        """The kind of GPU that it wants."""
        return str(self.given["gpu_model"])

    @property
    def gpus(self) -> int:
        """How many of them."""
        return int(str(self.given["gpu_count"]))


class InferenceCalls:
    """Create, status, listing, stop and delete of inference services, and what the agent does with them."""

    def __init__(self, table: JobTable, billing: Billing, quirks: CloudQuirks) -> None:
        self._table = table
        self._quirks = quirks
        self._limits = Limits(table, billing, self.running, quirks)
        self._services: list[ServiceRow] = []
        self.routes: dict[str, Methods] = {
            "/api/job/inference": {"GET": self.list_all, "POST": self.create, "DELETE": self.delete},
            "/api/job/inference/status": {"GET": self.status},
            "/api/job/inference/stop": {"POST": self.stop},
        }

    def running(self, user: User, gpu: str) -> int:
        """Give how many GPUs of that kind the user's services use."""
        return sum(one.gpus for one in self._of(user) if one.status is HeadStatus.RUNNING and one.gpu == gpu)

    def advance(self, first: float, last: float) -> None:
        """Do the agent's rounds from `first` to `last`: it never reports a service as pending, or as failed."""
        totals = {gpu.name: gpu.total for gpu in self._quirks.gpus}
        for one in self._services:
            if one.status is HeadStatus.NOTASSIGNED and one.gpus <= totals.get(one.gpu, -1):
                one.status, one.cpod_id = HeadStatus.ASSIGNED, CLUSTER
            if one.cpod_id != CLUSTER or one.status in (HeadStatus.RUNNING, HeadStatus.STOPPED):
                continue
            one.assigned = first if one.assigned is None else one.assigned
            if last - one.assigned >= self._quirks.deploy_time:
                one.status, one.started = HeadStatus.RUNNING, last
            elif last > one.assigned:
                one.status = HeadStatus.DATAPREPARING

    def create(self, asked: Asked) -> Answer:
        """POST /api/job/inference (`inference_deploy_logic.go`)."""
        given = read_json(asked.request, _CREATE)
        cpod = str(given["cpod_id"])
        row = ServiceRow(
            name=self._table.new_id("infer-", asked.now),
            user=asked.user,
            given=given,
            created=asked.now,
            status=HeadStatus.ASSIGNED if cpod else HeadStatus.NOTASSIGNED,
            cpod_id=cpod or None,
        )
        self._limits.check("InferenceDeploy", asked.user, row.gpu, row.gpus)
        self._services.append(row)
        return go_answer({"service_name": row.name})

    def status(self, asked: Asked) -> Answer:
        """GET /api/job/inference/status: ready is ``running`` (`inference_status_logic.go`)."""
        name = read_form(asked.request, _SERVICE_NAME)["service_name"]
        row = next((one for one in self._services if one.name == name), None)
        if row is None:
            raise Refusal(NOT_FOUND)
        if row.user != asked.user:
            raise Refusal(NO_ACCESS)
        chat, api = self._urls(row)
        return go_answer({"service_name": row.name, "status": row.status.word, "chat_url": chat, "api_url": api})

    def list_all(self, asked: Asked) -> Answer:
        """GET /api/job/inference: every service of the user, whatever the query says; there are no pages."""
        return go_answer({"data": [self._listed(one) for one in self._of(asked.user)]})

    def stop(self, asked: Asked) -> Answer:
        """POST /api/job/inference/stop (`inference_stop_logic.go`)."""
        row = self._own(asked)
        if row.status is HeadStatus.STOPPED:
            return go_answer({"message": f"service_name: {row.name} is already stopped"})
        row.status, row.ended = HeadStatus.STOPPED, asked.now
        return go_answer({"message": f"service_name: {row.name} stopped"})

    def delete(self, asked: Asked) -> Answer:
        """DELETE /api/job/inference: the row is gone (`inference_delete_logic.go`)."""
        self._services.remove(self._own(asked))
        return go_answer({"message": ""})

    def _of(self, user: User) -> list[ServiceRow]:
        return [one for one in reversed(self._services) if one.user == user]

    def _own(self, asked: Asked) -> ServiceRow:
        name = read_form(asked.request, _SERVICE_NAME)["service_name"]
        row = next((one for one in self._of(asked.user) if one.name == name), None)
        if row is None:
            raise Refusal(NO_ROWS)
        return row

    def _urls(self, row: ServiceRow) -> tuple[str, str]:
        """Give where to chat by hand and by API, empty until it has run: on another host, open to anybody."""
        if row.started is None:
            return "", ""
        base = self._quirks.inference_url
        is_embedding = row.given["model_category"] == "embedding"
        page = f"/inference/api/{row.name}/embeddings" if is_embedding else f"/inference/{row.name}"
        return base + page, f"{base}/inference/api/{row.name}/v1/chat/completions"

    def _listed(self, row: ServiceRow) -> dict[str, object]:
        chat, api = self._urls(row)
        kept = {field.name: row.given[field.name] for field in (*MODEL, *_ADAPTER)}
        times = {"create_time": row.created, "start_time": row.started, "end_time": row.ended}
        return {
            "service_name": row.name,
            "status": row.status.word,
            **kept,
            "url": chat,
            "api": api,
            "gpu_model": row.gpu,
            "gpu_count": row.gpus,
            **{key: "" if time is None else beijing(time) for key, time in times.items()},
        }
