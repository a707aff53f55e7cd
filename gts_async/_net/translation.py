"""httpx's errors in our words, translated here and nowhere else: what was surely not sent, and what may have been."""

import ssl

import httpx

from gts_async._errors import NotSent, OutcomeUnknown, TimedOut, TransportError, plain

FAILURES = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError, OSError)
"""What a try may end with that is about the network."""


def translated(error: Exception, *, call: str, where: str, url: str) -> TransportError:
    """Give our error for one of httpx's: not sent, or who knows."""
    reason = str(error) or type(error).__name__
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)):
        if is_certificate_error(error):
            reason = f"the server's certificate is not trusted ({reason}); if it is right, trust its authority's file"
        return NotSent(f"{where}: not sent: {plain(reason, 300)}", call=call, url=url)
    if isinstance(error, (httpx.LocalProtocolError, httpx.InvalidURL)):
        # h11's text may repeat a header's value.
        return NotSent(f"{where}: not sent: the request is not valid HTTP", call=call, url=url)
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return TimedOut(f"{where}: no whole answer in time", call=call, url=url)
    return OutcomeUnknown(f"{where}: the connection broke: {plain(reason, 300)}", call=call, url=url)


def without_secrets(error: Exception) -> Exception | None:
    """Give the error to chain, or None for one whose text may hold a header's value."""
    return None if isinstance(error, httpx.LocalProtocolError) else error


def is_certificate_error(error: BaseException | None) -> bool:
    """Tell whether the server's certificate is what failed: trying again cannot help."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
