import io
import json
from datetime import UTC, datetime

import pytest

from gts_async._flow.watch import Transition
from gts_async._progress import Progress
from gts_async.cli.records import look_record, look_text, transition_record, transition_words
from gts_async.cli.show import Show
from gts_async.gts.values import TaskInfo, TaskStatus
from gts_async.sxwl.values import JobInfo, JobStatus

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
TRAINED = TaskInfo(TaskStatus.SUCCEEDED, "Train Success", 0.925, NOON)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show_on(out: io.StringIO, err: io.StringIO, *, is_json: bool = False, **environ: str) -> Show:
    return Show(is_json=is_json, out=out, err=err, environ={"TERM": "xterm-256color", **environ})


def test_data_and_talk_go_to_their_own_streams() -> None:
    out, err = io.StringIO(), io.StringIO()
    show = show_on(out, err)
    show.data({"id": "a"}, "a  done", "green")
    show.talk("Next: more")
    assert (out.getvalue(), err.getvalue()) == ("a  done\n", "Next: more\n")


def test_json_is_one_line_for_each_piece_of_data() -> None:
    out = io.StringIO()
    show = show_on(out, io.StringIO(), is_json=True)
    show.data({"label": "体育", "at": NOON}, "体育")
    show.data({"line": "one\ntwo"})
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first == {"label": "体育", "at": "2026-01-02T12:00:00Z"}
    assert second == {"line": "one\ntwo"}


def test_escapes_from_a_server_do_not_reach_the_terminal() -> None:
    out = io.StringIO()
    show_on(out, io.StringIO()).data({}, "task \x1b]0;title\x07")
    assert out.getvalue() == "task \\x1b]0;title\\x07\n"


def test_a_terminal_gets_colours_and_square_brackets_as_they_are() -> None:
    out = Terminal()
    show_on(out, io.StringIO()).data({}, "[red] done", "bold green")
    assert out.getvalue().startswith("\x1b[1;32m")
    assert "[red] done" in out.getvalue()


def test_prose_is_broken_between_words_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    text = "  train.json:4: error: 标签没有在标签文件里 is not in labels.json " + "x" * 40
    out, plain = Terminal(), io.StringIO()
    show_on(out, io.StringIO()).data({}, text, is_prose=True)
    show_on(plain, io.StringIO()).data({}, text, is_prose=True)
    assert out.getvalue().splitlines() == [
        "  train.json:4: error:",
        "      标签没有在标签文件里 is",
        "      not in labels.json",
        "      " + "x" * 40,
    ]
    assert plain.getvalue() == f"{text}\n"


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours_and_no_live_line_where_they_are_not_wanted(environ: dict[str, str]) -> None:
    out = Terminal()
    show = show_on(out, Terminal(), **environ)
    with show.live("working") as update:
        update("still working")
        show.data({}, "done", "green")
    assert out.getvalue() == "done\n"


def test_the_live_line_shows_on_a_terminal_and_leaves_with_the_block() -> None:
    out = Terminal()
    show = show_on(out, io.StringIO())
    with show.live("working"):
        show.data({}, "first line")
    text = out.getvalue()
    assert "working" in text
    assert "first line" in text
    assert text.endswith("\x1b[2K")


def test_the_live_line_stays_off_json_on_a_terminal_and_shows_beside_a_pipe() -> None:
    out, err = Terminal(), Terminal()
    with show_on(out, err, is_json=True).live("working"):
        pass
    assert (out.getvalue(), err.getvalue()) == ("", "")
    with show_on(io.StringIO(), err, is_json=True).live("working"):
        pass
    assert "working" in err.getvalue()


def test_progress_is_drawn_on_a_terminal_above_which_data_goes_on() -> None:
    out = Terminal()
    show = show_on(out, out)
    with show.progress("news  uploading") as progress:
        assert progress is not None
        progress(Progress("train.json", 50, 200))
        show.data({}, "first line")
        progress(Progress("train.json", 200, 200, is_acknowledged=True))
    text = out.getvalue()
    for words in ("news  uploading", "train.json", "50 bytes of 200 bytes", "first line"):
        assert words in text
    # Nothing stays of it.
    assert text.endswith("\r\x1b[2K\x1b[?25h\r")


@pytest.mark.parametrize(
    ("out", "err", "is_json"),
    [(io.StringIO(), io.StringIO(), False), (Terminal(), io.StringIO(), False), (Terminal(), Terminal(), True)],
)
def test_no_progress_beside_json_nor_where_stderr_is_no_terminal(
    out: io.StringIO, err: io.StringIO, is_json: bool
) -> None:
    with show_on(out, err, is_json=is_json).progress("uploading") as progress:
        assert progress is None
    assert (out.getvalue(), err.getvalue()) == ("", "")


def test_progress_is_drawn_beside_data_that_goes_into_a_pipe() -> None:
    out, err = io.StringIO(), Terminal()
    show = show_on(out, err)
    with show.progress("uploading") as progress:
        assert progress is not None
        show.data({"row": 1})
        progress(Progress("news", 1, None, unit="samples"))
    assert out.getvalue() == '{"row":1}\n'
    assert "1 sample" in err.getvalue()


def test_a_task_tells_its_accuracy() -> None:
    assert look_text("news", TRAINED) == "news  succeeded, test accuracy 0.925"
    assert look_record("news", TRAINED) == {
        "id": "news",
        "status": "succeeded",
        "observed_at": NOON,
        "code": 2,
        "message": "Train Success",
        "test_acc": 0.925,
    }


def test_a_job_never_shows_its_signed_url() -> None:
    look = JobInfo(JobStatus.SUCCEEDED, "https://store/data.zip?Signature=secret", NOON, "success")
    shown = f"{look_record('ai1', look)} {look_text('ai1', look)}"
    assert look_record("ai1", look)["has_model"] is True
    assert "store" not in shown


def test_transitions_say_what_was_found_what_was_passed_and_how_it_ended() -> None:
    ending = Transition(TaskStatus.TRAINING, TaskStatus.SUCCEEDED, TRAINED, NOON, 3.14159, is_final=True)
    found = Transition(None, TaskStatus.INITIALIZED, TaskInfo(TaskStatus.INITIALIZED), NOON, 0.0)
    passed = Transition(TaskStatus.INITIALIZED, TaskStatus.TRAINING, TRAINED, NOON, 3.1, is_synthesized=True)
    assert [transition_words(change) for change in (found, passed, ending)] == [
        "initialized",
        "initialized → training (passed between two looks)",
        "training → succeeded, test accuracy 0.925",
    ]
    assert transition_record("news", ending) == {
        "id": "news",
        "previous": "training",
        "status": "succeeded",
        "elapsed": 3.142,
        "observed_at": NOON,
        "is_synthesized": False,
        "is_final": True,
        "test_acc": 0.925,
    }
