"""Places on this machine's disks, as users name them."""

import os
from pathlib import Path

from gts_async._errors import InvalidArgument, WrongType


def local_path(argument: str, path: object) -> Path:
    """Give what `argument` was given as a Path, without any I/O.

    Raises WrongType for what is no path, InvalidArgument for one that no system can have. An empty text is refused, as
    from a setting that is not there: the working directory is ".".
    """
    if not isinstance(path, (str, os.PathLike)):
        raise WrongType(argument, f"must be a string or a path, not {type(path).__name__}")
    text = os.fspath(path)
    if not isinstance(text, str):
        raise WrongType(
            argument, f"must be a path of text, not of {type(text).__name__}", "os.fsdecode makes text of it"
        )
    if not text:
        raise InvalidArgument(argument, "is empty", 'give a path; "." is the working directory')
    try:
        odd = "\0" if b"\0" in os.fsencode(text) else ""
    except UnicodeEncodeError as error:
        odd = text[error.start]
    if odd:
        raise InvalidArgument(argument, f"{text!r} has {odd!r}, which no path can have", "leave it out")
    return Path(text)
