"""How the engine reads one line of a data file, and what to say where it cannot.

What the row then must hold is in `rows`, what a file of them must be in `datafiles`.
"""

import json
from typing import cast

import msgspec

from gts_async.gts.rows import Fault, Row, kind

MARK = b"\xef\xbb\xbf"
SAVE_AS_UTF8 = "save the file as UTF-8, without byte order mark"

BYTE_ORDER_MARK = Fault("", "begins with a byte order mark; the engine's check refuses the file", SAVE_AS_UTF8)
BLANK = Fault("", "is blank; the engine's check refuses the file", "remove blank lines, at the end of the file too")
NOT_UTF8 = Fault("", "is not UTF-8; the engine answers the train call with 500", SAVE_AS_UTF8)
GBK = Fault("", "is not UTF-8 but reads as GBK; the engine answers the train call with 500", SAVE_AS_UTF8)
UTF16 = Fault("", "is UTF-16 or binary; the engine answers the train call with 500", SAVE_AS_UTF8)
NOT_LINES = Fault(
    "", "begins an array, or an object of several lines; the engine refuses both", "write one object a line"
)


def misread(start: bytes) -> Fault | None:
    """Tell if a file whose first line is `start` holds no lines at all: further complaints would be noise."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start:
        return UTF16
    begins = start.removeprefix(MARK).strip()
    return NOT_LINES if begins == b"{" or begins.startswith(b"[") else None


def read(piece: bytes) -> Row | Fault:
    """Give the row of a line; like the engine's, this JSON knows NaN and takes the last of equal keys."""
    if not piece.strip():
        return BLANK
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return GBK if _reads_as(piece, "gb18030") else NOT_UTF8
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            return Fault("", f"is not JSON ({error})", "give every row a line of its own")
    if not isinstance(value, dict):
        return Fault("", f"is {kind(value)}, must be an object")
    return cast("Row", value)


def _reads_as(piece: bytes, encoding: str) -> bool:
    try:
        piece.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
