"""GTS Engine's calls: one function an endpoint, with its path, its body, its reader, and whether it may be repeated.

What codes and 500s mean is in `answers`. Paths are spelled as the engine registers them (four end in a slash): with the
other spelling it redirects, and the body travels twice. Ids and file names are checked before a Call exists.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from gts_async._errors import InvalidArgument
from gts_async.gts import answers
from gts_async.gts.results import results
from gts_async.gts.values import Result, TaskInfo, TaskType, TrainOptions, check_name
from gts_async.wire import Call, FilePart, Multipart, Pace, Request

ANSWERED = frozenset({500})
"""The engine answers these calls with 500 when they cannot be done now: another try would get the same.

For `task_status` it is how a finished bagualu task answers for ever, and once in a while a file caught half-written:
who asks looks again, and does not spend what is there for tries. The other calls have no such case.
"""


def create_task(name: str, task_type: str, engine_type: str) -> Call[str]:
    """Make a task and give its id, which is `name`; AlreadyExists if there is one (`create_task`).

    The engine takes any types and fails later: check them with `values.check_pipeline`. It would also make up a name
    from the second of its clock, which another client may get too, so an empty one is refused here.
    """
    document = {"task_name": check_name("name", name), "task_type": task_type, "engine_type": engine_type}
    return Call(
        "create_task",
        Request.json("POST", "/api/create_task/", document),
        answers.created,
        is_repeatable=False,
    )


def list_tasks() -> Call[tuple[str, ...]]:
    """Give the ids of all tasks, unordered, without their status (`list_task`, which reads no body)."""
    return Call(
        "list_tasks",
        Request.json("POST", "/api/list_task/", {}),
        answers.listed,
        is_repeatable=True,
    )


def task_status(task_id: str) -> Call[TaskInfo]:
    """Give one look at the task; NotFound (`check_task_status`). A finished bagualu task answers 500 for ever."""
    return Call(
        "task_status",
        Request.json("POST", "/api/check_task_status", {"task_id": check_name("task_id", task_id)}),
        answers.task_info,
        is_repeatable=True,
        answers_with=ANSWERED,
    )


def upload(task_id: str, files: Sequence[FilePart]) -> Call[None]:
    """Store files under their names, replacing older ones; NotFound, but only after all was sent (`upload_files`)."""
    names = [check_name("file name", file.name) for file in files]
    if not names:
        raise InvalidArgument("files", "is empty", "name at least one file")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidArgument(
            "files", f"{', '.join(twice)} twice: the engine would keep the last", "rename one of them"
        )
    fields = (("task_id", check_name("task_id", task_id)),)
    return Call(
        "upload",
        Request("POST", "/api/upfiles/", body=Multipart(fields, tuple(("files", file) for file in files))),
        partial(answers.done, "upload"),
        is_repeatable=True,
        pace=Pace.TRANSFER,
        answers_with=ANSWERED,
    )


def delete_task(task_id: str) -> Call[None]:
    """Remove the task and its files; NotFound. A training or loaded model goes on without them (`delete_task`)."""
    return Call(
        "delete_task",
        Request.json("POST", "/api/delete_task/", {"task_id": check_name("task_id", task_id)}),
        partial(answers.done, "delete_task"),
        is_repeatable=True,
        answers_with=ANSWERED,
    )


def start_training(task_id: str, options: TrainOptions) -> Call[None]:
    """Spawn a training; NotFound, WrongState, InvalidData from the engine's own check of the files (`start_train`).

    Accepting removes the older model and proves no more than that a shell was started. Every field is sent: the engine
    refuses null and takes an absent file name for its whole folder.
    """
    document = {
        "task_id": check_name("task_id", task_id),
        "train_data": options.train_data,
        "val_data": options.val_data,
        "test_data": options.test_data,
        "label_data": options.label_data,
        "unlabeled_data": options.unlabeled_data,
        "max_len": options.max_len,
        "max_num_epoch": options.max_num_epoch,
        "min_num_epoch": options.min_num_epoch,
        "seed": options.seed,
        "gpuid": options.gpuid,
        "train_mode": options.train_mode,
    }
    return Call(
        "start_training",
        Request.json("POST", "/api/train", document),
        partial(answers.done, "start_training"),
        is_repeatable=False,
        answers_with=ANSWERED,
    )


def stop_training(task_id: str) -> Call[None]:
    """Kill the training; WrongState if none is seen, which is also so for the first seconds after `start_training`."""
    return Call(
        "stop_training",
        Request.json("POST", "/api/stop_train", {"task_id": check_name("task_id", task_id)}),
        partial(answers.done, "stop_training"),
        is_repeatable=True,
        answers_with=ANSWERED,
    )


def start_inference(task_id: str) -> Call[None]:
    """Load the task's model into the engine's only slot, in place of whatever is there; NotFound (`start_inference`).

    The model is loaded when the answer comes. Never for a task in training: its status would be overwritten.
    """
    return Call(
        "start_inference",
        Request.json("POST", "/api/start_inference", {"task_id": check_name("task_id", task_id)}),
        partial(answers.done, "start_inference"),
        is_repeatable=True,
        pace=Pace.LOAD,
        answers_with=ANSWERED,
    )


def predict(task_id: str, task_type: TaskType, rows: Sequence[Mapping[str, object]]) -> Call[tuple[Result, ...]]:
    """Give one result for each of `rows` (made by `samples.prepare`), in order; NotFound, InvalidData (`predict`).

    Whatever model was loaded last answers, whose task it may be. No rows are refused here: the engine would answer some
    task types with 500.
    """
    if not rows:
        raise InvalidArgument("rows", "is empty", "predict at least one")
    document = {"task_id": check_name("task_id", task_id), "sentences": rows}
    return Call(
        "predict",
        Request.json("POST", "/api/predict", document),
        partial(results, TaskType(task_type), len(rows)),
        is_repeatable=True,
        pace=Pace.LOAD,
        answers_with=ANSWERED,
    )


def end_inference(task_id: str) -> Call[None]:
    """Release the loaded model, whosever it is, and mark the named task as succeeded, whatever it was.

    Name only a task that was loaded (`gts_engine_service.py: end_inference`).
    """
    return Call(
        "end_inference",
        Request.json("POST", "/api/end_inference", {"task_id": check_name("task_id", task_id)}),
        partial(answers.done, "end_inference"),
        is_repeatable=True,
        answers_with=ANSWERED,
    )


def index() -> Call[None]:
    """Check that a GTS Engine answers at the base URL (`index`, its page)."""
    return Call("index", Request("GET", "/"), answers.greeted, is_repeatable=True)
