"""Intent: a create on its way, as it is written down, and the spec in it as text.

Where it is written down is in `_journal`; what became of one is found out in `_settling`.
"""

import hashlib
from typing import Any, Literal

import attrs
import msgspec

from gts_async._errors import InvalidArgument
from gts_async.sxwl.values import JobSpec


@attrs.frozen
class Intent:
    """A create that was written down before it was sent: what is needed to find out what became of it.

    `spec` is the one that was sent, `mark` the string in it by which its job is found in a listing (None: it cannot
    be). `begun_at` is when it was last sent, or last known to be under way (Unix seconds). `key` is its name in a
    journal, empty without one. Picklable; `token` gives it as text.
    """

    key: str
    spec: JobSpec
    mark: str | None = None
    begun_at: float = 0.0

    def token(self) -> str:
        """Give JSON for ``session.reconcile``, in any process; it holds all that the spec holds."""
        document = spec_document(self.spec).decode()
        token = IntentToken(kind="intent", key=self.key, spec=document, mark=self.mark, begun_at=self.begun_at)
        return msgspec.json.encode(token).decode()


@attrs.frozen(kw_only=True)
class IntentToken:
    """An Intent as it is written down."""

    kind: Literal["intent"]
    key: str
    spec: str
    mark: str | None
    begun_at: float

    def intent(self) -> Intent:
        """Give the intent that the token was made of."""
        return Intent(self.key, read_spec(self.spec), self.mark, self.begun_at)


def content_key(spec: JobSpec) -> str:
    """Give what equal specs share: a digest of all but the mark and the callback URL, which may be new in each run."""
    return hashlib.blake2b(spec_document(attrs.evolve(spec, callback_url=None, mark=None)), digest_size=16).hexdigest()


def spec_document(spec: JobSpec) -> bytes:
    """Give the spec as JSON whose bytes are the same for equal specs."""
    document = attrs.asdict(spec, recurse=False)
    return msgspec.json.encode({**document, "env": dict(spec.env)}, order="deterministic")


def read_spec(document: str) -> JobSpec:
    """Give the spec that `spec_document` was made of; raises InvalidArgument."""
    try:
        fields: dict[str, Any] = msgspec.json.decode(document, type=dict[str, Any])
        return JobSpec(**fields)
    except (msgspec.MsgspecError, TypeError) as error:
        raise InvalidArgument("intent", "holds no spec", "pass it as it was written down") from error
