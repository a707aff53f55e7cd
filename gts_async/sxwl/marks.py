"""Marks: how a job is given a unique string that travels with it, so that it can be found in a listing.

Which field of a listing brings it back is in `dialects`; ``calls.mark_of`` tells what to look for there.
"""

import re

import attrs

from gts_async.sxwl.calls import mark_of
from gts_async.sxwl.checks import MAX_TEXT
from gts_async.sxwl.dialects import Dialect
from gts_async.sxwl.values import JobSpec

NOWHERE = "https://mark.invalid/"
"""Where no callback ever arrives (RFC 6761, 6.4); the servers only log one that fails (`cpod_status_logic.go`)."""

_OURS = re.compile("gts-[0-9a-f]{16}")


def new_mark(chance: bytes) -> str:
    """Give a mark made of 8 random bytes."""
    return f"gts-{chance.hex()}"


def is_ours(mark: str) -> bool:
    """Tell whether `new_mark` made it, so that no other job can have it."""
    return _OURS.fullmatch(mark) is not None


def marked(dialect: Dialect, spec: JobSpec, mark: str) -> JobSpec:
    """Give `spec` with `mark` where it travels with the job; unmarked if there is no room.

    Where that is the callback URL, the mark is its fragment: the servers keep it, and no HTTP client sends it. A spec
    that has a mark of its user's own there is given as it is; one that was marked here before is marked anew.
    """
    if mark_of(dialect, spec) is not None and spec.mark is not None and not is_ours(spec.mark):
        return spec
    spec = unmarked(spec)
    if dialect.mark_field == "mark":
        return attrs.evolve(spec, mark=spec.mark or mark)
    url = spec.callback_url
    longer = f"{NOWHERE}#{mark}" if url is None else f"{url}{'&' if '#' in url else '#'}{mark}"
    return spec if len(longer) > MAX_TEXT else attrs.evolve(spec, callback_url=longer, mark=mark)


def unmarked(spec: JobSpec) -> JobSpec:
    """Give `spec` as it was before `marked`."""
    if spec.mark is None or not is_ours(spec.mark):
        return spec
    url = spec.callback_url
    if url is not None and url.endswith((f"#{spec.mark}", f"&{spec.mark}")):
        url = url[: -len(spec.mark) - 1]
    return attrs.evolve(spec, callback_url=None if url == NOWHERE else url, mark=None)


def called_url(spec: JobSpec) -> str | None:
    """Give the callback URL as the cloud calls it, without a fragment; None if nobody is to be called."""
    url = (spec.callback_url or "").partition("#")[0]
    return url if url not in ("", NOWHERE) else None
