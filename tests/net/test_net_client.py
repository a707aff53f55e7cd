"""Our httpx clients: what they keep, what they follow, and what the logs see of their URLs."""

import logging

import httpx
import pytest

from gts_async import MisuseError
from gts_async._net.client import client_over

SIGNED = "https://store.test/model.zip?OSSAccessKeyId=me&Signature=TOPSECRET"


def answering(*responses):
    left = list(responses)
    return client_over(httpx.MockTransport(lambda request: left.pop(0)))


async def test_a_signed_urls_query_is_in_no_log(caplog):
    caplog.set_level(logging.DEBUG)
    async with answering(httpx.Response(200)) as client:
        await client.get(SIGNED)
    assert "https://store.test/model.zip?<redacted>" in caplog.text
    assert "TOPSECRET" not in caplog.text


async def test_other_peoples_requests_are_logged_as_ever(caplog):
    caplog.set_level(logging.INFO)
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda request: httpx.Response(200))) as client:
        await client.get("https://elsewhere.test/?page=2")
    assert "https://elsewhere.test/?page=2" in caplog.text


async def test_a_redirect_is_neither_followed_nor_logged(caplog, raw_server):
    caplog.set_level(logging.DEBUG)
    moved = b"HTTP/1.1 302 Found\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n" % SIGNED.encode()
    async with raw_server(moved) as server, client_over(httpx.AsyncHTTPTransport()) as client:
        assert (await client.get(server.url)).status_code == 302
    assert "receive_response_headers" in caplog.text
    assert "TOPSECRET" not in caplog.text


async def test_cookies_are_neither_kept_nor_sent():
    async with answering(httpx.Response(200, headers={"set-cookie": "a=b"}), httpx.Response(200)) as client:
        await client.get("https://store.test/")
        assert "cookie" not in (await client.get("https://store.test/")).request.headers
        with pytest.raises(AttributeError):
            client.cookies = {"a": "b"}


async def test_a_closed_client_says_that_the_session_is_closed():
    client = answering()
    await client.aclose()
    with pytest.raises(MisuseError, match="closed"):
        await client.get("https://store.test/")


async def test_the_environment_is_not_trusted(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:1")
    monkeypatch.setenv("NO_PROXY", "fe80::/10")
    async with answering(httpx.Response(200)) as client:
        assert (await client.get("http://store.test/")).status_code == 200
