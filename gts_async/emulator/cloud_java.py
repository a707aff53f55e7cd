"""The first generation's API (2023-12): Java, which checks hardly anything and answers every error with a JSON 400.

`UserJobController.java` is the source of what is not otherwise noted. How bodies are read is in `cloud_fastjson`.
"""

import re

from gts_async.emulator.cloud_answers import Refusal, beijing, java_answer, java_error, java_not_found, tomcat
from gts_async.emulator.cloud_fastjson import UserJob, pretty, read_numbers, read_object, text_of, user_job, value_of
from gts_async.emulator.cloud_front import Accounts, Asked, Handler, Methods
from gts_async.emulator.cloud_jobs import FileRow, JobRow, JobTable, OldStatus, User
from gts_async.emulator.cloud_orders import old_order
from gts_async.emulator.cloud_quirks import CloudQuirks
from gts_async.wire import Answer, Request

_ASSIGNABLE = ("workStatus", "obtainStatus", "deleted", "cpodId", "hfUrl")
"""Columns that no client is meant to fill."""

_WORDS = {OldStatus.UPLOADED: "success", OldStatus.FAILED: "fail"}


class JavaFront:
    """The documented API as it was on the day of its guide."""

    def __init__(self, table: JobTable, quirks: CloudQuirks, accounts: Accounts) -> None:
        self._table = table
        self._quirks = quirks
        self._accounts = accounts
        self._routes: dict[str, Methods] = {
            "/api/userJob": {"POST": self.create, "GET": self.list_jobs, "DELETE": self.delete_numbered},
            "/api/userJob/job_status": {"POST": self.status},
            "/api/userJob/job_del": {"POST": self.delete},
            "/api/userJob/getGpuType": {"GET": self.gpu_types},
            "/api/info/model_urls": {"GET": self.model_urls},
        }

    def user(self, request: Request) -> User | Answer:
        """Give who sends the request; a path that Spring's firewall rejects is nobody's."""
        if re.search(r"//|/\.\.?/|;|\\|%2[fF]|%5[cC]", request.path):
            return tomcat(500, "Internal Server Error")
        return self._accounts.for_java(request)

    def handler(self, request: Request, now: float) -> Handler | Answer:
        """Give who answers the request; a wrong method is an exception like any other: 400."""
        methods = self._routes.get(request.path.removesuffix("/"))
        if methods is None:
            return java_not_found(request.path, now)
        return methods.get(request.method) or java_error(f"Request method '{request.method}' not supported", now)

    def is_create(self, handler: Handler) -> bool:
        """Tell whether the handler makes jobs."""
        return handler == self.create

    def refused(self, message: str | None, now: float) -> Answer:
        """Give the answer to a Refusal."""
        return java_error(message, now)

    def create(self, asked: Asked) -> Answer:
        """POST /api/userJob: the two volumes are all that has to be there."""
        document = read_object(asked.request, "createUserJob")
        try:
            row = self._inserted(user_job(document), asked)
        except RecursionError:
            raise Refusal(None) from None  # a StackOverflowError is caught like any exception, and has no message
        return java_answer({"job_id": row.name})

    def _inserted(self, bean: UserJob, asked: Asked) -> JobRow:
        columns = dict(bean.columns)
        if not self._quirks.mass_assigns:
            for key in _ASSIGNABLE:
                columns.pop(key, None)
        name = self._table.new_id("ai", asked.now)
        volumes = {key: value_of(text_of(columns.get(key))) for key in ("modelVol", "ckptVol")}
        json_all = pretty(dict(bean.document) | {"jobName": name, **volumes, "stopType": columns.get("stopType")})
        order, cpod_id = old_order(name, json_all), text_of(columns.get("cpodId"))
        row = self._table.insert(
            name, asked.user, asked.now, columns=columns, json_all=json_all, order=order, cpod_id=cpod_id
        )
        row.work_status = int(columns.get("workStatus", 0))
        row.obtain_status = int(columns.get("obtainStatus", 0))
        row.is_deleted = bool(columns.get("deleted", 0))
        return row

    def status(self, asked: Asked) -> Answer:
        """POST /api/userJob/job_status: a missing id drops the condition, so anybody's newest job is shown."""
        name = text_of(read_object(asked.request, "queryUserJobStatus").get("job_id"))
        row = self._found(name)
        if row is None:
            return java_answer({})
        word = _WORDS.get(OldStatus(row.work_status), "working") if row.work_status in set(OldStatus) else "working"
        url = self._table.url(name, asked.now) if word == "success" else None
        if word == "success" and self._quirks.misspells_success:
            word = "sucess"
        # a HashMap of these two keys has the url first
        return java_answer({"url": url, "status": word})

    def _found(self, name: str | None) -> JobRow | None:
        if name is not None:
            return self._table.named(name, with_deleted=self._quirks.shows_deleted)
        if not self._quirks.shows_strangers_job:
            return None
        return self._table.newest(lambda row: self._quirks.shows_deleted or not row.is_deleted)

    def delete(self, asked: Asked) -> Answer:
        """POST /api/userJob/job_del: an empty 200, whatever the id is."""
        name = text_of(read_object(asked.request, "logicDeleteJob").get("job_id"))
        self._table.delete(name, asked.now)
        return Answer(200)

    def delete_numbered(self, asked: Asked) -> Answer:
        """DELETE /api/userJob: marks the jobs of these numbers, whosever they are; an empty 200."""
        self._table.delete_numbered(read_numbers(asked.request, "deleteJob"), asked.now)
        return Answer(200)

    def model_urls(self, asked: Asked) -> Answer:
        """GET /api/info/model_urls: all file rows of any job, of every job without a name (`FileurlMapper.xml`)."""
        name = dict(asked.request.query).get("jobName")
        return java_answer([_file(number, row) for number, row in self._table.files(name, asked.now)])

    def list_jobs(self, asked: Asked) -> Answer:
        """GET /api/userJob: the user's own jobs, 10 a page unless asked otherwise."""
        query = dict(asked.request.query)
        current, size = _page(query.get("current"), 1), _page(query.get("size"), 10)
        rows = self._table.of_user(asked.user)
        if "jobName" in query:
            rows = [row for row in rows if row.name == query["jobName"]]
        start = (max(current, 1) - 1) * max(size, 0)
        shown = rows if size < 0 else rows[start : start + size]
        return java_answer({"content": [_listed(row) for row in shown], "totalElements": len(rows)})

    def gpu_types(self, asked: Asked) -> Answer:
        """GET /api/userJob/getGpuType."""
        return java_answer([{"amount": gpu.price, "gpuProd": gpu.name} for gpu in self._quirks.gpus])


def _page(text: str | None, default: int) -> int:
    if not text:
        return default
    if not re.fullmatch(r"[+-]?\d{1,18}", text):
        raise Refusal(f"Failed to convert value to required type 'long'; For input string: \"{text}\"")
    return int(text)


def _listed(row: JobRow) -> dict[str, object]:
    """Give the bean as fastjson writes it: keys sorted, nulls left out."""
    bean: dict[str, object] = {
        **row.columns,
        "cpodId": row.cpod_id,
        "createTime": beijing(row.created),
        "deleted": int(row.is_deleted),
        "jobId": row.number,
        "jobName": row.name,
        "jsonAll": row.json_all,
        "obtainStatus": row.obtain_status,
        "updateTime": beijing(row.updated),
        "userId": row.user.number,
        "workStatus": row.work_status,
    }
    return dict(sorted(bean.items()))


def _file(number: int, row: FileRow) -> dict[str, object]:
    created = beijing(row.visible_from)
    return {"createTime": created, "fileId": number, "fileUrl": row.url, "jobName": row.job_name, "updateTime": created}
