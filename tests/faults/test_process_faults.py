"""Processes of the agent killed or stopped, one at a time and all at once: the equipment is back in its own hands before anything goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import process_tree
import pytest
from faulty_functions import GOOD, SOURCE
from site_rig import (
    BEFORE_COOLING,
    BEFORE_HEATING,
    CORE,
    SAFE_COOLING,
    SAFE_HEATING,
    TRAIN,
    ZYGOTE,
    Site,
    Zone,
    errors_in,
    site,
    wait_until,
)

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]

BEFORE = (BEFORE_HEATING, BEFORE_COOLING)
LEARNS = """\
parameters: {bias: {value: 0, range: [-1, 1]}}
train: {ewma: {parameter: bias, feedback: temp, target: 20.0, gain: 1.0, window: 1s}}
"""
ZONES = [Zone("east", "healthy"), Zone("west", "healthy"), Zone("north", "learns", extra=LEARNS)]
FUNCTIONS = (
    SOURCE
    + """

def learns(temp, mode, bias=0.0) -> HVACCommand:
    return GOOD
"""
)
POINTS = {f"{zone.name}/{point}" for zone in ZONES for point in ("heating", "cooling")}


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with site(ZONES, FUNCTIONS) as made:
        made.agent.start()
        yield made


@pytest.fixture(autouse=True)
def in_control(request: pytest.FixtureRequest) -> None:
    """Every test of the shared agent begins with all zones under control."""
    if "running" in request.fixturenames:
        shared: Site = request.getfixturevalue("running")
        shared.agent.await_scans()
        for zone in ZONES:
            shared.await_outputs(zone.name, *GOOD)


def assert_all_given_back_first(running: Site, since: int) -> None:
    """From this write on: first every point as it was before us, only then anything of ours."""
    fresh = running.bank.writes[since:]
    restored = fresh[: len(POINTS)]
    assert {write.name for write in restored} == POINTS
    for write in restored:
        assert write.value == (BEFORE_HEATING if write.name.endswith("heating") else BEFORE_COOLING)
    assert {write.value for write in fresh[len(POINTS) :]} <= {SAFE_HEATING, SAFE_COOLING, *GOOD}


def test_killed_core_has_everything_given_back_before_it_writes_again(running: Site) -> None:
    since, core = len(running.bank.writes), running.agent.pid(CORE)
    os.kill(core, signal.SIGKILL)
    wait_until("another core", lambda: running.agent.pid(CORE) != core)
    running.agent.await_scans()
    for zone in ZONES:
        running.await_outputs(zone.name, *GOOD)
    assert_all_given_back_first(running, since)
    assert running.agent.logged("core_lost", "SIGKILL")


def test_blocked_core_is_noticed_killed_and_everything_given_back(running: Site) -> None:
    since, core = len(running.bank.writes), running.agent.pid(CORE)
    os.kill(core, signal.SIGSTOP)
    wait_until("another core", lambda: running.agent.pid(CORE) != core)
    running.agent.await_scans()
    for zone in ZONES:
        running.await_outputs(zone.name, *GOOD)
    assert_all_given_back_first(running, since)
    assert running.agent.logged("core_lost", "no beat")
    assert core not in {one.pid for one in process_tree.processes()}


def test_killed_worker_is_replaced(running: Site) -> None:
    running.agent.await_scans(6)  # one that dies as soon as it lives is not replaced at once
    core, workers = running.agent.pid(CORE), wait_until("a worker", running.agent.workers)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    wait_until("another worker", lambda: set(running.agent.workers()) - set(workers))
    scans = wait_until("status", running.agent.status)["scans"]
    running.agent.await_scans(scans + 4)
    for zone in ZONES:
        running.await_outputs(zone.name, *GOOD)
    assert running.agent.pid(CORE) == core


def test_killed_zygote_costs_core_nothing(running: Site) -> None:
    core, zygote = running.agent.pid(CORE), running.agent.pid(ZYGOTE)
    orphans = running.agent.workers()
    os.kill(zygote, signal.SIGKILL)
    wait_until("another zygote", lambda: running.agent.pid(ZYGOTE) != zygote)
    wait_until("workers again", lambda: (running.agent.status() or {})["operate"]["ready"])
    for zone in ZONES:
        running.await_outputs(zone.name, *GOOD)
        assert "deadline_missed" not in wait_until("a verdict", lambda name=zone.name: [running.agent.verdict(name)])[0]
    assert running.agent.pid(CORE) == core
    assert not set(orphans) & {one.pid for one in process_tree.processes()}, "its workers died with it"
    assert BEFORE not in {running.outputs(zone.name) for zone in ZONES}, "core kept the points"


def test_killed_train_worker_costs_nobody_anything(running: Site) -> None:
    core, train = running.agent.pid(CORE), running.agent.pid(TRAIN)
    since = len(running.bank.writes)
    wait_until("train connected", lambda: (running.agent.status() or {})["train"]["connected"])
    os.kill(train, signal.SIGKILL)
    wait_until("another train worker", lambda: running.agent.pid(TRAIN) != train)
    wait_until("train connected again", lambda: (running.agent.status() or {})["train"]["connected"])
    assert running.agent.pid(CORE) == core
    assert {write.value for write in running.bank.writes[since:]} <= set(GOOD)
    assert {running.outputs(zone.name) for zone in ZONES} == {GOOD}


def test_nothing_of_ours_went_wrong_on_the_way(running: Site) -> None:
    assert errors_in(running.agent.log_text()) == []


def test_killed_supervisor_takes_everyone_along_and_release_gives_everything_back() -> None:
    with site(ZONES, FUNCTIONS) as alone:
        agent = alone.agent
        agent.start()
        for zone in ZONES:
            alone.await_outputs(zone.name, *GOOD)
        pids = {agent.pid(CORE), agent.pid(ZYGOTE), agent.pid(TRAIN), *agent.workers()}
        assert agent.process is not None
        agent.process.kill()
        agent.wait_end()
        wait_until("the end of its children", lambda: not pids & {one.pid for one in process_tree.processes()})
        assert {alone.outputs(zone.name) for zone in ZONES} == {GOOD}, "nobody was left to give anything back"
        assert {one.point for one in agent.held()} == POINTS

        done = alone.poetd("release", "--state-dir", str(agent.state_dir), "--json")
        assert done.returncode == 0, done.stderr
        assert {alone.outputs(zone.name) for zone in ZONES} == {BEFORE}
        assert agent.held() == []


def test_next_run_after_a_power_cut_gives_everything_back_first() -> None:
    with site(ZONES, FUNCTIONS) as alone:
        agent = alone.agent
        agent.start()
        for zone in ZONES:
            alone.await_outputs(zone.name, *GOOD)
        agent.destroy()
        assert {one.point for one in agent.held()} == POINTS
        since = len(alone.bank.writes)

        agent.start()
        agent.await_scans()
        for zone in ZONES:
            alone.await_outputs(zone.name, *GOOD)
        assert_all_given_back_first(alone, since)
        assert agent.logged("point_released", "why=start")


@pytest.mark.parametrize("options", [(), ("--for", "3s")], ids=["SIGTERM", "--for"])
def test_clean_stop_gives_every_point_back(options: tuple[str, ...]) -> None:
    with site(ZONES, FUNCTIONS) as alone:
        alone.agent.start(*options)
        for zone in ZONES:
            alone.await_outputs(zone.name, *GOOD)
        assert (alone.agent.wait_end() if options else alone.agent.stop()) == 0
        assert {alone.outputs(zone.name) for zone in ZONES} == {BEFORE}
        assert alone.agent.held() == []
        assert alone.agent.mine() == []
        assert errors_in(alone.agent.log_text()) == []


def test_stop_while_a_device_is_away_says_so_and_the_next_release_gives_back() -> None:
    with site(ZONES, FUNCTIONS) as alone:
        alone.agent.start()
        for zone in ZONES:
            alone.await_outputs(zone.name, *GOOD)
        alone.bank.stop()
        assert alone.agent.stop() == 1
        assert {one.point for one in alone.agent.held()} == POINTS
        assert alone.agent.logged("points_still_held", "poetd release")
        alone.bank.start()
        assert alone.poetd("release", "--state-dir", str(alone.agent.state_dir)).returncode == 0
        assert {alone.outputs(zone.name) for zone in ZONES} == {BEFORE}
