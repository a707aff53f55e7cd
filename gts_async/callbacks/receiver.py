"""Receiver: the ASGI app that stores a callback, answers it, and only then wakes the watch of the job that it is about.

The cloud signs nothing, retries nothing and leaves out the id of a failed job, so each job gets a URL of its own that
nobody can guess, and a callback is only a hint: the verdict comes from an authenticated look.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from os import PathLike
from types import TracebackType
from typing import Self

import attrs

from gts_async._errors import FileError, InvalidArgument, UnexpectedAnswer
from gts_async._files.place import local_path
from gts_async._session import AsyncSession
from gts_async.callbacks.asgi import Receive, Refusal, Scope, Send, answer, is_json, live, read_body
from gts_async.callbacks.following import Following
from gts_async.callbacks.handling import Handler, Handling
from gts_async.callbacks.limits import CallbackLimits, Received
from gts_async.callbacks.store import Arrival, CallbackStore, Memory, Row, StoredCallback, on_disk
from gts_async.callbacks.urls import Urls, checked_base, kept_key, new_key
from gts_async.callbacks.verification import Verifier
from gts_async.sxwl.callbacks import Callback, read_callback
from gts_async.sxwl.values import JobSpec

QUIET = 60.0
"""Seconds after it was logged that the store fails until it is logged again."""

RETRY_SOON, RETRY_LATER = (b"retry-after", b"1"), (b"retry-after", b"10")

log = logging.getLogger("gts_async")


class Receiver:
    """The ASGI app; serve it, or mount it anywhere. `receiver` says what its arguments are.

    ``async with app:`` opens the store, heeds what other processes put into it, and goes on with what the handler has
    not done yet; a server that speaks the lifespan protocol does the same. Without either the store is opened when the
    first callback comes: `aclose` it.
    """

    def __init__(
        self,
        session: AsyncSession | None,
        base_url: str,
        *,
        store: str | PathLike[str] | CallbackStore | None = None,
        on_callback: Handler | None = None,
        on_arrival: Callable[[StoredCallback], None] | None = None,
        verifier: Verifier | None = None,
        limits: CallbackLimits | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        if verifier is not None:
            verifier.check()
        self._verifier = verifier
        self._session = session
        self._limits = limits or CallbackLimits()
        self._on_arrival = on_arrival
        self._now = now
        path = None if store is None or isinstance(store, CallbackStore) else local_path("store", store)
        base = checked_base(base_url)
        self._urls = Urls(base, new_key() if path is None else kept_key(path.with_name(f"{path.name}.key")))
        if base.scheme == "http" and not base.is_loopback:
            log.warning("callbacks to %s come over plain http: who listens on the way learns their URLs", base)
        if isinstance(store, CallbackStore):
            self._store = store
        else:
            self._store = CallbackStore(Memory() if path is None else on_disk(path))
        self.received = Received()
        self._handling: Handling | None = None
        if on_callback is not None:
            self._handling = Handling(
                on_callback,
                self._store,
                url_of=self._urls.of,
                limits=self._limits,
                received=self.received,
                now=now,
            )
        self._following = Following(self._store, self._urls.origin, self._heed, self._limits.follow_every)
        self._at_once = 0
        self._quiet_until = float("-inf")

    # URLs

    def url(self) -> str:
        """Give a URL that nobody can guess, to be a job's `callback_url`.

        It is good for as long as the store is, in every process; without a store as long as this process. It leaves
        room for what a submission puts behind it.
        """
        return self._urls.new()

    def spec(self, spec: JobSpec) -> JobSpec:
        """Give the spec with a `callback_url` of its own: submit this one, and its job's watch is woken early.

        Raises InvalidArgument if the spec has a callback URL already.
        """
        if spec.callback_url is not None:
            raise InvalidArgument("spec", "has a callback_url already", "leave it None for the receiver to fill in")
        return attrs.evolve(spec, callback_url=self.url())

    # Life

    async def __aenter__(self) -> Self:
        await self._following.begin()
        if self._handling is not None:
            self._handling.wake()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Write what waits to be written, let handlers under way end (`grace`), close the store.

        A callback that comes later is stored and answered all the same.
        """
        await self._following.aclose()
        if self._handling is not None:
            await self._handling.aclose()
        await self._store.aclose()

    async def _start(self) -> None:
        try:
            await self.__aenter__()
        except FileError as error:
            # The server is to come up: callbacks wake watches although they cannot be stored.
            self._store_fails(error)

    # Requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] == "lifespan":
            await live(receive, send, self._start, self.aclose)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        url_id = self._urls.known(scope["path"])
        if url_id is None:
            self.received.unknown += 1
            await answer(scope, send, 404, closes=True)
        elif scope["method"] != "POST":
            self.received.refused += 1
            await answer(scope, send, 405, (b"allow", b"POST"), closes=True)
        elif self._at_once >= self._limits.max_at_once:
            self.received.busy += 1
            await answer(scope, send, 503, RETRY_SOON, closes=True)
            if self._verifier is None:
                self._ring(url_id)
        else:
            self._at_once += 1
            try:
                await self._take(url_id, scope, receive, send)
            finally:
                self._at_once -= 1

    async def _take(self, url_id: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            callback = await self._read(scope, receive)
        except Refusal as refusal:
            await answer(scope, send, refusal.status, closes=refusal.status in (408, 413))
            return
        arrival = Arrival(url_id=url_id, callback=callback, received_at=self._now(), origin=self._urls.origin)
        is_news = True
        try:
            # The answer waits for the disk; the watch does not wait for the answer to be taken.
            try:
                is_news = await self._is_stored(arrival)
            except FileError as error:
                self.received.unstored += 1
                self._store_fails(error)
                await answer(scope, send, 503, RETRY_LATER)
            else:
                await answer(scope, send, 200)
        finally:
            if is_news:
                self._heed(arrival.row)
            else:
                self.received.repeated += 1

    async def _read(self, scope: Scope, receive: Receive) -> Callback:
        """Read and judge the request; raises Refusal."""
        headers = [(bytes(name).lower(), bytes(value)) for name, value in scope.get("headers", ())]
        try:
            body = await read_body(receive, most=self._limits.max_body, within=self._limits.body_time)
            if not is_json(headers):
                raise Refusal(415)
        except Refusal:
            self.received.refused += 1
            raise
        if self._verifier is not None and not self._verifier.is_signed(headers, body, self._now()):
            self.received.unsigned += 1
            raise Refusal(401)
        try:
            return read_callback(body)
        except UnexpectedAnswer:
            self.received.malformed += 1
            raise Refusal(400) from None

    # Storing and waking

    async def _is_stored(self, arrival: Arrival) -> bool:
        try:
            async with asyncio.timeout(self._limits.store_time):
                return await self._store.add(arrival)
        except TimeoutError:
            raise FileError(f"the disk took more than {self._limits.store_time:g} s") from None

    def _store_fails(self, error: FileError) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            # However many come: each is counted.
            self._quiet_until = now + QUIET
            log.error("callbacks cannot be stored; they are answered 503 and wake their watches (%s)", error)

    def _heed(self, row: Row) -> None:
        """Wake whom it concerns; also for what another process has stored."""
        self._ring(row.url_id, row.job_id)
        if self._on_arrival is not None:
            self._on_arrival(row.stored(self._urls.of(row.url_id)))
        if self._handling is not None:
            self._handling.wake()

    def _ring(self, url_id: bytes, job_id: str | None = None) -> None:
        self.received.rung += 1
        if self._session is None:
            return
        self._session.ring(self._urls.of(url_id))
        if job_id is not None and not self._urls.is_own(url_id):
            # Submitted by another process: only the callback says which job it is, and it is no more than a hint.
            self._session.ring(job_id)

    def __repr__(self) -> str:
        if not hasattr(self, "_urls"):
            # Printed in the traceback of its own construction.
            return "<Receiver not made>"
        return f"<Receiver {self._urls.base} {self.received.rung} callbacks>"


def receiver(
    session: AsyncSession | None,
    base_url: str,
    *,
    store: str | PathLike[str] | None = None,
    on_callback: Handler | None = None,
    signing_secrets: str | Sequence[str] = (),
    limits: CallbackLimits | None = None,
) -> Receiver:
    """Give an ASGI app for the callbacks of jobs that `session` submits; None only records them.

    `base_url` is where the cloud reaches the app from outside, mount path included. `store` names a file in which each
    callback is on disk before it is answered, and with which URLs stay good after a restart; several processes may
    share it. It is made at the first use, the key of the URLs beside it (``….key``) here and now. `on_callback` is
    awaited for each callback after its answer, at least once: again when it fails. `signing_secrets` (``whsec_…``) make
    a signature by Standard Webhooks necessary.

    Raises InvalidArgument for a URL that is too long or wrong, WrongType, and FileError for a store without a folder.
    """
    verifier = Verifier(signing_secrets) if signing_secrets else None
    del signing_secrets  # nothing that is raised from here on may show them
    return Receiver(session, base_url, store=store, on_callback=on_callback, verifier=verifier, limits=limits)
