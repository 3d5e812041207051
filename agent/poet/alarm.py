"""Stop Python code in the main thread when its time is up, with the interval timer.

The signal's handler raises :class:`StopWork` inside the work, wherever it is, also in a sleep or a blocking read. It is
not an ``Exception``, so the work's own ``except Exception`` cannot swallow it; what swallows everything is stopped
again every :data:`AGAIN_S`, and whatever it returns in the end is refused. Code that never returns to the interpreter
cannot be stopped from inside the process: ``isolation="process"`` is for that.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from agent.poet.errors import DeadlineExceededError

AGAIN_S: Final = 0.05
"""Between one stop and the next, for work that swallows the first."""


class StopWork(BaseException):
    """Ends the work of a call whose time is up. Never leaves this package."""

    def __init__(self, frame: Frame | None = None) -> None:
        super().__init__("the deadline of this call has passed")
        self.frame = frame


class Frame:
    """One call under a deadline; ``outer`` is the call it was made in."""

    __slots__ = ("deadline", "fired", "outer")

    def __init__(self, deadline: float, outer: Frame | None) -> None:
        self.deadline = deadline
        self.fired = False
        self.outer = outer


class _Alarm:
    """The innermost call under a deadline in the main thread."""

    __slots__ = ("frame",)

    def __init__(self) -> None:
        self.frame: Frame | None = None


_alarm = _Alarm()
_main = threading.main_thread().ident
_ident = threading.get_ident
_clock = time.monotonic
_arm = signal.setitimer
_handler_of = _signal.getsignal
"""Without the enum that signal.getsignal makes of the handler: it is asked at every call, and that costs 2 µs."""
_TIMER = signal.ITIMER_REAL
_SIGNAL = signal.SIGALRM


def usable() -> bool:
    """Whether this thread can be stopped by the timer: it is the main thread, and nobody else uses the signal."""
    return _ident() == _main and (_handler_of(_SIGNAL) is _on_alarm or _take_signal())


def call(function: str, timeout: float, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Do the work, or stop it after ``timeout`` seconds. Only where :func:`usable`.

    Raises:
        DeadlineExceededError: it was stopped, or it ended too late.
    """
    outer = _alarm.frame
    frame = Frame(_clock() + timeout, outer)
    try:
        try:
            _alarm.frame = frame
            _arm(_TIMER, timeout if outer is None else _until_next(frame), AGAIN_S)
            result = work(*args, **kwargs)
        finally:
            _alarm.frame = outer
    except StopWork as stop:
        if stop.frame is not frame:
            raise
    finally:
        _alarm.frame = outer
        if outer is None:
            _arm(_TIMER, 0.0)
        else:
            _arm(_TIMER, _until_next(outer), AGAIN_S)
    if frame.fired:
        raise DeadlineExceededError(f"{function} did not answer within {timeout:g} s and was stopped")
    return result


def _until_next(frame: Frame) -> float:
    """Seconds until the first deadline of a call and those around it. Never 0, which would switch the timer off."""
    first = frame.deadline
    around = frame.outer
    while around is not None:
        first = min(first, around.deadline)
        around = around.outer
    return max(first - _clock(), 1e-6)


def _on_alarm(_number: int, _frame: object) -> None:
    """Raise in the outermost call whose time is up: the calls inside it end with it."""
    now = _clock()
    late: Frame | None = None
    frame = _alarm.frame
    while frame is not None:
        if now >= frame.deadline:
            late = frame
        frame = frame.outer
    if late is not None:
        late.fired = True
        raise StopWork(late)


def _take_signal() -> bool:
    """Install the handler unless somebody else's is there: another's alarm is never taken away."""
    if signal.getsignal(signal.SIGALRM) not in (signal.SIG_DFL, signal.SIG_IGN):
        return False
    signal.signal(signal.SIGALRM, _on_alarm)
    return True
