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

from agent.runtime.notify import notify
from agent.runtime.process import die_with_parent

CONFIG_EXIT = 78
STILL_HELD_EXIT = 3
"""Core has stopped as told, but could not reach some device: its points are still in the journal."""
BEAT_PATIENCE_S = 5.0
"""Core beats twice a second; without a beat for this long it is taken for blocked and killed."""
START_PATIENCE_S = 180.0
"""Until the first beat: loading a large site and compiling its functions may take this long."""
STOP_PATIENCE_S = 15.0
RELEASE_PATIENCE_S = 20.0
FIRST_RESTART_S = 0.25
LONGEST_RESTART_S = 30.0
STEADY_S = 60.0
"""A child that lived this long starts with a clean slate."""

BEAT_FD_VARIABLE = "POETD_BEAT_FD"


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

    @property
    def running(self) -> bool:
        """Whether it has been started and not yet been reaped."""
        return self.process is not None

    def start(self, now: float, pass_fds: tuple[int, ...] = ()) -> None:
        """Start it; it dies with us."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", *self.arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=pass_fds,
            env={**os.environ, **self.environment},
            start_new_session=True,
        )
        self.started_at = now

    def ended(self, now: float) -> int | None:
        """The exit code if it has ended; schedules the next start with doubling, jittered backoff."""
        if self.process is None or self.process.poll() is None:
            return None
        code = self.process.returncode
        self.process = None
        self.failures = 1 if now - self.started_at > STEADY_S else self.failures + 1
        wait = min(FIRST_RESTART_S * 2.0 ** (self.failures - 1), LONGEST_RESTART_S)
        self.start_at = now + wait * random.uniform(0.8, 1.2)  # noqa: S311  (jitter, not a secret)
        return code

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
        self._run_dir = run_dir
        self._state_dir = state_dir
        self._core = Child("core", ["agent.runtime.core", *core_arguments])
        light = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._core.environment = light
        self._others = [
            Child(
                "operate",
                ["agent.runtime.operate.zygote", "--socket", str(run_dir / "operate.sock")],
                environment=light,
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
            self._others.append(Child("train", arguments))
        self._stop_signal: int | None = None
        self._beat_at: float | None = None
        self._beat_read, self._beat_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self) -> int:
        """Supervise until core ends cleanly or a signal asks us to stop; returns the exit code."""
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
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
        elif self._core.running and self._silent(now):
            self._core.kill()
            self._core.start_at = now + FIRST_RESTART_S
            self._core_lost(f"no beat for {BEAT_PATIENCE_S:g} s")
        if not self._core.running and now >= self._core.start_at:
            self._beat_at = None
            self._core.environment[BEAT_FD_VARIABLE] = str(self._beat_write)
            self._core.start(now, (self._beat_write,))
        for child in self._others:
            ended = child.ended(now)
            if ended is not None:
                say("warning", "child_ended", child=child.name, code=ended, restart_in_s=round(child.start_at - now, 2))
            if not child.running and now >= child.start_at and self._core.running:
                child.start(now)
        self._wait()
        return None

    def _silent(self, now: float) -> bool:
        if self._beat_at is None:
            return now - self._core.started_at > START_PATIENCE_S
        return now - self._beat_at > BEAT_PATIENCE_S

    def _core_lost(self, how: str) -> None:
        say("error", "core_lost", how=how, next="release what it held, then restart")
        notify("STATUS=core lost, releasing outputs")
        for child in self._others:
            child.kill()
            child.start_at = 0.0
        self._release("core lost")

    def _release(self, why: str) -> bool:
        """Replay the write journal; whether nothing is held any more. Bounded in time: the rest stays in it for the next try."""
        if not _may_hold(self._state_dir / "journal.db"):
            return True
        arguments = [sys.executable, "-m", "agent.runtime.release", "--state-dir", str(self._state_dir), "--why", why]
        try:
            done = subprocess.run(arguments, timeout=RELEASE_PATIENCE_S, check=False, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            say(
                "error",
                "release_timed_out",
                after_s=RELEASE_PATIENCE_S,
                fix="poetd release --state-dir " + str(self._state_dir),
            )
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
                if os.read(descriptor, 4096) and descriptor == self._beat_read:
                    if self._beat_at is None:
                        notify("READY=1")
                    self._beat_at = time.monotonic()
                    notify("WATCHDOG=1")

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
    sys.exit(Supervisor(Path(run_dir), Path(state_dir), core_arguments, train=train == "train").run())


if __name__ == "__main__":
    main()
