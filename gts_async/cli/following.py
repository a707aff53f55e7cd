"""Follows a watch: a line for every transition, and on the way out how to pick the wait up again."""

import asyncio
from typing import Any

from gts_async._errors import DeadlineExceeded
from gts_async._flow.watch import Watch
from gts_async.cli.exits import Exit
from gts_async.cli.records import WELL, style_of, transition_record, transition_words
from gts_async.cli.show import Show


async def follow(watch: Watch[Any], show: Show, *, again: str) -> Exit:
    """Show transitions until the work is settled; OK if it ended well, FAILED if not.

    When the wait is interrupted or its deadline passes, `again` is said to be what picks it up: the work goes on.
    Raises what the watch raises.
    """
    handle_id: str = watch.handle.id
    status = ""
    try:
        with show.live(handle_id) as update:
            async for change in watch:
                status = change.status.name.lower()
                text = f"{change.elapsed:6.1f} s  {handle_id}  {transition_words(change)}"
                show.data(transition_record(handle_id, change), text, style_of(status))
                update(f"{handle_id}  {status}")
    except (asyncio.CancelledError, DeadlineExceeded):
        show.talk(f"the work itself goes on; pick it up with:\n  {again}")
        raise
    return Exit.OK if status in WELL else Exit.FAILED
