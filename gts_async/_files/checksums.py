"""Checksums: what a store tells of an object's bytes, and whether the bytes that came have them.

A checksum is written as "md5:<hex>". Only those are read that can be computed here: Aliyun's CRC-64, which it has of
objects of any size, and CRC-32C need the extra "verify".
"""

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import attrs

_ETAG_MD5 = re.compile(r'"([0-9a-fA-F]{32})"')
_DECIMAL = re.compile(r"[0-9]{1,20}")
_NAMES = {"md5": "MD5", "sha1": "SHA-1", "sha256": "SHA-256", "crc32": "CRC-32", "crc32c": "CRC-32C", "crc64": "CRC-64"}
_SIZES = {"md5": 16, "sha1": 20, "sha256": 32, "crc32": 4, "crc32c": 4, "crc64": 8}
"""Bytes of each."""

_DIGESTS = {"md5": "md5", "sha": "sha1", "sha-256": "sha256"}
"""The names that the Digest headers have for them (RFC 3230 and 9530)."""


class _Sum(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


@attrs.define
class _Crc:
    """A CRC with hashlib's manners."""

    advance: Callable[[Any, int], int]
    size: int
    value: int = 0

    def update(self, data: bytes | memoryview) -> None:
        self.value = self.advance(data, self.value)

    def hexdigest(self) -> str:
        return self.value.to_bytes(self.size, "big").hex()


_CRCS: dict[str, Callable[[Any, int], int]] = {"crc32": zlib.crc32}
try:
    from fastcrc import crc32, crc64
except ImportError:  # pragma: no cover - the extra is not installed
    pass
else:
    _CRCS |= {"crc32c": crc32.iscsi, "crc64": crc64.xz}


def _made(kind: str) -> _Sum | None:
    """Give a fresh sum of that kind; None if none can be computed here."""
    if kind in _CRCS:
        return _Crc(_CRCS[kind], _SIZES[kind])
    return hashlib.new(kind, usedforsecurity=False) if kind in ("md5", "sha1", "sha256") else None


class Summing:
    """Computes the checksums that were told, of the first `position` bytes."""

    def __init__(self, told: Iterable[str]) -> None:
        self.position = 0
        self._sums: list[tuple[str, str, _Sum]] = []
        for checksum in told:
            kind, _, wanted = checksum.partition(":")
            if (fresh := _made(kind)) is not None:
                self._sums.append((kind, wanted, fresh))

    def __bool__(self) -> bool:
        """Tell whether there is anything to compute."""
        return bool(self._sums)

    def update(self, data: bytes | memoryview) -> None:
        """Take the bytes behind those before."""
        for _, _, each in self._sums:
            each.update(data)
        self.position += len(data)

    def wrong(self) -> str | None:
        """Give the name of a checksum that is not as told, None if all are."""
        return next((_NAMES[kind] for kind, wanted, each in self._sums if each.hexdigest() != wanted), None)


def told(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Read all that a store vouches for of a whole object, out of the headers of its answer."""
    found = [*_of_aliyun(headers), *_of_amazon(headers), *_of_google(headers), *_of_any(headers)]
    return tuple(dict.fromkeys(checksum for checksum in found if _made(checksum.partition(":")[0]) is not None))


def _of_aliyun(headers: Mapping[str, str]) -> Iterable[str]:
    told = headers.get("x-oss-hash-crc64ecma", "")
    if _DECIMAL.fullmatch(told) and int(told) < 1 << 64:
        yield f"crc64:{int(told):016x}"
    if headers.get("x-oss-object-type") == "Normal" and "x-oss-server-side-encryption-key-id" not in headers:
        yield from _of_etag(headers)


def _of_amazon(headers: Mapping[str, str]) -> Iterable[str]:
    """Read Amazon's checksums; of an object of many parts some are made of those of the parts."""
    if headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT":
        for kind in ("sha256", "sha1", "crc32", "crc32c"):
            yield from _from_base64(kind, headers.get(f"x-amz-checksum-{kind}", ""))
    is_encrypted = (
        "kms" in headers.get("x-amz-server-side-encryption", "")
        or "x-amz-server-side-encryption-customer-algorithm" in headers
    )
    if "x-amz-request-id" in headers and not is_encrypted:
        yield from _of_etag(headers)


def _of_google(headers: Mapping[str, str]) -> Iterable[str]:
    # What is stored packed and sent unpacked has the checksum of the packed bytes.
    if headers.get("x-goog-stored-content-encoding", "identity") == "identity":
        for item in headers.get("x-goog-hash", "").split(","):
            kind, _, told = item.strip().partition("=")
            if kind in ("md5", "crc32c"):
                yield from _from_base64(kind, told)


def _of_any(headers: Mapping[str, str]) -> Iterable[str]:
    yield from _from_base64("md5", headers.get("content-md5", ""))
    for name in ("digest", "repr-digest"):
        for item in headers.get(name, "").split(","):
            kind, _, told = item.strip().partition("=")
            if kind.lower() in _DIGESTS:
                yield from _from_base64(_DIGESTS[kind.lower()], told.removeprefix(":").removesuffix(":"))


def _of_etag(headers: Mapping[str, str]) -> Iterable[str]:
    """Take the ETag for an MD5 if it looks like one, which it is only at object stores, and not always there.

    Other servers hash the name and time of the file. Amazon says that it is none for objects encrypted with a key of
    the customer's or of KMS; Aliyun's are MD5 for objects of type Normal.
    """
    match = _ETAG_MD5.fullmatch(headers.get("etag", ""))
    if match is not None:
        yield f"md5:{match[1].lower()}"


def _from_base64(kind: str, text: str) -> Iterable[str]:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return
    if len(value) == _SIZES[kind]:
        yield f"{kind}:{value.hex()}"
