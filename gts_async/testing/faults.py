"""Faults as data: what goes wrong with which request, and how often."""

from collections.abc import Callable

import attrs
import httpx

Raise = Callable[[httpx.Request], httpx.Response]


@attrs.define
class Fault:
    """One thing that goes wrong `times` times, with requests whose path ends in `path` (any, if empty).

    `is_after`: the server has carried the request out before its answer is lost or replaced.
    """

    outcome: Raise
    path: str = ""
    times: int = 1
    is_after: bool = False

    def meets(self, method: str, path: str) -> bool:
        """Tell whether this request meets the fault now, and count it."""
        if self.times <= 0 or not path.rstrip("/").endswith(self.path.rstrip("/")):
            return False
        self.times -= 1
        return True


def refused(path: str = "", times: int = 1) -> Fault:
    """Nobody listens: nothing was sent."""

    def outcome(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    return Fault(outcome, path, times)


def cut(path: str = "", times: int = 1, *, is_after: bool = True) -> Fault:
    """The connection breaks before the answer; by default the server has carried the request out."""

    def outcome(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("connection reset", request=request)

    return Fault(outcome, path, times, is_after)


def silent(path: str = "", times: int = 1, *, is_after: bool = True) -> Fault:
    """No answer comes in time; by default the server has carried the request out."""

    def outcome(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("no answer", request=request)

    return Fault(outcome, path, times, is_after)


def status(code: int, body: bytes = b"", path: str = "", times: int = 1, **headers: str) -> Fault:
    """Somebody in between answers `code`; header names take ``_`` for ``-``."""

    def outcome(request: httpx.Request) -> httpx.Response:
        pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return httpx.Response(code, headers=pairs, content=body)

    return Fault(outcome, path, times)
