"""How the Go servers list a user's jobs, page by page."""

from collections.abc import Callable

from gts_async.emulator.cloud_answers import beijing
from gts_async.emulator.cloud_front import Asked
from gts_async.emulator.cloud_gozero import Kind, fields, read_form
from gts_async.emulator.cloud_jobs import JobRow, JobTable
from gts_async.emulator.cloud_quirks import CloudQuirks

_PAGE = fields(Kind.INT, "current size")
_OMITTED_IF_EMPTY = ("datasetName", "datasetPath", "pretrainedModelName", "pretrainedModelPath", "runCommand")

Shown = Callable[[JobRow, dict[str, object]], dict[str, object]]


def _as_it_is(row: JobRow, shown: dict[str, object]) -> dict[str, object]:
    return shown


def listing(table: JobTable, quirks: CloudQuirks, asked: Asked, finish: Shown = _as_it_is) -> dict[str, object]:
    """Give the page that ``current`` and ``size`` ask for, newest first; both have to be there. Raises Refusal.

    The total leaves out the condition on deleted rows (`sys_user_job_model.go: FindPageListByPage`). `finish` may
    change what is shown of each row.
    """
    wanted = read_form(asked.request, _PAGE)
    current, size = int(str(wanted["current"])), int(str(wanted["size"]))
    rows = table.of_user(asked.user)
    start = (max(current, 1) - 1) * size
    page = rows[start : start + size] if size >= 0 else rows
    total = len(table.of_user(asked.user, with_deleted=quirks.counts_deleted))
    return {"content": [finish(row, _shown(row)) for row in page], "totalElements": total}


def _shown(row: JobRow) -> dict[str, object]:
    document: dict[str, object] = {
        "ckptPath": row.text("ckptPath"),
        "ckptVol": row.text("ckptVol"),
        "cpodId": row.cpod_id or "",
        "createTime": beijing(row.created),
        "datasetName": row.text("datasetName"),
        "datasetPath": row.text("datasetPath"),
        "deleted": int(row.is_deleted),
        "gpuNumber": row.columns.get("gpuNumber", 0),
        "gpuType": row.text("gpuType"),
        "imagePath": row.text("imagePath"),
        "jobId": row.number,
        "jobName": row.name,
        "jobType": row.text("jobType"),
        "jsonAll": row.json_all,
        "modelPath": row.text("modelPath"),
        "modelVol": row.text("modelVol"),
        "obtainStatus": row.obtain_status,
        "pretrainedModelName": row.text("pretrainedModelName"),
        "pretrainedModelPath": row.text("pretrainedModelPath"),
        "runCommand": row.text("runCommand"),
        "stopTime": row.columns.get("stopTime", 0),
        "stopType": row.columns.get("stopType", 0),
        "updateTime": beijing(row.updated),
        "userId": row.user.number,
        "workStatus": row.work_status,
    }
    return {key: value for key, value in document.items() if value or key not in _OMITTED_IF_EMPTY}
