"""Give back everything the write journal says we hold: relinquish, or restore the value from before us.

Run by the supervisor after a crash and before every start, by systemd (``ExecStopPost=``), and by hand as ``poetd release``. It needs no
site file: the journal holds what is necessary. Devices are served side by side; one that does not answer costs nobody but itself, and its
points stay in the journal for the next try.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.runtime import log
from agent.runtime.clock import SystemClock
from drivers.errors import DriverError
from drivers.interface import DevicePoint, Driver
from drivers.registry import installed_plugins
from safety.errors import StoreError
from safety.gate import Gate
from safety.journal import Held, Journal
from safety.values import WriteOutcome, WriteResult

JOURNAL_FILE = "journal.db"
GIVEN_BACK = frozenset({WriteOutcome.ACKNOWLEDGED, WriteOutcome.HELD})


@dataclass(frozen=True, slots=True)
class Released:
    """What came of one held point."""

    held: Held
    given_back: bool
    detail: str


def driver_for(entries: Sequence[Held]) -> Driver:
    """A driver for the held points of one device, from the journal alone. Raises DriverError or ValueError if it cannot be made."""
    first = entries[0]
    plugin = installed_plugins().get(first.protocol)
    if plugin is None:
        raise DriverError(
            f"the driver {first.protocol!r} of device {first.device} is not installed; install it and run poetd release"
        )
    settings = plugin.settings.model_validate_json(first.settings_json)
    points = [
        DevicePoint(
            one.point, plugin.address.model_validate_json(one.address_json), writable=True, priority=one.priority
        )
        for one in entries
    ]
    return plugin.load()(first.device, settings, points, SystemClock())


async def give_back(gate: Gate, driver: Driver, entries: Sequence[Held]) -> list[Released]:
    """Give back one device's points over its driver. Never raises: a driver of another package may fail in any way, and the other
    devices' points must be given back all the same.
    """
    results: list[Released] = []
    try:
        await driver.connect()
        for one in entries:
            result: WriteResult = await gate.release(driver, one)
            results.append(Released(one, result.outcome in GIVEN_BACK, result.detail))
    except Exception as error:  # noqa: BLE001
        results += [Released(one, False, f"{type(error).__name__}: {error}") for one in entries[len(results) :]]
    return results


async def _release_device(gate: Gate, entries: Sequence[Held]) -> list[Released]:
    try:
        driver = driver_for(entries)
    except Exception as error:  # noqa: BLE001  (as above)
        return [Released(one, False, str(error)) for one in entries]
    try:
        return await give_back(gate, driver, entries)
    finally:
        await driver.close()


async def release_all(journal: Journal) -> list[Released]:
    """Give back every held point; devices side by side."""
    by_device: dict[tuple[str, str], list[Held]] = {}
    for one in journal.holding():
        by_device.setdefault((one.device, one.settings_json), []).append(one)
    gate = Gate({}, {}, journal)
    done = await asyncio.gather(*(_release_device(gate, entries) for entries in by_device.values()))
    return [released for results in done for released in results]


def run(state_dir: Path) -> list[Released]:
    """Release with the journal of a state folder. Raises StoreError if it is damaged or cannot be opened."""
    path = state_dir / JOURNAL_FILE
    if not path.exists():
        return []
    with Journal(path) as journal:
        return asyncio.run(release_all(journal))


def main() -> None:
    """``python -m agent.runtime.release``: exit 0 when nothing is held any more, 1 when something still is."""
    parser = argparse.ArgumentParser(prog="poetd release")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--why", default="by hand")
    options = parser.parse_args()
    log.configure("release")
    logger = log.get("release")
    try:
        results = run(options.state_dir)
    except StoreError as error:
        logger.error("release_failed", error=str(error))
        sys.exit(1)
    for released in results:
        way = "relinquish" if released.held.can_relinquish else f"restore {released.held.before:g}"
        if released.given_back:
            logger.info("point_released", point=released.held.point, way=way, why=options.why)
        else:
            logger.error("point_not_released", point=released.held.point, way=way, why=released.detail)
    sys.exit(0 if all(released.given_back for released in results) else 1)


if __name__ == "__main__":
    main()
