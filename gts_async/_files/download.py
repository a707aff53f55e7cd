"""Fetching one object of a store into a file: resumed when cut, verified, and never half there.

The request goes to another origin than the API and carries nothing of it: no token, no cookie, no header of the
client's. What is on the disk meanwhile is in `part`, which URLs are followed in `address`, unpacking in `archive`.
"""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import aclosing
from pathlib import Path

import anyio
import attrs
import httpx

from gts_async._errors import (
    Attempt,
    DownloadCorrupt,
    FileError,
    TransportError,
    UnexpectedAnswer,
)
from gts_async._files import address, store
from gts_async._files.disk import DiskThread, step
from gts_async._files.part import Part, Version
from gts_async._files.progress import OnProgress, Progress
from gts_async._net.client import sent
from gts_async._net.retry import RetryPolicy
from gts_async._net.secret import Secret, signed
from gts_async._net.slots import BODY_READ
from gts_async._net.translation import WithoutFrames, without_secrets

BATCH = 2 << 20
"""Bytes written at a time; twice that is in memory, one batch being written while the next arrives."""

MAX_PIECES = 1024
"""Pieces written at a time, however small they are: each costs more memory than the bytes in it."""

READ = 256 << 10
"""Bytes read at a time, which is what asyncio takes from a socket at once; anyio copies what is left over otherwise."""

MAX_REDIRECTS = 5
CONNECT_TIME = 10.0
"""Seconds for one connection to be made."""


@attrs.frozen
class MinimumSpeed:
    """A connection over which fewer than `size` bytes arrive within `seconds` is given up, and the download resumed."""

    size: int = 1024
    seconds: float = 30.0


PATIENT = MinimumSpeed()


async def download(
    client: httpx.AsyncClient,
    url: str,
    target: Path,
    *,
    fresh_url: Callable[[], Awaitable[str]] | None = None,
    progress: OnProgress | None = None,
    max_attempts: int = 5,
    sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
    chance: Callable[[], float] = random.random,
    fence: address.Fence = address.PUBLIC,
    minimum_speed: MinimumSpeed = PATIENT,
) -> Path:
    """Fetch `url` into the file `target` and give its path; the target is there whole and verified, or as it was.

    The bytes are the object's own, never decoded. They collect in ``<target>.part`` (mode 0600, and so will be the
    target); a later call with the same target goes on where this one was cut, cancelled or killed, if the store gave a
    strong ETag that is still the object's. The size is compared always, the MD5 where the store tells it.

    `fresh_url` is asked for another URL of the same object when the store refuses this one (they expire), once without
    progress in between. `max_attempts` counts tries without progress; between them we wait as RetryPolicy does.
    `fence` says where the URL and every redirect may lead; through `address.HERE` they may lead to this machine, also
    over plain http.

    Raises before any traffic UnsafeURL and FileError (no such folder, not writable, another download to it is under
    way). Later Denied, NotFound or another ServiceError for the store's refusal, UnexpectedAnswer, TransportError when
    the attempts are used up, DownloadCorrupt, and FileError when the disk fails: what has arrived stays for the next
    call, with the OSError as its cause.
    """
    link = signed(url)
    del url  # many printers of tracebacks show locals
    with WithoutFrames():
        address.checked(link.reveal(), fence)
    retry = RetryPolicy(max_attempts=max_attempts)
    part = Part(Path(target))
    disk = DiskThread()
    try:
        await disk.run(part.open, address.shown(link.reveal()))
        fetching = _Fetching(
            client=client,
            link=link,
            part=part,
            disk=disk,
            fresh_url=fresh_url,
            progress=progress,
            retry=retry,
            sleep=sleep,
            chance=chance,
            fence=fence,
            minimum_speed=minimum_speed,
        )
        await fetching.run()
    finally:
        await disk.finish(part.close)
    return part.target


@attrs.define(kw_only=True)
class _Fetching:
    """One download in progress. The part is touched only by jobs of the disk thread, in order."""

    client: httpx.AsyncClient
    link: Secret
    part: Part
    disk: DiskThread
    fresh_url: Callable[[], Awaitable[str]] | None
    progress: OnProgress | None
    retry: RetryPolicy
    sleep: Callable[[float], Awaitable[object]]
    chance: Callable[[], float]
    fence: address.Fence
    minimum_speed: MinimumSpeed
    began: float = attrs.field(factory=lambda: asyncio.get_running_loop().time())
    attempts: list[Attempt] = attrs.field(factory=list)
    tries: int = 0
    """Since there was progress."""
    reached: int = 0
    """The most bytes that ever were in the part: to begin anew and come as far again is no progress."""
    was_renewed: bool = False
    """Whether the URL was, since there was progress."""
    patience: asyncio.Timeout = attrs.field(factory=lambda: asyncio.timeout(None))
    """Bounds waiting for the network, and nothing else."""
    objection: Exception | None = None
    """What the user's `progress` raised: it may look like an error of the network."""
    asked: list[Secret] = attrs.field(factory=list)
    """The URLs of the last try: the first one, and where it redirected to."""

    async def run(self) -> None:
        self.reached = await self.disk.run(self.part.position)
        while True:
            try:
                while (setback := await self._try()) is not None:
                    await self._overcome(setback)
                await self._verify()
                break
            except DownloadCorrupt:
                if not self.part.is_inherited:
                    await self.disk.run(self.part.discard)
                    raise
                # What an earlier download left may have been damaged since: one chance from the beginning.
                await self.disk.run(self.part.restart, Version(self.part.version.url))
        size = await self.disk.run(self.part.position)
        await self.disk.run(self.part.promote)
        self._report(size, is_acknowledged=True)

    async def _verify(self) -> None:
        steps = self.part.check()
        while await self.disk.run(step, steps) is not None:
            pass

    async def _try(self) -> store.Setback | None:
        """Send one request and take what comes; None if all bytes are there now."""
        handled = sys.exception()
        try:
            with WithoutFrames():
                async with asyncio.timeout(None) as self.patience:
                    return await self._request()
        except (httpx.TransportError, TimeoutError, OSError) as error:
            if isinstance(error, FileError) or error is self.objection:
                raise
            slow = f"fewer than {self.minimum_speed.size} bytes came in {self.minimum_speed.seconds:g} s"
            setback = store.broken(error, self.part.version.url, slow, hide=self._hide)
            setback.error.__cause__ = without_secrets(error, handled, hide=self._hide, url=self.part.version.url)
            return setback

    def _hide(self, said: str) -> str:
        for link in self.asked:
            said = link.hide(said)
        return said

    async def _overcome(self, setback: store.Setback) -> None:
        """Do what may help against the setback, or raise its error."""
        position = await self.disk.run(self.part.position)
        if position >= self.reached + self.minimum_speed.size:
            self.reached, self.tries, self.was_renewed = position, 0, False
        began = asyncio.get_running_loop().time() - self.began
        if setback.may_have_expired and self.fresh_url is not None and not self.was_renewed:
            self.attempts.append(Attempt(began, str(setback.error)[:200], setback.status, 0.0))
            self.was_renewed = True
            self.link = signed(await self.fresh_url())
            return
        self.tries += 1
        wait = self.retry.delay(self.tries, self.chance(), setback.retry_after) if setback.may_pass else None
        self.attempts.append(Attempt(began, str(setback.error)[:200], setback.status, wait))
        if wait is None:
            if isinstance(setback.error, TransportError):
                setback.error.attempts = tuple(self.attempts)
            raise setback.error
        await self.sleep(wait)

    async def _request(self) -> store.Setback | None:
        position = await self.disk.run(self.part.position)
        version = self.part.version
        headers = [("accept-encoding", "identity")]
        if position and version.etag is not None:
            headers += [("range", f"bytes={position}-"), ("if-range", version.etag)]
        elif position:
            # Without a strong ETag nobody can tell whether the rest would be the rest of the same object.
            position = 0
            await self.disk.run(self.part.restart, Version(version.url))
        response = await self._answer(headers)
        try:
            return await self._take(response, position)
        finally:
            await response.aclose()

    async def _answer(self, headers: list[tuple[str, str]]) -> httpx.Response:
        """Send the GET, following redirects by hand: each is checked like the URL itself."""
        self.asked, was_https = [self.link], False
        for _ in range(MAX_REDIRECTS + 1):
            response = await sent(self.client, self._get(headers, was_https=was_https), auth=None)
            was_https = was_https or response.request.url.scheme == "https"
            if response.status_code not in (301, 302, 303, 307, 308) or not response.headers.get("location"):
                return response
            await response.aclose()
            self.asked.append(signed(address.joined(self.asked[-1].reveal(), response.headers["location"])))
        raise UnexpectedAnswer(call=store.CALL, problem=f"more than {MAX_REDIRECTS} redirects")

    def _get(self, headers: list[tuple[str, str]], *, was_https: bool) -> httpx.Request:
        """Build the request here and not by the client: its own headers, cookies and parameters must not go along."""
        link = self.asked[-1]
        parsed = address.checked(link.reveal(), self.fence, is_redirect_from_https=was_https)
        return httpx.Request("GET", parsed, headers=headers, extensions=self._extensions(parsed, link.reveal()))

    def _extensions(self, parsed: httpx.URL, url: str) -> dict[str, object]:
        silence = self.minimum_speed.seconds
        extensions: dict[str, object] = {
            # Waiting for a free connection is bounded by nothing: other downloads may rightly take hours.
            "timeout": {"connect": CONNECT_TIME, "read": silence, "write": silence, "pool": None},
            "trace": address.guard(parsed, self.fence, on_event=self._heard),
            BODY_READ: READ,
        }
        if (exact := address.target(url)) != parsed.raw_path:
            extensions["target"] = exact
        return extensions

    def _heard(self, event: str) -> None:
        """Count the patience from the newest event: httpx's timeouts see neither dripping headers nor a slow TLS."""
        if event.endswith(".started") and "close" not in event:
            self._be_patient()

    def _be_patient(self) -> None:
        if not self.patience.expired():
            self.patience.reschedule(asyncio.get_running_loop().time() + self.minimum_speed.seconds)

    async def _take(self, response: httpx.Response, position: int) -> store.Setback | None:
        """Take what an answer brings: the rest, the whole, nothing any more, or a refusal."""
        self.patience.reschedule(None)
        version = self.part.version
        if response.status_code == 206 and position:
            return await self._take_rest(response, position)
        if response.status_code == 200:
            # Also the answer to a request for the rest, if the object is another now or ranges are not known.
            await self.disk.run(self.part.restart, store.version(response, version.url))
            return await self._receive(response, 0)
        if response.status_code == 416 and position:
            told = store.whole_size(response)
            if (version.size if told is None else told) == position:
                return None
            return await self._begin_anew("the object is shorter than what has arrived")
        self._be_patient()
        return store.refusal(response, await store.beginning(response), version.url, hide=self._hide)

    async def _take_rest(self, response: httpx.Response, position: int) -> store.Setback | None:
        version = self.part.version
        span = store.span(response)
        if span is None or span.first != position or response.headers.get("etag", version.etag) != version.etag:
            return await self._begin_anew("the store sent another part than was asked for")
        if span.total is not None and version.size not in (None, span.total):
            return await self._begin_anew("the object's size has changed")
        if version.size is None and span.total is not None:
            await self.disk.run(self.part.learn, attrs.evolve(version, size=span.total))
        return await self._receive(response, position)

    async def _begin_anew(self, problem: str) -> store.Setback:
        await self.disk.run(self.part.restart, Version(self.part.version.url))
        error = UnexpectedAnswer(call=store.CALL, problem=f"{self.part.version.url}: {problem}")
        return store.Setback(error, may_pass=True)

    async def _receive(self, response: httpx.Response, position: int) -> store.Setback | None:
        """Write the body behind `position`; what came is kept however it ends."""
        version = self.part.version
        if version.size is None and version.md5 is None and not store.is_framed(response):
            raise self._corrupt("the store announced neither length nor checksum, so a cut would not show")
        batch: list[bytes] = []
        held = counted = 0
        writing: Future[None] | None = None
        self._be_patient()
        try:
            async with aclosing(store.pieces(response)) as pieces:
                async for piece in pieces:
                    batch.append(piece)
                    held += len(piece)
                    counted += len(piece)
                    if version.size is not None and position + held > version.size:
                        raise self._corrupt(f"the store sent more than the {version.size} bytes it announced")
                    if counted >= self.minimum_speed.size:
                        counted = 0
                        self._be_patient()
                    if held >= BATCH or len(batch) >= MAX_PIECES:
                        await self._written(writing, position)
                        writing = self.disk.submit(self.part.write, position, batch)
                        position, held, batch = position + held, 0, []
        finally:
            # Queued behind the write before it, also when we are cut or cancelled here.
            self.disk.submit(self.part.write, position, batch)
        self.patience.reschedule(None)
        return await self._ended(await self.disk.run(self.part.position))

    async def _written(self, writing: Future[None] | None, position: int) -> None:
        """Wait for the write before this one; a slow disk does not count against the network's speed."""
        if writing is None:
            return
        self.patience.reschedule(None)
        await asyncio.wrap_future(writing)
        self._be_patient()
        self._report(position)

    async def _ended(self, position: int) -> store.Setback | None:
        version = self.part.version
        self._report(position)
        if version.size is None:
            await self.disk.run(self.part.learn, attrs.evolve(version, size=position))
        elif position < version.size:
            return store.broken(None, version.url, hide=self._hide)
        return None

    def _report(self, done: int, *, is_acknowledged: bool = False) -> None:
        if self.progress is None:
            return
        try:
            self.progress(Progress(self.part.target.name, done, self.part.version.size, is_acknowledged))
        except Exception as error:
            self.objection = error
            raise

    def _corrupt(self, problem: str) -> DownloadCorrupt:
        return DownloadCorrupt(f"{self.part.target}: {problem}", path=str(self.part.target))
