"""Try a control function out in a forked child, so that one that hangs, exits or crashes costs only that child.

The zygote must never run a control function itself: it is what every worker is forked from. Comparing a compiled function with plain
Python does run it, over arguments nobody has thought of.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable

from agent.poet.batch import Run
from agent.poet.batch_load import first_difference
from agent.poet.functions import ControlFunction
from agent.runtime.operate.worker import limit_memory

PATIENCE_S = 5.0
"""The comparison takes milliseconds; a compiled function's first call may take a second on a small gateway."""
MEMORY_MB = 512
_MOST = 4096


def first_difference_in_child(function: ControlFunction, run: Run) -> str | None:
    """:func:`agent.poet.batch_load.first_difference` at arm's length: a hang or a crash is a difference too."""
    return in_child(lambda: first_difference(function, run), PATIENCE_S)


def in_child(work: Callable[[], str | None], patience_s: float) -> str | None:
    """What ``work`` returns in a forked child, or how the child ended instead. Raises OSError if there can be no child."""
    read, write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _answer(work, write)
    os.close(write)
    try:
        told, in_time = _listen(read, time.monotonic() + patience_s)
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        _pid, status = os.waitpid(child, 0)
    if not in_time:
        return f"tried out with random arguments, it did not answer within {patience_s:g} s"
    if told.startswith(b"="):
        return told[1:].decode("utf-8", "replace") or None
    code = os.waitstatus_to_exitcode(status)
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"tried out with random arguments, it ended its process ({how})"


def _answer(work: Callable[[], str | None], write: int) -> None:
    """The life of the child. Nothing of the parent's code may run in it, whatever ``work`` raises."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        limit_memory(MEMORY_MB)
        try:
            answer = work() or ""
        except Exception as error:  # noqa: BLE001  (site code can raise anything; the parent is told)
            answer = f"tried out with random arguments, it failed: {type(error).__name__}: {error}"
        os.write(write, b"=" + answer.encode("utf-8", "replace")[: _MOST - 1])
    finally:
        os._exit(70)


def _listen(read: int, until: float) -> tuple[bytes, bool]:
    """(what came, whether it came in time). The child says everything in one write no longer than PIPE_BUF."""
    poll = select.poll()
    poll.register(read, select.POLLIN)
    if not poll.poll(max(until - time.monotonic(), 0.0) * 1000.0):
        return b"", False
    return os.read(read, _MOST), True
