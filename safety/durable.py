"""Opening a SQLite file that must be believed after a power cut: what it is, which version, and whether it is whole.

Write-ahead log with ``synchronous=FULL``: a commit that returned is on the disk. A file is created beside its name and
moved into place complete, so that a half-created one can never be mistaken for an empty one. Standard library only.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from safety.errors import DamagedStoreError, StoreError


def open_store(path: Path, application_id: int, version: int, schema: Sequence[str]) -> sqlite3.Connection:
    """Open, or create with mode 0600. The connection may be used from several threads, one at a time.

    Raises:
        DamagedStoreError: the file is not a whole store of this application.
        StoreError: it is of a newer version, or cannot be opened or created.
    """
    try:
        if not path.exists():
            if path.with_name(f"{path.name}-wal").exists():
                raise DamagedStoreError(f"{path} is gone, but its write-ahead log is there")
            _create(path, application_id, version, schema)
        elif path.stat().st_size == 0:
            raise DamagedStoreError(f"{path} is empty: it was truncated")
        return _open_whole(path, application_id, version)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error}; check the folder and its owner") from error


def _create(path: Path, application_id: int, version: int, schema: Sequence[str]) -> None:
    fresh = path.with_name(f"{path.name}.new-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    connection = sqlite3.connect(fresh)
    try:
        for statement in (f"PRAGMA application_id = {application_id}", f"PRAGMA user_version = {version}", *schema):
            connection.execute(statement)
        connection.commit()
    except sqlite3.Error as error:
        connection.close()
        fresh.unlink(missing_ok=True)  # whoever starts us tries again for ever: nothing may pile up on a full disk
        raise StoreError(f"{path} cannot be created: {error}") from error
    connection.close()
    with fresh.open("rb") as stored:
        os.fsync(stored.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _open_whole(path: Path, application_id: int, version: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, timeout=5.0)
    try:
        (found_id,) = connection.execute("PRAGMA application_id").fetchone()
        (found_version,) = connection.execute("PRAGMA user_version").fetchone()
        if found_id != application_id:
            raise DamagedStoreError(
                f"{path} is not the file it should be: application id {found_id:#x}, expected {application_id:#x}"
            )
        if found_version != version:
            raise StoreError(
                f"{path} has version {found_version}, this program reads {version}; use the program that wrote it"
            )
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise DamagedStoreError(f"{path} is damaged: {verdict}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.OperationalError as error:
        connection.close()
        raise StoreError(f"{path} cannot be opened: {error}; is another poetd running?") from error
    except sqlite3.DatabaseError as error:
        connection.close()
        raise DamagedStoreError(f"{path} is damaged: {error}") from error
    except StoreError:
        connection.close()
        raise
    return connection
