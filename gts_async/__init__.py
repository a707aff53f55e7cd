"""Await trainings, jobs and predictions: the asyncio client for GTS Engine and the SXWL cloud.

::

    async with AsyncSession(engine="http://127.0.0.1:5201") as session:
        task = await session.create_task("tnews", task_type="classification", engine_type="bagualu")

The map of the package, from what one wants to see or change to the file that holds it:

=====================================================  ============================================================
what                                                   open
=====================================================  ============================================================
sessions, tasks, runs, jobs, loaded models             ``_session.py`` ``_task.py`` ``_job.py`` ``_inference.py``
what bytes a call sends, how its answer is read        ``gts/calls.py`` ``gts/answers.py`` ``sxwl/calls.py``
                                                       ``sxwl/answers.py``; what a call is: ``wire.py``
what a code or status means                            ``gts/values.py`` ``sxwl/values.py``
when work counts as finished                           ``gts/progress.py`` ``sxwl/progress.py``
how often we look, the loop, what watches share        ``_flow/schedule.py`` ``_flow/watch.py`` ``_flow/hub.py``
what is tried again, how long we wait                  ``_net/exchange.py`` ``_net/retry.py``; a call's `is_repeatable`
connections, limits, cancellation                      ``_net/slots.py``
timeouts, URLs, settings, tokens                       ``_net/config.py`` ``_net/settings.py`` ``_net/secret.py``
many items at once, batches                            ``_flow/fanout.py`` ``_flow/batching.py``
uploads, downloads, unzip                              ``_files/upload.py`` ``_files/download.py`` ``_files/archive.py``
what a valid training file is                          ``gts/datafiles.py``
an error and when it is raised                         ``_errors.py``
old and new SXWL servers                               ``sxwl/dialects.py``
what survives a crash                                  ``_journal.py``
callbacks                                              ``callbacks.py``
the fake servers, the real local ones                  ``emulator/`` ``local/``
faults, fake clock, fixtures                           ``testing/``
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
    )
    from gts_async._errors import (
        Attempt as Attempt,
    )
    from gts_async._errors import (
        Busy as Busy,
    )
    from gts_async._errors import (
        DeadlineExceeded as DeadlineExceeded,
    )
    from gts_async._errors import (
        Denied as Denied,
    )
    from gts_async._errors import (
        DownloadCorrupt as DownloadCorrupt,
    )
    from gts_async._errors import (
        FileError as FileError,
    )
    from gts_async._errors import (
        FileMissing as FileMissing,
    )
    from gts_async._errors import (
        GtsAsyncError as GtsAsyncError,
    )
    from gts_async._errors import (
        InvalidArgument as InvalidArgument,
    )
    from gts_async._errors import (
        InvalidData as InvalidData,
    )
    from gts_async._errors import (
        LeaseLost as LeaseLost,
    )
    from gts_async._errors import (
        MissingExtra as MissingExtra,
    )
    from gts_async._errors import (
        MisuseError as MisuseError,
    )
    from gts_async._errors import (
        NotFound as NotFound,
    )
    from gts_async._errors import (
        NotSent as NotSent,
    )
    from gts_async._errors import (
        NotSupported as NotSupported,
    )
    from gts_async._errors import (
        OutcomeUnknown as OutcomeUnknown,
    )
    from gts_async._errors import (
        Problem as Problem,
    )
    from gts_async._errors import (
        QuotaExceeded as QuotaExceeded,
    )
    from gts_async._errors import (
        RateLimited as RateLimited,
    )
    from gts_async._errors import (
        ServerFailed as ServerFailed,
    )
    from gts_async._errors import (
        ServiceError as ServiceError,
    )
    from gts_async._errors import (
        TimedOut as TimedOut,
    )
    from gts_async._errors import (
        TransportError as TransportError,
    )
    from gts_async._errors import (
        Unauthorized as Unauthorized,
    )
    from gts_async._errors import (
        UnexpectedAnswer as UnexpectedAnswer,
    )
    from gts_async._errors import (
        UnsafePath as UnsafePath,
    )
    from gts_async._errors import (
        UnsafeURL as UnsafeURL,
    )
    from gts_async._errors import (
        UploadRejected as UploadRejected,
    )
    from gts_async._errors import (
        WorkError as WorkError,
    )
    from gts_async._errors import (
        WorkFailed as WorkFailed,
    )
    from gts_async._errors import (
        WorkLost as WorkLost,
    )
    from gts_async._errors import (
        WorkStalled as WorkStalled,
    )
    from gts_async._errors import (
        WorkStopped as WorkStopped,
    )
    from gts_async._errors import (
        WrongState as WrongState,
    )
    from gts_async._errors import (
        WrongType as WrongType,
    )
    from gts_async._files.progress import (
        OnProgress as OnProgress,
    )
    from gts_async._files.progress import (
        Progress as Progress,
    )
    from gts_async._flow.clock import (
        Clock as Clock,
    )
    from gts_async._flow.clock import (
        SystemClock as SystemClock,
    )
    from gts_async._flow.fanout import (
        FanOut as FanOut,
    )
    from gts_async._flow.fanout import (
        Outcome as Outcome,
    )
    from gts_async._flow.schedule import (
        Schedule as Schedule,
    )
    from gts_async._flow.watch import (
        Transition as Transition,
    )
    from gts_async._flow.watch import (
        Watch as Watch,
    )
    from gts_async._inference import (
        InferenceSession as InferenceSession,
    )
    from gts_async._inference import (
        InferenceStats as InferenceStats,
    )
    from gts_async._job import (
        Job as Job,
    )
    from gts_async._journal import (
        Intent as Intent,
    )
    from gts_async._net.config import (
        Limits as Limits,
    )
    from gts_async._net.config import (
        Timeouts as Timeouts,
    )
    from gts_async._net.events import (
        Event as Event,
    )
    from gts_async._net.retry import (
        RetryPolicy as RetryPolicy,
    )
    from gts_async._session import (
        AsyncSession as AsyncSession,
    )
    from gts_async._session import (
        Ping as Ping,
    )
    from gts_async._task import (
        Task as Task,
    )
    from gts_async._task import (
        TrainingRun as TrainingRun,
    )
    from gts_async.gts.values import (
        EngineType as EngineType,
    )
    from gts_async.gts.values import (
        Entity as Entity,
    )
    from gts_async.gts.values import (
        Extraction as Extraction,
    )
    from gts_async.gts.values import (
        Prediction as Prediction,
    )
    from gts_async.gts.values import (
        Relation as Relation,
    )
    from gts_async.gts.values import (
        Summary as Summary,
    )
    from gts_async.gts.values import (
        TaskInfo as TaskInfo,
    )
    from gts_async.gts.values import (
        TaskStatus as TaskStatus,
    )
    from gts_async.gts.values import (
        TaskType as TaskType,
    )
    from gts_async.gts.values import (
        TrainOptions as TrainOptions,
    )
    from gts_async.sxwl.values import (
        GpuType as GpuType,
    )
    from gts_async.sxwl.values import (
        JobInfo as JobInfo,
    )
    from gts_async.sxwl.values import (
        JobListing as JobListing,
    )
    from gts_async.sxwl.values import (
        JobSpec as JobSpec,
    )
    from gts_async.sxwl.values import (
        JobStatus as JobStatus,
    )
    from gts_async.sxwl.values import (
        JobType as JobType,
    )
    from gts_async.sxwl.values import (
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
    "_files.progress": (
        "OnProgress",
        "Progress",
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
    "_flow.watch": (
        "Transition",
        "Watch",
    ),
    "_inference": (
        "InferenceSession",
        "InferenceStats",
    ),
    "_job": ("Job",),
    "_journal": ("Intent",),
    "_net.config": (
        "Limits",
        "Timeouts",
    ),
    "_net.events": ("Event",),
    "_net.retry": ("RetryPolicy",),
    "_session": (
        "AsyncSession",
        "Ping",
    ),
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
