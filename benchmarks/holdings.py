"""Holdings: what a session holds at this moment. For that it is looked into, which nobody else should do."""

import asyncio
import os
import time
from typing import Any

import attrs

from gts_async import AsyncSession


@attrs.frozen
class Holdings:
    """Slots in use, places that are missing at the gates, connections kept for later, connections being closed."""

    slots: int
    lost: int
    idle: int
    closing: int

    @property
    def are_at_rest(self) -> bool:
        """True if no more is held than idle connections."""
        return not (self.slots or self.lost or self.closing)


class Inside:
    """An open session's insides: its calls to both services, and the slots that these share."""

    def __init__(self, session: AsyncSession) -> None:
        client: Any = session._client
        self._transport: Any = client._transport
        self._exchanges = (session._engine.exchange, session._cloud.exchange)
        self._limits = session._limits

    def holdings(self) -> Holdings:
        """Tell what is held at this moment."""
        transport, limits = self._transport, self._limits
        gates = [limits.max_connections - origin.gate._value for origin in transport._origins.values()]
        throttled = [exchange._throttle.active for exchange in self._exchanges]
        in_flight = limits.max_in_flight - self._exchanges[0]._in_flight._value
        lost = sum(gates) + sum(throttled) + in_flight
        return Holdings(transport.in_use, lost, transport.idle, len(transport._closing))

    async def at_rest(self, within: float) -> Holdings:
        """Wait until nothing is in use or being closed any more, but not for ever; gives what is held then."""
        until = time.monotonic() + within
        while not (held := self.holdings()).are_at_rest and time.monotonic() < until:
            await asyncio.sleep(0.02)
        return held

    def let_go(self) -> None:
        """Close the idle connections now, as would happen by itself after some seconds without calls."""
        for origin in self._transport._origins.values():
            for _, slot in origin.idle:
                self._transport._close_later(slot)
            origin.idle.clear()


def tasks() -> int:
    """Count the tasks of this loop, the one that asks left out."""
    return len(asyncio.all_tasks()) - 1


def open_files() -> int:
    """Count the file descriptors of this process."""
    return len(os.listdir("/proc/self/fd")) - 1
