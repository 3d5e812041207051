"""What one poll has learnt: a number and a reason per point, the status of each object, and what they mean together."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from safety.values import Quality, Reason

FAULT: Final = 0x40
OVERRIDDEN: Final = 0x20
OUT_OF_SERVICE: Final = 0x10
FLAGS: Final = 0xF0
"""The four status flags as they stand in the byte on the wire. The first, in-alarm, says nothing against the value."""
UNKNOWN: Final = 0x01
"""The status was asked for and could not be read: no flag on the wire has this bit."""

_REASONS: Final = np.full(256, Reason.OK, np.uint8)
_REASONS[[byte for byte in range(256) if byte & (OVERRIDDEN | UNKNOWN)]] = Reason.DEVICE_UNCERTAIN
_REASONS[[byte for byte in range(256) if byte & FAULT]] = Reason.DEVICE_ERROR
_REASONS[[byte for byte in range(256) if byte & OUT_OF_SERVICE]] = Reason.OUT_OF_SERVICE
_QUALITIES: Final = np.full(256, Quality.BAD, np.uint8)
_QUALITIES[Reason.OK] = Quality.GOOD
_QUALITIES[Reason.DEVICE_UNCERTAIN] = Quality.UNCERTAIN


class Image:
    """``value`` f8 and ``reason`` u1 by point, ``flags`` u1 by object. A point nobody answered for stays DEVICE_ERROR."""

    def __init__(self, points: int, objects: int) -> None:
        self.value: npt.NDArray[np.float64] = np.full(points, np.nan)
        self.reason: npt.NDArray[np.uint8] = np.full(points, Reason.DEVICE_ERROR, np.uint8)
        self.flags: npt.NDArray[np.uint8] = np.zeros(objects, np.uint8)


def judge(image: Image, object_of: npt.NDArray[np.intp], has_status: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Qualities (n_points,) by value, reason and the object's flags; sets ``reason``, and NaN for what is bad.

    Out of service and fault are bad: the value does not follow the process. Overridden (a hand switch at the equipment)
    and a status that cannot be read are uncertain. ``object_of`` (n_points,) is each point's object; ``has_status``
    (n_points,) says whose value the object's status speaks of.
    """
    reason = image.reason
    read = reason == Reason.OK
    by_status = read & has_status
    reason[by_status] = _REASONS[image.flags[object_of[by_status]]]
    reason[read & ~np.isfinite(image.value)] = Reason.NOT_A_NUMBER
    quality = _QUALITIES[reason]
    image.value[quality == Quality.BAD] = np.nan
    return quality
