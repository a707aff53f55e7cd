"""Fingerprints: which texts and ids a file has shown before, in a table of fixed size however large the file is."""

from array import array
from collections.abc import Hashable, Iterator

FEWEST_SLOTS = 1 << 10
MAX_SLOTS = 1 << 18
"""Slots of a full table; 16 bytes each, so 4 MiB."""

MAX_LINE_NUMBER = (1 << 32) - 1
_SAMPLING_BITS = 40
"""Where in a key the bits are that decide whether it is still kept; the lower ones choose its slot."""


class Fingerprints:
    """64-bit keys, each with the line that showed it first and 32 bits of its value.

    All keys are kept up to 5/8 of the slots. From then on only those with a certain bit at 0, later two bits, and so
    on: `share` is 2 when every second key is kept, and what is found is still spread evenly over the whole file.
    """

    def __init__(self, most: int = MAX_SLOTS) -> None:
        self._most = most
        self._sampled = 0
        self._clear(min(FEWEST_SLOTS, most))

    @property
    def share(self) -> int:
        """One key in how many is kept; a power of 2."""
        return self._sampled + 1

    def __len__(self) -> int:
        """Give how many keys are kept."""
        return self._count

    def put(self, key: int, value: int, line: int) -> int:
        """Give the slot where the key has been since an earlier line; -1 if it is new, or not one of those kept."""
        key = key or 1
        if (key >> _SAMPLING_BITS) & self._sampled:
            return -1
        keys, mask = self._keys, self._mask
        slot = key & mask
        while found := keys[slot]:
            if found == key:
                return slot
            slot = (slot + 1) & mask
        keys[slot] = key
        self._values[slot] = value & 0xFFFFFFFF
        self._lines[slot] = line if line < MAX_LINE_NUMBER else MAX_LINE_NUMBER
        self._count += 1
        if self._count > self._room:
            self._make_room()
        return -1

    def line(self, slot: int) -> int:
        """Give the line that the slot's key was first on."""
        return self._lines[slot]

    def is_value(self, slot: int, value: int) -> bool:
        """Tell whether the slot's key came with this value at first."""
        return self._values[slot] == value & 0xFFFFFFFF

    def shared(self, other: "Fingerprints") -> Iterator[tuple[int, int, bool]]:
        """Give each key that both have: its line here, its line there, and whether the values are the same."""
        keys, mask, sampled = other._keys, other._mask, other._sampled
        for place, key in enumerate(self._keys):
            if not key or (key >> _SAMPLING_BITS) & sampled:
                continue
            slot = key & mask
            while found := keys[slot]:
                if found == key:
                    yield self._lines[place], other._lines[slot], self._values[place] == other._values[slot]
                    break
                slot = (slot + 1) & mask

    def _clear(self, slots: int) -> None:
        self._keys = array("q", bytes(8 * slots))
        self._lines = array("I", bytes(4 * slots))
        self._values = array("I", bytes(4 * slots))
        self._mask = slots - 1
        self._room = slots * 5 // 8
        self._count = 0

    def _make_room(self) -> None:
        keys, values, lines = self._keys, self._values, self._lines
        slots = self._mask + 1
        if slots >= self._most:
            self._sampled = self._sampled * 2 + 1
        self._clear(min(4 * slots, self._most))
        for slot, key in enumerate(keys):
            if key:
                self.put(key, values[slot], lines[slot])


class Ids:
    """The ids of one file's rows. Those that count up from the first by one take no memory at all."""

    def __init__(self, most: int = MAX_SLOTS) -> None:
        self._first: int | None = None
        self._next = 0
        self._others: Fingerprints | None = None
        self._most = most

    @property
    def share(self) -> int:
        """One id in how many is compared."""
        return 1 if self._others is None else self._others.share

    def is_known(self, value: Hashable, line: int) -> bool:
        """Tell whether an earlier row had this id; notes it."""
        if type(value) is int:
            if self._first is None:
                self._first = self._next = value
            if self._first <= value < self._next:
                return True
            if value == self._next:
                self._next += 1
                return self._others is not None and self._others.put(hash((value,)), 0, line) >= 0
        if self._others is None:
            self._others = Fingerprints(self._most)
        return self._others.put(hash((value,)), 0, line) >= 0
