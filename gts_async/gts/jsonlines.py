"""How the engine reads the lines of a data file, and what to say where it cannot.

What the row then must hold is in `rows`, what a file of them must be in `datafiles`, other encodings in `formats`.
"""

import json
import re
from collections import Counter
from typing import cast

import msgspec

from gts_async.gts.faults import ARRAY, BLANK_LINES, BYTE_ORDER_MARKS, COMMAS, ENCODING, Fault, kind
from gts_async.gts.formats import GBK as GBK_ENCODING, MARK, SAVE_AS_UTF8, Commonness, Encoding, encoding_of, foreign
from gts_async.gts.rows import Row

MAX_LINE = 16 << 20
"""Bytes of a line that is still read as a row."""

BYTE_ORDER_MARK = Fault(
    "", "begins with a byte order mark; the engine's check refuses the file", SAVE_AS_UTF8, change=BYTE_ORDER_MARKS
)
BLANK = Fault(
    "",
    "is blank; the engine's check refuses the file",
    "remove blank lines, at the end of the file too",
    change=BLANK_LINES,
)
NOT_UTF8 = Fault("", "is not UTF-8; the engine answers the train call with 500", SAVE_AS_UTF8)
GBK = Fault(
    "", "is not UTF-8 but reads as GBK; the engine answers the train call with 500", SAVE_AS_UTF8, change=ENCODING
)
NOT_LINES = Fault(
    "",
    "begins an array, or an object of several lines; the engine refuses both",
    "write one object a line",
    change=ARRAY,
)

decode = msgspec.json.Decoder().decode
"""Quick, and sure: what it reads, the engine's JSON reads the same, and UTF-8 can carry it. What it refuses (NaN,
numbers out of range, half a surrogate pair) `read` may be able to."""

AFTER_THE_ROW = "remove the comma after the row: rows are lines here, not the items of an array"

_TRAILING_COMMA = re.compile(r",\s*[}\]]")


class Cutter:
    r"""Cuts blocks of a file into lines, endings kept, as Python's text mode does: at ``\n``, ``\r\n`` and ``\r``.

    U+2028, U+0085 and their like end no line. What is longer than MAX_LINE comes in pieces.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._held = 0
        self._is_long = False

    def cut(self, block: bytes) -> list[bytes]:
        """Give the lines that are whole now."""
        # The \n of a last \r may be still to come.
        is_half = bool(self._parts) and self._parts[-1].endswith(b"\r")
        if not is_half and b"\n" not in block and b"\r" not in block:
            if self._is_long:
                return [block]
            self._parts.append(block)
            self._held += len(block)
            return self._given_up() if self._held > MAX_LINE else []
        lines = (b"".join(self._parts) + block if self._parts else block).splitlines(keepends=True)
        self._parts = [] if lines[-1].endswith(b"\n") else [lines.pop()]
        self._held = sum(map(len, self._parts))
        self._is_long = self._is_long and not lines
        return lines

    def rest(self) -> list[bytes]:
        """Give the last line, if it has no ending."""
        parts, self._parts = self._parts, []
        return [b"".join(parts)] if parts else []

    def _given_up(self) -> list[bytes]:
        self._is_long = True
        self._held = 0
        return self.rest()


def misread(head: bytes) -> Fault | None:
    """Tell if a file that begins like this holds no lines at all: further complaints would be noise."""
    if fault := foreign(head):
        return fault
    encoding = encoding_of(head)
    if encoding is not None and encoding.codec != "utf-8":
        return not_read(encoding)
    lines = head.removeprefix(MARK).splitlines()
    first = next((line for line in lines if line.strip()), b"").strip()
    is_open = first.startswith(b"{") and first.endswith((b"{", b"[", b",", b":")) and len(lines) > 1
    if first == b"{" or first.startswith(b"["):
        return NOT_LINES
    return NOT_LINES if is_open and without_comma(first) is None else None


def not_read(encoding: Encoding) -> Fault:
    """Give what is said of a file in another encoding than UTF-8."""
    return Fault("", f"is {encoding.name}; the engine answers the train call with 500", SAVE_AS_UTF8, change=ENCODING)


def without_comma(line: bytes) -> bytes | None:
    """Give the line without the comma behind its object; None if it is not just such an object and a comma."""
    bare = line.rstrip(b" \t\r\n")
    if not bare.endswith(b"},"):
        return None
    try:
        value = json.loads(bare[:-1].decode())
    except (ValueError, RecursionError):
        return None
    return bare[:-1] + line[len(bare) :] if isinstance(value, dict) else None


def read(line: bytes) -> Row | Fault:
    """Give the row of a line; like the engine's, this JSON knows NaN and takes the last of equal keys."""
    try:
        value = decode(line)
    except (ValueError, RecursionError):
        if not line.strip():
            return BLANK
        value = _slowly(line)
        if isinstance(value, Fault):
            return value
    if type(value) is not dict:
        return Fault("", f"is {kind(value)}, must be an object", "remove the line, or write a row in its place")
    return cast("Row", value)


def is_out_of_range(line: bytes) -> bool:
    """Tell whether the line holds a number that no double can hold; Python's JSON makes infinity of it."""
    try:
        decode(line)
    except (ValueError, RecursionError) as error:
        return "out of range" in str(error)
    return False


def repeated_key(line: bytes) -> str | None:
    """Give a key that the line's object has twice."""
    found: list[str] = []

    def look(pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        counts = Counter(key for key, _ in pairs) if len(made) < len(pairs) else {}
        found[:] = [key for key, count in counts.items() if count > 1][:1]
        return made

    try:
        json.loads(line, object_pairs_hook=look)
    except (ValueError, RecursionError):
        return None
    return found[0] if found else None  # the outermost object is looked at last


def _slowly(line: bytes) -> object:
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        return NOT_UTF8
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        said = error.msg.removesuffix(" at") if isinstance(error, json.JSONDecodeError) else str(error)
        at = f" at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
        if without_comma(line) is not None:
            return Fault("", f"is not JSON ({said}{at})", AFTER_THE_ROW, change=COMMAS)
        return Fault("", f"is not JSON ({said}{at})", _remedy(text.strip(), said))


def _remedy(text: str, said: str) -> str:
    if text.startswith(("{'", "{ '")):
        return "it is a Python dict: write rows with json.dumps(row, ensure_ascii=False)"
    if "\0" in text:
        return "it holds NUL bytes: remove them"
    if said.startswith("Exceeds the limit"):
        return "put the number in quotes, or leave it out"
    if said.startswith("maximum recursion"):
        return "it has too many brackets in brackets"
    if said.startswith("Invalid control character"):
        return "write tabs and line breaks inside texts as \\t and \\n"
    if text.endswith(","):
        return AFTER_THE_ROW
    if text.startswith("{") and not text.endswith("}"):
        return "the row is cut off, or goes over several lines: write line breaks inside texts as \\n"
    if _TRAILING_COMMA.search(text):
        return "remove the comma before the closing bracket"
    return "give every row a line of its own"


class ForeignLines:
    """Fed the lines of a file that are not UTF-8, tells whether they are likely to be GBK, all of them together."""

    def __init__(self) -> None:
        self._seen = Commonness()
        self._is_damaged = False

    def see(self, line: bytes) -> None:
        """Look at one of the lines."""
        try:
            self._seen.see(line.decode(GBK_ENCODING.codec))
        except UnicodeDecodeError:
            self._is_damaged = True

    @property
    def is_gbk(self) -> bool:
        """True if what has been seen so far is likely; the more lines, the surer."""
        return not self._is_damaged and self._seen.is_chinese
