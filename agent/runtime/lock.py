"""One poetd per state folder: two would release each other's points and write over each other's commands."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from agent.runtime.errors import StateFolderError

LOCK_FILE = "lock"


def take(state_dir: Path) -> int:
    """Lock the folder; returns the descriptor that holds the lock for as long as any process has it open.

    Raises StateFolderError if another process holds it, or the file cannot be used.
    """
    path = state_dir / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StateFolderError(f"{path} cannot be opened: {error.strerror}; check the folder and its owner") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StateFolderError(
            f"another poetd (process {holder}) works with {state_dir}: stop it first, it then gives back what it holds; "
            "or give another --state-dir"
        ) from error
    with contextlib.suppress(OSError):  # the name is for the message above only: a full disk must not stop a release
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


@contextlib.contextmanager
def taken(state_dir: Path) -> Iterator[None]:
    """The folder locked for a block. Raises as :func:`take` does."""
    descriptor = take(state_dir)
    try:
        yield
    finally:
        os.close(descriptor)
