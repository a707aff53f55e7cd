"""What a wait does on its way out when the work is not settled: leave it alone, or stop it."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

from gts_async._errors import GtsAsyncError, InvalidArgument, WorkError
from gts_async._flow.shield import finished
from gts_async._flow.spans import wait_span
from gts_async._flow.transition import Look
from gts_async._flow.watch import RESUME, Watch

L = TypeVar("L", bound=Look)

OnExit = Literal["detach", "stop"]

STOP_TIME = 10.0
"""Seconds that stopping the work on the way out may take."""

log = logging.getLogger("gts_async")


async def settled(watch: Watch[L], stop: Callable[[], Coroutine[Any, Any, None]], on_exit: OnExit) -> L:
    """Give the watch's final look if it is a good end; raises WorkFailed or WorkStopped if not.

    If the wait ends in another way (deadline, cancellation, stall), the work goes on; with `on_exit="stop"` it is
    stopped first, in at most `STOP_TIME` seconds, even if the caller is cancelled. A failure of that is added to the
    error as a note.
    """
    if on_exit not in ("detach", "stop"):
        raise InvalidArgument("on_exit", f"there is no {on_exit!r}", "use 'detach' or 'stop'")
    try:
        with wait_span(watch):
            final = await watch.settled()
    except (Exception, asyncio.CancelledError) as error:
        if on_exit == "stop":
            try:
                await finished(stop(), within=STOP_TIME)
            except (GtsAsyncError, TimeoutError) as failure:
                why = str(failure) or f"not within {STOP_TIME:g} s"
                error.add_note(f"and it was not stopped: {why}")
                log.warning("%r: not stopped on the way out: %s", watch.handle, why)
            else:
                if isinstance(error, WorkError):
                    error.args = (str(error).replace(RESUME, "the work was stopped, as asked for"),)
        raise
    return watch.judged(final)
