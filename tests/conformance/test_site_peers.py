"""The whole agent on a site of independent programs: libmodbus serves the equipment, mosquitto is the broker, and nothing else changes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from libmodbus import c_client_command, c_server
from mosquitto import Mosquitto, Subscriber, broker, subscriber
from site_rig import Site, Zone, errors_in, site, wait_until

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(180)]

FUNCTIONS = """
from agent.domains.building_management import HVACCommand


def control(temp, mode) -> HVACCommand:
    if temp < 18:
        return HVACCommand(80.0, 0.0, 50.0, "heating")
    return HVACCommand(0.0, 70.0, 50.0, "cooling")
"""
ZONES = [Zone("east", "control"), Zone("west", "control")]
COLD, WARM = (80.0, 0.0), (0.0, 70.0)
INPUTS = {"east/temp": 12, "east/mode": 0, "west/temp": 25, "west/mode": 1}
OUTPUTS = {"east/heating": 40, "east/cooling": 41, "west/heating": 60, "west/cooling": 61}
BEFORE = {"east": (40.0, 41.0), "west": (60.0, 61.0)}
"""At its start the C server's register i holds i: so each address is also the first value."""


class CServer:
    """The equipment of the C server, looked at with the C client: no code of ours in between."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.addresses = {name: f"{{input: {place}}}" for name, place in INPUTS.items()}
        self.addresses |= {name: f"{{holding: {place}}}" for name, place in OUTPUTS.items()}

    def set(self, name: str, value: float) -> None:
        """Its input registers mirror the holding registers of the same number."""
        self._ask("write", "holding", INPUTS[name], int(value))

    def values(self, *names: str) -> tuple[float, ...]:
        return tuple(float(self._ask("read", "holding", OUTPUTS[name], 1)) for name in names)

    def _ask(self, *arguments: object) -> str:
        command = c_client_command(self.port, *arguments)
        return subprocess.run(command, capture_output=True, text=True, timeout=20.0, check=True).stdout


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with broker(tmp_path) as running:
        yield running


@pytest.fixture
def listening(mosquitto: Mosquitto) -> Iterator[Subscriber]:
    with subscriber(mosquitto.port) as made:
        yield made


@pytest.fixture
def running(mosquitto: Mosquitto, listening: Subscriber) -> Iterator[Site]:
    """The agent at work; ``listening`` has subscribed before it says anything."""
    with c_server(100) as port:
        settings = {"mqtt": f"{{host: 127.0.0.1, port: {mosquitto.port}}}"}
        with site(ZONES, FUNCTIONS, settings=settings, equipment={"plc": CServer(port)}) as made:
            made.agent.start()
            made.agent.await_scans()
            yield made


def contents(listening: Subscriber, suffix: str) -> list[dict[str, Any]]:
    return [json.loads(payload) for topic, payload, _retain in listening.messages if topic.endswith(suffix)]


def numbers(listening: Subscriber) -> list[int]:
    """The agent's own numbers of its messages, each once, in the order of their arrival."""
    found: dict[int, None] = {}
    for topic, payload, _retain in listening.messages:
        if topic.startswith("poet/v1/faults/") and not topic.endswith("/telemetry") and payload.startswith(b"{"):
            sequence = json.loads(payload).get("seq")
            if sequence is not None:
                found.setdefault(sequence)
    return list(found)


def test_site_of_libmodbus_and_mosquitto_is_read_controlled_published_and_given_back(
    running: Site, listening: Subscriber
) -> None:
    running.await_outputs("east", *COLD)
    running.await_outputs("west", *WARM)
    for point in ("east/temp", "west/temp", "east/heating", "west/cooling"):
        assert running.agent.quality(point) == ("good", "ok")
    unit = running.agent.unit("east")
    assert (unit["text"], unit["outputs"]["heating"]["outcome"]) == ("heating", "held")

    running.set("east", "temp", 30)
    running.await_outputs("east", *WARM)
    wait_until("the new temperature", lambda: 30.0 in [one["value"] for one in contents(listening, "/east/point/temp")])
    wait_until("snapshots of both", lambda: all(contents(listening, f"/{zone.name}/snapshot") for zone in ZONES))
    status = wait_until("an answer to status", running.agent.status)
    assert status["mqtt"]["protocol"] == "5"

    assert running.agent.stop() == 0
    assert {zone.name: running.outputs(zone.name) for zone in ZONES} == BEFORE
    assert running.agent.held() == []
    wait_until("offline", lambda: listening.payloads("poet/v1/faults/gateway/status")[-1:] == [b"offline"])
    assert errors_in(running.agent.log_text()) == []


def test_mosquitto_stopped_for_a_while_loses_nothing_and_control_goes_on(
    running: Site, listening: Subscriber, mosquitto: Mosquitto
) -> None:
    running.await_outputs("west", *WARM)
    wait_until("messages", lambda: len(numbers(listening)) > 10)
    mosquitto.stop()
    running.set("west", "temp", 10)
    running.await_outputs("west", *COLD)
    wait_until("waiting messages", lambda: (running.agent.status() or {})["mqtt"]["queued"] >= 15)
    mosquitto.start()
    wait_until("an empty buffer", lambda: (running.agent.status() or {})["mqtt"]["queued"] == 0)
    assert running.agent.stop() == 0
    wait_until("10.0", lambda: 10.0 in [one["value"] for one in contents(listening, "/west/point/temp")])
    wait_until("no gap", lambda: sorted(numbers(listening)) == list(range(1, max(numbers(listening)) + 1)))


def test_killed_agent_has_the_c_servers_registers_restored_by_poetd_release(running: Site) -> None:
    running.await_outputs("east", *COLD)
    running.await_outputs("west", *WARM)
    assert running.agent.process is not None
    running.agent.process.kill()
    running.agent.wait_end()
    wait_until("the end of its children", lambda: not running.agent.mine())
    done = running.poetd("release", "--state-dir", str(running.agent.state_dir))
    assert done.returncode == 0, done.stderr
    assert {zone.name: running.outputs(zone.name) for zone in ZONES} == BEFORE
