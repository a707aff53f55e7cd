"""Event: what a session tells its `on_event` hook about its calls, watches and creates. No metrics live here."""

import logging
from collections.abc import Callable

import attrs

log = logging.getLogger("gts_async")


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened.

    `subject` is the call's name or the work's id; `elapsed` in seconds since the call or watch began, of which it was
    `queued` waiting for a place, a pause to end or a free connection; `detail` never holds a secret. `kind` is

    - for each try of a call "answered", "tried again" or "gave up", with `attempt` and `status`;
    - for watched work "transition" (`detail`: the name of the new status), "degraded" when looks begin to fail for
      lack of a usable answer (`detail`: the error's name), and "recovered" with the first good look after that;
    - for a create of a job "unknown outcome" when its answer is lost (`subject`: "create_job"), and "settled" when its
      job has been found (`subject`: the job's id); `detail` is the mark, by which the two belong together.
    """

    kind: str
    subject: str
    attempt: int = 1
    status: int | None = None
    elapsed: float = 0.0
    queued: float = 0.0
    detail: str = ""


Hook = Callable[[Event], None]


def tell(hook: Hook | None, event: Event) -> None:
    """Tell the hook, if there is one; what it raises is logged and goes no further."""
    if hook is None:
        return
    try:
        hook(event)
    except Exception:
        # The answer of a create is on its way through here: it must not be lost to a fault in somebody's metrics.
        log.exception("on_event failed at %r", event.kind)
