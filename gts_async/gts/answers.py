"""What GTS Engine's answers mean: each reader gives a value, or raises one of our errors.

The requests they answer are in `calls`, what a predict call brings is read in `results`. The engine refuses with
HTTP 200 and a negative ``ret_code``; its 500s are bare text, so what each of them means is written down here, once.
"""

from collections.abc import Mapping
from typing import TypeVar

import attrs
from msgspec import UNSET, UnsetType

from gts_async._errors import (
    AlreadyExists,
    InvalidData,
    NotFound,
    RateLimited,
    ServerFailed,
    ServiceError,
    UnexpectedAnswer,
    WrongState,
    plain,
)
from gts_async.gts.values import TaskInfo, TaskStatus
from gts_async.wire import Answer, decode

TITLE = "GTS-Engine在线算法API"
"""The only line of the engine's page (`gts_engine_service.py: index`)."""

REFUSALS: Mapping[int, type[ServiceError]] = {
    -100: NotFound,
    -101: InvalidData,
    -102: WrongState,
    -103: WrongState,
    -200: NotFound,
}
"""Which error a negative ret_code is. -102 and -200 both say that the task's folder holds no record of a task: too
early or too late for train and stop, no task at all for the one that only looks."""

MEANING_OF_500: Mapping[str, str] = {
    "task_status": "its record is being written right now, or this is a bagualu task that has succeeded (no bagualu "
    "pipeline writes the accuracy that this answer needs, so it is 500 for ever)",
    "upload": "a file could not be stored; those before it in the same request were",
    "delete_task": "what goes by that id is no folder, or somebody else is deleting it too",
    "start_training": "a data file cannot be read (it is a folder, is not UTF-8, or has a line that is a number or "
    "null), the engine does not know the task's type, or another train call for this task ran at the same time",
    "stop_training": "the training process is dead already and the status stays 'On Training' for ever; train again, "
    "or delete the task",
    "start_inference": "there is no model to load: the task has never been trained to the end, or a later training "
    "failed or was stopped, which removes the older model; whatever was loaded before still is",
    "predict": "the pipeline stumbled over a sample; or no model is loaded, or one of another type, or it has served "
    "the one predict that bagualu classification allows for each load: then load it again",
    "end_inference": "nothing was loaded (the status stays as it was), or the task is gone (the model was released "
    "all the same)",
}
"""What is known about each call's 500 (`gts_engine_service.py`, the handler of that path)."""

ODDITIES: Mapping[int, str] = {
    400: "the engine could not parse the request",
    401: "something in front of the engine asks for credentials, the engine never does",
    403: "something in front of the engine forbids it, the engine never does",
    404: "there is no such path: is the base URL that of a GTS Engine?",
    405: "that path does not take this method: is the base URL that of a GTS Engine?",
    407: "a proxy asks for credentials",
    413: "the request is too large for something in front of the engine, which has no limit itself",
}


@attrs.frozen
class Reply:
    """What every answer of the API holds; the other keys come in subclasses."""

    ret_code: int
    message: str


@attrs.frozen
class _Created(Reply):
    task_id: str | UnsetType = UNSET


@attrs.frozen
class _Listed(Reply):
    tasks: tuple[str, ...] | UnsetType = UNSET


@attrs.frozen
class _Looked(Reply):
    test_acc: float | None = None


@attrs.frozen
class _FieldError:
    loc: tuple[str | int, ...]
    msg: str


@attrs.frozen
class _FieldErrors:
    detail: tuple[_FieldError, ...]


R = TypeVar("R", bound=Reply)


def created(answer: Answer) -> str:
    """Give the id of the new task, which is its name; raises AlreadyExists."""
    reply = accepted("create_task", answer, _Created, {**REFUSALS, -100: AlreadyExists})
    if not reply.task_id:
        raise odd("create_task", "a task without `task_id`", answer)
    return reply.task_id


def listed(answer: Answer) -> tuple[str, ...]:
    """Give the names in the engine's task folder, unordered; plain files among them are not tasks."""
    reply = accepted("list_tasks", answer, _Listed)
    if isinstance(reply.tasks, UnsetType):
        raise odd("list_tasks", "no `tasks`", answer)
    return reply.tasks


def task_info(answer: Answer) -> TaskInfo:
    """Give the look at the task; raises NotFound. Here a ret_code of 0 and above is the status itself."""
    reply = _reply("task_status", answer, _Looked)
    if reply.ret_code < 0:
        raise _refusal("task_status", reply, REFUSALS)
    try:
        status = TaskStatus(reply.ret_code)
    except ValueError:
        status = TaskStatus.UNKNOWN
    return TaskInfo(status, reply.message, reply.test_acc, answer.received_at, reply.ret_code)


def done(call: str, answer: Answer) -> None:
    """Check that the engine did what `call` asked for; raises NotFound, InvalidData or WrongState if it refused."""
    accepted(call, answer, Reply)


def greeted(answer: Answer) -> None:
    """Check that the page is GTS Engine's; raises UnexpectedAnswer if it is anything else."""
    _check_status("index", answer)
    if TITLE.encode() not in answer.body:
        raise odd("index", f"the page is not GTS Engine's (no {TITLE!r} in it): wrong base URL?", answer)


def accepted(call: str, answer: Answer, shape: type[R], refusals: Mapping[int, type[ServiceError]] = REFUSALS) -> R:
    """Give the reply whose ret_code is 200; raises what any other code means."""
    reply = _reply(call, answer, shape)
    if reply.ret_code < 0:
        raise _refusal(call, reply, refusals)
    if reply.ret_code != 200:
        raise odd(call, f"ret_code {reply.ret_code}, neither 200 nor an error", answer)
    return reply


def _reply(call: str, answer: Answer, shape: type[R]) -> R:
    _check_status(call, answer)
    if (answer.header("content-type") or "").startswith("text/html"):
        raise odd(call, "a web page in place of JSON: wrong base URL, or a proxy in between", answer)
    return decode(answer.body, shape, call=call)


def _refusal(call: str, reply: Reply, refusals: Mapping[int, type[ServiceError]]) -> ServiceError:
    kind = refusals.get(reply.ret_code, ServiceError)
    return kind(call=call, code=reply.ret_code, message=reply.message)


def _check_status(call: str, answer: Answer) -> None:
    """Raise unless the HTTP status is 200."""
    if answer.status == 200:
        return
    if answer.status >= 500:
        raise _failure(call, answer)
    if answer.status == 422:
        raise _invalid(call, answer)
    if answer.status == 429:
        raise RateLimited(call=call, code=429, message=answer.start())
    if 300 <= answer.status < 400:
        raise odd(call, f"a redirect to {answer.leads_to}: wrong base URL, or a proxy in between", answer)
    known = ODDITIES.get(answer.status, "which the engine never sends")
    raise odd(call, f"status {answer.status}: {known}", answer)


def _failure(call: str, answer: Answer) -> ServerFailed:
    meaning = MEANING_OF_500.get(call) if answer.status == 500 else None
    text = f"{call}: the server answered {answer.status}: {meaning or plain(answer.start(), 200)}"
    return ServerFailed(text, status=answer.status, body=answer.start(), call=call)


def _invalid(call: str, answer: Answer) -> InvalidData:
    """Give the server's list of bad fields as one message (the request did not fit the handler's model)."""
    errors = decode(answer.body, _FieldErrors, call=call).detail
    said = "; ".join(f"{'.'.join(map(str, error.loc[1:] or error.loc))}: {error.msg}" for error in errors)
    return InvalidData(call=call, code=422, message=said)


def odd(call: str, problem: str, answer: Answer) -> UnexpectedAnswer:
    """Give the error for an answer that the engine's own protocol does not allow."""
    return UnexpectedAnswer(call=call, problem=plain(problem, 300), body=answer.start())
