"""What the driver tests share: a clock that only moves by hand."""

from __future__ import annotations

import pytest


class ManualClock:
    """Control time and UTC under the test's hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.epoch = 1_800_000_000.0

    def monotonic(self) -> float:
        return self.now

    def utc(self) -> float:
        return self.epoch + self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
