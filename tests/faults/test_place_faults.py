"""Ports that are taken and folders that cannot be used: a clear message before anything starts; a disk that fills up later."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_functions import GOOD, SOURCE
from site_rig import (
    BEFORE_COOLING,
    BEFORE_HEATING,
    CORE,
    SAFE_COOLING,
    SAFE_HEATING,
    Site,
    Zone,
    errors_in,
    site,
    wait_until,
)

from agent.telemetry.broker import EmbeddedBroker
from agent.telemetry.errors import EmbeddedBrokerError

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

ZONES = [Zone("east", "healthy"), Zone("west", "healthy")]
BEFORE = (BEFORE_HEATING, BEFORE_COOLING)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def idle() -> Iterator[Site]:
    with site(ZONES, SOURCE) as made:
        yield made


def test_plant_serve_on_a_taken_port_says_so(idle: Site, taken_port: int) -> None:
    done = idle.poetd("plant", "serve", "--plant", "models.building:AirHandlerPlant", "--port", str(taken_port))
    assert done.returncode == 1
    assert f"127.0.0.1:{taken_port}" in done.stderr and "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_embedded_broker_on_a_taken_port_says_so(taken_port: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent.telemetry.broker", "--port", str(taken_port)],
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 1
    assert f"127.0.0.1:{taken_port}" in done.stderr and "in use" in done.stderr
    assert "Traceback" not in done.stderr
    broker = EmbeddedBroker(taken_port)
    with pytest.raises(EmbeddedBrokerError, match=f"{taken_port}.*in use"):
        broker.start()
    assert broker.pid is None


@pytest.mark.parametrize("purpose", ["run", "state"])
@pytest.mark.parametrize("obstacle", ["below a file", "no writing there"])
def test_unusable_folder_is_refused_before_anything_starts(idle: Site, purpose: str, obstacle: str) -> None:
    in_the_way = idle.folder / "file"
    in_the_way.write_text("not a folder\n", encoding="utf-8")
    folder = {"below a file": in_the_way / "x", "no writing there": Path("/proc/x")}
    other = "state" if purpose == "run" else "run"
    done = idle.poetd(
        "run", str(idle.file), f"--{purpose}-dir", str(folder[obstacle]), f"--{other}-dir", str(idle.folder / other)
    )
    assert done.returncode == 1
    assert f"the {purpose} folder {folder[obstacle]}" in done.stderr
    assert f"--{purpose}-dir" in done.stderr, "the remedy"
    assert "Traceback" not in done.stderr
    assert idle.bank.writes == []
    assert idle.agent.mine() == []


def test_folder_that_others_can_write_is_refused(idle: Site) -> None:
    idle.agent.state_dir.mkdir()
    idle.agent.state_dir.chmod(0o777)
    done = idle.poetd(
        "run", str(idle.file), "--state-dir", str(idle.agent.state_dir), "--run-dir", str(idle.agent.run_dir)
    )
    assert done.returncode == 1
    assert f"chmod go-w {idle.agent.state_dir}" in done.stderr


def test_second_agent_on_the_same_state_folder_is_refused_and_does_not_disturb_the_first(idle: Site) -> None:
    idle.agent.start()
    for zone in ZONES:
        idle.await_outputs(zone.name, *GOOD)
    writes = len(idle.bank.writes)
    state = ("--state-dir", str(idle.agent.state_dir))
    second = idle.poetd("run", str(idle.file), *state, "--run-dir", str(idle.folder / "other-run"))
    release = idle.poetd("release", *state)
    for done in (second, release):
        assert done.returncode == 1
        assert "another poetd" in done.stderr
    assert len(idle.bank.writes) == writes
    assert {idle.outputs(zone.name) for zone in ZONES} == {GOOD}
    assert idle.agent.stop() == 0


class SmallDisk:
    """A file system of its own that can be filled up and emptied."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no byte free."""
        with self._ballast.open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                pass

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink()


@pytest.fixture
def small_disk(idle: Site) -> Iterator[SmallDisk]:
    """The state folder on a 2 MB file system, where this may be mounted."""
    folder = idle.agent.state_dir
    folder.mkdir(mode=0o700)
    if os.geteuid() != 0:
        pytest.skip("not root: a small file system cannot be mounted for the state folder")
    options = ["-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, timeout=10.0, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        idle.agent.destroy()
        subprocess.run(["umount", str(folder)], timeout=10.0, check=True)


def test_disk_that_fills_up_under_control_stops_nothing_and_loses_nothing(idle: Site, small_disk: SmallDisk) -> None:
    with EmbeddedBroker() as broker:
        idle.write(SOURCE, {"kernels": "python", "mqtt": f"{{host: 127.0.0.1, port: {broker.port}}}"}, "1s")
        idle.agent.start()
        for zone in ZONES:
            idle.await_outputs(zone.name, *GOOD)
        core = idle.agent.pid(CORE)
        small_disk.fill()
        wait_until("telemetry in memory", lambda: not (idle.agent.status() or {})["mqtt"]["durable"])
        idle.set("east", "temp", 400.0)  # control goes on, both ways
        idle.await_outputs("east", SAFE_HEATING, SAFE_COOLING)
        idle.set("east", "temp", 20.0)
        idle.await_outputs("east", *GOOD)
        assert idle.agent.pid(CORE) == core
        assert idle.agent.logged("disk")
        small_disk.free()
        assert idle.agent.stop() == 0
    assert {idle.outputs(zone.name) for zone in ZONES} == {BEFORE}
    assert idle.agent.held() == []
    assert errors_in(idle.agent.log_text()) == []


def test_stop_on_a_full_disk_gives_everything_back_all_the_same(idle: Site, small_disk: SmallDisk) -> None:
    idle.agent.start()
    for zone in ZONES:
        idle.await_outputs(zone.name, *GOOD)
    small_disk.fill()
    code = idle.agent.stop()
    assert {idle.outputs(zone.name) for zone in ZONES} == {BEFORE}
    if code != 0:
        assert idle.agent.logged("journal") or idle.agent.logged("points_still_held")
    small_disk.free()
    done = idle.poetd("release", "--state-dir", str(idle.agent.state_dir))
    assert done.returncode == 0, done.stderr
    assert {idle.outputs(zone.name) for zone in ZONES} == {BEFORE}
    assert idle.agent.held() == []


def test_core_killed_on_a_full_disk_has_everything_given_back_all_the_same(idle: Site, small_disk: SmallDisk) -> None:
    idle.agent.start()
    for zone in ZONES:
        idle.await_outputs(zone.name, *GOOD)
    core, since = idle.agent.pid(CORE), len(idle.bank.writes)
    small_disk.fill()
    os.kill(core, signal.SIGKILL)
    wait_until("everything given back", lambda: len(idle.bank.writes) >= since + 2 * len(ZONES))
    given_back = idle.bank.writes[since : since + 2 * len(ZONES)]
    assert {write.value for write in given_back} == set(BEFORE)
    assert idle.agent.logged("core_lost", "SIGKILL")


def test_disk_that_is_full_from_the_start_lets_nothing_be_written_until_there_is_room(
    idle: Site, small_disk: SmallDisk
) -> None:
    small_disk.fill()
    idle.agent.start()
    wait_until("two tries", lambda: len(idle.agent.logged("core_cannot_run")) >= 2)
    assert "journal.db" in idle.agent.logged("core_cannot_run")[0]
    assert "disk is full" in idle.agent.logged("core_cannot_run")[0]
    assert idle.bank.writes == []
    assert {idle.outputs(zone.name) for zone in ZONES} == {BEFORE}
    leftovers = {path.name for path in idle.agent.state_dir.iterdir() if ".new-" in path.name}
    assert len(leftovers) <= 1, "every try leaves a file behind"
    small_disk.free()
    for zone in ZONES:
        idle.await_outputs(zone.name, *GOOD, timeout_s=60.0)
    assert idle.agent.stop() == 0
    assert errors_in(idle.agent.log_text()) == []
