"""The object store: keeps models and hands them to whoever has a signed URL, as Aliyun OSS does with its V1 signature.

It knows nothing of jobs. Reading the bytes of a `Grant` is up to who serves the store; `answer` reads them whole.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import quote, unquote, urlsplit
from xml.sax.saxutils import escape

import attrs

from gts_async.emulator.backends import Blob
from gts_async.wire import Answer, Request

BUCKET = "sxwl-ai"
"""The bucket that is part of what is signed; its name does not show in the URL."""

_XML = "application/xml"
_SIGNED = ("OSSAccessKeyId", "Signature", "Expires")
_NO_MATCH = (
    "The request signature we calculated does not match the signature you provided. Check your key and signing method."
)


@attrs.frozen
class Grant:
    """Leave to read: the answer's head, and the bytes `start` up to `stop` of `blob` that are its body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    blob: Blob
    start: int
    stop: int


@attrs.frozen
class _Object:
    blob: Blob
    modified: str


@attrs.frozen
class _Range:
    start: int
    stop: int


_UNSATISFIABLE = _Range(0, 0)


class ObjectStore:
    """Keeps objects by key and serves them under `base_url` (which may have a path) for `lifetime` seconds per URL.

    `has_standard_ranges` chooses what a range that reaches beyond the object gets: 206 for the part there is, 416 if
    there is none. OSS does that only when asked by a header that a signed URL does not allow; otherwise it ignores the
    range and sends the whole object with 200, as this store does with False.
    """

    def __init__(
        self,
        secret: bytes,
        base_url: str,
        *,
        lifetime: float = 2_592_000,
        key_id: str = "LTAI5tGtsAsyncEmulator00",
        has_standard_ranges: bool = True,
    ) -> None:
        self._secret = secret
        self._base_url = base_url.rstrip("/")
        self._prefix = urlsplit(self._base_url).path + "/"
        self._host = urlsplit(self._base_url).netloc
        self._lifetime = lifetime
        self._key_id = key_id
        self._has_standard_ranges = has_standard_ranges
        self._objects: dict[str, _Object] = {}
        self._answered = 0

    def put(self, key: str, blob: Blob, modified: float = 0.0) -> None:
        """Keep `blob` under `key`, replacing what was there; `modified` (Unix seconds) is shown as its last change."""
        moment = datetime.fromtimestamp(int(modified), UTC)
        self._objects[key] = _Object(blob, format_datetime(moment, usegmt=True))

    def signed_url(self, key: str, now: float) -> str:
        """Give a URL that may GET the object until `now` and the lifetime have passed (Unix seconds)."""
        expires = str(int(now + self._lifetime))
        signature = quote(self._signature(f"GET\n\n\n{expires}\n{_resource(key)}"), safe="")
        query = f"Expires={expires}&OSSAccessKeyId={self._key_id}&Signature={signature}"
        return f"{self._base_url}/{quote(key, safe='')}?{query}"

    def answer(self, request: Request, now: float) -> Answer:
        """Answer with the whole body; see `grant`."""
        granted = self.grant(request, now)
        if isinstance(granted, Answer):
            return granted
        return Answer(granted.status, granted.headers, granted.blob.read(granted.start, granted.stop))

    def grant(self, request: Request, now: float) -> Grant | Answer:
        """Give leave to read, or the refusal, in OSS's order: authorization, expiry, signature, key, range.

        `request.path` is what the host is asked for, `now` in Unix seconds. The signature covers the method, the
        key, and the headers Content-MD5, Content-Type and x-oss-*: a signed URL allows a GET without any of these.
        """
        self._answered += 1
        query = dict(request.query)
        refusal = self._unsigned(request, query) or self._expired(query, now) or self._mismatched(request, query)
        if refusal is not None:
            return refusal if request.method != "HEAD" else attrs.evolve(refusal, body=b"")
        key = self._key(request)
        kept = self._objects.get(key)
        if kept is None:
            return self._error(404, "NoSuchKey", "The specified key does not exist.", "0026-00000001", {"Key": key})
        return self._granted(request, key, kept)

    def _key(self, request: Request) -> str:
        return unquote(request.path.removeprefix(self._prefix))

    def _signature(self, words: str) -> str:
        return base64.b64encode(hmac.digest(self._secret, words.encode(), hashlib.sha1)).decode()

    def _unsigned(self, request: Request, query: Mapping[str, str]) -> Answer | None:
        if request.header("authorization") is not None:
            text = "Only one auth mechanism allowed; the header and the URL must not both be signed."
            return self._error(400, "InvalidArgument", text, "0002-00000039")
        if not any(name in query for name in _SIGNED):
            text = "You have no right to access this object because of bucket acl."
            return self._error(403, "AccessDenied", text, "0003-00000001")
        if missing := [name for name in _SIGNED if name not in query]:
            text = f"The {missing[0]} of the signed URL is missing."
            return self._error(403, "AccessDenied", text, "0002-00000074")
        if query["OSSAccessKeyId"] != self._key_id:
            text = "The OSS Access Key Id you provided does not exist in our records."
            return self._error(403, "InvalidAccessKeyId", text, "0002-00000902")
        return None

    def _expired(self, query: Mapping[str, str], now: float) -> Answer | None:
        if not re.fullmatch("[0-9]{1,18}", query["Expires"]):
            return self._error(403, "AccessDenied", "Invalid date (should be seconds since epoch).", "0002-00000070")
        if now <= int(query["Expires"]):
            return None
        times = {"Expires": _iso(min(int(query["Expires"]), int(now))), "ServerTime": _iso(now)}
        return self._error(403, "AccessDenied", "Request has expired.", "0002-00000069", times)

    def _mismatched(self, request: Request, query: Mapping[str, str]) -> Answer | None:
        digest, kind = (request.header(name) or "" for name in ("content-md5", "content-type"))
        resource = _resource(self._key(request)) + _subresources(query)
        words = f"{request.method}\n{digest}\n{kind}\n{query['Expires']}\n{_oss_headers(request)}{resource}"
        if hmac.compare_digest(self._signature(words).encode(), query["Signature"].encode()):
            return None
        details = {"SignatureProvided": query["Signature"], "StringToSign": words}
        return self._error(403, "SignatureDoesNotMatch", _NO_MATCH, "0002-00000040", details)

    def _granted(self, request: Request, key: str, kept: _Object) -> Grant | Answer:
        size = kept.blob.size
        chosen = self._chosen(request, kept)
        if chosen is _UNSATISFIABLE:
            details = {"ActualObjectSize": str(size), "RangeRequested": request.header("range") or ""}
            text = "The requested range cannot be satisfied"
            refusal = self._error(416, "InvalidRange", text, "0017-00000904", details)
            return attrs.evolve(refusal, headers=(*refusal.headers, ("content-range", f"bytes */{size}")))
        part = chosen or _Range(0, size)
        headers = [
            *self._common("application/zip" if key.endswith(".zip") else "application/octet-stream"),
            ("content-length", str(part.stop - part.start)),
            ("accept-ranges", "bytes"),
            ("etag", kept.blob.etag),
            ("last-modified", kept.modified),
            ("x-oss-object-type", "Normal"),
        ]
        if (crc64 := getattr(kept.blob, "crc64", None)) is not None:
            headers.append(("x-oss-hash-crc64ecma", str(crc64)))
        if chosen is not None:
            headers.append(("content-range", f"bytes {part.start}-{part.stop - 1}/{size}"))
        return Grant(200 if chosen is None else 206, tuple(headers), kept.blob, part.start, part.stop)

    def _chosen(self, request: Request, kept: _Object) -> _Range | None:
        """Give the range that applies, None for the whole object."""
        wanted, condition = request.header("range"), request.header("if-range")
        if wanted is None or condition not in (None, kept.blob.etag, kept.modified):
            return None
        part = _range(wanted, kept.blob.size)
        if part is None or self._has_standard_ranges:
            return part
        return part if part is not _UNSATISFIABLE and _is_inside(wanted, kept.blob.size) else None

    def _common(self, kind: str) -> tuple[tuple[str, str], ...]:
        number = hashlib.sha1(f"{self._answered}".encode(), usedforsecurity=False).hexdigest()[:24].upper()
        return ("server", "AliyunOSS"), ("content-type", kind), ("x-oss-request-id", number)

    def _error(
        self, status: int, code: str, message: str, number: str, details: Mapping[str, str] | None = None
    ) -> Answer:
        headers = self._common(_XML)
        elements = {"Code": code, "Message": message, "RequestId": headers[2][1], "HostId": self._host}
        elements |= {**(details or {}), "EC": number}
        lines = "".join(f"  <{name}>{escape(value)}</{name}>\n" for name, value in elements.items())
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>\n{lines}</Error>\n'
        return Answer(status, (*headers, ("x-oss-ec", number)), body.encode())


def _resource(key: str) -> str:
    return f"/{BUCKET}/{key}"


def _oss_headers(request: Request) -> str:
    headers = sorted((name, value) for name, value in request.headers if name.startswith("x-oss-"))
    return "".join(f"{name}:{value}\n" for name, value in headers)


def _subresources(query: Mapping[str, str]) -> str:
    """Parameters that change the answer are signed as well; others, OSS passes over."""
    names = sorted(name for name in query if name.startswith(("response-", "x-oss-")))
    return "?" + "&".join(f"{name}={query[name]}" for name in names) if names else ""


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _range(wanted: str, size: int) -> _Range | None:
    """Read a Range header: None if it is to be ignored, _UNSATISFIABLE if nothing of it is there."""
    form = re.fullmatch(r"bytes=\s*([0-9]*)-([0-9]*)((?:\s*,.*)?)", wanted)
    if form is None or not (form[1] or form[2]):
        return None
    start = int(form[1]) if form[1] else max(size - int(form[2]), 0)
    stop = min(int(form[2]) + 1, size) if form[1] and form[2] else size
    if form[1] and form[2] and int(form[2]) < start:
        return None
    return _UNSATISFIABLE if form[3] or start >= stop else _Range(start, stop)


def _is_inside(wanted: str, size: int) -> bool:
    bounds = [int(number) for number in re.findall("[0-9]+", wanted)]
    return bounds[-1] <= size if "=-" in wanted else bounds[-1] < size
