"""What each layer of the SXWL cloud writes as an answer: Go's and Java's JSON, errors, pages. No rule of the API."""

import json
from datetime import UTC, datetime, timedelta, timezone

from gts_async.emulator.cloud_quirks import Generation
from gts_async.wire import Answer

DROPPED = Answer(0)
"""Stands for a connection that is closed without an answer; whoever serves the cloud has to close it."""

MAX_BODY = 1 << 20
"""Bytes of a request body that are taken (go-zero's `MaxBytes`, and nginx's default)."""

_GO_JSON = (("content-type", "application/json; charset=utf-8"),)
_JAVA_JSON = (("content-type", "application/json;charset=UTF-8"),)
_TEXT = (("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff"))
_HTML = (("content-type", "text/html"),)
_TOMCAT = (("content-type", "text/html;charset=utf-8"), ("content-language", "en"))
_GO_ESCAPES = {"&": "\\u0026", "<": "\\u003c", ">": "\\u003e", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_BEIJING = timezone(timedelta(hours=8))

Document = dict[str, object] | list[object] | None


class Refusal(Exception):
    """The handler ended with an error, which both generations answer with 400; None is Java's null message."""

    def __init__(self, message: str | None) -> None:
        super().__init__(message)
        self.message = message


def go_json(document: object) -> str:
    """Give JSON as Go's ``json.Marshal`` does: compact, and with ``&``, ``<`` and ``>`` escaped."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return "".join(_GO_ESCAPES.get(character, character) for character in text)


def go_number(number: float) -> float:
    """Give a float64 as Go writes it: without a fraction where there is none."""
    return int(number) if float(number).is_integer() else number


def java_json(document: object) -> str:
    """Give JSON as fastjson does: compact, as it is, without keys that are null."""
    return json.dumps(without_nulls(document), ensure_ascii=False, separators=(",", ":"))


def without_nulls(document: object) -> object:
    """Give the document as fastjson shows it: keys that are null are not there."""
    if isinstance(document, dict):
        return {key: without_nulls(value) for key, value in document.items() if value is not None}
    return [without_nulls(item) for item in document] if isinstance(document, list) else document


def go_answer(document: Document, status: int = 200) -> Answer:
    """Give what go-zero's ``httpx.OkJson`` writes."""
    return Answer(status, _GO_JSON, go_json(document).encode("utf-8", "replace"))


def java_answer(document: Document, status: int = 200) -> Answer:
    """Give what fastjson's message converter writes."""
    return Answer(status, _JAVA_JSON, java_json(document).encode("utf-8", "replace"))


def java_error(message: str | None, now: float) -> Answer:
    """Give what `GlobalExceptionHandler` makes of every exception; fastjson sorts a bean's keys and omits nulls."""
    return java_answer({"message": message, "status": 400, "timestamp": int(now * 1000)}, 400)


def text(status: int, words: str) -> Answer:
    """Give what Go's ``http.Error`` writes: the words, and the end of the line."""
    return Answer(status, _TEXT, f"{words}\n".encode("utf-8", "replace"))


def not_found() -> Answer:
    """Give Go's ``http.NotFound``."""
    return text(404, "404 page not found")


def java_not_found(path: str, now: float) -> Answer:
    """Give Spring Boot's error document for a path without a handler."""
    return java_answer({"timestamp": beijing(now), "status": 404, "error": "Not Found", "path": path}, 404)


def nginx(status: int, reason: str) -> Answer:
    """Give one of nginx's own pages."""
    title = f"{status} {reason}"
    page = f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
    return Answer(status, _HTML, f"{page}<hr><center>nginx/1.25.3</center>\r\n</body>\r\n</html>\r\n".encode())


def tomcat(status: int, reason: str) -> Answer:
    """Give the container's page for an error that no handler saw."""
    title = f"HTTP Status {status} – {reason}"
    page = f'<!doctype html><html lang="en"><head><title>{title}</title></head><body><h1>{title}</h1></body></html>'
    return Answer(status, _TOMCAT, page.encode())


def website(method: str) -> Answer:
    """Give the single page of the UI, which nginx serves for every path it does not know; 405 unless it is read."""
    if method not in ("GET", "HEAD"):
        return nginx(405, "Not Allowed")
    page = '<!DOCTYPE html><html lang="zh"><head><title>算想云</title></head><body><div id="root"></div></body></html>'
    return Answer(200, _HTML, b"" if method == "HEAD" else page.encode())


def too_large(generation: Generation) -> Answer:
    """Give the answer to more than `MAX_BODY`: go-zero's is empty, in front of Java stands only nginx."""
    return nginx(413, "Request Entity Too Large") if generation is Generation.JAVA else Answer(413)


def overloaded(generation: Generation) -> Answer:
    """Give the answer of go-zero's breaker, which is empty and names no time to come back (`breakerhandler.go`)."""
    return nginx(503, "Service Temporarily Unavailable") if generation is Generation.JAVA else Answer(503)


def unreachable(generation: Generation) -> Answer:
    """Give the answer when what lies behind the gateway cannot be reached (`gateway/handler.go: pass`)."""
    return nginx(502, "Bad Gateway") if generation is Generation.JAVA else text(500, "Error forwarding request")


def timed_out(generation: Generation) -> Answer:
    """Give the answer after the server's own time limit (`timeouthandler.go`; HEAD's error hook makes it a 400)."""
    match generation:
        case Generation.JAVA:
            return nginx(504, "Gateway Time-out")
        case Generation.GO:
            return Answer(503, (("content-type", "text/plain; charset=utf-8"),), b"Request Timeout")
        case Generation.HEAD:
            return go_answer({"message": "context deadline exceeded"}, 400)


def beijing(now: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Give the time as the servers write it: Beijing's, without saying so."""
    return datetime.fromtimestamp(now, UTC).astimezone(_BEIJING).strftime(form)
