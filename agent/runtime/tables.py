"""From a program to the safety tables: envelopes, exclusive pairs and interlocks, in the program's order."""

from __future__ import annotations

from types import SimpleNamespace

from agent.config.interlock import InterlockConfig
from agent.config.output import OutputConfig
from agent.runtime.program import OutputRow, Program
from safety.agreement import disagreement_row, second_channel
from safety.enforcer import Enforcer
from safety.envelope import Envelope
from safety.interlocks import Interlock, InterlockTable


def envelope(row: OutputRow, config: OutputConfig) -> Envelope:
    """The envelope of one output."""
    return Envelope(
        name=row.name,
        low=config.limits[0],
        high=config.limits[1],
        fail_safe=config.fail_safe,
        max_step=config.max_step,
        max_rate=config.max_rate,
        dead_band=config.dead_band,
        allowed=config.allowed,
        min_on_s=config.min_on,
        min_off_s=config.min_off,
    )


def envelopes(program: Program) -> list[Envelope]:
    """Every output's envelope, in the order of the output image."""
    return [envelope(row, program.units[row.unit_index].config.outputs[row.field]) for row in program.outputs]


def interlock(unit: str, config: InterlockConfig) -> Interlock:
    """One row with full names."""
    return Interlock(
        name=f"{unit}/{config.name}",
        when=config.when,
        trip=tuple((f"{unit}/{output}", value) for output, value in config.trip.items()),
        scope=unit,
        delay_s=config.delay,
        manual=config.latch == "manual",
        clear_when=config.clear_when,
        clear_delay_s=config.clear_delay,
        title=config.title,
        source=config.source,
    )


def enforcer(program: Program, kernels: SimpleNamespace) -> Enforcer:
    """The safety tables of the whole site, frozen. Raises what ``safety`` raises for rows that cannot be compiled."""
    rows = envelopes(program)
    pairs = [
        (program.output_index[f"{unit.name}/{first}"], program.output_index[f"{unit.name}/{second}"])
        for unit in program.units
        for first, second in unit.config.exclusive
    ]
    critical = [unit.name for unit in program.units if unit.config.critical]
    interlocks = [interlock(unit.name, row) for unit in program.units for row in unit.config.interlock_rows]
    interlocks += [disagreement_row(unit, rows) for unit in critical]
    units = {row.name: row.unit for row in program.points}
    table = InterlockTable.build(interlocks, program.point_index, units, rows)
    second = [second_channel(unit, rows, pairs, interlocks, program.point_index, units) for unit in critical]
    return Enforcer(rows, pairs, table, kernels, second)
