"""The machine's calendar stepped by days under a running agent: control time does not move, records carry the new time.

A small library is preloaded into the agent's processes, which adds an offset to the calendar that we change while they run.
"""

from __future__ import annotations

import itertools
import json
import struct
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from mqtt_fake_broker import FakeBroker
from peers import require_debian
from site_rig import Site, Zone, errors_in, site, wait_until

pytestmark = [pytest.mark.fault, pytest.mark.conformance, pytest.mark.timeout(300)]

DAY_S = 86_400.0
SCAN_S = 1.0
FUNCTIONS = """
from agent.domains.building_management import HVACCommand


def switches(temp, mode) -> HVACCommand:
    return HVACCommand(80.0 if mode < 1.0 else 0.0, 0.0, 50.0)
"""


class Calendar:
    """The agent's calendar, as an offset to the true one."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "offset"
        self._file.write_bytes(struct.pack("=q", 0))
        self._library = folder / "step_clock.so"
        source = Path(__file__).with_name("step_clock.c")
        command = [
            "gcc",
            "-shared",
            "-fPIC",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            str(source),
            "-o",
            str(self._library),
        ]
        subprocess.run([*command, "-ldl"], check=True, timeout=60.0)

    def step(self, offset_s: float) -> None:
        """Jump, while the agent runs."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", int(offset_s)))

    def wrapper(self) -> list[str]:
        """The command in front of the agent's."""
        return ["env", f"LD_PRELOAD={self._library}", f"STEP_CLOCK_FILE={self._file}"]


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    made = FakeBroker()
    yield made
    made.down()


def snapshots(broker: FakeBroker, zone: str) -> list[float]:
    """The time stamps of a zone's snapshots, in order."""
    found = [message for message in broker.received if message.topic.endswith(f"/{zone}/snapshot")]
    return [datetime.fromisoformat(json.loads(message.payload)["ts"]).timestamp() for message in found]


@pytest.mark.parametrize("days", [1, -1])
def test_calendar_stepped_by_a_day_moves_records_and_nothing_else(
    tmp_path: Path, broker: FakeBroker, days: int
) -> None:
    require_debian("gcc", "libc6-dev")
    zones = [Zone("pump", "switches", heating=", min_on: 1h")]
    settings = {"mqtt": f"{{host: 127.0.0.1, port: {broker.port}}}"}
    with site(zones, FUNCTIONS, settings=settings) as made:
        calendar = Calendar(tmp_path)
        made.agent.start(wrapper=calendar.wrapper())
        made.agent.await_scans()
        made.await_outputs("pump", 80.0, 0.0)
        made.set("pump", "mode", 1.0)
        wait_until("held on", lambda: "min_on_held" in made.agent.verdict("pump"))
        wait_until("snapshots", lambda: len(snapshots(broker, "pump")) >= 3)
        before, writes = len(snapshots(broker, "pump")), len(made.bank.writes)

        calendar.step(days * DAY_S)
        wait_until("snapshots after the step", lambda: len(snapshots(broker, "pump")) >= before + 5)
        assert_nothing_but_records_moved(made, writes)
        times = snapshots(broker, "pump")
        assert abs(times[-1] - (time.time() + days * DAY_S)) < 60.0
        steps = [later - earlier for earlier, later in itertools.pairwise(times)]
        jumps = [step for step in steps if abs(step) > 2.0 * SCAN_S]
        assert len(jumps) == 1 and abs(jumps[0] - days * DAY_S - SCAN_S) < SCAN_S, "one jump, and no scan missed at it"

        calendar.step(0.0)
        wait_until("snapshots after the step back", lambda: abs(snapshots(broker, "pump")[-1] - time.time()) < 60.0)
        assert_nothing_but_records_moved(made, writes)
        assert made.agent.stop() == 0
        assert made.agent.held() == []
        assert errors_in(made.agent.log_text()) == []


def assert_nothing_but_records_moved(made: Site, writes: int) -> None:
    assert made.outputs("pump") == (80.0, 0.0), "a minimum on-time of an hour is not over because the calendar jumped"
    assert made.agent.verdict("pump") == ["min_on_held"]
    assert made.agent.quality("pump/temp") == ("good", "ok"), "nothing became stale"
    assert len(made.bank.writes) == writes
    status = wait_until("an answer to status", made.agent.status)
    assert status["missed"] == 0
