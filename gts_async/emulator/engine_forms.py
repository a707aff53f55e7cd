"""Reads upload forms as starlette 0.20 with python-multipart 0.0.5 does, file names included.

What such a form has to hold is checked here too; the files are kept in `engine`.
"""

import re
from urllib.parse import unquote_plus

import attrs

from gts_async.emulator import engine_coercion as coercion
from gts_async.emulator.engine_bodies import Rejected, bad_request, raw_body, unprocessable
from gts_async.emulator.engine_coercion import Fault
from gts_async.wire import Answer, Request

_TOKEN = rb"[^()<>@,;:\\\"/\[\]?={} \t]+"
_OPTION = re.compile(rb"(?:;|^)\s*(" + _TOKEN + rb")\s*=\s*(" + _TOKEN + rb'|"(?:\\.|[^"])*")')
_HEADER_NAME = re.compile(rb"[A-Za-z-]*")


@attrs.frozen
class UploadedFile:
    """A part with a file name, which is as the client spelled it."""

    name: str
    content: bytes


Form = list[tuple[str, str | UploadedFile]]


def read_upload(request: Request) -> tuple[str, list[UploadedFile]]:
    """Give the task id and the files of an upload; raises Rejected (400 or 422)."""
    form = read_form(request)
    sent = [value for key, value in form if key == "files"]
    task_id = next((value for key, value in reversed(form) if key == "task_id"), "")
    faults = [_not_a_file(i) for i, value in enumerate(sent) if isinstance(value, str)]
    faults += [] if sent else [coercion.MISSING.under("files")]
    if not isinstance(task_id, str):
        faults.append(coercion.NOT_TEXT.under("task_id"))
    elif task_id == "":
        faults.append(coercion.MISSING.under("task_id"))
    if faults:
        raise Rejected(unprocessable(*(fault.under("body") for fault in faults)))
    return str(task_id), [value for value in sent if isinstance(value, UploadedFile)]


def _not_a_file(index: int) -> Fault:
    return Fault("Expected UploadFile, received: <class 'str'>", "value_error", ("files", index))


def read_form(request: Request) -> Form:
    """Give the fields of a form, in order; a body of another content type is an empty form. Raises Rejected (400)."""
    kind, options = parse_options((request.header("content-type") or "").encode("latin-1", "replace"))
    if kind == b"multipart/form-data":
        if b"boundary" not in options:
            raise Rejected(bad_request("Missing boundary in multipart."))
        charset = options.get(b"charset", b"utf-8").decode("latin-1")
        parts = [(*_named(*part, charset), part[1]) for part in _parts(raw_body(request), options[b"boundary"])]
        return [(name, value) for name, value, content in parts if content is not None]
    if kind == b"application/x-www-form-urlencoded":
        return _urlencoded(raw_body(request))
    return []


def parse_options(header: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    r"""Split a header into its value and its options; a file name `C:\dir\file` loses its folders."""
    if b";" not in header:
        return header.lower().strip(), {}
    value, rest = header.split(b";", 1)
    options: dict[bytes, bytes] = {}
    for key, option in _OPTION.findall(rest):
        if option[:1] == b'"' == option[-1:]:
            option = option[1:-1].replace(b"\\\\", b"\\").replace(b'\\"', b'"')
        if key.lower() == b"filename" and (option[1:3] == b":\\" or option[:2] == b"\\\\"):
            option = option.split(b"\\")[-1]
        options[key.lower()] = option
    return value, options


def _named(disposition: bytes, content: bytes | None, charset: str) -> tuple[str, str | UploadedFile]:
    _, options = parse_options(disposition)
    if b"name" not in options:
        said = 'The Content-Disposition header field "name" must be provided.'
        raise Rejected(bad_request(said))
    name = _decode(options[b"name"], charset)
    if b"filename" in options:
        return name, UploadedFile(_decode(options[b"filename"], charset), content or b"")
    return name, _decode(content or b"", charset)


def _decode(raw: bytes, charset: str) -> str:
    try:
        return raw.decode(charset)
    except (UnicodeDecodeError, LookupError):
        return raw.decode("latin-1")


def _parts(body: bytes, boundary: bytes) -> list[tuple[bytes, bytes | None]]:
    """Give content-disposition and content of every part; the content of a part that breaks off is None."""
    delimiter = b"\r\n--" + boundary
    body = body.lstrip(b"\r\n")
    opening = delimiter[2:] + b"\r\n"
    if not body.startswith(opening[: len(body)]):
        raise Rejected(_unparsable())
    parts: list[tuple[bytes, bytes | None]] = []
    at = len(opening)
    while at < len(body):
        disposition, start = _headers(body, at)
        if start == -1:
            break
        end = _content_end(body, start, delimiter)
        parts.append((disposition, body[start:end] if end != -1 else None))
        at = end + len(delimiter) + 2
        if end == -1 or body[at - 2 : at] == b"--":
            break
    return parts


def _content_end(body: bytes, start: int, delimiter: bytes) -> int:
    """Give where the content ends, -1 if it does not; a boundary counts only before a line end or ``--``."""
    end = body.find(delimiter, start)
    while end != -1 and body[end + len(delimiter) : end + len(delimiter) + 2] not in (b"\r\n", b"--"):
        end = body.find(delimiter, end + 1)
    return end


def _headers(body: bytes, at: int) -> tuple[bytes, int]:
    """Give the content-disposition and where the content begins, -1 if the headers break off; raises Rejected.

    A line without a colon ends the headers, be it empty or not.
    """
    disposition = b""
    while True:
        end = body.find(b"\r", at)
        name, colon, value = body[at : end if end != -1 else len(body)].partition(b":")
        if not _HEADER_NAME.fullmatch(name) or (colon and not name):
            raise Rejected(_unparsable())
        if end in (-1, len(body) - 1):
            return disposition, -1
        if body[end + 1 : end + 2] != b"\n":
            raise Rejected(_unparsable())
        at = end + 2
        if not colon:
            return disposition, at
        if name.lower() == b"content-disposition":
            disposition = value.lstrip(b" ")


def _unparsable() -> Answer:
    return bad_request("There was an error parsing the body")


def _urlencoded(body: bytes) -> Form:
    pairs = [pair.partition("=") for pair in re.split("[&;]", body.decode("latin-1")) if pair]
    return [(unquote_plus(key), unquote_plus(value)) for key, _, value in pairs]
