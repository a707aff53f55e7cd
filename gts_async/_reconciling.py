"""Reconciling: what became of creates and trainings of the engine whose answer was lost. Jobs are in `_settling`."""

from contextlib import suppress

import msgspec

from gts_async._errors import InvalidArgument, NotFound, ServerFailed, WorkError, WorkLost, WorkStalled
from gts_async._intent import Intent, IntentToken
from gts_async._task import RunToken, Task, TrainingRun
from gts_async.gts.values import check_name

SECOND_LOOK = 3.0
"""Seconds after which a task that is not there is looked for once more: the engine makes one within milliseconds."""


def read_intent(text: str) -> Intent | RunToken | str:
    """Give what `text` is: an intent's token, a run's token, or else a task's name; raises InvalidArgument."""
    with suppress(msgspec.MsgspecError):
        return msgspec.json.decode(text, type=IntentToken).intent()
    with suppress(msgspec.MsgspecError):
        return msgspec.json.decode(text, type=RunToken)
    if text.lstrip()[:1] == "{":
        raise InvalidArgument("intent", "is not what an OutcomeUnknown held", "pass the text as it was")
    return check_name("intent", text)


async def reconciled_task(task: Task) -> Task | None:
    """Give the task if the engine has it; None if its create did not arrive."""
    for pause in (0.0, SECOND_LOOK):
        await task._engine.clock.sleep(pause)
        try:
            await task.status()
        except NotFound:
            continue
        except ServerFailed as error:
            # A finished bagualu task answers so for ever: it is there.
            if error.status != 500:
                raise
        return task
    return None


async def reconciled_run(run: TrainingRun) -> TrainingRun | None:
    """Give the run once it shows that it has begun; None if it did not, within the time that a training may take."""
    try:
        async for change in run.watch():
            if run._progress.has_begun or change.is_final:
                break
    except (WorkLost, WorkStalled):
        return None
    except WorkError:
        return run
    return run
