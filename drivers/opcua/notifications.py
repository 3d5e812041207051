"""Decodes what a server publishes, without building an object per value (OPC 10000-4, 5.14.5 and 7.25)."""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct
from typing import Final

import numpy as np
from asyncua import ua

from drivers.errors import ProtocolError
from drivers.opcua.skip import length_at, skip_diagnostic_info, skip_extension_object
from drivers.opcua.wire import Gatherer, Places, Samples, Shape, skip_response_header

_U32: Final = Struct("<I")
_PUBLISH_RESPONSE: Final = ua.ObjectIds.PublishResponse_Encoding_DefaultBinary
_DATA_CHANGE: Final = ua.ObjectIds.DataChangeNotification_Encoding_DefaultBinary
_STATUS_CHANGE: Final = ua.ObjectIds.StatusChangeNotification_Encoding_DefaultBinary


@dataclass(slots=True)
class Published:
    """One PublishResponse. ``keep_alive``: nothing has changed. ``status``: the subscription has ended, with this code."""

    subscription: int = 0
    sequence: int = 0
    keep_alive: bool = True
    status: int | None = None
    handles: list[int] = field(default_factory=list)
    _shape: Shape = field(default_factory=Shape)
    _data: bytes = b""

    def store(self, samples: Samples) -> Places:
        """Put the values into the rows that their handles name; where one comes twice, the last value counts.

        Returns the rows. Raises ProtocolError for a handle that was never given.
        """
        rows = np.array(self.handles, np.intp)
        if len(rows):
            if int(rows.max()) >= len(samples.value):
                raise ProtocolError(f"a value for the unknown item {int(rows.max())}")
            Gatherer(self._shape, self._data).gather(self._data, samples, rows)
        return rows


def parse(data: bytes) -> Published:
    """Decode a PublishResponse.

    Raises:
        ProtocolError, struct.error, IndexError: it is none.
        ua.UaStatusCodeError: the server refused the publish request.
    """
    pos = skip_response_header(data, _PUBLISH_RESPONSE)
    result = Published(_data=data)
    result.subscription = _U32.unpack_from(data, pos)[0]
    pos += 8 + 4 * length_at(data, pos + 4) + 1
    result.sequence = _U32.unpack_from(data, pos)[0]
    pos += 12
    notifications = length_at(data, pos)
    pos += 4
    result.keep_alive = notifications == 0
    for _ in range(notifications):
        end = skip_extension_object(data, pos)
        _notification(data, pos, result)
        pos = end
    return result


def _notification(data: bytes, pos: int, result: Published) -> None:
    if data[pos : pos + 2] != b"\x01\x00":
        return
    kind = int.from_bytes(data[pos + 2 : pos + 4], "little")
    body = pos + 9  # after the type, the encoding byte and the length
    if kind == _STATUS_CHANGE:
        result.status = _U32.unpack_from(data, body)[0]
        skip_diagnostic_info(data, body + 4)
    elif kind == _DATA_CHANGE:
        count = length_at(data, body)
        place = body + 4
        for _ in range(count):
            result.handles.append(_U32.unpack_from(data, place)[0])
            place = result._shape.walk(data, place + 4)
