"""The URLs that the cloud is given, one for each job: nobody can guess one, every process with the key knows it.

A URL ends in an id and a code of it under the key, so none has to be remembered: those of yesterday's processes are as
good as this one's, however many there are.
"""

import base64
import binascii
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from gts_async._errors import FileError, InvalidArgument
from gts_async._net.config import BaseURL
from gts_async._net.settings import warn_if_exposed
from gts_async.sxwl.checks import MAX_TEXT, check_callback_url

ORIGIN = 4
"""Bytes of an id that say which process made it."""

ID = 16
KEY = 32
TOKEN = 43
"""Characters: an id of 16 bytes and a code of 16 more."""

MARK = 21
"""Characters that a submission may put behind a URL, to find the job by: ``#gts-`` and 16 digits."""

_NO_ID = bytes(ID)


def checked_base(text: str) -> BaseURL:
    """Give what the URLs begin with.

    Raises InvalidArgument if the cloud could not call them, or if they would get longer than it keeps.
    """
    base = BaseURL.parse(text, "base_url")
    longest = MAX_TEXT - MARK - TOKEN - 1
    if len(base.text) > longest:
        problem = f"has {len(base.text)} characters, too many for callback URLs of {MAX_TEXT}"
        raise InvalidArgument("base_url", problem, f"use at most {longest}")
    check_callback_url(base.text)
    return base


class Urls:
    """Makes URLs below `base`, and knows those that were made with the same key, in any process."""

    def __init__(self, base: BaseURL, key: bytes) -> None:
        self.base = base
        self.origin = secrets.token_bytes(ORIGIN)
        self._key = key

    def new(self) -> str:
        """Give a URL that nobody has been given before."""
        return self.of(self.origin + secrets.token_bytes(ID - ORIGIN))

    def of(self, url_id: bytes) -> str:
        """Give the URL with that id."""
        return f"{self.base.text}/{self._token(url_id).decode()}"

    def is_own(self, url_id: bytes) -> bool:
        """Tell whether this process made it."""
        return url_id.startswith(self.origin)

    def known(self, path: str) -> bytes | None:
        """Give the id in the last segment of `path`, None for what was never given out.

        What comes before the token is not looked at: mounts and proxies take away, or add, what they like. The same
        work is done for every path.
        """
        token = path[-2 * TOKEN :].rstrip("/").rpartition("/")[2].encode("ascii", "replace")[-TOKEN - 1 :]
        url_id = _NO_ID
        with suppress(binascii.Error):
            url_id = base64.urlsafe_b64decode(token + b"=")[:ID].ljust(ID, b"\0")
        # Compared as text: bytes that decode alike must not be one token in several spellings.
        return url_id if hmac.compare_digest(self._token(url_id), token) else None

    def _token(self, url_id: bytes) -> bytes:
        code = hmac.digest(self._key, url_id, "sha256")[: 32 - ID]
        return base64.urlsafe_b64encode(url_id + code).rstrip(b"=")

    def __repr__(self) -> str:
        return f"<Urls below {self.base}>"


def new_key() -> bytes:
    """Give a key that nobody else has."""
    return secrets.token_bytes(KEY)


def kept_key(path: Path) -> bytes:
    """Give the key in the file, which is made at the first use, readable for its owner only.

    Two processes that make it at once get the same. Raises FileError; warns of a file that others may read.
    """
    try:
        if not path.exists():
            _keep(path)
        key = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: the key of the callback URLs: {error.strerror}", path=str(path)) from error
    if len(key) != KEY:
        raise FileError(f"{path}: is no key of callback URLs; name another store", path=str(path))
    warn_if_exposed(path)
    return key


def _keep(path: Path) -> None:
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(new_key())
            file.flush()
            os.fsync(descriptor)
        # Not renamed: whoever is second must take the first one's.
        with suppress(FileExistsError):
            os.link(draft, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        draft.unlink(missing_ok=True)
