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
import logging
import random
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import datetime
from functools import lru_cache
from typing import Protocol, TypeVar

import attrs
import httpx

from gts_async._errors import (
    Attempt,
    FileError,
    GtsAsyncError,
    MisuseError,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    ServerFailed,
    TransportError,
    Unauthorized,
    UnexpectedAnswer,
    plain,
)
from gts_async._net.body import read_body
from gts_async._net.config import BaseURL, Limits, Timeouts
from gts_async._net.events import Event, Hook
from gts_async._net.retry import RetryBudget, RetryPolicy, retry_after
from gts_async._net.secret import Credential, Secret
from gts_async._net.translation import FAILURES, is_certificate_error, translated, without_secrets
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
        ...

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Wait."""
        ...

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Bound a block: TimeoutError when it lasts longer."""
        ...

    def wall(self) -> datetime:
        """Give the aware time of day."""
        ...


class StreamedBody(Protocol):
    """A body that is made while it is sent."""

    content_type: str
    length: int

    def chunks(self) -> AsyncIterable[bytes]:
        """Give the bytes, from the start at every call."""
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...


OpenBody = Callable[[Multipart], Awaitable[StreamedBody]]


@attrs.frozen(eq=False)
class Line:
    """What an Exchange speaks over: a client, where the service is, and what authorises calls to it."""

    client: httpx.AsyncClient
    base_url: BaseURL
    credential: Credential = attrs.field(factory=lambda: Credential(None))


@attrs.frozen
class _Try:
    """One try of a call: seconds left for it and for each silence, and whether the token of the last was refused."""

    line: Line
    call: Call[object]
    left: float | None
    silence: float | None
    was_refused: bool
    open_body: OpenBody | None


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
                    answer = await self._once(_Try(line, call, left, silence, was_refused, open_body))
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

    async def _once(self, this: "_Try") -> Answer:
        """Send once and give the whole answer; raises NotSent, OutcomeUnknown, UnexpectedAnswer and FileError."""
        call, line, left = this.call, this.line, this.left
        url = self._url(line.base_url.text, call.request.path, call.request.query)
        where = f"{call.name} ({line.base_url}{call.request.path})"
        if left is not None and left <= 0:
            raise NotSent(f"{where}: no time left to send it", call=call.name, url=_bare(url))
        try:
            # The margin lets httpx's own connect timeout end first: then we know that nothing was sent.
            async with self._clock.timeout(None if left is None else left + 0.05), AsyncExitStack() as opened:
                request = await self._request(this, url, opened)
                response = await line.client.send(request, stream=True)
                opened.push_async_callback(response.aclose)
                body = await read_body(call.name, response, int(self.limits.max_answer_bytes))
        except FileError:
            raise
        except FAILURES as error:
            failure = translated(error, call=call.name, where=where, url=_bare(url))
            raise failure from without_secrets(error)
        headers = tuple((name.lower(), value) for name, value in response.headers.items())
        return Answer(response.status_code, headers, body, self._clock.wall())

    async def _request(self, this: "_Try", url: httpx.URL, opened: AsyncExitStack) -> httpx.Request:
        """Build the httpx request: our headers, the credential of this origin only, the body opened anew."""
        asked, read = this.call.request, _least(this.silence, this.left)
        timeout = {"connect": _least(self.timeouts.connect, this.left), "read": read, "write": read, "pool": this.left}
        headers = [*self._headers, *asked.headers]
        authorization = await this.line.credential.authorization(is_refused=this.was_refused)
        if authorization is not None:
            headers.append(("authorization", _Revealed(authorization)))
        content: bytes | AsyncIterable[bytes]
        if isinstance(asked.body, Multipart):
            if this.open_body is None:
                raise MisuseError(f"{this.call.name}: its files must be opened by the sender")
            streamed = await this.open_body(asked.body)
            opened.push_async_callback(streamed.aclose)
            headers += [("content-type", streamed.content_type), ("content-length", str(streamed.length))]
            content = streamed.chunks()
        else:
            content = asked.body
        return this.line.client.build_request(
            asked.method, url, headers=headers, content=content, extensions={"timeout": timeout}
        )

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
            error.retry_after = retry_after(answer.header("retry-after"), self._clock.wall())
            raise

    def _wait_before_retry(
        self, call: Call[T], failure: GtsAsyncError, answer: Answer | None, attempt: int, max_attempts: int | None
    ) -> float | None:
        """Give the seconds to wait before the next try, or None if there must not be one."""
        if not _may_try_again(call, failure, answer) or (max_attempts is not None and attempt >= max_attempts):
            return None
        asked = retry_after(answer.header("retry-after"), self._clock.wall()) if answer is not None else None
        wait = self.retry.delay(attempt, self._chance(), asked)
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
        return not isinstance(failure.__cause__, httpx.HTTPError) or not is_certificate_error(failure.__cause__)
    if isinstance(failure, RateLimited):
        return True
    if not call.is_repeatable:
        return False
    if isinstance(failure, UnexpectedAnswer):
        return failure.is_cut and answer is not None and answer.status < 300
    return answer is None or answer.status not in call.answers_with


def _least(*seconds: float | None) -> float | None:
    return min((s for s in seconds if s is not None), default=None)


def _bare(url: httpx.URL) -> str:
    return str(url.copy_with(query=None, fragment=None))
