"""Connections of one fetch that end when its time is over, whatever the other side does.

Belongs here: what is known of sockets. What a cut connection means is `sluice.rest.client`'s to say.
"""

from __future__ import annotations

import logging
import socket
import threading
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_log = logging.getLogger(__name__)


class Sockets:
    """The connections of a client, which are cut when its time is over.

    A server may send a byte now and then, so that no time-out between two of them is ever reached.

    Args:
        seconds: from `start` until all that is open, or is opened after that, is cut; `cut` says that it was.
    """

    def __init__(self, seconds: float) -> None:
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self.cut = False

    def start(self) -> None:
        """Let the time begin."""
        self._timer.start()

    def stop(self) -> None:
        """Cut nothing any more."""
        self._timer.cancel()

    def watch(self, connection: socket.socket) -> None:
        """Have a connection cut when the time is over, at once if it is already."""
        with self._lock:
            self._open = [each for each in self._open if each.fileno() >= 0]
            self._open.append(connection)
            if self.cut:
                # The time was over while it was being made.
                self._shut(connection)

    def leave(self, connection: socket.socket) -> None:
        """Watch it no more, and close it."""
        with self._lock:
            self._open.remove(connection)
            connection.close()

    def _cut(self) -> None:
        with self._lock:
            self.cut = True
            for connection in self._open:
                self._shut(connection)

    def _shut(self, connection: socket.socket) -> None:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            _log.debug("A connection was closed already: %s", error.strerror)


class Adapter(HTTPAdapter):
    """Has every connection that a session of requests makes watched, from its first moment."""

    def __init__(self, sockets: Sockets) -> None:
        class Watched(HTTPConnection):
            _made: socket.socket | None = None

            def _new_conn(self) -> socket.socket:
                # urllib3's own name for it, of which requests knows no public one: what follows, a proxy's leave and
                # TLS, may take long as well. TLS goes on with another object, so a second one of the same connection
                # is watched meanwhile.
                made = super()._new_conn()
                self._made = made.dup()
                sockets.watch(self._made)
                return made

            def connect(self) -> None:
                try:
                    super().connect()
                    sockets.watch(self.sock)
                finally:
                    if self._made is not None:
                        sockets.leave(self._made)
                        self._made = None

        class Encrypted(Watched, HTTPSConnection):
            pass

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Watched

        class EncryptedPool(HTTPSConnectionPool):
            ConnectionCls = Encrypted

        self._pools = {"http": PlainPool, "https": EncryptedPool}
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As its base, with connections that are watched."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Likewise, for those by a proxy."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager
