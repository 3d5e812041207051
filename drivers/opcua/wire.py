"""The messages that decide the speed: read requests are encoded once, and answers are decoded a thousand nodes at a time.

An answer to the same question mostly has the same shape: the same types, the same optional fields. The first answer is
walked through byte by byte, which yields the place of every field; the next ones are checked to have the very same
shape (every byte that decides about it is compared), and are then gathered with one numpy operation per type. As each
place follows from the shape of what stands before it, an equal shape is a proof, not a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from asyncua import ua
from asyncua.ua.ua_binary import Primitives, struct_to_binary

from drivers.errors import ProtocolError
from drivers.interface import Floats
from drivers.opcua.skip import (
    FIXED,
    length_at,
    skip_diagnostic_info,
    skip_extension_object,
    skip_string,
    skip_variant,
    times_width,
)

Places = npt.NDArray[np.intp]
TICKS_PER_S: Final = 10_000_000
TICKS_AT_EPOCH: Final = 116_444_736_000_000_000
"""1970-01-01 in OPC UA time: 100 ns ticks since 1601-01-01 UTC."""
_U32: Final = Struct("<I")
_HEADER: Final = Struct("<qII")
_DTYPES: Final[dict[int, str]] = {
    1: "u1", 2: "i1", 3: "u1", 4: "<i2", 5: "<u2", 6: "<i4", 7: "<u4", 8: "<i8", 9: "<u8", 10: "<f4", 11: "<f8"
}  # fmt: skip
_BOOLEAN: Final = 1
READ_RESPONSE: Final = ua.ObjectIds.ReadResponse_Encoding_DefaultBinary


@dataclass(slots=True)
class Samples:
    """Data values by row, all shape (n,): raw ``value`` (NaN where it is no number), ``status`` code, source time in
    ``ticks`` (0: not given), and ``kind``, the number of the built-in type (64 and more: an array).
    """

    value: Floats
    status: npt.NDArray[np.uint32]
    ticks: npt.NDArray[np.int64]
    kind: npt.NDArray[np.uint8]

    @classmethod
    def waiting(cls, count: int) -> Samples:
        """Nothing received yet."""
        return cls(
            np.full(count, np.nan),
            np.full(count, ua.StatusCodes.BadWaitingForInitialData, np.uint32),
            np.zeros(count, np.int64),
            np.zeros(count, np.uint8),
        )

    def is_number(self, rows: Places) -> npt.NDArray[np.bool_]:
        """Whether the rows hold a scalar number or Boolean."""
        kind = self.kind[rows]
        return (kind >= 1) & (kind <= 11)

    def source_time(self, default: float) -> Floats:
        """UTC seconds, shape (n,); ``default`` where the server gave none, and never later than it: a server whose
        clock is ahead does not make a value newer than now.
        """
        seconds = (self.ticks - TICKS_AT_EPOCH) / TICKS_PER_S
        result: Floats = np.where(self.ticks > 0, np.minimum(seconds, default), default)
        return result


class RawBytes(bytes):
    """The type, to the library's encoder, of what is encoded already."""

    @staticmethod
    def pack(data: RawBytes) -> bytes:
        """As it is."""
        return data


# The encoder looks a field's type up by its name among its primitives; this is how a prepared body gets in.
Primitives.RawBytes = RawBytes


@dataclass(slots=True)
class PreparedRequest:
    """A request whose parameters are bytes. The library adds header, sequence, signature and encryption."""

    TypeId: ua.NodeId
    RequestHeader: ua.RequestHeader
    Body: RawBytes


def read_parameters(nodes: Sequence[ua.NodeId]) -> RawBytes:
    """The parameters of a read of the nodes' values with source timestamps, never older than the read itself."""
    items = [ua.ReadValueId(NodeId=node, AttributeId=ua.AttributeIds.Value) for node in nodes]
    return RawBytes(
        struct_to_binary(
            ua.ReadParameters(MaxAge=0.0, TimestampsToReturn=ua.TimestampsToReturn.Source, NodesToRead=items)
        )
    )


def read_request(parameters: RawBytes) -> Any:
    """A read request made of prepared parameters."""
    type_id = ua.FourByteNodeId(ua.ObjectIds.ReadRequest_Encoding_DefaultBinary)
    return PreparedRequest(type_id, ua.RequestHeader(), parameters)


def skip_response_header(data: bytes, expected_type: int) -> int:
    """Check that the message is the answer asked for, and good. Returns where its parameters begin.

    Raises:
        ProtocolError: another message.
        ua.UaStatusCodeError: the server refused the request as a whole.
    """
    if data[:2] != b"\x01\x00" or int.from_bytes(data[2:4], "little") != expected_type:
        raise ProtocolError(f"the answer is not of type {expected_type}: {data[:4].hex()}")
    _time, _handle, result = _HEADER.unpack_from(data, 4)
    if result >> 30:
        raise ua.UaStatusCodeError(result)
    pos = skip_diagnostic_info(data, 4 + _HEADER.size)
    count = length_at(data, pos)
    pos += 4
    for _ in range(count):
        pos = skip_string(data, pos)
    return skip_extension_object(data, pos)


@dataclass(slots=True)
class Shape:
    """Where the fields of some data values are. Positions count from the beginning of the message's part.

    ``probes`` are the positions of all bytes that decide about the shape, ``expected`` those bytes.
    """

    end: int = 0
    fixed: bool = True
    kinds: list[int] = field(default_factory=list)
    values: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ticks: list[int] = field(default_factory=list)
    probes: list[int] = field(default_factory=list)

    def walk(self, data: bytes, pos: int) -> int:
        """Take in one data value; returns the position after it. -1 marks a field that is not there."""
        mask = data[pos]
        if mask & 0xC0:
            raise ProtocolError(f"a data value with the unknown mask 0x{mask:02x}")
        self.probes.append(pos)
        pos += 1
        kind, value = 0, -1
        if mask & 0x01:
            kind = data[pos]
            self.probes.append(pos)
            if kind in FIXED:
                value = pos + 1
                pos += 1 + FIXED[kind]
            else:
                self.fixed = False
                pos = skip_variant(data, pos)
                kind = (kind & 0x3F) | (0x40 if kind & 0x80 else 0)
        self.kinds.append(kind)
        self.values.append(value if kind in _DTYPES else -1)
        self.statuses.append(pos if mask & 0x02 else -1)
        pos += 4 if mask & 0x02 else 0
        self.ticks.append(pos if mask & 0x04 else -1)
        self.end = pos + times_width(mask)
        return self.end


class Gatherer:
    """Takes the fields of a known shape out of messages of that shape."""

    def __init__(self, shape: Shape, data: bytes) -> None:
        if shape.end > len(data):
            raise ProtocolError(f"the data values end {shape.end - len(data)} bytes behind the message")
        self._reusable = shape.fixed
        self._end = shape.end
        self._probes = np.array(shape.probes, np.intp)
        self._expected = np.frombuffer(data, np.uint8)[self._probes]
        self._kinds = np.array(shape.kinds, np.uint8)
        values = np.array(shape.values, np.intp)
        self._groups: list[tuple[int, Places, Places]] = []
        for kind in sorted(set(shape.kinds) & _DTYPES.keys()):
            rows = np.flatnonzero((self._kinds == kind) & (values >= 0))
            self._groups.append((kind, rows, _bytes_of(values[rows], FIXED[kind])))
        self._status_rows, self._status_places = _present(shape.statuses, 4)
        self._tick_rows, self._tick_places = _present(shape.ticks, 8)

    def fits(self, data: bytes) -> bool:
        """Whether a message has the very same shape."""
        if not self._reusable or len(data) < self._end:
            return False
        return bool((np.frombuffer(data, np.uint8)[self._probes] == self._expected).all())

    def gather(self, data: bytes, samples: Samples, rows: Places) -> None:
        """Put the values of a message that fits into ``rows`` of ``samples``."""
        octets = np.frombuffer(data, np.uint8)
        count = len(rows)
        value, status, ticks = np.full(count, np.nan), np.zeros(count, np.uint32), np.zeros(count, np.int64)
        for kind, where, places in self._groups:
            raw = octets[places].view(_DTYPES[kind])[:, 0]
            value[where] = raw != 0 if kind == _BOOLEAN else raw
        if len(self._status_rows):
            status[self._status_rows] = octets[self._status_places].view("<u4")[:, 0]
        if len(self._tick_rows):
            ticks[self._tick_rows] = octets[self._tick_places].view("<i8")[:, 0]
        samples.value[rows] = value
        samples.status[rows] = status
        samples.ticks[rows] = ticks
        samples.kind[rows] = self._kinds


class ReadDecoder:
    """Decodes the answers to one read request, and remembers their shape."""

    def __init__(self, rows: Sequence[int]) -> None:
        self._rows = np.array(rows, np.intp)
        self._gatherer: Gatherer | None = None

    def decode(self, data: bytes, samples: Samples) -> None:
        """Decode a whole ReadResponse into the request's rows of ``samples``.

        Raises:
            ProtocolError, struct.error, IndexError: not an answer to this request.
            ua.UaStatusCodeError: the server refused the request as a whole.
        """
        body = data[skip_response_header(data, READ_RESPONSE) :]
        gatherer = self._gatherer
        if gatherer is None or not gatherer.fits(body):
            gatherer = self._gatherer = Gatherer(self._shape(body), body)
        gatherer.gather(body, samples, self._rows)

    def _shape(self, body: bytes) -> Shape:
        (count,) = _U32.unpack_from(body, 0)
        if count != len(self._rows):
            raise ProtocolError(f"{len(self._rows)} nodes were asked for and {count} answered")
        shape = Shape(probes=[0, 1, 2, 3])
        pos = 4
        for _ in range(count):
            pos = shape.walk(body, pos)
        shape.end = max(pos, 4)
        return shape


def _bytes_of(starts: Places, width: int) -> Places:
    return starts[:, None] + np.arange(width, dtype=np.intp)


def _present(starts: Sequence[int], width: int) -> tuple[Places, Places]:
    every = np.array(starts, np.intp)
    rows = np.flatnonzero(every >= 0)
    return rows, _bytes_of(every[rows], width)
