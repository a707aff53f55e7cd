"""How the Go servers read a request: go-zero's `httpx.Parse` with its strict types, and the words of its refusals.

What the fields are called is in `cloud_go` and `cloud_head`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from urllib.parse import parse_qsl

import attrs

from gts_async.emulator.cloud_answers import Refusal
from gts_async.wire import Multipart, Request


class Number(str):
    """A JSON number, kept as it was written."""


class Kind(Enum):
    """A Go type, by its name in refusals."""

    INT = "int64"
    TEXT = "string"
    BOOL = "bool"
    TEXTS = "map"
    STRUCT = "struct"


ZERO = {Kind.INT: 0, Kind.TEXT: "", Kind.BOOL: False}


@attrs.frozen
class Field:
    """One field of a request; `inner` are those of a STRUCT."""

    name: str
    kind: Kind
    is_optional: bool = False
    inner: tuple["Field", ...] = ()


def fields(kind: Kind, names: str, *, is_optional: bool = False) -> tuple[Field, ...]:
    """Give a field for each name in `names`, which are separated by spaces."""
    return tuple(Field(name, kind, is_optional) for name in names.split())


def read_json(request: Request, shape: Sequence[Field]) -> dict[str, object]:
    """Read the JSON body into `shape`; absent fields get Go's zero value. Raises Refusal.

    A body is only looked at if its content type says ``application/json`` (`rest/httpx/requests.go: withJsonBody`).
    """
    document = _document(request)
    if isinstance(document, list):
        raise Refusal("type mismatch")
    if not isinstance(document, dict):
        raise Refusal("unsupported type on setting field value")
    return _record(document, shape, "")


def _document(request: Request) -> object:
    body = request.body if isinstance(request.body, bytes) else b""
    is_json = body and "application/json" in (request.header("content-type") or "")
    return parse(body.decode("utf-8", "replace")) if is_json else {}


def read_numbers(request: Request) -> list[int]:
    """Read the JSON body as an array of int64, in which texts of digits will do, and null is 0. Raises Refusal."""
    document = _document(request)
    if isinstance(document, dict):
        raise Refusal("type mismatch")
    if not isinstance(document, list):
        raise Refusal("unsupported type on setting field value")
    return [_number(item) for item in document]


def _number(item: object) -> int:
    if item is None:
        return 0
    if isinstance(item, str):
        return integer(item)
    raise Refusal("type mismatch")


def _record(document: Mapping[str, object], shape: Sequence[Field], prefix: str) -> dict[str, object]:
    return {field.name: _value(document, field, prefix + field.name) for field in shape}


def _value(document: Mapping[str, object], field: Field, path: str) -> object:
    if field.name not in document:
        return _absent(field, path)
    value = document[field.name]
    if value is None:
        if field.is_optional:
            return _zero(field)
        raise Refusal(f'field "{field.name}" mustn\'t be nil')
    if field.kind is Kind.STRUCT and isinstance(value, dict):
        return _record(value, field.inner, f"{path}.")
    if field.kind is Kind.TEXTS and isinstance(value, dict):
        return {key: _text_of_map(item) for key, item in value.items()}
    return _plain(value, field, path)


def _absent(field: Field, path: str) -> object:
    if field.is_optional:
        return _zero(field)
    raise Refusal(f'"{path}" is not set' if field.kind is Kind.STRUCT else f'field "{path}" is not set')


def _zero(field: Field) -> object:
    return ZERO.get(field.kind)


def _text_of_map(value: object) -> str:
    # A number in a map of strings is taken with its digits (`unmarshaler.go: generateMap`); nothing else is.
    if isinstance(value, str):
        return str(value)
    raise Refusal("type mismatch")


def _plain(value: object, field: Field, path: str) -> object:
    if isinstance(value, Number):
        if field.kind is Kind.INT:
            return integer(value)
        raise Refusal(f'type mismatch for field "{path}", expect "{field.kind.value}", actual "number"')
    if isinstance(value, bool) and field.kind is Kind.BOOL:
        return value
    if isinstance(value, str) and field.kind is Kind.TEXT:
        return value
    raise Refusal(f'type mismatch for field "{path}"')


def integer(digits: str, function: str = "ParseInt") -> int:
    """Give what Go's strconv makes of `digits`. Raises Refusal."""
    if not re.fullmatch(r"[+-]?[0-9]+", digits):
        raise Refusal(f"strconv.{function}: parsing {_quoted(digits)}: invalid syntax")
    significant = digits.lstrip("+-0")
    if len(significant) > 19 or not -(1 << 63) <= int(digits) < 1 << 63:
        raise Refusal(f"strconv.{function}: parsing {_quoted(digits)}: value out of range")
    return int(digits)


def _quoted(words: str) -> str:
    return json.dumps(words, ensure_ascii=False)


def read_form(request: Request, shape: Sequence[Field]) -> dict[str, object]:
    """Read query and form body into `shape`: the body's values come first, empty ones count as absent. Raises Refusal.

    Where in the request a value stands does not matter (`rest/httpx/util.go: GetFormValues`).
    """
    values: dict[str, str] = {}
    for name, value in (*_urlencoded(request), *request.query, *_multipart(request)):
        values.setdefault(name, value)
    return {field.name: _form_value(values, field) for field in shape}


def _form_value(values: Mapping[str, str], field: Field) -> object:
    value = values.get(field.name)
    if not value:
        return _absent(field, field.name)
    return integer(value) if field.kind is Kind.INT else value


def _urlencoded(request: Request) -> list[tuple[str, str]]:
    kind = request.header("content-type") or ""
    if not isinstance(request.body, bytes) or not kind.startswith("application/x-www-form-urlencoded"):
        return []
    return parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True)


def _multipart(request: Request) -> list[tuple[str, str]]:
    if isinstance(request.body, Multipart):
        return list(request.body.fields)
    mark = re.match(r'multipart/form-data;.*boundary="?([^";]+)', request.header("content-type") or "", re.IGNORECASE)
    if mark is None:
        return []
    parts = (b"\r\n" + request.body).split(b"\r\n--" + mark[1].encode())
    return [pair for part in parts[1:] if (pair := _part(part)) is not None]


def _part(part: bytes) -> tuple[str, str] | None:
    head, _, value = part.partition(b"\r\n\r\n")
    name = re.search(rb'; *name="([^"]*)"', head)
    if name is None or re.search(rb"; *filename=", head):
        return None
    return name[1].decode("utf-8", "replace"), value.decode("utf-8", "replace")


def parse(body: str) -> object:
    """Give the first JSON value in `body`; what follows it is never read. Raises Refusal with Go's words."""
    start = len(body) - len(body.lstrip(" \t\r\n"))
    try:
        return _DECODER.raw_decode(body, start)[0]
    except json.JSONDecodeError as error:
        raise Refusal(f"string: `{body}`, error: `{_complaint(body, error)}`") from None
    except RecursionError:
        raise Refusal(f"string: `{body}`, error: `exceeded max depth`") from None


def _constant(word: str) -> object:
    raise json.JSONDecodeError("Expecting value", word, 0)


_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_constant)
_EXPECTED = (
    ("Expecting property name", "looking for beginning of object key string"),
    ("Illegal trailing comma before end of object", "looking for beginning of object key string"),
    ("Expecting ':'", "after object key"),
    ("Expecting ','", "after object key:value pair"),
    ("Invalid control character", "in string literal"),
    ("Invalid \\", "in string escape code"),
)


def _complaint(body: str, error: json.JSONDecodeError) -> str:
    if not body.strip():
        return "EOF"
    if error.pos >= len(body.rstrip()) or error.msg.startswith("Unterminated"):
        return "unexpected EOF"
    where = next((words for start, words in _EXPECTED if error.msg.startswith(start)), "looking for beginning of value")
    return f"invalid character '{body[error.pos]}' {where}"
