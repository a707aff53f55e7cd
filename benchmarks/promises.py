"""Promises: what was measured beside what was promised, as a table and as an exit code."""

from collections.abc import Sequence

import attrs


@attrs.frozen
class Promise:
    """A figure, what it must be, in words, and whether it is."""

    what: str
    measured: str
    promised: str
    is_kept: bool
    beside: str = ""

    @classmethod
    def exactly(cls, what: str, measured: int, promised: int, beside: str = "") -> "Promise":
        """Promise a number."""
        return cls(what, f"{measured:,}", f"{promised:,}", measured == promised, beside)

    @classmethod
    def at_most(cls, what: str, measured: float, promised: float, beside: str = "") -> "Promise":
        """Promise a bound."""
        return cls(what, f"{_shown(measured)}", f"≤ {_shown(promised)}", measured <= promised, beside)

    @classmethod
    def none(cls, what: str, measured: str, beside: str = "") -> "Promise":
        """Give a figure for the table's reader; nothing is promised."""
        return cls(what, measured, "", True, beside)


def judge(title: str, promises: Sequence[Promise], *, ours: str = "gts_async", beside: str = "") -> int:
    """Print the table; gives the exit code: 1 if a promise is broken."""
    rows = [(p.what, p.measured, p.beside, p.promised, "" if p.is_kept else "BROKEN") for p in promises]
    table = [("", ours, beside, "promised", ""), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(5)]
    print(f"\n{title}")
    for what, measured, other, promised, verdict in table:
        cells = [what.ljust(widths[0]), measured.rjust(widths[1])]
        cells += [other.rjust(widths[2])] if beside else []
        print("  ".join([*cells, promised.rjust(widths[3]), verdict]).rstrip())
    return int(not all(p.is_kept for p in promises))


def _shown(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:,.4g}" if number < 1000 else f"{number:,.0f}"
