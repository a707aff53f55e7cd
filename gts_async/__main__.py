"""``python -m gts_async``, and the command ``gts-async``: the door to ``cli/``, and what happens when it is locked."""

import os
import sys
import traceback
from collections.abc import Sequence

from gts_async._errors import MissingExtra

FAILED, CONFIGURATION, INTERRUPTED = 1, 3, 130
"""Exit codes that must be known before `cli` can be imported; all of them are in ``cli/exits.py``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (the process's own if None) and give its exit code; never raises."""
    try:
        return _main(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Nobody reads the output any more; the interpreter must not try to write the rest of it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("GTS_ASYNC_DEBUG"):
            traceback.print_exc()
        else:
            sys.stderr.write(f"error: {type(error).__name__}: {error}\n  GTS_ASYNC_DEBUG=1 shows where it happened\n")
        return FAILED


def _main(arguments: Sequence[str]) -> int:
    try:
        from gts_async.cli.app import run_command_line

        return run_command_line(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("cyclopts", "rich"):
            raise
        sys.stderr.write(f"{MissingExtra('cli', 'the gts-async command')}\n")
        return CONFIGURATION


if __name__ == "__main__":
    sys.exit(main())
