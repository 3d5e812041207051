"""Decoding an answer by the shape of the one before: the driver's fast path.

From poll to poll a device answers a request with the same bytes, but for the values in them. A :class:`Shape` keeps a
checked answer with a mask over everything that is not a value. An answer of the same length that agrees under the mask
has every tag, length, object, property and error where it was, so that its values can be taken out by position;
any other answer is parsed in full. Nothing is believed that the full parser would not believe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from drivers.bacnet import tags
from drivers.bacnet.image import FLAGS, Image
from drivers.bacnet.tags import Value
from safety.values import Reason

_WIDTH: Final = 8
_INTEGERS: Final = frozenset((tags.UNSIGNED, tags.SIGNED, tags.ENUMERATED))


class Slot(NamedTuple):
    """A value in an answer and the points that show it."""

    value: Value
    points: Sequence[int]


class Shape:
    """One answer's layout. ``flags`` are (byte, object) of status flags; ``unread`` are (point, reason) of the points
    without a number, which follow from bytes under the mask and are the same whenever the shape is.
    """

    def __init__(
        self,
        answer: bytes,
        slots: Sequence[Slot],
        flags: Sequence[tuple[int, int]],
        unread: Sequence[tuple[int, Reason]],
    ) -> None:
        self._pattern = np.frombuffer(answer, np.uint8)
        self._mask = np.full(len(answer), 0xFF, np.uint8)
        self._reals = self._columns([slot for slot in slots if slot.value.tag == tags.REAL], 4)
        self._doubles = self._columns([slot for slot in slots if slot.value.tag == tags.DOUBLE], 8)
        self._constants: list[tuple[int, float]] = []
        self._integers(slots)
        self._flag_bytes = _indices([byte for byte, _ in flags])
        self._flag_objects = _indices([position for _, position in flags])
        self._mask[self._flag_bytes] = 0xFF & ~FLAGS
        self._unread = list(unread)
        self._good = _indices([point for slot in slots for point in slot.points])

    def read(self, answer: bytes, image: Image) -> bool:
        """Take the values out of an answer; False, and nothing done, if it has another shape."""
        if len(answer) != len(self._pattern):
            return False
        data = np.frombuffer(answer, np.uint8)
        if ((data ^ self._pattern) & self._mask).any():
            return False
        value = image.value
        points, at = self._reals
        if len(points):
            with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
                value[points] = data[at].view(">f4")[:, 0]
        points, at = self._doubles
        if len(points):
            value[points] = data[at].view(">f8")[:, 0]
        if len(self._integer_points):
            left = data[self._integer_at] * self._integer_keep
            # Left-aligned in 64 bits, so that one shift drops the padding and, in the signed view, keeps the sign.
            unsigned = left.view(">u8")[:, 0] >> self._integer_shift
            signed = left.view(">i8")[:, 0] >> self._integer_shift.astype(np.int64)
            value[self._integer_points] = np.where(self._integer_signed, signed, unsigned)
        for point, number in self._constants:
            value[point] = number
        image.reason[self._good] = Reason.OK
        image.flags[self._flag_objects] = data[self._flag_bytes] & FLAGS
        for point, reason in self._unread:
            image.reason[point] = reason
        return True

    def _columns(self, slots: Sequence[Slot], width: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        rows = [(point, slot.value.at) for slot in slots for point in slot.points]
        points, starts = _indices([point for point, _ in rows]), _indices([start for _, start in rows])
        at = starts[:, None] + np.arange(width)
        self._mask[at] = 0
        return points, at

    def _integers(self, slots: Sequence[Slot]) -> None:
        rows = []
        for slot in slots:
            if slot.value.tag in _INTEGERS:
                rows += [(point, slot.value) for point in slot.points]
                self._mask[slot.value.at : slot.value.at + slot.value.size] = 0
            elif slot.value.tag == tags.BOOLEAN:  # the tag itself is the value: under the mask, so it is a constant
                self._constants += [(point, slot.value.number) for point in slot.points]
        sizes = _indices([value.size for _, value in rows])
        starts = _indices([value.at for _, value in rows])
        column = np.arange(_WIDTH)
        self._integer_points = _indices([point for point, _ in rows])
        self._integer_at = np.minimum(starts[:, None] + column, len(self._pattern) - 1)
        self._integer_keep = (column < sizes[:, None]).astype(np.uint8)
        self._integer_shift = (_WIDTH * (_WIDTH - sizes)).astype(np.uint64)
        self._integer_signed = np.array([value.tag == tags.SIGNED for _, value in rows], np.bool_)


def _indices(numbers: Sequence[int]) -> npt.NDArray[np.intp]:
    return np.array(numbers, np.intp)
