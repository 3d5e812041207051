"""The write journal: on the disk before the write, the first value kept, never silently empty."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from safety import journal
from safety.errors import DamagedStoreError, StoreError
from safety.journal import MAX_TEXT, Held, Journal

ONE = Held(
    "z/heating", "ahu", "modbus", json.dumps({"host": "10.0.0.1"}), json.dumps({"holding": 4}), 21.5, False, None
)
TWO = Held("z/fan", "ahu", "bacnet", "{}", "{}", None, True, 12)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def test_holding_and_releasing(path: Path) -> None:
    with Journal(path) as book:
        assert book.holding() == []
        book.hold_many([ONE, TWO, ONE])
        book.hold_many([])
        assert book.is_held("z/fan")
        assert book.get("z/heating") == ONE
        assert book.get("z/nothing") is None
    with Journal(path) as book:
        assert book.holding() == [ONE, TWO]
        book.released_many(["z/heating", "z/nothing"])
        book.released("z/nothing")
    with Journal(path) as book:
        assert book.holding() == [TWO]
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_first_value_is_kept_until_released(path: Path) -> None:
    with Journal(path) as book:
        book.hold(*(getattr(ONE, name) for name in Held.__slots__))
        book.hold_many([replace(ONE, before=99.0)])
    with Journal(path) as book:
        book.hold_many([replace(ONE, before=55.0, settings_json="{}")])
        assert book.holding() == [ONE]
        book.released("z/heating")
        book.hold_many([replace(ONE, before=55.0)])
        assert book.holding()[0].before == 55.0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (replace(ONE, before=None), "neither a value to restore nor a way to relinquish"),
        (replace(ONE, before=float("nan")), "must be finite"),
        (replace(TWO, before=float("inf")), "must be finite"),
        (replace(ONE, settings_json="x" * (MAX_TEXT + 1)), "at most 16384"),
    ],
)
def test_an_entry_without_a_way_back_is_refused_and_takes_the_batch_with_it(
    path: Path, bad: Held, message: str
) -> None:
    with Journal(path) as book:
        with pytest.raises(StoreError, match=message):
            book.hold_many([replace(TWO, point="z/other"), bad])
        assert book.holding() == []


def test_a_held_point_that_moved_must_be_released_first(path: Path) -> None:
    with Journal(path) as book:
        book.hold_many([ONE])
        with pytest.raises(StoreError, match="poetd release first"):
            book.hold_many([replace(ONE, address_json="{}")])


def test_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_HELD", 1)
    with Journal(path) as book:
        book.hold_many([ONE])
        with pytest.raises(StoreError, match="more than 1 points"):
            book.hold_many([TWO])
        assert book.holding() == [ONE]


CHILD = """
import sys
from pathlib import Path
from safety.journal import Held, Journal
book = Journal(Path(sys.argv[1]))
for n in range(1_000_000):
    book.hold_many([Held(f"z/p{n}-{k}", "d", "p", "{}", "{}", float(n), False, None) for k in range(3)])
    print(n, flush=True)
"""


def test_what_was_held_survives_kill_9(path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        acknowledged = [int(child.stdout.readline()) for _ in range(25)][-1]
        child.kill()
        child.wait()
    with Journal(path) as book:
        points = {one.point for one in book.holding()}
    assert {f"z/p{n}-{k}" for n in range(acknowledged + 1) for k in range(3)} <= points
    assert len(points) % 3 == 0, "a batch is there whole or not at all"


@pytest.mark.parametrize("content", [b"", b"garbage" * 2000])
def test_a_damaged_journal_is_an_error_that_names_it_and_stays_where_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DamagedStoreError, match=r"journal\.sqlite.*by hand.*move"):
        Journal(path)
    assert path.read_bytes() == content


def test_a_journal_without_its_table_is_damaged(path: Path) -> None:
    Journal(path).close()
    other = sqlite3.connect(path)
    other.execute("DROP TABLE held")
    other.close()
    with pytest.raises(DamagedStoreError, match="no such table"):
        Journal(path)


def test_a_page_that_went_bad_is_damage(path: Path) -> None:
    with Journal(path) as book:
        book.hold_many([replace(ONE, point=f"z/p{n}") for n in range(2000)])
    content = bytearray(path.read_bytes())
    content[8192:12288] = os.urandom(4096)
    path.write_bytes(bytes(content))
    with pytest.raises(DamagedStoreError, match="damaged"):
        Journal(path)


def test_the_latches_are_not_a_journal(path: Path) -> None:
    from safety.latches import Latches

    Latches(path, 1.8e9).close()
    with pytest.raises(DamagedStoreError, match="not the file it should be"):
        Journal(path)


def test_a_disk_that_refuses_is_an_error_and_nothing_counts_as_held(path: Path) -> None:
    book = Journal(path)
    book.hold_many([ONE])
    book.close()
    with pytest.raises(StoreError, match=r"cannot record z/fan.*check the disk"):
        book.hold_many([TWO])
    assert not book.is_held("z/fan")
    with pytest.raises(StoreError, match="release of z/heating"):
        book.released("z/heating")
    assert book.is_held("z/heating")
