"""Finds out what a data file is, and reads its lines in UTF-8 if they can be told: other encodings, arrays of rows.

What a corrected copy then changes in the lines is in ``gts/repairs.py``, who writes it in `repair`.
"""

import codecs
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs

from gts_async._files.steady import LINE, STEP, blocks
from gts_async.gts.faults import ARRAY, BYTE_ORDER_MARKS, ENCODING
from gts_async.gts.formats import GBK, HEAD, MARKED_UTF8, Commonness, Encoding, encoding_of, foreign, unmarked
from gts_async.gts.jsonlines import MAX_LINE, NOT_LINES, Cutter, ForeignLines, misread
from gts_async.gts.repairs import lines_of

MAX_ARRAY = 32 << 20
"""Bytes of an array, or of objects over several lines, that are still turned into lines: it is read whole."""

PARTLY_GBK = "GBK in some lines"

Lines = Callable[[], Iterator[bytes]]


@attrs.frozen
class Original:
    """How a file's lines are read in UTF-8, as often as needed, and what has been changed in them for that.

    `encoding` is what the file was in, empty if that is UTF-8.
    """

    lines: Lines
    changes: Mapping[str, int]
    encoding: str = ""


def understood(path: Path, what: str) -> Generator[int, None, Original | str]:
    """Find out what a file is; gives why it cannot be corrected where it is no text of rows at all.

    Yields now and then, for a chance to cancel. Raises FileMissing and FileError, which say `what` could not be done.
    """
    head = next(blocks(path, what), b"")[:HEAD]
    if fault := foreign(head):
        return fault.why
    encoding = encoding_of(head)
    if encoding is None or encoding == MARKED_UTF8:
        is_marked = encoding is not None
        if (yield from _decodes(path, what, MARKED_UTF8)):
            encoding = None
        elif not is_marked and (yield from _decodes(path, what, GBK)):
            encoding = GBK
        elif count := (yield from _lines_in_gbk(path, what)):
            marks = {BYTE_ORDER_MARKS: 1} if is_marked else {}
            return Original(partial(_in_utf8_by_line, path, what), {**marks, ENCODING: count}, PARTLY_GBK)
        else:
            encoding = None
    elif not (yield from _decodes(path, what, encoding)):
        return f"is {encoding.name}, but damaged"
    changes = {} if encoding is None else {ENCODING: 1}
    name = "" if encoding is None else encoding.name
    read = partial(_in_utf8, path, what, encoding)
    start = b"".join(_first(read(), HEAD))
    if misread(start) == NOT_LINES and path.stat().st_size <= MAX_ARRAY:
        with suppress(ValueError, RecursionError):
            text = b"".join(read()).decode("utf-8-sig")
            rows = 0
            for _ in lines_of(text):  # read to the end first: half a file of rows would hide that the rest is broken
                rows += 1
                if rows % 1000 == 0:
                    yield 0
            marks = {BYTE_ORDER_MARKS: 1} if encoding_of(head) == MARKED_UTF8 else {}
            return Original(partial(lines_of, text), {**changes, **marks, ARRAY: rows}, name)
    return Original(partial(_lines, read), changes, name)


def _decodes(path: Path, what: str, encoding: Encoding) -> Generator[int, None, bool]:
    """Tell whether the whole file is likely to be in that encoding."""
    decoder = codecs.getincrementaldecoder(encoding.codec)()
    seen = Commonness()
    done = 0
    try:
        for block in blocks(path, what):
            text = decoder.decode(block)
            if encoding == GBK:
                seen.see(text)
            done += len(block)
            if done >= STEP:
                yield done
                done = 0
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return seen.is_chinese


def _lines_in_gbk(path: Path, what: str) -> Generator[int, None, int]:
    """Count the lines that are not UTF-8; gives 0 if not all of them are likely to be GBK."""
    others = ForeignLines()
    count = done = 0
    for line in _lines(partial(blocks, path, what)):
        done += len(line) + LINE
        if done >= STEP:
            yield done
            done = 0
        if not _is_utf8(line):
            others.see(unmarked(line))
            count += 1
    return count if others.is_gbk else 0


def _in_utf8(path: Path, what: str, encoding: Encoding | None) -> Iterator[bytes]:
    if encoding is None:
        yield from blocks(path, what)
        return
    decoder = codecs.getincrementaldecoder(encoding.codec)()
    mark = encoding.mark
    for block in blocks(path, what):
        yield decoder.decode(block[mark:]).encode()
        mark = 0


def _in_utf8_by_line(path: Path, what: str) -> Iterator[bytes]:
    for line in _lines(partial(blocks, path, what)):
        yield line if _is_utf8(line) else unmarked(line).decode(GBK.codec).encode()


def _is_utf8(line: bytes) -> bool:
    if len(line) > MAX_LINE:
        return True  # a piece of a line, which may begin or end within a sign, and is no row anyway
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _lines(read: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    cutter = Cutter()
    for block in read():
        yield from cutter.cut(block) if block else ()
    yield from cutter.rest()


def _first(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    for piece in pieces:
        yield piece[:size]
        size -= len(piece)
        if size <= 0:
            return
