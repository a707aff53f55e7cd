"""The httpx clients of a session, for the API and for object-store URLs. Who makes and closes them is `lines`."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any

import httpx

from gts_async._errors import MisuseError, plain
from gts_async._net.config import Limits
from gts_async._net.roots import Roots
from gts_async._net.secret import Secret, signed
from gts_async._net.slots import SlotTransport

Client = httpx.AsyncClient
Transport = httpx.AsyncBaseTransport
"""What the floors above may hold and hand on without knowing httpx."""

USER_AGENT = f"gts-async/{version('gts-async')}"


class _NoCookies(httpx.Cookies):
    """Remembers nothing: neither service uses cookies, and a proxy's must not travel to the other one."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Pass over what the server would have us remember."""


_NO_COOKIES = _NoCookies()

_being_sent: ContextVar[Secret | None] = ContextVar("_being_sent", default=None)
"""What no log may say of the request that is being sent; None if it is none of ours."""


class _Client(httpx.AsyncClient):
    @property
    def cookies(self) -> httpx.Cookies:
        return _NO_COOKIES

    @cookies.setter
    def cookies(self, cookies: object) -> None:
        raise AttributeError("this client keeps no cookies")

    def _build_redirect_request(self, request: httpx.Request, response: httpx.Response) -> httpx.Request:
        """Read no Location, since none is followed: httpx would, and take a strange one for a broken connection."""
        return request

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        if self.is_closed:
            raise MisuseError("the session is closed; open another")
        if _being_sent.get() is not None:
            return await super().send(request, **options)
        with discreet(request):
            return await super().send(request, **options)


async def sent(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
    """Send through any client, with httpx's options for that, and give the answer unread; redirects are not followed.

    Logs hide the request's secrets, and the answer's repr has no words of the server's in it.
    """
    with discreet(request):
        response = await client.send(request, stream=True, follow_redirects=False, **options)
    response.extensions.pop("reason_phrase", None)
    return response


@contextmanager
def discreet(request: httpx.Request) -> Iterator[None]:
    """Let httpx and httpcore log neither the query of this request's URL nor its token, during the block."""
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    ours = _being_sent.set(signed(str(request.url), token))
    del token
    try:
        yield
    finally:
        _being_sent.reset(ours)


_QUERY = re.compile(r"\?\S*")
"""A redirect's target may be a path only, so that nothing but the question mark tells it."""


class _WithoutSecrets(logging.Filter):
    """Hides what httpx and httpcore log of our requests' secrets: the queries of URLs, and a token that comes back."""

    def filter(self, record: logging.LogRecord) -> bool:
        secret = _being_sent.get()
        if secret is not None:
            record.msg, record.args = _QUERY.sub("?<redacted>", plain(secret.hide(record.getMessage()))), ()
        return True


# httpx logs every URL at INFO; httpcore's connections log an answer's headers, a redirect's target among them. httpx2,
# which an application may have put in their place, does so under names of its own.
for _name in ("httpx", "httpx2", "httpcore.http11", "httpcore.http2", "httpcore2.http11", "httpcore2.http2"):
    logging.getLogger(_name).addFilter(_WithoutSecrets())


def slot_client(limits: Limits, roots: Roots) -> httpx.AsyncClient:
    """Give a client over slots that trusts no environment, follows no redirect and keeps no cookie."""
    return client_over(SlotTransport(max_connections=int(limits.max_connections), ssl_context=roots.context))


def client_over(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    """Give the same client over any transport."""
    return _Client(transport=transport, trust_env=False, follow_redirects=False)
