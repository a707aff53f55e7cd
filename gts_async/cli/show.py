"""How things are shown: data on stdout (JSON lines if asked for), talk on stderr, colours and a live line on terminals.

What is shown of a task, a job or a transition is in `records`.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import msgspec

from gts_async._errors import plain
from gts_async._progress import OnProgress

if TYPE_CHECKING:
    from rich.console import Console

MAX_LINE = 20_000
"""Characters of one line of text."""

Update = Callable[[str], None]


class Show:
    """The two streams of a command.

    `out` and `err` are the process's own if None. Colours and the live line need a terminal that is not dumb, and an
    environment without ``NO_COLOR``; rich is imported only then.
    """

    def __init__(
        self,
        *,
        is_json: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.is_json = is_json
        self._out = sys.stdout if out is None else out
        self._err = sys.stderr if err is None else err
        self._has_colour = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self._consoles: dict[int, Console] = {}

    def data(
        self, record: Mapping[str, object], text: str | None = None, style: str = "", *, is_prose: bool = False
    ) -> None:
        """Show one piece of what the command was asked for: as a line of JSON, or as `text`.

        Without a text it is JSON always. Prose is broken between words on a terminal, further in than it began.
        """
        if self.is_json or text is None:
            self._write(self._out, msgspec.json.encode(record).decode(), clean=False)
        else:
            console = self._console(self._out) if is_prose else None
            for line in (text,) if console is None else _broken(_clean(text), console.width):
                self._write(self._out, line, style)

    def talk(self, text: str, style: str = "") -> None:
        """Say something about the work on stderr."""
        self._write(self._err, text, style)

    @contextmanager
    def live(self, text: str) -> Iterator[Update]:
        """Show a line that lives as long as the block, with the time since it began; the block may change its text.

        Nothing is shown where there is no terminal, nor where JSON lines would run into it.
        """
        console = self._live_console()
        if console is None:
            yield lambda text: None
            return
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
            task = progress.add_task(_clean(text), total=None)
            yield lambda text: progress.update(task, description=_clean(text))

    @contextmanager
    def progress(self, text: str) -> Iterator[OnProgress | None]:
        """Give what draws progress on stderr as long as the block lives: `text` first, then what it is told.

        None, which is nobody to tell, where stderr is no terminal, and beside JSON lines.
        """
        console = None if self.is_json else self._console(self._err)
        if console is None:
            yield None
            return
        from gts_async.progress.terminal import RichProgress

        with RichProgress(console=console, is_transient=True, waiting_for=_clean(text)) as progress:
            yield progress

    def _live_console(self) -> "Console | None":
        out, err = self._console(self._out), self._console(self._err)
        if out is not None:
            return None if self.is_json else out
        return err

    def _write(self, stream: TextIO, text: str, style: str = "", *, clean: bool = True) -> None:
        text = _clean(text) if clean else text
        console = self._console(stream)
        if console is not None:
            console.print(text, style=style or None, markup=False, highlight=False, emoji=False, soft_wrap=True)
        else:
            stream.write(f"{text}\n")
            stream.flush()

    def _console(self, stream: TextIO) -> "Console | None":
        """Give the console of a stream that is a terminal; one for both streams if both are, for the live line."""
        if not self._has_colour or not stream.isatty():
            return None
        if stream is self._err and self._out.isatty() and not self.is_json:
            stream = self._out
        if id(stream) not in self._consoles:
            from rich.console import Console

            self._consoles[id(stream)] = Console(file=stream)
        return self._consoles[id(stream)]


def _broken(text: str, width: int) -> Iterator[str]:
    from rich.cells import cell_len

    body = text.lstrip(" ")
    indent = " " * (len(text) - len(body))
    line = indent
    for word in re.split("(?<= )", body):
        if line.strip() and cell_len(line) + cell_len(word.rstrip()) > width:
            yield line.rstrip()
            line = f"{indent}    "
        line += word
    yield line


def _clean(text: str) -> str:
    return plain(text, MAX_LINE)
