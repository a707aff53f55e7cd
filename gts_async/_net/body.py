"""Bodies: an answer's, read whole but never larger than allowed; and what a request's must be to be made on the way."""

import asyncio
import io
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol, cast

import httpx

from gts_async._errors import UnexpectedAnswer
from gts_async.wire import Multipart

PIECE = 1 << 16
"""Bytes that are unpacked at once."""

PACKED = frozenset({"gzip", "x-gzip", "deflate"})
"""Content codings that are undone although we ask for none; zlib tells them apart by itself."""

OTHERS = frozenset({"br", "compress", "dcb", "dcz", "gzip, gzip", "x-compress", "zstd"})
"""Codings that are not undone, by their names."""

WITHOUT_A_TURN = 256
"""Pieces after which others get a turn: those that arrived together come without any, be they of one byte each."""


class StreamedBody(Protocol):
    """A body that is made while it is sent."""

    content_type: str
    length: int

    def chunks(self) -> AsyncIterable[bytes]:
        """Give the bytes, from the start at every call."""
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...


OpenBody = Callable[[Multipart], Awaitable[StreamedBody]]


async def read_body(call: str, response: httpx.Response, most: int) -> bytes:
    """Give the whole body, unpacked; what is held at any time is little more than what is given.

    Raises UnexpectedAnswer if it is larger than `most` bytes, packed or unpacked, or cannot be unpacked, and
    httpx.RemoteProtocolError if it ends early: before the end of what is packed in it, or before it has begun.
    """
    if response.is_stream_consumed:  # a mock's answer, already in memory
        whole = await response.aread()
        if len(whole) > most:
            problem = f"the answer ({response.status_code}) is larger than {most} bytes"
            raise UnexpectedAnswer(call=call, problem=problem)
        return whole
    body = _Body(call, response, most)
    # Closed here: an error's traceback would keep it, and with it what it reads from, until nobody holds the error.
    async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_raw())) as pieces:
        async for piece in pieces:
            if body.add(piece) % WITHOUT_A_TURN == 0:
                await asyncio.sleep(0)
    return body.whole()


class _Body:
    """One body as it grows, in a single buffer: bodies cut into millions of pieces are no larger than others."""

    def __init__(self, call: str, response: httpx.Response, most: int) -> None:
        self._call = call
        self._response = response
        self._most = most
        self._taken = self._pieces = 0
        self._made = io.BytesIO()
        coding = response.headers.get("content-encoding", "").strip().lower()
        if coding not in PACKED | {"", "identity"}:
            # What is no name might be anything, a secret too: it is not repeated.
            raise self._unexpected(f"is coded {f'as {coding}' if coding in OTHERS else 'in an unknown way'}, unasked")
        self._packed = zlib.decompressobj(zlib.MAX_WBITS | 32) if coding in PACKED else None

    def add(self, piece: bytes) -> int:
        """Take the next bytes as they came; gives how many pieces that makes."""
        self._taken += len(piece)
        if self._taken > self._most:
            raise self._unexpected(f"is larger than {self._most} bytes")
        if self._packed is None:
            self._made.write(piece)
        else:
            self._unpack(self._packed, piece)
        self._pieces += 1
        return self._pieces

    def _unpack(self, packed: "zlib._Decompress", piece: bytes) -> None:
        while piece:
            try:
                made = packed.decompress(piece, PIECE)
            except zlib.error as error:
                raise self._unexpected("is packed in a way that cannot be undone") from error
            if self._made.tell() + len(made) > self._most:
                raise self._unexpected(f"is larger than {self._most} bytes, unpacked")
            self._made.write(made)
            piece = packed.unconsumed_tail
        if packed.unused_data:
            raise self._unexpected("goes on after the end of what is packed in it")

    def whole(self) -> bytes:
        """Give all of it, once all bytes came."""
        if self._packed is not None and self._taken and not self._packed.eof:
            raise httpx.RemoteProtocolError("the packed body ended early", request=self._response.request)
        if not self._taken and self._has_open_end():
            # What is read as "done" where there is nothing to say must not come of a server that died.
            raise httpx.RemoteProtocolError("neither a length nor a body came", request=self._response.request)
        # Shares the buffer, where bytes() of it would be a second body.
        return self._made.getvalue()

    def _has_open_end(self) -> bool:
        """Tell whether the body of a good answer ended only because its connection did, as HTTP/1 allows."""
        answer, told = self._response, {"content-length", "transfer-encoding"}
        is_http1 = answer.extensions.get("http_version", b"").startswith(b"HTTP/1")
        return is_http1 and answer.status_code == 200 and told.isdisjoint(answer.headers)

    def _unexpected(self, what: str) -> UnexpectedAnswer:
        return UnexpectedAnswer(call=self._call, problem=f"the answer ({self._response.status_code}) {what}")
