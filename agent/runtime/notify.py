"""Telling systemd how we are: READY=1, WATCHDOG=1, STATUS=. Does nothing when systemd is not there."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send one sd_notify(3) message. Never raises: a service manager that is not listening must not stop control."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(1.0)
            connection.connect(address)
            connection.sendall(state.encode())
    except OSError:
        return
