"""Certificates of a chaos server, good and bad, and TLS over memory buffers: the socket stays in the server's hands."""

import datetime
import enum
import os
import ssl
import tempfile

import attrs

from gts_async._errors import MissingExtra

NAMES = ("127.0.0.1", "localhost")


class Certificate(enum.Enum):
    """What a chaos server shows of itself to whoever trusts its `ca_file`."""

    GOOD = "good"
    """For 127.0.0.1 and localhost."""
    UNKNOWN = "unknown"
    """Signed by an authority that is not in `ca_file`."""
    WRONG_HOST = "wrong host"
    """For elsewhere.test."""
    EXPIRED = "expired"
    """Valid until yesterday."""
    NOT_YET_VALID = "not yet valid"
    """Valid from tomorrow on."""


@attrs.frozen
class Identity:
    """A certificate in use: the server's context, and the file with the authority that a client is to trust."""

    context: ssl.SSLContext
    ca_file: str

    @classmethod
    def of(cls, certificate: Certificate) -> "Identity":
        """Issue that certificate and write its authority to a file, which `forget` removes.

        Raises MissingExtra without the extra ``testing``.
        """
        try:
            from trustme import CA
        except ImportError as error:
            raise MissingExtra("testing", "a chaos server with TLS") from error
        trusted = CA()
        signer = CA() if certificate is Certificate.UNKNOWN else trusted
        names = ("elsewhere.test",) if certificate is Certificate.WRONG_HOST else NAMES
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        since, until = _validity(certificate)
        signer.issue_cert(*names, not_before=since, not_after=until).configure_cert(context)
        handle, ca_file = tempfile.mkstemp(prefix="chaos-", suffix=".pem")
        with open(handle, "wb") as file:
            file.write(trusted.cert_pem.bytes())
        return cls(context, ca_file)

    def forget(self) -> None:
        """Remove `ca_file`."""
        os.unlink(self.ca_file)


def _validity(certificate: Certificate) -> tuple[datetime.datetime | None, datetime.datetime | None]:
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    if certificate is Certificate.EXPIRED:
        return now - 2 * day, now - day
    if certificate is Certificate.NOT_YET_VALID:
        return now + day, now + 2 * day
    return None, None


class Tunnel:
    """The server's side of TLS, without a socket: what came in is put in, what must go out is taken out."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._came = ssl.MemoryBIO()
        self._goes = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._goes, server_side=True)

    def put(self, sealed: bytes) -> None:
        """Take what came from the socket; nothing means that the client has sent its last."""
        if sealed:
            self._came.write(sealed)
        else:
            self._came.write_eof()

    def take(self) -> bytes:
        """Give what must be sent through the socket now."""
        return self._goes.read()

    def shake_hands(self) -> bool:
        """Go on with the handshake as far as possible; tell whether it is done. Raises ssl.SSLError."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def open(self, size: int) -> bytes | None:
        """Give at most `size` bytes of what came; None if more must be put in first, nothing at the end.

        Raises ssl.SSLError.
        """
        try:
            return self._tls.read(size)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""

    def seal(self, data: memoryview) -> int:
        """Seal a first part of `data`; give its length."""
        return self._tls.write(data)

    def end(self) -> None:
        """Say that nothing more will be sent (close_notify)."""
        try:
            self._tls.unwrap()
        except (ssl.SSLError, OSError):
            # It wants the client's own close_notify, which is not waited for, or there never was a handshake.
            return
