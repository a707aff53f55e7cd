"""Exchange: sends Calls to one origin, tries again where that is right, and translates httpx's errors, once.

The only place that does network I/O for the API. What a call sends and how its answer is read is in ``gts/calls.py``
and ``sxwl/calls.py``; how long we wait between tries in `retry`.

Whether a call is tried again depends on what happened and on what the call is, never on the HTTP verb:

==========================  ===========================  =====================  =====================
what happened               surely not sent              outcome unknown        the server said no
==========================  ===========================  =====================  =====================
repeatable call             again                        again                  raise
any other (create, train)   again                        raise OutcomeUnknown   raise
==========================  ===========================  =====================  =====================

"Too many requests" (429) says no for now: any call is sent again, after what the server asked for.
"""

import asyncio
import email.utils
import logging
import random
import ssl
import zlib
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol, TypeVar

import attrs
import httpx

from gts_async._errors import (
    Attempt,
    GtsAsyncError,
    MisuseError,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    ServerFailed,
    TimedOut,
    TransportError,
    Unauthorized,
    UnexpectedAnswer,
    plain,
)
from gts_async._net.config import BaseURL, Limits, Timeouts
from gts_async._net.events import Event, Hook
from gts_async._net.retry import RetryBudget, RetryPolicy
from gts_async._net.secret import Credential, Secret
from gts_async.wire import Answer, Call, Multipart

T = TypeVar("T")

log = logging.getLogger("gts_async")

PASSING = frozenset({408, 425})
"""Statuses below 500 that say nothing about the request itself, only about the moment."""

ACCEPT = (("accept", "application/json"), ("accept-encoding", "identity"))


class Timing(Protocol):
    """What the Exchange needs of a clock."""

    def now(self) -> float:
        """Give monotonic seconds."""

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Wait."""

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Bound a block: TimeoutError when it lasts longer."""

    def wall(self) -> datetime:
        """Give the aware time of day."""


class StreamedBody(Protocol):
    """A body that is made while it is sent."""

    content_type: str
    length: int

    def chunks(self) -> AsyncIterable[bytes]:
        """Give the bytes, from the start at every call."""


OpenBody = Callable[[Multipart], Awaitable[StreamedBody]]


@attrs.frozen(eq=False)
class Line:
    """What an Exchange speaks over: a client, where the service is, and what authorises calls to it."""

    client: httpx.AsyncClient
    base_url: BaseURL
    credential: Credential = attrs.field(factory=lambda: Credential(None))


class Exchange:
    """Sends calls to one origin. `in_flight` and `budget` are the session's, shared by its Exchanges.

    `connect` is awaited once, before the first call: only then are files read and clients made. `guard` is called
    before every call and raises if there must be none (any more).
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Line]],
        *,
        clock: Timing,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        budget: RetryBudget | None = None,
        in_flight: asyncio.Semaphore | None = None,
        on_event: Hook | None = None,
        chance: Callable[[], float] = random.random,
        guard: Callable[[], None] = lambda: None,
        user_agent: str = "gts-async",
    ) -> None:
        self.limits = limits or Limits()
        self.timeouts = timeouts or Timeouts()
        self.retry = retry or RetryPolicy()
        self._connect = connect
        self._guard = guard
        self._line: Line | None = None
        self._clock = clock
        self._budget = budget or RetryBudget(self.retry.budget)
        self._in_flight = in_flight or asyncio.Semaphore(int(self.limits.max_in_flight))
        self._on_event = on_event
        self._chance = chance
        self._url = lru_cache(maxsize=1024)(_url)
        self._headers = (*ACCEPT, ("user-agent", user_agent))

    async def send(
        self,
        call: Call[T],
        *,
        timeout: float | None = None,
        max_attempts: int | None = None,
        open_body: OpenBody | None = None,
    ) -> T:
        """Give what `call` reads from its answer.

        `timeout` (seconds) bounds the whole call with all its tries, in place of the session's timeout for calls of
        this pace; `max_attempts` takes the place of the retry policy's; `open_body` opens a body of files, anew for
        every try. Raises what the call's reader raises, TransportError and its kinds.
        """
        clock = self._clock
        silence, total = self.timeouts.bounds(call.pace)
        total = timeout if timeout is not None else total
        began = clock.now()
        attempts: list[Attempt] = []
        was_refused = False
        line = await self.line()
        async with self._in_flight:
            while True:
                tried_at = clock.now() - began
                left = None if total is None else total - tried_at
                answer: Answer | None = None
                failure: GtsAsyncError
                try:
                    answer = await self._once(line, call, left, silence, was_refused, open_body)
                    value = self._read(line, call, answer)
                except Unauthorized as error:
                    if was_refused or not line.credential.is_renewable:
                        raise
                    was_refused = True
                    failure, wait = error, 0.0
                except (TransportError, UnexpectedAnswer, RateLimited) as error:
                    failure = _outcome(call, error, answer)
                    again = self._wait_before_retry(call, failure, answer, len(attempts) + 1, max_attempts)
                    wait = -1.0 if again is None else again
                else:
                    self._budget.earn()
                    self._tell("answered", call, attempts, answer.status, clock.now() - began)
                    return value
                status = answer.status if answer is not None else None
                if wait >= 0 and total is not None and clock.now() - began + wait >= total:
                    wait = -1.0
                attempts.append(Attempt(tried_at, plain(str(failure), 200), status, wait if wait >= 0 else None))
                if wait < 0:
                    self._tell("gave up", call, attempts, status, clock.now() - began)
                    if isinstance(failure, TransportError):
                        failure.attempts = tuple(attempts)
                    raise failure
                self._tell("tried again", call, attempts, status, clock.now() - began)
                if wait:
                    await clock.sleep(wait)

    async def line(self) -> Line:
        """Give the line, connecting first if this is the first call; raises InvalidArgument for a wrong setting."""
        self._guard()
        if self._line is None:
            self._line = await self._connect()
        return self._line

    async def _once(
        self,
        line: Line,
        call: Call[T],
        left: float | None,
        silence: float | None,
        was_refused: bool,
        open_body: OpenBody | None,
    ) -> Answer:
        """Send once and give the whole answer; raises NotSent, OutcomeUnknown or UnexpectedAnswer."""
        url = self._url(line.base_url.text, call.request.path, call.request.query)
        where = f"{call.name} ({line.base_url}{call.request.path})"
        if left is not None and left <= 0:
            raise NotSent(f"{where}: no time left to send it", call=call.name, url=_bare(url))
        request = await self._request(line, call, url, left, silence, was_refused, open_body)
        try:
            # The margin lets httpx's own connect timeout end first: then we know that nothing was sent.
            async with self._clock.timeout(None if left is None else left + 0.05):
                response = await line.client.send(request, stream=True)
                try:
                    body = await self._body(call, response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError, OSError) as error:
            raise _translated(error, call, where, _bare(url)) from _without_secrets(error)
        headers = tuple((name.lower(), value) for name, value in response.headers.items())
        return Answer(response.status_code, headers, body, self._clock.wall())

    async def _request(
        self,
        line: Line,
        call: Call[T],
        url: httpx.URL,
        left: float | None,
        silence: float | None,
        was_refused: bool,
        open_body: OpenBody | None,
    ) -> httpx.Request:
        """Build the httpx request: our headers, the credential of this origin only, the body opened anew."""
        connect = _least(self.timeouts.connect, left)
        read = _least(silence, left)
        timeout = {"connect": connect, "read": read, "write": read, "pool": left}
        headers = [*self._headers, *call.request.headers]
        authorization = await line.credential.authorization(is_refused=was_refused)
        if authorization is not None:
            headers.append(("authorization", _Revealed(authorization)))
        content: bytes | AsyncIterable[bytes]
        if isinstance(call.request.body, Multipart):
            if open_body is None:
                raise MisuseError(f"{call.name}: its files must be opened by the sender")
            streamed = await open_body(call.request.body)
            headers += [("content-type", streamed.content_type), ("content-length", str(streamed.length))]
            content = streamed.chunks()
        else:
            content = call.request.body
        return line.client.build_request(
            call.request.method, url, headers=headers, content=content, extensions={"timeout": timeout}
        )

    async def _body(self, call: Call[T], response: httpx.Response) -> bytes:
        """Read the whole body, bounded before and after decompression."""
        most = int(self.limits.max_answer_bytes)
        if response.is_stream_consumed:  # a mock's answer, already in memory
            return await response.aread()
        pieces: list[bytes] = []
        size = 0
        async for piece in response.aiter_raw():
            size += len(piece)
            if size > most:
                raise UnexpectedAnswer(call=call.name, problem=f"the answer is larger than {most} bytes")
            pieces.append(piece)
        return _decompressed(call.name, response.headers.get("content-encoding", ""), b"".join(pieces), most)

    def _read(self, line: Line, call: Call[T], answer: Answer) -> T:
        status = answer.status
        if (status >= 500 and status not in call.answers_with) or status in PASSING:
            raise ServerFailed(
                f"{call.name}: the server answered {status}: {plain(answer.text, 200)}",
                status=status,
                body=answer.text[:4096],
                call=call.name,
                url=f"{line.base_url}{call.request.path}",
            )
        try:
            return call.read(answer)
        except RateLimited as error:
            error.retry_after = _retry_after(answer, self._clock.wall())
            raise

    def _wait_before_retry(
        self, call: Call[T], failure: GtsAsyncError, answer: Answer | None, attempt: int, max_attempts: int | None
    ) -> float | None:
        """Give the seconds to wait before the next try, or None if there must not be one."""
        if not _may_try_again(call, failure, answer) or (max_attempts is not None and attempt >= max_attempts):
            return None
        retry_after = _retry_after(answer, self._clock.wall()) if answer is not None else None
        wait = self.retry.delay(attempt, self._chance(), retry_after)
        cost = RetryBudget.THROTTLED if isinstance(failure, RateLimited) else RetryBudget.FAILURE
        return wait if wait is not None and self._budget.spend(cost) else None

    def _tell(self, kind: str, call: Call[T], attempts: list[Attempt], status: int | None, elapsed: float) -> None:
        detail = attempts[-1].cause if attempts and kind != "answered" else ""
        number = max(1, len(attempts) + (kind == "answered"))
        log.debug("%s: %s (try %d, status %s, %.3f s) %s", call.name, kind, number, status, elapsed, detail)
        if self._on_event is not None:
            self._on_event(
                Event(kind=kind, subject=call.name, attempt=number, status=status, elapsed=elapsed, detail=detail)
            )

    def __repr__(self) -> str:
        return f"<Exchange {self._line.base_url if self._line else 'not connected'}>"


def _url(base_url: str, path: str, query: tuple[tuple[str, str], ...]) -> httpx.URL:
    """Join, so that no path can leave the base URL."""
    segments = path.split("/")
    if not path.startswith("/") or path.startswith("//") or ".." in segments or "." in segments or "?" in path:
        raise MisuseError(f"{path!r} is not a path below {base_url}")
    url = httpx.URL(f"{base_url}{path}")
    return url.copy_merge_params(dict(query)) if query else url


class _Revealed(str):
    """A header value that prints as stars."""

    __slots__ = ()

    def __new__(cls, secret: Secret) -> "_Revealed":
        return super().__new__(cls, secret.reveal())

    def __repr__(self) -> str:
        return "'***'"


def _outcome(call: Call[T], error: GtsAsyncError, answer: Answer | None) -> GtsAsyncError:
    """Give what the failure means for a call that must not be repeated: it may have happened."""
    if call.is_repeatable or isinstance(error, (NotSent, OutcomeUnknown, RateLimited)):
        return error
    is_cut = isinstance(error, UnexpectedAnswer) and error.is_cut and answer is not None and answer.status < 300
    is_failed = isinstance(error, ServerFailed) and error.status not in call.answers_with
    if not (is_cut or is_failed):
        return error
    unknown = OutcomeUnknown(f"{error}; it may have been carried out all the same", call=call.name)
    unknown.__cause__ = error
    return unknown


def _may_try_again(call: Call[T], failure: GtsAsyncError, answer: Answer | None) -> bool:
    if isinstance(failure, NotSent):
        return not isinstance(failure.__cause__, httpx.HTTPError) or not _is_certificate_error(failure.__cause__)
    if isinstance(failure, RateLimited):
        return True
    if not call.is_repeatable:
        return False
    if isinstance(failure, UnexpectedAnswer):
        return failure.is_cut and answer is not None and answer.status < 300
    return answer is None or answer.status not in call.answers_with


def _translated(error: Exception, call: Call[T], where: str, url: str) -> TransportError:
    """Give our error for one of httpx's: not sent, or who knows."""
    reason = str(error) or type(error).__name__
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)):
        if _is_certificate_error(error):
            reason = f"the server's certificate is not trusted ({reason}); if it is right, trust its authority's file"
        return NotSent(f"{where}: not sent: {plain(reason, 300)}", call=call.name, url=url)
    if isinstance(error, (httpx.LocalProtocolError, httpx.InvalidURL)):
        # h11's text may repeat a header's value.
        return NotSent(f"{where}: not sent: the request is not valid HTTP", call=call.name, url=url)
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return TimedOut(f"{where}: no whole answer in time", call=call.name, url=url)
    return OutcomeUnknown(f"{where}: the connection broke: {plain(reason, 300)}", call=call.name, url=url)


def _without_secrets(error: Exception) -> Exception | None:
    return None if isinstance(error, httpx.LocalProtocolError) else error


def _is_certificate_error(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _decompressed(call: str, encoding: str, body: bytes, most: int) -> bytes:
    """Undo a content coding that we did not ask for, never making more than `most` bytes."""
    if encoding.strip().lower() in ("", "identity"):
        return body
    if encoding.strip().lower() not in ("gzip", "deflate"):
        raise UnexpectedAnswer(call=call, problem=f"the answer is coded as {plain(encoding, 60)}, unasked")
    machine = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        whole = machine.decompress(body, most)
    except zlib.error as error:
        raise UnexpectedAnswer(call=call, problem="the answer's compression is broken") from error
    if machine.unconsumed_tail:
        raise UnexpectedAnswer(call=call, problem=f"the answer is larger than {most} bytes, unpacked")
    return whole


def _retry_after(answer: Answer, wall: datetime) -> float | None:
    """Read Retry-After as seconds from now (RFC 9110, 10.2.3): a number or a date; nonsense does not count."""
    value = (answer.header("retry-after") or "").strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(0.0, (date - wall).total_seconds())


def _least(*seconds: float | None) -> float | None:
    return min((s for s in seconds if s is not None), default=None)


def _bare(url: httpx.URL) -> str:
    return str(url.copy_with(query=None, fragment=None))
