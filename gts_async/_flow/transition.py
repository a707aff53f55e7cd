"""Transition: a change between two looks at remote work, and what looks and a service's rules for them must offer."""

from datetime import datetime
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

import attrs


class Look(Protocol):
    """One observation: a status, and when it was made."""

    @property
    def status(self) -> Enum:
        """What the work is doing."""
        ...

    @property
    def observed_at(self) -> datetime | None:
        """When that was seen."""
        ...


L = TypeVar("L", bound=Look)


@attrs.frozen
class Transition(Generic[L]):
    """A change between two looks.

    `previous` is None for what was found at the start. `elapsed` is in seconds since the watch began; `observed_at` is
    aware, UTC. A stage that must have been passed between two looks `is_synthesized`; the last transition `is_final`;
    one to an earlier stage `is_backward` (the cloud has requeued the job, say).
    """

    previous: Any
    status: Any
    look: L
    observed_at: datetime
    elapsed: float
    is_synthesized: bool = False
    is_final: bool = False
    is_backward: bool = False

    def __str__(self) -> str:
        before = f"{self.previous.name.lower()} → " if self.previous is not None else ""
        mark = " (unseen)" if self.is_synthesized else " (backward)" if self.is_backward else ""
        return f"{self.elapsed:6.1f} s  {before}{self.status.name.lower()}{mark}"


class Progress(Protocol[L]):
    """A service's rules for one piece of work, fed with looks."""

    @property
    def final(self) -> L | None:
        """The look that settled the work, or None."""
        ...

    @property
    def calm(self) -> Enum | None:
        """The status whose mere repetition would teach nothing, if there is one; no look is wanted sooner then."""
        ...

    def see(self, sighting: L | Exception, now: float) -> tuple[L, ...]:
        """Give the looks to believe after `sighting`, in order, if any; raises WorkLost or WorkStalled."""
        ...

    def between(self, previous: Any, look: L) -> tuple[L, ...]:
        """Give what would have been seen of the stages that were passed between the status before and `look`."""
        ...

    def is_backward(self, previous: Any, status: Any) -> bool:
        """True if work that makes headway does not go from the one status to the other."""
        ...

    def wants_look_within(self, now: float) -> float | None:
        """Give the seconds within which the next look is wanted, whatever the schedule; None: as scheduled."""
        ...
