"""A plant on real sockets, read by an independent client, and the command that serves it."""

import asyncio
import json
import math
import re
import signal
import socket
import struct
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from pymodbus.client import AsyncModbusTcpClient

from agent.cli.plant import command
from agent.config import load
from agent.plants.binding import bind_site
from agent.plants.errors import PlantBindingError
from agent.plants.load import load_plant
from agent.plants.runner import PlantRunner
from agent.plants.serve import Endpoint, PlantServer, Served, automatic_endpoint, site_endpoints
from drivers.errors import NotConnectedError
from drivers.modbus.settings import ModbusAddress
from models.building import AirHandlerPlant

START = datetime(2026, 1, 12, 6, tzinfo=UTC)
DEMO = Path(__file__).parents[2] / "configs" / "demo" / "site.yaml"


def running(plant: AirHandlerPlant) -> PlantRunner:
    return PlantRunner(plant, seed=1, start=START, speed=60.0, largest_step=10.0)


async def f32(client: AsyncModbusTcpClient, table: str, address: int) -> float:
    read = client.read_input_registers if table == "input" else client.read_holding_registers
    answer = await read(address, count=2, device_id=1)
    assert not answer.isError(), answer
    return struct.unpack(">f", struct.pack(">HH", *answer.registers))[0]


async def test_an_independent_client_reads_writes_and_sees_nan():
    plant = AirHandlerPlant(zones=2, scenario="winter_morning")
    runner = running(plant)
    endpoint = automatic_endpoint(plant, 0)
    where = {served.point: served.address.number for served in endpoint.units[1]}
    server = PlantServer(runner, [endpoint])
    await server.start("127.0.0.1")
    client = AsyncModbusTcpClient("127.0.0.1", port=server.ports[0])
    try:
        assert await client.connect()
        assert await f32(client, "input", where["zone1_temp"]) == pytest.approx(18.0)
        registers = list(struct.unpack(">HH", struct.pack(">f", 80.0)))
        written = await client.write_registers(where["zone1_heating"], registers, device_id=1)
        assert not written.isError()
        assert await f32(client, "holding", where["zone1_heating"]) == 80.0
        for _ in range(19):
            runner.advance(1.0)
        assert math.isnan(await f32(client, "input", where["zone2_temp"])), "18 to 24 min: its sensor is lost"
        assert await f32(client, "input", where["zone1_temp"]) == pytest.approx(
            runner.reader("zone1_temp", "Cel")(), abs=1e-5
        )
        nonsense = list(struct.unpack(">HH", struct.pack(">f", math.nan)))
        assert (await client.write_registers(where["zone1_heating"], nonsense, device_id=1)).isError()
        assert await f32(client, "holding", where["zone1_heating"]) == 80.0
    finally:
        client.close()
        await server.close()


async def test_the_plant_moves_with_the_wall():
    clock = iter(range(1000))
    plant = AirHandlerPlant(zones=1)
    runner = running(plant)
    server = PlantServer(runner, [automatic_endpoint(plant, 0)], wall=lambda: float(next(clock)))
    await server.run(duration_s=3.0)
    assert runner.elapsed == pytest.approx(180.0)


async def test_a_port_in_use_leaves_nothing_open():
    plant = AirHandlerPlant(zones=1)
    with socket.socket() as blocker:
        blocker.bind(("127.0.0.1", 0))
        blocker.listen()
        taken = blocker.getsockname()[1]
        free = automatic_endpoint(plant, 0)
        server = PlantServer(running(plant), [free, automatic_endpoint(plant, taken)])
        with pytest.raises(NotConnectedError, match=f"cannot listen on 127.0.0.1:{taken}"):
            await server.start("127.0.0.1")


def test_overlapping_values_and_wrong_units_are_refused():
    plant = AirHandlerPlant(zones=1)
    one = Served("zone1_temp", ModbusAddress(input=0, type="f32"), "Cel")
    other = Served("zone1_co2", ModbusAddress(input=1, type="f32"), "[ppm]")
    with pytest.raises(PlantBindingError, match="given twice"):
        PlantServer(running(plant), [Endpoint(0, {1: [one, other]})])
    with pytest.raises(PlantBindingError, match="zone1_temp"):
        PlantServer(running(plant), [Endpoint(0, {1: [Served("zone1_temp", one.address, "Pa")]})])


def test_the_demo_site_is_served_completely():
    loaded = load(DEMO)
    assert loaded.site.plant is not None
    plant = load_plant(loaded.site.plant.use, loaded.site.plant.options)
    bound = bind_site(loaded, plant)
    assert set(bound) == set(loaded.points), "every point of the demo has its counterpart"
    [endpoint] = site_endpoints(loaded, plant)
    assert endpoint.port == 15020
    assert len(endpoint.units[1]) == len(loaded.points)
    outputs = {f"{unit.name}/{name}" for unit in loaded.units for name in unit.outputs}
    assert all(plant.points[bound[name]].writable for name in outputs)


SITE = """
site: small
devices:
  a: {modbus: {host: 127.0.0.1, port: 502, unit_id: 7}}
units:
  - zone: north
    points:
      temp: {device: a, modbus: {input: 0, type: f32}, unit: Cel, range: [-10, 50]}
  - zone: lab
    points:
      OTHER
plant: {use: "models.building:AirHandlerPlant", points: {NAMES}}
"""


def small_site(tmp_path: Path, other: str, names: str = ""):
    path = tmp_path / "site.yaml"
    path.write_text(SITE.replace("OTHER", other).replace("NAMES", names))
    return load(path)


def test_a_register_two_units_read_is_one_value(tmp_path):
    other = "north_temp: {device: a, modbus: {input: 0, type: f32}, unit: Cel, range: [-10, 50]}"
    [endpoint] = site_endpoints(small_site(tmp_path, other), AirHandlerPlant())
    assert [served.point for served in endpoint.units[7]] == ["north_temp"]


def test_a_register_with_two_meanings_is_refused(tmp_path):
    other = "return_temp: {device: a, modbus: {input: 0, type: f32}, unit: Cel, range: [-10, 50]}"
    with pytest.raises(PlantBindingError, match="lab/return_temp and north/temp share input 0"):
        site_endpoints(small_site(tmp_path, other), AirHandlerPlant())


def test_an_explicit_name_that_is_wrong_is_refused(tmp_path):
    other = "t: {device: a, modbus: {input: 2, type: f32}, unit: Cel, range: [-10, 50]}"
    with pytest.raises(PlantBindingError, match="did you mean return_temp"):
        bind_site(small_site(tmp_path, other, "lab/t: return_tmp"), AirHandlerPlant())
    assert bind_site(small_site(tmp_path, other, "lab/t: return_temp"), AirHandlerPlant())["lab/t"] == "return_temp"


BUILDING = ["serve", "--plant", "models.building:AirHandlerPlant"]


def test_the_map_is_printed_for_people_and_machines():
    table = CliRunner().invoke(command, [*BUILDING, "--map", "table"])
    assert table.exit_code == 0
    assert re.search(r"^input +0 +f32 +r +north_temp +Cel", table.output, re.MULTILINE)
    machine = CliRunner().invoke(command, [*BUILDING, "--map", "json", "--option", "zones=2"])
    rows = json.loads(machine.output)
    assert rows[0]["point"] == "zone1_temp" and rows[0]["address"] == 0
    site = CliRunner().invoke(command, ["serve", str(DEMO), "--map", "json"])
    assert len(json.loads(site.output)) == len(load(DEMO).points)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["serve"], 2, "give a site file"),
        (["serve", "--plant", "models.nothing:X"], 1, "cannot be imported"),
        ([*BUILDING, "--option", "zones"], 2, "NAME=VALUE"),
        ([*BUILDING, "--option", "scenario=flood"], 1, "unknown"),
        ([*BUILDING, "--for", "30"], 2, "not a duration"),
        ([*BUILDING, "--start", "yesterday"], 2, "ISO 8601"),
        ([*BUILDING, "--speed", "0"], 2, "speed"),
        (["serve", "no_such_site.yaml"], 2, "no_such_site.yaml"),
    ],
)
def test_mistakes_are_answered_with_the_remedy(arguments, code, says):
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == code
    assert says in result.output


def test_a_broken_site_is_78(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text("site: UPPER\n")
    result = CliRunner().invoke(command, ["serve", str(path)])
    assert result.exit_code == 78
    assert "site.yaml:1:" in result.output


def test_a_port_in_use_is_said_and_1():
    with socket.socket() as blocker:
        blocker.bind(("127.0.0.1", 0))
        blocker.listen()
        port = str(blocker.getsockname()[1])
        result = CliRunner().invoke(command, [*BUILDING, "--port", port])
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in result.output


async def test_the_command_serves_until_it_is_interrupted():
    arguments = ["-c", "from agent.cli import main; main()", "plant", *BUILDING]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, "--json", "--port", "0", "--speed", "60", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = json.loads(await asyncio.wait_for(process.stdout.readline(), 60.0))
        assert line["event"] == "listening"
        client = AsyncModbusTcpClient(line["host"], port=line["port"])
        assert await client.connect()
        assert 15.0 < await f32(client, "input", 0) < 19.0
        client.close()
        process.send_signal(signal.SIGINT)
        rest, _ = await asyncio.wait_for(process.communicate(), 60.0)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    assert json.loads(rest) == {"event": "stopped"}
