"""The supervisor, over children that only pretend: restarts with backoff, release before every restart, and a clean end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.runtime import lock, supervisor
from agent.runtime.supervisor import BEAT_RUNNING, BEAT_STARTING, CONFIG_EXIT, STILL_HELD_EXIT, Child

RUNNER = """
import sys
from pathlib import Path
from agent.runtime import supervisor
from agent.runtime.supervisor import Supervisor

supervisor.BEAT_PATIENCE_S = {beat}
supervisor.START_PATIENCE_S = {start}
supervisor.STOP_PATIENCE_S = {stop}
supervisor.FIRST_RESTART_S = 0.02

class Fake(Supervisor):
    def __init__(self, folder):
        super().__init__(folder, folder, [], train=True)
        self._core.arguments = ["fake_core", str(folder)]
        for child in self._others:
            child.arguments = ["fake_child", str(folder), child.name]

    def _release(self, why):
        with (self._state_dir / "events").open("a") as events:
            events.write(f"release {{why}}\\n")
        return True

sys.exit(Fake(Path(sys.argv[1])).run())
"""

CHILD = """
import pathlib, sys, time
with (pathlib.Path(sys.argv[1]) / "events").open("a") as events:
    events.write(f"start {sys.argv[2]}\\n")
time.sleep(60)
"""

CORE = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])

def note(what):
    with (folder / "events").open("a") as events:
        events.write(what + "\\n")

lives = folder / "lives"
number = int(lives.read_text()) + 1 if lives.exists() else 1
lives.write_text(str(number))
beat = int(os.environ["POETD_BEAT_FD"])

def stopped(_number, _frame):
    note("core told to stop")
    sys.exit(0)

signal.signal(signal.SIGTERM, stopped)
note(f"start core {number}")
"""


class Stage:
    """One supervisor in a process of its own, with a core that does what ``script`` says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def start(self, script: str, beat: float = 5.0, start: float = 10.0, stop: float = 10.0) -> None:
        (self.folder / "fake_core.py").write_text(CORE + script, encoding="utf-8")
        (self.folder / "fake_child.py").write_text(CHILD, encoding="utf-8")
        path = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUNNER.format(beat=beat, start=start, stop=stop), str(self.folder)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def events(self) -> list[str]:
        events = self.folder / "events"
        return events.read_text(encoding="utf-8").splitlines() if events.exists() else []

    def until(self, *wanted: str) -> None:
        """Wait until all of these have happened."""
        deadline = time.monotonic() + 30.0
        while not set(wanted) <= set(self.events()):
            assert time.monotonic() < deadline, f"{wanted} not among {self.events()}"
            time.sleep(0.01)

    def end(self, number: signal.Signals | None = None) -> tuple[int, str]:
        """(exit code, log)."""
        assert self.process is not None
        if number is not None:
            self.process.send_signal(number)
        _out, log = self.process.communicate(timeout=30.0)
        return self.process.returncode, log


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    if stage.process is not None and stage.process.poll() is None:
        stage.process.kill()
        stage.process.communicate()


RUNNING = """
while True:
    os.write(beat, b"R")
    time.sleep(0.05)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stop_is_passed_on_to_core_and_everybody_ends(stage: Stage, number: signal.Signals) -> None:
    stage.start(RUNNING)
    stage.until("start core 1", "start operate", "start train")
    code, log = stage.end(number)
    assert code == 0, log
    assert stage.events()[0] == "release start", "what an earlier run left is given back first"
    assert stage.events()[-1] == "core told to stop"
    assert not processes_in(stage.folder)


def test_train_is_started_only_when_core_runs(stage: Stage) -> None:
    stage.start(
        """
while not (folder / "go").exists():
    os.write(beat, b".")
    time.sleep(0.02)
note("core runs")
"""
        + RUNNING
    )
    stage.until("start operate")
    time.sleep(0.2)
    assert "start train" not in stage.events()
    (stage.folder / "go").touch()
    stage.until("start train")
    events = stage.events()
    assert events.index("core runs") < events.index("start train")
    stage.end(signal.SIGTERM)


def test_crashed_core_is_restarted_after_everything_was_released(stage: Stage) -> None:
    stage.start(
        """
os.write(beat, b"R")
if number < 3:
    time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
"""
        + RUNNING
    )
    stage.until("start core 3")
    code, log = stage.end(signal.SIGTERM)
    assert code == 0
    order = [event for event in stage.events() if event.startswith(("start core", "release"))]
    assert order == [
        "release start",
        "start core 1",
        "release core lost",
        "start core 2",
        "release core lost",
        "start core 3",
    ]
    assert 'event=core_lost how="signal SIGKILL"' in log


def test_core_that_stops_beating_is_killed_and_restarted(stage: Stage) -> None:
    stage.start(
        """
os.write(beat, b"R")
if number == 1:
    time.sleep(60)
"""
        + RUNNING,
        beat=0.4,
    )
    stage.until("start core 2")
    code, log = stage.end(signal.SIGTERM)
    assert code == 0
    assert "no beat for 0.4 s" in log
    assert stage.events().index("release core lost") < stage.events().index("start core 2")


def test_core_that_never_begins_to_beat_is_killed(stage: Stage) -> None:
    stage.start(
        """
if number == 1:
    time.sleep(60)
"""
        + RUNNING,
        start=0.6,
    )
    stage.until("start core 2")
    stage.end(signal.SIGTERM)


def test_bad_configuration_is_not_tried_again(stage: Stage) -> None:
    stage.start(f"sys.exit({CONFIG_EXIT})")
    code, _log = stage.end()
    assert code == CONFIG_EXIT
    assert stage.events().count("start core 1") == 1 and "start core 2" not in stage.events()


def test_clean_end_of_core_is_the_end(stage: Stage) -> None:
    stage.start("sys.exit(0)")
    assert stage.end()[0] == 0
    assert [event for event in stage.events() if event.startswith("release")] == ["release start"]


def test_core_that_could_not_reach_a_device_leaves_the_rest_to_the_release_and_says_so(stage: Stage) -> None:
    stage.start(f"sys.exit({STILL_HELD_EXIT})")
    assert stage.end()[0] == 1
    assert [event for event in stage.events() if event.startswith("release")] == ["release start", "release stop"]


def test_core_that_does_not_stop_is_killed_and_its_points_released(stage: Stage) -> None:
    stage.start("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + RUNNING, stop=0.3)
    stage.until("start train")
    code, log = stage.end(signal.SIGTERM)
    assert code == 1 and "event=core_does_not_stop" in log
    assert stage.events()[-1] == "release stop"
    assert not processes_in(stage.folder)


def test_dead_operate_is_replaced_while_core_goes_on(stage: Stage) -> None:
    stage.start(RUNNING)
    stage.until("start operate", "start train")
    (pid,) = [pid for pid, line in processes_in(stage.folder).items() if line.endswith("operate")]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20.0
    while stage.events().count("start operate") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "start core 2" not in stage.events()
    _code, log = stage.end(signal.SIGTERM)
    assert "event=child_ended child=operate code=-9" in log


def test_systemd_is_told_ready_only_when_core_scans(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> None:
    import socket

    path = tmp_path_factory.mktemp("n") / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, pytest.MonkeyPatch.context() as patch:
        manager.settimeout(20.0)
        manager.bind(str(path))
        patch.setenv("NOTIFY_SOCKET", str(path))
        stage.start(
            """
os.write(beat, b".")
time.sleep(0.3)
note("core runs")
"""
            + RUNNING
        )
        heard = []
        while not heard or not heard[-1].startswith("READY=1"):
            heard.append(manager.recv(4096).decode())
        assert "WATCHDOG=1" in heard, "it lives"
        assert "core runs" in stage.events()
        stage.end(signal.SIGTERM)
        while (message := manager.recv(4096).decode()) != "STOPPING=1":
            assert message == "WATCHDOG=1"


def test_second_supervisor_on_the_same_state_folder_ends_at_once(tmp_path: Path) -> None:
    descriptor = lock.take(tmp_path)
    arguments = [sys.executable, "-m", "agent.runtime.supervisor", str(tmp_path), str(tmp_path), "no-train"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    os.close(descriptor)
    assert done.returncode == 1
    assert f"another poetd (process {os.getpid()}) works with" in done.stderr


def test_backoff_doubles_to_its_cap_and_starts_anew_after_a_steady_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor.random, "uniform", lambda _low, _high: 1.0)
    child, waits, now = Child("core", ["-c", "pass"]), [], 1000.0

    class Ended:
        returncode = 1

        def poll(self) -> int:
            return 1

    for _ in range(10):
        child.process, child.started_at = Ended(), now  # type: ignore[assignment]
        assert child.ended(now + 0.1) == 1
        waits.append(round(child.start_at - now - 0.1, 6))
        now = child.start_at
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    child.process, child.started_at = Ended(), now  # type: ignore[assignment]
    child.ended(now + supervisor.STEADY_S + 1.0)
    assert child.start_at == now + supervisor.STEADY_S + 1.0 + 0.25


def test_child_that_cannot_be_forked_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_args: object, **_options: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(supervisor.subprocess, "Popen", no_room)
    child = Child("operate", ["nothing"])
    child.start(50.0)
    assert not child.running and child.start_at > 50.0


def test_beats_of_an_earlier_core_do_not_count(tmp_path: Path) -> None:
    one = supervisor.Supervisor(tmp_path, tmp_path, [], train=False)
    os.write(one._beat_write, BEAT_STARTING * 100 + BEAT_RUNNING)
    one._forget_beats()
    one._wait()
    assert one._beat_at is None and not one._ready
    os.write(one._beat_write, BEAT_RUNNING)
    one._wait()
    assert one._beat_at is not None and one._ready
    for descriptor in (one._beat_read, one._beat_write, one._woken, one._wake, one._lock):
        os.close(descriptor)


def test_supervisor_needs_no_numpy_and_no_site_code() -> None:
    code = "import sys; import agent.runtime.supervisor; print(sorted({'numpy', 'pydantic', 'numba', 'agent.config'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def processes_in(folder: Path) -> dict[int, str]:
    """Fake children of this stage that still run: process id → command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            except OSError:
                continue
            if str(folder) in line and "fake_" in line and "supervisor" not in line:
                found[int(entry.name)] = line
    return found
