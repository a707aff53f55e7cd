"""What a valid training file is: a checker that is fed a file's lines as bytes and tells everything wrong with it.

The engine checks less than its trainings need, and shows only its first complaint. A line is read in `jsonlines`, what
one row must hold is in `rows`, what is wrong between files in `comparing`, who opens them is in ``_files``. Memory
stays flat whatever the file's size.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain

import attrs

from gts_async._errors import Problem
from gts_async.gts.columns import LEAVE_OUT, Columns
from gts_async.gts.comparing import compare, is_learned_from, role_of
from gts_async.gts.faults import ENCODING, HALF_A_PAIR, Fault, missing
from gts_async.gts.formats import HEAD, MARK, unmarked
from gts_async.gts.jsonlines import (
    BLANK,
    BYTE_ORDER_MARK,
    GBK,
    MAX_LINE,
    NOT_UTF8,
    ForeignLines,
    decode,
    is_out_of_range,
    misread,
    read,
    repeated_key,
)
from gts_async.gts.labels import Labels, Probs
from gts_async.gts.repeats import Repeats
from gts_async.gts.reports import MAX_PROBLEMS, FileKind, FileReport, Findings
from gts_async.gts.rows import TEXTS, Row, label_field, soundness, training_faults
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

MAX_FIELD = 200
"""Characters of a field's name that are told."""

TAKES_UNLABELLED = frozenset(
    {(TaskType.CLASSIFICATION, EngineType.QIANKUNDING), (TaskType.SUMMARY, EngineType.BAGUALU)}
)
"""Where the advanced mode trains; its `unlabeled_data` needs `content` in every row, whatever the task's own fields."""

MORE_THAN_LABELS = Fault("", "comes after the labels; the engine reads the whole file as one object", "keep one line")

EMPTY = "holds no row; the engine's check passes it and the training fails"

TOLD_ONCE = frozenset({BYTE_ORDER_MARK, BLANK, NOT_UTF8, MORE_THAN_LABELS})
"""Faults that thousands of lines may share: told for the first, with their number. So is what is a warning only."""


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
        self._pipeline = (task_type, engine_type)
        self._limit = max(1, max_problems)
        self._line = 0
        self._rows = 0
        self._rows_with_label = 0
        self._rows_with_content = 0
        self._fields = TEXTS[task_type]
        self._label_field = label_field(task_type, {})
        others = ("entity_list", "spo_list") if task_type is TaskType.IE else (self._label_field,)
        self._doubtful = [f'"{field}"'.encode() for field in (*self._fields, *others)]
        self._is_sound = soundness(task_type, engine_type)
        self._repeats = Repeats(task_type, engine_type)
        self._labels = Labels(task_type, engine_type)
        self._foreign = ForeignLines()
        self._columns = Columns() if task_type is TaskType.SUMMARY else None
        if self._columns is not None:
            is_sound, is_plain = self._is_sound, self._columns.is_plain
            self._is_sound = lambda row: is_sound(row) and is_plain(row)
        # Qiankunding writes down the texts of the test file only, and UTF-8 is not asked before (`evaluation.py`).
        self._is_never_written = engine_type is EngineType.QIANKUNDING and is_learned_from(name)
        is_bagualu = (task_type, engine_type) == (TaskType.CLASSIFICATION, EngineType.BAGUALU)
        self._probs = Probs(is_fatal=role_of(name) != "train") if is_bagualu else None
        self._is_labels = False
        self._is_continued = False
        self._sure = Findings(self._limit)
        self._missing = Findings(self._limit)
        self._unless_unlabelled = Findings(self._limit)
        self._told_once: dict[Fault, tuple[int, int]] = {}
        self._more_warnings = 0
        self._fixable: Counter[str] = Counter()

    def begin(self, head: bytes) -> None:
        """Look at the file's first bytes, HEAD of them, before any line is fed."""
        fault = misread(head)
        if fault is None:
            return
        self.is_hopeless = True
        self._line = 1
        if head.startswith(MARK):
            self._complain(BYTE_ORDER_MARK)
        self._complain(fault)

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

    def feed_all(self, lines: Iterable[bytes]) -> None:
        """Look at the next lines, each with its ending and with one only: as `feed` does, and quicker."""
        classes = self._labels.lines if self._pipeline[0] is TaskType.CLASSIFICATION else None
        note = self._repeats.note
        of_row = partial(label_field, self._pipeline[0]) if self._pipeline[0] is TaskType.IE else None
        for line in lines:
            # Most rows are good, and need no more than this.
            if self._rows and not self._is_labels and not self._is_continued and len(line) <= MAX_LINE:
                try:
                    row = decode(line)
                except (ValueError, RecursionError):
                    if line.isspace():
                        self._line += 1
                        self._complain(BLANK)
                    else:
                        self._look(line)
                    continue
                if type(row) is dict and self._is_sound(row) and self._has_each_once(line, row):
                    self._line += 1
                    self._rows += 1
                    self._rows_with_label += 1
                    label = row[self._label_field if of_row is None else of_row(row)]
                    if classes is not None and label not in classes:
                        self._note_label(label)
                    note(row, label, self._line)
                    continue
                self._look(line, row)
            else:
                self.feed(line)

    def report(self) -> FileReport:
        """Give what was found in the lines fed so far."""
        errors, more = self._errors()
        rest = [Problem(self.name, 0, "", f"{more} more errors")] if more else []
        return FileReport(
            name=self.name,
            kind=self._kind(),
            rows=self._rows,
            labels=dict(self._labels.lines),
            problems=(*errors, *rest, *self._warnings()),
            errors=len(errors) + more,
            fixable=self._changes(),
            texts=self._repeats.texts,
        )

    def _look(self, piece: bytes, decoded: object = None) -> None:
        self._line += 1
        row = decoded if type(decoded) is dict else read(piece)
        if isinstance(row, Fault) and piece.startswith(MARK):
            self._complain(BYTE_ORDER_MARK)
            piece = unmarked(piece)
            row = read(piece)
        if isinstance(row, Fault):
            if row == NOT_UTF8:
                self._foreign.see(piece)
            self._complain(row)
            return
        self._rows += 1
        if self._is_labels:
            self._complain(MORE_THAN_LABELS)
        elif self._rows == 1 and "labels" in row and row.keys().isdisjoint(self._fields):
            self._is_labels = True
            for fault in self._labels.listed(row, self._line):
                self._complain(fault)
        else:
            self._note_keys(piece, row)
            self._see(row)

    def _has_each_once(self, line: bytes, row: Row) -> bool:
        if self._pipeline[0] is TaskType.IE:
            return line.count(b'"text"') == 1 and line.count(b'_list"') == ("entity_list" in row) + ("spo_list" in row)
        return line.count(self._doubtful[0]) == 1 == line.count(self._doubtful[-1])

    def _note_keys(self, piece: bytes, row: Row) -> None:
        is_doubtful = any(piece.count(key) > 1 for key in self._doubtful)
        if self._columns is not None:
            is_doubtful = is_doubtful or piece.count(b'":') + piece.count(b'" :') != len(row)
            if is_out_of_range(piece):
                self._complain(Fault("", "holds a number that is out of range, which no table can hold", LEAVE_OUT))
        repeated = repeated_key(piece) if is_doubtful else None
        if repeated is None:
            return
        if self._columns is None:
            self._repeats.note_key(repeated[:MAX_FIELD], self._line)
        else:
            self._complain(Fault(repeated, "is there twice in one row, which no table can hold", "keep one"))

    def _see(self, row: Row) -> None:
        task_type, engine_type = self._pipeline
        field = label_field(task_type, row)
        label = row.get(field)
        findings = self._sure
        if label is None:
            self._missing.add(self._problem(missing(field, row)))
            findings = self._unless_unlabelled
        else:
            self._rows_with_label += 1
            if task_type is TaskType.CLASSIFICATION:
                self._note_label(label)
        self._rows_with_content += isinstance(row.get("content"), str)
        faults = list(training_faults(task_type, engine_type, row))
        if self._columns is not None:
            faults += self._columns.faults(row, self._line)
        elif self._probs is not None and not faults:
            faults += self._probs.faults(row)
            if self._probs.length:
                self._is_sound = lambda row: False  # from now on, a row without any is not good
        for fault in faults:
            is_harmless = self._is_never_written and fault.why == HALF_A_PAIR and fault.field in self._fields
            self._complain(attrs.evolve(fault, is_warning=True) if is_harmless else fault, findings)
        if label is not None and all(fault.is_warning for fault in faults):
            self._repeats.note(row, label, self._line)

    def _note_label(self, label: object) -> None:
        for fault in self._labels.note(label, self._line):
            self._complain(fault)

    def _complain(self, fault: Fault, findings: Findings | None = None) -> None:
        if fault.change:
            self._fixable[fault.change] += 1
        if fault.is_warning and fault not in self._told_once and len(self._told_once) >= self._limit:
            self._more_warnings += 1
        elif fault.is_warning or fault in TOLD_ONCE:
            first, times = self._told_once.get(fault, (self._line, 0))
            self._told_once[fault] = (first, times + 1)
        else:
            (self._sure if findings is None else findings).add(self._problem(fault))

    def _problem(self, fault: Fault) -> Problem:
        return Problem(self.name, self._line, fault.field[:MAX_FIELD], fault.why, fault.remedy)

    def _changes(self) -> dict[str, int]:
        _, foreign = self._told_once.get(NOT_UTF8, (0, 0))
        encoding = {ENCODING: foreign} if foreign and self._foreign.is_gbk else {}
        return {**self._fixable, **encoding}

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
            parts.append(Findings(self._limit, list(self._dates())))
        found = sorted((problem for part in parts for problem in part.found), key=lambda problem: problem.line)
        if not self._rows and not found and not self._may_be_empty():
            found = [Problem(self.name, 0, "", EMPTY, "put one JSON object on each line")]
        return found[: self._limit], sum(part.more for part in parts) + max(0, len(found) - self._limit)

    def _may_be_empty(self) -> bool:
        """Tell whether nothing to measure on is enough: ie measures for the log only."""
        return self._pipeline[0] is TaskType.IE and role_of(self.name) not in ("train", "labels", "")

    def _warnings(self) -> Iterator[Problem]:
        yield from self._told(is_warning=True)
        if self._more_warnings:
            yield Problem(self.name, 0, "", f"{self._more_warnings} more warnings", is_warning=True)
        yield from self._repeats.problems(self.name)
        if not self._line and self._may_be_empty():
            why = "holds no row: the training will measure nothing"
            yield Problem(self.name, 0, "", why, "add rows to measure on", is_warning=True)
        if self._is_good_unlabelled():
            why = "no row has a label: it can only be unlabeled_data, in train_mode='advanced'"
            yield Problem(self.name, 0, "", why, "label the rows to learn or to measure on them", is_warning=True)

    def _told(self, *, is_warning: bool) -> Iterator[Problem]:
        for fault, (line, times) in self._told_once.items():
            if fault.is_warning is is_warning:
                said = GBK if fault == NOT_UTF8 and self._foreign.is_gbk else fault
                why = f"{said.why} ({times} such lines)" if times > 1 else said.why
                yield Problem(self.name, line, said.field[:MAX_FIELD], why, said.remedy, is_warning)

    def _dates(self) -> Iterator[Problem]:
        for field in () if self._columns is None else self._columns.dates:
            why = "is a date in every row, and the engine's table reader makes dates of them, no texts"
            yield Problem(self.name, 0, field, why, "let one of them hold another word")

    def _no_label(self) -> Iterator[Problem]:
        for problem in self._missing.found[:1]:
            needs = f"{self._pipeline[0]} needs it in training, validation and test rows alike"
            remedy = "add it to every row" if problem.remedy == "add it" else problem.remedy
            yield Problem(self.name, 0, problem.field, f"no row has it; {needs}", remedy)
