"""How a serial line is set, and the times that follow from it. Light: imported by the configuration.

Source: MODBUS over Serial Line Specification and Implementation Guide V1.02, sections 2.5.1 and 2.5.1.1: frames are
kept apart by 3.5 characters of silence, above 19200 baud by a fixed 1.75 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Baud = Literal[1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600]
Parity = Literal["N", "E", "O"]
StopBits = Literal[1, 2]

QUIET_CHARACTERS: Final = 3.5
FIXED_ABOVE_BAUD: Final = 19200
FIXED_QUIET_S: Final = 1.75e-3
SERIAL_GAP_S: Final = 0.05
"""A pause that ends a broken answer. Far longer than 3.5 characters: a USB adapter hands over its bytes every 16 ms."""
NETWORK_GAP_S: Final = 0.2
"""The same behind a serial server, where an answer may come in two packets."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: of one character on the wire, of silence between frames, and of a pause within a broken answer."""

    character_s: float
    quiet_s: float
    gap_s: float


NETWORK_TIMING: Final = Timing(character_s=0.0, quiet_s=0.0, gap_s=NETWORK_GAP_S)
"""RTU over TCP: the serial server keeps the line's own times."""


@dataclass(frozen=True, slots=True)
class SerialSetup:
    """Speed and character format; RTU always has 8 data bits."""

    baud: int
    parity: Parity
    stop_bits: StopBits

    def __str__(self) -> str:
        return f"baud {self.baud}, parity {self.parity}, stop_bits {self.stop_bits}"

    @property
    def timing(self) -> Timing:
        """The times that follow: a character is a start bit, 8 data bits, parity and stop bits."""
        character_s = (9 + (self.parity != "N") + self.stop_bits) / self.baud
        quiet_s = FIXED_QUIET_S if self.baud > FIXED_ABOVE_BAUD else QUIET_CHARACTERS * character_s
        return Timing(character_s, quiet_s, SERIAL_GAP_S)
