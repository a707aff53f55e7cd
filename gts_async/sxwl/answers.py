"""How the cloud's answers are read: into values, or into our errors.

The servers answer 400 for nearly everything, so what a refusal means is told from its text. `call` is the name of the
call, for the errors' texts. What goes out is in `calls`.
"""

import re
from collections.abc import Callable
from typing import Annotated

import attrs
from msgspec import Meta

from gts_async._errors import (
    Denied,
    GtsAsyncError,
    InvalidData,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
    ServiceError,
    Unauthorized,
    UnexpectedAnswer,
    plain,
)
from gts_async.sxwl.checks import is_plain_id, is_web_url
from gts_async.sxwl.dialects import Dialect
from gts_async.sxwl.values import GpuType, JobInfo, JobListing, JobStatus
from gts_async.wire import Answer, T, decode

MAX_SAID, MAX_TEXT = 2 << 20, 1 << 16
"""Bytes of a refusal that are read as JSON, and those that are looked at if it is none: no server writes as many."""

MAX_BRACES = 100_000
"""Opening braces of a listing: those of 1000 rows, each with the job's body as a string in it, are below 10 000."""

NOTHING = re.compile(rb"(\xef\xbb\xbf)?\s*\{\s*\}\s*")

_Whole = int | Annotated[str, Meta(pattern="^-?[0-9]{1,18}$")]
_Decimal = float | Annotated[str, Meta(pattern=r"^-?[0-9]{1,18}(\.[0-9]{1,18})?$")]
"""Numbers, which the cloud has now and then turned into strings and back from one release to the next: stopType,
ckptVol and modelVol have been both (`types.go: JobCreateReq`)."""


@attrs.frozen
class _Created:
    job_id: str


@attrs.frozen
class _Status:
    status: str
    url: str | None = None
    job_id: str | None = None


@attrs.frozen
class _Message:
    message: str


@attrs.frozen
class _Row:
    jobName: str | None = None
    status: str | None = None
    workStatus: _Whole | None = None
    jsonAll: str | None = None


@attrs.frozen
class _Page:
    content: tuple[_Row, ...]


@attrs.frozen
class _Gpu:
    gpuProd: str
    amount: _Decimal | None = None
    gpuAllocatable: _Whole | None = None


@attrs.frozen
class _Kept:
    """What the server kept of a create's body: the fields that may hold its mark."""

    callbackUrl: str | None = None
    trainedModelName: str | None = None


def read_created(call: str, answer: Answer) -> str:
    """Give the id of the job that was made."""
    if answer.status != 200:
        raise _creation_refused(call, answer)
    job_id = _document(call, answer, _Created).job_id
    if not is_plain_id(job_id):
        raise _unexpected(call, "what it gives is not a job's id", answer)
    return job_id


def read_status(call: str, dialect: Dialect, job_id: str, answer: Answer) -> JobInfo:
    """Give one look at the job; an unknown word is kept, as UNKNOWN."""
    _raise_refusal(call, answer)
    if NOTHING.fullmatch(answer.body):
        # The Java server's answer for an id that it does not know (UserJobController.java: queryUserJobStatus).
        raise NotFound(f"{call}: there is no job {job_id}: the cloud answers with nothing", call=call, code=200)
    document = _document(call, answer, _Status)
    if document.job_id not in (None, "", job_id):
        raise _unexpected(call, f"the answer is about another job than {job_id}", answer)
    status = dialect.words.get(document.status, JobStatus.UNKNOWN)
    return JobInfo(status, read_url(call, document.url), answer.received_at, document.status)


def read_done(call: str, answer: Answer) -> None:
    """Read a yes: a message, or nothing at all (the Java server's job_del)."""
    _raise_refusal(call, answer)
    if answer.body.strip():
        _document(call, answer, _Message)


def read_listing(call: str, dialect: Dialect, answer: Answer) -> tuple[JobListing, ...]:
    """Give the jobs of one page; rows without an id, which nobody can ask about, are left out."""
    _raise_refusal(call, answer, is_about_one=False)
    _check_rows(call, answer)
    rows = _page(call, answer).content
    return tuple(_listing(dialect, row, row.jobName, answer) for row in rows if row.jobName)


def read_gpu_types(call: str, answer: Answer) -> tuple[GpuType, ...]:
    """Give each kind of GPU once, by name: the newer servers have a row for every number of free ones."""
    _raise_refusal(call, answer, is_about_one=False)
    _check_rows(call, answer)
    kinds: dict[str, GpuType] = {}
    for row in _document(call, answer, tuple[_Gpu, ...]):
        seen = kinds.get(row.gpuProd)
        counts = [int(count) for count in (row.gpuAllocatable, seen.free if seen else None) if count is not None]
        price = None if row.amount is None else float(row.amount)
        kinds[row.gpuProd] = GpuType(row.gpuProd, price, max(counts, default=None))
    return tuple(kinds[name] for name in sorted(kinds))


def read_url(call: str, url: str | None) -> str | None:
    """Give the model's URL, byte for byte, or None for an empty one; the error does not repeat it."""
    if not url:
        return None
    if not is_web_url(url):
        raise UnexpectedAnswer(call=call, problem="the model's URL is not an http or https URL with a host")
    return url


def _listing(dialect: Dialect, row: _Row, job_id: str, answer: Answer) -> JobListing:
    if row.status:
        status, word = dialect.words.get(row.status), row.status
    elif row.workStatus is not None:
        status, word = dialect.numbers.get(int(row.workStatus)), str(row.workStatus)
    else:
        status, word = None, ""
    info = JobInfo(status or JobStatus.UNKNOWN, None, answer.received_at, word)
    return JobListing(job_id, info, _mark(dialect.mark_key, row.jsonAll))


def _mark(key: str, document: str | None) -> str | None:
    """Give the mark out of the body that the server kept; what cannot be read carries none."""
    try:
        kept = decode((document or "{}").encode(), _Kept, call="list_jobs")
    except UnexpectedAnswer:
        return None
    mark: str | None = getattr(kept, key)
    return mark or None


def _document(call: str, answer: Answer, shape: type[T]) -> T:
    if answer.body.lstrip()[:1] == b"<":
        # Without /api, the site answers any GET with its own page (ui/nginx.conf: try_files).
        raise _unexpected(call, "the answer is a web page: the base URL probably lacks its /api", answer)
    return decode(answer.body, shape, call=call)


def _check_rows(call: str, answer: Answer) -> None:
    """Refuse more rows than any page has before they are read: each would take thirty times its bytes, and its time."""
    if answer.body.count(b"{") > MAX_BRACES:
        raise UnexpectedAnswer(call=call, problem="the answer has more rows than any page")


def _page(call: str, answer: Answer) -> _Page:
    try:
        return _document(call, answer, _Page)
    except UnexpectedAnswer as error:
        # The rows hold what the jobs were created with, secrets in their env included.
        bare = UnexpectedAnswer(call=call, problem=error.problem)
        bare.is_cut = error.is_cut
        raise bare from None


def _unexpected(call: str, problem: str, answer: Answer) -> UnexpectedAnswer:
    return UnexpectedAnswer(call=call, problem=problem, body=answer.start())


NO_ROWS = "sql: no rows in result set"
DATABASE_QUERY = "数据库查询错误"

PASSING = (
    "context deadline exceeded",
    "context canceled",
    "circuit breaker is open",
    "bad connection",
    "invalid connection",
    "connection refused",
    "i/o timeout",
    "Too many connections",
    "Communications link failure",
    "数据库错误",
    "系统错误",
    "服务异常",
)
"""Texts of a 400 that tell of the server's own trouble (10 s passed, its database was away), not of the request."""

MALFORMED = (
    "type mismatch for field",
    "is not set",
    "mustn't be nil",
    "strconv.",
    "Cannot parse null string",
    "For input string",
    "syntax error",
    "Data too long",
    "Out of range value",
)
"""Texts of a 400 about the body: of go-zero's mapping, Java's number parsing, fastjson, MySQL's columns."""

_Kind = Callable[..., ServiceError]
_MEANINGS: tuple[tuple[tuple[str, ...], _Kind], ...] = (
    (("余额不足", "CheckQuota"), QuotaExceeded),
    (("无权访问",), Denied),
    (MALFORMED, InvalidData),
)
_STATUSES: dict[int, _Kind] = {401: Unauthorized, 403: Denied, 413: InvalidData, 429: RateLimited}


def _raise_refusal(call: str, answer: Answer, *, is_about_one: bool = True) -> None:
    """Raise what an answer other than 200 to a repeatable call means; a call about no one job misses none."""
    if answer.status == 200:
        return
    said = _said(answer)
    passing = PASSING if is_about_one else (*PASSING, NO_ROWS, DATABASE_QUERY)
    if answer.status >= 500 or (answer.status == 400 and _has(said, passing)):
        text = f"{call}: the server failed ({answer.status}): {plain(said, 200)}"
        raise ServerFailed(text, status=answer.status, body=answer.start(), call=call)
    if answer.status == 400 and NO_ROWS in said:
        raise NotFound(call=call, code=400, message=said)
    if answer.status == 400 and DATABASE_QUERY in said:
        text = f"{call}: there is no such job, or the cloud's database failed; it says the same of both: {said}"
        raise NotFound(plain(text), call=call, code=400, message=said)
    raise _refusal(call, answer, said)


def _creation_refused(call: str, answer: Answer) -> GtsAsyncError:
    """Give what an answer other than 200 to a create means; a failure of the server's may have made the job."""
    said = _said(answer)
    if answer.status >= 500 or (answer.status == 400 and _has(said, PASSING)):
        text = f"{call}: the server failed ({answer.status}): {plain(said, 200)}; the job may exist all the same"
        return OutcomeUnknown(text, call=call)
    if answer.status == 400 and NO_ROWS in said:
        # The first thing it looks for is the account's balance (job_create_logic.go).
        return QuotaExceeded(f"{call}: the account has no balance (400)", call=call, code=400, message=said)
    return _refusal(call, answer, said)


def _refusal(call: str, answer: Answer, said: str) -> GtsAsyncError:
    status = answer.status
    if status < 400:
        to = f" that leads to {answer.leads_to}" if status >= 300 else ""
        problem = f"the answer is a {status}{to}, which the cloud never gives: check the base URL"
        return _unexpected(call, problem, answer)
    if status in (404, 405):
        problem = f"the server has no such call ({status}): it speaks another dialect, or the base URL lacks its /api"
        return _unexpected(call, problem, answer)
    kind = _STATUSES.get(status)
    if status == 400:
        kind = next((kind for texts, kind in _MEANINGS if _has(said, texts)), None)
    if status == 401 and said == "Unauthorized":
        text = f"{call}: the token is not accepted (401); newer servers refuse those from before May 2024"
        return Unauthorized(text, call=call, code=status, message=said)
    return (kind or ServiceError)(call=call, code=status, message=said)


def _has(said: str, texts: tuple[str, ...]) -> bool:
    return any(text in said for text in texts)


def _said(answer: Answer) -> str:
    """Give the server's own words: of ``{"message": …}``, else the text (Go before 2024-04-08, the gateway)."""
    try:
        return decode(answer.body[:MAX_SAID], _Message, call="refusal").message
    except UnexpectedAnswer:
        return answer.start(MAX_TEXT).strip()
