"""What is said about one data file: its kind, its labels, its problems. Who finds them is `datafiles`."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

import attrs

from gts_async._errors import Problem
from gts_async.gts.fingerprints import Fingerprints

MAX_PROBLEMS = 100
"""Errors of one file that are told one by one; the rest is counted."""


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
    the line of its first. `problems`: the errors by line, how many more there are if any, then the warnings. `errors`
    counts all of them. `fixable` counts, by kind, what a corrected copy would do away with. `texts` is what the file is
    compared by with others, None once that is done.
    """

    name: str
    kind: FileKind
    rows: int
    labels: Mapping[str, int]
    problems: tuple[Problem, ...]
    errors: int = 0
    fixable: Mapping[str, int] = attrs.field(factory=dict)
    texts: Fingerprints | None = attrs.field(default=None, repr=False, eq=False)


def alike(problems: Iterable[Problem]) -> list[list[Problem]]:
    """Give together what says the same of several lines of a file, in the order of the first of them."""
    groups: dict[Problem, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(attrs.evolve(problem, line=0), []).append(problem)
    return list(groups.values())


@attrs.define
class Findings:
    """Errors up to a limit, and how many came after."""

    limit: int
    found: list[Problem] = attrs.field(factory=list)
    more: int = 0

    def add(self, problem: Problem) -> None:
        """Keep an error, or count it."""
        if len(self.found) < self.limit:
            self.found.append(problem)
        else:
            self.more += 1
