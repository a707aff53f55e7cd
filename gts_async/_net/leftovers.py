"""Leftovers: bytes that a server sent beyond the end of its answer, and that the next request would take for its own.

Only a connection without any may be used again. What arrives while it is idle, httpcore notices itself.
"""

import ssl
from typing import Any

import httpx

from gts_async._net.innards import unparsed


def has_leftovers(transport: httpx.AsyncBaseTransport, response: httpx.Response) -> bool:
    """Tell whether more may have arrived on this transport's only connection than the answer that was just read."""
    if _is_ambiguous(response) or _has_unparsed(transport):
        return True
    # Asking anyio's stream for what it is costs more than all of this: a plain socket's cannot be TLS.
    stream: Any = getattr(response.extensions.get("network_stream"), "_stream", None)
    plain_stream = getattr(stream, "transport_stream", stream)
    return _has_unread(plain_stream) or (stream is not plain_stream and _has_undecrypted(response))


def _is_ambiguous(response: httpx.Response) -> bool:
    """Tell whether it has two ends to choose from (RFC 9112, 6.3): between proxies, that is an attack."""
    return "transfer-encoding" in response.headers and "content-length" in response.headers


def _has_unparsed(transport: httpx.AsyncBaseTransport) -> bool:
    """Ask h11 what it holds: httpcore goes on with it in the next exchange."""
    data, has_ended = unparsed(transport)
    return bool(data) or has_ended


def _has_unread(stream: Any) -> bool:
    """Ask anyio, which takes more from a socket at once than the 64 KiB that httpcore asks for, and keeps the rest."""
    return bool(getattr(getattr(stream, "_protocol", None), "read_queue", None))


def _has_undecrypted(response: httpx.Response) -> bool:
    """Ask TLS for one more byte: a second record that came along with the last one is invisible to the socket."""
    stream: Any = response.extensions.get("network_stream")
    tls = stream.get_extra_info("ssl_object") if stream is not None else None
    if not isinstance(tls, ssl.SSLObject):
        return False
    try:
        tls.read(1)
    except ssl.SSLWantReadError:
        return False
    except (ssl.SSLError, ValueError):
        # Closed by the server, or broken: of no use either way.
        return True
    return True
