"""The two outer layers of a BACnet/IP datagram: BVLC (135 annex J) and NPDU (clause 6). Pure functions of bytes."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final, NamedTuple

BVLC_TYPE: Final = 0x81
RESULT: Final = 0x00
FORWARDED: Final = 0x04
REGISTER_FOREIGN: Final = 0x05
DISTRIBUTE_BROADCAST: Final = 0x09
UNICAST: Final = 0x0A
BROADCAST: Final = 0x0B

NETWORK_MESSAGE: Final = 0x80
HAS_DESTINATION: Final = 0x20
HAS_SOURCE: Final = 0x08
EXPECTING_REPLY: Final = 0x04
HOPS: Final = 255
GLOBAL_NETWORK: Final = 0xFFFF
REJECT_TO_NETWORK: Final = 0x03
"""Network-layer message of a router: it cannot pass something on."""

Host = tuple[str, int]
"""IPv4 address and UDP port."""


class Station(NamedTuple):
    """One device anywhere: its (or its router's) UDP address, and its network and address behind that, or 0 and empty."""

    host: Host
    network: int = 0
    mac: bytes = b""


class Frame(NamedTuple):
    """One datagram taken apart. ``apdu`` is empty for a network-layer message, which is in ``network_message``."""

    function: int
    source: Station
    apdu: bytes
    network_message: bytes = b""
    result: int = 0
    """The code of a BVLC-Result; 0 is success."""


def npdu_to(station: Station, *, expecting_reply: bool) -> bytes:
    """The NPDU header of something for one device."""
    control = EXPECTING_REPLY if expecting_reply else 0
    if not station.network:
        return bytes((1, control))
    mac = station.mac
    return struct.pack(">BBHB", 1, control | HAS_DESTINATION, station.network, len(mac)) + mac + bytes((HOPS,))


NPDU_GLOBAL: Final = struct.pack(">BBHBB", 1, HAS_DESTINATION, GLOBAL_NETWORK, 0, HOPS)
"""The NPDU header of a broadcast to every network."""


def bvlc(function: int, rest: bytes) -> bytes:
    """A whole datagram."""
    return struct.pack(">BBH", BVLC_TYPE, function, len(rest) + 4) + rest


def parse(datagram: bytes, sender: Host) -> Frame | None:
    """Take a datagram apart; None for anything that is not BACnet/IP, is cut short, or claims another length."""
    size = len(datagram)
    if size < 4 or datagram[0] != BVLC_TYPE or (datagram[2] << 8 | datagram[3]) != size:
        return None
    function, at = datagram[1], 4
    if function == RESULT:
        return Frame(function, Station(sender), b"", result=datagram[4] << 8 | datagram[5]) if size == 6 else None
    if function == FORWARDED:
        if size < 10:
            return None
        sender = (str(IPv4Address(datagram[4:8])), datagram[8] << 8 | datagram[9])
        at = 10
    elif function not in (UNICAST, BROADCAST):
        return None
    return _npdu(function, datagram, at, sender)


def _npdu(function: int, data: bytes, at: int, sender: Host) -> Frame | None:
    if len(data) < at + 2 or data[at] != 1:
        return None
    control = data[at + 1]
    at += 2
    if control & HAS_DESTINATION:
        if len(data) < at + 3:
            return None
        at += 3 + data[at + 2]
    network, mac = 0, b""
    if control & HAS_SOURCE:
        if len(data) < at + 3:
            return None
        network, length = data[at] << 8 | data[at + 1], data[at + 2]
        mac = data[at + 3 : at + 3 + length]
        at += 3 + length
        if len(mac) != length or not length or not 0 < network < GLOBAL_NETWORK:
            return None
    if control & HAS_DESTINATION:
        at += 1
    if len(data) <= at:
        return None
    source = Station(sender, network, mac)
    if control & NETWORK_MESSAGE:
        return Frame(function, source, b"", network_message=data[at:])
    return Frame(function, source, data[at:])
