"""What is wrong between the files of one task: labels that no file lists, texts that are in several, too few rows."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import PurePath

from gts_async._errors import Problem
from gts_async.gts.reports import MAX_PROBLEMS, FileKind, FileReport
from gts_async.gts.rows import TEXTS, label_field, shown
from gts_async.gts.values import EngineType, TaskType

MIN_TRAIN_ROWS = 16
"""Rows that qiankunding classification did train on; with 9 its nearest-neighbour step failed (`knn_utils.py`)."""

LABEL_TOKENS = 480
"""Tokens that all labels together may take at the default `max_len` of 512: qiankunding classification writes them in
front of every text, and above max_len - 32 cuts them to halves until they fit. Then no row's label is found again and
the training fails; where the marks between them alone are too many, it never ends (`dataloader_UnifiedMC.py: encode`).
"""

MAX_COMPARED = 12
"""Files of rows that are compared with each other."""

_LEARNED = re.compile(r"(?<![a-z])(train|dev|val|valid|validation|test)(?![a-z])")


def compare(
    reports: Sequence[FileReport], task_type: TaskType, engine_type: EngineType, max_problems: int = MAX_PROBLEMS
) -> tuple[Problem, ...]:
    """Give what is wrong between the files of one task.

    Errors: labels that no labels file lists, and a file without labels that is named like one to train or measure on.
    Warnings: texts that two files share; no labels file at all (it may be on the engine already), too few rows to train
    on (which of the files is for training is said later) and too many or too long labels (so is `max_len`).
    """
    data = [report for report in reports if report.kind is FileKind.LABELLED]
    labels_files = [report for report in reports if report.kind is FileKind.LABELS]
    found = [*_misnamed(reports, task_type), *_leaks(data, task_type)]
    if task_type is TaskType.CLASSIFICATION:
        # A file that cannot be read may be the one of the labels.
        if labels_files or not any(report.kind is FileKind.UNREADABLE for report in reports):
            found += _unlisted(data, labels_files, max_problems)
        found += _too_few(data, engine_type)
        found += _too_long(labels_files, engine_type)
    return tuple(found)


def _misnamed(reports: Sequence[FileReport], task_type: TaskType) -> Iterator[Problem]:
    for report in reports:
        # Where unlabelled rows are of no use at all, each file's own report says so.
        if report.kind is not FileKind.UNLABELLED or report.errors:
            continue
        stem = PurePath(report.name).stem.lower()
        role = _LEARNED.search(stem.replace("_", " ").replace("-", " "))
        if role and "unlabel" not in stem:
            why = f"no row has one, and the name says that it is the {role[1]} file: each of its rows needs one"
            remedy = "label the rows, or name the file unlabeled.json if that is what it is"
            yield Problem(report.name, 0, label_field(task_type, {}), why, remedy)


def _leaks(data: Sequence[FileReport], task_type: TaskType) -> Iterator[Problem]:
    field = TEXTS[task_type][0]
    for pair in combinations(data[:MAX_COMPARED], 2):
        smaller, larger = sorted(pair, key=lambda report: report.rows)
        if smaller.texts is None or larger.texts is None:
            continue
        count = other_labels = 0
        first = (1 << 32, 0)
        for here, there, is_same in smaller.texts.shared(larger.texts):
            count += 1
            other_labels += not is_same
            first = min(first, (here, there))
        if not count:
            continue
        at_least = "at least " if max(smaller.texts.share, larger.texts.share) > 1 else ""
        texts = "text is" if count == 1 else "texts are"
        more = f", {other_labels} of them with another label" if other_labels else ""
        why = f"{at_least}{count} {texts} in {larger.name}, too (this one in its line {first[1]}){more}"
        remedy = "what was learned by heart measures nothing: keep each text in one file"
        yield Problem(smaller.name, first[0], field, why, remedy, is_warning=True)


def _unlisted(data: Sequence[FileReport], labels_files: Sequence[FileReport], max_problems: int) -> Iterator[Problem]:
    if data and not labels_files:
        why = "no file lists the labels, and the training needs one"
        yield Problem(data[0].name, 0, "", why, 'upload one line {"labels": [...]} as well', is_warning=True)
        return
    listed = {label for report in labels_files for label in report.labels}
    alike = {_bare(label): label for label in listed}
    names = ", ".join(report.name for report in labels_files)
    for report in data if listed else ():
        others = [(label, line) for label, line in report.labels.items() if label not in listed]
        for label, line in others[:max_problems]:
            yield _unlisted_label(report.name, line, label, names, alike)
        if len(others) > max_problems:
            yield Problem(report.name, 0, "label", f"{len(others) - max_problems} more labels are not in {names}")


def _unlisted_label(file: str, line: int, label: str, names: str, alike: Mapping[str, str]) -> Problem:
    near = alike.get(_bare(label))
    why = f"{shown(label)} is not in {names}" + (f"; {shown(near)} is" if near is not None else "")
    remedy = "write it in the same way everywhere" if near is not None else "add it there"
    return Problem(file, line, "label", why, remedy)


def _bare(label: str) -> str:
    """Give a label without what the eye passes over: case, space, full width."""
    return "".join(unicodedata.normalize("NFKC", label).casefold().split())


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
