"""What is wrong with a value, and how values are called when that is said; the rules are in `rows`."""

import unicodedata
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache

import attrs

MISSING = "is missing"
MAX_KEY, MAX_KEYS = 40, 40
"""Characters of a key, and keys of a row, that are compared with one that is missing."""
TEXT_KEYS = ("content", "text", "sentence1", "sentence")
"""What the one text of a row is called, in the engine's task types and by people."""
PAIR = ("sentence1", "sentence2")
"""Keys that look alike, and of which neither is meant by the other."""
HALF_A_PAIR = "holds half of a surrogate pair, which no UTF-8 can carry"

ENCODING = "encoding"
BYTE_ORDER_MARKS = "byte_order_mark"
ARRAY = "array"
BLANK_LINES = "blank_lines"
COMMAS = "commas"
IDS = "ids"
NUMBER_LABELS = "number_labels"
"""The kinds of change that a corrected copy makes, see `repairs`."""


@attrs.frozen
class Fault:
    """What is wrong with one field of one row.

    With a warning, the training still comes to its end. `change` is the kind of change that does away with the fault,
    empty if none does.
    """

    field: str
    why: str
    remedy: str = ""
    is_warning: bool = False
    change: str = ""


WRITE_A_STRING = "write a string, or leave the row out"


def missing(field: str, row: Iterable[object]) -> Fault:
    """Give the fault of a row without that field; a key that is written nearly like it may be what was meant."""
    meant = _nearest(field, tuple(key for key in row if isinstance(key, str) and len(key) <= MAX_KEY)[:MAX_KEYS])
    return Fault(field, MISSING, "add it" if meant is None else f"it may be the key {shown(meant)}: rename that")


def no_string(field: str, value: object) -> Fault:
    """Give the fault of a value that must be a string."""
    remedy = f'write "{value}", in quotes' if is_number(value) and len(str(value)) <= MAX_KEY else WRITE_A_STRING
    return Fault(field, f"is {kind(value)}, must be a string", remedy)


def bare(text: str) -> str:
    """Give a text without what the eye passes over: case, space, full width."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


@lru_cache(maxsize=256)
def _nearest(field: str, keys: tuple[str, ...]) -> str | None:
    known = {bare(key): key for key in keys}
    others = [name for name, key in known.items() if key not in PAIR]
    found = get_close_matches(bare(field), others, n=1, cutoff=0.75)
    if not found and field in TEXT_KEYS:
        found = [key for key in TEXT_KEYS if key in known and not (field in PAIR and key in PAIR)]
    return known[found[0]] if found else None


def kind(value: object) -> str:
    """Give what `value` is, in JSON's words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    names = ((str, "a string"), ((int, float), "a number"), (Mapping, "an object"), ((list, tuple), "an array"))
    return next((name for types, name in names if isinstance(value, types)), f"a {type(value).__name__}")


def shown(value: object) -> str:
    """Give `value` short, for a message."""
    if value is None:
        return "null"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def is_number(value: object) -> bool:
    """True for a JSON number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_unicode(text: str) -> bool:
    """False if UTF-8 cannot carry `text`: it holds a lone surrogate."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
