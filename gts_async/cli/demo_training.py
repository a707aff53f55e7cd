"""The demo's first half, on the engine: check and upload a data set, train, serve, predict, delete."""

import json
import time
from pathlib import Path

import anyio.to_thread

from gts_async._errors import InvalidData
from gts_async._flow.schedule import Schedule
from gts_async._session import AsyncSession
from gts_async._task import Task
from gts_async.cli.demo_report import Report
from gts_async.cli.records import style_of, transition_words
from gts_async.gts.values import Prediction, TaskInfo, TaskStatus
from gts_async.local.sample import LABELS, SamplePaths, write_sample

ROWS = 5000
"""Headlines of the data set; a fifth of them, 1000, is predicted at the end."""

BAD_LINE = 7
LEAST_ACCURACY = 0.8
"""Guessing among six topics gives 0.17; the model gets some 0.92."""

QUICK = Schedule(minimum=0.1)
"""This engine's stages last tenths of a second; a real one is looked at every 0.5 s at most."""

TRAINING_TIME = 60.0
"""Seconds that the training may take; it takes about two."""


async def train_and_predict(engine_url: str, folder: Path, report: Report) -> None:
    """Do it all, noting in `report` what did not hold; raises what the client raises."""
    paths = await anyio.to_thread.run_sync(lambda: write_sample(folder, rows=ROWS))
    report.step("data", f"{ROWS} Chinese headlines on {len(LABELS)} topics, to train, tune and test on")
    async with AsyncSession(engine=engine_url, schedule=QUICK, on_event=report.heard) as session:
        task = await session.create_task("headlines", task_type="classification", engine_type="qiankunding")
        await _refuse_bad_data(task, paths, report)
        await task.upload(*paths)
        size = sum(path.stat().st_size for path in paths)
        report.step("upload", f"{len(paths)} files, {size / 1000:.0f} kB, checked line by line and sent")
        look = await _train(task, paths, report)
        await _predict(task, paths, look, report)
        await task.delete()
        left = [other.id for other in await session.list_tasks()]
        report.check("clean-up", not left, f"the engine still has {left}")


async def _refuse_bad_data(task: Task, paths: SamplePaths, report: Report) -> None:
    """Spoil one line of a copy: the check must name it, and nothing may be sent."""
    rows = [json.loads(line) for line in paths.train.read_text("utf-8").splitlines()[: 2 * BAD_LINE]]
    del rows[BAD_LINE - 1]["label"]
    spoiled = paths.train.with_name("spoiled.json")
    spoiled.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), "utf-8")
    try:
        await task.upload(spoiled)
    except InvalidData as error:
        found = [(problem.file, problem.line) for problem in error.problems]
        report.check("pre-flight", found == [("spoiled.json", BAD_LINE)], f"faults were seen in {found}")
        report.step("pre-flight", f"a spoiled copy was refused before sending: {error.problems[0]}")
    else:
        report.check("pre-flight", False, f"the fault in line {BAD_LINE} of spoiled.json was not seen")


async def _train(task: Task, paths: SamplePaths, report: Report) -> TaskInfo:
    report.update("training")
    train, dev, test, labels = (path.name for path in paths)
    run = await task.train(train_data=train, val_data=dev, test_data=test, label_data=labels)
    async for change in run.watch(deadline=TRAINING_TIME):
        status = change.status.name.lower()
        report.update(f"training: {status}")
        report.step("training", transition_words(change), style_of(status), status=status)
    look = await run
    report.check("training", look.status is TaskStatus.SUCCEEDED, f"it ended as {look.status.name.lower()}")
    return look


async def _predict(task: Task, paths: SamplePaths, trained: TaskInfo, report: Report) -> None:
    """Ask for the topics of the test file's headlines and count how many are right."""
    report.update("loading the model")
    rows = [json.loads(line) for line in paths.test.read_text("utf-8").splitlines()]
    samples = ({"content": row["content"]} for row in rows)
    right = failed = count = 0
    async with task.serve(load_timeout=TRAINING_TIME) as inference:
        report.step("serving", "the model is loaded")
        began = time.monotonic()
        async with inference.stream(samples) as outcomes:
            async for outcome in outcomes:
                result = outcome.value
                failed += not isinstance(result, Prediction)
                right += isinstance(result, Prediction) and result.label == rows[count]["label"]
                count += 1
                report.update(f"predicting: {count} of {len(rows)}")
        seconds = time.monotonic() - began
    facts = report.facts
    facts.predictions, facts.predictions_per_second, facts.accuracy = count, count / seconds, right / max(count, 1)
    report.step("predict", f"{count} headlines, {facts.predictions_per_second:.0f} a second, {right} of them right")
    report.check("predict", count == len(rows) and not failed, f"{count} of {len(rows)} answered, {failed} failed")
    report.check("accuracy", facts.accuracy >= LEAST_ACCURACY, f"{facts.accuracy:.3f} is below {LEAST_ACCURACY}")
    is_same = trained.test_acc is not None and abs(trained.test_acc - facts.accuracy) < 0.0005
    report.check(
        "accuracy", is_same, f"{facts.accuracy:.3f}, but the engine measured {trained.test_acc} on the same rows"
    )
