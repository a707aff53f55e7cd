"""Looking: makes the looks whose turn it is, in the task of whoever waits for them, and shows them to all."""

import asyncio

from gts_async._errors import GtsAsyncError
from gts_async._flow.eye import RESTING, Turns
from gts_async._flow.lane import FEW_LOOKING

BREATH = 0.002
"""Seconds after which the loop gets a turn, however many looks are answered at once."""


async def look_all(turns: Turns) -> None:
    """Make the looks of `turns` one after the other, until none is left; those of a listing are all made by it.

    A look that is cut (by cancellation) is given to the next who follows.
    """
    if not turns:
        return
    lane = turns[0].lane
    hub, now, is_shared = lane.hub, lane.hub.now, turns.is_shared
    until = now() + BREATH
    # All looks of tens of thousands of watches go through here: what is short is written out, not called.
    while turns:
        eye = turns.popleft()
        if is_shared and turns:
            # Others go on with the rest for as long as this one waits for its answer.
            turns.tell()
        if eye.lane is not lane:
            lane = eye.lane
            hub = lane.hub
        if lane.listing is not None and lane.listing.is_better(eye, now()):
            await lane.listing.read(eye)
            continue
        number = hub.number = hub.number + 1
        is_rung = False
        if eye.own_looks and eye.is_rung:
            is_rung, eye.is_rung = True, False
            lane.rung.add(eye.work_id)
        try:
            sighting = await lane.glance(eye.work_id)
        except GtsAsyncError as error:
            # Something that was seen, too.
            sighting = error
        except BaseException:
            # What rang has not been seen.
            eye.is_rung = eye.is_rung or is_rung
            lane.release(eye)
            hub.again(eye)
            raise
        eye.state = RESTING
        lane.looking -= 1
        if eye.own_looks:
            is_rung = eye.is_rung
            if not is_rung:
                eye.own_looks -= 1
        seen_at = now()
        follower = eye.only
        if (
            follower is not None
            and follower.wants_changes_only
            and not is_rung
            and (wait := follower.course.stays(sighting, number, seen_at)) is not None
        ):
            due = seen_at + wait
            lane.wheel.put(eye, due)
            if lane.listing is not None:
                lane.count(eye, wait)
            if due < hub.wakes_at:
                hub.wake_by(due, seen_at)
        else:
            hub.show(eye, sighting, number, seen_at)
        if lane.has_waiting and lane.looking <= FEW_LOOKING:
            hub.dispatch()
        if seen_at > until:
            await asyncio.sleep(0)
            until = now() + BREATH
