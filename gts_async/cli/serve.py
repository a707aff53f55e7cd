"""``gts-async serve``: an embedded engine and cloud of one's own, until they are stopped."""

import asyncio
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import attrs
import platformdirs
from cyclopts import Parameter

from gts_async._errors import InvalidArgument
from gts_async.cli.exits import Exit
from gts_async.cli.interrupts import run
from gts_async.cli.options import Given
from gts_async.cli.show import Show

T = TypeVar("T")


def serve(
    *,
    engine_port: int = 5201,
    cloud_port: int = 5202,
    data_dir: Path | None = None,
    token: str | None = None,
    generation: Literal["2023-12", "2024-01", "2024-04"] = "2024-01",
    options: Given,
) -> int:
    """Run an engine and a cloud on this machine (127.0.0.1) until Ctrl-C or SIGTERM: real trainings, real jobs.

    Prints the settings for your own programs, the token among them if you gave none. Tasks and jobs are forgotten at
    the end; their files stay in the data directory.

    Args:
        engine_port: port of the engine; 0 chooses a free one
        cloud_port: port of the cloud; 0 chooses a free one
        data_dir: where everything is kept; your user data directory if not given
        token: what this cloud asks for; a new one if not given
        generation: which SXWL servers the cloud behaves like; 2024-04 speaks the dialect of that name
    """
    folder = data_dir or Path(platformdirs.user_data_dir("gts_async"))
    # SIGTERM is how a server is asked to stop; Ctrl-C interrupts it.
    return run(_serve(_Where(engine_port, cloud_port, folder), token, generation, options.show), ends={signal.SIGTERM: 0})
