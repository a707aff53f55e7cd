"""The callbacks that the SXWL cloud sends when a job has failed or its model is uploaded: their bytes, and their queue.

Sending them is up to who serves the cloud; the answer to one is never looked at, and none is sent again.
"""

import re
from urllib.parse import parse_qsl, quote_plus, urlsplit, urlunsplit

import attrs

from gts_async.emulator.cloud_answers import go_json, java_json
from gts_async.emulator.cloud_jobs import JobRow
from gts_async.emulator.cloud_quirks import CallbackForm, CloudQuirks

_GO_HEADERS = (
    ("user-agent", "Go-http-client/1.1"),
    ("content-type", "application/json; charset=utf-8"),
    ("accept-encoding", "gzip"),
)
_JAVA_HEADERS = (("content-type", "application/json"), ("user-agent", "Java/1.8.0_392"))
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


@attrs.frozen
class CallbackDelivery:
    """One POST that the cloud makes: where to, and what it carries. There is no signature in it."""

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@attrs.frozen
class _Due:
    at: float
    delivery: CallbackDelivery


class CallbackQueue:
    """Callbacks from the moment they are written until somebody takes them to be sent."""

    def __init__(self, quirks: CloudQuirks) -> None:
        self._quirks = quirks
        self._waiting: list[_Due] = []

    def report(self, row: JobRow, is_success: bool, url: str | None, at: float) -> None:
        """Write the callback of a job that has failed, or whose model is uploaded (`cpod_status_logic.go`).

        Nothing comes of it for a deleted job, without a callback URL, with a URL that Go cannot use or that leads
        nowhere by its name, and, from Go, for a success without a file row.
        """
        form = self._quirks.callbacks
        target = _target(row.text("callbackUrl"), form)
        if row.is_deleted or not target or (is_success and url is None and form is not CallbackForm.JAVA):
            return
        body = _body(form, row.name, is_success, url)
        headers = _JAVA_HEADERS if form is CallbackForm.JAVA else _GO_HEADERS
        due = _Due(at + self._quirks.callback_delay, CallbackDelivery(target, headers, body.encode()))
        self._waiting += [due] * self._quirks.callback_copies

    def take(self, now: float) -> tuple[CallbackDelivery, ...]:
        """Give what is due by `now`, in the order of its writing; it is not given again."""
        ready = tuple(due.delivery for due in self._waiting if due.at <= now)
        self._waiting = [due for due in self._waiting if due.at > now]
        return ready


def _target(url: str, form: CallbackForm) -> str | None:
    if re.match(r"(?i)https?://[^/?#]*\.invalid(:[0-9]*)?([/?#]|$)", url):
        # Such names are never resolved (RFC 6761): the call fails, and nobody is to be asked for the name either.
        return None
    return (url or None) if form is CallbackForm.JAVA else go_target(url)


def _body(form: CallbackForm, job_id: str, is_success: bool, url: str | None) -> str:
    status = "success" if is_success else "fail"
    match form:
        case CallbackForm.GO:
            # Go fills in the id only beside a url, and writes a map with its keys sorted.
            document = {"jobId": job_id if is_success else "", "status": status, "url": url or ""}
            return go_json(document) + "\n"
        case CallbackForm.JAVA:
            return java_json({"jobId": job_id if url else None, "url": url, "status": status})
        case CallbackForm.DOCUMENTED:
            return go_json({"job_id": job_id, "status": status, "url": url or ""})


def go_target(url: str) -> str | None:
    """Give the URL as go-zero's client really calls it, None where the call fails (`rest/httpc/requests.go`).

    The query is decoded, sorted by key and encoded anew; a path segment that starts with a colon is taken for a
    variable that has no value.
    """
    if not re.fullmatch(r"(?i:https?)://[^\s/?#]+[^\x00-\x20\x7f\ud800-\udfff]*", url):
        return None
    parts = urlsplit(url)
    if _BAD_ESCAPE.search(parts.path) or any(segment.startswith(":") for segment in parts.path.split("/")):
        return None
    return urlunsplit((parts.scheme, parts.netloc, parts.path, _sorted_query(parts.query), ""))


def _sorted_query(query: str) -> str:
    kept = "&".join(pair for pair in query.split("&") if ";" not in pair and not _BAD_ESCAPE.search(pair))
    pairs = sorted(parse_qsl(kept, keep_blank_values=True, errors="surrogateescape"), key=lambda pair: pair[0])
    return "&".join(f"{_escaped(name)}={_escaped(value)}" for name, value in pairs)


def _escaped(text: str) -> str:
    return quote_plus(text, errors="surrogateescape")
