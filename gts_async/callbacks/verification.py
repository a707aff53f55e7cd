"""Signatures by Standard Webhooks, for who has a gateway that signs: the cloud itself signs nothing.

See https://www.standardwebhooks.com: the text ``id.timestamp.body`` is signed with HMAC-SHA256, by one or more secrets.
"""

import base64
import hmac
import re
from collections.abc import Iterable, Sequence

from gts_async._errors import InvalidArgument

PREFIX = "whsec_"
LEAST = 16
"""Bytes that a secret must have."""

TOLERANCE = 300.0
"""Seconds that a signature's time may lie in the past or future."""

MAX_SIGNATURES = 16
_TIMESTAMP = re.compile(rb"[0-9]{1,12}")

Headers = Iterable[tuple[bytes, bytes]]


class Verifier:
    """Says whether a callback was signed with one of the secrets, ``whsec_…`` each; several while they are rotated.

    Wrong ones are told by `check`, in whose frame they are not: many printers of tracebacks show locals.
    """

    def __init__(self, secrets: str | Sequence[str]) -> None:
        keys = [_key(secret) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
        self._keys = [key for key in keys if key is not None]
        self._is_wrong = not keys or None in keys

    def check(self) -> None:
        """Raise InvalidArgument unless all secrets can be such, and there is one."""
        if self._is_wrong:
            problem = f"must be whsec_ and base64 of {LEAST} bytes or more, each"
            raise InvalidArgument("signing_secrets", problem, "copy them as they were given")

    def is_signed(self, headers: Headers, body: bytes, now: float) -> bool:
        """Tell whether the body as it came is signed by its headers; `now` in Unix seconds."""
        given = [header for header in headers if header[0].startswith(b"webhook-")]
        fields = dict(given)
        name, timestamp = fields.get(b"webhook-id", b""), fields.get(b"webhook-timestamp", b"")
        if len(fields) < len(given) or not name or not _TIMESTAMP.fullmatch(timestamp):
            return False
        if abs(now - int(timestamp)) > TOLERANCE:
            return False
        text = b".".join((name, timestamp, body))
        wanted = [b"v1," + base64.b64encode(hmac.digest(key, text, "sha256")) for key in self._keys]
        claimed = fields.get(b"webhook-signature", b"").split(b" ")[:MAX_SIGNATURES]
        # All are compared, so that the time does not tell which one fits.
        return any([hmac.compare_digest(one, other) for one in claimed for other in wanted])

    def __repr__(self) -> str:
        return f"<Verifier {len(self._keys)} secrets>"


def _key(secret: object) -> bytes | None:
    if not isinstance(secret, str):
        return None
    try:
        key = base64.b64decode(secret.strip().removeprefix(PREFIX), validate=True)
    except ValueError:
        return None
    return key if len(key) >= LEAST else None
