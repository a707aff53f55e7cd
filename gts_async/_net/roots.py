"""Roots: the certificate authorities that a session trusts, as its one SSLContext, loaded off the loop."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import anyio.to_thread
import certifi

from gts_async._errors import InvalidArgument, MisuseError
from gts_async._net.settings import Found

_NOT_ABOUT_WHO_SIGNED = frozenset({9, 10, 62, 64})
"""OpenSSL's X509_V_ERR_: not yet valid, expired, for another name, for another address (x509_vfy.h)."""


class Roots:
    """The authorities that certifi lists, and those of the user's `ca_file` besides; for TLS 1.2 and newer.

    The environment has no say: SSL_CERT_FILE, SSL_CERT_DIR and SSLKEYLOGFILE are not looked at. `ca_file` is called in
    the thread that loads (some 30 ms), and tells where the setting was found.
    """

    def __init__(self, ca_file: Callable[[], Found | None] = lambda: None) -> None:
        self._ca_file = ca_file
        self._loading: asyncio.Task[ssl.SSLContext] | None = None
        self._is_closed = False

    async def context(self) -> ssl.SSLContext:
        """Give the session's one SSLContext.

        Raises InvalidArgument for a `ca_file` that cannot be used, OSError if certifi's own is not there, MisuseError
        once closed; another call tries again.
        """
        if self._is_closed:
            raise _closed()
        if self._loading is None:
            self._loading = asyncio.get_running_loop().create_task(self._loaded())
            self._loading.add_done_callback(self._forget_failure)
        loading = self._loading
        # Not awaited itself: the first caller may be cancelled while others wait for the same context.
        await asyncio.wait([loading])
        if loading.cancelled():
            raise _closed()
        return loading.result()

    async def _loaded(self) -> ssl.SSLContext:
        # anyio's threads are those that the fake clock waits for.
        return await anyio.to_thread.run_sync(self._load, abandon_on_cancel=True)

    def _load(self) -> ssl.SSLContext:
        """Load (blocking)."""
        # Not ssl.create_default_context: it would write the keys of all connections to where SSLKEYLOGFILE says, and
        # newer Pythons' refuses what many private authorities issue (VERIFY_X509_STRICT).
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # So that `ca_file` may hold an intermediate authority or the server's own certificate, too.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(certifi.where())
        found = self._ca_file()
        if found is not None:
            _add(context, found)
        return context

    def _forget_failure(self, loading: asyncio.Task[ssl.SSLContext]) -> None:
        if loading.cancelled() or loading.exception() is not None:
            self._loading = None

    async def aclose(self) -> None:
        """Stop loading; whoever waits for it gets MisuseError."""
        self._is_closed = True
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            await asyncio.wait([self._loading])


def distrust(error: BaseException) -> str | None:
    """Give what to say of the server's certificate if that is what failed: what it is, and what would help.

    None for any other error. Trying again cannot help.
    """
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, ssl.SSLCertVerificationError):
        seen = seen.__cause__ or seen.__context__
    if seen is None:
        return None
    if seen.verify_code in _NOT_ABOUT_WHO_SIGNED:
        return (
            f"the server's certificate is not good ({seen.verify_message}): only its owner can mend that, no ca_file="
        )
    advice = "if its authority is your own, pass that authority's PEM file as ca_file= (GTS_ASYNC_CA_FILE, --ca-file)"
    return f"the server's certificate is not trusted ({seen.verify_message}); {advice}"


def _add(context: ssl.SSLContext, found: Found) -> None:
    fix = "name a PEM file with the authority's certificate"
    try:
        context.load_verify_locations(Path(found.value).expanduser())
    except ssl.SSLError:
        problem = f"{found.value} holds no certificate in PEM form"
    except (OSError, ValueError, RuntimeError) as error:
        problem = f"cannot read {found.value} ({type(error).__name__})"
    else:
        return
    raise InvalidArgument(found.source, problem, fix)


def _closed() -> MisuseError:
    return MisuseError("the session is closed; open another")
