"""Registration with a BBMD as a foreign device (135 annex J.5), renewed well before it ends."""

from __future__ import annotations

import asyncio
import struct
from typing import Final

import structlog

from drivers.bacnet.frames import REGISTER_FOREIGN, Host, bvlc
from drivers.bacnet.port import Port

RENEW_AFTER: Final = 0.5
"""Part of the time to live after which the registration is renewed: one lost datagram does not end it."""
RETRY_S: Final = 5.0

log = structlog.get_logger(__name__)


class Registration:
    """Keeps one port registered with one BBMD until it is closed."""

    def __init__(self, port: Port, bbmd: Host, ttl_s: int) -> None:
        self.bbmd = bbmd
        self.accepted: bool | None = None
        """What the BBMD said last; None: nothing yet."""
        self._port = port
        self._ttl_s = ttl_s
        self._timer: asyncio.TimerHandle | None = None
        self._port.result_listeners[bbmd] = self._result
        self.renew()

    def renew(self) -> None:
        """Register, and again in time."""
        self._port.send(bvlc(REGISTER_FOREIGN, struct.pack(">H", self._ttl_s)), self.bbmd)
        self._again(RETRY_S if not self.accepted else self._ttl_s * RENEW_AFTER)

    def close(self) -> None:
        """Let the registration end by itself."""
        self._port.result_listeners.pop(self.bbmd, None)
        if self._timer is not None:
            self._timer.cancel()

    def _again(self, after_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(after_s, self.renew)

    def _result(self, code: int) -> None:
        accepted = code == 0
        if accepted != self.accepted:
            if accepted:
                log.info("registered as a foreign device", bbmd=self.bbmd[0], ttl_s=self._ttl_s)
            else:
                log.warning("the BBMD refuses the registration", bbmd=self.bbmd[0], code=f"0x{code:04x}")
        self.accepted = accepted
        self._again(self._ttl_s * RENEW_AFTER if accepted else RETRY_S)
