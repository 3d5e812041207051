"""Building management: commands, what is refused, and control functions that do what a building engineer expects."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domains.building_management import AirHandlerCommand, HVACCommand, air_handler, zone_temperature
from agent.domains.building_management.plugin import BuildingManagement
from agent.poet import handle_of
from agent.poet.plugins import CallContext, find_plugin

PLUGIN = BuildingManagement()
CONTEXT = CallContext("test", {})

TEMPERATURE = st.floats(-10.0, 50.0)
OUTDOOR = st.floats(-60.0, 60.0)
SETPOINT = st.floats(5.0, 40.0)


def test_commands_behave_as_tuples_with_names() -> None:
    command = HVACCommand(10, 0, 60, "Heating")
    heating, cooling, fan, reason = command
    assert (heating, cooling, fan, reason) == (10, 0, 60, "Heating")
    assert command == HVACCommand(10.0, 0.0, 60.0, "Heating") != HVACCommand(11, 0, 60, "Heating")
    assert repr(command) == "HVACCommand(heating_output=10, cooling_output=0, fan_speed=60, reason='Heating')"
    assert HVACCommand(0, 0, 0).reason == ""
    with pytest.raises(AttributeError):
        command.heating_output = 100  # type: ignore[misc]


@pytest.mark.parametrize(
    ("command", "cause"),
    [
        (HVACCommand(500, 0, 0), "heating_output = 500"),
        (HVACCommand(-0.1, 0, 0), "heating_output = -0.1"),
        (HVACCommand(0, 100.1, 0), "cooling_output = 100.1"),
        (HVACCommand(0, 0, math.nan), "fan_speed is nan"),
        (HVACCommand(math.inf, 0, 0), "heating_output is inf"),
        (HVACCommand(None, 0, 0), "heating_output is None"),  # type: ignore[arg-type]
        (HVACCommand("50", 0, 0), "heating_output is '50'"),  # type: ignore[arg-type]
        (HVACCommand(80, 80, 0), "heating 80 % and cooling 80 % at the same time"),
        (AirHandlerCommand(0.5, 0, 0, 0, 0), "fan_on = 0.5"),
        (AirHandlerCommand(1, 0, 0, 1, 1), "at the same time"),
        ((0, 0, 0, ""), "returned tuple"),
        (None, "returned NoneType"),
    ],
)
def test_what_is_no_command_is_refused(command: Any, cause: str) -> None:
    assert cause in "; ".join(PLUGIN.validate_output(command, CONTEXT))


def test_every_cause_is_given() -> None:
    assert len(PLUGIN.validate_output(HVACCommand(500, 80, math.nan), CONTEXT)) == 3


@pytest.mark.parametrize(
    "command", [HVACCommand(100, 0, 0), HVACCommand(0, 0.5, 100, "x"), AirHandlerCommand(1, 100, 100, 0, 100)]
)
def test_what_is_allowed(command: Any) -> None:
    assert PLUGIN.validate_output(command, CONTEXT) == ()


def test_fail_safe_commands_are_allowed_and_move_nothing() -> None:
    for kind in (HVACCommand, AirHandlerCommand, None):
        command = PLUGIN.fail_safe(kind, "test")
        assert PLUGIN.validate_output(command, CONTEXT) == ()
        assert not any(command[:-1])
        assert "test" in command.reason
    assert isinstance(PLUGIN.fail_safe(AirHandlerCommand, ""), AirHandlerCommand)


def test_metadata_and_hints() -> None:
    plugin = find_plugin("building_management")
    assert plugin.metadata.domain == plugin.get_domain_name() == "building_management"
    for name, learnable in plugin.get_learnable_parameters().items():
        assert learnable.low <= learnable.default <= learnable.high, name
    assert plugin.get_learning_hints({})["objective"] == "energy"
    assert plugin.get_performance_optimizations()["deterministic"] is True


@pytest.mark.parametrize("function", [zone_temperature, air_handler])
def test_every_parameter_is_a_declared_input_or_has_a_default(function: Any) -> None:
    for name, parameter in inspect.signature(function).parameters.items():
        assert (name in PLUGIN.inputs) != (parameter.default is not parameter.empty), (
            f"{name} is an input or has a default"
        )


@given(
    st.tuples(TEMPERATURE, SETPOINT, st.sampled_from([0, 1, 12]), OUTDOOR),
    st.tuples(st.floats(-2, 2), st.floats(1, 8), st.floats(0.5, 2), st.floats(15, 60)),
)
def test_a_zones_command_is_always_allowed(inputs: tuple[float, ...], learned: tuple[float, ...]) -> None:
    assert PLUGIN.validate_output(handle_of(zone_temperature).plain(*inputs, *learned), CONTEXT) == ()


@given(
    st.tuples(st.floats(-40.0, 80.0), SETPOINT, OUTDOOR, TEMPERATURE, st.sampled_from([0, 1])),
    st.tuples(st.floats(-2, 2), st.floats(0.5, 2)),
)
def test_an_air_handlers_command_is_always_allowed(inputs: tuple[float, ...], learned: tuple[float, ...]) -> None:
    assert PLUGIN.validate_output(handle_of(air_handler).plain(*inputs, *learned), CONTEXT) == ()


def zone(
    current: float, setpoint: float = 22.0, occupancy: float = 1, outdoor: float = 10.0, **more: float
) -> HVACCommand:
    return zone_temperature(current, setpoint, occupancy, outdoor, **more)


def test_zone_heats_below_and_cools_above_the_dead_band() -> None:
    assert zone(22.0)[:2] == zone(21.0)[:2] == zone(23.0)[:2] == (0, 0)
    assert zone(20.0).heating_output == pytest.approx(30.0)
    assert zone(24.0).cooling_output == pytest.approx(30.0)
    assert zone(10.0).heating_output == 100.0
    assert zone(40.0).cooling_output == 100.0


def test_zone_output_rises_from_zero_at_the_edge() -> None:
    assert 0 < zone(20.999).heating_output < 0.1
    assert 0 < zone(23.001).cooling_output < 0.1


def test_set_back_saves_both_ways() -> None:
    assert zone(19.0, occupancy=1).heating_output > 0
    assert zone(19.0, occupancy=0).heating_output == 0
    assert zone(17.9, occupancy=0).heating_output > 0
    assert zone(25.0, occupancy=1).cooling_output > 0
    assert zone(25.0, occupancy=0).cooling_output == 0
    assert zone(26.1, occupancy=0).cooling_output > 0


@given(TEMPERATURE, SETPOINT, OUTDOOR, st.floats(1, 8))
def test_an_empty_zone_never_takes_more_than_an_occupied_one(
    current: float, setpoint: float, outdoor: float, setback: float
) -> None:
    empty = handle_of(zone_temperature).plain(current, setpoint, 0, outdoor, setback=setback)
    full = handle_of(zone_temperature).plain(current, setpoint, 1, outdoor, setback=setback)
    assert empty.heating_output <= full.heating_output
    assert empty.cooling_output <= full.cooling_output
    assert empty.fan_speed <= full.fan_speed


def test_bias_shifts_the_set_point() -> None:
    assert zone(20.0, bias=1.0) == zone(20.0, setpoint=23.0)
    assert zone(25.0, bias=-1.0) == zone(25.0, setpoint=21.0)


def test_lock_outs() -> None:
    assert zone(18.0, outdoor=24.1)[:2] == (0, 0)
    assert zone(18.0, outdoor=24.0).heating_output > 0
    assert zone(28.0, outdoor=4.9)[:2] == (0, 0)
    assert zone(28.0, outdoor=4.9).fan_speed == 60.0
    assert zone(28.0, outdoor=5.0).cooling_output > 0


def ahu(
    supply: float, setpoint: float = 16.0, outdoor: float = 0.0, back: float = 22.0, occupancy: float = 1, **more: float
) -> AirHandlerCommand:
    return air_handler(supply, setpoint, outdoor, back, occupancy, **more)


def test_air_handler_is_off_while_nobody_is_there() -> None:
    assert ahu(16.0, occupancy=0)[:5] == (0, 0, 0, 0, 0)
    assert ahu(16.0)[:2] == (1, 80.0)


def test_economizer_mixes_to_the_set_point_when_it_is_cooler_outside() -> None:
    mild = ahu(16.0, outdoor=10.0)
    assert mild.outdoor_damper == pytest.approx(50.0), "half of 10 and half of 22 degrees makes 16"
    assert mild[3:5] == (0, 0)
    assert mild.reason == "Economizer"
    assert ahu(16.0, outdoor=18.0).outdoor_damper == 100.0
    assert ahu(16.0, outdoor=-20.0).outdoor_damper == 20.0, "never less than ventilation needs"


@pytest.mark.parametrize("outdoor", [24.0, 30.0, 22.0])
def test_no_economizer_when_outdoor_air_is_no_help(outdoor: float) -> None:
    assert ahu(16.0, outdoor=outdoor).outdoor_damper == 20.0
    assert ahu(16.0, outdoor=outdoor).cooling_valve > 0


def test_cold_air_is_heated_and_more_so_the_colder_it_gets() -> None:
    valves = [ahu(16.0, setpoint=20.0, outdoor=outdoor).heating_valve for outdoor in (0.0, -10.0, -20.0)]
    assert valves == sorted(valves)
    assert valves[0] > 0
    assert ahu(12.0, setpoint=20.0).heating_valve > ahu(16.0, setpoint=20.0).heating_valve


@given(st.floats(-40.0, 80.0), SETPOINT, OUTDOOR, TEMPERATURE)
def test_air_handler_demand_has_one_sign(supply: float, setpoint: float, outdoor: float, back: float) -> None:
    command = handle_of(air_handler).plain(supply, setpoint, outdoor, back, 1)
    assert command.heating_valve == 0 or command.cooling_valve == 0
    assert 20.0 <= command.outdoor_damper <= 100.0
