"""The library's transport with bounds: how much a server may send in one chunk and in one message.

The library takes its limits from the server's own Acknowledge, that is, has none against a hostile one, and copies all
that has arrived with every new packet. Here chunks are cut out first, and one that is too large ends the connection.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from asyncua import ua
from asyncua.client.ua_client import UaClient, UASocketProtocol

MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes of one answer: 1,000 scalar values take 30 kB, and a page of a browsed server some 100 kB."""
MAX_CHUNK: Final = 65_535
"""What our Hello announces as receive buffer."""
MAX_CHUNKS: Final = MAX_MESSAGE // 8192
_HEADER: Final = 8
_FINAL: Final = b"FA"

# The library logs every failure again and again, some of them as fatal; here each becomes an error with a remedy.
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)


class BoundedProtocol(UASocketProtocol):  # type: ignore[misc]
    """One connection. ``violation`` says why we closed it, if we did; ``refusal`` is the server's own word on why it
    ends.
    """

    violation = ""
    refusal: ua.UaStatusCodeError | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pending = bytearray()
        self._message_size = 0

    def data_received(self, data: bytes) -> None:
        """Hand over whole chunks only."""
        self._pending += data
        start = 0
        while len(self._pending) - start >= _HEADER and not self.violation:
            size = int.from_bytes(self._pending[start + 4 : start + 8], "little")
            if not self._acceptable(size):
                return
            if len(self._pending) - start < size:
                break
            chunk = bytes(self._pending[start : start + size])
            self._message_size = 0 if chunk[3] in _FINAL else self._message_size + size
            start += size
            self._process_received_data(chunk)
            if self.transport is None or self.transport.is_closing():
                if self.refusal is None:
                    self.violation = self.violation or "the server sent something that is not OPC UA"
                return
        del self._pending[:start]

    def _process_received_message(self, msg: Any) -> None:
        # The library takes a fault for the opened channel and stumbles over it; this raises what the fault says.
        if isinstance(msg, ua.Message) and not self._connection.is_open():
            self.check_answer(msg.body(), "opening the secure channel")
        super()._process_received_message(msg)

    def _fail_all_pending(self, exc: Exception) -> None:
        if isinstance(exc, ua.UaStatusCodeError):
            self.refusal = exc
        super()._fail_all_pending(exc)

    def abort(self) -> None:
        """End the connection at once, without a word to the server."""
        if self.transport is not None:
            self.transport.abort()

    def _acceptable(self, size: int) -> bool:
        if not _HEADER <= size <= MAX_CHUNK:
            self.violation = f"the server announced a chunk of {size} bytes; at most {MAX_CHUNK} were agreed"
        elif self._message_size + size > MAX_MESSAGE:
            self.violation = f"the server's answer is longer than {MAX_MESSAGE} bytes"
        else:
            return True
        self._pending.clear()
        self.abort()
        return False


class BoundedClient(UaClient):  # type: ignore[misc]
    """The library's low-level client over a :class:`BoundedProtocol`."""

    protocol: BoundedProtocol | None

    def _make_protocol(self) -> BoundedProtocol:
        protocol = BoundedProtocol(self._timeout, security_policy=self.security_policy)
        protocol.on_connection_lost = self._on_transport_lost
        protocol.is_session_closing = self._is_session_closing
        self.protocol = protocol
        return protocol
