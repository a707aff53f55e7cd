"""Callbacks of the emulated cloud, really sent. When one is due, and what it says, is `emulator.cloud`'s to know."""

import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable
from http.client import HTTPMessage
from typing import IO
from urllib.request import Request

TIMEOUT = 25.0
"""Seconds to connect, and again to be answered (`BaseHttp.java`)."""


class Deliveries:
    """Posts callbacks, each from a thread of its own, once: the cloud does not try again, nor look at the answer.

    `sent` counts those that were answered, with any status, `failed` the others. Any host is called, redirects are
    followed, proxies are not used; only http and https are spoken.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.failed = 0
        self._lock = threading.Lock()

    def begin(self, url: str, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """Post `body` to `url`; returns at once. What is still under way when the program ends is dropped."""
        threading.Thread(target=self._deliver, args=(url, dict(headers), body), name="callback", daemon=True).start()

    def _deliver(self, url: str, headers: dict[str, str], body: bytes) -> None:
        is_answered = _post(url, headers, body)
        with self._lock:
            self.sent += is_answered
            self.failed += not is_answered


def _post(url: str, headers: dict[str, str], body: bytes) -> bool:
    try:
        request = Request(url, body, headers, method="POST")  # noqa: S310 - see the opener
        with _opener().open(request, timeout=TIMEOUT):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except (OSError, ValueError, http.client.HTTPException):
        return False


class _Redirects(urllib.request.HTTPRedirectHandler):
    """As the cloud's Go client: 307 and 308 are posted again, the others become a GET."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if code in {307, 308}:
            return Request(newurl, req.data, req.headers, method="POST")  # noqa: S310 - see the opener
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    # The default one would also open files and FTP, and go by the environment's proxies.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
