"""Follows work: a line for every transition, and on the way out how to pick the wait up again."""

import asyncio
from typing import TYPE_CHECKING

from gts_async._errors import DeadlineExceeded
from gts_async.cli.exits import Exit
from gts_async.cli.records import WELL, style_of, transition_record, transition_words
from gts_async.cli.show import Show

if TYPE_CHECKING:
    from gts_async._job import Job
    from gts_async._task import Task, TrainingRun


async def follow(
    handle: "TrainingRun | Task | Job",
    show: Show,
    *,
    deadline: float | None,
    stalled_after: float | None,
    again: str,
) -> Exit:
    """Show the transitions of a handle's work until it is settled; OK if it ended well, FAILED if not.

    When the wait is interrupted or its deadline passes, `again` is said to be what picks it up: the work goes on.
    Raises what a watch raises.
    """
    status = ""
    try:
        with show.progress(handle.id) as progress:
            async for change in handle.watch(deadline=deadline, stalled_after=stalled_after, progress=progress):
                status = change.status.name.lower()
                text = f"{change.elapsed:6.1f} s  {handle.id}  {transition_words(change)}"
                show.data(transition_record(handle.id, change), text, style_of(status))
    except (asyncio.CancelledError, DeadlineExceeded):
        show.talk(f"the work itself goes on; pick it up with:\n  {again}")
        raise
    return Exit.OK if status in WELL else Exit.FAILED
