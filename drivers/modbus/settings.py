"""What the YAML files say of a Modbus device and of a point on it. Light: imported by the configuration."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationInfo, model_validator

from drivers.modbus.serial_setup import Baud, Parity, SerialSetup, StopBits

Table = Literal["coil", "discrete", "input", "holding"]
DataType = Literal["bit", "i16", "u16", "i32", "u32", "i64", "u64", "f32", "f64"]
ByteOrder = Literal["ABCD", "DCBA", "BADC", "CDAB"]

REGISTERS: dict[str, int] = {"bit": 1, "i16": 1, "u16": 1, "i32": 2, "u32": 2, "f32": 2, "i64": 4, "u64": 4, "f64": 4}
"""How many 16-bit registers (or bits, for coils and discrete inputs) a value takes."""

_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0}


def _seconds(value: Any, info: ValidationInfo) -> float:
    if isinstance(value, str):
        match = re.match(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|min)\s*$", value)
        if match:
            return float(match[1]) * _SECONDS[match[2]]
    elif isinstance(value, float) and info.mode == "python":
        return value  # from code; in a file a number without its unit is refused
    raise ValueError(f"{value!r} is not a duration: write a number with its unit, such as 500ms or 3s")


def _as_text(seconds: float) -> str:
    # The write journal keeps settings as JSON; what it wrote must be readable under the rule for files.
    return f"{Decimal(repr(seconds)):f}s"


Seconds = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=str),
    PlainSerializer(_as_text, return_type=str, when_used="json"),
    Field(gt=0.0, le=600.0),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Addresses = Annotated[int, Field(ge=0, le=65535)]
Ranges = tuple[tuple[Addresses, Addresses], ...]
Medium = Literal["tcp", "tls", "rtu", "serial"]
"""How the frames travel: Modbus TCP, the same inside TLS, RTU frames over TCP, RTU frames on a serial line."""

TCP_PORT: Final = 502
TLS_PORT: Final = 802
_SERIAL_KEYS: Final = ("baud", "parity", "stop_bits")


class ModbusTls(_Strict):
    """Modbus/TCP Security: TLS with a certificate on both sides. There is no mode that does not verify the device."""

    ca_file: Path = Field(description="certificates that the device's must be signed by")
    certificate_file: Path = Field(description="our certificate, which the device checks")
    key_file: Path = Field(description="its key; readable by the daemon's user only")
    server_name: str | None = Field(
        default=None, min_length=1, max_length=255, description="name in the device's certificate; default: host"
    )


class Forbidden(_Strict):
    """Addresses that are never read, not even along the way, because reading them has an effect."""

    coil: Ranges = Field(default=(), description="first and last coil of each range")
    discrete: Ranges = Field(default=(), description="first and last discrete input of each range")
    input: Ranges = Field(default=(), description="first and last input register of each range")
    holding: Ranges = Field(default=(), description="first and last holding register of each range")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for table in ("coil", "discrete", "input", "holding"):
            for first, last in self.of(table):
                if last < first:
                    raise ValueError(f"{table}: [{first}, {last}] ends before it begins: write [first, last]")
        return self

    def of(self, table: Table) -> Ranges:
        """The ranges of one table, first and last address included."""
        ranges: Ranges = getattr(self, table)
        return ranges

    def touches(self, table: Table, first: int, end: int) -> bool:
        """Whether a forbidden address lies in ``first`` to ``end - 1``."""
        return any(low < end and first <= high for low, high in self.of(table))


def _default_port(given: dict[str, Any]) -> int:
    # Not a validator of the raw mapping: that would make pydantic refuse the lists and paths of a file as not strict.
    return TCP_PORT if given.get("tls") is None else TLS_PORT


class ModbusSettings(_Strict):
    """How to reach a Modbus device: ``host`` (Modbus TCP; with ``tls`` secured; with ``rtu`` as RTU frames) or
    ``serial``.
    """

    host: str | None = Field(default=None, min_length=1, max_length=255, description="the device's name or address")
    rtu: bool = Field(default=False, description="RTU frames over TCP, for a transparent serial server at host")
    tls: ModbusTls | None = Field(default=None, description="Modbus/TCP Security")
    port: int = Field(
        default_factory=_default_port, ge=1, le=65535, description="TCP port; default: 502, where tls is given 802"
    )
    serial: str | None = Field(
        default=None, pattern=r"^/", max_length=255, description="serial port, such as /dev/serial/by-id/usb-..."
    )
    baud: Baud | None = Field(default=None, description="bits per second of the serial line; default: 19200")
    parity: Parity | None = Field(default=None, description="N none, E even, O odd; default: E")
    stop_bits: StopBits | None = Field(default=None, description="default: 1")
    unit_id: int = Field(
        default=1, ge=0, le=255, description="Modbus unit identifier behind the address; on a serial line 1 to 247"
    )
    timeout: Seconds = Field(
        default=1.0, description="deadline of one whole transaction; on a serial line the bytes' own time comes on top"
    )
    connect_timeout: Seconds = Field(default=3.0, description="deadline of connecting")
    window: int = Field(
        default=1, ge=1, le=16, description="requests in flight at once; more than 1 only if the device allows it"
    )
    max_block: int = Field(default=125, ge=1, le=125, description="most registers in one read")
    max_gap: int = Field(
        default=8, ge=0, le=124, description="unused registers read along to save a request; 0 for strict devices"
    )
    forbidden: Forbidden = Field(
        default=Forbidden(), description="per table, [first, last] addresses that are never read, not even in a gap"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.host is None) == (self.serial is None):
            found = "none" if self.host is None else "both"
            raise ValueError(f"give exactly one of host (TCP) and serial (a port of this machine); found {found}")
        if self.serial is None:
            misplaced = [name for name in _SERIAL_KEYS if getattr(self, name) is not None]
            if misplaced:
                raise ValueError(f"{', '.join(misplaced)}: only with serial; a serial server is set up on its own page")
        elif self.rtu or self.tls is not None or self.port != TCP_PORT:
            raise ValueError("rtu, tls and port go with host: a serial line always carries RTU frames")
        if self.rtu and self.tls is not None:
            raise ValueError("tls secures Modbus TCP, not RTU frames: give rtu or tls")
        if self.medium in ("rtu", "serial"):
            if self.window != 1:
                raise ValueError("window must be 1: a serial line carries one request at a time")
            if not 1 <= self.unit_id <= 247:
                raise ValueError(f"unit_id {self.unit_id} is no slave of a serial line: 1 to 247")
        return self

    @property
    def medium(self) -> Medium:
        """How the frames travel."""
        if self.serial is not None:
            return "serial"
        if self.rtu:
            return "rtu"
        return "tcp" if self.tls is None else "tls"

    @property
    def serial_setup(self) -> SerialSetup:
        """How the serial line is set, with the standard's defaults (19200 baud, even parity, 1 stop bit)."""
        return SerialSetup(self.baud or 19200, self.parity or "E", self.stop_bits or 1)

    @property
    def endpoint(self) -> str:
        """The one device that these settings reach."""
        return f"{self.line[0]} unit_id {self.unit_id}"

    @property
    def line(self) -> tuple[str, str]:
        """The connection that every device with the same first part shares, and how it is set: equal for all of
        them.
        """
        if self.serial is not None:
            return self.serial, str(self.serial_setup)
        setup = "rtu: true" if self.rtu else "Modbus TCP"
        return f"{self.host}:{self.port}", setup if self.tls is None else f"{setup} with tls ({self.tls})"


class ModbusAddress(_Strict):
    """Where a value lives: ``{input: 40, type: f32, order: ABCD, scale: 0.1, offset: 0}``. Addresses are 0-based, as
    on the wire.

    value = raw * scale + offset.
    """

    coil: int | None = Field(default=None, ge=0, le=65535, description="address of a coil (a bit, read and write)")
    discrete: int | None = Field(default=None, ge=0, le=65535, description="address of a discrete input (a bit, read)")
    input: int | None = Field(default=None, ge=0, le=65535, description="address of an input register (read)")
    holding: int | None = Field(
        default=None, ge=0, le=65535, description="address of a holding register (read and write)"
    )
    type: DataType = Field(default="u16", description="how the registers are read; bits need none")
    order: ByteOrder = Field(default="ABCD", description="order of the bytes; ABCD is the standard's, high word first")
    scale: float = Field(default=1.0, description="value = raw * scale + offset; not 0")
    offset: float = Field(default=0.0, description="value = raw * scale + offset")
    bit: int | None = Field(default=None, ge=0, le=15, description="one bit of the register (0 = least significant)")
    read_modify_write: bool = Field(
        default=False,
        description="write the bit by reading its register and writing it whole, where the device has no function 22; "
        "only if nobody else changes the other bits",
    )

    @model_validator(mode="before")
    @classmethod
    def _bits_are_bits(cls, data: Any) -> Any:
        if isinstance(data, dict) and ("coil" in data or "discrete" in data) and "type" not in data:
            return {**data, "type": "bit"}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [name for name in ("coil", "discrete", "input", "holding") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of coil, discrete, input, holding; found {', '.join(given) or 'none'}")
        if given[0] in ("coil", "discrete") and self.type != "bit":
            raise ValueError(f"a {given[0]} is one bit: leave type out, or write type: bit")
        if given[0] in ("input", "holding") and self.type == "bit" and self.bit is None:
            raise ValueError(f"type: bit in {given[0]} registers needs bit: 0-15")
        if self.bit is not None and self.type not in ("bit", "u16"):
            raise ValueError("bit: selects one bit of a u16 register: leave type out")
        if self.read_modify_write and (self.bit is None or given[0] != "holding"):
            raise ValueError("read_modify_write: only for one bit of a holding register (bit:)")
        if self.scale == 0.0:
            raise ValueError("scale must not be 0: every value would read as the offset")
        if self.number + REGISTERS[self.type] > 65536:
            raise ValueError(f"{given[0]} {self.number} with type {self.type} runs past address 65535")
        return self

    @property
    def table(self) -> Table:
        """Which of the four tables."""
        for name in ("coil", "discrete", "input"):
            if getattr(self, name) is not None:
                return name
        return "holding"

    @property
    def number(self) -> int:
        """The 0-based address."""
        for value in (self.coil, self.discrete, self.input, self.holding):
            if value is not None:
                return value
        raise AssertionError("validated above")

    @property
    def writable(self) -> bool:
        """Coils and holding registers can be written, and single bits of holding registers."""
        return self.table in ("coil", "holding")

    @property
    def can_relinquish(self) -> bool:
        """Never: Modbus has no priorities to hand back to."""
        return False

    @property
    def span(self) -> tuple[str, float, float]:
        """What a write touches: the table, the first address, and one past the last. A bit is a sixteenth of its
        register.
        """
        if self.bit is not None:
            return self.table, self.number + self.bit / 16, self.number + (self.bit + 1) / 16
        return self.table, self.number, self.number + REGISTERS[self.type]

    @property
    def resolution(self) -> float:
        """The smallest step the point can hold, in its unit: the scale of an integer, 0 for a float or a bit."""
        return 0.0 if self.type in ("f32", "f64", "bit") or self.bit is not None else abs(self.scale)
