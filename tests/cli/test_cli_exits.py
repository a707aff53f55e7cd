import pytest

from gts_async._errors import (
    AlreadyExists,
    DeadlineExceeded,
    Denied,
    FileMissing,
    GtsAsyncError,
    InvalidArgument,
    InvalidData,
    LeaseLost,
    MissingExtra,
    MisuseError,
    NotFound,
    NotSent,
    NotSupported,
    OutcomeUnknown,
    Problem,
    ServerFailed,
    TimedOut,
    Unauthorized,
    UnexpectedAnswer,
    WorkFailed,
    WorkLost,
    WorkStalled,
    WorkStopped,
    WrongType,
)
from gts_async.cli.exits import MAX_PROBLEMS, Exit, exit_of, lines_of


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkFailed(), 1),
        (WorkStopped(), 1),
        (WorkLost(), 1),
        (WorkStalled(), 1),
        (NotFound(call="task_status"), 1),
        (AlreadyExists(call="create_task"), 1),
        (InvalidData(call="upload"), 1),
        (LeaseLost(), 1),
        (FileMissing(), 1),
        (MisuseError(), 1),
        (GtsAsyncError(), 1),
        (InvalidArgument("task_id", "is empty"), 2),
        (WrongType("max_len", "must be a whole number"), 2),
        (InvalidArgument("engine", "is not set"), 3),
        (InvalidArgument("port", "5201 cannot be listened on"), 3),
        (InvalidArgument("GTS_ASYNC_TOKEN", "the token is empty"), 3),
        (InvalidArgument("gts_async.toml", "cannot be read as TOML"), 3),
        (InvalidArgument("/home/me/.config/gts_async/config.toml (token_file)", "cannot read it"), 3),
        (MissingExtra("local", "training"), 3),
        (NotSupported(), 3),
        (Unauthorized(call="job_status"), 4),
        (Denied(call="job_status"), 4),
        (NotSent(), 5),
        (OutcomeUnknown(), 5),
        (TimedOut(), 5),
        (ServerFailed(), 5),
        (UnexpectedAnswer(call="job_status", problem="is no JSON"), 5),
        (DeadlineExceeded(), 124),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_every_error_has_its_exit_code(error: Exception, code: int) -> None:
    assert exit_of(error) == code


def test_all_faults_of_a_file_are_told_one_by_one_up_to_a_bound() -> None:
    error = InvalidData(call="upload")
    error.problems = tuple(Problem("train.json", line, "label", "is missing") for line in range(1, MAX_PROBLEMS + 4))
    lines = list(lines_of(error))
    assert lines[0] == f"error: {MAX_PROBLEMS + 3} faults in the data; nothing was sent"
    assert lines[1] == "  train.json:1: label: is missing"
    assert lines[-1] == "  … and 3 more"
    assert len(lines) == MAX_PROBLEMS + 2


def test_an_error_is_one_line_without_signatures_or_escapes_and_its_notes_follow() -> None:
    error = ServerFailed("no answer from https://store/x.zip?Signature=secret\n\x1b[2J")
    error.add_note("it may have begun")
    assert list(lines_of(error)) == [
        "error: no answer from https://store/x.zip?<redacted> \\x1b[2J",
        "  it may have begun",
    ]


def test_a_missing_url_is_explained_in_terms_of_options() -> None:
    (line,) = lines_of(InvalidArgument("cloud", "is not set", "pass cloud=, or set GTS_ASYNC_CLOUD"))
    assert line == "error: cloud: is not set; use --cloud URL, or set GTS_ASYNC_CLOUD"


def test_codes_are_the_documented_ones() -> None:
    assert [code.value for code in Exit] == [0, 1, 2, 3, 4, 5, 124, 130]
