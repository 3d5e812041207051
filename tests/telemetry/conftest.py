"""Shared by the telemetry's tests: a fake broker, publishers that are stopped at the end, waiting for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mqtt_fake_broker import FakeBroker

from agent.config.mqtt import MqttConfig
from agent.runtime.clock import SystemClock
from agent.telemetry.backoff import Backoff
from agent.telemetry.publisher import Publisher
from agent.telemetry.topics import Topics


class QuickBackoff(Backoff):
    """Tests do not wait; they count what kind of delay was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def next(self) -> float:
        self.asked.append("next")
        return 0.02

    def slowest(self) -> float:
        self.asked.append("slowest")
        return 0.02


def wait_until(condition: Callable[[], object], what: str = "", timeout_s: float = 20.0) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what or condition}"
        time.sleep(0.005)


@pytest.fixture
def until() -> Callable[..., None]:
    return wait_until


@pytest.fixture
def topics() -> Topics:
    return Topics("site", "gw")


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    broker = FakeBroker()
    yield broker
    broker.down()


@pytest.fixture
def publisher(tmp_path: Path, topics: Topics) -> Iterator[Callable[..., Publisher]]:
    """Make a started publisher; all of them are stopped when the test ends."""
    made: list[Publisher] = []

    def make(
        port: int, *, state_dir: Path = tmp_path, options: dict[str, Any] | None = None, **config: Any
    ) -> Publisher:
        arguments = {"backoff": QuickBackoff(), **(options or {})}
        new = Publisher(MqttConfig(port=port, **config), topics, state_dir, SystemClock(), **arguments)
        new.start()
        made.append(new)
        return new

    yield make
    for each in made:
        assert each.stop(0.0), "a telemetry thread did not end"
