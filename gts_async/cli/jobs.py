"""``gts-async job``: the jobs of the SXWL cloud."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from gts_async._errors import InvalidArgument
from gts_async.cli.exits import Exit
from gts_async.cli.following import follow
from gts_async.cli.options import Flag, Given
from gts_async.cli.records import gpu_text, listing_record, look_record, look_text, style_of, word
from gts_async.sxwl.values import JobSpec, JobType, StopType

app = App(name="job")


@app.command
async def submit(
    *,
    gpu_type: str,
    image_path: str,
    gpu_number: int = 1,
    ckpt_path: str = "/workspace/ckpt",
    ckpt_vol: int = 1024,
    model_path: str = "/workspace/model",
    model_vol: int = 1024,
    job_type: JobType = JobType.GENERAL,
    stop_time: int | None = None,
    run_command: str | None = None,
    pretrained_model_name: str | None = None,
    pretrained_model_path: str | None = None,
    dataset_name: str | None = None,
    dataset_path: str | None = None,
    env: Annotated[list[str] | None, Parameter(negative="", consume_multiple=False)] = None,
    callback_url: str | None = None,
    mark: str | None = None,
    detach: Flag = False,
    deadline: float | None = None,
    stalled_after: float | None = None,
    options: Given,
) -> int:
    """Submit a job and follow it to its end.

    Ctrl-C ends the wait, not the job, and says how to pick it up again.

    Args:
        gpu_type: kind of GPU, as `gts-async job gpus` names it
        image_path: the image to run
        gpu_number: how many GPUs
        ckpt_path: where the image wants the volume for checkpoints
        ckpt_vol: its size in MB
        model_path: where the image leaves its model
        model_vol: the size of that volume in MB
        job_type: how the cluster runs it
        stop_time: minutes after which it is ended and counts as succeeded
        run_command: what to run in the image; split at single spaces, no shell
        pretrained_model_name: a model of the cloud's to start from
        pretrained_model_path: where to mount it
        dataset_name: a data set of the cloud's
        dataset_path: where to mount it
        env: NAME=VALUE, for general jobs; may be repeated
        callback_url: URL that the cloud calls at the end
        mark: a unique string that travels with the job
        detach: do not wait; print the job's id
        deadline: seconds to wait at most
        stalled_after: seconds without any change after which the job counts as dead
        options: the global ones
    """
    spec = JobSpec(
        gpu_type=gpu_type,
        image_path=image_path,
        gpu_number=gpu_number,
        ckpt_path=ckpt_path,
        ckpt_vol=ckpt_vol,
        model_path=model_path,
        model_vol=model_vol,
        job_type=job_type,
        stop_type=StopType.NATURAL if stop_time is None else StopType.TIME_LIMIT,
        stop_time=stop_time,
        run_command=run_command,
        pretrained_model_name=pretrained_model_name,
        pretrained_model_path=pretrained_model_path,
        dataset_name=dataset_name,
        dataset_path=dataset_path,
        env=dict(_variable(text) for text in env or ()),
        callback_url=callback_url,
        mark=mark,
    )
    async with options.session() as session:
        job = await session.submit(spec)
        options.show.data({"id": job.id, "token": job.token()}, job.id)
        if detach:
            return Exit.OK
        again = options.again("job", "wait", job.id)
        return await follow(job, options.show, deadline=deadline, stalled_after=stalled_after, again=again)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidArgument("env", "has no = in it", "write --env NAME=VALUE")
    return name, value


@app.command
async def status(job: str, /, *, options: Given) -> int:
    """Print what a job is doing now.

    Args:
        job: its id
        options: the global ones
    """
    async with options.session() as session:
        look = await session.job(job).status()
    options.show.data(look_record(job, look), look_text(job, look), style_of(word(look)))
    return Exit.OK


@app.command
async def stop(job: str, /, *, options: Given) -> int:
    """Stop a job; no model will come of it.

    Args:
        job: its id
        options: the global ones
    """
    async with options.session() as session:
        await session.job(job).stop()
    options.show.data({"id": job, "done": "stopped"}, f"{job}  stopped")
    return Exit.OK


@app.command
async def wait(
    job: str, /, *, deadline: float | None = None, stalled_after: float | None = None, options: Given
) -> int:
    """Follow a job to its end; exit 0 if it succeeded, 1 if not.

    Args:
        job: its id
        deadline: seconds to wait at most
        stalled_after: seconds without any change after which the job counts as dead
        options: the global ones
    """
    async with options.session() as session:
        handle, again = session.job(job), options.again("job", "wait", job)
        return await follow(handle, options.show, deadline=deadline, stalled_after=stalled_after, again=again)


@app.command
async def download(
    job: str,
    directory: Path,
    /,
    *,
    as_zip: Annotated[Flag, Parameter(name="--zip")] = False,
    options: Given,
) -> int:
    """Fetch the model of a finished job, and print the files; one that was cut goes on where it was.

    Args:
        job: its id
        directory: where to put the files; made if missing
        as_zip: keep the cloud's zip file as it is, rather than unpack it
        options: the global ones
    """
    async with options.session() as session:
        with options.show.progress(f"{job}  downloading") as progress:
            paths = await session.job(job).download(directory, progress=progress, extract=not as_zip)
    for path in paths:
        options.show.data({"id": job, "path": str(path)}, str(path))
    return Exit.OK


@app.command(name="list")
async def list_(*, page: int = 1, size: int = 100, options: Given) -> int:
    """Print the account's jobs, newest first.

    Args:
        page: which page, from 1
        size: jobs on a page
        options: the global ones
    """
    async with options.session() as session:
        for listing in await session.list_jobs(page=page, size=size):
            text = look_text(listing.id, listing.info)
            options.show.data(listing_record(listing), text, style_of(word(listing.info)))
    return Exit.OK


@app.command
async def gpus(*, options: Given) -> int:
    """Print the kinds of GPU that a job can ask for."""
    async with options.session() as session:
        for gpu in await session.gpu_types():
            options.show.data({"name": gpu.name, "price": gpu.price, "free": gpu.free}, gpu_text(gpu))
    return Exit.OK
