"""Innards: what httpx and httpcore do not show of the one connection inside a slot's transport.

Looked at where it is, and passed over where it is not: another transport, or another version of theirs.
"""

from typing import Any

import httpx

HEAD_READ = 4096
"""Bytes that are read at once until an answer's head is there.

httpcore reads 64 KB, which may hold thousands of interim answers (1xx), and takes them in one go without a look at the
clock: a tenth of a second and more in which nothing else runs.
"""


def connection(transport: httpx.AsyncBaseTransport) -> Any:
    """Give httpcore's HTTP/1.1 connection, or None."""
    pool: Any = getattr(transport, "_pool", None)
    for each in getattr(pool, "connections", ()):
        return getattr(each, "_connection", None)
    return None


def unparsed(transport: httpx.AsyncBaseTransport) -> tuple[bytes, bool]:
    """Give what has arrived beyond the last answer, and whether the server has ended the connection."""
    parser = getattr(connection(transport), "_h11_state", None)
    return parser.trailing_data if parser is not None else (b"", False)


def read_at_once(transport: httpx.AsyncBaseTransport, size: int | None) -> None:
    """Read at most `size` bytes at once from now on; None: as httpcore would."""
    inner = connection(transport)
    if hasattr(inner, "READ_NUM_BYTES"):
        inner.READ_NUM_BYTES = type(inner).READ_NUM_BYTES if size is None else size
