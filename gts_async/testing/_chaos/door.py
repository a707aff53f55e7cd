"""Where a chaos server listens: a port of 127.0.0.1 that is open, refuses, or leaves clients in the handshake."""

import asyncio
import socket
from typing import TYPE_CHECKING

from gts_async._errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPBACK = "127.0.0.1"
BACKLOG = 4096


class Door:
    """A listening socket at a free port. Everything here is for the loop that it was opened on.

    `on_accept` takes each accepted socket, `on_fault` the error if the system gives no more of them.
    """

    def __init__(self, on_accept: "Callable[[socket.socket], object]", on_fault: "Callable[[OSError], object]") -> None:
        self._on_accept = on_accept
        self._on_fault = on_fault
        self._loop = asyncio.get_running_loop()
        self._fillers: list[socket.socket] = []
        self._is_open = False
        self._listener = _bound(0)
        self.port: int = self._listener.getsockname()[1]

    def open(self) -> None:
        """Listen, or listen again; those who hang in the handshake come through when they send their SYN again."""
        self._listener.listen(BACKLOG)
        self._accept(but_not={filler.getsockname() for filler in self._fillers})
        self._forget_fillers()
        self._loop.add_reader(self._listener, self._accept)
        self._is_open = True

    def shut(self) -> None:
        """Let connections be refused, and keep the port."""
        self.close()
        # Bound but not listening, it keeps everybody else from the port.
        self._listener = _bound(self.port)

    def close(self) -> None:
        """Give up the port."""
        self._forget_fillers()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._is_open = False

    def block(self) -> None:
        """Let further connections hang in the TCP handshake: nobody answers their SYN. Raises MisuseError if shut."""
        if not self._is_open:
            raise MisuseError("a server that refuses connections cannot let them hang")
        self._accept()
        self._loop.remove_reader(self._listener)
        self._is_open = False
        # A backlog of 0 holds one connection, whose place is taken here; the second one is for systems that hold more.
        self._listener.listen(0)
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((LOOPBACK, self.port))
            self._fillers.append(filler)

    def unblock(self) -> None:
        """End `block`, unless something else has."""
        if self._fillers:
            self.open()

    def _forget_fillers(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()

    def _accept(self, but_not: "set[object] | None" = None) -> None:
        while True:
            try:
                accepted, name = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Out of descriptors: to stay at the door would be to spin.
                self._loop.remove_reader(self._listener)
                self._on_fault(error)
                return
            if but_not and name in but_not:
                accepted.close()
            else:
                self._on_accept(accepted)


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setblocking(False)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((LOOPBACK, port))
    return bound
