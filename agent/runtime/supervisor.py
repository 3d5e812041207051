"""The supervisor: starts core, operate and train, and puts the equipment back in its own hands before anything restarts.

Small on purpose: standard library only, no numpy, no site code, no sockets to equipment. When core dies or stops beating, every point
the write journal holds is relinquished or restored first (by ``agent.runtime.release``, a process of its own), then core starts again.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from agent.runtime import lock
from agent.runtime.errors import StateFolderError
from agent.runtime.notify import notify
from agent.runtime.process import PARENT_VARIABLE, die_with_parent

CONFIG_EXIT = 78
STILL_HELD_EXIT = 3
"""Core has stopped as told, but could not reach some device: its points are still in the journal."""
BEAT_PATIENCE_S = 5.0
"""Core beats twice a second; without a beat for this long it is taken for blocked and killed."""
START_PATIENCE_S = 180.0
"""Until the first beat: loading a large site and compiling its functions may take this long."""
STOP_PATIENCE_S = 20.0
"""More than core takes at most: its pending polls and writes, the release of every point, the last telemetry."""
RELEASE_PATIENCE_S = 20.0
FIRST_RESTART_S = 0.25
LONGEST_RESTART_S = 30.0
CONTROL_NICE = -5
"""Core and the control functions come before whatever else runs on the gateway, where the service may say so (LimitNICE)."""
ALIVE_S = 1.0
"""How often systemd's watchdog hears from us."""
STEADY_S = 60.0
"""A child that lived this long starts with a clean slate."""

BEAT_FD_VARIABLE = "POETD_BEAT_FD"
BEAT_STARTING, BEAT_RUNNING = b".", b"R"
"""What core writes to the beat descriptor: whether it scans yet."""


def say(level: str, event: str, **details: object) -> None:
    """One logfmt line, the same form as the other processes' logs."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    pairs = " ".join(f'{key}="{value}"' if " " in str(value) else f"{key}={value}" for key, value in details.items())
    print(
        f"timestamp={now}Z level={level} process=supervisor event={event} {pairs}".rstrip(), file=sys.stderr, flush=True
    )


@dataclass
class Child:
    """One supervised process."""

    name: str
    arguments: list[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    start_at: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)
    nice: int = 0
    waits_for_core: bool = False
    """Not started before core runs: what it connects to is not there sooner."""

    @property
    def running(self) -> bool:
        """Whether it has been started and not yet been reaped."""
        return self.process is not None

    def start(self, now: float, pass_fds: tuple[int, ...] = ()) -> None:
        """Start it; it dies with us. A machine that has no room for one more process is asked again later."""
        self.started_at = now
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", *self.arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=pass_fds,
                env={**os.environ, **self.environment, PARENT_VARIABLE: str(os.getpid())},
                start_new_session=True,
            )
        except OSError as error:
            self._back_off(now)
            wait = round(self.start_at - now, 2)
            say("error", "child_not_started", child=self.name, error=error, next_try_in_s=wait)
            return
        self.process = process
        if self.nice:
            with contextlib.suppress(PermissionError, ProcessLookupError):  # without the right to it, all are equal
                os.setpriority(os.PRIO_PROCESS, process.pid, self.nice)

    def ended(self, now: float) -> int | None:
        """The exit code if it has ended; schedules the next start with doubling, jittered backoff."""
        if self.process is None or self.process.poll() is None:
            return None
        code = self.process.returncode
        self.process = None
        self._back_off(now)
        return code

    def _back_off(self, now: float) -> None:
        self.failures = 1 if now - self.started_at > STEADY_S else self.failures + 1
        wait = min(FIRST_RESTART_S * 2.0 ** (self.failures - 1), LONGEST_RESTART_S)
        self.start_at = now + wait * random.uniform(0.8, 1.2)  # noqa: S311  (jitter, not a secret)

    def kill(self) -> None:
        """SIGKILL and reap."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()
            self.process = None


class Supervisor:
    """Runs until told to stop. ``core_arguments`` go to ``agent.runtime.core`` unchanged."""

    def __init__(self, run_dir: Path, state_dir: Path, core_arguments: list[str], *, train: bool) -> None:
        """Raises StateFolderError if another poetd works with the state folder."""
        self._run_dir = run_dir
        self._state_dir = state_dir
        self._core = Child("core", ["agent.runtime.core", *core_arguments])
        light = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._core.environment = light
        self._core.nice = CONTROL_NICE
        self._others = [
            Child(
                "operate",
                ["agent.runtime.operate.zygote", "--socket", str(run_dir / "operate.sock")],
                environment=light,
                nice=CONTROL_NICE,
            )
        ]
        if train:
            arguments = [
                "agent.train.worker",
                "--socket",
                str(run_dir / "train.sock"),
                "--store",
                str(state_dir / "learning.db"),
            ]
            self._others.append(Child("train", arguments, waits_for_core=True))
        self._lock = lock.take(state_dir)
        self._stop_signal: int | None = None
        self._told_at = 0.0
        self._beat_at: float | None = None
        self._ready = False
        self._beat_read, self._beat_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self) -> int:
        """Supervise until core ends cleanly or a signal asks us to stop; returns the exit code."""
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._asked_to_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._release("start")
        while True:
            code = self._turn()
            if code is not None:
                self._stop_all()
                return code

    def _asked_to_stop(self, number: int, _frame: object) -> None:
        self._stop_signal = number

    def _turn(self) -> int | None:
        """One look at everything; an exit code when supervision is over."""
        now = time.monotonic()
        if now - self._told_at > ALIVE_S:
            self._told_at = now
            notify("WATCHDOG=1")  # that we are alive; whether core is, is for us to judge
        if self._stop_signal is not None:
            return self._stop_core()
        code = self._core.ended(now)
        if code is not None:
            if code in (0, CONFIG_EXIT):
                return code
            if code == STILL_HELD_EXIT:
                self._release("stop")
                return 1
            self._core_lost(f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}")
        elif self._core.process is not None and self._silent(now):
            self._core.process.kill()
            self._core.process.wait()
            self._core.ended(now)
            self._core_lost(f"no beat for {BEAT_PATIENCE_S:g} s")
        if not self._core.running and now >= self._core.start_at:
            self._forget_beats()
            self._core.environment[BEAT_FD_VARIABLE] = str(self._beat_write)
            self._core.start(now, (self._beat_write,))
        for child in self._others:
            ended = child.ended(now)
            if ended is not None:
                level = "warning" if self._ready and ended else "info"
                say(level, "child_ended", child=child.name, code=ended, restart_in_s=round(child.start_at - now, 2))
            allowed = self._ready if child.waits_for_core else self._core.running
            if allowed and not child.running and now >= child.start_at:
                child.start(now)
        self._wait()
        return None

    def _forget_beats(self) -> None:
        """What an earlier core left in the pipe must not count for the next one."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._beat_read, 4096):
                pass
        self._beat_at = None

    def _silent(self, now: float) -> bool:
        if self._beat_at is None:
            return now - self._core.started_at > START_PATIENCE_S
        return now - self._beat_at > BEAT_PATIENCE_S

    def _core_lost(self, how: str) -> None:
        say("error", "core_lost", how=how, next="release what it held, then restart")
        notify("STATUS=core lost, releasing outputs")
        self._ready = False
        for child in self._others:
            child.kill()
            child.start_at = 0.0
        self._release("core lost")

    def _release(self, why: str) -> bool:
        """Replay the write journal; whether nothing is held any more. Bounded in time: the rest stays in it for the next try."""
        if not _may_hold(self._state_dir / "journal.db"):
            return True
        arguments = [sys.executable, "-m", "agent.runtime.release", "--state-dir", str(self._state_dir), "--why", why]
        fix = f"poetd release --state-dir {self._state_dir}"
        try:
            done = subprocess.run(arguments, timeout=RELEASE_PATIENCE_S, check=False, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            say("error", "release_timed_out", after_s=RELEASE_PATIENCE_S, fix=fix)
            return False
        except OSError as error:
            say("error", "release_not_started", error=error, fix=fix)
            return False
        if done.returncode != 0:
            say(
                "error",
                "release_incomplete",
                code=done.returncode,
                next="what is left is tried again at the next start",
            )
        return done.returncode == 0

    def _wait(self) -> None:
        ready, _, _ = select.select([self._beat_read, self._woken], [], [], 0.25)
        for descriptor in ready:
            with contextlib.suppress(BlockingIOError):
                data = os.read(descriptor, 4096)
                if descriptor == self._beat_read:
                    self._beaten(data)

    def _beaten(self, beats: bytes) -> None:
        self._beat_at = time.monotonic()
        if BEAT_RUNNING in beats and not self._ready:
            self._ready = True
            notify("READY=1\nSTATUS=running")

    def _stop_core(self) -> int:
        """Let core release its points and go; if it does not in time, kill it and release them ourselves."""
        notify("STOPPING=1")
        if self._core.process is None:
            return 0 if self._release("stop") else 1
        self._core.process.send_signal(signal.SIGTERM)
        try:
            code = self._core.process.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            say("error", "core_does_not_stop", after_s=STOP_PATIENCE_S, next="kill it and release what it held")
            self._core.kill()
            code = 1
        self._core.process = None
        if code != 0:
            self._release("stop")
        return code if code in (0, CONFIG_EXIT) else 1

    def _stop_all(self) -> None:
        for child in (self._core, *self._others):
            child.kill()


def _may_hold(journal: Path) -> bool:
    """Whether the journal must be replayed: any doubt is a yes, and then the release says what is wrong with it."""
    if not journal.exists():
        return False
    import sqlite3

    try:
        with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=2.0)) as db:
            return bool(db.execute("SELECT count(*) FROM held").fetchone()[0])
    except sqlite3.Error:
        return True


def main() -> None:
    """``python -m agent.runtime.supervisor RUN_DIR STATE_DIR TRAIN CORE_ARGUMENT...``, started by ``poetd run``."""
    run_dir, state_dir, train, *core_arguments = sys.argv[1:]
    if os.environ.get("POETD_DIE_WITH_PARENT"):
        die_with_parent(signal.SIGTERM)
    try:
        supervisor = Supervisor(Path(run_dir), Path(state_dir), core_arguments, train=train == "train")
    except StateFolderError as error:
        say("error", "cannot_run", error=error)
        sys.exit(1)
    sys.exit(supervisor.run())


if __name__ == "__main__":
    main()
