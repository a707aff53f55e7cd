"""``gts-async demo``: the whole of it, for real, on this machine, and a check of everything that can be checked."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gts_async._errors import InvalidArgument
from gts_async.cli.demo_report import Report
from gts_async.cli.options import Flag, Given

LIMIT = 120.0
"""Seconds after which something must be wrong; the demo takes about six."""


async def demo(
    *, directory: Annotated[Path | None, Parameter(name="--dir")] = None, keep: Flag = False, options: Given
) -> int:
    """Do everything once; see `app.HELPS`.

    Args:
        directory: where to make the demo's own directory; the system's place for temporary files if not given
        keep: leave that directory: the data, the jobs' folders and their models
        options: the global ones
    """
    folder = _made(directory)
    show = options.show
    try:
        try:
            with show.live("starting an engine and a cloud") as update:
                report = Report(show, update)
                await _everything(folder, report)
                update("cleaning up")
        finally:
            if not keep:
                _remove(folder)
    except asyncio.CancelledError:
        show.talk(f"interrupted; all is stopped, and {folder} is kept" if keep else "interrupted; all is cleaned up")
        raise
    report.check("clean-up", keep or not folder.exists(), f"{folder} could not be removed")
    code = report.summary()
    if keep:
        show.talk(f"kept: {folder}")
    if not show.is_json:
        show.talk("Next: `gts-async serve` keeps an engine and a cloud running for programs of your own.")
    return code


def _made(directory: Path | None) -> Path:
    try:
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="gts-async-demo-", dir=directory)).absolute()
    except OSError as error:
        raise InvalidArgument("data_dir", f"{directory} cannot be used ({error.strerror})", "choose another") from error


async def _everything(folder: Path, report: Report) -> None:
    from gts_async.cli.demo_jobs import run_jobs
    from gts_async.cli.demo_training import train_and_predict
    from gts_async.local.stack import EmbeddedCloud, EmbeddedEngine

    limit = asyncio.timeout(LIMIT)
    try:
        async with limit, EmbeddedEngine(folder / "engine") as engine, EmbeddedCloud(folder / "cloud") as cloud:
            report.step("servers", f"an engine at {engine.url}, a cloud at {cloud.url}")
            await train_and_predict(engine.url, folder / "sample", report)
            await run_jobs(cloud, folder / "models", report)
    except TimeoutError:
        if not limit.expired():
            raise
        report.check("time", False, f"not done within {LIMIT:g} s")


def _remove(folder: Path) -> None:
    for _ in range(2):
        # Once more: a process that was just killed may have made a file meanwhile.
        shutil.rmtree(folder, ignore_errors=True)
