"""httpx's errors in our words, translated here and nowhere else: what was surely not sent, and what may have been."""

import ssl
from collections.abc import Mapping
from typing import Any

import httpx

from gts_async._errors import NotSent, OutcomeUnknown, TimedOut, TransportError, plain

FAILURES = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError, OSError)
"""What a try may end with that is about the network."""

UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
"""What httpx raises only before the first byte of a request; a proxy is asked before it as well."""

INVALID = (httpx.LocalProtocolError, httpx.InvalidURL)


class Reach:
    """How far one try got: whether the first byte of its request may have left.

    httpcore tells by its trace, which goes into the request's extensions. Other transports do not: then nobody knows.
    """

    def __init__(self) -> None:
        self.doing = "asking for the token"
        self.is_unsent = True
        self.is_sent = False

    def handed_over(self) -> None:
        """The transport has the request now; what it does is known only once it tells."""
        self.doing, self.is_unsent = "waiting for a connection", False

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take one event of httpcore's."""
        if event.endswith(".connect_tcp.started"):
            self.doing, self.is_unsent = "connecting", True
        elif event.endswith(".send_request_headers.started"):
            self.is_unsent = False
        elif event.endswith(".send_request_headers.complete"):
            self.is_sent = True


def translated(error: Exception, reach: Reach, *, call: str, where: str, url: str) -> TransportError:
    """Give our error for one of httpx's: not sent, or who knows."""
    reason = plain(str(error) or type(error).__name__, 300)
    if isinstance(error, INVALID):
        # h11's text may repeat a header's value, so it is not repeated here.
        if reach.is_sent:
            return OutcomeUnknown(f"{where}: the request broke off while it was sent", call=call, url=url)
        return NotSent(f"{where}: not sent: the request is not valid HTTP", call=call, url=url)
    if is_certificate_error(error):
        reason = f"the server's certificate is not trusted ({reason}); if it is right, trust its authority's file"
    if isinstance(error, UNSENT):
        return NotSent(f"{where}: not sent: {reason}", call=call, url=url)
    if reach.is_unsent:
        reason = f"no time left while {reach.doing}" if isinstance(error, TimeoutError) else reason
        return NotSent(f"{where}: not sent: {reason}", call=call, url=url)
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return TimedOut(f"{where}: no whole answer in time", call=call, url=url)
    return OutcomeUnknown(f"{where}: the connection broke: {reason}", call=call, url=url)


def without_secrets(error: Exception, handled: BaseException | None) -> Exception | None:
    """Give the error to chain, without the frames it came through; None for one whose text may hold a header."""
    drop_frames(error, handled)
    return None if isinstance(error, httpx.LocalProtocolError) else error


def drop_frames(error: BaseException, handled: BaseException | None) -> None:
    """Take the tracebacks off an error and off all that led to it, but for what was `handled` when the try began.

    While a request is written, the locals of httpcore's and h11's frames hold its raw headers, the token among them,
    and many printers of tracebacks show locals.
    """
    left: list[BaseException | None] = [error]
    # The caller's own: Python makes it the context of whatever is raised while it is handled.
    seen = {id(handled)}
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            left += [one.__cause__, one.__context__]


def is_hopeless(error: Exception) -> bool:
    """Tell whether trying again cannot help: a request that cannot be sent, or a certificate that is not trusted."""
    return isinstance(error, (*INVALID, httpx.UnsupportedProtocol)) or is_certificate_error(error)


def is_certificate_error(error: BaseException | None) -> bool:
    """Tell whether the server's certificate is what failed."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
