"""What comes more than once in one file: rows, ids, texts with different labels, keys within a row."""

from collections.abc import Iterator

import attrs
import msgspec

from gts_async._errors import Problem
from gts_async.gts.fingerprints import Fingerprints, Ids
from gts_async.gts.rows import TEXTS, Row
from gts_async.gts.values import EngineType, TaskType

WANTS_IDS = frozenset(
    {
        (EngineType.BAGUALU, TaskType.CLASSIFICATION),
        (EngineType.QIANKUNDING, TaskType.SIMILARITY),
        (EngineType.QIANKUNDING, TaskType.NLI),
    }
)

MAX_KEYS = 20
"""Different keys that are told of."""

encode = msgspec.json.Encoder().encode


@attrs.define
class _Found:
    """The first row that repeats another, the line of that other, and how many there are."""

    line: int = 0
    earlier: int = 0
    count: int = 0

    def add(self, line: int, earlier: int = 0) -> None:
        if not self.count:
            self.line, self.earlier = line, earlier
        self.count += 1


class Repeats:
    """Fed the good rows of one file, then asked for its warnings. `texts` is what other files are compared by."""

    def __init__(self, task_type: TaskType, engine_type: EngineType) -> None:
        self.texts = Fingerprints()
        self._task_type = task_type
        self._fields = TEXTS[task_type]
        self._ids = Ids() if (engine_type, task_type) in WANTS_IDS else None
        self._same_row = _Found()
        self._other_label = _Found()
        self._same_id = _Found()
        self._keys: dict[str, _Found] = {}

    def note(self, row: Row, label: object, line: int) -> None:
        """Note a good row with its label, and its id if the pipeline wants one."""
        if self._ids is not None:
            value = row.get("id")
            if isinstance(value, (str, int, float)) and self._ids.is_known(value, line):
                self._same_id.add(line)
        value = row.get(self._fields[0])
        if type(value) is not str:
            return
        if len(self._fields) == 2:
            other = row.get(self._fields[1])
            key = hash((value, other if type(other) is str else repr(other)))
        elif self._task_type is TaskType.IE:
            key = hash((value, row.get("task"), _bytes(row.get("choice"))))
            label = _bytes(label)
        else:
            key = hash(value)
        label_key = hash(label)
        slot = self.texts.put(key, label_key, line)
        if slot >= 0:
            found = self._same_row if self.texts.is_value(slot, label_key) else self._other_label
            found.add(line, self.texts.line(slot))

    def note_key(self, key: str, line: int) -> None:
        """Note a row that has a key twice."""
        if key in self._keys or len(self._keys) < MAX_KEYS:
            self._keys.setdefault(key, _Found()).add(line)

    def problems(self, file: str) -> Iterator[Problem]:
        """Give the warnings, each with the first line and the number of lines."""
        for key, found in self._keys.items():
            why = f"is there twice in one row; the last one counts{_lines(found.count)}"
            yield Problem(file, found.line, key, why, "keep one", is_warning=True)
        least = _least(self.texts)
        if (found := self._same_id).count:
            why = f"has come before in this file{_lines(found.count, _least(self._ids))}"
            yield Problem(file, found.line, "id", why, "number the rows", is_warning=True)
        if (found := self._same_row).count:
            why = f"is the row of line {found.earlier} again{_lines(found.count, least)}"
            yield Problem(file, found.line, self._fields[0], why, "remove rows that repeat others", is_warning=True)
        # A text may well have several summaries.
        if (found := self._other_label).count and self._task_type is not TaskType.SUMMARY:
            why = f"is the text of line {found.earlier} with another label{_lines(found.count, least)}"
            yield Problem(
                file, found.line, self._fields[0], why, "decide which of the labels is right", is_warning=True
            )
        if self.texts.share > 1:
            why = f"has too many rows to compare each with all others: one in {self.texts.share} was"
            yield Problem(file, 0, "", why, is_warning=True)


def _bytes(value: object) -> bytes:
    """Give what two values have in common if they are equal; quicker than repr."""
    try:
        return encode(value)
    except (ValueError, OverflowError):  # whole numbers of more than 64 bits
        return repr(value).encode()


def _least(seen: Fingerprints | Ids | None) -> str:
    return "at least " if seen is not None and seen.share > 1 else ""


def _lines(count: int, least: str = "") -> str:
    return f" ({least}{count} such lines)" if count > 1 else ""
