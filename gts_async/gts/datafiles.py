"""What a valid training file is: a checker that is fed a file's lines as bytes and tells everything wrong with it.

The engine checks less than its trainings need, and shows only its first complaint. A line is read in `jsonlines`, what
one row must hold is in `rows`, what is wrong between files in `comparing`, who opens them is in ``_files``. Memory
stays flat whatever the file's size.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from gts_async._errors import Problem
from gts_async.gts.comparing import compare
from gts_async.gts.formats import HEAD, MARK, encoding_of
from gts_async.gts.jsonlines import (
    BLANK,
    BYTE_ORDER_MARK,
    GBK,
    MAX_LINE,
    NOT_LINES,
    NOT_UTF8,
    decode,
    misread,
    not_read,
    read,
    repeated_key,
)
from gts_async.gts.repairs import ARRAY, BLANK_LINES, BYTE_ORDER_MARKS, ENCODING, NUMBER_LABELS, change_for
from gts_async.gts.repeats import Repeats
from gts_async.gts.reports import MAX_PROBLEMS, FileKind, FileReport, Findings
from gts_async.gts.rows import (
    MISSING,
    TEXTS,
    Fault,
    Row,
    is_number,
    label_field,
    shown,
    soundness,
    training_faults,
)
from gts_async.gts.values import EngineType, TaskType

__all__ = [
    "MAX_LINE",
    "MAX_PROBLEMS",
    "DataFile",
    "FileKind",
    "FileReport",
    "check_lines",
    "compare",
]

MAX_FIELD, MAX_LABELS, MAX_LABEL_TEXT = 200, 20_000, 1 << 20
"""Characters of a field's name that are told; labels that are kept to be compared, and their characters together."""

TAKES_UNLABELLED = frozenset(
    {(EngineType.QIANKUNDING, TaskType.CLASSIFICATION), (EngineType.BAGUALU, TaskType.SUMMARY)}
)
"""Where the advanced mode trains; its `unlabeled_data` needs `content` in every row, whatever the task's own fields."""

MORE_THAN_LABELS = Fault("", "comes after the labels; the engine reads the whole file as one object", "keep one line")
NUMBER_LABEL = Fault("label", "is a number; bagualu reads and predicts it as a string", "write labels as strings")
MANY_LABELS = Fault("label", f"is one of more than {MAX_LABELS} labels; the rest was not compared", "use fewer labels")

TOLD_ONCE = frozenset({BYTE_ORDER_MARK, BLANK, NOT_UTF8, GBK, MORE_THAN_LABELS, NUMBER_LABEL, MANY_LABELS})
"""Faults that thousands of lines may share: told for the first, with their number."""

WARNINGS = frozenset({NUMBER_LABEL, MANY_LABELS})
FIXABLE = {BYTE_ORDER_MARK: BYTE_ORDER_MARKS, BLANK: BLANK_LINES, NUMBER_LABEL: NUMBER_LABELS, GBK: ENCODING}


def check_lines(
    name: str,
    lines: Iterable[bytes],
    task_type: TaskType,
    engine_type: EngineType,
    max_problems: int = MAX_PROBLEMS,
) -> FileReport:
    """Give the report on a file of these lines."""
    file = DataFile(name, task_type, engine_type, max_problems)
    lines = iter(lines)
    first: list[bytes] = []
    while sum(map(len, first)) < HEAD and (line := next(lines, None)) is not None:
        first.append(line)
    file.begin(b"\n".join(first)[:HEAD])
    for line in chain(first, lines):
        file.feed(line)
    return file.report()


class DataFile:
    """One file while it is read: feed it every line, then ask for the report.

    What a file is for shows only at its end: as long as no row has a label, what is wrong with rows without one is
    held apart, and forgotten if the file turns out to be good unlabelled data.
    """

    def __init__(
        self, name: str, task_type: TaskType, engine_type: EngineType, max_problems: int = MAX_PROBLEMS
    ) -> None:
        self.name = name
        self.is_hopeless = False
        """True once it is clear that the file holds no rows, so that reading on makes no sense."""
        self._pipeline = (engine_type, task_type)
        self._limit = max(1, max_problems)
        self._line = 0
        self._rows = 0
        self._rows_with_label = 0
        self._rows_with_content = 0
        self._labels: dict[str, int] = {}
        self._label_text = 0
        self._fields = TEXTS[task_type]
        self._label_field = label_field(task_type, {})
        self._doubtful = [f'"{field}"'.encode() for field in (*self._fields, self._label_field)]
        self._is_sound = soundness(task_type, engine_type)
        self._repeats = Repeats(task_type, engine_type)
        self._is_labels = False
        self._is_continued = False
        self._sure = Findings(self._limit)
        self._missing = Findings(self._limit)
        self._unless_unlabelled = Findings(self._limit)
        self._told_once: dict[Fault, tuple[int, int]] = {}
        self._fixable: Counter[str] = Counter()

    def begin(self, head: bytes) -> None:
        """Look at the file's first bytes, HEAD of them, before any line is fed."""
        fault = misread(head)
        if fault is None:
            return
        self.is_hopeless = True
        if head.startswith(MARK):
            self._line = 1
            self._complain(BYTE_ORDER_MARK)
        self._line = 1
        self._sure.add(self._problem(fault))
        if fault == NOT_LINES:
            self._fixable[ARRAY] += 1
        elif (encoding := encoding_of(head)) is not None and fault == not_read(encoding):
            self._fixable[ENCODING] += 1

    def feed(self, line: bytes) -> None:
        r"""Look at the next line, with or without its ending; a lone ``\r`` ends one too, as it does for the engine.

        A line longer than MAX_LINE is not read; it may come in pieces, of which the first is at least that long.
        """
        ends = line.endswith((b"\n", b"\r"))
        if self._is_continued or self.is_hopeless:
            self._is_continued = self._is_continued and not ends
            return
        if len(line) > MAX_LINE:
            self._is_continued = not ends
            self._line += 1
            self._complain(Fault("", f"is longer than {MAX_LINE >> 20} MiB", "give every row a line of its own"))
            return
        for piece in line.splitlines(keepends=True) or (line,):
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
            errors=len(errors) + more,
            fixable=dict(self._fixable),
            texts=self._repeats.texts,
        )

    def feed_all(self, lines: Iterable[bytes]) -> None:
        """Look at the next lines, each with its ending and with one only: as `feed` does, and quicker."""
        classes = self._labels if self._pipeline[1] is TaskType.CLASSIFICATION else None
        is_sound, note, label_key = self._is_sound, self._repeats.note, self._label_field
        text_mark, label_mark = self._doubtful[0], self._doubtful[-1]
        for line in lines:
            # Most rows are good, and need no more than this.
            if self._rows and not self._is_labels and not self._is_continued and len(line) <= MAX_LINE:
                try:
                    row = decode(line)
                except (ValueError, RecursionError):
                    self._look(line)
                    continue
                if type(row) is dict and is_sound(row) and line.count(text_mark) == 1 == line.count(label_mark):
                    self._line += 1
                    self._rows += 1
                    self._rows_with_label += 1
                    label = row[label_key]
                    if classes is not None and label not in classes:
                        self._note_label(label)
                    note(row, label, self._line)
                    continue
                self._look(line)
            else:
                self.feed(line)

    def _look(self, piece: bytes) -> None:
        self._line += 1
        row = read(piece)
        if isinstance(row, Fault) and piece.startswith(MARK):
            self._complain(BYTE_ORDER_MARK)
            row = read(piece[len(MARK) :])
        if isinstance(row, Fault):
            self._complain(row)
            return
        self._rows += 1
        if self._is_labels:
            self._complain(MORE_THAN_LABELS)
        elif self._rows == 1 and "labels" in row and row.keys().isdisjoint(self._fields):
            self._is_labels = True
            for fault in self._list_labels(row):
                self._complain(fault)
        else:
            self._note_keys(piece)
            self._see(row)

    def _note_keys(self, piece: bytes) -> None:
        for key in self._doubtful:
            if piece.count(key) > 1:
                repeated = repeated_key(piece)
                if repeated is not None:
                    self._repeats.note_key(repeated[:MAX_FIELD], self._line)
                return

    def _see(self, row: Row) -> None:
        engine_type, task_type = self._pipeline
        field = label_field(task_type, row)
        label = row.get(field)
        findings = self._sure
        if label is None:
            self._missing.add(self._problem(Fault(field, MISSING)))
            findings = self._unless_unlabelled
        else:
            self._rows_with_label += 1
            if task_type is TaskType.CLASSIFICATION:
                self._note_label(label)
        self._rows_with_content += isinstance(row.get("content"), str)
        faults = list(training_faults(task_type, engine_type, row))
        for fault in faults:
            findings.add(self._problem(fault))
            if kind_of_change := change_for(fault, row, task_type):
                self._fixable[kind_of_change] += 1
        if not faults and label is not None:
            self._repeats.note(row, label, self._line)

    def _list_labels(self, row: Row) -> Iterator[Fault]:
        """Read a labels file; bagualu reads every key of it as a list of labels (`gts_engine_interface_std.py`)."""
        engine_type, task_type = self._pipeline
        if task_type in (TaskType.IE, TaskType.SUMMARY):
            yield Fault(
                "",
                f"lists labels; the engine checks the label_data of {task_type} tasks as rows",
                "name the training file there",
            )
        labels = row["labels"]
        if task_type is not TaskType.CLASSIFICATION:
            # Sentence pairs bring their own labels; the engine never reads these.
            for label in labels if isinstance(labels, list) else ():
                self._note_label(label)
            return
        if not isinstance(labels, list) or not labels:
            yield Fault("labels", f"is {shown(labels)}, must be an array of at least one string")
            return
        for place, label in enumerate(labels):
            if not isinstance(label, str) and not self._reads_number(label):
                self._fixable[NUMBER_LABELS] += is_number(label)
                yield Fault(f"labels[{place}]", f"is {shown(label)}, must be a string")
            elif str(label) in self._labels:
                yield Fault(f"labels[{place}]", f"{shown(label)} is there twice", "list every label once")
            else:
                self._note_label(label)
        if engine_type is EngineType.BAGUALU:
            others = (key for key, value in row.items() if not isinstance(value, list))
            yield from (
                Fault(key, "is no list of strings, which ends the training", "keep only labels") for key in others
            )

    def _note_label(self, label: object) -> None:
        if self._reads_number(label):
            self._complain(NUMBER_LABEL)
            label = str(label)
        if not isinstance(label, str) or label in self._labels:
            return
        self._label_text += len(label)
        if len(self._labels) < MAX_LABELS and self._label_text < MAX_LABEL_TEXT:
            self._labels[label] = self._line
        else:
            self._complain(MANY_LABELS)

    def _reads_number(self, label: object) -> bool:
        return is_number(label) and self._pipeline == (EngineType.BAGUALU, TaskType.CLASSIFICATION)

    def _complain(self, fault: Fault) -> None:
        if fault in FIXABLE:
            self._fixable[FIXABLE[fault]] += 1
        if fault in TOLD_ONCE:
            first, times = self._told_once.get(fault, (self._line, 0))
            self._told_once[fault] = (first, times + 1)
        else:
            self._sure.add(self._problem(fault))

    def _problem(self, fault: Fault) -> Problem:
        return Problem(self.name, self._line, fault.field[:MAX_FIELD], fault.why, fault.remedy)

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
        parts = [Findings(self._limit, list(self._told(is_warning=False))), self._sure]
        if not self._is_good_unlabelled():
            parts.append(self._unless_unlabelled)
            parts.append(self._missing if self._rows_with_label else Findings(self._limit, list(self._no_label())))
        found = sorted((problem for part in parts for problem in part.found), key=lambda problem: problem.line)
        if not self._rows and not found:
            why = "holds no row; the engine's check passes it and the training fails"
            found = [Problem(self.name, 0, "", why, "put one JSON object on each line")]
        return found[: self._limit], sum(part.more for part in parts) + max(0, len(found) - self._limit)

    def _warnings(self) -> Iterator[Problem]:
        yield from self._told(is_warning=True)
        yield from self._repeats.problems(self.name)
        if self._is_good_unlabelled():
            why = "no row has a label: it can only be unlabeled_data, in train_mode='advanced'"
            yield Problem(self.name, 0, "", why, is_warning=True)

    def _told(self, *, is_warning: bool) -> Iterator[Problem]:
        for fault, (line, times) in self._told_once.items():
            if (fault in WARNINGS) is is_warning:
                why = f"{fault.why} ({times} such lines)" if times > 1 else fault.why
                yield Problem(self.name, line, fault.field, why, fault.remedy, is_warning)

    def _no_label(self) -> Iterator[Problem]:
        for problem in self._missing.found[:1]:
            needs = f"{self._pipeline[1]} needs it in training, validation and test rows alike"
            yield Problem(self.name, 0, problem.field, f"no row has it; {needs}", "add it to every row")
