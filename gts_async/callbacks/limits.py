"""What a receiver takes at once, and how many callbacks came to what."""

import attrs

from gts_async._net.config import check_limits


@attrs.frozen(kw_only=True)
class CallbackLimits:
    """How much a receiver takes.

    `max_body` in bytes (a real callback has less than one thousand); `body_time` in seconds for all of a body,
    `store_time` for the disk; `max_at_once` callbacks that are read or stored at the same time, more are answered 503.
    The handler: `max_handlers` at once, `handler_time` seconds for each try, `max_tries`, `first_delay` seconds before
    the second one, doubled for each after it, `grace` seconds to end when the receiver is closed. Callbacks that other
    processes have stored are looked for every `follow_every` seconds.
    """

    max_body: int = 64 * 1024
    body_time: float = 5.0
    store_time: float = 10.0
    max_at_once: int = 1000
    max_handlers: int = 16
    handler_time: float = 30.0
    max_tries: int = 5
    first_delay: float = 1.0
    grace: float = 5.0
    follow_every: float = 1.0

    def __attrs_post_init__(self) -> None:
        """Refuse limits under which nothing could come in."""
        check_limits(self)


@attrs.define
class Received:
    """How many callbacks came, by what became of them.

    `rung`: they woke, or would have woken, the watch of a job. Of those, `unstored` could not be written down (503).
    `repeated`: had come before. `unknown`: no such URL (404). `malformed`: no callback (400). `unsigned`: without a
    good signature where one is asked for (401). `refused`: wrong method, type or size, or too slow. `busy`: beyond
    `max_at_once` (503). `handled` and `given_up` count what became of the handler's.
    """

    rung: int = 0
    unstored: int = 0
    repeated: int = 0
    unknown: int = 0
    malformed: int = 0
    unsigned: int = 0
    refused: int = 0
    busy: int = 0
    handled: int = 0
    given_up: int = 0
