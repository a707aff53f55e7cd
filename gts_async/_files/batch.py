"""Batch: what has arrived of a body and is to be written at once. Who writes it is in `download`."""

BATCH = 2 << 20
"""Bytes written at a time; twice that is in memory, one batch being written while the next arrives."""


class Batch:
    """Two rooms of `BATCH` bytes, filled in turn.

    The pieces are copied into them and not kept: thousands of tiny ones would cost more than what is in them, and large
    ones, freed together, have the C library give their memory back and ask for it again each time.
    """

    def __init__(self) -> None:
        self.held = 0
        self._room = memoryview(bytearray(BATCH))
        self._other: memoryview | None = None

    @property
    def is_full(self) -> bool:
        """Tell whether it must be `taken` before more is added."""
        return self.held == BATCH

    def add(self, piece: memoryview) -> memoryview:
        """Take as much of the piece as there is room for; gives the rest."""
        count = min(len(piece), BATCH - self.held)
        self._room[self.held : self.held + count] = piece[:count]
        self.held += count
        return piece[count:]

    def taken(self) -> memoryview:
        """Give what is held, to be written, and begin with the other room, whose bytes must have been written."""
        held = self._room[: self.held]
        self._room, self._other = self._other or memoryview(bytearray(BATCH)), self._room
        self.held = 0
        return held
