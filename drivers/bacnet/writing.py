"""What is written: a value in the point's unit as the application value its object takes."""

from __future__ import annotations

import math
import struct
from typing import Final

from drivers.bacnet import tags
from drivers.bacnet.settings import BacnetAddress
from drivers.errors import EncodingError

_TAGS: Final = {
    "real": tags.REAL, "double": tags.DOUBLE, "enumerated": tags.ENUMERATED, "unsigned": tags.UNSIGNED,
    "signed": tags.SIGNED,
}  # fmt: skip
_MOST: Final = {"enumerated": 2**32 - 1, "unsigned": 2**32 - 1, "signed": 2**31 - 1}


def encode(address: BacnetAddress, value: float | None, point: str) -> bytes:
    """A value in the point's unit as the application value its object takes; None is NULL.

    Raises:
        EncodingError: not finite, not a whole number where one is needed, or out of range. Nothing was sent.
    """
    if value is None:
        return tags.application(tags.NULL, 0.0)
    kind = address.written_as
    assert kind is not None
    raw = (value - address.offset) / address.scale
    if not math.isfinite(raw):
        raise EncodingError(f"{point}: {value} cannot be written: not a finite number")
    if kind in ("real", "double"):
        try:
            return tags.application(_TAGS[kind], raw)
        except (OverflowError, struct.error) as error:
            raise EncodingError(f"{point}: {value:g} is too large for a {kind}") from error
    whole = round(raw)
    least = -(2**31) if kind == "signed" else 0
    if address.type.startswith("binary"):
        if whole not in (0, 1) or abs(raw - whole) > 1e-6:
            raise EncodingError(f"{point}: {value:g} cannot be written to {address.object}: a binary object is 0 or 1")
    elif not least <= whole <= _MOST[kind]:
        raise EncodingError(f"{point}: {value:g} cannot be written to {address.object}: out of range for {kind}")
    return tags.application(_TAGS[kind], whole)
