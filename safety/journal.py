"""The write journal: every point we hold, and how to give it back, on the disk before the first write frame leaves.

The release (at a clean stop, by the supervisor after a crash, and before every start) replays it. The first value found
on a point is kept, across restarts too, until the point is released: after a crash the value on the device is our own,
not the equipment's. A damaged journal is an error that names the file: an empty one would mean that we hold nothing.
Standard library only.
"""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final, Self, final

from safety.durable import open_store
from safety.errors import DamagedStoreError, StoreError

APPLICATION_ID: Final = 0x504F454A  # "POEJ"
VERSION: Final = 1
MAX_HELD: Final = 100_000
MAX_TEXT: Final = 16_384
"""Characters of a device's settings or a point's address."""

_SCHEMA: Final = (
    "CREATE TABLE held (point TEXT PRIMARY KEY, device TEXT NOT NULL, protocol TEXT NOT NULL,"
    " settings_json TEXT NOT NULL, address_json TEXT NOT NULL,"
    " before REAL, can_relinquish INTEGER NOT NULL, priority INTEGER) STRICT",
)


@final
@dataclass(frozen=True, slots=True)
class Held:
    """One point we hold: where it is, and how to give it back: relinquish if ``can_relinquish``, else write ``before``
    (in the point's unit).
    """

    point: str
    device: str
    protocol: str
    settings_json: str
    address_json: str
    before: float | None
    can_relinquish: bool
    priority: int | None


@final
class Journal:
    """The journal. Safe to call from several threads; what a call wrote is on the disk when it returns."""

    def __init__(self, path: Path) -> None:
        """Open or create.

        Raises:
            DamagedStoreError: the file is damaged; the message says what to do. It is left where it is.
            StoreError: it cannot be opened, or is of a newer version.
        """
        self._path = path
        self._lock = threading.Lock()
        try:
            self._connection = open_store(path, APPLICATION_ID, VERSION, _SCHEMA)
            self._held = {one.point: one for one in self._read()}
        except DamagedStoreError as error:
            raise DamagedStoreError(
                f"write journal: {error}. What poetd holds on the devices is not known: bring every written point to a "
                f"safe state by hand, then move {path} away and start again"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. What is held stays held."""
        with self._lock:
            self._connection.close()

    def is_held(self, point: str) -> bool:
        """Whether the point is in the journal. Touches no disk."""
        return point in self._held

    def get(self, point: str) -> Held | None:
        """The point's entry. Touches no disk."""
        return self._held.get(point)

    def holding(self) -> list[Held]:
        """Everything we hold, in the order it was first held. Touches no disk."""
        return list(self._held.values())

    def hold(
        self,
        point: str,
        device: str,
        protocol: str,
        settings_json: str,
        address_json: str,
        before: float | None,
        can_relinquish: bool,
        priority: int | None,
    ) -> None:
        """:meth:`hold_many` for one point."""
        self.hold_many([Held(point, device, protocol, settings_json, address_json, before, can_relinquish, priority)])

    def hold_many(self, entries: Sequence[Held]) -> None:
        """Record points before they are first written, in one commit. A point that is held keeps its first entry.

        Raises:
            StoreError: an entry gives no way back, contradicts what is held, is too large, or the disk refuses. Nothing
                was recorded then, and nothing may be written.
        """
        with self._lock:
            fresh = dict[str, Held]()
            for one in entries:
                if not self._same_place(one):
                    _check(one)
                    fresh.setdefault(one.point, one)
            if not fresh:
                return
            if len(self._held) + len(fresh) > MAX_HELD:
                raise StoreError(f"{self._path}: more than {MAX_HELD} points held; run poetd release")
            try:
                with self._connection as db:
                    db.executemany(
                        "INSERT INTO held VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [astuple(one) for one in fresh.values()]
                    )
            except sqlite3.Error as error:
                raise StoreError(f"{self._path}: cannot record {next(iter(fresh))}: {error}; check the disk") from error
            self._held.update(fresh)

    def released(self, point: str) -> None:
        """:meth:`released_many` for one point."""
        self.released_many([point])

    def released_many(self, points: Iterable[str]) -> None:
        """Forget points that have been given back, in one commit. Points not held are ignored. Raises StoreError."""
        with self._lock:
            gone = [point for point in dict.fromkeys(points) if point in self._held]
            if not gone:
                return
            try:
                with self._connection as db:
                    db.executemany("DELETE FROM held WHERE point = ?", [(point,) for point in gone])
            except sqlite3.Error as error:
                raise StoreError(
                    f"{self._path}: cannot record the release of {gone[0]}: {error}; check the disk"
                ) from error
            for point in gone:
                del self._held[point]

    def _same_place(self, entry: Held) -> bool:
        held = self._held.get(entry.point)
        if held is None:
            return False
        if (held.device, held.protocol, held.address_json) != (entry.device, entry.protocol, entry.address_json):
            raise StoreError(
                f"{self._path}: {entry.point} is still held on device {held.device} at {held.address_json}, and is now "
                f"to be written on {entry.device} at {entry.address_json}; run poetd release first"
            )
        return True

    def _read(self) -> list[Held]:
        try:
            rows = self._connection.execute("SELECT * FROM held ORDER BY rowid").fetchall()
            return [
                Held(point, device, protocol, settings, address, before, bool(can_relinquish), priority)
                for point, device, protocol, settings, address, before, can_relinquish, priority in rows
            ]
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise DamagedStoreError(f"{self._path} is damaged: {error}") from error


def _check(entry: Held) -> None:
    if entry.before is None and not entry.can_relinquish:
        raise StoreError(f"{entry.point}: neither a value to restore nor a way to relinquish: it must not be written")
    if entry.before is not None and not math.isfinite(entry.before):
        raise StoreError(f"{entry.point}: the value to restore is {entry.before}: it must be finite")
    if max(map(len, (entry.point, entry.device, entry.protocol, entry.settings_json, entry.address_json))) > MAX_TEXT:
        raise StoreError(f"{entry.point}: settings and address may have at most {MAX_TEXT} characters each")
