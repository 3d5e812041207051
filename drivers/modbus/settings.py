"""What the YAML files say of a Modbus device and of a point on it. Light: imported by the configuration."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationInfo, model_validator

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


class ModbusSettings(_Strict):
    """How to reach a Modbus TCP device."""

    host: str = Field(max_length=255, description="the device's name or address")
    port: int = Field(default=502, ge=1, le=65535, description="TCP port")
    unit_id: int = Field(default=1, ge=0, le=255, description="Modbus unit identifier behind the address")
    timeout: Seconds = Field(default=1.0, description="deadline of one whole transaction")
    connect_timeout: Seconds = Field(default=3.0, description="deadline of connecting")
    window: int = Field(
        default=1, ge=1, le=16, description="requests in flight at once; more than 1 only if the device allows it"
    )
    max_block: int = Field(default=125, ge=1, le=125, description="most registers in one read")
    max_gap: int = Field(
        default=8, ge=0, le=124, description="unused registers read along to save a request; 0 for strict devices"
    )

    @property
    def endpoint(self) -> str:
        """The one device that these settings reach."""
        return f"{self.host}:{self.port} unit_id {self.unit_id}"


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
    bit: int | None = Field(
        default=None, ge=0, le=15, description="one bit of the register (0 = least significant); read only"
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
        """Coils and holding registers can be written; a single bit of a register cannot (it would need
        read-modify-write).
        """
        return self.table in ("coil", "holding") and self.bit is None

    @property
    def can_relinquish(self) -> bool:
        """Never: Modbus has no priorities to hand back to."""
        return False

    @property
    def span(self) -> tuple[str, int, int]:
        """What a write touches: the table, the first address, and one past the last."""
        return self.table, self.number, self.number + REGISTERS[self.type]

    @property
    def resolution(self) -> float:
        """The smallest step the point can hold, in its unit: the scale of an integer, 0 for a float or a bit."""
        return 0.0 if self.type in ("f32", "f64", "bit") else abs(self.scale)
