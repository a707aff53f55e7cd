"""What every command is given: where the services are, and how to show things; and the session that it opens."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
from cyclopts import Parameter

from gts_async._errors import InvalidArgument
from gts_async.cli.show import Show

if TYPE_CHECKING:
    from gts_async._session import AsyncSession

STDIN = "-"


@attrs.frozen(kw_only=True)
class Options:
    """The global options, read; settings that are None come from the environment or a file (see `AsyncSession`)."""

    show: Show
    engine: str | None = None
    cloud: str | None = None
    dialect: str | None = None
    token: str | None = attrs.field(default=None, repr=False)
    ca_file: str | None = None
    allow_insecure_http: bool = False

    def session(self, **more: Any) -> "AsyncSession":
        """Give a session, to be opened with ``async with``."""
        from gts_async._session import AsyncSession

        return AsyncSession(
            engine=self.engine,
            cloud=self.cloud,
            dialect=self.dialect,
            token=self.token,
            ca_file=self.ca_file,
            allow_insecure_http=self.allow_insecure_http,
            **more,
        )

    def again(self, *command: str) -> str:
        """Give a command line to copy that speaks to the same services; a token is never part of it."""
        given = {
            "--engine": self.engine,
            "--cloud": self.cloud,
            "--dialect": self.dialect,
            "--ca-file": self.ca_file,
        }
        flags = [part for name, value in given.items() if value is not None for part in (name, value)]
        flags += ["--allow-insecure-http"] if self.allow_insecure_http else []
        return shlex.join(["gts-async", *command, *flags])


Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""A switch that is off unless given."""

Given = Annotated[Options, Parameter(parse=False)]
"""The last parameter of every command: filled in by `app`, never by the command line."""


def read_token(source: str | None) -> str | None:
    """Give the token out of a file, or of the first line of stdin for ``-``; raises InvalidArgument.

    Warns of a file that others may read.
    """
    from gts_async._net.settings import warn_if_exposed

    if source is None:
        return None
    try:
        if source == STDIN:
            return sys.stdin.readline()
        path = Path(source).expanduser()
        warn_if_exposed(path)
        return path.read_text("utf-8")
    except (OSError, ValueError, RuntimeError) as error:
        # Not named: it may be the token itself, in the wrong place.
        problem = f"cannot read the file that --token-file names ({type(error).__name__})"
    # Raised out here: the decoder's own error holds the file's bytes, and would be the context.
    raise InvalidArgument("token", problem, "name a file, or -")
