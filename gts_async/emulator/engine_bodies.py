"""What the engine's endpoints take as bodies, how it refuses other bodies, and how it words its answers.

Uploads are read in `engine_forms`; what the coerced values lead to is in `engine`.
"""

import json
from email.message import Message
from typing import Any

from gts_async.emulator import engine_coercion as coercion
from gts_async.emulator.engine_coercion import Fault, Field, Refused, Shape
from gts_async.wire import Answer, Request


class Crash(Exception):
    """The service would raise here: 500. The text is for whoever debugs the emulator, it is not on the wire."""


class Rejected(Exception):
    """The request is answered before any handler sees it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def _text(default: str = "") -> Field:
    return Field(coercion.text(), default)


def _integer(default: int) -> Field:
    return Field(coercion.integer(), default)


DEFAULT_SENTENCES = (
    {"content": "怎样的房子才算户型方正？"},
    {"content": "文登区这些公路及危桥将进入 封闭施工，请注意绕行！"},
)
"""What `predict` predicts when the request names no sentences."""

CREATE = coercion.record(task_name=_text(), engine_type=_text(), task_type=_text())
ONLY_ID = coercion.record(task_id=_text())
TRAIN = coercion.record(
    task_id=_text(),
    train_data=_text(),
    val_data=_text(),
    test_data=_text(),
    label_data=_text(),
    unlabeled_data=_text(),
    max_len=_integer(512),
    max_num_epoch=_integer(3),
    min_num_epoch=_integer(3),
    seed=_integer(42),
    gpuid=_integer(0),
    train_mode=_text("standard"),
)
PREDICT = coercion.record(sentences=Field(coercion.list_of(), DEFAULT_SENTENCES), task_id=_text())


def read_body(request: Request, shape: Shape) -> dict[str, Any]:
    """Give the coerced fields of a JSON body; raises Rejected (400 or 422)."""
    document = _document(request)
    try:
        if document is None:
            raise Refused(coercion.MISSING)
        fields: dict[str, Any] = shape(document)
        return fields
    except Refused as refused:
        raise Rejected(unprocessable(*(fault.under("body") for fault in refused.faults))) from refused


def _document(request: Request) -> object:
    body = raw_body(request)
    if not body:
        return None
    if not _is_json(request.header("content-type")):
        return body
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise Rejected(_not_json(error)) from error
    except (ValueError, RecursionError) as error:
        raise Rejected(bad_request("There was an error parsing the body")) from error


def raw_body(request: Request) -> bytes:
    """Give the body as it is on the wire; raises TypeError for a form that has still to be encoded."""
    if not isinstance(request.body, bytes):
        raise TypeError("the emulator reads bytes: encode the Multipart first")
    return request.body


def _is_json(content_type: str | None) -> bool:
    """Tell whether FastAPI takes the body for JSON; a missing content type counts as JSON."""
    if not content_type:
        return True
    message = Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def _not_json(error: json.JSONDecodeError) -> Answer:
    context = {"msg": error.msg, "doc": error.doc, "pos": error.pos, "lineno": error.lineno, "colno": error.colno}
    return unprocessable(Fault(str(error), "value_error.jsondecode", ("body", error.pos), context))


def unprocessable(*faults: Fault) -> Answer:
    """Give the 422 for these faults, whose places begin with "body"."""
    return as_json({"detail": coercion.as_json(faults)}, 422)


def bad_request(detail: str) -> Answer:
    """Give a 400."""
    return as_json({"detail": detail}, 400)


def as_json(document: object, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """Give `document` as the service prints JSON: compact, in UTF-8; raises Crash for NaN and lone surrogates."""
    try:
        body = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Crash(f"not JSON: {error}") from error
    return respond(status, "application/json", body, headers)


def respond(status: int, content_type: str, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """Give an answer with the headers that uvicorn sends, but for the date."""
    usual = (("server", "uvicorn"), ("content-length", str(len(body))), ("content-type", content_type))
    return Answer(status, (*usual, *headers), body)


def result(ret_code: int, message: str, **more: object) -> dict[str, object]:
    """Give the document that nearly every answer of the engine is."""
    return {"ret_code": ret_code, "message": message, **more}


def internal_error() -> Answer:
    """Give the 500, always the same 21 bytes of text."""
    return respond(500, "text/plain; charset=utf-8", b"Internal Server Error")


def not_found() -> Answer:
    """Give the 404 for an unknown path."""
    return as_json({"detail": "Not Found"}, 404)


def wrong_method(allowed: str) -> Answer:
    """Give the 405 for a known path."""
    return as_json({"detail": "Method Not Allowed"}, 405, (("allow", allowed),))


def redirect(location: str) -> Answer:
    """Give the 307 to the other spelling of the path; it has no body and no content type."""
    return Answer(307, (("server", "uvicorn"), ("content-length", "0"), ("location", location)))


HOME_PAGE = b"""
                <h1 align="center"></h1></br>
                <h1 align="center"></h1></br>
                <h1 align="center">GTS-Engine\xe5\x9c\xa8\xe7\xba\xbf\xe7\xae\x97\xe6\xb3\x95API</h1>
                """


def home() -> Answer:
    """Give the page at ``/``, by which a client can tell that this is a GTS Engine."""
    return respond(200, "text/html; charset=utf-8", HOME_PAGE)
