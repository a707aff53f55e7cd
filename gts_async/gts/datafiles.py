"""What a valid training file is: a checker that is fed a file's lines as bytes and tells everything wrong with it.

The engine checks less than its trainings need, and shows only its first complaint. A line is read in `jsonlines`, what
one row must hold is in `rows`, who opens the files is in ``_files``. Memory stays flat, but for ids and labels seen.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

import attrs

from gts_async._errors import Problem
from gts_async.gts.jsonlines import BLANK, BYTE_ORDER_MARK, GBK, MARK, NOT_UTF8, misread, read
from gts_async.gts.rows import TEXTS, Fault, Row, is_number, label_field, shown, training_faults
from gts_async.gts.values import EngineType, TaskType

MAX_PROBLEMS = 100
"""Errors of one file that are told one by one; the rest is counted."""

MAX_LINE = 16 << 20
"""Bytes of a line that is still read as a row."""

MIN_TRAIN_ROWS = 16
"""Rows that qiankunding classification did train on; with 9 its nearest-neighbour step failed (`knn_utils.py`)."""

LABEL_TOKENS = 480
"""Tokens that all labels together may take at the default `max_len` of 512: qiankunding classification writes them in
front of every text, and above max_len - 32 cuts them to halves until they fit. Then no row's label is found again and
the training fails; where the marks between them alone are too many, it never ends (`dataloader_UnifiedMC.py: encode`).
"""

TAKES_UNLABELLED = frozenset(
    {(EngineType.QIANKUNDING, TaskType.CLASSIFICATION), (EngineType.BAGUALU, TaskType.SUMMARY)}
)
"""Where the advanced mode trains; its `unlabeled_data` needs `content` in every row, whatever the task's own fields."""

WANTS_IDS = frozenset(
    {
        (EngineType.BAGUALU, TaskType.CLASSIFICATION),
        (EngineType.QIANKUNDING, TaskType.SIMILARITY),
        (EngineType.QIANKUNDING, TaskType.NLI),
    }
)

MORE_THAN_LABELS = Fault("", "comes after the labels; the engine reads the whole file as one object", "keep one line")
NUMBER_LABEL = Fault("label", "is a number; bagualu reads and predicts it as a string", "write labels as strings")
SAME_ID = Fault("id", "has come before in this file", "number the rows")

TOLD_ONCE = frozenset({BLANK, NOT_UTF8, GBK, MORE_THAN_LABELS, NUMBER_LABEL, SAME_ID})
"""Faults that thousands of lines may share: told for the first, with their number."""

WARNINGS = frozenset({NUMBER_LABEL, SAME_ID})


class FileKind(StrEnum):
    """What a file can be used as."""

    LABELS = "labels"
    LABELLED = "labelled"
    UNLABELLED = "unlabelled"
    UNREADABLE = "unreadable"


@attrs.frozen(kw_only=True)
class FileReport:
    """What a file is and what is wrong with it.

    `rows` counts JSON objects. `labels` are those listed (in a labels file) or seen (in classification rows), each with
    the line of its first. `problems`: the errors by line, how many more there are if any, then the warnings.
    """

    name: str
    kind: FileKind
    rows: int
    labels: Mapping[str, int]
    problems: tuple[Problem, ...]


def check_lines(
    name: str,
    lines: Iterable[bytes],
    task_type: TaskType,
    engine_type: EngineType,
    max_problems: int = MAX_PROBLEMS,
) -> FileReport:
    """Give the report on a file of these lines."""
    file = DataFile(name, task_type, engine_type, max_problems)
    for line in lines:
        file.feed(line)
    return file.report()


def compare(reports: Sequence[FileReport], task_type: TaskType, engine_type: EngineType) -> tuple[Problem, ...]:
    """Give what is wrong between the files of one classification task; other types have nothing to compare.

    Labels that no labels file lists are errors. Only warnings: no labels file at all (it may be on the engine already),
    too few rows to train on (which of the files is for training is said later) and too many or too long labels (so is
    `max_len`).
    """
    if task_type is not TaskType.CLASSIFICATION:
        return ()
    data = [report for report in reports if report.kind is FileKind.LABELLED]
    labels_files = [report for report in reports if report.kind is FileKind.LABELS]
    return (*_unlisted(data, labels_files), *_too_few(data, engine_type), *_too_long(labels_files, engine_type))


def _unlisted(data: Sequence[FileReport], labels_files: Sequence[FileReport]) -> Iterator[Problem]:
    if data and not labels_files:
        why = "no file lists the labels, and the training needs one"
        yield Problem(data[0].name, 0, "", why, 'upload one line {"labels": [...]} as well', is_warning=True)
        return
    listed = {label for report in labels_files for label in report.labels}
    names = ", ".join(report.name for report in labels_files)
    for report in data if listed else ():
        others = [(label, line) for label, line in report.labels.items() if label not in listed]
        for label, line in others[:MAX_PROBLEMS]:
            yield Problem(report.name, line, "label", f"{shown(label)} is not in {names}", "add it there")
        if len(others) > MAX_PROBLEMS:
            yield Problem(report.name, 0, "label", f"{len(others) - MAX_PROBLEMS} more labels are not in {names}")


def _too_few(data: Sequence[FileReport], engine_type: EngineType) -> Iterator[Problem]:
    largest = max(data, key=lambda report: report.rows, default=None)
    if engine_type is EngineType.QIANKUNDING and largest is not None and largest.rows < MIN_TRAIN_ROWS:
        why = f"has {largest.rows} rows; qiankunding fails on too few training rows, {MIN_TRAIN_ROWS} are known to do"
        yield Problem(largest.name, 0, "", why, is_warning=True)


def _too_long(labels_files: Sequence[FileReport], engine_type: EngineType) -> Iterator[Problem]:
    for report in labels_files if engine_type is EngineType.QIANKUNDING else ():
        # A mark at each end and between two labels.
        tokens = sum(map(_least_tokens, report.labels)) + len(report.labels) + 1
        if tokens > LABEL_TOKENS:
            why = f"take at least {tokens} tokens; above max_len - 32 the training fails, or never ends"
            remedy = f"use fewer or shorter labels, or a max_len of {tokens + 32} or more, if the model has it"
            yield Problem(report.name, 1, "labels", why, remedy, is_warning=True)


def _least_tokens(label: str) -> int:
    """Give how many tokens a label takes at least: one for each Chinese character, one for whatever else there is."""
    chinese = sum("\u3400" <= sign <= "\u9fff" for sign in label)
    return chinese + (chinese < len(label.strip()))


@attrs.define
class _Findings:
    """Errors up to a limit, and how many came after."""

    limit: int
    found: list[Problem] = attrs.field(factory=list)
    more: int = 0

    def add(self, problem: Problem) -> None:
        if len(self.found) < self.limit:
            self.found.append(problem)
        else:
            self.more += 1


class DataFile:
    """One file while it is read: feed it every line, then ask for the report.

    What a file is for shows only at its end: as long as no row has a label, what is wrong with rows without one is
    held apart, and forgotten if the file turns out to be good unlabelled data.
    """

    def __init__(
        self, name: str, task_type: TaskType, engine_type: EngineType, max_problems: int = MAX_PROBLEMS
    ) -> None:
        self.name = name
        self._pipeline = (engine_type, task_type)
        self._limit = max(1, max_problems)
        self._line = 0
        self._rows = 0
        self._rows_with_label = 0
        self._rows_with_content = 0
        self._labels: dict[str, int] = {}
        self._ids: set[object] = set()
        self._is_labels = False
        self._is_hopeless = False
        self._is_continued = False
        self._sure = _Findings(self._limit)
        self._missing = _Findings(self._limit)
        self._unless_unlabelled = _Findings(self._limit)
        self._repeated: dict[Fault, tuple[int, int]] = {}

    def feed(self, line: bytes) -> None:
        r"""Look at the next line, with or without its ending; a lone ``\r`` ends one too, as it does for the engine.

        A line longer than MAX_LINE is not read; it may come in pieces that are at least that long.
        """
        ends = line.endswith((b"\n", b"\r"))
        if self._is_continued or self._is_hopeless:
            self._is_continued = self._is_continued and not ends
            return
        if len(line) > MAX_LINE:
            self._is_continued = not ends
            self._line += 1
            self._complain(Fault("", f"is longer than {MAX_LINE >> 20} MiB", "give every row a line of its own"))
            return
        body = line[:-2] if line.endswith(b"\r\n") else line[:-1] if ends else line
        for piece in body.split(b"\r"):
            self._line += 1
            self._look(piece)

    def report(self) -> FileReport:
        """Give what was found in the lines fed so far."""
        errors, more = self._errors()
        rest = [Problem(self.name, 0, "", f"{more} more errors")] if more else []
        return FileReport(
            name=self.name,
            kind=self._kind(),
            rows=self._rows,
            labels=dict(self._labels),
            problems=(*errors, *rest, *self._warnings()),
        )

    def _look(self, piece: bytes) -> None:
        if self._line == 1:
            if piece.startswith(MARK):
                self._complain(BYTE_ORDER_MARK)
            if fault := misread(piece):
                self._is_hopeless = True
                self._complain(fault)
                return
        row = read(piece.removeprefix(MARK) if self._line == 1 else piece)
        if isinstance(row, Fault):
            self._complain(row)
            return
        self._rows += 1
        if self._rows == 1 and "labels" in row and row.keys().isdisjoint(TEXTS[self._pipeline[1]]):
            self._is_labels = True
            for fault in self._list_labels(row):
                self._complain(fault)
        elif self._is_labels:
            self._complain(MORE_THAN_LABELS)
        else:
            self._see(row)

    def _see(self, row: Row) -> None:
        engine_type, task_type = self._pipeline
        field = label_field(task_type, row)
        label = row.get(field)
        findings = self._sure
        if label is None:
            self._missing.add(self._problem(Fault(field, "is missing")))
            findings = self._unless_unlabelled
        else:
            self._rows_with_label += 1
            if task_type is TaskType.CLASSIFICATION:
                self._note_label(label)
        self._rows_with_content += isinstance(row.get("content"), str)
        self._note_id(row.get("id"))
        for fault in training_faults(task_type, engine_type, row):
            findings.add(self._problem(fault))

    def _list_labels(self, row: Row) -> Iterator[Fault]:
        """Read a labels file; bagualu reads every key of it as a list of labels (`gts_engine_interface_std.py`)."""
        engine_type, task_type = self._pipeline
        if task_type in (TaskType.IE, TaskType.SUMMARY):
            yield Fault(
                "",
                f"lists labels; the engine checks the label_data of {task_type} tasks as rows",
                "name the training file there",
            )
            return
        labels = row["labels"]
        if not isinstance(labels, list) or not labels:
            yield Fault("labels", f"is {shown(labels)}, must be an array of at least one string")
            return
        for place, label in enumerate(labels):
            if not isinstance(label, str) and not self._reads_number(label):
                yield Fault(f"labels[{place}]", f"is {shown(label)}, must be a string")
            elif str(label) in self._labels:
                yield Fault(f"labels[{place}]", f"{shown(label)} is there twice", "list every label once")
            else:
                self._note_label(label)
        if engine_type is EngineType.BAGUALU and task_type is TaskType.CLASSIFICATION:
            others = (key for key, value in row.items() if not isinstance(value, list))
            yield from (
                Fault(key, "is no list of strings, which ends the training", "keep only labels") for key in others
            )

    def _note_label(self, label: object) -> None:
        if self._reads_number(label):
            self._complain(NUMBER_LABEL)
            label = str(label)
        if isinstance(label, str):
            self._labels.setdefault(label, self._line)

    def _note_id(self, value: object) -> None:
        if self._pipeline in WANTS_IDS and isinstance(value, (str, int, float)):
            if value in self._ids:
                self._complain(SAME_ID)
            self._ids.add(value)

    def _reads_number(self, label: object) -> bool:
        return is_number(label) and self._pipeline == (EngineType.BAGUALU, TaskType.CLASSIFICATION)

    def _complain(self, fault: Fault) -> None:
        if fault in TOLD_ONCE:
            first, times = self._repeated.get(fault, (self._line, 0))
            self._repeated[fault] = (first, times + 1)
        else:
            self._sure.add(self._problem(fault))

    def _problem(self, fault: Fault) -> Problem:
        return Problem(self.name, self._line, fault.field, fault.why, fault.remedy)

    def _kind(self) -> FileKind:
        if self._is_labels:
            return FileKind.LABELS
        if not self._rows:
            return FileKind.UNREADABLE
        return FileKind.LABELLED if self._rows_with_label else FileKind.UNLABELLED

    def _is_good_unlabelled(self) -> bool:
        is_full = self._rows_with_content == self._rows
        return self._kind() is FileKind.UNLABELLED and is_full and self._pipeline in TAKES_UNLABELLED

    def _errors(self) -> tuple[list[Problem], int]:
        """Give the first errors by line, and how many more there are."""
        parts = [self._sure, _Findings(self._limit, list(self._told(is_warning=False)))]
        if not self._is_good_unlabelled():
            parts.append(self._unless_unlabelled)
            parts.append(self._missing if self._rows_with_label else _Findings(self._limit, list(self._no_label())))
        found = sorted((problem for part in parts for problem in part.found), key=lambda problem: problem.line)
        if not self._rows and not found:
            found = [Problem(self.name, 0, "", "holds no row; the engine's check passes it and the training fails")]
        return found[: self._limit], sum(part.more for part in parts) + max(0, len(found) - self._limit)

    def _warnings(self) -> Iterator[Problem]:
        yield from self._told(is_warning=True)
        if self._is_good_unlabelled():
            why = "no row has a label: it can only be unlabeled_data, in train_mode='advanced'"
            yield Problem(self.name, 0, "", why, is_warning=True)

    def _told(self, *, is_warning: bool) -> Iterator[Problem]:
        for fault, (line, times) in self._repeated.items():
            if (fault in WARNINGS) is is_warning:
                why = f"{fault.why} ({times} such lines)" if times > 1 else fault.why
                yield Problem(self.name, line, fault.field, why, fault.remedy, is_warning)

    def _no_label(self) -> Iterator[Problem]:
        for problem in self._missing.found[:1]:
            needs = f"{self._pipeline[1]} needs it in training, validation and test rows alike"
            yield Problem(self.name, 0, problem.field, f"no row has it; {needs}")
