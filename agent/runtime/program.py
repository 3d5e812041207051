"""The program: a loaded site laid out as frozen index tables, once, at start.

Points are ordered by device, so that one device's poll is one slice of the input image. Units that share a function and a scan period
form a group, which runs as one batch. Nothing here changes while the daemon runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.config.loader import LoadedSite
from agent.config.point import PointConfig
from agent.config.train import ParameterConfig
from agent.config.unit import InputBinding, UnitConfig
from agent.runtime.errors import RuntimeFault
from agent.runtime.image import Block
from agent.runtime.operate.protocol import LANES, FunctionInfo
from safety.errors import UnitError
from safety.units import affine

Index = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]

DEADLINE_SHARE = 0.25
DEADLINE_MOST_S = 0.25
TEXT_BYTES = 64


class ProgramError(RuntimeFault):
    """The site and its functions do not fit together; `poetd check` says the same with file and line."""


@dataclass(frozen=True, slots=True)
class PointRow:
    """One point of the input image."""

    index: int
    name: str
    unit: str
    config: PointConfig


@dataclass(frozen=True, slots=True)
class OutputRow:
    """One row of the output image: a writable point with its envelope."""

    index: int
    name: str
    unit_index: int
    point: int
    field: str


@dataclass(frozen=True, slots=True)
class UnitRow:
    """One zone or tool."""

    index: int
    config: UnitConfig
    group: int
    column: int
    outputs: tuple[int, ...]
    points: tuple[int, ...]

    @property
    def name(self) -> str:
        """The unit's name."""
        return self.config.name


@dataclass(frozen=True)
class Group:
    """Units that share a function and a scan period: one batch. ``n`` units, ``k`` arguments, ``m`` result fields."""

    index: int
    function: FunctionInfo
    scan_s: float
    deadline_s: float
    dedicated: bool
    units: Index
    """(n,) unit indices by column."""
    operand: Index
    """(k, n) where each argument is found in the operand row."""
    gain: Floats
    offset: Floats
    """(k, n) conversion to the unit the function expects."""
    required: Index
    """(r, n) operands that must be good; padded with the always-good slot."""
    out_index: Index
    """(j,) rows of the output image this group drives."""
    out_field: Index
    out_column: Index
    """(j,) which field and column of the group's result drives each."""


@dataclass(frozen=True)
class Program:
    """The whole site as tables. Operand row: every point, then constants, then parameters, then one always-good slot."""

    loaded: LoadedSite
    points: tuple[PointRow, ...]
    point_index: Mapping[str, int]
    outputs: tuple[OutputRow, ...]
    output_index: Mapping[str, int]
    units: tuple[UnitRow, ...]
    groups: tuple[Group, ...]
    device_slices: Mapping[str, slice]
    constants: Floats
    parameter_slot: Mapping[tuple[str, str], int]
    parameter_value: Floats
    output_unit: Index
    output_point: Index

    @property
    def constants_at(self) -> int:
        """First operand slot of the constants."""
        return len(self.points)

    @property
    def parameters_at(self) -> int:
        """First operand slot of the parameters."""
        return len(self.points) + len(self.constants)

    @property
    def operands(self) -> int:
        """Length of the operand row."""
        return self.parameters_at + len(self.parameter_value) + 1

    def private_blocks(self) -> list[Block]:
        """Core's own images. A control function gets copies of what it asks for: nothing it does to memory can change an input that
        an interlock watches, or a request that Enforce has taken.
        """
        n, m = len(self.points), len(self.outputs)
        return [
            Block("in.raw", "f8", (n,)),
            Block("in.raw_quality", "u1", (n,)),
            Block("in.raw_reason", "u1", (n,)),
            Block("in.raw_time", "f8", (n,)),
            Block("in.source_time", "f8", (n,)),
            Block("in.value", "f8", (n,)),
            Block("in.quality", "u1", (n,)),
            Block("in.reason", "u1", (n,)),
            Block("out.request", "f8", (m,)),
            Block("out.state", "u1", (m,)),
        ]

    def shared_blocks(self) -> list[Block]:
        """The layout of the image that core shares with the workers: arguments and results of every group."""
        blocks = [Block("progress", "i8", (LANES,))]
        for group in self.groups:
            k, columns = group.operand.shape
            fields = max(1, len(group.function.fields))
            blocks += [
                Block(f"g{group.index}.due", "u1", (LANES, columns)),
                Block(f"g{group.index}.args", "f8", (k, columns)),
                Block(f"g{group.index}.out", "f8", (fields, columns)),
                Block(f"g{group.index}.status", "u1", (columns,)),
                Block(f"g{group.index}.text", "u1", (columns, TEXT_BYTES)),
            ]
        return blocks


def function_names(loaded: LoadedSite) -> list[str]:
    """Every control function of the site, once, in order."""
    return list(dict.fromkeys(unit.function for unit in loaded.units if unit.function is not None))


def point_name(unit: UnitConfig, ref: str) -> str:
    """A reference as it stands in a unit's file → ``unit/point``."""
    return ref if "/" in ref else f"{unit.name}/{ref}"


class _Operands:
    """Collects constants and parameters while groups are laid out. Slots are final only when the point count is known."""

    def __init__(self, point_index: Mapping[str, int]) -> None:
        self.point_index = point_index
        self.constants: list[float] = []
        self.parameters: dict[tuple[str, str], float] = {}

    def source(self, unit: UnitConfig, name: str, function: FunctionInfo) -> tuple[str, int, bool, str | None]:
        """(kind, slot, required, expected unit) of one argument."""
        if name in unit.parameters:
            declared = unit.parameters[name]
            value = declared.value if isinstance(declared, ParameterConfig) else float(declared)
            self.parameters[(unit.name, name)] = value
            return "parameter", len(self.parameters) - 1, False, None
        binding = unit.inputs.get(name)
        expected = dict(function.input_units).get(name)
        if isinstance(binding, float | int):
            return "constant", self._constant(float(binding)), False, None
        if isinstance(binding, InputBinding):
            return "point", self._point(unit, binding.point, name), binding.required, binding.unit or expected
        if isinstance(binding, str):
            return "point", self._point(unit, binding, name), True, expected
        defaults = dict(function.defaults)
        if name in defaults:  # never bound by name alone: a function would silently read back its own output
            return "constant", self._constant(defaults[name]), False, None
        if name in unit.points:
            return "point", self._point(unit, name, name), True, expected
        raise ProgramError(
            f"{unit.kind} {unit.name}: parameter {name!r} of {function.spec} has no point, constant or default; "
            f"add inputs: {{{name}: POINT}} to the unit's file"
        )

    def _constant(self, value: float) -> int:
        self.constants.append(value)
        return len(self.constants) - 1

    def _point(self, unit: UnitConfig, ref: str, parameter: str) -> int:
        full = point_name(unit, ref)
        if full not in self.point_index:
            raise ProgramError(
                f"{unit.kind} {unit.name}: input {parameter!r} names the point {full!r}, which does not exist"
            )
        return self.point_index[full]


def _fields_of(unit: UnitConfig, function: FunctionInfo) -> dict[str, int]:
    """Output name → row of the function's result."""
    fields: dict[str, int] = {}
    for name, output in unit.outputs.items():
        wanted = output.source or (name if name in function.fields or len(function.fields) != 1 else function.fields[0])
        if wanted not in function.fields:
            raise ProgramError(
                f"{unit.kind} {unit.name}: output {name} takes {wanted!r} from {function.spec}, which returns "
                f"{', '.join(function.fields)}; write from: FIELD"
            )
        fields[name] = function.fields.index(wanted)
    return fields


def build(loaded: LoadedSite, functions: Mapping[str, FunctionInfo]) -> Program:
    """Lay a site out. ``functions`` come from the operate process (or from the lock-step runner).

    A function that could not be loaded keeps its units without a group: their outputs stay in fail-safe.
    Raises ProgramError where a function's parameters or fields do not fit a unit.
    """
    devices = {name: order for order, name in enumerate(loaded.site.devices)}
    named = [(f"{unit.name}/{name}", unit, point) for unit in loaded.units for name, point in unit.points.items()]
    named.sort(key=lambda item: devices[item[2].device])
    points = tuple(PointRow(i, name, point.unit, point) for i, (name, _unit, point) in enumerate(named))
    point_index = {row.name: row.index for row in points}
    slices: dict[str, slice] = {}
    for name in loaded.site.devices:
        mine = [row.index for row in points if row.config.device == name]
        if mine:
            slices[name] = slice(mine[0], mine[-1] + 1)

    shortest = min((unit.scan for unit in loaded.units), default=1.0)
    common_deadline = min(DEADLINE_SHARE * shortest, DEADLINE_MOST_S)
    members: dict[tuple[str, float, float], list[int]] = {}
    for i, unit in enumerate(loaded.units):
        if unit.function is not None and functions[unit.function].ok:
            members.setdefault((unit.function, unit.scan, unit.deadline or common_deadline), []).append(i)

    outputs: list[OutputRow] = []
    output_index: dict[str, int] = {}
    for i, unit in enumerate(loaded.units):
        for name in unit.outputs:
            full = f"{unit.name}/{name}"
            output_index[full] = len(outputs)
            outputs.append(OutputRow(len(outputs), full, i, point_index[full], name))

    operands = _Operands(point_index)
    drafts = []
    for (spec, scan, deadline), unit_indices in members.items():
        drafts.append(
            (
                functions[spec],
                scan,
                deadline,
                unit_indices,
                _arguments(loaded.units, unit_indices, functions[spec], operands),
            )
        )
    at = {"point": 0, "constant": len(points), "parameter": len(points) + len(operands.constants)}
    good = at["parameter"] + len(operands.parameters)

    groups: list[Group] = []
    place: dict[int, tuple[int, int]] = {}
    for function, scan, deadline, unit_indices, sources in drafts:
        k, n = len(function.parameters), len(unit_indices)
        operand = np.zeros((k, n), np.intp)
        gain, offset = np.ones((k, n)), np.zeros((k, n))
        required: list[list[int]] = [[] for _ in unit_indices]
        out_index, out_field, out_column = [], [], []
        for column, unit_at in enumerate(unit_indices):
            unit = loaded.units[unit_at]
            for name in unit.parameters:
                if name not in function.parameters:
                    raise ProgramError(
                        f"{unit.kind} {unit.name}: {function.spec} has no parameter {name!r}; it takes "
                        f"{', '.join(function.parameters)}"
                    )
            place[unit_at] = (len(groups), column)
            for row, (kind, slot, needed, expected) in enumerate(sources[column]):
                operand[row, column] = at[kind] + slot
                if kind == "point" and expected is not None:
                    gain[row, column], offset[row, column] = _conversion(
                        unit, function.parameters[row], points[slot], expected
                    )
                if kind == "point" and needed:
                    required[column].append(slot)
            for name, field_row in _fields_of(unit, function).items():
                out_index.append(output_index[f"{unit.name}/{name}"])
                out_field.append(field_row)
                out_column.append(column)
        depth = max((len(slots) for slots in required), default=0)
        padded = np.full((depth, n), good, np.intp)
        for column, slots in enumerate(required):
            padded[: len(slots), column] = slots
        groups.append(
            Group(
                index=len(groups),
                function=function,
                scan_s=scan,
                deadline_s=deadline,
                dedicated=deadline > common_deadline,
                units=np.asarray(unit_indices, np.intp),
                operand=operand,
                gain=gain,
                offset=offset,
                required=padded,
                out_index=np.asarray(out_index, np.intp),
                out_field=np.asarray(out_field, np.intp),
                out_column=np.asarray(out_column, np.intp),
            )
        )

    units = tuple(
        UnitRow(
            i,
            unit,
            *place.get(i, (-1, -1)),
            outputs=tuple(output_index[f"{unit.name}/{name}"] for name in unit.outputs),
            points=tuple(point_index[f"{unit.name}/{name}"] for name in unit.points),
        )
        for i, unit in enumerate(loaded.units)
    )
    return Program(
        loaded=loaded,
        points=points,
        point_index=point_index,
        outputs=tuple(outputs),
        output_index=output_index,
        units=units,
        groups=tuple(groups),
        device_slices=slices,
        constants=np.asarray(operands.constants, np.float64),
        parameter_slot={key: at["parameter"] + i for i, key in enumerate(operands.parameters)},
        parameter_value=np.asarray(list(operands.parameters.values()), np.float64),
        output_unit=np.asarray([row.unit_index for row in outputs], np.intp),
        output_point=np.asarray([row.point for row in outputs], np.intp),
    )


def _conversion(unit: UnitConfig, parameter: str, point: PointRow, expected: str) -> tuple[float, float]:
    try:
        return affine(point.unit, expected)
    except UnitError as error:
        raise ProgramError(f"{unit.kind} {unit.name}: input {parameter!r} from {point.name}: {error}") from error


def _arguments(
    units: Sequence[UnitConfig], unit_indices: Sequence[int], function: FunctionInfo, operands: _Operands
) -> list[list[tuple[str, int, bool, str | None]]]:
    return [[operands.source(units[i], name, function) for name in function.parameters] for i in unit_indices]
