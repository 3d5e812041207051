"""The run and state folders: made private, checked before anything else needs them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from agent.runtime.errors import StateFolderError

SOCKET_PATH_MOST = 107
"""Bytes of a Unix socket's path (sockaddr_un, Linux)."""
LONGEST_NAME = "operate.sock"


def prepare(folder: Path, purpose: str) -> Path:
    """Make ``folder`` (mode 0700) and prove it can be written. Raises StateFolderError with the remedy."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StateFolderError(
            f"the {purpose} folder {folder} cannot be used: {error.strerror}; give another with --{purpose}-dir, or let the user "
            f"{os.getuid()} write there"
        ) from error
    if purpose == "run" and len(os.fsencode(folder / LONGEST_NAME)) > SOCKET_PATH_MOST:
        raise StateFolderError(
            f"the path of the run folder {folder} is too long for sockets in it: give one of at most "
            f"{SOCKET_PATH_MOST - len(LONGEST_NAME) - 1} characters with --run-dir"
        )
    info = folder.stat()
    if info.st_uid not in (os.getuid(), 0):
        raise StateFolderError(
            f"the {purpose} folder {folder} belongs to user {info.st_uid}: another user could replace our files"
        )
    if info.st_mode & 0o022:
        raise StateFolderError(f"the {purpose} folder {folder} is writable by others: chmod go-w {folder}")
    return folder
