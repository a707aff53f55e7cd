"""How progress is shown: words, bars on a terminal, bars in a notebook, and lines where nothing can be drawn."""

import gc
import io
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from rich.console import Console

from gts_async.progress import NotebookProgress, Progress, RichProgress
from gts_async.progress.words import Course

HOSTILE = "\x1b[2J<b>[red]a&b</b>\n\x07"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def console(file):
    return Console(file=file, width=100, height=40, _environ={"TERM": "xterm-256color"})


def drawn(file):
    """Give what was written, without colours and movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())


# Words


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress("a.json", 0, 10), "a.json: 0 bytes of 10 bytes"),
        (Progress("a.json", 999_949), "a.json: 999.9 kB"),
        (Progress("a.json", 999_950), "a.json: 1.0 MB"),
        (Progress("a.json", 5e6, 2e10), "a.json: 5.0 MB of 20.00 GB"),
        (Progress("a.json", 5e6, 5e6, is_acknowledged=True), "a.json: 5.0 MB of 5.0 MB, done"),
        (Progress("news", 1200, 50_000, unit="samples"), "news: 1,200 of 50,000 samples"),
        (Progress("settled", 3, None, unit="jobs"), "settled: 3 jobs"),
        (Progress("settled", 1, None, unit="jobs"), "settled: 1 job"),
        (Progress("a.json", 999.6, None), "a.json: 1.0 kB"),
        (Progress("news training", 59.9, unit="seconds"), "news training: 59 s"),
        (Progress("news training", 60, 3700, unit="seconds"), "news training: 1:00 of about 1:01:40"),
        (Progress("news succeeded", 61.5, 61.5, is_acknowledged=True, unit="seconds"), "news succeeded: 1:01"),
        (Progress(HOSTILE, 1, 1), "\\x1b[2J<b>[red]a&b</b> \\x07: 1 byte of 1 byte"),
    ],
)
def test_progress_reads_well(progress, line):
    assert str(Course(progress)) == line


def test_a_speed_is_told_once_it_means_something_and_anew_after_a_fall():
    course = Course(Progress("a", 0, 100_000))
    course.take(Progress("a", 1000, 100_000))
    assert course.speed == ""
    course._began -= 10
    course.take(Progress("a", 50_000, 100_000))
    assert re.fullmatch(r"[45]\.\d kB/s, (9|10) s left", course.speed)
    course.take(Progress("a", 10, 100_000))
    assert course.speed == ""
    course.take(Progress("a", 100_000, 100_000))
    assert course.speed == "finishing"
    course._began -= 10
    course.take(Progress("a", 100_000, 100_000, is_acknowledged=True))
    assert course.speed.endswith("kB/s")


# On a terminal


def test_every_call_has_a_bar_of_its_own_and_what_has_ended_stays():
    out = Terminal()
    with RichProgress(console=console(out)) as progress:
        progress(Progress("one.json", 10, 100, number=1))
        progress(Progress("news training", 3.0, unit="seconds", number=2))
        progress._live.refresh()
        both = drawn(out)
        progress(Progress("two.json", 100, 100, is_acknowledged=True, number=1))
    assert re.search(r"one\.json .*10 bytes of 100 bytes", both)
    assert re.search(r"news training .*3 s", both)
    assert re.search(r"two\.json .*100 bytes of 100 bytes", drawn(out))
    assert drawn(out).count("two.json") == 1
    assert out.getvalue().endswith("\x1b[?25h")


def test_names_are_shown_as_they_are_and_do_nothing_to_the_terminal():
    out = Terminal()
    with RichProgress(console=console(out)) as progress:
        progress(Progress(HOSTILE, 1, 1, is_acknowledged=True))
    assert "\x1b[2J" not in out.getvalue()
    assert "\x07" not in out.getvalue()
    assert "\\x1b[2J<b>[red]a&b</b>" in drawn(out)


def test_without_a_block_the_display_is_over_when_all_has_ended():
    out = Terminal()
    progress = RichProgress(console=console(out))
    progress(Progress("one.json", 1, 2, number=1))
    progress(Progress("two.json", 1, 2, number=2))
    progress(Progress("one.json", 2, 2, is_acknowledged=True, number=1))
    assert progress._live is not None
    progress(Progress("two.json", 2, 2, is_acknowledged=True, number=2))
    assert progress._live is None
    assert out.getvalue().count("\x1b[?25h") == 1
    # And it begins anew.
    progress(Progress("three.json", 2, 2, is_acknowledged=True, number=3))
    assert out.getvalue().count("\x1b[?25h") == 2


def test_a_display_that_is_dropped_half_way_gives_the_cursor_back():
    out = Terminal()
    progress = RichProgress(console=console(out))
    progress(Progress("one.json", 1, 2))
    assert "\x1b[?25h" not in out.getvalue()
    del progress
    gc.collect()
    assert "\x1b[?25h" in out.getvalue()


def test_where_nothing_can_be_drawn_there_is_a_line_for_what_has_ended():
    out = io.StringIO()
    with RichProgress(console=console(out), waiting_for="waiting") as progress:
        progress(Progress("a.json", 1, 2))
        progress(Progress("[red]a.json", 2, 2, is_acknowledged=True))
    assert out.getvalue() == "[red]a.json: 2 bytes of 2 bytes, done\n"


@pytest.mark.parametrize("total", [None, 0, 5])
@pytest.mark.parametrize("unit", ["bytes", "samples", "jobs", "seconds"])
def test_any_progress_can_be_drawn(unit, total):
    out = Terminal()
    with RichProgress(console=console(out), is_transient=True) as progress:
        for done in (0, 3, 10**12, 0.5):
            progress(Progress("x", done, total, unit=unit))
            progress._live.refresh()
        progress(Progress("x", 5, total, is_acknowledged=True, unit=unit))
    assert "x" in drawn(out)


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_without_rich_all_but_the_bars_works_and_these_say_what_installs_them():
    ran = python(
        """
import sys
sys.modules.update(dict.fromkeys(["rich", "IPython"]))
from gts_async import MissingExtra
from gts_async.progress import NotebookProgress, OnProgress, Progress, RichProgress, Unit
try:
    RichProgress()
except MissingExtra as error:
    print(error)
NotebookProgress()(Progress("a.json", 2, 2, is_acknowledged=True))
"""
    )
    assert ran.stdout == 'RichProgress needs an extra: python -m pip install "gts-async[cli]"\n'
    assert ran.stderr == "a.json: 2 bytes of 2 bytes, done\n"


def test_nothing_is_imported_before_it_is_asked_for():
    ran = python("import sys, gts_async.progress; print({'rich', 'attrs', 'html'} & set(sys.modules))")
    assert (ran.stdout, ran.stderr) == ("set()\n", "")


# In a notebook


class Cell:
    """A notebook's display: what it shows now, and how often it was told."""

    def __init__(self):
        self.begun = self.updates = 0
        self.html = ""

    def __call__(self, shown, *, display_id):
        assert display_id is True
        self.begun += 1
        self.html = shown._repr_html_()
        return self

    def update(self, shown):
        self.updates += 1
        self.html = shown._repr_html_()


class Balanced(HTMLParser):
    """Reads HTML whose tags must match, and keeps the text of its cells and the attributes of its bars."""

    def __init__(self, html):
        super().__init__()
        self.open, self.cells, self.bars = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        if tag == "td":
            self.cells.append("")
        elif tag == "progress":
            self.bars.append(dict(attributes))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.cells[-1] += data


def test_a_notebook_shows_each_call_in_one_cell_that_is_replaced_in_its_place():
    cell = Cell()
    progress = NotebookProgress(display=cell)
    progress(Progress("one.json", 25, 100, number=1))
    progress(Progress("news training", 3.0, unit="seconds", number=2))
    progress(Progress("one.json", 100, 100, is_acknowledged=True, number=1))
    assert cell.begun == 1
    page = Balanced(cell.html)
    assert page.cells[:3] == ["one.json", "100%", "100 bytes of 100 bytes"]
    assert page.cells[4:7] == ["news training", "", "3 s"]
    assert page.bars == [{"max": "1", "value": "1.0000"}, {}]
    assert repr(progress) == "one.json: 100 bytes of 100 bytes, done\nnews training: 3 s"


def test_what_is_shown_in_a_notebook_is_never_taken_for_html():
    cell = Cell()
    NotebookProgress(display=cell)(Progress("<script>alert('&')</script>", 1, None))
    assert "<script" not in cell.html
    assert Balanced(cell.html).cells[0] == "<script>alert('&')</script>"


def test_a_browser_is_not_flooded_but_the_end_is_shown_always():
    cell = Cell()
    progress = NotebookProgress(display=cell)
    for done in range(10_000):
        progress(Progress("news", done, 10_000, unit="samples"))
    progress(Progress("news", 10_000, 10_000, is_acknowledged=True, unit="samples"))
    assert cell.updates < 500
    assert Balanced(cell.html).cells[2] == "10,000 of 10,000 samples"


def test_a_notebook_forgets_what_ended_long_ago_but_nothing_that_goes_on():
    cell = Cell()
    progress = NotebookProgress(display=cell)
    progress(Progress("the first", 1, 2, number=1))
    for number in range(2, 200):
        progress(Progress(f"file {number}", 1, 1, is_acknowledged=True, number=number))
    names = Balanced(cell.html).cells[::4]
    assert names[0] == "the first"
    assert names[-1] == "file 199"
    assert len(names) < 25


def test_outside_of_a_notebook_there_is_a_line_for_what_has_ended():
    out = io.StringIO()
    progress = NotebookProgress(out=out)
    progress(Progress("a.json", 1, 2))
    progress(Progress("a.json", 2, 2, is_acknowledged=True))
    assert out.getvalue() == "a.json: 2 bytes of 2 bytes, done\n"


def test_a_running_ipython_is_found(tmp_path):
    (tmp_path / "IPython").mkdir()
    (tmp_path / "IPython" / "__init__.py").write_text("def get_ipython():\n    return 'a shell'\n")
    (tmp_path / "IPython" / "display.py").write_text(
        "class Handle:\n    update = staticmethod(lambda shown: print('update', shown))\n\n\n"
        "def display(shown, *, display_id):\n    print('display', display_id, shown)\n    return Handle\n"
    )
    ran = python(
        f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import IPython
from gts_async.progress import NotebookProgress, Progress
progress = NotebookProgress()
progress(Progress("a.json", 1, 2))
progress(Progress("a.json", 2, 2, is_acknowledged=True))
"""
    )
    assert ran.stderr == ""
    assert ran.stdout == "display True a.json: 1 byte of 2 bytes\nupdate a.json: 2 bytes of 2 bytes, done\n"
