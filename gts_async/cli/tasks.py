"""``gts-async task``: the tasks of a GTS Engine."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from gts_async._errors import OutcomeUnknown
from gts_async.cli.exits import Exit
from gts_async.cli.following import follow
from gts_async.cli.options import Flag, Given, Options
from gts_async.cli.records import look_record, look_text, style_of, word
from gts_async.gts.values import EngineType, TaskType

app = App(name="task")

Types = Annotated[TaskType | None, Parameter(name="--task-type")]
Engines = Annotated[EngineType | None, Parameter(name="--engine-type")]


@app.command
async def create(
    name: str | None = None,
    /,
    *,
    task_type: TaskType,
    engine_type: EngineType,
    exist_ok: Flag = False,
    options: Given,
) -> int:
    """Make a task and print its id.

    Args:
        name: its name, which is its id; one is made up if there is none
        task_type: what it is to learn
        engine_type: which of the engine's two training stacks it uses
        exist_ok: a task of that name that is there already is fine
        options: the global ones
    """
    async with options.session() as session:
        task = await session.create_task(name, task_type=task_type, engine_type=engine_type, exist_ok=exist_ok)
    options.show.data({"id": task.id, "task_type": task_type, "engine_type": engine_type}, task.id)
    return Exit.OK


@app.command(name="list")
async def list_(*, options: Given) -> int:
    """Print the ids of all tasks."""
    async with options.session() as session:
        for task in await session.list_tasks():
            options.show.data({"id": task.id}, task.id)
    return Exit.OK


@app.command
async def status(task: str, /, *, options: Given) -> int:
    """Print what a task is doing now.

    Args:
        task: its id
        options: the global ones
    """
    async with options.session() as session:
        look = await session.task(task).status()
    options.show.data(look_record(task, look), look_text(task, look), style_of(word(look)))
    return Exit.OK


@app.command
async def upload(
    task: str,
    /,
    *files: Path,
    task_type: Types = None,
    engine_type: Engines = None,
    options: Given,
) -> int:
    """Send data files; one of the same name is replaced.

    With both types given, the files are checked first: each line that the training would stumble over is named.

    Args:
        task: its id
        files: the files
        task_type: what the task learns
        engine_type: which of the engine's two training stacks it uses
        options: the global ones
    """
    async with options.session() as session:
        handle = session.task(task, task_type=task_type, engine_type=engine_type)
        with options.show.progress(f"{task}  uploading") as progress:
            await handle.upload(*files, progress=progress)
    names = [file.name for file in files]
    options.show.data({"id": task, "files": names}, f"{task}  uploaded {', '.join(names)}")
    return Exit.OK


@app.command
async def train(
    task: str,
    /,
    *,
    train_data: str,
    val_data: str,
    test_data: str,
    label_data: str,
    unlabeled_data: str = "",
    train_mode: Literal["standard", "advanced"] = "standard",
    max_len: int = 512,
    max_num_epoch: int = 3,
    min_num_epoch: int = 3,
    seed: int = 42,
    gpuid: int = 0,
    engine_type: Engines = None,
    task_type: Types = None,
    detach: Flag = False,
    deadline: float | None = None,
    stalled_after: float | None = None,
    options: Given,
) -> int:
    """Train on uploaded files, and follow the training to its end.

    Ctrl-C ends the wait, not the training, and says how to pick it up again.

    Args:
        task: its id
        train_data: name of the uploaded file to train on
        val_data: name of the file to choose the best epoch by
        test_data: name of the file to measure the accuracy on
        label_data: name of the file that lists the labels
        unlabeled_data: name of the file that the advanced mode learns more from
        train_mode: standard, or advanced
        max_len: longest text, in tokens
        max_num_epoch: most epochs
        min_num_epoch: fewest epochs
        seed: of all that is random
        gpuid: number of the GPU
        engine_type: makes the end of a bagualu training certain
        task_type: goes with the engine's type
        detach: do not wait; print the token that `gts-async watch` takes
        deadline: seconds to wait at most
        stalled_after: seconds without any change after which the training counts as dead
        options: the global ones
    """
    async with options.session() as session:
        handle = session.task(task, task_type=task_type, engine_type=engine_type)
        try:
            run = await handle.train(
                train_data=train_data,
                val_data=val_data,
                test_data=test_data,
                label_data=label_data,
                unlabeled_data=unlabeled_data,
                train_mode=train_mode,
                max_len=max_len,
                max_num_epoch=max_num_epoch,
                min_num_epoch=min_num_epoch,
                seed=seed,
                gpuid=gpuid,
            )
        except OutcomeUnknown as error:
            error.add_note(f"the training may have begun; see with:\n  {options.again('watch', str(error.intent))}")
            raise
        if detach:
            options.show.data({"id": task, "token": run.token()}, run.token())
            return Exit.OK
        again = options.again("watch", run.token())
        return await follow(run, options.show, deadline=deadline, stalled_after=stalled_after, again=again)


@app.command
async def stop(task: str, /, *, options: Given) -> int:
    """Stop a task's training.

    Args:
        task: its id
        options: the global ones
    """
    return await _done(task, "stopped", options)


@app.command
async def delete(task: str, /, *, options: Given) -> int:
    """Delete a task with all its files and its model; one that is gone already is fine.

    Args:
        task: its id
        options: the global ones
    """
    return await _done(task, "deleted", options)


async def _done(task: str, what: Literal["stopped", "deleted"], options: Options) -> int:
    async with options.session() as session:
        handle = session.task(task)
        await (handle.stop() if what == "stopped" else handle.delete())
    options.show.data({"id": task, "done": what}, f"{task}  {what}")
    return Exit.OK


@app.command
async def wait(
    task: str, /, *, deadline: float | None = None, stalled_after: float | None = None, options: Given
) -> int:
    """Follow a training that somebody else started to its end; exit 0 if it succeeded, 1 if not.

    An ending that an earlier training left is believed, too; for your own, `task train` and `watch` know better.

    Args:
        task: its id
        deadline: seconds to wait at most
        stalled_after: seconds without any change after which the training counts as dead
        options: the global ones
    """
    async with options.session() as session:
        handle, again = session.task(task), options.again("task", "wait", task)
        return await follow(handle, options.show, deadline=deadline, stalled_after=stalled_after, again=again)
