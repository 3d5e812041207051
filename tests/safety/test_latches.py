"""The store of latches: durable, diffed, bounded, and believed only when it is whole."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from safety import latches
from safety.errors import StoreError
from safety.latches import Latches, LogRow
from safety.remembered import Remembered, SwitchRecord, TripRecord

UTC = 1_800_000_000.0
TRIP = TripRecord("z/static_high", UTC, "static > 750 Pa")
SWITCH = SwitchRecord("z/fan", True, UTC)
BOTH = Remembered((TRIP,), (SWITCH,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "latches.sqlite"


def test_a_new_store_is_empty_trusted_and_private(path: Path) -> None:
    with Latches(path, UTC) as store:
        assert store.load() == Remembered()
        assert store.damage == ""
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_what_is_saved_survives_reopening(path: Path) -> None:
    with Latches(path, UTC) as store:
        assert store.save(BOTH)
        assert not store.save(BOTH), "nothing changed: nothing is written"
    with Latches(path, UTC) as store:
        assert store.load() == BOTH
        cleared = Remembered((), (SwitchRecord("z/fan", False, UTC + 1), SwitchRecord("z/pump", True, UTC)))
        assert store.save(cleared)
    with Latches(path, UTC) as store:
        assert store.load() == cleared


CHILD = """
import sys, time
from pathlib import Path
from safety.latches import Latches
from safety.remembered import Remembered, SwitchRecord, TripRecord
store = Latches(Path(sys.argv[1]), 1.8e9)
for n in range(1, 1_000_000):
    store.save(Remembered((TripRecord("z/i", 1.8e9 + n, "x"),), (SwitchRecord("z/fan", True, 1.8e9 + n),)))
    print(n, flush=True)
"""


def test_what_was_saved_survives_kill_9(path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        saved = [int(child.stdout.readline()) for _ in range(25)][-1]
        child.kill()
        child.wait()
    with Latches(path, UTC) as store:
        assert store.damage == ""
        loaded = store.load()
        assert loaded.trips[0].tripped_utc >= 1.8e9 + saved
        assert loaded.switches[0].switched_utc == loaded.trips[0].tripped_utc, "one commit, not two halves"


def damage_header(path: Path) -> None:
    path.write_bytes(b"\0" * 64 + path.read_bytes()[64:])


def damage_tail(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 1000)


def another(path: Path) -> None:
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE held (x)")
    other.commit()
    other.close()


def no_table(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("DROP TABLE trip")
    other.commit()
    other.close()


@pytest.mark.parametrize("harm", [damage_header, damage_tail, empty, garbage, another, no_table])
def test_a_damaged_store_is_moved_aside_and_nothing_is_trusted(path: Path, harm: object) -> None:
    with Latches(path, UTC) as store:
        store.save(BOTH)
    harm(path)  # type: ignore[operator]
    with Latches(path, UTC + 5) as store:
        assert "moved to latches.sqlite.damaged-1800000005" in store.damage
        assert store.load() == Remembered(trusted=False)
    with Latches(path, UTC + 6) as store:
        assert not store.load().trusted, "until what was lost has been replaced"
        assert store.save(Remembered())
    with Latches(path, UTC + 7) as store:
        assert store.load() == Remembered()
    assert path.with_name("latches.sqlite.damaged-1800000005").exists()


def test_the_log_of_a_damaged_store_is_moved_with_it(path: Path) -> None:
    Latches(path, UTC).close()
    empty(path)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).write_bytes(b"left over")
    with Latches(path, float("nan")) as store:
        assert "damaged-0" in store.damage
    assert path.with_name(path.name + ".damaged-0-wal").exists()


def test_a_store_that_vanished_but_for_its_log_is_damaged(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(b"left over")
    with Latches(path, UTC) as store:
        assert "is gone" in store.damage
        assert not store.load().trusted


def test_a_newer_version_is_refused_not_replaced(path: Path) -> None:
    Latches(path, UTC).close()
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(StoreError, match="version 99"):
        Latches(path, UTC)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="check the folder"):
        Latches(tmp_path / "nowhere" / "latches.sqlite", UTC)


def test_a_store_somebody_holds_is_not_damaged(path: Path) -> None:
    with Latches(path, UTC) as store:
        store.save(BOTH)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.MonkeyPatch.context() as patch:
            connect = sqlite3.connect
            patch.setattr("safety.durable.sqlite3.connect", lambda *a, **k: connect(*a, **{**k, "timeout": 0.0}))
            with pytest.raises(StoreError, match="another poetd"):
                Latches(path, UTC)
    finally:
        other.close()
    with Latches(path, UTC) as store:
        assert store.load() == BOTH


def test_the_log_is_bounded_newest_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latches, "LOG_ROWS", 3)
    with Latches(path, UTC) as store:
        for n in range(5):
            store.log(LogRow(UTC + n, "z/i", "trip", "x" * 9999))
        rows = store.history()
        assert [row.utc - UTC for row in rows] == [4.0, 3.0, 2.0]
        assert len(rows[0].cause) == 500
        assert store.history(limit=1) == rows[:1]


def test_a_disk_that_refuses_is_an_error(path: Path) -> None:
    store = Latches(path, UTC)
    store.close()
    with pytest.raises(StoreError, match="check the disk"):
        store.save(BOTH)
    with pytest.raises(StoreError, match="check the disk"):
        store.log(LogRow(UTC, "z/i", "trip", ""))
    with pytest.raises(StoreError, match="cannot be read"):
        store.history()
    assert store.load() == Remembered(), "what was not stored is not remembered"


def test_a_store_that_cannot_be_created(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latches, "_SCHEMA", ("CREATE NONSENSE",))
    with pytest.raises(StoreError, match="cannot be created"):
        Latches(path, UTC)
