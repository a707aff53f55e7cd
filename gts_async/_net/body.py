"""Bodies: an answer's, read whole but never larger than allowed; and what a request's must be to be made on the way."""

import zlib
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Protocol

import httpx

from gts_async._errors import UnexpectedAnswer, plain
from gts_async.wire import Multipart


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
    """Give the whole body; raises UnexpectedAnswer if it is larger than `most` bytes or strangely coded."""
    if response.is_stream_consumed:  # a mock's answer, already in memory
        return await response.aread()
    pieces: list[bytes] = []
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > most:
            raise UnexpectedAnswer(call=call, problem=f"the answer is larger than {most} bytes")
        pieces.append(piece)
    return _decompressed(call, response.headers.get("content-encoding", ""), b"".join(pieces), most)


def _decompressed(call: str, encoding: str, body: bytes, most: int) -> bytes:
    """Undo a content coding that we did not ask for, never making more than `most` bytes."""
    if encoding.strip().lower() in ("", "identity"):
        return body
    if encoding.strip().lower() not in ("gzip", "deflate"):
        raise UnexpectedAnswer(call=call, problem=f"the answer is coded as {plain(encoding, 60)}, unasked")
    machine = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        whole = machine.decompress(body, most)
    except zlib.error as error:
        raise UnexpectedAnswer(call=call, problem="the answer's compression is broken") from error
    if machine.unconsumed_tail:
        raise UnexpectedAnswer(call=call, problem=f"the answer is larger than {most} bytes, unpacked")
    return whole
