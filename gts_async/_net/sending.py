"""Sending: one call on its way, and the line it goes over. What is done with it is in `exchange`."""

from functools import lru_cache
from typing import Any, AnyStr, Generic, TypeVar

import attrs
import httpx

from gts_async._errors import Attempt, MisuseError, ServerFailed, plain
from gts_async._net.body import OpenBody
from gts_async._net.config import BaseURL, is_path
from gts_async._net.secret import Credential, Secret
from gts_async.wire import Answer, Call

T = TypeVar("T")


@attrs.frozen(eq=False)
class Line:
    """What an Exchange speaks over: a client, where the service is, and what authorises calls to it.

    `is_private` is True where the service lives in this process, so that nobody else can reach it.
    """

    client: httpx.AsyncClient
    base_url: BaseURL
    credential: Credential = attrs.field(factory=lambda: Credential(None))
    is_private: bool = False

    def url(self, path: str, query: tuple[tuple[str, str], ...]) -> httpx.URL:
        """Give the URL of a path below the base URL; raises MisuseError for one that would leave it."""
        return _url(self.base_url.text, path, query)


@attrs.define(eq=False)
class Sending(Generic[T]):
    """One call on its way: what bounds it, what was tried, which token was used last and which was refused.

    `silence` and `total` are seconds; `began`, `sent_at` and what `left` is given are the clock's; `queued` is how many
    seconds it has waited for its turn.
    """

    call: Call[T]
    line: Line
    began: float
    silence: float | None
    total: float | None
    max_attempts: int | None
    open_body: OpenBody | None
    attempts: list[Attempt] = attrs.field(factory=list)
    token: Secret | None = None
    refused: Secret | None = None
    sent_at: float = 0.0
    queued: float = 0.0
    is_hopeless: bool = False

    @property
    def where(self) -> dict[str, Any]:
        """What an error says about it."""
        return {"call": self.call.name, "url": f"{self.line.base_url}{self.call.request.path}"}

    def __str__(self) -> str:
        return f"{self.call.name} ({self.line.base_url}{self.call.request.path})"

    def hide(self, said: AnyStr) -> AnyStr:
        """Give what was said without the token: servers do repeat what they were sent, and it goes into texts."""
        for secret in (self.token, self.refused):
            said = said if secret is None else secret.hide(said)
        return said

    def server_failed(self, answer: Answer) -> ServerFailed:
        """Give the error for an answer that only says that the server failed."""
        said, request_id = answer.start(), answer.header("x-request-id")
        return ServerFailed(
            f"{self.call.name}: the server answered {answer.status}: {plain(said, 200)}",
            status=answer.status,
            body=said,
            stage="answer",
            request_id=request_id and plain(request_id),
            **self.where,
        )

    def left(self, now: float) -> float | None:
        """Give the seconds left for it, or None if nothing bounds it."""
        return None if self.total is None else self.total - (now - self.began)


@lru_cache(maxsize=1024)
def _url(base_url: str, path: str, query: tuple[tuple[str, str], ...]) -> httpx.URL:
    if not path.startswith("/") or not is_path(path):
        raise MisuseError(f"{path!r} is not a path below {base_url}")
    return httpx.URL(f"{base_url}{path}", params=query) if query else httpx.URL(f"{base_url}{path}")
