"""What the fields of a JobSpec may hold, checked one by one before any I/O; every function raises or gives nothing.

The servers themselves check next to nothing: what is wrong here they would take, and the job would stay "working" for
ever. Which fields there are is in `values`.
"""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from gts_async._errors import InvalidArgument, WrongType

MAX_GPUS = 99_999
MAX_VOLUME = 102_400
"""MB; the bound of the cluster's own check, which is never called there (`pkg/communication/validate.go`)."""
MAX_MINUTES = 5_256_000
MAX_TEXT = 255
"""Characters of most columns of `sys_user_job` (`init.sql`); the database refuses what is longer."""
MAX_GPU_TYPE = 60
MAX_COMMAND = 65_535
"""Bytes of the column `run_command`."""

_PLAIN_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,128}")
_UNSENDABLE = re.compile("[\0\ud800-\udfff]")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


def is_plain_id(text: str) -> bool:
    """Tell whether `text` is 1 to 128 letters, digits and ``._-``, as every id that the cloud makes."""
    return _PLAIN_ID.fullmatch(text) is not None


def is_web_url(url: str) -> bool:
    """Tell whether `url` is http or https with a host, and without spaces or control characters."""
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and has_host and url.isprintable() and " " not in url


def check_id(argument: str, text: object) -> None:
    """Refuse anything but a plain id.

    Above all the empty one: the oldest servers answer it with the newest job of anybody (`UserJobMapper.xml`).
    """
    if not isinstance(text, str):
        raise WrongType(argument, f"must be a string, not {type(text).__name__}")
    if not is_plain_id(text):
        problem = f"{text[:40]!r} is not an id" if text else "is empty"
        raise InvalidArgument(argument, problem, "use 1 to 128 letters, digits and ._-")


def check_number(argument: str, number: object, low: int, high: int) -> None:
    """Refuse anything but a whole number from `low` to `high`."""
    if isinstance(number, str):
        raise InvalidArgument(argument, f"{number[:40]!r} is not a whole number", "give digits only, without a unit")
    if isinstance(number, bool) or not isinstance(number, int):
        raise WrongType(argument, f"must be a whole number, not {type(number).__name__}")
    if not low <= number <= high:
        raise InvalidArgument(argument, f"{number} is out of range", f"use {low} to {high}")


def check_text(argument: str, text: object, limit: int = MAX_TEXT) -> None:
    """Refuse anything but one line of 1 to `limit` characters, with no spaces around it."""
    if not isinstance(text, str):
        raise WrongType(argument, f"must be a string, not {type(text).__name__}")
    if not text.strip():
        raise InvalidArgument(argument, "is empty", "give a value, or leave it out where that is allowed")
    if text != text.strip() or not text.isprintable():
        raise InvalidArgument(argument, "has spaces around it, a line break or another control character", "remove it")
    if len(text) > limit:
        raise InvalidArgument(argument, f"has {len(text)} characters", f"use at most {limit}: the cloud keeps no more")


def check_word(argument: str, text: object, limit: int = MAX_TEXT) -> None:
    """Refuse what `check_text` refuses, and spaces."""
    check_text(argument, text, limit)
    if any(character.isspace() for character in str(text)):
        raise InvalidArgument(argument, "has a space in it", "remove it")


def check_pair(what: str, name: object, path: object) -> None:
    """Refuse a name without a path to mount it at, or the other way round."""
    if (name is None) is not (path is None):
        missing, given = (f"{what}_name", f"{what}_path") if name is None else (f"{what}_path", f"{what}_name")
        raise InvalidArgument(missing, f"is missing, and {given} does nothing without it", "give both or neither")
    if name is not None:
        check_text(f"{what}_name", name)


def check_mounts(paths: Mapping[str, object]) -> None:
    """Refuse paths that cannot be mounted side by side; None is not mounted.

    The rules are Kubernetes' own for a mountPath: it would refuse the job where nobody sees it.
    """
    taken: dict[str, str] = {}
    for argument, path in paths.items():
        if path is None:
            continue
        check_text(argument, path)
        folder = str(path).rstrip("/")
        if not folder.startswith("/") or ":" in folder:
            raise InvalidArgument(argument, f"{path!r} cannot be mounted at", "use an absolute path without a colon")
        if folder in taken:
            raise InvalidArgument(argument, f"{path!r} is {taken[folder]} too", "give each its own folder")
        taken[folder] = argument


def check_command(command: object) -> None:
    """Refuse what would not be the same command after the cluster has split it at every single space."""
    if isinstance(command, str) and "  " in command:
        raise InvalidArgument("run_command", "has two spaces in a row: an empty argument", "use single spaces")
    check_text("run_command", command, MAX_COMMAND)
    size = len(str(command).encode())
    if size > MAX_COMMAND:
        raise InvalidArgument(
            "run_command", f"has {size} bytes", f"use at most {MAX_COMMAND}, or a script in the image"
        )


def check_callback_url(url: object) -> None:
    """Refuse a URL that the cloud could not keep or call."""
    check_word("callback_url", url)
    if not is_web_url(str(url)):
        raise InvalidArgument("callback_url", "is not an http or https URL with a host", "give https://host/path")
    if "/:" in urlsplit(str(url)).path:
        # Taken for a parameter to fill in, so the call is never made (go-zero: rest/httpc/requests.go).
        raise InvalidArgument("callback_url", "has a path segment that starts with a colon", "put no colon there")


def check_env(env: Mapping[str, str]) -> None:
    """Refuse variables that Kubernetes would refuse, and anything but strings; the text names no value.

    A single value that is no string makes every job of the cluster unreadable (`marketmanager.go: GetJobs`).
    """
    for name, value in list[tuple[object, object]](env.items()):
        argument = f"env[{name!r}]"
        if not isinstance(name, str) or not isinstance(value, str):
            odd = type(value if isinstance(name, str) else name).__name__
            raise WrongType(argument, f"names and values must be strings, not {odd}", "use str()")
        if not _VARIABLE.fullmatch(name):
            raise InvalidArgument(argument, "cannot name a variable", "use letters, digits and _.-, no digit first")
        if _UNSENDABLE.search(value):
            raise InvalidArgument(argument, "has a NUL or half a character in its value", "remove it")
