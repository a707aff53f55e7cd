"""The cloud's calls: one function per endpoint, giving the Call with its path, body, reading and repeatability.

How things are spelled is in `dialects`, how answers are read in `answers`. Paths are relative to a base URL that ends
in ``/api``. No function does I/O.
"""

from collections.abc import Mapping
from functools import partial

from gts_async._errors import NotSupported
from gts_async.sxwl import answers
from gts_async.sxwl.checks import check_id, check_number
from gts_async.sxwl.dialects import Dialect, Place, Route
from gts_async.sxwl.values import GpuType, JobInfo, JobListing, JobSpec
from gts_async.wire import Call, Request

FORM_HEADERS = (("content-type", "application/x-www-form-urlencoded"),)
MAX_PAGE = 1_000_000
MAX_SIZE = 1000
"""Jobs of one page; as many as the cloud's own pages ask for."""


def create_job(dialect: Dialect, spec: JobSpec) -> Call[str]:
    """Give the new job's id.

    Not repeatable: the servers know no idempotency key, a second one is a second job. Whether a lost answer's job is
    there can be seen in a listing by its `mark_of`. Raises QuotaExceeded, InvalidData, Unauthorized; OutcomeUnknown
    when the server ran out of time with it.
    """
    request = Request.json(dialect.create_job.method, dialect.create_job.path, _body(dialect, spec))
    return Call("create_job", request, partial(answers.read_created, "create_job"), is_repeatable=False)


def job_status(dialect: Dialect, job_id: str) -> Call[JobInfo]:
    """Give one look at the job.

    Raises NotFound for a job that is unknown or deleted, Denied (newer dialect only) for somebody else's.
    """
    read = partial(answers.read_status, "job_status", dialect, job_id)
    return Call("job_status", _about(dialect.job_status, job_id), read, is_repeatable=True)


def stop_job(dialect: Dialect, job_id: str) -> Call[None]:
    """Stop the job.

    In the documented dialect this is the same as `delete_job`, says yes to any id, and leaves the status "working" for
    ever: do not look again. In the newer one the job shows as stopped, even one that had ended before
    (gpu_job_stop_logic.go), so do not stop what has ended. Raises NotFound, in the newer dialect only.
    """
    read = partial(answers.read_done, "stop_job")
    return Call("stop_job", _about(dialect.stop_job, job_id), read, is_repeatable=True)


def delete_job(dialect: Dialect, job_id: str) -> Call[None]:
    """Stop the job if it runs, and take it out of the listing.

    The servers say yes to any id and delete anybody's job: nothing is learned from the answer (job_stop_logic.go).
    """
    route = _supported(dialect, "delete_job", dialect.delete_job)
    return Call("delete_job", _about(route, job_id), partial(answers.read_done, "delete_job"), is_repeatable=True)


def list_jobs(dialect: Dialect, page: int = 1, size: int = 100) -> Call[tuple[JobListing, ...]]:
    """Give one page of the account's own jobs, newest first, without deleted ones; the first page is 1.

    A page with fewer than `size` jobs is the last: the total that the servers tell counts deleted jobs too
    (`sys_user_job_model.go: FindPageListByPage`).
    """
    route = _supported(dialect, "list_jobs", dialect.list_jobs)
    check_number("page", page, 1, MAX_PAGE)
    check_number("size", size, 1, MAX_SIZE)
    request = Request(route.method, route.path, query=(("current", str(page)), ("size", str(size))))
    return Call("list_jobs", request, partial(answers.read_listing, "list_jobs", dialect), is_repeatable=True)


def gpu_types(dialect: Dialect) -> Call[tuple[GpuType, ...]]:
    """Give the kinds of GPU that the clusters have, by name."""
    route = _supported(dialect, "gpu_types", dialect.gpu_types)
    request = Request(route.method, route.path)
    return Call("gpu_types", request, partial(answers.read_gpu_types, "gpu_types"), is_repeatable=True)


def mark_of(dialect: Dialect, spec: JobSpec) -> str | None:
    """Give what `JobListing.mark` of a job made from `spec` equals, or None if it cannot be told from others."""
    travels: str | None = getattr(spec, dialect.mark_field)
    return travels if travels is not None and spec.mark is not None and spec.mark in travels else None


def _supported(dialect: Dialect, call: str, route: Route | None) -> Route:
    if route is None:
        raise NotSupported(f'the servers of the dialect "{dialect.name}" have no {call}')
    return route


def _about(route: Route, job_id: str) -> Request:
    check_id("job_id", job_id)
    if route.place is Place.QUERY:
        return Request(route.method, route.path, query=(("job_id", job_id),))
    if route.place is Place.FORM:
        return Request(route.method, route.path, headers=FORM_HEADERS, body=f"job_id={job_id}".encode())
    return Request.json(route.method, route.path, {"job_id": job_id})


def _body(dialect: Dialect, spec: JobSpec) -> Mapping[str, object]:
    body: dict[str, object] = {}
    for field, key in dialect.spelling:
        value = getattr(spec, field)
        if field == "job_type":
            value = dialect.job_types[spec.job_type]
        elif field == "env":
            value = dict(spec.env) or None
        elif field in dialect.as_text:
            value = str(int(value))
        if value is not None:
            body[key] = value
    return body
