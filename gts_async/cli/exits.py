"""How the command line ends: which exit code an error stands for, and the lines that tell it."""

from collections.abc import Iterator
from enum import IntEnum

from gts_async._errors import (
    DeadlineExceeded,
    Denied,
    GtsAsyncError,
    InvalidArgument,
    InvalidData,
    MissingExtra,
    NotSupported,
    TransportError,
    Unauthorized,
    UnexpectedAnswer,
    plain,
)

MAX_PROBLEMS = 50
"""Faults of data files that are listed one by one; the rest is counted."""


class Exit(IntEnum):
    """What the process says on its way out."""

    OK = 0
    """The work succeeded."""
    FAILED = 1
    """The work failed, was stopped or refused, or some of its items were."""
    USAGE = 2
    """The command line itself is wrong."""
    CONFIGURATION = 3
    """A setting, a port or an extra is missing or wrong."""
    UNAUTHORISED = 4
    """The token is missing, wrong, or not good for this."""
    NETWORK = 5
    """No usable answer arrived; what was asked for may or may not have happened."""
    DEADLINE = 124
    """The time that was given ran out; the work itself goes on."""
    INTERRUPTED = 130
    """Ctrl-C, SIGTERM or SIGHUP, or nobody reads the output any more; work that was waited for goes on."""


_CODES: tuple[tuple[type[Exception], Exit], ...] = (
    (MissingExtra, Exit.CONFIGURATION),
    (NotSupported, Exit.CONFIGURATION),
    (Unauthorized, Exit.UNAUTHORISED),
    (Denied, Exit.UNAUTHORISED),
    (DeadlineExceeded, Exit.DEADLINE),
    (TransportError, Exit.NETWORK),
    (UnexpectedAnswer, Exit.NETWORK),
)
_SETTINGS = frozenset({"engine", "cloud", "token", "dialect", "ca_file", "store_hosts", "host", "port", "data_dir"})


def exit_of(error: Exception) -> Exit:
    """Give the exit code that an error stands for; FAILED for all that has no code of its own."""
    if isinstance(error, InvalidArgument):
        return Exit.CONFIGURATION if _is_setting(error.argument) else Exit.USAGE
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILED)


def _is_setting(argument: str) -> bool:
    """Tell a session's settings, whose errors name an argument, a variable or a file, from a command's arguments."""
    return argument in _SETTINGS or argument.startswith("GTS_ASYNC_") or ".toml" in argument


def lines_of(error: Exception) -> Iterator[str]:
    """Give what is said of an error: one line, then one for each fault of a data file, and what was noted on it."""
    problems = error.problems if isinstance(error, InvalidData) else ()
    if problems:
        yield f"error: {len(problems)} faults in the data; nothing was sent"
        yield from (f"  {plain(str(problem))}" for problem in problems[:MAX_PROBLEMS])
        if len(problems) > MAX_PROBLEMS:
            yield f"  … and {len(problems) - MAX_PROBLEMS} more"
    else:
        yield f"error: {plain(_text(error)).replace(chr(10), ' ')}"
    yield from (f"  {plain(note)}" for note in getattr(error, "__notes__", ()))


def _text(error: Exception) -> str:
    if isinstance(error, InvalidArgument) and error.argument in ("engine", "cloud") and error.problem == "is not set":
        # The fix that the session names is an argument in Python.
        return f"{error.argument}: is not set; use --{error.argument} URL, or set GTS_ASYNC_{error.argument.upper()}"
    if isinstance(error, DeadlineExceeded) and error.handle is not None:
        return f"{error.handle.id}: not settled by the deadline"
    if isinstance(error, GtsAsyncError):
        return str(error) or type(error).__name__
    return f"{type(error).__name__}: {error}"
