"""The processes of the demo: plant server, embedded broker, agent; each a child that cannot outlive us."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import agent
from agent.demo.errors import DemoError
from agent.runtime.control import ask
from agent.runtime.errors import ControlSocketError
from agent.runtime.release import JOURNAL_FILE
from agent.telemetry.broker import EmbeddedBroker
from agent.telemetry.errors import EmbeddedBrokerError
from safety.errors import StoreError
from safety.journal import Journal

SITE = Path(agent.__file__).resolve().parent.parent / "configs" / "demo"
SITE_PORT, SITE_BROKER_PORT = "15020", "18830"
"""The ports in configs/demo/site.yaml; the demo's copy gets free ones."""
START_PATIENCE_S = 120.0
"""The very first start compiles the plant and the functions; later ones find them on disk."""
STOP_PATIENCE_S = 45.0
"""Core's own patience with every device, and the supervisor's with core."""


def free_port() -> int:
    """A TCP port on loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Stage:
    """Everything the demo runs on. A context manager: leaving it stops what it started and removes its folder."""

    def __init__(self, speed: float, start: datetime) -> None:
        self._speed = speed
        self._start = start
        self._folder = Path(tempfile.mkdtemp(prefix="poetd-demo-"))
        self.run_dir = self._folder / "run"
        self.state_dir = self._folder / "state"
        self.log = self._folder / "agent.log"
        self.site = self._folder / "site" / "site.yaml"
        self.broker = EmbeddedBroker()
        self.plant_port = free_port()
        self._plant: subprocess.Popen[str] | None = None
        self._agent: subprocess.Popen[bytes] | None = None
        self.given_back = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(DemoError):
            self.stop_agent()
        if self._plant is not None:
            self._plant.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._plant.wait(5.0)
            self._plant.kill()
            self._plant.wait()
            if self._plant.stdout is not None:
                self._plant.stdout.close()
        self.broker.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start_broker(self) -> None:
        """Start the embedded MQTT broker on a free port. Raises DemoError."""
        try:
            self.broker.start()
        except EmbeddedBrokerError as error:
            raise DemoError(f"the embedded broker does not start: {error}") from error

    def write_site(self) -> None:
        """Copy the demo site and give the copy the ports that are free here."""
        shutil.copytree(SITE, self.site.parent, ignore=shutil.ignore_patterns("__pycache__", "run", "state"))
        text = self.site.read_text(encoding="utf-8")
        text = re.sub(rf"\b{SITE_PORT}\b", str(self.plant_port), text)
        self.site.write_text(re.sub(rf"\b{SITE_BROKER_PORT}\b", str(self.broker.port), text), encoding="utf-8")

    def start_plant(self) -> float:
        """Start the plant server; returns the machine's monotonic time at which the plant began. Raises DemoError."""
        arguments = [
            "plant",
            "serve",
            str(self.site),
            "--speed",
            str(self._speed),
            "--start",
            self._start.isoformat(),
            "--json",
        ]
        self._plant = self._child(arguments, stdout=subprocess.PIPE)
        deadline = time.monotonic() + START_PATIENCE_S
        assert self._plant.stdout is not None
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._plant.stdout], [], [], 0.5)
            line = self._plant.stdout.readline() if ready else ""
            if line.startswith("{") and json.loads(line).get("event") == "listening":
                return time.monotonic()
            if self._plant.poll() is not None:
                raise DemoError(f"the plant server ended with exit code {self._plant.returncode}; see {self.log}")
        raise DemoError(f"the plant server did not listen within {START_PATIENCE_S:g} s; see {self.log}")

    def start_agent(self, origin: float) -> None:
        """Start the agent and wait for its first scan. Raises DemoError."""
        arguments = ["run", str(self.site), "--run-dir", str(self.run_dir), "--state-dir", str(self.state_dir)]
        arguments += ["--speed", str(self._speed), "--start", self._start.isoformat(), "--origin", str(origin)]
        self._agent = self._child(arguments)
        deadline = time.monotonic() + START_PATIENCE_S
        while time.monotonic() < deadline:
            if self._agent.poll() is not None:
                raise DemoError(f"the agent ended with exit code {self._agent.returncode}: {self.last_log_lines()}")
            try:
                if ask(self.run_dir, "status")["scans"] > 0:
                    return
            except ControlSocketError:
                time.sleep(0.1)
        raise DemoError(f"the agent made no scan within {START_PATIENCE_S:g} s: {self.last_log_lines()}")

    @property
    def agent_running(self) -> bool:
        """Whether the agent's supervisor is there."""
        return self._agent is not None and self._agent.poll() is None

    def stop_agent(self) -> None:
        """Stop the agent as systemd would, and look whether it gave everything back. Raises DemoError if it does not stop."""
        if self._agent is None:
            return
        child, self._agent = self._agent, None
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            child.kill()
            child.wait()
            raise DemoError(f"the agent did not stop within {STOP_PATIENCE_S:g} s") from error
        if not (self.state_dir / JOURNAL_FILE).exists():
            self.given_back = True
            return
        try:
            with Journal(self.state_dir / JOURNAL_FILE) as journal:
                self.given_back = not journal.holding()
        except StoreError as error:
            raise DemoError(str(error)) from error

    def last_log_lines(self, count: int = 5) -> str:
        """The end of the children's log, for an error message."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-count:])

    def _child(self, arguments: list[str], stdout: int | None = None) -> subprocess.Popen:  # type: ignore[type-arg]
        environment = {**os.environ, "POETD_DIE_WITH_PARENT": "1", "PYTHONUNBUFFERED": "1"}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "agent", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=log,
                text=stdout is not None,
                env=environment,
                start_new_session=True,
            )
