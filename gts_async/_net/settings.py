"""Where a session's settings come from: argument, then environment, then ``gts_async.toml`` here, then the user's file.

What the values may be is in `config`.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import platformdirs

from gts_async._errors import InvalidArgument, WrongType
from gts_async._net.config import BaseURL
from gts_async._net.secret import AskForToken, Credential
from gts_async.sxwl.dialects import dialect as dialect_named

ENVIRONMENT = {
    "engine": "GTS_ASYNC_ENGINE",
    "cloud": "GTS_ASYNC_CLOUD",
    "token": "GTS_ASYNC_TOKEN",
    "token_file": "GTS_ASYNC_TOKEN_FILE",
    "dialect": "GTS_ASYNC_DIALECT",
}
FILE_NAME = "gts_async.toml"


@attrs.frozen
class Found:
    """A setting, and where it was found, for errors."""

    value: str = attrs.field(repr=False)
    source: str


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

    Raises InvalidArgument that names the file for anything in it that is not one of the five settings.
    """
    found: dict[str, Found] = {}
    for path in paths:
        try:
            document = tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            # The parser's text may repeat the line at fault, and that line may hold the token.
            raise InvalidArgument(str(path), f"cannot be read as TOML ({type(error).__name__})", "mend it") from None
        for name, value in document.items():
            found.setdefault(name, _found(name, value, path))
    return found


def _found(name: str, value: Any, path: Path) -> Found:
    if name not in ENVIRONMENT:
        raise InvalidArgument(str(path), f"has an unknown setting {name!r}", f"known are {', '.join(ENVIRONMENT)}")
    if not isinstance(value, str):
        raise WrongType(str(path), f"{name} must be a string, not {type(value).__name__}")
    return Found(value, f"{path} ({name})")


def token_from_file(found: Found) -> Found:
    """Read the token out of the file that a setting names (blocking); raises InvalidArgument that names both."""
    try:
        return Found(Path(found.value).expanduser().read_text("utf-8"), f"{found.source} ({found.value})")
    except (OSError, ValueError) as error:
        raise InvalidArgument(found.source, f"cannot read {found.value} ({type(error).__name__})", "mend it") from None


DEFAULT_DIALECT = "2023-12"


class Settings:
    """The five settings of a session, each from the first place that has it.

    Arguments and environment are read at once; the files only when `load` is called (it blocks), or something is asked
    for that neither of the former has.
    """

    def __init__(
        self,
        *,
        engine: str | None,
        cloud: str | None,
        token: str | AskForToken | None,
        dialect: str | None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._found = from_environment(os.environ if environ is None else environ)
        given = {"engine": engine, "cloud": cloud, "dialect": dialect}
        for name, value in given.items():
            if value is not None:
                self._found[name] = Found(value, name)
        self._are_files_read = False
        self._token = token
        self._credential = Credential(token) if token is not None else None
        for name in ("engine", "cloud"):
            if name in self._found:
                BaseURL.parse(self._found[name].value, self._found[name].source)

    def load(self) -> None:
        """Read the configuration files and the token's file (blocking), once."""
        if not self._are_files_read:
            self._found = from_files(files()) | self._found
            self._are_files_read = True
        if self._credential is None:
            self._credential = self._found_credential()

    def _found_credential(self) -> Credential:
        found = self._found.get("token")
        if found is None and "token_file" in self._found:
            found = token_from_file(self._found["token_file"])
        return Credential(found.value, found.source) if found is not None else Credential(None)

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

    def check_dialect(self) -> None:
        """Raise InvalidArgument now for a dialect, given as argument or in the environment, that does not exist."""
        if "dialect" in self._found:
            dialect_named(self._found["dialect"].value)

    def __str__(self) -> str:
        return " ".join(f"{n}={self._found[n].value.split('?')[0]}" for n in ("engine", "cloud") if n in self._found)

    def dialect(self) -> Found:
        """Give the name of the cloud's dialect and where it was found; raises nothing."""
        return self._get("dialect") or Found(DEFAULT_DIALECT, "dialect")
