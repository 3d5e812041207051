"""Control functions that fail in every way at once: each costs its own zone only, and is trusted again when it behaves.

One running agent for the whole module. Five zones have a healthy function; they judge every other one: each of their scans is a snapshot
on MQTT and each limit on their outputs an event, so a single missed scan shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pytest
from faulty_functions import GOOD, SOURCE, STUCK
from mqtt_ear import Ear
from site_rig import SAFE_COOLING, SAFE_HEATING, Site, Zone, errors_in, site, wait_until

from agent.telemetry.broker import EmbeddedBroker

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

SCAN_S = 1.0
HEALTHY = [*(f"healthy-{number}" for number in range(4)), "zz-healthy"]
"""The last one has a function of its own, which runs after every other one: whatever holds up the queue holds up this."""
SAME = 8
"""Zones of one function."""
SAFE = (SAFE_HEATING, SAFE_COOLING)
EXCLUSIVE = "exclusive: [[heating, cooling]]\n"


@dataclass(frozen=True)
class Fault:
    """A failing function: what its zone's outputs become, and the verdicts that say why."""

    function: str
    becomes: tuple[float, float]
    verdicts: frozenset[str]
    says: str = ""
    safe: tuple[float, float] = SAFE
    extra: str = ""

    @property
    def zone(self) -> str:
        return self.function.replace("_", "-")


FAULTS = [
    Fault("raises", SAFE, frozenset({"function_failed", "fail_safe"}), "ValueError: sensor table is empty"),
    Fault("not_a_number", SAFE, frozenset({"function_failed", "fail_safe"})),
    Fault("text", SAFE, frozenset({"function_failed", "fail_safe"}), "heating_output is str, not a number"),
    Fault("no_command", SAFE, frozenset({"function_failed", "fail_safe"}), "returned str, not HVACCommand"),
    Fault("far_too_much", (90.0, 0.0), frozenset({"clamped_high"}), "", SAFE),
    Fault("heats_and_cools", (5.0, 0.0), frozenset({"exclusive"}), "", (5.0, 0.0), EXCLUSIVE),
    Fault("eats_memory", SAFE, frozenset({"function_failed", "fail_safe"}), "MemoryError"),
    Fault("loops", SAFE, frozenset({"deadline_missed", "fail_safe"})),
    Fault("exits", SAFE, frozenset({"deadline_missed", "fail_safe"})),
    Fault("calls_sys_exit", SAFE, frozenset({"deadline_missed", "fail_safe"})),
    Fault("segfaults", SAFE, frozenset({"deadline_missed", "fail_safe"})),
    Fault("sleeps", SAFE, frozenset({"deadline_missed", "fail_safe"})),
]
COST_THEIR_WORKER = {"loops", "exits", "calls_sys_exit", "segfaults", "sleeps"}


@pytest.fixture(scope="module")
def ear() -> Iterator[Ear]:
    with EmbeddedBroker() as broker, Ear(broker.port) as listening:
        yield listening


@pytest.fixture(scope="module")
def running(ear: Ear) -> Iterator[Site]:
    zones = [Zone(fault.zone, fault.function, safe=fault.safe, extra=fault.extra) for fault in FAULTS]
    zones += [Zone("holds", "raises_but_holds", hold=3)]
    zones += [Zone(name, "healthy_last" if name == HEALTHY[-1] else "healthy") for name in HEALTHY]
    zones += [Zone(f"same-{number}", "sensitive") for number in range(SAME)]
    zones += [Zone(f"stuck-{letter}", f"stuck_{letter}") for letter in STUCK]
    mqtt = {"mqtt": f"{{host: 127.0.0.1, port: {ear.port}}}"}
    with site(zones, SOURCE, settings=mqtt) as made:
        made.agent.start()
        made.agent.await_scans()
        for zone in zones:
            made.await_outputs(zone.name, *GOOD)
        yield made


@pytest.fixture(autouse=True)
def healthy_zones_miss_nothing(running: Site, ear: Ear) -> Iterator[None]:
    """Around every test: each healthy zone is scanned at every beat, and nothing ever limits its outputs."""
    before = len(ear.heard())
    yield
    fresh = ear.heard()[before:]
    for zone in running.zones:
        running.set(zone.name, "mode", 0.0)
    for name in HEALTHY:
        snapshots = [one for one in fresh if one.topic.endswith(f"/{name}/snapshot")]
        times = [datetime.fromisoformat(one.content["ts"]).timestamp() for one in snapshots]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert max(gaps, default=0.0) < 1.9 * SCAN_S, f"{name} missed a scan: {gaps}"
        limits = [one.content for one in fresh if one.topic.endswith(f"/{name}/event")]
        assert limits == [], f"{name} was limited"
        assert running.outputs(name) == GOOD
    assert errors_in(running.agent.log_text()) == []


def misbehave(running: Site, *zones: str) -> None:
    for zone in zones:
        running.set(zone, "mode", 1.0)


def behave(running: Site, *zones: str) -> None:
    for zone in zones:
        running.set(zone, "mode", 0.0)
    for zone in zones:
        running.await_outputs(zone, *GOOD, timeout_s=60.0)


def nobody_in_quarantine(running: Site) -> bool:
    status = running.agent.status()
    return status is not None and status["operate"]["quarantined"] == 0


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.function)
def test_one_bad_function_costs_only_its_zone(running: Site, fault: Fault) -> None:
    starts = (running.agent.status() or {})["operate"]["worker_starts"]
    misbehave(running, fault.zone)
    running.await_outputs(fault.zone, *fault.becomes)
    verdicts = set(running.agent.verdict(fault.zone))
    assert fault.verdicts <= verdicts
    assert fault.says in running.agent.unit(fault.zone)["text"]
    behave(running, fault.zone)
    assert not fault.verdicts & set(running.agent.verdict(fault.zone))
    restarted = (running.agent.status() or {})["operate"]["worker_starts"] - starts
    assert (restarted > 0) == (fault.function in COST_THEIR_WORKER)


def test_a_failing_function_holds_its_last_command_for_the_declared_scans_and_no_longer(
    running: Site, ear: Ear
) -> None:
    before = len(ear.heard())
    misbehave(running, "holds")
    running.await_outputs("holds", *SAFE)
    events = [one.content for one in ear.heard("/holds/event")[-4:] if one.content["output"] == "heating"]
    held, failed = events[-2:]
    assert "held" in held["verdict"] and held["commanded"] == GOOD[0]
    assert "fail_safe" in failed["verdict"] and failed["commanded"] == SAFE_HEATING
    snapshots = [one for one in ear.heard()[before:] if one.topic.endswith("/holds/snapshot")]
    between = [one for one in snapshots if held["seq"] < one.content["seq"] <= failed["seq"]]
    assert len(between) == 3, "three scans from the first held one to the first in fail-safe"
    behave(running, "holds")


def test_all_bad_functions_at_once_cost_only_their_zones(running: Site) -> None:
    zones = [fault.zone for fault in FAULTS]
    misbehave(running, *zones)
    for fault in FAULTS:
        running.await_outputs(fault.zone, *fault.becomes)
    behave(running, *zones)
    wait_until("trust in all of them again", lambda: nobody_in_quarantine(running), 60.0)


def test_zones_that_share_a_function_with_one_that_hangs_go_on(running: Site) -> None:
    misbehave(running, "same-2")
    running.await_outputs("same-2", *SAFE)
    for number in sorted(set(range(SAME)) - {2}):
        assert running.outputs(f"same-{number}") == GOOD
        assert "deadline_missed" not in running.agent.verdict(f"same-{number}")
    behave(running, "same-2")
    wait_until("trust in it again", lambda: nobody_in_quarantine(running))


def test_many_hanging_zones_of_one_function_leave_the_others_of_it_alone(running: Site, ear: Ear) -> None:
    before = len(ear.heard())
    bad = [f"same-{number}" for number in range(SAME) if number not in (0, 5)]
    misbehave(running, *bad)
    for zone in bad:
        running.await_outputs(zone, *SAFE)
    for zone in ("same-0", "same-5"):
        events = [one.content for one in ear.heard()[before:] if one.topic.endswith(f"/{zone}/event")]
        assert events == []
    behave(running, *bad)
    wait_until("trust in them again", lambda: nobody_in_quarantine(running), 60.0)


def test_many_functions_that_hang_in_the_same_scan_cost_only_their_zones(running: Site) -> None:
    zones = [f"stuck-{letter}" for letter in STUCK]
    misbehave(running, *zones)
    for zone in zones:
        running.await_outputs(zone, *SAFE)
    behave(running, *zones)
    wait_until("trust in all of them again", lambda: nobody_in_quarantine(running), 60.0)
