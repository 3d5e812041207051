"""The learning store: versions, one writer, bounds, damage, and what a killed writer leaves behind."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agent.train.errors import StoreBusyError, StoreCorruptError, StoreError
from agent.train.messages import ParameterState
from agent.train.store import FeedbackWindow, LearningStore, ParameterVersion
from agent.train.storefile import KEPT_DAMAGED


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "learning.sqlite"


def propose(store: LearningStore, value: float, utc: float = 0.0, name: str = "setback") -> ParameterVersion:
    return store.propose("east", name, value, factory=3.0, reason="why", utc=utc, standard_error=0.1)


def in_force(value: float, version: int, factory: float = 3.0) -> dict[str, ParameterState]:
    return {"setback": ParameterState(value, version, factory, 1.0, 8.0, 0.5)}


def window(k: int) -> FeedbackWindow:
    return FeedbackWindow("east", float(k), 3.0, 21.0 + k, 22.0, 700, 720, "moved")


def test_a_proposal_is_not_in_force_until_it_is_activated(path: Path) -> None:
    with LearningStore(path) as store:
        row = propose(store, 3.5)
        assert store.active("east", "setback") is None
        assert store.active_all() == {}
        active = store.activate("east", "setback", row.version)
        assert active.active
        assert store.active("east", "setback") == active
        assert store.active_all() == {("east", "setback"): active}
        assert active == ParameterVersion("east", "setback", 1, 3.5, 3.0, "learned", "why", 0.0, 0.1, "active")


def test_every_version_is_kept_with_its_reason_and_only_one_is_active(path: Path) -> None:
    with LearningStore(path) as store:
        for value in (3.5, 4.0, 4.5):
            store.activate("east", "setback", propose(store, value).version)
        store.refuse("east", "setback", propose(store, 99.0).version, "outside the range")
        history = store.history("east", "setback")
    assert [(row.version, row.value, row.state) for row in history] == [
        (4, 99.0, "refused"),
        (3, 4.5, "active"),
        (2, 4.0, "retired"),
        (1, 3.5, "retired"),
    ]
    assert history[0].reason == "why; refused: outside the range"


def test_a_refusal_that_comes_late_cannot_take_an_active_version_out_of_force(path: Path) -> None:
    with LearningStore(path) as store:
        store.activate("east", "setback", propose(store, 3.5).version)
        store.refuse("east", "setback", 1, "late")
        active = store.active("east", "setback")
    assert active is not None
    assert active.value == 3.5


def test_rollback_is_a_new_version_of_the_operator(path: Path) -> None:
    with LearningStore(path) as store:
        for value in (3.5, 4.0):
            store.activate("east", "setback", propose(store, value).version)
        row = store.rollback("east", "setback", 1, reason="complaints", utc=77.0)
        assert (row.version, row.value, row.source, row.utc, row.active) == (3, 3.5, "operator", 77.0, True)
        assert "version 1" in row.reason
        assert "complaints" in row.reason
        assert store.active("east", "setback") == row


def test_rollback_to_what_was_never_in_force_is_refused(path: Path) -> None:
    with LearningStore(path) as store:
        store.activate("east", "setback", propose(store, 3.5).version)
        propose(store, 9.0)
        with pytest.raises(StoreError, match="only proposed"):
            store.rollback("east", "setback", 2, reason="", utc=0.0)
        with pytest.raises(StoreError, match="no version 7"):
            store.rollback("east", "setback", 7, reason="", utc=0.0)
        active = store.active("east", "setback")
    assert active is not None
    assert active.version == 1


def test_unknown_versions_are_errors(path: Path) -> None:
    with LearningStore(path) as store:
        with pytest.raises(StoreError, match="no version 5"):
            store.activate("east", "setback", 5)
        with pytest.raises(StoreError, match="no version 5"):
            store.refuse("east", "setback", 5, "why")


def test_adopting_the_factory_value_begins_the_history(path: Path) -> None:
    with LearningStore(path) as store:
        store.adopt("east", in_force(3.0, 0), utc=5.0)
        store.adopt("east", in_force(3.0, 0), utc=6.0)
        (row,) = store.history("east", "setback")
    assert (row.version, row.value, row.source, row.utc, row.active) == (1, 3.0, "factory", 5.0, True)


def test_a_changed_factory_value_is_a_new_version(path: Path) -> None:
    with LearningStore(path) as store:
        store.activate("east", "setback", propose(store, 3.5).version)
        store.adopt("east", in_force(5.0, 0, factory=5.0), utc=5.0)
        active = store.active("east", "setback")
    assert active is not None
    assert (active.version, active.value, active.source) == (2, 5.0, "factory")


def test_a_version_core_accepted_before_the_worker_noted_it_becomes_active(path: Path) -> None:
    with LearningStore(path) as store:
        store.activate("east", "setback", propose(store, 3.5).version)
        row = propose(store, 4.0)
        store.adopt("east", in_force(4.0, row.version), utc=5.0)
        active = store.active("east", "setback")
    assert active is not None
    assert (active.version, active.value, active.source) == (2, 4.0, "learned")


def test_a_value_the_store_has_lost_is_written_anew_and_later_versions_exceed_it(path: Path) -> None:
    with LearningStore(path) as store:
        store.adopt("east", in_force(4.25, 17), utc=5.0)
        active = store.active("east", "setback")
        assert active is not None
        assert (active.version, active.value) == (17, 4.25)
        assert propose(store, 4.5).version == 18


def test_everything_survives_closing(path: Path) -> None:
    with LearningStore(path) as store:
        store.activate("east", "setback", propose(store, 3.5, utc=9.0).version)
        store.add_window(window(1), "setback", {"intercept": 1.5})
    with LearningStore(path) as store:
        active = store.active("east", "setback")
        assert active is not None
        assert (active.value, active.utc) == (3.5, 9.0)
        assert store.windows("east") == [window(1)]
        assert store.learner_state("east", "setback") == {"intercept": 1.5}
        assert store.learner_state("west", "setback") == {}


def test_feedback_is_bounded_and_what_is_dropped_is_counted(path: Path) -> None:
    with LearningStore(path, max_feedback_rows=10) as store:
        for k in range(25):
            store.add_window(window(k), "setback", {})
        assert [row.utc for row in store.windows("east")] == [float(k) for k in range(24, 14, -1)]
        assert store.counters() == {"feedback_dropped": 15, "versions_dropped": 0}


def test_versions_are_bounded_but_the_active_one_stays(path: Path) -> None:
    with LearningStore(path, max_versions=5) as store:
        store.activate("east", "setback", propose(store, 3.0).version)
        for k in range(20):
            propose(store, 3.0 + 0.1 * k)
        versions = [row.version for row in store.history("east", "setback")]
        assert versions == [21, 20, 19, 18, 17, 1]
        assert store.counters()["versions_dropped"] == 15
        assert store.active("east", "setback") is not None


def test_the_bound_of_one_parameter_does_not_touch_another(path: Path) -> None:
    with LearningStore(path, max_versions=2) as store:
        propose(store, 1.0, name="deadband")
        for _ in range(5):
            propose(store, 3.0)
        assert len(store.history("east", "deadband")) == 1


def test_one_writer_many_readers(path: Path) -> None:
    with LearningStore(path) as writer:
        writer.activate("east", "setback", propose(writer, 3.5).version)
        with pytest.raises(StoreBusyError, match="another process"):
            LearningStore(path)
        with LearningStore(path, read_only=True) as one, LearningStore(path, read_only=True) as two:
            writer.activate("east", "setback", propose(writer, 4.0).version)
            for reader in (one, two):
                active = reader.active("east", "setback")
                assert active is not None
                assert active.value == 4.0
            with pytest.raises(StoreError, match="readonly"):
                propose(one, 5.0)
    LearningStore(path).close()


def test_a_failed_transaction_changes_nothing(path: Path) -> None:
    with LearningStore(path) as store:
        store.activate("east", "setback", propose(store, 3.5).version)
        with pytest.raises(ValueError, match="not JSON compliant"):
            store.add_window(window(1), "setback", {"intercept": float("nan")})
        assert store.windows("east") == []
        store.add_window(window(2), "setback", {})
        assert store.windows("east") == [window(2)]


@pytest.mark.parametrize("damage", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_store_is_moved_aside_and_reported(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)
    with pytest.raises(StoreCorruptError, match=str(path)):
        LearningStore(path, read_only=True)
    with LearningStore(path) as store:
        assert store.recovered is not None
        assert "damaged-1" in store.recovered
        assert "factory values" in store.recovered
        assert store.active_all() == {}
        propose(store, 3.5)
    assert Path(f"{path}.damaged-1").read_bytes() == damage
    with LearningStore(path) as store:
        assert store.recovered is None
        assert len(store.history("east", "setback")) == 1


def test_a_page_damaged_in_the_middle_is_found_at_opening(path: Path) -> None:
    with LearningStore(path) as store:
        for k in range(300):
            store.add_window(window(k), "setback", {})
    content = bytearray(path.read_bytes())
    content[8192:12288] = b"\xa5" * 4096
    path.write_bytes(content)
    with LearningStore(path) as store:
        assert store.recovered is not None


def test_damaged_files_do_not_pile_up(path: Path) -> None:
    for k in range(KEPT_DAMAGED + 3):
        path.write_bytes(b"damage number %d" % k)
        LearningStore(path).close()
    kept = sorted(file.name for file in path.parent.glob("*.damaged-*"))
    assert kept == [f"{path.name}.damaged-{k}" for k in range(1, KEPT_DAMAGED + 1)]
    assert Path(f"{path}.damaged-1").read_bytes() == b"damage number %d" % (KEPT_DAMAGED + 2)


def test_damage_while_running_is_told_apart_from_other_failures(path: Path) -> None:
    with LearningStore(path) as store:
        store._db.execute("DROP TABLE feedback")
        with pytest.raises(StoreError, match="no such table") as caught:
            store.add_window(window(1), "setback", {})
        assert not isinstance(caught.value, StoreCorruptError)


def test_a_store_of_a_newer_release_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="newer poetd"):
        LearningStore(path)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)
    db.close()


def test_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="folder must exist"):
        LearningStore(tmp_path / "nowhere" / "learning.sqlite")
    with pytest.raises(StoreError, match="unable to open"):
        LearningStore(tmp_path / "none.sqlite", read_only=True)


def test_an_empty_file_read_only_is_no_store(path: Path) -> None:
    path.touch()
    with pytest.raises(StoreCorruptError, match="not a learning store"):
        LearningStore(path, read_only=True)


KILLED = """
import sys
from agent.train.store import LearningStore
store = LearningStore(sys.argv[1])
for k in range(1, 100000):
    row = store.propose("east", "setback", float(k), factory=3.0, reason="", utc=0.0, standard_error=None)
    store.activate("east", "setback", row.version)
    print(row.version, flush=True)
"""


@pytest.mark.fault
def test_a_writer_killed_in_the_middle_loses_nothing_it_had_activated(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = 0
        while told < 40:
            told = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        told = max([told, *(int(line) for line in process.stdout if line.endswith("\n"))])
    with LearningStore(path, read_only=True) as store:  # the reader sees it before any writer has cleaned up
        active = store.active("east", "setback")
    assert active is not None
    assert told <= active.version <= told + 1
    with LearningStore(path) as store:
        assert store.recovered is None
        assert store.active("east", "setback") == active
