"""Every row of every pack that ships: bound to points, loaded, and driven through the real Enforcer, both channels running.

Each row is shown clear, pending for its delay, tripped, held against what the function asks, and cleared or reset. What makes it trip is
written here a second time, by hand, so that a wrong threshold in a pack is seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from agent import kernels
from agent.config import load
from agent.config.interlock import InterlockConfig, Pack
from agent.config.packs import SHIPPED
from agent.config.yaml_tree import parse
from agent.runtime import program, tables
from safety.envelope import RequestState
from safety.expressions import references
from safety.interlocks import InterlockStatus
from safety.second.channel import DISAGREE
from safety.values import Quality

CLEAR, PENDING, TRIPPED, RESETTABLE = (
    InterlockStatus.CLEAR,
    InterlockStatus.PENDING,
    InterlockStatus.TRIPPED,
    InterlockStatus.RESETTABLE,
)

ANALOGUE: Mapping[str, tuple[str, float]] = {
    "supply_temp": ("Cel", 16.0),
    "outdoor_temp": ("Cel", 15.0),
    "duct_static": ("Pa", 300.0),
    "duct_humidity": ("%{RH}", 40.0),
    "outlet_temp": ("Cel", 70.0),
    "flue_temp": ("Cel", 80.0),
    "delta_t": ("K", 20.0),
    "turbo_speed": ("%", 100.0),
    "backing_pressure": ("mTorr", 100.0),
    "chamber_pressure": ("mTorr", 20.0),
    "reflected_power": ("W", 5.0),
    "reflected_share": ("%", 1.0),
    "forward_power": ("W", 800.0),
    "plasma_light": ("1", 0.8),
    "plasma_light_floor": ("1", 0.2),
    "total_flow": ("sccm", 75.0),
    "mfc_flow": ("%", 50.0),
    "chuck_temp": ("Cel", 40.0),
    "wall_temp": ("Cel", 60.0),
    **{
        f"{name}_share": ("%", 100.0)
        for name in ("exhaust", "cabinet_exhaust", "source_water", "chuck_water", "turbo_water", "power", "dc_bias", "peak_voltage")
    },
}  # fmt: skip
"""Role → its unit and a healthy value. Every other role is a contact."""

OFF_WHILE_WELL = {
    "compressor_status",
    "sih4_valve",
    "o2_valve",
    "n2o_valve",
    "cl2_valve",
    "nf3_valve",
    "h2_valve",
    "f2_valve",
}
OFF_WHILE_WELL |= {"ch4_valve", "nh3_valve", "hcl_valve", "clf3_valve", "bias_rf", "source_rf"}
"""Contacts that are off in the healthy state; the others are on, as wires are."""

PERCENT = {
    "outdoor_damper",
    "cooling_valve",
    "heating_valve",
    "humidifier",
    "electric_heater",
    "isolation_valve",
    "firing_rate",
}

TRIPS_WHEN: Mapping[str, Mapping[str, float]] = {
    "hvac.freeze_stage_1": {"supply_temp": 4.39},
    "hvac.freeze_stage_2": {"supply_temp": 3.29},
    "hvac.freeze_stage_3_long": {"supply_temp": 3.29},
    "hvac.freeze_stage_3_deep": {"supply_temp": 0.99},
    "hvac.freezestat": {"freezestat_ok": 0},
    "hvac.freeze_coil_pump_long": {"supply_temp": 3.29},
    "hvac.freeze_coil_pump_deep": {"supply_temp": 0.99},
    "hvac.freeze_coil_pump_stat": {"freezestat_ok": 0},
    "hvac.freeze_return_fan_long": {"supply_temp": 3.29},
    "hvac.freeze_return_fan_deep": {"supply_temp": 0.99},
    "hvac.freeze_return_fan_stat": {"freezestat_ok": 0},
    "hvac.economizer_high_limit_24.economizer_high_limit": {"outdoor_temp": 24.01},
    "hvac.economizer_high_limit_21.economizer_high_limit": {"outdoor_temp": 21.01},
    "hvac.economizer_high_limit_18.economizer_high_limit": {"outdoor_temp": 18.01},
    "hvac.economizer_fan_off": {"fan_status": 0},
    "hvac.economizer_freeze": {"supply_temp": 4.39},
    "hvac.duct_static_high": {"duct_static": 750.1},
    "hvac.fan_proof": {"supply_fan": 1, "fan_status": 0},
    "hvac.damper_proof": {"damper_open": 0},
    "hvac.duct_smoke": {"smoke_ok": 0},
    "hvac.humidifier_high_limit": {"duct_humidity": 90.1},
    "hvac.electric_heat_airflow": {"airflow_ok": 0},
    "chiller.chw_flow_not_proven": {"chw_pump": 1, "chw_flow_ok": 0},
    "chiller.chw_flow_lost": {"compressor_status": 1, "chw_flow_ok": 0},
    "chiller.cw_flow_not_proven": {"cw_pump": 1, "cw_flow_ok": 0},
    "chiller.cw_flow_lost": {"compressor_status": 1, "cw_flow_ok": 0},
    "chiller.condenser_pressure_high": {"condenser_pressure_ok": 0},
    "chiller.oil_pressure_low": {"oil_pressure_ok": 0},
    "chiller.motor_temperature_high": {"motor_temp_ok": 0},
    "chiller.valve_not_open": {"isolation_valve_open": 0},
    "chiller.pump_not_proven": {"lead_pump_status": 0},
    "chiller.isolation_valve_kept_open": {"compressor_status": 1},
    "chiller.pump_kept_on": {"compressor_status": 1},
    "heat-pump.source_flow_not_proven": {"source_pump": 1, "source_flow_ok": 0},
    "heat-pump.source_flow_lost": {"compressor_status": 1, "source_flow_ok": 0},
    "heat-pump.load_flow_not_proven": {"load_pump": 1, "load_flow_ok": 0},
    "heat-pump.load_flow_lost": {"compressor_status": 1, "load_flow_ok": 0},
    "heat-pump.high_pressure": {"high_pressure_ok": 0},
    "heat-pump.motor_temperature_high": {"motor_temp_ok": 0},
    "heat-pump.pumps_not_proven": {"load_pump_status": 0},
    "heat-pump.pumps_kept_on": {"compressor_status": 1},
    "boiler.outlet_hot": {"outlet_temp": 85.1},
    "boiler.outlet_too_hot": {"outlet_temp": 90.7},
    "boiler.flue_hot": {"flue_temp": 102.1},
    "boiler.flue_too_hot": {"flue_temp": 107.1},
    "boiler.rise_high": {"delta_t": 39.1},
    "boiler.rise_too_high": {"delta_t": 44.1},
    "boiler.low_water": {"water_level_ok": 0},
    "boiler.combustion_air": {"combustion_air_ok": 0},
    "boiler.gas_pressure": {"gas_pressure_ok": 0},
    "boiler.flame": {"flame_ok": 0},
    "rie.emo": {"emo_ok": 0},
    "rie.lid": {"lid_switch_2": 0},
    "rie.slit_valve": {"slit_valve_switch_1": 0},
    "rie.rf_cover": {"rf_cover_switch_2": 0},
    "rie.toxic_gas": {"toxic_gas_ok": 0},
    "rie.exhaust": {"exhaust_share": 79.9},
    "rie.gas_cabinet_exhaust": {"cabinet_exhaust_share": 79.9},
    "rie.source_water": {"source_water_share": 69.9},
    "rie.chuck_water": {"chuck_water_share": 69.9},
    "rie.turbo_water": {"turbo_water_share": 69.9},
    "rie.turbo_slow": {"turbo_speed": 89.9},
    "rie.turbo_slow_long": {"turbo_speed": 89.9},
    "rie.backing_pressure": {"backing_pressure": 501.0},
    "rie.base_pressure": {"process_gas": 0, "chamber_pressure": 0.051},
    "rie.rf_pressure_window": {"chamber_pressure": 200.1},
    "rie.pressure_hard_limit": {"chamber_pressure": 1001.0},
    "rie.reflected_power": {"reflected_power": 50.1},
    "rie.reflected_share": {"reflected_share": 10.1},
    "rie.reflected_share_high": {"reflected_share": 30.1},
    "rie.plasma_not_lit": {"plasma_light": 0.19},
    "rie.rf_without_gas": {"total_flow": 4.9},
    "rie.flow_through_closed_valve": {"gas_valve": 0, "mfc_flow": 2.1},
    "rie.chuck_hot": {"chuck_temp": 90.1},
    "rie.wall_hot": {"wall_temp": 120.1},
    "rie.over_rating": {"dc_bias_share": 110.1},
    "rie.watchdog": {"controller_alive": 0},
    "rie.vent_not_purged": {"purge_done": 0},
}
"""Row → what makes it trip, just past its threshold."""

NOT_YET = {
    "hvac.freeze_stage_1": {"supply_temp": 4.4},
    "hvac.duct_static_high": {"duct_static": 750.0},
    "boiler.outlet_too_hot": {"outlet_temp": 90.6},
    "boiler.rise_too_high": {"delta_t": 44.0},
    "rie.rf_pressure_window": {"chamber_pressure": 2.0},
    "rie.base_pressure": {"chamber_pressure": 1.0},
    "rie.turbo_slow": {"turbo_speed": 90.0},
}
"""Row → what is just not enough."""


def packs() -> Iterator[tuple[str, str, InterlockConfig, list[InterlockConfig]]]:
    """(pack, entry, row, all rows of the entry) of everything that ships."""
    for path in sorted(SHIPPED.glob("*.yaml")):
        pack = Pack.model_validate(parse(path.read_text(encoding="utf-8")))
        for entry, rows in pack.interlocks.items():
            for row in rows:
                yield pack.pack, entry, row, rows


def trips_when(pack: str, entry: str, row: InterlockConfig) -> Mapping[str, float]:
    """What makes the row trip. In the matrix of gases: the valves that its name names are open."""
    if pack == "rie-gases":
        first = row.name.split("_")[0]
        return {f"{gas}_valve": 1.0 for gas in (entry.split("_") if "_and_" in row.name else [first])}
    return TRIPS_WHEN.get(f"{pack}.{entry}.{row.name}") or TRIPS_WHEN[f"{pack}.{row.name}"]


ROWS = [pytest.param(*one, id=f"{one[0]}.{one[1]}.{one[2].name}") for one in packs()]
SITE = "site: bench\ninclude: [zones/*.yaml]\ndevices:\n  plc: {poll: 1s, modbus: {host: 192.0.2.1}}\n"


class Bench:
    """One entry of a pack in a critical unit without a function; inputs and requests come from the test."""

    def __init__(self, folder: Path, pack: str, entry: str, rows: list[InterlockConfig]) -> None:
        outputs = {output: value for row in reversed(rows) for output, value in row.trip.items()}
        named = [
            name for row in rows for text in filter(None, (row.when, row.clear_when)) for name, _ in references(text)
        ]
        roles = dict.fromkeys((*named, *outputs))
        text = ["zone: unit", "critical: true", "points:"]
        for place, role in enumerate(roles):
            writable = role in outputs
            unit = "%" if role in PERCENT else ANALOGUE.get(role, ("1", 1.0))[0]
            kind = "holding" if writable else "input"
            text.append(
                f"  my_{role}: {{device: plc, modbus: {{{kind}: {4 * place}, type: f32}}, unit: '{unit}', "
                f"range: [-100, 5000], writable: {str(writable).lower()}}}"
            )
        text.append("outputs:")
        for output, value in outputs.items():
            text.append(f"  my_{output}: {{limits: [0, {100 if output in PERCENT else 1}], fail_safe: {value}}}")
        bind = ", ".join(f"{role}: my_{role}" for role in roles)
        text.append(f"interlocks:\n  - {{use: {pack}.{entry}, bind: {{{bind}}}}}\n")
        (folder / "zones").mkdir()
        (folder / "zones" / "unit.yaml").write_text("\n".join(text), encoding="utf-8")
        (folder / "site.yaml").write_text(SITE, encoding="utf-8")
        self.program = program.build(load(folder / "site.yaml"), {})
        self.enforcer = tables.enforcer(self.program, kernels.load("safety.kernels", "python"))
        self.names = [one.name for one in self.enforcer.interlocks.interlocks]
        self.roles = list(roles)
        self.values = np.zeros(len(self.program.points))
        self.qualities = np.full(len(self.program.points), Quality.GOOD, np.uint8)
        self.requests = np.zeros(len(self.program.outputs))
        self.now = 1000.0
        self.healthy()

    def healthy(self) -> None:
        """All is well."""
        self.qualities[:] = Quality.GOOD
        for role in self.roles:
            self.set(role, ANALOGUE[role][1] if role in ANALOGUE else 0.0 if role in OFF_WHILE_WELL else 1.0)

    def set(self, role: str, value: float, quality: Quality = Quality.GOOD) -> None:
        at = self.program.point_index[f"unit/my_{role}"]
        self.values[at], self.qualities[at] = value, quality

    def ask_against(self, row: InterlockConfig) -> None:
        """Let the function ask for the opposite of what the row forces."""
        for output, forced in row.trip.items():
            high = 100.0 if output in PERCENT else 1.0
            self.requests[self.program.output_index[f"unit/my_{output}"]] = 0.0 if forced else high

    def scan(self, passed: float, due: bool = True) -> None:
        self.now += passed
        self.enforcer.evaluate(self.now, self.values, self.qualities)
        states = np.full(len(self.requests), RequestState.OK, np.uint8)
        self.enforcer.enforce(self.now, self.requests, states, np.full(len(self.requests), int(due), np.uint8))
        assert self.enforcer.status[self.names.index(f"unit/{DISAGREE}")] == CLEAR, "both channels agree all the way"

    def status(self, row: InterlockConfig) -> InterlockStatus:
        return InterlockStatus(int(self.enforcer.status[self.names.index(f"unit/{row.name}")]))

    def is_forced(self, row: InterlockConfig) -> bool:
        """Whether every output of the row is where the row forces it, or all are where the function wants them."""
        at = [self.program.output_index[f"unit/my_{output}"] for output in row.trip]
        forced = [float(self.enforcer.out[i]) == value for i, value in zip(at, row.trip.values(), strict=True)]
        assert all(forced) or not any(forced)
        return all(forced)


@pytest.mark.parametrize(("pack", "entry", "row", "rows"), ROWS)
def test_the_row_trips_holds_and_resets(
    tmp_path: Path, pack: str, entry: str, row: InterlockConfig, rows: list[InterlockConfig]
) -> None:
    bench = Bench(tmp_path, pack, entry, rows)
    alone = len(rows) == 1
    bench.ask_against(row)
    bench.scan(1.0)
    bench.scan(4000.0)
    assert bench.status(row) == CLEAR
    assert not bench.is_forced(row)
    for role, value in NOT_YET.get(f"{pack}.{row.name}", {}).items():
        bench.set(role, value)
        bench.scan(4000.0)
        assert bench.status(row) == CLEAR
    bench.healthy()
    bench.scan(4000.0)

    for role, value in trips_when(pack, entry, row).items():
        bench.set(role, value)
    if row.delay:
        bench.scan(0.0)
        bench.scan(row.delay - 1e-3)
        assert bench.status(row) == PENDING
        assert not (alone and bench.is_forced(row))
    bench.scan(1e-2)
    assert bench.status(row) == TRIPPED
    assert bench.is_forced(row)
    bench.scan(4000.0)
    assert bench.is_forced(row), "held, whatever the function asks"
    assert not bench.enforcer.reset(f"unit/{row.name}", bench.now).accepted

    bench.healthy()
    bench.scan(1.0, due=False)
    if row.clear_delay:
        bench.scan(row.clear_delay - 1e-3)
        assert bench.status(row) == TRIPPED
        assert bench.is_forced(row)
        bench.scan(1e-2, due=False)
    if row.latch == "manual":
        assert bench.status(row) == RESETTABLE
        bench.scan(1.0)
        assert bench.is_forced(row), "the cause is gone, the latch is not"
    for one in rows:
        bench.enforcer.reset(f"unit/{one.name}", bench.now)
    bench.scan(1.0, due=False)
    assert bench.status(row) == CLEAR
    assert bench.is_forced(row), "nothing starts before the function asks again"
    bench.scan(4000.0)
    assert not bench.is_forced(row)


@pytest.mark.parametrize(("pack", "entry", "row", "rows"), ROWS)
def test_every_input_of_the_row_trips_it_when_it_is_bad(
    tmp_path: Path, pack: str, entry: str, row: InterlockConfig, rows: list[InterlockConfig]
) -> None:
    bench = Bench(tmp_path, pack, entry, rows)
    bench.scan(1.0)
    for text in filter(None, (row.when, row.clear_when)):
        for role, _start in references(text):
            bench.healthy()
            bench.scan(4000.0)
            bench.enforcer.reset(f"unit/{row.name}", bench.now)
            bench.scan(4000.0)
            assert bench.status(row) == CLEAR
            bench.set(role, 0.0, Quality.UNCERTAIN)
            bench.scan(0.1)
            assert bench.status(row) == TRIPPED


def test_every_row_has_a_title_and_says_where_it_comes_from() -> None:
    for pack, entry, row, _rows in packs():
        assert row.title and row.source, f"{pack}.{entry}: {row.name}"


def test_no_row_of_this_table_is_gone() -> None:
    known = {f"{pack}.{row.name}" for pack, _entry, row, _rows in packs()}
    known |= {f"{pack}.{entry}.{row.name}" for pack, entry, row, _rows in packs()}
    assert TRIPS_WHEN.keys() <= known
    assert NOT_YET.keys() <= known


def test_the_gases_are_those_of_the_matrix() -> None:
    pairs = {entry for pack, entry, _row, _rows in packs() if pack == "rie-gases"}
    oxidisers = {
        "sih4": "o2 n2o cl2 nf3",
        "h2": "o2 nf3 cl2 f2",
        "ch4": "o2 nf3 cl2 f2",
        "nh3": "cl2 hcl nf3",
        "clf3": "sih4 h2 ch4 nh3",
    }
    assert pairs == {f"{first}_{second}" for first, seconds in oxidisers.items() for second in seconds.split()}
