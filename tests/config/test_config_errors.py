"""Every kind of mistake in a site's files: the exact place, the caret, the message and the fix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from agent.config import ConfigErrors, Problem, load
from agent.config.errors import in_order, render

Files = dict[str, str]


class Case(NamedTuple):
    """In ``file`` the text ``good`` becomes ``bad``; then there is exactly one problem."""

    name: str
    file: str
    good: str
    bad: str
    where: str
    message: str
    fix: str


CASES = [
    Case(
        "unknown_key",
        "zones/office.yaml",
        "stale_after: 30s",
        "stale_afer: 30s",
        "zones/office.yaml:5:84",
        "unknown key 'stale_afer'",
        "did you mean stale_after?",
    ),
    Case(
        "unknown_key_without_a_near_one",
        "zones/office.yaml",
        "scan: 5s",
        "scan: 5s\nxyzzy: 1",
        "zones/office.yaml:3:1",
        "unknown key 'xyzzy'",
        "known keys here: comfort, critical, deadline, exclusive, fallback, function, inputs, interlocks, outputs, parameters, "
        "points, points_csv, scan, title, tool, train, zone",
    ),
    Case(
        "merge_key",
        "zones/office.yaml",
        "stale_after: 30s",
        "<<: 30s",
        "zones/office.yaml:5:84",
        "unknown key '<<'",
        "YAML 1.2 has no merge keys: write the keys out; for many alike points use points_csv",
    ),
    Case(
        "missing_key",
        "zones/office.yaml",
        "max_rate: 5/min, fail_safe: 0",
        "max_rate: 5/min",
        "zones/office.yaml:12:3",
        "fail_safe is missing",
        "add fail_safe: where the output goes when anything is wrong: a value, on, off, or relinquish",
    ),
    Case(
        "missing_at_the_top",
        "site.yaml",
        "site: demo\n",
        "",
        "site.yaml:1:1",
        "site is missing",
        "add site: a name of a-z, 0-9 and -",
    ),
    Case(
        "number_without_unit",
        "zones/office.yaml",
        "scan: 5s",
        "scan: 5",
        "zones/office.yaml:2:7",
        "5 is not a duration",
        "write a number with its unit, such as 500ms, 5s, 10min or 1h",
    ),
    Case(
        "rate",
        "zones/office.yaml",
        "5/min,",
        "5,",
        "zones/office.yaml:12:41",
        "5 is not a rate",
        "write the change per time in the point's unit, such as 5/min or 0.5/s",
    ),
    Case(
        "yes_is_no_boolean",
        "zones/office.yaml",
        '"%", range: [0, 100], writable: true',
        '"%", range: [0, 100], writable: yes',
        "zones/office.yaml:8:101",
        'writable must be true or false, not "yes"',
        "write true: yes, no, on and off are text in YAML 1.2",
    ),
    Case(
        "quoted_number",
        "zones/office.yaml",
        "range: [-10, 50]",
        'range: [-10, "50"]',
        "zones/office.yaml:5:79",
        'range[1] must be a number, not "50"',
        "remove the quotes: 50",
    ),
    Case(
        "text_for_number",
        "zones/office.yaml",
        "holding: 10,",
        "holding: ten,",
        "zones/office.yaml:6:46",
        'holding must be a whole number, not "ten"',
        "write a whole number",
    ),
    Case(
        "number_for_text",
        "zones/office.yaml",
        'unit: "1", range: [0, 1]}\n  heating',
        "unit: 1, range: [0, 1]}\n  heating",
        "zones/office.yaml:7:57",
        "unit must be text, not 1",
        'put it in quotes: "1"',
    ),
    Case(
        "one_end_of_a_range",
        "zones/office.yaml",
        "range: [-10, 50]",
        "range: [-10]",
        "zones/office.yaml:5:73",
        "range needs one more value",
        "what the value can believably be; outside it is bad quality",
    ),
    Case(
        "infinite",
        "zones/office.yaml",
        "range: [-10, 50]",
        "range: [-10, .inf]",
        "zones/office.yaml:5:79",
        "range[1] must be a finite number, not Infinity",
        "write a number",
    ),
    Case(
        "too_small",
        "site.yaml",
        "host: 10.0.0.6",
        "host: 10.0.0.6, port: 0",
        "site.yaml:5:51",
        "port must be at least 1, not 0",
        "choose a value within the bounds",
    ),
    Case(
        "not_one_of",
        "zones/office.yaml",
        "type: f32}, unit: Cel, range: [-10, 50]",
        "type: f31}, unit: Cel, range: [-10, 50]",
        "zones/office.yaml:5:49",
        "type must be 'bit', 'i16', 'u16', 'i32', 'u32', 'i64', 'u64', 'f32' or 'f64', not \"f31\"",
        "did you mean f32?",
    ),
    Case(
        "empty_mapping",
        "zones/office.yaml",
        "exclusive: [[heating, fan]]",
        "exclusive:",
        "zones/office.yaml:14:11",
        "exclusive must be a list, not empty",
        "give a value, or remove the key",
    ),
    Case(
        "empty_range",
        "zones/office.yaml",
        "range: [-10, 50]",
        "range: [50, -10]",
        "zones/office.yaml:5:73",
        "range [50, -10] is empty",
        "give the lower number first",
    ),
    Case(
        "fallback_outside",
        "zones/office.yaml",
        "fallback: 21",
        "fallback: 31",
        "zones/office.yaml:6:100",
        "fallback 31 is outside the range [10, 30]",
        "choose a believable value",
    ),
    Case(
        "fail_safe_outside",
        "zones/office.yaml",
        "5/min, fail_safe: 0",
        "5/min, fail_safe: 101",
        "zones/office.yaml:12:59",
        "fail_safe 101 is outside the limits [0, 100]",
        "choose a value inside the limits",
    ),
    Case(
        "fail_safe_word",
        "zones/office.yaml",
        "5/min, fail_safe: 0",
        "5/min, fail_safe: shut",
        "zones/office.yaml:12:59",
        "shut is not a value",
        "write a number, on, off, or relinquish",
    ),
    Case(
        "allowed_outside",
        "zones/office.yaml",
        "allowed: [off, on]",
        "allowed: [off, 2]",
        "zones/office.yaml:13:40",
        "allowed value 2 is outside the limits [0, 1]",
        "choose a value inside the limits",
    ),
    Case(
        "fail_safe_not_allowed",
        "zones/office.yaml",
        "allowed: [off, on]",
        "allowed: [on]",
        "zones/office.yaml:13:20",
        "fail_safe 0 is not one of the allowed values",
        "add it to allowed, or choose another",
    ),
    Case(
        "no_address",
        "zones/office.yaml",
        "modbus: {discrete: 0}, ",
        "",
        "zones/office.yaml:7:13",
        "a point needs exactly one address, found none",
        "give exactly one of: bacnet, modbus, opcua",
    ),
    Case(
        "address_twice",
        "zones/office.yaml",
        "{discrete: 0}",
        "{discrete: 0, coil: 1}",
        "zones/office.yaml:7:36",
        "give exactly one of coil, discrete, input, holding; found coil, discrete",
        "Where a value lives: {input: 40, type: f32, order: ABCD, scale: 0.1, offset: 0}",
    ),
    Case(
        "zone_and_tool",
        "zones/office.yaml",
        "zone: office",
        "zone: office\ntool: office",
        "zones/office.yaml:1:1",
        "a unit is either a zone or a tool",
        "begin the file with zone: NAME or with tool: NAME",
    ),
    Case(
        "learned_value_outside",
        "zones/office.yaml",
        "value: 0,",
        "value: 3,",
        "zones/office.yaml:18:17",
        "value 3 is outside the range [-2, 2]",
        "choose a value inside the range",
    ),
    Case(
        "gain_zero",
        "zones/office.yaml",
        "gain: 1.0",
        "gain: 0",
        "zones/office.yaml:19:83",
        "gain must not be 0",
        "say how far the feedback moves when the parameter moves by one",
    ),
    Case(
        "reserved_point",
        "zones/lab.yaml",
        "  outdoor: {",
        "  not: {device: ahu2, modbus: {input: 8}, unit: Cel, range: [0, 1]}\n  outdoor: {",
        "zones/lab.yaml:3:3",
        "a point cannot be called 'not': the word has a meaning in interlocks",
        "choose another name",
    ),
    Case(
        "device_twice",
        "site.yaml",
        "10.0.0.6",
        "10.0.0.5",
        "site.yaml:5:3",
        "ahu2 is the same device as ahu1: modbus 10.0.0.5:502 unit_id 1",
        "let the points name ahu1, and remove ahu2",
    ),
    Case(
        "plant_unit",
        "site.yaml",
        "site: demo\n",
        "site: demo\nplant: {use: 'm:P', points: {labs/outdoor: x}}\n",
        "site.yaml:2:30",
        "there is no unit 'labs'",
        "did you mean lab?",
    ),
    Case(
        "plant_point",
        "site.yaml",
        "site: demo\n",
        "site: demo\nplant: {use: 'm:P', points: {lab/outdor: x}}\n",
        "site.yaml:2:30",
        "there is no point 'outdor' in unit lab",
        "did you mean outdoor?",
    ),
    Case(
        "unknown_unit",
        "zones/office.yaml",
        "unit: Cel, range: [-10, 50]",
        "unit: degC, range: [-10, 50]",
        "zones/office.yaml:5:61",
        "unknown unit 'degC'",
        "write Cel",
    ),
    Case(
        "unknown_unit_nothing_near",
        "zones/lab.yaml",
        "unit: Cel",
        "unit: qqqqq",
        "zones/lab.yaml:3:64",
        "unknown unit 'qqqqq'",
        "write a UCUM code: Cel, [degF], Pa, %, kW, m3/h, or 1 for a plain number",
    ),
    Case(
        "unknown_device",
        "zones/lab.yaml",
        "ahu2",
        "ahu22",
        "zones/lab.yaml:3:21",
        "there is no device 'ahu22'",
        "did you mean ahu2?",
    ),
    Case(
        "writable_without_output",
        "zones/lab.yaml",
        "input: 6, type: f32}",
        "holding: 6, type: f32}, writable: true",
        "zones/lab.yaml:3:70",
        "outdoor is writable but has no envelope: it could never be written",
        "add under outputs: outdoor: {limits: [-40, 60], fail_safe: VALUE}, or remove writable",
    ),
    Case(
        "output_not_writable",
        "zones/office.yaml",
        '"%", range: [0, 100], writable: true',
        '"%", range: [0, 100]',
        "zones/office.yaml:8:3",
        "heating is an output, but the point does not say that it may be written",
        "add writable: true to the point heating: what can move equipment is said twice",
    ),
    Case(
        "address_not_writable",
        "zones/office.yaml",
        "{holding: 100, scale: 0.1}",
        "{input: 100, scale: 0.1}",
        "zones/office.yaml:8:35",
        "heating is an output, but this kind of modbus address cannot be written",
        "give the address of a writable object, or remove the output",
    ),
    Case(
        "relinquish",
        "zones/office.yaml",
        "5/min, fail_safe: 0",
        "5/min, fail_safe: relinquish",
        "zones/office.yaml:12:59",
        "heating cannot be relinquished: modbus has no way to hand a point back to the equipment",
        "give the value that is safe",
    ),
    Case(
        "limits_outside_range",
        "zones/office.yaml",
        "limits: [0, 100]",
        "limits: [0, 110]",
        "zones/office.yaml:12:25",
        "the limit 110 of heating is outside the range [0, 100] of the point",
        "limits lie inside the range: narrow them, or correct the range",
    ),
    Case(
        "default_limits_outside_range",
        "zones/office.yaml",
        '{coil: 3}, unit: "1", range: [0, 1]',
        '{holding: 3}, unit: "1", range: [0.5, 1]',
        "zones/office.yaml:13:3",
        "the limit 0 of fan is outside the range [0.5, 1] of the point",
        "limits lie inside the range: narrow them, or correct the range",
    ),
    Case(
        "exclusive_unknown",
        "zones/office.yaml",
        "[[heating, fan]]",
        "[[heating, fans]]",
        "zones/office.yaml:14:23",
        "there is no output 'fans'",
        "did you mean fan?",
    ),
    Case(
        "exclusive_self",
        "zones/office.yaml",
        "[[heating, fan]]",
        "[[fan, fan]]",
        "zones/office.yaml:14:13",
        "fan cannot exclude itself",
        "name two outputs",
    ),
    Case(
        "two_writers_overlap",
        "zones/lab.yaml",
        "points:\n",
        "outputs: {valve: {limits: [0, 100], fail_safe: 0}}\npoints:\n"
        '  valve: {device: ahu1, modbus: {holding: 99, type: f32}, unit: "%", range: [0, 100], writable: true}\n',
        "zones/office.yaml:8:35",
        "office/heating writes holding 100 of ahu1, which lab/valve writes too",
        "let one unit write it; others read it as UNIT/POINT",
    ),
    Case(
        "condition_typo",
        "zones/office.yaml",
        "when: temp > 45 Cel",
        "when: tmep > 45 Cel",
        "zones/office.yaml:16:23",
        "interlock hot: unknown point 'tmep'",
        "did you mean temp?",
    ),
    Case(
        "condition_unit",
        "zones/office.yaml",
        "when: temp > 45 Cel",
        "when: temp > 45 degC",
        "zones/office.yaml:16:33",
        "interlock hot: unknown unit 'degC'",
        "did you mean Cel?",
    ),
    Case(
        "condition_dimension",
        "zones/office.yaml",
        "when: temp > 45 Cel",
        "when: temp > 45 Pa",
        "zones/office.yaml:16:30",
        "interlock hot: Pa measures pressure, the point is in Cel (temperature)",
        "a condition compares points with numbers or on and off, joined by and, or, not and ( )",
    ),
    Case(
        "condition_syntax_quoted",
        "zones/office.yaml",
        "when: temp > 45 Cel",
        'when: "temp > 45 Cel and"',
        "zones/office.yaml:16:41",
        "interlock hot: expected a point or a number, found 'the end'",
        "a condition compares points with numbers or on and off, joined by and, or, not and ( )",
    ),
    Case(
        "clear_when",
        "zones/office.yaml",
        "latch: manual",
        "clear_when: temp < 40 Ce",
        "zones/office.yaml:16:80",
        "interlock hot: unknown unit 'Ce'",
        "did you mean Cel?",
    ),
    Case(
        "trip_no_output",
        "zones/office.yaml",
        "trip: {heating: 0}",
        "trip: {heat: 0}",
        "zones/office.yaml:16:45",
        "interlock hot trips 'heat', which is no output of this unit",
        "did you mean heating?",
    ),
    Case(
        "trip_outside",
        "zones/office.yaml",
        "trip: {heating: 0}",
        "trip: {heating: 120}",
        "zones/office.yaml:16:54",
        "interlock hot forces heating to 120, outside its limits [0, 100]",
        "choose a value inside the limits of the output",
    ),
    Case(
        "trip_not_allowed",
        "zones/office.yaml",
        "trip: {heating: 0}",
        "trip: {fan: 0.5}",
        "zones/office.yaml:16:50",
        "interlock hot forces fan to 0.5, which is not one of its allowed values",
        "choose one of: 0, 1",
    ),
    Case(
        "trip_relinquish",
        "zones/office.yaml",
        "trip: {heating: 0}",
        "trip: {heating: relinquish}",
        "zones/office.yaml:16:54",
        "interlock hot forces heating to relinquish, which modbus cannot",
        "give the value that is safe",
    ),
    Case(
        "interlock_twice",
        "zones/office.yaml",
        "interlocks:\n",
        "interlocks:\n  - {name: hot, when: temp > 40, trip: {heating: 0}}\n",
        "zones/office.yaml:17:12",
        "there are two interlocks called 'hot' in this unit",
        "give each its own name (name: beside use:)",
    ),
    Case(
        "interlock_of_the_safety_layer",
        "zones/office.yaml",
        "interlocks:\n  - {name: hot",
        "critical: true\ninterlocks:\n  - {name: channels_disagree",
        "zones/office.yaml:17:12",
        "channels_disagree is the interlock of the safety layer itself in a critical unit",
        "give the row another name",
    ),
    Case(
        "critical_without_outputs",
        "zones/lab.yaml",
        "tool: lab\n",
        "tool: lab\ncritical: true\n",
        "zones/lab.yaml:2:11",
        "the unit is critical but has no outputs to protect",
        "declare outputs, or remove critical",
    ),
    Case(
        "pack_unknown",
        "zones/office.yaml",
        "interlocks:\n",
        "interlocks:\n  - use: hvca.fan_proof\n",
        "zones/office.yaml:16:10",
        "there is no interlock pack 'hvca'",
        "did you mean hvac?",
    ),
    Case(
        "pack_row_unknown",
        "zones/office.yaml",
        "interlocks:\n",
        "interlocks:\n  - use: hvac.fan_prof\n",
        "zones/office.yaml:16:10",
        "the pack 'hvac' has no interlock 'fan_prof'",
        "did you mean fan_proof?",
    ),
    Case(
        "pack_role_unbound",
        "zones/office.yaml",
        "interlocks:\n",
        "interlocks:\n  - use: hvac.humidifier_high_limit\n    bind: {humidifier: heating, duct_humidity: temp}\n",
        "zones/office.yaml:16:10",
        "hvac.humidifier_high_limit needs airflow_ok: the unit has no point of that name and none is bound to it",
        "add bind: {airflow_ok: POINT}",
    ),
    Case(
        "pack_role_unknown",
        "zones/office.yaml",
        "interlocks:\n",
        "interlocks:\n"
        "  - {use: hvac.damper_proof, bind: {damper_opn: occupied, damper_open: occupied, supply_fan: fan}}\n",
        "zones/office.yaml:16:37",
        "hvac.damper_proof has no role 'damper_opn'",
        "did you mean damper_open?",
    ),
    Case(
        "pack_bound_to_no_output",
        "zones/office.yaml",
        "interlocks:\n",
        "interlocks:\n  - {use: hvac.damper_proof, bind: {damper_open: occupied, supply_fan: temp}}\n",
        "zones/office.yaml:16:11",
        "interlock damper_proof trips 'temp', which is no output of this unit",
        "name one of the outputs of this unit: fan, heating",
    ),
    Case(
        "input_unknown_point",
        "zones/office.yaml",
        "current_temp: temp",
        "current_temp: tempp",
        "zones/office.yaml:10:24",
        "there is no point 'tempp'",
        "did you mean temp?",
    ),
    Case(
        "input_unknown_unit_of_site",
        "zones/office.yaml",
        "lab/outdoor",
        "labb/outdoor",
        "zones/office.yaml:10:74",
        "there is no unit 'labb'",
        "did you mean lab?",
    ),
    Case(
        "input_unknown_point_of_unit",
        "zones/office.yaml",
        "lab/outdoor",
        "lab/outdor",
        "zones/office.yaml:10:74",
        "there is no point 'outdor' in unit lab",
        "did you mean outdoor?",
    ),
    Case(
        "binding_unknown_point",
        "zones/office.yaml",
        "{point: occupied}",
        "{point: occupid}",
        "zones/office.yaml:10:49",
        "there is no point 'occupid'",
        "did you mean occupied?",
    ),
    Case(
        "binding_unit",
        "zones/office.yaml",
        "{point: occupied}",
        "{point: occupied, unit: Celsius}",
        "zones/office.yaml:10:65",
        "unknown unit 'Celsius'",
        "write Cel",
    ),
    Case(
        "binding_dimension",
        "zones/office.yaml",
        "{point: occupied}",
        "{point: occupied, unit: Pa}",
        "zones/office.yaml:10:65",
        "occupied is in 1, which cannot become Pa",
        "name a point and a unit of the same kind",
    ),
    Case(
        "comfort_point",
        "zones/office.yaml",
        "comfort: {temperature: temp",
        "comfort: {temperature: tmp",
        "zones/office.yaml:20:24",
        "there is no point 'tmp'",
        "did you mean temp?",
    ),
    Case(
        "comfort_dimension",
        "zones/office.yaml",
        "comfort: {temperature: temp",
        "comfort: {temperature: heating",
        "zones/office.yaml:20:24",
        "heating is in %, which cannot become Cel",
        "name a point and a unit of the same kind",
    ),
    Case(
        "deadline",
        "zones/office.yaml",
        "deadline: 200ms",
        "deadline: 5s",
        "zones/office.yaml:3:11",
        "the deadline of 5s is not shorter than the scan of 5s",
        "at most 2.5s leaves time to write the outputs",
    ),
    Case(
        "stale_before_poll",
        "zones/office.yaml",
        "stale_after: 30s",
        "stale_after: 1s",
        "zones/office.yaml:5:97",
        "temp goes stale after 1s, but ahu1 is polled every 1s",
        "stale_after: 3s (three polls), or poll more often",
    ),
    Case(
        "stuck_before_poll",
        "zones/office.yaml",
        "stale_after: 30s",
        "stuck_after: 500ms",
        "zones/office.yaml:5:97",
        "temp counts as stuck after 500ms, but ahu1 is polled every 1s",
        "stuck_after: at least 10s (ten polls)",
    ),
    Case(
        "parameter_unknown",
        "zones/office.yaml",
        "parameter: bias",
        "parameter: bia",
        "zones/office.yaml:19:37",
        "there is no parameter 'bia'",
        "did you mean bias?",
    ),
    Case(
        "parameter_without_range",
        "zones/office.yaml",
        "bias: {value: 0, range: [-2, 2]}",
        "bias: 0.5",
        "zones/office.yaml:18:9",
        "bias is learned, but has no range that learning cannot leave",
        "write bias: {value: 0.5, range: [LOW, HIGH]}",
    ),
    Case(
        "feedback_unknown",
        "zones/office.yaml",
        "feedback: temp",
        "feedback: tempp",
        "zones/office.yaml:19:53",
        "there is no point 'tempp'",
        "did you mean temp?",
    ),
    Case(
        "target_dimension",
        "zones/office.yaml",
        "target: setpoint",
        "target: heating",
        "zones/office.yaml:19:67",
        "heating is in %, which cannot become Cel",
        "name a point and a unit of the same kind",
    ),
    Case(
        "include_nothing",
        "site.yaml",
        "include: [zones/*.yaml]",
        "include: [zones/*.yaml, zone/*.yaml]",
        "site.yaml:2:25",
        "no file matches 'zone/*.yaml'",
        "correct the path, or remove the line",
    ),
    Case(
        "include_absolute",
        "site.yaml",
        "include: [zones/*.yaml]",
        "include: [zones/*.yaml, /etc/*.yaml]",
        "site.yaml:2:25",
        "cannot include '/etc/*.yaml'",
        "give a path relative to the site file",
    ),
    Case(
        "include_itself",
        "site.yaml",
        "include: [zones/*.yaml]",
        "include: [zones/*.yaml, '*.yaml']",
        "site.yaml:2:25",
        "'*.yaml' includes the site file itself",
        "keep unit files in a folder of their own",
    ),
    Case(
        "python_path",
        "site.yaml",
        "site: demo\n",
        "site: demo\npython_path: [functions]\n",
        "site.yaml:2:15",
        "there is no folder 'functions' beside the site file",
        "create it, or correct the path",
    ),
    Case(
        "duplicate_key",
        "zones/office.yaml",
        "scan: 5s\n",
        "scan: 5s\nscan: 6s\n",
        "zones/office.yaml:3:1",
        "the key 'scan' is given twice: line 2 has it too",
        "keep one of them",
    ),
    Case(
        "unfinished",
        "zones/office.yaml",
        "comfort: {temperature: temp, occupied: occupied}",
        "comfort: {temperature: temp,",
        "zones/office.yaml:21:1",
        "not valid YAML: did not find expected node content (while parsing a flow node)",
        "check the brackets, quotes and indentation here and in the lines above",
    ),
    Case(
        "tab",
        "zones/office.yaml",
        "scan: 5s",
        "scan:\n\t5s",
        "zones/office.yaml:3:1",
        "not valid YAML: found character that cannot start any token (while scanning for the next token)",
        "indent with spaces, never tabs; put text that begins with a special character in quotes",
    ),
    Case(
        "tag",
        "zones/office.yaml",
        "scan: 5s",
        "scan: !!str 5s",
        "zones/office.yaml:2:7",
        "the tag !!str is not allowed here",
        "leave the tag out; quote what is to stay text",
    ),
]


def test_the_unbroken_site_has_no_problem(files: Files, problems: Callable[..., tuple[Problem, ...]]) -> None:
    assert problems(files) == ()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_one_mistake_is_one_problem_at_its_place(
    case: Case, files: Files, problems: Callable[..., tuple[Problem, ...]], tmp_path: Path
) -> None:
    assert case.good in files[case.file], "the case does not fit the site"
    files[case.file] = files[case.file].replace(case.good, case.bad, 1)
    found = problems(files)
    file, line, column = case.where.split(":")
    source = (files[file].split("\n"))[int(line) - 1]
    caret = "".join("\t" if char == "\t" else " " for char in source[: int(column) - 1]) + "^"
    shown = f"    {source}\n    {caret}\n" if source else ""
    assert render(found, tmp_path) == f"{case.where}: {case.message}\n{shown}  fix: {case.fix}"


def test_all_mistakes_of_all_files_are_reported_at_once_in_order(
    files: Files, problems: Callable[..., tuple[Problem, ...]], tmp_path: Path
) -> None:
    files["site.yaml"] = files["site.yaml"].replace("poll: 1s", "poll: 1", 1) + "bogus: 1\n"
    files["zones/lab.yaml"] = files["zones/lab.yaml"].replace("ahu2", "ahu9")
    files["zones/office.yaml"] = (
        files["zones/office.yaml"].replace("deadline: 200ms", "deadline: 9s").replace("temp > 45 Cel", "temp > 45 Cell")
    )
    places = [f"{problem.file.relative_to(tmp_path)}:{problem.line}" for problem in problems(files)]
    assert places == ["site.yaml:4", "site.yaml:6", "zones/lab.yaml:3", "zones/office.yaml:3", "zones/office.yaml:16"]


def test_a_broken_point_is_not_reported_again_where_it_is_used(
    files: Files, problems: Callable[..., tuple[Problem, ...]]
) -> None:
    files["zones/office.yaml"] = files["zones/office.yaml"].replace("range: [-10, 50]", "range: wide")
    assert [problem.message for problem in problems(files)] == ['range must be a list, not "wide"']


def test_a_broken_unit_file_is_not_reported_again_where_its_points_are_used(
    files: Files, problems: Callable[..., tuple[Problem, ...]]
) -> None:
    files["zones/lab.yaml"] = "tool: lab\npoints: ]\n"
    (problem,) = problems(files)
    assert (problem.file.name, problem.line, problem.column) == ("lab.yaml", 2, 9)


def test_a_broken_device_is_not_reported_again_at_its_points(
    files: Files, problems: Callable[..., tuple[Problem, ...]]
) -> None:
    files["site.yaml"] = files["site.yaml"].replace("host: 10.0.0.6", "hots: 10.0.0.6")
    assert [problem.message for problem in problems(files)] == ["unknown key 'hots'"]


def test_interlocks_after_a_broken_one_keep_their_places(
    files: Files, problems: Callable[..., tuple[Problem, ...]]
) -> None:
    office = files["zones/office.yaml"]
    row = "  - {name: first, when: 5, trip: {heating: 0}}\n"
    files["zones/office.yaml"] = office.replace("interlocks:\n", "interlocks:\n" + row).replace(
        "temp > 45", "tmep > 45"
    )
    found = [(problem.line, problem.column, problem.message) for problem in problems(files)]
    assert found == [
        (16, 25, "when must be text, not 5"),
        (17, 23, "interlock hot: unknown point 'tmep'"),
    ]


def test_a_mistake_in_a_unit_inside_the_site_file_has_its_place(
    files: Files, problems: Callable[..., tuple[Problem, ...]]
) -> None:
    files["site.yaml"] += "units:\n  - {zone: hall, scan: 1s, deadline: 2s}\n"
    (problem,) = problems(files)
    assert (problem.file.name, problem.line, problem.column) == ("site.yaml", 7, 38)


def test_two_units_of_one_name_name_each_other(files: Files, problems: Callable[..., tuple[Problem, ...]]) -> None:
    files["zones/office2.yaml"] = "zone: office\n"
    (problem,) = problems(files)
    assert (problem.file.name, problem.line, problem.column) == ("office2.yaml", 1, 7)
    assert problem.message == "there are two units called 'office': the other is in zones/office.yaml"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the file does not exist"),
        (b"", "the file is not a mapping (name: value)"),
        (b"- a\n", "the file is not a mapping (name: value)"),
        (b"site: d\xe9mo\n", "not UTF-8: byte 0xe9"),
        (b"#" * (8 * 1024 * 1024 + 1), "larger than 8 MiB"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, content: bytes | None, message: str) -> None:
    site = tmp_path / "site.yaml"
    if content is not None:
        site.write_bytes(content)
    with pytest.raises(ConfigErrors) as caught:
        load(site)
    assert [problem.message for problem in caught.value.problems] == [message]


def test_a_folder_is_no_site(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="cannot read: Is a directory"):
        load(tmp_path)


def test_a_byte_order_mark_is_no_mistake(files: Files, problems: Callable[..., tuple[Problem, ...]]) -> None:
    files["zones/lab.yaml"] = "\ufeff" + files["zones/lab.yaml"]
    assert problems(files) == ()


def test_only_so_many_problems_are_printed_and_the_rest_counted() -> None:
    many = [Problem(Path("a"), number, 1, "m", "f") for number in range(1, 8)]
    assert render(many, shown=2) == "a:1:1: m\n  fix: f\na:2:1: m\n  fix: f\n... and 5 more problems"


def test_problems_are_sorted_and_said_once() -> None:
    late, early = Problem(Path("a"), 10, 1, "m", "f"), Problem(Path("a"), 9, 7, "m", "f")
    assert in_order([late, early, late]) == (early, late)


def test_the_caret_of_a_long_line_stands_under_its_place() -> None:
    text = "x" * 150 + "HERE" + "y" * 100
    _where, line, caret, _fix = Problem(Path("a"), 1, 151, "m", "f", text).render().split("\n")
    assert len(line) < 130
    assert line[caret.index("^") :].startswith("HERE")
