"""What a generation's front is made of: who is asking, which handler a path has, and whose token it is.

The fronts themselves are `cloud_java`, `cloud_go` and `cloud_head`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import unquote

import attrs

from gts_async.emulator.cloud_answers import text, tomcat
from gts_async.emulator.cloud_jobs import User
from gts_async.wire import Answer, Request


@attrs.frozen
class Asked:
    """One request whose sender is known."""

    request: Request
    user: User
    now: float


Handler = Callable[[Asked], Answer]
"""Answers one endpoint. Raises Refusal."""

Methods = Mapping[str, Handler]


class Front(Protocol):
    """One generation, seen from outside."""

    def user(self, request: Request) -> User | Answer:
        """Give who sends the request, or what is answered to strangers."""
        ...

    def handler(self, request: Request, now: float) -> Handler | Answer:
        """Give who answers the request, or what is answered when nobody does."""
        ...

    def is_create(self, handler: Handler) -> bool:
        """Tell whether the handler makes jobs or services."""
        ...

    def refused(self, message: str | None, now: float) -> Answer:
        """Give the answer to a Refusal."""
        ...


def cleaned(path: str) -> str:
    """Give the path as Go's ``path.Clean`` does, decoded."""
    kept: list[str] = []
    for segment in unquote(path).split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept)


def go_handler(methods: Methods, method: str) -> Handler | Answer:
    """Give the handler of a path that is there, or go-zero's 405 (`rest/router/patrouter.go`)."""
    return methods.get(method) or Answer(405, (("allow", ", ".join(methods)),))


class Accounts:
    """Whose token it is; without any tokens, everybody is the first user and no token is looked at.

    `token` belongs to the first user, as do the `outdated` ones; each of `others` is a further user's.
    """

    def __init__(self, token: str | None, others: tuple[str, ...] = (), outdated: frozenset[str] = frozenset()) -> None:
        self._is_open = token is None and not others
        self._outdated = outdated
        first = () if token is None else (token,)
        self._users = {name: User.of(number) for number, name in enumerate((*first, *others), 1)}
        self._users |= dict.fromkeys(outdated, User.of(1))

    def for_java(self, request: Request) -> User | Answer:
        """Spring's filter wants ``Bearer `` before the token (`TokenFilter.java`).

        A stranger is sent away with an empty 401. What cannot be a token of anybody's makes the filter itself fail:
        500. Both bodies are inferred; here, three parts count as a token whose session is over.
        """
        header = request.header("authorization") or ""
        token = header.replace("Bearer ", "") if header.startswith("Bearer ") else ""
        if (user := self._known(token)) is not None:
            return user
        is_malformed = token.strip() != "" and token.count(".") != 2
        return tomcat(500, "Internal Server Error") if is_malformed else Answer(401)

    def for_go(self, request: Request, *, wants_new: bool) -> User | Answer:
        """The gateway takes one ``Bearer `` off, if it is there, and parses the rest (`gateway/handler.go: auth`).

        With `wants_new`, tokens that were given out before HEAD lack what it looks for.
        """
        token = (request.header("authorization") or "").removeprefix("Bearer ")
        if wants_new and token in self._outdated:
            return text(401, "Unauthorized")
        return self._known(token) or text(401, f"Unauthorized: {_jwt_problem(token)}")

    def _known(self, token: str) -> User | None:
        return User.of(1) if self._is_open else self._users.get(token)


def _jwt_problem(token: str) -> str:
    """Give what golang-jwt says of a token that is not good; that the claims are readable is taken for granted."""
    parts = token.split(".")
    if len(parts) != 3:
        return "token contains an invalid number of segments"
    wrong = re.search("[^A-Za-z0-9_-]", parts[0])
    if wrong is None:
        return "signature is invalid"
    if token.lower().startswith("bearer "):
        return "tokenstring should not contain 'bearer '"
    return f"illegal base64 data at input byte {wrong.start()}"
