"""Memory: how much of it this process holds, and whether that drifts."""

import ctypes
import gc
import itertools
import statistics
import sys
from collections.abc import Sequence

import attrs

_C = ctypes.CDLL(None)


def resident() -> int:
    """Give the bytes of this process's memory that are resident: the exact figure, not the cheap one."""
    with open("/proc/self/smaps_rollup", "rb") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(b"Rss:")) * 1024


def forget_peak() -> None:
    """Let the highest memory count from now on."""
    with open("/proc/self/clear_refs", "wb") as file:
        file.write(b"5")


def peak() -> int:
    """Give the most bytes that were resident since `forget_peak`, or since the process began."""
    with open("/proc/self/status", "rb") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(b"VmHWM:")) * 1024


def collect() -> None:
    """Free what nobody refers to any more, and give the system back what is free."""
    gc.collect()
    if hasattr(_C, "malloc_trim"):
        _C.malloc_trim(0)


class _Mallinfo(ctypes.Structure):
    """What glibc's mallinfo2(3) gives."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names)


def handed_out() -> int:
    """Count the bytes that malloc has handed out, exactly: objects above 512 bytes and what libraries hold.

    0 where there is no glibc 2.33.
    """
    if not hasattr(_C, "mallinfo2"):
        return 0
    _C.mallinfo2.restype = _Mallinfo
    told = _C.mallinfo2()
    return int(told.uordblks) + int(told.hblkhd)


def blocks() -> int:
    """Count the objects and parts of objects that are alive, exactly; those above 512 bytes are not among them."""
    return sys.getallocatedblocks()


@attrs.frozen
class Trend:
    """A slope, and between which slopes it lies with 95 %."""

    slope: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, times: Sequence[float], values: Sequence[float]) -> "Trend":
        """Fit by Theil and Sen: the median of the slopes between any two points, which outliers and steps hardly move.

        The bounds are Sen's, from the ranks of those slopes; they take the points for independent of each other.
        """
        points = sorted(zip(times, values, strict=True))
        slopes = sorted((b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(points, 2) if b[0] > a[0])
        if not slopes:
            return cls(0.0, float("-inf"), float("inf"))
        count = len(points)
        reach = 1.96 * (count * (count - 1) * (2 * count + 5) / 18) ** 0.5
        low, high = int((len(slopes) - reach) / 2), int((len(slopes) + reach) / 2) + 1
        return cls(
            statistics.median(slopes),
            slopes[low] if low >= 0 else float("-inf"),
            slopes[high] if high < len(slopes) else float("inf"),
        )
