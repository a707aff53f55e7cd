"""Reading an object store's answers: which object it is, what part of it comes, why it refuses. Nothing is sent here.

Aliyun's, Amazon's and compatible stores (MinIO) are understood; any web server that knows ranges will do.
"""

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import cast

import attrs
import httpx

from gts_async._errors import (
    Denied,
    GtsAsyncError,
    NotFound,
    NotSent,
    RateLimited,
    ServerFailed,
    ServiceError,
    TransportError,
    UnexpectedAnswer,
    plain,
)
from gts_async._files import checksums
from gts_async._files.note import STRONG, Version
from gts_async._net.retry import retry_after
from gts_async._net.roots import distrust

CALL = "download"
MAX_SAID = 16384
"""Bytes of a refusal that are read."""

Hide = Callable[[str], str]
"""Takes the signed URL's secrets out of what somebody says."""

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,18})")
_CODE = re.compile(r"<Code>\s*([A-Za-z0-9._-]{1,80})\s*</Code>")
_MESSAGE = re.compile(r"<Message>\s*([^<]{1,400}?)\s*</Message>")
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
_OUR_FAULT = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)
_PASSING = frozenset({408, 425})
_EXPIRED = frozenset({"ExpiredToken", "RequestExpired", "TokenRefreshRequired"})


@attrs.frozen
class Span:
    """Which bytes of the object a 206 brings: `first` to `end`, of `total` (None if the store does not say)."""

    first: int
    end: int
    total: int | None


def version(response: httpx.Response, url: str) -> Version:
    """Read which object a whole answer (200) is."""
    headers = response.headers
    etag = headers.get("etag", "")
    return Version(url, etag if STRONG.fullmatch(etag) else None, _length(headers), checksums.told(headers))


def span(response: httpx.Response) -> Span | None:
    """Read a 206's Content-Range; None if it makes no sense."""
    match = _RANGE.fullmatch(response.headers.get("content-range", "").strip())
    if match is None:
        return None
    found = Span(int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3]))
    is_sound = found.first < found.end and (found.total is None or found.end <= found.total)
    return found if is_sound else None


def whole_size(response: httpx.Response) -> int | None:
    """Read the object's size out of a 416 ("there is nothing from there on")."""
    match = _UNSATISFIED.fullmatch(response.headers.get("content-range", "").strip())
    return None if match is None else int(match[1])


def is_framed(response: httpx.Response) -> bool:
    """Tell whether the end of the body can be told from a cut: by a length, by chunks, or by HTTP/2's frames."""
    headers = response.headers
    is_sized = "content-length" in headers or "transfer-encoding" in headers
    return is_sized or response.is_stream_consumed or response.http_version not in ("HTTP/1.0", "HTTP/1.1")


def is_packed_on_the_way(response: httpx.Response) -> bool:
    """Tell whether the bytes are none of the object's: packed as they are sent, which nobody has asked for.

    What is packed for good has a length that the store knows, and those are the object's own bytes.
    """
    headers = response.headers
    coding = headers.get("content-encoding", "identity").strip().lower()
    return coding not in ("", "identity") and "content-length" not in headers and not response.is_stream_consumed


def pieces(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Give the body as it arrives, never decoded (but for a mock's answer, which is in memory already)."""
    if response.is_stream_consumed:
        return _only(response.content)
    return cast("AsyncGenerator[bytes, None]", response.aiter_raw())


async def beginning(response: httpx.Response) -> bytes:
    """Give the first bytes of what a refusal says."""
    said = b""
    async with aclosing(pieces(response)) as parts:
        async for part in parts:
            said += part
            if len(said) >= MAX_SAID:
                break
    return said[:MAX_SAID]


async def _only(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content


def _length(headers: httpx.Headers) -> int | None:
    value = headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None


@attrs.frozen
class Setback:
    """Why a try brought no more bytes of the object: the error to raise if nothing helps, and what may help."""

    error: GtsAsyncError
    status: int | None = None
    may_have_expired: bool = False
    may_pass: bool = False
    retry_after: float | None = None


def refusal(response: httpx.Response, body: bytes, url: str, *, hide: Hide) -> Setback:
    """Read an answer that brings no bytes of the object; `url` is without its query, and so is what is said."""
    status = response.status_code
    code, message = _said(body, hide)
    text = f"{CALL} of {url}: the store answered {status}" + (f" {code}" if code else "")
    text += f": {message}" if message else ""
    pause = retry_after(response.headers.get("retry-after"), datetime.now(UTC))
    if status == 429:
        limited = RateLimited(text, call=CALL, code=status, message=message)
        limited.retry_after = pause
        return Setback(limited, status, may_pass=True, retry_after=pause)
    if status >= 500 or status in _PASSING:
        failed = ServerFailed(text, status=status, body=message, call=CALL, url=url)
        return Setback(failed, status, may_pass=True, retry_after=pause)
    if status in (401, 403) or code in _EXPIRED:
        return Setback(Denied(text, call=CALL, code=status, message=message), status, may_have_expired=True)
    if status in (404, 410):
        return Setback(NotFound(text, call=CALL, code=status, message=message), status)
    if 400 <= status < 500:
        return Setback(ServiceError(text, call=CALL, code=status, message=message), status)
    return Setback(UnexpectedAnswer(text, call=CALL, problem=f"status {status}"), status)


def broken(error: Exception | None, url: str, slow: str = "", *, hide: Hide) -> Setback:
    """Tell of a connection that was not made, was cut, or was given up as too slow (TimeoutError: `slow` says how)."""
    reason = "the answer ended early" if error is None else plain(hide(str(error)) or type(error).__name__, 300)
    distrusted = None if error is None else distrust(error)
    if isinstance(error, TimeoutError) and slow:
        reason = slow
    reason = distrusted or reason
    kind = NotSent if isinstance(error, _UNSENT) else TransportError
    failure = kind(f"{CALL} of {url}: {reason}", call=CALL, url=url)
    return Setback(failure, may_pass=distrusted is None and not isinstance(error, _OUR_FAULT))


def _said(body: bytes, hide: Hide) -> tuple[str, str]:
    """Give code and message of a store's XML; nothing else of the body, which may repeat the signed URL."""
    text = hide(body.decode("utf-8", "replace"))
    code, message = _CODE.search(text), _MESSAGE.search(text)
    said = message[1] if message is not None else ""
    return (code[1] if code is not None else ""), plain(said, 400)
