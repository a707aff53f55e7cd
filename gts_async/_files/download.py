"""Fetching one object of a store into a file: resumed when cut, verified, and never half there.

The request is in `asking`, what is on the disk meanwhile in `part`, which URLs are followed in `address`, unpacking in
`archive`.
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
    plain,
)
from gts_async._files import address, store
from gts_async._files.asking import PATIENT, READ, Asking, MinimumSpeed
from gts_async._files.batch import BATCH, Batch
from gts_async._files.disk import DiskThread, step
from gts_async._files.note import Version
from gts_async._files.part import Part
from gts_async._net.retry import RetryPolicy
from gts_async._net.secret import Secret, signed
from gts_async._net.translation import WithoutFrames, without_secrets
from gts_async._progress import OnProgress, Progress


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
    keeps_note: bool = False,
) -> Path:
    """Fetch `url` into the file `target` and give its path; the target is there whole and verified, or as it was.

    The bytes are the object's own, never decoded. They collect in ``<target>.part`` (mode 0600, and so will be the
    target); a later call with the same target goes on where this one was cut, cancelled or killed, if the store gave a
    strong ETag that is still the object's. The size is compared always, and every checksum that the store tells.

    `fresh_url` is asked for another URL of the same object when the store refuses this one (they expire), once without
    progress in between. `max_attempts` counts tries without progress; between them we wait as RetryPolicy does.
    `fence` says where the URL and every redirect may lead; through `address.HERE` they may lead to this machine, also
    over plain http. `keeps_note` is as `Part` has it: a finished target is fetched again only if it has changed.

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
    part = Part(Path(target), keeps_note=keeps_note)
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


async def forget(target: Path) -> None:
    """Remove a finished target that was fetched with `keeps_note`, and its note."""
    await DiskThread().finish(Part(target, keeps_note=True).forget)


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
    objection: Exception | None = None
    """What the user's `progress` raised: it may look like an error of the network."""
    told: int = 0
    """The bytes that `progress` was told of last."""
    asking: Asking = attrs.field(init=False)
    """The present try."""

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
        self.asking = Asking(self.client, self.link, self.fence, self.minimum_speed)
        try:
            with WithoutFrames():
                async with self.asking.patience:
                    return await self._request()
        except (httpx.TransportError, TimeoutError, OSError) as error:
            if isinstance(error, FileError) or error is self.objection:
                raise
            url, hide = self.part.version.url, self.asking.hide
            setback = store.broken(error, url, self.asking.slow, hide=hide)
            setback.error.__cause__ = without_secrets(error, handled, hide=hide, url=url)
            return setback

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
        first = await self._first()
        headers = [("accept-encoding", "identity")]
        if first is not None:
            headers += [("range", f"bytes={first}-"), ("if-range", str(self.part.version.etag))]
        response = await self.asking.answer(headers)
        try:
            return await self._take(response, first)
        finally:
            await response.aclose()

    async def _first(self) -> int | None:
        """Give the byte from which on to ask, None for all of them."""
        position = await self.disk.run(self.part.position)
        version = self.part.version
        if not position:
            return None
        if version.etag is None:
            # Without a strong ETag nobody can tell whether the rest would be the rest of the same object.
            await self.disk.run(self.part.restart, Version(version.url))
            return None
        # Nothing lies behind the last byte, and Aliyun sends the whole object for a range of nothing: ask for that one.
        return position - 1 if position == version.size else position

    async def _take(self, response: httpx.Response, first: int | None) -> store.Setback | None:
        """Take what an answer brings: the rest, the whole, nothing any more, or a refusal."""
        version = self.part.version
        if response.status_code == 206 and first is not None:
            return await self._take_rest(response, first)
        if response.status_code == 200:
            # Also the answer to a request for the rest, if the object is another now or ranges are not known.
            found = store.version(response, version.url)
            await self.disk.run(self.part.restart, found)
            return await self._receive(response, 0, found.size)
        if response.status_code == 416 and first is not None:
            told = store.whole_size(response)
            size = version.size if told is None else told
            if version.size in (None, size) and size == await self.disk.run(self.part.position):
                return None
            return await self._begin_anew("the object has another size than what has arrived")
        self.asking.be_patient()
        return store.refusal(response, await store.beginning(response), version.url, hide=self.asking.hide)

    async def _take_rest(self, response: httpx.Response, position: int) -> store.Setback | None:
        version = self.part.version
        span = store.span(response)
        if span is None or span.first != position or response.headers.get("etag", version.etag) != version.etag:
            return await self._begin_anew("the store sent another part than was asked for")
        if span.total is not None and version.size not in (None, span.total):
            return await self._begin_anew("the object's size has changed")
        if version.size is None and span.total is not None:
            await self.disk.run(self.part.learn, attrs.evolve(version, size=span.total))
        return await self._receive(response, position, span.end)

    async def _begin_anew(self, problem: str) -> store.Setback:
        await self.disk.run(self.part.restart, Version(self.part.version.url))
        error = UnexpectedAnswer(call=store.CALL, problem=f"{self.part.version.url}: {problem}")
        return store.Setback(error, may_pass=True)

    async def _receive(self, response: httpx.Response, position: int, end: int | None) -> store.Setback | None:
        """Write the body behind `position`, which must not go on behind `end`; what came is kept however it ends."""
        self._check_body(response, end)
        start, batch, counted = position, Batch(), 0
        writing: Future[None] | None = None
        self.asking.be_patient()
        try:
            async with aclosing(store.pieces(response)) as pieces:
                async for piece in pieces:
                    counted += len(piece)
                    if end is not None and position + batch.held + len(piece) > end:
                        raise self._corrupt(f"the store sent more than the {end - start} bytes it announced")
                    if counted >= self.minimum_speed.size:
                        counted = 0
                        self.asking.be_patient()
                    rest = batch.add(memoryview(piece))
                    while batch.is_full:
                        await self._written(writing, position)
                        writing = self.disk.submit(self.part.write, position, batch.taken())
                        position += BATCH
                        rest = batch.add(rest)
        finally:
            # Queued behind the write before it, also when we are cut or cancelled here.
            self.disk.submit(self.part.write, position, batch.taken())
        self.asking.wait_for_ever()
        return await self._ended(await self.disk.run(self.part.position), is_whole=response.status_code == 200)

    def _check_body(self, response: httpx.Response, end: int | None) -> None:
        """Raise what makes a body worthless before it is read."""
        if end is None and not self.part.version.checksums and not store.is_framed(response):
            raise self._corrupt("the store announced neither length nor checksum, so a cut would not show")
        if store.is_packed_on_the_way(response):
            coding = plain(response.headers["content-encoding"], 40)
            raise UnexpectedAnswer(call=store.CALL, problem=f"the object came packed ({coding}), not as it is")

    async def _written(self, writing: Future[None] | None, position: int) -> None:
        """Wait for the write before this one; a slow disk does not count against the network's speed."""
        if writing is None:
            return
        self.asking.wait_for_ever()
        await asyncio.wrap_future(writing)
        self.asking.be_patient()
        if abs(position - self.told) >= READ:
            self._report(position)

    async def _ended(self, position: int, *, is_whole: bool) -> store.Setback | None:
        """Tell whether all bytes are there; that a part of unknown size is the last one, only the next answer tells."""
        version = self.part.version
        self._report(position)
        if version.size is None and is_whole:
            await self.disk.run(self.part.learn, attrs.evolve(version, size=position))
        elif version.size is None or position < version.size:
            return store.broken(None, version.url, hide=self.asking.hide)
        return None

    def _report(self, done: int, *, is_acknowledged: bool = False) -> None:
        self.told = done
        if self.progress is None:
            return
        try:
            self.progress(Progress(self.part.target.name, done, self.part.version.size, is_acknowledged))
        except Exception as error:
            self.objection = error
            raise

    def _corrupt(self, problem: str) -> DownloadCorrupt:
        return DownloadCorrupt(f"{self.part.target}: {problem}", path=str(self.part.target))
