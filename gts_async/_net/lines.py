"""Lines: a session's clients, made when they are needed, and the line to each service. Sending is in `exchange`."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import anyio.to_thread
import attrs
import httpx

from gts_async._errors import InvalidArgument, WrongType
from gts_async._net.client import client_over, slot_client
from gts_async._net.config import Limits
from gts_async._net.roots import Roots
from gts_async._net.sending import Line
from gts_async._net.settings import Settings


@attrs.define(kw_only=True, eq=False, repr=False)
class Lines:
    """One client for the API, one without credentials for the store, and one set of certificate authorities for both.

    A given transport or client is used untouched, and a given client is not closed. `guard` raises once the session
    must not be used.
    """

    settings: Settings
    limits: Limits
    transport: httpx.AsyncBaseTransport | None
    http_client: httpx.AsyncClient | None
    allow_insecure_http: bool
    guard: Callable[[], None]
    client: httpx.AsyncClient | None = attrs.field(default=None, init=False)
    _store: httpx.AsyncClient | None = attrs.field(default=None, init=False)
    _roots: Roots = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Know where the authorities are, without reading them; raises WrongType for what is not httpx's."""
        _check_kind("transport", self.transport, httpx.AsyncBaseTransport)
        _check_kind("http_client", self.http_client, httpx.AsyncClient)
        self._roots = Roots(self.settings.ca_file)

    async def open(self) -> httpx.AsyncClient:
        """Give the client for the API; at first, read the settings' files and a `ca_file`.

        Raises InvalidArgument for what is wrong in them, before there is any connection.
        """
        self.guard()
        if self.client is None:
            await anyio.to_thread.run_sync(self.settings.load)
            if self.transport is None and self.settings.ca_file() is not None:
                # What is wrong with the other authorities is told by the first call that needs them.
                with suppress(OSError):
                    await self._roots.context()
            self.guard()
        if self.client is None:
            self.client = self._new_client() if self.http_client is None else self.http_client
        return self.client

    async def engine(self) -> Line:
        """Give the line to the engine, which is sent no token."""
        is_private = getattr(self.transport, "is_private", False)
        return Line(await self.open(), self.settings.base_url("engine"), is_private=is_private)

    async def cloud(self) -> Line:
        """Give the line to the cloud; raises InvalidArgument if the token would travel in the clear."""
        client, base_url, credential = await self.open(), self.settings.base_url("cloud"), self.settings.credential()
        is_open_to_all = base_url.scheme == "http" and not base_url.is_loopback
        if credential.is_given and is_open_to_all and not self.allow_insecure_http:
            raise InvalidArgument(
                "cloud", f"{base_url} would carry the token in the clear", "use https://, or allow_insecure_http=True"
            )
        return Line(client, base_url, credential)

    async def store(self) -> httpx.AsyncClient:
        """Give the client for signed URLs: never the given one, which may carry credentials of its own."""
        self.guard()
        if self._store is None:
            self._store = self._new_client()
        return self._store

    def _new_client(self) -> httpx.AsyncClient:
        return slot_client(self.limits, self._roots) if self.transport is None else client_over(self.transport)

    async def aclose(self) -> None:
        """Close what was made here; `guard` must say no by now."""
        own = self.client if self.http_client is None else None
        clients = [client for client in (own, self._store) if client is not None]
        self.client = self._store = None
        await asyncio.gather(self._roots.aclose(), *(client.aclose() for client in clients))


def _check_kind(argument: str, value: object, kind: type) -> None:
    """Refuse what is of another library: it would fail at the first call, with errors that nobody translates."""
    if value is None or isinstance(value, kind):
        return
    package = type(value).__module__.partition(".")[0]
    fix = "pass an instance of a subclass"
    if package == "httpx2":
        fix = "call httpx2.alias_httpx() before anything imports httpx"
    raise WrongType(argument, f"must be an httpx.{kind.__name__}, not {package}.{type(value).__qualname__}", fix)
