"""Request, Answer and Call: what goes out, what came back, and one exchange of the two, as plain frozen values.

Also the strict reading of JSON, the only place where untyped data is met. Nothing here does I/O or knows a service.
"""

import codecs
import functools
from collections.abc import Callable, Hashable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Generic, Self, TypeVar, cast
from urllib.parse import urlsplit

import attrs
import msgspec

from gts_async._errors import UnexpectedAnswer, plain

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@attrs.frozen
class FilePart:
    """A file to be sent under `name`; it is opened when the request is sent, and anew for every try."""

    name: str
    path: str


@attrs.frozen
class Multipart:
    """A form body of text fields and files, each with its field name, in the order they are sent."""

    fields: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, FilePart], ...]


def _names(headers: tuple[tuple[str, str], ...]) -> str:
    return f"<{' '.join(name for name, _ in headers)}>"


def _size(body: bytes | Multipart) -> str:
    return f"<{len(body)} bytes>" if isinstance(body, bytes) else repr(body)


@attrs.frozen
class Request:
    """What goes out: `path` is percent-encoded and relative to the service's base URL, `body` is ready to send.

    Header names are lower case. Credentials are never in here: the Exchange adds them for its own origin. But a job's
    environment may be, so its repr tells neither body nor values.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=_names)
    body: bytes | Multipart = attrs.field(default=b"", repr=_size)

    @classmethod
    def json(cls, method: str, path: str, document: Mapping[str, Any]) -> Self:
        """Give a request whose body is `document` as compact JSON, keys in their order."""
        return cls(method, path, headers=JSON_HEADERS, body=encode(document))

    def header(self, name: str) -> str | None:
        """Give the first value of the header `name` (lower case), or None."""
        return next((value for key, value in self.headers if key == name), None)


@attrs.frozen
class Answer:
    """What came back: the whole body, header names in lower case, and when it arrived (aware, UTC) if known.

    It may bring signed URLs, so its repr tells neither body nor the values of headers.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=_names)
    body: bytes = attrs.field(default=b"", repr=_size)
    received_at: datetime | None = None

    @classmethod
    def json(cls, status: int, document: Any) -> Self:
        """Give an answer whose body is `document` as compact JSON."""
        return cls(status, JSON_HEADERS, encode(document))

    def header(self, name: str) -> str | None:
        """Give the first value of the header `name` (lower case), or None."""
        return next((value for key, value in self.headers if key == name), None)

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 are shown as U+FFFD."""
        return self.body.decode("utf-8", "replace")

    def start(self, most: int = 4096) -> str:
        """Give the text of the first `most` bytes: enough to show, however large the body is."""
        return self.body[:most].decode("utf-8", "replace")

    @property
    def leads_to(self) -> str:
        """Where a redirect leads, without credentials and query; "nowhere" if it does not say."""
        try:
            url = urlsplit(self.header("location") or "")
        except ValueError:
            return "nowhere"
        if url.scheme not in ("", "http", "https"):
            # Of anything but a web address, no part is surely no secret.
            return url.scheme
        host = url.netloc.rpartition("@")[2]
        return plain(f"{url.scheme}://{host}{url.path}" if host else url.path or "nowhere", 200)

    def __repr__(self) -> str:
        # What it holds may be a secret, and whoever prints the locals of a traceback would show it.
        return f"<Answer {self.status}, {len(self.body)} bytes>"


class Pace(Enum):
    """How patient a call is: which of the session's timeouts bounds it."""

    ORDINARY = "ordinary"
    LOAD = "load"
    TRANSFER = "transfer"


@attrs.frozen
class Call(Generic[T_co]):
    """One exchange: a request, how to read its answer into a T, and whether it may be sent twice.

    `read` raises only UnexpectedAnswer and ServiceErrors (and ServerFailed for a 5xx it is given). `answers_with` are
    statuses of 500 and above that this service uses to answer this very call: they are read, never retried.
    """

    name: str
    request: Request
    read: Callable[[Answer], T_co]
    is_repeatable: bool
    pace: Pace = Pace.ORDINARY
    answers_with: frozenset[int] = frozenset()


JSON_HEADERS = (("content-type", "application/json"),)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ENDED_EARLY = ("truncated", "unexpected end of data")
"""What msgspec says of JSON, and Python of UTF-8, that ends in the middle."""

CHECKED_AT_ONCE = 1 << 16
"""Bytes: of text that is only checked, no more than this is ever made."""

encode = msgspec.json.Encoder().encode


@functools.cache
def _decoder(shape: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(cast("Any", shape))


def decode(body: bytes, shape: type[T], *, call: str) -> T:
    """Read JSON strictly into `shape`: no silent `true` → 1, no `null` → "None"; unknown keys are passed over.

    A byte order mark is accepted. Raises UnexpectedAnswer, whose problem names the path (`$.tasks[2]`), for anything
    else that does not fit, invalid UTF-8 in a passed-over value included.
    """
    try:
        _check_text(body)
        marked = body.startswith(BYTE_ORDER_MARK)
        document = memoryview(body)[len(BYTE_ORDER_MARK) :] if marked else body
        value: T = _decoder(cast("Hashable", shape)).decode(document)
    except msgspec.ValidationError as error:
        raise _unreadable(call, str(error), body) from error
    except (msgspec.DecodeError, ValueError) as error:
        kind = "is empty" if not body.strip() else f"is not JSON ({error})"
        unreadable = _unreadable(call, f"the answer {kind}", body)
        unreadable.is_cut = any(sign in str(error) for sign in ENDED_EARLY)
        # Python's own error holds all that it was to decode, and its repr shows it.
        raise unreadable from (None if isinstance(error, UnicodeError) else error)
    except RecursionError as error:
        raise _unreadable(call, "the answer is nested too deeply", body) from error
    return value


def _check_text(body: bytes) -> None:
    """Raise UnicodeDecodeError unless all of it is UTF-8: msgspec does not look at what it passes over."""
    if body.isascii():
        return
    decoder, whole = codecs.getincrementaldecoder("utf-8")(), memoryview(body)
    for start in range(0, len(body), CHECKED_AT_ONCE):
        decoder.decode(whole[start : start + CHECKED_AT_ONCE])
    decoder.decode(b"", final=True)


def _unreadable(call: str, problem: str, body: bytes) -> UnexpectedAnswer:
    return UnexpectedAnswer(call=call, problem=problem, body=body[:4096].decode("utf-8", "replace"))
