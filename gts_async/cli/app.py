"""The command line's app: which commands there are, the global options, and from arguments to an exit code.

Commands are imported when they are called, not before: ``gts-async --help`` is quick.
"""

import inspect
import warnings
from collections.abc import Sequence
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Group, Parameter

from gts_async._errors import GtsAsyncError
from gts_async.cli.exits import Exit, exit_of, lines_of
from gts_async.cli.interrupts import run
from gts_async.cli.options import Flag, Options, read_token
from gts_async.cli.show import Show

HELP = """Trainings and predictions of GTS Engine, jobs of the SXWL cloud.

Try it on this machine, without any account: gts-async demo

Exit codes:
  0   the work succeeded
  1   it failed
  2   usage
  3   configuration, or an extra is missing
  4   not authorised
  5   network, or the outcome is unknown
  124 deadline
  130 interrupted"""

COMMANDS = {
    "demo": "demo:demo",
    "serve": "serve:serve",
    "ping": "ping:ping",
    "check": "check:check",
    "task": "tasks:app",
    "predict": "predict:predict",
    "job": "jobs:app",
    "watch": "watch:watch",
    "journal": "journal:app",
    "callback": "callback:app",
}
"""Where each command lives in this package, in the order of the help."""

HELPS = {
    "demo": "Do everything once, for real, on this machine: train, predict, run jobs, check all of it.\n\n"
    "An embedded engine and cloud are started for it on free ports. Ctrl-C cleans up at any moment.",
    "serve": "Run an engine and a cloud on this machine, for programs of your own.\n\n"
    "Real trainings and real jobs, on 127.0.0.1, until Ctrl-C or SIGTERM. Prints the settings that your programs need, "
    "the token among them unless you gave one. Tasks and jobs are forgotten at the end; their files stay.",
    "ping": "Ask the configured services whether they are there, the right thing, and the token good.",
    "check": "Check data files before they are sent to an engine; nothing is sent, and no network is needed.\n\n"
    "Tells each line that the training would stumble over, which is more than the engine itself checks: what is wrong, "
    "why, and what to do; errors and warnings apart. Exit 1 if there is any error. "
    "With --fix, corrected copies are written into a folder (fixed/, unless you name one with --into), and those are "
    "checked: other encodings become UTF-8, arrays become lines, byte order marks, blank lines and commas behind rows "
    "go, missing ids are numbered, numbers for labels become strings. Everything else is kept and told. The originals "
    "are never touched.",
    "task": "Make, fill, train and delete the tasks of a GTS Engine.",
    "predict": "Ask a task's model about samples.\n\n"
    "Loads the model, prints one line of JSON for each sample in their order, and releases it. Exit 1 if a sample "
    'failed; its line then has an "error".',
    "job": "Submit, watch, stop and download the jobs of the SXWL cloud.",
    "watch": "Pick up the wait for a training or a job.\n\n"
    "Exit 0 if it succeeded, 1 if not. Ctrl-C ends the wait, not the work.",
    "journal": "See what a journal of a batch of jobs holds, and mend a damaged one.",
    "callback": "Receive, keep and list the callbacks of the SXWL cloud.",
}
"""What help says of each command; here, so that it can be said before anything is imported."""


def _version() -> str:
    from importlib.metadata import version

    return version("gts-async")


GLOBAL = Parameter(group=Group("Global options", sort_key=100))

app = App(name="gts-async", help=HELP, help_format="plaintext", version=_version)
for _order, (_name, _place) in enumerate(COMMANDS.items()):
    app.command(f"gts_async.cli.{_place}", name=_name, help=HELPS[_name], sort_key=_order)


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    engine: Annotated[str | None, GLOBAL] = None,
    cloud: Annotated[str | None, GLOBAL] = None,
    dialect: Annotated[Literal["2023-12", "2024-04"] | None, GLOBAL] = None,
    token_file: Annotated[str | None, GLOBAL, Parameter(allow_leading_hyphen=True)] = None,
    ca_file: Annotated[str | None, GLOBAL] = None,
    allow_insecure_http: Annotated[Flag, GLOBAL] = False,
    as_json: Annotated[Flag, GLOBAL, Parameter(name="--json")] = False,
) -> int:
    """Find the command, give it the global options, and run it.

    Args:
        tokens: the command and its own arguments
        engine: URL of the GTS Engine; else GTS_ASYNC_ENGINE or a gts_async.toml
        cloud: URL of the SXWL cloud, ending in /api; else GTS_ASYNC_CLOUD or a gts_async.toml
        dialect: what the cloud speaks; else GTS_ASYNC_DIALECT, else 2023-12
        token_file: file that holds the cloud's token, - for stdin; else GTS_ASYNC_TOKEN or GTS_ASYNC_TOKEN_FILE
        ca_file: PEM file of certificate authorities to trust besides the usual ones; else GTS_ASYNC_CA_FILE
        allow_insecure_http: send the token over http:// to other machines, too
        as_json: print data as lines of JSON
    """
    command, bound, unbound = app.parse_args(tokens, exit_on_error=False, print_error=False)
    options = Options(
        show=Show(is_json=as_json),
        engine=engine,
        cloud=cloud,
        dialect=dialect,
        token=read_token(token_file),
        ca_file=ca_file,
        allow_insecure_http=allow_insecure_http,
    )
    ended = command(*bound.args, **bound.kwargs, **dict.fromkeys(unbound, options))
    if inspect.iscoroutine(ended):
        return run(ended)
    return ended if isinstance(ended, int) else Exit.OK


def run_command_line(arguments: Sequence[str]) -> int:
    """Do what the arguments say and give the exit code; every error of ours is told on stderr."""
    warnings.formatwarning = lambda message, *_, **__: f"note: {message}\n"
    try:
        code = app.meta(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        Show().talk("\n".join(_usage_lines(error, arguments)), "red")
        return Exit.USAGE
    except GtsAsyncError as error:
        Show().talk("\n".join(lines_of(error)), "red")
        return exit_of(error)
    return int(code or Exit.OK)


def _usage_lines(error: CycloptsError, arguments: Sequence[str]) -> Sequence[str]:
    lines = [f"error: {error}"]
    if any(argument.partition("=")[0] == "--token" for argument in arguments):
        lines.append(
            "  a token in the arguments is seen by all users of the machine: set GTS_ASYNC_TOKEN, or --token-file"
        )
    chain = " ".join(error.command_chain or ())
    return [*lines, f"  see: gts-async {chain}{' ' if chain else ''}--help"]
