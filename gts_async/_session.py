"""AsyncSession: what users open and close: one pooled httpx client, an Exchange for each service, handles on demand."""

import asyncio
import random
import secrets
import warnings
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import suppress
from os import PathLike
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

import attrs
import msgspec

from gts_async._batch import Batch
from gts_async._cloud import Cloud
from gts_async._engine import Engine
from gts_async._errors import (
    InvalidArgument,
    MisuseError,
    NotFound,
    WorkError,
    WrongType,
)
from gts_async._flow.clock import Clock, SystemClock
from gts_async._flow.course import Setting
from gts_async._flow.exits import OnExit
from gts_async._flow.experience import Experience
from gts_async._flow.fanout import FanOut, Outcome
from gts_async._flow.hub import Hub
from gts_async._flow.many import AsFinished, wait_all, wait_any
from gts_async._flow.schedule import CLOUD_BOUNDS, ENGINE_BOUNDS, Schedule
from gts_async._flow.shield import finished
from gts_async._intent import Intent
from gts_async._job import Job, JobToken
from gts_async._net.client import USER_AGENT, Client, Transport
from gts_async._net.config import Limits, Timeouts
from gts_async._net.events import Hook
from gts_async._net.exchange import Exchange
from gts_async._net.lines import Lines
from gts_async._net.retry import RetryBudget, RetryPolicy
from gts_async._net.secret import AskForToken, Credential
from gts_async._net.settings import Settings
from gts_async._progress import OnProgress
from gts_async._reconciling import read_intent, reconciled_run, reconciled_task
from gts_async._submission import Submission, check_spec
from gts_async._task import RunToken, Task, TrainingRun
from gts_async.gts import calls as gts_calls
from gts_async.gts.values import TaskInfo, TaskType, check_name, check_pipeline
from gts_async.sxwl import calls as sxwl_calls
from gts_async.sxwl.checks import check_id
from gts_async.sxwl.values import GpuType, JobInfo, JobListing, JobSpec

Handle = TypeVar("Handle", Task, TrainingRun, Job, TrainingRun | Job)


@attrs.frozen
class Ping:
    """Seconds of a round trip to each configured service; None for one that is not configured."""

    engine: float | None = None
    cloud: float | None = None


class AsyncSession:
    """The way to a GTS Engine (`engine`), to the SXWL cloud (`cloud`, its URL ends in ``/api``), or to both.

    Each setting comes from its argument, else from the environment (``GTS_ASYNC_ENGINE``, ``_CLOUD``, ``_TOKEN``,
    ``_TOKEN_FILE``, ``_DIALECT``, ``_CA_FILE``, ``_STORE_HOSTS``), else from ``gts_async.toml`` in the working
    directory, else from the user's configuration file. `token` is a string, or an async callable that is asked for one
    and asked once more after a 401. `ca_file` is a PEM file of certificate authorities to trust besides the usual ones.
    `store_hosts` (names, addresses, ``*.name``) are the only hosts that downloads may then come from, and they may have
    private addresses; without it any public host may be one. `transport` and `http_client` take any httpx transport or
    client and use it untouched; a given client is not closed. (With a client of your own a lost answer is likelier: the
    engine closes the connection after each 500 without saying so, and httpx's own pool sends the next call into it.)
    `on_event` is called with each Event, on the loop. Constructing does no I/O.

    Use it with ``async with``, or call `aclose`. Raises InvalidArgument and WrongType; later MisuseError for a closed
    session or one that belongs to another event loop.
    """

    def __init__(
        self,
        *,
        engine: str | None = None,
        cloud: str | None = None,
        token: str | AskForToken | None = None,
        dialect: str | None = None,
        ca_file: str | PathLike[str] | None = None,
        store_hosts: str | Iterable[str] | None = None,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        schedule: Schedule | None = None,
        transport: Transport | None = None,
        http_client: Client | None = None,
        on_event: Hook | None = None,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
        allow_insecure_http: bool = False,
    ) -> None:
        credential = Credential(token) if token is not None else None
        # Nothing that is raised from here on may show it: many printers of tracebacks show locals.
        del token
        if transport is not None and http_client is not None:
            raise InvalidArgument("transport", "was given together with http_client", "give one of them")
        if transport is not None and ca_file is not None:
            raise InvalidArgument("ca_file", "does nothing for a transport of your own", "tell the transport of it")
        self._settings = Settings(
            engine=engine, cloud=cloud, credential=credential, dialect=dialect, ca_file=ca_file, store_hosts=store_hosts
        )
        self._settings.check_dialect()
        self._limits = limits or Limits()
        self._transport = transport
        self._http_client = http_client
        self._clock: Clock = clock or SystemClock()
        self._hub = Hub(self._clock, self._limits.max_looks_per_second)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._lines = Lines(
            settings=self._settings,
            limits=self._limits,
            transport=transport,
            http_client=http_client,
            allow_insecure_http=allow_insecure_http,
            guard=self._check_usable,
        )
        retry = retry or RetryPolicy()
        shared: dict[str, Any] = {
            "clock": self._clock,
            "limits": self._limits,
            "timeouts": timeouts or Timeouts(),
            "retry": retry,
            "budget": RetryBudget(retry.budget),
            "in_flight": asyncio.Semaphore(int(self._limits.max_in_flight)),
            "on_event": on_event,
            "chance": chance,
            "guard": self._check_usable,
            "user_agent": USER_AGENT,
        }
        schedule, experience = schedule or Schedule(), Experience()

        def setting(bounds: tuple[float, float]) -> Setting:
            return Setting(
                clock=self._clock,
                schedule=schedule.within(bounds),
                experience=experience,
                on_event=on_event,
                chance=chance,
            )

        self._engine = Engine(
            exchange=Exchange(self._lines.engine, **shared), hub=self._hub, setting=setting(ENGINE_BOUNDS)
        )
        self._cloud = Cloud(
            exchange=Exchange(self._lines.cloud, **shared),
            hub=self._hub,
            setting=setting(CLOUD_BOUNDS),
            settings=self._settings,
            store=self._lines.store,
        )
        self._submission = Submission(self._cloud)

    async def __aenter__(self) -> Self:
        await self._lines.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections, within 5 s; whoever waits gets MisuseError. Closing twice is fine."""
        self._is_closed = True
        self._hub.close()
        if self._loop is asyncio.get_running_loop():
            self._engine.exchange.end_waits()
            self._cloud.exchange.end_waits()
        try:
            await finished(self._cloud.close_journals())
        finally:
            await finished(self._lines.aclose())

    @property
    def _client(self) -> Client | None:
        return self._lines.client

    def __reduce__(self) -> NoReturn:
        raise TypeError("a session is neither pickled nor copied; its handles travel as text: token() and resume()")

    def __del__(self) -> None:
        lines = getattr(self, "_lines", None)
        if lines is None or lines.client is None or self._is_closed:
            return
        if self._http_client is None and self._transport is None:
            warnings.warn(f"{self!r} was not closed: use async with, or aclose()", ResourceWarning, stacklevel=2)

    def __repr__(self) -> str:
        if not hasattr(self, "_lines"):
            # Printed in the traceback of its own construction.
            return "<AsyncSession not made>"
        state = "closed" if self._is_closed else "open" if self._client is not None else "not opened"
        return f"<AsyncSession {self._settings} {state}>"

    # Tasks of a GTS Engine

    async def create_task(
        self, name: str | None = None, *, task_type: str, engine_type: str, exist_ok: bool = False
    ) -> Task:
        """Make a task and give its handle; without a name, one is made up.

        If the answer is lost, the task is looked for by its name, which is its id: nobody gets a false AlreadyExists.
        Raises AlreadyExists (not with `exist_ok`), InvalidArgument for types that the engine cannot train, and
        OutcomeUnknown with the name as `intent`.
        """
        kind, engine = check_pipeline(task_type, engine_type)
        name = check_name("name", name) if name is not None else self._new_name(kind)
        await self._engine.create(name, kind, engine, exist_ok=exist_ok)
        return Task(name, kind, engine, engine=self._engine)

    def _new_name(self, kind: TaskType) -> str:
        # The engine's own names have the second as their finest part, and a lost answer would leave us without one.
        return f"{kind.value}-{self._clock.wall():%Y%m%d%H%M%S}-{secrets.token_hex(3)}"

    def task(self, task_id: str, *, task_type: str | None = None, engine_type: str | None = None) -> Task:
        """Give the handle of a task, without any I/O; its types, where known, make checks and results exact."""
        check_name("task_id", task_id)
        if task_type is None or engine_type is None:
            if task_type is not None or engine_type is not None:
                raise InvalidArgument("engine_type", "goes with task_type", "give both, or neither")
            return Task(task_id, engine=self._engine)
        return Task(task_id, *check_pipeline(task_type, engine_type), engine=self._engine)

    async def list_tasks(self) -> list[Task]:
        """Give the handles of all tasks, sorted by id; the engine tells neither types nor states.

        Names that the engine would misread (other programs can make such) are left out.
        """
        found: list[Task] = []
        for task_id in sorted(await self._engine.exchange.send(gts_calls.list_tasks())):
            try:
                found.append(self.task(task_id))
            except InvalidArgument:
                continue
        return found

    # Jobs of the SXWL cloud

    async def submit(self, spec: JobSpec, *, timeout: float | None = None, on_exit: OnExit = "detach") -> Job:
        """Submit a job and give its handle.

        It is sent again only if it surely did not arrive. If its answer is lost, it is looked for in the listing, by a
        mark that travels with it, for up to 3 s; OutcomeUnknown says that it was not found, and `reconcile` takes its
        `intent`. Raises QuotaExceeded, InvalidData, Unauthorized. `timeout` (seconds) bounds the create, and then the
        looks. A caller that is cancelled waits up to 10 s for a request in flight; a job that came of it goes on and is
        told in the log, or is stopped with `on_exit="stop"`. Warns of what the cloud would silently do with the spec.
        """
        check_spec(spec)
        for text in spec.warnings(self._cloud.dialect.name):
            warnings.warn(text, UserWarning, stacklevel=2)
        return await self._submission.submit(spec, timeout=timeout, on_exit=on_exit)

    def submit_many(
        self,
        specs: Iterable[JobSpec] | AsyncIterable[JobSpec],
        *,
        max_at_once: int = 16,
        max_per_second: float | None = None,
        journal: str | PathLike[str] | None = None,
        progress: OnProgress | None = None,
    ) -> FanOut[JobSpec, JobSpec, Job]:
        """Give ``async with … as outcomes: async for outcome in outcomes``, in completion order.

        Specs are pulled as they are needed; one that is refused fails alone, but Unauthorized ends the batch. A job
        whose answer was lost is found by its mark; one that is in no listing 30 s later surely did not arrive and is
        sent again, while the others go on. What stays unknown is an OutcomeUnknown with its `intent`. With `journal` (a
        file's path) every intent is on disk before it is sent: a run that was killed goes on where it was, several
        processes may share the file, and no job is submitted twice. `progress` is told how many outcomes were handed
        out; what it raises comes after the outcomes of what is in flight.
        """
        return Batch(
            self._submission,
            specs,
            max_at_once=max_at_once,
            max_per_second=max_per_second,
            journal=journal,
            progress=progress,
        ).fan_out

    async def reconcile(self, intent: Intent | str) -> Job | Task | TrainingRun | None:
        """Give what became of a create whose outcome was unknown; None if it surely did not arrive.

        Takes the `intent` of an OutcomeUnknown, of this or another process: a job's (or its ``token()``), the name of a
        `create_task`, the token of a `train`. Waits until it can be said, for a job up to 30 s after it was sent, for a
        training until it has begun or its time to begin is over. Raises OutcomeUnknown for a job without a mark, and
        what the calls raise.
        """
        if isinstance(intent, str):
            known = read_intent(intent)
            if isinstance(known, str):
                return await reconciled_task(self.task(known))
            if isinstance(known, RunToken):
                return await reconciled_run(known.run(self._engine))
            intent = known
        if not isinstance(intent, Intent):
            raise WrongType("intent", f"must be what OutcomeUnknown.intent holds, not {type(intent).__name__}")
        return await self._submission.reconcile(intent)

    def job(self, job_id: str) -> Job:
        """Give the handle of a job, without any I/O.

        An empty id is refused: the oldest servers would answer it with a stranger's job.
        """
        check_id("job_id", job_id)
        return Job(job_id, cloud=self._cloud)

    async def list_jobs(self, *, page: int = 1, size: int = 100) -> list[JobListing]:
        """Give one page of the account's jobs, newest first; raises NotSupported where the dialect has no list."""
        return list(await self._cloud.exchange.send(sxwl_calls.list_jobs(self._cloud.dialect, page, size)))

    async def gpu_types(self) -> list[GpuType]:
        """Give the kinds of GPU that a job can ask for; raises NotSupported where the dialect has no such call."""
        return list(await self._cloud.exchange.send(sxwl_calls.gpu_types(self._cloud.dialect)))

    def ring(self, key: str) -> None:
        """Wake the watch of the job with this id or `callback_url`: there may be news. It looks at once."""
        self._hub.ring(key)

    # Many at once

    def as_finished(
        self, handles: Iterable[Handle], *, deadline: float | None = None
    ) -> AsFinished[Handle, TaskInfo | JobInfo]:
        """Give ``async with … as outcomes: async for outcome in outcomes``: handles as each is settled.

        An outcome's value is the final look; work that did not end well has its WorkError as `error` (with the look in
        `.last_look`). `deadline` in seconds, from entering, for all together. However many they are, it takes a few
        tasks only; leaving the block leaves the work alone.
        """
        return AsFinished(handles, deadline=deadline)

    async def wait_all(
        self, handles: Iterable[Handle], *, deadline: float | None = None, progress: OnProgress | None = None
    ) -> list[TaskInfo | JobInfo | WorkError | NotFound]:
        """Give the final looks in the order of the handles; failures are values.

        Work that failed or was stopped has a final look as well; for work that was lost, stalled or not settled within
        `deadline` seconds the error itself stands in its place. `progress` is told how many are settled; what it raises
        ends the wait.
        """
        return await wait_all(handles, deadline=deadline, clock=self._clock, progress=progress)

    async def wait_any(
        self, handles: Iterable[Handle], *, deadline: float | None = None
    ) -> Outcome[Handle, TaskInfo | JobInfo]:
        """Give the outcome of the first that is settled, well or not, as `as_finished` does; the others go on.

        Without one within `deadline` seconds, its error is DeadlineExceeded. Raises InvalidArgument for no handles.
        """
        return await wait_any(handles, deadline=deadline)

    def resume(self, token: str) -> TrainingRun | Job:
        """Give the run or job that `token()` was asked of, in this or another process; no I/O."""
        with suppress(msgspec.MsgspecError, TypeError):
            return msgspec.json.decode(token, type=RunToken).run(self._engine)
        with suppress(msgspec.MsgspecError, TypeError):
            return msgspec.json.decode(token, type=JobToken).job(self._cloud)
        del token  # perhaps the one that must not be shown
        raise InvalidArgument("token", "is not what token() gave", "pass the text as it was")

    async def ping(self) -> Ping:
        """Tell how long a round trip takes to each service that is configured.

        Shows that it is there, that it is the right thing, and that the token is good; raises what is wrong.
        """
        await self._lines.open()
        engine = cloud = None
        if self._settings.has("engine"):
            began = self._clock.now()
            await self._engine.exchange.send(gts_calls.index())
            engine = self._clock.now() - began
        if self._settings.has("cloud"):
            began = self._clock.now()
            # The answer of a cloud that is well: there is no such job.
            with suppress(NotFound):
                await self._cloud.exchange.send(sxwl_calls.job_status(self._cloud.dialect, "ping"))
            cloud = self._clock.now() - began
        return Ping(engine, cloud)

    def _check_usable(self) -> None:
        if self._is_closed:
            raise MisuseError("the session is closed; open another")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise MisuseError("the session belongs to another event loop; open one per loop")
