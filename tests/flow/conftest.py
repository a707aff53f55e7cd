"""A scripted service on the fake clock, and handles of its works: what tests of the watching share."""

import asyncio
from collections import Counter
from enum import Enum

import attrs
import pytest

from gts_async import Schedule, WorkFailed
from gts_async._flow.course import Course, Setting
from gts_async._flow.experience import Experience
from gts_async._flow.hub import Hub
from gts_async._flow.lane import Lane
from gts_async._flow.listing import Page
from gts_async._flow.watch import Watch
from gts_async.testing import FakeClock


class Stage(Enum):
    QUEUED = 0
    RUNNING = 1
    PAUSED = 2
    SUCCEEDED = 3
    FAILED = 4
    UNKNOWN = 5


@attrs.frozen
class Look:
    status: Stage
    observed_at: object = attrs.field(default=None, eq=False)


LOOKS = {stage: Look(stage) for stage in Stage}


class Progress:
    """Believes every look; SUCCEEDED and FAILED settle; to succeed, one must have run."""

    def __init__(self):
        self.final = self.calm = None

    def see(self, sighting, now):
        if isinstance(sighting, Exception):
            return ()
        is_final = sighting.status in (Stage.SUCCEEDED, Stage.FAILED)
        self.final, self.calm = (sighting, None) if is_final else (None, sighting.status)
        return (sighting,)

    def between(self, previous, look):
        return (LOOKS[Stage.RUNNING],) if (previous, look.status) == (Stage.QUEUED, Stage.SUCCEEDED) else ()

    def is_backward(self, previous, status):
        return (previous, status) == (Stage.RUNNING, Stage.QUEUED)

    def wants_look_within(self, now):
        return None


class Work:
    """A handle: its watches share one course."""

    def __init__(self, service, work_id, *, progress=None, **of_course):
        self.id = work_id
        self.service = service
        self.course = Course(service.setting, work_id, progress or Progress(), **of_course)

    def watch(self, **options):
        return Watch(self, self.course, self.service.lane, self.service.verdict, **options)

    def __repr__(self):
        return self.id


class Service:
    """Answers looks as scripted: `script[id]` are its steps, one a look, the last one for ever.

    A step is a Stage, or an error to raise. Looks take `takes` seconds, those at `hanging` ids for ever. `times` are
    the looks that have begun, as (id, time). With `listed`, there is a listing: pages of ids, each shown as its
    script says, or None for those in `unclear`.
    """

    def __init__(self, hub, *, listed=False, schedule=None, on_event=None, experience=None):
        self.hub = hub
        self.script, self.takes, self.hanging = {}, 0.0, set()
        self.times, self.looking, self.most = [], Counter(), 0
        self.pages, self.page_times, self.page_takes, self.unclear, self.page_error = None, [], 0.01, set(), None
        self.page_size = 100
        self.setting = Setting(
            clock=hub.clock,
            schedule=schedule or Schedule(fraction=0, minimum=1.0, maximum=1.0, jitter=0),
            experience=experience or Experience(),
            on_event=on_event,
            chance=lambda: 0.5,
        )
        self.lane = Lane(hub, self.glance, self.survey if listed else None)

    async def glance(self, work_id):
        self.times.append((work_id, self.hub.now()))
        step = self.step(work_id)
        self.looking[work_id] += 1
        self.most = max(self.most, self.looking.total())
        try:
            if work_id in self.hanging:
                await asyncio.get_running_loop().create_future()
            if self.takes:
                await self.hub.clock.sleep(self.takes)
        finally:
            self.looking[work_id] -= 1
        if isinstance(step, BaseException):
            raise step
        return LOOKS[step]

    def step(self, work_id):
        steps = self.script.get(work_id, [Stage.QUEUED])
        return steps.pop(0) if len(steps) > 1 else steps[0]

    async def survey(self, page):
        self.page_times.append((page, self.hub.now()))
        if self.page_takes:
            await self.hub.clock.sleep(self.page_takes)
        if self.page_error is not None:
            raise self.page_error
        ids = self.pages if self.pages is not None else list(self.lane.eyes)
        rows = ids[(page - 1) * self.page_size : page * self.page_size]
        looks = {work_id: None if work_id in self.unclear else self.step(work_id) for work_id in rows}
        # A listing shows a status or nothing.
        looks = {work_id: LOOKS.get(step) for work_id, step in looks.items()}
        return Page(looks, is_last=len(rows) < self.page_size)

    def verdict(self, final):
        return WorkFailed("it failed") if final.status is Stage.FAILED else None

    def work(self, work_id, *steps, **of_course):
        if steps:
            self.script[work_id] = list(steps)
        return Work(self, work_id, **of_course)

    def works(self, number, *steps):
        return [self.work(f"work-{n}", *steps) for n in range(number)]

    def looks_at(self, work_id):
        return [time for looked_at, time in self.times if looked_at == work_id]


class Scene:
    """A clock, a hub of so many looks a second, and its services."""

    def __init__(self):
        self.clock = FakeClock()
        self.hub = Hub(self.clock, 1e6)
        self.services = []
        self.before = asyncio.all_tasks()

    def allow(self, per_second):
        self.hub = Hub(self.clock, per_second)
        return self

    def service(self, **options):
        service = Service(self.hub, **options)
        self.services.append(service)
        return service

    async def turns(self, number=8):
        for _ in range(number):
            await asyncio.sleep(0)

    def check_rest(self):
        """Nobody waits any more: no look, no eye, no timer, no task is left."""
        for service in self.services:
            assert service.lane.looking == 0
            assert service.lane.eyes == {}
            assert service.looking.total() == 0
            assert not service.lane.has_ready()
            if service.lane.listing is not None:
                assert not service.lane.listing.is_being_read
                assert abs(service.lane.listing._rate) < 1e-6
        assert self.hub._alarm is None
        assert not self.hub._singles
        assert asyncio.all_tasks() - self.before <= {asyncio.current_task()}


@pytest.fixture
async def scene():
    return Scene()
