"""Runs a command's coroutine so that signals end it in an orderly way: cancelled once, and waited for."""

import asyncio
import signal
from collections.abc import Coroutine, Mapping
from typing import Any

from gts_async.cli.exits import Exit

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(main: Coroutine[Any, Any, int], *, ends: Mapping[int, int] | None = None) -> int:
    """Give the exit code of `main`, or of the signal that ended it (130, unless `ends` says otherwise).

    Further signals do nothing, for every clean-up is bounded and must not be cut short; SIGINT stays ignored after a
    signal, since the process is on its way out.
    """
    return asyncio.run(_interruptible(main, ends or {}))


async def _interruptible(main: Coroutine[Any, Any, int], ends: Mapping[int, int]) -> int:
    loop = asyncio.get_running_loop()
    caught: list[int] = []
    task = loop.create_task(main, name="command")

    def stop(number: int) -> None:
        if not caught:
            caught.append(number)
            task.cancel()

    for number in SIGNALS:
        # Whoever started us with a signal ignored (nohup, a shell's background) wants it so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop, number)
    await asyncio.wait([task])
    if task.cancelled() and caught:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return ends.get(caught[0], Exit.INTERRUPTED)
    return task.result()
