"""Small facts about processes that several of ours need."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT_VARIABLE = "POETD_PARENT"
"""The supervisor's process id, for its children: only so can a child know that its parent ended before it looked."""
_PR_SET_PDEATHSIG = 1


def started_by() -> int:
    """The process that started us, even if it has ended meanwhile; without a supervisor, the present parent."""
    return int(os.environ.get(PARENT_VARIABLE) or os.getppid())


def die_with_parent(sig: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Have the kernel send us ``sig`` when our parent ends, so that no process of ours outlives its supervisor (Linux).

    ``parent``: who it should be; if it is somebody else by now, the end comes at once.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid() if parent is None else parent
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, sig, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os.kill(os.getpid(), sig)
