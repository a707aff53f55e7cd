"""Asking a store for an object: one GET, its redirects, and how long its answer is waited for.

The request goes to another origin than the API and carries nothing of it: no token, no cookie, no header of the
client's. Which URLs may be followed is in `address`, what the answers mean in `store`.
"""

import asyncio

import attrs
import httpx

from gts_async._errors import UnexpectedAnswer
from gts_async._files import address, store
from gts_async._net.client import sent
from gts_async._net.secret import Secret, signed
from gts_async._net.slots import BODY_READ

READ = 256 << 10
"""Bytes read at a time, which is what asyncio takes from a socket at once; anyio copies what is left over otherwise."""

MAX_REDIRECTS = 5
CONNECT_TIME = 10.0
"""Seconds for one connection to be made."""


@attrs.frozen
class MinimumSpeed:
    """A connection over which fewer than `size` bytes arrive within `seconds` is given up, and the download resumed."""

    size: int = 1024
    seconds: float = 30.0


PATIENT = MinimumSpeed()


@attrs.define
class Asking:
    """One try: `async with asking.patience` around it, `answer` once, and then `be_patient` as bytes come."""

    client: httpx.AsyncClient
    link: Secret
    fence: address.Fence
    minimum_speed: MinimumSpeed
    patience: asyncio.Timeout = attrs.field(factory=lambda: asyncio.timeout(None))
    """Bounds waiting for the network, and nothing else."""
    asked: list[Secret] = attrs.field(factory=list)
    """The URLs: the first one, and where it redirected to."""

    @property
    def slow(self) -> str:
        """What is said when the patience is over."""
        return f"fewer than {self.minimum_speed.size} bytes came in {self.minimum_speed.seconds:g} s"

    def hide(self, said: str) -> str:
        """Take the URLs' secrets out of what somebody says."""
        for link in self.asked:
            said = link.hide(said)
        return said

    def be_patient(self) -> None:
        """Wait for so long from now on."""
        if not self.patience.expired():
            self.patience.reschedule(asyncio.get_running_loop().time() + self.minimum_speed.seconds)

    def wait_for_ever(self) -> None:
        """Bound nothing: what is waited for is none of the network's."""
        self.patience.reschedule(None)

    async def answer(self, headers: list[tuple[str, str]]) -> httpx.Response:
        """Send the GET, following redirects by hand: each is checked like the URL itself."""
        self.asked, was_https = [self.link], False
        for _ in range(MAX_REDIRECTS + 1):
            response = await sent(self.client, self._get(headers, was_https=was_https), auth=None)
            was_https = was_https or response.request.url.scheme == "https"
            if response.status_code not in (301, 302, 303, 307, 308) or not response.headers.get("location"):
                self.wait_for_ever()
                return response
            await response.aclose()
            self.asked.append(signed(address.joined(self.asked[-1].reveal(), response.headers["location"])))
        raise UnexpectedAnswer(call=store.CALL, problem=f"more than {MAX_REDIRECTS} redirects")

    def _get(self, headers: list[tuple[str, str]], *, was_https: bool) -> httpx.Request:
        """Build the request here and not by the client: its own headers, cookies and parameters must not go along."""
        link = self.asked[-1]
        parsed = address.checked(link.reveal(), self.fence, is_redirect_from_https=was_https)
        return httpx.Request("GET", parsed, headers=headers, extensions=self._extensions(parsed, link.reveal()))

    def _extensions(self, parsed: httpx.URL, url: str) -> dict[str, object]:
        silence = self.minimum_speed.seconds
        extensions: dict[str, object] = {
            # Waiting for a free connection is bounded by nothing: other downloads may rightly take hours.
            "timeout": {"connect": CONNECT_TIME, "read": silence, "write": silence, "pool": None},
            "trace": address.guard(parsed, self.fence, on_event=self._heard),
            BODY_READ: READ,
        }
        if (exact := address.target(url)) != parsed.raw_path:
            extensions["target"] = exact
        return extensions

    def _heard(self, event: str) -> None:
        """Count the patience from the newest event: httpx's timeouts see neither dripping headers nor a slow TLS."""
        if event.endswith(".started") and "close" not in event:
            self.be_patient()
