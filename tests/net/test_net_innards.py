"""What we know of httpx's innards is so: a version in which it is not would fail here."""

import httpx
import pytest

from gts_async._net import innards
from gts_async._net.slots import BODY_READ, SlotTransport
from gts_async.testing import chaos


async def no_context():
    raise AssertionError("plain http needs no certificates")


class Watched(httpx.AsyncHTTPTransport):
    """Notes how much is read at once as every stage of an exchange begins."""

    def __init__(self):
        super().__init__(limits=httpx.Limits(max_connections=1))
        self.reads = {}

    async def handle_async_request(self, request):
        told = request.extensions["trace"]

        async def trace(event, info):
            await told(event, info)
            if event.startswith("http11."):
                self.reads[event] = innards.connection(self).READ_NUM_BYTES

        request.extensions = {**request.extensions, "trace": trace}
        return await super().handle_async_request(request)


async def test_little_is_read_at_once_until_the_head_is_there(server):
    watched = Watched()
    slots = SlotTransport(max_connections=1, ssl_context=no_context, make_transport=lambda _: watched)
    server.otherwise(chaos.answer(body=b"x" * 100_000))
    async with httpx.AsyncClient(transport=slots) as client:
        for _ in range(2):
            watched.reads.clear()
            assert len((await client.get(server.url)).content) == 100_000
            assert watched.reads["http11.receive_response_headers.started"] == innards.HEAD_READ == 4096
            assert watched.reads["http11.receive_response_headers.complete"] == 65_536
            assert watched.reads["http11.receive_response_body.started"] == 65_536


async def test_a_large_body_is_read_in_large_pieces_where_that_is_asked_for(server):
    watched = Watched()
    slots = SlotTransport(max_connections=1, ssl_context=no_context, make_transport=lambda _: watched)
    server.otherwise(chaos.answer(body=b"x" * 100_000))
    async with httpx.AsyncClient(transport=slots) as client:
        for size, extensions in ((1 << 18, {BODY_READ: 1 << 18}), (65_536, {})):
            answer = await client.get(server.url, extensions=extensions)
            assert len(answer.content) == 100_000
            assert watched.reads["http11.receive_response_headers.started"] == innards.HEAD_READ
            assert watched.reads["http11.receive_response_body.started"] == size


async def test_what_the_parser_holds_is_known(server):
    transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=1))
    server.otherwise(chaos.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokmore"))
    async with httpx.AsyncClient(transport=transport) as client, client.stream("GET", server.url) as response:
        await response.aread()
        assert innards.unparsed(transport) == (b"more", False)


@pytest.mark.parametrize("transport", [httpx.MockTransport(lambda request: None), httpx.AsyncHTTPTransport()])
def test_where_there_is_no_connection_nothing_is_known(transport):
    assert innards.connection(transport) is None
    assert innards.unparsed(transport) == (b"", False)
    innards.read_at_once(transport, 4096)
    assert innards.connection(transport) is None
