"""The kinds of APDU (135 clause 20.1): headers of requests, and answers taken apart. No segmentation: see ``REQUEST``."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from drivers.bacnet.names import abort_name, error_name, reject_name
from drivers.bacnet.tags import ENUMERATED, MalformedError, Reader
from drivers.errors import DeviceRefusedError


class Kind(IntEnum):
    """The upper four bits of an APDU's first byte."""

    CONFIRMED = 0
    UNCONFIRMED = 1
    SIMPLE_ACK = 2
    COMPLEX_ACK = 3
    SEGMENT_ACK = 4
    ERROR = 5
    REJECT = 6
    ABORT = 7


class Service(IntEnum):
    """Confirmed services."""

    CONFIRMED_COV = 1
    SUBSCRIBE_COV = 5
    READ = 12
    READ_MULTIPLE = 14
    WRITE = 15


class Unconfirmed(IntEnum):
    """Unconfirmed services."""

    I_AM = 0
    COV = 2
    WHO_IS = 8


MAX_APDU: Final = 1476
"""The most BACnet/IP carries, and what we say we accept."""
APDU_SIZES: Final = (50, 128, 206, 480, 1024, 1476)
"""What a request can say, by code."""
REQUEST: Final = bytes((Kind.CONFIRMED << 4, APDU_SIZES.index(MAX_APDU)))
"""A request's first two bytes: not segmented, no segmented answer accepted, answers of up to ``MAX_APDU`` bytes. Every
answer fits one datagram, or the device says that it does not and is asked for less.
"""
SEGMENTED: Final = 0x08
FROM_SERVER: Final = 0x01

ABORT_BUFFER_OVERFLOW: Final = 1
ABORT_SEGMENTATION: Final = 4
REJECT_UNRECOGNIZED_SERVICE: Final = 9

_TOO_MUCH: Final = frozenset(
    ((Kind.ABORT, 1), (Kind.ABORT, 4), (Kind.ABORT, 8), (Kind.ABORT, 9), (Kind.ABORT, 11), (Kind.REJECT, 1),
     (Kind.REJECT, 7), (Kind.ERROR, 51), (Kind.ERROR, 54), (Kind.ERROR, 113), (Kind.ERROR, 123), (Kind.ERROR, 125))
)  # fmt: skip
"""Refusals that say "ask for less at once": buffers, segmentation, reply time, resources, length, arguments."""
_NO_SERVICE: Final = frozenset(((Kind.REJECT, 9), (Kind.ERROR, 45), (Kind.ERROR, 29)))


class RefusalError(DeviceRefusedError):
    """The device answered with an Error, a Reject or an Abort. ``code`` is the error code or the reason."""

    def __init__(self, where: str, kind: Kind, code: int, error_class: int = 0) -> None:
        self.kind = kind
        self.code = code
        self.error_class = error_class
        named = {Kind.REJECT: reject_name, Kind.ABORT: abort_name}.get(kind)
        self.name = error_name(error_class, code) if named is None else named(code)
        super().__init__(f"{where} refused: {self.name}")

    @property
    def too_much(self) -> bool:
        """Whether a smaller request may be answered."""
        return (self.kind, self.code) in _TOO_MUCH

    @property
    def no_service(self) -> bool:
        """Whether the device does not have the service at all."""
        return (self.kind, self.code) in _NO_SERVICE


class Answer(NamedTuple):
    """An answer taken apart. ``payload`` of an Error is its class and code; a Reject and an Abort have ``reason`` only."""

    kind: Kind
    invoke_id: int
    service: int
    payload: bytes
    reason: int = 0
    segmented: bool = False


def parse_answer(apdu: bytes) -> Answer | None:
    """An answer to a request of ours; None if it is none, or cut short."""
    size, kind = len(apdu), apdu[0] >> 4
    if kind == Kind.COMPLEX_ACK and size >= 3:
        if apdu[0] & SEGMENTED:
            return Answer(Kind.COMPLEX_ACK, apdu[1], apdu[4], b"", segmented=True) if size >= 5 else None
        return Answer(Kind.COMPLEX_ACK, apdu[1], apdu[2], apdu[3:])
    if kind == Kind.SIMPLE_ACK and size == 3:
        return Answer(Kind.SIMPLE_ACK, apdu[1], apdu[2], b"")
    if kind == Kind.ERROR and size >= 3:
        return Answer(Kind.ERROR, apdu[1], apdu[2], apdu[3:])
    if kind == Kind.REJECT and size == 3:
        return Answer(Kind.REJECT, apdu[1], -1, b"", apdu[2])
    if kind == Kind.ABORT and size == 3 and apdu[0] & FROM_SERVER:
        return Answer(Kind.ABORT, apdu[1], -1, b"", apdu[2])
    return None


def refusal(where: str, answer: Answer) -> RefusalError | None:
    """What an Error, Reject or Abort says; None for an Error that is not one. For a segmented answer: it is too long."""
    if answer.segmented:
        return RefusalError(where, Kind.ABORT, ABORT_SEGMENTATION)
    if answer.kind != Kind.ERROR:
        return RefusalError(where, answer.kind, answer.reason)
    try:
        error_class, code = read_error(Reader(answer.payload))
    except MalformedError:
        return None
    return RefusalError(where, Kind.ERROR, code, error_class)


def read_error(reader: Reader) -> tuple[int, int]:
    """Error class and error code, two enumerated values. Raises MalformedError."""
    found = (reader.value(), reader.value())
    if any(value.tag != ENUMERATED for value in found):
        raise MalformedError("an error without class and code")
    return int(found[0].number), int(found[1].number)


def abort(invoke_id: int, reason: int, *, from_server: bool = False) -> bytes:
    """An Abort."""
    return bytes((Kind.ABORT << 4 | (FROM_SERVER if from_server else 0), invoke_id, reason))


def reject(invoke_id: int, reason: int) -> bytes:
    """A Reject."""
    return bytes((Kind.REJECT << 4, invoke_id, reason))


def simple_ack(invoke_id: int, service: int) -> bytes:
    """A SimpleAck."""
    return bytes((Kind.SIMPLE_ACK << 4, invoke_id, service))
