"""What is wrong between the files of one task: labels that no file lists, texts that are in several, too few rows."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import PurePath

from gts_async._errors import Problem
from gts_async.gts.faults import bare, shown
from gts_async.gts.reports import MAX_PROBLEMS, FileKind, FileReport
from gts_async.gts.rows import TEXTS, label_field
from gts_async.gts.values import EngineType, TaskType

NEIGHBOURS = 32
"""Vectors that qiankunding classification needs to look for nearest neighbours among (`knn_utils.py`): it has two for
each training row, and one more for each label that has several rows. So 12 rows are never enough, and 16 always are."""

ENOUGH = 16

LABEL_TOKENS = 480
"""Tokens that all labels together may take at the default `max_len` of 512: qiankunding classification writes them in
front of every text, and above max_len - 32 cuts them to halves until they fit. Then no row's label is found again and
the training fails; where the marks between them alone are too many, it never ends (`dataloader_UnifiedMC.py: encode`).
"""

MAX_COMPARED = 12
"""Files of rows that are compared with each other."""

_LEARNED = ("train", "dev", "val", "valid", "validation", "test")
_LABELS = "labels"


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


def role_of(name: str) -> str:
    """Give what a file's name says that it is for: "train", "dev" and so on, "labels"; empty if it says nothing."""
    words = re.split("[^a-z]+", PurePath(name).stem.lower())
    if not {"label", "labels"}.isdisjoint(words):
        return _LABELS
    return next((word for word in words if word in _LEARNED), "") if "unlabel" not in "".join(words) else ""


def is_learned_from(name: str) -> bool:
    """Tell whether a file's name says that it is for training, or for choosing the best of what was trained."""
    return role_of(name) not in ("", "test", _LABELS)


def _misnamed(reports: Sequence[FileReport], task_type: TaskType) -> Iterator[Problem]:
    wants_labels = task_type is TaskType.CLASSIFICATION and all(
        report.kind is not FileKind.LABELS for report in reports
    )
    for report in reports:
        role = role_of(report.name)
        if role in _LEARNED and report.kind is FileKind.UNLABELLED and not report.errors:
            # Where unlabelled rows are of no use at all, each file's own report says so.
            why = f"no row has one, and the name says that it is the {role} file: each of its rows needs one"
            remedy = "label the rows, or name the file unlabeled.json if that is what it is"
            yield Problem(report.name, 0, label_field(task_type, {}), why, remedy)
        elif role in _LEARNED and report.kind is FileKind.LABELS:
            why = f"lists labels, and the name says that it is the {role} file: it needs rows"
            yield Problem(report.name, 1, "", why, "give each file the name of what it holds")
        elif role == _LABELS and report.kind is FileKind.LABELLED and wants_labels:
            why = 'holds rows, and the name says that it is the labels file: it needs one line {"labels": [...]}'
            yield Problem(report.name, 1, "", why, "give each file the name of what it holds")


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
    alike = {bare(label): label for label in listed}
    names = ", ".join(report.name for report in labels_files)
    for report in data if listed else ():
        others = [(label, line) for label, line in report.labels.items() if label not in listed]
        for label, line in others[:max_problems]:
            yield _unlisted_label(report.name, line, label, names, alike)
        if len(others) > max_problems:
            yield Problem(report.name, 0, "label", f"{len(others) - max_problems} more labels are not in {names}")


def _unlisted_label(file: str, line: int, label: str, names: str, alike: Mapping[str, str]) -> Problem:
    near = alike.get(bare(label))
    why = f"{shown(label)} is not in {names}" + (f"; {shown(near)} is" if near is not None else "")
    remedy = "write it in the same way everywhere" if near is not None else "add it there"
    return Problem(file, line, "label", why, remedy)


def _too_few(data: Sequence[FileReport], engine_type: EngineType) -> Iterator[Problem]:
    # Only by its name a file is known to be what is trained on; without one, the largest may be.
    named = [report for report in data if role_of(report.name) == "train"]
    for report in (named or sorted(data, key=lambda report: -report.rows)[:1]) if _is_qiankunding(engine_type) else ():
        if report.rows < ENOUGH:
            several = min(len(report.labels), report.rows - len(report.labels))
            is_sure = 2 * report.rows + max(0, several) < NEIGHBOURS
            always = "always fails on" if is_sure else "may fail on"
            why = f"has {report.rows} rows; qiankunding {always} so few training rows"
            is_warning = not (is_sure and named)
            yield Problem(report.name, 0, "", why, f"add rows: {ENOUGH} are enough", is_warning=is_warning)
        elif report.texts is not None and len(report.texts) == 1 and report.texts.share == 1:
            why = "is the same in every row; qiankunding fails where no two texts differ"
            yield Problem(report.name, 0, "content", why, "add other rows", is_warning=not named)


def _is_qiankunding(engine_type: EngineType) -> bool:
    return engine_type is EngineType.QIANKUNDING


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
