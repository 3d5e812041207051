"""The buffer: order, bounds, counts, and what happens when the disk does not do its part."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agent.runtime.clock import ManualClock
from agent.telemetry import buffer as buffer_module
from agent.telemetry.buffer import CORRUPT_SUFFIX, FILE_NAME, RETRY_S, Buffer
from agent.telemetry.disk import PAGE_BYTES, SPARE_PAGES, DiskQueue, _runs
from agent.telemetry.errors import BufferCorruptError
from agent.telemetry.memory import MEMORY_IDS, MemoryQueue
from agent.telemetry.rows import Message, Row

BIG = 1 << 30


def message(number: int, size: int = 10) -> Message:
    return Message("poet/v1/s/a/u/point/p", (b"%d " % number).ljust(size, b"x"), number % 2 == 0)


def numbers(rows: list[Row]) -> list[int]:
    return [int(row.payload.split()[0]) for row in rows]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def open_buffer(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., Buffer]]:
    opened: list[Buffer] = []

    def make(max_rows: int = 1000, max_bytes: int = BIG, folder: Path = tmp_path) -> Buffer:
        opened.append(Buffer(folder, max_rows, max_bytes, clock.monotonic))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_rows_come_back_in_order_and_whole(open_buffer: Callable[..., Buffer]) -> None:
    buffer = open_buffer()
    sent = [message(number) for number in range(5)]
    buffer.append(sent[:2])
    buffer.append(sent[2:])
    assert [Message(*row[1:]) for row in buffer.take(10)] == sent


def test_taken_rows_are_not_taken_twice_but_stay_until_removed(open_buffer: Callable[..., Buffer]) -> None:
    buffer = open_buffer()
    buffer.append([message(number) for number in range(4)])
    first = buffer.take(3)
    assert numbers(buffer.take(3)) == [3]
    assert buffer.take(3) == []
    assert buffer.stats().rows == 4
    buffer.remove([row.id for row in first[:2]])
    assert buffer.stats().rows == 2
    buffer.rewind()
    assert numbers(buffer.take(3)) == [2, 3]


def test_everything_not_removed_is_there_after_a_restart(open_buffer: Callable[..., Buffer]) -> None:
    buffer = open_buffer()
    buffer.append([message(number) for number in range(10)])
    buffer.remove([row.id for row in buffer.take(4)])
    size = buffer.stats().bytes
    buffer.close()
    again = open_buffer()
    assert again.stats().rows == 6
    assert again.stats().bytes == size == 6 * message(0).cost
    assert numbers(again.take(100)) == [4, 5, 6, 7, 8, 9]


def test_beyond_max_rows_the_oldest_are_dropped_and_counted_for_good(open_buffer: Callable[..., Buffer]) -> None:
    buffer = open_buffer(max_rows=10)
    for number in range(25):
        buffer.append([message(number)])
    assert buffer.stats().dropped == 15
    assert numbers(buffer.take(100)) == list(range(15, 25))
    buffer.close()
    again = open_buffer(max_rows=10)
    assert again.stats().dropped == 15
    again.append([message(25)])
    assert again.stats().dropped == 16


def test_beyond_max_bytes_the_oldest_are_dropped(open_buffer: Callable[..., Buffer]) -> None:
    buffer = open_buffer(max_bytes=10 * message(0).cost)
    buffer.append([message(number) for number in range(7)])
    buffer.append([message(number) for number in range(7, 14)])
    assert numbers(buffer.take(100)) == list(range(4, 14))
    assert buffer.stats().dropped == 4
    assert buffer.stats().bytes <= 10 * message(0).cost


def test_the_newest_message_is_kept_even_if_it_alone_is_too_large(open_buffer: Callable[..., Buffer]) -> None:
    buffer = open_buffer(max_bytes=100)
    buffer.append([message(1), message(2, size=5000)])
    assert numbers(buffer.take(10)) == [2]
    assert buffer.stats().dropped == 1


def test_what_was_dropped_before_the_buffer_is_counted_too(open_buffer: Callable[..., Buffer]) -> None:
    buffer = open_buffer()
    buffer.append([], already_dropped=7)
    buffer.close()
    assert open_buffer().stats().dropped == 7


def test_an_acknowledgement_of_a_row_dropped_meanwhile_takes_nothing_else(open_buffer: Callable[..., Buffer]) -> None:
    buffer = open_buffer(max_rows=3)
    buffer.append([message(number) for number in range(3)])
    taken = buffer.take(3)
    buffer.append([message(3), message(4)])
    buffer.remove([row.id for row in taken])
    assert buffer.stats().rows == 2
    assert numbers(buffer.take(10)) == [3, 4]


def test_the_file_gives_its_space_back_after_an_outage(open_buffer: Callable[..., Buffer], tmp_path: Path) -> None:
    buffer = open_buffer()
    buffer.append([message(number, size=8000) for number in range(900)])
    buffer.close()
    size = (tmp_path / FILE_NAME).stat().st_size
    buffer = open_buffer()
    buffer.remove([row.id for row in buffer.take(1000)])
    buffer.close()
    assert size > 7_000_000
    assert (tmp_path / FILE_NAME).stat().st_size < SPARE_PAGES * PAGE_BYTES


def test_max_bytes_is_about_the_size_of_the_file(open_buffer: Callable[..., Buffer], tmp_path: Path) -> None:
    buffer = open_buffer(max_rows=100_000, max_bytes=2_000_000)
    for start in range(0, 30_000, 1000):
        buffer.append([message(number, size=100) for number in range(start, start + 1000)])
    kept = buffer.stats().bytes
    buffer.close()
    assert 0.7 < (tmp_path / FILE_NAME).stat().st_size / kept < 1.4


WRITER = """
import sys
from itertools import pairwise
from pathlib import Path
from agent.telemetry.buffer import Buffer
from agent.telemetry.rows import Message
buffer = Buffer(Path(sys.argv[1]), 1_000_000, 1 << 30)
number = 0
while True:
    buffer.append([Message("a", b"%d" % (number + i), False) for i in range(7)])
    number += 7
    print(number, flush=True)
"""


@pytest.mark.fault
def test_every_committed_row_survives_kill_9(open_buffer: Callable[..., Buffer], tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    written = 0
    for line in child.stdout:
        written = int(line)
        if written >= 2000:
            os.kill(child.pid, signal.SIGKILL)
            break
    written = max([written, *(int(line) for line in child.stdout.read().split(b"\n")[:-1] if line)])
    child.stdout.close()
    child.wait()
    found = numbers(open_buffer(max_rows=1_000_000).take(1_000_000))
    assert found == list(range(len(found)))
    assert len(found) >= written


@pytest.mark.fault
@pytest.mark.parametrize("damage", ["not sqlite", "page overwritten", "truncated", "other version", "foreign database"])
def test_a_damaged_file_is_moved_aside_and_a_new_one_started(
    damage: str, open_buffer: Callable[..., Buffer], tmp_path: Path
) -> None:
    path = tmp_path / FILE_NAME
    buffer = open_buffer()
    buffer.append([message(number, size=500) for number in range(200)])
    buffer.close()
    if damage == "not sqlite":
        path.write_bytes(b"this is no database, whatever its name says" * 100)
    elif damage == "page overwritten":
        with path.open("r+b") as file:
            file.seek(4096 * 5)
            file.write(os.urandom(4096 * 20))
    elif damage == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE other (x)" if damage == "foreign database" else "PRAGMA user_version = 99")
            db.execute("CREATE TABLE message (x)")
        db.close()
    before = path.read_bytes()
    with capture_logs() as logs:
        buffer = open_buffer()
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert logs[0]["moved_to"] == str(tmp_path / (FILE_NAME + CORRUPT_SUFFIX))
    assert Path(logs[0]["moved_to"]).read_bytes() == before
    buffer.append([message(1)])
    assert numbers(buffer.take(10)) == [1]
    assert buffer.stats().durable


@pytest.mark.fault
def test_only_one_damaged_file_is_kept(open_buffer: Callable[..., Buffer], tmp_path: Path) -> None:
    for attempt in range(3):
        (tmp_path / FILE_NAME).write_bytes(b"rubbish %d" % attempt * 1000)
        open_buffer().close()
    aside = [path.name for path in tmp_path.iterdir() if CORRUPT_SUFFIX in path.name]
    assert aside == [FILE_NAME + CORRUPT_SUFFIX]


@pytest.mark.fault
def test_a_damaged_file_that_cannot_be_moved_leaves_memory(open_buffer: Callable[..., Buffer], tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"rubbish" * 1000)
    (tmp_path / (FILE_NAME + CORRUPT_SUFFIX)).mkdir()
    buffer = open_buffer()
    buffer.append([message(1)])
    assert numbers(buffer.take(10)) == [1]
    assert not buffer.stats().durable


@pytest.mark.fault
def test_a_file_damaged_while_in_use_costs_no_new_message(open_buffer: Callable[..., Buffer], tmp_path: Path) -> None:
    buffer = open_buffer(max_rows=100_000)
    buffer.append([message(number, size=3000) for number in range(1500)])
    buffer._disk._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # type: ignore[union-attr]
    buffer._disk._db.execute("PRAGMA cache_size = 1").fetchall()  # type: ignore[union-attr]
    with (tmp_path / FILE_NAME).open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom((tmp_path / FILE_NAME).stat().st_size - 4096))
    with capture_logs() as logs:
        buffer.take(2000)
        buffer.append([message(5000)])
        buffer.append([message(5001)])
    assert [entry["log_level"] for entry in logs] == ["warning", "warning", "info"]
    buffer.rewind()
    assert numbers(buffer.take(10)) == [5000, 5001]
    assert buffer.stats().durable


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A state folder that cannot be made: a file stands in its way (also root cannot write there)."""
    (tmp_path / "state").write_text("")
    return tmp_path / "state"


@pytest.mark.fault
def test_an_unwritable_folder_falls_back_to_memory_once_and_says_so(
    open_buffer: Callable[..., Buffer], blocked: Path
) -> None:
    with capture_logs() as logs:
        buffer = open_buffer(folder=blocked)
        buffer.append([message(1)])
        buffer.append([message(2)])
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert "make the folder writable" in logs[0]["event"]
    assert not buffer.stats().durable
    assert numbers(buffer.take(10)) == [1, 2]


@pytest.mark.fault
def test_memory_is_bounded_and_counts(open_buffer: Callable[..., Buffer], blocked: Path) -> None:
    buffer = open_buffer(max_rows=5, folder=blocked)
    buffer.append([message(number) for number in range(12)])
    assert buffer.stats().dropped == 7
    assert numbers(buffer.take(100)) == [7, 8, 9, 10, 11]


@pytest.mark.fault
def test_memory_never_takes_more_than_its_small_share(
    open_buffer: Callable[..., Buffer], blocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer_module, "MEMORY_ROWS", 3)
    buffer = open_buffer(max_rows=1_000_000, folder=blocked)
    buffer.append([message(number) for number in range(10)])
    assert buffer.stats().rows == 3


@pytest.mark.fault
def test_a_folder_that_becomes_writable_takes_what_waited(
    open_buffer: Callable[..., Buffer], blocked: Path, clock: ManualClock
) -> None:
    buffer = open_buffer(max_rows=2500, folder=blocked)
    buffer.append([message(number) for number in range(3000)])
    blocked.unlink()
    clock.advance(RETRY_S - 1.0)
    buffer.append([message(3000)])
    assert not buffer.stats().durable
    clock.advance(1.0)
    with capture_logs() as logs:
        buffer.append([message(3001)])
    assert [(entry["log_level"], entry["moved_from_memory"]) for entry in logs] == [("info", 2500)]
    assert buffer.stats().durable
    assert buffer.stats().dropped == 502
    buffer.close()
    again = open_buffer(max_rows=2500, folder=blocked)
    assert again.stats().dropped == 502
    assert numbers(again.take(10_000)) == list(range(502, 3002))


@pytest.mark.fault
def test_rows_moved_to_disk_are_not_lost_by_an_acknowledgement_of_their_old_ids(
    open_buffer: Callable[..., Buffer], tmp_path: Path, clock: ManualClock
) -> None:
    first = open_buffer(folder=tmp_path / "state")
    first.append([message(number) for number in range(3)])
    first.close()
    (tmp_path / "state").rename(tmp_path / "elsewhere")
    (tmp_path / "state").write_text("")
    buffer = open_buffer(folder=tmp_path / "state")
    buffer.append([message(10), message(11)])
    in_flight = buffer.take(2)
    (tmp_path / "state").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "state")
    clock.advance(RETRY_S)
    buffer.append([message(12)])
    buffer.remove([row.id for row in in_flight])
    buffer.rewind()
    assert numbers(buffer.take(100)) == [0, 1, 2, 10, 11, 12]


def fill_up(buffer: Buffer) -> Callable[[], None]:
    """Make SQLite say "database or disk is full" as a full disk does; returns what makes room again."""
    db = buffer._disk._db  # type: ignore[union-attr]
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    return lambda: db.execute("PRAGMA max_page_count = 1000000").fetchall()


@pytest.mark.fault
def test_a_full_disk_delays_nothing_and_loses_nothing(open_buffer: Callable[..., Buffer], clock: ManualClock) -> None:
    buffer = open_buffer()
    buffer.append([message(number) for number in range(10)])
    make_room = fill_up(buffer)
    with capture_logs() as logs:
        buffer.append([message(number, size=5000) for number in range(10, 20)])
        buffer.append([message(20)])
        clock.advance(RETRY_S)
        buffer.append([message(21)])
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert "full" in logs[0]["error"]
    assert numbers(buffer.take(100)) == list(range(10))
    assert numbers(buffer.take(100)) == list(range(10, 22))
    make_room()
    clock.advance(RETRY_S)
    with capture_logs() as logs:
        buffer.append([message(22)])
    assert [entry["log_level"] for entry in logs] == ["info"]
    buffer.rewind()
    assert numbers(buffer.take(100)) == list(range(23))
    assert buffer.stats().durable


@pytest.mark.fault
def test_another_agent_on_the_same_file_waits_in_memory(open_buffer: Callable[..., Buffer], clock: ManualClock) -> None:
    first = open_buffer()
    first.append([message(1)])
    with capture_logs() as logs:
        second = open_buffer()
    assert "locked" in logs[0]["error"]
    second.append([message(2)])
    first.close()
    clock.advance(RETRY_S)
    second.append([message(3)])
    second.rewind()
    assert numbers(second.take(10)) == [1, 2, 3]


@pytest.mark.fault
def test_messages_lost_at_stop_are_said(blocked: Path, clock: ManualClock) -> None:
    buffer = Buffer(blocked, 100, BIG, clock.monotonic)
    buffer.append([message(1), message(2)])
    with capture_logs() as logs:
        buffer.close()
    assert [(entry["log_level"], entry["rows"]) for entry in logs if "lost" in entry["event"]] == [("warning", 2)]


def test_disk_errors_are_raised_by_the_queue_itself(tmp_path: Path) -> None:
    (tmp_path / "q.db").write_bytes(b"rubbish" * 1000)
    with pytest.raises(BufferCorruptError):
        DiskQueue(tmp_path / "q.db", 10, BIG)
    with pytest.raises(sqlite3.OperationalError):
        DiskQueue(tmp_path / "no such folder" / "q.db", 10, BIG)


def test_ids_in_memory_are_far_above_those_on_disk(tmp_path: Path) -> None:
    disk = DiskQueue(tmp_path / "q.db", 10, BIG)
    memory = MemoryQueue(10, BIG)
    for queue in (disk, memory):
        queue.append([message(1)])
    assert disk.take(1)[0].id < MEMORY_IDS <= memory.take(1)[0].id
    disk.close()


@given(st.sets(st.integers(0, 60)))
def test_runs_cover_exactly_the_ids(ids: set[int]) -> None:
    runs = list(_runs(sorted(ids)))
    assert [number for first, last in runs for number in range(first, last + 1)] == sorted(ids)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(runs))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 6)),
        st.tuples(st.just("take"), st.integers(1, 6)),
        st.tuples(st.just("rewind"), st.just(0)),
        st.tuples(st.just("remove"), st.integers(0, 63)),
        st.tuples(st.just("reopen"), st.just(0)),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(STEPS, st.sampled_from([3, 8, 1000]), st.sampled_from(["disk", "memory"]))
def test_both_queues_do_what_a_plain_list_does(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], max_rows: int, kind: str
) -> None:
    path = tmp_path_factory.mktemp("model") / "q.db"
    queue: DiskQueue | MemoryQueue = DiskQueue(path, max_rows, BIG) if kind == "disk" else MemoryQueue(max_rows, BIG)
    model: list[int] = []
    taken: list[Row] = []
    cursor = -1
    number = dropped = 0
    for action, argument in steps:
        if action == "append":
            queue.append([message(number + index) for index in range(argument)])
            model += range(number, number + argument)
            number += argument
            while len(model) > max_rows:
                model.pop(0)
                dropped += 1
        elif action == "take":
            rows = queue.take(argument)
            assert numbers(rows) == [entry for entry in model if entry > cursor][:argument]
            if rows:
                cursor = numbers(rows)[-1]
            taken += rows
        elif action == "rewind":
            queue.rewind()
            cursor = -1
        elif action == "remove":
            chosen = [row for index, row in enumerate(taken) if argument >> (index % 6) & 1]
            queue.remove([row.id for row in chosen])
            model = [entry for entry in model if entry not in set(numbers(chosen))]
            taken = [row for row in taken if row not in chosen]
        elif isinstance(queue, DiskQueue):
            queue.close()
            queue = DiskQueue(path, max_rows, BIG)
            cursor = -1
            taken = []  # ids may be given again by another process
        assert queue.rows == len(model)
        assert queue.bytes == len(model) * message(0).cost
        assert queue.dropped == dropped
    queue.rewind()
    assert numbers(queue.take(10_000)) == model
    if isinstance(queue, DiskQueue):
        queue.close()
