"""``gts-async predict``: serves a task's model and asks it, one line of JSON for every sample."""

import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from typing import Annotated, Any

from cyclopts import Parameter

from gts_async._errors import InvalidArgument
from gts_async._flow.fanout import Outcome
from gts_async._flow.stream import Stream
from gts_async.cli.exits import Exit
from gts_async.cli.options import STDIN, Given, Options
from gts_async.cli.records import result_record
from gts_async.cli.rows import RowFile
from gts_async.cli.tasks import Engines, Types
from gts_async.gts.values import TaskType

_TEXT_FIELDS = {None: "content", TaskType.CLASSIFICATION: "content", TaskType.SUMMARY: "text"}


async def predict(
    task: str,
    file: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    text: Annotated[list[str] | None, Parameter(negative="", consume_multiple=False)] = None,
    task_type: Types = None,
    engine_type: Engines = None,
    max_batch: int | None = None,
    checkpoint: str | None = None,
    load_timeout: float = 600.0,
    options: Given,
) -> int:
    """Load a task's model, ask it about samples, release it; see `app.HELPS`.

    Args:
        task: its id
        file: a JSON lines file of samples, or - for stdin
        text: a text to classify (or to summarize); may be repeated
        task_type: what the task has learned; goes with the engine's type
        engine_type: which of the engine's two training stacks it uses
        max_batch: most samples in one request; 64 if not given, 512 where one load serves one request
        checkpoint: a file to keep results in; a run that was killed goes on where it was
        load_timeout: seconds that loading the model may take
        options: the global ones
    """
    rows = _rows(file, text, task_type)
    async with (
        options.session() as session,
        session.task(task, task_type=task_type, engine_type=engine_type).serve(
            load_timeout=load_timeout, max_batch=max_batch
        ) as inference,
    ):
        with options.show.progress(f"{task}  predicting") as progress:
            return await _shown(inference.stream(rows, checkpoint=checkpoint, progress=progress), rows, options)


async def _shown(stream: Stream[Any, Any], rows: "RowFile | _Texts", options: Options) -> int:
    began, failed, count = time.monotonic(), 0, 0
    async with stream as outcomes:
        async for outcome in outcomes:
            options.show.data({"row": rows.numbers.popleft(), **_record(outcome)})
            count += 1
            failed += not outcome.is_ok
    seconds = max(time.monotonic() - began, 1e-9)
    bad = f", {failed} of them failed" if failed else ""
    options.show.talk(f"{count} samples in {seconds:.2f} s ({count / seconds:.0f}/s){bad}", "red" if failed else "")
    return Exit.FAILED if failed else Exit.OK


def _record(outcome: Outcome[Any, Any]) -> dict[str, object]:
    if outcome.error is None:
        return result_record(outcome.unwrap())
    return {"error": str(outcome.error) if isinstance(outcome.item, dict) else "is not a JSON object"}


class _Texts(AsyncIterable[dict[str, str]]):
    """Samples made of texts of the command line; the same face as `RowFile`."""

    def __init__(self, texts: list[str], field: str) -> None:
        self.numbers = deque(range(1, len(texts) + 1))
        self._samples = [{field: text} for text in texts]

    def __len__(self) -> int:
        return len(self._samples)

    async def __aiter__(self) -> AsyncIterator[dict[str, str]]:
        for sample in self._samples:
            yield sample


def _rows(file: str | None, texts: list[str] | None, task_type: TaskType | None) -> "RowFile | _Texts":
    if texts and file is not None:
        raise InvalidArgument("file", "was given together with --text", "give one of them")
    if file is not None and file.startswith("-") and file != STDIN:
        raise InvalidArgument("file", f"there is no option {file}", "see: gts-async predict --help")
    if texts:
        field = _TEXT_FIELDS.get(task_type)
        if field is None:
            raise InvalidArgument("text", f"is not all that a {task_type} sample needs", "put samples into a FILE")
        return _Texts(texts, field)
    if file is None:
        raise InvalidArgument("file", "is missing, and so is --text", "give one of them; - is stdin")
    return RowFile(file)
