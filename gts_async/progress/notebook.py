"""NotebookProgress: bars in a notebook, as plain HTML that is replaced in its place; no widgets, nothing to install."""

import html
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, TextIO

from gts_async._progress import Progress
from gts_async.progress.words import Course

INTERVAL = 0.1
"""Seconds between two times that the bars are sent to the browser; what ends is sent at once."""

MAX_ENDED = 20
"""Bars of calls that have ended and are still shown."""


class NotebookProgress:
    """Bars in a notebook's cell: ``await inference.predict(samples, progress=NotebookProgress())``.

    One object serves any number of calls at once, each with a bar of its own, in the cell that called it first. Outside
    of a notebook (without a running IPython) there is one plain line on `out`, stderr if None, for all that ends.
    `display` is what shows it, IPython's own if None.
    """

    def __init__(self, *, display: Callable[..., Any] | None = None, out: TextIO | None = None) -> None:
        self._display = display
        self._out = out
        self._courses: dict[int | str, Course] = {}
        self._handle: Any = None
        self._has_looked = False
        self._shown_at = float("-inf")

    def __call__(self, progress: Progress, /) -> None:
        """Show it."""
        key = progress.number or progress.what
        course = self._courses.get(key)
        if course is None:
            course = self._courses[key] = Course(progress)
            self._forget_old()
        else:
            course.take(progress)
        if not self._has_looked:
            self._has_looked = True
            self._display = self._display or _ipython_display()
        if self._display is not None:
            self._show(self._display, is_last=progress.is_acknowledged)
        elif progress.is_acknowledged:
            print(course, file=self._out or sys.stderr, flush=True)

    def _forget_old(self) -> None:
        ended = [key for key, course in self._courses.items() if course.newest.is_acknowledged]
        for key in ended[: max(0, len(ended) - MAX_ENDED)]:
            del self._courses[key]

    def _show(self, display: Callable[..., Any], *, is_last: bool) -> None:
        now = time.monotonic()
        if not is_last and now - self._shown_at < INTERVAL:
            return
        self._shown_at = now
        if self._handle is None:
            self._handle = display(self, display_id=True)
        else:
            self._handle.update(self)

    def _repr_html_(self) -> str:
        rows = "".join(_row(course) for course in self._courses.values())
        return f'<table style="border:none">{rows}</table>'

    def __repr__(self) -> str:
        return "\n".join(str(course) for course in self._courses.values()) or "<NotebookProgress, nothing told yet>"


def _row(course: Course) -> str:
    fraction = course.newest.fraction
    if fraction is not None:
        bar = f'<progress max="1" value="{fraction:.4f}">{fraction:.0%}</progress>'
    else:
        bar = "" if course.newest.is_acknowledged else "<progress></progress>"
    cells = (html.escape(course.name), bar, html.escape(course.amount), html.escape(course.speed))
    return "<tr>" + "".join(f'<td style="text-align:left;border:none">{cell}</td>' for cell in cells) + "</tr>"


def _ipython_display() -> Callable[..., Any] | None:
    """Give what a running IPython displays with; None outside of one."""
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        return None
    display: Callable[..., Any] = import_module("IPython.display").display
    return display
