"""The service manager's notification socket (sd_notify), when there is one."""

from __future__ import annotations

import contextlib
import os
import socket


class Notifier:
    """Sends READY, WATCHDOG, STATUS and STOPPING to the manager; silent without one."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            self._socket.connect("\0" + address[1:] if address[0] == "@" else address)

    def send(self, message: str) -> None:
        if self._socket is not None:
            # A full queue or a gone manager must not stop a service that holds positions.
            with contextlib.suppress(OSError):
                self._socket.send(message.encode())
