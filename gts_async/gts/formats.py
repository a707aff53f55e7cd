"""What a data file is, told by its first bytes: JSON lines in some encoding, or something that was given by mistake.

How lines of JSON are read is in `jsonlines`.
"""

from typing import NamedTuple

from gts_async.gts.faults import Fault

HEAD = 4096
"""First bytes of a file that are enough to tell."""

MARK = b"\xef\xbb\xbf"
SAVE_AS_UTF8 = "save the file as UTF-8, without byte order mark"
_AS_LINES = 'save it as lines of JSON: {"content": ..., "label": ...}'


def unmarked(line: bytes) -> bytes:
    """Give the line without the byte order marks in front of it."""
    while line.startswith(MARK):
        line = line[len(MARK) :]
    return line


class Encoding(NamedTuple):
    """A way to write text that the engine does not read: Python's name for it, ours, and the length of its mark."""

    codec: str
    name: str
    mark: int = 0


GBK = Encoding("gb18030", "GBK")
MARKED_UTF8 = Encoding("utf-8", "UTF-8 with a byte order mark", len(MARK))

_MARKS = (
    (b"\xff\xfe\0\0", Encoding("utf-32-le", "UTF-32", 4)),
    (b"\0\0\xfe\xff", Encoding("utf-32-be", "UTF-32", 4)),
    (b"\xff\xfe", Encoding("utf-16-le", "UTF-16", 2)),
    (b"\xfe\xff", Encoding("utf-16-be", "UTF-16", 2)),
)
_FOREIGN = (
    (b"\x1f\x8b", "is compressed with gzip", "unpack it with gunzip"),
    (b"BZh", "is compressed with bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ\0", "is compressed with xz", "unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "unpack it with unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it, and give the file in it"),
    (b"Rar!", "is a RAR archive", "unpack it, and give the file in it"),
    (b"PAR1", "is a Parquet table", _AS_LINES),
    (b"ARROW1", "is an Arrow table", _AS_LINES),
    (b"\xd0\xcf\x11\xe0", "is an old Excel or Word document", _AS_LINES),
    (b"SQLite format 3", "is an SQLite database", _AS_LINES),
    (b"%PDF", "is a PDF document", _AS_LINES),
    (b"\x89HDF", "is an HDF5 file", _AS_LINES),
    (b"\x93NUMPY", "is a NumPy array", _AS_LINES),
    (b"\x80\x02", "is a Python pickle", _AS_LINES),
    (b"\x80\x03", "is a Python pickle", _AS_LINES),
    (b"\x80\x04", "is a Python pickle", _AS_LINES),
    (b"\x80\x05", "is a Python pickle", _AS_LINES),
)
_OFFICE = (
    (b"xl/", "is an Excel workbook"),
    (b"word/", "is a Word document"),
    (b"[Content_Types]", "is an Office file"),
)
_COMMONEST = 0.9


def encoding_of(head: bytes) -> Encoding | None:
    """Give the encoding that a file's first bytes prove, None for all that UTF-8 can begin with.

    JSON begins with an ASCII character: without a mark, the zeros around it tell (RFC 4627, section 3).
    """
    if head.startswith(MARK):
        return MARKED_UTF8
    marked = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)
    if marked is not None or len(head) < 4:
        return marked
    zeros = "".join("0" if byte == 0 else "x" for byte in head[:4])
    codecs = {
        "000x": Encoding("utf-32-be", "UTF-32"),
        "x000": Encoding("utf-32-le", "UTF-32"),
        "0x0x": Encoding("utf-16-be", "UTF-16"),
        "x0x0": Encoding("utf-16-le", "UTF-16"),
        # The second character may be Chinese.
        "0xxx": Encoding("utf-16-be", "UTF-16"),
        "x0xx": Encoding("utf-16-le", "UTF-16"),
    }
    return codecs.get(zeros)


def foreign(head: bytes) -> Fault | None:
    """Tell a file that was given by mistake: packed, a table, a web page; None for what may be text of rows."""
    for magic, why, remedy in _FOREIGN:
        if head.startswith(magic):
            return Fault("", f"{why}, not JSON lines", remedy)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        office = next((why for name, why in _OFFICE if name in head), None)
        return Fault("", f"{office or 'is a zip archive'}, not JSON lines", _AS_LINES if office else _UNPACK)
    if head[257:262] == b"ustar":
        return Fault("", "is a tar archive, not JSON lines", _UNPACK)
    if encoding_of(head) is None and b"\0" in head.partition(b"\n")[0]:
        return Fault("", "holds NUL bytes: it is damaged, or no text at all", "make the file anew")
    return _table(head)


_UNPACK = "unpack it, and give the file in it"


def _table(head: bytes) -> Fault | None:
    lines = head.removeprefix(MARK).splitlines()
    first = next((line for line in lines if line.strip()), b"").strip()
    if first[:1] == b"<":
        return Fault("", "is HTML or XML, not JSON lines", "it may be a log-in page that was saved for the file")
    # A quoted header of CSV is told from a JSON string by what follows it.
    if first[:1] in (b"{", b"[", b"") or (first[:1] == b'"' and b'",' not in first):
        return None
    if b"{" in first or not (b"," in first or b"\t" in first):
        return None
    what = "tab-separated text (TSV)" if b"\t" in first else "comma-separated text (CSV)"
    return Fault("", f"looks like {what}, not JSON lines", _AS_LINES)


class Commonness:
    """Tells whether text that decodes as GBK is likely to be meant: nearly all it holds besides ASCII is common.

    Almost every sequence of bytes decodes to something; other encodings give signs that nobody uses.
    """

    def __init__(self) -> None:
        self._others = self._common = 0

    def see(self, text: str) -> "Commonness":
        """Count the signs of a piece of the text."""
        ascii_signs = len(text.encode("ascii", "ignore"))
        self._others += len(text) - ascii_signs
        self._common += (len(text.encode("gb2312", "ignore")) - ascii_signs) // 2
        return self

    @property
    def is_chinese(self) -> bool:
        """True if what has been seen so far is likely."""
        return self._common >= _COMMONEST * self._others
