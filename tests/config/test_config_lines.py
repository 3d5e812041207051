"""Devices that share one serial line or one address: many unit ids are fine, two ways to set the line are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.config import Problem

Files = dict[str, str]
AHU1, AHU2 = "{host: 10.0.0.5}", "{host: 10.0.0.6}"


def with_devices(files: Files, first: str, second: str) -> Files:
    assert AHU1 in files["site.yaml"]
    assert AHU2 in files["site.yaml"]
    files["site.yaml"] = files["site.yaml"].replace(AHU1, first).replace(AHU2, second)
    return files


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{serial: /dev/ttyUSB0, unit_id: 1}", "{serial: /dev/ttyUSB0, unit_id: 2}"),
        ("{serial: /dev/ttyUSB0, baud: 19200, unit_id: 1}", "{serial: /dev/ttyUSB0, parity: E, unit_id: 2}"),
        ("{serial: /dev/ttyUSB0, baud: 9600}", "{serial: /dev/ttyUSB1, baud: 19200}"),
        ("{host: h, rtu: true, unit_id: 1}", "{host: h, rtu: true, unit_id: 2}"),
        ("{host: h, tls: {ca_file: a, certificate_file: b, key_file: c}}", "{host: h, port: 502}"),
        ("{host: h, forbidden: {holding: [[100, 120]]}}", "{host: h, port: 503, rtu: true}"),
    ],
)
def test_lines_that_are_set_alike(
    files: Files, problems: Callable[..., tuple[Problem, ...]], first: str, second: str
) -> None:
    assert problems(with_devices(files, first, second)) == ()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            "{serial: /dev/ttyUSB0, unit_id: 1}",
            "{serial: /dev/ttyUSB0, unit_id: 2, baud: 9600}",
            "ahu2 and ahu1 share /dev/ttyUSB0, but not how it is set: baud 9600, parity E, stop_bits 1; "
            "ahu1: baud 19200, parity E, stop_bits 1",
        ),
        (
            "{host: h, rtu: true, unit_id: 1}",
            "{host: h, unit_id: 2}",
            "ahu2 and ahu1 share h:502, but not how it is set: Modbus TCP; ahu1: rtu: true",
        ),
        (
            "{serial: /dev/ttyUSB0, unit_id: 3}",
            "{serial: /dev/ttyUSB0, unit_id: 3}",
            "ahu2 is the same device as ahu1: modbus /dev/ttyUSB0 unit_id 3",
        ),
    ],
)
def test_lines_that_are_not(
    files: Files, problems: Callable[..., tuple[Problem, ...]], first: str, second: str, message: str
) -> None:
    assert [problem.message for problem in problems(with_devices(files, first, second))] == [message]
