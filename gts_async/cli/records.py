"""What is shown of a look, a transition or a result: the record for JSON, the words and the colour for people."""

from collections.abc import Mapping
from typing import Any

import attrs

from gts_async._errors import plain
from gts_async._flow.transition import Transition
from gts_async.gts.values import Result, TaskInfo
from gts_async.sxwl.values import GpuType, JobInfo, JobListing

STYLES: Mapping[str, str] = {
    "succeeded": "bold green",
    "serving": "bold green",
    "failed": "bold red",
    "stopped": "yellow",
    "unknown": "yellow",
}
"""The colours of statuses that end something; all others are shown in `GOING`."""

GOING = "cyan"
WELL = frozenset({"succeeded", "serving"})
"""The statuses that work ends well with: a task that is being served has been trained."""


def style_of(status: str) -> str:
    """Give the colour of a status."""
    return STYLES.get(status, GOING)


def word(look: TaskInfo | JobInfo) -> str:
    """Give the status as it is written everywhere."""
    return look.status.name.lower()


def look_record(handle_id: str, look: TaskInfo | JobInfo) -> dict[str, object]:
    """Give what JSON says of a look; the signed URL of a model is a secret, so only whether there is one."""
    record: dict[str, object] = {"id": handle_id, "status": word(look), "observed_at": look.observed_at}
    if isinstance(look, TaskInfo):
        return {**record, "code": look.code, "message": plain(look.message), "test_acc": look.test_acc}
    return {**record, "word": plain(look.word), "has_model": look.url is not None}


def look_text(handle_id: str, look: TaskInfo | JobInfo) -> str:
    """Give one line about a look."""
    return f"{handle_id}  {word(look)}{_more(look)}"


def transition_record(handle_id: str, change: Transition[Any]) -> dict[str, object]:
    """Give what JSON says of a transition."""
    record: dict[str, object] = {
        "id": handle_id,
        "previous": None if change.previous is None else change.previous.name.lower(),
        "status": change.status.name.lower(),
        "elapsed": round(change.elapsed, 3),
        "observed_at": change.observed_at,
        "is_synthesized": change.is_synthesized,
        "is_final": change.is_final,
    }
    if change.is_final and isinstance(change.look, TaskInfo):
        record["test_acc"] = change.look.test_acc
    return record


def transition_words(change: Transition[Any]) -> str:
    """Give the words of a transition, without its time."""
    before = f"{change.previous.name.lower()} → " if change.previous is not None else ""
    more = " (passed between two looks)" if change.is_synthesized else _more(change.look) if change.is_final else ""
    return f"{before}{change.status.name.lower()}{more}"


def result_record(result: Result) -> dict[str, object]:
    """Give what JSON says of a prediction, an extraction or a summary."""
    return attrs.asdict(result, filter=lambda field, _: field.name != "json")


def listing_record(listing: JobListing) -> dict[str, object]:
    """Give what JSON says of a job in a listing."""
    info = listing.info
    return {"id": listing.id, "status": word(info), "word": plain(info.word), "mark": listing.mark}


def gpu_text(gpu: GpuType) -> str:
    """Give one line about a kind of GPU."""
    price = "" if gpu.price is None else f"  {gpu.price:g} yuan/h"
    return f"{gpu.name}{price}" + ("" if gpu.free is None else f"  {gpu.free} free")


def _more(look: TaskInfo | JobInfo) -> str:
    if isinstance(look, TaskInfo):
        return "" if look.test_acc is None else f", test accuracy {look.test_acc:.4g}"
    return ", a model is there" if look.url is not None else ""
