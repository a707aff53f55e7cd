"""What a wait does to the work when it ends before it."""

import asyncio

import pytest

from gts_async import DeadlineExceeded, InvalidArgument, WrongState
from gts_async._flow.exits import settled


class Handle:
    id = "job-1"


class Waiting:
    """Stands for a watch: gives a look, raises an error, or waits for ever."""

    handle = Handle()
    history = ()

    def __init__(self, ending=None):
        self.ending = ending

    async def settled(self):
        if isinstance(self.ending, Exception):
            raise self.ending
        if self.ending is None:
            await asyncio.Event().wait()
        return self.ending

    def judged(self, final):
        return final


class Stop:
    def __init__(self, error=None):
        self.error = error
        self.begun = self.ended = 0

    async def __call__(self):
        self.begun += 1
        for _ in range(5):
            await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.ended += 1


@pytest.mark.parametrize("on_exit", ["detach", "stop"])
async def test_settled_work_is_given_and_not_stopped(on_exit):
    stop = Stop()
    assert await settled(Waiting("look"), stop, on_exit) == "look"
    assert stop.begun == 0


@pytest.mark.parametrize(("on_exit", "stopped"), [("detach", 0), ("stop", 1)])
async def test_a_deadline_stops_the_work_only_if_asked_to(on_exit, stopped):
    stop = Stop()
    with pytest.raises(DeadlineExceeded):
        await settled(Waiting(DeadlineExceeded("late")), stop, on_exit)
    assert stop.ended == stopped


async def test_a_cancelled_wait_stops_the_work_before_it_ends(cancelled_after):
    for turns in range(1, 12):
        stop = Stop()
        await cancelled_after(turns, lambda stop=stop: settled(Waiting(), stop, "stop"))
        assert stop.begun == stop.ended
        assert stop.ended == 1 or turns < 3


@pytest.mark.parametrize("failure", [WrongState("it is over already"), TimeoutError("it takes too long")])
async def test_a_failure_to_stop_is_told_beside_the_error_of_the_wait(failure):
    with pytest.raises(DeadlineExceeded) as caught:
        await settled(Waiting(DeadlineExceeded("late")), Stop(failure), "stop")
    assert caught.value.__notes__ == [f"and it was not stopped: {failure}"]


async def test_a_wait_that_is_dropped_stops_nothing():
    stop = Stop()
    waiting = settled(Waiting(), stop, "stop")
    waiting.send(None)
    waiting.close()
    assert stop.begun == 0


async def test_another_way_out_is_refused():
    with pytest.raises(InvalidArgument, match="on_exit"):
        await settled(Waiting("look"), Stop(), "delete")
