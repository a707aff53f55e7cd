"""Progress: how far a transfer has come, one small value for uploads, downloads and unpacking alike."""

from typing import Protocol

import attrs


@attrs.frozen
class Progress:
    """How far a transfer has come.

    `what` is the name of the file that is being worked on. `done` and `total` are bytes of the whole transfer: the
    form's body for an upload, the object for a download, the unpacked files for an archive. `total` is None while
    nobody has said. When a try fails and the next one begins anew, `done` falls back.

    Bytes that were sent have merely left this machine. Only `is_acknowledged` says that all is well: an upload was
    answered, a download was verified and stands under its own name, an archive is unpacked.
    """

    what: str
    done: int
    total: int | None = None
    is_acknowledged: bool = False

    @property
    def fraction(self) -> float | None:
        """What part of the whole is done, 0 to 1; None while the whole is unknown."""
        if self.total is None:
            return None
        return min(1.0, self.done / self.total) if self.total else 1.0

    def __str__(self) -> str:
        whole = "?" if self.total is None else f"{self.total:,}"
        return f"{self.what}: {self.done:,} of {whole} bytes" + (", done" if self.is_acknowledged else "")


class OnProgress(Protocol):
    """What is told of a transfer's progress: any callable of one argument.

    It is called on the event loop, a few times per transferred megabyte at most, so it must return at once. What it
    raises ends the transfer.
    """

    def __call__(self, progress: Progress, /) -> object:
        """Take note."""
        ...
