"""From OPC UA status codes to quality and reason.

A status code is 32 bits: the top two are the severity (00 good, 01 uncertain, 1x bad), the upper half names the cause;
the lower half is flags (OPC 10000-4, 7.39). A value that the server itself calls an old one is bad, whatever its
severity: nothing old is ever shown as new.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from asyncua import ua

from drivers.interface import Bytes, Floats
from drivers.opcua.wire import Samples
from safety.values import Quality, Reason

_Codes = ua.StatusCodes
_BAD: Final[dict[int, Reason]] = {
    _Codes.BadOutOfService: Reason.OUT_OF_SERVICE,
    _Codes.BadWaitingForInitialData: Reason.NEVER_READ,
    _Codes.BadNoCommunication: Reason.DEVICE_UNREACHABLE,
    _Codes.BadCommunicationError: Reason.DEVICE_UNREACHABLE,
    _Codes.BadNotConnected: Reason.DEVICE_UNREACHABLE,
    _Codes.BadTimeout: Reason.DEVICE_UNREACHABLE,
    _Codes.BadNoData: Reason.NEVER_READ,
}
_UNCERTAIN: Final[dict[int, tuple[Quality, Reason]]] = {
    _Codes.UncertainLastUsableValue: (Quality.BAD, Reason.STALE),
    _Codes.UncertainNoCommunicationLastUsableValue: (Quality.BAD, Reason.STALE),
    _Codes.UncertainInitialValue: (Quality.BAD, Reason.NEVER_READ),
    _Codes.UncertainSubstituteValue: (Quality.UNCERTAIN, Reason.SUBSTITUTED),
}


def judge_status(code: int) -> tuple[Quality, Reason]:
    """The quality and reason that a status code stands for."""
    severity = code >> 30
    cause = code & 0xFFFF0000
    if severity == 0:
        return Quality.GOOD, Reason.OK
    if severity == 1:
        return _UNCERTAIN.get(cause, (Quality.UNCERTAIN, Reason.DEVICE_UNCERTAIN))
    return Quality.BAD, _BAD.get(cause, Reason.DEVICE_ERROR)


def judge(samples: Samples, value: Floats) -> tuple[Bytes, Bytes]:
    """Quality and reason of every sample, shape (n,). ``value`` (scaled) becomes NaN in place wherever it is bad."""
    quality = np.full(len(value), Quality.GOOD, np.uint8)
    reason = np.full(len(value), Reason.OK, np.uint8)
    marked = np.flatnonzero(samples.status >> 30)
    if len(marked):
        codes, which = np.unique(samples.status[marked], return_inverse=True)
        table = np.array([judge_status(int(code)) for code in codes], np.uint8)
        quality[marked] = table[which, 0]
        reason[marked] = table[which, 1]
    odd = np.flatnonzero(~np.isfinite(value) & (quality != Quality.BAD))
    if len(odd):
        quality[odd] = Quality.BAD
        reason[odd] = np.where(samples.is_number(odd), np.uint8(Reason.NOT_A_NUMBER), np.uint8(Reason.DECODE_ERROR))
    value[quality == Quality.BAD] = np.nan
    return quality, reason
