"""Latches on the disk: a restart finds them as they were, and a disk that refuses is said out loud and tried again."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import runtime_rig as rig

from agent.runtime.latching import LatchKeeper
from safety.errors import InterlockError
from safety.interlocks import InterlockStatus
from safety.latches import Latches

EAST = rig.EAST.replace("trip: {heating: 0}}", "trip: {heating: 0}, latch: manual}")


class KeeperRig:
    """One process's life: engine and keeper on a store that outlives it."""

    def __init__(self, folder: Path, at: float = 1000.0) -> None:
        self.bench = rig.Bench(rig.engine_of(rig.program_of(folder, {"east": EAST})))
        self.bench.clock._monotonic = at
        self.enforcer = self.bench.engine.enforcer
        self.latches = Latches(folder / "latches.db", self.bench.clock.utc())
        self.keeper = LatchKeeper(self.enforcer, self.latches, self.bench.clock)
        self.keeper.restore()

    def temperature(self, value: float) -> None:
        self.bench.clock.advance(1.0)
        self.bench.read_all()
        self.bench.read(east__temp=value)
        self.bench.engine.perceive(self.bench.clock.monotonic())
        self.bench.engine.safety(self.bench.clock.monotonic())
        self.keeper.changed()

    @property
    def status(self) -> InterlockStatus:
        return InterlockStatus(int(self.enforcer.status[0]))

    def events(self) -> list[str]:
        return [row.event for row in reversed(self.keeper.history(10))]


def test_manual_latch_survives_a_restart_until_somebody_resets_it(tmp_path: Path) -> None:
    first = KeeperRig(tmp_path)
    first.temperature(20.0)
    first.temperature(46.0)
    assert first.status is InterlockStatus.TRIPPED
    first.latches.close()

    second = KeeperRig(tmp_path, at=3.0)
    assert second.status is InterlockStatus.TRIPPED, "before anything was read"
    second.temperature(20.0)
    assert second.status is InterlockStatus.RESETTABLE
    assert second.enforcer.cause_text(0) == "temp > 45 Cel"
    result = second.keeper.reset("east/hot", "nurse", "valve replaced")
    assert result.accepted
    second.temperature(20.0)
    assert second.status is InterlockStatus.CLEAR
    assert second.events() == ["trip", "resettable", "reset"]
    assert second.keeper.history(1)[0].cause == "by nurse: valve replaced"
    second.latches.close()

    third = KeeperRig(tmp_path, at=3.0)
    third.temperature(20.0)
    assert third.status is InterlockStatus.CLEAR
    third.latches.close()


def test_reset_of_a_live_cause_is_refused_and_logged(tmp_path: Path) -> None:
    one = KeeperRig(tmp_path)
    one.temperature(46.0)
    result = one.keeper.reset("east/hot", "nurse", "impatience")
    assert not result.accepted
    assert one.events()[-1] == "reset_refused"
    with pytest.raises(InterlockError, match="there is no interlock 'east/cold'"):
        one.keeper.reset("east/cold", "nurse", "typing")
    one.latches.close()


def test_damaged_store_counts_as_tripped_and_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "latches.db").write_bytes(b"not a database" * 100)
    one = KeeperRig(tmp_path)
    assert one.status is InterlockStatus.TRIPPED
    assert "damaged" in one.enforcer.cause_text(0)
    assert len(list(tmp_path.glob("latches.db.damaged-*"))) == 1
    one.temperature(20.0)
    assert one.status is InterlockStatus.RESETTABLE, "a person looks at it first"
    one.latches.close()


def test_refusing_disk_is_reported_and_stored_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = KeeperRig(tmp_path)
    one.temperature(20.0)
    assert one.keeper.durable
    real = one.latches._connection

    class FullDisk:
        def __enter__(self) -> FullDisk:
            raise sqlite3.OperationalError("database or disk is full")

        def __exit__(self, *_exc: object) -> None:
            raise AssertionError

    monkeypatch.setattr(one.latches, "_connection", FullDisk())
    one.temperature(46.0)
    assert not one.keeper.durable
    assert one.status is InterlockStatus.TRIPPED, "the trip itself needs no disk"
    one.temperature(46.0)
    monkeypatch.setattr(one.latches, "_connection", real)
    one.keeper.changed()
    assert one.keeper.durable
    one.latches.close()
    second = KeeperRig(tmp_path, at=1.0)
    assert second.status is InterlockStatus.TRIPPED
    second.latches.close()


def test_nothing_new_touches_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = KeeperRig(tmp_path)
    one.temperature(20.0)
    saved: list[int] = []
    monkeypatch.setattr(one.latches, "save", lambda _remembered: saved.append(1))
    for _ in range(5):
        one.temperature(21.0)
    assert saved == []
    one.latches.close()
