"""The httpx clients of a session: one for the API, one without credentials for object-store URLs, one set of roots."""

import asyncio
import ssl
from importlib.metadata import version

import httpx

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


class _Client(httpx.AsyncClient):
    @property
    def cookies(self) -> httpx.Cookies:
        return _NO_COOKIES

    @cookies.setter
    def cookies(self, cookies: object) -> None:
        raise AttributeError("this client keeps no cookies")


def slot_client(limits: Limits, roots: Roots) -> httpx.AsyncClient:
    """Give a client over slots that trusts no environment, follows no redirect and keeps no cookie."""
    return client_over(SlotTransport(max_connections=int(limits.max_connections), ssl_context=roots.context))


def client_over(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    """Give the same client over any transport."""
    return _Client(transport=transport, trust_env=False, follow_redirects=False)
