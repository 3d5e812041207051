"""Giving back: what the journal holds is restored on real sockets, and what cannot be reached stays for the next try."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import runtime_rig as rig
from modbus_bank import Bank, bank

from agent.runtime import release
from agent.runtime.release import JOURNAL_FILE, give_back, release_all
from agent.runtime.routes import device_points, drivers, routes
from drivers.errors import DriverError
from drivers.interface import DevicePoint
from drivers.modbus.settings import ModbusAddress, ModbusSettings
from safety.errors import StoreError
from safety.gate import Gate
from safety.journal import Held, Journal


def held(point: str, device: Bank | ModbusSettings, address: int, before: float, **changes: object) -> Held:
    settings = device if isinstance(device, ModbusSettings) else device.settings()
    values: dict[str, object] = {
        "point": point,
        "device": f"dev{settings.port}",
        "protocol": "modbus",
        "settings_json": settings.model_dump_json(),
        "address_json": ModbusAddress(holding=address, type="f32").model_dump_json(),
        "before": before,
        "can_relinquish": False,
        "priority": None,
    }
    return Held(**{**values, **changes})  # type: ignore[arg-type]


NOBODY = ModbusSettings(host="127.0.0.1", port=1, timeout=0.2, connect_timeout=0.2)


async def test_every_point_gets_back_the_value_from_before_us(tmp_path: Path) -> None:
    async with bank(0, 2) as one, bank(0) as two:
        one.values |= {0: 80.0, 2: 90.0}
        with Journal(tmp_path / JOURNAL_FILE) as journal:
            journal.hold_many([held("a/x", one, 0, 11.5), held("a/y", one, 2, 12.5), held("b/x", two, 0, -3.0)])
            done = await release_all(journal)
            assert all(released.given_back for released in done)
            assert (one.values, two.values) == ({0: 11.5, 2: 12.5}, {0: -3.0})
            assert journal.holding() == []


async def test_unreachable_device_keeps_its_entries_and_costs_nobody_else(tmp_path: Path) -> None:
    async with bank(0) as there:
        with Journal(tmp_path / JOURNAL_FILE) as journal:
            journal.hold_many([held("a/x", NOBODY, 0, 1.0), held("a/y", NOBODY, 2, 2.0), held("b/x", there, 0, 3.0)])
            done = await release_all(journal)
            assert {released.held.point: released.given_back for released in done} == {
                "a/x": False,
                "a/y": False,
                "b/x": True,
            }
            assert all("127.0.0.1:1" in released.detail for released in done if not released.given_back)
            assert [one.point for one in journal.holding()] == ["a/x", "a/y"]
        with Journal(tmp_path / JOURNAL_FILE) as journal:
            assert len(journal.holding()) == 2, "on the disk, for the next try"


async def test_refused_point_stays_and_its_neighbours_are_given_back(tmp_path: Path) -> None:
    async with bank(0, 2) as device:
        device.refuse.add(0)
        with Journal(tmp_path / JOURNAL_FILE) as journal:
            journal.hold_many([held("a/x", device, 0, 1.0), held("a/y", device, 2, 2.0)])
            await release_all(journal)
            assert [one.point for one in journal.holding()] == ["a/x"]
            assert device.values[2] == 2.0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"protocol": "carrier-pigeon"}, "the driver 'carrier-pigeon' of device .* is not installed"),
        ({"settings_json": "{"}, "JSON"),
        ({"settings_json": '{"host": 5}'}, "host"),
        ({"address_json": "{}"}, "give exactly one of coil"),
    ],
)
async def test_entry_without_a_driver_is_reported_and_kept(tmp_path: Path, changes: dict[str, str], says: str) -> None:
    async with bank(0) as there:
        with Journal(tmp_path / JOURNAL_FILE) as journal:
            journal.hold_many([held("a/x", NOBODY, 0, 1.0, **changes), held("b/x", there, 0, 3.0)])
            done = {released.held.point: released for released in await release_all(journal)}
            assert not done["a/x"].given_back and done["b/x"].given_back
            assert re.search(says, done["a/x"].detail)
            assert journal.is_held("a/x")


async def test_driver_that_fails_in_a_way_of_its_own_keeps_no_other_device_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = release.driver_for

    def driver_for(entries: list[Held]) -> object:
        driver = real(entries)
        if entries[0].point == "a/x":

            async def connect() -> None:
                raise ZeroDivisionError("a defect in a foreign driver")

            driver.connect = connect  # type: ignore[method-assign]
        return driver

    monkeypatch.setattr(release, "driver_for", driver_for)
    async with bank(0) as there:
        with Journal(tmp_path / JOURNAL_FILE) as journal:
            journal.hold_many([held("a/x", NOBODY, 0, 1.0), held("b/x", there, 0, 3.0)])
            done = {released.held.point: released for released in await release_all(journal)}
            assert done["b/x"].given_back
            assert done["a/x"].detail == "ZeroDivisionError: a defect in a foreign driver"


async def test_device_lost_half_way_keeps_what_it_did_not_acknowledge(tmp_path: Path) -> None:
    async with bank(0, 2) as device:
        with Journal(tmp_path / JOURNAL_FILE) as journal:
            entries = [held("a/x", device, 0, 1.0), held("a/y", device, 2, 2.0)]
            journal.hold_many(entries)
            gate = Gate({}, {}, journal)
            driver = release.driver_for(entries)
            await driver.connect()
            done = await give_back(gate, driver, entries[:1])
            await driver.close()
            assert [released.given_back for released in done] == [True]
            assert [one.point for one in journal.holding()] == ["a/y"]


def test_folder_without_a_journal_holds_nothing(tmp_path: Path) -> None:
    assert release.run(tmp_path) == []
    assert not (tmp_path / JOURNAL_FILE).exists(), "asking makes no file"


def test_damaged_journal_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_FILE).write_bytes(b"x" * 5000)
    with pytest.raises(StoreError, match="bring every written point to a safe state by hand"):
        release.run(tmp_path)
    assert (tmp_path / JOURNAL_FILE).read_bytes() == b"x" * 5000


async def run_module(state_dir: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "agent.runtime.release", "--state-dir", str(state_dir), "--why", "test"),
        stderr=subprocess.PIPE,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    _out, err = await asyncio.wait_for(process.communicate(), 30.0)
    assert process.returncode is not None
    return process.returncode, err.decode()


async def test_process_exits_0_when_nothing_is_held_any_more_and_1_when_something_is(tmp_path: Path) -> None:
    async with bank(0) as device:
        with Journal(tmp_path / JOURNAL_FILE) as journal:
            journal.hold_many([held("a/x", device, 0, 9.0)])
        code, log = await run_module(tmp_path)
        assert code == 0, log
        assert device.values[0] == 9.0
        assert "event=point_released" in log and 'way="restore 9"' in log and "why=test" in log
    with Journal(tmp_path / JOURNAL_FILE) as journal:
        journal.hold_many([held("a/x", NOBODY, 0, 9.0)])
    code, log = await run_module(tmp_path)
    assert code == 1 and "event=point_not_released" in log
    (tmp_path / JOURNAL_FILE).write_bytes(b"x" * 5000)
    code, log = await run_module(tmp_path)
    assert code == 1 and "event=release_failed" in log


def test_routes_and_drivers_are_made_of_the_same_settings(tmp_path: Path) -> None:
    program = rig.program_of(tmp_path)
    made = routes(program)
    assert set(made) == {row.name for row in program.outputs}
    route = made["east/heating"]
    assert (route.device, route.protocol, route.read_back) == ("ahu1", "modbus", True)
    assert ModbusSettings.model_validate_json(route.settings_json) == program.loaded.site.devices["ahu1"].settings
    assert ModbusAddress.model_validate_json(route.address_json) == ModbusAddress(holding=0, type="f32")
    built = drivers(program, rig.ManualClock())
    assert set(built) == {"ahu1", "ahu2"}
    for device, driver in built.items():
        names = [point.name for point in driver.points]
        assert names == [row.name for row in program.points[program.device_slices[device]]]
        assert names == [point.name for point in device_points(program, device)]


def test_device_without_points_needs_no_driver(tmp_path: Path) -> None:
    program = rig.program_of(tmp_path, {"cellar": rig.WATCHED})
    assert set(drivers(program, rig.ManualClock())) == {"ahu2"}


def test_point_that_cannot_be_written_over_the_driver_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="is not a Modbus address"):
        release.installed_plugins()["modbus"].load()("dev", NOBODY, [DevicePoint("a/x", NOBODY)], None)  # type: ignore[arg-type]
