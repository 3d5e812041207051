"""The systemd unit against the code it starts: its times, its folders, its exit codes, and what it is told on the socket."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli.check import EXIT_BAD_CONFIGURATION
from agent.config.scalars import seconds
from agent.runtime import supervisor

ROOT = Path(__file__).resolve().parent.parent
UNIT = ROOT / "systemd" / "poetd.service"
DROP_IN = ROOT / "systemd" / "poetd.service.d" / "compiled-kernels.conf"
INSTALLED = "/opt/poetd/.venv/bin/poetd"
POETD = str(Path(sys.executable).with_name("poetd"))
MOST_EXPOSED = 1.4
READY_PATIENCE_S = 60.0


def directives(path: Path) -> dict[str, list[str]]:
    """Key → values in order, of all sections."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture(scope="module")
def unit() -> dict[str, list[str]]:
    return directives(UNIT)


def test_the_commands_exist(unit: dict[str, list[str]]) -> None:
    for key in ("ExecStart", "ExecStopPost"):
        (line,) = unit[key]
        program, command, *_arguments = line.split()
        assert program == INSTALLED
        shown = subprocess.run([POETD, command, "--help"], capture_output=True, text=True, check=True)
        assert f"poetd {command}" in shown.stdout
    assert unit["ExecStopPost"][0].split()[1:] == ["release"]


def test_wrong_site_files_are_not_tried_again(unit: dict[str, list[str]]) -> None:
    assert unit["Restart"] == ["always"]
    assert unit["RestartPreventExitStatus"] == [str(EXIT_BAD_CONFIGURATION)] == [str(supervisor.CONFIG_EXIT)]


def test_stopping_leaves_time_to_give_every_point_back(unit: dict[str, list[str]]) -> None:
    assert unit["KillMode"] == ["mixed"]
    assert seconds(unit["TimeoutStopSec"][0]) > supervisor.STOP_PATIENCE_S + supervisor.RELEASE_PATIENCE_S


def test_starting_leaves_time_for_a_release_and_a_slow_core(unit: dict[str, list[str]]) -> None:
    assert seconds(unit["TimeoutStartSec"][0]) > supervisor.RELEASE_PATIENCE_S + supervisor.START_PATIENCE_S


def test_the_watchdog_is_longer_than_any_silence_that_is_in_order(unit: dict[str, list[str]]) -> None:
    """The supervisor says once a second that it is alive, but not while it waits for a release or for core to stop."""
    silence = supervisor.ALIVE_S + supervisor.STOP_PATIENCE_S + supervisor.RELEASE_PATIENCE_S
    assert silence < seconds(unit["WatchdogSec"][0]) <= 2 * silence


def test_folders_are_the_ones_the_code_looks_in(unit: dict[str, list[str]]) -> None:
    from agent.config.site import SiteConfig
    from agent.kernels.cache import SYSTEM_FOLDER

    fields = SiteConfig.model_fields
    assert Path("/var/lib") / unit["StateDirectory"][0] == fields["state_dir"].default
    assert Path("/run") / unit["RuntimeDirectory"][0] == fields["run_dir"].default
    assert Path("/var/cache") / unit["CacheDirectory"][0] == SYSTEM_FOLDER
    assert "POETD_CACHE=%C/poetd" in unit["Environment"][0].split()
    for key in ("StateDirectoryMode", "RuntimeDirectoryMode"):
        assert unit[key] == ["0700"]


def test_the_user_is_the_one_that_is_made(unit: dict[str, list[str]]) -> None:
    (line,) = [line for line in (ROOT / "systemd/poetd.sysusers.conf").read_text().splitlines() if line[:1] == "u"]
    assert line.split()[1] == unit["User"][0] == unit["Group"][0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("ProtectClock", "yes"),
        ("RestrictRealtime", "yes"),
        ("LockPersonality", "yes"),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
        ("SystemCallFilter", "@system-service"),
        ("Type", "notify"),
        ("NotifyAccess", "main"),
    ],
)
def test_hardening(unit: dict[str, list[str]], key: str, value: str) -> None:
    assert value in unit[key]


def test_what_the_code_needs_is_not_forbidden(unit: dict[str, list[str]]) -> None:
    assert "MemoryDenyWriteExecute" not in unit, "the JIT compiler could not work; it is a drop-in for compiled kernels"
    assert directives(DROP_IN) == {"MemoryDenyWriteExecute": ["yes"]}
    assert "ProcSubset" not in unit, "the key of a compiled kernel is made from /proc/cpuinfo"
    assert not any("@resources" in value for value in unit["SystemCallFilter"]), "workers limit their own memory"
    assert {"MemoryMax", "TasksMax", "LimitNOFILE"} <= unit.keys()
    assert unit["OOMPolicy"] == ["continue"]


@pytest.fixture(scope="module")
def checked_unit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unit as it would be installed, with the poetd of this checkout. Skips, and says so, without systemd-analyze."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: the unit was NOT verified (Debian: apt-get install systemd)")
    path = tmp_path_factory.mktemp("systemd") / "poetd.service"
    path.write_text(UNIT.read_text().replace(INSTALLED, POETD))
    return path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SYSTEMD_LOG_LEVEL": "warning", "SYSTEMD_COLORS": "0"}
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, env=environment, check=False)


def test_systemd_finds_nothing_wrong(checked_unit: Path) -> None:
    result = analyze("verify", "--man=no", str(checked_unit))
    assert result.returncode == 0, result.stderr
    about_us = [line for line in result.stderr.splitlines() if "poetd" in line]
    assert about_us == []


def exposure(unit: Path) -> float:
    result = analyze("security", "--offline=true", str(unit))
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", result.stdout)
    if found is None:
        pytest.skip(
            f"this systemd-analyze cannot judge a file: exposure was NOT measured ({result.stderr.strip()[:80]})"
        )
    return float(found[1])


def test_the_service_is_hardly_exposed(checked_unit: Path) -> None:
    bare = checked_unit.with_name("bare.service")
    bare.write_text(f"[Service]\nExecStart={POETD}\n")
    assert exposure(bare) > 9.0, "the measure itself must notice a bare service"
    assert exposure(checked_unit) <= MOST_EXPOSED


class Manager:
    """The service manager's end of the notification socket."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.settimeout(1.0)
        self._socket.bind(str(self.path))
        self.told: list[tuple[int, str]] = []
        """(sender's pid, line)"""

    def close(self) -> None:
        self._socket.close()

    def hear(self, wanted: str, patience_s: float) -> int:
        """Wait for a line; returns the pid of its sender."""
        deadline = time.monotonic() + patience_s
        seen = 0
        while time.monotonic() < deadline:
            for pid, line in self.told[seen:]:
                if line == wanted:
                    return pid
            seen = len(self.told)
            try:
                data, control, _flags, _address = self._socket.recvmsg(4096, 256)
            except TimeoutError:
                continue
            ((_level, _kind, credentials),) = control
            pid = struct.unpack("3i", credentials)[0]
            self.told += [(pid, line) for line in data.decode().splitlines()]
        raise AssertionError(f"{wanted} was not said within {patience_s:g} s, only {self.told}")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux")
def test_the_main_process_is_ready_beats_and_says_that_it_stops(manager: Manager, tmp_path: Path) -> None:
    """``poetd run`` becomes the supervisor by exec: every word must come from the process systemd has started."""
    site = tmp_path / "site.yaml"
    site.write_text("site: alone\nkernels: python\n")
    folders = {"RUNTIME_DIRECTORY": tmp_path / "run", "STATE_DIRECTORY": tmp_path / "state"}
    environment = (
        os.environ | {name: str(path) for name, path in folders.items()} | {"NOTIFY_SOCKET": str(manager.path)}
    )
    with subprocess.Popen([POETD, "run", str(site)], env=environment, stderr=subprocess.PIPE, text=True) as agent:
        try:
            assert manager.hear("READY=1", READY_PATIENCE_S) == agent.pid
            assert manager.hear("WATCHDOG=1", READY_PATIENCE_S) == agent.pid
            agent.send_signal(signal.SIGTERM)
            assert manager.hear("STOPPING=1", READY_PATIENCE_S) == agent.pid
            _output, log = agent.communicate(timeout=READY_PATIENCE_S)
        finally:
            agent.kill()
    assert agent.returncode == 0, log
    assert {pid for pid, _line in manager.told} == {agent.pid}
    assert (folders["STATE_DIRECTORY"] / "journal.db").exists(), "the folders systemd makes are the ones that are used"


def test_release_finds_the_journal_where_systemd_put_it(tmp_path: Path) -> None:
    environment = os.environ | {"STATE_DIRECTORY": str(tmp_path)}
    result = subprocess.run([POETD, "release"], env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "nothing is held"), result.stderr
