"""A BACnet/IP device over an object table: serves a plant as if it were the real equipment. Bounded in every direction."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

from drivers.bacnet import apdu, services, tags
from drivers.bacnet.apdu import APDU_SIZES, Kind, Service, Unconfirmed
from drivers.bacnet.frames import UNICAST, Frame, Station, bvlc, npdu_to, parse
from drivers.bacnet.objects import UNKNOWN_OBJECT, ObjectTable, PropertyError
from drivers.bacnet.subscriptions import Subscriptions
from drivers.bacnet.tags import MalformedError, Reader
from drivers.errors import NotConnectedError

REJECT_BAD_TAG: Final = 4


class BacnetServer(asyncio.DatagramProtocol):
    """Serves one device on one UDP port. What is not a well-formed request is answered as the standard says, or dropped."""

    def __init__(self, table: ObjectTable) -> None:
        self.table = table
        self.requests = 0
        """Confirmed requests received."""
        self.subscriptions = Subscriptions(table, self._send)
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def port(self) -> int:
        """The port it listens on, known after :meth:`start`."""
        assert self._transport is not None
        number: int = self._transport.get_extra_info("sockname")[1]
        return number

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one. Raises NotConnectedError if the address cannot be used."""
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(
                lambda: self, local_addr=(host, port), family=socket.AF_INET
            )
        except OSError as error:
            raise NotConnectedError(
                f"cannot listen on UDP {host}:{port} ({error.strerror or error}); choose a free port"
            ) from error
        self.subscriptions.start()

    async def close(self) -> None:
        """Stop listening; subscriptions are forgotten, as in a device that is switched off."""
        transport, self._transport = self._transport, None
        self.subscriptions.close()
        if transport is not None:
            transport.close()
            await asyncio.sleep(0)  # the loop closes the socket in its next turn

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Called by the event loop."""
        frame = parse(data, (addr[0], addr[1]))
        if frame is None or not frame.apdu:
            return
        kind = frame.apdu[0] >> 4
        if kind == Kind.UNCONFIRMED:
            self._unconfirmed(frame)
        elif kind == Kind.CONFIRMED and len(frame.apdu) >= 4:
            self.requests += 1
            self._send(frame.source, self.answer(frame.source, frame.apdu))

    def answer(self, source: Station, request: bytes) -> bytes:
        """Answer one confirmed request. Never raises for anything a client may send."""
        invoke_id = request[2]
        if request[0] & apdu.SEGMENTED:
            return apdu.abort(invoke_id, apdu.ABORT_SEGMENTATION, from_server=True)
        service, body = request[3], request[4:]
        try:
            content = self._serve(service, source, body)
        except PropertyError as error:
            named = b"".join(tags.application(tags.ENUMERATED, part) for part in error.error)
            return bytes((Kind.ERROR << 4, invoke_id, service)) + named
        except MalformedError:
            return apdu.reject(invoke_id, REJECT_BAD_TAG)
        if content is None:
            return apdu.reject(invoke_id, apdu.REJECT_UNRECOGNIZED_SERVICE)
        if not content:
            return apdu.simple_ack(invoke_id, service)
        code = request[1] & 0x0F
        most = min(self.table.max_apdu, APDU_SIZES[code] if code < len(APDU_SIZES) else APDU_SIZES[0])
        if len(content) + 3 > most:
            return apdu.abort(invoke_id, apdu.ABORT_SEGMENTATION, from_server=True)
        return bytes((Kind.COMPLEX_ACK << 4, invoke_id, service)) + content

    def _serve(self, service: int, source: Station, body: bytes) -> bytes | None:
        """The acknowledgement's content, empty for a simple one; None: no such service."""
        if service == Service.READ:
            return self.table.read(body)
        if service == Service.READ_MULTIPLE and self.table.multiple:
            return self.table.read_multiple(body)
        if service == Service.WRITE:
            self.table.write(body)
            return b""
        if service == Service.SUBSCRIBE_COV:
            self._subscribe(source, body)
            return b""
        return None

    def _subscribe(self, source: Station, body: bytes) -> None:
        reader = Reader(body)
        process, target = reader.context_unsigned(0), reader.context_object(1)
        confirmed = bool(reader.context_unsigned(2)) if reader.has_context(2) else None
        lifetime = reader.context_unsigned(3) if reader.has_context(3) else 0
        if reader.left:
            raise MalformedError("bytes after the request")
        if target not in self.table.objects:
            raise PropertyError(*UNKNOWN_OBJECT)
        if confirmed is None:
            self.subscriptions.cancel(source, process, target)
        else:
            self.subscriptions.add(source, process, target, lifetime, confirmed=confirmed)

    def _unconfirmed(self, frame: Frame) -> None:
        if len(frame.apdu) < 2 or frame.apdu[1] != Unconfirmed.WHO_IS:
            return
        reader = Reader(frame.apdu, 2)
        try:
            limits = (reader.context_unsigned(0), reader.context_unsigned(1)) if reader.left else None
        except MalformedError:
            return
        if limits is None or limits[0] <= self.table.device <= limits[1]:
            self._send(frame.source, services.i_am(self.table.i_am))

    def _send(self, target: Station, payload: bytes) -> None:
        if self._transport is not None:
            expecting = payload[0] >> 4 == Kind.CONFIRMED
            npdu = npdu_to(target, expecting_reply=expecting)
            self._transport.sendto(bvlc(UNICAST, npdu + payload), target.host)
