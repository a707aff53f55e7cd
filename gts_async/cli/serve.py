"""``gts-async serve``: an embedded engine and cloud of one's own, until they are stopped."""

import asyncio
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import platformdirs

from gts_async._errors import InvalidArgument
from gts_async.cli.exits import Exit
from gts_async.cli.interrupts import run
from gts_async.cli.options import Given
from gts_async.cli.show import Show
from gts_async.sxwl.values import NEWER

if TYPE_CHECKING:
    from gts_async.local.stack import EmbeddedCloud, EmbeddedEngine


def serve(
    *,
    engine_port: int = 5201,
    cloud_port: int = 5202,
    data_dir: Path | None = None,
    token: str | None = None,
    generation: Literal["2023-12", "2024-01", "2024-04"] = "2024-01",
    options: Given,
) -> int:
    """Run an engine and a cloud until a signal; see `app.HELPS`.

    Args:
        engine_port: port of the engine; 0 chooses a free one
        cloud_port: port of the cloud; 0 chooses a free one
        data_dir: where all files are kept; your user data directory if not given
        token: what this cloud is to ask for; a new one if not given
        generation: which SXWL servers the cloud is like; 2024-04 speaks the dialect of that name
        options: the global ones
    """
    from gts_async.emulator.cloud_quirks import Generation
    from gts_async.local.stack import EmbeddedCloud, EmbeddedEngine

    folder = (data_dir or Path(platformdirs.user_data_dir("gts_async"))).absolute()
    engine = EmbeddedEngine(folder / "engine", engine_port)
    cloud = EmbeddedCloud(folder / "cloud", cloud_port, token=token, generation=Generation(generation))
    serving = _serve(folder, engine, cloud, _settings(generation, None if token else cloud.token), options.show)
    # SIGTERM is how a server is asked to end; Ctrl-C interrupts it.
    return run(serving, ends={signal.SIGTERM: Exit.OK})


def _settings(generation: str, token: str | None) -> dict[str, str]:
    """Give the settings besides the URLs that a program needs to use the servers."""
    settings = {"dialect": NEWER} if generation == NEWER else {}
    return {**settings, "token": token} if token is not None else settings


async def _serve(
    folder: Path, engine: "EmbeddedEngine", cloud: "EmbeddedCloud", settings: dict[str, str], show: Show
) -> int:
    with _held(folder):
        async with engine, cloud:
            settings = {"engine": engine.url, "cloud": cloud.url, **settings}
            exports = [f"export GTS_ASYNC_{name.upper()}={value}" for name, value in settings.items()]
            show.data({**settings, "data_dir": str(folder)}, "\n".join(exports))
            show.talk(f"An engine and a cloud are running; their files are in {folder}.")
            show.talk("Your programs find them with the settings above. Ctrl-C stops both.")
            await asyncio.Event().wait()
    return Exit.OK


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the folder for this process: two engines in one would mix up their tasks' files. Raises InvalidArgument."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise InvalidArgument("data_dir", f"{folder} cannot be used ({error.strerror})", "choose another") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InvalidArgument("data_dir", f"{folder} is in use by another server", "choose another") from error
    try:
        yield
    finally:
        os.close(descriptor)
