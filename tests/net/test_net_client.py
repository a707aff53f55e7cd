"""Our httpx clients: what they keep, what they follow, and what the logs see of their URLs."""

import logging

import httpx
import pytest

from gts_async import AsyncSession, MisuseError, WrongType
from gts_async._net.client import client_over
from gts_async.testing import chaos

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


@pytest.mark.parametrize(
    "name", ["httpx", "httpx2", "httpcore.http11", "httpcore.http2", "httpcore2.http11", "httpcore2.http2"]
)
async def test_a_redirects_target_is_in_no_log_of_httpx_nor_of_httpx2(name, caplog):
    caplog.set_level(logging.DEBUG)

    def answer(request):
        logging.getLogger(name).debug("receive_response_headers.complete %r", [(b"location", SIGNED.encode())])
        return httpx.Response(200)

    async with client_over(httpx.MockTransport(answer)) as client:
        await client.get("https://cloud.test/")
    assert name in {record.name for record in caplog.records}
    assert "model.zip?<redacted>" in caplog.text
    assert "TOPSECRET" not in caplog.text


async def test_other_peoples_requests_are_logged_as_ever(caplog):
    caplog.set_level(logging.INFO)
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda request: httpx.Response(200))) as client:
        await client.get("https://elsewhere.test/?page=2")
    assert "https://elsewhere.test/?page=2" in caplog.text


async def test_a_redirect_is_neither_followed_nor_logged(caplog, server):
    caplog.set_level(logging.DEBUG)
    server.otherwise(chaos.answer(302, headers={"location": SIGNED}))
    async with client_over(httpx.AsyncHTTPTransport()) as client:
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


class Foreign:
    """What httpx2 gives, to a session over httpx."""


Foreign.__module__ = "httpx2._transports"


@pytest.mark.parametrize("argument", ["transport", "http_client"])
def test_what_is_not_httpxs_is_refused_at_once(argument):
    with pytest.raises(WrongType, match=f"{argument}: must be an httpx.*, not httpx2.Foreign; call httpx2.alias_httpx"):
        AsyncSession(engine="http://127.0.0.1", **{argument: Foreign()})
    with pytest.raises(WrongType, match=r"not builtins.str; pass an instance"):
        AsyncSession(engine="http://127.0.0.1", **{argument: "https"})
