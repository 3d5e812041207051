"""One UDP port of ours, shared by all devices that are reached from it: who sent what to whom, and nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from drivers.bacnet import apdu
from drivers.bacnet.apdu import Kind, Service, Unconfirmed
from drivers.bacnet.frames import (
    FORWARDED,
    NPDU_GLOBAL,
    REJECT_TO_NETWORK,
    RESULT,
    UNICAST,
    Frame,
    Host,
    Station,
    bvlc,
    npdu_to,
    parse,
)
from drivers.bacnet.peer import Peer
from drivers.bacnet.services import IAm, Notification, cov_notification, i_am_content
from drivers.bacnet.tags import MalformedError
from drivers.errors import AddressError, NotConnectedError

RECEIVE_BUFFER: Final = 1 << 20

IAmListener = Callable[[Station, IAm], None]
CovListener = Callable[[Notification], bool]
"""Takes a notification of its device; False if the subscription is not known (any more)."""


class Port(asyncio.DatagramProtocol):
    """A bound UDP socket and the peers behind it. Opened by its first user, closed by its last; lives in one loop."""

    def __init__(self, bind: str, number: int) -> None:
        self.dropped = 0
        """Datagrams that are not BACnet/IP, or that nobody here asked for."""
        self.i_am_listeners: set[IAmListener] = set()
        self.result_listeners: dict[Host, Callable[[int], None]] = {}
        """By sender: who wants the codes of its BVLC-Results."""
        self._bind = (bind, number)
        self._transport: asyncio.DatagramTransport | None = None
        self._peers: dict[Station, Peer] = {}
        self._cov: dict[Station, CovListener] = {}
        self._users: set[object] = set()
        self._opening = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent."""
        return self._transport is not None

    @property
    def address(self) -> Host:
        """Where it is bound, once open."""
        assert self._transport is not None
        host, number = self._transport.get_extra_info("sockname")
        return host, number

    async def open(self, user: object) -> None:
        """Bind, unless bound.

        Raises:
            NotConnectedError: the port is taken or the address is not of this machine. It is never shared with another
                process: each would get some of the other's answers.
        """
        self._users.add(user)
        async with self._opening:
            if self._transport is None:
                loop = asyncio.get_running_loop()
                try:
                    # Neither SO_REUSEADDR nor SO_REUSEPORT: on UDP both would let two processes have the port.
                    transport, _ = await loop.create_datagram_endpoint(
                        lambda: self, local_addr=self._bind, family=socket.AF_INET, allow_broadcast=True
                    )
                except OSError as error:
                    self._users.discard(user)
                    host, number = self._bind
                    raise NotConnectedError(
                        f"cannot use UDP {host}:{number} ({error.strerror or error}); "
                        "check bind and local_port, and that no other program has the port"
                    ) from error
                self._transport = transport
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)

    def leave(self, user: object) -> None:
        """One user less; the last one out closes the port."""
        self._users.discard(user)
        if self._users or self._transport is None:
            return
        transport, self._transport = self._transport, None
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()
        self._cov.clear()
        transport.abort()

    def peer(self, station: Station, where: str) -> Peer:
        """Begin to talk to a device. Raises AddressError if somebody already does: answers could not be told apart."""
        if station in self._peers:
            raise AddressError(f"{where}: two devices are configured at one address; give each its own")
        peer = Peer(station, where, lambda data: self.send(data, station.host), asyncio.get_running_loop())
        self._peers[station] = peer
        return peer

    def forget(self, peer: Peer) -> None:
        """Stop talking to a device."""
        if self._peers.get(peer.station) is peer:
            del self._peers[peer.station]
            self._cov.pop(peer.station, None)
            peer.close()

    def listen_cov(self, station: Station, listener: CovListener) -> None:
        """Have one device's notifications; an earlier listener gives way."""
        self._cov[station] = listener

    def send(self, datagram: bytes, host: Host) -> None:
        """Send one datagram; lost if the port is closed, as any datagram may be."""
        if self._transport is not None:
            self._transport.sendto(datagram, host)

    def send_unconfirmed(self, payload: bytes, target: Host, function: int) -> None:
        """Send an unconfirmed APDU: ``UNICAST`` to one address, or with a broadcast function to every network behind it."""
        npdu = npdu_to(Station(target), expecting_reply=False) if function == UNICAST else NPDU_GLOBAL
        self.send(bvlc(function, npdu + payload), target)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Called by the event loop."""
        frame = parse(data, (addr[0], addr[1]))
        if frame is None:
            self.dropped += 1
        elif frame.function == RESULT:
            listener = self.result_listeners.get(frame.source.host)
            if listener is not None:
                listener(frame.result)
        elif frame.network_message:
            self._network_message(frame)
        elif not self._dispatch(frame):
            self.dropped += 1

    def error_received(self, exc: Exception) -> None:
        """Called by the event loop; what was not delivered ends at its deadline."""

    def _dispatch(self, frame: Frame) -> bool:
        kind = frame.apdu[0] >> 4
        if kind == Kind.UNCONFIRMED:
            return self._unconfirmed(frame)
        # A BBMD passes on broadcasts only: an answer that comes "forwarded" was made up.
        peer = self._peers.get(frame.source) if frame.function != FORWARDED else None
        if kind == Kind.CONFIRMED:
            return self._confirmed(frame, peer)
        answer = apdu.parse_answer(frame.apdu)
        if peer is None or answer is None:
            return False
        peer.answered(answer)
        return True

    def _unconfirmed(self, frame: Frame) -> bool:
        service = frame.apdu[1] if len(frame.apdu) > 1 else -1
        try:
            if service == Unconfirmed.I_AM:
                content = i_am_content(frame.apdu)
                for listener in list(self.i_am_listeners):
                    listener(frame.source, content)
                return True
            if service == Unconfirmed.COV and frame.source in self._cov:
                return self._cov[frame.source](cov_notification(frame.apdu[2:]))
        except MalformedError:
            return False
        return False

    def _confirmed(self, frame: Frame, peer: Peer | None) -> bool:
        """Of requests to us only change-of-value notifications are understood: we are a client, not a device."""
        if len(frame.apdu) < 4 or peer is None:
            return False
        invoke_id, service = frame.apdu[2], frame.apdu[3]
        if service != Service.CONFIRMED_COV or frame.apdu[0] & apdu.SEGMENTED:
            peer.send_reply(apdu.reject(invoke_id, apdu.REJECT_UNRECOGNIZED_SERVICE))
            return False
        listener = self._cov.get(frame.source)
        try:
            known = listener is not None and listener(cov_notification(frame.apdu[4:]))
        except MalformedError:
            return False
        # An unknown subscription is acknowledged as well: the device would only send it again.
        peer.acknowledge(invoke_id, service)
        return known

    def _network_message(self, frame: Frame) -> None:
        message = frame.network_message
        if message[0] != REJECT_TO_NETWORK or len(message) != 4:
            return
        network = message[2] << 8 | message[3]
        for peer in list(self._peers.values()):
            if peer.station.host == frame.source.host and peer.station.network == network:
                peer.fail_all(
                    NotConnectedError(
                        f"{peer.where}: the router cannot reach network {network} (reason {message[1]}); check network"
                    )
                )


_PORTS: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[tuple[str, int], Port]] = WeakKeyDictionary()


def shared_port(bind: str, number: int) -> Port:
    """The running loop's port for this address: the same object for everybody who holds one."""
    ports = _PORTS.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    port = ports.get((bind, number))
    if port is None:
        port = ports[bind, number] = Port(bind, number)
    return port
