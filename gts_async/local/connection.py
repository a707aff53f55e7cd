"""uvicorn's HTTP connection as the local servers use it.

Importing this needs the extra ``local``; `serving` does so when it starts.
"""

import asyncio
import logging
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from gts_async.local.asgi import CUT

LOG = logging.getLogger(__name__)


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


LOG.addFilter(_is_news)


class Connection(H11Protocol):
    """An HTTP/1.1 connection on h11, like the real engine's; what it has to say goes to our logger, not uvicorn's.

    What is cancelled when the server closes is no news. There are no access lines: their URLs would hold the
    signatures of the store. Applications may cut the connection (`asgi.CUT`).
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, CUT: self.cut}, _loop)
        self.logger = LOG
        self.access_log = False

    def cut(self, delay: float = 0.0) -> None:
        """Close in `delay` seconds, after what was sent, without announcing it and without reading on until then."""
        if not self.transport.is_closing():
            self.transport.pause_reading()
            self.loop.call_later(delay, self.transport.close)
