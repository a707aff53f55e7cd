"""Where a session's settings come from: argument, then environment, then ``gts_async.toml`` here, then the user's file.

What the values may be is in `config` and `hosts`.
"""

import os
import shlex
import stat
import threading
import tomllib
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

import attrs
import platformdirs

from gts_async._errors import InvalidArgument, WrongType
from gts_async._net.config import BaseURL
from gts_async._net.hosts import Hosts
from gts_async._net.secret import Credential, Secret
from gts_async.sxwl.dialects import dialect as dialect_named

ENVIRONMENT = {
    "engine": "GTS_ASYNC_ENGINE",
    "cloud": "GTS_ASYNC_CLOUD",
    "token": "GTS_ASYNC_TOKEN",
    "token_file": "GTS_ASYNC_TOKEN_FILE",
    "dialect": "GTS_ASYNC_DIALECT",
    "ca_file": "GTS_ASYNC_CA_FILE",
    "store_hosts": "GTS_ASYNC_STORE_HOSTS",
}
FILE_NAME = "gts_async.toml"


@attrs.frozen
class Found:
    """A setting, and where it was found, for errors. Held like a token, because one of them is one."""

    _value: Secret = attrs.field(converter=Secret, alias="value")
    source: str
    path: Path | None = None

    @property
    def value(self) -> str:
        """The setting as text."""
        return self._value.reveal()


def from_environment(environ: Mapping[str, str]) -> dict[str, Found]:
    """Give the settings that environment variables hold; empty ones do not count."""
    return {
        name: Found(environ[variable], variable)
        for name, variable in ENVIRONMENT.items()
        if environ.get(variable, "").strip()
    }


def files() -> tuple[Path, ...]:
    """Give the configuration files in the order in which they count."""
    return Path(FILE_NAME), Path(platformdirs.user_config_dir("gts_async")) / "config.toml"


def from_files(paths: tuple[Path, ...]) -> dict[str, Found]:
    """Read the configuration files (blocking); a file that is not there does not count.

    Raises InvalidArgument that names the file for anything in it that is not one of the settings.
    """
    found: dict[str, Found] = {}
    for path in paths:
        read = _read(path)
        if isinstance(read, InvalidArgument):
            raise read
        found = read | found
    return found


def _read(path: Path) -> dict[str, Found] | InvalidArgument:
    """Give the settings of one file, or what is wrong with it.

    An error is given, not raised, and names no cause: frames, locals and the parser's own error hold the file's text,
    and that may hold the token.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        return InvalidArgument(str(path), f"cannot be read as TOML ({type(error).__name__})", "mend it")
    found: dict[str, Found] = {}
    for name, value in document.items():
        text = ", ".join(value) if name == "store_hosts" and _is_list_of_text(value) else value
        if name not in ENVIRONMENT:
            return InvalidArgument(str(path), f"has an unknown setting {name!r}", f"known are {', '.join(ENVIRONMENT)}")
        if not isinstance(text, str):
            return WrongType(str(path), f"{name} must be a string, not {type(value).__name__}")
        found[name] = Found(text, f"{path} ({name})", path)
    return found


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def token_from_file(found: Found) -> Found:
    """Read the token out of the file that a setting names (blocking); raises InvalidArgument that names both."""
    try:
        path = Path(found.value).expanduser()
        return Found(path.read_text("utf-8"), f"{found.source} ({found.value})", path)
    except (OSError, ValueError, RuntimeError) as error:
        # Not named: it may be the token itself, in the wrong place.
        problem = f"cannot read the file that it names ({type(error).__name__})"
    # Raised out here: the decoder's own error holds the file's bytes, and would be the context.
    raise InvalidArgument(found.source, problem, "mend it")


def warn_if_exposed(path: Path) -> None:
    """Warn if others than its owner may read a file that holds a token; a pipe or terminal is no file."""
    mode = 0
    with suppress(OSError):
        mode = path.stat().st_mode
    # On Windows the mode says nothing of who may read.
    if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
        text = f"{path} holds a token, and others on this machine may read it: chmod 600 {shlex.quote(str(path))}"
        warnings.warn(text, UserWarning, stacklevel=2)


DEFAULT_DIALECT = "2023-12"


class Settings:
    """The settings of a session, each from the first place that has it.

    Arguments and environment are read at once; the files only when `load` is called (it blocks), or something is asked
    for that neither of the former has. `credential` is what was made of a token that was given as an argument.
    """

    def __init__(
        self,
        *,
        engine: str | None = None,
        cloud: str | None = None,
        credential: Credential | None = None,
        dialect: str | None = None,
        ca_file: str | PathLike[str] | None = None,
        store_hosts: str | Iterable[str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._found = from_environment(os.environ if environ is None else environ)
        given = {
            "engine": engine,
            "cloud": cloud,
            "dialect": dialect,
            "ca_file": _path("ca_file", ca_file),
            "store_hosts": None if store_hosts is None else str(Hosts.parse(store_hosts, "store_hosts")),
        }
        for name, value in given.items():
            if value is not None:
                self._found[name] = Found(_text(name, value), name)
        self._are_files_read = False
        self._loading = threading.Lock()
        self._credential = credential
        if credential is not None:
            credential.check()
        _check(self._found)

    def load(self) -> None:
        """Read the configuration files and the token's file (blocking), once.

        Raises InvalidArgument for what cannot be used, and warns of a file that holds a token and that others may read.
        """
        read: list[Found | None] = []
        with self._loading:
            if not self._are_files_read:
                in_files = from_files(files())
                found = in_files | self._found
                _check(found)
                self._found, self._are_files_read = found, True
                read.append(in_files.get("token"))
            if self._credential is None:
                token = self._found_token()
                credential = Credential(token.value, token.source) if token is not None else Credential(None)
                credential.check()
                self._credential = credential
                read.append(token)
        # Last, because it may be raised: then the next call goes on with what is read.
        for path in {found.path for found in read if found is not None and found.path is not None}:
            warn_if_exposed(path)

    def _found_token(self) -> Found | None:
        found = self._found.get("token")
        if found is None and "token_file" in self._found:
            return token_from_file(self._found["token_file"])
        return found

    def _get(self, name: str) -> Found | None:
        if name not in self._found:
            self.load()
        return self._found.get(name)

    def has(self, name: str) -> bool:
        """Tell whether a setting is given anywhere."""
        return self._get(name) is not None

    def base_url(self, name: str) -> BaseURL:
        """Give the URL of "engine" or "cloud"; raises InvalidArgument if it is not set."""
        found = self._get(name)
        if found is None:
            raise InvalidArgument(name, "is not set", f"pass {name}=, or set {ENVIRONMENT[name]}")
        return BaseURL.parse(found.value, found.source)

    def credential(self) -> Credential:
        """Give what authorises calls to the cloud; it may be nothing."""
        self.load()
        assert self._credential is not None  # noqa: S101 - set by load
        return self._credential

    def ca_file(self) -> Found | None:
        """Give the file of authorities to trust besides the usual ones, and where it was named."""
        return self._get("ca_file")

    def store_hosts(self) -> Hosts | None:
        """Give the hosts that downloads may come from; None if the user has listed none."""
        found = self._get("store_hosts")
        return None if found is None else Hosts.parse(found.value, found.source)

    def dialect(self) -> Found:
        """Give the name of the cloud's dialect and where it was found; raises nothing."""
        return self._get("dialect") or Found(DEFAULT_DIALECT, "dialect")

    def check_dialect(self) -> None:
        """Raise InvalidArgument now for a dialect, given as argument or in the environment, that does not exist."""
        if "dialect" in self._found:
            dialect_named(self._found["dialect"].value)

    def __str__(self) -> str:
        return " ".join(f"{name}={self.base_url(name)}" for name in ("engine", "cloud") if name in self._found)


def _check(found: Mapping[str, Found]) -> None:
    for name in ("engine", "cloud"):
        if name in found:
            BaseURL.parse(found[name].value, found[name].source)
    if "store_hosts" in found:
        Hosts.parse(found["store_hosts"].value, found["store_hosts"].source)


def _text(argument: str, text: object) -> str:
    if not isinstance(text, str):
        raise WrongType(argument, f"must be a string, not {type(text).__name__}")
    return text


def _path(argument: str, path: object) -> str | None:
    if path is None:
        return None
    return _text(argument, os.fspath(path) if isinstance(path, PathLike) else path)
