"""httpx's errors in our words, translated here and nowhere else: what was surely not sent, and what may have been."""

import asyncio
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

import httpx

from gts_async._errors import MAX_TEXT, NotSent, OutcomeUnknown, TimedOut, TransportError, plain, redacted
from gts_async._net.roots import distrust

FAILURES = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError, OSError)
"""What a try may end with that is about the network."""

UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
"""What httpx raises only before the first byte of a request; a proxy is asked before it as well."""

INVALID = (httpx.LocalProtocolError, httpx.InvalidURL)

DOING = {
    "token": "asking for the token",
    "files": "opening its files",
    "turn": "waiting for a connection",
    "connect": "connecting",
    "tls": "agreeing on TLS",
}
"""What a try was doing at a stage before its first byte."""

_STAGES = {
    ".connect_tcp.started": ("connect", True),
    ".start_tls.started": ("tls", True),
    ".send_request_headers.started": ("send", False),
    ".receive_response_headers.started": ("answer", False),
}
"""The events of httpcore's that begin a stage, and whether the request is surely unsent in it."""

_LOWER = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "h11", "anyio", "asyncio", "uvloop", "ssl"})
"""Packages whose frames may hold a request's raw bytes."""

_RAW = frozenset(
    f"gts_async.{name}"
    for name in (
        "wire",
        "gts.answers",
        "sxwl.answers",
        "_net.body",
        "_net.client",
        "_net.slots",
        "_files.address",
        "_files.store",
    )
)
"""Modules of ours whose frames hold the raw bytes of an answer, or a signed URL."""


class Reach:
    """How far one try got: its stage, and whether the first byte of its request may have left.

    httpcore tells by its trace, which goes into the request's extensions. Other transports do not: then nobody knows.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.stage = "turn"
        self.is_unsent = True
        self.is_sent = False
        self.turn_at: float | None = None
        self._now = now
        self._is_told = False

    def handed_over(self) -> None:
        """The transport has the request now; what it does is known only once it tells."""
        self.stage, self.is_unsent, self.turn_at = "turn", False, self._now()

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take one event of httpcore's; the first one says that the try has its connection's turn."""
        if not self._is_told:
            self._is_told, self.turn_at = True, self._now()
        begun = _STAGES.get(event[event.find(".") :])
        if begun is not None:
            self.stage, self.is_unsent = begun
        elif event.endswith(".send_request_headers.complete"):
            self.is_sent = True


def translated(
    error: Exception, reach: Reach, *, hide: Callable[[str], str], call: str, where: str, url: str
) -> TransportError:
    """Give our error for one of httpx's: not sent, or who knows. `hide` takes the token out of what is repeated."""
    said: dict[str, Any] = {"call": call, "url": url, "stage": _stage(error, reach)}
    reason = plain(hide(str(error)) or type(error).__name__, 300)
    if isinstance(error, INVALID):
        # h11's text may repeat a header's value, so it is not repeated here.
        if reach.is_sent:
            return OutcomeUnknown(f"{where}: the request broke off while it was sent", **said)
        return NotSent(f"{where}: not sent: the request is not valid HTTP", **said)
    reason = distrust(error) or reason
    if isinstance(error, UNSENT):
        return NotSent(f"{where}: not sent: {reason}", **said)
    if reach.is_unsent:
        reason = f"no time left while {DOING[reach.stage]}" if isinstance(error, TimeoutError) else reason
        return NotSent(f"{where}: not sent: {reason}", **said)
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return TimedOut(f"{where}: no whole answer in time", **said)
    return OutcomeUnknown(f"{where}: the connection broke: {reason}", **said)


def _stage(error: Exception, reach: Reach) -> str:
    kinds = (socket.gaierror, ValueError) if isinstance(error, UNSENT) else socket.gaierror
    # Python's error about a certificate is a ValueError, too.
    if any(isinstance(cause, kinds) and not isinstance(cause, ssl.SSLError) for cause in _chain(error)):
        return "name"
    if reach.stage == "turn" and not isinstance(error, (httpx.PoolTimeout, TimeoutError)):
        # A transport that does not tell.
        return "connect" if isinstance(error, UNSENT) else ""
    return reach.stage


def without_secrets(
    error: Exception, handled: BaseException | None, *, hide: Callable[[str], str], url: str
) -> Exception | None:
    """Give the error to chain, without its request and its frames; None for one whose text may hold a secret."""
    drop_frames(error, handled)
    if isinstance(error, httpx.RequestError):
        with suppress(RuntimeError):  # there is none
            # It had the token in its headers, or a signed URL.
            error.request = httpx.Request(error.request.method, url)
    # h11 repeats the line that it could not read, of an answer or of our own request.
    return None if isinstance(error, httpx.LocalProtocolError) or shows_secrets(error, handled, hide) else error


def shows_secrets(error: BaseException, handled: BaseException | None, hide: Callable[[str], str]) -> bool:
    """Tell whether the text of an error, or of any that led to it, holds what must not be shown.

    A very long one counts as if it did: it would take too long to tell.
    """
    texts = map(str, _chain(error, unless=handled))
    return any(len(text) > 2 * MAX_TEXT or redacted(hide(text)) != text for text in texts)


def drop_frames(error: BaseException, handled: BaseException | None, *, only_lower: bool = False) -> None:
    """Take the tracebacks off an error and off all that led to it, but for what was `handled` when the try began.

    While a request is written, the locals of a transport's frames hold its raw headers, the token among them, and many
    printers of tracebacks show locals; so do those of our own readers of answers. `only_lower` leaves the other frames
    of ours and those of a user's own transport: whoever has to mend an error that nobody expected needs them.
    """
    # What the caller was handling is his own: Python makes it the context of whatever is raised meanwhile.
    for one in _chain(error, unless=handled):
        one.__traceback__ = _upper_frames(one.__traceback__) if only_lower else None


class WithoutFrames:
    """``with WithoutFrames():``: what the block raises loses its lower frames, as by `drop_frames`.

    A cancellation loses all of them. This is no `contextmanager`, because those put the frames back.
    """

    def __enter__(self) -> None:
        self._handled = sys.exception()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, frames: object) -> None:
        if error is not None:
            drop_frames(error, self._handled, only_lower=not isinstance(error, asyncio.CancelledError))


def _upper_frames(frames: TracebackType | None) -> TracebackType | None:
    kept: list[TracebackType] = []
    while frames is not None:
        module = str(frames.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _LOWER and module not in _RAW:
            kept.append(frames)
        frames = frames.tb_next
    whole: TracebackType | None = None
    for frame in reversed(kept):
        whole = TracebackType(whole, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return whole


def _chain(error: BaseException, unless: BaseException | None = None) -> list[BaseException]:
    """Give an error and all that led to it, each once."""
    chain: list[BaseException] = []
    left: list[BaseException | None] = [error]
    seen = {id(unless)}
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            chain.append(one)
            left += [one.__cause__, one.__context__]
            left += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
    return chain


def is_hopeless(error: Exception) -> bool:
    """Tell whether trying again cannot help: a request that cannot be sent, or a certificate that is not trusted."""
    return isinstance(error, (*INVALID, httpx.UnsupportedProtocol)) or distrust(error) is not None
