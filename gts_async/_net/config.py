"""Limits, timeouts and base URLs: how much, how long and where, as checked values. Settings are read in `settings`."""

import re
from contextlib import suppress
from typing import Self
from urllib.parse import SplitResult, urlsplit

import attrs

from gts_async._errors import InvalidArgument, WrongType
from gts_async._net.hosts import address_of, is_host
from gts_async.wire import Pace

MIB = 1 << 20
EXAMPLE = "write it like http://127.0.0.1:5201"

_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*/?")
_UPWARDS = re.compile(r"/(?:\.|%2e){1,2}(?=/|$)|%2f|%5c|%00", re.IGNORECASE)
"""Segments that lead out of where they stand, and what servers may take for a slash or an end."""


@attrs.frozen(kw_only=True)
class Limits:
    """How much a session does at once.

    `max_connections` per origin; `max_in_flight` calls of the whole session, waiting ones included;
    `max_looks_per_second` for all watches together; `max_answer_bytes` of one answer, before and after decompression.
    """

    max_connections: int = 100
    max_in_flight: int = 1000
    max_looks_per_second: float = 50.0
    max_answer_bytes: int = 8 * MIB

    def __attrs_post_init__(self) -> None:
        """Refuse limits under which nothing could move."""
        check_limits(self)


@attrs.frozen(kw_only=True)
class Timeouts:
    """Seconds that one call may take; None means no bound.

    `connect` bounds each step of making a connection (name and TCP, then TLS), `read` each silence of the server,
    `total` the whole call with all its tries and with waiting for its turn; `load` takes the place of `read` and
    `total` for calls during which the engine loads or runs a model, `transfer` the place of `total` for uploads.
    """

    connect: float | None = 5.0
    read: float | None = 30.0
    total: float | None = 60.0
    load: float | None = 600.0
    transfer: float | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what is not a positive number of seconds."""
        for field in attrs.fields(Timeouts):
            check_seconds(field.name, getattr(self, field.name))

    def bounds(self, pace: Pace, timeout: float | None = None) -> tuple[float | None, float | None]:
        """Give (silence, whole call) in seconds for a call of that pace.

        A `timeout` of the call's own takes the place of the latter, and of both while a model is loaded. Raises
        WrongType and InvalidArgument for one that cannot be.
        """
        own = check_seconds("timeout", timeout)
        if pace is Pace.LOAD:
            return own or self.load, own or self.load
        return self.read, own or (self.transfer if pace is Pace.TRANSFER else self.total)


def check_limits(limits: attrs.AttrsInstance) -> None:
    """Raise WrongType or InvalidArgument unless every field is a number above 0, a whole one where its type is int."""
    for field in attrs.fields(type(limits)):
        value = getattr(limits, field.name)
        # Half a connection would be none, and every call would wait for it in vain.
        kinds = (int,) if field.type is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            what = "a whole number" if field.type is int else "a number"
            raise WrongType(field.name, f"must be {what}, not {type(value).__name__}")
        if not 0 < value < float("inf"):
            raise InvalidArgument(field.name, f"{value} is out of range", "use more than 0")


def check_seconds(argument: str, value: object) -> float | None:
    """Give `value` back if it is None or a positive, finite number of seconds; else WrongType or InvalidArgument."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WrongType(argument, f"must be seconds or None, not {type(value).__name__}")
    if not 0 < value < float("inf"):
        raise InvalidArgument(argument, f"{value} is out of range", "use more than 0 seconds, or None for no bound")
    return float(value)


@attrs.frozen
class BaseURL:
    """Where a service is: scheme, host, port and the path before every call's path, without a slash at the end."""

    text: str
    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: object, argument: str) -> Self:
        """Read a base URL; raises WrongType or InvalidArgument that name `argument`."""
        if not isinstance(text, str):
            raise WrongType(argument, f"must be a URL, not {type(text).__name__}")
        parts, port = _split(text.strip(), argument)
        if parts.scheme not in ("http", "https"):
            raise InvalidArgument(
                argument, f"{_shown(text)} has no http:// or https://", f"write http://{_shown(text)}"
            )
        if not parts.hostname:
            raise InvalidArgument(argument, f"{_shown(text)} has no host", EXAMPLE)
        if parts.username is not None or parts.password is not None:
            raise InvalidArgument(argument, "has a user name or password in it", "pass the token as token=")
        if parts.query or parts.fragment:
            raise InvalidArgument(argument, "has a query or fragment", "leave off everything from ? or # on")
        if any(c.isspace() or ord(c) < 32 for c in text.strip()):
            raise InvalidArgument(argument, "has white space in it", "take it out")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        authority = host if port is None else f"{host}:{port}"
        # They differ where something stands between the brackets of an address and the port.
        if not is_host(parts.hostname) or port == 0 or authority != parts.netloc.lower().removesuffix(":"):
            fix = "write a name in ASCII (xn--…) or an address, and a port from 1 on"
            raise InvalidArgument(argument, f"{_shown(text)} has a host or port that cannot be", fix)
        if not is_path(parts.path):
            fix = "percent-encode what is not ASCII, and leave out //, .., and backslashes"
            raise InvalidArgument(argument, f"{_shown(text)} has a path that cannot be", fix)
        return cls(
            f"{parts.scheme}://{authority}{parts.path.rstrip('/')}",
            parts.scheme,
            parts.hostname,
            port or (443 if parts.scheme == "https" else 80),
        )

    @property
    def is_loopback(self) -> bool:
        """True if the host is this machine by name or number.

        Not ``x.localhost``: browsers lead such names here, but our resolver may ask the network.
        """
        address = address_of(self.host)
        return self.host == "localhost" if address is None else address.is_loopback

    def __str__(self) -> str:
        return self.text


def is_path(text: str) -> bool:
    """Tell whether `text` is a path that stays where it is put: percent-encoded, without ``..`` in any spelling."""
    return _PATH.fullmatch(text) is not None and _UPWARDS.search(text) is None


def _split(text: str, argument: str) -> tuple[SplitResult, int | None]:
    with suppress(ValueError):
        parts = urlsplit(text)
        return parts, parts.port
    # Neither repeated nor chained: urlsplit's error may hold a password that was taken for a port.
    raise InvalidArgument(argument, "is not a URL, or its port is not a number up to 65535", EXAMPLE)


def _shown(text: str) -> str:
    return text.split("?")[0].split("@")[-1][:80]
