"""Event: what a session tells its `on_event` hook about its calls and watches. No metrics or traces live here."""

from collections.abc import Callable

import attrs


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened.

    `kind` is "answered", "tried again" or "gave up" for calls and "transition" for watches; `subject` is the call's
    name or the work's id; `elapsed` in seconds since the call or watch began; `detail` never holds a secret.
    """

    kind: str
    subject: str
    attempt: int = 1
    status: int | None = None
    elapsed: float = 0.0
    detail: str = ""


Hook = Callable[[Event], None]
