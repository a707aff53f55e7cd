"""``gts-async callback``: the cloud's callbacks, received by a program of their own and kept on disk."""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import platformdirs
from cyclopts import App, Parameter

from gts_async._errors import GtsAsyncError, InvalidArgument
from gts_async.cli.exits import Exit, exit_of, lines_of
from gts_async.cli.interrupts import run
from gts_async.cli.options import Given, Options
from gts_async.cli.records import WELL, style_of, transition_record, transition_words

if TYPE_CHECKING:
    from gts_async._job import Job
    from gts_async._session import AsyncSession
    from gts_async.callbacks import StoredCallback
    from gts_async.callbacks.verification import Verifier

PORT = 5203
LOOPBACK = "127.0.0.1"
MAX_COUNT = 100_000

app = App(name="callback")

Watched = Annotated[list[str] | None, Parameter(negative="", consume_multiple=False)]


@app.command
def listen(
    *,
    host: str = LOOPBACK,
    port: int = PORT,
    base_url: str | None = None,
    store: Path | None = None,
    watch: Watched = None,
    secret_file: Path | None = None,
    options: Given,
) -> int:
    """Receive callbacks until a signal, print each one, and keep them.

    Each is on disk before it is answered, and printed once. It is a hint and no verdict: with --watch the jobs
    themselves are looked at, at once when a callback comes, and the command ends with them. Programs whose receiver has
    the same store on the same machine are woken too. Other commands make URLs: gts-async callback url.

    Args:
        host: address to listen on; 0.0.0.0 for all of this machine's
        port: port to listen on; 0 chooses a free one
        base_url: where the cloud reaches it from outside; http://HOST:PORT if not given
        store: file to keep callbacks in, made if missing; callbacks.db in your user data directory if not given
        watch: id or token of a job to follow to its end; may be repeated
        secret_file: file with the secrets of a gateway that signs by Standard Webhooks, one whsec_… a line
        options: the global ones
    """
    # SIGTERM is how a server is asked to end; Ctrl-C interrupts it.
    verifier = _verifier(secret_file) if secret_file is not None else None
    listening = _listen(host, port, base_url, _place(store), watch or (), verifier, options)
    return run(listening, ends={signal.SIGTERM: Exit.OK})


async def _listen(
    host: str,
    port: int,
    base_url: str | None,
    store: Path,
    watched: Sequence[str],
    verifier: "Verifier | None",
    options: Options,
) -> int:
    from gts_async.callbacks import Receiver
    from gts_async.local.serving import listening, serve, url_of

    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(options.session()) if watched else None
        jobs = [_job(session, text) for text in watched] if session is not None else []
        listener = stack.enter_context(listening(host, port))
        if base_url is None and listener.getsockname()[0] in ("0.0.0.0", "::"):  # noqa: S104 - it is refused
            raise InvalidArgument("base_url", f"is not set, and nobody can call {host}", "give --base-url URL")

        def show(callback: "StoredCallback") -> None:
            options.show.data(_record(callback), _text(callback), style_of(callback.status.value))
            if session is not None and callback.job_id is None:
                # The servers leave the id out when a job failed: any of them may be meant.
                for job in jobs:
                    session.ring(job.id)

        base = base_url or url_of(listener)
        app = Receiver(session, base, store=store, verifier=verifier, on_arrival=show)
        await stack.enter_async_context(app)
        await stack.enter_async_context(serve(app, listener=listener))
        address = url_of(listener)
        options.show.data({"listening": address, "base_url": base, "store": str(store)}, f"listening on {address}")
        options.show.talk(f"Callbacks are kept in {store}. URLs for jobs come from:")
        options.show.talk(f"  {options.again('callback', 'url', '--base-url', base, '--store', str(store))}")
        ended = await _followed(jobs, options)
    return ended


async def _followed(jobs: "Sequence[Job]", options: Options) -> Exit:
    """Follow the jobs to their ends, all at once; without any, wait for a signal."""
    if not jobs:
        await asyncio.Event().wait()
    try:
        ends = await asyncio.gather(*(_end(job, options) for job in jobs))
    except asyncio.CancelledError:
        lines = [f"  {options.again('job', 'wait', job.id)}" for job in jobs]
        options.show.talk("\n".join(["the jobs themselves go on; pick one up with:", *lines]))
        raise
    return next((end for end in ends if end), Exit.OK)


async def _end(job: "Job", options: Options) -> Exit:
    """Show the transitions of a job; what becomes of one must not end the wait for the others."""
    status = ""
    try:
        async for change in job.watch():
            status = change.status.name.lower()
            text = f"{change.elapsed:6.1f} s  {job.id}  {transition_words(change)}"
            options.show.data(transition_record(job.id, change), text, style_of(status))
    except GtsAsyncError as error:
        options.show.talk("\n".join(f"{job.id}  {line}" for line in lines_of(error)), "red")
        return exit_of(error)
    return Exit.OK if status in WELL else Exit.FAILED


def _job(session: "AsyncSession", text: str) -> "Job":
    from gts_async._job import Job

    handle = session.resume(text) if text.startswith("{") else session.job(text)
    if not isinstance(handle, Job):
        raise InvalidArgument("watch", "is the token of a training; the cloud calls back for jobs", "give a job's")
    return handle


@app.command
def url(*, base_url: str, store: Path | None = None, count: int = 1, options: Given) -> int:
    """Print URLs that nobody can guess, one for each job: what `gts-async job submit --callback-url` wants.

    Who knows one can have its job looked at, and no more.

    Args:
        base_url: where the cloud reaches the listening command from outside
        store: file that the listening command has; callbacks.db in your user data directory if not given
        count: how many
        options: the global ones
    """
    from gts_async.callbacks import receiver

    if not 0 < count <= MAX_COUNT:
        raise InvalidArgument("count", f"{count} is out of range", f"use 1 to {MAX_COUNT}")
    app = receiver(None, base_url, store=_place(store))
    for _ in range(count):
        made = app.url()
        options.show.data({"callback_url": made}, made)
    return Exit.OK


@app.command(name="list")
async def list_(*, store: Path | None = None, options: Given) -> int:
    """Print the callbacks that have come so far, in their order.

    Args:
        store: file that the listening command has; callbacks.db in your user data directory if not given
        options: the global ones
    """
    from gts_async.callbacks.store import CallbackStore, on_disk

    path = _place(store)
    if not path.exists():
        raise InvalidArgument("store", f"{path} is not there", "name the file that the listening command has")
    found = CallbackStore(on_disk(path))
    last = 0
    try:
        while rows := await found.since(last):
            for row in rows:
                callback = row.stored("")
                options.show.data(_record(callback), _text(callback), style_of(callback.status.value))
            last = rows[-1].number
    finally:
        await found.aclose()
    return Exit.OK


def _record(callback: "StoredCallback") -> dict[str, object]:
    return {
        "callback": callback.url_id,
        "job_id": callback.job_id,
        "status": callback.status.value,
        "word": callback.word,
        "has_model": callback.has_model,
        "received_at": callback.received_at,
    }


def _text(callback: "StoredCallback") -> str:
    model = ", a model is there" if callback.has_model else ""
    job = callback.job_id or "(a job that is not named)"
    return (
        f"{callback.received_at.astimezone():%H:%M:%S}  {callback.url_id}…  {job}  said to be {callback.status}{model}"
    )


def _place(store: Path | None) -> Path:
    if store is not None:
        return store.absolute()
    folder = Path(platformdirs.user_data_dir("gts_async"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidArgument("store", f"{folder} cannot be made ({error.strerror})", "give --store FILE") from error
    return folder / "callbacks.db"


def _verifier(path: Path) -> "Verifier":
    from gts_async._net.settings import warn_if_exposed
    from gts_async.callbacks.verification import Verifier

    warn_if_exposed(path)
    try:
        return Verifier(path.read_text("utf-8").split())
    except (OSError, ValueError) as error:
        problem = f"{path} cannot be read ({type(error).__name__})"
    # Raised out here: the decoder's own error holds the file's bytes, and would be the context.
    raise InvalidArgument("secret_file", problem, "give a file with one whsec_… a line")
