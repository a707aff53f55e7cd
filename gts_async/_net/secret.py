"""The token, held so that no repr, pickle, `vars()` or traceback shows it."""

import asyncio
import functools
import html.entities
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import AnyStr, NoReturn
from urllib.parse import unquote

from gts_async._errors import InvalidArgument, WrongType

AskForToken = Callable[[], Awaitable[str]]

HIDDEN = b"<redacted>"
SHORTEST, SHORTEST_VALUE = 16, 6
"""Characters of a token, and of a value in a signed URL: what is shorter is a word that anybody may say, no secret."""


class Secret:
    """A string that shows itself only to `reveal`; `hide` takes its `parts` (or all of it) out of what others say."""

    __slots__ = ("_pattern", "_runs", "reveal")

    def __init__(self, value: str, parts: Iterable[str] | None = None) -> None:
        # Closures, not attributes: printers of object state have nothing to print.
        self.reveal: Callable[[], str] = lambda: value
        hidden = [part for part in ((value,) if parts is None else parts) if part and part.isascii()]
        self._runs = functools.cache(lambda: [_longest_run(part) for part in hidden])
        self._pattern = functools.cache(lambda: _spelled(hidden))

    def hide(self, said: AnyStr) -> AnyStr:
        """Give `said` without the secret, in whichever of the usual ways (JSON, HTML, URLs) it is spelled there."""
        if isinstance(said, bytes):
            return self._hidden(said)
        return self._hidden(said.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def _hidden(self, said: bytes) -> bytes:
        # Looking for letters and digits first is quick; a pattern is not, and every answer comes through here.
        is_there = any(run in said for run in self._runs())
        return self._pattern().sub(HIDDEN, said) if is_there else said

    def __repr__(self) -> str:
        return "Secret('***')"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled; the other process reads its own environment")


def _longest_run(text: str) -> bytes:
    """Give the letters and digits in a row that are in there however the text is spelled."""
    return max(re.split("[^0-9A-Za-z]+", text), key=len).encode()


def _spelled(texts: Iterable[str]) -> re.Pattern[bytes]:
    """Give what finds these texts, the longest first."""
    ordered = sorted(set(texts), key=len, reverse=True)
    return re.compile("|".join("".join(map(_spelled_character, text)) for text in ordered).encode())


def _spelled_character(c: str) -> str:
    """Give a pattern of what JSON, HTML and URLs make of a character, also twice."""
    if c.isalnum():
        return c
    code, name = f"{ord(c):02x}", html.entities.codepoint2name.get(ord(c), "#")
    entity = f"&(?:amp;)?(?:#{ord(c)}|#x{code}|{name});"
    # Bounded: a page of nothing but backslashes would else be looked at to its end from each of them.
    return rf"(?:\\{{0,3}}{re.escape(c)}|(?i:%(?:25){{0,3}}{code}|\\{{1,3}}u00{code}|{entity}))"


def signed(url: str, token: str = "") -> Secret:
    """Give a URL as a secret of which the values in its query must be hidden, raw and decoded; and the `token`."""
    query = url.partition("#")[0].partition("?")[2]
    values = [pair.partition("=")[2] or pair for pair in query.split("&")]
    parts = [part for part in (*values, *map(unquote, values)) if len(part) >= SHORTEST_VALUE]
    return Secret(url, [*parts, token] if len(token) >= SHORTEST else parts)


def bearer(token: object, source: str = "token") -> Secret | InvalidArgument:
    """Give the ``Authorization`` value for `token`, or what is wrong with it; `source` names where it came from.

    White space around it and one leading "Bearer " are dropped: the cloud's login hands tokens out with that prefix
    (`user_login_logic.go`). An error is given, not raised: its traceback would hold frames whose locals are the token.
    """
    if not isinstance(token, str):
        return WrongType(source, f"a token must be a string, not {type(token).__name__}")
    bare = f"{token.strip()} ".removeprefix("Bearer ").strip()
    if not bare:
        return InvalidArgument(source, "the token is empty", "copy it from the cloud's web page")
    if not all("!" <= c <= "~" for c in bare):
        return InvalidArgument(
            source, "the token has characters that cannot go into a header (not shown)", "copy it again, in one line"
        )
    return Secret(f"Bearer {bare}", [bare] if len(bare) >= SHORTEST else [])


class Credential:
    """What authorises calls to one origin: a fixed token, or an async callable that is asked when one is needed.

    Making one raises nothing, so that whoever does can let go of the token first; `check` raises what is wrong with it.
    """

    def __init__(self, token: str | AskForToken | None, source: str = "token") -> None:
        self._source = source
        self._ask = token if callable(token) else None
        read = bearer(token, source) if token is not None and not callable(token) else None
        self._value: Secret | None = None if isinstance(read, InvalidArgument) else read
        self._fault = read if isinstance(read, InvalidArgument) else None
        self._asking = asyncio.Lock()

    def check(self) -> None:
        """Raise WrongType or InvalidArgument, which never show the token, if it cannot be sent."""
        if self._fault is not None:
            raise self._fault

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
        self.check()
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
            del answer  # a token, most likely, and a printer of tracebacks would show it
            raise WrongType(self._source, "the callable must be async", "write it with async def")
        read = bearer(await answer, f"{self._source} (what the callable gave)")
        if isinstance(read, InvalidArgument):
            raise read
        return read

    def __repr__(self) -> str:
        return f"Credential({'asked for' if self.is_renewable else 'fixed' if self.is_given else 'none'})"
