"""The CRC-64 that Aliyun's store has of each object; known only where the extra "verify" is, for it is slow else."""

from collections.abc import Callable

_advance: Callable[[bytes, int], int] | None = None
try:
    from fastcrc import crc64
except ImportError:  # pragma: no cover - the extra is not installed
    pass
else:
    _advance = crc64.xz


def crc_of(content: bytes, before: int | None = 0) -> int | None:
    """Give the CRC-64 of bytes that come behind others, whose own is `before`; None if none can be computed here."""
    return None if _advance is None or before is None else _advance(content, before)
