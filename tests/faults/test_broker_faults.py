"""Brokers that stop, die, refuse or were never there: control does not notice, and nothing that was published is lost."""

from __future__ import annotations

import json
import os
import signal

import pytest
from faulty_functions import GOOD, SOURCE
from mqtt_fake_broker import FakeBroker
from site_rig import Site, Zone, errors_in, site, wait_until

from agent.telemetry.broker import EmbeddedBroker

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

ZONES = [Zone(f"zone-{number}", "healthy") for number in range(4)]


def mqtt(port: int) -> dict[str, str]:
    return {"mqtt": f"{{host: 127.0.0.1, port: {port}}}"}


def start(made: Site) -> None:
    made.agent.start()
    made.agent.await_scans()
    for zone in ZONES:
        made.await_outputs(zone.name, *GOOD)


def telemetry(made: Site) -> dict[str, object]:
    status = wait_until("an answer to status", made.agent.status)
    return status["mqtt"]


def sequences(broker: FakeBroker) -> list[int]:
    """The agent's own numbers of its messages, in the order in which they came for the first time."""
    numbers: dict[tuple[str, bytes], int] = {}
    for message in broker.received:
        if message.topic.endswith("/telemetry") or not message.payload.startswith(b"{"):
            continue
        content = json.loads(message.payload)
        if "seq" in content:
            numbers.setdefault((message.topic, message.payload), content["seq"])
    return list(numbers.values())


def assert_control_unaffected(made: Site) -> None:
    for zone in ZONES:
        assert made.outputs(zone.name) == GOOD
        assert made.agent.verdict(zone.name) == []
    assert (made.agent.status() or {})["missed"] == 0
    assert errors_in(made.agent.log_text()) == []


def test_messages_of_an_outage_all_arrive_in_order_when_the_broker_is_back() -> None:
    broker = FakeBroker()
    with site(ZONES, SOURCE, settings=mqtt(broker.port)) as made:
        try:
            start(made)
            wait_until("messages", lambda: len(broker.received) > 20)
            writes = len(made.bank.writes)
            broker.down()
            wait_until("many waiting messages", lambda: telemetry(made)["queued"] >= 25)
            assert not telemetry(made)["connected"] and telemetry(made)["last_error"]
            assert_control_unaffected(made)
            assert len(made.bank.writes) == writes
            broker.listen()
            wait_until("an empty buffer", lambda: telemetry(made)["connected"] and telemetry(made)["queued"] == 0)
            assert made.agent.stop() == 0
        finally:
            broker.down()
        found = sequences(broker)
        assert found == list(range(1, len(found) + 1)), "a gap, or one topic's messages out of order"
        assert made.agent.logged("no connection to the broker")
        assert made.agent.logged("connected to the broker")


def test_messages_of_an_outage_survive_a_restart_of_the_agent() -> None:
    broker = FakeBroker()
    with site(ZONES, SOURCE, settings=mqtt(broker.port)) as made:
        try:
            start(made)
            broker.down()
            wait_until("waiting messages", lambda: telemetry(made)["queued"] >= 10)
            assert made.agent.stop() == 0
            broker.listen()
            start(made)
            wait_until("an empty buffer", lambda: telemetry(made)["connected"] and telemetry(made)["queued"] == 0)
            assert made.agent.stop() == 0
        finally:
            broker.down()
        found = sequences(broker)
        second = len(found) - found[::-1].index(1) - 1
        assert second > 0
        assert found[:second] == list(range(1, second + 1))
        assert found[second:] == list(range(1, len(found) - second + 1))


def test_killed_broker_that_comes_back_on_its_port_is_found_again() -> None:
    broker = EmbeddedBroker()
    port = broker.start()
    try:
        with site(ZONES, SOURCE, settings=mqtt(port)) as made:
            start(made)
            wait_until("acknowledged messages", lambda: telemetry(made)["acked"] > 10)
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGKILL)
            broker.stop()
            wait_until("waiting messages", lambda: telemetry(made)["queued"] >= 10)
            broker.start()
            wait_until("an empty buffer", lambda: telemetry(made)["connected"] and telemetry(made)["queued"] == 0)
            stats = telemetry(made)
            assert (stats["dropped"], stats["refused"], stats["reconnects"]) == (0, 0, 1)
            assert_control_unaffected(made)
    finally:
        broker.stop()


def test_broker_that_was_never_there_and_one_that_is_no_broker_do_not_matter() -> None:
    with site(ZONES, SOURCE) as made:
        made.write(
            SOURCE, {"kernels": "python", **mqtt(made.bank.port)}, "1s"
        )  # the equipment answers there, in Modbus
        start(made)
        wait_until("a complaint", lambda: telemetry(made)["last_error"])
        assert_control_unaffected(made)
        assert telemetry(made)["queued"] > 0
        assert made.agent.logged("level=warning", "no connection to the broker")
        assert made.agent.stop() == 0
        assert made.agent.held() == []
