"""Waiting for many pieces of work at once: as each is settled, or for all in their order."""

from collections.abc import Awaitable, Iterable
from typing import Any, Protocol, TypeVar

from gts_async._errors import NotFound, WorkError, WorkFailed, WorkStopped
from gts_async._flow.clock import Clock
from gts_async._flow.fanout import FanOut, Outcome

Look_co = TypeVar("Look_co", covariant=True)
H = TypeVar("H", bound="Waitable[Any]")


class Waitable(Protocol[Look_co]):
    """A handle that can be waited for."""

    def wait(self, *, deadline: float | None = None) -> Awaitable[Look_co]:
        """Give the final look."""
        ...


def as_finished(handles: Iterable[H], clock: Clock, *, deadline: float | None) -> FanOut[H, H, Any]:
    """Give an outcome per handle as each is settled; `deadline` (seconds) is for all of them together."""
    every = list(handles)
    until = clock.now() + deadline if deadline is not None else None

    async def work(handle: H) -> list[Outcome[H, Any]]:
        left = None if until is None else max(until - clock.now(), 1e-6)
        try:
            return [Outcome(handle, await handle.wait(deadline=left))]
        except (WorkError, NotFound) as error:
            return [Outcome(handle, error=error)]

    return FanOut(work, every, max_at_once=max(1, len(every)), max_ahead=len(every) + 1, clock=clock)


async def wait_all(handles: Iterable[H], clock: Clock, *, deadline: float | None) -> list[Any]:
    """Give the final looks in the order of `handles`; an error stands in the place of a look that never came."""
    every = list(handles)
    finals: dict[int, Any] = {}
    async with as_finished(every, clock, deadline=deadline) as outcomes:
        async for outcome in outcomes:
            finals[id(outcome.item)] = _final(outcome)
    return [finals[id(handle)] for handle in every]


def _final(outcome: Outcome[H, Any]) -> Any:
    """Give the look that settled the work, however it ended, or the error that stands in its place."""
    error = outcome.error
    if isinstance(error, (WorkFailed, WorkStopped)):
        return error.last_look
    return error if error is not None else outcome.unwrap()
