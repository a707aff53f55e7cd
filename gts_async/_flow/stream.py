"""Stream: what `stream` gives its users: outcomes to iterate over, within a block. What is behind it is in `fanout`."""

from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from gts_async._flow.fanout import FanOut, Outcome

Item = TypeVar("Item")
Value = TypeVar("Value")


class Stream(Generic[Item, Value]):
    """Outcomes as they come: ``async with … as outcomes: async for outcome in outcomes``.

    Leaving the block cancels what is in flight. It runs once; tasks that share it get each outcome once. Raises
    MisuseError if it is iterated outside of its block.
    """

    def __init__(self, fan_out: FanOut[Any, Item, Value]) -> None:
        self._fan_out = fan_out

    async def __aenter__(self) -> Self:
        await self._fan_out.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._fan_out.__aexit__(kind, error, traceback)

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[Outcome[Item, Value]]:
        """Give the next outcome."""
        return self._fan_out.__anext__()

    def __repr__(self) -> str:
        return f"<Stream {'open' if self._fan_out.is_open else 'closed'}>"
