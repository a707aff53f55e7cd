"""The columns of a summary file: the engine reads it as a table, whose columns hold one kind of value each.

That is so for all keys, also for those that no training needs (`training_pipeline_std.py: hfDataset.from_json`).
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice

from gts_async.gts.faults import HALF_A_PAIR, Fault, is_unicode, kind

MAX_COLUMNS = 10_000
"""Columns, those within objects and arrays included, that are compared."""

MAX_NAME = 200
"""Characters of a column's name that are kept."""

MAX_DEPTH = 62
"""Brackets in brackets that the schema of a table can hold (pyarrow)."""

LEAVE_OUT = "leave the key out: the training needs text and summary only"

_DATE = re.compile(
    r"\d{4}-\d\d-\d\d"
    r"(?:[ T](?:[01]\d|2[0-3])(?::[0-5]\d(?::[0-5]\d)?)?(?:Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)


class Columns:
    """Fed the rows of one file, tells where a column changes its kind."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, int]] = {}
        self._undecided = {"text": False, "summary": False}

    @property
    def dates(self) -> list[str]:
        """The columns of text of which each row had a date, as far as any had anything."""
        return [field for field, is_seen in self._undecided.items() if is_seen]

    def is_plain(self, row: Mapping[str, object]) -> bool:
        """Tell whether there is nothing in a row that `faults` would have to look at."""
        return len(row) == 2 and not self._undecided

    def faults(self, row: Mapping[str, object], line: int) -> Iterator[Fault]:
        """Give what a row has that the rows before it have not in this way."""
        for field in list(self._undecided):
            value = row.get(field)
            if is_date(value):
                self._undecided[field] = True
            elif value is not None:
                del self._undecided[field]
        others = ((key, value) for key, value in row.items() if key not in ("text", "summary"))
        for key, value in islice(others, MAX_COLUMNS):
            yield from self._look(key, value, line)

    def _look(self, column: str, value: object, line: int, depth: int = 0) -> Iterator[Fault]:
        column = _short(column)
        if value is None or (column not in self._seen and len(self._seen) >= MAX_COLUMNS):
            return
        what = "a boolean" if isinstance(value, bool) else kind(value)
        known, first = self._seen.setdefault(column, (what, line))
        if what != known:
            why = f"is {what}; it is {known} in line {first}, and the engine reads the file as a table"
            yield Fault(column, why, LEAVE_OUT)
        elif isinstance(value, str):
            if not is_unicode(value):
                yield Fault(column, HALF_A_PAIR, LEAVE_OUT)
        elif depth >= MAX_DEPTH and isinstance(value, (Mapping, list)):
            yield Fault(column.partition("[")[0].partition(".")[0], "has too many brackets in brackets", LEAVE_OUT)
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                yield from self._look(f"{column}.{key}", inner, line, depth + 1)
        elif isinstance(value, list):
            for inner in value:
                yield from self._look(f"{column}[]", inner, line, depth + 1)


def _short(column: str) -> str:
    return column if len(column) <= MAX_NAME else f"{column[:MAX_NAME]}{hash(column):x}"


def is_date(value: object) -> bool:
    """Tell whether the table's reader takes a string for a point in time; it does so where all of a column are."""
    if not isinstance(value, str) or len(value) > 30 or not _DATE.fullmatch(value):
        return False
    try:
        datetime.strptime(value[:10], "%Y-%m-%d")
    except ValueError:
        return False
    return True
