"""Which reads serve a device's points: pure planning over addresses, no input or output.

Points are sorted by table and address. Neighbours with a small gap form an *extent*, which has a fixed place in the
device's byte image; *blocks*, the requests, are cut from extents and may change from poll to poll (a device refuses
one, a limit is learnt) without moving anything in the image. A value is never split over two blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from drivers.modbus.codec import byte_width
from drivers.modbus.pdu import read_reply_length, read_request
from drivers.modbus.settings import REGISTERS, Forbidden, ModbusAddress, Table
from drivers.modbus.transaction import Probe

BITS_PER_REGISTER: Final = 16
_TABLES: Final[tuple[Table, ...]] = ("coil", "discrete", "holding", "input")


NOTHING_FORBIDDEN: Final = Forbidden()


@dataclass(slots=True)
class Block:
    """One read: ``count`` registers or bits from ``start``, for the sorted points ``first`` to ``last - 1``.

    ``probe`` is for lines without transaction ids. ``strikes`` counts polls in a row in which only this block had no usable answer.
    """

    table: Table
    start: int
    count: int
    first: int
    last: int
    image_offset: int
    request: bytes
    reply_length: int
    probe: Probe | None
    strikes: int = 0


def is_bits(table: Table) -> bool:
    """Whether the table holds bits (coils, discrete inputs) rather than registers."""
    return table in ("coil", "discrete")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for, per kind of table: ``count`` registers or bits, reading along gaps of up to
    ``gap`` unused ones.
    """

    count: int
    gap: int


def limits_of(max_block: int, max_gap: int) -> dict[bool, Limits]:
    """From the settings, in registers; keyed by :func:`is_bits`. A register's worth of bits is 16: 125 registers or
    2000 bits.
    """
    return {
        False: Limits(max_block, max_gap),
        True: Limits(max_block * BITS_PER_REGISTER, max_gap * BITS_PER_REGISTER),
    }


def probe_of(table: Table, start: int, count: int, forbidden: Forbidden) -> Probe | None:
    """A read whose answer has another length than that of ``count`` from ``start``: fewer of the same, or, of one
    register (eight bits), one more. None where that one is forbidden.
    """
    step = 8 if is_bits(table) else 1
    other = count - step if count > step else count + step
    if other > count and (start + other > 65536 or forbidden.touches(table, start, start + other)):
        return None
    return Probe(read_request(table, start, other), read_reply_length(table, other))


class Layout:
    """The fixed part: the points in address order, and where their bytes lie in the image.

    ``order[k]`` is the point at sorted position k; ``offsets[i]`` the image offset of point i.
    """

    def __init__(
        self,
        addresses: Sequence[ModbusAddress],
        limits: Mapping[bool, Limits],
        forbidden: Forbidden = NOTHING_FORBIDDEN,
    ) -> None:
        """``limits`` are the widest that will ever be asked for: later ones may only be narrower. No block reaches over
        an address that is ``forbidden``; no point may have one.
        """
        self.addresses = tuple(addresses)
        self.forbidden = forbidden
        keys = [(_TABLES.index(a.table), a.number, REGISTERS[a.type]) for a in addresses]
        self.order = sorted(range(len(keys)), key=keys.__getitem__)
        self.tables: list[Table] = [_TABLES[keys[i][0]] for i in self.order]
        self.starts = [keys[i][1] for i in self.order]
        self.ends = [keys[i][1] + keys[i][2] for i in self.order]
        self._barred = self._bars()
        self._image_offsets: list[int] = []
        self.image_size = self._place(limits)
        self.offsets = [0] * len(keys)
        for position, point in enumerate(self.order):
            self.offsets[point] = self._image_offsets[position]

    def _place(self, limits: Mapping[bool, Limits]) -> int:
        size = base = low = high = 0
        table: Table | None = None
        for position, start in enumerate(self.starts):
            end = self.ends[position]
            width = byte_width(self.addresses[self.order[position]]) // (end - start)
            if self.tables[position] != table or start - high > limits[is_bits(self.tables[position])].gap:
                table, base, low, high = self.tables[position], size, start, end
            high = max(high, end)
            self._image_offsets.append(base + (start - low) * width)
            size = base + (high - low) * width
        return size

    def _bars(self) -> list[bool]:
        """For each sorted position, whether a forbidden address lies between it and the points before it."""
        barred: list[bool] = []
        table: Table | None = None
        high = 0
        for position, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            if self.tables[position] != table:
                table, high = self.tables[position], start
            barred.append(start > high and self.forbidden.touches(table, high, start))
            high = max(high, end)
        return barred

    def block(self, first: int, last: int, strikes: int = 0) -> Block:
        """The read that covers the sorted points ``first`` to ``last - 1``."""
        table, start = self.tables[first], self.starts[first]
        count = max(self.ends[first:last]) - start
        return Block(
            table, start, count, first, last, self._image_offsets[first], read_request(table, start, count),
            read_reply_length(table, count), probe_of(table, start, count, self.forbidden), strikes,
        )  # fmt: skip

    def plan(self, limits: Mapping[bool, Limits], without: Collection[int]) -> list[Block]:
        """Cover all sorted positions but ``without`` with as few blocks as the limits allow; no block spans one of
        those.
        """
        blocks: list[Block] = []
        first: int | None = None
        high = 0
        for position, (table, start, end) in enumerate(zip(self.tables, self.starts, self.ends, strict=True)):
            limit = limits[is_bits(table)]
            if first is not None and (
                position in without
                or table != self.tables[first]
                or self._barred[position]
                or start - high > limit.gap
                or max(high, end) - self.starts[first] > limit.count
            ):
                blocks.append(self.block(first, position))
                first = None
            if position in without:
                continue
            if first is None:
                first, high = position, 0
            high = max(high, end)
        if first is not None:
            blocks.append(self.block(first, len(self.starts)))
        return blocks

    def split(self, block: Block) -> tuple[Block, Block] | None:
        """Two blocks for the same points, half of them each, or None where that tells nothing: one point, or all at
        one address.
        """
        span = (self.starts[block.first], self.ends[block.first])
        if all((self.starts[k], self.ends[k]) == span for k in range(block.first + 1, block.last)):
            return None
        middle = (block.first + block.last) // 2
        return self.block(block.first, middle, block.strikes), self.block(middle, block.last, block.strikes)
