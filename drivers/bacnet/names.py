"""The numbers of BACnet by name (ASHRAE 135-2020 clause 21): object types, numeric properties, errors, rejects, aborts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

OBJECT_TYPES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "analogInput": 0, "analogOutput": 1, "analogValue": 2, "binaryInput": 3, "binaryOutput": 4, "binaryValue": 5,
        "device": 8, "loop": 12, "multiStateInput": 13, "multiStateOutput": 14, "averaging": 18, "multiStateValue": 19,
        "lifeSafetyPoint": 21, "lifeSafetyZone": 22, "accumulator": 23, "pulseConverter": 24, "loadControl": 28,
        "accessDoor": 30, "timer": 31, "integerValue": 45, "largeAnalogValue": 46, "positiveIntegerValue": 48,
        "lightingOutput": 54, "binaryLightingOutput": 55, "staging": 60,
    }
)  # fmt: skip
"""The object types whose present value is a number."""

PROPERTIES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "presentValue": 85, "statusFlags": 111, "outOfService": 81, "reliability": 103, "eventState": 36,
        "priorityArray": 87, "relinquishDefault": 104, "highLimit": 45, "lowLimit": 59, "deadband": 25,
        "covIncrement": 22, "setpoint": 108, "maxPresValue": 65, "minPresValue": 69, "resolution": 106,
        "numberOfStates": 74, "polarity": 84, "alarmValue": 6, "feedbackValue": 40, "trackingValue": 164,
        "controlledVariableValue": 21, "proportionalConstant": 93, "integralConstant": 49, "derivativeConstant": 26,
        "bias": 14, "elapsedActiveTime": 33, "pulseRate": 186, "averageValue": 125, "minimumValue": 136,
        "maximumValue": 135, "units": 117, "objectName": 77, "objectList": 76, "objectIdentifier": 75,
        "description": 28, "systemStatus": 112, "vendorName": 121, "vendorIdentifier": 120, "modelName": 70,
        "maxApduLengthAccepted": 62, "segmentationSupported": 107, "protocolServicesSupported": 97,
        "protocolVersion": 98, "protocolRevision": 139, "databaseRevision": 155, "objectType": 79,
    }
)  # fmt: skip

PRESENT_VALUE: Final = PROPERTIES["presentValue"]
STATUS_FLAGS: Final = PROPERTIES["statusFlags"]
OUT_OF_SERVICE: Final = PROPERTIES["outOfService"]
RELIABILITY: Final = PROPERTIES["reliability"]
PRIORITY_ARRAY: Final = PROPERTIES["priorityArray"]
DEVICE: Final = OBJECT_TYPES["device"]

UNKNOWN_OBJECT: Final = 31
ERROR_CLASSES: Final = (
    "device", "object", "property", "resources", "security", "services", "vt", "communication",
)  # fmt: skip
ERROR_CODES: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "other", 2: "configuration-in-progress", 3: "device-busy", 7: "inconsistent-parameters",
        9: "invalid-data-type", 19: "no-space-to-add-list-element", 20: "no-space-to-write-property",
        25: "operational-problem", 27: "read-access-denied", 29: "service-request-denied", 30: "timeout",
        31: "unknown-object", 32: "unknown-property", 36: "unsupported-object-type", 37: "value-out-of-range",
        40: "write-access-denied", 42: "invalid-array-index", 43: "cov-subscription-failed", 44: "not-cov-property",
        45: "optional-functionality-not-supported", 47: "datatype-not-supported", 50: "property-is-not-an-array",
        51: "abort-buffer-overflow", 54: "abort-segmentation-not-supported", 72: "value-not-initialized",
        80: "parameter-out-of-range", 82: "busy", 83: "communication-disabled", 85: "access-denied",
        113: "message-too-long", 123: "abort-apdu-too-long", 125: "abort-out-of-resources", 131: "internal-error",
        132: "not-configured", 133: "out-of-memory",
    }
)  # fmt: skip
REJECTS: Final = (
    "other", "buffer-overflow", "inconsistent-parameters", "invalid-parameter-data-type", "invalid-tag",
    "missing-required-parameter", "parameter-out-of-range", "too-many-arguments", "undefined-enumeration",
    "unrecognized-service",
)  # fmt: skip
ABORTS: Final = (
    "other", "buffer-overflow", "invalid-apdu-in-this-state", "preempted-by-higher-priority-task",
    "segmentation-not-supported", "security-error", "insufficient-security", "window-size-out-of-range",
    "application-exceeded-reply-time", "out-of-resources", "tsm-timeout", "apdu-too-long",
)  # fmt: skip
RELIABILITIES: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "no-fault-detected", 1: "no-sensor", 2: "over-range", 3: "under-range", 4: "open-loop", 5: "shorted-loop",
        6: "no-output", 7: "unreliable-other", 8: "process-error", 9: "multi-state-fault", 10: "configuration-error",
        12: "communication-failure", 13: "member-fault", 14: "monitored-object-fault", 15: "tripped",
    }
)  # fmt: skip

_TYPE_NAMES: Final = {number: name for name, number in OBJECT_TYPES.items()}
_PROPERTY_NAMES: Final = {number: name for name, number in PROPERTIES.items()}


def object_name(kind: int, instance: int) -> str:
    """``analogInput,1``; a type that is not in the table by its number."""
    return f"{_TYPE_NAMES.get(kind, str(kind))},{instance}"


def property_name(number: int) -> str:
    """``presentValue``; a property that is not in the table by its number."""
    return _PROPERTY_NAMES.get(number, f"property {number}")


def error_name(error_class: int, error_code: int) -> str:
    """``property unknown-property``; unknown numbers as they came."""
    known = error_class < len(ERROR_CLASSES)
    name = ERROR_CLASSES[error_class] if known else f"class {error_class}"
    return f"{name} {ERROR_CODES.get(error_code, f'code {error_code}')}"


def reject_name(reason: int) -> str:
    """``reject unrecognized-service``."""
    return f"reject {REJECTS[reason] if reason < len(REJECTS) else reason}"


def abort_name(reason: int) -> str:
    """``abort segmentation-not-supported``."""
    return f"abort {ABORTS[reason] if reason < len(ABORTS) else reason}"
