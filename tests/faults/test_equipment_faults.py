"""Equipment that goes away, hangs, forgets or is changed by others: no value stays good, and control resumes by itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from faulty_functions import GOOD, SOURCE
from site_rig import BEFORE_COOLING, BEFORE_HEATING, SAFE_COOLING, SAFE_HEATING, Site, Zone, errors_in, site, wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

GONE = ("bad", "device_unreachable")
FINE = ("good", "ok")
ZONES = [Zone("east", "healthy"), Zone("west", "healthy"), Zone("annex", "healthy", device="other")]


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with site(ZONES, SOURCE) as made:
        made.agent.start()
        made.agent.await_scans()
        yield made


@pytest.fixture(autouse=True)
def in_control(running: Site) -> Iterator[None]:
    """Every test begins with all zones under control, and leaves no defect of ours in the log."""
    for zone in ZONES:
        running.await_outputs(zone.name, *GOOD)
    yield
    assert errors_in(running.agent.log_text()) == []


@contextmanager
def silence(port: int) -> Iterator[None]:
    """Something that accepts connections on the port and never answers, as a hung controller does."""
    with socket.create_server(("127.0.0.1", port), reuse_port=False) as server:
        accepted: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    accepted.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5.0)
            for one in accepted:
                one.close()


def device(running: Site, name: str) -> dict[str, object]:
    """One device's part of the status."""
    status = wait_until("an answer to status", running.agent.status)
    return next(one for one in status["devices"] if one["device"] == name)


def assert_away(running: Site, bank_writes: int) -> None:
    """Points bad with the reason, outputs at fail-safe because of it, for several scans; the other device goes on."""
    for zone in ("east", "west"):
        wait_until(f"{zone} bad", lambda zone=zone: running.agent.quality(f"{zone}/temp") == GONE)
    polls = device(running, "other")["polls"]
    wait_until("ten polls of the other device", lambda: device(running, "other")["polls"] >= polls + 10)
    for zone in ("east", "west"):
        assert running.agent.quality(f"{zone}/temp") == GONE
        assert {"input_bad", "fail_safe"} <= set(running.agent.verdict(zone))
        output = running.agent.unit(zone)["outputs"]["heating"]
        assert output["commanded"] == SAFE_HEATING
    assert running.agent.quality("annex/temp") == FINE
    assert running.agent.verdict("annex") == []
    assert len(running.bank.writes) == bank_writes, "nothing can have been written"


def assert_back(running: Site) -> None:
    for zone in ("east", "west"):
        wait_until(f"{zone} good", lambda zone=zone: running.agent.quality(f"{zone}/temp") == FINE)
        running.await_outputs(zone, *GOOD)
        wait_until(f"{zone} free of limits", lambda zone=zone: running.agent.verdict(zone) == [])


def test_stopped_server_makes_its_points_bad_and_comes_back_by_itself(running: Site) -> None:
    log = len(running.agent.log_text())
    reconnects = device(running, "plc")["reconnects"]
    running.bank.stop()
    assert_away(running, len(running.bank.writes))
    assert device(running, "plc")["state"] == "backoff"
    assert running.agent.logged("device_away", "device=plc", since=log)
    running.bank.start()
    assert_back(running)
    assert device(running, "plc")["reconnects"] == reconnects + 1
    assert len(running.agent.logged("device_away", since=log)) == 1, "told once, not at every try"
    assert running.agent.logged("device_back", "device=plc", since=log)


def test_hung_server_that_accepts_and_never_answers_makes_its_points_bad(running: Site) -> None:
    running.bank.stop()
    with silence(running.bank.port):
        assert_away(running, len(running.bank.writes))
    running.bank.start()
    assert_back(running)


def test_restarted_server_that_lost_its_setpoints_gets_them_again(running: Site) -> None:
    running.bank.stop()
    running.bank.lose_setpoints()
    assert running.outputs("east") == (BEFORE_HEATING, BEFORE_COOLING)
    running.bank.start()
    assert_back(running)


def test_lost_setpoints_are_written_again_without_any_loss_of_connection(running: Site) -> None:
    reconnects = device(running, "plc")["reconnects"]
    running.bank.lose_setpoints()
    for zone in ("east", "west"):
        running.await_outputs(zone, *GOOD)
    assert device(running, "plc")["reconnects"] == reconnects


def test_bad_sensor_costs_its_own_zone_only(running: Site) -> None:
    for value, reason in ((float("nan"), "not_a_number"), (400.0, "out_of_range")):
        running.set("east", "temp", value)
        running.await_outputs("east", SAFE_HEATING, SAFE_COOLING)
        assert running.agent.quality("east/temp") == ("bad", reason)
        assert "input_bad" in running.agent.verdict("east")
        assert running.outputs("west") == GOOD
        running.set("east", "temp", 20.0)
        running.await_outputs("east", *GOOD)


def test_point_that_the_server_no_longer_has_costs_its_own_zone_only() -> None:
    zones = [Zone("east", "healthy"), Zone("west", "healthy")]
    with site(zones, SOURCE) as alone:
        text = (alone.file.parent / "zones" / "east.yaml").read_text(encoding="utf-8")
        moved = text.replace(alone.bank.addresses["east/temp"], "{input: 900, type: f32}")
        assert moved != text
        (alone.file.parent / "zones" / "east.yaml").write_text(moved, encoding="utf-8")
        alone.agent.start()
        alone.await_outputs("west", *GOOD)
        alone.await_outputs("east", SAFE_HEATING, SAFE_COOLING)
        quality, reason = alone.agent.quality("east/temp")
        assert quality == "bad" and reason != "ok"
        assert alone.agent.quality("east/mode") == FINE
