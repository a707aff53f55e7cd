"""What a corrected copy of a data file changes, line by line. Who reads and writes the files is in ``_files``.

Only what has one right answer is changed: byte order marks, blank lines, commas between rows, missing ids, numbers for
labels, arrays of rows. All else is kept as it is, to the byte.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator

from gts_async.gts.faults import BLANK_LINES, BYTE_ORDER_MARKS, COMMAS, IDS, NUMBER_LABELS, Fault, is_number, is_unicode
from gts_async.gts.formats import MARK, unmarked
from gts_async.gts.jsonlines import MAX_LINE, read, without_comma
from gts_async.gts.repeats import WANTS_IDS
from gts_async.gts.rows import TEXTS, Row, label_text, soundness
from gts_async.gts.values import EngineType, TaskType

MAX_ID = 1 << 62
"""Ids above do not count when new ones are chosen."""

_encode = json.JSONEncoder(ensure_ascii=False).encode
_SPACE = re.compile(r"[ \t\n\r]*")
_BREAKS = re.compile(r"[\r\n]+")


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
        if line.startswith(MARK):
            self.changes[BYTE_ORDER_MARKS] += 1
            line = unmarked(line)
        if not line.strip():
            self.changes[BLANK_LINES] += bool(line)
            return b""
        has_comma = line.rstrip(b" \t\r\n").endswith(b"},")
        if self._rows and not has_comma and self._task_type in (TaskType.IE, TaskType.SUMMARY):
            return line
        if has_comma and (bare := without_comma(line)) is not None:
            self.changes[COMMAS] += 1
            line = bare
        row = read(line)
        if isinstance(row, Fault):
            return line
        self._rows += 1
        if self._rows == 1 and "labels" in row and row.keys().isdisjoint(TEXTS[self._task_type]):
            self._is_labels = True
            changes = self._changed_labels(row)
        elif self._is_labels or self._is_sound(row):
            return line
        else:
            changes = self._changes(row)
        return _with(changes, line) if changes else line

    def _changes(self, row: Row) -> dict[str, object]:
        changes: dict[str, object] = {}
        if self._lacks_id(row):
            changes["id"] = self._next_id
            self._next_id += 1
            self.changes[IDS] += 1
        label = label_text(self._task_type, row.get("label"))
        if label is not None:
            changes["label"] = label
            self.changes[NUMBER_LABELS] += 1
        return changes

    def _lacks_id(self, row: Row) -> bool:
        if (self._engine_type, self._task_type) not in WANTS_IDS:
            return False
        # Sentence pairs only want an id to be there; bagualu reads it as a number.
        return "id" not in row or (self._task_type is TaskType.CLASSIFICATION and row["id"] is None)

    def _changed_labels(self, row: Row) -> dict[str, object]:
        labels = row["labels"]
        if self._task_type is not TaskType.CLASSIFICATION or not isinstance(labels, list):
            return {}
        numbers = sum(map(is_number, labels))
        self.changes[NUMBER_LABELS] += numbers
        return {"labels": [str(one) if is_number(one) else one for one in labels]} if numbers else {}


class LargestId:
    """Finds the number that new ids of a file may begin at: fed all its lines first."""

    def __init__(self) -> None:
        self.next = 0

    def see(self, line: bytes) -> None:
        """Look at a line's id."""
        row = read(unmarked(line).rstrip(b", \t\r\n"))
        value = None if isinstance(row, Fault) else row.get("id")
        try:
            number = int(value) if isinstance(value, (int, float, str)) else -1
        except (ValueError, OverflowError):
            return
        if self.next <= number < MAX_ID:
            self.next = number + 1


def lines_of(text: str) -> Iterator[bytes]:
    """Give a line for each item of an array, or for each of several objects; raises ValueError where it breaks off.

    RecursionError for what is nested too deeply. An item stays as it is written, but for the line breaks in it.
    """
    decoder = json.JSONDecoder()
    place = _skip(text, 0)
    is_array = text.startswith("[", place)
    place = _skip(text, place + 1) if is_array else place
    while place < len(text) and not (is_array and text.startswith("]", place)):
        start = place
        _, place = decoder.raw_decode(text, start)
        yield _on_one_line(text[start:place]).encode() + b"\n"
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


def _on_one_line(item: str) -> str:
    """Give an item without the line breaks in it, which are never in its strings."""
    parts = [part.strip(" \t") for part in _BREAKS.split(item)]
    return "".join(f"{part} " if part.endswith(",") else part for part in parts)


def _skip(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return place if found is None else found.end()


def _with(changes: Row, line: bytes) -> bytes:
    """Give the line with other values for those keys; what is between the rest of its keys stays if none is there."""
    bare = line.rstrip()
    pairs = _pairs(bare)
    if changes.keys().isdisjoint(key for key, _ in pairs):
        added = ", ".join(f"{_dumped(key)}: {_dumped(value)}" for key, value in changes.items())
        comma = ", " if pairs else ""
        return bare[:-1].rstrip() + f"{comma}{added}}}".encode() + line[len(bare) :]
    there = [(key, changes.get(key, value)) for key, value in pairs]
    new = [(key, value) for key, value in changes.items() if all(key != one for one, _ in pairs)]
    text = ", ".join(f"{_dumped(key)}: {_dumped(value)}" for key, value in (*there, *new))
    return f"{{{text}}}".encode() + line[len(bare) :]


def _pairs(line: bytes) -> list[tuple[str, object]]:
    """Give the keys of an object with their values; a key that is there twice comes twice."""
    pairs: list[tuple[str, object]] = []

    def keep(found: list[tuple[str, object]]) -> dict[str, object]:
        pairs[:] = found  # the outermost object is the last one
        return dict(found)

    json.loads(line, object_pairs_hook=keep)
    return pairs


def _dumped(value: object) -> str:
    text = _encode(value)
    return text if is_unicode(text) else json.dumps(value)  # half a surrogate pair can only be written as an escape
