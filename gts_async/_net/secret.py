"""The token, held so that no repr, pickle, `vars()` or traceback shows it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from gts_async._errors import InvalidArgument, WrongType

AskForToken = Callable[[], Awaitable[str]]


class Secret:
    """A string that shows itself only to `reveal`."""

    __slots__ = ("reveal",)

    def __init__(self, value: str) -> None:
        # A closure, not an attribute: printers of object state have nothing to print.
        self.reveal: Callable[[], str] = lambda: value

    def __repr__(self) -> str:
        return "Secret('***')"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled; the other process reads its own environment")


def bearer(token: object, source: str = "token") -> Secret:
    """Give the ``Authorization`` value for `token`; `source` names where it came from, for the error.

    White space around it and one leading "Bearer " are dropped: the cloud's login hands tokens out with that prefix
    (`user_login_logic.go`). Raises WrongType or InvalidArgument, which never show the token.
    """
    if not isinstance(token, str):
        raise WrongType(source, f"a token must be a string, not {type(token).__name__}")
    bare = f"{token.strip()} ".removeprefix("Bearer ").strip()
    if not bare:
        raise InvalidArgument(source, "the token is empty", "copy it from the cloud's web page")
    if not all("!" <= c <= "~" for c in bare):
        raise InvalidArgument(
            source, "the token has characters that cannot go into a header (not shown)", "copy it again, in one line"
        )
    return Secret(f"Bearer {bare}")


class Credential:
    """What authorises calls to one origin: a fixed token, or an async callable that is asked when one is needed."""

    def __init__(self, token: str | AskForToken | None, source: str = "token") -> None:
        self._source = source
        self._ask = token if callable(token) else None
        self._value = bearer(token, source) if token is not None and not callable(token) else None
        self._asking = asyncio.Lock()

    @property
    def is_renewable(self) -> bool:
        """True if asking again may bring another token."""
        return self._ask is not None

    @property
    def is_given(self) -> bool:
        """True if there is a token, or somebody to ask for one."""
        return self._ask is not None or self._value is not None

    async def authorization(self, *, refused: Secret | None = None) -> Secret | None:
        """Give the header's value, asking for a token if there is none yet or the last one is the `refused` one.

        Calls that need one at the same time ask once together. Raises what the callable raises, WrongType and
        InvalidArgument for what it gives.
        """
        if self._ask is None or self._is_good(refused):
            return self._value
        async with self._asking:
            # Whoever was first may have brought one meanwhile.
            if not self._is_good(refused):
                self._value = await self._asked(self._ask)
        return self._value

    def _is_good(self, refused: Secret | None) -> bool:
        return self._value is not None and self._value is not refused

    async def _asked(self, ask: AskForToken) -> Secret:
        answer: object = ask()
        if not isinstance(answer, Awaitable):
            raise WrongType(self._source, "the callable must be async", "write it with async def")
        return bearer(await answer, f"{self._source} (what the callable gave)")

    def __repr__(self) -> str:
        return f"Credential({'asked for' if self.is_renewable else 'fixed' if self.is_given else 'none'})"
