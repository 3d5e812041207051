"""The program: a site as index tables. What does not fit is refused with the unit, the parameter and the remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import runtime_rig as rig

from agent.runtime.operate.protocol import LANES, FunctionInfo
from agent.runtime.program import DEADLINE_MOST_S, ProgramError, function_names


def test_one_devices_points_are_one_slice_of_the_image(tmp_path: Path) -> None:
    program = rig.program_of(tmp_path)
    for device, where in program.device_slices.items():
        assert {row.config.device for row in program.points[where]} == {device}
    covered = sorted(i for where in program.device_slices.values() for i in range(where.start, where.stop))
    assert covered == list(range(len(program.points)))
    assert all(program.points[program.point_index[row.name]] is row for row in program.points)


def test_operand_row_is_points_constants_parameters_and_a_good_slot(tmp_path: Path) -> None:
    program = rig.program_of(tmp_path)
    group = program.groups[0]
    names = [program.units[unit].name for unit in group.units]
    assert names == ["east", "west"]
    for column, unit in enumerate(names):
        assert group.operand[:, column].tolist() == [
            program.point_index[f"{unit}/temp"],
            program.point_index[f"{unit}/setpoint"],
            program.parameter_slot[unit, "bias"],
            program.parameter_slot[unit, "gain"],
        ]
    assert program.parameter_value.tolist() == [0.5, 10.0, 0.5, 10.0]
    assert program.operands == len(program.points) + len(program.constants) + 4 + 1
    assert program.parameters_at == program.constants_at + len(program.constants)


def test_outputs_are_driven_by_the_field_of_their_name(tmp_path: Path) -> None:
    program = rig.program_of(tmp_path)
    group = program.groups[0]
    driven = {
        program.outputs[output].name: (group.function.fields[field], program.units[group.units[column]].name)
        for output, field, column in zip(group.out_index, group.out_field, group.out_column, strict=True)
    }
    assert driven == {
        "east/heating": ("heating", "east"),
        "east/fan": ("fan", "east"),
        "west/heating": ("heating", "west"),
        "west/fan": ("fan", "west"),
    }


def test_unit_without_a_function_is_watched_only(tmp_path: Path) -> None:
    program = rig.program_of(tmp_path)
    cellar = next(unit for unit in program.units if unit.name == "cellar")
    assert (cellar.group, cellar.column) == (-1, -1)
    assert [program.outputs[i].name for i in cellar.outputs] == ["cellar/pump"]


def test_function_that_was_not_loaded_leaves_its_units_without_a_group(tmp_path: Path) -> None:
    broken = FunctionInfo(rig.CONTROL.spec, ok=False, why="ImportError: no module")
    program = rig.program_of(tmp_path, rig.ZONES, broken)
    assert program.groups == ()
    assert {row.name for row in program.outputs} >= {"east/heating", "west/fan"}, "their envelopes still hold"
    assert program.operands == len(program.points) + 1


def test_units_share_a_group_only_with_the_same_function_and_scan(tmp_path: Path) -> None:
    zones = {**rig.ZONES, "north": rig.EAST.replace("zone: east", "zone: north").replace("scan: 5s", "scan: 10s")}
    zones["north"] = zones["north"].replace("input: 0", "input: 60").replace("holding: 10", "holding: 70")
    zones["north"] = zones["north"].replace("holding: 0", "holding: 60").replace("holding: 2,", "holding: 62,")
    program = rig.program_of(tmp_path, zones)
    assert [(group.scan_s, len(group.units)) for group in program.groups] == [(5.0, 2), (10.0, 1)]
    assert {group.deadline_s for group in program.groups} == {DEADLINE_MOST_S}
    assert not any(group.dedicated for group in program.groups)


def test_long_deadline_gets_a_group_and_a_lane_of_its_own(tmp_path: Path) -> None:
    zones = {**rig.ZONES, "west": rig.WEST.replace("scan: 5s", "scan: 5s\ndeadline: 3s")}
    program = rig.program_of(tmp_path, zones)
    assert [(group.deadline_s, group.dedicated, len(group.units)) for group in program.groups] == [
        (DEADLINE_MOST_S, False, 1),
        (3.0, True, 1),
    ]


def test_input_arrives_in_the_unit_the_function_expects(tmp_path: Path) -> None:
    """Fahrenheit on the device, Celsius in the function: the defect that froze a building."""
    warm = rig.EAST.replace("unit: Cel, range: [-10, 50]", 'unit: "[degF]", range: [10, 120]').replace(
        "temp > 45 Cel", '"temp > 113 [degF]"'
    )
    function = replace(rig.CONTROL, input_units=(("temp", "Cel"),))
    program = rig.program_of(tmp_path, {**rig.ZONES, "east": warm}, function)
    group = program.groups[0]
    assert np.array([212.0, 32.0]) * group.gain[0, 0] + group.offset[0, 0] == pytest.approx([100.0, 0.0])
    assert (group.gain[0, 1], group.offset[0, 1]) == (1.0, 0.0), "west is in Celsius already"


def test_inputs_binding_says_its_own_unit_and_whether_it_is_required(tmp_path: Path) -> None:
    east = rig.EAST + "inputs: {setpoint: {point: west/setpoint, unit: K, required: false}}\n"
    program = rig.program_of(tmp_path, {**rig.ZONES, "east": east})
    group = program.groups[0]
    assert group.operand[1, 0] == program.point_index["west/setpoint"]
    assert (group.gain[1, 0], group.offset[1, 0]) == pytest.approx((1.0, 273.15))
    good = program.operands - 1
    assert group.required[:, 0].tolist() == [program.point_index["east/temp"], good], "padded with the always-good slot"
    assert sorted(group.required[:, 1]) == sorted(program.point_index[f"west/{name}"] for name in ("temp", "setpoint"))


def test_constants_and_defaults_need_no_point(tmp_path: Path) -> None:
    east = rig.EAST + "inputs: {setpoint: 21}\n"
    function = replace(rig.CONTROL, parameters=(*rig.CONTROL.parameters, "floor"), defaults=(("floor", 7.5),))
    program = rig.program_of(tmp_path, {**rig.ZONES, "east": east}, function)
    group = program.groups[0]
    slots = group.operand[[1, 4], 0] - program.constants_at
    assert program.constants[slots].tolist() == [21.0, 7.5]


def test_default_is_not_replaced_by_a_point_that_happens_to_have_its_name(tmp_path: Path) -> None:
    """A parameter ``heating=0`` beside an output ``heating`` would read back the function's own command."""
    takes = ("temp", "setpoint", "heating", "bias", "gain")
    function = replace(rig.CONTROL, parameters=takes, defaults=(("heating", 1.0),))
    program = rig.program_of(tmp_path, rig.ZONES, function)
    assert program.constants[program.groups[0].operand[2, 0] - program.constants_at] == 1.0


def test_parameter_the_function_does_not_take_is_an_error(tmp_path: Path) -> None:
    function = replace(rig.CONTROL, parameters=("temp", "setpoint", "gain"), defaults=())
    with pytest.raises(ProgramError, match="zone east: site_functions:control has no parameter 'bias'"):
        rig.program_of(tmp_path, rig.ZONES, function)


def test_single_result_drives_the_only_output_whatever_its_name(tmp_path: Path) -> None:
    one = "\n".join(
        line for line in rig.EAST.splitlines() if "fan" not in line and "hot" not in line and line != "interlocks:"
    )
    function = replace(rig.CONTROL, fields=("result",))
    program = rig.program_of(tmp_path, {"east": one}, function)
    assert program.groups[0].out_field.tolist() == [0]


def test_field_is_taken_by_name_where_the_output_says_from(tmp_path: Path) -> None:
    renamed = rig.EAST.replace("heating: {limits", "heating: {from: warm, limits").replace(
        "fan: {limits", "fan: {from: air, limits"
    )
    function = replace(rig.CONTROL, fields=("air", "warm"))
    program = rig.program_of(tmp_path, {"east": renamed}, function)
    group = program.groups[0]
    assert {
        program.outputs[i].name: function.fields[f] for i, f in zip(group.out_index, group.out_field, strict=True)
    } == {
        "east/heating": "warm",
        "east/fan": "air",
    }


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            replace(rig.CONTROL, parameters=("temp", "humidity")),
            "zone east: parameter 'humidity' of site_functions:control has no point, constant or default; add inputs: {humidity: POINT}",
        ),
        (
            replace(rig.CONTROL, fields=("heating", "air")),
            "zone east: output fan takes 'fan' from site_functions:control, which returns heating, air; write from: FIELD",
        ),
        (replace(rig.CONTROL, input_units=(("temp", "Pa"),)), "zone east: input 'temp' from east/temp: "),
    ],
)
def test_what_does_not_fit_is_refused_with_its_remedy(tmp_path: Path, function: FunctionInfo, message: str) -> None:
    with pytest.raises(ProgramError) as error:
        rig.program_of(tmp_path, rig.ZONES, function)
    assert str(error.value).startswith(message)


def test_what_workers_share_holds_no_input_and_no_request(tmp_path: Path) -> None:
    """A compiled function that writes past its arrays must not reach what an interlock watches."""
    program = rig.program_of(tmp_path)
    shared = {block.name: block.shape for block in program.shared_blocks()}
    assert shared["progress"] == (LANES,)
    assert all(name == "progress" or name.startswith("g0.") for name in shared)
    assert shared["g0.due"] == (LANES, 2) and shared["g0.args"] == (4, 2) and shared["g0.out"] == (2, 2)
    assert {block.name.split(".")[0] for block in program.private_blocks()} == {"in", "out"}


def test_every_function_is_named_once(tmp_path: Path) -> None:
    assert function_names(rig.site_of(tmp_path)) == ["site_functions:control"]
