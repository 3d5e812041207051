"""From a point's value to the node's own data type. Nothing is wrapped, clipped or guessed: what does not fit is not
sent.
"""

from __future__ import annotations

import math
from typing import Any, Final, TypeAlias

from asyncua import ua

from drivers.errors import EncodingError
from drivers.opcua.settings import OpcUaAddress

Kind: TypeAlias = ua.VariantType
INTEGERS: Final[dict[Any, tuple[int, int]]] = {
    Kind.SByte: (-(2**7), 2**7 - 1),
    Kind.Byte: (0, 2**8 - 1),
    Kind.Int16: (-(2**15), 2**15 - 1),
    Kind.UInt16: (0, 2**16 - 1),
    Kind.Int32: (-(2**31), 2**31 - 1),
    Kind.UInt32: (0, 2**32 - 1),
    Kind.Int64: (-(2**63), 2**63 - 1),
    Kind.UInt64: (0, 2**64 - 1),
}
_FLOAT_MAX: Final = 3.4028234663852886e38
_WHOLE: Final = 1e-6
"""How far from a whole number a raw value may be and still count as one: what scaling leaves of rounding."""
_DERIVED: Final = {
    290: Kind.Double,  # Duration
    29: Kind.Int32,  # Enumeration
    289: Kind.UInt32,  # Counter
    288: Kind.UInt32,  # IntegerId
}
"""Types of namespace 0 that are numbers under another name, by their node's identifier."""


def kind_of(value: ua.Variant | None, data_type: ua.NodeId | None) -> Kind | None:
    """A node's data type, from its present value or, if it has none, from its declaration. None: not a number."""
    if value is not None and value.VariantType is not Kind.Null:
        kind = value.VariantType
        return kind if not value.is_array and (kind in INTEGERS or kind in _OTHERS) else None
    if data_type is None or data_type.NamespaceIndex != 0 or not isinstance(data_type.Identifier, int):
        return None
    number = data_type.Identifier
    if number in _DERIVED:
        return _DERIVED[number]
    return Kind(number) if number in {kind.value for kind in (*INTEGERS, *_OTHERS)} else None


_OTHERS: Final = (Kind.Boolean, Kind.Float, Kind.Double)


def encode(address: OpcUaAddress, kind: Kind, value: float, point: str) -> ua.Variant:
    """A value, in the point's unit, as the node keeps it.

    Raises:
        EncodingError: not finite, outside the type's range, or rounded without ``type:`` saying that it may be.
    """
    if not math.isfinite(value):
        raise EncodingError(f"{point}: {value} cannot be written; nothing was sent")
    if address.type is not None and address.type != kind.name:
        raise EncodingError(
            f"{point}: the node {address.node} is {kind.name}, the file says type: {address.type}; correct the file"
        )
    raw = (value - address.offset) / address.scale
    if kind is Kind.Boolean:
        if raw not in (0.0, 1.0):
            raise EncodingError(f"{point}: {value:g} is neither off nor on; the node {address.node} is Boolean")
        return ua.Variant(raw == 1.0, kind)
    if kind in INTEGERS:
        return ua.Variant(_integer(address, kind, raw, value, point), kind)
    if not math.isfinite(raw) or (kind is Kind.Float and abs(raw) > _FLOAT_MAX):
        raise EncodingError(f"{point}: {value:g} does not fit {kind.name}; check scale: and the limits")
    return ua.Variant(raw, kind)


def _integer(address: OpcUaAddress, kind: Kind, raw: float, value: float, point: str) -> int:
    low, high = INTEGERS[kind]
    if not math.isfinite(raw) or not low <= round(raw) <= high:
        raise EncodingError(f"{point}: {value:g} does not fit {kind.name} of {address.node}; check scale: and limits")
    nearest = round(raw)
    if address.type is None and abs(raw - nearest) > _WHOLE * max(1.0, abs(raw)):
        raise EncodingError(
            f"{point}: {value:g} is between two values of {address.node}; "
            f"write type: {kind.name} into its address to send the nearest"
        )
    return nearest
