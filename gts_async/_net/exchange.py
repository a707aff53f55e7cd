"""Exchange: sends Calls to one origin, tries again where that is right, and translates httpx's errors, once.

The only place that does network I/O for the API. What a call sends and how its answer is read is in ``gts/calls.py``
and ``sxwl/calls.py``; what is tried again and how long we wait before, in `retry`.
"""

import asyncio
import logging
import random
import sys
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

import httpx

from gts_async._errors import (
    Attempt,
    GtsAsyncError,
    InvalidArgument,
    MisuseError,
    NotSent,
    RateLimited,
    ServiceError,
    TransportError,
    Unauthorized,
    UnexpectedAnswer,
    plain,
)
from gts_async._net.body import OpenBody, read_body
from gts_async._net.client import sent
from gts_async._net.config import Limits, Timeouts
from gts_async._net.events import Event, Hook, tell
from gts_async._net.retry import RetryBudget, RetryPolicy, may_try_again, outcome, retry_after
from gts_async._net.sending import Line, Sending
from gts_async._net.throttle import Throttle
from gts_async._net.timing import Timing, Waits
from gts_async._net.translation import (
    FAILURES,
    Reach,
    drop_frames,
    is_hopeless,
    shows_secrets,
    translated,
    without_secrets,
)
from gts_async.wire import Answer, Call, Multipart

T = TypeVar("T")

log = logging.getLogger("gts_async")

PASSING = frozenset({408, 425})
"""Statuses below 500 that say nothing about the request itself, only about the moment."""

ACCEPT = (("accept", "application/json"), ("accept-encoding", "identity"))


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
        self._throttle = Throttle(clock, int(self.limits.max_connections))
        self._waits = Waits()
        self._on_event = on_event
        self._chance = chance
        self._headers = (*ACCEPT, ("user-agent", user_agent))

    async def send(
        self,
        call: Call[T],
        *,
        timeout: float | None = None,
        max_attempts: int | None = None,
        open_body: OpenBody | None = None,
        failed: list[Attempt] | None = None,
    ) -> T:
        """Give what `call` reads from its answer; tries that failed are added to `failed`.

        `timeout` (seconds) bounds the whole call with all its tries and with waiting for its turn, in place of the
        session's timeout for calls of this pace; `max_attempts` allows fewer tries than the retry policy; `open_body`
        opens a body of files, anew for every try. Raises what the call's reader raises, TransportError and its kinds.
        """
        silence, total = self.timeouts.bounds(call.pace, timeout)
        began = self._clock.now()
        this = Sending(call, await self.line(), began, silence, total, max_attempts, open_body)
        this.attempts = this.attempts if failed is None else failed
        await self._pass_gate(this)
        try:
            return await self._answered(this)
        finally:
            self._in_flight.release()

    async def _pass_gate(self, this: Sending[T]) -> None:
        """Wait until fewer calls than `max_in_flight` are on their way, first come first served."""
        if not self._in_flight.locked():
            await self._in_flight.acquire()
            return
        try:
            async with self._clock.timeout(this.left(self._clock.now())):
                await self._in_flight.acquire()
        except TimeoutError:
            this.is_hopeless = True
            reason = f"no time left: {self.limits.max_in_flight} calls are in flight already"
            self._failed(this, NotSent(f"{this}: not sent: {reason}", stage="turn", **this.where), None, 0.0)
        finally:
            this.queued += self._clock.now() - this.began

    async def _answered(self, this: Sending[T]) -> T:
        """Try until there is an answer to give or an error to raise."""
        while True:
            tried_at = self._clock.now() - this.began
            answer: Answer | None = None
            try:
                answer = await self._once(this)
                value = self._read(this, answer)
            except (Unauthorized, TransportError, UnexpectedAnswer, RateLimited) as error:
                wait = self._failed(this, outcome(this.call, error, answer), answer, tried_at)
            except ServiceError:
                self._throttle.answered(this.sent_at)
                self._tell("answered", this, answer)
                raise
            else:
                self._budget.earn()
                self._throttle.answered(this.sent_at)
                self._tell("answered", this, answer)
                return value
            if wait:
                async with self._waits.one():
                    await self._clock.sleep(wait)

    def _failed(self, this: Sending[T], failure: GtsAsyncError, answer: Answer | None, tried_at: float) -> float:
        """Note a try that failed; gives the seconds until the next one, or raises the failure if it was the last."""
        wait = self._wait_before_retry(this, failure, answer)
        if isinstance(failure, RateLimited) and answer is not None:
            self._throttle.refused(this.sent_at, self.retry.pause(failure.retry_after, wait))
        status = answer.status if answer is not None else None
        this.attempts.append(Attempt(tried_at, plain(str(failure), 200), status, wait))
        self._tell("gave up" if wait is None else "tried again", this, answer)
        if wait is not None:
            return wait
        if isinstance(failure, TransportError):
            failure.attempts = tuple(this.attempts)
        raise failure

    async def line(self) -> Line:
        """Give the line, connecting first if this is the first call; raises InvalidArgument for a wrong setting."""
        self._guard()
        if self._line is None:
            self._line = await self._connect()
        return self._line

    async def _once(self, this: Sending[T]) -> Answer:
        """Send once and give the whole answer; raises NotSent, OutcomeUnknown, UnexpectedAnswer and FileError."""
        self._guard()
        left = self._time_left(this)
        reach, handled, began = Reach(self._clock.now), sys.exception(), self._clock.now()
        try:
            # The margin lets httpx's own connect timeout end first, which says more.
            async with self._clock.timeout(None if left is None else left + 0.05), AsyncExitStack() as opened:
                if not self._throttle.enter_at_once():
                    await self._entered(this)
                opened.callback(self._throttle.leave)
                this.sent_at = self._clock.now()
                request = await self._request(this, reach, opened)
                reach.handed_over()
                response = await sent(this.line.client, request)
                opened.push_async_callback(response.aclose)
                body = await read_body(this.call.name, response, int(self.limits.max_answer_bytes))
            headers = tuple((name.lower(), this.hide(value)) for name, value in response.headers.items())
            return Answer(response.status_code, headers, this.hide(body), self._clock.wall())
        except GtsAsyncError as error:
            drop_frames(error, handled, only_lower=True)
            raise
        except FAILURES as error:
            this.is_hopeless = is_hopeless(error)
            failure = translated(error, reach, hide=this.hide, where=str(this), **this.where)
            cause = without_secrets(error, handled, hide=this.hide, url=this.where["url"])
        except BaseException as error:
            drop_frames(error, handled, only_lower=not isinstance(error, asyncio.CancelledError))
            raise
        finally:
            turn_at = reach.turn_at if reach.turn_at is not None else self._clock.now()
            this.queued += turn_at - began
        # Raised out here, where httpx's own error is not its context any more.
        raise failure from cause

    async def _entered(self, this: Sending[T]) -> None:
        """Wait for this try's turn; raises as `_time_left` does if that has taken too long."""
        is_in = False
        while not is_in:
            self._guard()
            async with self._waits.one():
                await self._throttle.enter()
                is_in = True
        try:
            self._guard()
            self._time_left(this)
        except BaseException:
            self._throttle.leave()
            raise

    def end_waits(self) -> None:
        """Let whoever waits before a try find out at once that `guard` says no."""
        self._waits.end()

    def _time_left(self, this: Sending[T]) -> float | None:
        """Give the seconds left for a try; raises if there are none, or none beyond the pause that all keep."""
        left, pause = this.left(self._clock.now()), self._throttle.pause_left()
        if left is not None and left <= 0:
            raise NotSent(f"{this}: no time left to send it", stage="turn", **this.where)
        if left is not None and pause >= left:
            text = f"{this}: not sent: the server asked for fewer requests, and all wait for another {pause:.1f} s"
            limited = RateLimited(text, call=this.call.name, code=429)
            limited.retry_after = pause
            raise limited
        return left

    async def _request(self, this: Sending[T], reach: Reach, opened: AsyncExitStack) -> httpx.Request:
        """Build the httpx request: our headers, the credential of this origin only, the body opened anew."""
        reach.stage = "token"
        await self._authorize(this)
        asked, headers = this.call.request, [*self._headers, *this.call.request.headers]
        content: bytes | AsyncIterable[bytes]
        if isinstance(asked.body, Multipart):
            if this.open_body is None:
                raise MisuseError(f"{this.call.name}: its files must be opened by the sender")
            reach.stage = "files"
            streamed = await this.open_body(asked.body)
            opened.push_async_callback(streamed.aclose)
            headers += [("content-type", streamed.content_type), ("content-length", str(streamed.length))]
            content = streamed.chunks()
        else:
            content = asked.body
        method, url = asked.method, this.line.url(asked.path, asked.query)
        extensions = {"timeout": self._timeout(this), "trace": reach.trace}
        request = this.line.client.build_request(method, url, headers=headers, content=content, extensions=extensions)
        if this.token is not None:
            # Last, and nowhere else: no list of headers, which a traceback may show, ever holds it.
            request.headers["authorization"] = this.token.reveal()
        return request

    async def _authorize(self, this: Sending[T]) -> None:
        handled = sys.exception()
        try:
            credential = this.line.credential
            if not credential.is_renewable:
                this.token = await credential.authorization()
                return
            async with self._waits.one():
                this.token = await credential.authorization(refused=this.refused)
            self._guard()
        except (InvalidArgument, MisuseError, ServiceError):
            raise
        except Exception as error:
            # The user's own code may raise anything; whatever it is, the call was not sent.
            reason = f"asking for the token failed ({type(error).__name__})"
            failure = NotSent(f"{this}: not sent: {reason}", stage="token", **this.where)
            if not shows_secrets(error, handled, this.hide):
                raise failure from error
            failure.add_note("what it raised is the __context__, which no traceback shows: its text holds a secret")
            raise failure from None

    def _timeout(self, this: Sending[T]) -> dict[str, float | None]:
        left = this.left(self._clock.now())
        read = _least(this.silence, left)
        return {"connect": _least(self.timeouts.connect, left), "read": read, "write": read, "pool": left}

    def _read(self, this: Sending[T], answer: Answer) -> T:
        call, status = this.call, answer.status
        if (status >= 500 and status not in call.answers_with) or status in PASSING:
            raise this.server_failed(answer)
        handled = sys.exception()
        try:
            return call.read(answer)
        except GtsAsyncError as error:
            drop_frames(error, handled, only_lower=True)
            if isinstance(error, RateLimited):
                error.retry_after = retry_after(answer.header("retry-after"), self._clock.wall())
            raise

    def _wait_before_retry(self, this: Sending[T], failure: GtsAsyncError, answer: Answer | None) -> float | None:
        """Give the seconds to wait before the next try, or None if there must not be one."""
        if isinstance(failure, Unauthorized):
            if answer is None or this.refused is not None or not this.line.credential.is_renewable:
                return None
            this.refused = this.token
            return 0.0
        attempt = len(this.attempts) + 1
        if this.is_hopeless or not may_try_again(this.call, failure, answer) or attempt == this.max_attempts:
            return None
        if isinstance(failure, RateLimited):
            asked = failure.retry_after
        else:
            asked = retry_after(answer.header("retry-after"), self._clock.wall()) if answer is not None else None
        wait = self.retry.delay(attempt, self._chance(), asked)
        left = this.left(self._clock.now())
        if wait is None or (left is not None and wait >= left):
            return None
        cost = RetryBudget.THROTTLED if isinstance(failure, RateLimited) else RetryBudget.FAILURE
        return wait if self._budget.spend(cost) else None

    def _tell(self, kind: str, this: Sending[T], answer: Answer | None) -> None:
        status, elapsed = answer.status if answer is not None else None, self._clock.now() - this.began
        detail = this.attempts[-1].cause if this.attempts and kind != "answered" else ""
        number = max(1, len(this.attempts) + (kind == "answered"))
        log.debug("%s: %s (try %d, status %s, %.3f s) %s", this.call.name, kind, number, status, elapsed, detail)
        event = Event(
            kind=kind,
            subject=this.call.name,
            attempt=number,
            status=status,
            elapsed=elapsed,
            queued=this.queued,
            detail=detail,
        )
        tell(self._on_event, event)

    def __repr__(self) -> str:
        return f"<Exchange {self._line.base_url if self._line else 'not connected'}>"


def _least(*seconds: float | None) -> float | None:
    return min((s for s in seconds if s is not None), default=None)
