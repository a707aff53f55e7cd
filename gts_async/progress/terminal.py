"""RichProgress: bars on a terminal, one for each call that tells of its progress."""

import sys
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gts_async._errors import MissingExtra
from gts_async._progress import Progress
from gts_async.progress.words import Course

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

REFRESHES = 10
"""Times a second that bars are drawn."""


class RichProgress:
    """Bars on a terminal: ``with RichProgress() as progress: await task.upload("a.json", progress=progress)``.

    One object serves any number of calls at once, each with a bar of its own. They are drawn on stderr, or on a rich
    `console`; those of calls that have ended stay, unless it `is_transient`. Without a block it works, too: the bars
    are there from the first call until all that was told of has ended. Where the output is no terminal, there is one
    plain line for all that ends. `waiting_for` names what is shown until the first call, within a block. Raises
    MissingExtra without the extra ``cli``.
    """

    def __init__(
        self, *, console: "Console | None" = None, is_transient: bool = False, waiting_for: str | None = None
    ) -> None:
        try:
            from rich.console import Console
        except ImportError as error:
            raise MissingExtra("cli", "RichProgress") from error
        self._console = Console(stderr=True) if console is None else console
        self._can_draw = self._console.is_terminal and not self._console.is_dumb_terminal
        self._is_transient = is_transient
        self._waiting_for = waiting_for
        self._bars = _Bars()
        self._live: Live | None = None
        self._is_block = False

    def __enter__(self) -> Self:
        self._is_block = True
        if self._waiting_for is not None:
            self._bars.waiting = Course(Progress(self._waiting_for, 0, unit="seconds"))
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_block = False
        self._end()

    def __call__(self, progress: Progress, /) -> None:
        """Show it."""
        self._bars.waiting = None
        known = len(self._bars.going)
        course = self._bars.take(progress)
        self._begin()
        if not progress.is_acknowledged:
            if self._live is not None and len(self._bars.going) > known:
                self._live.refresh()
            return
        self._bars.drop(progress)
        if not self._can_draw:
            self._console.print(str(course), markup=False, highlight=False, emoji=False, soft_wrap=True)
        elif not self._is_transient:
            self._console.print(_table([course]))
        if not self._is_block and not self._bars.going:
            self._end()

    def _begin(self) -> None:
        if self._live is not None or not self._can_draw:
            return
        from rich.live import Live

        live = Live(
            console=self._console,
            get_renderable=self._bars.drawn,
            refresh_per_second=REFRESHES,
            transient=self._is_transient,
            # What is printed goes above the bars, but not away from where it is redirected to.
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )
        # Whoever drops this half-way, without a block, gets the cursor back.
        weakref.finalize(self, live.stop)
        live.start(refresh=True)
        self._live = live

    def _end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._bars.going.clear()


class _Bars:
    """What is drawn. Apart from what draws it, which is to be dropped with its last user."""

    def __init__(self) -> None:
        self.going: dict[int | str, Course] = {}
        self.waiting: Course | None = None

    def take(self, progress: Progress) -> Course:
        """Give the course of what this tells of."""
        key = progress.number or progress.what
        course = self.going.get(key)
        if course is None:
            course = self.going[key] = Course(progress)
        else:
            course.take(progress)
        return course

    def drop(self, progress: Progress) -> None:
        """Draw it no more."""
        del self.going[progress.number or progress.what]

    def drawn(self) -> "Table":
        """Give all bars; called by the thread that draws."""
        return _table([*self.going.values()] if self.waiting is None else [self.waiting])


def _table(courses: Iterable[Course]) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for column in ("name", "bar", "amount", "speed"):
        table.add_column(no_wrap=True, overflow="ellipsis", min_width=30 if column == "bar" else None)
    for course in courses:
        fraction = course.newest.fraction
        is_open = fraction is None and not course.newest.is_acknowledged
        bar = ProgressBar(total=None if is_open else 1.0, completed=fraction or 0.0, width=30, pulse=is_open)
        table.add_row(Text(course.name), bar, Text(course.amount), Text(course.speed, style="bright_black"))
    return table
