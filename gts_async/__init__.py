"""Await trainings, jobs and predictions: the asyncio client for GTS Engine and the SXWL cloud.

::

    async with AsyncSession(engine="http://127.0.0.1:5201") as session:
        task = await session.create_task("tnews", task_type="classification", engine_type="bagualu")

The map of the package, from what one wants to see or change to the file that holds it:

=====================================================  ============================================================
what                                                   open
=====================================================  ============================================================
sessions, tasks, runs, jobs                            ``_session.py`` ``_task.py`` ``_engine.py`` ``_job.py``
                                                       ``_cloud.py``
what bytes a call sends, how its answer is read        ``gts/calls.py`` ``gts/answers.py`` ``sxwl/calls.py``
                                                       ``sxwl/answers.py``; what a call is: ``wire.py``
what a code or status means                            ``gts/values.py`` ``sxwl/values.py``
when work counts as finished                           ``gts/progress.py`` ``sxwl/progress.py``
how often we look, and whose turn it is                ``_flow/schedule.py`` ``_flow/hub.py`` ``_flow/lane.py``
what the listing knows that a look does not            ``_flow/census.py``
what looks become, what a watch gives of it            ``_flow/course.py`` ``_flow/watch.py`` ``_flow/experience.py``
what is tried again, how long we wait                  ``_net/exchange.py`` ``_net/retry.py``; a call's `is_repeatable`
connections, limits, cancellation                      ``_net/slots.py`` ``_net/leftovers.py``
what "too many requests" does to all calls             ``_net/throttle.py``
timeouts, URLs, settings, tokens                       ``_net/config.py`` ``_net/settings.py`` ``_net/secret.py``
whom we trust: authorities, a session's clients, URLs  ``_net/roots.py`` ``_net/lines.py`` ``_files/address.py``
many items at once, batches, many waits                ``_flow/fanout.py`` ``_flow/batching.py`` ``_flow/many.py``
samples of any kind of iterable; which of a batch is   ``_flow/pulling.py`` ``_flow/halving.py``
refused
uploads, downloads, unzip                              ``_files/upload.py`` ``_files/download.py`` ``_files/archive.py``
what is told of progress, how it is shown              ``_progress.py`` ``progress/``
what a valid training file is                          ``gts/datafiles.py``
an error and when it is raised                         ``_errors.py``
old and new SXWL servers                               ``sxwl/dialects.py``
one engine asked, or several, about samples            ``_predicting.py`` ``_asking.py`` ``_inference.py``
                                                       ``_pool.py`` ``_fleet.py``
whose model answers, who holds the slot, loads it      ``gts/identity.py`` ``_model.py`` ``_lease.py``
                                                       ``_serving.py``
which engine of several gets the next samples          ``_flow/crew.py`` ``_flow/race.py`` ``_flow/allowance.py``
what inference has cost                                ``_statistics.py``
how jobs are submitted, one or many                    ``_submission.py`` ``_batch.py`` ``_intent.py``
                                                       ``sxwl/marks.py``
what became of a create whose answer was lost          ``_settling.py`` ``_reconciling.py``
what survives a crash, how a damaged file is mended    ``_journal.py`` ``_checkpoint.py`` ``_database.py``
                                                       ``_mending.py``
callbacks                                              ``callbacks/``
the fake servers, the real local ones                  ``emulator/`` ``local/``
faults, chaos server, fake clock, fixtures             ``testing/``
the command line                                       ``cli/`` ``__main__.py``
=====================================================  ============================================================

Every name below is public; modules with an underscore are not. Nothing is imported before it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gts_async import callbacks as callbacks
    from gts_async._errors import (
        AlreadyExists as AlreadyExists,
        Attempt as Attempt,
        Busy as Busy,
        DeadlineExceeded as DeadlineExceeded,
        Denied as Denied,
        DownloadCorrupt as DownloadCorrupt,
        FileError as FileError,
        FileMissing as FileMissing,
        GtsAsyncError as GtsAsyncError,
        InvalidArgument as InvalidArgument,
        InvalidData as InvalidData,
        LeaseLost as LeaseLost,
        MissingExtra as MissingExtra,
        MisuseError as MisuseError,
        NotFound as NotFound,
        NotSent as NotSent,
        NotSupported as NotSupported,
        OutcomeUnknown as OutcomeUnknown,
        Problem as Problem,
        QuotaExceeded as QuotaExceeded,
        RateLimited as RateLimited,
        ServerFailed as ServerFailed,
        ServiceError as ServiceError,
        TimedOut as TimedOut,
        TransportError as TransportError,
        Unauthorized as Unauthorized,
        UnexpectedAnswer as UnexpectedAnswer,
        UnsafePath as UnsafePath,
        UnsafeURL as UnsafeURL,
        UploadRejected as UploadRejected,
        WorkError as WorkError,
        WorkFailed as WorkFailed,
        WorkLost as WorkLost,
        WorkStalled as WorkStalled,
        WorkStopped as WorkStopped,
        WrongState as WrongState,
        WrongType as WrongType,
    )
    from gts_async._flow.clock import (
        Clock as Clock,
        SystemClock as SystemClock,
    )
    from gts_async._flow.fanout import (
        FanOut as FanOut,
        Outcome as Outcome,
    )
    from gts_async._flow.schedule import (
        Schedule as Schedule,
    )
    from gts_async._flow.stream import (
        Stream as Stream,
    )
    from gts_async._flow.transition import (
        Transition as Transition,
    )
    from gts_async._flow.watch import (
        Watch as Watch,
    )
    from gts_async._inference import (
        InferenceSession as InferenceSession,
    )
    from gts_async._intent import (
        Intent as Intent,
    )
    from gts_async._job import (
        Job as Job,
    )
    from gts_async._net.config import (
        Limits as Limits,
        Timeouts as Timeouts,
    )
    from gts_async._net.events import (
        Event as Event,
    )
    from gts_async._net.retry import (
        RetryPolicy as RetryPolicy,
    )
    from gts_async._pool import (
        InferencePool as InferencePool,
    )
    from gts_async._progress import (
        OnProgress as OnProgress,
        Progress as Progress,
    )
    from gts_async._session import (
        AsyncSession as AsyncSession,
        Ping as Ping,
    )
    from gts_async._statistics import (
        InferenceStats as InferenceStats,
    )
    from gts_async._task import (
        Task as Task,
        TrainingRun as TrainingRun,
    )
    from gts_async.gts.values import (
        EngineType as EngineType,
        Entity as Entity,
        Extraction as Extraction,
        Prediction as Prediction,
        Relation as Relation,
        Summary as Summary,
        TaskInfo as TaskInfo,
        TaskStatus as TaskStatus,
        TaskType as TaskType,
        TrainOptions as TrainOptions,
    )
    from gts_async.sxwl.values import (
        GpuType as GpuType,
        JobInfo as JobInfo,
        JobListing as JobListing,
        JobSpec as JobSpec,
        JobStatus as JobStatus,
        JobType as JobType,
        StopType as StopType,
    )

_NAMES = {
    "_errors": (
        "AlreadyExists",
        "Attempt",
        "Busy",
        "DeadlineExceeded",
        "Denied",
        "DownloadCorrupt",
        "FileError",
        "FileMissing",
        "GtsAsyncError",
        "InvalidArgument",
        "InvalidData",
        "LeaseLost",
        "MissingExtra",
        "MisuseError",
        "NotFound",
        "NotSent",
        "NotSupported",
        "OutcomeUnknown",
        "Problem",
        "QuotaExceeded",
        "RateLimited",
        "ServerFailed",
        "ServiceError",
        "TimedOut",
        "TransportError",
        "Unauthorized",
        "UnexpectedAnswer",
        "UnsafePath",
        "UnsafeURL",
        "UploadRejected",
        "WorkError",
        "WorkFailed",
        "WorkLost",
        "WorkStalled",
        "WorkStopped",
        "WrongState",
        "WrongType",
    ),
    "_flow.clock": (
        "Clock",
        "SystemClock",
    ),
    "_flow.fanout": (
        "FanOut",
        "Outcome",
    ),
    "_flow.schedule": ("Schedule",),
    "_flow.stream": ("Stream",),
    "_flow.transition": ("Transition",),
    "_flow.watch": ("Watch",),
    "_inference": ("InferenceSession",),
    "_job": ("Job",),
    "_intent": ("Intent",),
    "_net.config": (
        "Limits",
        "Timeouts",
    ),
    "_net.events": ("Event",),
    "_net.retry": ("RetryPolicy",),
    "_pool": ("InferencePool",),
    "_progress": (
        "OnProgress",
        "Progress",
    ),
    "_session": (
        "AsyncSession",
        "Ping",
    ),
    "_statistics": ("InferenceStats",),
    "_task": (
        "Task",
        "TrainingRun",
    ),
    "gts.values": (
        "EngineType",
        "Entity",
        "Extraction",
        "Prediction",
        "Relation",
        "Summary",
        "TaskInfo",
        "TaskStatus",
        "TaskType",
        "TrainOptions",
    ),
    "sxwl.values": (
        "GpuType",
        "JobInfo",
        "JobListing",
        "JobSpec",
        "JobStatus",
        "JobType",
        "StopType",
    ),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted([*_HOME, "callbacks"])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"gts_async.{_HOME[name]}"), name)
    elif name == "callbacks":
        value = import_module("gts_async.callbacks")
    elif name == "__version__":
        value = import_module("importlib.metadata").version("gts-async")
    else:
        raise AttributeError(f"module 'gts_async' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
