"""Every error that the library raises, and nothing else.

::

    GtsAsyncError
    ├── TransportError            no usable answer arrived: .call .url .attempts .stage .request_id
    │   ├── NotSent                 nothing reached the server: safe to try again
    │   ├── OutcomeUnknown          it may or may not have happened: .intent to settle it later
    │   │   └── TimedOut              also TimeoutError: no answer within the call's time
    │   └── ServerFailed            the server answered 5xx, and that is all that is known: .status .body
    ├── UnexpectedAnswer          the server broke its own protocol: .call .problem .body
    ├── ServiceError              the server understood and refused: .call .code .message
    │   ├── NotFound
    │   ├── AlreadyExists
    │   ├── InvalidData             .problems: every bad line and field, where we looked first
    │   ├── WrongState
    │   ├── Denied
    │   ├── Unauthorized
    │   ├── Busy
    │   ├── QuotaExceeded
    │   └── RateLimited             .retry_after
    ├── WorkError                 watched work did not end well: .handle .last_look .history
    │   ├── WorkFailed
    │   ├── WorkStopped
    │   ├── WorkLost
    │   ├── WorkStalled
    │   └── DeadlineExceeded        also TimeoutError: the work itself goes on
    ├── LeaseLost                 another model took the engine's only slot
    ├── FileError                 .path
    │   ├── FileMissing             also FileNotFoundError
    │   ├── UploadRejected
    │   ├── DownloadCorrupt
    │   ├── UnsafePath
    │   └── UnsafeURL
    ├── InvalidArgument           also ValueError, before any I/O: .argument .problem .fix
    │   └── WrongType               also TypeError
    └── MisuseError               also RuntimeError: closed session, other event loop …
        ├── NotSupported            this dialect has no such call
        └── MissingExtra            an optional dependency is not installed: .extra

Handlers read attributes; nobody has to take a text apart. No error holds a token or the query of a signed URL.
"""

import re
from typing import Any

import attrs

MAX_TEXT = 2048
"""Characters of a server's text that an error repeats."""

# JSON may spell a slash with a backslash before it.
# It matches URLs without a query, too: else each of thousands in one word would be looked at to the word's end.
_URL_QUERY = re.compile(r"(https?:(?:\\?/){2}[^\s\"'<>?]*)(\?[^\s\"'<>]*)?", re.IGNORECASE)
_URL_USER = re.compile(r"(https?:(?:\\?/){2})[^\s\"'<>?/\\@]*@", re.IGNORECASE)

_NAMED = re.compile(
    r"((?:signature(?:provided)?|credential|security-?token|access-?key-?id|googleaccessid)[\"']?\s*"
    r"(?:=|%(?:25)*3d|\\u003d|>|:\s*[\"'])[\"']?)[^\s\"'<>&;]+",
    re.IGNORECASE,
)
"""The parameters and XML elements of signed URLs, alone: Aliyun's, Amazon's, Google's."""

_BEARER = re.compile(r"(\bbearer(?:\s|\+|%(?:25)*20)+)[^\s\"'<>&;,]{16,}", re.IGNORECASE)


def _without_query(url: re.Match[str]) -> str:
    return f"{url[1]}?<redacted>" if url[2] else url[1]


def redacted(text: str) -> str:
    """Give `text` without queries and users of URLs, and what gives a signed URL's parameter or a token away."""
    text = _URL_USER.sub(r"\1<redacted>@", _URL_QUERY.sub(_without_query, text))
    return _BEARER.sub(r"\1<redacted>", _NAMED.sub(r"\1<redacted>", text))


def plain(text: str, limit: int = MAX_TEXT) -> str:
    """Give `text` fit for a terminal or a log: secrets hidden, control characters spelled out, cut to `limit`."""
    # A server may say megabytes; looking for URLs in all of them would double what they take.
    head = redacted(text[: 4 * limit])
    is_cut = len(text) > 4 * limit or len(head) > limit
    cut = f"{head[:limit]}… ({len(text)} characters)" if is_cut else head
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in cut)


@attrs.frozen
class Attempt:
    """One try of a call: when it began (seconds since the call began), what came of it, how long we waited after."""

    began: float
    cause: str
    status: int | None = None
    delay: float | None = None


@attrs.frozen
class Problem:
    """One fault in a data file: where it is, why the training would stumble over it, and what to do."""

    file: str
    line: int
    field: str
    why: str
    remedy: str = ""
    is_warning: bool = False

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        at = f" {self.field}:" if self.field else ""
        return f"{where}:{at} {self.why}" + (f"; {self.remedy}" if self.remedy else "")


class GtsAsyncError(Exception):
    """Any error of this library."""


class TransportError(GtsAsyncError):
    """No usable answer arrived; `attempts` tells every try, `url` is without its query.

    `stage` tells how far the last try got: "token" (asking for it), "files" (opening them), "turn" (waiting for one),
    "name" (it leads nowhere), "connect", "tls", "send" or "answer"; it is empty where nobody can tell.
    """

    def __init__(
        self,
        text: str = "",
        *,
        call: str = "",
        url: str = "",
        attempts: tuple[Attempt, ...] = (),
        stage: str = "",
        request_id: str | None = None,
    ) -> None:
        super().__init__(text)
        self.call = call
        self.url = url
        self.attempts = attempts
        self.stage = stage
        self.request_id = request_id


class NotSent(TransportError):
    """Nothing reached the server (name, connection, TLS, no free place): trying again is safe."""


class OutcomeUnknown(TransportError):
    """The request may or may not have been carried out; `intent` is what is needed to find out later."""

    intent: Any = None


class TimedOut(OutcomeUnknown, TimeoutError):
    """No whole answer within the call's time."""


class ServerFailed(TransportError):
    """The server answered `status` (5xx) and nothing that could be read; `body` is the start of what it said.

    `is_about_request` is True if it has answered another request since: it is not down.
    """

    is_about_request: bool = False

    def __init__(self, text: str = "", *, status: int = 500, body: str = "", **where: Any) -> None:
        super().__init__(text, **where)
        self.status = status
        self.body = plain(body)


class UnexpectedAnswer(GtsAsyncError):
    """An answer that the service's own protocol does not allow: `problem` says what, `body` is its start.

    `is_cut` is True if it looks like the beginning of a good one: another try may bring the whole.
    """

    is_cut: bool = False

    def __init__(self, text: str = "", *, call: str = "", problem: str = "", body: str = "") -> None:
        super().__init__(text or f"{call}: {problem}" + (f": {plain(body, 200)}" if body else ""))
        self.call = call
        self.problem = problem
        self.body = plain(body)


class ServiceError(GtsAsyncError):
    """The server understood and refused; `code` and `message` are its own words (cut to 2 KB)."""

    def __init__(self, text: str = "", *, call: str = "", code: int | None = None, message: str = "") -> None:
        said = plain(message)
        super().__init__(text or f"{call}: refused" + (f" ({code})" if code is not None else "") + f": {said}")
        self.call = call
        self.code = code
        self.message = said


class NotFound(ServiceError):
    """There is no such task or job, or not any more."""


class AlreadyExists(ServiceError):
    """The name is taken by another task."""


class InvalidData(ServiceError):
    """The data would not train, or the samples would not predict; `problems` lists what our own check found."""

    problems: tuple[Problem, ...] = ()


class WrongState(ServiceError):
    """The task or job is not in a state that allows this call."""


class Denied(ServiceError):
    """The token is good, but not for this."""


class Unauthorized(ServiceError):
    """The token is missing, wrong or no longer accepted."""


class Busy(ServiceError):
    """What the call needs is in use by somebody else."""


class QuotaExceeded(ServiceError):
    """The account's balance or quota does not allow it."""


class RateLimited(ServiceError):
    """The server asks for fewer requests; `retry_after` in seconds, if it said."""

    retry_after: float | None = None


class WorkError(GtsAsyncError):
    """Watched work did not end well; `handle` picks it up again, `history` holds its transitions.

    A pickled error travels without its handle, which belongs to a session: take ``error.handle.token()`` along.
    """

    def __init__(self, text: str = "", *, handle: Any = None, last_look: Any = None, history: tuple[Any, ...] = ()):
        super().__init__(text)
        self.handle = handle
        self.last_look = last_look
        self.history = history

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {**self.__dict__, "handle": None}


class WorkFailed(WorkError):
    """The service says that the work failed (neither service ever says why)."""


class WorkStopped(WorkError):
    """Somebody stopped the work."""


class WorkLost(WorkError):
    """The service does not know the work any more, or nothing more can be learned about it."""


class WorkStalled(WorkError):
    """Nothing has changed for longer than the work can be alive."""


class DeadlineExceeded(WorkError, TimeoutError):
    """The wait's deadline passed; the work itself goes on."""


class LeaseLost(GtsAsyncError):
    """Another model took the engine's only slot: further answers would be another model's.

    `doubtful` answers that were given before may be that model's, too; 0 means that all were right.
    """

    doubtful: int = 0


class FileError(GtsAsyncError):
    """A file could not be sent, fetched or unpacked; `path` names it."""

    def __init__(self, text: str = "", *, path: str = "") -> None:
        super().__init__(text)
        self.path = path


class FileMissing(FileError, FileNotFoundError):
    """There is no such file here."""


class UploadRejected(FileError):
    """The service did not take the file."""


class DownloadCorrupt(FileError):
    """What arrived is not what was announced; the target was not touched."""


class UnsafePath(FileError):
    """A name that would leave its folder, or that the server would misread."""


class UnsafeURL(FileError):
    """A URL that must not be followed: wrong scheme, wrong host, or into a private network."""


class InvalidArgument(GtsAsyncError, ValueError):
    """An argument that cannot work, found before any I/O: which one, its problem, and the fix."""

    def __init__(self, argument: str = "", problem: str = "", fix: str = "") -> None:
        super().__init__(argument, problem, fix)
        self.argument = argument
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.argument}: {self.problem}" + (f"; {self.fix}" if self.fix else "")


class WrongType(InvalidArgument, TypeError):
    """An argument of the wrong type."""


class MisuseError(GtsAsyncError, RuntimeError):
    """The library is used in a way that cannot work, whatever the server does."""


class NotSupported(MisuseError):
    """The service, or this dialect of it, has no such call."""


class MissingExtra(MisuseError, ImportError):
    """An optional dependency is not installed; the text is the command that installs it."""

    def __init__(self, extra: str = "", what: str = "this") -> None:
        super().__init__(extra, what)
        self.extra = extra
        self.what = what

    def __str__(self) -> str:
        return f'{self.what} needs an extra: python -m pip install "gts-async[{self.extra}]"'
