import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]

CLASSIFICATION = ("--task-type", "classification", "--engine-type", "bagualu")
ROWS = [{"id": number, "content": f"第{number}条", "label": "体育"} for number in range(20)]


def lines(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.json").write_text(lines(*ROWS), "utf-8")
    (tmp_path / "labels.json").write_text(lines({"labels": ["体育", "财经"]}), "utf-8")
    return tmp_path


def test_good_files_are_0_one_line_each_and_no_network(folder: Path, main: Run) -> None:
    ended = main("check", "train.json", "labels.json", *CLASSIFICATION)
    assert ended.returncode == 0
    assert ended.stdout.splitlines() == ["train.json  20 labelled rows: good", "labels.json  2 labels: good"]
    assert ended.stderr.startswith("2 files, good (")


def test_errors_are_1_with_place_reason_and_remedy(folder: Path, main: Run) -> None:
    bad = [{**ROWS[0], "label": "体育 "}, {"content": "a", "label": "体育"}, {"content": "b", "label": "体育"}]
    (folder / "dev.json").write_text(lines(*bad), "utf-8")
    ended = main("check", "train.json", "dev.json", "labels.json", *CLASSIFICATION)
    assert ended.returncode == 1
    assert ended.stdout.splitlines() == [
        "train.json  20 labelled rows: good",
        "dev.json  3 labelled rows: 3 errors, 1 warning",
        "  dev.json:1: error: label: '体育 ' is not in labels.json; '体育' is",
        "      write it in the same way everywhere",
        "  dev.json:2: error: id: is missing; bagualu needs a whole number in every row",
        "      so is line 3",
        "      number the rows",
        "  dev.json:1: warning: content: 1 text is in train.json, too (this one in its line 1), "
        "1 of them with another label",
        "      what was learned by heart measures nothing: keep each text in one file",
        "labels.json  2 labels: good",
    ]
    assert ended.stderr.startswith("3 files, 3 errors, 1 warning (")
    assert "--fix" in ended.stderr


def test_warnings_alone_are_0(folder: Path, main: Run) -> None:
    ended = main("check", "train.json", *CLASSIFICATION)
    assert ended.returncode == 0
    assert "train.json: warning: no file lists the labels" in ended.stdout


def test_json_is_one_record_for_each_file(folder: Path, main: Run) -> None:
    (folder / "dev.json").write_text(lines(*({"content": f"{n}", "label": "体育"} for n in range(9))), "utf-8")
    ended = main("check", "dev.json", "labels.json", *CLASSIFICATION, "--json", "--max-problems", "2")
    dev, labels = map(json.loads, ended.stdout.splitlines())
    assert ended.returncode == 1
    assert labels == {
        "file": "labels.json",
        "kind": "labels",
        "rows": 1,
        "errors": 0,
        "warnings": 0,
        "fixable": {},
        "problems": [],
    }
    assert (dev["kind"], dev["rows"], dev["errors"], dev["fixable"]) == ("labelled", 9, 9, {"ids": 9})
    assert [(problem["line"], problem["field"]) for problem in dev["problems"]] == [(1, "id"), (2, "id"), (0, "")]
    assert dev["problems"][0]["remedy"] == "number the rows"
    assert dev["problems"][2]["why"] == "7 more errors"


def test_files_that_cannot_be_read_are_errors_beside_the_others(folder: Path, main: Run) -> None:
    (folder / "folder.json").mkdir()
    ended = main("check", "nothing.json", "folder.json", "train.json", *CLASSIFICATION)
    assert ended.returncode == 1
    assert "nothing.json: error: cannot be read: No such file or directory" in ended.stdout
    assert "folder.json: error: cannot be read: " in ended.stdout
    assert "train.json  20 labelled rows" in ended.stdout


def test_a_name_that_the_upload_would_refuse_is_an_error(folder: Path, main: Run) -> None:
    (folder / "my rows.json").write_text(lines(*ROWS), "utf-8")
    ended = main("check", "my rows.json", *CLASSIFICATION)
    assert ended.returncode == 1
    assert "error: its name has ' '" in ended.stdout


def test_fix_writes_copies_says_what_was_changed_and_checks_them(folder: Path, main: Run) -> None:
    rows = [{"content": f"第{n}条", "label": n % 2} for n in range(20)]
    content = "\ufeff" + lines(*rows).replace("\n", "\n\n")
    (folder / "train.json").write_text(content, "utf-16")
    (folder / "labels.json").write_text(json.dumps({"labels": [0, 1]}, indent=1))
    ended = main("check", "train.json", "labels.json", *CLASSIFICATION, "--fix")
    assert ended.stdout.splitlines() == [
        "fixed/train.json  20 labelled rows: good",
        "  was UTF-16, is UTF-8",
        "  byte order mark removed",
        "  20 blank lines removed",
        "  20 rows numbered",
        "  20 numbers turned into labels",
        "fixed/labels.json  2 labels: good",
        "  1 row put on a line of its own",
        "  2 numbers turned into labels",
    ]
    assert (ended.returncode, ended.stderr.count("--fix")) == (0, 0)
    assert (folder / "train.json").read_text("utf-16") == content
    again = main("check", "fixed/train.json", "fixed/labels.json", *CLASSIFICATION)
    assert again.returncode == 0


def test_what_fix_could_not_mend_is_1(folder: Path, main: Run) -> None:
    (folder / "train.json").write_text(lines({"content": None, "label": "体育"}) + "content,label\n", "utf-8")
    (folder / "table.csv").write_text("content,label\na,b\n")
    ended = main("check", "train.json", "table.csv", *CLASSIFICATION, "--fix", "--into", "new", "--json")
    assert ended.returncode == 1
    train, table = map(json.loads, ended.stdout.splitlines())
    assert (train["copy"], train["changes"], train["errors"]) == ("new/train.json", {"ids": 1}, 2)
    assert (table["copy"], table["changes"]) == (None, {})
    assert table["why_no_copy"] == "looks like comma-separated text (CSV), not JSON lines"
    assert len((folder / "new" / "train.json").read_text("utf-8").splitlines()) == 2


def test_fix_overwrites_nothing_unless_forced_and_an_original_never(folder: Path, main: Run) -> None:
    (folder / "fixed").mkdir()
    (folder / "fixed" / "train.json").write_text("mine")
    ended = main("check", "train.json", *CLASSIFICATION, "--fix")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: fixed/train.json: is there already, and differs")
    assert (folder / "fixed" / "train.json").read_text() == "mine"
    assert main("check", "train.json", *CLASSIFICATION, "--fix", "--force").returncode == 0
    again = main("check", "train.json", *CLASSIFICATION, "--fix")
    assert (again.returncode, again.stdout.splitlines()[2]) == (0, "  was there already")
    ended = main("check", "train.json", *CLASSIFICATION, "--fix", "--force", "--into", ".")
    assert ended.returncode == 1
    assert "is the original itself" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--task-type"),
        (("--task-type", "poetry"), "poetry"),
        (("--task-type", "classification"), "--engine-type: is needed for classification"),
        (("--task-type", "nli", "--engine-type", "bagualu"), "use qiankunding"),
        ((*CLASSIFICATION, "--max-problems", "0"), "--max-problems"),
    ],
)
def test_a_wrong_command_line_is_2(arguments: tuple[str, ...], told: str, folder: Path, main: Run) -> None:
    ended = main("check", "train.json", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert told in ended.stderr


def test_the_engine_type_may_be_left_out_where_there_is_no_choice(folder: Path, main: Run) -> None:
    (folder / "rows.json").write_text(lines({"text": "a", "summary": "b"}))
    assert main("check", "rows.json", "--task-type", "summary").returncode == 0


@pytest.mark.parametrize("fix", [(), ("--fix",)])
def test_ctrl_c_ends_it_in_the_middle_of_a_file(folder: Path, start: Start, fix: tuple[str, ...]) -> None:
    with (folder / "train.json").open("ab") as file:
        file.truncate(1 << 40)  # one last line that never ends
    process = start("check", "train.json", *CLASSIFICATION, *fix)
    opened = Path(f"/proc/{process.pid}/fd")
    while str(folder / "train.json") not in [os.path.realpath(link) for link in opened.iterdir()]:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert sorted(path.name for path in folder.rglob("*.part")) == []


def test_control_characters_do_not_reach_the_terminal(folder: Path, main: Run) -> None:
    (folder / "train.json").write_text(lines({"id": 1, "content": "a", "label": "\x1b[31mred"}))
    ended = main("check", "train.json", "labels.json", *CLASSIFICATION)
    assert "\x1b" not in ended.stdout
