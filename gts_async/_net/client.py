"""The httpx clients of a session: one for the API, one without credentials for object-store URLs, one set of roots."""

import asyncio
import logging
import ssl
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any

import httpx

from gts_async._errors import MisuseError, plain
from gts_async._net.config import Limits
from gts_async._net.slots import SlotTransport

Client = httpx.AsyncClient
Transport = httpx.AsyncBaseTransport
"""What the floors above may hold and hand on without knowing httpx."""

USER_AGENT = f"gts-async/{version('gts-async')}"


class Roots:
    """The certificate authorities of a session, loaded once and off the loop (it takes some 30 ms)."""

    def __init__(self) -> None:
        self._loading: asyncio.Future[ssl.SSLContext] | None = None

    async def context(self) -> ssl.SSLContext:
        """Give the session's one SSLContext."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(asyncio.to_thread(httpx.create_ssl_context, trust_env=False))
        # Shielded: the first caller may be cancelled while others wait for the same context.
        return await asyncio.shield(self._loading)


class _NoCookies(httpx.Cookies):
    """Remembers nothing: neither service uses cookies, and a proxy's must not travel to the other one."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Pass over what the server would have us remember."""


_NO_COOKIES = _NoCookies()

_is_ours: ContextVar[bool] = ContextVar("_is_ours", default=False)


class _Client(httpx.AsyncClient):
    @property
    def cookies(self) -> httpx.Cookies:
        return _NO_COOKIES

    @cookies.setter
    def cookies(self, cookies: object) -> None:
        raise AttributeError("this client keeps no cookies")

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        if self.is_closed:
            raise MisuseError("the session is closed; open another")
        ours = _is_ours.set(True)
        try:
            return await super().send(request, **options)
        finally:
            _is_ours.reset(ours)


class _WithoutQueries(logging.Filter):
    """Hides the queries of URLs in what httpx and httpcore log about our requests: that of a signed URL is a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _is_ours.get():
            record.msg, record.args = plain(record.getMessage()), ()
        return True


# httpx logs every URL at INFO; httpcore's connections log an answer's headers, a redirect's target among them.
for _name in ("httpx", "httpcore.http11"):
    logging.getLogger(_name).addFilter(_WithoutQueries())


def slot_client(limits: Limits, roots: Roots) -> httpx.AsyncClient:
    """Give a client over slots that trusts no environment, follows no redirect and keeps no cookie."""
    return client_over(SlotTransport(max_connections=int(limits.max_connections), ssl_context=roots.context))


def client_over(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    """Give the same client over any transport."""
    return _Client(transport=transport, trust_env=False, follow_redirects=False)
