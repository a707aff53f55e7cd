"""Retry: what is tried again, how long we wait before, and the budget that all calls of a session share.

Whether a call is tried again depends on what happened and on what the call is, never on the HTTP verb:

==========================  ===========================  =====================  =====================
what happened               surely not sent              outcome unknown        the server said no
==========================  ===========================  =====================  =====================
repeatable call             again                        again                  raise
any other (create, train)   again                        raise OutcomeUnknown   raise
==========================  ===========================  =====================  =====================

"Too many requests" (429) says no for now: any call is sent again, after what the server asked for. A good answer to a
create that cannot be read leaves its outcome unknown, too.

Pure: chance and time are passed in. How often we look at work that goes on is `_flow/schedule.py`.
"""

import email.utils
import re
from datetime import UTC, datetime

import attrs

from gts_async._errors import (
    GtsAsyncError,
    InvalidArgument,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    ServerFailed,
    Unauthorized,
    UnexpectedAnswer,
)
from gts_async.wire import Answer, Call

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How one call is tried again.

    Before try n + 1 (n = 1 for the first) we wait a random part of ``min(maximum, initial · 2ⁿ⁻¹)`` seconds (full
    jitter), and never less than the server's Retry-After. A Retry-After above `max_retry_after` seconds ends the call
    at once. `budget` bounds what a dead server sees from the whole session (see `RetryBudget`).
    """

    max_attempts: int = 4
    initial: float = 0.25
    maximum: float = 8.0
    max_retry_after: float = 60.0
    budget: int = 500

    def __attrs_post_init__(self) -> None:
        """Refuse numbers that cannot work."""
        if self.max_attempts < 1:
            raise InvalidArgument("max_attempts", f"{self.max_attempts} is less than 1", "1 means: never again")
        for name in ("initial", "maximum", "max_retry_after", "budget"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InvalidArgument(name, f"{getattr(self, name)} is out of range", "use 0 or more")

    def delay(self, attempt: int, chance: float, retry_after: float | None = None) -> float | None:
        """Give the seconds to wait after try `attempt` (from 1), or None if it was the last; `chance` is in [0, 1)."""
        if attempt >= self.max_attempts:
            return None
        if retry_after is not None and retry_after > self.max_retry_after:
            return None
        # The exponent is capped because 2 ** 1100 no longer fits a float.
        ceiling = min(self.maximum, self.initial * 2.0 ** min(attempt - 1, 64))
        return max(chance * ceiling, retry_after or 0.0)

    def pause(self, retry_after: float | None, delay: float | None) -> float:
        """Give the seconds for which all calls pause after "too many requests".

        What the server asked for, else the `delay` of the refused call. A server that asks for more than
        `max_retry_after` is asked again after `maximum`: one that errs must not stop a session for a day.
        """
        if retry_after is not None:
            return retry_after if retry_after <= self.max_retry_after else self.maximum
        return delay if delay is not None else self.initial


class RetryBudget:
    """A bucket of tokens: trying again costs, success earns, an empty bucket forbids.

    A try after a transport failure costs 14, after "too many requests" 5; every success earns 1. So a server that
    answers nothing sees about ``budget / 14`` tries more than it was offered, not four times as many.
    """

    FAILURE = 14
    THROTTLED = 5

    def __init__(self, size: int) -> None:
        self.size = size
        self.left = size

    def spend(self, cost: int) -> bool:
        """Take `cost` tokens if there are that many; False means: do not try again."""
        if cost > self.left:
            return False
        self.left -= cost
        return True

    def earn(self) -> None:
        """Put one token back, after a success."""
        self.left = min(self.size, self.left + 1)


def retry_after(header: str | None, wall: datetime) -> float | None:
    """Read Retry-After as seconds from now (RFC 9110, 10.2.3): a number or a date; nonsense does not count."""
    value = (header or "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(0.0, (date - wall).total_seconds())


def outcome(call: Call[object], error: GtsAsyncError, answer: Answer | None) -> GtsAsyncError:
    """Give what the failure means for a call that must not be repeated: it may have happened."""
    if call.is_repeatable or isinstance(error, (NotSent, OutcomeUnknown, RateLimited, Unauthorized)):
        return error
    # Read to its end or not, good or not: only a refusal says that nothing was done.
    is_unread = isinstance(error, UnexpectedAnswer) and (answer is None or answer.status < 300)
    is_failed = isinstance(error, ServerFailed) and error.status not in call.answers_with
    if not (is_unread or is_failed):
        return error
    unknown = OutcomeUnknown(
        f"{error}; it may have been carried out all the same",
        call=call.name,
        url=getattr(error, "url", ""),
        stage="answer",
        request_id=getattr(error, "request_id", None),
    )
    unknown.__cause__ = error
    return unknown


def may_try_again(call: Call[object], failure: GtsAsyncError, answer: Answer | None) -> bool:
    """Tell whether a call that failed so may be sent again; `answer` is None if none came."""
    if isinstance(failure, (NotSent, RateLimited)):
        return True
    if not call.is_repeatable:
        return False
    if isinstance(failure, UnexpectedAnswer):
        return failure.is_cut and answer is not None and answer.status < 300
    return answer is None or answer.status not in call.answers_with
