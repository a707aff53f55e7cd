"""What a corrected copy of a data file changes, line by line. Who reads and writes the files is in ``_files``.

Only what has one right answer is changed: byte order marks, blank lines, missing ids, numbers for labels, arrays of
rows. All else is kept as it is, to the byte.
"""

import json
from collections import Counter
from collections.abc import Iterator

from gts_async.gts.formats import MARK
from gts_async.gts.jsonlines import MAX_LINE, read
from gts_async.gts.repeats import WANTS_IDS
from gts_async.gts.rows import TEXTS, Fault, Row, is_number, soundness
from gts_async.gts.values import FIXED_LABELS, EngineType, TaskType

BYTE_ORDER_MARKS = "byte_order_mark"
BLANK_LINES = "blank_lines"
IDS = "ids"
NUMBER_LABELS = "number_labels"
ARRAY = "array"
ENCODING = "encoding"
"""The kinds of change, as they are counted."""

MAX_ID = 1 << 62
"""Ids above do not count when new ones are chosen."""

_SPACE = " \t\n\r"


def change_for(fault: Fault, row: Row, task_type: TaskType) -> str | None:
    """Give the kind of change that does away with a row's fault; None if none does."""
    if fault.field == "id" and row.get("id") is None:
        return IDS
    if fault.field == "label" and label_text(task_type, row.get("label")) is not None:
        return NUMBER_LABELS
    return None


def label_text(task_type: TaskType, label: object) -> str | None:
    """Give the string that a number is meant to be as a label; None for all other values."""
    if not is_number(label) or task_type in (TaskType.IE, TaskType.SUMMARY):
        return None
    allowed = FIXED_LABELS.get(task_type)
    if allowed is None:
        return str(label)
    return next((word for word in allowed if word.isdigit() and int(word) == label), None)


class Repairer:
    """Mends the lines of one file; `changes` counts them by kind. Rows without an id are numbered from `next_id` up."""

    def __init__(self, task_type: TaskType, engine_type: EngineType, next_id: int = 0) -> None:
        self.changes: Counter[str] = Counter()
        self._task_type = task_type
        self._engine_type = engine_type
        self._next_id = next_id
        self._is_sound = soundness(task_type, engine_type)
        self._rows = 0
        self._is_labels = False
        self._is_continued = False

    def mend(self, line: bytes) -> bytes:
        """Give the line as it should be, empty if it should not be; what is no row comes back as it is.

        A line longer than MAX_LINE may come in pieces, as `Cutter` gives it.
        """
        if self._is_continued or len(line) > MAX_LINE:
            self._is_continued = not line.endswith((b"\n", b"\r"))
            return line
        while line.startswith(MARK):
            self.changes[BYTE_ORDER_MARKS] += 1
            line = line[len(MARK) :]
        if not line.strip():
            self.changes[BLANK_LINES] += bool(line)
            return b""
        if self._rows and self._task_type in (TaskType.IE, TaskType.SUMMARY):
            return line
        row = read(line)
        if isinstance(row, Fault):
            return line
        self._rows += 1
        if self._rows == 1 and "labels" in row and row.keys().isdisjoint(TEXTS[self._task_type]):
            self._is_labels = True
            changed = self._mended_labels(row)
        elif self._is_labels or self._is_sound(row):
            return line
        else:
            changed = self._mended(row)
        return line if changed is None else _written(changed, line)

    def _mended(self, row: Row) -> dict[str, object] | None:
        changed = dict(row)
        if self._lacks_id(row):
            changed["id"] = self._next_id
            self._next_id += 1
            self.changes[IDS] += 1
        label = label_text(self._task_type, row.get("label"))
        if label is not None:
            changed["label"] = label
            self.changes[NUMBER_LABELS] += 1
        return changed if changed != row else None

    def _lacks_id(self, row: Row) -> bool:
        if (self._engine_type, self._task_type) not in WANTS_IDS:
            return False
        # Sentence pairs only want an id to be there; bagualu reads it as a number.
        return "id" not in row or (self._task_type is TaskType.CLASSIFICATION and row["id"] is None)

    def _mended_labels(self, row: Row) -> dict[str, object] | None:
        labels = row["labels"]
        if self._task_type is not TaskType.CLASSIFICATION or not isinstance(labels, list):
            return None
        numbers = sum(map(is_number, labels))
        self.changes[NUMBER_LABELS] += numbers
        return {**row, "labels": [str(one) if is_number(one) else one for one in labels]} if numbers else None


class LargestId:
    """Finds the number that new ids of a file may begin at: fed all its lines first."""

    def __init__(self) -> None:
        self.next = 0

    def see(self, line: bytes) -> None:
        """Look at a line's id."""
        row = read(line.removeprefix(MARK))
        value = None if isinstance(row, Fault) else row.get("id")
        try:
            number = int(value) if isinstance(value, (int, float, str)) else -1
        except (ValueError, OverflowError):
            return
        if self.next <= number < MAX_ID:
            self.next = number + 1


def lines_of(text: str) -> Iterator[bytes]:
    """Give a line for each item of an array, or for each of several objects; raises ValueError where it breaks off.

    RecursionError for what is nested too deeply.
    """
    decoder = json.JSONDecoder()
    place = _skip(text, 0)
    is_array = text.startswith("[", place)
    place = _skip(text, place + 1) if is_array else place
    while place < len(text) and not (is_array and text.startswith("]", place)):
        value, place = decoder.raw_decode(text, place)
        yield _dumped(value) + b"\n"
        place = _skip(text, place)
        if is_array and text.startswith(",", place):
            place = _skip(text, place + 1)
            if text.startswith("]", place):
                raise ValueError("a comma before the closing bracket")
        elif is_array and not text.startswith("]", place):
            raise ValueError(f"no comma at character {place + 1}")
    if is_array and _skip(text, place + 1) < len(text):
        raise ValueError(f"something comes after the array, at character {place + 2}")
    if is_array and place >= len(text):
        raise ValueError("the array has no end")


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in _SPACE:
        place += 1
    return place


def _written(row: Row, line: bytes) -> bytes:
    ending = line[len(line.rstrip(b"\r\n")) :]
    return _dumped(row) + ending


def _dumped(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair can only be written as an escape
        return json.dumps(value).encode()
